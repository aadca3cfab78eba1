//! From a request's target to the endpoint of the API it means.
//!
//! The target's segments are percent-decoded one by one, after the path was split: `%2f` is part of
//! a segment and never a separator. Nothing is normalised. `..`, an empty segment or a NUL is simply
//! no part of any valid name.

use std::str::FromStr;

use percent_encoding::percent_decode_str;

use crate::oci::{
    Digest, DigestError, Name, NameError, Reference, ReferenceError, UploadId, UploadIdError,
};
use crate::registry::http::error::{Error, ErrorCode};

/// The endpoints of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v2/`: whether the API is spoken here.
    Base,
    /// `/v2/<name>/manifests/<reference>`
    Manifest {
        /// The repository.
        name: Name,
        /// The manifest's tag or digest.
        reference: Reference,
    },
    /// `/v2/<name>/blobs/<digest>`
    Blob {
        /// The repository.
        name: Name,
        /// The blob's digest.
        digest: Digest,
    },
    /// `/v2/<name>/blobs/uploads/`
    Uploads {
        /// The repository.
        name: Name,
    },
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload {
        /// The repository.
        name: Name,
        /// The upload session.
        id: UploadId,
    },
    /// `/v2/<name>/tags/list`
    Tags {
        /// The repository.
        name: Name,
    },
    /// `/v2/<name>/referrers/<digest>`
    Referrers {
        /// The repository.
        name: Name,
        /// The digest of the manifest that is referred to.
        subject: Digest,
    },
    /// `/v2/_catalog`
    Catalog,
    /// `/auth/token`: where clients get tokens. It is no part of the API; challenges lead there.
    Token,
    /// `/healthz`: whether the module answers.
    Health,
    /// `/readyz`: whether the store answers.
    Ready,
}

/// The path of the token endpoint.
pub const TOKEN_PATH: &str = "/auth/token";

impl Endpoint {
    /// Finds the endpoint that `target` (a path and perhaps a query) means.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NoSuchEndpoint`] where the path has the shape of no endpoint, and
    /// `NAME_INVALID`, `TAG_INVALID`, `DIGEST_INVALID` or `BLOB_UPLOAD_UNKNOWN` where one of its parts
    /// is malformed.
    pub fn parse(target: &str) -> Result<Self, Error> {
        let path = target.split_once('?').map_or(target, |(path, _query)| path);
        if matches!(path, "/v2" | "/v2/") {
            return Ok(Self::Base);
        }
        if path == TOKEN_PATH {
            return Ok(Self::Token);
        }
        match path {
            "/healthz" => return Ok(Self::Health),
            "/readyz" => return Ok(Self::Ready),
            _ => {}
        }
        // No repository's name begins with an underscore.
        if path == "/v2/_catalog" {
            return Ok(Self::Catalog);
        }
        // Names may themselves contain the words `manifests` and `blobs`, so the path is read from
        // its end.
        let mut parts = path.strip_prefix("/v2/").ok_or_else(no_such_endpoint)?.rsplitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(reference), Some("manifests"), Some(name)) => Ok(Self::Manifest {
                name: parse_name(name)?,
                reference: parse_reference(reference)?,
            }),
            (Some("uploads"), Some("blobs"), Some(name)) => {
                Ok(Self::Uploads { name: parse_name(name)? })
            }
            (Some(id), Some("uploads"), Some(parent)) => {
                let name = parent.strip_suffix("/blobs").ok_or_else(no_such_endpoint)?;
                let name = parse_name(name)?;
                Ok(match id {
                    "" => Self::Uploads { name },
                    id => Self::Upload { name, id: parse_upload_id(id)? },
                })
            }
            (Some("list"), Some("tags"), Some(name)) => Ok(Self::Tags { name: parse_name(name)? }),
            (Some(subject), Some("referrers"), Some(name)) => {
                Ok(Self::Referrers { name: parse_name(name)?, subject: parse_digest(subject)? })
            }
            (Some(digest), Some("blobs"), Some(name)) => {
                Ok(Self::Blob { name: parse_name(name)?, digest: parse_digest(digest)? })
            }
            _ => Err(no_such_endpoint()),
        }
    }
}

