//! The storage: what the registry keeps, in the registry's own nouns.
//!
//! [`Store`] is what the handlers see. [`Bucket`] implements it on an S3-compatible bucket that is
//! reached over an [`Http`] of whatever kind: Envoy's in the filter, a stand-in in tests.

mod bucket;
mod fault;
pub mod layout;
#[cfg(test)]
pub mod memory;
mod s3;

use bytes::Bytes;

use crate::registry::reference::{Digest, Name, Tag};

pub use bucket::Bucket;
pub use fault::{Fault, StoreError, StoreErrorKind};
pub use s3::{Http, HttpError, HttpRequest, HttpResponse};

/// What reading some content gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// All of it, not yet verified.
    Whole(Bytes),
    /// There is none under that digest.
    Absent,
    /// It is larger than this many bytes, more than the store reads into memory.
    TooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
}

/// What a registry keeps. Every method is one call to the storage, unless it says otherwise.
///
/// `None` and [`Content::Absent`] mean that the store said so. Whatever else goes wrong is a
/// [`StoreError`].
#[expect(async_fn_in_trait, reason = "the filter runs in one thread; no future is ever sent")]
pub trait Store {
    /// The digest that the tag points at.
    async fn tag(&self, name: &Name, tag: &Tag) -> Result<Option<Digest>, StoreError>;

    /// Whether the manifest is in the repository, and under which digest its content is stored.
    async fn manifest_link(
        &self,
        name: &Name,
        digest: &Digest,
    ) -> Result<Option<Digest>, StoreError>;

    /// Whether the blob is in the repository, and under which digest its content is stored.
    async fn blob_link(&self, name: &Name, digest: &Digest) -> Result<Option<Digest>, StoreError>;

    /// The content stored under the digest, if it is no larger than a manifest may be. Nobody has
    /// verified it.
    async fn content(&self, digest: &Digest) -> Result<Content, StoreError>;
}
