//! The distribution API: what a request means, and what is answered.
//!
//! Pure: no proxy-wasm, no Envoy, no S3, no clock. A handler is an `async fn` that reads like the
//! API's own text; it takes the request and a [`Store`] and gives an [`Answer`].

mod blobs;
mod catalog;
pub mod conditional;
pub mod error;
mod fields;
pub mod hasher;
pub mod incoming;
mod legacy;
mod limits;
mod manifest;
mod manifests;
pub mod media_type;
mod multipart;
mod pagination;
mod policy;
mod range;
pub mod reference;
mod referrers;
pub mod route;
mod schema1;
mod tags;
mod uploads;

use std::borrow::Cow;
use std::rc::Rc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Response};
use serde::Deserialize;

pub use blobs::{ContentStream, StreamAnswer};
pub use error::proxy_error;
pub use fields::HeaderFields;
pub use incoming::{Hashing, Incoming, NoBody, StreamedWrite, WriteAnswer, WriteTarget};
pub use legacy::{AbsentAccept, Legacy, Platform, PlatformError};
pub use limits::Limits;
pub use manifest::{ManifestError, media_type_of};
pub use multipart::{Allowance, Cutter, Piece};
pub use policy::{Class, Resource};
pub use range::{ByteRange, Ranges};
pub use schema1::{KeyError, SigningKey};

use crate::store::{Session, Store, Uploads};
use error::{Error, ErrorCode};
use route::Endpoint;

/// The header that tells a client which API answers.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const API_VERSION_2: HeaderValue = HeaderValue::from_static("registry/2.0");
const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// The largest manifest that is served or accepted unless something else is set, in bytes. The
/// specification wants registries to take this much.
pub const DEFAULT_MANIFEST_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The largest manifest that is sent from memory, in bytes; a larger one is streamed from the store. What is
/// sent from memory the proxy holds until the client has taken it, however slow that is, while what it
/// streams waits in the store.
pub const REPLY_MAX_BYTES: usize = 64 * 1024;

/// A client's request.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path and query, as sent.
    pub target: String,
    /// The header fields.
    pub headers: HeaderFields,
    /// The body.
    pub body: Body,
    /// What the caller's token authorises.
    pub resources: Vec<Resource>,
    /// What no other request has.
    pub stamp: Stamp,
    /// The largest manifest that is sent from memory, in bytes: [`REPLY_MAX_BYTES`], or less while the proxy holds
    /// many replies that clients do not take.
    pub reply_max_bytes: usize,
}

/// What tells a request from every other, for names that must be new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// When it came.
    pub time: SystemTime,
    /// Bytes that no other request has.
    pub random: [u8; 32],
}

impl Default for Stamp {
    fn default() -> Self {
        Self { time: SystemTime::UNIX_EPOCH, random: [0; 32] }
    }
}

/// A request's body, as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// All of it.
    Whole(Bytes),
    /// More than the endpoint takes; the rest was not read.
    TooLarge,
    /// There was one where the endpoint takes none, and it was thrown away.
    Discarded,
    /// Less than `Content-Length` announced.
    Short,
}

/// The settings that the handlers know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The largest manifest that is accepted, in bytes. No body is read beyond it.
    pub manifest_max_bytes: u64,
    /// Whether nothing may be changed.
    pub read_only: bool,
    /// Whether manifests, tags and blobs may be deleted.
    pub delete_enabled: bool,
    /// Whether an image's configuration and layers must be there when it is put.
    pub verify_image_references: bool,
    /// Whether an index's manifests must be there when it is put.
    pub verify_index_references: bool,
    /// The classes of manifest that may be put; any if there are none.
    pub classes: Vec<Class>,
    /// From where a blob may be mounted.
    pub mount: Mount,
    /// What old clients get.
    pub legacy: Legacy,
    /// How much one request may ask for.
    pub limits: Limits,
}

/// From where a blob may be put into a repository without uploading it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mount {
    /// From nowhere. The default, because the path of such a request does not show the source: a filter
    /// before Moorage that guards repositories by their paths could not guard that one.
    #[default]
    Off,
    /// From the repository that the client names.
    From,
    /// From wherever it is, if the client names no repository.
    Anywhere,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            manifest_max_bytes: DEFAULT_MANIFEST_MAX_BYTES,
            read_only: false,
            delete_enabled: true,
            verify_image_references: true,
            verify_index_references: true,
            classes: Vec::new(),
            mount: Mount::default(),
            legacy: Legacy::default(),
            limits: Limits::default(),
        }
    }
}

