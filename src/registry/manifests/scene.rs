//! A repository in memory, for the tests of writing, and what the tests of lists share.

use bytes::Bytes;
use http::header::{HeaderName, LINK};
use http::{Method, Response};
use serde_json::{Value, json};

use crate::registry::reference::{Digest, Name};
use crate::registry::{Body, HeaderFields, REPLY_MAX_BYTES, Request, Settings, Stamp, handle};
use crate::store::memory::{MemoryStore, run};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The repository `a/b`, with two blobs that manifests may refer to.
#[derive(Default)]
pub struct Scene {
    pub store: MemoryStore,
    pub settings: Settings,
}

impl Scene {
    pub fn new() -> Self {
        let scene = Self::default();
        scene.store.put_blob(&name(), b"config");
        scene.store.put_blob(&name(), b"layer");
        scene
    }

    /// Sends a request about `a/b`'s manifests; gives the response and the number of waves.
    pub fn send(
        &self,
        method: Method,
        reference: &str,
        headers: &[(HeaderName, &str)],
        body: Body,
    ) -> (Response<Bytes>, usize) {
        let target = format!("/v2/a/b/manifests/{reference}");
        let request = Request {
            method,
            target,
            headers: headers.into(),
            body,
            resources: Vec::new(),
            stamp: Stamp::default(),
            reply_max_bytes: REPLY_MAX_BYTES,
        };
        let (answer, waves) = run(handle(&request, &self.store, &self.settings));
        (answer.expect_reply(), waves)
    }

    pub fn put(&self, reference: &str, manifest: &Value) -> Response<Bytes> {
        self.send(Method::PUT, reference, &[], whole(manifest)).0
    }

    pub fn get(&self, reference: &str) -> Response<Bytes> {
        self.send(Method::GET, reference, &[], Body::None).0
    }

    pub fn delete(&self, reference: &str) -> Response<Bytes> {
        self.send(Method::DELETE, reference, &[], Body::None).0
    }
}

/// Sends `GET` for a path; gives the response and the number of waves.
pub fn get(store: &MemoryStore, target: &str) -> (Response<Bytes>, usize) {
    let request = Request {
        method: Method::GET,
        target: target.to_owned(),
        headers: HeaderFields::default(),
        body: Body::None,
        resources: Vec::new(),
        stamp: Stamp::default(),
        reply_max_bytes: REPLY_MAX_BYTES,
    };
    let (answer, waves) = run(handle(&request, store, &Settings::default()));
    (answer.expect_reply(), waves)
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

pub fn name() -> Name {
    "a/b".parse().expect("a valid name")
}

pub fn whole(manifest: &Value) -> Body {
    Body::Whole(manifest.to_string().into())
}

pub fn digest_of(content: &str) -> Digest {
    Digest::of(crate::registry::reference::Algorithm::Sha256, content.as_bytes())
}

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
