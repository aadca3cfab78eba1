//! A host without Envoy, for the filter's tests: it keeps what Envoy would keep of each stream, and refuses, by a
//! panic, what Envoy refuses.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::host::{CallError, Headers, Host, MetricKind, SharedData, SharedDataError};

/// The id of the context that is a plugin, not a stream.
pub const ROOT: u32 = 1;

/// The scripted host. Clones are the same host.
#[derive(Debug, Clone, Default)]
pub struct ScriptedHost(Arc<Mutex<State>>);

/// What the host knows.
#[derive(Debug, Default)]
pub struct State {
    /// The streams that are there, by their context ids.
    pub streams: BTreeMap<u32, StreamState>,
    /// The context that is being called back: the SDK reports the responses to calls that are made now to it.
    pub active: Option<u32>,
    /// The context as which everything is done: the same, unless the plugin does something as a stream.
    pub effective: Option<u32>,
    /// What it is called back for.
    pub callback: Callback,
    /// The storage calls that were made.
    pub calls: Vec<Call>,
    /// The response that is being reported.
    pub reported: Option<CallResponse>,
    pub shared: HashMap<String, (Option<Vec<u8>>, u32)>,
    /// How often another worker raises a shared number between a look at it and its being set.
    pub faster_workers: usize,
    pub refuses_shared_data: bool,
    /// The queues, with how many entries each has.
    pub queues: Vec<usize>,
    pub refuses_queues: bool,
    pub has_no_random: bool,
    pub metrics: Vec<Metric>,
    /// Why no call to the store is made, if none is.
    pub refuses_calls: Option<CallError>,
    randoms: u8,
    /// The time since the epoch.
    pub now: Duration,
    pub tick_period: Option<Duration>,
    /// The streams whose replies Envoy sends when the callback is over.
    pub replying: Vec<u32>,
}

/// What a callback is for: only then some of what a stream has can be looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Callback {
    #[default]
    Other,
    RequestBody,
    RequestTrailers,
    ResponseBody,
    CallResponse,
}

/// What Envoy keeps of a stream.
#[derive(Debug, Default)]
pub struct StreamState {
    pub request_headers: Headers,
    /// What Envoy holds of the client's body.
    pub request_body: Vec<u8>,
    pub has_trailers: bool,
    /// Whether the request is held.
    pub is_paused: bool,
    /// Whether the request's headers have gone to the store: they can't be looked at or changed any more.
    pub is_request_sent: bool,
    /// Whether the client has sent its request to the end.
    pub has_ended: bool,
    /// Whether the store has the request to the end.
    pub is_sent_whole: bool,
    /// What was sent on to the store.
    pub sent_on: Vec<u8>,
    pub response: Response,
    pub response_headers: Headers,
    /// What Envoy holds of the response.
    pub response_body: Vec<u8>,
    /// Whether the client has the response to its end.
    pub is_response_whole: bool,
    /// The response that the filter gave by itself.
    pub reply: Option<Reply>,
    /// Whether the client's stream was reset, because the filter gave a response where one had begun.
    pub is_reset: bool,
    pub properties: HashMap<String, Vec<u8>>,
    /// The record for the access log.
    pub record: Option<Vec<u8>>,
}

/// A metric, with what it was increased by, set to, or has recorded.
#[derive(Debug)]
pub struct Metric {
    pub name: String,
    pub kind: MetricKind,
    pub values: Vec<u64>,
}

/// How far the response has come that is on its way to the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Response {
    #[default]
    Absent,
    /// The filter has seen its headers, and Envoy holds them.
    Held,
    /// The client has its headers: they can't be looked at or changed any more.
    Begun,
}

/// A response that the filter gave by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// A storage call.
#[derive(Debug, Clone)]
pub struct Call {
    pub token: u32,
    /// The context that its response is reported to.
    pub reported_to: u32,
    /// The context that it dies with.
    pub owner: u32,
    pub cluster: String,
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub timeout: Duration,
    pub is_open: bool,
}

/// The response to a storage call.
#[derive(Debug, Clone)]
pub struct CallResponse {
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl StreamState {
    /// Envoy goes on with the request: what it holds goes to the store.
    pub fn go_on(&mut self) {
        self.is_paused = false;
        self.is_request_sent = true;
        self.is_sent_whole = self.has_ended;
        let held = std::mem::take(&mut self.request_body);
        self.sent_on.extend(held);
    }
}

impl ScriptedHost {
    /// What the host knows, to look at or to change.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the stream that is being called back.
    fn stream<T>(&self, act: impl FnOnce(&mut StreamState) -> T) -> T {
        let mut state = self.state();
        let id = state.effective.expect("something is being called back");
        act(state.streams.get_mut(&id).expect("it is a stream that is still there"))
    }

