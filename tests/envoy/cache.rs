//! What Envoy answers from memory, and when that takes notice of writes.

use std::net::SocketAddr;

use futures::future::join_all;
use http::Method;
use moorage::oci::Digest;
use tempfile::TempDir;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client::{self, send_body};
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::wait_for;
use moorage_test_support::stand_in::{Behaviour, StandIn};
use moorage_test_support::tree::Tree;

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;

/// A request with its headers, its status, and the storage calls that it costs at first and later.
type Row<'a> = (Method, &'a str, &'a [(&'a str, &'a str)], u16, usize, usize);

/// A store with the manifest `t` and one blob in the repository `a`.
async fn store(
    script: impl Fn(&str, usize) -> Behaviour + Send + Sync + 'static,
) -> (StandIn, Digest, Digest) {
    let mut tree = Tree::default();
    let manifest = tree.put_manifest("a", "t", MANIFEST);
    let blob = tree.put_blob("a", b"a blob's content");
    (StandIn::start(tree, script).await, manifest, blob)
}

/// Waits until Envoy has so many requests under way.
async fn wait_for_requests(envoy: &Envoy, count: u64) {
    wait_for("requests under way", async || {
        let active = envoy.stat("http.registry.downstream_rq_active").await;
        (active == count).then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn what_is_known_costs_no_storage_call() {
    let (store, manifest, blob) = store(|_, _| Behaviour::Serve).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    let by_digest = format!("/v2/a/manifests/{manifest}");
    let blob = format!("/v2/a/blobs/{blob}");
    let etag = format!("\"{manifest}\"");
    // By tag, the tag is looked up every time; of a blob, the content streams every time.
    let rows: &[Row] = &[
        (Method::GET, "/v2/a/manifests/t", &[], 200, 3, 1),
        (Method::GET, &by_digest, &[], 200, 0, 0),
        (Method::HEAD, &by_digest, &[], 200, 0, 0),
        (Method::GET, &by_digest, &[("if-none-match", &etag)], 304, 0, 0),
        (Method::GET, "/v2/a/manifests/none", &[], 404, 1, 1),
        (Method::GET, &blob, &[], 200, 2, 1),
    ];
    for (method, path, headers, status, cold, known) in rows {
        for calls in [*cold, *known] {
            let before = store.requests().len();
            let request = client::request(method.clone(), path, headers);
            let response = client::send(envoy.address, request).await;
            assert_eq!(response.status(), *status, "{method} {path}");
            assert_eq!(store.requests().len() - before, calls, "{method} {path}");
        }
    }
}

/// A store that answers for a manifest's link and content once a tag is asked for.
async fn store_that_waits_for_a_tag() -> (StandIn, Digest) {
    let (store, manifest, _) = store(|key, _| match key.contains("/tags/") {
        true => Behaviour::Serve,
        false => Behaviour::ServeAfter("/tags/"),
    })
    .await;
    (store, manifest)
}

/// Has so many clients ask `server` for the manifest before the store answers one of them. All must get it.
async fn ask_at_once(envoy: &Envoy, server: SocketAddr, manifest: &Digest, clients: u64) {
    let path = format!("/v2/a/manifests/{manifest}");
    let requests = (0..clients).map(|_| client::get(server, &path, &[]));
    let release = async {
        wait_for_requests(envoy, clients).await;
        client::get(server, "/v2/a/manifests/none", &[]).await
    };
    let (responses, _) = futures::future::join(join_all(requests), release).await;
    for response in responses {
        assert_eq!((response.status().as_u16(), &response.body()[..]), (200, MANIFEST));
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn many_requests_for_one_cold_manifest_make_one_read_in_each_worker() {
    for workers in [1, 4] {
        let (store, manifest) = store_that_waits_for_a_tag().await;
        let envoy = Envoy::start(&Bootstrap::new(store.address).workers(workers)).await;
        ask_at_once(&envoy, envoy.address, &manifest, 100).await;
        let calls = store.requests().len();
        assert!((3..=2 * workers + 1).contains(&calls), "{:?}", store.requests());
        assert_eq!(envoy.stat("wasm.moorage.vm_reload_success").await, 0, "{}", envoy.log());
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn registries_in_one_envoy_do_not_take_each_others_wake_ups() {
    for place in [0, 1] {
        let (store, manifest) = store_that_waits_for_a_tag().await;
        let bootstrap = Bootstrap::new(store.address).with_another_registry(r#""read_only": true"#);
        let envoy = Envoy::start(&bootstrap).await;
        ask_at_once(&envoy, envoy.addresses[place], &manifest, 10).await;
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn when_the_client_that_made_the_read_leaves_the_others_are_answered() {
    // What is asked for first is never answered.
    let (store, manifest, _) = store(|_, before| match before {
        0 => Behaviour::Stall,
        _ => Behaviour::Serve,
    })
    .await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    let path = format!("/v2/a/manifests/{manifest}");
    let first = tokio::spawn({
        let (server, path) = (envoy.address, path.clone());
        async move { client::try_get(server, &path).await }
    });
    wait_for_requests(&envoy, 1).await;
    let others = (0..10).map(|_| client::get(envoy.address, &path, &[]));
    let leave = async {
        wait_for_requests(&envoy, 11).await;
        first.abort();
    };
    let (responses, ()) = futures::future::join(join_all(others), leave).await;
    for response in responses {
        assert_eq!(response.status(), 200, "{:?}", response.body());
    }
    assert_eq!(store.requests().len(), 4, "{:?}", store.requests());
    assert_eq!(envoy.stat("wasm.moorage.vm_reload_success").await, 0, "{}", envoy.log());
}

/// A manifest that differs from others by its note.
fn index(note: usize) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{{"note":"{note}"}}}}"#
    )
}

async fn put(server: SocketAddr, note: usize) -> String {
    let response = send_body(server, Method::PUT, "/v2/a/manifests/t", &[], index(note)).await;
    assert_eq!(response.status(), 201, "{:?}", response.body());
    response.headers()["docker-content-digest"].to_str().expect("text").to_owned()
}

async fn body(server: SocketAddr) -> String {
    let response = client::get(server, "/v2/a/manifests/t", &[]).await;
    String::from_utf8_lossy(response.body()).into_owned()
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_write_takes_effect_at_once_in_all_workers() {
    let root = TempDir::new().expect("a temporary folder");
    let store = BlobStore::open(root.path()).await;
    let bootstrap = Bootstrap::new(store.address)
        .workers(4)
        .with_fields(r#""cache": { "tag_ttl": "1h", "link_ttl": "1h" }"#);
    let envoy = Envoy::start(&bootstrap).await;
    for note in 0..20 {
        let digest = put(envoy.address, note).await;
        // Connections are spread over the workers.
        for found in join_all((0..20).map(|_| body(envoy.address))).await {
            assert_eq!(found, index(note));
        }
        // The tag first, and its manifest's link stays; then the manifest.
        for reference in ["t", &digest] {
            let path = format!("/v2/a/manifests/{reference}");
            let delete = client::request(Method::DELETE, &path, &[]);
            assert_eq!(client::send(envoy.address, delete).await.status(), 202);
            let reads = (0..20).map(|_| client::get(envoy.address, &path, &[]));
            for response in join_all(reads).await {
                assert_eq!(response.status(), 404);
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_write_through_another_envoy_takes_effect_when_the_time_is_over() {
    let root = TempDir::new().expect("a temporary folder");
    let store = BlobStore::open(root.path()).await;
    let start = async |ttl: &str| {
        let fields = format!(r#""cache": {{ "tag_ttl": "{ttl}" }}"#);
        Envoy::start(&Bootstrap::new(store.address).with_fields(&fields)).await
    };
    let (writer, hourly, soon) = (start("0s").await, start("1h").await, start("1s").await);
    put(writer.address, 1).await;
    for envoy in [&writer, &hourly, &soon] {
        assert_eq!(body(envoy.address).await, index(1));
    }
    put(writer.address, 2).await;
    assert_eq!(body(writer.address).await, index(2));
    assert_eq!(body(hourly.address).await, index(1));
    wait_for("the tag's time to be over", async || {
        (body(soon.address).await == index(2)).then_some(())
    })
    .await;
}
