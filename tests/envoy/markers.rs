//! What writers are answered while a collection of garbage is about to remove what they refer to, and what it costs them to
//! know. The marker is the test's: no collection runs.

mod registry;

use std::fs::{self, File, FileTimes};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{Method, Response};
use moorage::oci::{Digest, Name};
use moorage::store::layout::{self, Key};
use moorage::store::{MARKER_MAX_KEYS, Marker};
use serde_json::{Value, json};

use moorage_test_support::client::error_of;
use moorage_test_support::digest_of;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::wait_for;
use moorage_test_support::scripted::{Call, Fate, ScriptedStore};

use registry::{FREE, LINKED, MANIFEST, Registry, STORED, descriptor, image, image_json};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

const MARKERS: &str = "moorage/gc/markers";

/// In seconds.
const DAY: i64 = 24 * 60 * 60;

fn name(name: &str) -> Name {
    name.parse().expect("a name")
}

/// A marker of these keys that ends so many seconds from now, or did so many ago.
fn marker(seconds: i64, keys: &[Key]) -> Bytes {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970");
    let until = now.as_secs().checked_add_signed(seconds).expect("a time");
    Marker::new(Duration::from_secs(until), keys.iter().map(Marker::hash)).to_bytes()
}

/// The link of the one blob, the content of the other, and the manifest that is tagged `going`.
fn condemned() -> Vec<Key> {
    vec![
        layout::blob_link(&name("a"), &digest_of(LINKED)),
        layout::content(&digest_of(STORED)),
        layout::manifest_link(&name("a"), &digest_of(&image(LINKED))),
    ]
}

