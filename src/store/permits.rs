//! How much of a kind a worker does at a time: whoever comes later waits, in the order in which they came.
//!
//! So it is with the storage calls of requests that make very many of them: a manifest's references are looked up,
//! the folders of a catalog, all tags of a repository. Envoy refuses what is more than a cluster's circuit breaker lets through, whoever asks. So these calls wait for
//! one another, and leave room for the few calls of a pull.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use futures::channel::oneshot;

/// How many such calls a worker has under way. Each is one, or two that are made together.
const CALLS: usize = 256;

/// The permits of a worker, of one kind.
#[derive(Debug, Clone)]
pub struct Permits(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    free: Cell<usize>,
    waiting: RefCell<VecDeque<oneshot::Sender<Permit>>>,
}

/// The permit to do something, until it is dropped.
#[derive(Debug)]
pub struct Permit(Rc<Shared>);

impl Permits {
    /// Those for calls of requests that make very many.
    pub fn for_calls() -> Self {
        Self::new(CALLS)
    }

    /// So many permits.
    pub fn new(count: usize) -> Self {
        Self(Rc::new(Shared { free: Cell::new(count), waiting: RefCell::default() }))
    }

    /// Waits for a permit.
    pub async fn take(&self) -> Permit {
        let shared = &self.0;
        if let Some(free) = shared.free.get().checked_sub(1) {
            shared.free.set(free);
            return Permit(Rc::clone(shared));
        }
        loop {
            let (sender, receiver) = oneshot::channel();
            shared.waiting.borrow_mut().push_back(sender);
            // A sender is never dropped without a permit while `self` is there.
            if let Ok(permit) = receiver.await {
                return permit;
            }
        }
    }
}

impl Drop for Permit {
    /// Hands it on to whoever has waited longest and still waits.
    fn drop(&mut self) {
        loop {
            let next = self.0.waiting.borrow_mut().pop_front();
            match next {
                None => return self.0.free.set(self.0.free.get() + 1),
                Some(gone) if gone.is_canceled() => {}
                Some(next) => {
                    // Should nobody take it after all, it is dropped, and comes here again.
                    let _ = next.send(Self(Rc::clone(&self.0)));
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::{FutureExt, join_all};
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::store::memory::{run, take_a_turn};

    #[test]
    fn no_more_is_done_at_a_time_than_there_are_permits_and_all_is_done() {
        let permits = Permits::new(2);
        let order = RefCell::new(Vec::new());
        let calls = (0..5).map(async |number| {
            let _permit = permits.take().await;
            take_a_turn().await;
            order.borrow_mut().push(number);
        });
        let (_, round_trips) = run(join_all(calls));
        assert_eq!((round_trips, order.into_inner()), (3, vec![0, 1, 2, 3, 4]));
        assert_eq!(permits.0.free.get(), 2);
    }

    #[test]
    fn who_goes_away_while_waiting_takes_nothing_along() {
        let permits = Permits::new(1);
        let first = permits.take().now_or_never().expect("one is free");
        let mut leaving = Box::pin(permits.take());
        assert!(leaving.as_mut().now_or_never().is_none());
        let mut granted = Box::pin(permits.take());
        assert!(granted.as_mut().now_or_never().is_none());
        drop(leaving);
        drop(first);
        // It was handed on, and is not taken any more.
        drop(granted);
        assert!(permits.take().now_or_never().is_some());
        assert!(permits.0.waiting.borrow().is_empty());
    }
}
