//! What reading costs: storage calls, counted at the store.

use http::Method;
use moorage::oci::{Algorithm, Digest};
use serde_json::json;

use moorage_test_support::client;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::stand_in::{Behaviour, StandIn};
use moorage_test_support::tree::Tree;

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_manifest_by_tag_takes_two_round_trips() {
    let mut tree = Tree::default();
    tree.put_manifest("a", "t", MANIFEST);
    // The second and third call are answered only once both have arrived: were one of them made
    // after the other's answer, the request would time out.
    let store = StandIn::start(tree, |key, _| match key.contains("/tags/") {
        true => Behaviour::Serve,
        false => Behaviour::ServeAfterArrivals(3),
    });
    let store = store.await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    let response = client::get(envoy.address, "/v2/a/manifests/t", &[]).await;
    assert_eq!(response.status(), 200);
    let requests = store.requests();
    assert_eq!(requests.len(), 3, "{requests:?}");
    assert!(requests[0].contains("/tags/t/current/link"), "{requests:?}");
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_manifest_by_digest_takes_one_round_trip() {
    let mut tree = Tree::default();
    let digest = tree.put_manifest("a", "t", MANIFEST);
    let store = StandIn::start(tree, |_, _| Behaviour::ServeAfterArrivals(2)).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    let path = format!("/v2/a/manifests/{digest}");
    assert_eq!(client::get(envoy.address, &path, &[]).await.status(), 200);
    assert_eq!(store.requests().len(), 2);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_manifest_of_a_hundred_layers_is_put_in_three_round_trips() {
    let mut tree = Tree::default();
    let layers: Vec<_> = (0..100u8)
        .map(|number| {
            let content: &'static [u8] = Box::leak(vec![number].into_boxed_slice());
            let digest = tree.put_blob("a", content);
            json!({ "mediaType": "layer", "digest": digest.as_str(), "size": 1 })
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": layers[0],
        "layers": layers,
    });
    // A listing of links, and the content of a hundred blobs; the manifest's content and link, and the tag's history; the
    // tag. Nothing of a round trip is answered before all of it has arrived.
    let round_trips = [1 + 100, 3, 1];
    let digest = Digest::of(Algorithm::Sha256, manifest.to_string().as_bytes());
    let store = StandIn::start(tree, move |key, _| {
        Behaviour::ServeAfterArrivals(match key {
            _ if key.ends_with("/tags/t/current/link") => round_trips.iter().sum(),
            _ if key.contains(digest.hex()) => round_trips[0] + round_trips[1],
            _ => round_trips[0],
        })
    });
    let store = store.await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    let path = "/v2/a/manifests/t";
    let response =
        client::send_body(envoy.address, Method::PUT, path, &[], manifest.to_string()).await;
    assert_eq!(response.status(), 201);
    // And a look, beside the first, whether garbage is being collected: it does for a while.
    assert_eq!(store.requests().len(), round_trips.iter().sum::<usize>() + 1);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_blob_takes_its_link_and_the_stream() {
    let mut tree = Tree::default();
    let digest = tree.put_blob("a", b"content");
    let store = StandIn::start(tree, |_, _| Behaviour::Serve).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    let path = format!("/v2/a/blobs/{digest}");
    assert_eq!(client::get(envoy.address, &path, &[]).await.status(), 200);
    let requests = store.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert!(requests[0].contains("/_layers/") && requests[1].ends_with("/data"), "{requests:?}");
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn what_needs_no_storage_makes_no_call() {
    let store = StandIn::start(Tree::default(), |_, _| Behaviour::Serve).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    for path in ["/v2/", "/v2/a/x", "/v2/A/manifests/t", "/v2/../manifests/t", "/registry/x"] {
        client::get(envoy.address, path, &[]).await;
    }
    assert_eq!(store.requests(), Vec::<String>::new());
}
