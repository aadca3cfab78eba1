//! The environment of the cache and the handlers, from Envoy: the time, whether repositories have been
//! written to through any worker, and random values.
//!
//! Write epochs are kept in Envoy's shared data, as empty values. Envoy numbers every value that is set anew,
//! and that number is all that counts. To read an empty one costs next to nothing; for any other Envoy
//! has the module allocate memory, which costs as much as half of what the cache does for a request.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use super::host::Host;
use crate::registry::{Environment, Nonce};
use crate::store::CacheEnvironment;
use crate::store::layout::SHARDS;

/// How old the time may be that the cache goes by.
pub const TICK: Duration = Duration::from_millis(100);

/// Envoy's workers, as the cache sees them.
#[derive(Debug)]
pub struct WorkerEnvironment<H> {
    host: H,
    /// The key of each shard's value, which is set at each write.
    keys: Vec<String>,
    /// The time, as it was when last asked for.
    now: Cell<Duration>,
    /// How often it was asked for.
    ticks: Cell<u64>,
}

impl<H: Host> WorkerEnvironment<H> {
    /// The workers that serve the bucket of that name.
    pub fn new(host: H, bucket: &str) -> Self {
        let key = |shard| format!("moorage/{bucket}/writes/{shard}");
        let environment = Self {
            host,
            keys: (0..SHARDS).map(key).collect(),
            now: Cell::default(),
            ticks: Cell::default(),
        };
        environment.tick();
        environment
    }

    /// Asks Envoy for the time. To be called every [`TICK`]: to ask for every request would cost more
    /// than the answer's precision is worth. Gives the number of calls so far.
    pub fn tick(&self) -> u64 {
        let now = self.host.now();
        self.now.set(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        self.ticks.set(self.ticks.get().wrapping_add(1));
        self.ticks.get()
    }

    fn key(&self, shard: u8) -> &str {
        self.keys.get(usize::from(shard)).map_or("", String::as_str)
    }
}

impl<H: Host> CacheEnvironment for WorkerEnvironment<H> {
    fn now(&self) -> Duration {
        self.now.get()
    }

    fn write_epoch(&self, shard: u8) -> u64 {
        let (_, number) = self.host.shared_data(self.key(shard));
        number.map_or(0, u64::from)
    }

    fn begin_write_epoch(&self, shard: u8) {
        if self.host.set_shared_data(self.key(shard), None, None).is_err() {
            log::error!(
                "Envoy does not share that a repository was written to: other workers may answer from their \
                 caches until cache.link_ttl and cache.tag_ttl are over"
            );
        }
    }
}

/// The clock of Envoy, and random values. These are the hashes of a seed, which is the host's random bytes, and a
/// count: nobody can tell one from another, none is given twice, and none needs a host call.
#[derive(Debug)]
pub struct RequestEnvironment<H> {
    host: H,
    seed: [u8; 32],
    given: Cell<u64>,
}

impl<H: Host> RequestEnvironment<H> {
    /// Random values that no other `seed` gives. The seed must be secret.
    pub fn new(host: H, seed: [u8; 32]) -> Self {
        Self { host, seed, given: Cell::default() }
    }
}

impl<H: Host> Environment for RequestEnvironment<H> {
    fn now(&self) -> SystemTime {
        self.host.now()
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
    use crate::filter::scripted_host::ScriptedHost;

    #[test]
    fn no_nonce_is_given_twice_and_none_is_told_by_the_others() {
        let host = ScriptedHost::default();
        let nonces = |seed| {
            let environment = RequestEnvironment::new(host.clone(), [seed; 32]);
            (0..100).map(|_| environment.nonce().0).collect::<HashSet<_>>()
        };
        let (first, second) = (nonces(1), nonces(2));
        assert_eq!((first.len(), second.len()), (100, 100));
        assert!(first.is_disjoint(&second));
    }
}
