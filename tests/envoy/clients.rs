//! Real clients push and pull through a real Envoy: what is pulled by digest are the very bytes that
//! were pushed, by whichever client, from Moorage or from the peer on the same folder.

mod artifacts;
mod build_cache;
mod engines;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use http::Method;
use moorage::oci::Digest;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::containerd::Containerd;
use moorage_test_support::docker_registry::DockerRegistry;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::garage::Garage;
use moorage_test_support::image::Layout;
use moorage_test_support::process::{optional_tool, wait_for};
use moorage_test_support::{client, crane, oras, regctl, skopeo};

/// A client that keeps what it pushes and pulls as it is.
enum Client {
    Skopeo,
    Crane(PathBuf),
    Oras(PathBuf),
    Regctl(PathBuf),
    Ctr(Box<Containerd>),
}

impl Client {
    /// Those that are on this machine.
    async fn all() -> Vec<Self> {
        let crane = optional_tool("MOORAGE_CRANE").map(Self::Crane);
        let oras = optional_tool("MOORAGE_ORAS").map(Self::Oras);
        let regctl = optional_tool("MOORAGE_REGCTL").map(Self::Regctl);
        let ctr = match optional_tool("MOORAGE_CTR") {
            Some(program) => Some(Self::Ctr(Box::new(Containerd::start(program).await))),
            None => None,
        };
        [Some(Self::Skopeo), crane, oras, regctl, ctr].into_iter().flatten().collect()
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Skopeo => "skopeo",
            Self::Crane(_) => "crane",
            Self::Oras(_) => "oras",
            Self::Regctl(_) => "regctl",
            Self::Ctr(_) => "ctr",
        }
    }

    async fn push(&self, layout: &Layout, registry: SocketAddr, reference: &str) {
        let folder = layout.path();
        match self {
            Self::Skopeo => skopeo::push(folder, skopeo::AS_IT_IS, registry, reference).await,
            Self::Crane(program) => crane::push(program, folder, registry, reference).await,
            Self::Oras(program) => oras::push(program, folder, registry, reference).await,
            Self::Regctl(program) => regctl::push(program, folder, registry, reference).await,
            Self::Ctr(containerd) => containerd.push(folder, registry, reference).await,
        }
    }

    async fn pull(&self, registry: SocketAddr, reference: &str) -> Layout {
        match self {
            Self::Skopeo => skopeo::pull_layout(registry, reference).await,
            Self::Crane(program) => crane::pull(program, registry, reference).await,
            Self::Oras(program) => oras::pull(program, registry, reference).await,
            Self::Regctl(program) => regctl::pull(program, registry, reference).await,
            Self::Ctr(containerd) => containerd.pull(registry, reference).await,
        }
    }
}

/// Moorage, and the peer on the same folder.
struct Registries {
    envoy: Envoy,
    peer: DockerRegistry,
    _store: BlobStore,
    _root: TempDir,
}

impl Registries {
    async fn start() -> Self {
        let root = TempDir::new().expect("a temporary folder");
        let bucket = root.path().join("registry");
        fs::create_dir(&bucket).expect("a folder");
        let store = BlobStore::open(root.path()).await;
        let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
        let peer = DockerRegistry::start(&bucket).await;
        Self { envoy, peer, _store: store, _root: root }
    }
}

/// What there is to push: a repository's name, a tag, and the layout.
async fn images() -> Vec<(&'static str, &'static str, Layout)> {
    vec![
        ("image", "1.0", Layout::image().await),
        ("nested/name/index", "1.0", Layout::index().await),
        ("artifact", "latest", Layout::artifact()),
        ("charts/web", "1.2.3", Layout::chart().await),
    ]
}

/// Has every client push every image to one registry and every client pull it from others.
async fn round_trips(pushed_to: SocketAddr, pulled_from: &[SocketAddr]) {
    let clients = Client::all().await;
    for pusher in &clients {
        for (name, tag, layout) in images().await {
            let name = format!("{}/{name}", pusher.name());
            pusher.push(&layout, pushed_to, &format!("{name}:{tag}")).await;
            for &registry in pulled_from {
                assert_eq!(tagged(registry, &name, tag, &layout).await, layout.digest(), "{name}");
                for puller in &clients {
                    let reference = format!("{name}@{}", layout.digest());
                    let pulled = puller.pull(registry, &reference).await;
                    assert_eq!(pulled.blobs(), layout.blobs(), "{name}, by {}", puller.name());
                }
            }
        }
    }
}

