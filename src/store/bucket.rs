//! The objects of an S3-compatible bucket.

use std::cell::Cell;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::fault::{Fault, StoreError, StoreErrorKind};
use super::layout::{self, Key};
use super::objects::{
    Condition, Content, Cursor, ListRequest, Listed, Object, Objects, Page, Start, Version,
};
use super::s3::{self, Http, HttpError, HttpRequest, HttpResponse, Patience};
use crate::config::StoreConfig;
use crate::registry::reference::Digest;
use crate::registry::{BlobStream, ByteRange, StreamedWrite, WriteTarget};

/// What S3 encodes in the values of a query: all but unreserved characters.
pub(super) const QUERY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What has Envoy repeat a request, twice at most, with growing pauses of 25 to 250 ms. It takes these
/// headers out again, and its load balancing goes on to the next node. (Envoy, HTTP filters, Router:
/// `x-envoy-retry-on`, `x-envoy-max-retries`.)
const REPEATED_BY_THE_PROXY: [(&str, &str); 2] =
    [("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "2")];

/// A bucket that is reached over `H`.
#[derive(Debug)]
pub struct Bucket<H> {
    http: H,
    authority: String,
    name: String,
    /// The path of the bucket itself, with a slash at its end.
    root: String,
    /// What stands before a key within the bucket.
    prefix: String,
    content_limit: u64,
    heeds_conditions: Cell<Option<bool>>,
    pub(super) refuses_wrong_checksums: Cell<Option<bool>>,
}

impl<H: Http> Bucket<H> {
    /// The bucket that `config` describes. `content_limit` is the largest content, in bytes, that is
    /// read into memory.
    pub fn new(http: H, config: &StoreConfig, content_limit: u64) -> Self {
        Self {
            http,
            authority: config.request_authority(),
            name: config.bucket.clone(),
            root: config.bucket_path(),
            prefix: config.key_prefix(),
            content_limit,
            heeds_conditions: Cell::new(None),
            refuses_wrong_checksums: Cell::new(None),
        }
    }

    /// What the bucket is reached over.
    pub fn http(&self) -> &H {
        &self.http
    }

    /// The request with which the proxy streams a blob from the store.
    pub fn stream_request(&self, stream: &BlobStream) -> HttpRequest {
        let mut request = self.request(stream.method.clone(), &layout::content(&stream.content));
        request.headers.extend(stream.range.map(|range| ("range", range.to_string())));
        request
    }

    /// The request with which the proxy streams a client's body to the store.
    pub fn write_request(&self, write: &StreamedWrite) -> HttpRequest {
        let key = match &write.target {
            WriteTarget::Content(digest) => layout::content(digest),
            WriteTarget::Chunk(session, id) => layout::upload_chunk(&session.name, &session.id, id),
        };
        let mut request = self.request(Method::PUT, &key);
        let length = write.length.map(|length| ("content-length", length.to_string()));
        request.headers.extend(length);
        request.headers.extend(write.sha256.as_ref().map(checksum));
        request
    }

    /// How a request names an object that it copies.
    pub(super) fn copy_source(&self, key: &Key) -> (&'static str, String) {
        ("x-amz-copy-source", format!("/{}/{}{}", self.name, self.prefix, key.as_str()))
    }

    pub(super) fn request(&self, method: Method, key: &Key) -> HttpRequest {
        HttpRequest {
            method,
            authority: self.authority.clone(),
            path: format!("{}{}{}", self.root, self.prefix, key.as_str()),
            headers: Vec::new(),
            body: Bytes::new(),
            wants_version: false,
            patience: Patience::Ordinary,
        }
    }

    /// Sends a request that may be repeated: what a distributed store gets wrong once is mostly right
    /// the second time, and at another node. The proxy repeats it, after a pause, when the connection
    /// fails or the store errs, all within the time of one call. What it can't repeat is a request whose
    /// answer has begun and breaks off, so that is sent once more from here. A request that timed out is
    /// not repeated, since the client has waited long enough.
    pub(super) async fn send(&self, request: &HttpRequest) -> Result<HttpResponse, StoreError> {
        let mut repeatable = request.clone();
        repeatable
            .headers
            .extend(REPEATED_BY_THE_PROXY.map(|(name, value)| (name, value.to_owned())));
        let result = match self.http.send(&repeatable).await {
            Err(HttpError::Connection) => self.http.send(&repeatable).await,
            result => result,
        };
        unreachable(request, result)
    }

    pub(super) async fn send_once(
        &self,
        request: &HttpRequest,
    ) -> Result<HttpResponse, StoreError> {
        unreachable(request, self.http.send(request).await)
    }

    fn list_query(&self, list: ListRequest<'_>) -> String {
        let prefix = format!("{}{}", self.prefix, list.prefix.as_str());
        // In the order of their names, as signing wants them.
        let mut parameters = Vec::new();
        if let Start::At(cursor) = list.start {
            parameters.push(("continuation-token", cursor.0.clone()));
        }
        if list.listed == Listed::Folders {
            parameters.push(("delimiter", "/".to_owned()));
        }
        parameters.push(("list-type", "2".to_owned()));
        parameters.push(("max-keys", list.limit.to_string()));
        parameters.push(("prefix", prefix.clone()));
        if let Start::After(text) = list.start {
            parameters.push(("start-after", format!("{prefix}{text}")));
        }
        let parameters = parameters
            .iter()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, QUERY)));
        parameters.collect::<Vec<_>>().join("&")
    }

    async fn get(&self, request: &HttpRequest) -> Result<Option<HttpResponse>, StoreError> {
        let response = self.send(request).await?;
        match response.status {
            StatusCode::OK => Ok(Some(response)),
            _ => absent_or_fault(request, &response).map(|()| None),
        }
    }
}

