//! A filter before Moorage that guards repositories by their paths guards them against every request.

use http::Method;
use moorage::oci::Digest;
use tempfile::TempDir;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client::{self, error_of};
use moorage_test_support::envoy::{Bootstrap, Envoy, NOBODY_BELOW_SECRET};
use moorage_test_support::raw;
use moorage_test_support::tree::Tree;

const SECRET: &str = r#"{"schemaVersion":2,"config":{},"layers":[],"annotations":{"is":"secret"}}"#;

struct Guarded {
    envoy: Envoy,
    blob: Digest,
    _store: BlobStore,
    _root: TempDir,
}

async fn guarded(change: impl FnOnce(Bootstrap) -> Bootstrap) -> Guarded {
    let root = TempDir::new().expect("a temporary folder");
    let mut tree = Tree::default();
    tree.put_manifest("secret/app", "t", SECRET.as_bytes());
    tree.put_manifest("team-b/x", "t", br#"{"schemaVersion":2,"config":{},"layers":[]}"#);
    let blob = tree.put_blob("secret/app", b"a secret");
    tree.write_to(&root.path().join("registry"));
    let store = BlobStore::open(root.path()).await;
    let envoy =
        Envoy::start(&change(Bootstrap::new(store.address).guarded_by(NOBODY_BELOW_SECRET))).await;
    Guarded { envoy, blob, _store: store, _root: root }
}

/// `POST` with `mount`, and what the repository then answers for the blob.
async fn mount(guarded: &Guarded) -> (u16, u16) {
    let (blob, server) = (&guarded.blob, guarded.envoy.address);
    let target = format!("/v2/team-b/x/blobs/uploads/?mount={blob}&from=secret/app");
    let begun = client::send(server, client::request(Method::POST, &target, &[])).await;
    assert!(begun.headers().contains_key("location"), "{begun:?}");
    let read = client::get(server, &format!("/v2/team-b/x/blobs/{blob}"), &[]).await;
    (begun.status().as_u16(), read.status().as_u16())
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_foreign_blob_is_not_mounted_by_default() {
    let by_default = guarded(|bootstrap| {
        bootstrap.with(",\n                              \"mount\": \"from\"", "")
    })
    .await;
    assert_eq!(mount(&by_default).await, (202, 404));
    // What the default keeps from happening: the guard does not see the source.
    let told_so = guarded(|bootstrap| bootstrap).await;
    assert_eq!(mount(&told_so).await, (201, 200));
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn production_mounts_nothing() {
    let root = TempDir::new().expect("a temporary folder");
    let mut tree = Tree::default();
    let blob = tree.put_blob("secret/app", b"a secret");
    tree.write_to(&root.path().join("registry"));
    let store = BlobStore::open(root.path()).await;
    let envoy = Envoy::start(&Bootstrap::production_before(&[store.address])).await;
    let guarded = Guarded { envoy, blob, _store: store, _root: root };
    assert_eq!(mount(&guarded).await, (202, 404));
}

/// Whatever a path is made of, Moorage and the guard see the same repository, or Moorage sees none.
#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn no_other_spelling_of_a_path_gets_past_a_guard() {
    let guarded = guarded(|bootstrap| bootstrap).await;
    let server = guarded.envoy.address;
    let refused = client::get(server, "/v2/secret/app/manifests/t", &[]).await;
    assert_eq!(error_of(&refused), (403, "DENIED".to_owned()));
    assert_eq!(client::get(server, "/v2/team-b/x/manifests/t", &[]).await.status(), 200);
    for path in SPELLINGS {
        let (status, answer) = raw::get(server, path).await;
        assert!((400..500).contains(&status), "{path}: {answer}");
        assert!(!answer.contains("secret\"}"), "{path}: {answer}");
    }
}

/// `normalize_path` is needed: without it Moorage decodes what the guard has not decoded.
#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn without_normalisation_a_guard_is_passed_by() {
    let guarded =
        guarded(|bootstrap| bootstrap.with("normalize_path: true", "normalize_path: false"));
    let guarded = guarded.await;
    let (status, answer) = raw::get(guarded.envoy.address, SPELLINGS[0]).await;
    assert_eq!(status, 200, "{answer}");
}

const SPELLINGS: &[&str] = &[
    "/v2/%73ecret/app/manifests/t",
    "/v2/%73%65cret/app/manifests/%74",
    "/v2/secret%2fapp/manifests/t",
    "/v2/secret%2Fapp/manifests/t",
    "/v2/secret%5capp/manifests/t",
    "/v2/secret%252fapp/manifests/t",
    "/v2/%2573ecret/app/manifests/t",
    "/v2//secret/app/manifests/t",
    "//v2/secret/app/manifests/t",
    "/v2/./secret/app/manifests/t",
    "/v2/%2e/secret/app/manifests/t",
    "/v2/team-b/../secret/app/manifests/t",
    "/v2/team-b/%2e%2e/secret/app/manifests/t",
    "/v2/team-b/.%2E/secret/app/manifests/t",
    "/v2/team-b%2f../secret/app/manifests/t",
    "/v2/team-b%2f%2e%2e%2fsecret/app/manifests/t",
    "/v2/team-b/x/manifests/../../../secret/app/manifests/t",
    "/v2\\secret/app/manifests/t",
    "/v2/secret\\app/manifests/t",
    "/v2/Secret/app/manifests/t",
    "/v2/secret;x/app/manifests/t",
    "/v2/secret%00/app/manifests/t",
    "/%762/secret/app/manifests/t",
    "/./v2/secret/app/manifests/t",
    "/x/../v2/secret/app/manifests/t",
    "http://registry/v2/secret/app/manifests/t",
    "http://registry/v2/%73ecret/app/manifests/t",
    "/v2/secret/app/manifests/t?x=/../team-b",
    "/v2/secret/app/manifests/t#x",
];
