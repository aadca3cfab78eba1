//! Copies and multipart uploads of an S3-compatible bucket.
//!
//! S3 may answer a copy, or the end of a multipart upload, with status 200 before it has done it, and
//! say in the document that it failed. So such an answer counts only if the document is the expected
//! one.

use bytes::Bytes;
use http::{Method, StatusCode};
use percent_encoding::utf8_percent_encode;

use super::bucket::{Bucket, QUERY, absent_or_fault, checksum, fault, refused};
use super::compose::{
    Checked, ChecksumTrial, Compositions, HasParts, MultipartId, PartTag, Parts, Piece,
};
use super::fault::{StoreError, StoreErrorKind};
use super::layout::Key;
use super::permits::Permits;
use super::rehash::Rehashes;
use super::s3;
use super::transport::{Http, HttpRequest, HttpResponse, Timeout};
use crate::oci::{ByteRange, Digest};

impl<H: Http> HasParts for Bucket<H> {
    type Bucket = Self;

    fn bucket_of_parts(&self) -> &Self {
        self
    }
}

impl<H: Http> Parts for Bucket<H> {
    fn checksum_trial(&self) -> &ChecksumTrial {
        &self.checksum_trial
    }

    fn rehashes(&self) -> &Rehashes {
        &self.rehashes
    }

    fn joins(&self) -> &Permits {
        &self.joins
    }

    fn compositions(&self) -> &Compositions {
        &self.compositions
    }

    async fn write_checked(
        &self,
        key: &Key,
        bytes: Bytes,
        sha256: &Digest,
    ) -> Result<Checked, StoreError> {
        let mut request = self.request(Method::PUT, key);
        request.body = bytes;
        request.headers.push(checksum(sha256));
        let response = self.send(&request).await?;
        match response.status {
            StatusCode::OK => Ok(Checked::Stored),
            status if s3::is_checksum_mismatch(status, &response.body) => Ok(Checked::Mismatch),
            StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED => Ok(Checked::Refused),
            _ => refused(&request, &response).map(|()| Checked::Refused),
        }
    }

    async fn read_piece(&self, piece: &Piece) -> Result<Bytes, StoreError> {
        let mut request = self.request(Method::GET, &piece.key);
        let last = piece.start + piece.length.saturating_sub(1);
        let range = ByteRange::From(piece.start, Some(last));
        request.headers.push(("range", range.to_string()));
        request.timeout = Timeout::Copy;
        let length = usize::try_from(piece.length).unwrap_or(usize::MAX);
        let room = self.budget.reserve_read(length)?;
        let response = self.send(&request).await?;
        let is_all = response.body.len() as u64 == piece.length;
        match response.status {
            StatusCode::PARTIAL_CONTENT | StatusCode::OK if is_all => Ok(room.hold(response.body)),
            StatusCode::PARTIAL_CONTENT | StatusCode::OK => {
                let message = "the blob store sent another range than it was asked for";
                Err(fault(&request, StoreErrorKind::Failed, message))
            }
            _ => {
                absent_or_fault(&request, &response)?;
                Err(fault(&request, StoreErrorKind::Failed, "a part of the upload is not there"))
            }
        }
    }

    async fn copy(&self, from: &Key, to: &Key) -> Result<(), StoreError> {
        let mut request = self.request(Method::PUT, to);
        request.headers.push(self.copy_source(from));
        request.timeout = Timeout::Copy;
        let response = self.send(&request).await?;
        text_of(&request, &response, &["CopyObjectResult", "ETag"]).map(drop)
    }

    async fn begin_parts(&self, key: &Key) -> Result<MultipartId, StoreError> {
        let mut request = self.request(Method::POST, key);
        request.path.push_str("?uploads=");
        let response = self.send(&request).await?;
        text_of(&request, &response, &["InitiateMultipartUploadResult", "UploadId"])
            .map(MultipartId)
    }

    async fn copy_part(
        &self,
        key: &Key,
        id: &MultipartId,
        number: usize,
        from: &Piece,
    ) -> Result<PartTag, StoreError> {
        let mut request = self.part_request(key, id, number);
        let range = format!("bytes={}-{}", from.start, from.start + from.length.saturating_sub(1));
        request.headers.push(self.copy_source(&from.key));
        request.headers.push(("x-amz-copy-source-range", range));
        let response = self.send(&request).await?;
        text_of(&request, &response, &["CopyPartResult", "ETag"]).map(PartTag)
    }

    async fn write_part(
        &self,
        key: &Key,
        id: &MultipartId,
        number: usize,
        bytes: Bytes,
    ) -> Result<PartTag, StoreError> {
        let mut request = self.part_request(key, id, number);
        request.body = bytes;
        request.wants_version = true;
        let response = self.send(&request).await?;
        match (response.status, response.version) {
            (StatusCode::OK, Some(tag)) => Ok(PartTag(tag)),
            (StatusCode::OK, None) => {
                Err(fault(&request, StoreErrorKind::Failed, "the blob store sent no ETag"))
            }
            (status, version) => {
                let response = HttpResponse { status, version, body: response.body };
                Err(failure(&request, &response))
            }
        }
    }

    async fn finish_parts(
        &self,
        key: &Key,
        id: &MultipartId,
        parts: &[PartTag],
    ) -> Result<(), StoreError> {
        let mut request = self.request(Method::POST, key);
        request.path.push_str(&upload_id(id));
        request.body = s3::parts_document(parts.iter().map(|tag| tag.0.as_str())).into();
        request.timeout = Timeout::Copy;
        // Never repeated: were the first one done after all, there would be no such upload any more.
        let response = self.send_once(&request).await?;
        text_of(&request, &response, &["CompleteMultipartUploadResult", "ETag"]).map(drop)
    }

    async fn abort_parts(&self, key: &Key, id: &MultipartId) -> Result<(), StoreError> {
        let mut request = self.request(Method::DELETE, key);
        request.path.push_str(&upload_id(id));
        let response = self.send(&request).await?;
        match response.status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(()),
            _ => Err(failure(&request, &response)),
        }
    }
}

impl<H: Http> Bucket<H> {
    fn part_request(&self, key: &Key, id: &MultipartId, number: usize) -> HttpRequest {
        let mut request = self.request(Method::PUT, key);
        let id = utf8_percent_encode(&id.0, QUERY);
        // In the order of their names, as signing wants them.
        request.path.push_str(&format!("?partNumber={number}&uploadId={id}"));
        request.timeout = Timeout::Copy;
        request
    }
}

fn upload_id(id: &MultipartId) -> String {
    format!("?uploadId={}", utf8_percent_encode(&id.0, QUERY))
}

/// The text at `path` in the document of a success.
fn text_of(
    request: &HttpRequest,
    response: &HttpResponse,
    path: &[&str],
) -> Result<String, StoreError> {
    let text = match response.status {
        StatusCode::OK => s3::text_at(&response.body, path),
        _ => None,
    };
    text.ok_or_else(|| failure(request, response))
}

/// An answer that is no success, whatever it is.
fn failure(request: &HttpRequest, response: &HttpResponse) -> StoreError {
    let missing = || fault(request, StoreErrorKind::Failed, "a part of the upload is not there");
    absent_or_fault(request, response).map_or_else(|error| error, |()| missing())
}
