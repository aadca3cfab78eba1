//! Deleting a manifest or a tag.
//!
//! A manifest's link goes first: from that moment every tag on it answers 404, because a tag is
//! resolved through the link. Then go the tags that point at it, and its entry at its subject. The
//! content stays until garbage is collected. A repeat of a request that broke off removes what it
//! left.
//!
//! Others may write at the same time. A tag that is moved to another manifest meanwhile stays where it
//! was moved to. If the manifest itself is put again, all is done once more, as if it had been put
//! before: its link is looked at in the end. A put that writes the link before this request does away with
//! it, and its tag when that tag has been looked at, leaves a tag that points at nothing; it answers 404, as
//! it should after that put and this removal.
//!
//! A manifest stays as long as a tag points at it that policy makes immutable. That is looked at before its link is
//! removed, and again after that: if such a tag has come meanwhile the link is put back.

use bytes::Bytes;
use futures::future::join;
use http::{Response, StatusCode};

use super::immutable::{self, denied};
use super::manifest_unknown;
use crate::oci::manifest::subject_of;
use crate::oci::{Digest, Name, Reference, Tag};
use crate::registry::Settings;
use crate::registry::events::Reporter;
use crate::registry::http::error::Error;
use crate::registry::http::reply::bare;
use crate::store::{Content, Store, StoreError, StoreErrorKind};

/// How often a manifest is removed that others put again meanwhile.
const ATTEMPTS: usize = 5;

/// `DELETE`. By tag, only the tag; by digest, the manifest with every tag on it.
pub async fn delete(
    reporter: Reporter<'_>,
    store: &impl Store,
    settings: &Settings,
    name: &Name,
    reference: &Reference,
) -> Result<Response<Bytes>, Error> {
    let was_there = match reference {
        Reference::Tag(tag) => match settings.immutable(name, tag) {
            Some(rule) => return Err(denied(tag, rule)),
            None => store.remove_tag(name, tag).await?,
        },
        Reference::Digest(digest) => delete_manifest(store, settings, name, digest).await?,
    };
    if !was_there {
        return Err(manifest_unknown(name, reference));
    }
    reporter.manifest_deleted(name, reference);
    Ok(bare(StatusCode::ACCEPTED))
}

async fn delete_manifest(
    store: &impl Store,
    settings: &Settings,
    name: &Name,
    digest: &Digest,
) -> Result<bool, Error> {
    if let Some(refusal) = immutable::refusal(store, settings, name, digest).await? {
        return Err(refusal);
    }
    let (link, content) = join(store.manifest_link(name, digest), store.content(digest)).await;
    let (mut is_linked, content) = (link?.is_some(), content?);
    if !is_linked && content == Content::Absent {
        return Ok(false);
    }
    let subject = content.into_bytes().and_then(|content| subject_of(&content));
    let mut had_anything = is_linked;
    for _ in 0..ATTEMPTS {
        if is_linked {
            store.unlink_manifest(name, digest).await?;
        }
        if let Some(refusal) = immutable::refusal(store, settings, name, digest).await? {
            store.link_manifest(name, digest).await?;
            return Err(refusal);
        }
        // Without a link too: an earlier request may have broken off here.
        let may_go = |tag: &Tag| settings.immutable(name, tag).is_none();
        had_anything |= store.remove_tags_on(name, digest, may_go).await?;
        if let Some(subject) = &subject {
            store.remove_referrer(name, subject, digest).await?;
        }
        is_linked = store.manifest_link(name, digest).await?.is_some();
        if !is_linked {
            return Ok(had_anything);
        }
        had_anything = true;
    }
    let message = format!("the manifest {digest} is put all the time and can't be deleted");
    Err(StoreError::new(StoreErrorKind::Unavailable, message).into())
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use crate::registry::test_registry::{
        OCI_MANIFEST, TestRegistry, descriptor, digest_of, error, image, name,
    };
    use crate::store::layout;

    fn unknown() -> (u16, String) {
        (404, "MANIFEST_UNKNOWN".to_owned())
    }

    #[test]
    fn by_tag_only_the_tag_goes() {
        let registry = TestRegistry::with_blobs();
        let digest = digest_of(&image("x").to_string());
        registry.put("a", &image("x"));
        registry.put("b", &image("x"));
        assert_eq!(registry.delete("a").status(), 202);
        assert_eq!(error(&registry.get("a")), unknown());
        assert_eq!(registry.get("b").status(), 200);
        assert_eq!(registry.get(digest.as_str()).status(), 200);
        assert_eq!(error(&registry.delete("a")), unknown());
        let left = registry.store.objects();
        let of_the_tag = layout::tag(&name(), &"a".parse().expect("a tag"));
        assert!(left.keys().all(|key| !key.as_str().starts_with(of_the_tag.as_str())));
    }

    #[test]
    fn by_digest_every_tag_on_it_goes_and_no_other() {
        let registry = TestRegistry::with_blobs();
        let digest = digest_of(&image("x").to_string());
        // More tags than a page of a listing has.
        for number in 0..20 {
            registry.put(&format!("x{number}"), &image("x"));
            registry.put(&format!("y{number}"), &image("y"));
        }
        assert_eq!(registry.delete(digest.as_str()).status(), 202);
        assert_eq!(error(&registry.get(digest.as_str())), unknown());
        for number in 0..20 {
            assert_eq!(error(&registry.get(&format!("x{number}"))), unknown());
            assert_eq!(registry.get(&format!("y{number}")).status(), 200);
        }
        assert!(registry.store.objects().keys().all(|key| !key.as_str().contains("/tags/x")));
        assert_eq!(error(&registry.delete(digest.as_str())), unknown());
    }

    #[test]
    fn a_referrer_that_goes_leaves_no_entry() {
        let registry = TestRegistry::with_blobs();
        let mut about = image("x");
        about["subject"] = descriptor(OCI_MANIFEST, "subject");
        let digest = digest_of(&about.to_string());
        let entry = layout::referrer(&name(), &digest_of("subject"), &digest);
        registry.put(digest.as_str(), &about);
        assert!(registry.store.objects().contains_key(&entry));
        assert_eq!(registry.delete(digest.as_str()).status(), 202);
        assert!(!registry.store.objects().contains_key(&entry));
    }

    #[test]
    fn deleting_can_be_switched_off() {
        let mut registry = TestRegistry::with_blobs();
        registry.put("t", &image("x"));
        registry.settings.delete_enabled = false;
        let refused = registry.delete("t");
        assert_eq!(error(&refused), (405, "UNSUPPORTED".to_owned()));
        assert_eq!(refused.headers()["allow"], "GET, HEAD, PUT");
        registry.settings.read_only = true;
        assert_eq!(registry.delete("t").headers()["allow"], "GET, HEAD");
    }
}
