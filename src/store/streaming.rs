//! Content that is too large to be held in memory, so that the proxy streams it between the store and a client: the
//! requests for it, and the meaning of the store's answers.
//!
//! The streaming itself is the proxy's. What of an answer reaches the client is for whoever asked to decide.

use bytes::Bytes;
use http::{Method, StatusCode};
use thiserror::Error;

use super::fault::{Fault, StoreError, StoreErrorKind};
use super::s3::{error_code, is_checksum_mismatch, unsatisfied_length};
use super::uploads::Session;
use crate::oci::{ByteRange, Digest, UploadId};

/// A streamed read: content on its way out of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobStream {
    /// `GET` or `HEAD`: how the store is to be asked.
    pub method: Method,
    /// The digest under which the content is stored.
    pub content: Digest,
    /// The part of it that the store is asked for.
    pub range: Option<ByteRange>,
}

/// Why a streamed read gives no content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadError {
    /// There is no such content.
    Absent,
    /// The content has nothing of the range.
    Unsatisfiable {
        /// How long the content is, in bytes, where the store tells.
        length: Option<u64>,
    },
    /// The store failed.
    Fault(StoreError),
}

impl BlobStream {
    /// Whether the status says that the content has nothing of the range that was asked for.
    pub fn is_unsatisfiable(&self, status: StatusCode) -> bool {
        status == StatusCode::RANGE_NOT_SATISFIABLE && self.range.is_some()
    }

    /// The error of an answer that is not the content: `status` and `document` are the store's.
    pub fn error(&self, status: StatusCode, document: &[u8]) -> ReadError {
        match Fault::of(status, document) {
            Fault::NoSuchKey => ReadError::Absent,
            // The answer to a HEAD has no document to tell what is missing. The link was read from the same
            // bucket a moment ago, so it is the object.
            _ if status == StatusCode::NOT_FOUND && self.method == Method::HEAD => {
                ReadError::Absent
            }
            _ if self.is_unsatisfiable(status) => {
                ReadError::Unsatisfiable { length: unsatisfied_length(document) }
            }
            Fault::Other(error) => ReadError::Fault(error),
        }
    }
}

/// Where a streamed write goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteTarget {
    /// To where content of this digest is stored.
    Content(Digest),
    /// Into an upload session, as the chunk of this id.
    Chunk(Session, UploadId),
}

/// A streamed write: a client's body on its way into the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamedWrite {
    /// Where it goes.
    pub target: WriteTarget,
    /// Its length in bytes, where the client announced it.
    pub length: Option<u64>,
    /// Its SHA-256, for the store to verify.
    pub sha256: Option<Digest>,
}

/// The store's answer to a streamed write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteAnswer {
    /// The status.
    pub status: StatusCode,
    /// The document; empty for a success.
    pub document: Bytes,
}

/// Why a streamed write was not done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WriteError {
    /// The body does not have the checksum that was sent with it.
    #[error("the body does not have the checksum that was sent with it")]
    ChecksumMismatch,
    /// The store has to know a body's length first.
    #[error("the blob store takes no body of unknown length")]
    LengthRequired,
    /// The body is larger than the store takes in one request.
    #[error("the blob store does not take so much in one request")]
    TooLarge,
    /// The store failed.
    #[error(transparent)]
    Fault(#[from] StoreError),
}

impl WriteAnswer {
    /// Nothing, if the store has taken the body.
    ///
    /// # Errors
    ///
    /// Why it has not: only status 200 says that it has.
    pub fn into_result(self) -> Result<(), WriteError> {
        if self.status == StatusCode::OK {
            return Ok(());
        }
        if is_checksum_mismatch(self.status, &self.document) {
            return Err(WriteError::ChecksumMismatch);
        }
        let code = error_code(&self.document);
        Err(match (self.status, code.as_deref()) {
            (StatusCode::LENGTH_REQUIRED, _) | (_, Some("MissingContentLength")) => {
                WriteError::LengthRequired
            }
            (_, Some("EntityTooLarge")) | (StatusCode::PAYLOAD_TOO_LARGE, _) => {
                WriteError::TooLarge
            }
            _ => match Fault::of(self.status, &self.document) {
                Fault::NoSuchKey => {
                    let message = "the blob store answered a write with NoSuchKey";
                    StoreError::new(StoreErrorKind::Failed, message).into()
                }
                Fault::Other(error) => error.into(),
            },
        })
    }
}
