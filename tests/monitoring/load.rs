//! A registry, and everything that can happen to it.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Response};
use moorage::oci::Digest;
use moorage_test_support::accounts::{DEPLOY, READER, User, access};
use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client::{self, location};
use moorage_test_support::digest_of;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::{tool, wait_for};
use moorage_test_support::stand_in::{Behaviour, StandIn};
use moorage_test_support::tree::Tree;
use tempfile::TempDir;

/// A cache of a few manifests (an entry takes an eighth at most), pulls that outlive the store, and three receivers of events: one takes them, one
/// refuses them, one is away.
const FIELDS: &str = r#"
    "cache": { "max_bytes": 65536, "stale_if_error": "1h" },
    "events": { "endpoints": [
        { "name": "takes", "cluster": "receiver", "authority": "receiver", "path": "/takes" },
        { "name": "refuses", "cluster": "receiver", "authority": "receiver", "path": "/refuses" },
        { "name": "away", "cluster": "away", "authority": "away", "path": "/" }
    ] }"#;

/// Port 1 is nobody's.
const CLUSTERS: &str = r"
    - name: away
      type: STATIC
      load_assignment: { cluster_name: away, endpoints: [ { lb_endpoints: [ { endpoint: { address: {
        socket_address: { address: 127.0.0.1, port_value: 1 } } } } ] } ] }
    - name: receiver
      type: STATIC
      load_assignment: { cluster_name: receiver, endpoints: [ { lb_endpoints: [ { endpoint: { address: {
        socket_address: { address: 127.0.0.1, port_value: RECEIVER } } } } ] } ] }
";

/// A pull's tag that is read again and again.
const KEPT: &str = "/v2/team/app/manifests/kept";

/// A registry in Envoy with all that it needs.
pub struct Registry {
    pub envoy: Envoy,
    store: Option<BlobStore>,
    store_address: SocketAddr,
    root: TempDir,
    _receiver: StandIn,
    rounds: usize,
}

impl Registry {
    pub async fn start() -> Self {
        let root = TempDir::new().expect("a temporary folder");
        let store = BlobStore::open(root.path()).await;
        let receiver = StandIn::start(Tree::default(), |path, _| match path {
            "/takes" => Behaviour::Answer(200, ""),
            _ => Behaviour::Answer(400, ""),
        })
        .await;
        let clusters = CLUSTERS.replace("RECEIVER", &receiver.address.port().to_string());
        let bootstrap = Bootstrap::new(store.address)
            .hashing_with(&tool("MOORAGE_NATIVE_HASH_LIBRARY"))
            .with_access(&access().await)
            // In the bootstrap it stands in a block, whose lines are indented.
            .with_fields(&FIELDS.replace('\n', " "))
            .with("\n  clusters:\n", &format!("\n  clusters:\n{clusters}"))
            .workers(2);
        let envoy = Envoy::start(&bootstrap).await;
        let store_address = store.address;
        let store = Some(store);
        let registry = Self { envoy, store, store_address, root, _receiver: receiver, rounds: 0 };
        registry.expect(201, Method::PUT, KEPT, index("kept")).await;
        registry
    }

    /// Everything that happens on a day with a store, and every fifth time an hour without one.
    pub async fn round(&mut self) {
        self.rounds += 1;
        let note = format!("{} {}", self.rounds, "x".repeat(6 * 1024));
        self.push_and_pull(&index(&note)).await;
        self.upload_in_chunks().await;
        self.be_refused().await;
        if self.rounds.is_multiple_of(5) {
            self.lose_the_store().await;
        }
    }

