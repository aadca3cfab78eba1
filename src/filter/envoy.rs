//! Envoy itself: [`Host`] by proxy-wasm, and the callbacks from which everything begins. The only code that knows
//! proxy-wasm.

use std::time::{Duration, SystemTime};

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{self, BufferType, ContextType, LogLevel, MapType, MetricType, Status};

use super::host::{Action, CallError, Headers, Host, MetricKind, SharedData, SharedDataError};
use super::http_filter::HttpFilter;
use super::plugin::Plugin;
use super::random;

/// The entry point that Envoy calls once for every VM.
#[allow(unsafe_code, reason = "the macro exports a symbol, which counts as unsafe")]
mod entry {
    use super::{Envoy, LogLevel, Plugin};

    proxy_wasm::main! {{
        proxy_wasm::set_log_level(LogLevel::Info);
        proxy_wasm::set_root_context(|_| Box::new(Plugin::new(Envoy)));
    }}
}

/// The Envoy that has loaded this module.
#[derive(Debug, Clone, Copy)]
pub struct Envoy;

impl Host for Envoy {
    fn request_headers(&self) -> Headers {
        hostcalls::get_map_bytes(MapType::HttpRequestHeaders).unwrap_or_default()
    }

    fn set_request_headers(&self, headers: Vec<(&str, &[u8])>) {
        check(
            "the request's headers",
            hostcalls::set_map_bytes(MapType::HttpRequestHeaders, headers),
        );
    }

    fn remove_request_trailers(&self) {
        let removed = hostcalls::set_map_bytes(MapType::HttpRequestTrailers, Vec::new());
        check("a request without its trailers", removed);
    }

    fn request_body(&self, size: usize) -> Option<Vec<u8>> {
        buffer(BufferType::HttpRequestBody, size)
    }

    fn replace_request_body(&self, size: usize, bytes: &[u8]) {
        check(
            "a request's body",
            hostcalls::set_buffer(BufferType::HttpRequestBody, 0, size, bytes),
        );
    }

    fn resume_request(&self) {
        check("that a request goes on", hostcalls::resume_http_request());
    }

    fn response_headers(&self) -> Headers {
        hostcalls::get_map_bytes(MapType::HttpResponseHeaders).unwrap_or_default()
    }

    fn set_response_headers(&self, headers: Vec<(&str, &[u8])>) {
        let set = hostcalls::set_map_bytes(MapType::HttpResponseHeaders, headers);
        check("the response's headers", set);
    }

    fn response_body(&self, size: usize) -> Option<Vec<u8>> {
        buffer(BufferType::HttpResponseBody, size)
    }

    fn replace_response_body(&self, size: usize, bytes: &[u8]) {
        let set = hostcalls::set_buffer(BufferType::HttpResponseBody, 0, size, bytes);
        check("a response's body", set);
    }

    fn send_response(&self, status: u16, headers: Vec<(&str, &str)>, body: Option<&[u8]>) {
        check("a response", hostcalls::send_http_response(status.into(), headers, body));
    }

    fn property(&self, path: Vec<&str>) -> Option<Vec<u8>> {
        hostcalls::get_property(path).ok().flatten()
    }

    fn declare_record(&self, name: &str) -> bool {
        let arguments = declaration(name);
        hostcalls::call_foreign_function("declare_property", Some(&arguments)).is_ok()
    }

    fn set_record(&self, name: &str, value: &[u8]) {
        check("a record of the access log", hostcalls::set_property(vec![name], Some(value)));
    }

    fn set_filter_state(&self, name: &str, value: &[u8]) {
        check("filter state", hostcalls::set_property(vec![name], Some(value)));
    }

    fn define_metric(&self, kind: MetricKind, name: &str) -> Option<u32> {
        let kind = match kind {
            MetricKind::Counter => MetricType::Counter,
            MetricKind::Gauge => MetricType::Gauge,
            MetricKind::Histogram => MetricType::Histogram,
        };
        let defined = hostcalls::define_metric(kind, name);
        defined.inspect_err(|status| log::error!("Envoy takes no metric {name}: {status:?}")).ok()
    }

    fn increment_metric(&self, id: u32, amount: i64) {
        check("a metric", hostcalls::increment_metric(id, amount));
    }

    fn record_metric(&self, id: u32, value: u64) {
        check("a metric", hostcalls::record_metric(id, value));
    }

