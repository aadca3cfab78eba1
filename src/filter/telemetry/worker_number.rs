//! The number of a worker among those of its proxy, for the label of what each worker has of its own.
//!
//! Envoy does not tell a module in which worker it runs. So workers take numbers, in the data that they share, and keep them
//! by saying again and again that they are there. One whose VM has ended says nothing more, and another gets its number:
//! there are never more of them than workers at a time, and nothing is shown of those that have ended.

use std::cell::Cell;
use std::time::Duration;

use super::Host;

/// The most numbers. The workers beyond have none, and are not shown.
const NUMBERS: u8 = 128;

/// How long nothing may have been said of a number before another worker may have it.
const GONE_AFTER: Duration = Duration::from_secs(5);

/// A worker's number, once it has one.
#[derive(Debug, Default)]
pub struct WorkerNumber {
    taken: Cell<Option<Taken>>,
    /// When it was first asked for. A VM that was loaded anew waits for the number of the one before it.
    asked: Cell<Option<Duration>>,
}

#[derive(Debug, Clone, Copy)]
struct Taken {
    number: u8,
    /// By which the worker knows its own entry.
    owner: [u8; 16],
}

impl WorkerNumber {
    /// The number, which is kept, or taken if there is none yet; `None` while none is free. To be called about once a second.
    pub fn keep(&self, host: &impl Host, now: Duration) -> Option<u8> {
        let asked = self.asked.get().unwrap_or(now);
        self.asked.set(Some(asked));
        if let Some(taken) = self.taken.get() {
            if renew(host, taken, now) {
                return Some(taken.number);
            }
            self.taken.set(None);
        }
        if now.saturating_sub(asked) < GONE_AFTER {
            return None;
        }
        let owner = host.random()?.first_chunk().copied()?;
        let numbers = (0..NUMBERS).map(|number| Taken { number, owner });
        let taken = numbers.into_iter().find(|taken| take(host, *taken, now))?;
        self.taken.set(Some(taken));
        Some(taken.number)
    }
}

/// Says that the worker is there. `false` if another has the number.
fn renew(host: &impl Host, taken: Taken, now: Duration) -> bool {
    let (entry, seen) = host.shared_data(&key(taken.number));
    let is_own = entry.is_some_and(|entry| entry.starts_with(&taken.owner));
    is_own && host.set_shared_data(&key(taken.number), Some(&entry_of(taken, now)), seen).is_ok()
}

/// Takes a number that is free, or whose worker has gone.
fn take(host: &impl Host, taken: Taken, now: Duration) -> bool {
    let (entry, seen) = host.shared_data(&key(taken.number));
    let said = entry.as_deref().and_then(|entry| entry.last_chunk().copied());
    let is_gone = said.is_none_or(|said| {
        let said = Duration::from_secs(u64::from_le_bytes(said));
        now.abs_diff(said) > GONE_AFTER
    });
    is_gone
        && host.set_shared_data(&key(taken.number), Some(&entry_of(taken, now)), seen).is_ok()
        // Two who take a number that nobody ever had both set it: the later one has it.
        && host.shared_data(&key(taken.number)).0.is_some_and(|entry| entry.starts_with(&taken.owner))
}

fn key(number: u8) -> String {
    format!("moorage/workers/{number}")
}

/// Who has the number, and when that was last said, in seconds.
fn entry_of(taken: Taken, now: Duration) -> Vec<u8> {
    [&taken.owner[..], &now.as_secs().to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::filter::scripted_host::ScriptedHost;

    /// The workers' numbers at this second.
    fn numbers(host: &ScriptedHost, workers: &[&WorkerNumber], second: u64) -> Vec<Option<u8>> {
        workers.iter().map(|worker| worker.keep(host, Duration::from_secs(second))).collect()
    }

    #[test]
    fn each_worker_has_a_number_and_one_that_is_loaded_anew_gets_that_of_the_one_before() {
        let host = ScriptedHost::default();
        let [first, second, again] = [(); 3].map(|()| WorkerNumber::default());
        assert_eq!(numbers(&host, &[&first, &second], 10), [None, None]);
        assert_eq!(numbers(&host, &[&first, &second], 15), [Some(0), Some(1)]);
        assert_eq!(numbers(&host, &[&first, &second], 16), [Some(0), Some(1)]);
        // The first worker's VM ends, and it gets another.
        assert_eq!(numbers(&host, &[&again, &second], 17), [None, Some(1)]);
        assert_eq!(numbers(&host, &[&again, &second], 22), [Some(0), Some(1)]);
        // One that was held up has lost its number, and takes another.
        assert_eq!(numbers(&host, &[&first], 23), [Some(2)]);
    }
}
