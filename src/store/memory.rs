//! A bucket in memory, for unit tests.
//!
//! Calls complete together: whatever calls a handler has begun when it can go no further are one round trip to the
//! store. So it is known how many times a handler waits for the store, however many calls it makes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::future::{Future, poll_fn};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::budget::Budget;
use super::cache::{CacheEnvironment, CacheEvent};
use super::compose::{
    Checked, ChecksumTrial, Compositions, HasParts, MultipartId, PartTag, Parts, Piece,
};
use super::condemned::CondemnedView;
use super::fault::{StoreError, StoreErrorKind};
use super::health::HealthView;
use super::layout::{self, Key, Kind};
use super::multi_delete::MultiDelete;
use super::objects::{
    Condition, Content, Cursor, Head, ListRequest, Listed, Object, Objects, Page, Removal, Start,
    Version,
};
use super::permits::Permits;
use super::rehash::Rehashes;
use super::turns;
use crate::oci::{Algorithm, Digest, Name, Tag};

/// The most entries that a page of a listing has: few, so that small tests turn pages.
pub const PAGE: usize = 3;

/// As many permits as anybody wants.
#[derive(Debug)]
struct Endless(Permits);

impl Default for Endless {
    fn default() -> Self {
        Self(Permits::new(usize::MAX))
    }
}

/// The bucket.
#[derive(Debug, Default)]
pub struct MemoryStore {
    /// As much memory as tests want, unless they say otherwise.
    pub budget: Budget,
    permits: Endless,
    joins: Endless,
    objects: RefCell<BTreeMap<Key, Bytes>>,
    /// When an object was last written: how many writes there had been. Only what lies in a tag's folder
    /// has a time: nobody asks for another.
    modified: RefCell<BTreeMap<Key, usize>>,
    /// The keys that fail to be read, and how.
    faults: HashMap<Key, StoreErrorKind>,
    /// Whether calls for content complete at once: fewer orders for [`turns`] to try, where nobody removes
    /// any.
    pub content_takes_no_turn: bool,
    /// The largest content that is read, in bytes; no limit if it is 0.
    pub content_limit: u64,
    /// The most entries of a page of a listing, instead of [`PAGE`].
    pub page_limit: Option<usize>,
    /// Whether writes heed no conditions, as in some stores.
    pub ignores_conditions: bool,
    /// The call that fails, counted from 0, and whether it has its effect all the same.
    pub failing_call: Cell<Option<(usize, Effect)>>,
    /// How every call fails, and whether it has its effect all the same.
    pub outage: RefCell<Option<(StoreError, Effect)>>,
    heeds_conditions: Cell<Option<bool>>,
    /// Whether removals heed no conditions, as in some stores.
    pub ignores_conditional_removal: bool,
    heeds_conditional_removal: Cell<Option<bool>>,
    /// Whether it is unknown how to remove many objects by one call, as in some stores.
    pub lacks_multi_delete: bool,
    /// Whether a removal of many heeds no conditions, as in some stores.
    pub ignores_conditions_of_many: bool,
    /// Whether listings name no versions, as in some stores.
    pub lists_no_versions: bool,
    /// The keys that a removal of many leaves, without a word.
    pub left_by_multi_delete: RefCell<Vec<Key>>,
    multi_delete: MultiDelete,
    condemned: CondemnedView,
    health: HealthView,
    /// Whether checksums are not verified, as in some stores.
    pub ignores_checksums: bool,
    checksum_trial: ChecksumTrial,
    rehashes: Rehashes,
    compositions: Compositions,
    /// The parts of multipart uploads under way, by the upload's id.
    parts: RefCell<HashMap<String, BTreeMap<usize, Bytes>>>,
    calls: RefCell<Vec<Key>>,
    /// How many bytes of objects have been read.
    pub bytes_read: Cell<usize>,
    /// How many bytes of objects have been written, but for those that were put for a test.
    pub bytes_written: Cell<usize>,
    /// Who made the calls, and what they did.
    deeds: RefCell<Vec<Deed>>,
}

/// A call as [`turns`] tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// The number of the request that made it.
    pub request: usize,
    /// What it was made for.
    pub key: Key,
    /// Whether there was less of it afterwards.
    pub removed: bool,
}

/// A clock that stands still, and what is written through one proxy.
#[derive(Debug, Default)]
pub struct TestCacheEnvironment {
    /// The time.
    pub now: Cell<Duration>,
    writes: RefCell<HashMap<u8, u64>>,
    acknowledged: RefCell<HashMap<u8, u64>>,
    /// What the cache has told of itself.
    pub events: RefCell<Vec<CacheEvent>>,
}

