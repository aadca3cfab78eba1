//! What operators see of a worker: metrics, and for each request a record in the access log and in its trace.
//!
//! Everything that is noted here follows from what happens elsewhere; nothing depends on it. What costs a call to Envoy is
//! gathered: counters are added up here and handed over with the next tick, and a request's fields cross in one record.

mod labels;
mod log_record;
mod metrics;
mod store_call;
mod worker_number;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};

pub use labels::{StoreOperation, StoreResult};
pub use log_record::RECORD;
use log_record::Record;
use metrics::{Counter, Gauge, Histogram, Metrics};
pub use store_call::StoreCall;
use worker_number::WorkerNumber;

use super::events::EventCounts;
use super::host::{Headers, Host, MetricKind};
use crate::config::TelemetryConfig;
use crate::registry::http::error::ErrorCode;
use crate::registry::{CacheUse, Exchange, Operation};
use crate::store::{Budget, CacheEvent, Purpose};

/// How many ticks pass from one look at what is held to the next: a second.
const TICKS_BETWEEN_GAUGES: u64 = 10;

/// What operators see of a worker.
#[derive(Debug)]
pub struct Telemetry<H> {
    host: H,
    /// None if there are to be none.
    metrics: Option<Metrics<H>>,
    has_log_record: bool,
    /// The request that is being gone on with.
    current: RefCell<Option<Rc<Exchange>>>,
    /// The number that the worker has among those of its proxy, once it has had a request.
    number: WorkerNumber,
    has_requests: Cell<bool>,
    /// What has been counted of events.
    events: Cell<EventCounts>,
}

/// What a worker holds, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// The memory of requests.
    pub budget: &'a Budget,
    /// What the cache keeps.
    pub cache: usize,
}

/// How much of a blob a request has moved, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct BlobBytes {
    /// From the client.
    pub received: u64,
    /// To the client.
    pub sent: u64,
}

impl<H: Host> Telemetry<H> {
    /// That of a worker, as it is configured.
    pub fn new(host: H, config: &TelemetryConfig) -> Self {
        let has_log_record = config.log_fields && host.declare_record(RECORD);
        if config.log_fields && !has_log_record {
            log::warn!(
                "this host has no declare_property, as Envoy has: the access log gets no fields of Moorage"
            );
        }
        let metrics = config.metrics.then(|| Metrics::new(host.clone()));
        if let Some(metrics) = &metrics {
            metrics.set(Gauge::BuildInfo, 1);
        }
        Self {
            host,
            metrics,
            has_log_record,
            current: RefCell::default(),
            number: WorkerNumber::default(),
            has_requests: Cell::default(),
            events: Cell::default(),
        }
    }

