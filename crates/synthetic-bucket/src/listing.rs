//! Pages of a bucket's listing, as `ListObjectsV2` has them.

use std::ops::Bound;
use std::time::SystemTime;

use crate::bucket::Bucket;

/// What is to be listed.
#[derive(Debug, Default, Clone)]
pub struct Query {
    /// What all keys begin with.
    pub prefix: String,
    /// Only keys after this one.
    pub after: String,
    /// Whether everything below a folder is one entry.
    pub by_folder: bool,
    /// How many entries a page has at most.
    pub limit: usize,
}

/// A page.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// What is on it, in the order of the keys.
    pub entries: Vec<Listed>,
    /// Where the next page goes on: its [`Query::after`].
    pub next: Option<String>,
}

/// An entry of a page.
#[derive(Debug, PartialEq, Eq)]
pub enum Listed {
    /// An object.
    Object {
        /// Its key.
        key: String,
        /// In bytes.
        size: u64,
        /// The quoted entity tag.
        etag: String,
        /// When it was written.
        modified: SystemTime,
    },
    /// A folder, with a slash at its end.
    Folder(String),
}

impl Bucket {
    /// A page of the bucket's listing.
    pub fn page(&self, query: &Query) -> Page {
        let mut page = Page::default();
        let mut after = query.after.clone();
        let mut walk = Walk::from(self, query.after.as_str().max(query.prefix.as_str()));
        while let Some(key) = walk.key() {
            let Some(within) = key.strip_prefix(query.prefix.as_str()) else { break };
            let folder = within.find('/').filter(|_| query.by_folder);
            let folder = folder.map(|at| &key[..query.prefix.len() + at + 1]);
            if folder == Some(&query.after) {
                walk = Walk::from(self, &end_of(&query.after));
            } else if key <= after.as_str() {
                walk.advance(self);
            } else if page.entries.len() >= query.limit {
                page.next = (query.limit > 0).then_some(after);
                break;
            } else if let Some(folder) = folder.map(str::to_owned) {
                after = end_of(&folder);
                walk = Walk::from(self, &after);
                page.entries.push(Listed::Folder(folder));
            } else {
                key.clone_into(&mut after);
                page.entries.push(walk.listed(self, after.clone()));
                walk.advance(self);
            }
        }
        page
    }
}

/// What sorts behind everything in a folder.
fn end_of(folder: &str) -> String {
    format!("{folder}{}", char::MAX)
}

/// A walk through the keys, in their order.
struct Walk {
    /// The place of the next of the entries that were made up.
    place: usize,
    /// Its key.
    made_up: Option<String>,
    /// The next key that was written.
    written: Option<String>,
}

impl Walk {
    /// Begins at the first key that is `start` or comes after it.
    fn from(bucket: &Bucket, start: &str) -> Self {
        let written = bucket
            .written
            .range::<str, _>((Bound::Included(start), Bound::Unbounded))
            .next()
            .map(|(key, _)| key.clone());
        let mut walk = Self { place: bucket.first_from(start), made_up: None, written };
        walk.settle(bucket);
        walk
    }

    /// Passes over entries that are gone.
    fn settle(&mut self, bucket: &Bucket) {
        while bucket.gone.get(self.place) == Some(&true) {
            self.place += 1;
        }
        let entry = bucket.registry.entries.get(self.place);
        self.made_up = entry.map(|entry| bucket.registry.key(*entry));
    }

    fn is_at_written(&self) -> bool {
        match (&self.made_up, &self.written) {
            (Some(made_up), Some(written)) => written < made_up,
            (_, written) => written.is_some(),
        }
    }

    /// The key where the walk is; `None` at the end.
    fn key(&self) -> Option<&str> {
        if self.is_at_written() { self.written.as_deref() } else { self.made_up.as_deref() }
    }

    /// Goes on to the next key.
    fn advance(&mut self, bucket: &Bucket) {
        match &self.written {
            Some(key) if self.is_at_written() => {
                let later = (Bound::Excluded(key.as_str()), Bound::Unbounded);
                let next = bucket.written.range::<str, _>(later).next();
                self.written = next.map(|(key, _)| key.clone());
            }
            _ => {
                self.place += 1;
                self.settle(bucket);
            }
        }
    }

    /// The object where the walk is, which has this key.
    fn listed(&self, bucket: &Bucket, key: String) -> Listed {
        if let Some(object) = bucket.written.get(&key) {
            let (size, etag) = (object.bytes.size(), object.etag.clone());
            return Listed::Object { key, size, etag, modified: object.modified };
        }
        let entry = bucket.registry.entries[self.place];
        let registry = &bucket.registry;
        let (size, etag) = (registry.size(entry), registry.etag(entry));
        Listed::Object { key, size, etag, modified: registry.modified(entry) }
    }
}
