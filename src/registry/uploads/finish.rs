//! `PUT`: closing an upload, with the whole blob, with its last chunk, or with nothing.

use bytes::Bytes;
use futures::future::{try_join, try_join3};
use http::Response;

use super::append::{check_place, take_chunk};
use super::{
    Place, Verification, check_length, content_range, created, digest, digest_invalid, elsewhere,
    end, fresh_id, learn_about_checksums, progress_at, session_state,
};
use crate::registry::Request;
use crate::registry::error::{Error, ErrorCode};
use crate::registry::hasher::Hasher;
use crate::registry::incoming::{Hashing, Incoming, WriteTarget, whole_length};
use crate::registry::reference::Digest;
use crate::store::{Progress, Session, Store, Uploads};

/// `PUT`. The whole blob: the stream, with the session looked up beside it, and one wave. Chunks: what
/// it takes to put them together, and one wave.
pub async fn finish(
    request: &Request,
    incoming: &impl Incoming,
    store: &(impl Store + Uploads),
    session: &Session,
) -> Result<Response<Bytes>, Error> {
    let missing = || Error::new(ErrorCode::DigestInvalid, "the digest parameter is missing");
    let digest = digest(request)?.ok_or_else(missing)?;
    let place = Place::of(request)?;
    let range = content_range(request)?;
    if incoming.is_empty() {
        let progress = progress_at(store, session, place).await?;
        return close(store, session, progress, &digest).await;
    }
    check_place(store, session, place, range).await?;
    if let Some(length) = incoming.announced() {
        check_length(range, length)?;
    }
    if place.offset == Some(0) {
        return whole(incoming, store, session, place, range, &digest).await;
    }
    last_chunk(request, incoming, store, session, place, range, &digest).await
}

/// The body is the whole blob: it goes to where it belongs at once.
async fn whole(
    incoming: &impl Incoming,
    store: &(impl Store + Uploads),
    session: &Session,
    place: Place,
    range: Option<(u64, u64)>,
    digest: &Digest,
) -> Result<Response<Bytes>, Error> {
    let Verification { sha256, hasher } = Verification::of(digest, store);
    let hashing = hasher.map_or(Hashing::Off, |hasher| Hashing::With(Box::new(hasher)));
    incoming.forward(WriteTarget::Content(digest.clone()), sha256, hashing);
    let look_up = async {
        let state = session_state(store, session).await?;
        match state.offset {
            0 => Ok(state),
            offset => Err(elsewhere(session, place, offset)),
        }
    };
    let (length, state, ()) =
        try_join3(whole_length(incoming), look_up, learn_about_checksums(store)).await?;
    check_length(range, length)?;
    if incoming.take_hasher().is_some_and(|hasher| hasher.finish() != *digest) {
        return Err(digest_invalid(digest));
    }
    incoming.complete().await.judge()?;
    let name = &session.name;
    try_join(store.link_blob(name, digest), store.end_upload(session, &state)).await?;
    Ok(created(name, digest))
}

/// The body is the last of several chunks.
async fn last_chunk(
    request: &Request,
    incoming: &impl Incoming,
    store: &(impl Store + Uploads),
    session: &Session,
    place: Place,
    range: Option<(u64, u64)>,
    digest: &Digest,
) -> Result<Response<Bytes>, Error> {
    let place = Place { algorithm: digest.algorithm(), ..place };
    let id = fresh_id(request, "chunk");
    let taken = take_chunk(incoming, store, session, place, &id).await?;
    check_length(range, taken.length)?;
    // Known to be wrong already: then the chunk is not taken in, and the session stays where it was.
    if taken.hasher.clone().is_some_and(|hasher| hasher.finish() != *digest) {
        return Err(digest_invalid(digest));
    }
    incoming.complete().await.judge()?;
    let closed = close(store, session, taken.progress(id.clone()), digest).await;
    if closed.as_ref().is_err_and(|error| error.code() == ErrorCode::DigestInvalid) {
        store.remove_chunk(session, &id).await?;
    }
    closed
}

/// Makes a blob of what the session has, if that has the digest.
async fn close(
    store: &(impl Store + Uploads),
    session: &Session,
    progress: Progress,
    digest: &Digest,
) -> Result<Response<Bytes>, Error> {
    let hashed = progress.hash.filter(|hasher| hasher.algorithm() == digest.algorithm());
    let found = match hashed {
        Some(hasher) => hasher.finish(),
        None => {
            let hasher = Hasher::new(digest.algorithm());
            store.hash_upload(session, &progress.chunks, hasher).await?
        }
    };
    if found != *digest {
        return Err(digest_invalid(digest));
    }
    let compose = store.compose_content(session, &progress.chunks, digest);
    let ((), state) = try_join(compose, store.upload_state(session)).await?;
    let name = &session.name;
    try_join(store.link_blob(name, digest), end(store, session, state.as_ref())).await?;
    Ok(created(name, digest))
}