    async fn push_and_pull(&self, manifest: &str) {
        let (round, digest) = (self.rounds, digest_of(manifest));
        let blob = format!("the blob of round {round}");
        let blob_digest = digest_of(&blob);
        let tag = format!("/v2/team/app/manifests/t{round}");
        let by_digest = format!("/v2/team/app/manifests/{digest}");
        let upload = format!("/v2/team/app/blobs/uploads/?digest={blob_digest}");
        let mount = format!("/v2/team/other/blobs/uploads/?mount={blob_digest}&from=team/app");
        let blob_path = format!("/v2/team/app/blobs/{blob_digest}");
        self.expect(201, Method::POST, &upload, blob).await;
        self.expect(201, Method::POST, &mount, "").await;
        self.expect(201, Method::PUT, &tag, manifest.to_owned()).await;
        for (status, method, path) in [
            (200, Method::GET, tag.as_str()),
            (200, Method::GET, KEPT),
            (200, Method::GET, by_digest.as_str()),
            (200, Method::HEAD, by_digest.as_str()),
            (404, Method::GET, "/v2/team/app/manifests/none"),
            (200, Method::GET, blob_path.as_str()),
            (200, Method::GET, "/v2/"),
            (200, Method::GET, "/v2/team/app/tags/list"),
            (200, Method::GET, "/v2/_catalog"),
            (200, Method::GET, by_digest.replace("manifests", "referrers").as_str()),
            (200, Method::GET, "/auth/token?service=moorage"),
            (404, Method::GET, "/v2/no-endpoint"),
            (202, Method::DELETE, tag.as_str()),
            (202, Method::DELETE, by_digest.as_str()),
            (202, Method::DELETE, blob_path.as_str()),
        ] {
            self.expect(status, method, path, "").await;
        }
    }

    /// One that is given up, and one that is not what it claims to be.
    async fn upload_in_chunks(&self) {
        let chunk = "a chunk";
        for gives_up in [true, false] {
            let begun = self.expect(202, Method::POST, "/v2/team/app/blobs/uploads/", "").await;
            let appended = self.expect(202, Method::PATCH, &location(&begun), chunk).await;
            let next = location(&appended);
            if gives_up {
                self.expect(204, Method::GET, &next, "").await;
                self.expect(204, Method::DELETE, &next, "").await;
            } else {
                let other: Digest = digest_of("something else");
                let separator = if next.contains('?') { '&' } else { '?' };
                let path = format!("{next}{separator}digest={other}");
                self.expect(400, Method::PUT, &path, "").await;
            }
        }
    }

    /// A user who may not, and one who is none.
    async fn be_refused(&self) {
        let denied = self.send(READER, Method::GET, KEPT, "").await;
        // A challenge: with another scope it might be allowed.
        assert_eq!(denied.status(), 401, "{denied:?}");
        let mut guess = READER;
        guess.password = "a guess";
        let refused = self.send(guess, Method::GET, KEPT, "").await;
        assert!([401, 429].contains(&refused.status().as_u16()), "{refused:?}");
    }

    /// What a worker knows is answered all the same, anything else is an error.
    async fn lose_the_store(&mut self) {
        // A connection goes to any worker, and each has a memory of its own.
        for _ in 0..10 {
            self.expect(200, Method::GET, KEPT, "").await;
        }
        self.store.take().expect("a store").kill().await;
        let mut known = 0;
        for _ in 0..10 {
            let kept = self.send(DEPLOY, Method::GET, KEPT, "").await;
            known += usize::from(kept.status() == 200);
            let path = "/v2/team/app/manifests/unknown";
            let unknown = self.send(DEPLOY, Method::GET, path, "").await;
            assert!(unknown.status().is_server_error(), "{unknown:?}");
        }
        assert!(known > 0, "nothing was answered from memory");
        self.store = Some(BlobStore::reopen(self.root.path(), self.store_address).await);
        wait_for("the store to be asked again", async || {
            let path = "/v2/team/app/manifests/unknown";
            let status = self.send(DEPLOY, Method::GET, path, "").await.status();
            (status == 404).then_some(())
        })
        .await;
    }

    async fn expect(
        &self,
        status: u16,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Response<Bytes> {
        let response = self.send(DEPLOY, method.clone(), path, body).await;
        assert_eq!(response.status(), status, "{method} {path}: {response:?}");
        response
    }

    async fn send(
        &self,
        user: User,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Response<Bytes> {
        let login = STANDARD.encode(format!("{}:{}", user.name, user.password));
        let authorization = format!("Basic {login}");
        let headers = [("authorization", authorization.as_str())];
        client::send_body(self.envoy.address, method, path, &headers, body).await
    }
}

/// A manifest that differs from others by its note.
fn index(note: &str) -> String {
    let media_type = "application/vnd.oci.image.index.v1+json";
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[],"annotations":{{"note":"{note}"}}}}"#
    )
}
