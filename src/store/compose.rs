//! Making one object of several, by the store: `CopyObject` and multipart uploads.
//!
//! S3 wants every part of a multipart upload but the last to have 5 MiB at least, so what is smaller
//! is read and joined first. One call copies 5 GiB at most; here it copies much less, so that large
//! content is copied by several calls at once, and none of them takes long.
//!
//! Source: Amazon S3 User Guide, "Uploading and copying objects using multipart upload".

use std::cell::Cell;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::fault::{StoreError, StoreErrorKind};
use super::layout::Key;
use super::objects::Objects;
use super::permits::Permits;
use super::rehash::Rehashes;
use super::single_flight::SingleFlight;
use crate::oci::Digest;

/// The least that a part has, but for the last, in bytes.
pub const PART_MIN: u64 = 5 * 1024 * 1024;
/// The most that one call copies, in bytes.
pub const COPY_MAX: u64 = 256 * 1024 * 1024;
/// The most parts that an object may be made of.
const PARTS_MAX: usize = 10_000;
/// How many parts are made at a time. Each may hold twice [`PART_MIN`] in memory.
const PARALLEL_PARTS: usize = 4;
/// How many parts a worker joins at a time, of all uploads together, until each is written.
pub const PARALLEL_JOINS: usize = 2;
/// How many pieces of one part are read at a time.
const PARALLEL_READS: usize = 16;

/// A piece of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The object.
    pub key: Key,
    /// Where in it the piece begins, in bytes.
    pub start: u64,
    /// How many bytes it has. Never none.
    pub length: u64,
}

impl Piece {
    /// The piece in several of about the same length, each of `length` bytes at most.
    pub fn split(&self, length: u64) -> impl Iterator<Item = Piece> + '_ {
        let count = self.length.div_ceil(length).max(1);
        let size = self.length.div_ceil(count);
        (0..count).map(move |number| Piece {
            key: self.key.clone(),
            start: self.start + number * size,
            length: size.min(self.length - number * size),
        })
    }

    /// The first `length` bytes, or all if it has not as many; and what is left.
    fn take(mut self, length: u64) -> (Piece, Option<Piece>) {
        if self.length <= length {
            return (self, None);
        }
        let first = Piece { key: self.key.clone(), start: self.start, length };
        self.start += length;
        self.length -= length;
        (first, Some(self))
    }
}

/// A part of a multipart upload.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// The store copies it.
    Copy(Piece),
    /// It is read from these and written.
    Join(Vec<Piece>),
}

/// A multipart upload under way, by the id that the store gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultipartId(pub String);

/// A part that the store has, by the entity tag that it gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartTag(pub String);

/// The result of a write with a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// The object is stored.
    Stored,
    /// The store says that the checksum is wrong.
    Mismatch,
    /// It is not stored, and the store does not say that the checksum is wrong: perhaps it knows no such
    /// header.
    Refused,
}

/// What has come of trying whether the store verifies checksums.
#[derive(Debug, Default)]
pub struct ChecksumTrial {
    /// Whether it does, once that is known.
    pub verifies: Cell<Option<bool>>,
    /// Whether it has been tried, with whatever result.
    pub was_begun: Cell<bool>,
}

/// Operations on objects in parts. Every method is one call, repeated at most once where
/// it may be.
#[expect(async_fn_in_trait, reason = "the filter runs in one thread; no future is ever sent")]
pub trait Parts: Objects {
    /// What is known of whether the store verifies checksums.
    fn checksum_trial(&self) -> &ChecksumTrial;

    /// The upload sessions whose content is being hashed.
    fn rehashes(&self) -> &Rehashes;

    /// The permits to join parts.
    fn joins(&self) -> &Permits;

    /// The upload sessions whose chunks are being put together.
    fn compositions(&self) -> &Compositions;

    /// Writes an object with its SHA-256.
    async fn write_checked(
        &self,
        key: &Key,
        bytes: Bytes,
        sha256: &Digest,
    ) -> Result<Checked, StoreError>;

