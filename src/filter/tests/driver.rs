//! A proxy around the filter that does what Envoy does: it calls back, holds what it is told to hold, and reports the
//! responses of a small store.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::record;
use crate::filter::host::{Action, Headers};
use crate::filter::http_filter::HttpFilter;
use crate::filter::plugin::{Plugin, Worker};
use crate::filter::scripted_host::{
    Call, CallResponse, Callback, ROOT, Reply, Response, ScriptedHost, StreamState,
};

/// The smallest configuration.
pub const CONFIG: &str =
    r#"{"store":{"cluster":"c","authority":"s3","bucket":"registry"},"cache":{"max_bytes":0}}"#;

/// The smallest configuration with further settings: members of an object, as JSON.
pub fn config_with(settings: &str) -> String {
    CONFIG.replacen('{', &format!("{{{settings},"), 1)
}

/// A proxy with one worker and one plugin.
pub struct Proxy {
    pub host: ScriptedHost,
    pub plugin: Plugin<ScriptedHost>,
    filters: HashMap<u32, HttpFilter<ScriptedHost>>,
    /// What the store has, by paths.
    pub objects: BTreeMap<String, Vec<u8>>,
    /// What filters before this one leave for it with each request.
    pub left_before: HashMap<String, Vec<u8>>,
    /// The queue of the plugin.
    queue: u32,
    first_id: u32,
}

impl Proxy {
    /// A proxy with this configuration of the plugin.
    pub fn new(config: &str) -> Self {
        Self::beside(&ScriptedHost::default(), config, 100)
    }

    /// Another plugin of the same host, whose streams have ids from `first_id` on.
    pub fn beside(host: &ScriptedHost, config: &str, first_id: u32) -> Self {
        let mut plugin = Plugin::new(host.clone());
        assert!(plugin.configure(config.as_bytes()), "a valid configuration");
        let queue = u32::try_from(host.state().queues.len() - 1).expect("few queues");
        Self {
            host: host.clone(),
            plugin,
            filters: HashMap::new(),
            objects: BTreeMap::new(),
            left_before: HashMap::new(),
            queue,
            first_id,
        }
    }

    pub fn worker(&self) -> &Worker<ScriptedHost> {
        self.plugin.worker()
    }

    fn called_back<T>(&self, context: u32, callback: Callback, act: impl FnOnce() -> T) -> T {
        let before = {
            let mut state = self.host.state();
            let before = (state.active, state.effective, state.callback);
            (state.active, state.effective, state.callback) =
                (Some(context), Some(context), callback);
            before
        };
        let result = act();
        let replying = {
            let mut state = self.host.state();
            (state.active, state.effective, state.callback) = before;
            match before.0 {
                None => std::mem::take(&mut state.replying),
                Some(_) => Vec::new(),
            }
        };
        replying.into_iter().for_each(|id| self.send_reply(id));
        result
    }

    /// Sends the reply that the filter gave: Envoy has it pass the filter's callbacks like any other response.
    fn send_reply(&self, id: u32) {
        let reply = self.reply(id).expect("a reply");
        let headers = reply.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let headers: Vec<_> = headers.collect();
        let is_empty = reply.body.is_empty();
        let action = self.respond(id, &reply.status.to_string(), &headers, true, is_empty);
        assert_eq!(action, Action::Continue, "nothing would let the reply go later");
        if !is_empty {
            assert_eq!(self.respond_with(id, &reply.body, true), reply.body, "it is left as it is");
        }
    }

    /// Does with the request what the filter says.
    fn follow(&self, id: u32, action: Action) -> Action {
        self.with(id, |stream| match action {
            Action::Pause => stream.is_paused = true,
            Action::Continue => {
                assert!(stream.reply.is_none(), "a request that has its reply does not go on");
                stream.go_on();
            }
        });
        action
    }

    /// The next of a request's body or trailers is there, and perhaps its end.
    fn note_end(&self, id: u32, end_of_stream: bool) {
        self.with(id, |stream| {
            assert!(stream.reply.is_none(), "Envoy shows no more of a request that has its reply");
            assert!(!stream.has_ended, "a request ends once");
            stream.has_ended = end_of_stream;
        });
    }

    /// A client's request arrives; gives its id. Without a body if `end_of_stream`.
    pub fn begin(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        end_of_stream: bool,
    ) -> u32 {
        self.begin_from("192.0.2.1:1000", method, path, headers, end_of_stream)
    }

