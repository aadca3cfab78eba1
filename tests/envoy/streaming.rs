//! Blobs of any size pass through Envoy without staying in it.

use std::fs;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use http::Method;
use http_body_util::BodyExt;
use moorage::oci::{Algorithm, Digest};
use moorage::store::layout;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::tree::Tree;

const MIB: u64 = 1024 * 1024;
const BLOB_SIZE: u64 = 1024 * MIB;
const PUSHED_SIZE: u64 = 2048 * MIB;
/// What Envoy may have in memory at most, however large the blobs are that are pushed through it.
const MEMORY_LIMIT: u64 = 256 * MIB;

/// The digest of so many zero bytes.
fn digest_of_zeros(size: u64) -> Digest {
    let mut hasher = Sha256::new();
    let zeros = vec![0; MIB as usize];
    for _ in 0..size / MIB {
        hasher.update(&zeros);
    }
    finish(hasher)
}

fn finish(hasher: Sha256) -> Digest {
    let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}:{hex}", Algorithm::Sha256.as_str()).parse().expect("a digest")
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_large_blob_does_not_stay_in_envoys_memory() {
    let root = TempDir::new().expect("a temporary folder");
    let bucket = root.path().join("registry");
    let digest = digest_of_zeros(BLOB_SIZE);
    let mut tree = Tree::default();
    tree.link_blob("a", &digest);
    tree.write_to(&bucket);
    // A hole in a file reads as zeros and takes no room.
    let data = bucket.join(layout::content(&digest).as_str());
    fs::create_dir_all(data.parent().expect("a folder")).expect("a folder");
    fs::File::create(&data).and_then(|file| file.set_len(BLOB_SIZE)).expect("a sparse file");

    let store = BlobStore::open(root.path()).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    // The first request pays for buffers and connections that every Envoy has.
    client::get(envoy.address, "/v2/a/manifests/none", &[]).await;
    let before = envoy.memory("VmRSS");

    assert_eq!(pull(&envoy, "a", &digest, BLOB_SIZE).await, digest);

    let growth = envoy.memory("VmHWM").saturating_sub(before);
    println!("Envoy grew by {} KiB while {} MiB passed", growth / 1024, BLOB_SIZE / MIB);
    assert!(growth < 64 * MIB, "Envoy grew by {growth} bytes");
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_layer_is_not_read_into_memory_when_it_is_asked_for_as_a_manifest() {
    let root = TempDir::new().expect("a temporary folder");
    let bucket = root.path().join("registry");
    let digest = digest_of_zeros(256 * MIB);
    let data = bucket.join(layout::content(&digest).as_str());
    fs::create_dir_all(data.parent().expect("a folder")).expect("a folder");
    fs::File::create(&data).and_then(|file| file.set_len(256 * MIB)).expect("a sparse file");
    let store = BlobStore::open(root.path()).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    client::get(envoy.address, "/v2/a/manifests/none", &[]).await;
    let before = envoy.memory("VmRSS");
    let response = client::get(envoy.address, &format!("/v2/a/manifests/{digest}"), &[]).await;
    assert_eq!(client::error_of(&response), (404, "MANIFEST_UNKNOWN".to_owned()));
    let growth = envoy.memory("VmHWM").saturating_sub(before);
    assert!(growth < 64 * MIB, "Envoy grew by {growth} bytes");
}

/// So many zeros, in pieces.
fn zeros(size: u64) -> impl Stream<Item = Bytes> + Send + 'static {
    let piece = Bytes::from(vec![0; MIB as usize]);
    stream::iter(0..size / MIB).map(move |_| piece.clone())
}

/// Pulls a blob and gives its digest.
async fn pull(envoy: &Envoy, name: &str, digest: &Digest, size: u64) -> Digest {
    let request = client::request(Method::GET, &format!("/v2/{name}/blobs/{digest}"), &[]);
    let response = client::open(envoy.address, request).await.expect("a response");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-length"], size.to_string());
    let mut body = response.into_body();
    let mut hasher = Sha256::new();
    while let Some(frame) = body.frame().await {
        hasher.update(frame.expect("the body goes on").into_data().expect("data"));
    }
    finish(hasher)
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_large_blob_is_pushed_without_staying_in_envoys_memory() {
    let root = TempDir::new().expect("a temporary folder");
    let store = BlobStore::open(root.path()).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    let digest = digest_of_zeros(PUSHED_SIZE);

    let target = format!("/v2/known/blobs/uploads?digest={digest}");
    let length = PUSHED_SIZE.to_string();
    let headers = [("content-length", length.as_str())];
    let server = envoy.address;
    let body = zeros(PUSHED_SIZE);
    let pushed = client::send_pieces(server, Method::POST, &target, &headers, body).await;
    assert_eq!(pushed.status(), 201, "{:?}", pushed.body());
    assert_eq!(pull(&envoy, "known", &digest, PUSHED_SIZE).await, digest);

    let begun = client::request(Method::POST, "/v2/unknown/blobs/uploads/", &[]);
    let begun = client::send(server, begun).await;
    let at = begun.headers()["location"].to_str().expect("text");
    let body = zeros(PUSHED_SIZE);
    let patched = client::send_pieces(server, Method::PATCH, at, &[], body).await;
    assert_eq!(patched.status(), 202, "{:?}", patched.body());
    let at = patched.headers()["location"].to_str().expect("text");
    let target = format!("{at}&digest={digest}");
    let closed = client::send(server, client::request(Method::PUT, &target, &[])).await;
    assert_eq!(closed.status(), 201, "{:?}", closed.body());
    assert_eq!(pull(&envoy, "unknown", &digest, PUSHED_SIZE).await, digest);

    let most = envoy.memory("VmHWM");
    println!("Envoy had {} MiB at most", most / MIB);
    assert!(most <= MEMORY_LIMIT, "{most} bytes");
}
