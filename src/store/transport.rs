//! The transport to the store: one request, one answer. Envoy carries it in the filter, a client of its own in the
//! program `moorage`.

use bytes::Bytes;
use http::{Method, StatusCode};
use thiserror::Error;

/// A request to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// The method.
    pub method: Method,
    /// The `Host` of the request.
    pub authority: String,
    /// The path, bucket and key, and perhaps a query; encoded where that is needed.
    pub path: String,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body; empty for none.
    pub body: Bytes,
    /// Whether the answer's `ETag` is needed. Reading a header has its price.
    pub wants_version: bool,
    /// How long the answer may take.
    pub timeout: Timeout,
}

/// How long the store may take over a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// As long as `store.timeout_ms` says.
    Ordinary,
    /// As long as `store.copy_timeout_ms` says: it moves a good deal of data.
    Copy,
}

/// Whether the proxy may send a request to the store again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Once only: whoever asked has to know if it was done.
    Never,
    /// When the connection fails or the store errs, as long as there is time for it.
    WhenItFails,
}

/// The store's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status.
    pub status: StatusCode,
    /// The `ETag`, if it was asked for and given.
    pub version: Option<String>,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HttpError {
    /// No connection, or it broke before the whole answer was there.
    #[error("the connection failed")]
    Connection,
    /// The proxy knows no way to the store.
    #[error("Envoy has no cluster of the name that store.cluster gives")]
    NoSuchCluster,
    /// The answer is not HTTP.
    #[error("the answer is not HTTP")]
    Nonsense,
    /// No connection, or none that held, and the carrier knows why. It has repeated what it may.
    #[error("{0}")]
    Unreachable(String),
}

/// The transport of requests to the store.
#[expect(async_fn_in_trait, reason = "the filter runs in one thread; no future is ever sent")]
pub trait Http {
    /// Sends one request and reads its whole answer. The time this may take is the implementation's
    /// to limit; it reports a request that took too long as status 504, as Envoy does.
    async fn send(&self, request: &HttpRequest, repeat: Repeat) -> Result<HttpResponse, HttpError>;
}
