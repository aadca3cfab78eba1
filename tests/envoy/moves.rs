//! Tags that are moved to another manifest while the one that they were on is deleted, as a retention job
//! does beside a build that moves `latest`.

use std::net::SocketAddr;

use futures::stream::{self, StreamExt};
use http::Method;
use moorage::oci::{Algorithm, Digest};
use serde_json::json;
use tempfile::TempDir;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client::{self, send_body};
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::garage::Garage;
use moorage_test_support::process::optional_tool;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const TAGS: usize = 65;
const ROUNDS: usize = 20;

/// A manifest that refers to nothing.
fn manifest(note: &str) -> String {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [],
        "annotations": { "note": note },
    });
    manifest.to_string()
}

fn path(reference: &str) -> String {
    format!("/v2/a/b/manifests/{reference}")
}

/// Puts a manifest by all tags, so many at a time. All of them must be acknowledged.
async fn put_all(server: SocketAddr, manifest: &str, parallel: usize) {
    let puts = stream::iter(0..TAGS).map(|number| async move {
        let (path, headers) = (path(&format!("t{number}")), [("content-type", OCI_INDEX)]);
        send_body(server, Method::PUT, &path, &headers, manifest.to_owned()).await.status()
    });
    let statuses: Vec<_> = puts.buffer_unordered(parallel).collect().await;
    assert!(statuses.iter().all(|status| *status == 201), "{statuses:?}");
}

/// Deletes the manifest that all tags are on while they are moved to another. Gives how many are not where
/// they were moved to.
async fn lost_moves(server: SocketAddr, round: usize) -> usize {
    let (old, new) = (manifest(&format!("old {round}")), manifest(&format!("new {round}")));
    put_all(server, &old, 16).await;
    let digest = Digest::of(Algorithm::Sha256, old.as_bytes()).to_string();
    let delete = async {
        let request = client::request(Method::DELETE, &path(&digest), &[]);
        client::send(server, request).await.status()
    };
    // Few at a time: some moves come before the deletion, some while it goes on, and some after it.
    let (status, ()) = futures::future::join(delete, put_all(server, &new, 4)).await;
    assert_eq!(status, 202);
    assert_eq!(client::get(server, &path(&digest), &[]).await.status(), 404);
    let reads = stream::iter(0..TAGS)
        .map(|number| async move { client::get(server, &path(&format!("t{number}")), &[]).await });
    let read: Vec<_> = reads.buffered(16).collect().await;
    read.iter().filter(|response| response.body() != new.as_bytes()).count()
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn no_move_of_a_tag_is_lost_where_the_store_heeds_conditions() {
    let root = TempDir::new().expect("a temporary folder");
    std::fs::create_dir(root.path().join("registry")).expect("a bucket");
    let store = BlobStore::open(root.path()).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address).workers(2)).await;
    for round in 0..ROUNDS {
        assert_eq!(lost_moves(envoy.address, round).await, 0, "round {round}");
    }
}

/// Garage ignores the conditions of removals. A move can be lost there whose two last calls have the three
/// of a removal between them; that few are is all that can be held.
#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn hardly_a_move_of_a_tag_is_lost_where_it_ignores_them() {
    let Some(garage) = optional_tool("MOORAGE_GARAGE") else { return };
    let store = Garage::start(&garage).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address).signed().workers(2)).await;
    let mut lost = 0;
    for round in 0..ROUNDS {
        lost += lost_moves(envoy.address, round).await;
    }
    println!("{lost} of {} moves were lost on a store without conditions", ROUNDS * TAGS);
    assert!(lost * 50 <= ROUNDS * TAGS, "{lost} moves were lost");
}
