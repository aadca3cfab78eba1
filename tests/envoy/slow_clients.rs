//! Slow clients have their blobs' connections to the store, and take none from everyone else.

use std::net::IpAddr;

use bytes::Bytes;
use futures::future::join_all;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use tempfile::TempDir;
use tokio::net::TcpStream;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::wait_for;
use moorage_test_support::tree::Tree;
use moorage_test_support::{client, raw};

const MIB: usize = 1024 * 1024;
/// How many there are of each kind.
const SLOW: usize = 32;

/// The production bootstrap with a hundredth of its connections.
fn bootstrap(store: &BlobStore) -> Bootstrap {
    Bootstrap::production_before(&[store.address])
        .with("max_connections: 10000", "max_connections: 100")
        .with("max_connections: 1024", "max_connections: 10")
}

/// Each slow client has an address of its own.
fn client_address(number: usize) -> IpAddr {
    IpAddr::from([127, 0, 1, u8::try_from(number + 1).expect("a few clients")])
}

/// Opens a session and begins to send a chunk, but sends nothing of it.
async fn slow_upload(envoy: &Envoy, number: usize) -> TcpStream {
    let begun = client::request(Method::POST, "/v2/slow/blobs/uploads/", &[]);
    let begun = client::send(envoy.address, begun).await;
    let at = begun.headers()["location"].to_str().expect("text");
    let head = format!("PATCH {at} HTTP/1.1\r\ncontent-length: {MIB}");
    raw::begin(client_address(number), envoy.address, &head).await
}

/// Asks for a blob that no buffer holds, and reads nothing of it.
async fn slow_download(envoy: &Envoy, number: usize, path: &str) -> TcpStream {
    raw::begin(client_address(number), envoy.address, &format!("GET {path} HTTP/1.1")).await
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn slow_clients_do_not_starve_others() {
    let root = TempDir::new().expect("a temporary folder");
    let mut tree = Tree::default();
    let manifest = tree.put_manifest("a", "t", br#"{"schemaVersion":2,"config":{},"layers":[]}"#);
    let small = tree.put_blob("a", b"a small blob");
    let large = tree.put_blob("slow", Vec::leak(vec![0; 16 * MIB]));
    tree.write_to(&root.path().join("registry"));
    let store = BlobStore::open(root.path()).await;
    let envoy = Envoy::start(&bootstrap(&store)).await;
    let path = format!("/v2/slow/blobs/{large}");
    let mut slow = Vec::new();
    for number in 0..SLOW {
        slow.push(slow_upload(&envoy, number).await);
        slow.push(slow_download(&envoy, number, &path).await);
    }
    let figure = "http.registry.downstream_rq_active";
    wait_for("the slow clients", async || {
        (envoy.stat(figure).await >= 2 * SLOW as u64).then_some(())
    })
    .await;

    for number in 0..20 {
        for path in [
            "/v2/a/manifests/t".to_owned(),
            format!("/v2/a/manifests/{manifest}"),
            format!("/v2/a/blobs/{small}"),
            "/v2/a/tags/list".to_owned(),
        ] {
            let response = client::get(envoy.address, &path, &[]).await;
            assert_eq!(response.status(), 200, "{path}, round {number}: {:?}", response.body());
        }
    }
    let still = envoy.stat(figure).await;
    assert!(still >= 2 * SLOW as u64, "the slow ones were not sent away: {still}");
}

/// Whenever a client is slow to take one answer, Envoy tells its filters of every request on that connection, those of requests
/// too that wait for the store.
#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn large_answers_leave_requests_alone_that_wait_on_the_same_connection() {
    let root = TempDir::new().expect("a temporary folder");
    let mut tree = Tree::default();
    let blob = tree.put_blob("a", Vec::leak(vec![7; MIB]));
    tree.write_to(&root.path().join("registry"));
    let store = BlobStore::open(root.path()).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address).spooling()).await;
    for round in 0..4 {
        let connection = client::connect_http2(envoy.address).await.expect("a connection");
        let pulls = (0..60).map(async |_| {
            let request = Request::get(format!("http://registry/v2/a/blobs/{blob}"));
            let request = request.body(Empty::<Bytes>::new()).expect("a request");
            let response = connection.clone().send_request(request).await.expect("an answer");
            assert_eq!(response.status(), 200);
            response.into_body().collect().await.expect("a body").to_bytes().len()
        });
        assert_eq!(join_all(pulls).await, [MIB; 60], "round {round}");
    }
}
