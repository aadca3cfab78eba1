//! How far an upload session has got: its chunks in their order, and the hashes of what they hold.
//!
//! Every chunk that comes has the progress written anew, and there may be thousands. So the progress
//! names only the newest chunks itself. When it names [`LIST_LENGTH`], they go into an object of their
//! own, a *chunk list*, which names all lists before it and is never changed. So what a chunk costs does
//! not grow with the number of chunks, and all of them are found in three round trips to the store: the progress,
//! the newest list, and the lists before that.
//!
//! A hash may cover less than all chunks: what was hashed by another algorithm as it passed has to be
//! read to be hashed, and what that gave is kept here, so that nothing is read twice for it.

use serde::{Deserialize, Serialize};

use crate::oci::{Algorithm, Hasher, UploadId};

/// How many chunks the progress names itself, and so how many a list has.
pub const LIST_LENGTH: usize = 32;

/// A chunk that a session has taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The chunk's id.
    pub id: UploadId,
    /// Its length in bytes.
    pub length: u64,
}

/// How far a session has got.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct Progress {
    /// The chunks before the newest ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) earlier: Option<Earlier>,
    /// The newest chunks, in their order.
    #[serde(rename = "chunks")]
    pub(super) newest: Vec<Chunk>,
    /// One for each algorithm at most.
    hashes: Vec<Hashed>,
}

/// Chunks that are in lists.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Earlier {
    /// The newest list.
    pub(super) list: UploadId,
    /// How many chunks are in it and the lists before it.
    chunks: usize,
    /// How many bytes they have together.
    length: u64,
}

/// The hash of the beginning of the content.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Hashed {
    /// How many bytes of the content it covers.
    bytes: u64,
    hasher: Hasher,
}

/// A chunk list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct ChunkList {
    /// The lists before it, in their order.
    pub(super) earlier: Vec<UploadId>,
    /// Its chunks, in their order.
    pub(super) chunks: Vec<Chunk>,
}

impl Progress {
    /// How many bytes the chunks have together.
    pub fn offset(&self) -> u64 {
        let earlier = self.earlier.as_ref().map_or(0, |earlier| earlier.length);
        self.newest.iter().fold(earlier, |offset, chunk| offset.saturating_add(chunk.length))
    }

    /// How many chunks there are.
    pub fn chunk_count(&self) -> usize {
        let earlier = self.earlier.as_ref().map_or(0, |earlier| earlier.chunks);
        earlier.saturating_add(self.newest.len())
    }

    /// The hasher that covers all of the content; `None` if it has not been hashed by the algorithm.
    pub fn hasher(&self, algorithm: Algorithm) -> Option<Hasher> {
        let (hasher, bytes) = self.furthest_hasher(algorithm);
        (bytes == self.offset()).then_some(hasher)
    }

    /// The hasher of the algorithm that covers the most of the content, and how many bytes that is.
    pub(super) fn furthest_hasher(&self, algorithm: Algorithm) -> (Hasher, u64) {
        let hashed = self.hashes.iter().find(|hashed| hashed.hasher.algorithm() == algorithm);
        let hashed = hashed.filter(|hashed| hashed.bytes <= self.offset());
        hashed.map_or((Hasher::new(algorithm), 0), |it| (it.hasher.clone(), it.bytes))
    }

    /// The same, where `hasher` covers so many bytes.
    pub fn with_hasher(mut self, hasher: Hasher, bytes: u64) -> Self {
        self.hashes.retain(|hashed| hashed.hasher.algorithm() != hasher.algorithm());
        self.hashes.push(Hashed { bytes, hasher });
        self
    }

    /// The progress with one more chunk. `hasher` covers it and all before it, if it was hashed as it
    /// passed.
    pub fn with_chunk(mut self, chunk: Chunk, hasher: Option<Hasher>) -> Self {
        self.newest.push(chunk);
        let offset = self.offset();
        match hasher {
            Some(hasher) => self.with_hasher(hasher, offset),
            None => self,
        }
    }

