//! The memory that requests under way may hold in one worker.
//!
//! A wasm VM ends at about 1 GiB, and with it everything that it serves at that moment. Envoy does not count that
//! memory, so the module counts for itself: whatever holds more than a few KiB for a request reserves
//! it here first, and a request for which nothing is left is refused while the others go on. What the cache holds is not
//! counted here: it has a limit of its own.
//!
//! The whole is divided, a quarter for each purpose, so that slow uploads can't keep others from reading, nor
//! the reverse.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::fault::{StoreError, StoreErrorKind};

/// Up to this many bytes are held without a reservation: to count them would cost more than they do.
pub const UNCOUNTED: usize = 4 * 1024;

/// Up to this many bytes are what an ordinary request needs: most manifests are smaller by far.
const SMALL: usize = 64 * 1024;

/// The purposes that memory is held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Requests themselves while they wait: headers, its handler's state.
    Waiting,
    /// Bodies of requests.
    Bodies,
    /// Content that is read from the store.
    Reads,
    /// Replies that clients have not taken yet.
    Replies,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Bodies, Self::Reads, Self::Replies];
}

/// The budget of one worker.
#[derive(Debug)]
pub struct Budget {
    waiting: Arc<Part>,
    bodies: Arc<Part>,
    reads: Arc<Part>,
    replies: Arc<Part>,
}

/// The share of one purpose. Atomic only so that what holds a reservation may be sent between threads,
/// as [`Bytes`] wants it; a worker has one.
#[derive(Debug)]
struct Part {
    limit: usize,
    held: AtomicUsize,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: usize) -> Self {
        let part = || Arc::new(Part { limit: bytes / 4, held: AtomicUsize::new(0) });
        Self { waiting: part(), bodies: part(), reads: part(), replies: part() }
    }

    fn part(&self, purpose: Purpose) -> &Arc<Part> {
        match purpose {
            Purpose::Waiting => &self.waiting,
            Purpose::Bodies => &self.bodies,
            Purpose::Reads => &self.reads,
            Purpose::Replies => &self.replies,
        }
    }

    /// Reserves so many bytes until the reservation is dropped; `None` if they are not left.
    pub fn reserve(&self, purpose: Purpose, bytes: usize) -> Option<Reservation> {
        let mut reservation = Reservation { part: Arc::clone(self.part(purpose)), bytes: 0 };
        reservation.grow(bytes).then_some(reservation)
    }

    /// Reserves so many bytes to read from the store.
    ///
    /// # Errors
    ///
    /// A [`StoreError`] of the kind [`StoreErrorKind::Busy`] if they are not left.
    pub fn reserve_read(&self, bytes: usize) -> Result<Reservation, StoreError> {
        self.reserve(Purpose::Reads, bytes).ok_or_else(no_room_for_reads)
    }

    /// How many bytes are held for a purpose.
    pub fn held(&self, purpose: Purpose) -> usize {
        self.part(purpose).held.load(Ordering::Relaxed)
    }

    /// How many bytes may be held for a purpose.
    pub fn limit(&self, purpose: Purpose) -> usize {
        self.part(purpose).limit
    }

    /// Whether more than half of what may be held for a purpose is.
    pub fn is_half_held(&self, purpose: Purpose) -> bool {
        self.held(purpose) > self.part(purpose).limit / 2
    }
}

/// The error of a request that would read more than there is memory for.
pub fn no_room_for_reads() -> StoreError {
    let message =
        "the proxy is reading as much from the blob store as it has memory for; try again";
    StoreError::new(StoreErrorKind::Busy, message)
}

#[cfg(test)]
impl Default for Budget {
    /// More than anything takes.
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

/// Memory that is reserved until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    part: Arc<Part>,
    bytes: usize,
}

