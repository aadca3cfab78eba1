//! Requests at the same time, for unit tests: every order in which their storage calls can complete.
//!
//! [`run`](super::memory::run) completes calls in round trips. Here one call completes at a time, any of those
//! that wait, and has its effect at that moment; who waits for it goes on until it waits again. All
//! choices are tried, depth first. Where two orders have led to the same state of the store, each
//! request has seen the same, and the same of them were over when another began, the same follows from
//! there on, so only the first is followed.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::layout::Key;
use super::memory::{MemoryStore, WAITING, Waiting};

/// A request under way; gives the status of its answer.
pub type Request<'a> = Pin<Box<dyn Future<Output = u16> + 'a>>;

thread_local! {
    static TURN: RefCell<Turn> = RefCell::default();
}

#[derive(Default)]
struct Turn {
    /// The number of the request that is going on.
    current: Option<usize>,
    /// For each request, a number for all that it has seen of the store under each key.
    seen: Vec<BTreeMap<Key, u64>>,
}

/// The number of the request that is going on, where requests take turns.
pub fn current() -> Option<usize> {
    TURN.with_borrow(|turn| turn.current)
}

/// Notes what the request that is going on sees of the store.
/// Calls for different keys may be noted in any order: to the request, which made them together or had one
/// answered before it made the other, that makes no difference.
pub fn note(key: &Key, state: u64) {
    TURN.with_borrow_mut(|turn| {
        if let Some(seen) = turn.current.and_then(|number| turn.seen.get_mut(number)) {
            let of_key = seen.entry(key.clone()).or_default();
            *of_key = hash(&(*of_key, state));
        }
    });
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Runs requests in every order. `world` makes a new one with its store each time; `check` is given the
/// world and the statuses when all requests have been answered. Gives how often that was.
pub fn in_every_order<W>(
    world: impl Fn() -> W,
    store: impl Fn(&W) -> &MemoryStore,
    requests: impl for<'w> Fn(&'w W) -> Vec<Request<'w>>,
    mut check: impl FnMut(&W, &[u16]),
) -> usize {
    let mut known = HashSet::new();
    let mut ends = 0;
    let mut unfollowed = vec![Vec::new()];
    while let Some(choices) = unfollowed.pop() {
        let world = world();
        let mut table = Table::new(requests(&world));
        let mut made = Vec::new();
        for choice in choices {
            table.complete(choice);
            made.push(choice);
        }
        // From here on the first choice is followed, and the others are kept for later.
        while table.waiting() > 0 && known.insert((store(&world).state(), table.state())) {
            for other in 1..table.waiting() {
                unfollowed.push([made.as_slice(), &[other]].concat());
            }
            table.complete(0);
            made.push(0);
        }
        if let Some(statuses) = table.statuses() {
            table.leave();
            check(&world, &statuses);
            ends += 1;
        }
    }
    ends
}

/// The requests, and which of their calls wait.
struct Table<'w> {
    requests: Vec<(Request<'w>, Option<u16>)>,
    /// The calls, each with the number of its request.
    waiting: Vec<(usize, Waiting)>,
    /// For each request, those that were over when its first call was made.
    over_before: Vec<Option<Vec<usize>>>,
}

impl<'w> Table<'w> {
    fn new(requests: Vec<Request<'w>>) -> Self {
        TURN.replace(Turn { current: None, seen: vec![BTreeMap::new(); requests.len()] });
        let requests: Vec<_> = requests.into_iter().map(|request| (request, None)).collect();
        let over_before = vec![None; requests.len()];
        let mut table = Self { requests, waiting: Vec::new(), over_before };
        for number in 0..table.requests.len() {
            table.go_on(number);
        }
        table
    }

    fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A number for all that the requests have come to.
    fn state(&self) -> u64 {
        TURN.with_borrow(|turn| hash(&(&turn.seen, &self.over_before)))
    }

    /// Completes a call that waits.
    fn complete(&mut self, choice: usize) {
        let (number, (is_over, waker)) = self.waiting.remove(choice);
        if self.over_before[number].is_none() {
            let over = self.requests.iter().enumerate().filter(|(_, (_, status))| status.is_some());
            self.over_before[number] = Some(over.map(|(number, _)| number).collect());
        }
        is_over.set(true);
        waker.wake();
        self.go_on(number);
    }

    /// Has a request go on until it waits for calls.
    fn go_on(&mut self, number: usize) {
        let (request, status) = &mut self.requests[number];
        TURN.with_borrow_mut(|turn| turn.current = Some(number));
        // A future of many may have to be polled once more to begin what one of them led to.
        while status.is_none() {
            let begun = self.waiting.len();
            if let Poll::Ready(answer) =
                request.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            {
                *status = Some(answer);
            }
            for call in WAITING.take() {
                // Who is polled again waits with the same call again.
                match self.waiting.iter_mut().find(|(_, old)| Rc::ptr_eq(&old.0, &call.0)) {
                    Some((_, old)) => *old = call,
                    None => self.waiting.push((number, call)),
                }
            }
            if self.waiting.len() == begun {
                break;
            }
        }
        TURN.with_borrow_mut(|turn| turn.current = None);
    }

    /// The statuses, once all requests have been answered.
    fn statuses(&self) -> Option<Vec<u16>> {
        self.requests.iter().map(|(_, status)| *status).collect()
    }

    /// Nobody takes turns any more.
    fn leave(self) {
        assert!(self.waiting.is_empty(), "an answered request still waits for the store");
    }
}
