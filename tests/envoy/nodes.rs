//! A store of three nodes of which one dies, again and again, while clients pull and push: nothing that
//! was acknowledged is lost, errors end soon, and no request is left without an answer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::stream::{self, StreamExt};
use http::Method;
use moorage::oci::{Algorithm, Digest};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::garage::GarageCluster;
use moorage_test_support::process::{note, optional_tool, wait_for};

const CLIENTS: usize = 8;
/// Within which errors have to end after a node has died.
const ERRORS_END: Duration = Duration::from_secs(5);
/// How long clients are watched after that.
const WATCHED: Duration = Duration::from_secs(3);
/// `store.timeout_ms`, and how long a request may take: it makes two calls in a row at most, and for
/// each the store has that long.
const STORE_TIMEOUT_MS: u64 = 2_000;
const LONGEST_REQUEST: Duration = Duration::from_millis(2 * STORE_TIMEOUT_MS);

/// What clients saw.
#[derive(Default)]
struct Seen {
    acknowledged: Vec<(String, String)>,
    errors: Vec<(Instant, String)>,
    requests: usize,
    longest: Duration,
}

type Log = Arc<Mutex<Seen>>;

/// An artifact with one blob, of which no two are equal.
fn artifact(number: &str) -> (Digest, String) {
    let blob = Digest::of(Algorithm::Sha256, number.as_bytes());
    let size = number.len();
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{blob}","size":{size}}},"layers":[]}}"#
    );
    (blob, manifest)
}

/// Makes a request, and notes how it went. Whether it was as it should be.
async fn attempt(
    log: &Log,
    server: SocketAddr,
    method: Method,
    path: &str,
    body: &str,
    expected: (u16, Option<&str>),
) -> bool {
    let begun = Instant::now();
    let media_type = [("content-type", "application/vnd.oci.image.manifest.v1+json")];
    let response =
        client::send_body(server, method.clone(), path, &media_type, body.to_owned()).await;
    let content = String::from_utf8_lossy(response.body()).into_owned();
    let (status, content_expected) = expected;
    let is_good =
        response.status() == status && content_expected.is_none_or(|expected| expected == content);
    let mut seen = log.lock().expect("no client panicked");
    seen.requests += 1;
    seen.longest = seen.longest.max(begun.elapsed());
    if !is_good {
        let what = format!("{method} {path}: {} {content}", response.status());
        seen.errors.push((Instant::now(), what));
    }
    is_good
}

/// Pushes an artifact, pulls it and an earlier one, and begins anew. A client whose request failed goes
/// on with the next.
async fn use_registry(log: Log, server: SocketAddr, client: usize) {
    for round in 0.. {
        let tag = format!("t-{client}-{round}");
        let (blob, manifest) = artifact(&tag);
        let path = format!("/v2/a/blobs/uploads/?digest={blob}");
        if !attempt(&log, server, Method::POST, &path, &tag, (201, None)).await {
            continue;
        }
        let path = format!("/v2/a/manifests/{tag}");
        if !attempt(&log, server, Method::PUT, &path, &manifest, (201, None)).await {
            continue;
        }
        let earlier = {
            let mut seen = log.lock().expect("no client panicked");
            seen.acknowledged.push((tag.clone(), manifest.clone()));
            seen.acknowledged[seen.acknowledged.len() / 2].clone()
        };
        for (tag, manifest) in [(tag, manifest), earlier] {
            let path = format!("/v2/a/manifests/{tag}");
            attempt(&log, server, Method::GET, &path, "", (200, Some(&manifest))).await;
            let path = format!("/v2/a/blobs/{}", artifact(&tag).0);
            attempt(&log, server, Method::GET, &path, "", (200, Some(&tag))).await;
        }
    }
}

/// Waits until all nodes are used, and clients have had their requests done for a while.
async fn settled(envoy: &Envoy, log: &Log) {
    let all_used = "cluster.blob_store.outlier_detection.ejections_active";
    let before = log.lock().expect("no client panicked").requests;
    wait_for("all nodes to be used", async || {
        let is_busy = log.lock().expect("no client panicked").requests > before + 50;
        (envoy.stat(all_used).await == 0 && is_busy).then_some(())
    })
    .await;
}

/// How long after `death` the last error came; panics if errors did not end in time.
async fn errors_end(log: &Log, death: Instant) -> Duration {
    sleep(ERRORS_END + WATCHED).await;
    let seen = log.lock().expect("no client panicked");
    let since_death = |(when, _): &&(Instant, String)| when.saturating_duration_since(death);
    let last = seen.errors.iter().map(|error| since_death(&error)).max().unwrap_or_default();
    let late = seen.errors.iter().find(|error| since_death(error) > ERRORS_END);
    assert!(late.is_none(), "{late:?} came {last:?} after the node died");
    last
}

