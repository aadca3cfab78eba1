//! Clients from before 2017: what Moorage makes for them is what `docker-registry` makes of the same
//! tree, and each takes what the other has signed.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Method, Response};
use moorage::oci::{Algorithm, Digest};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client::{error_of, get, send_body};
use moorage_test_support::docker_registry::DockerRegistry;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::run;
use moorage_test_support::skopeo;
use moorage_test_support::stand_in::{Behaviour, StandIn};
use moorage_test_support::tree::Tree;

const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
const SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
const SCHEMA2: &str = "application/vnd.docker.distribution.manifest.v2+json";
const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const EMPTY_LAYER: &str = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4";

/// The key of RFC 6979, appendix A.2.5: everyone knows it.
const KEY: &str = r#"{
    "kty": "EC",
    "crv": "P-256",
    "x": "YP7UuiVanTHJYet0xjVtaMBJuJI7Yfps5mliLmDyn7Y",
    "y": "eQP-EAi4vJmkGunpVii8ZPLxsgwtfp9Rd6PClNRGIpk",
    "d": "ya-p2EW6dRZrXCFXZ7HWk05Qw9s26JsSe4piKxIPZyE"
}"#;

/// The peer and Moorage on one tree, with one key.
struct Registries {
    peer: DockerRegistry,
    envoy: Envoy,
    root: TempDir,
    _store: BlobStore,
    _folder: TempDir,
}

impl Registries {
    async fn start(tree: &Tree) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let key = folder.path().join("key.json");
        fs::write(&key, KEY).expect("a file");
        let root = TempDir::new().expect("a temporary folder");
        let bucket = root.path().join("registry");
        tree.write_to(&bucket);
        let peer = DockerRegistry::with_schema1(&bucket, &key).await;
        let store = BlobStore::open(root.path()).await;
        let envoy = Envoy::start(&bootstrap(store.address)).await;
        Self { peer, envoy, root, _store: store, _folder: folder }
    }

    /// What each answers, the peer first.
    async fn ask(&self, reference: &str, headers: &[(&str, &str)]) -> [Response<Bytes>; 2] {
        let path = format!("/v2/a/b/manifests/{reference}");
        [
            get(self.peer.address, &path, headers).await,
            get(self.envoy.address, &path, headers).await,
        ]
    }

    fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.root.path().join("registry").join(path).exists()
    }
}

/// Envoy with the key, on one line, and with schema 1 allowed.
fn bootstrap(store: SocketAddr) -> Bootstrap {
    let key = KEY.replace('\n', " ");
    let fields = format!(r#""accept_schema1": true, "schema1_key": {key}"#);
    Bootstrap::new(store).with_legacy(&fields)
}

/// An image: its configuration as text, and the number of its layers.
struct Sample {
    tag: &'static str,
    layers: usize,
    config: String,
}

fn sample(tag: &'static str, layers: usize, config: impl ToString) -> Sample {
    Sample { tag, layers, config: config.to_string() }
}

fn diff_ids(layers: usize) -> Value {
    let digests = (0..layers).map(|number| format!("sha256:{number}"));
    json!({ "type": "layers", "diff_ids": digests.collect::<Vec<_>>() })
}

/// An image whose history has a layer for every `L` and none for every `-`.
fn steps(tag: &'static str, steps: &str) -> Sample {
    let layers = steps.matches('L').count();
    let history = steps.chars().enumerate().map(|(number, step)| {
        let mut entry = json!({
            "created": format!("2016-01-02T03:04:{number:02}.5Z"),
            "created_by": format!("/bin/sh -c step {number}"),
        });
        if step == '-' {
            entry["empty_layer"] = true.into();
        }
        entry
    });
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Cmd": ["sh"], "Env": ["A=b"] },
        "rootfs": diff_ids(layers),
        "history": history.collect::<Vec<_>>(),
    });
    sample(tag, layers, config)
}

/// Text that is not written as it is.
const AWKWARD: &str = "RUN a <b >c && d \"e\" 'f' \\g /h é 😀 \u{2028}\u{2029} \u{7f} \u{8}\u{c}\n\r\t\u{1}\u{1f}\u{fffd}";

