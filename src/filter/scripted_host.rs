//! A host without Envoy, for the filter's tests: it keeps what Envoy would keep of each stream, and refuses, by a
//! panic, what Envoy refuses.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::host::{CallError, Headers, Host, SharedData, SharedDataError};

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
    /// How often setting shared data is refused because another worker was faster.
    pub faster_workers: usize,
    /// The queues, with how many entries each has.
    pub queues: Vec<usize>,
    pub refuses_queues: bool,
    pub has_no_random: bool,
    pub has_no_cluster: bool,
    randoms: u8,
    /// The time since the epoch.
    pub now: Duration,
    pub tick_period: Option<Duration>,
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
    /// What was sent on to the store.
    pub sent_on: Vec<u8>,
    pub response_headers: Headers,
    /// What Envoy holds of the response.
    pub response_body: Vec<u8>,
    /// The response that the filter gave by itself.
    pub reply: Option<Reply>,
    pub properties: HashMap<String, Vec<u8>>,
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
    pub method: String,
    pub path: String,
    pub body: Vec<u8>,
    pub is_open: bool,
}

/// The response to a storage call.
#[derive(Debug, Clone)]
pub struct CallResponse {
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
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
        self.stream(|stream| stream.request_headers.clone())
    }

    fn set_request_headers(&self, headers: Vec<(&str, &[u8])>) {
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_vec()));
        self.stream(|stream| stream.request_headers = headers.collect());
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
            assert!(std::mem::take(&mut stream.is_paused), "a request that goes on was held");
            let held = std::mem::take(&mut stream.request_body);
            stream.sent_on.extend(held);
        });
    }

    fn response_headers(&self) -> Headers {
        self.stream(|stream| stream.response_headers.clone())
    }

    fn set_response_headers(&self, headers: Vec<(&str, &[u8])>) {
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_vec()));
        self.stream(|stream| stream.response_headers = headers.collect());
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
        self.stream(|stream| {
            assert!(stream.reply.replace(reply).is_none(), "a request has one reply");
        });
    }

    fn property(&self, path: Vec<&str>) -> Option<Vec<u8>> {
        self.stream(|stream| stream.properties.get(&path.join(".")).cloned())
    }

    fn dispatch_call(
        &self,
        _: &str,
        headers: Vec<(&str, &str)>,
        body: Option<&[u8]>,
        _: Duration,
    ) -> Result<u32, CallError> {
        let mut state = self.state();
        if state.has_no_cluster {
            return Err(CallError::NoSuchCluster);
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
            method: header(":method"),
            path: header(":path"),
            body: body.unwrap_or_default().to_vec(),
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
        let is_there = state.streams.contains_key(&context_id);
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
        if let Some(left) = state.faster_workers.checked_sub(1) {
            state.faster_workers = left;
            return Err(SharedDataError::Changed);
        }
        let entry = state.shared.entry(key.to_owned()).or_default();
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