    /// The time, since 1970.
    pub fn now(&self) -> Duration {
        self.host.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    /// Goes on with a request: what is noted meanwhile is of it.
    pub fn during<T>(&self, exchange: Option<Rc<Exchange>>, act: impl FnOnce() -> T) -> T {
        let before = self.current.replace(exchange);
        let result = act();
        self.current.replace(before);
        result
    }

    /// The request that is being gone on with is this one, as it turns out.
    pub fn begin(&self, exchange: &Rc<Exchange>) {
        self.current.replace(Some(Rc::clone(exchange)));
        self.has_requests.set(true);
    }

    /// Notes a call to the store that is made now, for the request that is being gone on with.
    pub fn store_call(self: &Rc<Self>, operation: StoreOperation) -> StoreCall<H> {
        StoreCall::begin(Rc::clone(self), self.current.borrow().clone(), operation)
    }

    /// The headers by which a call to the store can be found in the store's log and in the client's trace: those that the
    /// request has that is being gone on with.
    pub fn trace_headers(&self) -> Vec<(&'static str, String)> {
        let current = self.current.borrow();
        let Some(exchange) = current.as_ref() else {
            return Vec::new();
        };
        exchange.trace_headers.get_or_init(|| trace_headers(&self.host.request_headers())).clone()
    }

    /// The same for a request whose own headers, which are these, are about to be replaced.
    pub fn keep_trace_headers(&self, headers: &Headers) -> Vec<(&'static str, String)> {
        match &*self.current.borrow() {
            Some(exchange) => exchange.trace_headers.get_or_init(|| trace_headers(headers)).clone(),
            None => trace_headers(headers),
        }
    }

    /// Counts a body that the native hasher has hashed.
    pub fn count_native_hash(&self) {
        self.add(Counter::NativeHashes);
    }

    /// Notes what the cache tells.
    pub fn count_cache(&self, event: CacheEvent) {
        let found = match event {
            CacheEvent::Hit(_) => Some(CacheUse::Hit),
            CacheEvent::Miss(_) => Some(CacheUse::Miss),
            CacheEvent::Stale(_) => Some(CacheUse::Stale),
            CacheEvent::Evicted(_) => None,
        };
        if let Some(found) = found
            && let Some(exchange) = &*self.current.borrow()
        {
            exchange.note_cache(found);
        }
        self.add(match event {
            CacheEvent::Hit(kind) => Counter::CacheHits(kind),
            CacheEvent::Miss(kind) => Counter::CacheMisses(kind),
            CacheEvent::Stale(kind) => Counter::CacheStale(kind),
            CacheEvent::Evicted(kind) => Counter::CacheEvictions(kind),
        });
    }

    /// A request is answered: this begins to go to the client. The last moment at which its trace takes fields.
    pub fn answered(&self, exchange: &Exchange, headers: &HeaderMap, error: Option<ErrorCode>) {
        if let Some(error) = error {
            self.add(Counter::Errors(error));
        }
        self.log(exchange, headers, error);
    }

    /// A request is over that nobody will answer: its client has left. Too late for its trace, but not for the access log.
    pub fn left(&self, exchange: &Exchange) {
        self.log(exchange, &HeaderMap::new(), None);
    }

    fn log(&self, exchange: &Exchange, headers: &HeaderMap, error: Option<ErrorCode>) {
        if self.has_log_record {
            let record = Record::of(exchange, headers, error);
            self.host.set_record(RECORD, &record);
        }
    }

    /// A request is over, after so long a time. `status` is that of its answer, if it had one.
    pub fn ended(
        &self,
        exchange: &Exchange,
        status: Option<StatusCode>,
        time: Duration,
        bytes: BlobBytes,
    ) {
        let Some(metrics) = &self.metrics else {
            return;
        };
        let operation = exchange.operation();
        metrics.add(Counter::requests(operation, &exchange.method, status), 1);
        metrics.record(Histogram::Requests(operation), time);
        for (counter, bytes) in
            [(Counter::RequestBytes, bytes.received), (Counter::ResponseBytes, bytes.sent)]
        {
            if bytes > 0 {
                metrics.add(counter, bytes);
            }
        }
        if exchange.has_failed_login() {
            metrics.add(Counter::FailedLogins, 1);
        }
        if exchange.is_denied() {
            metrics.add(Counter::Denied, 1);
        }
        upload_counters(operation, status).into_iter().for_each(|counter| metrics.add(counter, 1));
    }

    /// A tick of the timer is over, so many of them by now: hands over what has been counted.
    pub fn tick(&self, ticks: u64, now: Duration, held: Held<'_>, events: EventCounts) {
        let Some(metrics) = &self.metrics else {
            return;
        };
        let told = self.events.replace(events);
        for (counter, total, told) in [
            (Counter::EventsSent, events.sent, told.sent),
            (Counter::EventsDropped, events.dropped, told.dropped),
        ] {
            metrics.add(counter, total.saturating_sub(told));
        }
        metrics.flush();
        // The VM of Envoy's main thread is configured as well, and never has a request.
        if self.has_requests.get()
            && ticks.is_multiple_of(TICKS_BETWEEN_GAUGES)
            && let Some(worker) = self.number.keep(&self.host, now)
        {
            metrics.set(Gauge::CacheBytes(worker), held.cache);
            for purpose in Purpose::ALL {
                metrics.set(Gauge::MemoryBytes(worker, purpose), held.budget.held(purpose));
                metrics.set(Gauge::MemoryLimit(worker, purpose), held.budget.limit(purpose));
            }
        }
    }

    fn add(&self, counter: Counter) {
        if let Some(metrics) = &self.metrics {
            metrics.add(counter, 1);
        }
    }
}

/// The uploads that a request begins, closes or breaks off. What the client may not do, or did not know, breaks nothing off.
fn upload_counters(operation: Operation, status: Option<StatusCode>) -> Vec<Counter> {
    let status = status.map_or(0, |status| status.as_u16());
    match (operation, status) {
        (Operation::UploadStart, 202) => vec![Counter::UploadsStarted],
        // Either all of it came at once, or it was mounted, which takes no upload: both are over.
        (Operation::UploadStart, 201) => vec![Counter::UploadsStarted, Counter::UploadsFinished],
        (Operation::UploadFinish, 201) => vec![Counter::UploadsFinished],
        (_, 401 | 403 | 404 | 405 | 416 | 429) => Vec::new(),
        (
            Operation::UploadStart | Operation::UploadAppend | Operation::UploadFinish,
            0 | 400..=599,
        ) => vec![Counter::UploadsFailed],
        _ => Vec::new(),
    }
}

/// The headers that say which request and which trace a request belongs to.
const TRACE_HEADERS: [&str; 3] = ["x-request-id", "traceparent", "tracestate"];

/// The longest of these headers that is passed on, in bytes: a `tracestate` may have 512 (W3C, Trace Context, section 3.3).
const TRACE_HEADER_MAX: usize = 512;

/// Those of a request's headers that are passed on: one of each name. A call is made for all who wait for what it reads, so
/// nothing that a client sends may be large enough for the store to refuse it.
fn trace_headers(headers: &Headers) -> Vec<(&'static str, String)> {
    let is_plain = |value: &[u8]| value.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let passed_on = |name: &'static str| {
        let (_, value) = headers.iter().find(|(key, _)| key == name)?;
        let is_passed_on = value.len() <= TRACE_HEADER_MAX && is_plain(value);
        Some((name, String::from_utf8(value.clone()).ok().filter(|_| is_passed_on)?))
    };
    TRACE_HEADERS.into_iter().filter_map(passed_on).collect()
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn an_upload_is_started_finished_and_failed_once() {
        use Counter::{UploadsFailed, UploadsFinished, UploadsStarted};
        for (operation, status, counters) in [
            (Operation::UploadStart, 202, &[UploadsStarted][..]),
            (Operation::UploadStart, 201, &[UploadsStarted, UploadsFinished]),
            (Operation::UploadStart, 401, &[]),
            (Operation::UploadStart, 405, &[]),
            (Operation::UploadStart, 503, &[UploadsFailed]),
            (Operation::UploadAppend, 202, &[]),
            (Operation::UploadAppend, 416, &[]),
            (Operation::UploadAppend, 500, &[UploadsFailed]),
            (Operation::UploadAppend, 0, &[UploadsFailed]),
            (Operation::UploadFinish, 201, &[UploadsFinished]),
            (Operation::UploadFinish, 400, &[UploadsFailed]),
            (Operation::UploadCancel, 204, &[]),
            (Operation::ManifestPut, 500, &[]),
        ] {
            let status = StatusCode::from_u16(status).ok();
            assert_eq!(upload_counters(operation, status), counters, "{operation:?} {status:?}");
        }
    }
}
