//! What was made, and what of it is garbage: the line that the program prints, and what tests compare with.

use serde::Serialize;

/// Objects, and the bytes in them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// How many.
    pub objects: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
}

impl Amount {
    /// Counts one more.
    pub fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

/// What a registry holds.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Census {
    /// All objects, and their sizes together.
    pub total: Amount,
    /// Repositories, empty ones among them.
    pub repositories: u64,
    /// Tags that point at a manifest.
    pub tags: u64,
    /// Manifests that a repository links.
    pub manifests: u64,
    /// Content: blobs and manifests.
    pub content: Amount,
    /// What nothing needs, whatever the rules are.
    pub garbage: Garbage,
    /// What garbage collection keeps unless it is told to remove untagged manifests.
    pub untagged: Untagged,
    /// Upload sessions that were never finished. They are no garbage of a collection.
    pub uploads: u64,
}

/// What nothing needs.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Garbage {
    /// Content that no manifest refers to and that is no manifest with a link. Some of it is linked: by `blob_links`.
    pub content: Amount,
    /// Links to blobs that no manifest of the repository refers to.
    pub blob_links: u64,
    /// Entries in the history of tags that are gone.
    pub tag_histories: u64,
    /// Entries of referrers whose manifest is gone.
    pub referrers: u64,
    /// Repositories without a manifest.
    pub repositories: u64,
}

impl Garbage {
    /// How many objects that are.
    pub fn objects(&self) -> u64 {
        self.content.objects + self.blob_links + self.tag_histories + self.referrers
    }
}

/// What belongs to manifests that no tag leads to: pushed to a tag that has moved on since.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Untagged {
    /// The manifests.
    pub manifests: u64,
    /// Content that only they need, themselves included.
    pub content: Amount,
    /// Links to blobs that only they need.
    pub blob_links: u64,
}
