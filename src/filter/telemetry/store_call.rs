//! One call to the store, from its beginning until there is an answer or nobody waits for it any more.

use std::rc::Rc;
use std::time::Duration;

use super::metrics::{Counter, Histogram};
use super::{Host, StoreOperation, StoreResult, Telemetry};
use crate::registry::Exchange;

/// A call to the store under way. One that is dropped was abandoned.
#[derive(Debug)]
pub struct StoreCall<H: Host> {
    telemetry: Rc<Telemetry<H>>,
    /// The request that it is made for.
    exchange: Option<Rc<Exchange>>,
    operation: StoreOperation,
    begun: Duration,
    result: StoreResult,
}

impl<H: Host> StoreCall<H> {
    pub(super) fn begin(
        telemetry: Rc<Telemetry<H>>,
        exchange: Option<Rc<Exchange>>,
        operation: StoreOperation,
    ) -> Self {
        let begun = telemetry.now();
        if let Some(exchange) = &exchange {
            exchange.begin_store_call(begun);
        }
        Self { telemetry, exchange, operation, begun, result: StoreResult::Abandoned }
    }

    /// The call is over.
    pub fn end(mut self, result: StoreResult) {
        self.result = result;
    }
}

impl<H: Host> Drop for StoreCall<H> {
    fn drop(&mut self) {
        let now = self.telemetry.now();
        if let Some(exchange) = &self.exchange {
            exchange.end_store_call(now);
        }
        if let Some(metrics) = &self.telemetry.metrics {
            metrics.add(Counter::StoreCalls(self.operation, self.result), 1);
            metrics.record(Histogram::StoreCalls(self.operation), now.saturating_sub(self.begun));
        }
    }
}
