//! The fixture of the handlers' tests: a registry on a bucket in memory, and what their requests and replies are made
//! of.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::ready;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::LocalBoxFuture;
use http::header::{HeaderName, LINK};
use http::{Method, Response};
use serde_json::{Value, json};

use super::access::ResourceActions;
use super::events::{Event, EventAction, EventActions};
use super::{Body, Environment, Nonce, Request, Settings, handle};
use crate::oci::{Algorithm, Digest, Name};
use crate::store::memory::{MemoryStore, run};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A registry on a bucket in memory.
#[derive(Default)]
pub struct TestRegistry {
    pub store: MemoryStore,
    pub settings: Settings,
    /// Of all its requests, so that no two of them get the same nonce.
    pub environment: Rc<TestEnvironment>,
}

/// A clock that goes on when somebody waits, nonces that count, and what a proxy would know of the request.
#[derive(Debug, Default)]
pub struct TestEnvironment {
    nonces: Cell<u32>,
    /// The time since 1970.
    pub time: Cell<Duration>,
    pub address: Cell<Option<IpAddr>>,
    pub certificate_names: RefCell<Vec<String>>,
    /// By the filter's name and the path, joined by slashes. A list is its elements with spaces between them.
    pub metadata: RefCell<BTreeMap<String, String>>,
    pub access: RefCell<Vec<ResourceActions>>,
    /// The actions of which somebody wants to know.
    pub wanted: Cell<EventActions>,
    pub events: RefCell<Vec<Event>>,
}

impl TestEnvironment {
    fn metadata(&self, filter: &str, path: &[&str]) -> Option<String> {
        self.metadata.borrow().get(&format!("{filter}/{}", path.join("/"))).cloned()
    }
}

impl Environment for TestEnvironment {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.time.get()
    }

    fn nonce(&self) -> Nonce {
        let number = self.nonces.get() + 1;
        self.nonces.set(number);
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Nonce(bytes)
    }

    fn delay(&self, time: Duration) -> LocalBoxFuture<'static, ()> {
        self.time.set(self.time.get() + time);
        Box::pin(ready(()))
    }

    fn client_address(&self) -> Option<IpAddr> {
        self.address.get()
    }

    fn client_socket(&self) -> Option<String> {
        self.address.get().map(|address| SocketAddr::from((address, 1_000)).to_string())
    }

    fn wants_event(&self, action: EventAction, _: &Name) -> bool {
        self.wanted.get().contains(action)
    }

    fn send_event(&self, event: Event) {
        self.events.borrow_mut().push(event);
    }

    fn certificate_names(&self) -> Vec<String> {
        self.certificate_names.borrow().clone()
    }

    fn has_metadata(&self, filter: &str, path: &[&str]) -> bool {
        self.metadata(filter, path).is_some()
    }

    fn metadata_text(&self, filter: &str, path: &[&str]) -> Option<String> {
        self.metadata(filter, path)
    }

    fn metadata_texts(&self, filter: &str, path: &[&str]) -> Vec<String> {
        let list = self.metadata(filter, path).unwrap_or_default();
        list.split_whitespace().map(str::to_owned).collect()
    }

    fn metadata_access(&self, _: &str, _: &str) -> Vec<ResourceActions> {
        self.access.borrow().clone()
    }
}

/// A request without a body.
pub fn request(method: Method, target: &str, headers: &[(HeaderName, &str)]) -> Request {
    Request::new(method, target, headers.into(), Rc::<TestEnvironment>::default())
}

impl TestRegistry {
    /// A registry whose repository `a/b` has two blobs that manifests may refer to.
    pub fn with_blobs() -> Self {
        let registry = Self::default();
        registry.store.put_blob(&name(), b"config");
        registry.store.put_blob(&name(), b"layer");
        registry
    }

    /// A request without a body to this registry.
    pub fn request(&self, method: Method, target: &str, headers: &[(HeaderName, &str)]) -> Request {
        let environment: Rc<dyn Environment> = Rc::<TestEnvironment>::clone(&self.environment);
        Request::new(method, target, headers.into(), environment)
    }

    /// Sends a request about `a/b`'s manifests; gives the response and the number of round trips to the store.
    pub fn send_manifest(
        &self,
        method: Method,
        reference: &str,
        headers: &[(HeaderName, &str)],
        body: Body,
    ) -> (Response<Bytes>, usize) {
        let target = format!("/v2/a/b/manifests/{reference}");
        let mut request = self.request(method, &target, headers);
        request.body = body;
        let (answer, round_trips) = run(handle(&request, &self.store, &self.settings));
        (answer.expect_reply(), round_trips)
    }

    /// Puts a manifest into `a/b`.
    pub fn put(&self, reference: &str, manifest: &Value) -> Response<Bytes> {
        self.send_manifest(Method::PUT, reference, &[], whole(manifest)).0
    }

    /// Gets a manifest of `a/b`.
    pub fn get(&self, reference: &str) -> Response<Bytes> {
        self.send_manifest(Method::GET, reference, &[], Body::None).0
    }

    /// Deletes a manifest or a tag of `a/b`.
    pub fn delete(&self, reference: &str) -> Response<Bytes> {
        self.send_manifest(Method::DELETE, reference, &[], Body::None).0
    }
}

/// Sends `GET` for a path; gives the response and the number of round trips to the store.
pub fn get(store: &MemoryStore, target: &str) -> (Response<Bytes>, usize) {
    let request = request(Method::GET, target, &[]);
    let (answer, round_trips) = run(handle(&request, store, &Settings::default()));
    (answer.expect_reply(), round_trips)
}

/// Gets all pages of a list, from one to the next by `Link`.
pub fn pages(store: &MemoryStore, target: &str) -> Vec<Value> {
    let mut target = target.to_owned();
    let mut pages = Vec::new();
    loop {
        let (response, _) = get(store, &target);
        assert_eq!(response.status(), 200, "{target}");
        pages.push(serde_json::from_slice(response.body()).expect("JSON"));
        let Some(link) = response.headers().get(LINK) else {
            return pages;
        };
        let link = link.to_str().expect("text").strip_prefix('<').expect("a link");
        target = link.strip_suffix(">; rel=\"next\"").expect("a link").to_owned();
    }
}

/// The repository of most tests.
pub fn name() -> Name {
    "a/b".parse().expect("a valid name")
}

/// A manifest as a request's body.
pub fn whole(manifest: &Value) -> Body {
    Body::Whole(manifest.to_string().into())
}

/// The SHA-256 digest of some content.
pub fn digest_of(content: &(impl AsRef<[u8]> + ?Sized)) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_ref())
}

/// A descriptor of some content.
pub fn descriptor(media_type: &str, content: &str) -> Value {
    let digest = digest_of(content);
    json!({ "mediaType": media_type, "digest": digest.as_str(), "size": content.len() })
}

/// An image manifest whose references are there; `note` makes it different from others.
pub fn image(note: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", "config"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", "layer")],
        "annotations": { "note": note },
    })
}

/// The status, and the codes of all errors of a response.
pub fn errors(response: &Response<Bytes>) -> (u16, Vec<String>) {
    let json: Value = serde_json::from_slice(response.body()).expect("JSON");
    let errors = json["errors"].as_array().expect("a list of errors");
    let code = |error: &Value| error["code"].as_str().expect("a code").to_owned();
    (response.status().as_u16(), errors.iter().map(code).collect())
}

/// The status and the only code of a response.
pub fn error(response: &Response<Bytes>) -> (u16, String) {
    let (status, mut codes) = errors(response);
    assert_eq!(codes.len(), 1, "{codes:?}");
    (status, codes.remove(0))
}
