//! A bucket in front of which what is known is answered from memory.
//!
//! Content never changes under its digest: it is verified when it enters, and stays until there is no
//! room. Links and tags may be kept for a time. A write through this proxy takes effect at once, in all
//! its workers: every shard of repositories has a number that each write changes, and what was read under
//! another number counts no more. A write through another proxy takes effect when the time is over.
//!
//! Everything else goes to the bucket, writes and listings always.
//!
//! The future of a read that misses is on the heap: the future of a hit, which is what most reads are, is
//! small, and so are those of all that contain it.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::FixedState;
use lru::LruCache;

use super::budget::Budget;
use super::compose::{HasParts, Parts};
use super::condemned::CondemnedView;
use super::fault::StoreError;
use super::layout::{self, Key, Kind};
use super::objects::{
    Condition, Content, Head, ListRequest, Object, Objects, Page, Removal, Verified, Version,
};
use super::permits::Permits;
use super::single_flight::SingleFlight;
use crate::oci::{Digest, Name};

/// The memory that an entry takes beside its key and value, in bytes, about.
const ENTRY_OVERHEAD: usize = 128;
/// The memory that content takes beside its bytes, with what the registry derives from it, in bytes, about: the replies with a
/// manifest and their headers.
const DERIVED: usize = 960;
/// Of what is cached, one entry may be this part at most.
const LARGEST_PART: usize = 8;

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
}

#[derive(Debug)]
enum Entry {
    Content(Verified),
    Link { value: Option<Bytes>, writes: u64, until: Duration },
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

    async fn read_link(
        &self,
        key: &Key,
        name: &Name,
        ttl: Duration,
    ) -> Result<Option<Bytes>, StoreError> {
        if self.settings.max_bytes == 0 || ttl.is_zero() {
            return Box::pin(self.bucket.read(key)).await;
        }
        // Before the read: what a write makes of it meanwhile must not be taken for newer.
        let writes = self.environment.write_epoch(layout::shard(name));
        let now = self.environment.now();
        if let Some(Entry::Link { value, writes: under, until }) =
            self.entries.borrow_mut().get(key.kind())
            && *under == writes
            // A clock that is set back must not make it last longer.
            && (now..=now.saturating_add(ttl)).contains(until)
            && now < *until
        {
            return Ok(value.clone());
        }
        let flight = (key.clone(), writes);
        let value =
            Box::pin(self.links.share(&flight, async || self.bucket.read(key).await)).await?;
        let ttl = if value.is_some() { ttl } else { self.settings.negative_ttl.min(ttl) };
        if !ttl.is_zero() {
            let entry =
                Entry::Link { value: value.clone(), writes, until: now.saturating_add(ttl) };
            self.entries.borrow_mut().put(key.kind(), entry);
        }
        Ok(value)
    }

    async fn read_verified(&self, key: &Key, digest: &Digest) -> Result<Content, StoreError> {
        if self.settings.max_bytes == 0 {
            return Box::pin(self.bucket.read_content(key)).await;
        }
        if let Some(Entry::Content(verified)) = self.entries.borrow_mut().get(key.kind()) {
            return Ok(Content::Verified(verified.clone()));
        }
        Box::pin(self.contents.share(key, async || self.verify(key, digest).await)).await
    }

    /// Reads content and keeps it if it is what its digest says.
    async fn verify(&self, key: &Key, digest: &Digest) -> Result<Content, StoreError> {
        let content = match self.bucket.read_content(key).await? {
            Content::Whole(bytes) if digest.matches(&bytes) => bytes,
            other => return Ok(other),
        };
        // A copy: what was read is counted as such until it is dropped, and what is kept is not.
        let verified = Verified::new(digest.clone(), Bytes::copy_from_slice(&content));
        self.entries.borrow_mut().put(key.kind(), Entry::Content(verified.clone()));
        Ok(Content::Verified(verified))
    }

    /// Counts a write to where `key` is once the result is dropped: when it is over, or given up and
    /// done all the same.
    fn writing(&self, key: &Key) -> Writing<'_, S> {
        debug_assert!(!layout::is_misnamed(key), "{key:?} would not be counted");
        Writing {
            environment: &self.environment,
            shard: key.kind().repository().map(layout::shard),
        }
    }
}

/// A write under way.
struct Writing<'a, S: CacheEnvironment> {
    environment: &'a S,
    shard: Option<u8>,
}