/// The digest of the manifest that a tag stands for; `layout` is the image that it should be.
async fn tagged(registry: SocketAddr, name: &str, tag: &str, layout: &Layout) -> Digest {
    let media_type = layout.descriptor()["mediaType"].as_str().expect("a type").to_owned();
    let path = format!("/v2/{name}/manifests/{tag}");
    let response = client::get(registry, &path, &[("accept", &media_type)]).await;
    assert_eq!(response.status(), 200, "{path}");
    let digest = response.headers()["docker-content-digest"].to_str();
    digest.ok().and_then(|text| text.parse().ok()).expect("a digest")
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn what_clients_push_is_pulled_from_here_and_from_the_peer() {
    let registries = Registries::start().await;
    let (moorage, peer) = (registries.envoy.address, registries.peer.address);
    round_trips(moorage, &[moorage, peer]).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn what_clients_push_to_the_peer_is_pulled_from_here() {
    let registries = Registries::start().await;
    round_trips(registries.peer.address, &[registries.envoy.address]).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn what_clients_push_to_a_distributed_store_is_pulled_from_it() {
    let Some(garage) = optional_tool("MOORAGE_GARAGE") else { return };
    let store = Garage::start(&garage).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address).signed()).await;
    round_trips(envoy.address, &[envoy.address]).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn clients_list_what_is_there() {
    let registries = Registries::start().await;
    let registry = registries.envoy.address;
    let layout = Layout::image().await;
    // The tags in the order of the API, which is not that of the store's keys.
    let (names, tags) = (["a", "a-b", "a/b"], ["1", "1-alpine", "1.2", "latest"]);
    for name in names {
        for tag in tags {
            let reference = format!("{name}:{tag}");
            skopeo::push(layout.path(), skopeo::AS_IT_IS, registry, &reference).await;
        }
    }
    assert_eq!(skopeo::list_tags(registry, "a/b").await, json!(tags));
    if let Some(program) = optional_tool("MOORAGE_REGCTL") {
        assert_eq!(regctl::list_tags(&program, registry, "a/b").await, tags);
    }
    let Some(program) = optional_tool("MOORAGE_CRANE") else { return };
    assert_eq!(crane::list(&program, registry, "a/b").await, tags);
    let mut catalog = crane::catalog(&program, registry).await;
    catalog.sort_unstable();
    assert_eq!(catalog, names);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn crane_deletes_a_tag_and_then_the_image() {
    let Some(program) = optional_tool("MOORAGE_CRANE") else { return };
    let registries = Registries::start().await;
    let registry = registries.envoy.address;
    let layout = Layout::image().await;
    for tag in ["1", "2", "3"] {
        crane::push(&program, layout.path(), registry, &format!("a/b:{tag}")).await;
    }
    let digest = layout.digest();
    for (deleted, left) in [("a/b:2".to_owned(), vec!["1", "3"]), (format!("a/b@{digest}"), vec![])]
    {
        crane::delete(&program, registry, &deleted).await;
        for tag in ["1", "2", "3"] {
            let request = client::request(Method::HEAD, &format!("/v2/a/b/manifests/{tag}"), &[]);
            let status = client::send(registry, request).await.status();
            assert_eq!(status, if left.contains(&tag) { 200 } else { 404 }, "{deleted}, {tag}");
        }
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn regctl_deletes_a_tag_and_then_the_image() {
    let Some(program) = optional_tool("MOORAGE_REGCTL") else { return };
    let registries = Registries::start().await;
    let registry = registries.envoy.address;
    let layout = Layout::image().await;
    for tag in ["1", "2"] {
        regctl::push(&program, layout.path(), registry, &format!("a/b:{tag}")).await;
    }
    regctl::delete_tag(&program, registry, "a/b:1").await;
    assert_eq!(regctl::list_tags(&program, registry, "a/b").await, ["2"]);
    let image = format!("a/b@{}", layout.digest());
    assert_eq!(regctl::pull(&program, registry, &image).await.blobs(), layout.blobs());
    regctl::delete_manifest(&program, registry, &image).await;
    let request =
        client::request(Method::HEAD, &format!("/v2/a/b/manifests/{}", layout.digest()), &[]);
    assert_eq!(client::send(registry, request).await.status(), 404);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_push_that_died_with_envoy_is_repeated_through_another() {
    const MIB: usize = 1024 * 1024;
    let root = TempDir::new().expect("a temporary folder");
    let store = BlobStore::open(root.path()).await;
    let first = Envoy::start(&Bootstrap::new(store.address)).await;
    let blob: Vec<u8> = (0..256 * MIB as u64 / 8).flat_map(u64::to_le_bytes).collect();
    let layout = Layout::artifact_of(&blob);
    let (folder, address) = (layout.path().to_owned(), first.address);
    let push: JoinHandle<()> = tokio::spawn(async move {
        skopeo::push(&folder, skopeo::AS_IT_IS, address, "a/b:1").await;
    });
    wait_for("the blob's first megabyte", async || {
        let sent = first.stat("cluster.blob_store.upstream_cx_tx_bytes_total").await;
        (sent > MIB as u64).then_some(())
    })
    .await;
    first.kill().await;
    assert!(push.await.is_err(), "the push must fail with its Envoy");

    let second = Envoy::start(&Bootstrap::new(store.address)).await;
    let path = "/v2/a/b/manifests/1";
    assert_eq!(client::get(second.address, path, &[]).await.status(), 404);
    skopeo::push(layout.path(), skopeo::AS_IT_IS, second.address, "a/b:1").await;
    let pulled = skopeo::pull_layout(second.address, &format!("a/b@{}", layout.digest())).await;
    assert!(pulled.blobs() == layout.blobs(), "the image is whole");
}
