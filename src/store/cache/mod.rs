//! A bucket in front of which what is known is answered from memory.
//!
//! Content never changes under its digest: it is verified when it enters, and stays until there is no
//! room. Links and tags may be kept for a time. A write through this proxy takes effect at once, in all
//! its workers: every shard of repositories has a number that each write changes, and what was read under
//! another number counts no more. A write through another proxy takes effect when the time is over.
//!
//! What was noted of a referrer says what its manifest says, which never changes either. Which referrers there are, only a listing
//! tells ([`referrers`]).
//!
//! While the store can't be reached, pulls may be answered with links and tags whose time is over ([`links`]).
//!
//! Everything else goes to the bucket, writes and listings always.
//!
//! The future of a read that misses is on the heap: the future of a hit, which is what most reads are, is
//! small, and so are those of all that contain it.

mod entries;
mod event;
mod links;
mod outage;
mod referrers;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use entries::{Entries, Entry};
pub use event::{CacheEvent, CacheKind};
use outage::Outage;

use super::budget::Budget;
use super::compose::{HasParts, Parts};
use super::condemned::CondemnedView;
use super::fault::StoreError;
use super::health::HealthView;
use super::layout::{self, Key, Kind};
use super::multi_delete::MultiDelete;
use super::objects::{
    Condition, Content, Head, ListRequest, Object, Objects, Page, Removal, Verified, Version,
};
use super::permits::Permits;
use super::single_flight::SingleFlight;
use crate::oci::Digest;

/// How much is cached, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSettings {
    /// How much a worker keeps, in bytes; nothing if it is 0.
    pub max_bytes: usize,
    /// How long it is known that a repository has a manifest or a blob.
    pub link_ttl: Duration,
    /// How long it is known what a tag points at.
    pub tag_ttl: Duration,
    /// How long it is known that something is not there.
    pub negative_ttl: Duration,
    /// How old what is known of links and tags may be, for pulls while the store can't be reached; 0 if it may not be
    /// answered with then.
    pub stale_if_error: Duration,
}

/// The environment of a cache: a clock, and the write epochs of repositories.
pub trait CacheEnvironment {
    /// The time since some moment in the past that stays the same.
    fn now(&self) -> Duration;

    /// A number that is another one after each write to a repository of this shard, through any worker of
    /// this proxy.
    fn write_epoch(&self, shard: u8) -> u64;

    /// A repository of this shard has been written to: its number is another one from now on.
    fn begin_write_epoch(&self, shard: u8);

    /// A number that is another one after each write to a repository of this shard that the store has acknowledged, through
    /// any worker of this proxy. Asked for when something is read from the store, and while that can't be reached.
    fn acknowledged_epoch(&self, shard: u8) -> u64;

    /// The store has acknowledged a write to a repository of this shard: that number is another one from now on.
    fn begin_acknowledged_epoch(&self, shard: u8);

    /// Called at everything that is worth counting. Whoever implements it may ask the cache for
    /// [`Cached::cached_bytes`].
    fn count(&self, _event: CacheEvent) {}
}

/// A bucket with a cache in front.
#[derive(Debug)]
pub struct Cached<O, S> {
    bucket: O,
    environment: S,
    settings: CacheSettings,
    entries: RefCell<Entries>,
    contents: SingleFlight<Key, Result<Content, StoreError>>,
    links: SingleFlight<(Key, u64), Result<Option<Bytes>, StoreError>>,
    /// How many links and tags the store has been asked for.
    asked: Cell<u64>,
    outage: Outage,
    /// The shards that were written to without the store's acknowledgement, a bit for each: the store may have done it.
    in_doubt: Cell<u64>,
}

impl<O: Objects, S: CacheEnvironment> Cached<O, S> {
    /// Puts a cache in front of `bucket`. `hash_seed` is random, so that nobody can choose keys that collide.
    pub fn new(bucket: O, environment: S, settings: CacheSettings, hash_seed: u64) -> Self {
        Self {
            bucket,
            environment,
            settings,
            entries: RefCell::new(Entries::new(settings.max_bytes, hash_seed)),
            contents: SingleFlight::default(),
            links: SingleFlight::default(),
            asked: Cell::default(),
            outage: Outage::default(),
            in_doubt: Cell::default(),
        }
    }