    /// Reads a piece of an object, all of which has to be there.
    async fn read_piece(&self, piece: &Piece) -> Result<Bytes, StoreError>;

    /// Copies a whole object.
    async fn copy(&self, from: &Key, to: &Key) -> Result<(), StoreError>;

    /// Begins to make the object of parts.
    async fn begin_parts(&self, key: &Key) -> Result<MultipartId, StoreError>;

    /// Copies a part. `number` counts from 1.
    async fn copy_part(
        &self,
        key: &Key,
        id: &MultipartId,
        number: usize,
        from: &Piece,
    ) -> Result<PartTag, StoreError>;

    /// Writes a part. `number` counts from 1.
    async fn write_part(
        &self,
        key: &Key,
        id: &MultipartId,
        number: usize,
        bytes: Bytes,
    ) -> Result<PartTag, StoreError>;

    /// Makes the object of its parts.
    async fn finish_parts(
        &self,
        key: &Key,
        id: &MultipartId,
        parts: &[PartTag],
    ) -> Result<(), StoreError>;

    /// Forgets the parts.
    async fn abort_parts(&self, key: &Key, id: &MultipartId) -> Result<(), StoreError>;
}

/// Chunks that are being put together, by the last one's key and the digest they make.
pub type Compositions = SingleFlight<(Key, Digest), Result<(), StoreError>>;

/// A bucket with [`Parts`], or something in front of one.
pub trait HasParts {
    /// The bucket.
    type Bucket: Parts;

    /// The bucket, past whatever is kept in memory: nothing of an object in parts is.
    fn bucket_of_parts(&self) -> &Self::Bucket;
}

/// Makes `pieces` one object. One call for a single piece that is not large, two and one for every
/// part otherwise, and a call for every piece that has to be joined.
pub async fn compose(bucket: &impl Parts, pieces: &[Piece], key: &Key) -> Result<(), StoreError> {
    let parts = plan(pieces);
    match parts.as_slice() {
        [] => bucket.write(key, Bytes::new()).await,
        [Part::Join(pieces)] => {
            let _permit = bucket.joins().take().await;
            bucket.write(key, join(bucket, pieces).await?).await
        }
        [Part::Copy(piece)] => bucket.copy(&piece.key, key).await,
        parts if parts.len() > PARTS_MAX => {
            let message = format!("a blob can be put together of {PARTS_MAX} parts at most");
            Err(StoreError::new(StoreErrorKind::Failed, message))
        }
        parts => {
            let id = bucket.begin_parts(key).await?;
            let made = make(bucket, parts, key, &id).await;
            if made.is_err() {
                // What is left of it costs room, no more; the first error is the one that matters.
                let _ = bucket.abort_parts(key, &id).await;
            }
            made
        }
    }
}

async fn make(
    bucket: &impl Parts,
    parts: &[Part],
    key: &Key,
    id: &MultipartId,
) -> Result<(), StoreError> {
    let make_part = async |(number, part): (usize, &Part)| match part {
        Part::Copy(piece) => bucket.copy_part(key, id, number, piece).await,
        Part::Join(pieces) => {
            let _permit = bucket.joins().take().await;
            let bytes = join(bucket, pieces).await?;
            bucket.write_part(key, id, number, bytes).await
        }
    };
    let numbered = stream::iter((1..).zip(parts)).map(make_part);
    let tags: Vec<PartTag> = numbered.buffered(PARALLEL_PARTS).try_collect().await?;
    bucket.finish_parts(key, id, &tags).await
}

async fn join(bucket: &impl Parts, pieces: &[Piece]) -> Result<Bytes, StoreError> {
    let reads = stream::iter(pieces).map(|piece| bucket.read_piece(piece));
    let bytes: Vec<Bytes> = reads.buffered(PARALLEL_READS).try_collect().await?;
    Ok(bytes.concat().into())
}

