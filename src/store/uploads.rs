//! Upload sessions: what the store keeps of a blob that arrives in pieces.
//!
//! A session is a folder. `startedat` makes it one. Every chunk is an object under an id of its own,
//! so no two requests ever write the same chunk, and what was hashed is what is there. How far the
//! session has got is an object too, its [`Progress`]. It is named by the offset it has reached, so a
//! client that says where it goes on names the very object that has to be there. Any proxy can take the
//! next chunk: nothing of a session is kept anywhere else.

use std::pin::pin;

use bytes::Bytes;
use futures::future::try_join;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;

use super::compose::{self, Checked, HasParts, Parts, Piece};
use super::fault::{StoreError, StoreErrorKind};
use super::layout::{self, Key};
use super::objects::{Cursor, ListRequest, Listed, Objects, Page, Start, pages};
use super::progress::{Chunk, ChunkList, Progress};
use super::{PARALLEL_CALLS, for_each_bounded, rehash};
use crate::oci::{Algorithm, Digest, Hasher, Name, UploadId};

/// An upload session of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Session {
    /// The repository.
    pub name: Name,
    /// The session's id.
    pub id: UploadId,
}

/// The state of a session, by its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState {
    /// How many bytes have been taken in.
    pub offset: u64,
    /// The objects of the session, `startedat` included; all of it, unless some is unlisted.
    objects: Vec<Key>,
    /// Where the listing goes on of what is not among them.
    unlisted: Option<Cursor>,
}

/// The storage of uploads. Every method is one call to the storage, unless it says otherwise.
#[expect(async_fn_in_trait, reason = "the filter runs in one thread; no future is ever sent")]
pub trait Uploads {
    /// Begins a session. `started` is the time, as RFC 3339 writes it.
    async fn begin_upload(&self, session: &Session, started: String) -> Result<(), StoreError>;

    /// The state of the session, by its folder; `None` if there is no such session. One call, and another for a
    /// session of more than a thousand objects.
    async fn upload_state(&self, session: &Session) -> Result<Option<SessionState>, StoreError>;

    /// The progress of the session, up to `offset`; `None` if that is not where it is.
    async fn upload_progress(
        &self,
        session: &Session,
        offset: u64,
    ) -> Result<Option<Progress>, StoreError>;

    /// Notes that the session has taken in one more chunk than `before`, and gives how far it has got.
    /// `hasher` covers it and all before it, if there is one. Two calls, one after the other: were the
    /// first one lost, the session would be where it was. Every [`LIST_LENGTH`](super::LIST_LENGTH) chunks two more, for a
    /// list of this id.
    async fn record_chunk(
        &self,
        session: &Session,
        before: Progress,
        chunk: Chunk,
        hasher: Option<Hasher>,
        list: UploadId,
    ) -> Result<Progress, StoreError>;

    /// All chunks, in their order. No call for a few; for many one, and then one for every
    /// [`LIST_LENGTH`](super::LIST_LENGTH) of them, together.
    async fn upload_chunks(
        &self,
        session: &Session,
        progress: &Progress,
    ) -> Result<Vec<Chunk>, StoreError>;

    /// The hash of what the session has taken in. No call if it was hashed by the algorithm as it passed;
    /// otherwise see [`rehash`].
    async fn hash_upload(
        &self,
        session: &Session,
        progress: &Progress,
        algorithm: Algorithm,
    ) -> Result<Hasher, StoreError>;

    /// Makes the chunks the content stored under the digest, which they must have. The store does it;
    /// only small chunks are read and written again, once for all who ask for the same at a time. See
    /// [`compose`] for the number of calls.
    async fn compose_content(
        &self,
        session: &Session,
        chunks: &[Chunk],
        digest: &Digest,
    ) -> Result<(), StoreError>;

    /// Removes a chunk that was not taken in after all.
    async fn remove_chunk(&self, session: &Session, chunk: &UploadId) -> Result<(), StoreError>;

    /// Removes the session and all that it has. As many calls as it has objects, and a listing for every
    /// thousand of them.
    async fn end_upload(&self, session: &Session, state: &SessionState) -> Result<(), StoreError>;

    /// Puts a stored blob into a repository.
    async fn link_blob(&self, name: &Name, digest: &Digest) -> Result<(), StoreError>;