    fn dispatch_call(
        &self,
        cluster: &str,
        headers: Vec<(&str, &str)>,
        body: Option<&[u8]>,
        timeout: Duration,
    ) -> Result<u32, CallError> {
        let token = hostcalls::dispatch_http_call(cluster, headers, body, vec![], timeout);
        token.map_err(|status| match status {
            Status::BadArgument => CallError::NoSuchCluster,
            _ => CallError::Refused,
        })
    }

    fn call_response_header(&self, name: &str) -> Option<Vec<u8>> {
        hostcalls::get_map_value_bytes(MapType::HttpCallResponseHeaders, name).ok().flatten()
    }

    fn call_response_body(&self, size: usize) -> Option<Vec<u8>> {
        buffer(BufferType::HttpCallResponseBody, size)
    }

    fn set_effective_context(&self, context_id: u32) -> bool {
        let set = hostcalls::set_effective_context(context_id);
        check("that a request is gone on with", set);
        set.is_ok()
    }

    fn set_tick_period(&self, period: Duration) {
        check("a timer", hostcalls::set_tick_period(period));
    }

    fn now(&self) -> SystemTime {
        hostcalls::get_current_time().unwrap_or(SystemTime::UNIX_EPOCH)
    }

    fn random(&self) -> Option<[u8; 32]> {
        random::random()
    }

    fn shared_data(&self, key: &str) -> SharedData {
        hostcalls::get_shared_data(key).unwrap_or_default()
    }

    fn set_shared_data(
        &self,
        key: &str,
        value: Option<&[u8]>,
        seen: Option<u32>,
    ) -> Result<(), SharedDataError> {
        hostcalls::set_shared_data(key, value, seen).map_err(|status| match status {
            Status::CasMismatch => SharedDataError::Changed,
            _ => SharedDataError::Refused,
        })
    }

    fn register_queue(&self, name: &str) -> Option<u32> {
        hostcalls::register_shared_queue(name).ok()
    }

    fn enqueue(&self, queue: u32) {
        check("an entry of a queue", hostcalls::enqueue_shared_queue(queue, Some(b"wake")));
    }

    fn dequeue(&self, queue: u32) -> bool {
        matches!(hostcalls::dequeue_shared_queue(queue), Ok(Some(_)))
    }
}

/// The message `DeclarePropertyArguments` of Envoy's `declare_property`: `name`, `type` Protobuf, `schema`, and `span` the
/// request. Names have fewer than 128 bytes here.
fn declaration(name: &str) -> Vec<u8> {
    const SCHEMA: &str = "type.googleapis.com/google.protobuf.Struct";
    let text =
        |field: u8, text: &str| [&[field << 3 | 2, text.len() as u8], text.as_bytes()].concat();
    let number = |field: u8, number: u8| vec![field << 3, number];
    [text(1, name), number(3, 3), text(4, SCHEMA), number(5, 1)].concat()
}

fn buffer(buffer: BufferType, size: usize) -> Option<Vec<u8>> {
    hostcalls::get_buffer(buffer, 0, size).ok().flatten()
}

/// Logs what Envoy does not take. The request suffers for it, and nothing can be done about that from here.
fn check(what: &str, result: Result<(), Status>) {
    if let Err(status) = result {
        log::error!("Envoy does not take {what}: {status:?}");
    }
}

impl From<Action> for types::Action {
    fn from(action: Action) -> Self {
        match action {
            Action::Continue => Self::Continue,
            Action::Pause => Self::Pause,
        }
    }
}

impl Context for Plugin<Envoy> {
    /// The response to a storage call that a stream made when it was woken.
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, _: usize) {
        self.call_response(token, headers, body_size);
    }
}

impl RootContext for Plugin<Envoy> {
    fn on_configure(&mut self, _size: usize) -> bool {
        let json = self.get_plugin_configuration().unwrap_or_default();
        self.configure(&json)
    }

    fn on_tick(&mut self) {
        self.tick();
    }

    fn on_queue_ready(&mut self, queue: u32) {
        self.queue_ready(queue);
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(self.create_filter(context_id)?))
    }
}

impl Context for HttpFilter<Envoy> {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, _: usize) {
        self.call_response(token, headers, body_size);
    }
}

impl HttpContext for HttpFilter<Envoy> {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> types::Action {
        self.request_headers(end_of_stream).into()
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> types::Action {
        self.request_body(size, end_of_stream).into()
    }

    fn on_http_request_trailers(&mut self, _: usize) -> types::Action {
        self.request_trailers().into()
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> types::Action {
        self.response_headers(end_of_stream).into()
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> types::Action {
        self.response_body(size, end_of_stream).into()
    }

    fn on_log(&mut self) {
        self.ended();
    }
}