/// Decides which parts are copied and which joined. Every part but the last has [`PART_MIN`] at least.
fn plan(pieces: &[Piece]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut small: Vec<Piece> = Vec::new();
    let mut missing = 0;
    // The last part may be small, and a piece that is the only one needs no parts at all.
    let may_copy_last = |parts: &[Part]| !parts.is_empty() || pieces.len() == 1;
    for (number, piece) in pieces.iter().enumerate() {
        let is_last = number + 1 == pieces.len();
        let mut rest = Some(piece.clone());
        if !small.is_empty()
            && let Some(piece) = rest.take()
        {
            let (first, left) = piece.take(missing);
            missing -= first.length;
            small.push(first);
            rest = left;
            if missing == 0 {
                parts.push(Part::Join(std::mem::take(&mut small)));
            }
        }
        match rest {
            Some(rest) if rest.length >= PART_MIN || (is_last && may_copy_last(&parts)) => {
                parts.extend(rest.split(COPY_MAX).map(Part::Copy));
            }
            Some(rest) => {
                missing = PART_MIN - rest.length;
                small.push(rest);
            }
            None => {}
        }
    }
    if !small.is_empty() {
        parts.push(Part::Join(small));
    }
    parts
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn pieces(lengths: &[u64]) -> Vec<Piece> {
        let numbered = lengths.iter().enumerate();
        numbered
            .map(|(number, &length)| Piece { key: Key::of(&number.to_string()), start: 0, length })
            .collect()
    }

    fn pieces_of(part: &Part) -> &[Piece] {
        match part {
            Part::Copy(piece) => std::slice::from_ref(piece),
            Part::Join(pieces) => pieces,
        }
    }

    fn length(part: &Part) -> u64 {
        pieces_of(part).iter().map(|piece| piece.length).sum()
    }

    #[test]
    fn parts_are_all_of_the_content_in_its_order_and_large_enough() {
        let sizes = [1, MIB, PART_MIN - 1, PART_MIN, PART_MIN + 1, 300 * MIB, 6 * 1024 * MIB];
        let mut rows = vec![vec![]];
        for first in sizes {
            rows.push(vec![first]);
            for second in sizes {
                rows.push(vec![first, second]);
                rows.extend(sizes.map(|third| vec![first, second, third, 1]));
            }
        }
        rows.push(vec![64 * 1024; 1000]);
        for lengths in rows {
            let parts = plan(&pieces(&lengths));
            // Adjacent pieces of the same object must be where the one before ended.
            let mut position = (0, 0);
            for piece in parts.iter().flat_map(pieces_of) {
                let number: usize = piece.key.as_str().parse().expect("a number");
                if number == position.0 + 1 && position.1 == lengths[position.0] {
                    position = (number, 0);
                }
                assert_eq!((number, piece.start), position, "{lengths:?}");
                assert!(piece.length > 0, "{lengths:?}");
                position.1 += piece.length;
            }
            let end = lengths.last().map_or((0, 0), |last| (lengths.len() - 1, *last));
            assert_eq!(position, end, "{lengths:?}");
            for part in parts.iter().rev().skip(1) {
                assert!(length(part) >= PART_MIN, "{lengths:?}: {parts:?}");
            }
            for part in &parts {
                let limit = if matches!(part, Part::Copy(_)) { COPY_MAX } else { PART_MIN };
                assert!(length(part) <= limit, "{lengths:?}: {parts:?}");
            }
        }
    }

    #[test]
    fn what_is_large_enough_is_copied_and_never_read() {
        let parts = plan(&pieces(&[PART_MIN, 6 * 1024 * MIB, PART_MIN, 1]));
        assert!(parts.iter().all(|part| matches!(part, Part::Copy(_))), "{parts:?}");
        let alone = pieces(&[10]);
        assert_eq!(plan(&alone), [Part::Copy(alone[0].clone())]);
    }
}
