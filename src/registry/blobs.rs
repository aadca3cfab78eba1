//! `/v2/<name>/blobs/<digest>`
//!
//! A blob never passes through this code: the proxy streams it from the store. What is here decides
//! whether it may, and what the client sees of the store's answer.
//!
//! Source: OCI distribution specification, "Pulling blobs".

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, IF_NONE_MATCH,
    IF_RANGE, RANGE,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::conditional::{IfNoneMatch, if_range_holds};
use super::error::{Error, ErrorCode};
use super::manifests::{identity, not_modified};
use super::range::ByteRange;
use super::reference::{Digest, Name};
use super::{Answer, Request, with_api_version};
use crate::store::{Fault, Store};

/// Content under a digest never changes: a year, the longest that caches care for.
const CACHE_FOR_GOOD: HeaderValue = HeaderValue::from_static("max-age=31536000, immutable");

/// A blob on its way from the store to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobStream {
    /// `GET` or `HEAD`: how the store is to be asked.
    pub method: Method,
    /// The digest under which the content is stored.
    pub content: Digest,
    /// The part of it that the client asked for.
    pub range: Option<ByteRange>,
    /// The digest that the client asked for.
    digest: Digest,
}

/// What the client sees of the store's answer.
#[derive(Debug)]
pub enum StreamAnswer {
    /// The store's body, under this status and these headers instead of the store's own.
    Forward(StatusCode, HeaderMap),
    /// Nothing of it: this instead, once the store's body has been read into
    /// [`BlobStream::failure`].
    Fail,
}

/// `GET` and `HEAD`: one wave of storage calls, then the stream.
pub async fn get(
    request: &Request,
    store: &impl Store,
    name: &Name,
    digest: Digest,
) -> Result<Answer, Error> {
    if request.has_body {
        // It would be streamed to the store together with the request.
        let message = "a request for a blob has no body";
        return Err(Error::new(ErrorCode::SizeInvalid, message));
    }
    let content = store
        .blob_link(name, &digest)
        .await?
        .ok_or_else(|| blob_unknown(&digest))?;
    if IfNoneMatch::parse(request.header_values(IF_NONE_MATCH)).matches(&digest) {
        return Ok(Answer::Reply(not_modified(&digest)));
    }
    Ok(Answer::Stream(BlobStream {
        method: request.method.clone(),
        content,
        range: requested_range(request, &digest),
        digest,
    }))
}

/// The part of the blob to send. `Range` has a meaning for `GET` only (RFC 9110, section 14.2).
fn requested_range(request: &Request, digest: &Digest) -> Option<ByteRange> {
    let mut if_range = request.header_values(IF_RANGE);
    let applies =
        request.method == Method::GET && if_range.all(|value| if_range_holds(value, digest));
    let range = request.headers.get(RANGE).filter(|_| applies)?;
    ByteRange::parse(range.to_str().ok()?)
}

fn blob_unknown(digest: &Digest) -> Error {
    let message = "the repository has no such blob";
    Error::new(ErrorCode::BlobUnknown, message).with_detail(digest.as_str())
}

impl BlobStream {
    /// Decides on the status and headers of the store's answer.
    ///
    /// Of the store's headers only those that describe the bytes are kept. The rest tells about the
    /// store, not about the blob.
    pub fn answer(&self, status: StatusCode, store_headers: &HeaderMap) -> StreamAnswer {
        let is_expected = match status {
            StatusCode::OK => true,
            StatusCode::PARTIAL_CONTENT => self.range.is_some(),
            _ => false,
        };
        if !is_expected {
            return StreamAnswer::Fail;
        }
        let mut response = with_api_version(Response::new(()));
        let headers = response.headers_mut();
        for name in [CONTENT_LENGTH, CONTENT_RANGE] {
            if let Some(value) = store_headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        let octets = HeaderValue::from_static("application/octet-stream");
        headers.insert(CONTENT_TYPE, octets);
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(CACHE_CONTROL, CACHE_FOR_GOOD);
        headers.extend(identity(&self.digest));
        StreamAnswer::Forward(status, std::mem::take(headers))
    }

    /// The answer in place of the store's, when that was no blob: `status` and `body` are the
    /// store's.
    pub fn failure(&self, status: StatusCode, body: &[u8]) -> Response<Bytes> {
        let error = match Fault::of(status, body) {
            Fault::NoSuchKey => blob_unknown(&self.digest),
            // A HEAD's answer has no body to tell what is missing. The link was read from the same
            // bucket a moment ago, so it is the object.
            _ if status == StatusCode::NOT_FOUND && self.method == Method::HEAD => {
                blob_unknown(&self.digest)
            }
            _ if status == StatusCode::RANGE_NOT_SATISFIABLE && self.range.is_some() => {
                let message = "the range lies outside the blob";
                Error::new(ErrorCode::RangeInvalid, message).with_detail(self.digest.as_str())
            }
            Fault::Other(error) => error.into(),
        };
        with_api_version(error.into_response())
    }
}
