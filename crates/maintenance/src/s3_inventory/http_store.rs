//! Inventories over the same way to the store as the registry's bucket, from another bucket of that store.

use bytes::Bytes;
use http::{Method, StatusCode};
use moorage::store::{
    BucketOptions, Fault, Http, HttpRequest, Repeat, StoreError, StoreErrorKind, Timeout,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::InventoryStore;

/// The characters that S3 encodes in a path: all but unreserved characters, and the slash.
const PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Reads inventories over an [`Http`].
#[derive(Debug)]
pub struct HttpInventoryStore<'a, H> {
    http: &'a H,
    registry: BucketOptions,
}

impl<'a, H> HttpInventoryStore<'a, H> {
    /// With the options of the registry's bucket, of which only the way to the store matters. S3 delivers inventories
    /// within one region, so one way and one signature do for both.
    pub fn new(http: &'a H, registry: BucketOptions) -> Self {
        Self { http, registry }
    }
}

impl<H: Http> InventoryStore for HttpInventoryStore<'_, H> {
    type Error = StoreError;

    async fn read(
        &self,
        bucket: &str,
        key: &str,
        offset: u64,
        length: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        let options = BucketOptions { bucket: bucket.to_owned(), ..self.registry.clone() };
        let last = offset.saturating_add(length).saturating_sub(1);
        let request = HttpRequest {
            method: Method::GET,
            authority: options.request_authority(),
            path: format!("{}{}", options.bucket_path(), utf8_percent_encode(key, PATH)),
            headers: vec![("range", format!("bytes={offset}-{last}"))],
            body: Bytes::new(),
            wants_version: false,
            timeout: Timeout::Ordinary,
        };
        let answer = self.http.send(&request, Repeat::WhenItFails).await.map_err(|error| {
            let message = format!("the store can't be reached: {error}");
            StoreError::new(StoreErrorKind::Unavailable, message)
        })?;
        match answer.status {
            StatusCode::PARTIAL_CONTENT => Ok(Some(answer.body)),
            // A store need not heed a range.
            StatusCode::OK => Ok(Some(part(&answer.body, offset, length))),
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(Some(Bytes::new())),
            status => match Fault::of(status, &answer.body) {
                Fault::NoSuchKey => Ok(None),
                Fault::Other(error) => Err(error),
            },
        }
    }
}

/// So many bytes from an offset on, or as many as there are.
fn part(whole: &Bytes, offset: u64, length: u64) -> Bytes {
    let within = |at: u64| usize::try_from(at).map_or(whole.len(), |at| at.min(whole.len()));
    whole.slice(within(offset)..within(offset.saturating_add(length)))
}
