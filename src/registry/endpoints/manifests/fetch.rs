//! Reading manifests of a repository, verified, with the replies that tell of them.

use std::rc::Rc;

use bytes::Bytes;
use futures::future::join;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};

use super::{manifest_unknown, unservable};
use crate::oci::manifest::media_type_of;
use crate::oci::{Digest, MediaType, Name, Reference};
use crate::registry::http::error::Error;
use crate::registry::http::reply::{not_modified, with_common_headers};
use crate::store::{Content, Store, StoreError};

/// A manifest that may be answered: verified content and what it is.
pub struct Manifest {
    pub digest: Digest,
    pub description: Description,
    /// The digest under which the store has the content; `None` for a manifest that was made for the client.
    pub stored_under: Option<Digest>,
}

/// The type of a manifest, with the replies that carry it. It is made once for a manifest in the cache.
#[derive(Clone)]
pub struct Description {
    pub media_type: MediaType,
    /// The reply with the manifest.
    pub reply: Rc<Response<Bytes>>,
    /// The reply to who has it already.
    pub not_modified: Rc<Response<Bytes>>,
}

impl Manifest {
    /// A manifest that was made for the client.
    #[cfg(feature = "schema1")]
    pub fn made(digest: Digest, media_type: MediaType, content: Bytes) -> Self {
        let description = Description::new(&digest, media_type, content);
        Self { digest, description, stored_under: None }
    }

    pub fn media_type(&self) -> MediaType {
        self.description.media_type
    }

    pub fn content(&self) -> &Bytes {
        self.description.reply.body()
    }
}

impl Description {
    fn new(digest: &Digest, media_type: MediaType, content: Bytes) -> Self {
        let not_modified = with_common_headers(not_modified(digest));
        let mut reply = Response::new(content);
        // These are kept as long as the manifest is: cloned, they share their values.
        reply.headers_mut().clone_from(not_modified.headers());
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type.as_str()));
        Self { media_type, reply: Rc::new(reply), not_modified: Rc::new(not_modified) }
    }
}

/// Reads a manifest of the repository for a pull, and verifies it.
pub async fn fetch(
    store: &impl Store,
    name: &Name,
    digest: &Digest,
    reference: &Reference,
) -> Result<Manifest, Error> {
    let link = store.manifest_link_for_pull(name, digest);
    let (stored_under, content) = locate(store, link, digest).await?;
    let stored_under = Some(stored_under);
    let content = match content {
        Content::Verified(verified) => {
            let description =
                verified.derived(|| describe(verified.digest(), verified.content()))?;
            let digest = verified.digest().clone();
            return Ok(Manifest { digest, description, stored_under });
        }
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
    let description = describe(digest, &content)?;
    Ok(Manifest { digest: digest.clone(), description, stored_under })
}

/// Describes verified content.
fn describe(digest: &Digest, content: &Bytes) -> Result<Description, Error> {
    let media_type =
        media_type_of(content).map_err(|error| unservable(digest, &error.to_string()))?;
    Ok(Description::new(digest, media_type, content.clone()))
}

/// Reads the content of a manifest that the repository has.
pub async fn content_of(
    store: &impl Store,
    name: &Name,
    digest: &Digest,
) -> Result<Content, StoreError> {
    linked_content(store, store.manifest_link(name, digest), digest).await
}

/// Reads content that a repository has if there is a link to it.
pub async fn linked_content(
    store: &impl Store,
    link: impl Future<Output = Result<Option<Digest>, StoreError>>,
    digest: &Digest,
) -> Result<Content, StoreError> {
    let (_, content) = locate(store, link, digest).await?;
    Ok(content)
}

/// The same, with the digest under which the content is stored.
async fn locate(
    store: &impl Store,
    link: impl Future<Output = Result<Option<Digest>, StoreError>>,
    digest: &Digest,
) -> Result<(Digest, Content), StoreError> {
    let (link, content) = join(link, store.content(digest)).await;
    match link? {
        // Without a link the content is none of this repository's business, whatever became of
        // reading it.
        None => Ok((digest.clone(), Content::Absent)),
        Some(target) if target == *digest => Ok((target, content?)),
        // `distribution` links content under a second digest by pointing from there to the first.
        // What was verified there was verified against the other digest.
        Some(target) => match store.content(&target).await? {
            Content::Verified(verified) => Ok((target, Content::Whole(verified.content().clone()))),
            content => Ok((target, content)),
        },
    }
}
