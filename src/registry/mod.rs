//! The distribution API: what a request means, and what is answered.
//!
//! Pure: no proxy-wasm, no Envoy, no S3, no clock. A handler is an `async fn` that reads like the
//! API's own text; it takes the request and a [`Store`] and gives an [`Answer`].

mod blobs;
pub mod conditional;
pub mod error;
mod manifest;
mod manifests;
pub mod media_type;
mod range;
pub mod reference;
pub mod route;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Response};

pub use blobs::{BlobStream, StreamAnswer};
pub use error::proxy_error;
pub use manifest::{ManifestError, media_type_of};
pub use range::ByteRange;

use crate::store::Store;
use error::Error;
use route::Endpoint;

/// The header that tells a client which API answers.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const API_VERSION_2: HeaderValue = HeaderValue::from_static("registry/2.0");
const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

const READ_METHODS: &str = "GET, HEAD";

/// A client's request.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path and query, as sent.
    pub target: String,
    /// The header fields, repeated ones included.
    pub headers: HeaderMap,
    /// Whether a body follows.
    pub has_body: bool,
}

impl Request {
    /// The values of a header that may be repeated. One that is no visible ASCII reads as U+FFFD:
    /// it is there, and means nothing.
    fn header_values(&self, name: HeaderName) -> impl Iterator<Item = &str> {
        let values = self.headers.get_all(name).into_iter();
        values.map(|value| value.to_str().unwrap_or("\u{fffd}"))
    }
}

/// How a request is answered.
#[derive(Debug)]
pub enum Answer {
    /// With this response. For `HEAD` it has the body that `GET` would have, so that its length is
    /// known; whoever sends it leaves the body out.
    Reply(Response<Bytes>),
    /// With an object of the store, which the proxy streams to the client.
    Stream(BlobStream),
}

/// Answers a request. Failures are answered too: in the API's JSON.
pub async fn handle(request: Request, store: &impl Store) -> Answer {
    let answer = match dispatch(&request, store).await {
        Ok(answer) => answer,
        Err(error) => Answer::Reply(error.into_response()),
    };
    match answer {
        Answer::Reply(response) => Answer::Reply(with_api_version(response)),
        stream @ Answer::Stream(_) => stream,
    }
}

async fn dispatch(request: &Request, store: &impl Store) -> Result<Answer, Error> {
    let endpoint = Endpoint::parse(&request.target)?;
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Err(Error::method_not_allowed(READ_METHODS));
    }
    match endpoint {
        Endpoint::Base => Ok(Answer::Reply(base())),
        Endpoint::Manifest { name, reference } => {
            let response = manifests::get(request, store, &name, &reference).await?;
            Ok(Answer::Reply(response))
        }
        Endpoint::Blob { name, digest } => blobs::get(request, store, &name, digest).await,
    }
}

/// `GET /v2/`: yes, this is a registry.
fn base() -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(b"{}"));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Adds the header that every reply of the API carries.
pub fn with_api_version<B>(mut response: Response<B>) -> Response<B> {
    response.headers_mut().insert(API_VERSION, API_VERSION_2);
    response
}
