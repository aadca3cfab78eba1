//! Tags that policy makes immutable: once set, they are neither moved nor deleted.
//!
//! Such a tag is created by the store's own conditional write, so that of two who race one wins. A manifest stays as long
//! as such a tag points at it. `DELETE` looks for them before it removes the manifest's link, and again afterwards; `PUT`
//! looks at the link again after it has set the tag. Whatever the order of the two, one of them sees the other, and the link is
//! there in the end. Only if the store dies just between a removal of the link and its return is the tag without its manifest; to
//! put the same manifest again restores it.

use std::cell::RefCell;

use futures::future::try_join3;

use super::put::{Move, conditions_ignored};
use crate::oci::{Digest, Name, Tag};
use crate::registry::Settings;
use crate::registry::http::error::{Error, ErrorCode};
use crate::store::{PAGE_LIMIT, PARALLEL_CALLS, Store, StoreError, for_each_bounded};

/// The refusal to move or delete a tag.
pub fn denied(tag: &Tag, rule: usize) -> Error {
    let message = format!(
        "the tag {tag} is immutable (policy.tags.immutable[{rule}]): once set it is neither moved nor deleted"
    );
    Error::new(ErrorCode::Denied, message).with_detail(tag.as_str())
}

/// How the tag is set, if it may be: only if it is not there, which the store itself has to see to. One round trip.
pub async fn plan(
    store: &impl Store,
    name: &Name,
    tag: &Tag,
    digest: &Digest,
    rule: usize,
) -> Result<Move, Error> {
    let (honours, current, absent) = try_join3(
        store.honours_conditions(),
        store.tag_version(name, tag),
        store.tag_condition(name, tag, None),
    )
    .await?;
    match (current, absent) {
        (Some(current), _) if current.digest == *digest => Ok(Move::Done),
        (None, Some(_)) if !honours => Err(conditions_ignored()),
        (None, Some(absent)) => Ok(Move::ForGood(absent, rule)),
        _ => Err(denied(tag, rule)),
    }
}

/// The refusal to delete a manifest, if an immutable tag points at it. Reads every tag of a repository that may have such.
pub async fn refusal(
    store: &impl Store,
    settings: &Settings,
    name: &Name,
    digest: &Digest,
) -> Result<Option<Error>, StoreError> {
    if !settings.has_immutable(name) {
        return Ok(None);
    }
    let mut after = String::new();
    loop {
        let page = store.tags(name, &after, PAGE_LIMIT).await?;
        let rule_of = |tag| Some((tag, settings.immutable(name, tag)?));
        let rules: Vec<_> = page.names.iter().filter_map(rule_of).collect();
        let refusal = RefCell::new(None);
        for_each_bounded(PARALLEL_CALLS, rules, async |(tag, rule)| {
            let current = store.tag_version(name, tag).await?;
            if current.is_some_and(|current| current.digest == *digest) {
                refusal.replace(Some(denied(tag, rule)));
            }
            Ok(())
        })
        .await?;
        match page.names.last() {
            Some(last) if page.more && refusal.borrow().is_none() => after = last.to_string(),
            _ => return Ok(refusal.into_inner()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use crate::registry::ImmutableTags;
    use crate::registry::test_registry::{TestRegistry, digest_of, error, errors, image, whole};

    /// A registry where tags `v…` of `a/…` are immutable.
    fn registry() -> TestRegistry {
        let mut registry = TestRegistry::with_blobs();
        let patterns = |text: &str| vec![text.parse().expect("a pattern")];
        registry.settings.immutable_tags =
            vec![ImmutableTags { repositories: patterns("a/*"), tags: patterns("v*") }];
        registry
    }

    fn denied() -> (u16, String) {
        (403, "DENIED".to_owned())
    }

    #[test]
    fn a_tag_is_created_once_and_then_stays() {
        let registry = registry();
        assert_eq!(registry.put("v1", &image("x")).status(), 201);
        let moved = registry.put("v1", &image("y"));
        assert_eq!(error(&moved), denied());
        assert!(String::from_utf8_lossy(moved.body()).contains("policy.tags.immutable[0]"));
        assert_eq!(registry.put("v1", &image("x")).status(), 201, "the same again");
        assert_eq!(error(&registry.delete("v1")), denied());
        let digest = digest_of(&image("x").to_string());
        assert_eq!(error(&registry.delete(digest.as_str())), denied());
        assert_eq!(registry.get("v1").body(), image("x").to_string().as_bytes());
        // Others are as they always were.
        assert_eq!(registry.put("latest", &image("x")).status(), 201);
        assert_eq!(registry.put("latest", &image("y")).status(), 201);
        assert_eq!(registry.delete("latest").status(), 202);
        let other = digest_of(&image("y").to_string());
        assert_eq!(registry.delete(other.as_str()).status(), 202);
    }

    #[test]
    fn of_several_tags_none_is_set_if_one_may_not_be() {
        let registry = registry();
        assert_eq!(registry.put("v1", &image("x")).status(), 201);
        let digest = digest_of(&image("y").to_string());
        let put = |query: &str| {
            let reference = format!("{digest}{query}");
            registry.send_manifest(Method::PUT, &reference, &[], whole(&image("y"))).0
        };
        assert_eq!(error(&put("?tag=latest&tag=v1&tag=v2")), denied());
        for tag in ["latest", "v2", digest.as_str()] {
            assert_eq!(registry.get(tag).status(), 404, "{tag}");
        }
        assert_eq!(put("?tag=latest&tag=v2").status(), 201);
        assert_eq!(error(&registry.put("v2", &image("x"))), denied());
    }

    #[test]
    fn a_store_that_ignores_conditions_can_not_have_such_tags() {
        let mut registry = registry();
        registry.store.ignores_conditions = true;
        let refused = registry.put("v1", &image("x"));
        assert_eq!(errors(&refused), (501, vec!["UNSUPPORTED".to_owned()]));
        assert_eq!(registry.get("v1").status(), 404);
        assert_eq!(registry.put("latest", &image("x")).status(), 201);
    }

    #[test]
    fn a_tag_that_is_new_costs_one_more_round_trip() {
        let registry = registry();
        let put = |tag: &str| registry.send_manifest(Method::PUT, tag, &[], whole(&image("x"))).1;
        // The store is asked once whether it heeds conditions.
        put("v0");
        assert_eq!((put("latest"), put("v1"), put("v1")), (3, 4, 3));
    }
}
