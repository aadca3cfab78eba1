//! `POST`: beginning an upload, or having the whole blob at once.

use bytes::Bytes;
use futures::TryFutureExt as _;
use futures::future::{try_join, try_join3};
use http::{Response, StatusCode};

use super::{
    UploadOffset, algorithm, complete_content, created, digest, forward_content, fresh_id,
    learn_about_checksums, link, link_uploaded, look_out, progress_reply,
};
use crate::oci::{Algorithm, Digest, Name};
use crate::registry::access::Permit;
use crate::registry::body::{RequestBody, whole_length};
use crate::registry::events::Reporter;
use crate::registry::http::error::Error;
use crate::registry::{Mount, Request, Settings};
use crate::store::{Session, Store, Uploads};

/// `POST`. With `mount`, the blob is taken from another repository, if it is there: two round trips
/// to the store. With `digest` and a body, that body is the blob: the stream and one round trip. Otherwise
/// a session begins: one call, and beside the first of a worker two more.
pub async fn start(
    request: &Request,
    body: &impl RequestBody,
    store: &(impl Store + Uploads),
    settings: &Settings,
    permit: &Permit<'_>,
    name: &Name,
) -> Result<Response<Bytes>, Error> {
    let reporter = Reporter::new(request, permit);
    let algorithm = algorithm(request, "digest-algorithm")?;
    if let Some(digest) = digest(request)? {
        if !body.is_empty() {
            return whole(request, reporter, body, store, name, &digest).await;
        }
        if digest.matches(b"") {
            return empty(request, reporter, store, name, &digest).await;
        }
    }
    if permit.may_mount()
        && let Some(digest) = mounted(request, store, settings, name).await?
    {
        reporter.blob_mounted(name, &digest, request.mount_source());
        return Ok(created(name, &digest));
    }
    let session = Session { name: name.clone(), id: fresh_id(request) };
    let started = humantime::format_rfc3339_seconds(request.environment.now()).to_string();
    let begun = store.begin_upload(&session, started).err_into();
    // What closes the upload then need not find that out. Once: where nothing comes of it, not every upload is to pay.
    let learn = async {
        match store.has_tried_checksums() {
            true => Ok(()),
            false => learn_about_checksums(store).await,
        }
    };
    try_join3(begun, look_out(request, store), learn).await?;
    let place = UploadOffset::at(0, algorithm.unwrap_or(Algorithm::Sha256));
    Ok(progress_reply(StatusCode::ACCEPTED, &session, place))
}

/// The body is the blob.
async fn whole(
    request: &Request,
    reporter: Reporter<'_>,
    body: &impl RequestBody,
    store: &(impl Store + Uploads),
    name: &Name,
    digest: &Digest,
) -> Result<Response<Bytes>, Error> {
    forward_content(body, store, digest);
    let (length, ()) = try_join(whole_length(body), learn_about_checksums(store)).await?;
    let ((), lookout) = try_join(complete_content(body, digest), look_out(request, store)).await?;
    link_uploaded(store, name, digest, lookout).await?;
    reporter.blob_pushed(name, digest, length);
    Ok(created(name, digest))
}

/// The blob without content needs no session and no body.
pub async fn empty(
    request: &Request,
    reporter: Reporter<'_>,
    store: &(impl Store + Uploads),
    name: &Name,
    digest: &Digest,
) -> Result<Response<Bytes>, Error> {
    let stored = store.put_content(digest, Bytes::new()).err_into();
    let ((), lookout) = try_join(stored, look_out(request, store)).await?;
    link_uploaded(store, name, digest, lookout).await?;
    reporter.blob_pushed(name, digest, 0);
    Ok(created(name, digest))
}

/// Puts the blob of `mount` into the repository if it can be had; gives its digest then. As the
/// specification has it, a blob that can't be mounted is uploaded instead.
async fn mounted(
    request: &Request,
    store: &(impl Store + Uploads),
    settings: &Settings,
    name: &Name,
) -> Result<Option<Digest>, Error> {
    let mount = request.query_values("mount").next();
    let Some(Ok(digest)) = mount.map(|text| text.parse::<Digest>()) else {
        return Ok(None);
    };
    let names_source = request.query_values("from").next().is_some();
    let is_there = async {
        match (settings.mount, request.mount_source()) {
            (Mount::From | Mount::Anywhere, Some(from)) => store.has_blob(&from, &digest).await,
            (Mount::Anywhere, None) if !names_source => store.has_content(&digest).await,
            _ => Ok(false),
        }
    };
    let (is_there, lookout) = try_join(is_there.err_into(), look_out(request, store)).await?;
    if !is_there {
        return Ok(None);
    }
    Ok(link(store, name, &digest, lookout).await?.then_some(digest))
}
