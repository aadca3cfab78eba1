//! The store goes away, in whatever manner, and comes back: with `cache.stale_if_error` what was pulled before goes on being
//! pulled, through an edge node with its blobs on disk as well.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use http::Method;
use moorage::oci::Digest;
use moorage::store::layout;
use serde_json::json;
use tempfile::TempDir;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client::{self, error_of};
use moorage_test_support::containerd::Containerd;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::image::Layout;
use moorage_test_support::process::{note, optional_tool, wait_for};
use moorage_test_support::skopeo;
use moorage_test_support::stand_in::{Behaviour, StandIn};
use moorage_test_support::tree::Tree;

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
/// `store.timeout_ms` of these tests.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// What a busy machine adds.
const SLACK: Duration = Duration::from_secs(10);

/// A store that goes away.
struct Store {
    root: TempDir,
    address: SocketAddr,
    running: Option<BlobStore>,
}

/// How a store goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outage {
    /// Nobody listens any more.
    Killed,
    /// It takes connections and says nothing.
    Hanging,
}

impl Store {
    async fn start() -> Self {
        let root = TempDir::new().expect("a temporary folder");
        fs::create_dir(root.path().join("registry")).expect("a folder");
        let store = BlobStore::open(root.path()).await;
        Self { root, address: store.address, running: Some(store) }
    }

    async fn stop(&mut self, how: Outage) {
        match how {
            Outage::Killed => self.running.take().expect("it runs").kill().await,
            Outage::Hanging => self.running.as_ref().expect("it runs").signal("STOP").await,
        }
    }

    async fn resume(&mut self, how: Outage) {
        match how {
            Outage::Killed => {
                self.running = Some(BlobStore::reopen(self.root.path(), self.address).await);
            }
            Outage::Hanging => self.running.as_ref().expect("it runs").signal("CONT").await,
        }
    }
}

/// An edge node before the store, that asks it for every link and tag, with its blobs in `disk`.
fn edge(store: SocketAddr, disk: &TempDir) -> Bootstrap {
    Bootstrap::edge_before(&[store]).set(|settings| {
        settings.edge.disk_cache = Some(disk.path().display().to_string());
        let cache = json!({ "tag_ttl": 0, "link_ttl": 0, "stale_if_error": "1h" });
        settings.plugin.insert("cache".to_owned(), cache);
    })
}

/// A registry that takes pushes, and remembers for an hour what it asks the store for every time.
fn central(store: SocketAddr, stale_if_error: &str) -> Bootstrap {
    Bootstrap::new(store).with_store_fields(r#""timeout_ms": 2000"#).with_fields(&format!(
        r#""cache": {{ "link_ttl": 0, "stale_if_error": "{stale_if_error}" }}"#
    ))
}

async fn status(server: SocketAddr, method: Method, path: &str) -> u16 {
    let response = client::send(server, client::request(method, path, &[])).await;
    response.status().as_u16()
}

/// Pulls an image by all clients that are here, by tag and by digest.
struct Pullers {
    containerd: Option<Containerd>,
}

impl Pullers {
    async fn start() -> Self {
        let containerd = match optional_tool("MOORAGE_CTR") {
            Some(program) => Some(Containerd::start(program).await),
            None => None,
        };
        Self { containerd }
    }