    /// The same, from a client of this address.
    pub fn begin_from(
        &mut self,
        address: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        end_of_stream: bool,
    ) -> u32 {
        let own = [(":method", method), (":path", path), (":scheme", "http")];
        let fields = own.iter().chain(headers);
        let fields = fields.map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        self.begin_with(address, fields.collect(), end_of_stream)
    }

    /// The same, with these headers and no others.
    pub fn begin_with(&mut self, address: &str, headers: Headers, end_of_stream: bool) -> u32 {
        let id = self.first_id + u32::try_from(self.filters.len()).expect("few streams");
        let mut stream = StreamState {
            request_headers: headers,
            has_ended: end_of_stream,
            properties: self.left_before.clone(),
            ..StreamState::default()
        };
        stream.properties.insert("source.address".to_owned(), address.as_bytes().to_vec());
        self.host.state().streams.insert(id, stream);
        let filter = self.plugin.create_filter(id).expect("a configured plugin");
        self.filters.insert(id, filter);
        let filter = &self.filters[&id];
        let action =
            self.called_back(id, Callback::Other, || filter.request_headers(end_of_stream));
        self.follow(id, action);
        id
    }

    /// A request without a body, answered as far as the store can.
    pub fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> u32 {
        let id = self.begin(method, path, headers, true);
        self.answer_calls();
        id
    }

    /// The next piece of a request's body.
    pub fn send(&mut self, id: u32, piece: &[u8], end_of_stream: bool) -> Action {
        self.note_end(id, end_of_stream);
        let held = self.with(id, |stream| {
            stream.request_body.extend_from_slice(piece);
            stream.request_body.len()
        });
        let filter = &self.filters[&id];
        let action = self
            .called_back(id, Callback::RequestBody, || filter.request_body(held, end_of_stream));
        self.follow(id, action)
    }

    /// A request's body ends with trailers.
    pub fn send_trailers(&mut self, id: u32) -> Action {
        self.note_end(id, true);
        self.with(id, |stream| stream.has_trailers = true);
        let filter = &self.filters[&id];
        let action = self.called_back(id, Callback::RequestTrailers, || filter.request_trailers());
        self.follow(id, action)
    }

    /// A response begins: the store's to a streamed request, or one of Envoy's own.
    pub fn respond(
        &self,
        id: u32,
        status: &str,
        headers: &[(&str, &str)],
        is_envoys: bool,
        end_of_stream: bool,
    ) -> Action {
        let own = [(":status", status)];
        let fields = own.iter().chain(headers);
        let fields = fields.map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        let details: &[u8] = if is_envoys { b"request_timeout" } else { b"via_upstream" };
        self.with(id, |stream| {
            assert_eq!(stream.response, Response::Absent, "a request has one response");
            assert!(is_envoys || stream.is_request_sent, "the store answers what it was asked");
            stream.response = Response::Held;
            stream.response_headers = fields.collect();
            stream.properties.insert("response.code_details".to_owned(), details.to_vec());
        });
        let filter = &self.filters[&id];
        let action =
            self.called_back(id, Callback::Other, || filter.response_headers(end_of_stream));
        self.let_go(id, action, end_of_stream);
        action
    }

    /// Sends on what there is of a response, if the filter says so; gives what of its body.
    fn let_go(&self, id: u32, action: Action, end_of_stream: bool) -> Vec<u8> {
        self.with(id, |stream| match action {
            Action::Continue => {
                stream.response = Response::Begun;
                stream.is_response_whole = end_of_stream;
                std::mem::take(&mut stream.response_body)
            }
            Action::Pause => Vec::new(),
        })
    }

    /// The next piece of a response; gives what goes on to the client.
    pub fn respond_with(&self, id: u32, piece: &[u8], end_of_stream: bool) -> Vec<u8> {
        let held = self.with(id, |stream| {
            stream.response_body.extend_from_slice(piece);
            stream.response_body.len()
        });
        let filter = &self.filters[&id];
        let action = self
            .called_back(id, Callback::ResponseBody, || filter.response_body(held, end_of_stream));
        let sent = self.let_go(id, action, end_of_stream);
        let is_empty = sent.is_empty() && action == Action::Continue;
        assert!(end_of_stream || !is_empty, "an empty piece is a frame of its own in HTTP/2");
        sent
    }

    /// The client goes away, or has its response: Envoy drops the stream, which comes back, and its calls with it.
    pub fn close(&mut self, id: u32) -> StreamState {
        let filter = self.filters.remove(&id).expect("a stream");
        self.called_back(id, Callback::Other, || filter.ended());
        self.called_back(id, Callback::Other, || drop(filter));
        let mut state = self.host.state();
        for call in state.calls.iter_mut().filter(|call| call.owner == id) {
            call.is_open = false;
        }
        let stream = state.streams.remove(&id).expect("a stream");
        drop(state);
        // A number that the next stream will not get again.
        self.first_id += 1;
        stream
    }

