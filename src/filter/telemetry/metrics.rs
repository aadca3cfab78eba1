//! The metrics, as Envoy's stats have them.
//!
//! Envoy knows names alone: a label is a part of the name, `.operation.manifest_get`, and the bootstraps' `stats_tags` make
//! labels of such parts. (Envoy, "Wasm": stats of a module are named `wasmcustom.<name>`, which `/stats/prometheus` leaves
//! out.)

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use foldhash::fast::FixedState;
use http::{Method, StatusCode};

use super::labels::{self, StoreOperation, StoreResult};
use super::{Host, MetricKind};
use crate::registry::Operation;
use crate::registry::http::error::ErrorCode;
use crate::store::{CacheKind, Purpose};

/// The counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Requests that are over, by operation, method and status; 0 if there was no answer.
    Requests(Operation, &'static str, u16),
    /// Bytes of blobs that clients have sent.
    RequestBytes,
    /// Bytes of blobs that clients were sent.
    ResponseBytes,
    /// Calls to the store.
    StoreCalls(StoreOperation, StoreResult),
    /// Lookups in the cache that were answered from it.
    CacheHits(CacheKind),
    /// Those that were not.
    CacheMisses(CacheKind),
    /// Those that were answered with what might be out of date, because the store could not say.
    CacheStale(CacheKind),
    /// Entries that went for want of room.
    CacheEvictions(CacheKind),
    /// Uploads that began.
    UploadsStarted,
    /// Uploads that became a blob.
    UploadsFinished,
    /// Requests of uploads that failed or broke off.
    UploadsFailed,
    /// Bodies of uploads that the native hasher has hashed.
    NativeHashes,
    /// Requests of known callers that were denied.
    Denied,
    /// Wrong passwords and tokens.
    FailedLogins,
    /// Answers with an error, by its code.
    Errors(ErrorCode),
    /// Notifications that an endpoint has taken.
    EventsSent,
    /// Notifications that were given up.
    EventsDropped,
}

/// The counters without labels: they are there from the start, so that their rates are known from the first count on.
const PLAIN_COUNTERS: [Counter; 10] = [
    Counter::RequestBytes,
    Counter::ResponseBytes,
    Counter::UploadsStarted,
    Counter::UploadsFinished,
    Counter::UploadsFailed,
    Counter::NativeHashes,
    Counter::Denied,
    Counter::FailedLogins,
    Counter::EventsSent,
    Counter::EventsDropped,
];

impl Counter {
    /// That of requests of this kind with this answer.
    pub fn requests(operation: Operation, method: &Method, status: Option<StatusCode>) -> Self {
        let status = status.map_or(0, |status| status.as_u16());
        Self::Requests(operation, labels::method(method), status)
    }

    fn name(self) -> String {
        let of_kind =
            |name: &str, kind| format!("moorage_{name}_total.kind.{}", labels::cache_kind(kind));
        match self {
            Self::Requests(operation, method, status) => format!(
                "moorage_requests_total.operation.{}.method.{method}.code.{status}",
                operation.as_str()
            ),
            Self::RequestBytes => "moorage_request_bytes_total".to_owned(),
            Self::ResponseBytes => "moorage_response_bytes_total".to_owned(),
            Self::StoreCalls(operation, result) => format!(
                "moorage_store_calls_total.operation.{}.result.{}",
                operation.as_str(),
                result.as_str()
            ),
            Self::CacheHits(kind) => of_kind("cache_hits", kind),
            Self::CacheMisses(kind) => of_kind("cache_misses", kind),
            Self::CacheStale(kind) => of_kind("cache_stale", kind),
            Self::CacheEvictions(kind) => of_kind("cache_evictions", kind),
            Self::UploadsStarted => "moorage_uploads_started_total".to_owned(),
            Self::UploadsFinished => "moorage_uploads_finished_total".to_owned(),
            Self::UploadsFailed => "moorage_uploads_failed_total".to_owned(),
            Self::NativeHashes => "moorage_native_hashes_total".to_owned(),
            Self::Denied => "moorage_access_denied_total".to_owned(),
            Self::FailedLogins => "moorage_access_failed_logins_total".to_owned(),
            Self::Errors(code) => format!("moorage_errors_total.code.{}", labels::error(code)),
            Self::EventsSent => "moorage_events_sent_total".to_owned(),
            Self::EventsDropped => "moorage_events_dropped_total".to_owned(),
        }
    }
}

