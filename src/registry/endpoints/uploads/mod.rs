//! `/v2/<name>/blobs/uploads/` and `/v2/<name>/blobs/uploads/<id>`
//!
//! A blob's bytes never stay here: the proxy streams them to the store, and they are hashed as they
//! pass. What the client gets as `Location` says how far its session has got, so that the next chunk
//! can stream at once; whether that is true is looked up beside the stream, before its end goes.
//!
//! Source: OCI distribution specification, "Pushing blobs".

mod append;
#[cfg(test)]
mod costs;
mod finish;
mod start;
mod status;
#[cfg(test)]
mod streamed_body;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::header::{CONTENT_RANGE, HeaderName, LOCATION, RANGE};
use http::{HeaderValue, Response, StatusCode};

pub use append::append;
pub use finish::finish;
pub use start::start;
pub use status::{cancel, status};

use crate::oci::{Algorithm, Digest, DigestError, Hasher, Name, UploadId, parse_decimal};
use crate::registry::Request;
use crate::registry::body::{Hashing, RequestBody};
use crate::registry::http::error::{Error, ErrorCode, being_collected};
use crate::registry::http::reply::{DOCKER_CONTENT_DIGEST, DOCKER_UPLOAD_UUID, bare};
use crate::registry::lookout::Lookout;
use crate::store::{
    Progress, Session, SessionState, Store, StoreError, Uploads, WriteTarget, layout,
};

/// Where an upload goes on, as the `Location` that the client was given says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct UploadOffset {
    /// Where the next chunk goes, in bytes; `None` if the client left that out.
    offset: Option<u64>,
    /// The algorithm that the blob is hashed with.
    algorithm: Algorithm,
}

impl UploadOffset {
    /// Reads the query of a request to a session.
    fn of(request: &Request) -> Result<Self, Error> {
        let offset = match request.query_values("offset").next() {
            None => None,
            Some(text) => {
                let invalid =
                    || Error::new(ErrorCode::BlobUploadInvalid, "offset must be a number of bytes");
                Some(parse_decimal(&text).ok_or_else(invalid)?)
            }
        };
        let algorithm = algorithm(request, "algorithm")?.unwrap_or(Algorithm::Sha256);
        Ok(Self { offset, algorithm })
    }

    fn at(offset: u64, algorithm: Algorithm) -> Self {
        Self { offset: Some(offset), algorithm }
    }
}

/// The algorithm that a query parameter names.
fn algorithm(request: &Request, parameter: &str) -> Result<Option<Algorithm>, Error> {
    let Some(name) = request.query_values(parameter).next() else {
        return Ok(None);
    };
    let unknown = || {
        Error::new(ErrorCode::DigestInvalid, "the digest algorithm must be sha256 or sha512")
            .with_detail(&*name)
    };
    Algorithm::from_name(&name).map(Some).ok_or_else(unknown)
}

/// The digest of the query parameter `digest`.
fn digest(request: &Request) -> Result<Option<Digest>, Error> {
    let Some(text) = request.query_values("digest").next() else {
        return Ok(None);
    };
    let invalid = |error: DigestError| {
        Error::new(ErrorCode::DigestInvalid, error.to_string()).with_detail(&*text)
    };
    text.parse().map(Some).map_err(invalid)
}

/// The offsets of the first and the last byte, from `Content-Range: <first>-<last>`. `bytes ` may
/// stand before them, and a length after them, as in RFC 9110.
fn content_range(request: &Request) -> Result<Option<(u64, u64)>, Error> {
    let Some(value) = request.header_value(CONTENT_RANGE) else {
        return Ok(None);
    };
    let parse = |value: &str| {
        let value =
            value.strip_prefix("bytes").map_or(value, |rest| rest.trim_start_matches([' ', '=']));
        let (first, last) = value.trim().split('/').next()?.split_once('-')?;
        let (first, last) = (parse_decimal(first)?, parse_decimal(last)?);
        (first <= last).then_some((first, last))
    };
    let malformed =
        || Error::new(ErrorCode::RangeInvalid, "Content-Range must have the form <first>-<last>");
    parse(value).map(Some).ok_or_else(malformed)
}

