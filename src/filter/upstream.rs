//! Storage calls over Envoy: [`Http`] by `dispatch_http_call`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use futures::channel::oneshot;
use http::StatusCode;

use super::host::{CallError, Host};
use crate::config::StoreConfig;
use crate::store::{Http, HttpError, HttpRequest, HttpResponse, Repeat, Timeout};

type Outcome = Result<HttpResponse, HttpError>;

/// The headers that have Envoy repeat a request, twice at most, with growing pauses of 25 to 250 ms. It takes these
/// headers out again, and its load balancing goes on to the next node. (Envoy, HTTP filters, Router:
/// `x-envoy-retry-on`, `x-envoy-max-retries`.)
const REPEATED_BY_ENVOY: [(&str, &str); 2] =
    [("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "2")];

/// A call under way.
#[derive(Debug)]
struct Call {
    sender: oneshot::Sender<Outcome>,
    wants_version: bool,
}

/// The way to the blob store, shared by all streams of a plugin.
#[derive(Debug)]
pub struct Upstream<H> {
    host: H,
    cluster: String,
    timeout: Duration,
    copy_timeout: Duration,
    /// The calls under way, by Envoy's token.
    calls: RefCell<HashMap<u32, Call>>,
}

impl<H: Host> Upstream<H> {
    /// The way to the store that `config` describes. Whether Envoy has the cluster shows with the
    /// first call: while it validates a bootstrap, or loads it, it has none yet.
    pub fn new(host: H, config: &StoreConfig) -> Self {
        Self {
            host,
            cluster: config.cluster.clone(),
            timeout: config.timeout(),
            copy_timeout: config.copy_timeout(),
            calls: RefCell::default(),
        }
    }

    /// Completes the call `token` with the response that Envoy holds now, of so many headers and so
    /// many bytes of body. To be called from the callback `on_http_call_response` only.
    pub fn complete(&self, token: u32, header_count: usize, body_size: usize) {
        let call = self.calls.borrow_mut().remove(&token);
        if let Some(Call { sender, wants_version }) = call {
            // Nobody waits any more if the client has gone away: then the response is dropped.
            let _ = sender.send(read_response(&self.host, header_count, body_size, wants_version));
        }
    }
}

#[cfg(test)]
impl<H> Upstream<H> {
    /// How many calls are under way.
    pub fn calls_under_way(&self) -> usize {
        self.calls.borrow().len()
    }
}

impl<H: Host> Http for Upstream<H> {
    async fn send(&self, request: &HttpRequest, repeat: Repeat) -> Result<HttpResponse, HttpError> {
        let mut headers = vec![
            (":method", request.method.as_str()),
            (":path", request.path.as_str()),
            (":authority", request.authority.as_str()),
        ];
        headers.extend(request.headers.iter().map(|(name, value)| (*name, value.as_str())));
        if repeat == Repeat::WhenItFails {
            headers.extend(REPEATED_BY_ENVOY);
        }
        let body = Some(&request.body[..]).filter(|body| !body.is_empty());
        let timeout = match request.timeout {
            Timeout::Ordinary => self.timeout,
            Timeout::Copy => self.copy_timeout,
        };
        let token =
            self.host.dispatch_call(&self.cluster, headers, body, timeout).map_err(|error| {
                match error {
                    CallError::NoSuchCluster => HttpError::NoSuchCluster,
                    CallError::Refused => HttpError::Connection,
                }
            })?;
        let (sender, receiver) = oneshot::channel();
        let call = Call { sender, wants_version: request.wants_version };
        self.calls.borrow_mut().insert(token, call);
        let _forget_when_dropped = UnderWay { upstream: self, token };
        receiver.await.unwrap_or(Err(HttpError::Connection))
    }
}

/// A call that someone waits for. When a stream ends early Envoy drops its calls without a word,
/// so they are forgotten here.
struct UnderWay<'a, H> {
    upstream: &'a Upstream<H>,
    token: u32,
}

impl<H> Drop for UnderWay<'_, H> {
    fn drop(&mut self) {
        self.upstream.calls.borrow_mut().remove(&self.token);
    }
}

/// Reads the response that Envoy holds. One without headers is Envoy's way to report a broken
/// connection, and to ask for a header then would be a trap: the SDK panics.
fn read_response(
    host: &impl Host,
    header_count: usize,
    body_size: usize,
    wants_version: bool,
) -> Outcome {
    if header_count == 0 {
        return Err(HttpError::Connection);
    }
    let header = |name| host.call_response_header(name);
    let status = header(":status").ok_or(HttpError::Nonsense)?;
    let status = StatusCode::from_bytes(&status).map_err(|_| HttpError::Nonsense)?;
    let body = match body_size {
        0 => None,
        size => host.call_response_body(size),
    };
    let body = body.unwrap_or_default();
    if body.len() != body_size {
        return Err(HttpError::Connection);
    }
    let version = if wants_version { header("etag") } else { None };
    let version = version.and_then(|etag| String::from_utf8(etag).ok());
    Ok(HttpResponse { status, version, body: body.into() })
}
