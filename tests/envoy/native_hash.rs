//! Uploads that are hashed in native code, before the filter, by the dynamic module of `crates/native-hash`.

mod libraries;

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::channel::mpsc;
use futures::{StreamExt as _, stream};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use moorage::oci::{Algorithm, Digest};
use moorage::store::layout;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client::{self, error_of, location, send_body, send_pieces};
use moorage_test_support::digest_of;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::{tool, wait_for};

const HASHES: &str = "wasmcustom.moorage_native_hashes_total";

const SIZE: usize = 3 * 1024 * 1024 + 17;

/// The built library.
fn library() -> PathBuf {
    tool("MOORAGE_NATIVE_HASH_LIBRARY")
}

struct Registry {
    envoy: Envoy,
    root: TempDir,
    _store: BlobStore,
}

impl Registry {
    async fn start() -> Self {
        Self::with(&library(), |bootstrap| bootstrap).await
    }

    /// With this library in place of the one that was built, and changes.
    async fn with(library: &Path, change: impl FnOnce(Bootstrap) -> Bootstrap) -> Self {
        let root = TempDir::new().expect("a temporary folder");
        let store = BlobStore::open(root.path()).await;
        let envoy = Envoy::start(&change(bootstrap(&store, library))).await;
        Self { envoy, root, _store: store }
    }

    /// How many bodies the filter has taken the native hash of; Envoy knows it with the plugin's next tick.
    async fn expect_hashes(&self, expected: u64) {
        wait_for("the native hashes to be counted", async || {
            (self.envoy.stat(HASHES).await == expected).then_some(())
        })
        .await;
    }

    async fn begin(&self, name: &str) -> String {
        let path = format!("/v2/{name}/blobs/uploads/");
        location(&send_body(self.envoy.address, Method::POST, &path, &[], "").await)
    }

    /// Sends a body whose length is not announced.
    async fn append(&self, location: &str, content: &Bytes) -> Response<Bytes> {
        send_pieces(self.envoy.address, Method::PATCH, location, &[], pieces(content)).await
    }

    async fn close(&self, location: &str, digest: &Digest) -> Response<Bytes> {
        let path = format!("{location}&digest={digest}");
        send_body(self.envoy.address, Method::PUT, &path, &[], "").await
    }

    fn stored(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bucket = self.root.path().join("registry");
        fs::read(bucket.join(layout::content(digest).as_str())).ok()
    }

    /// What the session's progress says that it was hashed to, by the session's id.
    fn progress(&self, name: &str, location: &str) -> String {
        let id = location.rsplit('/').next().and_then(|rest| rest.split('?').next());
        let folder = format!(
            "registry/docker/registry/v2/repositories/{name}/_uploads/{}/progress",
            id.expect("a session")
        );
        let entries = fs::read_dir(self.root.path().join(folder)).expect("there is progress");
        let newest = entries.map(|entry| entry.expect("an entry").path()).max();
        fs::read_to_string(newest.expect("progress")).expect("text")
    }
}

fn bootstrap(store: &BlobStore, library: &Path) -> Bootstrap {
    Bootstrap::new(store.address).hashing_with(library)
}

