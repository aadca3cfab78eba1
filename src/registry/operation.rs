//! What a request does, as metrics and the access log name it. Access control has operations of its own, of which there are
//! fewer: [`super::access::Operation`].

use http::Method;

use super::http::error::Error;
use super::route::Endpoint;

/// What a request does, in the words of the metrics and the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Whether the API is spoken here.
    Base,
    /// A manifest is pulled, or asked for.
    ManifestGet,
    /// A manifest is pushed.
    ManifestPut,
    /// A manifest or tag is deleted.
    ManifestDelete,
    /// A blob is pulled, or asked for.
    BlobGet,
    /// A blob is deleted.
    BlobDelete,
    /// An upload begins, which may be all of it, or a mount.
    UploadStart,
    /// A chunk is uploaded.
    UploadAppend,
    /// An upload is closed.
    UploadFinish,
    /// An upload is given up.
    UploadCancel,
    /// An upload is asked for how far it has come.
    UploadStatus,
    /// Tags are listed.
    TagsList,
    /// Repositories are listed.
    CatalogList,
    /// Referrers are listed.
    ReferrersList,
    /// A token is asked for.
    Token,
    /// Whether the module answers.
    Health,
    /// Whether the store answers.
    Ready,
    /// None of the API's.
    None,
}

impl Operation {
    /// What a request with this method to this endpoint does. A method that the endpoint does not have is none of its
    /// operations, but for what it might be taken for.
    pub fn of(method: &Method, endpoint: &Result<Endpoint, Error>) -> Self {
        let Ok(endpoint) = endpoint else {
            return Self::None;
        };
        match (endpoint, method) {
            (Endpoint::Base, _) => Self::Base,
            (Endpoint::Manifest { .. }, &Method::PUT) => Self::ManifestPut,
            (Endpoint::Manifest { .. }, &Method::DELETE) => Self::ManifestDelete,
            (Endpoint::Manifest { .. }, _) => Self::ManifestGet,
            (Endpoint::Blob { .. }, &Method::DELETE) => Self::BlobDelete,
            (Endpoint::Blob { .. }, _) => Self::BlobGet,
            (Endpoint::Uploads { .. }, _) => Self::UploadStart,
            (Endpoint::Upload { .. }, &Method::PATCH) => Self::UploadAppend,
            (Endpoint::Upload { .. }, &Method::PUT) => Self::UploadFinish,
            (Endpoint::Upload { .. }, &Method::DELETE) => Self::UploadCancel,
            (Endpoint::Upload { .. }, _) => Self::UploadStatus,
            (Endpoint::Tags { .. }, _) => Self::TagsList,
            (Endpoint::Catalog, _) => Self::CatalogList,
            (Endpoint::Referrers { .. }, _) => Self::ReferrersList,
            (Endpoint::Token, _) => Self::Token,
            (Endpoint::Health, _) => Self::Health,
            (Endpoint::Ready, _) => Self::Ready,
        }
    }

    /// How it is written in metrics and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::ManifestGet => "manifest_get",
            Self::ManifestPut => "manifest_put",
            Self::ManifestDelete => "manifest_delete",
            Self::BlobGet => "blob_get",
            Self::BlobDelete => "blob_delete",
            Self::UploadStart => "upload_start",
            Self::UploadAppend => "upload_append",
            Self::UploadFinish => "upload_finish",
            Self::UploadCancel => "upload_cancel",
            Self::UploadStatus => "upload_status",
            Self::TagsList => "tags_list",
            Self::CatalogList => "catalog_list",
            Self::ReferrersList => "referrers_list",
            Self::Token => "token",
            Self::Health => "health",
            Self::Ready => "ready",
            Self::None => "none",
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn every_request_has_an_operation() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let upload = "/v2/a/blobs/uploads/0b0f4ed6-9c1c-4b9c-9d0e-5c1f1a1b2c3d";
        for (method, target, expected) in [
            (Method::GET, "/v2/".to_owned(), "base"),
            (Method::HEAD, "/v2/a/manifests/t".to_owned(), "manifest_get"),
            (Method::PUT, "/v2/a/manifests/t".to_owned(), "manifest_put"),
            (Method::DELETE, "/v2/a/manifests/t".to_owned(), "manifest_delete"),
            (Method::GET, format!("/v2/a/blobs/{digest}"), "blob_get"),
            (Method::DELETE, format!("/v2/a/blobs/{digest}"), "blob_delete"),
            (Method::POST, "/v2/a/blobs/uploads/".to_owned(), "upload_start"),
            (Method::PATCH, upload.to_owned(), "upload_append"),
            (Method::PUT, format!("{upload}?digest={digest}"), "upload_finish"),
            (Method::DELETE, upload.to_owned(), "upload_cancel"),
            (Method::GET, upload.to_owned(), "upload_status"),
            (Method::GET, "/v2/a/tags/list".to_owned(), "tags_list"),
            (Method::GET, "/v2/_catalog".to_owned(), "catalog_list"),
            (Method::GET, format!("/v2/a/referrers/{digest}"), "referrers_list"),
            (Method::GET, "/auth/token".to_owned(), "token"),
            (Method::GET, "/healthz".to_owned(), "health"),
            (Method::GET, "/readyz".to_owned(), "ready"),
            (Method::GET, "/v2/..%2f/manifests/t".to_owned(), "none"),
            (Method::GET, "/".to_owned(), "none"),
        ] {
            let operation = Operation::of(&method, &Endpoint::parse(&target));
            assert_eq!(operation.as_str(), expected, "{method} {target}");
        }
    }
}