impl Request {
    /// The values of a query parameter, decoded.
    fn query_values(&self, name: &str) -> impl Iterator<Item = Cow<'_, str>> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let pairs = form_urlencoded::parse(query.as_bytes());
        pairs.filter_map(move |(key, value)| (key == name).then_some(value))
    }

    /// The values of a header that may be repeated, as text.
    fn header_values(&self, name: HeaderName) -> impl Iterator<Item = &str> {
        self.headers.texts(name)
    }

    /// The value of a header, the first if it is repeated.
    fn header_value(&self, name: HeaderName) -> Option<&str> {
        self.header_values(name).next()
    }
}

/// How a request is answered.
#[derive(Debug)]
pub enum Answer {
    /// With this response, which may be kept to be given again. For `HEAD` it has the body that `GET`
    /// would have, so that its length is known; whoever sends it leaves the body out.
    Reply(Rc<Response<Bytes>>),
    /// With an object of the store, which the proxy streams to the client.
    Stream(Box<ContentStream>),
}

impl Answer {
    /// With a response that was made for this request.
    fn reply(response: Response<Bytes>) -> Self {
        Self::Reply(Rc::new(with_common_headers(response)))
    }

    /// The reply, where a test wants one.
    #[cfg(test)]
    fn expect_reply(self) -> Response<Bytes> {
        match self {
            Self::Reply(response) => Rc::unwrap_or_clone(response),
            Self::Stream(stream) => panic!("a reply, not {stream:?}"),
        }
    }
}

/// What becomes of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyUse {
    /// The request takes none: it is thrown away.
    None,
    /// [`handle`] is to have all of it.
    Whole,
    /// It is streamed to the store, by [`handle_streamed`].
    Streamed,
}

/// What becomes of the body of a request. Only a manifest is ever held in memory.
pub fn use_of_body(request: &Request) -> BodyUse {
    match Endpoint::parse(&request.target) {
        Ok(Endpoint::Manifest { .. }) if request.method == Method::PUT => BodyUse::Whole,
        Ok(Endpoint::Upload { .. }) if matches!(request.method, Method::PATCH | Method::PUT) => {
            BodyUse::Streamed
        }
        Ok(Endpoint::Uploads { .. })
            if request.method == Method::POST
                && request.query_values("digest").next().is_some() =>
        {
            BodyUse::Streamed
        }
        _ => BodyUse::None,
    }
}

/// Whether [`Request::stamp`] is of any use for a request without a body.
pub fn needs_stamp(request: &Request) -> bool {
    request.method == Method::POST || blobs::needs_stamp(request)
}

/// Answers a request. Failures are answered too: in the API's JSON.
pub fn handle(
    request: &Request,
    store: &(impl Store + Uploads),
    settings: &Settings,
) -> impl Future<Output = Answer> {
    handle_streamed(request, &NoBody, store, settings)
}

/// Answers a request whose body is still on its way.
pub async fn handle_streamed(
    request: &Request,
    incoming: &impl Incoming,
    store: &(impl Store + Uploads),
    settings: &Settings,
) -> Answer {
    let answer = dispatch(request, incoming, store, settings).await;
    answer.unwrap_or_else(|error| Answer::Reply(Rc::new(error.into_response())))
}

async fn dispatch(
    request: &Request,
    incoming: &impl Incoming,
    store: &(impl Store + Uploads),
    settings: &Settings,
) -> Result<Answer, Error> {
    let endpoint = Endpoint::parse(&request.target)?;
    let allowed = allowed_methods(&endpoint, settings);
    if !allowed.contains(&request.method.as_str()) {
        return Err(Error::method_not_allowed(allowed));
    }
    match (endpoint, &request.method) {
        (Endpoint::Base, _) => Ok(Answer::reply(base())),
        (Endpoint::Blob { name, digest }, &Method::GET | &Method::HEAD) => {
            blobs::get(request, store, &name, digest).await
        }
        (Endpoint::Manifest { name, reference }, &Method::GET | &Method::HEAD) => {
            manifests::get(request, store, settings, &name, &reference).await
        }
        // On the heap: a pull, which is what most requests are, need not make room for all of this.
        (endpoint, _) => {
            let change_or_list = change_or_list(request, incoming, store, settings, endpoint);
            Box::pin(change_or_list).await.map(Answer::reply)
        }
    }
}