impl Endpoint {
    /// The repository that it is of.
    pub fn repository(&self) -> Option<&Name> {
        match self {
            Self::Manifest { name, .. }
            | Self::Blob { name, .. }
            | Self::Uploads { name }
            | Self::Upload { name, .. }
            | Self::Tags { name }
            | Self::Referrers { name, .. } => Some(name),
            Self::Base | Self::Catalog | Self::Token | Self::Health | Self::Ready => None,
        }
    }
}

fn no_such_endpoint() -> Error {
    Error::new(ErrorCode::NoSuchEndpoint, "the path is no endpoint of the registry")
}

fn parse_name(text: &str) -> Result<Name, Error> {
    let name: Name = parse(text).map_err(|error: NameError| {
        Error::new(ErrorCode::NameInvalid, error.to_string()).with_detail(text)
    })?;
    let slashes = |text: &str| text.matches('/').count();
    // Decoded, a separator that was encoded looks like any other.
    if name.as_str() != text && slashes(name.as_str()) > slashes(text) {
        let message = "the slashes of a repository name may not be encoded";
        return Err(Error::new(ErrorCode::NameInvalid, message).with_detail(text));
    }
    Ok(name)
}

fn parse_reference(text: &str) -> Result<Reference, Error> {
    parse(text).map_err(|error| {
        let code = match error {
            ReferenceError::Digest(_) => ErrorCode::DigestInvalid,
            ReferenceError::Tag(_) => ErrorCode::TagInvalid,
        };
        Error::new(code, error.to_string()).with_detail(text)
    })
}

fn parse_digest(text: &str) -> Result<Digest, Error> {
    parse(text).map_err(|error: DigestError| {
        Error::new(ErrorCode::DigestInvalid, error.to_string()).with_detail(text)
    })
}

fn parse_upload_id(text: &str) -> Result<UploadId, Error> {
    // What is no id was never given to a client, so it is as unknown as one that has been forgotten.
    parse(text).map_err(|error: UploadIdError| {
        Error::new(ErrorCode::BlobUploadUnknown, error.to_string()).with_detail(text)
    })
}

