//! The store in an S3-compatible bucket.

use http::{Method, StatusCode};

use super::fault::{Fault, StoreError, StoreErrorKind};
use super::layout::{self, Key};
use super::s3::{Http, HttpError, HttpRequest, HttpResponse};
use super::{Content, Store};
use crate::config::StoreConfig;
use crate::registry::reference::{Digest, Name, Tag};
use crate::registry::{BlobStream, ByteRange};

/// A bucket that is reached over `H`.
#[derive(Debug)]
pub struct Bucket<H> {
    http: H,
    authority: String,
    /// What stands before a key in a request's path.
    base: String,
    /// The largest content that is read into memory, in bytes.
    content_limit: u64,
}

impl<H: Http> Bucket<H> {
    /// The bucket that `config` describes. `content_limit` is the largest content, in bytes, that
    /// [`Store::content`] reads into memory.
    pub fn new(http: H, config: &StoreConfig, content_limit: u64) -> Self {
        Self {
            http,
            authority: config.request_authority(),
            base: config.base_path(),
            content_limit,
        }
    }

    /// What the bucket is reached over.
    pub fn http(&self) -> &H {
        &self.http
    }

    /// The request with which the proxy streams a blob from the store.
    pub fn stream_request(&self, stream: &BlobStream) -> HttpRequest {
        HttpRequest {
            method: stream.method.clone(),
            range: stream.range,
            ..self.get_request(&layout::content(&stream.content))
        }
    }

    fn get_request(&self, key: &Key) -> HttpRequest {
        HttpRequest {
            method: Method::GET,
            authority: self.authority.clone(),
            path: format!("{}{}", self.base, key.as_str()),
            range: None,
        }
    }

    /// Reads a link: the digest it holds, or `None` where there is no such object.
    async fn link(&self, key: &Key) -> Result<Option<Digest>, StoreError> {
        let response = self.send_read(&self.get_request(key)).await?;
        if response.status != StatusCode::OK {
            return absent_or_fault(&response, key).map(|()| None);
        }
        let text = std::str::from_utf8(&response.body).ok();
        match text.and_then(|text| text.parse().ok()) {
            Some(digest) => Ok(Some(digest)),
            None => {
                let message = format!("the object {} holds no digest", key.as_str());
                Err(logged(StoreError::new(StoreErrorKind::Failed, message), key))
            }
        }
    }

    /// Sends an idempotent request, and once more if the connection broke or the store erred: what
    /// a distributed store gets wrong once is mostly right the second time. A request that timed out
    /// is not repeated, since the client has waited long enough.
    async fn send_read(&self, request: &HttpRequest) -> Result<HttpResponse, StoreError> {
        let mut result = self.http.send(request).await;
        let is_worth_a_retry = match &result {
            Ok(response) => {
                response.status.is_server_error() && response.status != StatusCode::GATEWAY_TIMEOUT
            }
            Err(_) => true,
        };
        if is_worth_a_retry {
            result = self.http.send(request).await;
        }
        result.map_err(|error| {
            let kind = match error {
                HttpError::Connection | HttpError::NoSuchCluster => StoreErrorKind::Unavailable,
                HttpError::Nonsense => StoreErrorKind::Failed,
            };
            let message = format!("the blob store can't be reached: {error}");
            log::error!("{} {}: {message}", request.method, request.path);
            StoreError::new(kind, message)
        })
    }
}

impl<H: Http> Store for Bucket<H> {
    async fn tag(&self, name: &Name, tag: &Tag) -> Result<Option<Digest>, StoreError> {
        self.link(&layout::tag_link(name, tag)).await
    }

    async fn manifest_link(
        &self,
        name: &Name,
        digest: &Digest,
    ) -> Result<Option<Digest>, StoreError> {
        self.link(&layout::manifest_link(name, digest)).await
    }

    async fn blob_link(&self, name: &Name, digest: &Digest) -> Result<Option<Digest>, StoreError> {
        self.link(&layout::blob_link(name, digest)).await
    }

    async fn content(&self, digest: &Digest) -> Result<Content, StoreError> {
        let key = layout::content(digest);
        // Any blob can be asked for as if it were a manifest, a huge layer too. So no more is read
        // than a manifest may have, and one byte to tell that there is more.
        let request = HttpRequest {
            range: Some(ByteRange::From(0, Some(self.content_limit))),
            ..self.get_request(&key)
        };
        let response = self.send_read(&request).await?;
        match response.status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => {}
            // An empty object has no first byte.
            StatusCode::RANGE_NOT_SATISFIABLE => return Ok(Content::Whole("".into())),
            _ => return absent_or_fault(&response, &key).map(|()| Content::Absent),
        }
        if response.body.len() as u64 > self.content_limit {
            let limit = self.content_limit;
            return Ok(Content::TooLarge { limit });
        }
        Ok(Content::Whole(response.body))
    }
}

/// Tells "there is no such object", which is no error, from a fault.
fn absent_or_fault(response: &HttpResponse, key: &Key) -> Result<(), StoreError> {
    match Fault::of(response.status, &response.body) {
        Fault::NoSuchKey => Ok(()),
        Fault::Other(error) => Err(logged(error, key)),
    }
}

/// Clients are not told which object it was; the log is.
fn logged(error: StoreError, key: &Key) -> StoreError {
    log::error!("{}: {error}", key.as_str());
    error
}
