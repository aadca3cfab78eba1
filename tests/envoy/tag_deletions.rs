//! A manifest with thousands of tags is deleted, by as few calls as the store allows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use moorage::oci::{Algorithm, Digest};
use moorage::store::layout;
use serde_json::{Value, json};
use tempfile::TempDir;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::bucket_folder::objects;
use moorage_test_support::client::{self, send_body};
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::garage::Garage;
use moorage_test_support::process::optional_tool;
use moorage_test_support::scripted::{Call, Fate, ScriptedStore};
use moorage_test_support::tree::Tree;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
const OTHER: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[{}]}"#;

/// A bucket with a manifest under so many tags and another under one.
fn bucket(tags: usize) -> (TempDir, Digest) {
    let root = TempDir::new().expect("a temporary folder");
    let mut tree = Tree::default();
    let digest = tree.put_manifest("a/b", "first", MANIFEST);
    tree.put_manifest("a/b", "other", OTHER);
    let name = "a/b".parse().expect("a name");
    for number in 1..tags {
        let text = format!("v{number}");
        tree.tag("a/b", &text, &digest);
        let tag = text.parse().expect("a tag");
        tree.put(&layout::tag_history(&name, &tag, &digest), digest.to_string());
    }
    tree.write_to(&root.path().join("registry"));
    (root, digest)
}

/// The tags that have any object.
fn tags_left(root: &TempDir) -> BTreeSet<String> {
    let objects = objects(&root.path().join("registry"));
    let within = objects.keys().filter_map(|key| key.split_once("/_manifests/tags/"));
    within.filter_map(|(_, rest)| rest.split_once('/')).map(|(tag, _)| tag.to_owned()).collect()
}

async fn delete(envoy: &Envoy, digest: &Digest) -> u16 {
    let path = format!("/v2/a/b/manifests/{digest}");
    let request = client::request(Method::DELETE, &path, &[]);
    client::send(envoy.address, request).await.status().as_u16()
}

fn is_multi_delete(call: &Call) -> bool {
    call.method == Method::POST && call.key.contains("?delete")
}