impl Reservation {
    /// Reserves so many bytes more; `false`, and nothing is changed, if they are not left. Who holds more than [`SMALL`]
    /// leaves a quarter of what there is for the purpose to others, who need less.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let limit = match self.bytes.saturating_add(bytes) {
            ..=SMALL => self.part.limit,
            _ => self.part.limit / 4 * 3,
        };
        let held = self.part.held.load(Ordering::Relaxed);
        let Some(held) = held.checked_add(bytes).filter(|held| *held <= limit) else {
            return false;
        };
        self.part.held.store(held, Ordering::Relaxed);
        self.bytes += bytes;
        true
    }

    /// Gives back all but so many bytes.
    pub fn shrink_to(&mut self, bytes: usize) {
        let freed = self.bytes.saturating_sub(bytes);
        self.part.held.fetch_sub(freed, Ordering::Relaxed);
        self.bytes -= freed;
    }

    /// Keeps what was reserved for `bytes` until the last of their clones is dropped, and gives back the rest.
    /// If they are more than was reserved, which a store that ignores a range may send, they are counted
    /// all the same: they are there.
    pub fn hold(mut self, bytes: Bytes) -> Bytes {
        self.shrink_to(bytes.len());
        let excess = bytes.len() - self.bytes;
        self.part.held.fetch_add(excess, Ordering::Relaxed);
        self.bytes += excess;
        match bytes.len() {
            ..=UNCOUNTED => bytes,
            _ => Bytes::from_owner(Held { bytes, _reservation: self }),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

/// Bytes and what was reserved for them.
struct Held {
    bytes: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn what_is_not_left_is_not_given_and_what_is_dropped_is_left_again() {
        let budget = Budget::new(400);
        let first = budget.reserve(Purpose::Reads, 60).expect("100 are left");
        assert!(budget.reserve(Purpose::Reads, 41).is_none());
        let mut second = budget.reserve(Purpose::Reads, 30).expect("40 are left");
        assert!(!second.grow(11) && second.grow(10));
        assert_eq!(budget.held(Purpose::Reads), 100);
        drop(first);
        assert_eq!(budget.held(Purpose::Reads), 40);
        second.shrink_to(1);
        assert_eq!(budget.held(Purpose::Reads), 1);
        assert!(!second.grow(usize::MAX));
        drop(second);
        assert_eq!(budget.held(Purpose::Reads), 0);
    }

    #[test]
    fn no_purpose_takes_what_is_for_another() {
        let budget = Budget::new(400);
        let all = [Purpose::Waiting, Purpose::Bodies, Purpose::Reads, Purpose::Replies];
        let reserved = all.map(|purpose| budget.reserve(purpose, 100));
        assert!(reserved.iter().all(Option::is_some));
        assert!(all.iter().all(|purpose| budget.reserve(*purpose, 1).is_none()));
    }

    #[test]
    fn who_needs_much_leaves_something_to_who_needs_little() {
        let budget = Budget::new(16 * SMALL);
        let mut much = budget.reserve(Purpose::Bodies, SMALL).expect("four times as much is left");
        assert!(much.grow(2 * SMALL) && !much.grow(1));
        assert!(budget.reserve(Purpose::Bodies, SMALL + 1).is_none());
        assert!(budget.reserve(Purpose::Bodies, SMALL).is_some());
    }

    #[test]
    fn what_is_read_is_counted_until_its_last_clone_is_gone() {
        let budget = Budget::new(1024 * 1024);
        let reserve = || budget.reserve_read(100_000).expect("enough is left");
        let content = reserve().hold(vec![7; 10_000].into());
        let clone = content.slice(1..);
        assert_eq!(budget.held(Purpose::Reads), 10_000);
        drop(content);
        assert_eq!((budget.held(Purpose::Reads), clone.len()), (10_000, 9_999));
        drop(clone);
        let small = reserve().hold(vec![7; UNCOUNTED].into());
        assert_eq!((budget.held(Purpose::Reads), small.len()), (0, UNCOUNTED));
    }
}