/// Whether a body is as long as its `Content-Range` says.
fn check_length(range: Option<(u64, u64)>, length: u64) -> Result<(), Error> {
    match range {
        Some((first, last)) if last - first != length.wrapping_sub(1) => {
            let message = "the body is not as long as Content-Range says";
            Err(Error::new(ErrorCode::SizeInvalid, message))
        }
        _ => Ok(()),
    }
}

/// A new id for a session, a chunk or a list of chunks.
fn fresh_id(request: &Request) -> UploadId {
    UploadId::from_random(request.environment.nonce().bits())
}

/// The progress of a session, if it has got as far as the client says.
///
/// # Errors
///
/// `BLOB_UPLOAD_UNKNOWN` for a session that is not there, `RANGE_INVALID` for one that is elsewhere;
/// the answer then says where.
async fn progress_at(
    store: &(impl Store + Uploads),
    session: &Session,
    place: UploadOffset,
) -> Result<Progress, Error> {
    let offset = match place.offset {
        Some(offset) if offset > 0 => offset,
        // Only the folder can tell that nothing has come yet.
        claimed => {
            let state = session_state(store, session).await?;
            match (claimed, state.offset) {
                (_, 0) => return Ok(Progress::default()),
                (Some(_), actual) => return Err(range_mismatch(session, place, actual)),
                (None, actual) => actual,
            }
        }
    };
    match store.upload_progress(session, offset).await? {
        Some(progress) => Ok(progress),
        None => {
            let state = session_state(store, session).await?;
            Err(range_mismatch(session, place, state.offset))
        }
    }
}

async fn session_state(store: &impl Uploads, session: &Session) -> Result<SessionState, Error> {
    let state = store.upload_state(session).await?;
    state.ok_or_else(|| {
        let message = "there is no such upload; it may have been closed, cancelled or purged";
        Error::new(ErrorCode::BlobUploadUnknown, message).with_detail(session.id.as_str())
    })
}

/// The range that was sent does not come next: the answer says what does.
fn range_mismatch(session: &Session, place: UploadOffset, offset: u64) -> Error {
    let message = format!("the upload goes on at byte {offset}");
    let mut error = Error::new(ErrorCode::RangeInvalid, message);
    for (name, value) in progress_headers(session, UploadOffset::at(offset, place.algorithm)) {
        error = error.with_header(name, value);
    }
    error
}

/// The reply that tells where a session is.
fn progress_reply(status: StatusCode, session: &Session, place: UploadOffset) -> Response<Bytes> {
    let mut response = bare(status);
    response.headers_mut().extend(progress_headers(session, place));
    response
}

fn progress_headers(session: &Session, place: UploadOffset) -> Vec<(HeaderName, HeaderValue)> {
    let Session { name, id } = session;
    let offset = place.offset.unwrap_or(0);
    let algorithm = match place.algorithm {
        Algorithm::Sha256 => String::new(),
        other => format!("&algorithm={}", other.as_str()),
    };
    // Of nothing, the range is `0-0` as well: the API has no way to write an empty one.
    let range = format!("0-{}", offset.saturating_sub(1));
    let headers = [
        (LOCATION, format!("/v2/{name}/blobs/uploads/{id}?offset={offset}{algorithm}")),
        (RANGE, range),
        (DOCKER_UPLOAD_UUID, id.to_string()),
    ];
    let headers = headers.into_iter();
    // Names, ids and numbers are all made of characters that a header may have.
    headers.filter_map(|(name, text)| Some((name, HeaderValue::try_from(text).ok()?))).collect()
}