    fn expect_callback(&self, expected: Callback) {
        assert_eq!(self.state().callback, expected, "Envoy shows this in its own callback alone");
    }
}

impl Host for ScriptedHost {
    fn request_headers(&self) -> Headers {
        self.stream(|stream| {
            assert!(!stream.is_request_sent, "Envoy has sent the request's headers");
            stream.request_headers.clone()
        })
    }

    fn set_request_headers(&self, headers: Vec<(&str, &[u8])>) {
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_vec()));
        self.stream(|stream| {
            assert!(!stream.is_request_sent, "Envoy has sent the request's headers");
            stream.request_headers = headers.collect();
        });
    }

    fn remove_request_trailers(&self) {
        self.expect_callback(Callback::RequestTrailers);
        self.stream(|stream| stream.has_trailers = false);
    }

    fn request_body(&self, size: usize) -> Option<Vec<u8>> {
        self.expect_callback(Callback::RequestBody);
        self.stream(|stream| Some(stream.request_body.get(..size)?.to_vec()))
    }

    fn replace_request_body(&self, size: usize, bytes: &[u8]) {
        self.expect_callback(Callback::RequestBody);
        self.stream(|stream| stream.request_body.splice(..size, bytes.iter().copied()).count());
    }

    fn resume_request(&self) {
        self.stream(|stream| {
            assert!(stream.is_paused, "a request that goes on was held");
            assert!(stream.reply.is_none(), "a request that has its reply does not go on");
            stream.go_on();
        });
    }

    fn response_headers(&self) -> Headers {
        self.stream(|stream| {
            assert_eq!(stream.response, Response::Held, "Envoy shows no response's headers now");
            stream.response_headers.clone()
        })
    }

    fn set_response_headers(&self, headers: Vec<(&str, &[u8])>) {
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_vec()));
        self.stream(|stream| {
            assert_eq!(stream.response, Response::Held, "Envoy shows no response's headers now");
            stream.response_headers = headers.collect();
        });
    }

    fn response_body(&self, size: usize) -> Option<Vec<u8>> {
        self.expect_callback(Callback::ResponseBody);
        self.stream(|stream| Some(stream.response_body.get(..size)?.to_vec()))
    }

    fn replace_response_body(&self, size: usize, bytes: &[u8]) {
        self.expect_callback(Callback::ResponseBody);
        self.stream(|stream| stream.response_body.splice(..size, bytes.iter().copied()).count());
    }

    fn send_response(&self, status: u16, headers: Vec<(&str, &str)>, body: Option<&[u8]>) {
        let headers = headers.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        let reply = Reply { status, headers, body: body.unwrap_or_default().to_vec() };
        let response = self.stream(|stream| {
            assert!(stream.reply.replace(reply).is_none(), "a request has one reply");
            stream.is_reset = stream.response == Response::Begun;
            stream.response
        });
        // It passes the filter's callbacks like any other, unless those have seen another already.
        if response == Response::Absent {
            let mut state = self.state();
            let id = state.effective.expect("something is being called back");
            state.replying.push(id);
        }
    }

    fn property(&self, path: Vec<&str>) -> Option<Vec<u8>> {
        self.stream(|stream| stream.properties.get(&path.join(".")).cloned())
    }

    fn declare_record(&self, _: &str) -> bool {
        true
    }

    fn set_record(&self, _: &str, value: &[u8]) {
        self.stream(|stream| stream.record = Some(value.to_vec()));
    }

    fn set_filter_state(&self, name: &str, value: &[u8]) {
        let key = format!("filter_state.wasm.{name}");
        self.stream(|stream| stream.properties.insert(key, value.to_vec()));
    }

    fn define_metric(&self, kind: MetricKind, name: &str) -> Option<u32> {
        let mut state = self.state();
        let known = state.metrics.iter().position(|metric| metric.name == name);
        let id = known.unwrap_or_else(|| {
            state.metrics.push(Metric { name: name.to_owned(), kind, values: Vec::new() });
            state.metrics.len() - 1
        });
        u32::try_from(id).ok()
    }

    fn increment_metric(&self, id: u32, amount: i64) {
        let mut state = self.state();
        let metric = &mut state.metrics[id as usize];
        assert_eq!(metric.kind, MetricKind::Counter);
        metric.values.push(u64::try_from(amount).expect("a counter grows"));
    }

    fn record_metric(&self, id: u32, value: u64) {
        let mut state = self.state();
        let metric = &mut state.metrics[id as usize];
        assert_ne!(metric.kind, MetricKind::Counter);
        metric.values.push(value);
    }

    fn dispatch_call(
        &self,
        cluster: &str,
        headers: Vec<(&str, &str)>,
        body: Option<&[u8]>,
        timeout: Duration,
    ) -> Result<u32, CallError> {
        let mut state = self.state();
        if let Some(error) = state.refuses_calls {
            return Err(error);
        }
        let header = |name| {
            let found = headers.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned()).unwrap_or_default()
        };
        let token = u32::try_from(state.calls.len()).expect("few calls");
        let call = Call {
            token,
            reported_to: state.active.expect("something is being called back"),
            owner: state.effective.expect("something is being called back"),
            cluster: cluster.to_owned(),
            method: header(":method"),
            path: header(":path"),
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            body: body.unwrap_or_default().to_vec(),
            timeout,
            is_open: true,
        };
        state.calls.push(call);
        Ok(token)
    }

    fn call_response_header(&self, name: &str) -> Option<Vec<u8>> {
        self.expect_callback(Callback::CallResponse);
        let state = self.state();
        let response = state.reported.as_ref().expect("a response is being reported");
        assert!(!response.headers.is_empty(), "the SDK panics for a response without headers");
        let found = response.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone())
    }

    fn call_response_body(&self, size: usize) -> Option<Vec<u8>> {
        self.expect_callback(Callback::CallResponse);
        let state = self.state();
        let response = state.reported.as_ref().expect("a response is being reported");
        response.body.get(..size).map(<[u8]>::to_vec)
    }

    fn set_effective_context(&self, context_id: u32) -> bool {
        let mut state = self.state();
        let is_there = context_id == ROOT || state.streams.contains_key(&context_id);
        if is_there {
            state.effective = Some(context_id);
        }
        is_there
    }

    fn set_tick_period(&self, period: Duration) {
        self.state().tick_period = Some(period);
    }

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.state().now
    }

    fn random(&self) -> Option<[u8; 32]> {
        let mut state = self.state();
        state.randoms = state.randoms.wrapping_add(1);
        (!state.has_no_random).then_some([state.randoms; 32])
    }

    fn shared_data(&self, key: &str) -> SharedData {
        let state = self.state();
        state.shared.get(key).map_or((None, None), |(value, set)| (value.clone(), Some(*set)))
    }

    fn set_shared_data(
        &self,
        key: &str,
        value: Option<&[u8]>,
        seen: Option<u32>,
    ) -> Result<(), SharedDataError> {
        let mut state = self.state();
        if state.refuses_shared_data {
            return Err(SharedDataError::Refused);
        }
        let is_faster = state.faster_workers > 0;
        state.faster_workers -= usize::from(is_faster);
        let entry = state.shared.entry(key.to_owned()).or_default();
        if is_faster {
            let number = entry.0.take().and_then(|bytes| bytes.try_into().ok());
            let raised = number.map_or(0, u64::from_le_bytes) + 1;
            *entry = (Some(raised.to_le_bytes().to_vec()), entry.1 + 1);
        }
        // What was not there is set without a comparison.
        if seen.is_some_and(|seen| seen != entry.1) {
            return Err(SharedDataError::Changed);
        }
        *entry = (value.map(<[u8]>::to_vec), entry.1 + 1);
        Ok(())
    }

    fn register_queue(&self, _: &str) -> Option<u32> {
        let mut state = self.state();
        if state.refuses_queues {
            return None;
        }
        state.queues.push(0);
        u32::try_from(state.queues.len() - 1).ok()
    }

    fn enqueue(&self, queue: u32) {
        self.state().queues[queue as usize] += 1;
    }

    fn dequeue(&self, queue: u32) -> bool {
        let mut state = self.state();
        let entries = &mut state.queues[queue as usize];
        let has_entry = *entries > 0;
        *entries -= usize::from(has_entry);
        has_entry
    }
}
