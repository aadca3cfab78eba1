//! What only those ask of a bucket who look after it from outside; the filter never does.

use bytes::Bytes;
use http::{Method, StatusCode};

use super::bucket::{Bucket, Read, absent_or_fault, fault};
use super::compose::{self, Parts as _, Piece};
use super::fault::{Fault, StoreError, StoreErrorKind};
use super::layout::{self, Key};
use super::s3;
use super::transport::Http;

impl<H: Http> Bucket<H> {
    /// Copies an object of `length` bytes within the bucket, in place of any that is there. The store does it: a call for
    /// what has 256 MiB at most, several for more.
    ///
    /// # Errors
    ///
    /// As the store fails, and if there is no such object.
    pub async fn copy_object(&self, from: &Key, to: &Key, length: u64) -> Result<(), StoreError> {
        if length == 0 {
            // Nothing can't be copied in pieces.
            return self.copy(from, to).await;
        }
        compose::compose(self, &[Piece { key: from.clone(), start: 0, length }], to).await
    }

    /// Reads `length` bytes of an object from `start` on, or as many as there are; `None` if there is no such object. For who
    /// reads an object of any size in pieces. One call.
    ///
    /// # Errors
    ///
    /// As the store fails.
    pub async fn read_piece(
        &self,
        key: &Key,
        start: u64,
        length: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        let room = usize::try_from(length).unwrap_or(usize::MAX);
        let reservation = self.budget.reserve_read(room)?;
        let end = start.saturating_add(length);
        Ok(match self.read_range(key, start, end.saturating_sub(1)).await? {
            Read::Absent => None,
            Read::Part(bytes) => Some(reservation.hold(bytes)),
            Read::Nothing => Some(Bytes::new()),
            Read::Whole(bytes) => {
                let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                Some(reservation.hold(bytes.slice(within(start)..within(end))))
            }
        })
    }

    /// Removes an object by one call that is never repeated: whoever needs to know how long it may still take effect
    /// repeats it. One that isn't there is no error.
    ///
    /// # Errors
    ///
    /// As the store fails.
    pub async fn remove_once(&self, key: &Key) -> Result<(), StoreError> {
        let request = self.request(Method::DELETE, key);
        let response = self.send_once(&request).await?;
        match response.status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(()),
            _ => absent_or_fault(&request, &response),
        }
    }

    /// Whether the bucket keeps earlier versions of its objects (S3's `GetBucketVersioning`), so that what is removed can
    /// be had again. A store that does not know the question keeps none.
    ///
    /// # Errors
    ///
    /// As the store fails.
    pub async fn keeps_versions(&self) -> Result<bool, StoreError> {
        let mut request = self.request(Method::GET, &layout::all_content());
        request.path = format!("{}?versioning=", self.root());
        let response = self.send(&request).await?;
        match response.status {
            StatusCode::OK => {
                let status = s3::text_at(&response.body, &["VersioningConfiguration", "Status"]);
                Ok(status.as_deref() == Some("Enabled"))
            }
            status => match Fault::of(status, &response.body) {
                Fault::Other(error) if error.is_unknown_operation() => Ok(false),
                Fault::Other(error) => Err(error),
                Fault::NoSuchKey => {
                    let message = "the bucket does not say whether it keeps versions";
                    Err(fault(&request, StoreErrorKind::Failed, message))
                }
            },
        }
    }
}