/// Everything that was acknowledged is there.
async fn nothing_is_lost(log: &Log, server: SocketAddr) {
    let acknowledged = std::mem::take(&mut log.lock().expect("no client panicked").acknowledged);
    let look = async |(tag, manifest): (String, String)| {
        let pulled = client::get(server, &format!("/v2/a/manifests/{tag}"), &[]).await;
        assert_eq!(pulled.body(), manifest.as_bytes(), "{tag}");
        let blob = artifact(&tag).0;
        let pulled = client::get(server, &format!("/v2/a/blobs/{blob}"), &[]).await;
        assert_eq!(pulled.body(), tag.as_bytes(), "{tag}");
    };
    stream::iter(acknowledged).for_each_concurrent(CLIENTS, look).await;
}

/// The nodes of a store.
trait Nodes {
    fn addresses(&self) -> Vec<SocketAddr>;

    /// Ends a node at once, in the middle of whatever it does.
    async fn kill(&mut self, number: usize);

    /// Starts a node again that was killed, and waits until it does its part.
    async fn restart(&mut self, number: usize);
}

/// Servers of one folder. One that is killed is gone from the list until it is started again.
struct BlobStores {
    root: TempDir,
    addresses: Vec<SocketAddr>,
    running: HashMap<SocketAddr, BlobStore>,
}

impl BlobStores {
    async fn start(count: usize) -> Self {
        let root = TempDir::new().expect("a temporary folder");
        let (mut addresses, mut running) = (Vec::new(), HashMap::new());
        for _ in 0..count {
            let store = BlobStore::open(root.path()).await;
            addresses.push(store.address);
            running.insert(store.address, store);
        }
        Self { root, addresses, running }
    }
}

impl Nodes for BlobStores {
    fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    async fn kill(&mut self, number: usize) {
        let store = self.running.remove(&self.addresses[number]);
        store.expect("a running node").kill().await;
    }

    async fn restart(&mut self, number: usize) {
        let address = self.addresses[number];
        let store = BlobStore::reopen(self.root.path(), address).await;
        self.running.insert(address, store);
    }
}

impl Nodes for GarageCluster {
    fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses()
    }

    async fn kill(&mut self, number: usize) {
        self.kill(number).await;
    }

    async fn restart(&mut self, number: usize) {
        self.restart(number).await;
    }
}

fn before(nodes: &impl Nodes) -> Bootstrap {
    Bootstrap::production_before(&nodes.addresses())
}

fn sooner(bootstrap: Bootstrap) -> Bootstrap {
    bootstrap
        .with_store_fields(&format!(r#""timeout_ms": {STORE_TIMEOUT_MS}"#))
        // There is no health check here that finds a node alive again.
        .with("base_ejection_time: 60s", "base_ejection_time: 10s")
}

/// Has clients use the registry while each node dies in turn and comes back.
async fn each_death_is_hardly_noticed(mut nodes: impl Nodes, bootstrap: &Bootstrap) {
    let envoy = Envoy::start(bootstrap).await;
    let log = Log::default();
    let client = |number| tokio::spawn(use_registry(Arc::clone(&log), envoy.address, number));
    let clients: Vec<JoinHandle<()>> = (0..CLIENTS).map(client).collect();

    for number in 0..nodes.addresses().len() {
        settled(&envoy, &log).await;
        log.lock().expect("no client panicked").errors.clear();
        let death = Instant::now();
        nodes.kill(number).await;
        let last = errors_end(&log, death).await;
        let errors = log.lock().expect("no client panicked").errors.len();
        note(&format!("node {number} died: {errors} errors, the last after {last:?}"));
        nodes.restart(number).await;
    }

    clients.iter().for_each(JoinHandle::abort);
    join_all(clients).await;
    let (requests, longest) = {
        let seen = log.lock().expect("no client panicked");
        (seen.requests, seen.longest)
    };
    note(&format!("{requests} requests, the longest took {longest:?}"));
    assert!(longest < LONGEST_REQUEST, "{longest:?}");
    nothing_is_lost(&log, envoy.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_dead_node_of_three_is_hardly_noticed() {
    let nodes = BlobStores::start(3).await;
    let bootstrap = sooner(before(&nodes));
    each_death_is_hardly_noticed(nodes, &bootstrap).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_dead_node_of_a_replicated_store_is_hardly_noticed() {
    let Some(garage) = optional_tool("MOORAGE_GARAGE") else { return };
    let nodes = GarageCluster::start(&garage).await;
    let bootstrap = sooner(before(&nodes).signed());
    each_death_is_hardly_noticed(nodes, &bootstrap).await;
}
