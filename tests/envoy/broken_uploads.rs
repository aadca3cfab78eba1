//! Uploads whose connection to the store breaks: each is answered at once, whatever of its body has come, and
//! nothing of it is stored.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use moorage::oci::{Algorithm, Digest};
use moorage::store::layout;
use tempfile::TempDir;
use tokio::time::timeout;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client::{self, error_of};
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::relay::Relay;

const SIZE: usize = 4 * 1024 * 1024;
const PIECE: usize = 16 * 1024;

/// How long an answer may take: far less than the 300 seconds after which Envoy ends a stream that does not
/// move, and far more than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a client sends an upload.
#[derive(Debug, Clone, Copy)]
struct Sending {
    is_http2: bool,
    tells_length: bool,
}

struct Registry {
    envoy: Envoy,
    relay: Relay,
    root: TempDir,
    _store: BlobStore,
}

impl Registry {
    async fn start() -> Self {
        let root = TempDir::new().expect("a temporary folder");
        let store = BlobStore::open(root.path()).await;
        let relay = Relay::start(store.address).await;
        let envoy = Envoy::start(&Bootstrap::new(relay.address)).await;
        Self { envoy, relay, root, _store: store }
    }

    /// The location of a new session.
    async fn session(&self) -> String {
        let begin = client::request(Method::POST, "/v2/a/blobs/uploads/", &[]);
        let begun = client::send(self.envoy.address, begin).await;
        begun.headers()["location"].to_str().expect("text").to_owned()
    }

    /// Sends the content piece by piece, and gives the answer, which may come before all of it is sent.
    async fn upload(
        &self,
        method: Method,
        target: &str,
        content: &Bytes,
        sending: Sending,
    ) -> Response<Bytes> {
        let authority = if sending.is_http2 { "http://registry" } else { "" };
        let mut request = Request::builder().method(method).uri(format!("{authority}{target}"));
        if !sending.is_http2 {
            request = request.header("host", "registry");
        }
        if sending.tells_length {
            request = request.header("content-length", content.len());
        }
        let pieces: Vec<Bytes> = content.chunks(PIECE).map(Bytes::copy_from_slice).collect();
        let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
        let request = request.body(StreamBody::new(stream::iter(frames))).expect("a request");
        let asking = async {
            let response = match sending.is_http2 {
                true => client::open_http2(self.envoy.address, request).await,
                false => client::open(self.envoy.address, request).await,
            };
            let (parts, body) = response.expect("an answer").into_parts();
            let body = body.collect().await.expect("a whole answer").to_bytes();
            Response::from_parts(parts, body)
        };
        timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("no answer to {target}"))
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn an_upload_whose_store_dies_is_answered_at_once_and_stores_nothing() {
    let registry = Registry::start().await;
    let content = Bytes::from(vec![b'x'; SIZE]);
    let digest = Digest::of(Algorithm::Sha256, &content);
    let whole = SIZE as u64;
    for is_http2 in [false, true] {
        for tells_length in [true, false] {
            // The store reads the head of each request as well, so the last of these is in the last bytes.
            for dies_after in [whole / 100, whole / 2, whole - 1] {
                for kind in ["chunk", "closing", "at once"] {
                    let sending = Sending { is_http2, tells_length };
                    let what = format!("{kind}, {sending:?}, dead after {dies_after} bytes");
                    let session = registry.session().await;
                    let (method, target) = match kind {
                        "chunk" => (Method::PATCH, session.clone()),
                        "closing" => (Method::PUT, format!("{session}&digest={digest}")),
                        _ => (Method::POST, format!("/v2/a/blobs/uploads/?digest={digest}")),
                    };
                    registry.relay.die_after(dies_after);
                    let answer = registry.upload(method, &target, &content, sending).await;
                    assert!(registry.relay.is_dead(), "{what}");
                    assert_eq!(error_of(&answer), (503, "UNAVAILABLE".to_owned()), "{what}");
                    registry.relay.revive();

                    // The session is where it was, and takes the same again.
                    let data = registry.root.path().join("registry");
                    assert!(!data.join(layout::content(&digest).as_str()).exists(), "{what}");
                    let status = client::get(registry.envoy.address, &session, &[]).await;
                    assert_eq!(status.status(), 204, "{what}");
                    assert!(
                        status.headers()["location"]
                            .to_str()
                            .is_ok_and(|at| at.contains("offset=0"))
                    );
                    let again = registry.upload(Method::PATCH, &session, &content, sending).await;
                    assert_eq!(again.status(), 202, "{what}: {:?}", again.body());
                    let cancel = client::request(Method::DELETE, &session, &[]);
                    let cancelled = client::send(registry.envoy.address, cancel).await;
                    assert_eq!(cancelled.status(), 204, "{what}");
                }
            }
        }
    }
    assert_eq!(registry.envoy.stat("wasm.moorage.vm_reload_success").await, 0);
}
