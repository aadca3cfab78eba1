//! Storage calls over Envoy: [`Http`] by `dispatch_http_call`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use futures::channel::oneshot;
use http::StatusCode;

use super::host::{CallError, Host};
use super::telemetry::{StoreOperation, StoreResult, Telemetry};
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
    telemetry: Rc<Telemetry<H>>,
    /// The calls under way, by Envoy's token.
    calls: RefCell<HashMap<u32, Call>>,
}

impl<H: Host> Upstream<H> {
    /// The way to the store that `config` describes. Whether Envoy has the cluster shows with the
    /// first call: while it validates a bootstrap, or loads it, it has none yet.
    pub fn new(host: H, config: &StoreConfig, telemetry: Rc<Telemetry<H>>) -> Self {
        Self {
            host,
            cluster: config.cluster.clone(),
            timeout: config.timeout(),
            copy_timeout: config.copy_timeout(),
            telemetry,
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
        let trace_headers = self.telemetry.trace_headers();
        headers.extend(trace_headers.iter().map(|(name, value)| (*name, value.as_str())));
        headers.extend(request.headers.iter().map(|(name, value)| (*name, value.as_str())));
        if repeat == Repeat::WhenItFails {
            headers.extend(REPEATED_BY_ENVOY);
        }
        let body = Some(&request.body[..]).filter(|body| !body.is_empty());
        let timeout = match request.timeout {
            Timeout::Ordinary => self.timeout,
            Timeout::Copy => self.copy_timeout,
        };
        let noted = self.telemetry.store_call(StoreOperation::of(request));
        let token = match self.host.dispatch_call(&self.cluster, headers, body, timeout) {
            Ok(token) => token,
            Err(error) => {
                noted.end(StoreResult::Unavailable);
                return Err(match error {
                    CallError::NoSuchCluster => HttpError::NoSuchCluster,
                    CallError::Refused => HttpError::Connection,
                });
            }
        };
        let (sender, receiver) = oneshot::channel();
        let call = Call { sender, wants_version: request.wants_version };
        self.calls.borrow_mut().insert(token, call);
        let _forget_when_dropped = UnderWay { upstream: self, token };
        let outcome = receiver.await.unwrap_or(Err(HttpError::Connection));
        noted.end(StoreResult::of(&outcome));
        outcome
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

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll};

    use futures::task::noop_waker_ref;
    use http::Method;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::config::Config;
    use crate::filter::scripted_host::{Call, CallResponse, Callback, ROOT, ScriptedHost};

    const CONFIG: &[u8] =
        br#"{"store":{"cluster":"c","authority":"s3","bucket":"registry","timeout_ms":3,
        "copy_timeout_ms":7}}"#;

    /// A header's name and value.
    type Header = (&'static str, &'static [u8]);

    /// The headers and the body of a response, the length that the body is said to have, whether the `ETag` is wanted,
    /// and what comes of it.
    type Row = (&'static [Header], &'static [u8], usize, bool, Outcome);

    fn upstream() -> Upstream<ScriptedHost> {
        let host = ScriptedHost::default();
        (host.state().active, host.state().effective) = (Some(ROOT), Some(ROOT));
        host.state().callback = Callback::CallResponse;
        let config = Config::parse(CONFIG).expect("a valid configuration");
        let telemetry = Rc::new(Telemetry::new(host.clone(), &config.telemetry));
        Upstream::new(host, &config.store, telemetry)
    }

    fn request(timeout: Timeout, wants_version: bool) -> HttpRequest {
        HttpRequest {
            method: Method::PUT,
            authority: "s3".to_owned(),
            path: "/registry/key".to_owned(),
            headers: vec![("if-match", "1".to_owned())],
            body: "content".into(),
            wants_version,
            timeout,
        }
    }

    /// The outcome of a call, and the call as Envoy was asked for it. The response has these headers, and is said to
    /// have a body of so many bytes.
    fn outcome(
        request: &HttpRequest,
        repeat: Repeat,
        headers: &[Header],
        body: &[u8],
        body_size: usize,
    ) -> (Outcome, Call) {
        let upstream = upstream();
        let mut sending = pin!(upstream.send(request, repeat));
        let mut context = Context::from_waker(noop_waker_ref());
        assert!(sending.as_mut().poll(&mut context).is_pending());
        let call = upstream.host.state().calls[0].clone();
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
        let count = headers.len();
        upstream.host.state().reported = Some(CallResponse { headers, body: body.to_vec() });
        upstream.complete(call.token, count, body_size);
        let Poll::Ready(outcome) = sending.poll(&mut context) else {
            panic!("the response is there");
        };
        assert_eq!(upstream.calls_under_way(), 0);
        (outcome, call)
    }

    #[test]
    fn only_what_is_a_whole_response_is_taken_for_one() {
        const OK: Header = (":status", b"200");
        let response = |status, version: Option<&str>, body: &'static [u8]| {
            let status = StatusCode::from_u16(status).expect("a status");
            Ok(HttpResponse { status, version: version.map(str::to_owned), body: body.into() })
        };
        let rows: [Row; 9] = [
            (&[OK], b"abc", 3, false, response(200, None, b"abc")),
            (&[(":status", b"404")], b"", 0, false, response(404, None, b"")),
            (&[OK, ("etag", b"\"1\"")], b"", 0, true, response(200, Some("\"1\""), b"")),
            (&[OK, ("etag", b"\"1\"")], b"", 0, false, response(200, None, b"")),
            (&[OK, ("etag", b"\xff")], b"", 0, true, response(200, None, b"")),
            // A broken connection, or a response that is too large for Envoy.
            (&[], b"", 0, false, Err(HttpError::Connection)),
            (&[OK], b"ab", 3, false, Err(HttpError::Connection)),
            (&[("server", b"s3")], b"", 0, false, Err(HttpError::Nonsense)),
            (&[(":status", b"2000")], b"", 0, false, Err(HttpError::Nonsense)),
        ];
        for (headers, body, body_size, wants_version, expected) in rows {
            let request = request(Timeout::Ordinary, wants_version);
            let (outcome, _) = outcome(&request, Repeat::Never, headers, body, body_size);
            assert_eq!(outcome, expected, "{headers:?} {body:?}");
        }
    }

    #[test]
    fn envoy_is_told_where_a_call_goes_how_long_it_may_take_and_whether_to_repeat_it() {
        for (timeout, repeat, milliseconds) in [
            (Timeout::Ordinary, Repeat::Never, 3),
            (Timeout::Copy, Repeat::Never, 7),
            (Timeout::Ordinary, Repeat::WhenItFails, 3),
        ] {
            let request = request(timeout, false);
            let (_, call) = outcome(&request, repeat, &[(":status", b"200")], b"", 0);
            assert_eq!((call.cluster.as_str(), call.body.as_slice()), ("c", &b"content"[..]));
            assert_eq!(call.timeout, Duration::from_millis(milliseconds));
            let own = [(":authority", "s3"), ("if-match", "1")];
            for (name, value) in own.into_iter().chain(REPEATED_BY_ENVOY) {
                let is_sent = call.headers.contains(&(name.to_owned(), value.to_owned()));
                let is_expected = own.contains(&(name, value)) || repeat == Repeat::WhenItFails;
                assert_eq!(is_sent, is_expected, "{name} of {repeat:?}");
            }
        }
    }

    #[test]
    fn a_call_that_envoy_does_not_make_has_failed_and_is_forgotten() {
        for (refusal, expected) in [
            (CallError::NoSuchCluster, HttpError::NoSuchCluster),
            (CallError::Refused, HttpError::Connection),
        ] {
            let upstream = upstream();
            upstream.host.state().refuses_calls = Some(refusal);
            let request = request(Timeout::Ordinary, false);
            let sending = pin!(upstream.send(&request, Repeat::Never));
            let poll = sending.poll(&mut Context::from_waker(noop_waker_ref()));
            assert_eq!(poll, Poll::Ready(Err(expected)));
            assert_eq!(upstream.calls_under_way(), 0);
        }
    }

    #[test]
    fn a_call_that_nobody_waits_for_any_more_is_forgotten_and_its_response_dropped() {
        let upstream = upstream();
        let request = request(Timeout::Ordinary, false);
        {
            let sending = pin!(upstream.send(&request, Repeat::Never));
            assert!(sending.poll(&mut Context::from_waker(noop_waker_ref())).is_pending());
            assert_eq!(upstream.calls_under_way(), 1);
        }
        assert_eq!(upstream.calls_under_way(), 0);
        upstream.complete(0, 1, 0);
    }
}
