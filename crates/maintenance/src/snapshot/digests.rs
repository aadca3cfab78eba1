//! The digests that occur in a bucket, each once, with what is stored under it.
//!
//! There may be millions, so each takes about 60 bytes: a hash, what is known of its content, and its place in a table.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;
use moorage::oci::{Algorithm, Digest};

use super::chunked::Chunked;
use crate::time::Seconds;

/// A digest's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DigestId(u32);

impl DigestId {
    /// The number, from 0 on.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The content that is stored under a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its size in bytes.
    pub size: u64,
    /// When it was last written.
    pub modified: Seconds,
}

/// The digests, in the order in which they were met.
#[derive(Debug, Default)]
pub struct Digests {
    entries: Chunked<Entry>,
    /// The numbers, found by the hash.
    table: HashTable<u32>,
    /// Mixes hashes: clients choose digests, and could choose many that share a place in the table.
    mixer: RandomState,
    /// What the hashes of SHA-512 have beyond the 32 bytes of an entry, in the order of their numbers.
    long: Vec<(u32, [u8; 32])>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The hash, or its first half.
    hash: [u8; 32],
    /// [`ABSENT`] if there is no content.
    size: u64,
    modified: Seconds,
    is_long: bool,
}

/// The size of what is not there.
const ABSENT: u64 = u64::MAX;

impl Digests {
    /// The number of a digest, which is given one if it is new.
    pub fn intern(&mut self, digest: &Digest) -> DigestId {
        let (first, rest) = halves(digest);
        if let Some(id) = self.find(&first, rest.as_ref()) {
            return id;
        }
        let number = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let is_long = rest.is_some();
        self.entries.push(Entry { hash: first, size: ABSENT, modified: 0, is_long });
        self.long.extend(rest.map(|rest| (number, rest)));
        let Self { entries, mixer, table, .. } = self;
        let hash_of = |number: &u32| mixer.hash_one(entries.get(*number as usize).hash);
        table.insert_unique(mixer.hash_one(first), number, hash_of);
        DigestId(number)
    }

    /// The number of a digest, if it has one.
    pub fn get(&self, digest: &Digest) -> Option<DigestId> {
        let (first, rest) = halves(digest);
        self.find(&first, rest.as_ref())
    }

    fn find(&self, first: &[u8; 32], rest: Option<&[u8; 32]>) -> Option<DigestId> {
        let is_same = |number: &u32| {
            self.entries.get(*number as usize).hash == *first && self.rest(*number) == rest
        };
        self.table.find(self.mixer.hash_one(first), is_same).copied().map(DigestId)
    }

    fn rest(&self, number: u32) -> Option<&[u8; 32]> {
        if !self.entries.get(number as usize).is_long {
            return None;
        }
        let place = self.long.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(&self.long[place].1)
    }

    /// The digest of this number.
    pub fn digest(&self, id: DigestId) -> Digest {
        let hash = self.entries.get(id.index()).hash;
        match self.rest(id.0) {
            None => Digest::from_hash(Algorithm::Sha256, &hash),
            Some(rest) => Digest::from_hash(Algorithm::Sha512, &[hash, *rest].concat()),
        }
    }

    /// What is stored under the digest of this number.
    pub fn stored(&self, id: DigestId) -> Option<Stored> {
        let Entry { size, modified, .. } = *self.entries.get(id.index());
        (size != ABSENT).then_some(Stored { size, modified })
    }

    /// There is content under the digest of this number.
    pub(super) fn set_stored(&mut self, id: DigestId, stored: Stored) {
        let entry = self.entries.get_mut(id.index());
        entry.size = stored.size.min(ABSENT - 1);
        entry.modified = stored.modified;
    }

    /// Forgets what is stored, and keeps the numbers.
    pub(super) fn forget_stored(&mut self) {
        for index in 0..self.entries.len() {
            self.entries.get_mut(index).size = ABSENT;
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number at a place.
    pub fn id(&self, index: usize) -> DigestId {
        debug_assert!(index < self.len());
        DigestId(index as u32)
    }

    /// The numbers of all.
    pub fn ids(&self) -> impl Iterator<Item = DigestId> + use<> {
        // No more than there are numbers.
        (0..self.len() as u32).map(DigestId)
    }
}

/// A digest's hash in halves of 32 bytes; of SHA-256 there is only the first.
fn halves(digest: &Digest) -> ([u8; 32], Option<[u8; 32]>) {
    let hash = digest.hash();
    let half = |bytes: Option<&[u8]>| bytes.and_then(|bytes| bytes.try_into().ok());
    (half(hash.get(..32)).unwrap_or_default(), half(hash.get(32..64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_has_one_number_and_is_found_again() {
        let mut digests = Digests::default();
        let made = |number: u32| {
            let algorithm =
                if number.is_multiple_of(3) { Algorithm::Sha512 } else { Algorithm::Sha256 };
            Digest::of(algorithm, &number.to_be_bytes())
        };
        let ids: Vec<_> = (0..1000).map(|number| digests.intern(&made(number))).collect();
        for (number, id) in (0..1000).zip(&ids) {
            assert_eq!(digests.intern(&made(number)), *id);
            assert_eq!(digests.get(&made(number)), Some(*id));
            assert_eq!(digests.digest(*id), made(number));
            assert_eq!(digests.stored(*id), None);
        }
        assert_eq!(digests.len(), 1000);
        assert_eq!(digests.get(&made(1000)), None);
        let stored = Stored { size: 5, modified: 7 };
        digests.set_stored(ids[3], stored);
        assert_eq!(digests.stored(ids[3]), Some(stored));
    }
}
