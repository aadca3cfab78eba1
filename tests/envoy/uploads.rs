//! Uploads through Envoy: in every way a client may send a blob, through several Envoys, and with
//! clients, Envoys and stores that fail in the middle.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream;
use http::{Method, Response};
use moorage::oci::{Algorithm, Digest, Name};
use moorage::store::layout;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::faults::{faults, faulty};
use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client::{self, error_of, location, send_body, send_pieces};
use moorage_test_support::digest_of;
use moorage_test_support::docker_registry::DockerRegistry;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::wait_for;
use moorage_test_support::stand_in::Behaviour;
use moorage_test_support::tree::Tree;

const MIB: usize = 1024 * 1024;

struct Registry {
    envoy: Envoy,
    store: BlobStore,
    root: TempDir,
}

impl Registry {
    async fn start() -> Self {
        let root = TempDir::new().expect("a temporary folder");
        let store = BlobStore::open(root.path()).await;
        let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
        Self { envoy, store, root }
    }

    fn bucket(&self) -> PathBuf {
        self.root.path().join("registry")
    }

    /// Whether the bucket has the content of the digest, in whatever repository.
    fn has_content(&self, digest: &Digest) -> bool {
        self.bucket().join(layout::content(digest).as_str()).exists()
    }

    /// Everything that upload sessions of the repository have.
    fn sessions(&self, name: &str) -> Vec<PathBuf> {
        let name: Name = name.parse().expect("a valid name");
        let repository = format!("docker/registry/v2/repositories/{name}/_uploads");
        let folder = std::fs::read_dir(self.bucket().join(repository));
        folder.into_iter().flatten().map(|entry| entry.expect("an entry").path()).collect()
    }
}

/// Content that looks random and is the same in every run.
fn content(length: usize) -> Bytes {
    let numbers = (0..length as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8);
    numbers.collect::<Vec<_>>().into()
}

async fn begin(server: SocketAddr, name: &str) -> String {
    let path = format!("/v2/{name}/blobs/uploads/");
    let response = send_body(server, Method::POST, &path, &[], "").await;
    assert_eq!(response.status(), 202, "{:?}", response.body());
    location(&response)
}

/// Sends a chunk that must be taken; gives the next location.
async fn append(server: SocketAddr, location_: &str, chunk: Bytes) -> String {
    let response = send_body(server, Method::PATCH, location_, &[], chunk).await;
    assert_eq!(response.status(), 202, "{:?}", response.body());
    location(&response)
}

async fn finish(
    server: SocketAddr,
    location: &str,
    digest: &Digest,
    chunk: impl Into<Bytes>,
) -> Response<Bytes> {
    send_body(server, Method::PUT, &format!("{location}&digest={digest}"), &[], chunk).await
}

async fn blob(server: SocketAddr, name: &str, digest: &Digest) -> Response<Bytes> {
    client::get(server, &format!("/v2/{name}/blobs/{digest}"), &[]).await
}

/// The content in pieces, without a length.
fn pieces(content: &Bytes) -> impl futures::Stream<Item = Bytes> + Send + 'static {
    let pieces: Vec<_> = content.chunks(50_000).map(Bytes::copy_from_slice).collect();
    stream::iter(pieces)
}