    /// Whether the store verifies `x-amz-checksum-sha256` by itself, if that is known.
    fn known_to_verify_checksums(&self) -> Option<bool>;

    /// Whether it has been tried to find that out, with whatever result.
    fn has_tried_checksums(&self) -> bool;

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
        let request = ListRequest::new(&prefix, Listed::Objects);
        let Page { keys: mut objects, next, .. } = self.list(request).await?;
        let mut unlisted = None;
        if let Some(cursor) = next {
            let progress = layout::upload_progress(name, id, 0);
            let skips = objects.last().is_some_and(|last| *last < progress);
            let start = match skips {
                true => Start::After(layout::BEFORE_UPLOAD_PROGRESS),
                false => Start::At(&cursor),
            };
            let pages = pages(self, request.from(start)).map_ok(|page| page.keys);
            objects.extend(pages.try_concat().await?);
            unlisted = Some(cursor).filter(|_| skips);
        }
        if !objects.contains(&layout::upload_start(name, id)) {
            return Ok(None);
        }
        // Two requests that raced may have left two; the one that got further counts.
        let offsets = objects.iter().filter_map(|key| layout::offset_of_progress(name, id, key));
        Ok(Some(SessionState { offset: offsets.max().unwrap_or(0), objects, unlisted }))
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
            _ => Err(damaged(&key)),
        }
    }

    async fn record_chunk(
        &self,
        session: &Session,
        before: Progress,
        chunk: Chunk,
        hasher: Option<Hasher>,
        list: UploadId,
    ) -> Result<Progress, StoreError> {
        let offset_before = before.offset();
        let before = match before.is_full() {
            true => write_list(self, session, before, list).await?,
            false => before,
        };
        let progress = before.with_chunk(chunk, hasher);
        write_progress(self, session, &progress).await?;
        // An empty chunk leaves the session where it was.
        if offset_before != 0 && offset_before != progress.offset() {
            let old = layout::upload_progress(&session.name, &session.id, offset_before);
            self.remove(&old).await?;
        }
        Ok(progress)
    }

    async fn upload_chunks(
        &self,
        session: &Session,
        progress: &Progress,
    ) -> Result<Vec<Chunk>, StoreError> {
        let Some(earlier) = &progress.earlier else {
            return Ok(progress.newest.clone());
        };
        let newest = read_list(self, session, &earlier.list).await?;
        let lists =
            stream::iter(newest.earlier).map(async |id| read_list(self, session, &id).await);
        let lists = lists.buffered(PARALLEL_CALLS).map_ok(|list| list.chunks);
        let mut chunks = lists.try_concat().await?;
        chunks.extend(newest.chunks);
        chunks.extend(progress.newest.iter().cloned());
        let length = chunks.iter().fold(0, |sum: u64, chunk| sum.saturating_add(chunk.length));
        if length != progress.offset() {
            return Err(damaged(&layout::upload_list(&session.name, &session.id, &earlier.list)));
        }
        Ok(chunks)
    }

    async fn hash_upload(
        &self,
        session: &Session,
        progress: &Progress,
        algorithm: Algorithm,
    ) -> Result<Hasher, StoreError> {
        match progress.hasher(algorithm) {
            Some(hasher) => Ok(hasher),
            None => rehash::hash(self, session, progress, algorithm).await,
        }
    }

    async fn compose_content(
        &self,
        session: &Session,
        chunks: &[Chunk],
        digest: &Digest,
    ) -> Result<(), StoreError> {
        let pieces = pieces(session, chunks);
        let (bucket, key) = (self.bucket_of_parts(), layout::content(digest));
        let compose = async || compose::compose(bucket, &pieces, &key).await;
        match pieces.last() {
            // Two that close the same upload have the same last chunk, and nobody else has.
            Some(last) => {
                let subject = (last.key.clone(), digest.clone());
                bucket.compositions().share(&subject, compose).await
            }
            None => compose().await,
        }
    }

    async fn remove_chunk(&self, session: &Session, chunk: &UploadId) -> Result<(), StoreError> {
        self.remove(&layout::upload_chunk(&session.name, &session.id, chunk)).await
    }

    async fn end_upload(&self, session: &Session, state: &SessionState) -> Result<(), StoreError> {
        let start = layout::upload_start(&session.name, &session.id);
        let remove = async |keys: &[Key]| {
            let keys = keys.iter().filter(|key| **key != start);
            for_each_bounded(PARALLEL_CALLS, keys, async |key| self.remove(key).await).await
        };
        remove(&state.objects).await?;
        if let Some(cursor) = &state.unlisted {
            let prefix = layout::upload(&session.name, &session.id);
            let request = ListRequest::new(&prefix, Listed::Objects).from(Start::At(cursor));
            let mut pages = pin!(pages(self, request));
            while let Some(page) = pages.try_next().await? {
                remove(&page.keys).await?;
            }
        }
        // Last, so that what could not be removed is still a session, which is purged in time.
        self.remove(&start).await
    }

    async fn link_blob(&self, name: &Name, digest: &Digest) -> Result<(), StoreError> {
        self.write(&layout::blob_link(name, digest), digest.to_string().into()).await
    }

    fn known_to_verify_checksums(&self) -> Option<bool> {
        self.bucket_of_parts().checksum_trial().verifies.get()
    }

    fn has_tried_checksums(&self) -> bool {
        self.bucket_of_parts().checksum_trial().was_begun.get()
    }

    async fn verifies_checksums(&self) -> Result<bool, StoreError> {
        if let Some(known) = self.known_to_verify_checksums() {
            return Ok(known);
        }
        let bucket = self.bucket_of_parts();
        bucket.checksum_trial().was_begun.set(true);
        let key = layout::checksum_probe();
        let probe =
            Bytes::from_static(b"Moorage tries here whether the store verifies checksums.\n");
        let right = Digest::of(crate::oci::Algorithm::Sha256, &probe);
        let wrong = Digest::of(crate::oci::Algorithm::Sha256, b"");
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
        bucket.checksum_trial().verifies.set(Some(verifies));
        Ok(verifies)
    }
}

