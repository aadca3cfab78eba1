//! Deleting a manifest or a tag.
//!
//! A manifest's link goes first: from that moment every tag on it answers 404, because a tag is
//! resolved through the link. Then go the tags that point at it, and its entry at its subject. The
//! content stays until garbage is collected. A repeat of a request that broke off removes what it
//! left.

use std::cell::RefCell;

use bytes::Bytes;
use futures::future::join;
use http::{Response, StatusCode};

use super::manifest_unknown;
use crate::registry::error::Error;
use crate::registry::manifest::subject_of;
use crate::registry::reference::{Digest, Name, Reference};
use crate::store::{
    Content, PAGE_LIMIT, PARALLEL_CALLS, PARALLEL_GROUPS, Store, StoreError, for_each_bounded,
};

/// `DELETE`. By tag, only the tag; by digest, the manifest with every tag on it.
pub async fn delete(
    store: &impl Store,
    name: &Name,
    reference: &Reference,
) -> Result<Response<Bytes>, Error> {
    let was_there = match reference {
        Reference::Tag(tag) => store.remove_tag(name, tag).await?,
        Reference::Digest(digest) => delete_manifest(store, name, digest).await?,
    };
    if !was_there {
        return Err(manifest_unknown(name, reference));
    }
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

async fn delete_manifest(
    store: &impl Store,
    name: &Name,
    digest: &Digest,
) -> Result<bool, StoreError> {
    let (link, content) = join(store.manifest_link(name, digest), store.content(digest)).await;
    let (was_linked, content) = (link?.is_some(), content?);
    if !was_linked && content == Content::Absent {
        return Ok(false);
    }
    // Without a link too: an earlier request may have broken off here, or what is remembered of the
    // link may be old. To remove it has every tag read anew.
    store.unlink_manifest(name, digest).await?;
    let had_tags = delete_tags_on(store, name, digest).await?;
    if let Some(content) = content.into_bytes()
        && let Some(subject) = subject_of(&content)
    {
        store.remove_referrer(name, &subject, digest).await?;
    }
    Ok(was_linked || had_tags)
}

/// Deletes every tag that points at the manifest, and tells whether there was one. Every tag of the
/// repository is read: nothing in the layout leads from a manifest to its tags.
async fn delete_tags_on(
    store: &impl Store,
    name: &Name,
    digest: &Digest,
) -> Result<bool, StoreError> {
    let mut found_any = false;
    let mut after = String::new();
    loop {
        let page = store.tags(name, &after, PAGE_LIMIT).await?;
        let on_it = RefCell::new(Vec::new());
        for_each_bounded(PARALLEL_CALLS, &page.names, async |tag| {
            if store.tag(name, tag).await?.as_ref() == Some(digest) {
                on_it.borrow_mut().push(tag);
            }
            Ok(())
        })
        .await?;
        let on_it = on_it.into_inner();
        found_any |= !on_it.is_empty();
        for_each_bounded(PARALLEL_GROUPS, on_it, async |tag| {
            store.remove_tag(name, tag).await.map(drop)
        })
        .await?;
        match page.names.last() {
            Some(last) if page.more => after = last.to_string(),
            _ => return Ok(found_any),
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use crate::registry::manifests::scene::{
        OCI_MANIFEST, Scene, descriptor, digest_of, error, image, name,
    };
    use crate::store::layout;

    fn unknown() -> (u16, String) {
        (404, "MANIFEST_UNKNOWN".to_owned())
    }

    #[test]
    fn by_tag_only_the_tag_goes() {
        let scene = Scene::new();
        let digest = digest_of(&image("x").to_string());
        scene.put("a", &image("x"));
        scene.put("b", &image("x"));
        assert_eq!(scene.delete("a").status(), 202);
        assert_eq!(error(&scene.get("a")), unknown());
        assert_eq!(scene.get("b").status(), 200);
        assert_eq!(scene.get(digest.as_str()).status(), 200);
        assert_eq!(error(&scene.delete("a")), unknown());
        let left = scene.store.objects();
        let of_the_tag = layout::tag(&name(), &"a".parse().expect("a tag"));
        assert!(left.keys().all(|key| !key.as_str().starts_with(of_the_tag.as_str())));
    }

    #[test]
    fn by_digest_every_tag_on_it_goes_and_no_other() {
        let scene = Scene::new();
        let digest = digest_of(&image("x").to_string());
        // More tags than a page of a listing has.
        for number in 0..20 {
            scene.put(&format!("x{number}"), &image("x"));
            scene.put(&format!("y{number}"), &image("y"));
        }
        assert_eq!(scene.delete(digest.as_str()).status(), 202);
        assert_eq!(error(&scene.get(digest.as_str())), unknown());
        for number in 0..20 {
            assert_eq!(error(&scene.get(&format!("x{number}"))), unknown());
            assert_eq!(scene.get(&format!("y{number}")).status(), 200);
        }
        assert!(scene.store.objects().keys().all(|key| !key.as_str().contains("/tags/x")));
        assert_eq!(error(&scene.delete(digest.as_str())), unknown());
    }

    #[test]
    fn a_referrer_that_goes_leaves_no_entry() {
        let scene = Scene::new();
        let mut about = image("x");
        about["subject"] = descriptor(OCI_MANIFEST, "subject");
        let digest = digest_of(&about.to_string());
        let entry = layout::referrer(&name(), &digest_of("subject"), &digest);
        scene.put(digest.as_str(), &about);
        assert!(scene.store.objects().contains_key(&entry));
        assert_eq!(scene.delete(digest.as_str()).status(), 202);
        assert!(!scene.store.objects().contains_key(&entry));
    }

    #[test]
    fn deleting_can_be_switched_off() {
        let mut scene = Scene::new();
        scene.put("t", &image("x"));
        scene.settings.delete_enabled = false;
        let refused = scene.delete("t");
        assert_eq!(error(&refused), (405, "UNSUPPORTED".to_owned()));
        assert_eq!(refused.headers()["allow"], "GET, HEAD, PUT");
        scene.settings.read_only = true;
        assert_eq!(scene.delete("t").headers()["allow"], "GET, HEAD");
    }
}
