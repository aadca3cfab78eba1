//! What many clients at once can have the module hold in memory: it stays bounded, none of them takes what the
//! others need, and each is answered in the end.

use std::net::{IpAddr, SocketAddr};

use futures::stream::{self, StreamExt};
use http::Method;
use moorage::oci::{Algorithm, Digest};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client::{self, error_of, send_body};
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::{note, wait_for, within};
use moorage_test_support::raw;
use moorage_test_support::stand_in::{Behaviour, StandIn};
use moorage_test_support::tree::Tree;

const MIB: usize = 1024 * 1024;
const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;

/// How many connections there are of each kind.
const HELD_EACH: usize = 500;

/// What Envoy may have in memory at most meanwhile, both workers together.
const MEMORY_LIMIT: u64 = 1024 * MIB as u64;

/// One of fifty clients.
fn client_address(number: usize) -> IpAddr {
    IpAddr::from([127, 0, 2, u8::try_from(number % 50 + 1).expect("a small number")])
}

async fn session(server: SocketAddr) -> String {
    let begin = client::request(Method::POST, "/v2/held/blobs/uploads/", &[]);
    let begun = client::send(server, begin).await;
    begun.headers()["location"].to_str().expect("text").to_owned()
}

/// Sends all of a body but its last byte, or as much as the server takes, and leaves it at that.
async fn hold(client: IpAddr, server: SocketAddr, start: &str, length: usize) -> TcpStream {
    let head = format!("{start} HTTP/1.1\r\ncontent-length: {length}");
    let mut stream = raw::begin(client, server, &head).await;
    // A server that has answered already need not take it.
    let _ = stream.write_all(&vec![b' '; length - 1]).await;
    stream
}

/// The status that a connection is answered with in the end.
async fn status_of(mut stream: TcpStream) -> u16 {
    let mut answer = [0; 12];
    within("an answer", stream.read_exact(&mut answer)).await.expect("an answer");
    let status = std::str::from_utf8(&answer[9..]).expect("a status");
    status.parse().expect("a number")
}