    /// Whether the next chunk is to be preceded by a list.
    pub(super) fn is_full(&self) -> bool {
        self.newest.len() >= LIST_LENGTH
    }

    /// The same, where all chunks are in lists. `list` is the newest, and has those that were not.
    pub(super) fn with_list(mut self, list: UploadId) -> Self {
        let (chunks, length) = (self.chunk_count(), self.offset());
        self.newest.clear();
        self.earlier = Some(Earlier { list, chunks, length });
        self
    }

    /// The last chunk. Its id is like no other, and it was taken in after certain others: so what has
    /// the same last chunk has the same content.
    pub(super) fn last_chunk(&self) -> Option<&UploadId> {
        self.newest.last().map(|chunk| &chunk.id)
    }
}

/// How a progress is read: as it is written, or as it was before there were lists. That one named all
/// chunks, and its hash covered them all.
#[derive(Deserialize)]
struct Written {
    earlier: Option<Earlier>,
    chunks: Vec<Chunk>,
    #[serde(default)]
    hashes: Vec<Hashed>,
    hash: Option<Hasher>,
}

impl From<Written> for Progress {
    fn from(written: Written) -> Self {
        let Written { earlier, chunks, hashes, hash } = written;
        let progress = Self { earlier, newest: chunks, hashes };
        let offset = progress.offset();
        match hash {
            Some(hasher) => progress.with_hasher(hasher, offset),
            None => progress,
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn chunk(number: u128) -> Chunk {
        Chunk { id: UploadId::from_random(number), length: 10 }
    }

    fn hasher(algorithm: Algorithm, content: &[u8]) -> Hasher {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(content);
        hasher
    }

    #[test]
    fn what_is_written_is_read_again() {
        let progress = Progress::default().with_chunk(chunk(1), None);
        let progress = progress.with_list(UploadId::from_random(9)).with_chunk(chunk(2), None);
        let written = serde_json::to_vec(&progress).expect("JSON");
        let read: Progress = serde_json::from_slice(&written).expect("a progress");
        assert_eq!((read.offset(), read.chunk_count()), (20, 2));
        assert_eq!(read.last_chunk(), Some(&chunk(2).id));
    }

    #[test]
    fn a_progress_from_before_there_were_lists_is_read() {
        let hash = serde_json::to_value(hasher(Algorithm::Sha256, &[0; 20])).expect("JSON");
        let chunks = [chunk(1), chunk(2)];
        for (hash, is_hashed) in [(hash, true), (serde_json::Value::Null, false)] {
            let written = serde_json::json!({ "chunks": chunks, "hash": hash });
            let read: Progress = serde_json::from_value(written).expect("a progress");
            assert_eq!((read.offset(), read.chunk_count()), (20, 2));
            assert_eq!(read.hasher(Algorithm::Sha256).is_some(), is_hashed);
            assert!(read.hasher(Algorithm::Sha512).is_none());
        }
    }

    #[test]
    fn a_hash_of_a_part_is_none_of_the_whole_but_is_kept() {
        let progress = Progress::default();
        assert!(progress.hasher(Algorithm::Sha512).is_some(), "of nothing, the hash is known");
        let first = hasher(Algorithm::Sha256, &[0; 10]);
        let progress = progress.with_chunk(chunk(1), Some(first)).with_chunk(chunk(2), None);
        assert!(progress.hasher(Algorithm::Sha256).is_none());
        assert_eq!(progress.furthest_hasher(Algorithm::Sha256).1, 10);
        let all = hasher(Algorithm::Sha512, &[0; 20]);
        let progress = progress.with_hasher(all.clone(), 20);
        let found = progress.hasher(Algorithm::Sha512).expect("a hasher");
        assert_eq!(found.finish(), all.finish());
        assert_eq!(progress.furthest_hasher(Algorithm::Sha256).1, 10, "each algorithm has its own");
    }
}
