//! Whether the store can be reached, as far as the cache's own reads show, and who asks it when it can't.
//!
//! A store that hangs lets every call wait for its whole timeout. So those who can do without an answer don't ask while
//! it is known to be away: one at a time does, a pause after the last one.

use std::cell::Cell;
use std::time::Duration;

use crate::store::fault::{StoreError, StoreErrorKind};

/// How long nobody asks who can do without.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// What is known of an outage.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// When it last turned out that the store can't be reached; `None` since it has answered.
    found_at: Cell<Option<Duration>>,
    /// How often the store has answered.
    answers: Cell<u64>,
    /// Whether somebody asks who could do without.
    is_probing: Cell<bool>,
}

impl Outage {
    /// How often the store has answered so far, for [`Outage::note`].
    pub(super) fn answers(&self) -> u64 {
        self.answers.get()
    }

    /// Whether the store could not be reached and has not answered since.
    pub(super) fn is_known(&self) -> bool {
        self.found_at.get().is_some()
    }

    /// Whether someone who can do without the store shall ask it at `now`, and is the only one until the result is dropped.
    pub(super) fn probe<N: Fn() -> Duration>(&self, now: N) -> Option<Probe<'_, N>> {
        let since = self.found_at.get().and_then(|found_at| now().checked_sub(found_at));
        // A clock that was set back must not make the pause longer.
        let pauses = since.is_some_and(|since| since < PAUSE);
        if pauses || self.is_probing.replace(true) {
            return None;
        }
        Some(Probe { outage: self, now })
    }

    /// Notes what a read came to at `now` that began when the store had answered so many times. A read that failed while
    /// others were answered says nothing of the store: it was on its way for long, or there is something about its object.
    pub(super) fn note<T>(&self, result: &Result<T, StoreError>, answers: u64, now: Duration) {
        match result {
            Err(error) if error.is_outage() => {
                if self.answers.get() == answers && self.found_at.replace(Some(now)).is_none() {
                    log::warn!(
                        "the blob store can't be reached: pulls are answered from memory as far as cache.stale_if_error \
                         goes, and the store is asked once a second"
                    );
                }
            }
            // It was not asked.
            Err(error) if error.kind() == StoreErrorKind::Busy => {}
            Ok(_) | Err(_) => {
                self.answers.set(self.answers.get().wrapping_add(1));
                if self.found_at.take().is_some() {
                    log::warn!("the blob store answers again");
                }
            }
        }
    }
}

/// Someone asks the store who could do without.
pub(super) struct Probe<'a, N: Fn() -> Duration> {
    outage: &'a Outage,
    now: N,
}

/// The pause begins anew, also if whoever asked has gone away meanwhile: when it comes back it shall not be the one that
/// waits again.
impl<N: Fn() -> Duration> Drop for Probe<'_, N> {
    fn drop(&mut self) {
        self.outage.is_probing.set(false);
        if self.outage.is_known() {
            self.outage.found_at.set(Some((self.now)()));
        }
    }
}
