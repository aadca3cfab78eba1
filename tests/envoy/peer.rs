//! The same requests to `docker-registry` and to Moorage, each on a tree of its own: the answers and
//! what they leave in the tree are the same, but for the differences listed here.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use http::{Method, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client::send_body;
use moorage_test_support::digest_of;
use moorage_test_support::docker_registry::DockerRegistry;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::tree::Tree;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const REQUESTS: usize = 600;

/// A difference that is meant.
struct Difference {
    name: &'static str,
    reason: &'static str,
    /// Whether it explains these two answers to this request.
    explains: fn(&Request, theirs: &Answer, ours: &Answer) -> bool,
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        name: "a descriptor without a valid digest",
        reason: "the peer looks it up and fails with 500; it is the client's mistake",
        explains: |request, theirs, ours| {
            request.method == Method::PUT
                && theirs.status == 500
                && ours.status == 400
                && ours.codes == ["MANIFEST_INVALID"]
        },
    },
    Difference {
        name: "a malformed tag or digest",
        reason: "the peer's router answers some with a plain 404, the rest fail at random places",
        explains: |request, _, ours| {
            request.reference_is_malformed
                && (ours.codes == ["TAG_INVALID"] || ours.codes == ["DIGEST_INVALID"])
        },
    },
    Difference {
        name: "a manifest is deleted by tag",
        reason: "the peer takes digests only; the OCI specification has deleting by tag since 1.0",
        explains: |request, theirs, ours| {
            request.method == Method::DELETE
                && !request.reference.contains(':')
                && (theirs.status == 400 || theirs.status == 405)
                && (ours.status == 202 || ours.status == 404)
        },
    },
    Difference {
        name: "two things are wrong",
        reason: "the manifest is checked before its digest, in the peer after it",
        explains: |request, theirs, ours| {
            request.method == Method::PUT
                && request.reference.contains(':')
                && theirs.codes == ["DIGEST_INVALID"]
                && ours.codes == ["MANIFEST_INVALID"]
        },
    },
];

/// A manifest with what its sender says of it.
struct Sample {
    what: &'static str,
    content: String,
    content_type: &'static str,
}

struct Request {
    method: Method,
    reference: String,
    reference_is_malformed: bool,
    content_type: &'static str,
    accept: &'static str,
    body: String,
    what: String,
}

#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    codes: Vec<String>,
    /// Of a success: what is served, under which type and digest.
    served: Option<(Bytes, Option<String>, Option<String>)>,
}

impl Answer {
    fn of(response: &Response<Bytes>) -> Self {
        let status = response.status().as_u16();
        let json: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        let errors = json["errors"].as_array().cloned().unwrap_or_default();
        let codes = errors.iter().map(|e| e["code"].as_str().unwrap_or_default().to_owned());
        let header = |name| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let content_type = if status == 200 { header("content-type") } else { None };
        let served = response
            .status()
            .is_success()
            .then(|| (response.body().clone(), content_type, header("docker-content-digest")));
        Self { status, codes: codes.collect(), served }
    }
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        // The constants are Knuth's, for the MMIX.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn one_of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

fn descriptor(media_type: &str, content: &str) -> Value {
    let digest = digest_of(content);
    json!({ "mediaType": media_type, "digest": digest.as_str(), "size": content.len() })
}

fn image(media_type: &str, layers: &[&str]) -> Value {
    let (config, layer) = if media_type == DOCKER_MANIFEST {
        (
            "application/vnd.docker.container.image.v1+json",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        )
    } else {
        ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip")
    };
    let layers: Vec<_> = layers.iter().map(|content| descriptor(layer, content)).collect();
    let config = descriptor(config, "{}");
    json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers })
}

fn samples() -> Vec<Sample> {
    let sample = |what, content: String, content_type| Sample { what, content, content_type };
    let small = image(OCI_MANIFEST, &["one"]);
    let large = image(OCI_MANIFEST, &["one", "two"]);
    let docker = image(DOCKER_MANIFEST, &["two"]);
    let index = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            descriptor(OCI_MANIFEST, &small.to_string()),
            descriptor(OCI_MANIFEST, &large.to_string()),
        ],
    });
    let mut untyped = image(OCI_MANIFEST, &["two", "one"]);
    untyped.as_object_mut().expect("an object").remove("mediaType");
    let mut both = small.clone();
    both["manifests"] = json!([]);
    let no_digest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": "x", "digest": "sha256:12", "size": 2 },
        "layers": [],
    });
    vec![
        sample("an OCI image", small.to_string(), OCI_MANIFEST),
        sample("a larger OCI image", large.to_string(), OCI_MANIFEST),
        sample("a Docker image", docker.to_string(), DOCKER_MANIFEST),
        sample("an index", index.to_string(), OCI_INDEX),
        sample("an image without mediaType", untyped.to_string(), OCI_MANIFEST),
        sample("missing layers", image(OCI_MANIFEST, &["nine", "ten"]).to_string(), OCI_MANIFEST),
        sample(
            "a missing layer",
            image(DOCKER_MANIFEST, &["one", "no"]).to_string(),
            DOCKER_MANIFEST,
        ),
        sample("no JSON", "{".to_owned(), OCI_MANIFEST),
        sample("an unknown type", small.to_string(), "application/vnd.example+json"),
        sample("another type", small.to_string(), DOCKER_MANIFEST),
        sample("image and index", both.to_string(), OCI_MANIFEST),
        sample("a digest that is none", no_digest.to_string(), OCI_MANIFEST),
    ]
}

