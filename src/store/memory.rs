//! A store in memory, for unit tests.
//!
//! Every call takes one turn: its future is pending once before it completes. So the number of times
//! that a handler is pending is the number of *waves* of storage calls it makes, where calls that are
//! made together share a wave.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::fault::{StoreError, StoreErrorKind};
use super::layout::{self, Key};
use super::{Content, Store};
use crate::registry::reference::{Algorithm, Digest, Name, Tag};

/// The store. Objects are what a bucket would hold, under the same keys.
#[derive(Debug, Default)]
pub struct MemoryStore {
    objects: HashMap<Key, Bytes>,
    /// The keys that fail to be read, and how.
    faults: HashMap<Key, StoreErrorKind>,
    /// The largest content that is read, in bytes; no limit if it is 0.
    pub content_limit: u64,
    calls: RefCell<Vec<Key>>,
}

impl MemoryStore {
    /// Stores `bytes` under `key`.
    pub fn put(&mut self, key: Key, bytes: impl Into<Bytes>) {
        self.objects.insert(key, bytes.into());
    }

    /// Stores a manifest in a repository and points a tag at it.
    pub fn put_manifest(&mut self, name: &Name, tag: &Tag, content: &'static [u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content);
        self.put(layout::content(&digest), content);
        self.put(layout::manifest_link(name, &digest), digest.to_string());
        self.put(layout::tag_link(name, tag), digest.to_string());
        digest
    }

    /// Removes an object.
    pub fn remove(&mut self, key: &Key) {
        self.objects.remove(key);
    }

    /// Makes reading `key` fail.
    pub fn fail(&mut self, key: Key, kind: StoreErrorKind) {
        self.faults.insert(key, kind);
    }

    /// The keys that were asked for, in order.
    pub fn calls(&self) -> Vec<Key> {
        self.calls.borrow().clone()
    }

    async fn read(&self, key: Key) -> Result<Option<Bytes>, StoreError> {
        take_a_turn().await;
        self.calls.borrow_mut().push(key.clone());
        match self.faults.get(&key) {
            Some(kind) => Err(StoreError::new(*kind, "injected")),
            None => Ok(self.objects.get(&key).cloned()),
        }
    }

    async fn link(&self, key: Key) -> Result<Option<Digest>, StoreError> {
        let Some(text) = self.read(key).await? else {
            return Ok(None);
        };
        let digest = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
        let broken = || StoreError::new(StoreErrorKind::Failed, "the link holds no digest");
        digest.map(Some).ok_or_else(broken)
    }
}

impl Store for MemoryStore {
    async fn tag(&self, name: &Name, tag: &Tag) -> Result<Option<Digest>, StoreError> {
        self.link(layout::tag_link(name, tag)).await
    }

    async fn manifest_link(
        &self,
        name: &Name,
        digest: &Digest,
    ) -> Result<Option<Digest>, StoreError> {
        self.link(layout::manifest_link(name, digest)).await
    }

    async fn blob_link(&self, name: &Name, digest: &Digest) -> Result<Option<Digest>, StoreError> {
        self.link(layout::blob_link(name, digest)).await
    }

    async fn content(&self, digest: &Digest) -> Result<Content, StoreError> {
        let limit = self.content_limit;
        Ok(match self.read(layout::content(digest)).await? {
            None => Content::Absent,
            Some(bytes) if limit > 0 && bytes.len() as u64 > limit => Content::TooLarge { limit },
            Some(bytes) => Content::Whole(bytes),
        })
    }
}

async fn take_a_turn() {
    let mut taken = false;
    poll_fn(|_| if std::mem::replace(&mut taken, true) { Poll::Ready(()) } else { Poll::Pending })
        .await;
}

/// Runs `future` to its end and tells how many waves of storage calls it made.
pub fn run<T>(future: impl Future<Output = T>) -> (T, usize) {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    let mut waves = 0;
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return (output, waves),
            Poll::Pending => waves += 1,
        }
    }
}