impl CacheEnvironment for &TestCacheEnvironment {
    fn now(&self) -> Duration {
        self.now.get()
    }

    fn write_epoch(&self, shard: u8) -> u64 {
        self.writes.borrow().get(&shard).copied().unwrap_or_default()
    }

    fn begin_write_epoch(&self, shard: u8) {
        *self.writes.borrow_mut().entry(shard).or_default() += 1;
    }

    fn acknowledged_epoch(&self, shard: u8) -> u64 {
        self.acknowledged.borrow().get(&shard).copied().unwrap_or_default()
    }

    fn begin_acknowledged_epoch(&self, shard: u8) {
        *self.acknowledged.borrow_mut().entry(shard).or_default() += 1;
    }

    fn count(&self, event: CacheEvent) {
        self.events.borrow_mut().push(event);
    }
}

/// What a call that fails has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// All of it: only the answer was lost.
    Done,
}

impl MemoryStore {
    /// A store that holds the same and heeds the same, and has had no calls.
    pub fn copy(&self) -> Self {
        Self {
            objects: self.objects.clone(),
            modified: self.modified.clone(),
            content_takes_no_turn: self.content_takes_no_turn,
            ignores_conditions: self.ignores_conditions,
            heeds_conditions: self.heeds_conditions.clone(),
            ignores_conditional_removal: self.ignores_conditional_removal,
            heeds_conditional_removal: self.heeds_conditional_removal.clone(),
            lacks_multi_delete: self.lacks_multi_delete,
            ignores_conditions_of_many: self.ignores_conditions_of_many,
            lists_no_versions: self.lists_no_versions,
            multi_delete: self.multi_delete.clone(),
            ..Self::default()
        }
    }

    /// Stores `bytes` under `key`.
    pub fn put(&self, key: Key, bytes: impl Into<Bytes>) {
        self.objects.borrow_mut().insert(key, bytes.into());
    }

    /// Stores a manifest in a repository and points a tag at it.
    pub fn put_manifest(&self, name: &Name, tag: &Tag, content: &'static [u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content);
        self.put(layout::content(&digest), content);
        self.put(layout::manifest_link(name, &digest), digest.to_string());
        self.put(layout::tag_link(name, tag), digest.to_string());
        digest
    }

    /// Stores a blob in a repository.
    pub fn put_blob(&self, name: &Name, content: &'static [u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content);
        self.put(layout::content(&digest), content);
        self.put(layout::blob_link(name, &digest), digest.to_string());
        digest
    }

    /// Removes an object.
    pub fn delete(&self, key: &Key) {
        self.objects.borrow_mut().remove(key);
    }

    /// All objects as they are now.
    pub fn objects(&self) -> BTreeMap<Key, Bytes> {
        self.objects.borrow().clone()
    }

    /// Makes reading `key` fail.
    pub fn fail(&mut self, key: Key, kind: StoreErrorKind) {
        self.faults.insert(key, kind);
    }

    /// How many multipart uploads are under way.
    pub fn parts_under_way(&self) -> usize {
        self.parts.borrow().len()
    }

    /// The keys that calls were made for, in order.
    pub fn calls(&self) -> Vec<Key> {
        self.calls.borrow().clone()
    }

    fn insert(&self, objects: &mut BTreeMap<Key, Bytes>, key: &Key, bytes: Bytes) {
        objects.insert(key.clone(), bytes);
        if key.as_str().contains("/_manifests/tags/") {
            let mut modified = self.modified.borrow_mut();
            let time = modified.values().max().map_or(0, |latest| latest + 1);
            modified.insert(key.clone(), time);
        }
    }

    /// What a call does, with a note of it for [`turns`].
    fn act<T>(&self, key: &Key, act: impl FnOnce(&mut BTreeMap<Key, Bytes>) -> T) -> T {
        let mut objects = self.objects.borrow_mut();
        let Some(request) = turns::current() else {
            return act(&mut objects);
        };
        turns::note(key, self.state_below(&objects, key.as_str()));
        let before = objects.len();
        let outcome = act(&mut objects);
        let removed = objects.len() < before;
        self.deeds.borrow_mut().push(Deed { request, key: key.clone(), removed });
        outcome
    }

    /// The calls that requests made which take turns, in order.
    pub fn deeds(&self) -> Vec<Deed> {
        self.deeds.borrow().clone()
    }