/// Content that no other seed gives.
fn content(length: usize, seed: u64) -> Bytes {
    let numbers = (0..length as u64).map(|n| {
        let mixed =
            (n ^ seed.wrapping_mul(0xff51_afd7_ed55_8ccd)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as u8
    });
    numbers.collect::<Vec<_>>().into()
}

fn pieces(content: &Bytes) -> impl futures::Stream<Item = Bytes> + Send + 'static {
    let pieces: Vec<_> = content.chunks(50_000).map(Bytes::copy_from_slice).collect();
    stream::iter(pieces)
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn the_native_hash_of_a_chunk_is_used_and_right() {
    upload_chunks(&Registry::start().await).await;
    // Where a filter behind Moorage keeps bodies until they are whole.
    upload_chunks(&Registry::with(&library(), Bootstrap::spooling).await).await;
}

async fn upload_chunks(registry: &Registry) {
    let mut hashes = 0;
    for (seed, length) in [(1, SIZE), (2, 1), (3, 64), (4, 131_072)] {
        let content = content(length, seed);
        let digest = digest_of(&content);
        for tells_length in [false, true] {
            let session = registry.begin("a").await;
            let appended = match tells_length {
                false => registry.append(&session, &content).await,
                true => {
                    let content = content.clone();
                    send_body(registry.envoy.address, Method::PATCH, &session, &[], content).await
                }
            };
            let next = location(&appended);
            let wrong = registry.close(&next, &digest_of(b"other")).await;
            assert_eq!(error_of(&wrong), (400, "DIGEST_INVALID".to_owned()), "{length}");
            assert_eq!(registry.close(&next, &digest).await.status(), 201, "{length}");
            assert_eq!(registry.stored(&digest).as_deref(), Some(&content[..]), "{length}");
            hashes += 1;
        }
    }
    registry.expect_hashes(hashes).await;
}

/// What comes in one piece is hashed as long as it is not known that the store verifies checksums. This one does, which an
/// Envoy knows once an upload session has begun.
#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn the_native_hash_of_a_whole_blob_is_used_and_right() {
    let content = content(SIZE, 5);
    let (digest, wrong) = (digest_of(&content), digest_of(b"other"));
    for (method, hashes) in [(Method::POST, 1), (Method::PUT, 0)] {
        for (claimed, expected) in [(&wrong, 400), (&digest, 201)] {
            let registry = Registry::start().await;
            let path = match method {
                Method::POST => format!("/v2/a/blobs/uploads/?digest={claimed}"),
                _ => format!("{}&digest={claimed}", registry.begin("a").await),
            };
            let sent = content.clone();
            let answer = send_body(registry.envoy.address, method.clone(), &path, &[], sent).await;
            assert_eq!(answer.status(), expected, "{method} {claimed}: {:?}", answer.body());
            let stored = (expected == 201).then_some(&content[..]);
            assert_eq!(registry.stored(claimed).as_deref(), stored);
            registry.expect_hashes(hashes).await;
        }
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn what_goes_on_later_is_hashed_in_the_module() {
    let registry = Registry::start().await;
    let content = content(SIZE, 6);
    let mut at = registry.begin("a").await;
    for chunk in [content.slice(..100), content.slice(100..70_001), content.slice(70_001..)] {
        at = location(&registry.append(&at, &chunk).await);
        assert!(registry.progress("a", &at).contains("\"state\""), "the hash's state is there");
    }
    assert_eq!(error_of(&registry.close(&at, &digest_of(b"other")).await).1, "DIGEST_INVALID");
    assert_eq!(registry.close(&at, &digest_of(&content)).await.status(), 201);
    let sha512 = Digest::of(Algorithm::Sha512, &content);
    let path = format!("/v2/a/blobs/uploads/?digest={sha512}");
    let posted = send_body(registry.envoy.address, Method::POST, &path, &[], content.clone()).await;
    assert_eq!(posted.status(), 201);
    registry.expect_hashes(1).await;
}

/// A request whose body is what comes through a channel.
fn streamed(
    method: Method,
    uri: &str,
    frames: mpsc::UnboundedReceiver<Frame<Bytes>>,
) -> Request<StreamBody<impl futures::Stream<Item = Result<Frame<Bytes>, Infallible>> + use<>>> {
    let request = Request::builder().method(method).uri(uri).header("host", "registry");
    request.body(StreamBody::new(frames.map(Ok))).expect("a request")
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn uploads_one_after_the_other_on_a_connection_have_hashes_of_their_own() {
    let registry = Registry::start().await;
    let mut sender = client::connect(registry.envoy.address).await.expect("a connection");
    for seed in 10..14 {
        let content = content(200_000 + seed as usize, seed);
        let session = registry.begin("a").await;
        let (frames, receiver) = mpsc::unbounded();
        for piece in content.chunks(50_000).map(Bytes::copy_from_slice) {
            frames.unbounded_send(Frame::data(piece)).expect("a receiver");
        }
        drop(frames);
        let request = streamed(Method::PATCH, &session, receiver);
        let answer = sender.send_request(request).await.expect("an answer");
        let (parts, body) = answer.into_parts();
        body.collect().await.expect("a body");
        let next = location(&Response::from_parts(parts, Bytes::new()));
        assert_eq!(registry.close(&next, &digest_of(&content)).await.status(), 201);
    }
    registry.expect_hashes(4).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn uploads_beside_each_other_on_a_connection_have_hashes_of_their_own() {
    let registry = Registry::start().await;
    let sender = client::connect_http2(registry.envoy.address).await.expect("a connection");
    let mut uploads = Vec::new();
    for seed in 20..24 {
        let session = registry.begin("a").await;
        let (frames, receiver) = mpsc::unbounded();
        let request = streamed(Method::PATCH, &format!("http://registry{session}"), receiver);
        let mut sender = sender.clone();
        let answer = tokio::spawn(async move { sender.send_request(request).await });
        uploads.push((content(300_000 + seed as usize, seed), frames, answer));
    }
    for start in (0..400_000).step_by(10_000) {
        for (content, frames, _) in &uploads {
            let end = content.len().min(start + 10_000);
            if start < end {
                frames.unbounded_send(Frame::data(content.slice(start..end))).expect("a receiver");
            }
        }
        tokio::task::yield_now().await;
    }
    // One of them ends with trailers.
    let trailers = [("x-checksum", "1")].map(|(name, value)| {
        (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
    });
    let frames = &uploads[0].1;
    frames.unbounded_send(Frame::trailers(trailers.into_iter().collect())).expect("a receiver");
    for (content, frames, answer) in uploads {
        drop(frames);
        let answer = answer.await.expect("no panic").expect("an answer");
        assert_eq!(answer.status(), 202);
        let next = location(&answer.map(|_| Bytes::new()));
        assert_eq!(registry.close(&next, &digest_of(&content)).await.status(), 201);
    }
    registry.expect_hashes(4).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_body_that_breaks_off_or_has_another_length_stores_nothing_and_leaves_the_hasher_as_it_was()
 {
    let registry = Registry::start().await;
    let server = registry.envoy.address;
    let content = content(SIZE, 30);
    let digest = digest_of(&content);

    // The client leaves in the middle of what it has announced, or of chunks.
    for length in
        [format!("content-length: {SIZE}\r\n"), "transfer-encoding: chunked\r\n".to_owned()]
    {
        let session = registry.begin("a").await;
        let head = format!("PATCH {session} HTTP/1.1\r\nhost: registry\r\n{length}\r\n");
        let mut stream = TcpStream::connect(server).await.expect("a connection");
        stream.write_all(head.as_bytes()).await.expect("it is read");
        if length.starts_with('t') {
            stream.write_all(format!("{SIZE:x}\r\n").as_bytes()).await.expect("it is read");
        }
        stream.write_all(&content[..SIZE / 2]).await.expect("it is read");
        drop(stream);
        let status = client::get(server, &session, &[]).await;
        assert!(location(&status).contains("offset=0"));
        let next = location(&registry.append(&session, &content).await);
        assert_eq!(registry.close(&next, &digest).await.status(), 201);
    }
    registry.expect_hashes(2).await;

    // HTTP/2 does not take a body of another length than announced, wherever it ends.
    for announced in [SIZE - 1, SIZE + 1] {
        let session = registry.begin("a").await;
        let (frames, receiver) = mpsc::unbounded();
        for piece in content.chunks(50_000).map(Bytes::copy_from_slice) {
            frames.unbounded_send(Frame::data(piece)).expect("a receiver");
        }
        drop(frames);
        let mut request = streamed(Method::PATCH, &format!("http://registry{session}"), receiver);
        request.headers_mut().insert("content-length", announced.into());
        let answer = client::open_http2(server, request).await;
        assert!(answer.is_err(), "{announced} {:?}", answer.map(|answer| answer.status()));
        assert!(location(&client::get(server, &session, &[]).await).contains("offset=0"));
    }

    // What a range says of a body is not so.
    let session = registry.begin("a").await;
    let range = [("content-range", "0-99")];
    let refused = send_pieces(server, Method::PATCH, &session, &range, pieces(&content)).await;
    assert_eq!(error_of(&refused), (400, "SIZE_INVALID".to_owned()));

    // A body without a byte of it, which has a hash like any other.
    let empty = registry.append(&session, &Bytes::new()).await;
    assert_eq!(empty.status(), 202, "{:?}", empty.body());
    let next = location(&registry.append(&session, &content).await);
    assert_eq!(registry.close(&next, &digest).await.status(), 201, "{next}");
    assert!(!registry.envoy.log().contains("native hasher left no hash"));
}

/// What a client might send for what the hasher leaves.
const FORGED: &[(&str, &str)] = &[
    ("moorage.native_hash", "sha256/1"),
    ("moorage.native_hash.result", "AAAAAAAAAAA="),
    ("wasm.moorage_native_hash", "1"),
    ("filter_state", "moorage.native_hash"),
    ("x-envoy-filter-state", "moorage.native_hash=sha256/1"),
];

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn nothing_that_a_client_sends_counts_for_a_hash() {
    let root = TempDir::new().expect("a temporary folder");
    let store = BlobStore::open(root.path()).await;
    let without = Envoy::start(&Bootstrap::new(store.address)).await;
    let with = Envoy::start(&bootstrap(&store, &library())).await;
    let content = content(SIZE, 40);
    for (envoy, expected) in [(&without, 0), (&with, 1)] {
        let path = "/v2/a/blobs/uploads/?moorage.native_hash=sha256/1";
        let begun = send_body(envoy.address, Method::POST, path, FORGED, "").await;
        let session = location(&begun);
        let sent = send_pieces(envoy.address, Method::PATCH, &session, FORGED, pieces(&content));
        let next = location(&sent.await);
        for (digest, status) in [(digest_of(b"other"), 400), (digest_of(&content), 201)] {
            let path = format!("{next}&digest={digest}");
            let closed = send_body(envoy.address, Method::PUT, &path, FORGED, "").await;
            assert_eq!(closed.status(), status, "{:?}", closed.body());
        }
        wait_for("the upload to be counted", async || {
            let finished = envoy.stat("wasmcustom.moorage_uploads_finished_total").await;
            (finished == 1).then_some(())
        })
        .await;
        assert_eq!(envoy.stat(HASHES).await, expected);
    }
}
