//! What a cache holds, and how much that takes.

use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::FixedState;
use lru::LruCache;

use super::event::CacheKind;
use crate::store::layout::Kind;
use crate::store::objects::Verified;

/// The memory that an entry takes beside its key and value, in bytes, about.
pub(super) const ENTRY_OVERHEAD: usize = 128;
/// The memory that content takes beside its bytes, with what the registry derives from it, in bytes, about: the replies with a
/// manifest and their headers.
pub(super) const DERIVED: usize = 960;
/// Of what is cached, one entry may be this part at most.
pub(super) const LARGEST_PART: usize = 8;

/// What is known.
#[derive(Debug)]
pub(super) enum Entry {
    /// Content that matches its digest.
    Content(Verified),
    /// A link or a tag.
    Link(KnownLink),
    /// The descriptor that was noted of a referrer, all of it.
    Descriptor(Bytes),
}

/// What the store said of a link or a tag.
#[derive(Debug)]
pub(super) struct KnownLink {
    /// What the object holds; `None` if there is none.
    pub(super) value: Option<Bytes>,
    /// The write epoch of its shard when it was asked.
    pub(super) writes: u64,
    /// The epoch of acknowledged writes then; 0 if nobody will want to know.
    pub(super) acknowledged: u64,
    /// The time then.
    pub(super) asked_at: Duration,
    /// The number of the read: a later one has a larger number.
    pub(super) number: u64,
}

impl KnownLink {
    /// How old it is; `None` if the clock was set back, so that nobody knows.
    pub(super) fn age(&self, now: Duration) -> Option<Duration> {
        now.checked_sub(self.asked_at)
    }
}

/// The cached entries: as many as there is room for, the least recently used out first. The crate `lru` counts
/// entries; bytes are counted here, since entries differ by a factor of a thousand. Caches that weigh their entries
/// (`moka`, `quick_cache`) are made for threads, which a worker does not have, and cost each hit a lock.
#[derive(Debug)]
pub(super) struct Entries {
    /// Hashed fast, from a seed that clients can't know: they choose the keys.
    pub(super) entries: LruCache<Kind, Entry, FixedState>,
    pub(super) bytes: usize,
    max_bytes: usize,
}

impl Entries {
    pub(super) fn new(max_bytes: usize, hash_seed: u64) -> Self {
        Self {
            entries: LruCache::unbounded_with_hasher(FixedState::with_seed(hash_seed)),
            bytes: 0,
            max_bytes,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&mut self, kind: &Kind) -> Option<&Entry> {
        self.entries.get(kind)
    }

    /// Forgets what is known of an object.
    pub(super) fn remove(&mut self, kind: &Kind) {
        if let Some(before) = self.entries.pop(kind) {
            self.bytes -= size_of(kind, &before);
        }
    }

    /// Keeps an entry in place of any that is there. Gives what went to make room for it.
    #[must_use = "what was evicted is counted"]
    pub(super) fn put(&mut self, kind: &Kind, entry: Entry) -> Vec<CacheKind> {
        let mut evicted = Vec::new();
        let size = size_of(kind, &entry);
        if size > self.max_bytes / LARGEST_PART {
            self.remove(kind);
            return evicted;
        }
        self.bytes += size;
        if let Some(before) = self.entries.put(kind.clone(), entry) {
            self.bytes -= size_of(kind, &before);
        }
        while self.bytes > self.max_bytes
            && let Some((kind, entry)) = self.entries.pop_lru()
        {
            self.bytes -= size_of(&kind, &entry);
            evicted.extend(CacheKind::of(&kind));
        }
        evicted
    }
}

pub(super) fn size_of(kind: &Kind, entry: &Entry) -> usize {
    let value = match entry {
        // Most of it is a manifest, from which something is derived as soon as it is there.
        Entry::Content(verified) => verified.content().len() + DERIVED,
        Entry::Descriptor(descriptor) => descriptor.len(),
        Entry::Link(link) => link.value.as_ref().map_or(0, Bytes::len),
    };
    ENTRY_OVERHEAD + kind.size() + value
}
