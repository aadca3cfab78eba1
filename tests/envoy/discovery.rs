//! Finding what is there: tags, repositories and referrers, page by page, and what that costs.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::Method;
use moorage::oci::{Algorithm, Digest, UploadId};
use moorage::store::layout;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::faults::{envoy, faults};
use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client::{self, error_of};
use moorage_test_support::docker_registry::DockerRegistry;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::run;
use moorage_test_support::stand_in::{Behaviour, StandIn};
use moorage_test_support::tree::Tree;

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The entries of a page, and the path of the next one.
async fn page(registry: SocketAddr, path: &str, field: &str) -> (Vec<Value>, Option<String>) {
    let response = client::get(registry, path, &[]).await;
    assert_eq!(response.status(), 200, "{path}: {:?}", response.body());
    let link = response.headers().get("link").map(|link| link.to_str().expect("text"));
    let next = link.map(|link| {
        let target = link.strip_prefix('<').and_then(|l| l.strip_suffix(">; rel=\"next\""));
        target.unwrap_or_else(|| panic!("no link to a next page: {link}")).to_owned()
    });
    let json: Value = serde_json::from_slice(response.body()).expect("JSON");
    (json[field].as_array().expect("a list").clone(), next)
}

/// The entries of all pages, which have at most `limit` each.
async fn all(registry: SocketAddr, path: &str, field: &str, limit: usize) -> Vec<Value> {
    let mut entries = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        let (page, following) = page(registry, &path, field).await;
        assert!(page.len() <= limit && (following.is_none() || !page.is_empty()), "{path}");
        entries.extend(page);
        next = following;
    }
    entries
}

/// Tags as projects have them: 100,000.
fn many_tags() -> Vec<String> {
    let versions = (0..10).flat_map(|major| {
        (0..50).flat_map(move |minor| (0..40).map(move |patch| format!("{major}.{minor}.{patch}")))
    });
    let mut tags: Vec<_> = versions
        .flat_map(|version| {
            ["", "-alpine", "-alpine3.20", "-rc.1", "_debug"]
                .map(|variant| format!("v{version}{variant}"))
        })
        .collect();
    for major in 0..10 {
        tags.extend([format!("v{major}"), format!("v{major}-alpine")]);
        tags.extend((0..50).map(|minor| format!("v{major}.{minor}")));
    }
    tags.extend(["1.0", "1", "latest"].map(str::to_owned));
    tags
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_page_of_a_hundred_thousand_tags_costs_five_calls_at_most() {
    let mut tree = Tree::default();
    let digest = Digest::of(Algorithm::Sha256, MANIFEST);
    let mut tags = many_tags();
    for tag in &tags {
        tree.tag("a", tag, &digest);
    }
    tags.sort_unstable();
    assert!(tags.len() >= 100_000);
    let store = StandIn::start(tree, |_, _| Behaviour::Serve).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    for last in [
        "",
        "1",
        "v0",
        "v0.",
        "v2",
        "v4.9",
        "v4.9-",
        "v5.20.17-alpine",
        "v5.20.17-rc.1",
        "v5.2",
        "v5~",
        "v9.49.39_debug",
        "%F0%9F%9A%A2",
    ] {
        let before = store.requests().len();
        let path = format!("/v2/a/tags/list?n=100&last={last}");
        let (found, next) = page(envoy.address, &path, "tags").await;
        let calls = store.requests().split_off(before);
        assert!(calls.len() <= 5, "after {last:?}: {calls:#?}");
        let behind: Vec<_> = match last.starts_with('%') {
            true => Vec::new(),
            false => tags.iter().filter(|tag| tag.as_str() > last).collect(),
        };
        let expected: Vec<_> = behind.iter().take(100).map(|tag| json!(tag)).collect();
        assert_eq!(found, expected, "after {last:?}");
        assert_eq!(next.is_some(), behind.len() > 100, "after {last:?}");
    }
}

/// Repositories, one of which has tags whose folders don't sort as they do.
fn tree() -> Tree {
    let mut tree = Tree::default();
    let digest = tree.put_manifest("a", "1", MANIFEST);
    for name in ["a-b", "a/b", "a/b/c", "b", "1", "only/nested/deep", "a.b", "0/1", "a/0"] {
        tree.put_manifest(name, "t", MANIFEST);
        tree.put_blob(name, b"blob");
    }
    for number in 0..20 {
        for tag in ["-alpine", ".1", ".1-alpine", "", "_x"] {
            tree.tag("a", &format!("{number}{tag}"), &digest);
        }
    }
    tree.put_blob("a", b"blob");
    tree
}

/// Any client may begin an upload in a repository that is none yet, and leave it.
#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_page_of_the_catalog_costs_little_among_thousands_of_uploads_that_were_given_up() {
    let mut tree = Tree::default();
    let id = UploadId::from_random(0);
    for number in 0..3_000 {
        let name = format!("bare-{number:04}").parse().expect("a valid name");
        tree.put(&layout::upload_start(&name, &id), "2026-01-01T00:00:00Z");
    }
    tree.put_blob("bare-2999/nested", b"blob");
    tree.put_blob("real", b"blob");
    let store = StandIn::start(tree, |_, _| Behaviour::Serve).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    let mut found = Vec::new();
    let mut next = Some("/v2/_catalog?n=1".to_owned());
    while let Some(path) = next {
        let before = store.requests().len();
        let (names, following) = page(envoy.address, &path, "repositories").await;
        let calls = store.requests().len() - before;
        assert!(calls <= 400, "{calls} calls for {path}");
        found.extend(names);
        next = following;
    }
    assert_eq!(found, ["bare-2999/nested", "real"]);
}