impl<H: Http> Objects for Bucket<H> {
    fn content_limit(&self) -> u64 {
        self.content_limit
    }

    fn heeds_conditions(&self) -> &Cell<Option<bool>> {
        &self.heeds_conditions
    }

    async fn read(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        let response = self.get(&self.request(Method::GET, key)).await?;
        Ok(response.map(|response| response.body))
    }

    async fn read_version(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        let mut request = self.request(Method::GET, key);
        request.wants_version = true;
        let Some(response) = self.get(&request).await? else {
            return Ok(None);
        };
        match response.version {
            Some(version) => Ok(Some(Object { bytes: response.body, version: Version(version) })),
            None => Err(fault(&request, StoreErrorKind::Failed, "the blob store sent no ETag")),
        }
    }

    async fn read_content(&self, key: &Key) -> Result<Content, StoreError> {
        // Any blob can be asked for as if it were a manifest, a huge layer too. So no more is read
        // than a manifest may have, and one byte to tell that there is more.
        let mut request = self.request(Method::GET, key);
        let range = ByteRange::From(0, Some(self.content_limit));
        request.headers.push(("range", range.to_string()));
        let response = self.send(&request).await?;
        match response.status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => {}
            // An empty object has no first byte.
            StatusCode::RANGE_NOT_SATISFIABLE => return Ok(Content::Whole(Bytes::new())),
            _ => return absent_or_fault(&request, &response).map(|()| Content::Absent),
        }
        let limit = self.content_limit;
        let is_too_large = response.body.len() as u64 > limit;
        Ok(if is_too_large { Content::TooLarge { limit } } else { Content::Whole(response.body) })
    }

    async fn exists(&self, key: &Key) -> Result<bool, StoreError> {
        let request = self.request(Method::HEAD, key);
        let response = self.send(&request).await?;
        match response.status {
            StatusCode::OK => Ok(true),
            // The answer to a HEAD has no body that could say what is missing. Whoever asks reads a
            // link beside it, and learns from that if it is the bucket.
            StatusCode::NOT_FOUND => Ok(false),
            _ => absent_or_fault(&request, &response).map(|()| false),
        }
    }

    async fn write(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError> {
        let mut request = self.request(Method::PUT, key);
        request.body = bytes;
        let response = self.send(&request).await?;
        if response.status == StatusCode::OK { Ok(()) } else { refused(&request, &response) }
    }

    async fn write_if(
        &self,
        key: &Key,
        bytes: Bytes,
        condition: &Condition,
    ) -> Result<bool, StoreError> {
        let mut request = self.request(Method::PUT, key);
        request.body = bytes;
        request.headers.push(match condition {
            Condition::Absent => ("if-none-match", "*".to_owned()),
            Condition::Unchanged(version) => ("if-match", version.0.clone()),
        });
        // Never repeated: were the first one done after all, the second would be refused because of it.
        let response = self.send_once(&request).await?;
        match response.status {
            StatusCode::OK => Ok(true),
            // 409 is S3's word for "someone else is writing right now", and 404 for a version of an
            // object that is gone.
            StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT => Ok(false),
            StatusCode::NOT_FOUND if *condition != Condition::Absent => {
                absent_or_fault(&request, &response).map(|()| false)
            }
            _ => refused(&request, &response).map(|()| false),
        }
    }

    async fn remove(&self, key: &Key) -> Result<(), StoreError> {
        let request = self.request(Method::DELETE, key);
        let response = self.send(&request).await?;
        match response.status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(()),
            _ => absent_or_fault(&request, &response),
        }
    }

    async fn list(&self, list: ListRequest<'_>) -> Result<Page, StoreError> {
        let mut request = self.request(Method::GET, list.prefix);
        request.path = format!("{}?{}", self.root, self.list_query(list));
        let response = self.send(&request).await?;
        if response.status != StatusCode::OK {
            return Err(match Fault::of(response.status, &response.body) {
                Fault::NoSuchKey => {
                    fault(&request, StoreErrorKind::Failed, "the bucket can't be listed")
                }
                Fault::Other(error) => logged(&request, error),
            });
        }
        let nonsense =
            || fault(&request, StoreErrorKind::Failed, "the blob store's listing is none");
        let listing = s3::parse_listing(&response.body).ok_or_else(nonsense)?;
        if let (Start::At(cursor), Some(next)) = (list.start, &listing.next)
            && cursor.0 == *next
        {
            return Err(fault(
                &request,
                StoreErrorKind::Failed,
                "the blob store's listing is endless",
            ));
        }
        let keys = listing.keys.iter().filter_map(|key| key.strip_prefix(&self.prefix));
        Ok(Page { keys: keys.filter_map(Key::listed).collect(), next: listing.next.map(Cursor) })
    }
}