    async fn pull(&self, registry: SocketAddr, image: &Layout) {
        for reference in ["image:1.0".to_owned(), format!("image@{}", image.digest())] {
            let pulled = skopeo::pull_layout(registry, &reference).await;
            assert_eq!(pulled.blobs(), image.blobs(), "{reference}, by skopeo");
            if let Some(containerd) = &self.containerd {
                let pulled = containerd.pull(registry, &reference).await;
                assert_eq!(pulled.blobs(), image.blobs(), "{reference}, by containerd");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn an_image_that_was_pulled_once_is_pulled_while_the_store_is_away() {
    let (mut store, disk) = (Store::start().await, TempDir::new().expect("a folder"));
    let origin = Envoy::start(&Bootstrap::new(store.address)).await;
    let image = Layout::image().await;
    skopeo::push(image.path(), skopeo::AS_IT_IS, origin.address, "image:1.0").await;
    let edge = Envoy::start(&edge(store.address, &disk)).await;
    let pullers = Pullers::start().await;
    pullers.pull(edge.address, &image).await;
    let config = configuration(&image);
    let blob = format!("/v2/image/blobs/{}", config.0);

    for outage in [Outage::Killed, Outage::Hanging] {
        store.stop(outage).await;
        pullers.pull(edge.address, &image).await;
        assert_eq!(status(edge.address, Method::HEAD, "/v2/image/manifests/1.0").await, 200);
        // From the disk, in every way.
        let request = client::request(Method::HEAD, &blob, &[]);
        let head = client::send(edge.address, request).await;
        assert_eq!(head.status(), 200);
        assert_eq!(head.headers()["content-length"], config.1.len().to_string());
        assert_eq!(head.headers()["docker-content-digest"], config.0.as_str());
        for range in ["bytes=1-5", "bytes=-3", "bytes=2-"] {
            let part = client::get(edge.address, &blob, &[("range", range)]).await;
            assert_eq!(part.status(), 206, "{range}");
            let expected = match range {
                "bytes=1-5" => &config.1[1..6],
                "bytes=-3" => &config.1[config.1.len() - 3..],
                _ => &config.1[2..],
            };
            assert_eq!(part.body(), expected, "{range}");
        }
        // A client can't have it all fetched anew.
        let anew = client::get(edge.address, &blob, &[("cache-control", "no-cache")]).await;
        assert_eq!((anew.status().as_u16(), &anew.body()[..]), (200, &config.1[..]));

        // What nobody has pulled is an error, and never "not there".
        let error = client::get(edge.address, "/v2/image/manifests/2.0", &[]).await;
        assert!(matches!(error_of(&error).0, 503 | 504), "{error:?}");
        store.resume(outage).await;
        wait_for("the store to be seen again", async || {
            (status(edge.address, Method::GET, "/v2/image/manifests/2.0").await == 404)
                .then_some(())
        })
        .await;
        pullers.pull(edge.address, &image).await;
    }
    // Not even an answer that there is no such blob stays on the disk.
    let later = Layout::artifact_of(b"pushed later");
    skopeo::push(later.path(), skopeo::AS_IT_IS, origin.address, "image:2.0").await;
    let pulled = skopeo::pull_layout(edge.address, "image:2.0").await;
    assert_eq!(pulled.blobs(), later.blobs());
}

/// The configuration of an image, a blob.
fn configuration(image: &Layout) -> (Digest, Vec<u8>) {
    let digest = image.config_digest();
    let content = image.blobs().remove(digest.hex()).expect("it is in the layout");
    (digest, content)
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_blob_that_is_not_on_the_disk_is_an_error_while_the_store_is_away() {
    let (mut store, disk) = (Store::start().await, TempDir::new().expect("a folder"));
    let origin = Envoy::start(&Bootstrap::new(store.address)).await;
    let image = Layout::image().await;
    skopeo::push(image.path(), skopeo::AS_IT_IS, origin.address, "image:1.0").await;
    let bootstrap = edge(store.address, &disk).with("idle_timeout: 60s", "idle_timeout: 2s");
    let edge = Envoy::start(&bootstrap).await;
    let config = configuration(&image);
    let path = format!("/v2/image/blobs/{}", config.0);
    // Its link is known and its content is not.
    let known = format!("\"{}\"", config.0);
    let response = client::get(edge.address, &path, &[("if-none-match", &known)]).await;
    assert_eq!(response.status(), 304);
    for (outage, expected) in [(Outage::Killed, 503), (Outage::Hanging, 504)] {
        store.stop(outage).await;
        let begun = Instant::now();
        let error = error_of(&client::get(edge.address, &path, &[]).await);
        assert_eq!(error, (expected, "UNAVAILABLE".to_owned()), "{outage:?}");
        assert!(begun.elapsed() < STORE_TIMEOUT + SLACK, "{:?}", begun.elapsed());
        store.resume(outage).await;
    }
    wait_for("the store to be seen again", async || {
        let response = client::get(edge.address, &path, &[]).await;
        (response.status() == 200 && *response.body() == config.1).then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn content_that_is_missing_is_not_remembered_on_the_disk() {
    let (mut store, disk) = (Store::start().await, TempDir::new().expect("a folder"));
    let mut tree = Tree::default();
    let blob = tree.put_blob("a", b"a blob's content");
    let bucket = store.root.path().join("registry");
    tree.write_to(&bucket);
    let (content, aside) =
        (bucket.join(layout::content(&blob).as_str()), disk.path().join("aside"));
    fs::rename(&content, &aside).expect("the content is there");
    let edge = Envoy::start(&edge(store.address, &disk)).await;
    let path = format!("/v2/a/blobs/{blob}");
    assert_eq!(status(edge.address, Method::GET, &path).await, 404);
    fs::rename(&aside, &content).expect("the content is there");
    let pull = async || {
        let response = client::get(edge.address, &path, &[]).await;
        (response.status() == 200 && &response.body()[..] == b"a blob's content").then_some(())
    };
    assert!(pull().await.is_some(), "at once");
    // The first one only showed that it may be kept.
    assert!(pull().await.is_some());
    store.stop(Outage::Killed).await;
    assert!(pull().await.is_some(), "from the disk");
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn without_the_setting_an_outage_is_an_error_within_the_timeout_and_ends_with_it() {
    let mut store = Store::start().await;
    let envoy = Envoy::start(&central(store.address, "0s")).await;
    let image = Layout::artifact();
    skopeo::push(image.path(), skopeo::AS_IT_IS, envoy.address, "image:1.0").await;
    for (outage, expected) in [(Outage::Killed, 503), (Outage::Hanging, 504)] {
        let path = "/v2/image/manifests/1.0";
        assert_eq!(status(envoy.address, Method::GET, path).await, 200);
        store.stop(outage).await;
        for _ in 0..2 {
            let begun = Instant::now();
            let error = error_of(&client::get(envoy.address, path, &[]).await);
            assert_eq!(error, (expected, "UNAVAILABLE".to_owned()), "{outage:?}");
            assert!(begun.elapsed() < STORE_TIMEOUT + SLACK, "{:?}", begun.elapsed());
        }
        store.resume(outage).await;
        wait_for("the store to be seen again", async || {
            (status(envoy.address, Method::GET, path).await == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_tag_that_was_deleted_stays_deleted_and_writes_get_the_error() {
    let mut store = Store::start().await;
    // Two registries in one Envoy: caches of their own, and what is written through one counts in the other.
    let bootstrap = central(store.address, "1h").with_another_registry(r#""read_only": true"#);
    let envoy = Envoy::start(&bootstrap).await;
    let (own, other) = (envoy.addresses[0], envoy.addresses[1]);
    let image = Layout::artifact();
    for reference in ["kept:1.0", "image:1.0", "image:2.0"] {
        skopeo::push(image.path(), skopeo::AS_IT_IS, own, reference).await;
    }
    let path = |tag: &str| format!("/v2/{}", tag.replace(':', "/manifests/"));
    for server in [own, other] {
        for reference in ["kept:1.0", "image:1.0", "image:2.0"] {
            assert_eq!(status(server, Method::GET, &path(reference)).await, 200);
        }
    }
    assert_eq!(status(own, Method::DELETE, &path("image:1.0")).await, 202);
    store.stop(Outage::Killed).await;
    for server in [own, other] {
        assert_eq!(status(server, Method::GET, &path("image:1.0")).await, 503);
        assert_eq!(status(server, Method::GET, &path("kept:1.0")).await, 200);
    }
    // A write that fails takes nothing away.
    assert_eq!(status(own, Method::DELETE, &path("kept:1.0")).await, 503);
    assert_eq!(
        status(own, Method::DELETE, &format!("/v2/kept/manifests/{}", image.digest())).await,
        503
    );
    for server in [own, other] {
        assert_eq!(status(server, Method::GET, &path("kept:1.0")).await, 200);
    }
    store.resume(Outage::Killed).await;
    for server in [own, other] {
        wait_for("the store to be seen again", async || {
            (status(server, Method::GET, &path("image:2.0")).await == 200).then_some(())
        })
        .await;
        assert_eq!(status(server, Method::GET, &path("image:1.0")).await, 404);
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_store_that_errs_at_everything_is_away_and_one_that_refuses_is_not() {
    let answer = Arc::new(AtomicU16::new(200));
    let mut tree = Tree::default();
    let manifest = tree.put_manifest("a", "t", MANIFEST);
    let shown = Arc::clone(&answer);
    let store = StandIn::start(tree, move |_, _| match shown.load(Ordering::Relaxed) {
        200 => Behaviour::Serve,
        403 => Behaviour::Answer(403, "<Error><Code>AccessDenied</Code></Error>"),
        status => Behaviour::Answer(status, ""),
    })
    .await;
    let envoy = Envoy::start(&central(store.address, "1h")).await;
    let by_digest = format!("/v2/a/manifests/{manifest}");
    for (fault, expected) in [(500, 200), (503, 200), (403, 500), (500, 200)] {
        answer.store(200, Ordering::Relaxed);
        for path in ["/v2/a/manifests/t", &by_digest] {
            wait_for("the store to be seen again", async || {
                let before = store.requests().len();
                let status = status(envoy.address, Method::GET, path).await;
                (status == 200 && store.requests().len() > before).then_some(())
            })
            .await;
        }
        answer.store(fault, Ordering::Relaxed);
        for path in ["/v2/a/manifests/t", &by_digest] {
            for _ in 0..3 {
                let status = status(envoy.address, Method::GET, path).await;
                assert_eq!(status, expected, "{fault} {path}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn under_load_no_pull_fails_of_what_was_pulled_before() {
    const CLIENTS: usize = 16;
    let (mut store, disk) = (Store::start().await, TempDir::new().expect("a folder"));
    let origin = Envoy::start(&Bootstrap::new(store.address)).await;
    let image = Layout::image().await;
    skopeo::push(image.path(), skopeo::AS_IT_IS, origin.address, "image:1.0").await;
    let edge = Envoy::start(&edge(store.address, &disk)).await;
    let server = edge.address;
    skopeo::pull_layout(server, "image:1.0").await;
    let config = configuration(&image);
    let paths: Arc<[(String, Option<Vec<u8>>)]> = Arc::new([
        ("/v2/image/manifests/1.0".to_owned(), None),
        (format!("/v2/image/manifests/{}", image.digest()), None),
        (format!("/v2/image/blobs/{}", config.0), Some(config.1)),
    ]);
    let (done, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let client = |number: usize| {
        let (paths, done, is_over) = (Arc::clone(&paths), Arc::clone(&done), Arc::clone(&is_over));
        tokio::spawn(async move {
            let (mut failed, mut longest) = (Vec::new(), Duration::ZERO);
            for round in number.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let (path, content) = &paths[round % paths.len()];
                let begun = Instant::now();
                let response = client::get(server, path, &[]).await;
                longest = longest.max(begun.elapsed());
                let is_right = content.as_ref().is_none_or(|content| content == response.body());
                if response.status() != 200 || !is_right {
                    failed.push(format!("{path}: {} {:?}", response.status(), response.body()));
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
            (failed, longest)
        })
    };
    let clients: Vec<_> = (0..CLIENTS).map(client).collect();
    let pulled = async |count: usize| {
        let before = done.load(Ordering::Relaxed);
        wait_for("clients to pull", async || {
            (done.load(Ordering::Relaxed) >= before + count).then_some(())
        })
        .await;
    };
    for outage in [Outage::Killed, Outage::Hanging, Outage::Killed, Outage::Hanging] {
        pulled(100).await;
        store.stop(outage).await;
        pulled(500).await;
        store.resume(outage).await;
        // A tag that is new is seen again.
        wait_for("the store to be seen again", async || {
            (status(server, Method::GET, "/v2/image/manifests/none").await == 404).then_some(())
        })
        .await;
    }
    pulled(100).await;
    is_over.store(true, Ordering::Relaxed);
    let mut longest = Duration::ZERO;
    for client in join_all(clients).await {
        let (failed, own_longest) = client.expect("no client panicked");
        assert_eq!(failed.first(), None, "and {} more", failed.len());
        longest = longest.max(own_longest);
    }
    note(&format!("{} pulls, the longest took {longest:?}", done.load(Ordering::Relaxed)));
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn an_edge_node_passes_pushes_on_if_it_is_told_to() {
    let (store, disk) = (Store::start().await, TempDir::new().expect("a folder"));
    let origin = Envoy::start(&Bootstrap::new(store.address)).await;
    let image = Layout::image().await;
    let read_only = Envoy::start(&edge(store.address, &disk)).await;
    assert_eq!(status(read_only.address, Method::POST, "/v2/image/blobs/uploads/").await, 405);
    drop(read_only);
    let edge = Envoy::start(&edge(store.address, &disk).passing_writes_on(origin.address)).await;
    skopeo::push(image.path(), skopeo::AS_IT_IS, edge.address, "image:1.0").await;
    let pulled = skopeo::pull_layout(edge.address, "image:1.0").await;
    assert_eq!(pulled.blobs(), image.blobs());
    assert_eq!(status(edge.address, Method::DELETE, "/v2/image/manifests/1.0").await, 202);
    assert_eq!(status(edge.address, Method::GET, "/v2/image/manifests/1.0").await, 404);
    // A path of the bucket leads nowhere but to the registries.
    let object = "/registry/docker/registry/v2/repositories/image/_manifests/tags/1.0/current/link";
    for method in [Method::GET, Method::PUT, Method::POST] {
        assert_eq!(status(edge.address, method.clone(), object).await, 404, "{method}");
    }
}