fn other_alone() -> BTreeSet<String> {
    BTreeSet::from(["other".to_owned()])
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn thousands_of_tags_take_few_calls_more_than_a_look_at_each() {
    let (root, digest) = bucket(3_000);
    let store = BlobStore::open(root.path()).await;
    let scripted = ScriptedStore::start(store.address, |_| Fate::Pass).await;
    let envoy = Envoy::start(&Bootstrap::new(scripted.address)).await;
    assert_eq!(delete(&envoy, &digest).await, 202, "{}", envoy.log());
    assert_eq!(tags_left(&root), other_alone());
    let calls = scripted.calls();
    // The local store lists no versions, so each tag is read.
    assert!(calls.len() <= 3_000 + 100, "{} calls", calls.len());
    assert!(calls.iter().any(is_multi_delete));
    assert_eq!(delete(&envoy, &digest).await, 404);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn where_the_store_removes_one_at_a_time_so_does_the_registry() {
    // Refusals of a store that does not know the call, each of which comes once with conditions and once without, and Envoy repeats
    // what was answered with 5xx; and an answer that says nothing of any key.
    for (status, body, asked) in [
        (501, "<Error><Code>NotImplemented</Code></Error>", 2 * 4),
        (405, "<Error><Code>MethodNotAllowed</Code></Error>", 2),
        (400, "<Error><Code>MalformedXML</Code></Error>", 2),
        (200, "<DeleteResult></DeleteResult>", usize::MAX),
    ] {
        let (root, digest) = bucket(600);
        let store = BlobStore::open(root.path()).await;
        let scripted =
            ScriptedStore::start(store.address, move |call| match is_multi_delete(call) {
                true => Fate::Answer(status, body),
                false => Fate::Pass,
            });
        let scripted = scripted.await;
        let envoy = Envoy::start(&Bootstrap::new(scripted.address)).await;
        assert_eq!(delete(&envoy, &digest).await, 202, "{status}: {}", envoy.log());
        assert_eq!(tags_left(&root), other_alone(), "{status}");
        let tried = scripted.calls().iter().filter(|call| is_multi_delete(call)).count();
        assert!(tried >= 1 && tried <= asked, "{status}: asked for {tried} times");
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn keys_that_the_store_did_not_remove_fail_the_request_and_a_repeat_completes_it() {
    let (root, digest) = bucket(600);
    let store = BlobStore::open(root.path()).await;
    let failures = Arc::new(AtomicUsize::new(0));
    let left = Arc::clone(&failures);
    // Each key has an error, in the answer for all and in that for itself.
    let scripted = ScriptedStore::start(store.address, move |call| {
        let fails = left.load(Ordering::SeqCst) == 0;
        let is_removal = call.method == Method::DELETE && call.key.contains("/_manifests/tags/");
        match () {
            () if fails && is_multi_delete(call) => Fate::Answer(
                200,
                "<DeleteResult><Error><Key>x</Key><Code>AccessDenied</Code></Error></DeleteResult>",
            ),
            () if fails && is_removal => {
                Fate::Answer(403, "<Error><Code>AccessDenied</Code></Error>")
            }
            () => Fate::Pass,
        }
    })
    .await;
    let envoy = Envoy::start(&Bootstrap::new(scripted.address)).await;
    assert!(delete(&envoy, &digest).await >= 500);
    failures.store(1, Ordering::SeqCst);
    assert_eq!(delete(&envoy, &digest).await, 202, "{}", envoy.log());
    assert_eq!(tags_left(&root), other_alone());
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_store_that_dies_in_the_middle_loses_nothing_and_a_repeat_completes_the_deletion() {
    // With and without the effect of the call at which it dies, which is the second one or later: the first finds out what the
    // store heeds.
    for (fate, at) in [(Fate::Break, 1), (Fate::Lose, 1), (Fate::Break, 2), (Fate::Lose, 2)] {
        let (root, digest) = bucket(600);
        let store = BlobStore::open(root.path()).await;
        let (is_over, asked) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let mended = Arc::clone(&is_over);
        let mut is_dead = false;
        let scripted = ScriptedStore::start(store.address, move |call| {
            if mended.load(Ordering::SeqCst) == 1 {
                return Fate::Pass;
            }
            let dies_now = is_multi_delete(call) && asked.fetch_add(1, Ordering::SeqCst) == at;
            let was_dead = is_dead;
            is_dead |= dies_now;
            match was_dead {
                true => Fate::Break,
                false if dies_now => fate,
                false => Fate::Pass,
            }
        })
        .await;
        let envoy = Envoy::start(&Bootstrap::new(scripted.address)).await;
        assert_eq!(delete(&envoy, &digest).await, 503, "{fate:?} {at}");
        is_over.store(1, Ordering::SeqCst);
        let repeated = delete(&envoy, &digest).await;
        assert!(repeated == 202 || repeated == 404, "{fate:?} {at}: {repeated}");
        assert_eq!(tags_left(&root), other_alone(), "{fate:?} {at}");
        let other = client::get(envoy.address, "/v2/a/b/manifests/other", &[]).await;
        assert_eq!(other.status(), 200);
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn garage_removes_a_thousand_tags_by_few_calls() {
    let Some(garage) = optional_tool("MOORAGE_GARAGE") else { return };
    let store = Garage::start(&garage).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address).signed()).await;
    let manifest = |note: &str| {
        let annotations = json!({ "note": note });
        json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "annotations": annotations })
            .to_string()
    };
    let put = async |reference: &str, manifest: String| {
        let path = format!("/v2/a/b/manifests/{reference}");
        let headers = [("content-type", OCI_INDEX)];
        let response = send_body(envoy.address, Method::PUT, &path, &headers, manifest).await;
        assert_eq!(response.status(), 201, "{reference}");
    };
    put("other", manifest("other")).await;
    let content = manifest("many");
    let digest = Digest::of(Algorithm::Sha256, content.as_bytes());
    for group in 0..50 {
        let tags: Vec<_> = (0..20).map(|number| format!("tag=v{group}-{number}")).collect();
        put(&format!("{digest}?{}", tags.join("&")), content.clone()).await;
    }
    let before = envoy.stat("cluster.blob_store.upstream_rq_total").await;
    assert_eq!(delete(&envoy, &digest).await, 202, "{}", envoy.log());
    let calls = envoy.stat("cluster.blob_store.upstream_rq_total").await - before;
    assert!(calls <= 60, "{calls} calls");
    let list = client::get(envoy.address, "/v2/a/b/tags/list", &[]).await;
    let list: Value = serde_json::from_slice(list.body()).expect("JSON");
    assert_eq!(list["tags"], json!(["other"]));
}