fn samples() -> Vec<Sample> {
    let awkward = json!({
        "architecture": AWKWARD,
        "author": AWKWARD,
        AWKWARD: { "z": AWKWARD, "a": [AWKWARD] },
        "rootfs": diff_ids(2),
        "history": [
            { "created_by": AWKWARD, "comment": AWKWARD, "author": AWKWARD },
            { "created_by": AWKWARD, "comment": AWKWARD, "author": AWKWARD },
        ],
    });
    let times = [
        "2016-02-29T23:59:59Z",
        "2016-02-29T23:59:59.123456789Z",
        "2016-02-29T23:59:59.1234567891Z",
        "2016-02-29T23:59:59.100+02:00",
        "2016-02-29T23:59:59.000-11:30",
        "2016-02-29T23:59:59+00:00",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
    ];
    let times: Vec<_> = times.iter().map(|time| json!({ "created": time })).collect();
    let unusual = r#" { "z":1.50 , "a" : 1e400,"b":-0,
        "id": "mine", "parent" : "mine", "throwaway": "mine", "created": "now", "nothing": null,
        "escaped\u00e9\/" : "\u00e9\/\b\u003c \ud83d\ude00", "Id": 1, "os.version":"10",
        "nested": { "b": [ 1 , { } , [ ] ], "a": "x  y" }, "": 0,
        "rootfs": { "diff_ids": ["x"], "extra": 1 }, "history": [ { "extra": 1 } ] } "#;
    let windows = json!({
        "os": "windows",
        "rootfs": { "type": "layers+base", "diff_ids": ["x", "y"], "base_layer": "windowsservercore" },
        "history": [{ "created_by": "one" }, { "created_by": "two" }],
    });
    let nulls = json!({
        "architecture": null,
        "rootfs": { "diff_ids": ["x", "y"], "base_layer": null },
        "history": [
            { "created": null, "author": null, "created_by": null, "comment": null, "empty_layer": null },
            {},
        ],
    });
    vec![
        steps("one", "L"),
        steps("many", "LLLLLLLLLLLL"),
        steps("empty-first", "-L"),
        steps("empty-last", "L-"),
        steps("empty-between", "L-L"),
        steps("empty-around", "--L--"),
        steps("empty-alone", "-"),
        steps("empty-only", "---"),
        sample("awkward", 2, awkward),
        sample("times", 8, json!({ "rootfs": diff_ids(8), "history": times })),
        sample("unusual", 1, unusual),
        sample("windows", 2, windows),
        sample("nulls", 2, nulls),
    ]
}

/// Puts an image into the repository `a/b`, and gives its manifest.
fn put(tree: &mut Tree, sample: &Sample) -> String {
    let mut blob = |content: String| {
        let digest = tree.put_blob("a/b", Box::leak(content.clone().into_boxed_str()).as_bytes());
        json!({ "mediaType": LAYER, "digest": digest.as_str(), "size": content.len() })
    };
    let layers: Vec<_> = (0..sample.layers).map(|number| blob(format!("layer {number}"))).collect();
    let mut config = blob(sample.config.clone());
    config["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": SCHEMA2, "config": config, "layers": layers });
    let manifest = manifest.to_string();
    tree.put_manifest("a/b", sample.tag, Box::leak(manifest.clone().into_boxed_str()).as_bytes());
    manifest
}

/// A signed manifest's payload, and its signatures.
fn parts(response: &Response<Bytes>) -> (String, String) {
    let text = std::str::from_utf8(response.body()).expect("text");
    assert_eq!(response.status(), 200, "{text}");
    assert_eq!(response.headers()["content-type"], SIGNED);
    let (payload, signatures) = text.split_once(",\n   \"signatures\": ").expect("signatures");
    (format!("{payload}\n}}"), signatures.to_owned())
}

