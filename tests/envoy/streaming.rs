//! Blobs of any size pass through Envoy without staying in it.

use std::fs;

use http::Method;
use http_body_util::BodyExt;
use moorage::registry::reference::{Algorithm, Digest};
use moorage::store::layout;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::support::blob_store::BlobStore;
use crate::support::client;
use crate::support::envoy::{Bootstrap, Envoy};
use crate::support::tree::Tree;

const MIB: u64 = 1024 * 1024;
const BLOB_SIZE: u64 = 1024 * MIB;

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

    let request = client::request(Method::GET, &format!("/v2/a/blobs/{digest}"), &[]);
    let response = client::open(envoy.address, request).await.expect("a response");
    assert_eq!(response.headers()["content-length"], BLOB_SIZE.to_string());
    let mut body = response.into_body();
    let mut hasher = Sha256::new();
    while let Some(frame) = body.frame().await {
        hasher.update(frame.expect("the body goes on").into_data().expect("data"));
    }
    assert_eq!(finish(hasher), digest);

    let growth = envoy.memory("VmHWM").saturating_sub(before);
    println!("Envoy grew by {} KiB while {} MiB passed", growth / 1024, BLOB_SIZE / MIB);
    assert!(growth < 64 * MIB, "Envoy grew by {growth} bytes");
}

#[tokio::test]
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