/// Parses a part of the path, percent-decoded if it is not valid as it stands: no name, tag, digest or
/// id has a percent sign. Bytes that are no UTF-8 become U+FFFD, which none of them has either.
fn parse<T: FromStr>(text: &str) -> Result<T, T::Err> {
    text.parse().or_else(|error| match text.contains('%') {
        true => percent_decode_str(text).decode_utf8_lossy().parse(),
        false => Err(error),
    })
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const UUID: &str = "01234567-89ab-cdef-0123-456789abcdef";
    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn code_of(target: &str) -> Option<ErrorCode> {
        Endpoint::parse(target).err().map(|error| error.code())
    }

    #[test]
    fn targets_mean_endpoints() {
        let name = |text: &str| text.parse().expect("a valid name");
        let reference = |text: &str| text.parse().expect("a valid reference");
        let manifest = |n, r| Endpoint::Manifest { name: name(n), reference: reference(r) };
        let digest = format!("sha256:{HEX}");
        let rows = [
            ("/v2".to_owned(), Endpoint::Base),
            ("/v2/".to_owned(), Endpoint::Base),
            ("/v2/?x=y".to_owned(), Endpoint::Base),
            ("/v2/a/manifests/t".to_owned(), manifest("a", "t")),
            ("/v2/a/b/manifests/t?ns=x/y".to_owned(), manifest("a/b", "t")),
            ("/v2/manifests/manifests/manifests".to_owned(), manifest("manifests", "manifests")),
            (
                "/v2/a/manifests/b/blobs/manifests/t".to_owned(),
                manifest("a/manifests/b/blobs", "t"),
            ),
            (format!("/v2/a/manifests/{digest}"), manifest("a", &digest)),
            (format!("/v2/a/manifests/sha256%3A{HEX}"), manifest("a", &digest)),
            ("/v2/%61/manifests/%74".to_owned(), manifest("a", "t")),
            (
                format!("/v2/a/blobs/{digest}"),
                Endpoint::Blob { name: name("a"), digest: digest.parse().expect("a valid digest") },
            ),
            ("/v2/a/blobs/uploads/".to_owned(), Endpoint::Uploads { name: name("a") }),
            ("/v2/a/blobs/uploads?digest=x".to_owned(), Endpoint::Uploads { name: name("a") }),
            (
                format!("/v2/a/b/blobs/uploads/{UUID}?offset=1"),
                Endpoint::Upload { name: name("a/b"), id: UUID.parse().expect("a valid id") },
            ),
            ("/v2/a/tags/list?n=1".to_owned(), Endpoint::Tags { name: name("a") }),
            ("/v2/_catalog?n=1".to_owned(), Endpoint::Catalog),
            (
                format!("/v2/a/referrers/{digest}"),
                Endpoint::Referrers {
                    name: name("a"),
                    subject: digest.parse().expect("a valid digest"),
                },
            ),
        ];
        for (target, endpoint) in rows {
            assert_eq!(Endpoint::parse(&target), Ok(endpoint), "{target}");
        }
    }

    #[test]
    fn other_paths_are_no_endpoint() {
        for target in [
            "",
            "/",
            "*",
            "/v1/",
            "/v2x",
            "/v2//",
            "//v2/",
            "/v2/a",
            "/v2/a/",
            "/v2/manifests/t",
            "/v2/a/manifest/t",
            "/v2/a/manifests/t/",
            "/v2/a/Manifests/t",
            "/v3/a/manifests/t",
            "/v2/a/%6danifests/t",
            "/registry/docker/registry/v2/x",
            "/v2/a/tags/other",
            "/v2/a/uploads/x",
        ] {
            assert_eq!(code_of(target), Some(ErrorCode::NoSuchEndpoint), "{target}");
        }
    }

    #[test]
    fn malformed_parts_have_their_own_codes() {
        use ErrorCode::{BlobUploadUnknown, DigestInvalid, NameInvalid, TagInvalid};
        for (target, code) in [
            ("/v2//manifests/t", NameInvalid),
            ("/v2/A/manifests/t", NameInvalid),
            ("/v2/a//b/manifests/t", NameInvalid),
            ("/v2/../manifests/t", NameInvalid),
            ("/v2/a/../b/manifests/t", NameInvalid),
            ("/v2/a%2fb/manifests/t", NameInvalid),
            ("/v2/a%2Fb/manifests/t", NameInvalid),
            ("/v2/%2e%2e/manifests/t", NameInvalid),
            ("/v2/a%00/manifests/t", NameInvalid),
            ("/v2/a%/manifests/t", NameInvalid),
            ("/v2/a%ff/manifests/t", NameInvalid),
            ("/v2/a/_manifests/manifests/t", NameInvalid),
            ("/v2/a/manifests/", TagInvalid),
            ("/v2/a/manifests/..", TagInvalid),
            ("/v2/a/manifests/%2e%2e", TagInvalid),
            ("/v2/a/manifests/t%2fu", TagInvalid),
            ("/v2/a/manifests/t%00", TagInvalid),
            ("/v2/a/manifests/sha256:12", DigestInvalid),
            ("/v2/a/manifests/md5:d41d8cd98f00b204e9800998ecf8427e", DigestInvalid),
            ("/v2/a/blobs/latest", DigestInvalid),
            ("/v2/a/blobs/sha256:..", DigestInvalid),
            ("/v2/a/referrers/latest", DigestInvalid),
            ("/v2/A/tags/list", NameInvalid),
            ("/v2/A/blobs/uploads/", NameInvalid),
            ("/v2/a/blobs/uploads/..", BlobUploadUnknown),
            ("/v2/a/blobs/uploads/0123", BlobUploadUnknown),
        ] {
            assert_eq!(code_of(target), Some(code), "{target}");
        }
        let long = "a".repeat(300);
        assert_eq!(code_of(&format!("/v2/{long}/manifests/t")), Some(NameInvalid));
        assert_eq!(code_of(&format!("/v2/a/manifests/{long}")), Some(TagInvalid));
    }
}