    /// The bucket itself.
    pub fn bucket(&self) -> &O {
        &self.bucket
    }

    /// The clock and the write epochs.
    pub fn environment(&self) -> &S {
        &self.environment
    }

    /// How much memory what is cached takes now, in bytes, about.
    pub fn cached_bytes(&self) -> usize {
        self.entries.borrow().bytes()
    }

    /// Keeps an entry, and counts what goes for it.
    fn keep(&self, kind: &Kind, entry: Entry) {
        let evicted = self.entries.borrow_mut().put(kind, entry);
        for kind in evicted {
            self.environment.count(CacheEvent::Evicted(kind));
        }
    }

    async fn read_verified(&self, key: &Key, digest: &Digest) -> Result<Content, StoreError> {
        if self.settings.max_bytes == 0 {
            return Box::pin(self.bucket.read_content(key)).await;
        }
        if let Some(verified) = self.known_content(key.kind()) {
            self.environment.count(CacheEvent::Hit(CacheKind::Content));
            return Ok(Content::Verified(verified));
        }
        self.environment.count(CacheEvent::Miss(CacheKind::Content));
        Box::pin(self.contents.share(key, async || self.verify(key, digest).await)).await
    }

    fn known_content(&self, kind: &Kind) -> Option<Verified> {
        match self.entries.borrow_mut().get(kind)? {
            Entry::Content(verified) => Some(verified.clone()),
            Entry::Link(_) | Entry::Descriptor(_) => None,
        }
    }

    /// Reads content and keeps it if it is what its digest says.
    async fn verify(&self, key: &Key, digest: &Digest) -> Result<Content, StoreError> {
        let content = match self.bucket.read_content(key).await? {
            Content::Whole(bytes) if digest.matches(&bytes) => bytes,
            other => return Ok(other),
        };
        // A copy: what was read is counted as such until it is dropped, and what is kept is not.
        let verified = Verified::new(digest.clone(), Bytes::copy_from_slice(&content));
        self.keep(key.kind(), Entry::Content(verified.clone()));
        Ok(Content::Verified(verified))
    }

    /// Counts a write to where `key` is once the result is dropped: when it is over, or given up and
    /// done all the same.
    fn writing(&self, key: &Key) -> Writing<'_, S> {
        debug_assert!(!layout::is_misnamed(key), "{key:?} would not be counted");
        self.writing_to(key.kind().repository().map(layout::shard))
    }

    /// The same, of a write to any repository of this shard.
    fn writing_to(&self, shard: Option<u8>) -> Writing<'_, S> {
        Writing {
            environment: &self.environment,
            in_doubt: &self.in_doubt,
            is_acknowledged: Cell::default(),
            shard,
        }
    }

    /// The store has answered a read: writes that it never acknowledged count as acknowledged from now on, since whoever made
    /// them may have seen by now that they were done. Tells whether there were any.
    fn settle_doubts(&self) -> bool {
        let in_doubt = self.in_doubt.take();
        let shards = (0..layout::SHARDS).filter(|shard| in_doubt >> shard & 1 == 1);
        shards.for_each(|shard| self.environment.begin_acknowledged_epoch(shard));
        in_doubt != 0
    }
}

/// A write under way.
struct Writing<'a, S: CacheEnvironment> {
    environment: &'a S,
    in_doubt: &'a Cell<u64>,
    is_acknowledged: Cell<bool>,
    shard: Option<u8>,
}

impl<S: CacheEnvironment> Writing<'_, S> {
    /// The store says that it is done. An error leaves that open: then what was known before is as good as what is known
    /// after, until the store answers again.
    fn acknowledge(&self) {
        self.is_acknowledged.set(true);
        if let Some(shard) = self.shard {
            self.environment.begin_acknowledged_epoch(shard);
        }
    }
}

impl<S: CacheEnvironment> Drop for Writing<'_, S> {
    fn drop(&mut self) {
        if let Some(shard) = self.shard {
            self.environment.begin_write_epoch(shard);
            if !self.is_acknowledged.get() {
                self.in_doubt.set(self.in_doubt.get() | 1 << shard);
            }
        }
    }
}

impl<O: Objects, S: CacheEnvironment> Objects for Cached<O, S> {
    fn content_limit(&self) -> u64 {
        self.bucket.content_limit()
    }

