//! Uploads to a registry in memory: the stand-in for a body that streams into the store, and a client's steps.
//!
//! The stand-in refuses, by a panic, what a body that really streams can't do: to be sent to two places, to be sent
//! on after the handler has waited for something, to be waited for before it was sent on, to be let go before it has
//! arrived.

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use http::header::{HeaderName, LOCATION, TRANSFER_ENCODING};
use http::{Method, Response, StatusCode};

use crate::oci::{Digest, Hasher, Name};
use crate::registry::body::{Hashing, RequestBody};
use crate::registry::handle_streamed;
use crate::registry::test_registry::TestRegistry;
use crate::store::memory::{MemoryStore, run, take_a_turn};
use crate::store::{Objects, StreamedWrite, WriteAnswer, WriteTarget, layout};

/// One request's body.
struct StreamedBody<'a> {
    store: &'a MemoryStore,
    content: Bytes,
    announced: Option<u64>,
    /// How many calls the store had had when the request began.
    calls_before: usize,
    write: RefCell<Option<StreamedWrite>>,
    hashing: RefCell<Hashing>,
    has_arrived: Cell<bool>,
    is_complete: Cell<bool>,
}

impl TestRegistry {
    /// Sends a request about an upload to the repository `a`; gives the response and the number of round trips to the
    /// store. A body's length is announced unless the headers have `transfer-encoding`.
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
        let request = self.request(method, target, headers);
        let body = StreamedBody {
            store: &self.store,
            content,
            announced,
            calls_before: self.store.calls().len(),
            write: RefCell::new(None),
            hashing: RefCell::new(Hashing::Off),
            has_arrived: Cell::new(false),
            is_complete: Cell::new(false),
        };
        let answer = handle_streamed(&request, &body, &self.store, &self.settings);
        let (answer, round_trips) = run(answer);
        (answer.expect_reply(), round_trips)
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
        objects.get(&layout::blob_link(&repository(), digest))?;
        Some(objects[&layout::content(digest)].clone())
    }

    /// The keys of everything that upload sessions have.
    pub fn leftovers(&self) -> Vec<String> {
        let objects = self.store.objects();
        let keys = objects.keys().map(|key| key.as_str().to_owned());
        keys.filter(|key| key.contains("/_uploads/")).collect()
    }
}

impl RequestBody for StreamedBody<'_> {
    fn is_empty(&self) -> bool {
        self.announced == Some(0)
    }

    fn announced(&self) -> Option<u64> {
        self.announced
    }

    fn forward(&self, target: WriteTarget, sha256: Option<Digest>, hashing: Hashing) {
        // What has passed while the handler waited is thrown away, and could not be sent on any more.
        assert_eq!(self.store.calls().len(), self.calls_before, "sent on before anything else");
        let write = StreamedWrite { target, length: self.announced, sha256 };
        assert!(self.write.replace(Some(write)).is_none(), "a body goes to one place");
        self.hashing.replace(hashing);
    }

    fn hash_with(&self, hasher: Option<Hasher>) {
        assert!(matches!(*self.hashing.borrow(), Hashing::Later), "nobody waits for a hasher");
        let hashing = hasher.map_or(Hashing::Off, |hasher| Hashing::With(Box::new(hasher)));
        self.hashing.replace(hashing);
    }

    async fn arrived(&self) -> Result<u64, WriteAnswer> {
        assert!(self.write.borrow().is_some(), "a body that goes nowhere never arrives");
        take_a_turn().await;
        self.has_arrived.set(true);
        Ok(self.content.len() as u64)
    }

    fn take_hasher(&self) -> Option<Hasher> {
        assert!(self.has_arrived.get(), "the hash of a body that has not arrived");
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
        assert!(self.has_arrived.get(), "the end is let go when all of it has come");
        assert!(!self.is_complete.replace(true), "the end is let go once");
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

/// The repository that blobs are uploaded to.
pub fn repository() -> Name {
    "a".parse().expect("a valid name")
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