    /// Does something with what Envoy has of a stream.
    pub fn with<T>(&self, id: u32, act: impl FnOnce(&mut StreamState) -> T) -> T {
        act(self.host.state().streams.get_mut(&id).expect("a stream"))
    }

    /// The reply that the filter gave, if it did.
    pub fn reply(&self, id: u32) -> Option<Reply> {
        self.with(id, |stream| stream.reply.clone())
    }

    /// The status of the reply, which the client has got, and the code in its JSON.
    pub fn outcome(&self, id: u32) -> (u16, String) {
        assert!(!self.with(id, |stream| stream.is_reset), "another response had begun");
        let reply = self.reply(id).expect("a reply");
        let json: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let code = json["errors"][0]["code"].as_str().unwrap_or_default();
        (reply.status, code.to_owned())
    }

    /// The fields of the record for the access log.
    pub fn record(&self, id: u32) -> BTreeMap<String, String> {
        let record = self.with(id, |stream| stream.record.clone()).expect("a record");
        record::fields(&record)
    }

    /// What a metric was increased by, set to, or has recorded, each time.
    pub fn metric(&self, name: &str) -> Vec<u64> {
        let state = self.host.state();
        let metric = state.metrics.iter().find(|metric| metric.name == name);
        metric.map(|metric| metric.values.clone()).unwrap_or_default()
    }

    /// The path that the request has now.
    pub fn path(&self, id: u32) -> String {
        let headers = self.with(id, |stream| stream.request_headers.clone());
        let path = headers.into_iter().find(|(name, _)| name == ":path").expect("a path");
        String::from_utf8(path.1).expect("text")
    }

    /// The calls that wait for their responses.
    pub fn open_calls(&self) -> Vec<Call> {
        let state = self.host.state();
        state.calls.iter().filter(|call| call.is_open).cloned().collect()
    }

    /// Reports a response to a call, to whom the SDK reports it. Without a status it has no headers at all, which says
    /// that the connection broke.
    pub fn report(&mut self, token: u32, status: Option<u16>, body: &[u8]) {
        let headers = status.map(|status| (":status".to_owned(), status.to_string().into_bytes()));
        let headers: Vec<_> = headers.into_iter().collect();
        let count = headers.len();
        let context = {
            let mut state = self.host.state();
            let call = &mut state.calls[token as usize];
            assert!(std::mem::take(&mut call.is_open), "a call has one response");
            let context = call.reported_to;
            state.reported = Some(CallResponse { headers, body: body.to_vec() });
            context
        };
        if context == ROOT {
            self.as_plugin(Callback::CallResponse, |plugin| {
                plugin.call_response(token, count, body.len());
            });
        } else if let Some(filter) = self.filters.get(&context) {
            self.called_back(context, Callback::CallResponse, || {
                filter.call_response(token, count, body.len());
            });
        }
        self.host.state().reported = None;
    }

    fn as_plugin(&mut self, callback: Callback, act: impl FnOnce(&mut Plugin<ScriptedHost>)) {
        let mut plugin = std::mem::replace(&mut self.plugin, Plugin::new(self.host.clone()));
        self.called_back(ROOT, callback, || act(&mut plugin));
        self.plugin = plugin;
    }

    /// Calls the plugin back if there is something in its queue; tells whether there was.
    pub fn run_queue(&mut self) -> bool {
        let has_entries = self.host.state().queues[self.queue as usize] > 0;
        if has_entries {
            let queue = self.queue;
            self.as_plugin(Callback::Other, |plugin| plugin.queue_ready(queue));
        }
        has_entries
    }

    /// So many seconds pass.
    pub fn pass(&mut self, seconds: u64) {
        self.host.state().now += Duration::from_secs(seconds);
        (0..10).for_each(|_| self.tick());
    }

    /// The timer calls the plugin back.
    pub fn tick(&mut self) {
        self.as_plugin(Callback::Other, Plugin::tick);
    }

    /// Answers calls, as the store does, until none is open and nobody is woken.
    pub fn answer_calls(&mut self) {
        loop {
            let Some(call) = self.open_calls().into_iter().next() else {
                if self.run_queue() {
                    continue;
                }
                return;
            };
            let (status, body) = self.serve(&call);
            self.report(call.token, Some(status), &body);
        }
    }

    /// Whether nothing is held any more, by any stream.
    pub fn assert_idle(&self) {
        assert!(self.worker().is_idle(), "something is still held");
    }
}
