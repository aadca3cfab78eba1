//! The registry as the objects of a bucket, which can be read, written and removed.
//!
//! What was made up stays as it is; what was removed of it is marked, and what was written since is kept beside it. An
//! object is in one of the two places at most.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::registry::{Bytes, Entry, Registry, etag};

/// A bucket.
pub struct Bucket {
    pub(crate) registry: Registry,
    /// Whether the entry at this place was removed, or written anew.
    pub(crate) gone: Vec<bool>,
    pub(crate) written: BTreeMap<String, Object>,
}

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// What it holds.
    pub bytes: Bytes,
    /// The quoted entity tag.
    pub etag: String,
    /// When it was written.
    pub modified: SystemTime,
}

impl Bucket {
    /// The bucket that holds a registry.
    pub fn new(registry: Registry) -> Self {
        let gone = vec![false; registry.entries.len()];
        Self { registry, gone, written: BTreeMap::new() }
    }

    /// The object with this key.
    pub fn get(&self, key: &str) -> Option<Object> {
        if let Some(object) = self.written.get(key) {
            return Some(object.clone());
        }
        let entry = self.registry.entries[self.find(key)?];
        Some(Object {
            bytes: self.registry.bytes(entry),
            etag: self.registry.etag(entry),
            modified: self.registry.modified(entry),
        })
    }

    /// Writes an object, and gives its entity tag.
    pub fn put(&mut self, key: String, bytes: bytes::Bytes) -> String {
        let tag = etag(&bytes);
        self.write(key, Bytes::These(bytes), tag.clone());
        tag
    }

    /// Copies an object, and gives the copy; `None` if there is no such object.
    pub fn copy(&mut self, from: &str, to: String) -> Option<Object> {
        let Object { bytes, etag, .. } = self.get(from)?;
        Some(self.write(to, bytes, etag))
    }

    fn write(&mut self, key: String, bytes: Bytes, etag: String) -> Object {
        if let Some(place) = self.find(&key) {
            self.gone[place] = true;
        }
        let object = Object { bytes, etag, modified: SystemTime::now() };
        self.written.insert(key, object.clone());
        object
    }

    /// Removes an object, if there is one.
    pub fn remove(&mut self, key: &str) {
        if self.written.remove(key).is_none()
            && let Some(place) = self.find(key)
        {
            self.gone[place] = true;
        }
    }

    /// The place of an entry that is still there.
    fn find(&self, key: &str) -> Option<usize> {
        let place = self.first_from(key);
        let entry = *self.registry.entries.get(place)?;
        (!self.gone[place] && self.registry.key(entry) == key).then_some(place)
    }

    /// The place of the first entry whose key is this one or comes after it.
    pub(crate) fn first_from(&self, key: &str) -> usize {
        let mut room = String::new();
        let is_before = |entry: &Entry| {
            room.clear();
            self.registry.write_key(*entry, &mut room);
            room.as_str() < key
        };
        self.registry.entries.partition_point(is_before)
    }
}
