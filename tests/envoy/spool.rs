//! Uploads of unknown length, which Envoy spools to disk, when the client or the store falls silent.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use http::{Method, Response};
use tempfile::TempDir;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client::{error_of, location, send_body, send_pieces};
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::relay::Relay;

const MIB: usize = 1024 * 1024;

/// An Envoy that gives up what stands still for a second, before a store behind a relay.
struct Registry {
    envoy: Envoy,
    relay: Relay,
    _store: BlobStore,
    _root: TempDir,
}

impl Registry {
    async fn start() -> Self {
        let root = TempDir::new().expect("a temporary folder");
        let store = BlobStore::requiring_length(root.path()).await;
        let relay = Relay::start(store.address).await;
        let bootstrap = Bootstrap::new(relay.address).spooling();
        let bootstrap = bootstrap.with("idle_timeout: 300s", "idle_timeout: 1s");
        Self { envoy: Envoy::start(&bootstrap).await, relay, _store: store, _root: root }
    }

    fn address(&self) -> SocketAddr {
        self.envoy.address
    }

    /// The location of a new session.
    async fn begin(&self) -> String {
        location(&send_body(self.address(), Method::POST, "/v2/a/blobs/uploads/", &[], "").await)
    }
}

async fn patch(
    server: SocketAddr,
    session: &str,
    pieces: impl stream::Stream<Item = Bytes> + Send + 'static,
) -> Response<Bytes> {
    send_pieces(server, Method::PATCH, session, &[], pieces).await
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_client_that_stops_sending_is_told_so() {
    let registry = Registry::start().await;
    let session = registry.begin().await;
    let half = stream::iter([Bytes::from_static(b"half")]).chain(stream::pending());
    let patched = patch(registry.address(), &session, half).await;
    assert_eq!(error_of(&patched).0, 408, "{:?}", patched.body());
    let again = patch(registry.address(), &session, stream::iter([Bytes::from_static(b"whole")]));
    assert_eq!(again.await.status(), 202);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_store_that_stops_taking_ends_the_upload() {
    let registry = Registry::start().await;
    let session = registry.begin().await;
    // Fast enough for all but the chunk.
    registry.relay.slow_down(64 * 1024);
    let pieces = stream::iter([Bytes::from(vec![b'x'; MIB])]);
    let patched = patch(registry.address(), &session, pieces).await;
    assert_eq!(error_of(&patched), (504, "UNAVAILABLE".to_owned()), "{:?}", patched.body());
}
