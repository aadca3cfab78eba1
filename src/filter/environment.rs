//! The environment of the cache and the handlers, from Envoy: the time, whether repositories have been
//! written to through any worker, and random values.
//!
//! Write epochs are kept in Envoy's shared data, as empty values. Envoy numbers every value that is set anew,
//! and that number is all that counts. To read an empty one costs next to nothing; for any other Envoy
//! has the module allocate memory, which costs as much as half of what the cache does for a request.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use sha2::{Digest as _, Sha256};

use super::clock::Clock;
use super::events::Events;
use super::host::Host;
use super::telemetry::Telemetry;
use super::{clients, metadata};
use crate::oci::Name;
use crate::registry::access::ResourceActions;
use crate::registry::events::{Event, EventAction};
use crate::registry::{Environment, Nonce};
use crate::store::layout::SHARDS;
use crate::store::{CacheEnvironment, CacheEvent};

/// Envoy's workers, as the cache sees them.
#[derive(Debug)]
pub struct WorkerEnvironment<H> {
    host: H,
    /// The key of each shard's value, which is set at each write.
    keys: Vec<String>,
    /// The key of each shard's value, which is set at each write that the store has acknowledged.
    acknowledged_keys: Vec<String>,
    /// How many writes to each shard through this worker the store has acknowledged.
    acknowledged: Vec<Cell<u64>>,
    clock: Rc<Clock<H>>,
    telemetry: Rc<Telemetry<H>>,
}

impl<H: Host> WorkerEnvironment<H> {
    /// The workers that serve the bucket of that name.
    pub fn new(host: H, clock: Rc<Clock<H>>, telemetry: Rc<Telemetry<H>>, bucket: &str) -> Self {
        let keys = |what| (0..SHARDS).map(move |shard| format!("moorage/{bucket}/{what}/{shard}"));
        Self {
            host,
            keys: keys("writes").collect(),
            acknowledged_keys: keys("acknowledged").collect(),
            acknowledged: (0..SHARDS).map(|_| Cell::default()).collect(),
            clock,
            telemetry,
        }
    }

    /// The number that Envoy gave a shard's value.
    fn number(&self, keys: &[String], shard: u8) -> u64 {
        let key = keys.get(usize::from(shard)).map_or("", String::as_str);
        let (_, number) = self.host.shared_data(key);
        number.map_or(0, u64::from)
    }

    /// Has Envoy give a shard's value another number. `consequence` is what may happen if it can't.
    fn renumber(&self, keys: &[String], shard: u8, consequence: &str) {
        let key = keys.get(usize::from(shard)).map_or("", String::as_str);
        if self.host.set_shared_data(key, None, None).is_err() {
            log::error!("Envoy does not share that a repository was written to: {consequence}");
        }
    }
}

impl<H: Host> CacheEnvironment for WorkerEnvironment<H> {
    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn count(&self, event: CacheEvent) {
        self.telemetry.count_cache(event);
    }

    fn write_epoch(&self, shard: u8) -> u64 {
        self.number(&self.keys, shard)
    }

    fn begin_write_epoch(&self, shard: u8) {
        let consequence = "other workers may answer from their caches until cache.link_ttl and cache.tag_ttl are over";
        self.renumber(&self.keys, shard, consequence);
    }

    /// Envoy's numbers only grow, and so do a worker's: their sum is another one after each write, through this worker also
    /// if Envoy does not share it.
    fn acknowledged_epoch(&self, shard: u8) -> u64 {
        let own = self.acknowledged.get(usize::from(shard)).map_or(0, Cell::get);
        self.number(&self.acknowledged_keys, shard).wrapping_add(own)
    }

    fn begin_acknowledged_epoch(&self, shard: u8) {
        if let Some(own) = self.acknowledged.get(usize::from(shard)) {
            own.set(own.get().wrapping_add(1));
        }
        let consequence = "other workers may answer with what was there before until cache.stale_if_error is over, \
                           while the store can't be reached";
        self.renumber(&self.acknowledged_keys, shard, consequence);
    }
}

/// What Envoy knows, and random values. These are the hashes of a seed, which is the host's random bytes, and a
/// count: nobody can tell one from another, none is given twice, and none needs a host call.
#[derive(Debug)]
pub struct RequestEnvironment<H> {
    host: H,
    clock: Rc<Clock<H>>,
    events: Rc<Events<H>>,
    seed: [u8; 32],
    given: Cell<u64>,
}

impl<H: Host> RequestEnvironment<H> {
    /// Random values that no other `seed` gives. The seed must be secret.
    pub fn new(host: H, clock: Rc<Clock<H>>, events: Rc<Events<H>>, seed: [u8; 32]) -> Self {
        Self { host, clock, events, seed, given: Cell::default() }
    }
}