/// What everybody else does meanwhile: pushing and pulling an image.
async fn push_and_pull(server: SocketAddr, number: usize) {
    let blob = format!("blob {number}");
    let digest = Digest::of(Algorithm::Sha256, blob.as_bytes());
    let target = format!("/v2/a/blobs/uploads/?digest={digest}");
    let pushed = send_body(server, Method::POST, &target, &[], blob.clone()).await;
    assert_eq!(pushed.status(), 201, "{:?}", pushed.body());
    let descriptor = json!({ "mediaType": "x/y", "digest": digest.as_str(), "size": blob.len() });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor,
        "layers": [descriptor],
    });
    let target = format!("/v2/a/manifests/{number}");
    let put = send_body(server, Method::PUT, &target, &[], manifest.to_string()).await;
    assert_eq!(put.status(), 201, "{:?}", put.body());
    for path in [target, format!("/v2/a/blobs/{digest}"), "/v2/a/tags/list".to_owned()] {
        let pulled = client::get(server, &path, &[]).await;
        assert_eq!(pulled.status(), 200, "{path}: {:?}", pulled.body());
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn two_thousand_bodies_without_their_last_byte_leave_room_for_others() {
    let root = TempDir::new().expect("a temporary folder");
    let store = BlobStore::open(root.path()).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address).limiting("").workers(2)).await;
    let server = envoy.address;
    push_and_pull(server, 0).await;
    envoy.forget_peak_memory();

    let digest = Digest::of(Algorithm::Sha256, b"never sent whole");
    let mut starts = Vec::new();
    for _ in 0..HELD_EACH {
        starts.push(("GET /v2/".to_owned(), 4 * MIB - 64));
        starts.push(("PUT /v2/held/manifests/t".to_owned(), 4 * MIB - 64));
        starts.push((format!("POST /v2/held/blobs/uploads/?digest={digest}"), MIB / 4));
        starts.push((format!("PATCH {}", session(server).await), MIB / 4));
    }
    let held =
        stream::iter(starts.into_iter().enumerate()).map(async |(number, (start, length))| {
            hold(client_address(number), server, &start, length).await
        });
    let held: Vec<TcpStream> = held.buffer_unordered(64).collect().await;
    for number in 1..=20 {
        push_and_pull(server, number).await;
    }
    let most = envoy.memory("VmHWM");
    note(&format!("{} bodies without their end: {} MiB at most", held.len(), most / MIB as u64));
    assert!(most < MEMORY_LIMIT, "{most} bytes");
    drop(held);

    // What they held is given back.
    wait_for("the connections to end", async || {
        let under_way = envoy.stat("http.registry.downstream_rq_active").await;
        (under_way == 0).then_some(())
    })
    .await;
    let large = format!(
        r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"a":"{}"}}}}"#,
        "x".repeat(4 * MIB - 200)
    );
    for _ in 0..20 {
        let put = send_body(server, Method::PUT, "/v2/a/manifests/large", &[], large.clone()).await;
        assert_eq!(put.status(), 201, "{:?}", put.body());
        let pulled = client::get(server, "/v2/a/manifests/large", &[]).await;
        assert!(pulled.body() == large.as_bytes(), "{}", pulled.status());
    }
    assert_eq!(envoy.stat("wasm.moorage.vm_reload_success").await, 0, "{}", envoy.log());
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_manifest_that_does_not_come_is_given_up() {
    let root = TempDir::new().expect("a temporary folder");
    let store = BlobStore::open(root.path()).await;
    let limits = r#""body_timeout": "1s""#;
    let envoy = Envoy::start(&Bootstrap::new(store.address).limiting(limits)).await;
    for start in ["PUT /v2/a/manifests/t", "GET /v2/", "DELETE /v2/a/manifests/t"] {
        let stalled = hold(client_address(0), envoy.address, start, 1000).await;
        assert_eq!(status_of(stalled).await, 408, "{start}");
    }
    // One whose end is not waited for anyway is answered at once.
    let hopeless = hold(client_address(0), envoy.address, "GET /v2/", MIB).await;
    assert_eq!(status_of(hopeless).await, 200);
    let hopeless = hold(client_address(0), envoy.address, "PUT /v2/a/manifests/t", 8 * MIB).await;
    assert_eq!(status_of(hopeless).await, 413);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_client_with_many_streams_is_told_to_wait_and_others_are_not() {
    let root = TempDir::new().expect("a temporary folder");
    let mut tree = Tree::default();
    let blob = tree.put_blob("a", Vec::leak(vec![0; 16 * MIB]));
    tree.write_to(&root.path().join("registry"));
    let store = BlobStore::open(root.path()).await;
    let limits = r#""streams_per_client": 2"#;
    let envoy = Envoy::start(&Bootstrap::new(store.address).limiting(limits)).await;
    let (server, greedy) = (envoy.address, IpAddr::from([127, 0, 0, 1]));
    let path = format!("/v2/a/blobs/{blob}");

    let slow_download = format!("GET {path} HTTP/1.1");
    let download = raw::begin(greedy, server, &slow_download).await;
    let slow_upload = format!("PATCH {}", session(server).await);
    let upload = hold(greedy, server, &slow_upload, 1000).await;
    wait_for("both to be under way", async || {
        (envoy.stat("http.registry.downstream_rq_active").await >= 2).then_some(())
    })
    .await;

    let too_many = (429, "TOOMANYREQUESTS".to_owned());
    for (method, path) in [
        (Method::GET, path.clone()),
        (Method::PUT, "/v2/a/manifests/t".to_owned()),
        (Method::PATCH, session(server).await),
    ] {
        let body = if method == Method::GET { "" } else { "x" };
        let refused = send_body(server, method, &path, &[], body).await;
        assert_eq!(error_of(&refused), too_many, "{path}");
        assert_eq!(refused.headers()["retry-after"], "1");
    }
    // What is no stream goes on, and so do others' streams.
    assert_eq!(client::get(server, "/v2/a/tags/list", &[]).await.status(), 200);
    let other = raw::begin(client_address(0), server, &slow_download).await;
    assert_eq!(status_of(other).await, 200);

    drop((download, upload));
    wait_for("a stream to be free", async || {
        (client::get(server, &path, &[]).await.status() == 200).then_some(())
    })
    .await;
}

/// Envoy sends the replies of all that it calls the module for at a time from within one another.
#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn any_number_of_requests_may_wait_for_one_read() {
    const WAITING: usize = 1600;
    let mut tree = Tree::default();
    let digest = tree.put_manifest("a", "t", MANIFEST);
    let store = StandIn::start(tree, |key, _| match key.contains("v2/blobs/") {
        true => Behaviour::ServeAfter("released"),
        false => Behaviour::Serve,
    });
    let store = store.await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    let head = format!("GET /v2/a/manifests/{digest} HTTP/1.1");
    let waiting = stream::iter(0..WAITING)
        .map(|number| raw::begin(client_address(number), envoy.address, &head));
    let waiting: Vec<TcpStream> = waiting.buffer_unordered(64).collect().await;
    wait_for("all to wait", async || {
        let under_way = envoy.stat("http.registry.downstream_rq_active").await;
        (under_way == WAITING as u64).then_some(())
    })
    .await;
    client::get(envoy.address, "/v2/released/tags/list", &[]).await;
    for stream in waiting {
        assert_eq!(status_of(stream).await, 200);
    }
    let reads = store.requests().iter().filter(|key| key.contains("v2/blobs/")).count();
    assert_eq!(reads, 1, "they shared it");
    assert_eq!(envoy.stat("wasm.moorage.vm_reload_success").await, 0, "{}", envoy.log());
}
