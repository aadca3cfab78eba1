//! The main job: what another registry wrote into a bucket is pulled through Envoy, byte for byte.

use tempfile::TempDir;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::docker_registry::DockerRegistry;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::image::Layout;
use moorage_test_support::{client, skopeo};

/// The images: a repository's name, the layout, how skopeo is to push it, and the media type under
/// which the registry then has it.
async fn images() -> Vec<(&'static str, Layout, &'static [&'static str], &'static str)> {
    vec![
        (
            "docker",
            Layout::image().await,
            &["--format", "v2s2"],
            "application/vnd.docker.distribution.manifest.v2+json",
        ),
        (
            "oci",
            Layout::image().await,
            &["--preserve-digests"],
            "application/vnd.oci.image.manifest.v1+json",
        ),
        (
            "nested/name/index",
            Layout::index().await,
            &["--all", "--preserve-digests"],
            "application/vnd.oci.image.index.v1+json",
        ),
        (
            "artifact",
            Layout::artifact(),
            &["--preserve-digests"],
            "application/vnd.oci.image.manifest.v1+json",
        ),
    ]
}

/// Pushes every image into `docker-registry` on a tree, serves the tree with `store` and Envoy, and
/// compares what is pulled from either.
async fn pulls_what_docker_registry_wrote(signed: bool) {
    let root = TempDir::new().expect("a temporary folder");
    let peer = DockerRegistry::start(&root.path().join("registry")).await;
    let (_store, envoy) = if signed {
        let store = BlobStore::signed(root.path()).await;
        let envoy = Envoy::start(&Bootstrap::new(store.address).signed()).await;
        (store, envoy)
    } else {
        let store = BlobStore::open(root.path()).await;
        let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
        (store, envoy)
    };
    for (name, layout, options, media_type) in images().await {
        let reference = format!("{name}:1.0");
        skopeo::push(layout.path(), options, peer.address, &reference).await;

        let expected = skopeo::pull(peer.address, &reference).await;
        let pulled = skopeo::pull(envoy.address, &reference).await;
        assert!(expected.len() >= 3, "{name}: a manifest, a configuration, a layer");
        assert_eq!(pulled, expected, "{name}");

        let path = format!("/v2/{name}/manifests/1.0");
        let accept = [("accept", media_type)];
        let theirs = client::get(peer.address, &path, &accept).await;
        let ours = client::get(envoy.address, &path, &accept).await;
        assert_eq!(ours.status(), 200, "{name}");
        assert_eq!(ours.body(), theirs.body(), "{name}");
        for header in ["content-type", "content-length", "docker-content-digest", "etag"] {
            assert_eq!(ours.headers()[header], theirs.headers()[header], "{name}: {header}");
        }
        assert_eq!(ours.headers()["content-type"], media_type, "{name}");
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn images_are_pulled_byte_for_byte() {
    pulls_what_docker_registry_wrote(false).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn images_are_pulled_from_a_store_that_demands_signatures() {
    pulls_what_docker_registry_wrote(true).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_store_that_demands_signatures_is_no_empty_store() {
    let root = TempDir::new().expect("a temporary folder");
    let store = BlobStore::signed(root.path()).await;
    let unsigned = Envoy::start(&Bootstrap::new(store.address)).await;
    let response = client::get(unsigned.address, "/v2/a/manifests/t", &[]).await;
    assert_eq!(client::error_of(&response), (500, "UNKNOWN".to_owned()));
}
