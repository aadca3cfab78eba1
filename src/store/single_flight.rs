//! One read for many that want the same: whoever comes first makes it, the others wait for it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::hash::Hash;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// The reads under way, by what they are of.
#[derive(Debug)]
pub struct SingleFlight<K, T> {
    under_way: RefCell<HashMap<K, Rc<RefCell<Flight<T>>>>>,
}

/// One read.
#[derive(Debug)]
enum Flight<T> {
    /// These wait for it.
    UnderWay(Vec<Waker>),
    /// It gave this.
    Landed(T),
    /// Whoever made it is gone.
    Abandoned,
}

impl<K, T> Default for SingleFlight<K, T> {
    fn default() -> Self {
        Self { under_way: RefCell::default() }
    }
}

impl<K: Clone + Eq + Hash, T: Clone> SingleFlight<K, T> {
    /// The result of `read`, which is called only if nobody else reads the same right now.
    pub async fn share(&self, key: &K, read: impl AsyncFnOnce() -> T) -> T {
        loop {
            let flight = self.under_way.borrow().get(key).map(Rc::clone);
            match flight {
                None => return self.lead(key, read).await,
                // Whoever read went away with nothing: then it is someone else's turn.
                Some(flight) => match wait_for(&flight).await {
                    Some(value) => return value,
                    None => continue,
                },
            }
        }
    }

    async fn lead(&self, key: &K, read: impl AsyncFnOnce() -> T) -> T {
        let flight = Rc::new(RefCell::new(Flight::UnderWay(Vec::new())));
        self.under_way.borrow_mut().insert(key.clone(), Rc::clone(&flight));
        let lead = Lead { flights: self, key, flight };
        let value = read().await;
        lead.end(Flight::Landed(value.clone()));
        value
    }
}

async fn wait_for<T: Clone>(flight: &RefCell<Flight<T>>) -> Option<T> {
    poll_fn(|context| match &mut *flight.borrow_mut() {
        Flight::UnderWay(waiting) => {
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        }
        Flight::Landed(value) => Poll::Ready(Some(value.clone())),
        Flight::Abandoned => Poll::Ready(None),
    })
    .await
}

/// The one that reads. If it is dropped before it has read, the others are told.
struct Lead<'a, K: Eq + Hash, T> {
    flights: &'a SingleFlight<K, T>,
    key: &'a K,
    flight: Rc<RefCell<Flight<T>>>,
}

impl<K: Eq + Hash, T> Lead<'_, K, T> {
    fn end(&self, how: Flight<T>) {
        if !matches!(*self.flight.borrow(), Flight::UnderWay(_)) {
            return;
        }
        self.flights.under_way.borrow_mut().remove(self.key);
        if let Flight::UnderWay(waiting) = self.flight.replace(how) {
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

impl<K: Eq + Hash, T> Drop for Lead<'_, K, T> {
    fn drop(&mut self) {
        self.end(Flight::Abandoned);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures::future::{join3, select};
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::store::memory::{run, take_a_turn};

    #[test]
    fn those_who_come_while_it_is_read_get_what_was_read() {
        let flights = SingleFlight::default();
        let reads = Cell::new(0);
        let read = async || {
            take_a_turn().await;
            reads.set(reads.get() + 1);
            reads.get()
        };
        let all = join3(
            flights.share(&"a", &read),
            flights.share(&"a", &read),
            flights.share(&"b", &read),
        );
        let ((first, second, other), round_trips) = run(all);
        assert_eq!(
            (first == second, first == other, reads.get(), round_trips),
            (true, false, 2, 1)
        );
        assert_eq!(run(flights.share(&"a", &read)).0, 3, "nothing is kept");
    }

    #[test]
    fn when_the_one_that_reads_goes_away_another_takes_over() {
        let flights = SingleFlight::default();
        let gone = Box::pin(flights.share(&"a", async || {
            take_a_turn().await;
            take_a_turn().await;
            1
        }));
        let waiting = flights.share(&"a", async || {
            take_a_turn().await;
            2
        });
        let (value, _) = run(async {
            // The first one begins, and is dropped in the middle.
            let leaving = async { drop(select(gone, Box::pin(take_a_turn())).await) };
            futures::future::join(leaving, waiting).await.1
        });
        assert_eq!(value, 2);
    }
}
