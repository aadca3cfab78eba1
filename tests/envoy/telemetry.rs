//! What operators see of a registry in a real Envoy: its log, its metrics and its traces.

mod access_log;
mod metrics;
mod odd_requests;
mod start;
mod store_calls;
mod traces;

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Response};
use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client::{self, location};
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::wait_for;
use serde_json::Value;
use tempfile::TempDir;

/// A manifest that refers to nothing.
const MANIFEST: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
const MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// A registry on a store in a folder.
struct Registry {
    envoy: Envoy,
    _store: BlobStore,
    _root: TempDir,
}

impl Registry {
    /// One with the local bootstrap, but for this.
    async fn start(change: impl FnOnce(Bootstrap) -> Bootstrap) -> Self {
        Self::start_on(|store| change(Bootstrap::new(store))).await
    }

    /// One with the bootstrap that this makes for a store.
    async fn start_on(bootstrap: impl FnOnce(SocketAddr) -> Bootstrap) -> Self {
        let root = TempDir::new().expect("a temporary folder");
        std::fs::create_dir(root.path().join("registry")).expect("a folder");
        let store = BlobStore::open(root.path()).await;
        let envoy = Envoy::start(&bootstrap(store.address)).await;
        Self { envoy, _store: store, _root: root }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Bytes> {
        client::send_body(self.envoy.address, method, path, headers, body).await
    }

    /// The same, and the answer has to have this status.
    async fn expect(
        &self,
        status: u16,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Response<Bytes> {
        let response = self.send(method.clone(), path, &[], body).await;
        assert_eq!(response.status(), status, "{method} {path}: {response:?}");
        response
    }
}

/// The lines of the access log so far, which is in Envoy's own.
fn access_log(envoy: &Envoy) -> Vec<Value> {
    let log = envoy.log();
    let lines = log.lines().filter(|line| line.starts_with('{'));
    let read = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
    lines.map(read).collect()
}

/// The line of the access log of the request with this `x-request-id`, once it is there.
async fn line_of(envoy: &Envoy, request_id: &str) -> Value {
    wait_for("a line of the access log", async || {
        // The last line may have been written in part.
        let log = envoy.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["request_id"] == request_id)
    })
    .await
}
