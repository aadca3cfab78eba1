//! A client's request, as the proxy hands it to a handler.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::LocalBoxFuture;
use http::Method;
use http::header::{HeaderName, USER_AGENT};

use super::access::ResourceActions;
use super::endpoints::token::FORM_MAX_BYTES;
use super::events::{Event, EventAction};
use super::exchange::Exchange;
use super::http::error::{Error, ErrorCode};
use super::http::{HeaderFields, is_authority};
use super::route::Endpoint;
use super::settings::Settings;
use crate::oci::Name;

/// The largest manifest that is sent from memory, in bytes; a larger one is streamed from the store. What is
/// sent from memory the proxy holds until the client has taken it, however slow that is, while what it
/// streams waits in the store.
pub const REPLY_MAX_BYTES: usize = 64 * 1024;

/// How much of a `User-Agent` is kept for the access log, in bytes: of text that is ASCII, or else a single character.
const USER_AGENT_MAX: usize = 256;

/// A client's request.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path and query, as they were sent.
    pub target: String,
    /// What is noted about it until it is answered.
    pub exchange: Rc<Exchange>,
    /// The header fields.
    pub headers: HeaderFields,
    /// The body.
    pub body: Body,
    /// What the caller's token authorises, as a filter before this one has verified it.
    pub resources: Vec<ResourceActions>,
    /// The largest manifest that is sent from memory, in bytes: [`REPLY_MAX_BYTES`], or less while the proxy holds
    /// many replies that clients do not take.
    pub reply_max_bytes: usize,
    /// The clock and the randomness of the proxy.
    pub environment: Rc<dyn Environment>,
}

/// A request's body, as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// The request has no body.
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

/// How a request's body is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyUse {
    /// The request takes none: it is thrown away.
    None,
    /// [`handle`](super::handle) is to have all of it.
    Whole,
    /// It is streamed to the store, by [`handle_streamed`](super::handle_streamed).
    Streamed,
}

/// The proxy, as far as handlers need it: the time, values that nobody can guess, and what it knows of the request that
/// is being handled, which is nothing unless said otherwise.
pub trait Environment: fmt::Debug {
    /// The time.
    fn now(&self) -> SystemTime;

    /// The time as it was a moment ago, a tenth of a second at most. It costs less.
    fn recent(&self) -> SystemTime {
        self.now()
    }

    /// A new random value.
    fn nonce(&self) -> Nonce;

    /// Waits so long, a tenth of a second more at most.
    fn delay(&self, time: Duration) -> LocalBoxFuture<'static, ()>;

