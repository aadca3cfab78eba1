//! Clients for what is no image: charts, signatures, and what else refers to an image.

use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Client, Registries};
use moorage_test_support::cosign::{Cosign, Form};
use moorage_test_support::helm::Helm;
use moorage_test_support::image::{Layout, SIGNATURE};
use moorage_test_support::process::optional_tool;
use moorage_test_support::{client, oras, regctl, skopeo};

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn oras_discovers_what_it_attached() {
    let Some(program) = optional_tool("MOORAGE_ORAS") else { return };
    let registries = Registries::start().await;
    let registry = registries.envoy.address;
    let folder = TempDir::new().expect("a temporary folder");
    for file in ["sbom.json", "report.txt"] {
        fs::write(folder.path().join(file), file).expect("a file");
    }
    skopeo::push(Layout::image().await.path(), skopeo::AS_IT_IS, registry, "a/b:1").await;
    for (artifact_type, file) in [("application/x.sbom", "sbom.json"), ("text/x", "report.txt")] {
        let file = folder.path().join(file);
        oras::attach(&program, registry, "a/b:1", artifact_type, &file).await;
    }
    assert_eq!(oras::discover(&program, registry, "a/b:1", None).await.len(), 2);
    let sboms = oras::discover(&program, registry, "a/b:1", Some("application/x.sbom"));
    let sboms = sboms.await;
    assert_eq!(sboms.len(), 1, "{sboms:?}");
    let digest = sboms[0]["digest"].as_str().expect("a digest");

    let pulled = TempDir::new().expect("a temporary folder");
    oras::pull_files(&program, registry, &format!("a/b@{digest}"), pulled.path()).await;
    assert_eq!(fs::read(pulled.path().join("sbom.json")).expect("it was pulled"), b"sbom.json");
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_signature_is_listed_at_its_image_and_found_by_its_tag() {
    let registries = Registries::start().await;
    let (moorage, peer) = (registries.envoy.address, registries.peer.address);
    // oras pulls an artifact only together with its subject, and regctl notes in its layout what it refers to.
    let leaves_it_alone = |client: &&Client| !matches!(client, Client::Oras(_) | Client::Regctl(_));
    for client in Client::all().await.iter().filter(leaves_it_alone) {
        let (name, image) = (client.name(), Layout::image().await);
        let signature = Layout::signature(&image);
        // As cosign names it.
        let tag = format!("sha256-{}.sig", image.digest().hex());
        client.push(&image, moorage, &format!("{name}:1")).await;
        client.push(&signature, moorage, &format!("{name}:{tag}")).await;
        for registry in [moorage, peer] {
            let pulled = client.pull(registry, &format!("{name}:{tag}")).await;
            assert_eq!(pulled.blobs(), signature.blobs(), "{name}");
        }

        let artifact_type = SIGNATURE.replace('+', "%2B");
        let path = format!("/v2/{name}/referrers/{}?artifactType={artifact_type}", image.digest());
        let referrers = json_at(moorage, &path).await;
        let mut expected = signature.descriptor();
        expected["artifactType"] = json!(SIGNATURE);
        expected["annotations"] = json!({ "org.example.signed-by": "tests" });
        assert_eq!(referrers["manifests"], json!([expected]), "{name}");
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn regctl_lists_what_it_attached() {
    let Some(program) = optional_tool("MOORAGE_REGCTL") else { return };
    let registries = Registries::start().await;
    let registry = registries.envoy.address;
    let folder = TempDir::new().expect("a temporary folder");
    regctl::push(&program, Layout::image().await.path(), registry, "a/b:1").await;
    for (artifact_type, text) in [("application/x.sbom", "a bill"), ("text/x", "a report")] {
        let file = folder.path().join("file");
        fs::write(&file, text).expect("a file");
        regctl::attach(&program, registry, "a/b:1", artifact_type, &file).await;
    }
    let sboms = regctl::referrers(&program, registry, "a/b:1", "application/x.sbom").await;
    assert_eq!(sboms.len(), 1, "{sboms:?}");
    let digest = sboms[0]["digest"].as_str().expect("a digest");
    let content = regctl::artifact(&program, registry, &format!("a/b@{digest}")).await;
    assert_eq!(content, "a bill");
    // It has no need of a tag that lists them.
    assert_eq!(regctl::list_tags(&program, registry, "a/b").await, ["1"]);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn cosign_verifies_what_it_signed() {
    let Some(program) = optional_tool("MOORAGE_COSIGN") else { return };
    let registries = Registries::start().await;
    let registry = registries.envoy.address;
    let (signer, other) = (Cosign::new(program.clone()).await, Cosign::new(program).await);
    for (name, form) in [("as/referrer", Form::Referrer), ("as/tag", Form::Tag)] {
        let layout = Layout::image().await;
        skopeo::push(layout.path(), skopeo::AS_IT_IS, registry, &format!("{name}:1")).await;
        let digest = layout.digest();
        let image = format!("{name}@{digest}");
        assert!(!signer.verifies(registry, &image, form).await, "{form:?}");
        signer.sign(registry, &image, form).await;
        assert!(signer.verifies(registry, &image, form).await, "{form:?}");
        assert!(!other.verifies(registry, &image, form).await, "{form:?}");

        let referrers = json_at(registry, &format!("/v2/{name}/referrers/{digest}")).await;
        let (referrers, tag) = (&referrers["manifests"], format!("sha256-{}.sig", digest.hex()));
        let tags = json_at(registry, &format!("/v2/{name}/tags/list")).await;
        let (listed, expected) = match form {
            Form::Referrer => (1, json!(["1"])),
            Form::Tag => (0, json!(["1", tag])),
        };
        assert_eq!(referrers.as_array().map(Vec::len), Some(listed), "{form:?}: {referrers}");
        assert_eq!(tags["tags"], expected, "{form:?}");
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn helm_pulls_the_newest_chart_in_a_range() {
    let Some(program) = optional_tool("MOORAGE_HELM") else { return };
    let registries = Registries::start().await;
    let (moorage, peer) = (registries.envoy.address, registries.peer.address);
    let (ours, theirs) = (Helm::new(program.clone()), Helm::new(program));
    let mut newest = Vec::new();
    // A tag can't hold a plus; helm pushes an underscore in its place.
    for version in ["1.2.9", "1.3.0+build.7", "2.0.0"] {
        let archive = ours.package("web", version).await;
        ours.push(&archive, moorage, "charts").await;
        if version.starts_with("1.3") {
            newest = fs::read(archive).expect("a chart");
        }
    }
    for registry in [moorage, peer] {
        let (name, chart) = theirs.pull(registry, "charts/web", "^1.2").await;
        assert_eq!(name, "web-1.3.0+build.7.tgz");
        assert!(chart == newest, "the chart is as it was pushed");
    }
}

async fn json_at(registry: SocketAddr, path: &str) -> Value {
    let response = client::get(registry, path, &[]).await;
    serde_json::from_slice(response.body()).expect("JSON")
}