fn components(name: &Value) -> Vec<String> {
    name.as_str().expect("a name").split('/').map(str::to_owned).collect()
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn lists_are_those_of_the_peer_whatever_the_page() {
    let root = TempDir::new().expect("a temporary folder");
    let bucket = root.path().join("registry");
    tree().write_to(&bucket);
    let peer = DockerRegistry::start(&bucket).await;
    let (open, signed) = (BlobStore::open(root.path()).await, BlobStore::signed(root.path()).await);
    let open = Envoy::start(&Bootstrap::new(open.address)).await;
    let signed = Envoy::start(&Bootstrap::new(signed.address).signed()).await;

    let (mut tags, _) = page(peer.address, "/v2/a/tags/list", "tags").await;
    tags.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
    // The peer has `a/0` before `a`: it finds a repository where it comes upon `_layers`.
    let (mut repositories, _) = page(peer.address, "/v2/_catalog", "repositories").await;
    repositories.sort_by_key(components);
    assert_eq!((tags.len(), repositories.len()), (100, 10));
    for envoy in [&open, &signed] {
        for n in [1, 7, 100, 1000] {
            for (path, field, expected) in [
                ("/v2/a/tags/list", "tags", &tags),
                ("/v2/_catalog", "repositories", &repositories),
            ] {
                let found = all(envoy.address, &format!("{path}?n={n}"), field, n).await;
                assert_eq!(&found, expected, "{path}?n={n}");
            }
        }
    }
    let head = client::send(open.address, client::request(Method::HEAD, "/v2/a/tags/list", &[]));
    let get = client::get(open.address, "/v2/a/tags/list", &[]).await;
    assert_eq!(head.await.headers()["content-length"], get.headers()["content-length"]);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn skopeo_lists_tags_and_inspects_with_them() {
    let root = TempDir::new().expect("a temporary folder");
    let mut tree = tree();
    let config = tree.put_blob("image", br#"{"os":"linux","architecture":"amd64"}"#);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.as_str(),
            "size": 37,
        },
        "layers": [],
    });
    let manifest: &'static str = manifest.to_string().leak();
    for tag in ["1.1", "1", "1-alpine"] {
        tree.put_manifest("image", tag, manifest.as_bytes());
    }
    tree.write_to(&root.path().join("registry"));
    let store = BlobStore::open(root.path()).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    for (command, reference, field) in
        [("list-tags", "image", "Tags"), ("inspect", "image:1", "RepoTags")]
    {
        let image = format!("docker://{}/{reference}", envoy.address);
        let arguments = [command, "--tls-verify=false", &image];
        let printed = run(Command::new("skopeo").args(arguments)).await;
        let json: Value = serde_json::from_slice(&printed).expect("JSON");
        assert_eq!(json[field], json!(["1", "1-alpine", "1.1"]), "{command}");
    }
}

/// An artifact of this type, which is about `subject` if there is one.
fn artifact(artifact_type: &str, subject: Option<&Digest>) -> Value {
    let empty = Digest::of(Algorithm::Sha256, b"{}");
    let empty = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": empty.as_str(), "size": 2 });
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": empty,
        "layers": [empty],
    });
    if let Some(subject) = subject {
        manifest["subject"] = json!({ "mediaType": OCI_MANIFEST, "digest": subject.as_str(), "size": MANIFEST.len() });
    }
    manifest
}

