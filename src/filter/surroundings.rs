//! What the cache needs to know of the world, from Envoy: the time, and whether repositories have been
//! written to through any worker.
//!
//! The latter is kept in Envoy's shared data, as empty values. Envoy numbers every value that is set anew,
//! and that number is all that counts. To read an empty one costs next to nothing; for any other Envoy
//! has the module allocate memory, which costs as much as half of what the cache does for a request.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use proxy_wasm::hostcalls;

use crate::store::Surroundings;
use crate::store::layout::SHARDS;

/// How old the time may be that the cache goes by.
pub const TICK: Duration = Duration::from_millis(100);

/// Envoy and its workers.
#[derive(Debug)]
pub struct Proxy {
    /// The key of each shard's value, which is set at each write.
    keys: Vec<String>,
    /// The time, as it was when last asked for.
    now: Cell<Duration>,
    /// How often it was asked for.
    ticks: Cell<u64>,
}

impl Proxy {
    /// The workers that serve the bucket of that name.
    pub fn new(bucket: &str) -> Self {
        let key = |shard| format!("moorage/{bucket}/writes/{shard}");
        let proxy = Self {
            keys: (0..SHARDS).map(key).collect(),
            now: Cell::default(),
            ticks: Cell::default(),
        };
        proxy.tick();
        proxy
    }

    /// Asks Envoy for the time. To be called every [`TICK`]: to ask for every request would cost more
    /// than the answer's precision is worth. Gives the number of calls so far.
    pub fn tick(&self) -> u64 {
        let now = hostcalls::get_current_time().unwrap_or(SystemTime::UNIX_EPOCH);
        self.now.set(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        self.ticks.set(self.ticks.get().wrapping_add(1));
        self.ticks.get()
    }

    fn key(&self, shard: u8) -> &str {
        self.keys.get(usize::from(shard)).map_or("", String::as_str)
    }
}

impl Surroundings for Proxy {
    fn now(&self) -> Duration {
        self.now.get()
    }

    fn writes(&self, shard: u8) -> u64 {
        let (_, number) = hostcalls::get_shared_data(self.key(shard)).unwrap_or_default();
        number.map_or(0, u64::from)
    }

    fn count_write(&self, shard: u8) {
        if let Err(error) = hostcalls::set_shared_data(self.key(shard), None, None) {
            log::error!("Envoy does not share that something was written: {error:?}");
        }
    }
}
