//! `envoy/drain.sh`: what is under way goes on to its end, nothing new begins, and it takes no longer
//! than the limit.

use std::net::SocketAddr;
use std::process::Stdio;

use bytes::Bytes;
use futures::channel::mpsc;
use http::Method;
use http_body_util::BodyExt;
use moorage::oci::Digest;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::{wait_for, within};
use moorage_test_support::tree::Tree;

const MIB: usize = 1024 * 1024;
/// More than all buffers on the way hold.
const BLOB_SIZE: usize = 64 * MIB;

struct Registry {
    envoy: Envoy,
    blob: Digest,
    _store: BlobStore,
    _root: TempDir,
}

async fn registry() -> Registry {
    registry_with(|bootstrap| bootstrap).await
}

async fn registry_with(change: impl FnOnce(Bootstrap) -> Bootstrap) -> Registry {
    let root = TempDir::new().expect("a temporary folder");
    let mut tree = Tree::default();
    let blob = tree.put_blob("a", Vec::leak(vec![0; BLOB_SIZE]));
    tree.write_to(&root.path().join("registry"));
    let store = BlobStore::open(root.path()).await;
    let envoy = Envoy::start(&change(Bootstrap::new(store.address))).await;
    Registry { envoy, blob, _store: store, _root: root }
}

fn drain(envoy: &Envoy, grace: &str, limit: &str) -> Child {
    Command::new("envoy/drain.sh")
        .args(["--admin", &envoy.admin.to_string(), "--grace", grace, "--limit", limit])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the script runs")
}

async fn status_of(server: SocketAddr, path: &str) -> Option<u16> {
    Some(client::try_get(server, path).await?.status().as_u16())
}

/// Begins to read the blob, and stops after the first piece.
async fn slow_download(registry: &Registry) -> (usize, hyper::body::Incoming) {
    let path = format!("/v2/a/blobs/{}", registry.blob);
    let request = client::request(Method::GET, &path, &[]);
    let response = client::open(registry.envoy.address, request).await.expect("a response");
    let mut body = response.into_body();
    let first = body.frame().await.expect("a piece").expect("the body goes on");
    (first.into_data().expect("data").len(), body)
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn what_is_under_way_is_finished_and_nothing_new_begins() {
    let registry = registry().await;
    let server = registry.envoy.address;
    assert_eq!(status_of(server, "/healthz").await, Some(200));
    let (mut received, mut body) = slow_download(&registry).await;
    let begun = client::request(Method::POST, "/v2/a/blobs/uploads/", &[]);
    let begun = client::send(server, begun).await;
    let at = begun.headers()["location"].to_str().expect("text").to_owned();
    let (pieces, sent) = mpsc::unbounded();
    pieces.unbounded_send(Bytes::from_static(b"the first half, ")).expect("it is read");
    let upload =
        tokio::spawn(
            async move { client::send_pieces(server, Method::PATCH, &at, &[], sent).await },
        );
    wait_for("the upload", async || {
        let under_way = registry.envoy.stat("http.registry.downstream_rq_active").await;
        (under_way == 2).then_some(())
    })
    .await;

    let mut script = drain(&registry.envoy, "1", "120");
    wait_for("the health check to fail", async || {
        (status_of(server, "/healthz").await? == 503).then_some(())
    })
    .await;
    // Load balancers have not seen it yet, so whoever comes is still served.
    assert_eq!(status_of(server, "/v2/").await, Some(200));
    wait_for("new connections to be refused", async || TcpStream::connect(server).await.err())
        .await;

    pieces.unbounded_send(Bytes::from_static(b"and the second")).expect("it is read");
    drop(pieces);
    let uploaded = within("the upload", upload).await.expect("it was not aborted");
    assert_eq!(uploaded.status(), 202, "{uploaded:?}");
    assert_eq!(uploaded.headers()["range"], "0-29");
    while let Some(frame) = body.frame().await {
        received += frame.expect("the body goes on").into_data().expect("data").len();
    }
    assert_eq!(received, BLOB_SIZE);
    let status = within("the end of the drain", script.wait()).await.expect("it runs");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn the_end_of_an_answer_that_envoy_still_holds_is_waited_for() {
    let registry = registry_with(Bootstrap::with_small_send_buffers).await;
    let (mut received, mut body) = slow_download(&registry).await;
    // To Envoy a request has ended once it has all of the answer.
    while registry.envoy.stat("http.registry.downstream_rq_active").await > 0 {
        let frame = within("a piece", body.frame()).await.expect("a piece").expect("it goes on");
        received += frame.into_data().expect("data").len();
    }
    let mut script = drain(&registry.envoy, "0", "120");
    let said = BufReader::new(script.stdout.take().expect("it is piped"));
    let mut lines = said.lines();
    while let Some(line) = within("a line", lines.next_line()).await.expect("text") {
        if line.contains("still to take the ends of their answers") {
            break;
        }
    }
    while let Some(frame) = body.frame().await {
        received += frame.expect("the body goes on").into_data().expect("data").len();
    }
    assert_eq!(received, BLOB_SIZE);
    let last = within("the last line", lines.next_line()).await.expect("text");
    assert_eq!(last.as_deref(), Some("drain: nothing is under way any more"));
    let status = within("the end of the drain", script.wait()).await.expect("it runs");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_drain_takes_no_longer_than_its_limit() {
    let registry = registry().await;
    let _download = slow_download(&registry).await;
    let mut script = drain(&registry.envoy, "0", "1");
    let status = within("the end of the drain", script.wait()).await.expect("it runs");
    assert_eq!(status.code(), Some(3));
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_drain_without_an_envoy_says_so() {
    let registry = registry().await;
    let admin = registry.envoy.admin;
    registry.envoy.kill().await;
    let mut command = Command::new("envoy/drain.sh");
    let output = command.args(["--admin", &admin.to_string()]).output().await.expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("nothing was drained"), "{complaint}");
}
