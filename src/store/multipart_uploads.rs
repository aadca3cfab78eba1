//! Multipart uploads that were begun and neither completed nor aborted: listing them, and aborting them.
//!
//! Stores keep their parts, and charge for them, without listing them as objects. The filter never asks for this; it is
//! for those who look after a bucket.

use std::time::SystemTime;

use http::{Method, StatusCode};
use percent_encoding::utf8_percent_encode;

use super::bucket::{Bucket, QUERY, fault};
use super::compose::MultipartId;
use super::fault::{Fault, StoreError, StoreErrorKind};
use super::layout::Key;
use super::objects::parse_time;
use super::s3::{error_code, parse_upload_listing};
use super::transport::Http;

/// A multipart upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultipartUpload {
    /// The key that the object would get, relative to the prefix of the registry.
    pub key: Key,
    /// The id, which tells it from other uploads of the key.
    pub id: MultipartId,
    /// When it was begun.
    pub initiated: SystemTime,
}

impl<H: Http> Bucket<H> {
    /// The multipart uploads of keys that begin with `prefix`. A call for every thousand of them.
    ///
    /// # Errors
    ///
    /// Those of the store; one that has no such listing answers 501.
    pub async fn multipart_uploads(
        &self,
        prefix: &Key,
    ) -> Result<Vec<MultipartUpload>, StoreError> {
        let mut uploads = Vec::new();
        let mut markers: Option<(String, String)> = None;
        loop {
            let mut request = self.request(Method::GET, prefix);
            request.path = self.multipart_path(prefix, markers.as_ref());
            let response = self.send(&request).await?;
            if response.status != StatusCode::OK {
                return Err(match Fault::of(response.status, &response.body) {
                    Fault::Other(error) => error,
                    Fault::NoSuchKey => {
                        fault(&request, StoreErrorKind::Failed, "the bucket can't be listed")
                    }
                });
            }
            let nonsense = || {
                fault(&request, StoreErrorKind::Failed, "the blob store's listing makes no sense")
            };
            let page = parse_upload_listing(&response.body).ok_or_else(nonsense)?;
            for listed in page.uploads {
                let key = listed.key.strip_prefix(self.key_prefix()).and_then(Key::listed);
                // Other keys, which no registry wrote, are none of its business.
                let Some(key) = key else { continue };
                let initiated = parse_time(&key, &listed.initiated)?;
                uploads.push(MultipartUpload { key, id: MultipartId(listed.id), initiated });
            }
            if page.next.is_none() {
                return Ok(uploads);
            }
            if page.next == markers {
                let message = "the blob store's listing is endless";
                return Err(fault(&request, StoreErrorKind::Failed, message));
            }
            markers = page.next;
        }
    }

    /// Aborts a multipart upload. One that isn't there is no error. One call.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn abort_multipart_upload(&self, upload: &MultipartUpload) -> Result<(), StoreError> {
        let mut request = self.request(Method::DELETE, &upload.key);
        let id = utf8_percent_encode(&upload.id.0, QUERY);
        request.path.push_str(&format!("?uploadId={id}"));
        let response = self.send(&request).await?;
        match response.status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(()),
            StatusCode::NOT_FOUND
                if error_code(&response.body).as_deref() == Some("NoSuchUpload") =>
            {
                Ok(())
            }
            status => match Fault::of(status, &response.body) {
                Fault::NoSuchKey => Ok(()),
                Fault::Other(error) => Err(error),
            },
        }
    }

    fn multipart_path(&self, prefix: &Key, markers: Option<&(String, String)>) -> String {
        let prefix = format!("{}{}", self.key_prefix(), prefix.as_str());
        let mut parameters = vec![("uploads", "")];
        if let Some((key, id)) = markers {
            parameters.extend([("key-marker", key.as_str()), ("upload-id-marker", id)]);
        }
        parameters.push(("prefix", &prefix));
        let parameters = parameters
            .iter()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, QUERY)));
        format!("{}?{}", self.root(), parameters.collect::<Vec<_>>().join("&"))
    }
}