/// Puts a stored blob into the repository, unless a collection of garbage may remove it: `false` then. The lookout began
/// before anybody relied on the blob's being stored. One call, unless that was long ago.
async fn link(
    store: &(impl Store + Uploads),
    name: &Name,
    digest: &Digest,
    lookout: Lookout<'_>,
) -> Result<bool, StoreError> {
    store.link_blob(name, digest).await?;
    let keys = || [layout::blob_link(name, digest), layout::content(digest)];
    // The link, too, may have come just before one that was condemned was removed.
    lookout.end(store, keys, async || store.has_blob(name, digest).await).await
}

/// The same, for a blob that the client has uploaded.
async fn link_uploaded(
    store: &(impl Store + Uploads),
    name: &Name,
    digest: &Digest,
    lookout: Lookout<'_>,
) -> Result<(), Error> {
    match link(store, name, digest, lookout).await? {
        true => Ok(()),
        false => Err(being_collected(digest)),
    }
}

/// Begins to look out for a collection of garbage.
async fn look_out<'r>(request: &'r Request, store: &impl Store) -> Result<Lookout<'r>, Error> {
    Ok(Lookout::begin(store, &*request.environment).await?)
}

/// The reply when the repository has the blob.
fn created(name: &Name, digest: &Digest) -> Response<Bytes> {
    let mut response = bare(StatusCode::CREATED);
    let headers = [
        (LOCATION, format!("/v2/{name}/blobs/{digest}")),
        (DOCKER_CONTENT_DIGEST, digest.to_string()),
    ];
    for (name, text) in headers {
        response.headers_mut().extend(HeaderValue::try_from(text).ok().map(|value| (name, value)));
    }
    response
}

fn digest_invalid(digest: &Digest) -> Error {
    let message = format!("the blob does not have the digest {digest}");
    Error::new(ErrorCode::DigestInvalid, message).with_detail(digest.as_str())
}

/// Streams a body to where content of the digest is stored. The store verifies it by its SHA-256 if it
/// is known to do that; otherwise it is hashed as it passes, and not even the checksum is sent: a store
/// that knows no such header may refuse it.
fn forward_content(body: &impl RequestBody, store: &impl Uploads, digest: &Digest) {
    let algorithm = digest.algorithm();
    let store_verifies = store.known_to_verify_checksums() == Some(true);
    let (sha256, hashing) = if algorithm == Algorithm::Sha256 && store_verifies {
        (Some(digest.clone()), Hashing::Off)
    } else {
        (None, Hashing::With(Box::new(Hasher::new(algorithm))))
    };
    body.forward(WriteTarget::Content(digest.clone()), sha256, hashing);
}

/// Lets the end of a body go whose whole is content of the digest, unless it is known not to be.
async fn complete_content(body: &impl RequestBody, digest: &Digest) -> Result<(), Error> {
    if body.has_lost_hash() {
        let message = "the blob could not be hashed on its way; send it again";
        return Err(Error::new(ErrorCode::Unavailable, message));
    }
    if body.take_hasher().is_some_and(|hasher| hasher.finish() != *digest) {
        return Err(digest_invalid(digest));
    }
    Ok(body.complete().await.into_result()?)
}

/// Finds out, if that is not known, whether the store verifies checksums. Nothing depends on it but
/// speed, so failing to find out is no failure.
async fn learn_about_checksums(store: &impl Uploads) -> Result<(), Error> {
    if store.known_to_verify_checksums().is_none()
        && let Err(error) = store.verifies_checksums().await
    {
        log::warn!("it is not known whether the blob store verifies checksums: {error}");
    }
    Ok(())
}

/// Removes what is left of a session whose blob is where it belongs. What can't be removed is purged in
/// time: that is no reason to tell the client that the upload failed.
async fn end(store: &impl Uploads, session: &Session, state: Option<&SessionState>) {
    if let Some(state) = state
        && let Err(error) = store.end_upload(session, state).await
    {
        log::warn!("something is left of the upload {} of {}: {error}", session.id, session.name);
    }
}