impl<S: CacheEnvironment> Drop for Writing<'_, S> {
    fn drop(&mut self) {
        if let Some(shard) = self.shard {
            self.environment.begin_write_epoch(shard);
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

    fn condemned_view(&self) -> &CondemnedView {
        self.bucket.condemned_view()
    }

    async fn read(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        match key.kind() {
            Kind::BlobLink(name, _) | Kind::ManifestLink(name, _) => {
                self.read_link(key, name, self.settings.link_ttl).await
            }
            Kind::Tag(name, _) => self.read_link(key, name, self.settings.tag_ttl).await,
            Kind::Content(_) | Kind::Other(_) => Box::pin(self.bucket.read(key)).await,
        }
    }

    async fn read_version(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.bucket.read_version(key).await
    }

    async fn read_head(&self, key: &Key, limit: u64) -> Result<Option<Head>, StoreError> {
        self.bucket.read_head(key, limit).await
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
        let _writing = self.writing(key);
        self.bucket.write(key, bytes).await
    }

    async fn write_if(
        &self,
        key: &Key,
        bytes: Bytes,
        condition: &Condition,
    ) -> Result<bool, StoreError> {
        let _writing = self.writing(key);
        self.bucket.write_if(key, bytes, condition).await
    }

    async fn remove(&self, key: &Key) -> Result<(), StoreError> {
        let _writing = self.writing(key);
        self.bucket.remove(key).await
    }

    async fn remove_if(&self, key: &Key, version: &Version) -> Result<Removal, StoreError> {
        let _writing = self.writing(key);
        self.bucket.remove_if(key, version).await
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

/// The cached entries: as many as there is room for, the least recently used out first. The crate `lru` counts
/// entries; bytes are counted here, since entries differ by a factor of a thousand. Caches that weigh their entries
/// (`moka`, `quick_cache`) are made for threads, which a worker does not have, and cost each hit a lock.
#[derive(Debug)]
struct Entries {
    /// Hashed fast, from a seed that clients can't know: they choose the keys.
    entries: LruCache<Kind, Entry, FixedState>,
    bytes: usize,
    max_bytes: usize,
}

impl Entries {
    fn new(max_bytes: usize, hash_seed: u64) -> Self {
        Self {
            entries: LruCache::unbounded_with_hasher(FixedState::with_seed(hash_seed)),
            bytes: 0,
            max_bytes,
        }
    }

    fn get(&mut self, kind: &Kind) -> Option<&Entry> {
        self.entries.get(kind)
    }

    fn put(&mut self, kind: &Kind, entry: Entry) {
        let size = size_of(kind, &entry);
        if size > self.max_bytes / LARGEST_PART {
            return;
        }
        self.bytes += size;
        if let Some(before) = self.entries.put(kind.clone(), entry) {
            self.bytes -= size_of(kind, &before);
        }
        while self.bytes > self.max_bytes
            && let Some((kind, entry)) = self.entries.pop_lru()
        {
            self.bytes -= size_of(&kind, &entry);
        }
    }
}

fn size_of(kind: &Kind, entry: &Entry) -> usize {
    let value = match entry {
        // Most of it is a manifest, from which something is derived as soon as it is there.
        Entry::Content(verified) => verified.content().len() + DERIVED,
        Entry::Link { value, .. } => value.as_ref().map_or(0, Bytes::len),
    };
    ENTRY_OVERHEAD + kind.size() + value
}

#[cfg(test)]
mod tests {
    use futures::future::join;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::oci::{Algorithm, Digest, Name, Tag};
    use crate::store::memory::{MemoryStore, TestCacheEnvironment, run};
    use crate::store::{Store, Uploads};

    const SETTINGS: CacheSettings = CacheSettings {
        max_bytes: 100_000,
        link_ttl: Duration::from_secs(60),
        tag_ttl: Duration::from_secs(5),
        negative_ttl: Duration::ZERO,
    };

    type Subject<'a> = Cached<MemoryStore, &'a TestCacheEnvironment>;

    fn subject(world: &TestCacheEnvironment, settings: CacheSettings) -> (Subject<'_>, Digest) {
        let store = MemoryStore::default();
        let digest = store.put_manifest(&name(), &tag(), b"{}");
        (Cached::new(store, world, settings, 0), digest)
    }

    fn name() -> Name {
        "a".parse().expect("a valid name")
    }

    fn tag() -> Tag {
        "t".parse().expect("a valid tag")
    }

    /// How many calls the bucket gets while a manifest is read by tag.
    fn read(subject: &Subject) -> (Option<Bytes>, usize) {
        let before = subject.bucket().calls().len();
        let content = run(async {
            let digest = subject.tag(&name(), &tag()).await.expect("no fault")?;
            subject.manifest_link(&name(), &digest).await.expect("no fault")?;
            subject.content(&digest).await.expect("no fault").into_bytes()
        });
        (content.0, subject.bucket().calls().len() - before)
    }

    #[test]
    fn what_is_known_is_not_read_again_until_its_time_is_over() {
        let world = TestCacheEnvironment::default();
        let (subject, _) = subject(&world, SETTINGS);
        let content = Some(Bytes::from_static(b"{}"));
        assert_eq!(read(&subject), (content.clone(), 3));
        assert_eq!(read(&subject), (content.clone(), 0));
        world.now.set(Duration::from_secs(5));
        assert_eq!(read(&subject), (content.clone(), 1), "the tag's time is over");
        world.now.set(Duration::from_secs(60));
        assert_eq!(read(&subject), (content, 2), "the link's too; content stays");
    }

    #[test]
    fn by_default_every_read_of_a_tag_sees_the_store() {
        let world = TestCacheEnvironment::default();
        let (subject, _) = subject(&world, CacheSettings { tag_ttl: Duration::ZERO, ..SETTINGS });
        read(&subject);
        assert_eq!(read(&subject).1, 1);
        subject.bucket().delete(&layout::tag_link(&name(), &tag()));
        assert_eq!(read(&subject).0, None);
    }

    #[test]
    fn a_write_through_this_proxy_takes_effect_at_once() {
        let world = TestCacheEnvironment::default();
        let (subject, digest) = subject(&world, SETTINGS);
        read(&subject);
        run(subject.unlink_manifest(&name(), &digest)).0.expect("no fault");
        assert_eq!(read(&subject).0, None);
        run(subject.link_manifest(&name(), &digest)).0.expect("no fault");
        assert!(read(&subject).0.is_some());
        // Through another worker, all that is seen here is that it was counted.
        subject.bucket().delete(&layout::manifest_link(&name(), &digest));
        assert!(read(&subject).0.is_some(), "another proxy's write is not seen yet");
        (&world).begin_write_epoch(layout::shard(&name()));
        assert_eq!(read(&subject).0, None);
    }

    /// How often it is counted that the repository was written to.
    fn counted<T>(
        world: &TestCacheEnvironment,
        act: impl Future<Output = Result<T, StoreError>>,
    ) -> u64 {
        let shard = layout::shard(&name());
        let before = world.write_epoch(shard);
        run(act).0.expect("no fault");
        world.write_epoch(shard) - before
    }

    #[test]
    fn every_write_to_what_is_kept_for_a_time_is_counted() {
        let world = TestCacheEnvironment::default();
        let (subject, digest) = subject(&world, SETTINGS);
        let (name, tag) = (name(), tag());
        let condition = run(subject.tag_condition(&name, &tag, Some(&[]))).0.expect("no fault");
        let condition = condition.expect("the tag is there");
        assert_eq!(counted(&world, subject.set_tag_if(&name, &tag, &digest, &condition)), 1);
        assert_eq!(counted(&world, subject.set_tag(&name, &tag, &digest)), 1);
        assert_eq!(counted(&world, subject.link_manifest(&name, &digest)), 1);
        assert_eq!(counted(&world, subject.link_blob(&name, &digest)), 1);
        assert_eq!(counted(&world, subject.put_content(&digest, Bytes::new())), 0);
        assert_eq!(counted(&world, subject.record_tag(&name, &tag, &digest)), 0);
        assert_eq!(counted(&world, subject.remove_tag(&name, &tag)), 1);
        run(subject.try_conditional_removal());
        counted(&world, subject.set_tag(&name, &tag, &digest));
        let seen = run(subject.tag_version(&name, &tag)).0.expect("no fault").expect("a tag");
        assert_eq!(counted(&world, subject.remove_tag_if(&name, &tag, &seen)), 1);
        assert_eq!(counted(&world, subject.unlink_manifest(&name, &digest)), 1);
        assert_eq!(counted(&world, subject.unlink_blob(&name, &digest)), 1);
    }

    #[test]
    fn what_was_read_while_it_was_written_is_not_kept() {
        let world = TestCacheEnvironment::default();
        let (subject, digest) = subject(&world, SETTINGS);
        let name = name();
        let (old, _) = run(join(
            subject.manifest_link(&name, &digest),
            subject.unlink_manifest(&name, &digest),
        ))
        .0;
        assert!(old.expect("no fault").is_some(), "it was there when it was read");
        assert_eq!(run(subject.manifest_link(&name, &digest)).0, Ok(None));
    }

    #[test]
    fn that_something_is_missing_is_remembered_only_if_asked_for() {
        for (negative_ttl, calls) in [(Duration::ZERO, 2), (Duration::from_secs(1), 1)] {
            let world = TestCacheEnvironment::default();
            let (subject, _) = subject(&world, CacheSettings { negative_ttl, ..SETTINGS });
            let missing = Digest::of(Algorithm::Sha256, b"missing");
            for _ in 0..2 {
                assert_eq!(run(subject.manifest_link(&name(), &missing)).0, Ok(None));
            }
            assert_eq!(subject.bucket().calls().len(), calls);
        }
    }

    #[test]
    fn many_that_want_the_same_make_one_read() {
        let world = TestCacheEnvironment::default();
        let (subject, digest) = subject(&world, SETTINGS);
        let name = name();
        let read = async || {
            let link = subject.manifest_link(&name, &digest);
            join(link, subject.content(&digest)).await
        };
        let all = futures::future::join_all((0..100).map(|_| read()));
        for (link, content) in run(all).0 {
            assert_eq!(link, Ok(Some(digest.clone())));
            assert_eq!(content.expect("no fault").into_bytes().as_deref(), Some(&b"{}"[..]));
        }
        assert_eq!(subject.bucket().calls().len(), 2);
    }

    #[test]
    fn corrupt_content_and_what_is_too_large_are_not_kept() {
        let world = TestCacheEnvironment::default();
        let small = CacheSettings { max_bytes: LARGEST_PART * 2_000, ..SETTINGS };
        let (subject, digest) = subject(&world, small);
        let large: &[u8] = &[b' '; 2_000];
        let oversize = Digest::of(Algorithm::Sha256, large);
        subject.bucket().put(layout::content(&oversize), large);
        subject.bucket().put(layout::content(&digest), "corrupt");
        for digest in [&oversize, &digest] {
            let before = subject.bucket().calls().len();
            let first = run(subject.content(digest)).0.expect("no fault");
            assert_eq!(first.is_verified(), digest == &oversize);
            run(subject.content(digest)).0.expect("no fault");
            assert_eq!(subject.bucket().calls().len() - before, 2);
        }
    }

    /// Of 1,036 bytes, a manifest took 2,450 in the module, with its link.
    #[test]
    fn an_entry_counts_for_about_what_it_takes() {
        let digest = Digest::of(Algorithm::Sha256, b"");
        let verified = Verified::new(digest.clone(), vec![0; 1_036].into());
        let content = size_of(&Kind::Content(digest.clone()), &Entry::Content(verified));
        let value = Some(digest.to_string().into());
        let link = Entry::Link { value, writes: 0, until: Duration::ZERO };
        let link =
            size_of(&Kind::ManifestLink("library/bench".parse().expect("a name"), digest), &link);
        assert_eq!((content, link), (2_195, 283));
    }

    #[test]
    fn the_least_recently_used_goes_first_and_no_more_is_kept_than_there_is_room_for() {
        let mut entries = Entries::new(20_000, 0);
        let kind = |number: usize| Kind::Other(format!("{number:04}"));
        let digest = Digest::of(Algorithm::Sha256, b"");
        let length = 2_000 - ENTRY_OVERHEAD - DERIVED - kind(0).size();
        let content = || Entry::Content(Verified::new(digest.clone(), vec![0; length].into()));
        for number in 0..20 {
            entries.put(&kind(number), content());
            assert!(entries.get(&kind(0)).is_some(), "it is used all the time");
            assert!(entries.bytes <= 20_000);
        }
        assert_eq!(entries.entries.len(), 10);
        assert!(entries.get(&kind(11)).is_some());
        assert!(entries.get(&kind(10)).is_none());
        entries.put(&kind(0), content());
        assert_eq!(entries.bytes, 20_000, "in place of what was there");
    }
}