    fn budget(&self) -> &Budget {
        self.bucket.budget()
    }

    fn permits(&self) -> &Permits {
        self.bucket.permits()
    }

    fn heeds_conditions(&self) -> &Cell<Option<bool>> {
        self.bucket.heeds_conditions()
    }

    fn heeds_conditional_removal(&self) -> &Cell<Option<bool>> {
        self.bucket.heeds_conditional_removal()
    }

    fn multi_delete(&self) -> &MultiDelete {
        self.bucket.multi_delete()
    }

    fn condemned_view(&self) -> &CondemnedView {
        self.bucket.condemned_view()
    }

    fn health_view(&self) -> &HealthView {
        self.bucket.health_view()
    }

    async fn read(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        match self.link_read(key, false) {
            Some(read) => self.read_link(&read).await,
            None => Box::pin(self.bucket.read(key)).await,
        }
    }

    async fn read_stale_if_error(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        match self.link_read(key, true) {
            Some(read) => self.read_link(&read).await,
            None => Box::pin(self.bucket.read(key)).await,
        }
    }

    async fn read_version(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        let object = self.bucket.read_version(key).await?;
        self.settle_doubts();
        self.forget_unless(key, object.as_ref().map(|object| &object.bytes));
        Ok(object)
    }

    async fn read_head(&self, key: &Key, limit: u64) -> Result<Option<Head>, StoreError> {
        match key.kind() {
            Kind::Referrer(_, _, digest) => self.read_descriptor(key, digest, limit).await,
            _ => self.bucket.read_head(key, limit).await,
        }
    }

    async fn read_content(&self, key: &Key) -> Result<Content, StoreError> {
        match key.kind() {
            Kind::Content(digest) => self.read_verified(key, digest).await,
            _ => Box::pin(self.bucket.read_content(key)).await,
        }
    }

    async fn exists(&self, key: &Key) -> Result<bool, StoreError> {
        self.bucket.exists(key).await
    }

    async fn write(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError> {
        let writing = self.writing(key);
        self.forget_descriptor(key);
        self.bucket.write(key, bytes).await?;
        writing.acknowledge();
        Ok(())
    }

    async fn write_if(
        &self,
        key: &Key,
        bytes: Bytes,
        condition: &Condition,
    ) -> Result<bool, StoreError> {
        let writing = self.writing(key);
        let is_written = self.bucket.write_if(key, bytes, condition).await?;
        if is_written {
            writing.acknowledge();
        }
        Ok(is_written)
    }

    async fn remove(&self, key: &Key) -> Result<(), StoreError> {
        let writing = self.writing(key);
        self.forget_descriptor(key);
        self.bucket.remove(key).await?;
        writing.acknowledge();
        Ok(())
    }

    async fn remove_if(&self, key: &Key, version: &Version) -> Result<Removal, StoreError> {
        let writing = self.writing(key);
        let removal = self.bucket.remove_if(key, version).await?;
        self.forget_unless(key, None);
        if removal == Removal::Removed {
            writing.acknowledge();
        }
        Ok(removal)
    }

    async fn remove_many(
        &self,
        removals: &[(Key, Option<Version>)],
    ) -> Result<Option<Vec<Option<Removal>>>, StoreError> {
        // One for each shard: they are counted when they are dropped.
        let shards = removals.iter().filter_map(|(key, _)| key.kind().repository());
        let shards: BTreeSet<u8> = shards.map(layout::shard).collect();
        let writings: Vec<_> =
            shards.into_iter().map(|shard| self.writing_to(Some(shard))).collect();
        let outcomes = self.bucket.remove_many(removals).await?;
        removals.iter().for_each(|(key, _)| self.forget_unless(key, None));
        writings.iter().for_each(Writing::acknowledge);
        Ok(outcomes)
    }

    async fn list(&self, request: ListRequest<'_>) -> Result<Page, StoreError> {
        self.bucket.list(request).await
    }
}

impl<O: Parts, S> HasParts for Cached<O, S> {
    type Bucket = O;

    fn bucket_of_parts(&self) -> &O {
        &self.bucket
    }
}

#[cfg(test)]
mod stale_tests;
#[cfg(test)]
mod tests;
