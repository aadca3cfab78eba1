//! Whatever breaks at whatever storage call of a `PUT` or `DELETE`: readers see the old or the new
//! state, never a tag without its manifest, a `PUT` that failed leaves no tag in the list that can't be
//! pulled, and a repeat of the request completes it.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Method;
use http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use serde_json::json;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use crate::registry::Body;
use crate::registry::test_registry::{
    OCI_INDEX, OCI_MANIFEST, TestRegistry, descriptor, digest_of, get, image, whole,
};
use crate::store::layout::{Key, condition_probe, removal_probe};
use crate::store::memory::Effect;

/// One request, in a repository where `old` and `other` are tagged.
struct Scenario {
    what: &'static str,
    method: Method,
    reference: String,
    headers: Vec<(HeaderName, String)>,
    body: Body,
}

fn registry(heeds_removals: bool) -> TestRegistry {
    let mut registry = TestRegistry::with_blobs();
    registry.store.ignores_conditional_removal = !heeds_removals;
    for (tag, note) in [("moving", "old"), ("other", "old"), ("kept", "kept"), ("z", "old")] {
        assert_eq!(registry.put(tag, &image(note)).status(), 201);
    }
    let mut referrer = image("referrer");
    referrer["subject"] = descriptor(OCI_MANIFEST, &image("old").to_string());
    assert_eq!(registry.put("referrer", &referrer).status(), 201);
    registry
}

fn scenarios() -> Vec<Scenario> {
    let old = image("old").to_string();
    let put = |what, reference: &str, manifest: &serde_json::Value| Scenario {
        what,
        method: Method::PUT,
        reference: reference.to_owned(),
        headers: Vec::new(),
        body: whole(manifest),
    };
    let delete = |what, reference: String| Scenario {
        what,
        method: Method::DELETE,
        reference,
        headers: Vec::new(),
        body: Body::None,
    };
    let new = image("new");
    let mut about = image("about");
    about["subject"] = descriptor(OCI_MANIFEST, &old);
    let index = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(OCI_MANIFEST, &old)],
    });
    let tags = format!("{}?tag=moving&tag=fresh&tag=z", digest_of(&new.to_string()));
    let mut referrer = image("referrer");
    referrer["subject"] = descriptor(OCI_MANIFEST, &old);
    let mut scenarios = vec![
        put("a new tag", "fresh", &new),
        put("a tag that moves", "moving", &new),
        put("a manifest by digest", digest_of(&new.to_string()).as_str(), &new),
        put("several tags", &tags, &new),
        put("a manifest with a subject", "about", &about),
        put("an index", "index", &index),
        put("a tag only if it is absent", "fresh", &new),
        put("a tag only if it did not move", "moving", &new),
        delete("a tag", "moving".to_owned()),
        delete("a manifest with several tags", digest_of(&old).to_string()),
        delete("a referrer", digest_of(&referrer.to_string()).to_string()),
    ];
    scenarios[6].headers = vec![(IF_NONE_MATCH, "*".to_owned())];
    scenarios[7].headers = vec![(IF_MATCH, format!("\"{}\"", digest_of(&old)))];
    scenarios
}

impl Scenario {
    fn run(&self, registry: &TestRegistry) -> u16 {
        let headers: Vec<_> = self.headers.iter().map(|(n, v)| (n.clone(), v.as_str())).collect();
        let body = self.body.clone();
        registry
            .send_manifest(self.method.clone(), &self.reference, &headers, body)
            .0
            .status()
            .as_u16()
    }
}

/// What a reader gets for every tag.
fn read_all(registry: &TestRegistry) -> BTreeMap<&'static str, (u16, Bytes)> {
    let tags = ["moving", "other", "kept", "z", "fresh", "about", "index", "referrer"];
    let read = |tag| {
        let response = registry.get(tag);
        let status = response.status().as_u16();
        let body = if status == 200 { response.into_body() } else { Bytes::new() };
        (tag, (status, body))
    };
    tags.into_iter().map(read).collect()
}

/// The objects, without those on which conditions are tried.
fn objects(registry: &TestRegistry) -> BTreeMap<Key, Bytes> {
    let mut objects = registry.store.objects();
    objects.remove(&condition_probe());
    objects.remove(&removal_probe());
    objects
}

/// The tags that are listed.
fn listed(registry: &TestRegistry) -> Vec<String> {
    let (response, _) = get(&registry.store, "/v2/a/b/tags/list");
    let list: serde_json::Value = serde_json::from_slice(response.body()).expect("JSON");
    let tags = list["tags"].as_array().expect("a list");
    tags.iter().map(|tag| tag.as_str().expect("a tag").to_owned()).collect()
}

#[test]
fn a_failure_at_any_call_is_harmless_and_a_repeat_completes_the_request() {
    fail_at_every_call(true);
}

#[test]
fn so_it_is_where_the_store_ignores_the_conditions_of_removals() {
    fail_at_every_call(false);
}

fn fail_at_every_call(heeds_removals: bool) {
    for scenario in scenarios() {
        let what = scenario.what;
        let undisturbed = registry(heeds_removals);
        let before = read_all(&undisturbed);
        let calls_before = undisturbed.store.calls().len();
        assert!((200..300).contains(&scenario.run(&undisturbed)), "{what}");
        let calls = undisturbed.store.calls().len() - calls_before;
        let expected = objects(&undisturbed);
        let after = read_all(&undisturbed);
        assert!(calls >= 3, "{what}");

        for failing in 0..calls {
            for effect in [Effect::None, Effect::Done] {
                let at = format!("{what}: call {failing} of {calls}, {effect:?}");
                let registry = registry(heeds_removals);
                let number = registry.store.calls().len() + failing;
                registry.store.failing_call.set(Some((number, effect)));
                let status = scenario.run(&registry);
                registry.store.failing_call.set(None);

                for (tag, seen) in read_all(&registry) {
                    let is_old_or_new = seen == before[tag] || seen == after[tag];
                    // While a manifest is deleted, a tag on it may be gone already.
                    assert!(is_old_or_new || seen.0 == 404, "{at}: {tag} is {seen:?}");
                    if scenario.method == Method::PUT {
                        assert!(is_old_or_new, "{at}: {tag} is {seen:?}");
                    }
                }

                if scenario.method == Method::PUT {
                    for tag in listed(&registry) {
                        assert_eq!(registry.get(&tag).status(), 200, "{at}: {tag} is listed");
                    }
                }
                if status < 300 {
                    // A lost answer that was made good at once.
                    assert_eq!(objects(&registry), expected, "{at}");
                    continue;
                }
                assert_eq!(status, 503, "{at}");
                let repeated = scenario.run(&registry);
                let was_complete = scenario.method == Method::DELETE && repeated == 404;
                assert!(repeated < 300 || was_complete, "{at}: the repeat gives {repeated}");
                assert_eq!(objects(&registry), expected, "{at}");
            }
        }
    }
}