    /// The same time, since 1970.
    fn recent_time(&self) -> Duration {
        self.recent().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    /// The client's address; of IPv6 the network of 64 bits, which is what one customer of a provider has.
    fn client_address(&self) -> Option<IpAddr> {
        None
    }

    /// The client's address with its port, as text.
    fn client_socket(&self) -> Option<String> {
        None
    }

    /// Whether somebody wants to know of such an event in a repository. It costs next to nothing if nobody does.
    fn wants_event(&self, _action: EventAction, _repository: &Name) -> bool {
        false
    }

    /// Has an event sent to whoever wants to know of it. It is not waited for.
    fn send_event(&self, _event: Event) {}

    /// The names in the client's certificate, which the proxy has verified: URIs, and names of hosts after `dns:`.
    fn certificate_names(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether a filter has left anything there in the request's metadata.
    fn has_metadata(&self, _filter: &str, _path: &[&str]) -> bool {
        false
    }

    /// A text that a filter has left in the request's metadata.
    fn metadata_text(&self, _filter: &str, _path: &[&str]) -> Option<String> {
        None
    }

    /// A list of texts that a filter has left in the request's metadata, or a single one; empty if there is none.
    fn metadata_texts(&self, _filter: &str, _path: &[&str]) -> Vec<String> {
        Vec::new()
    }

    /// The `access` claim of a token that a filter has left in the request's metadata.
    fn metadata_access(&self, _filter: &str, _token: &str) -> Vec<ResourceActions> {
        Vec::new()
    }
}

/// A random value that is given once: names that must be new are made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce(pub [u8; 32]);

impl Nonce {
    /// Its first 128 bits.
    pub fn bits(&self) -> u128 {
        self.0.iter().take(16).fold(0, |bits, byte| bits << 8 | u128::from(*byte))
    }

    /// A UUID of version 8 (RFC 9562, section 5.8) that is made of it.
    pub fn uuid(&self) -> String {
        uuid::Builder::from_custom_bytes(self.bits().to_be_bytes()).into_uuid().to_string()
    }
}

impl Request {
    /// A request without a body, for `target`, the path and query as they were sent.
    pub fn new(
        method: Method,
        target: impl Into<String>,
        headers: HeaderFields,
        environment: Rc<dyn Environment>,
    ) -> Self {
        let user_agent = headers.texts(USER_AGENT).next();
        let user_agent =
            user_agent.map(|text| text.get(..USER_AGENT_MAX).unwrap_or(text).to_owned());
        let target = target.into();
        Self {
            exchange: Rc::new(Exchange::new(&method, &target, user_agent)),
            target,
            method,
            headers,
            body: Body::None,
            resources: Vec::new(),
            reply_max_bytes: REPLY_MAX_BYTES,
            environment,
        }
    }

    /// The endpoint of the API that the request is for.
    ///
    /// # Errors
    ///
    /// Those of [`Endpoint::parse`].
    pub fn endpoint(&self) -> Result<&Endpoint, Error> {
        self.exchange.endpoint.as_ref().map_err(Clone::clone)
    }

    /// How the body is treated. Only a manifest, and the form for a token, is ever held in memory.
    pub fn body_use(&self) -> BodyUse {
        match (&self.exchange.endpoint, &self.method) {
            (Ok(Endpoint::Manifest { .. }), &Method::PUT) => BodyUse::Whole,
            (Ok(Endpoint::Token), &Method::POST) => BodyUse::Whole,
            (Ok(Endpoint::Upload { .. }), &Method::PATCH | &Method::PUT) => BodyUse::Streamed,
            (Ok(Endpoint::Uploads { .. }), &Method::POST)
                if self.query_values("digest").next().is_some() =>
            {
                BodyUse::Streamed
            }
            _ => BodyUse::None,
        }
    }

    /// How much of a body is kept that the handler is to have whole, in bytes.
    pub fn body_max_bytes(&self, settings: &Settings) -> u64 {
        match &self.exchange.endpoint {
            Ok(Endpoint::Token) => FORM_MAX_BYTES,
            _ => settings.manifest_max_bytes,
        }
    }

    /// The repository from which a blob is to be mounted, if the request names one.
    pub fn mount_source(&self) -> Option<Name> {
        self.query_values("mount").next()?;
        self.query_values("from").next()?.parse().ok()
    }

    /// The values of a query parameter, decoded.
    pub fn query_values(&self, name: &str) -> impl Iterator<Item = Cow<'_, str>> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let pairs = form_urlencoded::parse(query.as_bytes());
        pairs.filter_map(move |(key, value)| (key == name).then_some(value))
    }

    /// The values of a header that may be repeated, as text.
    pub fn header_values(&self, name: HeaderName) -> impl Iterator<Item = &str> {
        self.headers.texts(name)
    }

    /// The value of a header, the first if it is repeated.
    pub fn header_value(&self, name: HeaderName) -> Option<&str> {
        self.header_values(name).next()
    }

    /// The host that the client asked, perhaps with a port; `None` if what it asked is no host.
    pub fn host(&self) -> Option<&str> {
        self.headers.text(":authority").filter(|text| is_authority(text))
    }

    /// The scheme by which the client reached this registry: `https` unless the proxy knows better.
    pub fn scheme(&self) -> &'static str {
        let is_plain = self.headers.text("x-forwarded-proto") == Some("http");
        if is_plain { "http" } else { "https" }
    }

    /// Refuses a body where the answer is streamed: it would be sent to the store together with the request.
    ///
    /// # Errors
    ///
    /// `SIZE_INVALID` for a request with a body.
    pub fn refuse_body(&self) -> Result<(), Error> {
        if self.body == Body::None {
            return Ok(());
        }
        Err(Error::new(ErrorCode::SizeInvalid, "a request for content has no body"))
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::registry::test_registry::request;

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
            let request = request(method.clone(), &target, &[]);
            assert_eq!(request.body_use(), body_use, "{method} {target}");
        }
    }
}
