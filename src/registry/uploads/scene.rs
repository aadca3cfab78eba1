//! A repository in memory and bodies that stream into it, for the tests of uploads.

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use http::header::{HeaderName, LOCATION, TRANSFER_ENCODING};
use http::{Method, Response, StatusCode};

use crate::registry::hasher::Hasher;
use crate::registry::incoming::{Hashing, Incoming, StreamedWrite, WriteAnswer, WriteTarget};
use crate::registry::reference::{Algorithm, Digest, Name};
use crate::registry::{Body, REPLY_MAX_BYTES, Request, Settings, Stamp, handle_streamed};
use crate::store::memory::{MemoryStore, run, take_a_turn};
use crate::store::{Objects, layout};

/// The repository `a`.
#[derive(Default)]
pub struct Scene {
    pub store: MemoryStore,
    pub settings: Settings,
    requests: Cell<u32>,
}

/// One request's body.
pub struct StreamedBody<'a> {
    store: &'a MemoryStore,
    content: Bytes,
    announced: Option<u64>,
    write: RefCell<Option<StreamedWrite>>,
    hashing: RefCell<Hashing>,
}

impl Scene {
    /// Sends a request; gives the response and the number of waves. A body's length is announced
    /// unless the headers have `transfer-encoding`.
    pub fn send(
        &self,
        method: Method,
        target: &str,
        headers: &[(HeaderName, &str)],
        content: impl Into<Bytes>,
    ) -> (Response<Bytes>, usize) {
        let content = content.into();
        let is_chunked = headers.iter().any(|(name, _)| name == TRANSFER_ENCODING);
        let announced = (!is_chunked).then_some(content.len() as u64);
        let number = self.requests.get();
        self.requests.set(number + 1);
        let mut random = [0; 32];
        random[..4].copy_from_slice(&number.to_be_bytes());
        let request = Request {
            method,
            target: target.to_owned(),
            headers: headers.into(),
            body: Body::None,
            resources: Vec::new(),
            stamp: Stamp { random, ..Stamp::default() },
            reply_max_bytes: REPLY_MAX_BYTES,
        };
        let body = StreamedBody {
            store: &self.store,
            content,
            announced,
            write: RefCell::new(None),
            hashing: RefCell::new(Hashing::Off),
        };
        let (answer, waves) = run(handle_streamed(&request, &body, &self.store, &self.settings));
        (answer.expect_reply(), waves)
    }

    /// Begins an upload and gives its location.
    pub fn begin(&self, query: &str) -> String {
        let target = format!("/v2/a/blobs/uploads/{query}");
        let (response, _) = self.send(Method::POST, &target, &[], "");
        assert_eq!(response.status(), 202);
        location(&response)
    }

    /// Sends a chunk that must be taken, and gives the next location.
    pub fn append(&self, target: &str, content: impl Into<Bytes>) -> String {
        let (response, _) = self.send(Method::PATCH, target, &[], content);
        assert_eq!(response.status(), 202, "{:?}", response.body());
        location(&response)
    }

    /// Closes an upload.
    pub fn finish(
        &self,
        target: &str,
        digest: &Digest,
        content: impl Into<Bytes>,
    ) -> Response<Bytes> {
        self.send(Method::PUT, &with_digest(target, digest), &[], content).0
    }

    /// The blob, as a client would get it: its content, if the repository has it.
    pub fn blob(&self, digest: &Digest) -> Option<Bytes> {
        let objects = self.store.objects();
        objects.get(&layout::blob_link(&name(), digest))?;
        Some(objects[&layout::content(digest)].clone())
    }

    /// The keys of everything that upload sessions have.
    pub fn leftovers(&self) -> Vec<String> {
        let objects = self.store.objects();
        let keys = objects.keys().map(|key| key.as_str().to_owned());
        keys.filter(|key| key.contains("/_uploads/")).collect()
    }
}

impl Incoming for StreamedBody<'_> {
    fn is_empty(&self) -> bool {
        self.announced == Some(0)
    }

    fn announced(&self) -> Option<u64> {
        self.announced
    }

    fn forward(&self, target: WriteTarget, sha256: Option<Digest>, hashing: Hashing) {
        let write = StreamedWrite { target, length: self.announced, sha256 };
        assert!(self.write.replace(Some(write)).is_none(), "a body goes to one place");
        self.hashing.replace(hashing);
    }

    fn hash_with(&self, hasher: Option<Hasher>) {
        let hashing = hasher.map_or(Hashing::Off, |hasher| Hashing::With(Box::new(hasher)));
        self.hashing.replace(hashing);
    }

    async fn arrived(&self) -> Result<u64, WriteAnswer> {
        assert!(self.write.borrow().is_some(), "a body that goes nowhere never arrives");
        take_a_turn().await;
        Ok(self.content.len() as u64)
    }

    fn take_hasher(&self) -> Option<Hasher> {
        match self.hashing.replace(Hashing::Off) {
            Hashing::With(mut hasher) => {
                hasher.update(&self.content);
                Some(*hasher)
            }
            Hashing::Off | Hashing::Later => None,
        }
    }

    async fn complete(&self) -> WriteAnswer {
        let write = self.write.borrow().clone().expect("a body that goes somewhere");
        let refused =
            |status, document: &'static str| WriteAnswer { status, document: document.into() };
        let is_wrong = write.sha256.is_some_and(|sha256| !sha256.matches(&self.content));
        if is_wrong && !self.store.ignores_checksums {
            let document = "<Error><Code>BadDigest</Code></Error>";
            return refused(StatusCode::BAD_REQUEST, document);
        }
        let key = match &write.target {
            WriteTarget::Content(digest) => layout::content(digest),
            WriteTarget::Chunk(session, id) => layout::upload_chunk(&session.name, &session.id, id),
        };
        match self.store.write(&key, self.content.clone()).await {
            Ok(()) => refused(StatusCode::OK, ""),
            Err(_) => refused(StatusCode::SERVICE_UNAVAILABLE, ""),
        }
    }
}

pub fn name() -> Name {
    "a".parse().expect("a valid name")
}

pub fn digest_of(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

pub fn with_digest(target: &str, digest: &Digest) -> String {
    let joint = if target.contains('?') { '&' } else { '?' };
    format!("{target}{joint}digest={digest}")
}

pub fn location(response: &Response<Bytes>) -> String {
    response.headers()[LOCATION].to_str().expect("text").to_owned()
}

/// The status and the code of a response; no code for a success.
pub fn outcome(response: &Response<Bytes>) -> (u16, String) {
    let json: serde_json::Value = serde_json::from_slice(response.body()).unwrap_or_default();
    let code = json["errors"][0]["code"].as_str().unwrap_or_default();
    (response.status().as_u16(), code.to_owned())
}
