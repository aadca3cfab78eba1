//! The body of a request that is too large to be held: the proxy streams it to the store.
//!
//! A handler says where it goes, waits until all of it has come, looks whether it is what it should
//! be, and only then lets its end go. What the store never gets the end of, it never keeps.

use bytes::Bytes;
use http::StatusCode;

use super::error::{Error, ErrorCode};
use super::hasher::Hasher;
use super::reference::{Digest, UploadId};
use crate::store::{Fault, Session, StoreError, StoreErrorKind, error_code, is_checksum_mismatch};

/// Where a body goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteTarget {
    /// To where content of this digest is stored.
    Content(Digest),
    /// Into an upload session, as the chunk of this id.
    Chunk(Session, UploadId),
}

/// How the proxy writes a body to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamedWrite {
    /// Where it goes.
    pub target: WriteTarget,
    /// Its length in bytes, where the client announced it.
    pub length: Option<u64>,
    /// Its SHA-256, for the store to verify.
    pub sha256: Option<Digest>,
}

/// Whether and when a body is hashed.
#[derive(Debug)]
pub enum Hashing {
    /// It is not.
    Off,
    /// From its first byte on, with this hasher.
    With(Box<Hasher>),
    /// With a hasher that [`Incoming::hash_with`] gives in a moment. What comes before is kept, within
    /// limits: if it is too much, the body is not hashed after all.
    Later,
}

/// What the store answered to a streamed write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteAnswer {
    /// The status.
    pub status: StatusCode,
    /// The document; empty for a success.
    pub document: Bytes,
}

/// A request's body on its way.
#[expect(async_fn_in_trait, reason = "the filter runs in one thread; no future is ever sent")]
pub trait Incoming {
    /// Whether there is a body at all.
    fn is_empty(&self) -> bool;

    /// The length that the client announced, in bytes.
    fn announced(&self) -> Option<u64>;

    /// Has the proxy send the body to the store as it comes, all but its end. To be called once, and
    /// before the handler waits for anything: what is not sent on has to be thrown away.
    fn forward(&self, target: WriteTarget, sha256: Option<Digest>, hashing: Hashing);

    /// Gives the hasher that [`Hashing::Later`] promised; `None` for the body not to be hashed.
    fn hash_with(&self, hasher: Option<Hasher>);

    /// Waits until the whole body has come.
    ///
    /// # Errors
    ///
    /// What the store answered, if it did not wait for the end.
    async fn arrived(&self) -> Result<u64, WriteAnswer>;

    /// The hasher, once the body has come and the hasher been given.
    fn take_hasher(&self) -> Option<Hasher>;

    /// Lets the end go, and waits for the store's answer.
    async fn complete(&self) -> WriteAnswer;
}

/// Waits until the whole of a forwarded body has come; gives its length in bytes.
///
/// # Errors
///
/// What the store's answer means, if it did not wait for the end.
pub async fn whole_length(incoming: &impl Incoming) -> Result<u64, Error> {
    match incoming.arrived().await {
        Ok(length) => Ok(length),
        Err(answer) => {
            answer.judge()?;
            let message = "the blob store answered a write before it had the end";
            Err(StoreError::new(StoreErrorKind::Failed, message).into())
        }
    }
}

/// The body of a request that has none.
#[derive(Debug, Clone, Copy)]
pub struct NoBody;

impl Incoming for NoBody {
    fn is_empty(&self) -> bool {
        true
    }

    fn announced(&self) -> Option<u64> {
        Some(0)
    }

    fn forward(&self, _: WriteTarget, _: Option<Digest>, _: Hashing) {}

    fn hash_with(&self, _: Option<Hasher>) {}

    async fn arrived(&self) -> Result<u64, WriteAnswer> {
        Ok(0)
    }

    fn take_hasher(&self) -> Option<Hasher> {
        None
    }

    async fn complete(&self) -> WriteAnswer {
        WriteAnswer { status: StatusCode::OK, document: Bytes::new() }
    }
}

impl WriteAnswer {
    /// Nothing, if the store has taken the body; otherwise what the client is told.
    pub fn judge(self) -> Result<(), Error> {
        if self.status == StatusCode::OK {
            return Ok(());
        }
        if is_checksum_mismatch(self.status, &self.document) {
            let message = "the blob does not have the digest of the request";
            return Err(Error::new(ErrorCode::DigestInvalid, message));
        }
        let code = error_code(&self.document);
        match (self.status, code.as_deref()) {
            (StatusCode::LENGTH_REQUIRED, _) | (_, Some("MissingContentLength")) => {
                let message = "the blob store wants to know a body's length first: \
                               give Envoy's route for bodies of unknown length a file_system_buffer";
                Err(StoreError::new(StoreErrorKind::Failed, message).into())
            }
            (_, Some("EntityTooLarge")) | (StatusCode::PAYLOAD_TOO_LARGE, _) => {
                let message = "the blob store does not take so much in one request: \
                               upload the blob in chunks";
                Err(Error::new(ErrorCode::BlobTooLarge, message))
            }
            _ => Err(match Fault::of(self.status, &self.document) {
                Fault::NoSuchKey => {
                    let message = "the blob store answered a write with NoSuchKey";
                    StoreError::new(StoreErrorKind::Failed, message).into()
                }
                Fault::Other(error) => error.into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn only_200_is_a_success_and_every_other_answer_has_its_error() {
        let rows: &[(u16, &str, Option<&str>)] = &[
            (200, "", None),
            (204, "", Some("UNKNOWN")),
            (400, "<Error><Code>BadDigest</Code></Error>", Some("DIGEST_INVALID")),
            (
                400,
                "<Error><Code>XAmzContentChecksumMismatch</Code></Error>",
                Some("DIGEST_INVALID"),
            ),
            (400, "<Error><Code>InvalidRequest</Code></Error>", Some("UNKNOWN")),
            (411, "", Some("UNKNOWN")),
            (400, "<Error><Code>EntityTooLarge</Code></Error>", Some("SIZE_INVALID")),
            (404, "<Error><Code>NoSuchKey</Code></Error>", Some("UNKNOWN")),
            (403, "<Error><Code>AccessDenied</Code></Error>", Some("UNKNOWN")),
            (500, "", Some("UNKNOWN")),
            (503, "", Some("UNAVAILABLE")),
            (504, "", Some("UNAVAILABLE")),
        ];
        for (status, document, code) in rows {
            let status = StatusCode::from_u16(*status).expect("a status");
            let answer = WriteAnswer { status, document: Bytes::from_static(document.as_bytes()) };
            let found = answer.judge().err().map(|error| error.code().as_str());
            assert_eq!(found, *code, "{status} {document}");
        }
    }
}
