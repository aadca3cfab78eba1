//! The time of a worker, and what waits for it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use futures::channel::oneshot;

use super::host::Host;

/// How old the time may be that the cache goes by.
pub const TICK: Duration = Duration::from_millis(100);

/// The time, as it was at the last tick.
#[derive(Debug)]
pub struct Clock<H> {
    host: H,
    /// The time, as it was when last asked for.
    now: Cell<Duration>,
    /// How often it was asked for.
    ticks: Cell<u64>,
    /// What waits, by when it is due and in the order in which it came.
    waiting: RefCell<BTreeMap<(Duration, u64), oneshot::Sender<()>>>,
    /// How many have waited.
    waits: Cell<u64>,
}

impl<H: Host> Clock<H> {
    /// A clock that shows the time.
    pub fn new(host: H) -> Self {
        let clock = Self {
            host,
            now: Cell::default(),
            ticks: Cell::default(),
            waiting: RefCell::default(),
            waits: Cell::default(),
        };
        clock.tick();
        clock
    }

    /// Asks Envoy for the time, and wakes what waits for it. To be called every [`TICK`]: to ask for every request would
    /// cost more than the answer's precision is worth. Gives the number of calls so far.
    pub fn tick(&self) -> u64 {
        let now = self.host.now();
        self.now.set(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        self.wake_due();
        self.ticks.set(self.ticks.get().wrapping_add(1));
        self.ticks.get()
    }

    fn wake_due(&self) {
        let mut waiting = self.waiting.borrow_mut();
        let later = waiting.split_off(&(self.now.get(), u64::MAX));
        for (_, sender) in std::mem::replace(&mut *waiting, later) {
            // Whoever does not wait any more has gone away.
            let _ = sender.send(());
        }
    }

    /// The time at the last tick, since 1970.
    pub fn now(&self) -> Duration {
        self.now.get()
    }

    /// Gets a message at the first tick after so long a time.
    pub fn wait(&self, time: Duration) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let number = self.waits.replace(self.waits.get().wrapping_add(1));
        let due = self.now.get().saturating_add(time);
        self.waiting.borrow_mut().insert((due, number), sender);
        receiver
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::filter::scripted_host::ScriptedHost;

    #[test]
    fn what_waits_is_woken_when_its_time_has_come() {
        let host = ScriptedHost::default();
        let clock = Clock::new(host.clone());
        let seconds = [3, 1, 2, 1];
        let mut waiting = seconds.map(|seconds| clock.wait(Duration::from_secs(seconds)));
        drop(clock.wait(Duration::from_secs(1)));
        for now in 1..4 {
            host.state().now += Duration::from_secs(1);
            clock.tick();
            for (receiver, due) in waiting.iter_mut().zip(seconds) {
                // Once it has been received there is no more to come, which is an error.
                let is_woken = !matches!(receiver.try_recv(), Ok(None));
                assert_eq!(is_woken, now >= due, "at {now} what is due at {due}");
            }
        }
        assert!(clock.waiting.borrow().is_empty());
    }
}