/// The lines of signatures that don't depend on the time of signing.
fn lasting(signatures: &str) -> Vec<&str> {
    let lasts = |line: &&str| !line.contains("\"signature\":") && !line.contains("\"protected\":");
    signatures.lines().filter(lasts).collect()
}

fn digest_of(content: &str) -> String {
    Digest::of(Algorithm::Sha256, content.as_bytes()).to_string()
}

async fn put_signed(registry: SocketAddr, reference: &str, body: &[u8]) -> Response<Bytes> {
    let path = format!("/v2/a/b/manifests/{reference}");
    let headers = [("content-type", SIGNED)];
    send_body(registry, Method::PUT, &path, &headers, body.to_vec()).await
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn converted_manifests_are_the_peers_and_each_takes_the_others_signature() {
    let mut tree = Tree::default();
    let samples = samples();
    samples.iter().for_each(|sample| drop(put(&mut tree, sample)));
    let registries = Registries::start(&tree).await;
    for Sample { tag, .. } in &samples {
        let [theirs, ours] = registries.ask(tag, &[("accept", SIGNED)]).await;
        let ((their_payload, their_signatures), (payload, signatures)) =
            (parts(&theirs), parts(&ours));
        assert_eq!(payload, their_payload, "{tag}");
        assert_eq!(lasting(&signatures), lasting(&their_signatures), "{tag}");
        let digest = digest_of(&payload);
        for response in [&theirs, &ours] {
            assert_eq!(response.headers()["docker-content-digest"], digest, "{tag}");
            assert_eq!(response.headers()["etag"], format!("\"{digest}\""), "{tag}");
        }
        let [by_silence, our_own] = registries.ask(tag, &[]).await;
        assert_eq!(parts(&by_silence).0, payload, "{tag}");
        assert_eq!(our_own.body(), ours.body(), "{tag}");

        for (registry, signed) in
            [(registries.peer.address, &ours), (registries.envoy.address, &theirs)]
        {
            let changed = String::from_utf8_lossy(signed.body()).replacen("\"a/b\"", "\"a/c\"", 1);
            let other = digest_of(&payload.replacen("\"a/b\"", "\"a/c\"", 1));
            let refused = put_signed(registry, &other, changed.as_bytes()).await;
            assert_eq!(refused.status(), 400, "{tag}");
            assert!(
                String::from_utf8_lossy(refused.body()).contains("MANIFEST_UNVERIFIED"),
                "{tag}"
            );
            let taken = put_signed(registry, &digest, signed.body()).await;
            assert_eq!(taken.status(), 201, "{tag}: {:?}", taken.body());
            assert_eq!(taken.headers()["docker-content-digest"], digest, "{tag}");
        }
    }
    let hex = EMPTY_LAYER.trim_start_matches("sha256:");
    let link = format!("docker/registry/v2/repositories/a/b/_layers/sha256/{hex}/link");
    assert!(registries.exists(link), "the empty layer is linked");
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn the_first_to_need_the_empty_layer_stores_it() {
    let mut tree = Tree::default();
    put(&mut tree, &steps("t", "L-"));
    let registries = Registries::start(&tree).await;
    let server = registries.envoy.address;
    let headers = [("accept", SIGNED)];
    let signed = get(server, "/v2/a/b/manifests/t", &headers).await;
    let entity_tag = signed.headers()["etag"].to_str().expect("text");
    let condition = [("accept", SIGNED), ("if-none-match", entity_tag)];
    let unchanged = get(server, "/v2/a/b/manifests/t", &condition).await;
    assert_eq!((unchanged.status().as_u16(), unchanged.body().len()), (304, 0));
    assert_eq!(unchanged.headers()["vary"], "Accept");
    // What an old client does next: it gets every layer that the manifest names.
    let (payload, _) = parts(&signed);
    let payload: Value = serde_json::from_str(&payload).expect("JSON");
    let layers = payload["fsLayers"].as_array().expect("a list");
    assert_eq!(layers.len(), 2);
    assert_eq!(layers[0]["blobSum"], EMPTY_LAYER);
    for layer in layers {
        let digest = layer["blobSum"].as_str().expect("a digest");
        for registry in [server, registries.peer.address] {
            let blob = get(registry, &format!("/v2/a/b/blobs/{digest}"), &[]).await;
            assert_eq!(blob.status(), 200, "{digest}");
            assert_eq!(Digest::of(Algorithm::Sha256, blob.body()).as_str(), digest);
        }
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn what_the_peer_can_not_convert_is_not_converted() {
    let mut tree = Tree::default();
    let history = |steps: usize| vec![json!({}); steps];
    let refused = [
        sample("no-history", 1, json!({ "rootfs": diff_ids(1) })),
        sample("empty-history", 1, json!({ "rootfs": diff_ids(1), "history": [] })),
        sample("no-object", 1, "[]"),
        sample("no-json", 1, "{"),
        sample("no-time", 1, json!({ "rootfs": diff_ids(1), "history": [{ "created": "now" }] })),
        sample("few-ids", 2, json!({ "rootfs": diff_ids(1), "history": history(1) })),
        sample("few-layers", 1, json!({ "rootfs": diff_ids(1), "history": history(2) })),
    ];
    refused.iter().for_each(|sample| drop(put(&mut tree, sample)));
    // Meant: the peer leaves out layers that the history doesn't name, which makes another image.
    put(
        &mut tree,
        &sample("few-steps", 2, json!({ "rootfs": diff_ids(2), "history": history(1) })),
    );
    let registries = Registries::start(&tree).await;
    for Sample { tag, .. } in &refused {
        let [theirs, ours] = registries.ask(tag, &[("accept", SIGNED)]).await;
        assert_eq!(theirs.status(), 400, "{tag} {:?}", theirs.body());
        assert_eq!(error_of(&ours), (400, "MANIFEST_INVALID".to_owned()), "{tag}");
    }
    let [theirs, ours] = registries.ask("few-steps", &[("accept", SIGNED)]).await;
    assert_eq!(theirs.status(), 200);
    assert_eq!(error_of(&ours), (400, "MANIFEST_INVALID".to_owned()));
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_list_is_served_as_the_image_for_the_platform() {
    let mut tree = Tree::default();
    let manifest = put(&mut tree, &steps("child", "L"));
    let child = |architecture: &str, content: &str| {
        json!({
            "mediaType": SCHEMA2,
            "digest": digest_of(content),
            "size": content.len(),
            "platform": { "os": "linux", "architecture": architecture },
        })
    };
    let list = |children: Value| {
        let list = json!({ "schemaVersion": 2, "mediaType": LIST, "manifests": children });
        Box::leak(list.to_string().into_boxed_str()).as_bytes()
    };
    tree.put_manifest("a/b", "list", list(json!([child("arm64", "x"), child("amd64", &manifest)])));
    tree.put_manifest("a/b", "other", list(json!([child("arm64", "x")])));
    tree.put_manifest("a/b", "gone", list(json!([child("amd64", "x")])));
    let registries = Registries::start(&tree).await;
    let [theirs, ours] = registries.ask("list", &[("accept", SCHEMA2)]).await;
    for response in [&theirs, &ours] {
        assert_eq!(response.body(), manifest.as_bytes());
        assert_eq!(response.headers()["docker-content-digest"], digest_of(&manifest));
        assert_eq!(response.headers()["content-type"], SCHEMA2);
    }
    assert_eq!(ours.headers()["vary"], "Accept");
    for headers in [&[("accept", SIGNED)][..], &[("accept", "application/json")], &[]] {
        let [theirs, ours] = registries.ask("list", headers).await;
        assert_eq!(parts(&ours).0, parts(&theirs).0, "{headers:?}");
    }
    for tag in ["other", "gone"] {
        let [theirs, ours] = registries.ask(tag, &[("accept", SCHEMA2)]).await;
        assert_eq!(theirs.status(), 404, "{tag}");
        assert_eq!(error_of(&ours), (404, "MANIFEST_UNKNOWN".to_owned()), "{tag}");
        assert_eq!(ours.headers()["vary"], "Accept");
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_signature_by_rsa_is_taken() {
    let mut tree = Tree::default();
    put(&mut tree, &steps("t", "L"));
    let registries = Registries::start(&tree).await;
    let folder = TempDir::new().expect("a temporary folder");
    let key = folder.path().join("key.pem");
    let mut command = Command::new("openssl");
    command.args(["genrsa", "-traditional", "-out"]).arg(&key).arg("2048");
    run(&mut command).await;
    let bucket: PathBuf = registries.root.path().join("registry");
    let peer = DockerRegistry::with_schema1(&bucket, &key).await;
    let signed = get(peer.address, "/v2/a/b/manifests/t", &[("accept", SIGNED)]).await;
    let text = String::from_utf8_lossy(signed.body());
    assert!(text.contains("\"alg\": \"RS256\""), "{text}");
    let taken = put_signed(registries.envoy.address, "t", signed.body()).await;
    assert_eq!(taken.status(), 201, "{:?}", taken.body());
    let changed = text.replace("amd64", "arm64");
    let refused = put_signed(registries.envoy.address, "t", changed.as_bytes()).await;
    assert_eq!(error_of(&refused), (400, "MANIFEST_UNVERIFIED".to_owned()));
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn new_clients_see_nothing_of_it() {
    let mut tree = Tree::default();
    let manifest = put(&mut tree, &steps("t", "L-"));
    let registries = Registries::start(&tree).await;
    let server = registries.envoy.address;
    assert_eq!(skopeo::inspect_raw(server, "a/b:t").await, manifest.as_bytes());
    assert_eq!(skopeo::pull(server, "a/b:t").await["manifest.json"], manifest.as_bytes());

    // A schema 1 manifest that was pushed: as it is stored for them, signed for the old ones.
    let signed = get(server, "/v2/a/b/manifests/t", &[("accept", SIGNED)]).await;
    let (payload, _) = parts(&signed);
    assert_eq!(put_signed(server, "t", signed.body()).await.status(), 201);
    assert_eq!(skopeo::inspect_raw(server, "a/b:t").await, payload.as_bytes());
    let again = get(server, "/v2/a/b/manifests/t", &[("accept", SIGNED)]).await;
    assert_eq!(again.body(), signed.body());
    let stored = get(server, "/v2/a/b/manifests/t", &[("accept", SCHEMA1)]).await;
    assert_eq!(
        (stored.body(), &stored.headers()["etag"]),
        (&Bytes::from(payload), &signed.headers()["etag"])
    );
    let [theirs, ours] = registries.ask("t", &[("accept", SIGNED)]).await;
    assert_eq!(parts(&ours).0, parts(&theirs).0);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_conversion_takes_three_round_trips() {
    let mut tree = Tree::default();
    put(&mut tree, &steps("t", "L-"));
    let empty: Digest = EMPTY_LAYER.parse().expect("a digest");
    tree.put(&moorage::store::layout::content(&empty), "content is not read");
    tree.link_blob("a/b", &empty);
    // Nothing of a round trip is answered before all of it has arrived: the tag; the manifest's link and
    // content; the configuration's and the empty layer's.
    let round_trips = [1, 2, 4];
    let last = format!("/{}/", empty.hex());
    let config = digest_of(&steps("t", "L-").config);
    let config = format!("/{}/", config.trim_start_matches("sha256:"));
    let store = StandIn::start(tree, move |key, _| {
        Behaviour::ServeAfterArrivals(match key {
            _ if key.contains(&last) || key.contains(&config) => round_trips.iter().sum(),
            _ if key.contains("/tags/") => round_trips[0],
            _ => round_trips[0] + round_trips[1],
        })
    });
    let store = store.await;
    let envoy = Envoy::start(&bootstrap(store.address)).await;
    let response = get(envoy.address, "/v2/a/b/manifests/t", &[("accept", SIGNED)]).await;
    parts(&response);
    assert_eq!(store.requests().len(), round_trips.iter().sum::<usize>(), "{:?}", store.requests());
}