    /// A number for all that the store holds.
    pub fn state(&self) -> u64 {
        self.state_below(&self.objects.borrow(), "")
    }

    /// A number for the objects whose keys begin so, and their times.
    fn state_below(&self, objects: &BTreeMap<Key, Bytes>, prefix: &str) -> u64 {
        let modified = self.modified.borrow();
        let mut hasher = DefaultHasher::new();
        prefix.hash(&mut hasher);
        let from = objects.range(Key::of(prefix)..);
        for (key, bytes) in from.take_while(|(key, _)| key.as_str().starts_with(prefix)) {
            (key, bytes, modified.get(key)).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// One call: takes its turn, is recorded, fails if it is to.
    async fn call<T>(
        &self,
        key: &Key,
        act: impl FnOnce(&mut BTreeMap<Key, Bytes>) -> T,
    ) -> Result<T, StoreError> {
        if !(self.content_takes_no_turn && matches!(key.kind(), Kind::Content(_))) {
            take_a_turn().await;
        }
        let number = self.calls.borrow().len();
        self.calls.borrow_mut().push(key.clone());
        if let Some((error, effect)) = self.outage.borrow().clone() {
            if effect == Effect::Done {
                self.act(key, act);
            }
            return Err(error);
        }
        let injected = match self.failing_call.get() {
            Some((failing, effect)) if failing == number => Some(effect),
            _ => None,
        };
        if injected != Some(Effect::None) && !self.faults.contains_key(key) {
            let outcome = self.act(key, act);
            if injected.is_none() {
                return Ok(outcome);
            }
        }
        let kind = self.faults.get(key).copied().unwrap_or(StoreErrorKind::Unavailable);
        Err(StoreError::new(kind, "injected"))
    }
}

fn version_of(bytes: &Bytes) -> Version {
    Version::md5_of(bytes)
}

impl Objects for MemoryStore {
    fn content_limit(&self) -> u64 {
        self.content_limit
    }

    fn budget(&self) -> &Budget {
        &self.budget
    }

    fn permits(&self) -> &Permits {
        &self.permits.0
    }

    fn heeds_conditions(&self) -> &Cell<Option<bool>> {
        &self.heeds_conditions
    }

    fn heeds_conditional_removal(&self) -> &Cell<Option<bool>> {
        &self.heeds_conditional_removal
    }

    fn multi_delete(&self) -> &MultiDelete {
        &self.multi_delete
    }

    fn condemned_view(&self) -> &CondemnedView {
        &self.condemned
    }

    fn health_view(&self) -> &HealthView {
        &self.health
    }

    async fn read(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        let bytes = self.call(key, |objects| objects.get(key).cloned()).await?;
        count(&self.bytes_read, bytes.as_ref());
        Ok(bytes)
    }

    async fn read_version(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        let bytes = self.read(key).await?;
        Ok(bytes.map(|bytes| Object { version: version_of(&bytes), bytes }))
    }

    async fn read_head(&self, key: &Key, limit: u64) -> Result<Option<Head>, StoreError> {
        let head = self.call(key, |objects| objects.get(key).cloned()).await?.map(|bytes| {
            let length = bytes.len().min(limit as usize);
            Head { bytes: bytes.slice(..length), is_whole: (length as u64) < limit }
        });
        count(&self.bytes_read, head.as_ref().map(|head| &head.bytes));
        Ok(head)
    }

    async fn read_content(&self, key: &Key) -> Result<Content, StoreError> {
        let limit = self.content_limit;
        Ok(match self.read(key).await? {
            None => Content::Absent,
            Some(bytes) if limit > 0 && bytes.len() as u64 > limit => Content::TooLarge { limit },
            Some(bytes) => Content::Whole(bytes),
        })
    }

    async fn exists(&self, key: &Key) -> Result<bool, StoreError> {
        self.call(key, |objects| objects.contains_key(key)).await
    }

    async fn write(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError> {
        count(&self.bytes_written, Some(&bytes));
        self.call(key, |objects| self.insert(objects, key, bytes)).await
    }

    async fn write_if(
        &self,
        key: &Key,
        bytes: Bytes,
        condition: &Condition,
    ) -> Result<bool, StoreError> {
        self.call(key, |objects| {
            let holds = match (condition, objects.get(key)) {
                (Condition::Absent, object) => object.is_none(),
                (Condition::Unchanged(version), object) => {
                    object.is_some_and(|bytes| version_of(bytes) == *version)
                }
            };
            let writes = holds || self.ignores_conditions;
            if writes {
                self.insert(objects, key, bytes);
            }
            writes
        })
        .await
    }

    async fn remove(&self, key: &Key) -> Result<(), StoreError> {
        self.call(key, |objects| objects.remove(key)).await.map(drop)
    }

    async fn remove_if(&self, key: &Key, version: &Version) -> Result<Removal, StoreError> {
        self.call(key, |objects| match objects.get(key) {
            // Who does not look at the condition does not look for the object either.
            None if !self.ignores_conditional_removal => Removal::Absent,
            Some(bytes) if !self.ignores_conditional_removal && version_of(bytes) != *version => {
                Removal::Changed
            }
            _ => {
                objects.remove(key);
                Removal::Removed
            }
        })
        .await
    }

    async fn remove_many(
        &self,
        removals: &[(Key, Option<Version>)],
    ) -> Result<Option<Vec<Option<Removal>>>, StoreError> {
        let Some((first, _)) = removals.first() else {
            return Ok(Some(Vec::new()));
        };
        self.call(first, |objects| {
            if self.lacks_multi_delete {
                return None;
            }
            let left = self.left_by_multi_delete.borrow();
            let remove = |(key, version): &(Key, Option<Version>)| {
                let version = version.as_ref().filter(|_| !self.ignores_conditions_of_many);
                let found = objects.get(key).map(version_of);
                match (version, found) {
                    _ if left.contains(key) => None,
                    (Some(_), None) => Some(Removal::Absent),
                    (Some(version), Some(found)) if found != *version => Some(Removal::Changed),
                    _ => {
                        objects.remove(key);
                        Some(Removal::Removed)
                    }
                }
            };
            Some(removals.iter().map(remove).collect())
        })
        .await
    }

    async fn list(&self, request: ListRequest<'_>) -> Result<Page, StoreError> {
        let ListRequest { prefix, listed, start, limit } = request;
        let limit = limit.min(self.page_limit.unwrap_or(PAGE));
        self.call(prefix, |objects| {
            let after = match start {
                Start::First => String::new(),
                Start::After(text) => format!("{}{text}", prefix.as_str()),
                Start::At(cursor) => cursor.0.clone(),
            };
            let mut keys: Vec<String> = objects
                .keys()
                .filter(|key| key.as_str() > after.as_str())
                .filter_map(|key| {
                    let rest = key.as_str().strip_prefix(prefix.as_str())?;
                    let end = match listed {
                        Listed::Objects => rest.len(),
                        Listed::Folders => rest.find('/').map_or(rest.len(), |at| at + 1),
                    };
                    Some(format!("{}{}", prefix.as_str(), &rest[..end]))
                })
                // What a page ended with is not on the next one, whatever else the folder holds.
                .filter(|entry| !matches!(start, Start::At(_)) || *entry > after)
                .collect();
            keys.sort();
            keys.dedup();
            let next = (keys.len() > limit).then(|| Cursor(keys[limit - 1].clone()));
            keys.truncate(limit);
            let keys: Vec<Key> = keys.iter().filter_map(|key| Key::listed(key)).collect();
            let times = self.modified.borrow();
            let time = |key| times.get(key).map_or(String::new(), |time| format!("{time:09}"));
            let size = |key| objects.get(key).map_or(0, |bytes| bytes.len() as u64);
            let sizes = keys.iter().map(size).collect();
            let version = |key: &Key| match objects.get(key) {
                Some(bytes) if !self.lists_no_versions => version_of(bytes),
                _ => Version(String::new()),
            };
            let versions = keys.iter().map(version).collect();
            Page { modified: keys.iter().map(time).collect(), sizes, versions, keys, next }
        })
        .await
    }
}

impl HasParts for MemoryStore {
    type Bucket = Self;

    fn bucket_of_parts(&self) -> &Self {
        self
    }
}

impl Parts for MemoryStore {
    fn checksum_trial(&self) -> &ChecksumTrial {
        &self.checksum_trial
    }

    fn rehashes(&self) -> &Rehashes {
        &self.rehashes
    }

    fn joins(&self) -> &Permits {
        &self.joins.0
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
        let is_taken = self.ignores_checksums || sha256.matches(&bytes);
        self.call(key, |objects| {
            if is_taken {
                objects.insert(key.clone(), bytes);
            }
        })
        .await?;
        Ok(if is_taken { Checked::Stored } else { Checked::Mismatch })
    }

    async fn read_piece(&self, piece: &Piece) -> Result<Bytes, StoreError> {
        let bytes = self.call(&piece.key, |objects| slice(objects, piece)).await?;
        count(&self.bytes_read, bytes.as_ref());
        bytes.ok_or_else(|| StoreError::new(StoreErrorKind::Failed, "no such piece"))
    }

    async fn copy(&self, from: &Key, to: &Key) -> Result<(), StoreError> {
        let copied = self.call(to, |objects| {
            let bytes = objects.get(from).cloned();
            bytes.map(|bytes| objects.insert(to.clone(), bytes)).is_some()
        });
        if copied.await? {
            Ok(())
        } else {
            Err(StoreError::new(StoreErrorKind::Failed, "nothing to copy"))
        }
    }

    async fn begin_parts(&self, key: &Key) -> Result<MultipartId, StoreError> {
        let id = self.calls.borrow().len().to_string();
        self.call(key, |_| self.parts.borrow_mut().insert(id.clone(), BTreeMap::new())).await?;
        Ok(MultipartId(id))
    }

    async fn copy_part(
        &self,
        key: &Key,
        id: &MultipartId,
        number: usize,
        from: &Piece,
    ) -> Result<PartTag, StoreError> {
        let bytes = slice(&self.objects.borrow(), from);
        let bytes = bytes.ok_or_else(|| StoreError::new(StoreErrorKind::Failed, "no piece"))?;
        self.write_part(key, id, number, bytes).await
    }

    async fn write_part(
        &self,
        key: &Key,
        id: &MultipartId,
        number: usize,
        bytes: Bytes,
    ) -> Result<PartTag, StoreError> {
        self.call(key, |_| {
            let mut uploads = self.parts.borrow_mut();
            uploads.get_mut(&id.0).map(|parts| parts.insert(number, bytes));
        })
        .await?;
        Ok(PartTag(number.to_string()))
    }

    async fn finish_parts(
        &self,
        key: &Key,
        id: &MultipartId,
        parts: &[PartTag],
    ) -> Result<(), StoreError> {
        let made = self.call(key, |objects| {
            let written = self.parts.borrow_mut().remove(&id.0).unwrap_or_default();
            let is_whole = written.len() == parts.len();
            let content: Vec<Bytes> = written.into_values().collect();
            objects.insert(key.clone(), content.concat().into());
            is_whole
        });
        if made.await? { Ok(()) } else { Err(StoreError::new(StoreErrorKind::Failed, "no part")) }
    }

    async fn abort_parts(&self, key: &Key, id: &MultipartId) -> Result<(), StoreError> {
        self.call(key, |_| self.parts.borrow_mut().remove(&id.0)).await.map(drop)
    }
}

fn count(total: &Cell<usize>, bytes: Option<&Bytes>) {
    total.set(total.get() + bytes.map_or(0, Bytes::len));
}

fn slice(objects: &BTreeMap<Key, Bytes>, piece: &Piece) -> Option<Bytes> {
    let (start, length) = (piece.start as usize, piece.length as usize);
    let bytes = objects.get(&piece.key)?;
    (bytes.len() >= start + length).then(|| bytes.slice(start..start + length))
}

/// A call that waits, and whom to tell when it may go on.
pub(super) type Waiting = (Rc<Cell<bool>>, Waker);

thread_local! {
    /// The calls that wait for the end of their round trip.
    pub(super) static WAITING: RefCell<Vec<Waiting>> = RefCell::default();
}

/// Waits for the end of the current round trip.
pub async fn take_a_turn() {
    let is_over = Rc::new(Cell::new(false));
    poll_fn(|context| {
        if is_over.get() {
            return Poll::Ready(());
        }
        let waiting = (Rc::clone(&is_over), context.waker().clone());
        WAITING.with_borrow_mut(|all| all.push(waiting));
        Poll::Pending
    })
    .await;
}

/// Remembers that it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `future` to its end and tells how many round trips to the store it made.
pub fn run<T>(future: impl Future<Output = T>) -> (T, usize) {
    let mut future = pin!(future);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut round_trips = 0;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return (output, round_trips);
        }
        if woken.0.swap(false, Ordering::Relaxed) {
            // It has more to begin.
            continue;
        }
        let waiting = WAITING.take();
        assert!(!waiting.is_empty(), "it waits for something that never comes");
        round_trips += 1;
        for (is_over, waker) in waiting {
            is_over.set(true);
            waker.wake();
        }
        woken.0.store(false, Ordering::Relaxed);
    }
}
