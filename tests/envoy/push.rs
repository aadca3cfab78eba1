//! Putting and deleting manifests through Envoy: with the peer on the same tree, in parallel, against
//! each other, and beyond the limits.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{self, StreamExt};
use http::{Method, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client::{self, error_of, send_body};
use moorage_test_support::digest_of;
use moorage_test_support::docker_registry::DockerRegistry;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::{self, within};
use moorage_test_support::stand_in::{Behaviour, StandIn};
use moorage_test_support::tree::Tree;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

struct Registry {
    envoy: Envoy,
    store: BlobStore,
    root: TempDir,
}

impl Registry {
    /// A registry with the repository `a/b`.
    async fn start() -> Self {
        let root = root();
        let store = BlobStore::open(root.path()).await;
        let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
        Self { envoy, store, root }
    }

    /// The same on a store that demands signatures.
    async fn start_signed() -> Self {
        let root = root();
        let store = BlobStore::signed(root.path()).await;
        let envoy = Envoy::start(&Bootstrap::new(store.address).signed()).await;
        Self { envoy, store, root }
    }

    fn bucket(&self) -> PathBuf {
        self.root.path().join("registry")
    }

    async fn put(&self, reference: &str, manifest: &str) -> Response<Bytes> {
        put(self.envoy.address, reference, &[], manifest).await
    }

    async fn status(&self, method: Method, reference: &str) -> u16 {
        let path = format!("/v2/a/b/manifests/{reference}");
        let request = client::request(method, &path, &[]);
        client::send(self.envoy.address, request).await.status().as_u16()
    }
}

/// A repository `a/b` with the two blobs that [`image`] needs.
fn tree() -> Tree {
    let mut tree = Tree::default();
    tree.put_blob("a/b", b"{}");
    tree.put_blob("a/b", b"layer");
    tree
}

/// A store's folder with that tree.
fn root() -> TempDir {
    let root = TempDir::new().expect("a temporary folder");
    tree().write_to(&root.path().join("registry"));
    root
}

async fn put(
    server: SocketAddr,
    reference: &str,
    headers: &[(&str, &str)],
    manifest: &str,
) -> Response<Bytes> {
    let path = format!("/v2/a/b/manifests/{reference}");
    let mut headers = headers.to_vec();
    headers.push(("content-type", OCI_MANIFEST));
    send_body(server, Method::PUT, &path, &headers, manifest.to_owned()).await
}

fn descriptor(media_type: &str, content: &str) -> Value {
    let digest = digest_of(content);
    json!({ "mediaType": media_type, "digest": digest.as_str(), "size": content.len() })
}

/// An image manifest of the blobs that `a/b` has; `note` makes it different from others.
fn image(note: &str) -> String {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", "{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", "layer")],
        "annotations": { "note": note },
    });
    manifest.to_string()
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn what_is_put_is_served_here_and_by_the_peer() {
    let registry = Registry::start().await;
    let peer = DockerRegistry::start(&registry.bucket()).await;
    let image = image("x");
    let digest = digest_of(&image);
    let response = registry.put("1.0", &image).await;
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["location"], format!("/v2/a/b/manifests/{digest}"));
    assert_eq!(response.headers()["docker-content-digest"], digest.as_str());
    for server in [registry.envoy.address, peer.address] {
        for reference in ["1.0", digest.as_str()] {
            let path = format!("/v2/a/b/manifests/{reference}");
            let response = client::get(server, &path, &[("accept", OCI_MANIFEST)]).await;
            assert_eq!(response.body(), image.as_bytes(), "{server} {reference}");
            assert_eq!(response.headers()["content-type"], OCI_MANIFEST);
        }
    }
}

