//! Broken storage: for each fault, the exact status and code that the client gets.

use std::net::SocketAddr;
use std::time::Duration;

use moorage::oci::Digest;
use tokio::net::TcpSocket;

use moorage_test_support::client::{self, error_of};
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::stand_in::{Behaviour, StandIn};
use moorage_test_support::tree::Tree;

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;

const NO_SUCH_BUCKET: &str = "<Error><Code>NoSuchBucket</Code></Error>";
const ACCESS_DENIED: &str = "<Error><Code>AccessDenied</Code></Error>";

fn tree() -> (Tree, Digest, Digest) {
    let mut tree = Tree::default();
    let manifest = tree.put_manifest("a", "t", MANIFEST);
    let blob = tree.put_blob("a", b"a blob's content");
    (tree, manifest, blob)
}

/// Envoy, which keeps nothing in memory, before a store that behaves like that. Only where the store is
/// silent does it give up after a second: elsewhere a slow machine must not look like silence.
pub async fn envoy(store: &StandIn, behaviour: &Behaviour) -> Envoy {
    let bootstrap = Bootstrap::new(store.address).with_fields(r#""cache": { "max_bytes": 0 }"#);
    Envoy::start(&match behaviour {
        Behaviour::Stall => bootstrap
            .with_store_fields(r#""timeout_ms": 1000"#)
            .with("idle_timeout: 300s", "idle_timeout: 1s")
            .with("per_try_idle_timeout: 15s", "per_try_idle_timeout: 1s"),
        _ => bootstrap,
    })
    .await
}

/// A fault, and what comes of it in every place where it can happen.
pub fn faults() -> Vec<(Behaviour, u16, &'static str)> {
    vec![
        (Behaviour::Answer(500, ""), 500, "UNKNOWN"),
        (Behaviour::Answer(500, "<Error><Code>InternalError</Code></Error>"), 500, "UNKNOWN"),
        (Behaviour::Answer(503, "<Error><Code>SlowDown</Code></Error>"), 503, "UNAVAILABLE"),
        (Behaviour::Answer(429, ""), 503, "UNAVAILABLE"),
        (Behaviour::Answer(403, ACCESS_DENIED), 500, "UNKNOWN"),
        (Behaviour::Answer(404, NO_SUCH_BUCKET), 500, "UNKNOWN"),
        (Behaviour::Answer(404, "<html>not S3</html>"), 500, "UNKNOWN"),
        (Behaviour::Answer(404, ""), 500, "UNKNOWN"),
        (Behaviour::Answer(301, ""), 500, "UNKNOWN"),
        (Behaviour::Answer(204, ""), 500, "UNKNOWN"),
        (Behaviour::Reset, 503, "UNAVAILABLE"),
        (Behaviour::Stall, 504, "UNAVAILABLE"),
    ]
}

/// Has `key_part`'s objects misbehave and asks for `path`.
async fn error_with(behaviour: &Behaviour, key_part: &'static str, path: &str) -> (u16, String) {
    let (_store, envoy) = faulty(tree().0, behaviour, key_part).await;
    error_of(&client::get(envoy.address, path, &[]).await)
}

/// A store of which `key_part`'s objects misbehave, and Envoy before it.
pub async fn faulty(tree: Tree, behaviour: &Behaviour, key_part: &'static str) -> (StandIn, Envoy) {
    let script = behaviour.clone();
    let store = StandIn::start(tree, move |key, _| match key.contains(key_part) {
        true => script.clone(),
        false => Behaviour::Serve,
    });
    let store = store.await;
    let envoy = envoy(&store, behaviour).await;
    (store, envoy)
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_fault_while_a_manifest_is_read_is_never_not_found() {
    let mut faults = faults();
    faults.push((Behaviour::Truncate, 503, "UNAVAILABLE"));
    for (behaviour, status, code) in &faults {
        for key_part in ["/tags/", "/revisions/", "/blobs/"] {
            let error = error_with(behaviour, key_part, "/v2/a/manifests/t").await;
            assert_eq!(error, (*status, (*code).to_owned()), "{behaviour:?} of {key_part}");
        }
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_fault_before_a_blob_is_streamed_is_never_not_found() {
    let (_, _, blob) = tree();
    let path = format!("/v2/a/blobs/{blob}");
    for (behaviour, status, code) in &faults() {
        for key_part in ["/_layers/", "v2/blobs/"] {
            let error = error_with(behaviour, key_part, &path).await;
            assert_eq!(error, (*status, (*code).to_owned()), "{behaviour:?} of {key_part}");
        }
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn corrupt_content_is_an_error_and_never_a_wrong_image() {
    for key_part in ["/tags/", "/revisions/", "/blobs/"] {
        let error = error_with(&Behaviour::Corrupt, key_part, "/v2/a/manifests/t").await;
        assert_eq!(error, (500, "UNKNOWN".to_owned()), "{key_part}");
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_blob_that_breaks_off_does_not_look_complete() {
    let (tree, _, blob) = tree();
    let store = StandIn::start(tree, |key, _| match key.contains("v2/blobs/") {
        true => Behaviour::Truncate,
        false => Behaviour::Serve,
    });
    let store = store.await;
    let envoy = envoy(&store, &Behaviour::Truncate).await;
    let path = format!("/v2/a/blobs/{blob}");
    assert!(client::try_get(envoy.address, &path).await.is_none(), "the body must break off");
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn reads_are_repeated_once_after_a_reset_or_a_server_error() {
    let (_, _, blob) = tree();
    let blob = format!("/v2/a/blobs/{blob}");
    for behaviour in [Behaviour::Reset, Behaviour::Answer(500, ""), Behaviour::Answer(503, "")] {
        for path in ["/v2/a/manifests/t", &blob] {
            let first = behaviour.clone();
            let store = StandIn::start(tree().0, move |_, before| match before {
                0 => first.clone(),
                _ => Behaviour::Serve,
            });
            let store = store.await;
            let envoy = envoy(&store, &behaviour).await;
            let response = client::get(envoy.address, path, &[]).await;
            assert_eq!(response.status(), 200, "{behaviour:?}, {path}");
            let mut requests = store.requests();
            let all = requests.len();
            requests.sort();
            requests.dedup();
            assert_eq!(all, 2 * requests.len(), "every key twice: {behaviour:?}, {path}");
        }
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn other_answers_are_not_repeated() {
    for behaviour in [Behaviour::Answer(403, ACCESS_DENIED), Behaviour::Stall] {
        let script = behaviour.clone();
        let store = StandIn::start(tree().0, move |_, _| script.clone()).await;
        let envoy = envoy(&store, &behaviour).await;
        client::get(envoy.address, "/v2/a/manifests/t", &[]).await;
        assert_eq!(store.requests().len(), 1, "{behaviour:?}");
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_store_that_is_not_there_is_unavailable() {
    // The port is taken, so that nobody else gets it, but nobody listens.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let address = socket.local_addr().expect("an address");
    let envoy = Envoy::start(&Bootstrap::new(address)).await;
    let unavailable = (503, "UNAVAILABLE".to_owned());
    let (_, _, blob) = tree();
    for path in ["/v2/a/manifests/t".to_owned(), format!("/v2/a/blobs/{blob}")] {
        let response = client::get(envoy.address, &path, &[]).await;
        assert_eq!(error_of(&response), unavailable, "{path}");
    }
    // What needs no store is answered all the same.
    assert_eq!(client::get(envoy.address, "/v2/", &[]).await.status(), 200);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_cluster_without_endpoints_is_unavailable() {
    let (tree, ..) = tree();
    let store = StandIn::start(tree, |_, _| Behaviour::Serve).await;
    let bootstrap = Bootstrap::new(store.address);
    let bootstrap = bootstrap.with("        endpoints:\n", "        endpoints: []\n      metadata:\n        filter_metadata: {}\n    - name: other\n      load_assignment:\n        cluster_name: other\n        endpoints:\n");
    let envoy = Envoy::start(&bootstrap).await;
    let response = client::get(envoy.address, "/v2/a/manifests/t", &[]).await;
    assert_eq!(error_of(&response), (503, "UNAVAILABLE".to_owned()));
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_cluster_that_envoy_does_not_have_is_named() {
    let (tree, ..) = tree();
    let store = StandIn::start(tree, |_, _| Behaviour::Serve).await;
    let bootstrap = Bootstrap::new(store.address);
    let bootstrap = bootstrap.with(r#""cluster": "blob_store""#, r#""cluster": "other""#);
    let envoy = Envoy::start(&bootstrap).await;
    let response = client::get(envoy.address, "/v2/a/manifests/t", &[]).await;
    assert_eq!(error_of(&response), (503, "UNAVAILABLE".to_owned()));
    let body = String::from_utf8_lossy(response.body());
    assert!(body.contains("store.cluster"), "{body}");
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_client_that_leaves_early_leaves_the_filter_working() {
    let (tree, ..) = tree();
    let store = StandIn::start(tree, |key, before| match before {
        0 if key.contains("/tags/") => Behaviour::Stall,
        _ => Behaviour::Serve,
    });
    let store = store.await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    let request = client::try_get(envoy.address, "/v2/a/manifests/t");
    let outcome = tokio::time::timeout(Duration::from_millis(200), request).await;
    assert!(outcome.is_err(), "the store stalls, so the client leaves");
    let response = client::get(envoy.address, "/v2/a/manifests/t", &[]).await;
    assert_eq!(response.status(), 200);
    assert!(!envoy.log().contains("panic"), "{}", envoy.log());
}
