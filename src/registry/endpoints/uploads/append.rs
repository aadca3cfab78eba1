//! `PATCH`: the next chunk of an upload.

use bytes::Bytes;
use futures::future::try_join;
use http::{Response, StatusCode};

use super::{
    UploadOffset, check_length, content_range, fresh_id, progress_at, progress_reply,
    range_mismatch, session_state,
};
use crate::oci::{Hasher, UploadId};
use crate::registry::Request;
use crate::registry::body::{Hashing, RequestBody, whole_length};
use crate::registry::http::error::{Error, ErrorCode};
use crate::store::{Chunk, Progress, Session, Store, Uploads, WriteTarget};

/// The most chunks of an upload: as many parts S3 makes an object of.
const MAX_CHUNKS: usize = 10_000;

/// `PATCH`: the stream, with the session looked up beside it in one round trip, and two calls after it, now
/// and then four.
pub async fn append(
    request: &Request,
    body: &impl RequestBody,
    store: &(impl Store + Uploads),
    session: &Session,
) -> Result<Response<Bytes>, Error> {
    let place = UploadOffset::of(request)?;
    let range = content_range(request)?;
    if body.is_empty() {
        let progress = progress_at(store, session, place).await?;
        let place = UploadOffset::at(progress.offset(), place.algorithm);
        return Ok(progress_reply(StatusCode::ACCEPTED, session, place));
    }
    check_range(body, store, session, place, range).await?;
    let id = fresh_id(request);
    let taken = take_chunk(body, store, session, place, &id).await?;
    check_length(range, taken.length)?;
    body.complete().await.into_result()?;
    let TakenChunk { before, length, hasher } = taken;
    let (chunk, list) = (Chunk { id, length }, fresh_id(request));
    let progress = store.record_chunk(session, before, chunk, hasher, list).await?;
    let place = UploadOffset::at(progress.offset(), place.algorithm);
    Ok(progress_reply(StatusCode::ACCEPTED, session, place))
}

/// A chunk whose end is still held back.
pub struct TakenChunk {
    /// The progress of the session before it.
    pub before: Progress,
    /// The chunk's length in bytes.
    pub length: u64,
    /// The hash of it all, if it could be taken.
    pub hasher: Option<Hasher>,
}

/// Refuses a range that does not begin where the client itself says that the session is, or is not as
/// long as the client says that the body is.
pub async fn check_range(
    body: &impl RequestBody,
    store: &impl Uploads,
    session: &Session,
    place: UploadOffset,
    range: Option<(u64, u64)>,
) -> Result<(), Error> {
    if let (Some((first, _)), Some(offset)) = (range, place.offset)
        && first != offset
    {
        let state = session_state(store, session).await?;
        return Err(range_mismatch(session, place, state.offset));
    }
    match body.announced() {
        Some(length) => check_length(range, length),
        None => Ok(()),
    }
}

/// Streams a body into the session, all but its end, and looks up meanwhile what the session has.
pub async fn take_chunk(
    body: &impl RequestBody,
    store: &(impl Store + Uploads),
    session: &Session,
    place: UploadOffset,
    id: &UploadId,
) -> Result<TakenChunk, Error> {
    let hashing = match place.offset {
        Some(0) => Hashing::With(Box::new(Hasher::new(place.algorithm))),
        _ => Hashing::Later,
    };
    let is_later = matches!(hashing, Hashing::Later);
    body.forward(WriteTarget::Chunk(session.clone(), id.clone()), None, hashing);
    let look_up = async {
        let before = progress_at(store, session, place).await?;
        if before.chunk_count() >= MAX_CHUNKS {
            let message = format!("an upload may have {MAX_CHUNKS} chunks at most");
            return Err(Error::new(ErrorCode::BlobUploadInvalid, message));
        }
        if is_later {
            body.hash_with(before.hasher(place.algorithm));
        }
        Ok::<_, Error>(before)
    };
    let (before, length) = try_join(look_up, whole_length(body)).await?;
    Ok(TakenChunk { before, length, hasher: body.take_hasher() })
}
