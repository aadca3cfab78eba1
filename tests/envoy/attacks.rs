//! Clients that mean harm: what one of them can do to Envoy's memory, and with it to all others.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use http::Method;
use tempfile::TempDir;
use tokio::time::sleep;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::{note, wait_for};
use moorage_test_support::tree::Tree;
use moorage_test_support::{client, raw};

const MIB: u64 = 1024 * 1024;
const CONNECTIONS: usize = 16;
const STREAMS_EACH: u32 = 100;

/// What Envoy may have in memory at most meanwhile.
const MEMORY_LIMIT: u64 = 400 * MIB;

/// Asks for `path` on many streams whose client takes no byte of an answer, and watches what that does
/// until nothing moves any more.
async fn stalled_streams_are_harmless(envoy: &Envoy, path: &str) {
    let (server, attacker) = (envoy.address, IpAddr::from([127, 0, 4, 3]));
    assert_eq!(client::get(server, path, &[]).await.status(), 200, "{path}");
    envoy.forget_peak_memory();
    let mut connections = Vec::new();
    let mut slowest = Duration::ZERO;
    for _ in 0..CONNECTIONS {
        connections.push(raw::stalled_http2(attacker, server, path, STREAMS_EACH).await);
        slowest = slowest.max(probe(envoy).await);
    }
    let mut memory = Vec::new();
    wait_for("the streams to stall", async || {
        slowest = slowest.max(probe(envoy).await);
        sleep(Duration::from_millis(50)).await;
        memory.push(envoy.memory("VmRSS"));
        // Two seconds without growth.
        let before = memory.len().checked_sub(40)?;
        (memory.last()? <= &(memory[before] + MIB)).then_some(())
    })
    .await;
    let most = envoy.memory("VmHWM");
    let under_way = envoy.stat("http.registry.downstream_rq_active").await;
    note(&format!(
        "{path}: {under_way} stalled streams, Envoy had {} MiB at most, others waited for {slowest:?} at most",
        most / MIB
    ));
    assert!(under_way >= CONNECTIONS as u64, "the attack takes place");
    assert!(most < MEMORY_LIMIT, "{path}: {most} bytes");
    assert_eq!(client::get(server, path, &[]).await.status(), 200, "{path}");
    assert_eq!(envoy.stat("wasm.moorage.vm_reload_success").await, 0, "{}", envoy.log());
}

/// Asks for what needs no store, which must succeed, and tells how long that took.
async fn probe(envoy: &Envoy) -> Duration {
    let begun = Instant::now();
    let response = client::get(envoy.address, "/v2/", &[]).await;
    assert_eq!(response.status(), 200, "{:?}", response.body());
    begun.elapsed()
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn stalled_blobs_leave_envoys_memory_to_others() {
    let root = TempDir::new().expect("a temporary folder");
    let mut tree = Tree::default();
    let blob = tree.put_blob("a", Vec::leak(vec![0; 4 * MIB as usize]));
    tree.write_to(&root.path().join("registry"));
    let store = BlobStore::open(root.path()).await;
    let bootstrap = Bootstrap::production_before(&[store.address]).workers(2);
    let envoy = Envoy::start(&bootstrap).await;
    stalled_streams_are_harmless(&envoy, &format!("/v2/a/blobs/{blob}")).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_client_that_asks_too_often_is_told_to_wait_and_others_are_not() {
    let root = TempDir::new().expect("a temporary folder");
    let store = BlobStore::open(root.path()).await;
    let bootstrap = Bootstrap::production_before(&[store.address]).with(
        "max_tokens: 4000, tokens_per_fill: 1000, fill_interval: 1s",
        "max_tokens: 20, fill_interval: 600s",
    );
    let envoy = Envoy::start(&bootstrap).await;
    let (greedy, other) = (IpAddr::from([127, 0, 4, 1]), IpAddr::from([127, 0, 4, 2]));
    let mut answers = Vec::new();
    for _ in 0..21 {
        answers.push(raw::get_from(greedy, envoy.address, "/v2/").await);
    }
    let (last, first) = answers.split_last().expect("some answers");
    assert!(first.iter().all(|(status, _)| *status == 200));
    assert_eq!(last.0, 429);
    let (head, body) = last.1.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.contains("\r\nretry-after: 1\r\n"), "{head}");
    assert!(body.contains("TOOMANYREQUESTS"), "{body}");
    assert_eq!(raw::get_from(other, envoy.address, "/v2/").await.0, 200);
}

/// Of a manifest, the reply could come from the module's memory, which no client's window holds back.
#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn stalled_manifests_leave_envoys_memory_to_others() {
    let root = TempDir::new().expect("a temporary folder");
    let store = BlobStore::open(root.path()).await;
    let bootstrap = Bootstrap::production_before(&[store.address]).workers(2);
    let envoy = Envoy::start(&bootstrap).await;
    for size in [60_000, 4 * MIB as usize - 200] {
        let path = format!("/v2/a/manifests/{size}");
        let annotation = "x".repeat(size);
        let manifest =
            format!(r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"a":"{annotation}"}}}}"#);
        let put = client::send_body(envoy.address, Method::PUT, &path, &[], manifest).await;
        assert_eq!(put.status(), 201, "{:?}", put.body());
        stalled_streams_are_harmless(&envoy, &path).await;
    }
}