/// The histograms, of times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Histogram {
    /// From a request's headers until it is over; 0 for what is answered from memory at once.
    Requests(Operation),
    /// Of calls to the store; of streamed blobs until the store's answer begins.
    StoreCalls(StoreOperation),
}

impl Histogram {
    fn name(self) -> String {
        let named = |name: &str, operation| {
            format!("moorage_{name}_duration_milliseconds.operation.{operation}")
        };
        match self {
            Self::Requests(operation) => named("request", operation.as_str()),
            Self::StoreCalls(operation) => named("store_call", operation.as_str()),
        }
    }
}

/// The gauges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gauge {
    /// What the cache of a worker keeps, in bytes.
    CacheBytes(u8),
    /// What requests hold in a worker for a purpose, in bytes.
    MemoryBytes(u8, Purpose),
    /// What they may hold there for it.
    MemoryLimit(u8, Purpose),
    /// One, with the version.
    BuildInfo,
}

impl Gauge {
    fn name(self) -> String {
        let of_memory = |name: &str, worker, purpose| {
            format!("moorage_{name}.worker.{worker}.purpose.{}", labels::purpose(purpose))
        };
        match self {
            Self::CacheBytes(worker) => format!("moorage_cache_bytes.worker.{worker}"),
            Self::MemoryBytes(worker, purpose) => of_memory("memory_bytes", worker, purpose),
            Self::MemoryLimit(worker, purpose) => of_memory("memory_limit_bytes", worker, purpose),
            Self::BuildInfo => format!("moorage_build_info.version.{}", env!("CARGO_PKG_VERSION")),
        }
    }
}

/// A worker's metrics.
#[derive(Debug)]
pub struct Metrics<H> {
    host: H,
    counters: RefCell<HashMap<Counter, Pending, FixedState>>,
    histograms: RefCell<HashMap<Histogram, Option<u32>, FixedState>>,
    gauges: RefCell<HashMap<Gauge, Option<u32>, FixedState>>,
}

/// What has been counted and Envoy does not know yet.
#[derive(Debug)]
struct Pending {
    /// Envoy's id; `None` if it does not take the metric.
    id: Option<u32>,
    amount: u64,
}

impl<H: Host> Metrics<H> {
    /// The metrics of a worker.
    pub fn new(host: H) -> Self {
        let metrics = Self {
            host,
            counters: RefCell::default(),
            histograms: RefCell::default(),
            gauges: RefCell::default(),
        };
        PLAIN_COUNTERS.into_iter().for_each(|counter| metrics.add(counter, 0));
        metrics
    }

    /// Counts. Envoy gets to know it with the next [`Metrics::flush`].
    pub fn add(&self, counter: Counter, amount: u64) {
        let mut counters = self.counters.borrow_mut();
        let pending = counters.entry(counter).or_insert_with(|| {
            let id = self.host.define_metric(MetricKind::Counter, &counter.name());
            Pending { id, amount: 0 }
        });
        pending.amount = pending.amount.saturating_add(amount);
    }

    /// Hands over what has been counted.
    pub fn flush(&self) {
        for pending in self.counters.borrow_mut().values_mut() {
            let amount = std::mem::take(&mut pending.amount);
            if let (Some(id), Ok(amount @ 1..)) = (pending.id, i64::try_from(amount)) {
                self.host.increment_metric(id, amount);
            }
        }
    }

    /// Records a time.
    pub fn record(&self, histogram: Histogram, time: Duration) {
        let id = self.id(&self.histograms, histogram, MetricKind::Histogram, Histogram::name);
        if let (Some(id), Ok(milliseconds)) = (id, u64::try_from(time.as_millis())) {
            self.host.record_metric(id, milliseconds);
        }
    }

    /// Sets a gauge.
    pub fn set(&self, gauge: Gauge, value: usize) {
        if let Some(id) = self.id(&self.gauges, gauge, MetricKind::Gauge, Gauge::name) {
            self.host.record_metric(id, value as u64);
        }
    }

    /// Envoy's id of a metric, which is defined when it is first asked for.
    fn id<M: Copy + Eq + Hash>(
        &self,
        known: &RefCell<HashMap<M, Option<u32>, FixedState>>,
        metric: M,
        kind: MetricKind,
        name: impl Fn(M) -> String,
    ) -> Option<u32> {
        let define = || self.host.define_metric(kind, &name(metric));
        *known.borrow_mut().entry(metric).or_insert_with(define)
    }
}
