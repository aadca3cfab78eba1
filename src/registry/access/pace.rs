//! When the next password may be checked: a worker does nothing else meanwhile, so it spends a quarter of its time on
//! that at the most. Whoever comes meanwhile gets a turn later, in the order of coming.

use std::cell::Cell;
use std::time::Duration;

/// How many times as long as a check takes it is until the next.
const SHARE: u32 = 4;

/// How long anybody waits for a turn.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// How long a check at cost 0 takes, until one has been measured.
const UNMEASURED: Duration = Duration::from_nanos(110_000);

/// The turns of a worker.
#[derive(Debug)]
pub struct Pace {
    /// When the next is free, since 1970.
    next: Cell<Duration>,
    /// How long a check at cost 0 takes: each further one takes twice as long.
    unit: Cell<Duration>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { next: Cell::default(), unit: Cell::new(UNMEASURED) }
    }
}

impl Pace {
    /// Takes a turn for a check at this cost, and gives the time until then.
    ///
    /// # Errors
    ///
    /// How long it is until there may be a turn again, if there is none soon enough.
    pub fn take_turn(&self, cost: u32, now: Duration) -> Result<Duration, Duration> {
        let wait = self.next.get().saturating_sub(now);
        if wait > WAIT_MAX {
            return Err(wait - WAIT_MAX);
        }
        let takes = self.unit.get().saturating_mul(1 << cost);
        self.next.set((now + wait).saturating_add(takes.saturating_mul(SHARE)));
        Ok(wait)
    }

    /// A check at this cost took so long.
    pub fn learn(&self, cost: u32, took: Duration) {
        // Slowly: what a check takes is also what else the machine does meanwhile.
        self.unit.set((self.unit.get() * 3 + took / (1 << cost)) / 4);
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn checks_take_a_quarter_of_the_time_and_wait_for_their_turns() {
        let pace = Pace::default();
        let now = Duration::from_secs(1000);
        for _ in 0..100 {
            pace.learn(10, Duration::from_millis(100));
        }
        let waits: Vec<_> = (0..4).map(|_| pace.take_turn(10, now).expect("a turn")).collect();
        for (number, wait) in waits.iter().enumerate() {
            let expected = Duration::from_millis(400) * u32::try_from(number).expect("few");
            assert!(wait.abs_diff(expected) < Duration::from_millis(10), "{waits:?}");
        }
        let later = now + Duration::from_secs(60);
        assert_eq!(
            pace.take_turn(10, later),
            Ok(Duration::ZERO),
            "nothing is saved up or left over"
        );
    }

    #[test]
    fn nobody_waits_very_long() {
        let pace = Pace::default();
        let now = Duration::from_secs(1000);
        let turns = (0..1000).map_while(|_| pace.take_turn(12, now).ok()).collect::<Vec<_>>();
        assert!(turns.len() < 30 && turns.iter().all(|wait| *wait <= WAIT_MAX), "{turns:?}");
        let more = pace.take_turn(12, now).expect_err("no turn");
        assert!(more < Duration::from_secs(3), "{more:?}");
        assert!(pace.take_turn(12, now + more).is_ok());
    }
}
