//! Upload sessions: what the store keeps of a blob that arrives in pieces.
//!
//! A session is a folder. `startedat` makes it one. Every chunk is an object under an id of its own,
//! so no two requests ever write the same chunk, and what was hashed is what is there. How far the
//! session has got is an object too: the chunks in their order, and the hash of them all. It is named
//! by the offset it has reached, so a client that says where it goes on names the very object that
//! has to be there. Any proxy can take the next chunk: nothing of a session is kept anywhere else.

use bytes::Bytes;
use futures::future::try_join;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize, de};

use super::compose::{self, Checked, HasParts, Parts, Piece};
use super::fault::{StoreError, StoreErrorKind};
use super::layout::{self, Key};
use super::objects::{ListRequest, Listed, Objects, pages};
use super::{PARALLEL_CALLS, for_each_bounded};
use crate::registry::hasher::Hasher;
use crate::registry::reference::{Digest, Name, UploadId};

/// How much of a blob is read at a time when it has to be hashed once more, in bytes.
const READ_SIZE: u64 = 4 * 1024 * 1024;
/// How many of such reads are under way at a time.
const PARALLEL_READS: usize = 4;

/// An upload session of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The repository.
    pub name: Name,
    /// The session's id.
    pub id: UploadId,
}

/// What a session's folder says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState {
    /// How many bytes have been taken in.
    pub offset: u64,
    /// Everything that the session has in the store, `startedat` included.
    objects: Vec<Key>,
}

/// A chunk that a session has taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The chunk's id.
    #[serde(with = "id_as_text")]
    pub id: UploadId,
    /// Its length in bytes.
    pub length: u64,
}

/// How far a session has got.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The chunks, in their order.
    pub chunks: Vec<Chunk>,
    /// The hash of them all; none where it could not be taken as they passed.
    pub hash: Option<Hasher>,
}

impl Progress {
    /// How many bytes the chunks have together.
    pub fn offset(&self) -> u64 {
        self.chunks.iter().fold(0, |offset, chunk| offset.saturating_add(chunk.length))
    }
}

/// What the store keeps of uploads. Every method is one call to the storage, unless it says otherwise.
#[expect(async_fn_in_trait, reason = "the filter runs in one thread; no future is ever sent")]
pub trait Uploads {
    /// Begins a session. `started` is the time, as RFC 3339 writes it.
    async fn begin_upload(&self, session: &Session, started: String) -> Result<(), StoreError>;

    /// What the session's folder says; `None` if there is no such session. A call for every thousand
    /// objects in it.
    async fn upload_state(&self, session: &Session) -> Result<Option<SessionState>, StoreError>;

    /// What the session has taken in, up to `offset`; `None` if that is not where it is.
    async fn upload_progress(
        &self,
        session: &Session,
        offset: u64,
    ) -> Result<Option<Progress>, StoreError>;

    /// Notes that the session has got as far as `progress`, from `before`. Two calls, one after the
    /// other: were the first one lost, the session would be where it was.
    async fn record_progress(
        &self,
        session: &Session,
        before: u64,
        progress: &Progress,
    ) -> Result<(), StoreError>;

    /// Hashes what the session has taken in, by reading it. A call for every 4 MiB.
    async fn hash_upload(
        &self,
        session: &Session,
        chunks: &[Chunk],
        hasher: Hasher,
    ) -> Result<Digest, StoreError>;

    /// Makes the chunks the content stored under the digest, which they must have. The store does it;
    /// only small chunks are read and written again. See [`compose`] for the number of calls.
    async fn compose_content(
        &self,
        session: &Session,
        chunks: &[Chunk],
        digest: &Digest,
    ) -> Result<(), StoreError>;

    /// Removes a chunk that was not taken in after all.
    async fn remove_chunk(&self, session: &Session, chunk: &UploadId) -> Result<(), StoreError>;

    /// Removes the session and all that it has. As many calls as it has objects.
    async fn end_upload(&self, session: &Session, state: &SessionState) -> Result<(), StoreError>;

    /// Puts a stored blob into a repository.
    async fn link_blob(&self, name: &Name, digest: &Digest) -> Result<(), StoreError>;

    /// Whether the store verifies `x-amz-checksum-sha256` by itself, if that is known.
    fn known_to_verify_checksums(&self) -> Option<bool>;

    /// Finds out whether the store verifies checksums; what was found is remembered. Two calls,
    /// together, the first time.
    async fn verifies_checksums(&self) -> Result<bool, StoreError>;
}

impl<O: Objects + HasParts> Uploads for O {
    async fn begin_upload(&self, session: &Session, started: String) -> Result<(), StoreError> {
        self.write(&layout::upload_start(&session.name, &session.id), started.into()).await
    }

    async fn upload_state(&self, session: &Session) -> Result<Option<SessionState>, StoreError> {
        let Session { name, id } = session;
        let prefix = layout::upload(name, id);
        let pages = pages(self, ListRequest::new(&prefix, Listed::Objects));
        let objects = pages.try_fold(Vec::new(), async |mut objects, page| {
            objects.extend(page.keys);
            Ok(objects)
        });
        let objects: Vec<Key> = objects.await?;
        if !objects.contains(&layout::upload_start(name, id)) {
            return Ok(None);
        }
        // Two requests that raced may have left two; the one that got further counts.
        let offsets = objects.iter().filter_map(|key| layout::offset_of_progress(name, id, key));
        Ok(Some(SessionState { offset: offsets.max().unwrap_or(0), objects }))
    }