fn next_request(numbers: &mut Numbers, samples: &[Sample]) -> Request {
    let sample = numbers.one_of(samples);
    let digest = digest_of(&sample.content).to_string();
    let other = digest_of("something else").to_string();
    let tag = (*numbers.one_of(&["a", "b", "c", "latest"])).to_owned();
    let (reference, reference_is_malformed) = match numbers.below(20) {
        0 => (".hidden".to_owned(), true),
        1 => ("sha256:12".to_owned(), true),
        2 => (other, false),
        3..9 => (digest, false),
        _ => (tag, false),
    };
    let methods = [Method::PUT, Method::PUT, Method::PUT, Method::GET, Method::GET, Method::DELETE];
    let method = numbers.one_of(&methods).clone();
    let is_put = method == Method::PUT;
    Request {
        what: format!("{method} {reference} {}", if is_put { sample.what } else { "" }),
        body: if is_put { sample.content.clone() } else { String::new() },
        content_type: sample.content_type,
        accept: "application/vnd.oci.image.manifest.v1+json,application/vnd.oci.image.index.v1+json,\
                 application/vnd.docker.distribution.manifest.v2+json",
        method,
        reference,
        reference_is_malformed,
    }
}

/// The files of a registry, by their paths.
fn files(bucket: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![bucket.join("docker")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let key = path.strip_prefix(bucket).expect("below the bucket");
                files.insert(key.display().to_string(), fs::read(&path).expect("a file"));
            }
        }
    }
    files
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn the_peer_answers_and_stores_the_same() {
    let mut tree = Tree::default();
    for blob in [&b"{}"[..], b"one", b"two"] {
        tree.put_blob("a/b", blob);
    }
    let (their_root, our_root) =
        (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let their_bucket = their_root.path().join("registry");
    let our_bucket = our_root.path().join("registry");
    tree.write_to(&their_bucket);
    tree.write_to(&our_bucket);
    let peer = DockerRegistry::start(&their_bucket).await;
    let store = BlobStore::open(our_root.path()).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;

    let mut numbers = Numbers(20_261_124);
    let samples = samples();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut unexplained = Vec::new();
    for number in 0..REQUESTS {
        let request = next_request(&mut numbers, &samples);
        let path = format!("/v2/a/b/manifests/{}", request.reference);
        let headers = [("content-type", request.content_type), ("accept", request.accept)];
        let mut answers = Vec::new();
        for server in [peer.address, envoy.address] {
            let method = request.method.clone();
            let response = send_body(server, method, &path, &headers, request.body.clone()).await;
            answers.push(Answer::of(&response));
        }
        let (theirs, ours) = (&answers[0], &answers[1]);
        if theirs == ours {
            *seen.entry("the same").or_default() += 1;
            continue;
        }
        let difference = DIFFERENCES.iter().find(|d| (d.explains)(&request, theirs, ours));
        let Some(difference) = difference else {
            let what = &request.what;
            unexplained.push(format!("{number} {what}:\ntheirs {theirs:?}\nours   {ours:?}"));
            continue;
        };
        *seen.entry(difference.name).or_default() += 1;
        // What one has deleted and the other not would make all that follows differ.
        if ours.status == 202 {
            fs::remove_dir_all(their_bucket.join(format!(
                "docker/registry/v2/repositories/a/b/_manifests/tags/{}",
                request.reference
            )))
            .expect("the peer has the tag");
        }
    }
    for difference in DIFFERENCES {
        let count = seen.get(difference.name).copied().unwrap_or(0);
        println!("{count} of {REQUESTS} differ: {}; {}", difference.name, difference.reason);
        assert!(count > 0, "{} is no difference any more", difference.name);
    }

    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));

    let (theirs, ours) = (files(&their_bucket), files(&our_bucket));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    assert!(ours == theirs, "the same files have the same content");
}
