//! The time of a worker, and what waits for it.

use std::cell::{Cell, RefCell};
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
    /// What waits, with the time when it is due. There are few.
    waiting: RefCell<Vec<(Duration, oneshot::Sender<()>)>>,
}

impl<H: Host> Clock<H> {
    /// A clock that shows the time.
    pub fn new(host: H) -> Self {
        let clock = Self {
            host,
            now: Cell::default(),
            ticks: Cell::default(),
            waiting: RefCell::default(),
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
        // To drop a sender wakes who waits; whoever does not wait any more has gone away.
        self.waiting
            .borrow_mut()
            .retain(|(due, sender)| *due > self.now() && !sender.is_canceled());
    }

    /// The time at the last tick, since 1970.
    pub fn now(&self) -> Duration {
        self.now.get()
    }

    /// Ends, by an error, at the first tick after so long a time.
    pub fn wait(&self, time: Duration) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let due = self.now.get().saturating_add(time);
        self.waiting.borrow_mut().push((due, sender));
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
                let is_woken = receiver.try_recv().is_err();
                assert_eq!(is_woken, now >= due, "at {now} what is due at {due}");
            }
        }
        assert!(clock.waiting.borrow().is_empty());
    }
}
