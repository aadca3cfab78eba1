//! Hashing once more what an upload session has taken in.
//!
//! Chunks are hashed as they pass. Where they were not, or by another algorithm than the digest's, they
//! have to be read. That may be much, and any client can ask for it. So it is done for a few sessions at
//! a time, once for all who want the same, and what was found is noted in the session's progress as it
//! goes: whoever has to repeat it, after a wrong digest or a broken connection, goes on from there.

use std::cell::Cell;
use std::pin::pin;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::compose::{HasParts, Parts, Piece};
use super::fault::{StoreError, StoreErrorKind};
use super::objects::Objects;
use super::progress::Progress;
use super::single_flight::SingleFlight;
use super::uploads::{Session, Uploads, pieces, write_progress};
use crate::oci::{Algorithm, Hasher, UploadId};

/// How many sessions a worker hashes at a time. Each holds what it reads at a time in memory.
pub const PARALLEL_REHASHES: usize = 4;
/// How much is read at a time, in bytes.
const READ_SIZE: u64 = 1024 * 1024;
/// How many of such reads are under way at a time.
const PARALLEL_READS: usize = 4;
/// After how much it is noted how far the hash has got, in bytes.
const STEP: u64 = 64 * 1024 * 1024;

/// The subject of a hash: a session's content up to a certain chunk, by an algorithm.
type Subject = (Session, Option<UploadId>, Algorithm);

/// The sessions that are being hashed.
#[derive(Debug, Default)]
pub struct Rehashes {
    flights: SingleFlight<Subject, Result<Hasher, StoreError>>,
    under_way: Cell<usize>,
}

impl Rehashes {
    /// Takes one of the places, until the result is dropped.
    fn begin(&self) -> Result<Place<'_>, StoreError> {
        if self.under_way.get() >= PARALLEL_REHASHES {
            let message = "too many uploads are being hashed once more; try again in a moment";
            return Err(StoreError::new(StoreErrorKind::Unavailable, message));
        }
        self.under_way.set(self.under_way.get() + 1);
        Ok(Place(&self.under_way))
    }
}

/// One of the places.
struct Place<'a>(&'a Cell<usize>);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Hashes what `progress` says has been taken in, as far as that has not been done. A call for every chunk
/// and every MiB, and two for every 64 MiB to note it.
///
/// # Errors
///
/// Those of the store; and [`StoreErrorKind::Unavailable`] while too many others are being hashed.
pub(super) async fn hash<O: Objects + HasParts>(
    store: &O,
    session: &Session,
    progress: &Progress,
    algorithm: Algorithm,
) -> Result<Hasher, StoreError> {
    let rehashes = store.bucket_of_parts().rehashes();
    let subject = (session.clone(), progress.last_chunk().cloned(), algorithm);
    let read = async || {
        let _place = rehashes.begin()?;
        read_and_hash(store, session, progress, algorithm, STEP).await
    };
    rehashes.flights.share(&subject, read).await
}

async fn read_and_hash<O: Objects + HasParts>(
    store: &O,
    session: &Session,
    progress: &Progress,
    algorithm: Algorithm,
    step: u64,
) -> Result<Hasher, StoreError> {
    let pieces = pieces(session, &store.upload_chunks(session, progress).await?);
    let (mut hasher, mut done) = progress.furthest_hasher(algorithm);
    let end = progress.offset();
    while done < end {
        let next = end.min(done + step);
        let unread: Vec<_> = cut(&pieces, done, next).collect();
        let bucket = store.bucket_of_parts();
        let reads = stream::iter(unread.iter().flat_map(|piece| piece.split(READ_SIZE)));
        let reads = reads.map(async |piece| bucket.read_piece(&piece).await);
        let mut reads = pin!(reads.buffered(PARALLEL_READS));
        while let Some(bytes) = reads.try_next().await? {
            hasher.update(&bytes);
        }
        done = next;
        if let Err(error) = note(store, session, progress, &hasher, done).await {
            log::warn!("the hash of the upload {} will be taken anew: {error}", session.id);
        }
    }
    Ok(hasher)
}

/// Notes how far the hash has got, if the session is still where it was.
async fn note(
    store: &(impl Objects + HasParts),
    session: &Session,
    progress: &Progress,
    hasher: &Hasher,
    bytes: u64,
) -> Result<(), StoreError> {
    match store.upload_progress(session, progress.offset()).await? {
        Some(current) if current.last_chunk() == progress.last_chunk() => {
            write_progress(store, session, &current.with_hasher(hasher.clone(), bytes)).await
        }
        _ => Ok(()),
    }
}

