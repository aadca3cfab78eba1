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
#[cfg(test)]
mod scene;
mod start;
mod status;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::header::{CONTENT_RANGE, HeaderName, LOCATION, RANGE};
use http::{HeaderValue, Response, StatusCode};
use sha2::{Digest as _, Sha256};

pub use append::append;
pub use finish::finish;
pub use start::start;
pub use status::{cancel, status};

use super::error::{Error, ErrorCode};
use super::hasher::Hasher;
use super::incoming::{Hashing, Incoming, WriteTarget};
use super::reference::{Algorithm, Digest, Name, UploadId};
use super::{DOCKER_CONTENT_DIGEST, Request};
use crate::store::{Progress, Session, SessionState, Store, Uploads};

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// What the `Location` of a session says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Where the next chunk goes, in bytes; `None` if the client left that out.
    offset: Option<u64>,
    /// What the blob is hashed with.
    algorithm: Algorithm,
}

impl Place {
    /// Reads the query of a request to a session.
    fn of(request: &Request) -> Result<Self, Error> {
        let offset = match request.query_values("offset").next() {
            None => None,
            Some(text) => {
                let invalid = || Error::new(ErrorCode::BlobUploadInvalid, "offset is no number");
                Some(parse_number(&text).ok_or_else(invalid)?)
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
    let invalid = |error: super::reference::DigestError| {
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
        let (first, last) = (parse_number(first)?, parse_number(last)?);
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

/// Digits only: the number parser of the standard library would take a sign as well.
fn parse_number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// An id for a session or a chunk. `purpose` keeps apart what one request needs.
fn fresh_id(request: &Request, purpose: &str) -> UploadId {
    let mut hasher = Sha256::new();
    hasher.update(request.stamp.random);
    hasher.update(purpose);
    let hash = hasher.finalize();
    UploadId::from_random(hash.iter().take(16).fold(0, |bits, byte| bits << 8 | u128::from(*byte)))
}

/// What a session has taken in, if it is where the client says.
///
/// # Errors
///
/// `BLOB_UPLOAD_UNKNOWN` for a session that is not there, `RANGE_INVALID` for one that is elsewhere;
/// the answer then says where.
async fn progress_at(
    store: &(impl Store + Uploads),
    session: &Session,
    place: Place,
) -> Result<Progress, Error> {
    let offset = match place.offset {
        Some(offset) if offset > 0 => offset,
        // Only the folder can tell that nothing has come yet.
        claimed => {
            let state = session_state(store, session).await?;
            match (claimed, state.offset) {
                (_, 0) => return Ok(Progress::default()),
                (Some(_), actual) => return Err(elsewhere(session, place, actual)),
                (None, actual) => actual,
            }
        }
    };
    match store.upload_progress(session, offset).await? {
        Some(progress) => Ok(progress),
        None => {
            let state = session_state(store, session).await?;
            Err(elsewhere(session, place, state.offset))
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
fn elsewhere(session: &Session, place: Place, offset: u64) -> Error {
    let message = format!("the upload goes on at byte {offset}");
    let mut error = Error::new(ErrorCode::RangeInvalid, message);
    for (name, value) in progress_headers(session, Place::at(offset, place.algorithm)) {
        error = error.with_header(name, value);
    }
    error
}

/// The reply that tells where a session is.
fn progress_reply(status: StatusCode, session: &Session, place: Place) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response.headers_mut().extend(progress_headers(session, place));
    response
}

fn progress_headers(session: &Session, place: Place) -> Vec<(HeaderName, HeaderValue)> {
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
        (UPLOAD_UUID, id.to_string()),
    ];
    let headers = headers.into_iter();
    // Names, ids and numbers are all made of characters that a header may have.
    headers.filter_map(|(name, text)| Some((name, HeaderValue::try_from(text).ok()?))).collect()
}

/// The reply when the repository has the blob.
fn created(name: &Name, digest: &Digest) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::CREATED;
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
fn forward_content(incoming: &impl Incoming, store: &impl Uploads, digest: &Digest) {
    let algorithm = digest.algorithm();
    let store_verifies = store.known_to_verify_checksums() == Some(true);
    let (sha256, hashing) = if algorithm == Algorithm::Sha256 && store_verifies {
        (Some(digest.clone()), Hashing::Off)
    } else {
        (None, Hashing::With(Box::new(Hasher::new(algorithm))))
    };
    incoming.forward(WriteTarget::Content(digest.clone()), sha256, hashing);
}

/// Lets the end of a body go whose whole is content of the digest, unless it is known not to be.
async fn complete_content(incoming: &impl Incoming, digest: &Digest) -> Result<(), Error> {
    if incoming.take_hasher().is_some_and(|hasher| hasher.finish() != *digest) {
        return Err(digest_invalid(digest));
    }
    incoming.complete().await.judge()
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