/// Answers what is no pull.
async fn change_or_list(
    request: &Request,
    incoming: &impl Incoming,
    store: &(impl Store + Uploads),
    settings: &Settings,
    endpoint: Endpoint,
) -> Result<Response<Bytes>, Error> {
    match endpoint {
        Endpoint::Base => Ok(base()),
        Endpoint::Blob { name, digest } => blobs::delete(store, &name, &digest).await,
        Endpoint::Manifest { name, reference } => match request.method {
            Method::DELETE => manifests::delete(store, &name, &reference).await,
            _ => manifests::put(request, store, settings, &name, &reference).await,
        },
        Endpoint::Uploads { name } => {
            uploads::start(request, incoming, store, settings, &name).await
        }
        Endpoint::Upload { name, id } => {
            let session = Session { name, id };
            match request.method {
                Method::PATCH => uploads::append(request, incoming, store, &session).await,
                Method::PUT => uploads::finish(request, incoming, store, &session).await,
                Method::DELETE => uploads::cancel(store, &session).await,
                _ => uploads::status(request, store, &session).await,
            }
        }
        Endpoint::Tags { name } => tags::list(request, store, &name).await,
        Endpoint::Catalog => catalog::list(request, store).await,
        Endpoint::Referrers { name, subject } => {
            referrers::list(request, store, &name, &subject).await
        }
    }
}

/// The methods that an endpoint has.
fn allowed_methods(endpoint: &Endpoint, settings: &Settings) -> &'static [&'static str] {
    match endpoint {
        Endpoint::Manifest { .. } if settings.read_only => &["GET", "HEAD"],
        Endpoint::Manifest { .. } if settings.delete_enabled => &["GET", "HEAD", "PUT", "DELETE"],
        Endpoint::Manifest { .. } => &["GET", "HEAD", "PUT"],
        Endpoint::Blob { .. } if settings.delete_enabled && !settings.read_only => {
            &["GET", "HEAD", "DELETE"]
        }
        Endpoint::Base | Endpoint::Blob { .. } => &["GET", "HEAD"],
        Endpoint::Uploads { .. } if settings.read_only => &[],
        Endpoint::Uploads { .. } => &["POST"],
        Endpoint::Upload { .. } if settings.read_only => &["GET", "HEAD"],
        Endpoint::Upload { .. } => &["GET", "HEAD", "PATCH", "PUT", "DELETE"],
        Endpoint::Tags { .. } | Endpoint::Catalog | Endpoint::Referrers { .. } => &["GET", "HEAD"],
    }
}

/// `GET /v2/`: yes, this is a registry.
fn base() -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(b"{}"));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Refuses a body where the answer is streamed: it would be sent to the store together with the request.
fn refuse_body(request: &Request) -> Result<(), Error> {
    if request.body == Body::None {
        return Ok(());
    }
    Err(Error::new(ErrorCode::SizeInvalid, "a request for content has no body"))
}

/// Adds the headers that every reply carries: which API answers, and that no browser may take what a
/// client has uploaded for something else than its `Content-Type` says.
pub fn with_common_headers<B>(mut response: Response<B>) -> Response<B> {
    let headers = response.headers_mut();
    headers.insert(API_VERSION, API_VERSION_2);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn only_a_manifest_is_held_in_memory_and_only_a_blob_is_streamed() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let upload = "/v2/a/blobs/uploads/0b0f4ed6-9c1c-4b9c-9d0e-5c1f1a1b2c3d";
        for (method, target, body_use) in [
            (Method::PUT, "/v2/a/manifests/t".to_owned(), BodyUse::Whole),
            (Method::PUT, format!("/v2/a/manifests/{digest}"), BodyUse::Whole),
            (Method::GET, "/v2/a/manifests/t".to_owned(), BodyUse::None),
            (Method::DELETE, "/v2/a/manifests/t".to_owned(), BodyUse::None),
            (Method::POST, "/v2/a/manifests/t".to_owned(), BodyUse::None),
            (Method::PATCH, upload.to_owned(), BodyUse::Streamed),
            (Method::PUT, format!("{upload}?digest={digest}"), BodyUse::Streamed),
            (Method::DELETE, upload.to_owned(), BodyUse::None),
            (Method::POST, format!("/v2/a/blobs/uploads/?digest={digest}"), BodyUse::Streamed),
            (Method::POST, "/v2/a/blobs/uploads/".to_owned(), BodyUse::None),
            (Method::GET, "/v2/".to_owned(), BodyUse::None),
            (Method::PUT, "/v2/".to_owned(), BodyUse::None),
            (Method::PUT, "/v2/a/manifests/..%2fx".to_owned(), BodyUse::None),
            (Method::PUT, "/".to_owned(), BodyUse::None),
        ] {
            let request = Request {
                method: method.clone(),
                target: target.clone(),
                headers: HeaderFields::default(),
                body: Body::None,
                resources: Vec::new(),
                stamp: Stamp::default(),
                reply_max_bytes: REPLY_MAX_BYTES,
            };
            assert_eq!(use_of_body(&request), body_use, "{method} {target}");
        }
    }
}
