//! `PUT`: closing an upload, with the whole blob, with its last chunk, or with nothing.

use bytes::Bytes;
use futures::TryFutureExt as _;
use futures::future::{join, try_join, try_join3};
use http::Response;

use super::append::{TakenChunk, check_range, take_chunk};
use super::{
    UploadOffset, check_length, complete_content, content_range, created, digest, digest_invalid,
    end, forward_content, fresh_id, learn_about_checksums, link_uploaded, look_out, progress_at,
    range_mismatch, session_state,
};
use crate::oci::Digest;
use crate::registry::Request;
use crate::registry::body::{RequestBody, whole_length};
use crate::registry::events::Reporter;
use crate::registry::http::error::{Error, ErrorCode};
use crate::store::{Chunk, Progress, Session, Store, Uploads};

/// `PUT`. The whole blob: the stream, with the session looked up beside it, and one round trip. Chunks: what
/// it takes to put them together, the link, and two round trips that remove the session.
pub async fn finish(
    request: &Request,
    reporter: Reporter<'_>,
    body: &impl RequestBody,
    store: &(impl Store + Uploads),
    session: &Session,
) -> Result<Response<Bytes>, Error> {
    let claim = Claim::of(request)?;
    if body.is_empty() {
        let progress = progress_at(store, session, claim.place).await?;
        let size = progress.offset();
        let response = close(request, store, session, progress, &claim.digest).await?;
        reporter.blob_pushed(&session.name, &claim.digest, size);
        return Ok(response);
    }
    check_range(body, store, session, claim.place, claim.range).await?;
    let (response, size) = if claim.place.offset == Some(0) {
        whole(request, body, store, session, &claim).await?
    } else {
        last_chunk(request, body, store, session, &claim).await?
    };
    reporter.blob_pushed(&session.name, &claim.digest, size);
    Ok(response)
}

/// The claims of the client about the body and the blob.
struct Claim {
    place: UploadOffset,
    range: Option<(u64, u64)>,
    digest: Digest,
}

impl Claim {
    fn of(request: &Request) -> Result<Self, Error> {
        let missing = || Error::new(ErrorCode::DigestInvalid, "the digest parameter is missing");
        let digest = digest(request)?.ok_or_else(missing)?;
        // What is hashed from here on is hashed for that digest.
        let place = UploadOffset { algorithm: digest.algorithm(), ..UploadOffset::of(request)? };
        Ok(Self { place, range: content_range(request)?, digest })
    }
}

/// The body is the whole blob: it goes to where it belongs at once. Gives the blob's size in bytes as well.
async fn whole(
    request: &Request,
    body: &impl RequestBody,
    store: &(impl Store + Uploads),
    session: &Session,
    claim: &Claim,
) -> Result<(Response<Bytes>, u64), Error> {
    let Claim { place, range, digest } = claim;
    forward_content(body, store, digest);
    let look_up = async {
        let state = session_state(store, session).await?;
        match state.offset {
            0 => Ok(state),
            offset => Err(range_mismatch(session, *place, offset)),
        }
    };
    let (length, state, ()) =
        try_join3(whole_length(body), look_up, learn_about_checksums(store)).await?;
    check_length(*range, length)?;
    let ((), lookout) = try_join(complete_content(body, digest), look_out(request, store)).await?;
    let name = &session.name;
    let linked = link_uploaded(store, name, digest, lookout);
    let (linked, ()) = join(linked, end(store, session, Some(&state))).await;
    linked?;
    Ok((created(name, digest), length))
}

/// The body is the last of several chunks. Gives the blob's size in bytes as well.
async fn last_chunk(
    request: &Request,
    body: &impl RequestBody,
    store: &(impl Store + Uploads),
    session: &Session,
    claim: &Claim,
) -> Result<(Response<Bytes>, u64), Error> {
    let id = fresh_id(request);
    let Claim { place, range, digest } = claim;
    let taken = take_chunk(body, store, session, *place, &id).await?;
    check_length(*range, taken.length)?;
    // Known to be wrong already: then the chunk is not taken in, and the session stays where it was.
    if taken.hasher.clone().is_some_and(|hasher| hasher.finish() != *digest) {
        return Err(digest_invalid(digest));
    }
    body.complete().await.into_result()?;
    let TakenChunk { mut before, length, hasher } = taken;
    if hasher.is_none() {
        // What came before is hashed first: that can be noted, and so is done once, whatever the client
        // sends as the last chunk.
        let hasher = store.hash_upload(session, &before, digest.algorithm()).await?;
        let offset = before.offset();
        before = before.with_hasher(hasher, offset);
    }
    let progress = before.with_chunk(Chunk { id: id.clone(), length }, hasher);
    let size = progress.offset();
    let closed = close(request, store, session, progress, digest).await;
    if closed.as_ref().is_err_and(|error| error.code() == ErrorCode::DigestInvalid) {
        store.remove_chunk(session, &id).await?;
    }
    Ok((closed?, size))
}

/// Makes a blob of what the session has, if that has the digest.
async fn close(
    request: &Request,
    store: &(impl Store + Uploads),
    session: &Session,
    progress: Progress,
    digest: &Digest,
) -> Result<Response<Bytes>, Error> {
    let hasher = store.hash_upload(session, &progress, digest.algorithm()).await?;
    if hasher.finish() != *digest {
        return Err(digest_invalid(digest));
    }
    let chunks = store.upload_chunks(session, &progress).await?;
    let compose = store.compose_content(session, &chunks, digest);
    let ((), state, lookout) = try_join3(
        compose.err_into(),
        store.upload_state(session).err_into(),
        look_out(request, store),
    )
    .await?;
    let name = &session.name;
    // The chunks stay until the repository has the blob: a client that has to repeat this needs them.
    link_uploaded(store, name, digest, lookout).await?;
    end(store, session, state.as_ref()).await;
    Ok(created(name, digest))
}
