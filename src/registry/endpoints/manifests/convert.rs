//! Making a signed schema 1 manifest of a stored one.

use bytes::Bytes;
use futures::future::join;
use serde_json::json;

use super::fetch::{Manifest, linked_content};
use super::unservable;
use crate::oci::manifest::InvalidManifest;
use crate::oci::{Algorithm, Digest, MediaType, Name, Tag};
use crate::registry::http::error::{Error, ErrorCode};
use crate::registry::schema1::{EMPTY_LAYER, Image, empty_layer_digest, sign};
use crate::registry::{Settings, SigningKey};
use crate::store::{Content, Store, Uploads};

/// Converts a schema 2 image. One round trip to the store, and two more, once for a repository, if it
/// lacks the empty layer. It is looked for together with the configuration, which alone says whether it
/// is needed: a call too many costs less time than a round trip.
pub async fn convert(
    store: &(impl Store + Uploads),
    settings: &Settings,
    name: &Name,
    tag: &Tag,
    manifest: &Manifest,
    key: &SigningKey,
) -> Result<Manifest, Error> {
    let image = Image::parse(manifest.content()).map_err(|why| not_convertible(manifest, &why))?;
    let empty_layer = empty_layer_digest();
    let (config, has_empty_layer) = join(
        configuration(store, name, manifest, &image.config),
        store.has_blob(name, &empty_layer),
    )
    .await;
    let converted =
        image.convert(&config?, name, tag).map_err(|why| not_convertible(manifest, &why))?;
    if converted.has_empty_layer && !has_empty_layer? {
        put_empty_layer(store, settings, name, &empty_layer).await?;
    }
    let digest = Digest::of(Algorithm::Sha256, converted.payload.as_bytes());
    signed(digest, &converted.payload, key)
}

/// Signs a schema 1 manifest. Its digest stays that of the unsigned payload, which is what schema 1
/// manifests are known by.
pub fn signed(digest: Digest, payload: &str, key: &SigningKey) -> Result<Manifest, Error> {
    let content =
        sign(payload, key).ok_or_else(|| unservable(&digest, "it can't be signed as schema 1"))?;
    Ok(Manifest::made(digest, MediaType::DockerSchema1Signed, content.into()))
}

/// Reads the configuration of an image and verifies it.
async fn configuration(
    store: &impl Store,
    name: &Name,
    manifest: &Manifest,
    digest: &Digest,
) -> Result<Bytes, Error> {
    let unservable =
        |why: &str| unservable(&manifest.digest, &format!("its configuration {digest} {why}"));
    match linked_content(store, store.blob_link(name, digest), digest).await? {
        Content::Verified(verified) => Ok(verified.content().clone()),
        Content::Whole(content) if digest.matches(&content) => Ok(content),
        Content::Whole(_) => {
            Err(unservable("does not match its digest; it is corrupt in the store"))
        }
        Content::TooLarge { limit } => {
            Err(unservable(&format!("is larger than the {limit} bytes of manifest_max_bytes")))
        }
        Content::Absent => {
            let problem = format!("{digest} is not in the repository");
            Err(not_convertible(manifest, &InvalidManifest::new("config", problem)))
        }
    }
}

/// Puts the empty layer into the repository, the content first: a link is never without it.
async fn put_empty_layer(
    store: &(impl Store + Uploads),
    settings: &Settings,
    name: &Name,
    digest: &Digest,
) -> Result<(), Error> {
    if settings.read_only {
        let message = "the manifest can't be converted to schema 1: it needs an empty layer, which \
                       the repository lacks and read_only keeps out";
        return Err(Error::new(ErrorCode::ManifestUnknown, message).with_detail(digest.as_str()));
    }
    store.put_content(digest, Bytes::from_static(&EMPTY_LAYER)).await?;
    Ok(store.link_blob(name, digest).await?)
}

fn not_convertible(manifest: &Manifest, why: &InvalidManifest) -> Error {
    let message = format!("the manifest {} can't be converted to schema 1: {why}", manifest.digest);
    let detail = json!({ "field": why.field, "problem": why.problem });
    Error::new(ErrorCode::ManifestInvalid, message).with_detail(detail)
}
