//! `/v2/<name>/manifests/<reference>`
//!
//! Source: OCI distribution specification, "Pulling manifests".

use bytes::Bytes;
use futures::future::join;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, VARY};
use http::{HeaderValue, Response, StatusCode};

use super::conditional::{IfNoneMatch, entity_tag};
use super::error::{Error, ErrorCode};
use super::manifest::media_type_of;
use super::media_type::{Accept, MediaType};
use super::reference::{Digest, Name, Reference};
use super::{DOCKER_CONTENT_DIGEST, Request};
use crate::store::{Content, Store};

/// A manifest as it is answered: verified content and what it is.
struct Manifest {
    digest: Digest,
    media_type: MediaType,
    content: Bytes,
}

/// `GET` and `HEAD`. Two waves of storage calls by tag, one by digest.
pub async fn get(
    request: &Request,
    store: &impl Store,
    name: &Name,
    reference: &Reference,
) -> Result<Response<Bytes>, Error> {
    let manifest = match reference {
        Reference::Digest(digest) => fetch(store, name, digest, reference).await?,
        Reference::Tag(tag) => {
            let digest = store.tag(name, tag).await?;
            let digest = digest.ok_or_else(|| manifest_unknown(name, reference))?;
            let manifest = fetch(store, name, &digest, reference).await?;
            negotiate(request, manifest, name, reference)?
        }
    };
    let condition = IfNoneMatch::parse(request.header_values(IF_NONE_MATCH));
    let mut response = if condition.matches(&manifest.digest) {
        not_modified(&manifest.digest)
    } else {
        ok(manifest)
    };
    if matches!(reference, Reference::Tag(_)) {
        let accept = HeaderValue::from_static("Accept");
        response.headers_mut().insert(VARY, accept);
    }
    Ok(response)
}

/// Reads a manifest of the repository and verifies it.
async fn fetch(
    store: &impl Store,
    name: &Name,
    digest: &Digest,
    reference: &Reference,
) -> Result<Manifest, Error> {
    let (link, content) = join(store.manifest_link(name, digest), store.content(digest)).await;
    // The link comes first: without it the content is none of this repository's business, whatever
    // became of reading it.
    let target = link?.ok_or_else(|| manifest_unknown(name, reference))?;
    let content = if target == *digest {
        content?
    } else {
        // `distribution` links content under a second digest by pointing from there to the first.
        store.content(&target).await?
    };
    let content = match content {
        Content::Whole(content) => content,
        Content::Absent => return Err(manifest_unknown(name, reference)),
        Content::TooLarge { limit } => {
            let why = format!("it is larger than the {limit} bytes of manifest_max_bytes");
            return Err(unservable(digest, &why));
        }
    };
    if !digest.matches(&content) {
        let why = "its content does not match its digest; it is corrupt in the store";
        return Err(unservable(digest, why));
    }
    let media_type =
        media_type_of(&content).map_err(|error| unservable(digest, &error.to_string()))?;
    Ok(Manifest {
        digest: digest.clone(),
        media_type,
        content,
    })
}

/// Chooses what is answered for a tag: the stored manifest if the client accepts its type.
///
/// A client that takes another type only would be served a manifest derived from the stored one
/// here, if one could be derived.
fn negotiate(
    request: &Request,
    stored: Manifest,
    name: &Name,
    reference: &Reference,
) -> Result<Manifest, Error> {
    let accept = Accept::parse(request.header_values(ACCEPT));
    if accept.admits(stored.media_type) {
        return Ok(stored);
    }
    let header: Vec<_> = request.header_values(ACCEPT).collect();
    let message = format!(
        "the manifest is stored as {}, which the request's Accept header does not admit: {}",
        stored.media_type,
        header.join(", ")
    );
    Err(Error::new(ErrorCode::ManifestUnknown, message).with_detail(detail(name, reference)))
}

fn ok(manifest: Manifest) -> Response<Bytes> {
    let mut response = Response::new(manifest.content);
    let headers = response.headers_mut();
    let media_type = HeaderValue::from_static(manifest.media_type.as_str());
    headers.insert(CONTENT_TYPE, media_type);
    headers.extend(identity(&manifest.digest));
    response
}

/// 304, with the headers that RFC 9110 section 15.4.5 asks for.
pub(super) fn not_modified(digest: &Digest) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.headers_mut().extend(identity(digest));
    response
}

/// The headers that say which content this is.
pub(super) fn identity(digest: &Digest) -> [(HeaderName, HeaderValue); 2] {
    // A digest is ASCII letters, digits and a colon, so the conversion can't fail.
    let value = HeaderValue::try_from(digest.as_str()).unwrap_or(HeaderValue::from_static(""));
    [(DOCKER_CONTENT_DIGEST, value), (ETAG, entity_tag(digest))]
}

fn manifest_unknown(name: &Name, reference: &Reference) -> Error {
    let message = format!("the repository {name} has no manifest {reference}");
    Error::new(ErrorCode::ManifestUnknown, message).with_detail(detail(name, reference))
}

fn detail(name: &Name, reference: &Reference) -> serde_json::Value {
    serde_json::json!({ "name": name.as_str(), "reference": reference.to_string() })
}

/// The manifest is there, but what is stored may not be served.
fn unservable(digest: &Digest, why: &str) -> Error {
    let message = format!("the manifest {digest} can't be served: {why}");
    log::error!("{message}");
    Error::new(ErrorCode::Unknown, message).with_detail(digest.as_str())
}
