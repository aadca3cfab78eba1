//! The host calls of the filter, as a trait: so the filter is tested natively, against a scripted host.
//!
//! The only implementation that serves is the one by proxy-wasm. Each method is one host call, and what Envoy refuses
//! is logged where it is refused: none of it can be helped by whoever asked.

use std::fmt;
use std::time::{Duration, SystemTime};

/// How Envoy goes on after a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It goes on to the next filter with what it called back for.
    Continue,
    /// It holds it until it is told to go on.
    Pause,
}

/// Why a call to the store could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallError {
    /// Envoy has no cluster of that name.
    NoSuchCluster,
    /// Envoy does not make it for another reason.
    Refused,
}

/// Why a value was not shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedDataError {
    /// Another worker has set the value since it was read.
    Changed,
    /// Envoy does not take it for another reason.
    Refused,
}

/// The kinds of metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It has a value.
    Gauge,
    /// It has many values.
    Histogram,
}

/// A shared value, and the number that Envoy gave it when it was set; both `None` for one that was never set.
pub type SharedData = (Option<Vec<u8>>, Option<u32>);

/// Headers with their names in lower case, in their order. A value may be any bytes.
pub type Headers = Vec<(String, Vec<u8>)>;

/// Envoy, as a filter sees it. What concerns a request or response is that of the context that is being called back.
///
/// It is `Send` and `Sync` only because wakers have to be; a worker has one thread.
pub trait Host: Clone + fmt::Debug + Send + Sync + 'static {
    /// The request's headers; those of the client until they are replaced.
    fn request_headers(&self) -> Headers;

    /// Replaces the request's headers.
    fn set_request_headers(&self, headers: Vec<(&str, &[u8])>);

    /// Removes the request's trailers.
    fn remove_request_trailers(&self);

    /// The first `size` bytes of the request's body that Envoy holds.
    fn request_body(&self, size: usize) -> Option<Vec<u8>>;

    /// Puts `bytes` in the place of the first `size` bytes of the request's body that Envoy holds.
    fn replace_request_body(&self, size: usize, bytes: &[u8]);

    /// Goes on with a request that was paused.
    fn resume_request(&self);

    /// The headers of the response that is on its way to the client.
    fn response_headers(&self) -> Headers;

    /// Replaces the response's headers.
    fn set_response_headers(&self, headers: Vec<(&str, &[u8])>);

    /// The first `size` bytes of the response's body that Envoy holds.
    fn response_body(&self, size: usize) -> Option<Vec<u8>>;

    /// Puts `bytes` in the place of the first `size` bytes of the response's body that Envoy holds.
    fn replace_response_body(&self, size: usize, bytes: &[u8]);

    /// Sends a response in place of whatever Envoy would have done.
    fn send_response(&self, status: u16, headers: Vec<(&str, &str)>, body: Option<&[u8]>);

    /// The value of an attribute of the request or connection (Envoy, "Attributes").
    fn property(&self, path: Vec<&str>) -> Option<Vec<u8>>;

    /// Declares a record of filter state, `wasm.<name>`, to be a `google.protobuf.Struct`, so that formats can name its fields;
    /// `false` where there is no such thing.
    fn declare_record(&self, name: &str) -> bool;

    /// Sets a record that was declared, in the encoding of Protocol Buffers.
    fn set_record(&self, name: &str, value: &[u8]);

    /// Sets `wasm.<name>` in the request's filter state, for other filters.
    fn set_filter_state(&self, name: &str, value: &[u8]);

    /// Makes a metric and gives its id.
    fn define_metric(&self, kind: MetricKind, name: &str) -> Option<u32>;

    /// Adds to a counter.
    fn increment_metric(&self, id: u32, amount: i64);

    /// Sets a gauge, or records a value in a histogram.
    fn record_metric(&self, id: u32, value: u64);

    /// Sends a request to a cluster, and gives the token by which Envoy reports its response: to the context that is
    /// being called back.
    ///
    /// # Errors
    ///
    /// Why Envoy does not send it.
    fn dispatch_call(
        &self,
        cluster: &str,
        headers: Vec<(&str, &str)>,
        body: Option<&[u8]>,
        timeout: Duration,
    ) -> Result<u32, CallError>;

    /// A header of the response that is being reported.
    fn call_response_header(&self, name: &str) -> Option<Vec<u8>>;

    /// The body of the response that is being reported, which has so many bytes.
    fn call_response_body(&self, size: usize) -> Option<Vec<u8>>;

    /// Has what follows done as another context; `false` if that context is gone.
    fn set_effective_context(&self, context_id: u32) -> bool;

    /// Has Envoy call the plugin back from now on, once in each period.
    fn set_tick_period(&self, period: Duration);

    /// The time.
    fn now(&self) -> SystemTime;

    /// Random bytes, from the host's own source; `None` where it has none.
    fn random(&self) -> Option<[u8; 32]>;

    /// A value that all workers share.
    fn shared_data(&self, key: &str) -> SharedData;

    /// Sets a value that all workers share, if it still has the number `seen` where that is given.
    ///
    /// # Errors
    ///
    /// Why it was not set.
    fn set_shared_data(
        &self,
        key: &str,
        value: Option<&[u8]>,
        seen: Option<u32>,
    ) -> Result<(), SharedDataError>;

    /// Makes a queue and gives its id; what is put into it has Envoy call back the plugin that made it.
    fn register_queue(&self, name: &str) -> Option<u32>;

    /// Puts an entry into a queue.
    fn enqueue(&self, queue: u32);

    /// Takes an entry out of a queue; `false` if the queue is empty.
    fn dequeue(&self, queue: u32) -> bool;
}