/// Puts a manifest under its digest or a tag, and gives its descriptor.
async fn put(registry: SocketAddr, tag: Option<&str>, manifest: &Value) -> Value {
    let content = manifest.to_string();
    let digest = Digest::of(Algorithm::Sha256, content.as_bytes());
    let path = format!("/v2/a/manifests/{}", tag.unwrap_or(digest.as_str()));
    let size = content.len();
    let response = client::send_body(registry, Method::PUT, &path, &[], content).await;
    assert_eq!(response.status(), 201, "{:?}", response.body());
    let mut descriptor =
        json!({ "mediaType": manifest["mediaType"], "digest": digest.as_str(), "size": size });
    if manifest["artifactType"].is_string() {
        descriptor["artifactType"] = manifest["artifactType"].clone();
    }
    descriptor
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn referrers_are_listed_from_both_places_until_they_are_deleted() {
    let root = TempDir::new().expect("a temporary folder");
    let mut tree = Tree::default();
    let subject = tree.put_manifest("a", "t", MANIFEST);
    tree.put_blob("a", b"{}");
    tree.write_to(&root.path().join("registry"));
    let store = BlobStore::open(root.path()).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    let path = format!("/v2/a/referrers/{subject}");
    let unknown = format!("/v2/un/known/referrers/{subject}");
    for path in [&path, &unknown] {
        assert_eq!(page(envoy.address, path, "manifests").await, (Vec::new(), None));
    }

    let mut expected = Vec::new();
    for number in 0..5 {
        let artifact = artifact(&format!("noted/{number}"), Some(&subject));
        expected.push(put(envoy.address, None, &artifact).await);
    }
    let mut under_tag = vec![expected[0].clone()];
    for number in 0..5 {
        under_tag
            .push(put(envoy.address, None, &artifact(&format!("tagged/{number}"), None)).await);
    }
    let tag = subject.as_str().replace(':', "-");
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": under_tag });
    put(envoy.address, Some(&tag), &index).await;
    expected.extend(under_tag.split_off(1));
    expected.sort_by_key(|descriptor| descriptor["digest"].to_string());
    for n in [1, 3, 1000] {
        let found = all(envoy.address, &format!("{path}?n={n}"), "manifests", n).await;
        assert_eq!(found, expected, "n={n}");
    }

    let filtered = format!("{path}?artifactType=tagged%2F3");
    let response = client::get(envoy.address, &filtered, &[]).await;
    assert_eq!(response.headers()["content-type"], OCI_INDEX);
    assert_eq!(response.headers()["oci-filters-applied"], "artifactType");
    let (found, _) = page(envoy.address, &filtered, "manifests").await;
    assert_eq!(found.len(), 1);

    for descriptor in &expected {
        let digest = descriptor["digest"].as_str().expect("a digest");
        let path = format!("/v2/a/manifests/{digest}");
        let request = client::request(Method::DELETE, &path, &[]);
        assert_eq!(client::send(envoy.address, request).await.status(), 202);
    }
    assert_eq!(page(envoy.address, &path, "manifests").await, (Vec::new(), None));
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_deleted_blob_is_gone_from_its_repository_alone() {
    let root = TempDir::new().expect("a temporary folder");
    let mut tree = Tree::default();
    let blob = tree.put_blob("a", b"blob");
    tree.link_blob("b", &blob);
    tree.write_to(&root.path().join("registry"));
    let store = BlobStore::open(root.path()).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    let path = format!("/v2/a/blobs/{blob}");
    let delete =
        async || client::send(envoy.address, client::request(Method::DELETE, &path, &[])).await;
    assert_eq!(delete().await.status(), 202);
    let unknown = (404, "BLOB_UNKNOWN".to_owned());
    assert_eq!(error_of(&delete().await), unknown);
    assert_eq!(error_of(&client::get(envoy.address, &path, &[]).await), unknown);
    let elsewhere = client::get(envoy.address, &format!("/v2/b/blobs/{blob}"), &[]).await;
    assert_eq!(elsewhere.body().as_ref(), b"blob");
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_fault_while_something_is_listed_is_never_an_empty_list() {
    let mut tree = Tree::default();
    let subject = tree.put_manifest("a", "t", MANIFEST);
    let referrer = Digest::of(Algorithm::Sha256, b"referrer");
    let (name, tag) = ("a".parse().expect("a valid name"), subject.as_str().replace(':', "-"));
    let descriptor = json!({ "digest": referrer.as_str() }).to_string();
    tree.put(&layout::referrer(&name, &subject, &referrer), descriptor);
    let index: &'static str =
        json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{ "digest": subject.as_str() }] })
            .to_string()
            .leak();
    tree.put_manifest("a", &tag, index.as_bytes());
    let referrers = format!("/v2/a/referrers/{subject}");
    let folder = "prefix=docker%2Fregistry%2Fv2%2Frepositories%2F";
    let rows = [
        ("/v2/a/tags/list", format!("{folder}a%2F_manifests%2Ftags")),
        ("/v2/none/tags/list", format!("{folder}none%2F_")),
        ("/v2/_catalog", folder.to_owned()),
        ("/v2/_catalog", format!("{folder}a%2F")),
        (&referrers, folder.to_owned()),
        (&referrers, "/_manifests/referrers/".to_owned()),
        (&referrers, "/_manifests/tags/".to_owned()),
        (&referrers, "/_manifests/revisions/".to_owned()),
        (&referrers, "v2/blobs/".to_owned()),
    ];
    for (behaviour, status, code) in faults() {
        let faulty = Arc::new(Mutex::new(String::new()));
        let (script, key_part) = (behaviour.clone(), Arc::clone(&faulty));
        let store = StandIn::start(tree.clone(), move |key, _| {
            match key.contains(&*key_part.lock().expect("no test thread panicked")) {
                true => script.clone(),
                false => Behaviour::Serve,
            }
        });
        let store = store.await;
        let envoy = envoy(&store, &behaviour).await;
        for (path, key_part) in &rows {
            faulty.lock().expect("no test thread panicked").clone_from(key_part);
            let error = error_of(&client::get(envoy.address, path, &[]).await);
            assert_eq!(error, (status, code.to_owned()), "{behaviour:?} of {key_part} for {path}");
        }
    }
}