/// Uploads in every way, each into a repository of its own, and reads back.
async fn upload_in_every_way(server: SocketAddr) {
    let content = content(3 * MIB + 17);
    for digest in [digest_of(&content), Digest::of(Algorithm::Sha512, &content)] {
        let algorithm = digest.algorithm().as_str();
        let target = format!("/v2/{algorithm}/one/blobs/uploads?digest={digest}");
        let posted = send_body(server, Method::POST, &target, &[], content.clone()).await;
        assert_eq!(posted.status(), 201, "{:?}", posted.body());
        let target = format!("/v2/{algorithm}/two/blobs/uploads/?digest={digest}");
        let posted = send_pieces(server, Method::POST, &target, &[], pieces(&content)).await;
        assert_eq!(posted.status(), 201, "{:?}", posted.body());

        let three = begin(server, &format!("{algorithm}/three")).await;
        let put = finish(server, &three, &digest, content.clone()).await;
        assert_eq!(put.status(), 201, "{:?}", put.body());

        let four = begin(server, &format!("{algorithm}/four")).await;
        let patched = send_pieces(server, Method::PATCH, &four, &[], pieces(&content)).await;
        assert_eq!(patched.status(), 202, "{:?}", patched.body());
        let range = patched.headers()["range"].to_str().expect("text").to_owned();
        assert_eq!(range, format!("0-{}", content.len() - 1));
        let put = finish(server, &location(&patched), &digest, "").await;
        assert_eq!(put.status(), 201, "{:?}", put.body());

        let mut five = begin(server, &format!("{algorithm}/five")).await;
        five = append(server, &five, content.slice(..MIB)).await;
        five = append(server, &five, content.slice(MIB..MIB + 1)).await;
        let put = finish(server, &five, &digest, content.slice(MIB + 1..)).await;
        assert_eq!(put.status(), 201, "{:?}", put.body());

        for name in ["one", "two", "three", "four", "five"] {
            let found = blob(server, &format!("{algorithm}/{name}"), &digest).await;
            assert_eq!(found.status(), 200, "{name}");
            assert!(found.body() == &content, "{name}: the content is another");
        }
    }
    for (path, headers) in [("known", &[("content-length", "0")][..]), ("unknown", &[])] {
        let digest = digest_of(b"");
        let at = begin(server, &format!("empty/{path}")).await;
        let target = format!("{at}&digest={digest}");
        let put = send_pieces(server, Method::PUT, &target, headers, stream::empty()).await;
        assert_eq!(put.status(), 201, "{:?}", put.body());
        assert_eq!(blob(server, &format!("empty/{path}"), &digest).await.body().len(), 0);
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_blob_is_uploaded_in_every_way() {
    let registry = Registry::start().await;
    upload_in_every_way(registry.envoy.address).await;
    for algorithm in ["sha256", "sha512"] {
        for name in ["three", "four", "five"] {
            let left = registry.sessions(&format!("{algorithm}/{name}"));
            assert_eq!(left, Vec::<PathBuf>::new(), "nothing of a closed upload stays");
        }
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_blob_is_uploaded_to_a_store_that_demands_signatures() {
    let root = TempDir::new().expect("a temporary folder");
    let store = BlobStore::signed(root.path()).await;
    // It wants to know the length of what is signed without its content.
    let envoy = Envoy::start(&Bootstrap::new(store.address).signed().spooling()).await;
    upload_in_every_way(envoy.address).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_store_that_wants_to_know_the_length_first_is_served_by_spooling() {
    let root = TempDir::new().expect("a temporary folder");
    let store = BlobStore::requiring_length(root.path()).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address).spooling()).await;
    upload_in_every_way(envoy.address).await;

    let plain = Envoy::start(&Bootstrap::new(store.address)).await;
    let at = begin(plain.address, "a").await;
    // Small enough for the store to have read it before it closes the connection.
    let body = pieces(&content(10));
    let patched = send_pieces(plain.address, Method::PATCH, &at, &[], body).await;
    assert_eq!(error_of(&patched), (500, "UNKNOWN".to_owned()));
    let message = String::from_utf8_lossy(patched.body()).into_owned();
    assert!(message.contains("file_system_buffer"), "{message}");
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn large_chunks_are_put_together_by_the_store() {
    let registry = Registry::start().await;
    let server = registry.envoy.address;
    let content = content(25 * MIB);
    let digest = digest_of(&content);
    let mut at = begin(server, "a").await;
    for (start, end) in [(0, 6), (6, 7), (7, 18), (18, 25)] {
        at = append(server, &at, content.slice(start * MIB..end * MIB)).await;
    }
    let put = finish(server, &at, &digest, "").await;
    assert_eq!(put.status(), 201, "{:?}", put.body());
    assert!(blob(server, "a", &digest).await.body() == &content, "the content is another");
}

/// The chunks' names are in several objects, and all of the content has to be read to be hashed.
#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn many_small_chunks_make_a_blob_of_another_algorithm_than_they_were_hashed_by() {
    let registry = Registry::start().await;
    let server = registry.envoy.address;
    let content = content(100);
    let mut at = begin(server, "a").await;
    for byte in content.chunks(1) {
        at = append(server, &at, Bytes::copy_from_slice(byte)).await;
    }
    let wrong = Digest::of(Algorithm::Sha512, b"other");
    let refused = join_all((0..4).map(|_| finish(server, &at, &wrong, ""))).await;
    for response in refused {
        assert_eq!(error_of(&response), (400, "DIGEST_INVALID".to_owned()));
    }
    let digest = Digest::of(Algorithm::Sha512, &content);
    let put = finish(server, &at, &digest, "").await;
    assert_eq!(put.status(), 201, "{:?}", put.body());
    assert!(blob(server, "a", &digest).await.body() == &content, "the content is another");
    assert_eq!(registry.sessions("a"), Vec::<PathBuf>::new());
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn what_does_not_match_its_digest_is_not_kept() {
    let registry = Registry::start().await;
    let server = registry.envoy.address;
    let content = content(2 * MIB);
    for wrong in [digest_of(b"other"), Digest::of(Algorithm::Sha512, b"other")] {
        let invalid = (400, "DIGEST_INVALID".to_owned());
        // From the second time on it is known that the store verifies by itself.
        for _ in 0..2 {
            let target = format!("/v2/a/blobs/uploads?digest={wrong}");
            let posted = send_body(server, Method::POST, &target, &[], content.clone()).await;
            assert_eq!(error_of(&posted), invalid);
            let posted = send_pieces(server, Method::POST, &target, &[], pieces(&content)).await;
            assert_eq!(error_of(&posted), invalid);
            let at = begin(server, "a").await;
            assert_eq!(error_of(&finish(server, &at, &wrong, content.clone()).await), invalid);
            let at = append(server, &at, content.slice(..MIB)).await;
            let rest = content.slice(MIB..);
            assert_eq!(error_of(&finish(server, &at, &wrong, rest.clone()).await), invalid);
            assert!(!registry.has_content(&wrong));
            // The session is still where it was.
            let right = digest_of(&content);
            assert_eq!(finish(server, &at, &right, rest).await.status(), 201);
        }
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn several_envoys_take_the_chunks_of_one_upload_in_turn() {
    let registry = Registry::start().await;
    let other = Envoy::start(&Bootstrap::new(registry.store.address)).await;
    let servers = [registry.envoy.address, other.address];
    let content = content(MIB);
    let digest = digest_of(&content);
    let mut at = begin(servers[1], "a").await;
    for (number, chunk) in content.chunks(100_000).enumerate() {
        at = append(servers[number % 2], &at, Bytes::copy_from_slice(chunk)).await;
    }
    assert_eq!(finish(servers[1], &at, &digest, "").await.status(), 201);
    for server in servers {
        assert!(blob(server, "a", &digest).await.body() == &content, "the content is another");
    }
}

/// Sends the head of a request and half of its body, and leaves the connection open.
async fn send_half(server: SocketAddr, method: &str, target: &str, content: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server).await.expect("Envoy listens");
    let length = content.len();
    let head = format!("{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("Envoy reads");
    stream.write_all(&content[..length / 2]).await.expect("Envoy reads");
    stream
}

/// Waits until the store has begun to write something, or has given it up again.
async fn wait_for_staging(registry: &Registry, is_empty: bool) {
    let staging = registry.root.path().join(".blob-store/staging");
    wait_for("the store's staging folder", async || {
        let count = std::fs::read_dir(&staging).ok()?.count();
        ((count == 0) == is_empty).then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_client_or_an_envoy_that_goes_away_leaves_an_upload_that_goes_on() {
    let content = content(8 * MIB);
    let digest = digest_of(&content);
    for kills_envoy in [false, true] {
        let registry = Registry::start().await;
        let other = Envoy::start(&Bootstrap::new(registry.store.address)).await;
        let doomed = Envoy::start(&Bootstrap::new(registry.store.address)).await;
        let at = begin(doomed.address, "a").await;
        let at = append(doomed.address, &at, content.slice(..MIB)).await;
        let whole = begin(doomed.address, "b").await;
        let halves = [
            send_half(doomed.address, "PATCH", &at, &content[MIB..]).await,
            send_half(doomed.address, "PUT", &format!("{whole}&digest={digest}"), &content).await,
        ];
        wait_for_staging(&registry, false).await;
        if kills_envoy {
            doomed.kill().await;
        } else {
            drop(halves);
        }
        wait_for_staging(&registry, true).await;
        assert!(!registry.has_content(&digest), "half a blob is no blob");
        let path = at.split('?').next().expect("a path");
        let status = client::get(other.address, path, &[]).await;
        assert_eq!(status.headers()["range"], format!("0-{}", MIB - 1).as_str());
        let put = finish(other.address, &location(&status), &digest, content.slice(MIB..)).await;
        assert_eq!(put.status(), 201, "{:?}", put.body());
        let put = finish(other.address, &whole, &digest, content.clone()).await;
        assert_eq!(put.status(), 201, "{:?}", put.body());
        assert!(blob(other.address, "a", &digest).await.body() == &content);
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_cancelled_upload_leaves_nothing() {
    let registry = Registry::start().await;
    let server = registry.envoy.address;
    let at = append(server, &begin(server, "a").await, content(MIB)).await;
    let cancel = client::send(server, client::request(Method::DELETE, &at, &[])).await;
    assert_eq!(cancel.status(), 204);
    assert_eq!(registry.sessions("a"), Vec::<PathBuf>::new());
    let unknown = (404, "BLOB_UPLOAD_UNKNOWN".to_owned());
    // The body is small enough to be read before it is refused.
    let patched = send_body(server, Method::PATCH, &at, &[], content(100_000)).await;
    assert_eq!(error_of(&patched), unknown);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn the_peer_serves_what_was_uploaded_here_and_the_reverse() {
    let registry = Registry::start().await;
    let peer = DockerRegistry::start(&registry.bucket()).await;
    let servers = [registry.envoy.address, peer.address];
    for (number, server) in servers.into_iter().enumerate() {
        let content = content(MIB + number);
        let digest = digest_of(&content);
        let at = begin(server, "a/b").await;
        let target = format!("{at}&digest={digest}");
        let put = send_body(server, Method::PUT, &target, &[], content.clone()).await;
        assert_eq!(put.status(), 201, "{:?}", put.body());
        for server in servers {
            let found = blob(server, "a/b", &digest).await;
            assert_eq!(found.status(), 200);
            assert!(found.body() == &content, "the content is another");
        }
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_fault_at_any_storage_call_of_an_upload_is_an_error_in_the_apis_json() {
    let content = content(100_000);
    let digest = digest_of(&content);
    let mut faults = faults();
    // No write is answered so by a store that works.
    let no_such_key = Behaviour::Answer(404, "<Error><Code>NoSuchKey</Code></Error>");
    faults.push((no_such_key, 500, "UNKNOWN"));
    for (behaviour, status, code) in &faults {
        // The content itself, and the repository's link to it.
        for key_part in ["v2/blobs/", "/_layers/"] {
            let (_store, envoy) = faulty(Tree::default(), behaviour, key_part).await;
            let target = format!("/v2/a/blobs/uploads?digest={digest}");
            let response =
                send_body(envoy.address, Method::POST, &target, &[], content.clone()).await;
            let found = error_of(&response);
            assert_eq!(found, (*status, (*code).to_owned()), "{behaviour:?} of {key_part}");
        }
    }
}
