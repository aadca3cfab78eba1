//! BuildKit keeps the results of a build's steps in a registry, and another BuildKit goes on from there.

use std::fs;

use tempfile::TempDir;

use super::Registries;
use moorage_test_support::buildkit::{Build, Buildkit, Cache, Client};
use moorage_test_support::client;
use moorage_test_support::process::optional_tool;

/// A step with another result each time: the same result twice means that it was not run again. It is not
/// one of the image's own steps, so only `mode=max` keeps it.
const STEPS: &str = r#"
FROM scratch AS base
COPY busybox /busybox
RUN ["/busybox", "dd", "if=/dev/urandom", "of=/result", "bs=64", "count=1"]
FROM scratch
COPY --from=base /result /result
"#;

/// How BuildKit keeps a cache: as an index whose entries are blobs, or as an image.
const FORMS: [(&str, &str, &str); 2] = [
    ("index", "image-manifest=false", "application/vnd.oci.image.index.v1+json"),
    ("image", "image-manifest=true", "application/vnd.oci.image.manifest.v1+json"),
];

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_build_goes_on_from_a_cache_that_buildctl_pushed() {
    let Some(first) = Buildkit::start().await else { return };
    goes_on_from_a_pushed_cache(&first, &Client::Buildctl).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_build_goes_on_from_a_cache_that_buildx_pushed() {
    let Some(program) = optional_tool("MOORAGE_BUILDX") else { return };
    let Some(first) = Buildkit::start().await else { return };
    goes_on_from_a_pushed_cache(&first, &Client::Buildx(program)).await;
}

async fn goes_on_from_a_pushed_cache(first: &Buildkit, client: &Client) {
    let registries = Registries::start().await;
    let registry = registries.envoy.address;
    let folder = TempDir::new().expect("a temporary folder");
    fs::write(folder.path().join("Dockerfile"), STEPS).expect("a file");
    fs::copy("/bin/busybox", folder.path().join("busybox")).expect("busybox is there");

    let mut results = Vec::new();
    for (form, attribute, media_type) in FORMS {
        let cache = format!("type=registry,ref={registry}/cache/{form}:1");
        let export = format!("{cache},mode=max,{attribute}");
        let built = first.build(client, folder.path(), Cache::Export(&export)).await;
        let path = format!("/v2/cache/{form}/manifests/1");
        let pushed = client::get(registry, &path, &[("accept", media_type)]).await;
        assert_eq!(pushed.headers()["content-type"], media_type, "{form}");

        let second = started_anew().await;
        let again = second.build(client, folder.path(), Cache::Import(&cache)).await;
        assert!(again.progress.contains("CACHED"), "{form}: {}", again.progress);
        results.extend([result(&built), result(&again)]);
    }
    assert!(results.iter().all(|other| *other == results[0]), "{results:?}");
    // It would say nothing if the step gave that without a cache as well.
    let other = started_anew().await;
    let anew = other.build(client, folder.path(), Cache::None).await;
    assert_ne!(result(&anew), results[0]);
}

/// One that has nothing in its own cache.
async fn started_anew() -> Buildkit {
    Buildkit::start().await.expect("BuildKit was started before")
}

fn result(build: &Build) -> Vec<u8> {
    fs::read(build.files.path().join("result")).expect("the image has the file")
}