    async fn upload_progress(
        &self,
        session: &Session,
        offset: u64,
    ) -> Result<Option<Progress>, StoreError> {
        let key = layout::upload_progress(&session.name, &session.id, offset);
        let Some(bytes) = self.read(&key).await? else {
            return Ok(None);
        };
        match serde_json::from_slice::<Progress>(&bytes) {
            Ok(progress) if progress.offset() == offset => Ok(Some(progress)),
            _ => {
                let message = format!("the object {} is damaged", key.as_str());
                log::error!("{message}");
                Err(StoreError::new(StoreErrorKind::Failed, message))
            }
        }
    }

    async fn record_progress(
        &self,
        session: &Session,
        before: u64,
        progress: &Progress,
    ) -> Result<(), StoreError> {
        let key = |offset| layout::upload_progress(&session.name, &session.id, offset);
        let json = serde_json::to_vec(progress).map_err(|error| {
            StoreError::new(StoreErrorKind::Failed, format!("the progress is no JSON: {error}"))
        })?;
        self.write(&key(progress.offset()), json.into()).await?;
        // An empty chunk leaves the session where it was.
        if before == 0 || before == progress.offset() {
            return Ok(());
        }
        self.remove(&key(before)).await
    }

    async fn hash_upload(
        &self,
        session: &Session,
        chunks: &[Chunk],
        mut hasher: Hasher,
    ) -> Result<Digest, StoreError> {
        let pieces = pieces(session, chunks);
        let parts = pieces.iter().flat_map(|piece| piece.split(READ_SIZE));
        let bucket = self.bucket_of_parts();
        let reads = stream::iter(parts).map(async |part| bucket.read_piece(&part).await);
        let mut reads = std::pin::pin!(reads.buffered(PARALLEL_READS));
        while let Some(bytes) = reads.try_next().await? {
            hasher.update(&bytes);
        }
        Ok(hasher.finish())
    }

    async fn compose_content(
        &self,
        session: &Session,
        chunks: &[Chunk],
        digest: &Digest,
    ) -> Result<(), StoreError> {
        let pieces = pieces(session, chunks);
        compose::compose(self.bucket_of_parts(), &pieces, &layout::content(digest)).await
    }

    async fn remove_chunk(&self, session: &Session, chunk: &UploadId) -> Result<(), StoreError> {
        self.remove(&layout::upload_chunk(&session.name, &session.id, chunk)).await
    }

    async fn end_upload(&self, session: &Session, state: &SessionState) -> Result<(), StoreError> {
        let start = layout::upload_start(&session.name, &session.id);
        let rest = state.objects.iter().filter(|key| **key != start);
        for_each_bounded(PARALLEL_CALLS, rest, async |key| self.remove(key).await).await?;
        // Last, so that what could not be removed is still a session, which is purged in time.
        self.remove(&start).await
    }

    async fn link_blob(&self, name: &Name, digest: &Digest) -> Result<(), StoreError> {
        self.write(&layout::blob_link(name, digest), digest.to_string().into()).await
    }

    fn known_to_verify_checksums(&self) -> Option<bool> {
        self.bucket_of_parts().refuses_wrong_checksums().get()
    }

    async fn verifies_checksums(&self) -> Result<bool, StoreError> {
        if let Some(known) = self.known_to_verify_checksums() {
            return Ok(known);
        }
        let bucket = self.bucket_of_parts();
        let key = layout::checksum_probe();
        let probe =
            Bytes::from_static(b"Moorage tries here whether the store verifies checksums.\n");
        let right = Digest::of(crate::registry::reference::Algorithm::Sha256, &probe);
        let wrong = Digest::of(crate::registry::reference::Algorithm::Sha256, b"");
        let (right, wrong) = try_join(
            bucket.write_checked(&key, probe.clone(), &right),
            bucket.write_checked(&key, probe, &wrong),
        )
        .await?;
        let verifies = match (right, wrong) {
            (Checked::Stored, Checked::Mismatch) => true,
            // Refused for something else, it may be for the moment only: that proves nothing.
            (Checked::Stored, Checked::Refused) => return Ok(false),
            // It ignores the header, or can't take it.
            _ => false,
        };
        bucket.refuses_wrong_checksums().set(Some(verifies));
        Ok(verifies)
    }
}

fn pieces(session: &Session, chunks: &[Chunk]) -> Vec<Piece> {
    let key = |chunk: &Chunk| layout::upload_chunk(&session.name, &session.id, &chunk.id);
    let chunks = chunks.iter().filter(|chunk| chunk.length > 0);
    chunks.map(|chunk| Piece { key: key(chunk), start: 0, length: chunk.length }).collect()
}

mod id_as_text {
    use super::*;

    pub fn serialize<S: serde::Serializer>(id: &UploadId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(id.as_str())
    }

    pub fn deserialize<'de, D: de::Deserializer<'de>>(from: D) -> Result<UploadId, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}