/// `docker-registry garbage-collect` on a tree.
async fn collect_garbage(bucket: &Path) {
    let folder = TempDir::new().expect("a temporary folder");
    let config = folder.path().join("config.yml");
    let text = format!(
        "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\n",
        bucket.display()
    );
    std::fs::write(&config, text).expect("the configuration is written");
    process::run(Command::new("docker-registry").arg("garbage-collect").arg(config)).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn the_peers_garbage_collection_keeps_what_is_tagged_and_removes_what_was_deleted() {
    let registry = Registry::start().await;
    let (kept, deleted) = (image("kept"), image("deleted"));
    for (tag, image) in [("kept", &kept), ("deleted", &deleted), ("again", &deleted)] {
        assert_eq!(registry.put(tag, image).await.status(), 201);
    }
    assert_eq!(registry.status(Method::DELETE, digest_of(&deleted).as_str()).await, 202);
    for reference in ["deleted", "again", digest_of(&deleted).as_str()] {
        assert_eq!(registry.status(Method::GET, reference).await, 404, "{reference}");
    }
    let peer = DockerRegistry::start(&registry.bucket()).await;
    let tags = client::get(peer.address, "/v2/a/b/tags/list", &[]).await;
    let tags: Value = serde_json::from_slice(tags.body()).expect("JSON");
    assert_eq!(tags["tags"], json!(["kept"]));

    collect_garbage(&registry.bucket()).await;
    let content_of = |image: &str| {
        let key = moorage::store::layout::content(&digest_of(image));
        registry.bucket().join(key.as_str())
    };
    assert!(content_of(&kept).exists() && !content_of(&deleted).exists());
    assert_eq!(registry.status(Method::GET, "kept").await, 200);
    // The same manifest can be put again.
    assert_eq!(registry.put("deleted", &deleted).await.status(), 201);
    assert_eq!(registry.status(Method::GET, "deleted").await, 200);
}

/// What a `PUT` leaves that ends between the manifest's link and its content, which it writes together.
#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_link_without_content_counts_for_nothing_here_and_at_the_peer() {
    let registry = Registry::start().await;
    assert_eq!(registry.put("kept", &image("kept")).await.status(), 201);
    let digest = digest_of(&image("broken off"));
    let link = format!(
        "docker/registry/v2/repositories/a/b/_manifests/revisions/sha256/{}/link",
        digest.hex()
    );
    let link = registry.bucket().join(link);
    std::fs::create_dir_all(link.parent().expect("a folder")).expect("a folder");
    std::fs::write(&link, digest.as_str()).expect("a file");
    let peer = DockerRegistry::start(&registry.bucket()).await;
    for server in [registry.envoy.address, peer.address] {
        let path = format!("/v2/a/b/manifests/{digest}");
        let response = client::get(server, &path, &[("accept", OCI_MANIFEST)]).await;
        assert_eq!(response.status(), 404, "{server}");
    }
    collect_garbage(&registry.bucket()).await;
    assert_eq!(registry.status(Method::GET, "kept").await, 200);
    assert_eq!(registry.put("broken", &image("broken off")).await.status(), 201);
    assert_eq!(registry.status(Method::GET, "broken").await, 200);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_deleted_tag_leaves_the_manifest() {
    let registry = Registry::start().await;
    let image = image("x");
    registry.put("a", &image).await;
    registry.put("b", &image).await;
    assert_eq!(registry.status(Method::DELETE, "a").await, 202);
    assert_eq!(registry.status(Method::GET, "a").await, 404);
    assert_eq!(registry.status(Method::GET, "b").await, 200);
    assert_eq!(registry.status(Method::DELETE, "a").await, 404);
    assert_eq!(registry.status(Method::DELETE, digest_of(&image).as_str()).await, 202);
    assert_eq!(registry.status(Method::GET, "b").await, 404);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn writing_works_on_a_store_that_demands_signatures() {
    let registry = Registry::start_signed().await;
    let image = image("x");
    assert_eq!(registry.put("t", &image).await.status(), 201);
    let conditional = put(registry.envoy.address, "t", &[("if-none-match", "*")], &image).await;
    assert_eq!(error_of(&conditional), (412, "PRECONDITION_FAILED".to_owned()));
    assert_eq!(registry.status(Method::DELETE, digest_of(&image).as_str()).await, 202);
    assert_eq!(registry.status(Method::GET, "t").await, 404);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_store_that_ignores_conditions_gets_no_conditional_writes() {
    // Every write is answered with 200 and forgotten, whatever its condition.
    let store = StandIn::start(tree(), |_, _| Behaviour::Serve).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    let response = put(envoy.address, "t", &[("if-none-match", "*")], &image("x")).await;
    assert_eq!(error_of(&response), (501, "UNSUPPORTED".to_owned()));
    let path = "/v2/a/b/manifests/t";
    assert_eq!(client::get(envoy.address, path, &[]).await.status(), 404);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn of_two_racing_conditional_puts_exactly_one_wins() {
    let registry = Registry::start().await;
    let other = Envoy::start(&Bootstrap::new(registry.store.address)).await;
    let mut current = image("start");
    assert_eq!(registry.put("t", &current).await.status(), 201);
    for round in 0..100 {
        let condition = format!("\"{}\"", digest_of(&current));
        let condition = [("if-match", condition.as_str())];
        let images = [image(&format!("{round} here")), image(&format!("{round} there"))];
        let responses = tokio::join!(
            put(registry.envoy.address, "t", &condition, &images[0]),
            put(other.address, "t", &condition, &images[1]),
        );
        let statuses = [responses.0.status().as_u16(), responses.1.status().as_u16()];
        let winner = match statuses {
            [201, 412] => 0,
            [412, 201] => 1,
            _ => panic!("round {round}: {statuses:?}"),
        };
        let served = client::get(other.address, "/v2/a/b/manifests/t", &[]).await;
        assert_eq!(served.body(), images[winner].as_bytes(), "round {round}");
        current = images[winner].clone();
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn of_many_racing_creations_exactly_one_wins() {
    let registry = Registry::start().await;
    let other = Envoy::start(&Bootstrap::new(registry.store.address)).await;
    let servers = [registry.envoy.address, other.address];
    let puts = (0..100).map(|number| async move {
        let condition = [("if-none-match", "*")];
        let image = image(&format!("{number}"));
        put(servers[number % 2], "t", &condition, &image).await.status().as_u16()
    });
    let mut statuses = join_all(puts).await;
    statuses.sort_unstable();
    assert_eq!((statuses[0], statuses[1], statuses[99]), (201, 412, 412), "{statuses:?}");
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_thousand_tags_put_in_parallel_are_all_there() {
    let registry = Registry::start().await;
    let registry = &registry;
    let puts = stream::iter(0..1000).map(|number| async move {
        let image = image(&format!("{}", number % 10));
        registry.put(&format!("tag-{number}"), &image).await.status().as_u16()
    });
    let statuses: Vec<u16> = puts.buffer_unordered(64).collect().await;
    assert!(statuses.iter().all(|status| *status == 201), "{statuses:?}");
    for number in 0..1000 {
        let tag = format!("tag-{number}");
        assert_eq!(registry.status(Method::HEAD, &tag).await, 200, "{tag}");
    }
    // A tenth of them are on this manifest.
    let digest = digest_of(&image("3"));
    assert_eq!(registry.status(Method::DELETE, digest.as_str()).await, 202);
    for number in 0..1000 {
        let expected = if number % 10 == 3 { 404 } else { 200 };
        assert_eq!(registry.status(Method::HEAD, &format!("tag-{number}")).await, expected);
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_manifest_in_a_repository_of_ten_thousand_tags_is_deleted_with_its_tags() {
    let root = TempDir::new().expect("a temporary folder");
    let mut tree = tree();
    let digest = tree.put_manifest("a/b", "0", br#"{"schemaVersion":2,"config":{},"layers":[]}"#);
    let other = tree.put_manifest("a/b", "1", br#"{"schemaVersion":2,"config":{},"layers":[{}]}"#);
    for number in 2..10_000 {
        let digest = if number % 100 == 0 { &digest } else { &other };
        tree.tag("a/b", &number.to_string(), digest);
    }
    tree.write_to(&root.path().join("registry"));
    let store = BlobStore::open(root.path()).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    let registry = Registry { envoy, store, root };
    let path = format!("/v2/a/b/manifests/{digest}");
    let response =
        client::send(registry.envoy.address, client::request(Method::DELETE, &path, &[]));
    let response = response.await;
    assert_eq!(response.status(), 202, "{:?}\n{}", response.body(), registry.envoy.log());
    let tags = registry.bucket().join("docker/registry/v2/repositories/a/b/_manifests/tags");
    let left = std::fs::read_dir(tags).expect("a folder").count();
    assert_eq!(left, 9_900);
    for (tag, status) in [("0", 404), ("100", 404), ("9900", 404), ("1", 200), ("9999", 200)] {
        assert_eq!(registry.status(Method::GET, tag).await, status, "{tag}");
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_manifest_that_arrives_faster_than_envoy_reads_is_taken() {
    let root = root();
    let store = BlobStore::open(root.path()).await;
    // Envoy hands over what it has read at once, which may be more than this.
    let listener = "    - name: registry\n      address:";
    let small =
        listener.replace("address:", "per_connection_buffer_limit_bytes: 32768\n      address:");
    let envoy = Envoy::start(&Bootstrap::new(store.address).with(listener, &small)).await;
    let manifest = image(&"x".repeat(3_900_000));
    for _ in 0..20 {
        assert_eq!(put(envoy.address, "large", &[], &manifest).await.status(), 201);
    }
}

/// Sends a `PUT` of zeros until Envoy answers or closes; gives the answer.
async fn put_zeros(envoy: &Envoy, framing: &str, chunk_head: &'static [u8]) -> String {
    let mut stream = TcpStream::connect(envoy.address).await.expect("Envoy listens");
    let head = format!("PUT /v2/a/b/manifests/t HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("Envoy reads");
    let (mut from_envoy, mut to_envoy) = stream.into_split();
    let writing = tokio::spawn(async move {
        let piece = [chunk_head, &vec![0; 0x10000], &b"\r\n"[..chunk_head.len().min(2)]].concat();
        for _ in 0..1600 {
            // Envoy need not read what it has refused.
            if to_envoy.write_all(&piece).await.is_err() {
                break;
            }
        }
    });
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    let reading = async {
        while !answer.ends_with(b"]}") {
            match from_envoy.read(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(length) => answer.extend_from_slice(&piece[..length]),
            }
        }
    };
    within("Envoy's answer", reading).await;
    writing.abort();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends 100 MiB, once with and once without a length: both are refused.
async fn refuse_both_framings(envoy: &Envoy) {
    for (framing, chunk_head) in
        [("Content-Length: 104857600", &b""[..]), ("Transfer-Encoding: chunked", b"10000\r\n")]
    {
        let mut answer = String::new();
        // Envoy closes after its answer, and what the client still sends then may reset the connection
        // before the answer was read (RFC 9112, section 9.6). Such a try says nothing.
        for _ in 0..50 {
            answer = put_zeros(envoy, framing, chunk_head).await;
            if !answer.is_empty() {
                break;
            }
        }
        assert!(answer.starts_with("HTTP/1.1 413 "), "{framing}: {answer}");
        assert!(answer.contains("MANIFEST_INVALID"), "{answer}");
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_body_beyond_the_limit_is_refused_and_not_kept() {
    const MIB: u64 = 1024 * 1024;
    let registry = Registry::start().await;
    // Envoy compiles the module's hot parts anew once they are known to be hot, which takes memory too.
    for _ in 0..100 {
        registry.put("warm-up", &image("x")).await;
    }
    // A body that is kept shows every time; what else Envoy needs memory for meanwhile does not.
    let mut least = u64::MAX;
    for _ in 0..5 {
        registry.envoy.forget_peak_memory();
        let before = registry.envoy.memory("VmRSS");
        refuse_both_framings(&registry.envoy).await;
        least = least.min(registry.envoy.memory("VmHWM").saturating_sub(before));
        if least < 8 * MIB {
            break;
        }
    }
    println!("Envoy grew by {} KiB while 100 MiB were refused twice", least / 1024);
    assert!(least < 8 * MIB, "Envoy grew by {} KiB", least / 1024);
    assert_eq!(registry.put("t", &image("x")).await.status(), 201);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn settings_switch_writing_off() {
    let registry = Registry::start().await;
    let json = r#""store": {"#;
    for (setting, put_status, delete_status) in
        [("\"read_only\": true", 405, 405), ("\"delete_enabled\": false", 201, 405)]
    {
        let bootstrap = Bootstrap::new(registry.store.address);
        let envoy = Envoy::start(&bootstrap.with(json, &format!("{setting}, {json}"))).await;
        let put = put(envoy.address, "t", &[], &image("x")).await;
        assert_eq!(put.status().as_u16(), put_status, "{setting}");
        let request = client::request(Method::DELETE, "/v2/a/b/manifests/t", &[]);
        let delete = client::send(envoy.address, request).await;
        assert_eq!(error_of(&delete), (delete_status, "UNSUPPORTED".to_owned()), "{setting}");
        assert!(delete.headers()["allow"].to_str().expect("text").starts_with("GET, HEAD"));
    }
}
