//! A proxy around the filter that does what Envoy does: it calls back, holds what it is told to hold, and reports the
//! responses of a small store.

use std::collections::{BTreeMap, HashMap};

use crate::filter::host::Action;
use crate::filter::http_filter::HttpFilter;
use crate::filter::plugin::{Plugin, Worker};
use crate::filter::scripted_host::{
    Call, CallResponse, Callback, ROOT, Reply, ScriptedHost, StreamState,
};
use crate::oci::{Algorithm, Digest};

/// The smallest configuration.
pub const CONFIG: &str =
    r#"{"store":{"cluster":"c","authority":"s3","bucket":"registry"},"cache":{"max_bytes":0}}"#;

pub const REPOSITORY: &str = "/registry/docker/registry/v2/repositories/a";

/// A proxy with one worker and one plugin.
pub struct Proxy {
    pub host: ScriptedHost,
    pub plugin: Plugin<ScriptedHost>,
    filters: HashMap<u32, HttpFilter<ScriptedHost>>,
    /// What the store has, by paths.
    pub objects: BTreeMap<String, Vec<u8>>,
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
        let host = host.clone();
        Self { host, plugin, filters: HashMap::new(), objects: BTreeMap::new(), queue, first_id }
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
        let mut state = self.host.state();
        (state.active, state.effective, state.callback) = before;
        result
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
        let id = self.first_id + u32::try_from(self.filters.len()).expect("few streams");
        let own = [(":method", method), (":path", path), (":scheme", "http")];
        let fields = own.iter().chain(headers);
        let fields = fields.map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        let mut stream =
            StreamState { request_headers: fields.collect(), ..StreamState::default() };
        stream.properties.insert("source.address".to_owned(), address.as_bytes().to_vec());
        self.host.state().streams.insert(id, stream);
        let filter = self.plugin.create_filter(id).expect("a configured plugin");
        self.filters.insert(id, filter);
        let filter = &self.filters[&id];
        let action =
            self.called_back(id, Callback::Other, || filter.request_headers(end_of_stream));
        self.host.state().streams.get_mut(&id).expect("a stream").is_paused =
            action == Action::Pause;
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
        let held = self.with(id, |stream| {
            stream.request_body.extend_from_slice(piece);
            stream.request_body.len()
        });
        let filter = &self.filters[&id];
        let action = self
            .called_back(id, Callback::RequestBody, || filter.request_body(held, end_of_stream));
        self.with(id, |stream| {
            stream.is_paused = action == Action::Pause;
            if action == Action::Continue {
                let held = std::mem::take(&mut stream.request_body);
                stream.sent_on.extend(held);
            }
        });
        action
    }

    /// A request's body ends with trailers.
    pub fn send_trailers(&mut self, id: u32) -> Action {
        self.with(id, |stream| stream.has_trailers = true);
        let filter = &self.filters[&id];
        let action = self.called_back(id, Callback::RequestTrailers, || filter.request_trailers());
        self.with(id, |stream| {
            stream.is_paused = action == Action::Pause;
            if action == Action::Continue {
                let held = std::mem::take(&mut stream.request_body);
                stream.sent_on.extend(held);
            }
        });
        action
    }

    /// A response begins: the store's to a streamed request, or one of Envoy's own.
    pub fn respond(
        &mut self,
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
            stream.response_headers = fields.collect();
            stream.properties.insert("response.code_details".to_owned(), details.to_vec());
        });
        let filter = &self.filters[&id];
        self.called_back(id, Callback::Other, || filter.response_headers(end_of_stream))
    }

    /// The next piece of a response; gives what goes on to the client.
    pub fn respond_with(&mut self, id: u32, piece: &[u8], end_of_stream: bool) -> Vec<u8> {
        let held = self.with(id, |stream| {
            stream.response_body.extend_from_slice(piece);
            stream.response_body.len()
        });
        let filter = &self.filters[&id];
        let action = self
            .called_back(id, Callback::ResponseBody, || filter.response_body(held, end_of_stream));
        match action {
            Action::Continue => self.with(id, |stream| std::mem::take(&mut stream.response_body)),
            Action::Pause => Vec::new(),
        }
    }

    /// The client goes away, or has its response: Envoy drops the stream, and its calls with it.
    pub fn close(&mut self, id: u32) {
        let filter = self.filters.remove(&id).expect("a stream");
        self.called_back(id, Callback::Other, || drop(filter));
        let mut state = self.host.state();
        state.streams.remove(&id);
        for call in state.calls.iter_mut().filter(|call| call.owner == id) {
            call.is_open = false;
        }
        drop(state);
        // A number that the next stream will not get again.
        self.first_id += 1;
    }

    /// Does something with what Envoy has of a stream.
    pub fn with<T>(&self, id: u32, act: impl FnOnce(&mut StreamState) -> T) -> T {
        act(self.host.state().streams.get_mut(&id).expect("a stream"))
    }

    /// The reply that the filter gave, if it did.
    pub fn reply(&self, id: u32) -> Option<Reply> {
        self.with(id, |stream| stream.reply.clone())
    }

    /// The status of the reply, and the code in its JSON.
    pub fn outcome(&self, id: u32) -> (u16, String) {
        let reply = self.reply(id).expect("a reply");
        let json: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let code = json["errors"][0]["code"].as_str().unwrap_or_default();
        (reply.status, code.to_owned())
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

    /// Reports a response to a call, to whom the SDK reports it. Without headers it says that the connection broke.
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
        self.host.state().now += std::time::Duration::from_secs(seconds);
        for _ in 0..10 {
            self.as_plugin(Callback::Other, Plugin::tick);
        }
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

    fn serve(&mut self, call: &Call) -> (u16, Vec<u8>) {
        if let Some((_, query)) = call.path.split_once('?') {
            let parameters: HashMap<_, _> = form_urlencoded::parse(query.as_bytes()).collect();
            let prefix = format!("/registry/{}", parameters["prefix"]);
            let keys = self.objects.keys().filter(|key| key.starts_with(&prefix));
            let keys = keys.filter_map(|key| key.strip_prefix("/registry/"));
            let entries: String =
                keys.map(|key| format!("<Contents><Key>{key}</Key></Contents>")).collect();
            return (200, format!("<ListBucketResult>{entries}</ListBucketResult>").into());
        }
        match (call.method.as_str(), self.objects.get(&call.path)) {
            ("PUT", _) => {
                self.objects.insert(call.path.clone(), call.body.clone());
                (200, Vec::new())
            }
            ("DELETE", _) => {
                self.objects.remove(&call.path);
                (204, Vec::new())
            }
            ("HEAD", Some(_)) => (200, Vec::new()),
            (_, Some(object)) => (200, object.clone()),
            ("HEAD", None) => (404, Vec::new()),
            (_, None) => (404, b"<Error><Code>NoSuchKey</Code></Error>".to_vec()),
        }
    }

    /// Puts content into the store, and a link to it as a blob and as a manifest of the repository `a`.
    pub fn put(&mut self, content: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content);
        let hex = digest.hex();
        let path = format!("/registry/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        self.objects.insert(path, content.to_vec());
        for kind in ["_layers", "_manifests/revisions"] {
            let link = format!("{REPOSITORY}/{kind}/sha256/{hex}/link");
            self.objects.insert(link, digest.to_string().into_bytes());
        }
        digest
    }

    /// Begins an upload to the repository `a`, and gives its `Location`.
    pub fn begin_upload(&mut self) -> String {
        let id = self.ask("POST", "/v2/a/blobs/uploads/", &[]);
        let reply = self.reply(id).expect("a reply");
        assert_eq!(reply.status, 202);
        let location = reply.headers.into_iter().find(|(name, _)| name == "location");
        self.close(id);
        location.expect("a location").1
    }

    /// Whether nothing is held any more, by any stream.
    pub fn assert_idle(&self) {
        assert!(self.worker().is_idle(), "something is still held");
    }
}
