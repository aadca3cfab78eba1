//! A registry with something in it, on a bucket that a test can look into, before a store that notes its calls.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use http::{Method, Response};
use moorage::oci::Digest;
use moorage::store::layout;
use serde_json::{Value, json};
use tempfile::TempDir;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client::{self, send_body};
use moorage_test_support::digest_of;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::scripted::{Call, Fate, ScriptedStore};
use moorage_test_support::tree::Tree;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The blobs that it has.
pub const LINKED: &[u8] = b"a blob whose link goes";
pub const STORED: &[u8] = b"a blob whose content goes";
pub const FREE: &[u8] = b"a blob that stays";

/// A registry on a bucket that is a folder.
pub struct Registry {
    pub root: TempDir,
    pub store: ScriptedStore,
    _blob_store: BlobStore,
    pub envoy: Envoy,
}

impl Registry {
    /// Repositories `a` and `b` with all three blobs, `a` with two tagged images; and these objects as markers.
    pub async fn with_markers(markers: &[(&str, Bytes)]) -> Self {
        let root = TempDir::new().expect("a temporary folder");
        let mut tree = Tree::default();
        for repository in ["a", "b"] {
            for content in [LINKED, STORED, FREE] {
                tree.put_blob(repository, content);
            }
        }
        let [going, staying] = [image(LINKED), image(FREE)]
            .map(|image| -> &'static [u8] { Box::leak(image.into_bytes().into_boxed_slice()) });
        tree.put_manifest("a", "going", going);
        tree.put_manifest("a", "staying", staying);
        for (name, content) in markers {
            tree.put(&layout::marker(name), content.clone());
        }
        tree.write_to(&root.path().join("registry"));
        let blob_store = BlobStore::open(root.path()).await;
        let store = ScriptedStore::start(blob_store.address, |_| Fate::Pass).await;
        let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
        Self { root, store, _blob_store: blob_store, envoy }
    }

    /// The same, served by another Envoy.
    pub fn behind(self, envoy: Envoy) -> Self {
        Self { envoy, ..self }
    }

    pub fn server(&self) -> SocketAddr {
        self.envoy.address
    }

    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Response<Bytes> {
        send_body(self.server(), method, &format!("/v2/{path}"), &[], body).await
    }

    pub async fn status(&self, method: Method, path: &str, body: impl Into<Bytes>) -> u16 {
        self.request(method, path, body).await.status().as_u16()
    }

    pub async fn head(&self, repository: &str, blob: &[u8]) -> u16 {
        let path = format!("{repository}/blobs/{}", digest_of(blob));
        self.status(Method::HEAD, &path, "").await
    }

    pub async fn put(&self, repository: &str, tag: &str, manifest: String) -> Response<Bytes> {
        self.request(Method::PUT, &format!("{repository}/manifests/{tag}"), manifest).await
    }

    pub async fn mount(&self, into: &str, blob: &[u8], from: &str) -> u16 {
        let path = format!("{into}/blobs/uploads/?mount={}&from={from}", digest_of(blob));
        self.status(Method::POST, &path, "").await
    }

    /// Uploads a blob in each way that there is: in one request, in two, and in a piece that is closed then.
    pub async fn upload(&self, repository: &str, blob: &'static [u8]) -> [Response<Bytes>; 3] {
        let digest = digest_of(blob);
        let path = format!("{repository}/blobs/uploads/?digest={digest}");
        let in_one = self.request(Method::POST, &path, blob).await;
        let location = self.session(repository).await;
        let path = with_digest(&location, &digest);
        let in_two = self.request(Method::PUT, &path, blob).await;
        let location = self.session(repository).await;
        let piece = self.request(Method::PATCH, &location, blob).await;
        assert_eq!(piece.status(), 202);
        let closed =
            self.request(Method::PUT, &with_digest(&location_of(&piece), &digest), "").await;
        [in_one, in_two, closed]
    }

    async fn session(&self, repository: &str) -> String {
        location_of(&self.request(Method::POST, &format!("{repository}/blobs/uploads/"), "").await)
    }

    /// Has the worker learn of the markers, as each push does.
    pub async fn push_something(&self) -> Response<Bytes> {
        let digest = digest_of(b"something");
        let path = format!("elsewhere/blobs/uploads/?digest={digest}");
        self.request(Method::POST, &path, "something").await
    }

    /// All that is in the repository `a` is served.
    pub async fn serves_all(&self) {
        for blob in [LINKED, STORED, FREE] {
            let path = format!("/v2/a/blobs/{}", digest_of(blob));
            let pulled = client::get(self.server(), &path, &[]).await;
            assert_eq!((pulled.status().as_u16(), pulled.body().as_ref()), (200, blob));
        }
        for (tag, blob) in [("going", LINKED), ("staying", FREE)] {
            for reference in [tag.to_owned(), digest_of(&image(blob)).to_string()] {
                let path = format!("/v2/a/manifests/{reference}");
                let pulled = client::get(self.server(), &path, &[]).await;
                assert_eq!((pulled.status().as_u16(), pulled.body()), (200, &image(blob).into()));
                let path = format!("a/manifests/{reference}");
                assert_eq!(self.status(Method::HEAD, &path, "").await, 200);
            }
        }
    }

    /// Pushes go as if there were no collection.
    pub async fn takes_pushes(&self) {
        assert_eq!(self.push_something().await.status(), 201);
        for blob in [LINKED, STORED] {
            assert_eq!(self.head("a", blob).await, 200);
            assert_eq!(self.mount("a", blob, "b").await, 201);
            let uploads = self.upload("a", blob).await;
            assert_eq!(uploads.map(|upload| upload.status().as_u16()), [201; 3]);
            assert_eq!(self.put("a", "new", image(blob)).await.status(), 201);
        }
    }

    /// The file of the marker `run-0`.
    pub fn marker(&self) -> PathBuf {
        self.root.path().join("registry").join(layout::marker("run-0").as_str())
    }

    pub fn calls(&self, is_counted: impl Fn(&Call) -> bool) -> usize {
        self.store.calls().iter().filter(|call| is_counted(call)).count()
    }
}

/// A manifest whose configuration is this blob.
pub fn image(blob: &[u8]) -> String {
    image_json(blob).to_string()
}

pub fn image_json(blob: &[u8]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor("a/b", blob), "layers": [] })
}

pub fn descriptor(media_type: &str, content: &[u8]) -> Value {
    let digest = digest_of(content);
    json!({ "mediaType": media_type, "digest": digest.as_str(), "size": content.len() })
}

/// The path of a `Location`, below `/v2/`.
fn location_of(response: &Response<Bytes>) -> String {
    let location = client::location(response);
    location.strip_prefix("/v2/").expect("a path of the API").to_owned()
}

fn with_digest(location: &str, digest: &Digest) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}digest={digest}")
}