impl<H: Host> Environment for RequestEnvironment<H> {
    fn now(&self) -> SystemTime {
        self.host.now()
    }

    fn recent(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.clock.now()
    }

    fn delay(&self, time: Duration) -> LocalBoxFuture<'static, ()> {
        self.clock.wait(time).map(|_| ()).boxed_local()
    }

    fn client_address(&self) -> Option<IpAddr> {
        clients::source_address(&self.host)
    }

    fn client_socket(&self) -> Option<String> {
        String::from_utf8(self.host.property(vec!["source", "address"])?).ok()
    }

    fn wants_event(&self, action: EventAction, repository: &Name) -> bool {
        self.events.wants(action, repository)
    }

    fn send_event(&self, event: Event) {
        self.events.send(&event);
    }

    fn certificate_names(&self) -> Vec<String> {
        // Envoy gives the first of each kind (Envoy, "Attributes").
        let name = |attribute, kind: &str| {
            let name = self.host.property(vec!["connection", attribute])?;
            let name = String::from_utf8(name).ok().filter(|name| !name.is_empty())?;
            Some(format!("{kind}{name}"))
        };
        let uri = name("uri_san_peer_certificate", "");
        uri.into_iter().chain(name("dns_san_peer_certificate", "dns:")).collect()
    }

    fn has_metadata(&self, filter: &str, path: &[&str]) -> bool {
        metadata::value(&self.host, filter, path).is_some()
    }

    fn metadata_text(&self, filter: &str, path: &[&str]) -> Option<String> {
        String::from_utf8(metadata::value(&self.host, filter, path)?).ok()
    }

    fn metadata_texts(&self, filter: &str, path: &[&str]) -> Vec<String> {
        metadata::texts(&self.host, filter, path)
    }

    fn metadata_access(&self, filter: &str, token: &str) -> Vec<ResourceActions> {
        metadata::access(&self.host, filter, token)
    }

    fn nonce(&self) -> Nonce {
        let number = self.given.replace(self.given.get().wrapping_add(1));
        let hash = Sha256::new().chain_update(self.seed).chain_update(number.to_be_bytes());
        Nonce(hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::config::{EventsConfig, TelemetryConfig};
    use crate::filter::scripted_host::ScriptedHost;

    #[test]
    fn what_one_worker_writes_is_counted_in_all_and_in_itself_even_if_envoy_does_not_share_it() {
        let host = ScriptedHost::default();
        let worker = || {
            let clock = Rc::new(Clock::new(host.clone()));
            let telemetry = Telemetry::new(host.clone(), &TelemetryConfig::default());
            WorkerEnvironment::new(host.clone(), clock, Rc::new(telemetry), "registry")
        };
        let (own, other) = (worker(), worker());
        let seen = |worker: &WorkerEnvironment<ScriptedHost>, shard| {
            (worker.write_epoch(shard), worker.acknowledged_epoch(shard))
        };
        let before = (seen(&own, 1), seen(&other, 1), seen(&other, 2));
        own.begin_write_epoch(1);
        let written = (seen(&own, 1), seen(&other, 1), seen(&other, 2));
        assert!(written.0.0 != before.0.0 && written.1.0 != before.1.0);
        assert_eq!((written.0.1, written.1.1, written.2), (before.0.1, before.1.1, before.2));
        own.begin_acknowledged_epoch(1);
        let acknowledged = (seen(&own, 1), seen(&other, 1), seen(&other, 2));
        assert!(acknowledged.0.1 != written.0.1 && acknowledged.1.1 != written.1.1);
        assert_eq!((acknowledged.1.0, acknowledged.2), (written.1.0, before.2));
        host.state().refuses_shared_data = true;
        own.begin_acknowledged_epoch(1);
        assert_ne!(own.acknowledged_epoch(1), acknowledged.0.1);
    }

    #[test]
    fn no_nonce_is_given_twice_and_none_is_told_by_the_others() {
        let host = ScriptedHost::default();
        let clock = Rc::new(Clock::new(host.clone()));
        let events = Rc::new(Events::new(host.clone(), EventsConfig::default()));
        let nonces = |seed| {
            let environment = RequestEnvironment::new(
                host.clone(),
                Rc::clone(&clock),
                Rc::clone(&events),
                [seed; 32],
            );
            (0..100).map(|_| environment.nonce().0).collect::<HashSet<_>>()
        };
        let (first, second) = (nonces(1), nonces(2));
        assert_eq!((first.len(), second.len()), (100, 100));
        assert!(first.is_disjoint(&second));
    }
}
