//! What a cache tells of itself, for whoever counts.

use crate::store::layout::Kind;

/// The kinds of what is cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheKind {
    /// Verified content: a manifest, or the configuration of an image.
    Content,
    /// That a repository has a manifest or a blob.
    Link,
    /// What a tag points at.
    Tag,
}

/// What became of a read, or of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheEvent {
    /// It was answered from memory.
    Hit(CacheKind),
    /// The store was asked, since nothing that still counts was known.
    Miss(CacheKind),
    /// It was answered from memory after its time, since the store can't be reached. A [`CacheEvent::Miss`] came before
    /// it if this read found that out itself.
    Stale(CacheKind),
    /// An entry went because there was no room for it any more.
    Evicted(CacheKind),
}

impl CacheKind {
    /// The kind of what is kept of such an object; `None` for what is never kept.
    pub(super) fn of(kind: &Kind) -> Option<Self> {
        match kind {
            Kind::Content(_) => Some(Self::Content),
            Kind::BlobLink(..) | Kind::ManifestLink(..) => Some(Self::Link),
            Kind::Tag(..) => Some(Self::Tag),
            Kind::Referrer(..) | Kind::Other(_) => None,
        }
    }
}
