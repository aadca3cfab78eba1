//! Whether the store answers: one look at a time, and not another for a while, however many ask.

use std::cell::RefCell;
use std::time::Duration;

use super::fault::StoreError;
use super::layout;
use super::objects::Objects;
use super::single_flight::SingleFlight;

/// How long what a look has found is answered: so often, at most, do those who ask cost a call to the store.
pub const HEALTH_MAX_AGE: Duration = Duration::from_secs(5);

/// A worker's knowledge of whether the store answers.
#[derive(Debug, Default)]
pub struct HealthView {
    /// What the latest look has found, with the time at which it began.
    latest: RefCell<Option<(Duration, Result<(), StoreError>)>>,
    looks: SingleFlight<(), Result<(), StoreError>>,
}

impl HealthView {
    /// Whether the store answers, as of [`HEALTH_MAX_AGE`] before `now` (since 1970) at the longest, but for as long as a
    /// look takes. No call if that is known; otherwise one, which everybody shares who asks meanwhile.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) async fn get(
        &self,
        objects: &impl Objects,
        now: Duration,
    ) -> Result<(), StoreError> {
        if let Some((begun, found)) = &*self.latest.borrow()
            // A clock that was set back proves nothing.
            && now.checked_sub(*begun).is_some_and(|age| age < HEALTH_MAX_AGE)
        {
            return found.clone();
        }
        let look = async || {
            // There is no such object. That the store says so takes its address, the bucket and the credentials to be right.
            let found = objects.read(&layout::health_probe()).await.map(|_| ());
            self.latest.replace(Some((now, found.clone())));
            found
        };
        self.looks.share(&(), look).await
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::store::Store;
    use crate::store::memory::{Effect, MemoryStore, run};

    /// What is found at each of these seconds, and how many calls have been made by then.
    fn looks(store: &MemoryStore, seconds: &[u64]) -> Vec<(bool, usize)> {
        let look = |second: &u64| {
            let found = run(store.health(Duration::from_secs(*second))).0;
            (found.is_ok(), store.calls().len())
        };
        seconds.iter().map(look).collect()
    }

    #[test]
    fn the_store_is_looked_at_once_in_five_seconds() {
        let store = MemoryStore::default();
        assert_eq!(looks(&store, &[10, 12, 14, 15]), [(true, 1), (true, 1), (true, 1), (true, 2)]);
        assert_eq!(looks(&store, &[3]), [(true, 3)], "a clock that is set back proves nothing");
    }

    #[test]
    fn a_store_that_fails_is_known_to_until_the_next_look() {
        let store = MemoryStore::default();
        store.failing_call.set(Some((0, Effect::None)));
        assert_eq!(looks(&store, &[10, 14, 15]), [(false, 1), (false, 1), (true, 2)]);
    }

    #[test]
    fn those_who_ask_at_the_same_time_share_a_look() {
        let store = MemoryStore::default();
        let now = Duration::from_secs(10);
        let (both, _) = run(join(store.health(now), store.health(now)));
        assert_eq!((both, store.calls().len()), ((Ok(()), Ok(())), 1));
    }
}
