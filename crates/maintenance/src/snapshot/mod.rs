//! What a bucket holds, in tables: contents, and the links, tags and referrers of each repository.
//!
//! It is made of listings, and of the links whose digest their keys don't tell. Others go on writing meanwhile, so it is
//! the bucket of no single moment: whatever was there all the time is in it, whatever came or went may be or not. Whoever
//! removes something by it has to look again ([`crate::gc`]).
//!
//! Each object takes 64 bytes at most, but for the names of repositories.

mod chunked;
mod digests;
mod inventory;
mod load;

use std::collections::HashMap;

use moorage::oci::{Digest, Name, Tag};

pub use digests::{DigestId, Digests, Stored};
pub use inventory::{Inventory, SnapshotError};
pub use load::Loader;

use crate::time::Seconds;

/// What a bucket holds.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// All digests that occur, and what is stored under them.
    pub digests: Digests,
    /// The repositories, in the order of their names.
    pub repositories: Vec<Repository>,
    /// What belongs to upload sessions.
    pub uploads: Totals,
    /// Content to which links of a kind lead that this registry does not know, such as those of the signatures of old
    /// versions of `distribution`, and content that is in the keys of links that can't be read.
    pub otherwise_linked: Vec<DigestId>,
    /// What no registry wrote, or what this one does not know.
    pub foreign: Totals,
    /// The first few keys of that.
    pub foreign_keys: Vec<String>,
    /// How many objects there are.
    pub objects: u64,
    /// When it was begun to be made, by the store's clock.
    pub begun: Seconds,
}

/// A number of objects and their size.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// How many.
    pub objects: u64,
    /// All their bytes.
    pub bytes: u64,
}

impl Totals {
    /// Adds an object of `size` bytes.
    pub fn add(&mut self, size: u64) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(size);
    }
}

/// What a repository has. Every list is in the order of its keys.
#[derive(Debug)]
pub struct Repository {
    /// Its name.
    pub name: Name,
    /// The links to its blobs.
    pub blobs: Vec<Link>,
    /// The links to its manifests.
    pub manifests: Vec<Link>,
    /// The tags that are set.
    pub tags: Vec<TagLink>,
    /// The history of its tags, and of tags that are gone.
    pub history: Vec<HistoryEntry>,
    /// The entries of manifests that refer to others.
    pub referrers: Vec<ReferrerEntry>,
    /// The keys of its links and tags that hold no digest. What they should lead to nobody knows.
    pub broken: Vec<String>,
    /// The keys of its links and tags that hold a digest with white space around it. It is clear where they lead, but no
    /// registry follows them.
    pub padded: Vec<String>,
}

/// A link to a blob or a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The digest of its key.
    pub digest: DigestId,
    /// The digest that it holds: of the content. Mostly the same.
    pub target: DigestId,
    /// When it was written.
    pub modified: Seconds,
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagLink {
    /// Its name.
    pub tag: Tag,
    /// The manifest that it points at.
    pub target: DigestId,
    /// When it was set.
    pub modified: Seconds,
}

/// An entry of a tag's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The tag.
    pub tag: Tag,
    /// A manifest that it pointed at.
    pub digest: DigestId,
    /// When the entry was last written.
    pub modified: Seconds,
}

/// The entry of a manifest that refers to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReferrerEntry {
    /// The manifest that it refers to.
    pub subject: DigestId,
    /// The manifest.
    pub digest: DigestId,
    /// When the entry was written.
    pub modified: Seconds,
}

impl Repository {
    fn new(name: Name) -> Self {
        Self {
            name,
            blobs: Vec::new(),
            manifests: Vec::new(),
            tags: Vec::new(),
            history: Vec::new(),
            referrers: Vec::new(),
            broken: Vec::new(),
            padded: Vec::new(),
        }
    }

    /// The place of the link to a manifest among [`Repository::manifests`].
    pub fn manifest(&self, digest: DigestId) -> Option<usize> {
        self.manifests.binary_search_by_key(&digest, |link| link.digest).ok()
    }

    /// The place of the link to a blob among [`Repository::blobs`].
    pub fn blob(&self, digest: DigestId) -> Option<usize> {
        self.blobs.binary_search_by_key(&digest, |link| link.digest).ok()
    }

    /// A tag, if it is set.
    pub fn tag(&self, tag: &Tag) -> Option<&TagLink> {
        let place = self.tags.binary_search_by(|link| link.tag.cmp(tag)).ok()?;
        Some(&self.tags[place])
    }

    fn sort(&mut self) {
        self.blobs.sort_unstable_by_key(|link| link.digest);
        self.manifests.sort_unstable_by_key(|link| link.digest);
        self.tags.sort_unstable_by(|a, b| a.tag.cmp(&b.tag));
        self.history.sort_unstable_by(|a, b| (&a.tag, a.digest).cmp(&(&b.tag, b.digest)));
        self.referrers.sort_unstable_by_key(|entry| (entry.subject, entry.digest));
        for links in [&mut self.blobs, &mut self.manifests] {
            links.shrink_to_fit();
        }
        self.tags.shrink_to_fit();
        self.history.shrink_to_fit();
        self.referrers.shrink_to_fit();
        self.broken.sort_unstable();
        self.padded.sort_unstable();
    }
}

/// Repositories while they are found, by their names.
#[derive(Debug, Default)]
struct Repositories {
    places: HashMap<Name, usize>,
    all: Vec<Repository>,
}

impl Repositories {
    fn get(&mut self, name: Name) -> &mut Repository {
        let place = *self.places.entry(name.clone()).or_insert_with(|| {
            self.all.push(Repository::new(name));
            self.all.len() - 1
        });
        &mut self.all[place]
    }

    fn into_sorted(mut self) -> Vec<Repository> {
        self.all.iter_mut().for_each(Repository::sort);
        self.all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.all
    }
}

impl Snapshot {
    /// The digest of this number.
    pub fn digest(&self, id: DigestId) -> Digest {
        self.digests.digest(id)
    }

    /// The repository of this name.
    pub fn repository(&self, name: &Name) -> Option<&Repository> {
        let place = self.repositories.binary_search_by(|other| other.name.cmp(name)).ok()?;
        Some(&self.repositories[place])
    }
}