/// It is the API's answer to a writer who has to wait, about this digest.
#[track_caller]
fn assert_refused(response: &Response<Bytes>, digest: &Digest) {
    assert_eq!(error_of(response), (503, "UNAVAILABLE".to_owned()));
    assert_eq!(response.headers()["retry-after"], "30");
    let error: Value = serde_json::from_slice(response.body()).expect("JSON");
    let error = &error["errors"][0];
    assert_eq!(error["detail"], digest.as_str());
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("garbage is being collected"), "{message}");
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_blob_that_is_about_to_go_is_as_good_as_gone_to_writers() {
    let registry = Registry::with_markers(&[("run-0", marker(600, &condemned()))]).await;
    // Who has written nothing yet has not looked.
    assert_eq!(registry.head("a", LINKED).await, 200);
    assert_eq!(registry.push_something().await.status(), 201);

    for (repository, blob, head, mount) in [
        ("a", LINKED, 404, 202),
        ("b", LINKED, 200, 201),
        ("a", STORED, 404, 202),
        ("b", STORED, 404, 202),
        ("a", FREE, 200, 201),
        ("b", FREE, 200, 201),
    ] {
        let what = format!("{} in {repository}", String::from_utf8_lossy(blob));
        assert_eq!(registry.head(repository, blob).await, head, "{what}");
        let from = if repository == "a" { "b" } else { "a" };
        assert_eq!(registry.mount(repository, blob, from).await, mount, "{what}");
        for upload in registry.upload(repository, blob).await {
            match head {
                200 => assert_eq!(upload.status(), 201, "{what}"),
                _ => assert_refused(&upload, &digest_of(blob)),
            }
        }
    }
    assert_eq!(registry.mount("c", LINKED, "a").await, 201, "it is the link in another repository");
    registry.serves_all().await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_manifest_that_needs_what_is_about_to_go_is_refused() {
    let subject = digest_of(&image(FREE));
    let mut artifact = image_json(FREE);
    artifact["subject"] = descriptor(MANIFEST, image(FREE).as_bytes());
    let artifact = artifact.to_string();
    let mut keys = condemned();
    let tag = "old".parse().expect("a tag");
    keys.push(layout::tag_history(&name("a"), &tag, &subject));
    keys.push(layout::referrer(&name("a"), &subject, &digest_of(&artifact)));
    let registry = Registry::with_markers(&[("run-0", marker(600, &keys))]).await;
    let going = descriptor(MANIFEST, image(LINKED).as_bytes());
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [going] }).to_string();
    let mut layer = image_json(FREE);
    layer["layers"] = json!([descriptor("a/b", STORED)]);

    for (tag, manifest) in [
        ("t", image(LINKED)),
        ("t", image(STORED)),
        ("t", layer.to_string()),
        ("t", index),
        ("old", image(FREE)),
        ("t", artifact.clone()),
    ] {
        let digest = digest_of(&manifest);
        assert_refused(&registry.put("a", tag, manifest.clone()).await, &digest);
        // Nobody is told that it is there, and no trace of the tag is left.
        assert_eq!(registry.status(Method::GET, &format!("a/manifests/{tag}"), "").await, 404);
        let tag = format!("docker/registry/v2/repositories/a/_manifests/tags/{tag}");
        let tag = registry.root.path().join("registry").join(tag);
        let history = layout::tag_history(&name("a"), &"x".parse().expect("a tag"), &digest);
        let history = history.as_str().rsplit_once("/x/").map(|(_, rest)| tag.join(rest));
        assert!(!history.expect("a history").exists(), "{manifest}");
    }
    // The same in another repository, and what is not condemned.
    assert_eq!(registry.put("b", "t", image(LINKED)).await.status(), 201);
    assert_eq!(registry.put("a", "t", image(FREE)).await.status(), 201);
    assert_eq!(registry.put("b", "t", artifact).await.status(), 201);
    registry.serves_all().await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn only_a_marker_that_ended_long_ago_counts_no_more() {
    let long_over = Registry::with_markers(&[("run-0", marker(-2 * DAY, &condemned()))]).await;
    long_over.takes_pushes().await;
    long_over.serves_all().await;

    // The clocks of the collection and of this Envoy may differ.
    let over = Registry::with_markers(&[("run-0", marker(-DAY / 2, &condemned()))]).await;
    let manifest = image(STORED);
    assert_refused(&over.put("a", "t", manifest.clone()).await, &digest_of(&manifest));

    let none = Registry::with_markers(&[]).await;
    none.takes_pushes().await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_marker_that_cannot_be_read_stops_pushes_and_no_pulls() {
    let too_large = vec![b'x'; 8 * MARKER_MAX_KEYS + 1025];
    let five: Vec<_> =
        (b'0'..=b'4').map(|digit| (char::from(digit).to_string(), marker(600, &[]))).collect();
    let five: Vec<_> = five.iter().map(|(name, marker)| (name.as_str(), marker.clone())).collect();
    let one = |content: Vec<u8>| vec![("run-0", Bytes::from(content))];
    for (markers, is_told) in [
        (one(b"{\"format\":2,\"until\":9999999999,\"keys\":0}\n".to_vec()), true),
        (one(marker(600, &condemned()).slice(..40).to_vec()), true),
        (one(too_large), true),
        (five, false),
    ] {
        let registry = Registry::with_markers(&markers).await;
        assert_refused(&registry.put("a", "t", image(FREE)).await, &digest_of(&image(FREE)));
        for upload in registry.upload("a", FREE).await {
            assert_refused(&upload, &digest_of(FREE));
        }
        assert_eq!(registry.mount("a", FREE, "b").await, 202);
        registry.serves_all().await;
        let is_line = |line: &str| line.contains("moorage/gc/markers/run-0 is no marker");
        if is_told {
            wait_for("the log", async || registry.envoy.log().lines().any(is_line).then_some(()))
                .await;
        }
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn an_old_object_that_is_no_marker_stops_nothing() {
    let registry = Registry::with_markers(&[("run-0", "nonsense".into())]).await;
    let long_ago = SystemTime::now() - Duration::from_secs(2 * 60 * 60);
    let file = File::options().write(true).open(registry.marker()).expect("the object");
    file.set_times(FileTimes::new().set_modified(long_ago)).expect("its time is set");

    registry.takes_pushes().await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn pushes_fail_while_markers_cannot_be_looked_at_and_pulls_do_not() {
    let registry = Registry::with_markers(&[]).await;
    let broken = ScriptedStore::start(registry.store.address, |call| {
        match call.key.contains("gc%2Fmarkers") {
            true => Fate::Answer(500, "<Error><Code>InternalError</Code></Error>"),
            false => Fate::Pass,
        }
    })
    .await;
    let envoy = Envoy::start(&Bootstrap::new(broken.address)).await;
    let registry = registry.behind(envoy);

    for response in [registry.put("a", "t", image(FREE)).await, registry.push_something().await] {
        assert!(matches!(error_of(&response).0, 500 | 503), "{response:?}");
    }
    assert_eq!(registry.status(Method::GET, "a/manifests/t", "").await, 404);
    registry.serves_all().await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_pull_costs_nothing_and_pushes_a_listing_every_ten_seconds() {
    let registry = Registry::with_markers(&[("run-0", marker(600, &condemned()))]).await;
    let is_listing = |call: &Call| call.key.contains("gc%2Fmarkers");
    let is_read = |call: &Call| call.key.starts_with(MARKERS);
    registry.serves_all().await;
    registry.head("a", FREE).await;
    assert_eq!(registry.calls(|call| is_listing(call) || is_read(call)), 0);

    let begun = Instant::now();
    let mut pushes = 0;
    while registry.calls(is_listing) < 3 {
        let tag = format!("t{pushes}");
        assert_eq!(registry.put("a", &tag, image(FREE)).await.status(), 201);
        assert_eq!(registry.push_something().await.status(), 201);
        pushes += 2;
    }
    // By the clock that counts for the worker, which may begin a moment earlier.
    assert!(begun.elapsed() >= Duration::from_secs(19), "{:?}", begun.elapsed());
    assert!(pushes > 3, "{pushes}");
    assert_eq!(registry.calls(is_read), 1, "a marker that has not changed is read once");
    let before = registry.calls(is_listing);
    registry.serves_all().await;
    assert_eq!(registry.calls(is_listing), before);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn pushes_go_on_once_a_collection_is_over() {
    let registry = Registry::with_markers(&[("run-0", marker(600, &condemned()))]).await;
    let manifest = image(STORED);
    assert_refused(&registry.put("a", "t", manifest.clone()).await, &digest_of(&manifest));
    fs::remove_file(registry.marker()).expect("the marker is there");

    wait_for("the push", async || {
        let response = registry.put("a", "t", manifest.clone()).await;
        (response.status() == 201).then_some(())
    })
    .await;
    registry.takes_pushes().await;
}
