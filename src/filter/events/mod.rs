//! Sending events: to each endpoint its own, in batches, by the plugin.
//!
//! A request only puts its events into queues, and never waits for them: [`Events::tick`] sends what is there. Each endpoint
//! has a queue, and one request under way at most, so one that is slow or away keeps nothing from the others. What
//! happened is for [`registry::events`](crate::registry::events) to say.

mod delivery;
mod losses;
mod queue;
#[cfg(test)]
mod tests;
mod troubles;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use bytes::Bytes;

use super::clock::TICK;
use super::host::Host;
use crate::config::EventsConfig;
use crate::oci::Name;
use crate::registry::events::{Event, EventAction, EventActions, EventFilter, Format};
use delivery::{Answer, Delivery};

/// The events of a worker.
#[derive(Debug)]
pub struct Events<H> {
    host: H,
    /// The name of this registry in events.
    source: String,
    /// The actions that some endpoint wants, of whatever repositories: of the others no more has to be asked.
    wanted: EventActions,
    /// What each endpoint wants, in the order of `deliveries`.
    filters: Vec<(EventFilter, Format)>,
    deliveries: RefCell<Vec<Delivery>>,
    /// The time since the worker began, as ticks show it: unlike that of the clock, it never goes back.
    elapsed: Cell<Duration>,
}

/// How many events there were, at all endpoints together: one that is sent to two counts twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// Those that their endpoint has taken.
    pub sent: u64,
    /// Those that are lost: their endpoint refused them, or too many were waiting for it.
    pub dropped: u64,
    /// Those that wait for their endpoint now.
    pub queued: usize,
}

impl<H: Host> Events<H> {
    /// Events that go to these endpoints. Whether Envoy has their clusters shows with the first request to them.
    pub fn new(host: H, config: EventsConfig) -> Self {
        let EventsConfig { source, endpoints } = config;
        let filters = endpoints.iter().map(|endpoint| (endpoint.filter.clone(), endpoint.format));
        let filters: Vec<_> = filters.collect();
        let all =
            |wanted: EventActions, (filter, _): &(EventFilter, Format)| wanted.or(filter.actions);
        Self {
            host,
            source,
            wanted: filters.iter().fold(EventActions::default(), all),
            filters,
            deliveries: RefCell::new(endpoints.into_iter().map(Delivery::new).collect()),
            elapsed: Cell::default(),
        }
    }

    /// Whether some endpoint wants such an event.
    pub fn wants(&self, action: EventAction, repository: &Name) -> bool {
        self.wanted.contains(action)
            && self.filters.iter().any(|(filter, _)| filter.matches(action, repository))
    }

    /// Puts an event into the queue of each endpoint that wants it. Where there is no room, it is lost, and counted.
    pub fn send(&self, event: &Event) {
        let mut written: Vec<(Format, Bytes)> = Vec::new();
        let mut deliveries = self.deliveries.borrow_mut();
        for ((filter, format), delivery) in self.filters.iter().zip(deliveries.iter_mut()) {
            if !filter.matches(event.action, &event.target.repository) {
                continue;
            }
            let known = written.iter().find(|(other, _)| other == format);
            let bytes = match known {
                Some((_, bytes)) => bytes.clone(),
                None => {
                    let bytes = format.event(event, &self.source);
                    written.push((*format, bytes.clone()));
                    bytes
                }
            };
            delivery.push(bytes);
        }
    }

    /// Sends what is due. To be called every [`TICK`], as the plugin only.
    pub fn tick(&self) {
        let now = self.elapsed.get().saturating_add(TICK);
        self.elapsed.set(now);
        for delivery in self.deliveries.borrow_mut().iter_mut() {
            delivery.tick(&self.host, now);
        }
    }

    /// Takes the response to the request `token`, of so many headers, if that is one of an endpoint; `false` if it is none.
    /// To be called from the plugin's `on_http_call_response` only.
    pub fn complete(&self, token: u32, header_count: usize) -> bool {
        let mut deliveries = self.deliveries.borrow_mut();
        match deliveries.iter_mut().find(|delivery| delivery.waits_for(token)) {
            None => false,
            Some(delivery) => {
                let answer = Answer::read(&self.host, header_count);
                delivery.complete(&self.host, self.elapsed.get(), answer);
                true
            }
        }
    }

    /// How many events there were so far.
    pub fn counts(&self) -> EventCounts {
        self.deliveries.borrow().iter().fold(EventCounts::default(), |counts, delivery| {
            let of_endpoint = delivery.counts();
            EventCounts {
                sent: counts.sent.saturating_add(of_endpoint.sent),
                dropped: counts.dropped.saturating_add(of_endpoint.dropped),
                queued: counts.queued.saturating_add(of_endpoint.queued),
            }
        })
    }
}
