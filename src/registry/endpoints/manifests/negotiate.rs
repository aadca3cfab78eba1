//! Negotiation: the client of a tag gets the stored manifest, the one of an index that is for its platform, or
//! one that is made for it.
//!
//! Source: RFC 9110, section 12.5.1, for what a client accepts. The OCI specification says nothing of the
//! rest; what an old client is taken for, and what it gets, is as in `distribution` 2.8.

use http::header::ACCEPT;

use super::convert::{convert, signed};
use super::fetch::{Manifest, fetch};
use super::{detail, unservable};
use crate::oci::{MediaType, Name, Reference, Tag};
use crate::registry::http::accept::Accept;
use crate::registry::http::error::{Error, ErrorCode};
use crate::registry::{AbsentAccept, Legacy, Request, Settings, SigningKey};
use crate::store::{Store, Uploads};

/// The media types that a client takes.
struct Client {
    accept: Accept,
    /// Whether it says nothing and is therefore taken for one that knows schema 1 alone.
    is_oldest: bool,
}

impl Client {
    fn new(request: &Request, legacy: &Legacy) -> Self {
        let accept = Accept::parse(request.header_values(ACCEPT));
        let is_convertible = legacy.schema1_key.is_some();
        let is_oldest =
            accept.is_absent() && is_convertible && legacy.absent_accept == AbsentAccept::Convert;
        Self { accept, is_oldest }
    }

    /// Whether a manifest can be served as it is stored. Of what can't be made fit for the oldest
    /// clients, they get what is there.
    fn takes(&self, media_type: MediaType) -> bool {
        match media_type {
            MediaType::DockerSchema1
            | MediaType::DockerManifest
            | MediaType::DockerManifestList
                if self.is_oldest =>
            {
                false
            }
            _ => self.accept.admits(media_type),
        }
    }

    fn takes_schema1(&self) -> bool {
        self.is_oldest || self.accept.admits_schema1()
    }
}

/// Chooses what is answered for a tag that `stored` is stored for.
///
/// No storage calls for a client that takes what is stored; one round trip for a manifest of an index, one
/// for a conversion, and two more, once for a repository, if it lacks the empty layer.
pub async fn negotiate(
    request: &Request,
    store: &(impl Store + Uploads),
    settings: &Settings,
    name: &Name,
    tag: &Tag,
    stored: Manifest,
) -> Result<Manifest, Error> {
    if Accept::names(request.header_values(ACCEPT), stored.media_type()) {
        return Ok(stored);
    }
    let client = Client::new(request, &settings.legacy);
    if client.takes(stored.media_type()) {
        return Ok(stored);
    }
    let is_index =
        matches!(stored.media_type(), MediaType::OciIndex | MediaType::DockerManifestList);
    // On the heap, this and the conversion: what most pulls don't come to needs no room in them.
    let manifest =
        if is_index { Box::pin(child(store, settings, name, tag, &stored)).await? } else { stored };
    if client.takes(manifest.media_type()) {
        return Ok(manifest);
    }
    match manifest.media_type() {
        MediaType::DockerManifest if client.takes_schema1() => {
            let key = key(settings, name, tag, &manifest)?;
            Box::pin(convert(store, settings, name, tag, &manifest, key)).await
        }
        MediaType::DockerSchema1 if client.takes_schema1() => {
            let key = key(settings, name, tag, &manifest)?;
            let payload = std::str::from_utf8(manifest.content())
                .map_err(|error| unservable(&manifest.digest, &error.to_string()))?;
            signed(manifest.digest.clone(), payload, key)
        }
        media_type => Err(not_acceptable(request, name, tag, media_type)),
    }
}

/// The manifest of the index for the platform of old clients.
async fn child(
    store: &impl Store,
    settings: &Settings,
    name: &Name,
    tag: &Tag,
    index: &Manifest,
) -> Result<Manifest, Error> {
    let platform = &settings.legacy.platform;
    let digest = platform.choose_from(index.content()).ok_or_else(|| {
        let message = format!(
            "the manifest is stored as {}, which the request does not admit, and none of it is for {platform}",
            index.media_type()
        );
        unknown(message, name, tag)
    })?;
    fetch(store, name, &digest, &Reference::Digest(digest.clone())).await
}

fn key<'a>(
    settings: &'a Settings,
    name: &Name,
    tag: &Tag,
    manifest: &Manifest,
) -> Result<&'a SigningKey, Error> {
    settings.legacy.schema1_key.as_ref().ok_or_else(|| {
        let message = format!(
            "the manifest is stored as {}, and a signed schema 1 manifest is made of it only where \
             legacy.schema1_key is configured",
            manifest.media_type()
        );
        unknown(message, name, tag)
    })
}

fn not_acceptable(request: &Request, name: &Name, tag: &Tag, media_type: MediaType) -> Error {
    let header: Vec<_> = request.header_values(ACCEPT).collect();
    let message = format!(
        "the manifest is stored as {media_type}, which the request's Accept header does not admit: {}",
        header.join(", ")
    );
    unknown(message, name, tag)
}

fn unknown(message: String, name: &Name, tag: &Tag) -> Error {
    let detail = detail(name, &Reference::Tag(tag.clone()));
    Error::new(ErrorCode::ManifestUnknown, message).with_detail(detail)
}