/// The header by which the store verifies what it is sent.
pub(super) fn checksum(sha256: &Digest) -> (&'static str, String) {
    ("x-amz-checksum-sha256", STANDARD.encode(sha256.hash()))
}

/// Turns "no answer" into a fault.
fn unreachable(
    request: &HttpRequest,
    result: Result<HttpResponse, HttpError>,
) -> Result<HttpResponse, StoreError> {
    result.map_err(|error| {
        let kind = match error {
            HttpError::Connection | HttpError::NoSuchCluster => StoreErrorKind::Unavailable,
            HttpError::Nonsense => StoreErrorKind::Failed,
        };
        fault(request, kind, &format!("the blob store can't be reached: {error}"))
    })
}

/// Tells "there is no such object", which is no error, from a fault.
pub(super) fn absent_or_fault(
    request: &HttpRequest,
    response: &HttpResponse,
) -> Result<(), StoreError> {
    match Fault::of(response.status, &response.body) {
        Fault::NoSuchKey => Ok(()),
        Fault::Other(error) => Err(logged(request, error)),
    }
}

/// A write that was not done is a fault, whatever the reason.
pub(super) fn refused(request: &HttpRequest, response: &HttpResponse) -> Result<(), StoreError> {
    absent_or_fault(request, response)?;
    Err(fault(request, StoreErrorKind::Failed, "the blob store answered a write with NoSuchKey"))
}

pub(super) fn fault(request: &HttpRequest, kind: StoreErrorKind, message: &str) -> StoreError {
    logged(request, StoreError::new(kind, message))
}

/// Clients are not told which object it was; the log is.
fn logged(request: &HttpRequest, error: StoreError) -> StoreError {
    log::error!("{} {}: {error}", request.method, request.path);
    error
}
