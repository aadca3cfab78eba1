//! The body of a request that is too large to be held: the proxy streams it to the store.
//!
//! A handler says where it goes, waits until all of it has come, looks whether it is what it should
//! be, and only then lets its end go. What the store never gets the end of, it never keeps.

use bytes::Bytes;
use http::StatusCode;

use super::http::error::Error;
use crate::oci::{Digest, Hasher};
use crate::store::{StoreError, StoreErrorKind, WriteAnswer, WriteTarget};

/// Whether and when a body is hashed.
#[derive(Debug)]
pub enum Hashing {
    /// It is not.
    Off,
    /// From its first byte on, with this hasher.
    With(Box<Hasher>),
    /// With a hasher that [`RequestBody::hash_with`] gives in a moment. What comes before is kept, within
    /// limits: if it is too much, the body is not hashed after all.
    Later,
}

/// A request's body on its way to the store.
#[expect(async_fn_in_trait, reason = "the filter runs in one thread; no future is ever sent")]
pub trait RequestBody {
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
    /// The store's answer, if it did not wait for the end.
    async fn arrived(&self) -> Result<u64, WriteAnswer>;

    /// The hasher, once the body has come and the hasher been given.
    fn take_hasher(&self) -> Option<Hasher>;

    /// Whether the body was hashed by somebody else, who has not told what came of it.
    fn has_lost_hash(&self) -> bool {
        false
    }

    /// Lets the end go, and waits for the store's answer.
    async fn complete(&self) -> WriteAnswer;
}

/// Waits until the whole of a forwarded body has come; gives its length in bytes.
///
/// # Errors
///
/// The error of the store's answer, if it did not wait for the end.
pub async fn whole_length(body: &impl RequestBody) -> Result<u64, Error> {
    match body.arrived().await {
        Ok(length) => Ok(length),
        Err(answer) => {
            answer.into_result()?;
            let message = "the blob store answered a write before it had the end";
            Err(StoreError::new(StoreErrorKind::Failed, message).into())
        }
    }
}

/// The body of a request that has none.
#[derive(Debug, Clone, Copy)]
pub struct NoBody;

impl RequestBody for NoBody {
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
            let found = answer.into_result().err().map(|error| Error::from(error).code().as_str());
            assert_eq!(found, *code, "{status} {document}");
        }
    }
}