pub(super) fn pieces(session: &Session, chunks: &[Chunk]) -> Vec<Piece> {
    let key = |chunk: &Chunk| layout::upload_chunk(&session.name, &session.id, &chunk.id);
    let chunks = chunks.iter().filter(|chunk| chunk.length > 0);
    chunks.map(|chunk| Piece { key: key(chunk), start: 0, length: chunk.length }).collect()
}

/// Puts the newest chunks of the progress into a list of this id.
async fn write_list(
    objects: &impl Objects,
    session: &Session,
    progress: Progress,
    id: UploadId,
) -> Result<Progress, StoreError> {
    let mut earlier = Vec::new();
    if let Some(before) = &progress.earlier {
        earlier = read_list(objects, session, &before.list).await?.earlier;
        earlier.push(before.list.clone());
    }
    let list = ChunkList { earlier, chunks: progress.newest.clone() };
    let key = layout::upload_list(&session.name, &session.id, &id);
    write_json(objects, &key, &list).await?;
    Ok(progress.with_list(id))
}

async fn read_list(
    objects: &impl Objects,
    session: &Session,
    id: &UploadId,
) -> Result<ChunkList, StoreError> {
    let key = layout::upload_list(&session.name, &session.id, id);
    let bytes = objects.read(&key).await?;
    let list = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    list.ok_or_else(|| damaged(&key))
}

/// Writes the progress under the offset that it has reached.
pub(super) async fn write_progress(
    objects: &impl Objects,
    session: &Session,
    progress: &Progress,
) -> Result<(), StoreError> {
    let key = layout::upload_progress(&session.name, &session.id, progress.offset());
    write_json(objects, &key, progress).await
}

async fn write_json(
    objects: &impl Objects,
    key: &Key,
    value: &impl Serialize,
) -> Result<(), StoreError> {
    let json = serde_json::to_vec(value).map_err(|error| {
        let message = format!("{} can't be written as JSON: {error}", key.as_str());
        StoreError::new(StoreErrorKind::Failed, message)
    })?;
    objects.write(key, json.into()).await
}

/// What a session has written is not there, or can't be read.
fn damaged(key: &Key) -> StoreError {
    let message = format!("the object {} is damaged or missing", key.as_str());
    log::error!("{message}");
    StoreError::new(StoreErrorKind::Failed, message)
}
