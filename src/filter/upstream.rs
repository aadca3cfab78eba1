//! Storage calls over Envoy: [`Http`] by `dispatch_http_call`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use futures::channel::oneshot;
use http::StatusCode;
use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType, Status};

use crate::config::StoreConfig;
use crate::store::{Http, HttpError, HttpRequest, HttpResponse, Patience, Repeat};

type Outcome = Result<HttpResponse, HttpError>;

/// What has Envoy repeat a request, twice at most, with growing pauses of 25 to 250 ms. It takes these
/// headers out again, and its load balancing goes on to the next node. (Envoy, HTTP filters, Router:
/// `x-envoy-retry-on`, `x-envoy-max-retries`.)
const REPEATED_BY_ENVOY: [(&str, &str); 2] =
    [("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "2")];

/// A call under way.
struct Call {
    sender: oneshot::Sender<Outcome>,
    wants_version: bool,
}

/// The way to the blob store, shared by all exchanges of a plugin.
pub struct Upstream {
    cluster: String,
    timeout: Duration,
    copy_timeout: Duration,
    /// The calls under way, by Envoy's token.
    calls: RefCell<HashMap<u32, Call>>,
}

impl Upstream {
    /// The way to the store that `config` describes. Whether Envoy has the cluster shows with the
    /// first call: while it validates a bootstrap, or loads it, it has none yet.
    pub fn new(config: &StoreConfig) -> Self {
        Self {
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
            let _ = sender.send(read_response(header_count, body_size, wants_version));
        }
    }
}

impl Http for Upstream {
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
        let timeout = match request.patience {
            Patience::Ordinary => self.timeout,
            Patience::Copy => self.copy_timeout,
        };
        let token = hostcalls::dispatch_http_call(&self.cluster, headers, body, vec![], timeout)
            .map_err(|status| match status {
                Status::BadArgument => HttpError::NoSuchCluster,
                _ => HttpError::Connection,
            })?;
        let (sender, receiver) = oneshot::channel();
        let call = Call { sender, wants_version: request.wants_version };
        self.calls.borrow_mut().insert(token, call);
        let _forget_when_dropped = UnderWay { upstream: self, token };
        receiver.await.unwrap_or(Err(HttpError::Connection))
    }
}

/// A call that someone waits for. When an exchange ends early Envoy drops its calls without a word,
/// so they are forgotten here.
struct UnderWay<'a> {
    upstream: &'a Upstream,
    token: u32,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.upstream.calls.borrow_mut().remove(&self.token);
    }
}

/// Reads the response that Envoy holds. One without headers is Envoy's way to report a broken
/// connection, and to ask for a header then would be a trap: the SDK panics.
fn read_response(header_count: usize, body_size: usize, wants_version: bool) -> Outcome {
    if header_count == 0 {
        return Err(HttpError::Connection);
    }
    let header = |name| {
        hostcalls::get_map_value_bytes(MapType::HttpCallResponseHeaders, name).ok().flatten()
    };
    let status = header(":status").ok_or(HttpError::Nonsense)?;
    let status = StatusCode::from_bytes(&status).map_err(|_| HttpError::Nonsense)?;
    let body = match body_size {
        0 => None,
        size => hostcalls::get_buffer(BufferType::HttpCallResponseBody, 0, size).ok().flatten(),
    };
    let body = body.unwrap_or_default();
    if body.len() != body_size {
        return Err(HttpError::Connection);
    }
    let version = if wants_version { header("etag") } else { None };
    let version = version.and_then(|etag| String::from_utf8(etag).ok());
    Ok(HttpResponse { status, version, body: body.into() })
}