/// The part of the pieces between two offsets.
fn cut(pieces: &[Piece], start: u64, end: u64) -> impl Iterator<Item = Piece> + '_ {
    let mut offset = 0;
    pieces.iter().filter_map(move |piece| {
        let begin = offset;
        offset += piece.length;
        let (first, last) = (start.max(begin), end.min(offset));
        (first < last).then(|| Piece {
            key: piece.key.clone(),
            start: piece.start + (first - begin),
            length: last - first,
        })
    })
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use futures::future::{join, join_all};

    use super::*;
    use crate::oci::Digest;
    use crate::store::layout::{self, Key};
    use crate::store::memory::{Effect, MemoryStore, run};
    use crate::store::progress::Chunk;

    /// A session with two chunks that were not hashed, and its content.
    fn session(store: &MemoryStore, number: u128) -> (Session, Progress, Vec<u8>) {
        let (name, id) = ("a".parse().expect("a valid name"), UploadId::from_random(number));
        let session = Session { name, id };
        let mut progress = Progress::default();
        let mut content = Vec::new();
        for (number, length) in [(1, 30), (2, 25)] {
            let chunk = Chunk { id: UploadId::from_random(number), length };
            let bytes = vec![number as u8; length as usize];
            let key = layout::upload_chunk(&session.name, &session.id, &chunk.id);
            store.put(key, bytes.clone());
            content.extend(bytes);
            progress = progress.with_chunk(chunk, None);
        }
        run(write_progress(store, &session, &progress)).0.expect("the store does not fail");
        (session, progress, content)
    }

    #[test]
    fn many_that_want_the_same_read_it_once() {
        let store = MemoryStore::default();
        let (session, progress, content) = session(&store, 0);
        let hash = || store.hash_upload(&session, &progress, Algorithm::Sha512);
        let ((one, other), _) = run(join(hash(), hash()));
        let digest = Digest::of(Algorithm::Sha512, &content);
        for hasher in [one, other] {
            assert_eq!(hasher.expect("the store does not fail").finish(), digest);
        }
        assert!(store.bytes_read.get() < 2 * content.len() + 400, "{}", store.bytes_read.get());
    }

    #[test]
    fn many_that_close_the_same_upload_put_it_together_once() {
        let store = MemoryStore::default();
        let (session, progress, content) = session(&store, 0);
        let chunks = run(store.upload_chunks(&session, &progress)).0.expect("no fault");
        let digest = Digest::of(Algorithm::Sha256, &content);
        let before = store.calls().len();
        let compose = || store.compose_content(&session, &chunks, &digest);
        let ((one, other), _) = run(join(compose(), compose()));
        assert_eq!((one, other), (Ok(()), Ok(())));
        assert_eq!(store.calls().len() - before, 3, "two reads and a write");
        assert_eq!(store.objects()[&layout::content(&digest)], content);
    }

    #[test]
    fn more_than_a_few_at_a_time_are_told_to_come_back() {
        let store = MemoryStore::default();
        let sessions: Vec<_> = (0..10).map(|number| session(&store, number)).collect();
        let hash = |(session, progress, _): &(Session, Progress, Vec<u8>)| {
            let (store, session, progress) = (&store, session.clone(), progress.clone());
            async move { store.hash_upload(&session, &progress, Algorithm::Sha256).await }
        };
        let (results, _) = run(join_all(sessions.iter().map(hash)));
        let refused: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        assert_eq!(refused.len(), 10 - PARALLEL_REHASHES);
        assert!(refused.iter().all(|error| error.kind() == StoreErrorKind::Unavailable));
        // The places are free again.
        assert!(run(hash(&sessions[9])).0.is_ok());
    }

    #[test]
    fn a_hash_that_broke_off_goes_on_where_it_was() {
        let hash = |store: &MemoryStore, session: &Session, progress: &Progress| {
            run(read_and_hash(store, session, progress, Algorithm::Sha256, 10)).0
        };
        let calls = {
            let store = MemoryStore::default();
            let (session, progress, _) = session(&store, 0);
            let before = store.calls().len();
            hash(&store, &session, &progress).expect("the store does not fail");
            store.calls().len() - before
        };
        for call in 0..calls {
            let store = MemoryStore::default();
            let (session, progress, content) = session(&store, 0);
            store.failing_call.set(Some((store.calls().len() + call, Effect::None)));
            let first = hash(&store, &session, &progress);
            let again =
                run(store.upload_progress(&session, 55)).0.expect("the store does not fail");
            let again = again.expect("a progress");
            let known = again.furthest_hasher(Algorithm::Sha256).1;
            assert!(first.is_err() || known >= 50, "{call}: {known}");
            // What can't be noted is no failure; and each step is noted.
            assert!(known as usize / 10 + 1 >= call / 4, "{call}: {known}");
            let hasher = hash(&store, &session, &again).expect("the store fails once");
            assert_eq!(hasher.finish(), Digest::of(Algorithm::Sha256, &content), "{call}");
        }
    }

    #[test]
    fn a_session_that_went_on_meanwhile_is_left_as_it_is() {
        let store = MemoryStore::default();
        let (session, progress, _) = session(&store, 0);
        let key = layout::upload_progress(&session.name, &session.id, 55);
        store.delete(&key);
        run(store.hash_upload(&session, &progress, Algorithm::Sha256)).0.expect("no fault");
        assert!(!store.objects().contains_key(&key));
    }

    #[test]
    fn pieces_are_cut_where_a_hash_goes_on() {
        let piece = |key: &str, start, length| Piece { key: Key::of(key), start, length };
        let pieces = [piece("a", 0, 10), piece("b", 5, 10), piece("c", 0, 10)];
        for (start, end, expected) in [
            (0, 30, pieces.to_vec()),
            (0, 10, vec![piece("a", 0, 10)]),
            (4, 12, vec![piece("a", 4, 6), piece("b", 5, 2)]),
            (15, 20, vec![piece("b", 10, 5)]),
            (30, 30, vec![]),
        ] {
            assert_eq!(cut(&pieces, start, end).collect::<Vec<_>>(), expected, "{start} to {end}");
        }
    }
}
