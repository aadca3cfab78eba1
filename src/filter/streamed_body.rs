//! A body on its way through the router, as the handler sees it: [`RequestBody`] for Envoy.
//!
//! The handler and the stream share it. The stream tells it what Envoy calls back with, then polls
//! the handler, then does what the handler has asked for.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::Poll;

use super::headers::announced_length;
use crate::oci::{Digest, Hasher};
use crate::registry::{Hashing, Request, RequestBody};
use crate::store::{Budget, Purpose, Reservation, StreamedWrite, WriteAnswer, WriteTarget};

/// How much of a body is kept while the hasher for it is still being read from the store, in bytes.
const WAITING_LIMIT: usize = 32 * 1024 * 1024;

/// The pieces of a body that wait for its hasher.
struct Waiting {
    pieces: Vec<Vec<u8>>,
    length: usize,
    /// None where there is no memory for any of it.
    room: Option<Reservation>,
}

impl Waiting {
    fn new(budget: &Budget) -> Self {
        let room = budget.reserve(Purpose::Bodies, 0);
        Self { pieces: Vec::new(), length: 0, room }
    }

    /// Keeps a piece, unless it is too much.
    fn push(&mut self, piece: Vec<u8>) -> bool {
        let is_too_much = self.length + piece.len() > WAITING_LIMIT;
        if is_too_much || !self.room.as_mut().is_some_and(|room| room.grow(piece.len())) {
            return false;
        }
        self.length += piece.len();
        self.pieces.push(piece);
        true
    }
}

/// Who hashes a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hashed {
    /// This filter.
    Here,
    /// Somebody else, who has not told yet what came of it.
    Elsewhere,
    /// Somebody else, who has nothing to tell.
    Lost,
}

/// A body on its way.
pub struct StreamedBody {
    announced: Option<u64>,
    state: RefCell<State>,
}

struct State {
    /// The write that the handler has asked for and the stream has not begun yet.
    write: Option<StreamedWrite>,
    hashing: Hashing,
    /// Who hashes the body.
    hashed: Hashed,
    /// The pieces that came while the hasher was not there; `None` once it is, or where it is not waited for.
    waiting: Option<Waiting>,
    length: u64,
    is_whole: bool,
    is_released: bool,
    answer: Option<WriteAnswer>,
}

impl StreamedBody {
    /// The body of `request`, of which nothing has come yet.
    pub fn new(request: &Request, budget: &Budget) -> Self {
        let announced = announced_length(request);
        let state = State {
            write: None,
            hashing: Hashing::Off,
            hashed: Hashed::Here,
            waiting: Some(Waiting::new(budget)),
            length: 0,
            is_whole: false,
            is_released: false,
            answer: None,
        };
        Self { announced, state: RefCell::new(state) }
    }

    /// How the handler wants the body written, if it has just said so.
    pub fn take_write(&self) -> Option<StreamedWrite> {
        self.state.borrow_mut().write.take()
    }

    /// Whether the bytes themselves are of interest, not only their number.
    pub fn wants_bytes(&self) -> bool {
        let state = self.state.borrow();
        state.hashed != Hashed::Elsewhere && !matches!(state.hashing, Hashing::Off)
    }

    /// Whether the body is to be hashed by SHA-256, from its first byte on.
    pub fn wants_sha256(&self) -> bool {
        match &self.state.borrow().hashing {
            Hashing::With(hasher) => matches!(**hasher, Hasher::Sha256(_)),
            Hashing::Off | Hashing::Later => false,
        }
    }

    /// Leaves the hashing to somebody else, who gives the hash when the body is whole.
    pub fn leave_hashing(&self) {
        self.state.borrow_mut().hashed = Hashed::Elsewhere;
    }

    /// The length of the body, in bytes, if it is whole and its hash not here yet.
    pub fn awaits_hash(&self) -> Option<u64> {
        let state = self.state.borrow();
        (state.is_whole && state.hashed == Hashed::Elsewhere).then_some(state.length)
    }

    /// The hash of the whole body, from who has hashed it; `None` if it is lost.
    pub fn give_hash(&self, hasher: Option<Hasher>) {
        let mut state = self.state.borrow_mut();
        state.hashed = if hasher.is_some() { Hashed::Here } else { Hashed::Lost };
        state.hashing = hasher.map_or(Hashing::Off, |hasher| Hashing::With(Box::new(hasher)));
    }

    /// Takes note of the next `size` bytes. `bytes` are they, where they are of interest.
    pub fn push(&self, size: usize, bytes: Option<Vec<u8>>, end_of_stream: bool) {
        let mut state = self.state.borrow_mut();
        state.length += size as u64;
        state.is_whole |=
            end_of_stream || self.announced.is_some_and(|announced| state.length >= announced);
        let Some(bytes) = bytes else {
            return;
        };
        match &mut state.hashing {
            Hashing::Off => {}
            Hashing::With(hasher) => hasher.update(&bytes),
            Hashing::Later => {
                if !state.waiting.as_mut().is_some_and(|waiting| waiting.push(bytes)) {
                    state.waiting = None;
                    state.hashing = Hashing::Off;
                }
            }
        }
    }

    /// The body has ended without a last piece.
    pub fn end(&self) {
        self.state.borrow_mut().is_whole = true;
    }

    /// Whether all of the body has come.
    pub fn is_whole(&self) -> bool {
        self.state.borrow().is_whole
    }

    /// Whether the handler has let the end of the body go.
    pub fn is_released(&self) -> bool {
        self.state.borrow().is_released
    }

    /// The store has answered.
    pub fn answer(&self, answer: WriteAnswer) {
        self.state.borrow_mut().answer = Some(answer);
    }
}

impl RequestBody for StreamedBody {
    fn is_empty(&self) -> bool {
        self.announced == Some(0)
    }

    fn announced(&self) -> Option<u64> {
        self.announced
    }

    fn forward(&self, target: WriteTarget, sha256: Option<Digest>, hashing: Hashing) {
        let mut state = self.state.borrow_mut();
        state.write = Some(StreamedWrite { target, length: self.announced, sha256 });
        state.hashing = hashing;
    }

    fn hash_with(&self, hasher: Option<Hasher>) {
        let mut state = self.state.borrow_mut();
        let waiting = state.waiting.take();
        if !matches!(state.hashing, Hashing::Later) {
            return;
        }
        state.hashing = match hasher {
            None => Hashing::Off,
            Some(mut hasher) => {
                let pieces = waiting.iter().flat_map(|waiting| &waiting.pieces);
                pieces.for_each(|bytes| hasher.update(bytes));
                Hashing::With(Box::new(hasher))
            }
        };
    }

    async fn arrived(&self) -> Result<u64, WriteAnswer> {
        poll_fn(|_| {
            let state = self.state.borrow();
            match &state.answer {
                Some(answer) => Poll::Ready(Err(answer.clone())),
                None if state.is_whole => Poll::Ready(Ok(state.length)),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn take_hasher(&self) -> Option<Hasher> {
        match std::mem::replace(&mut self.state.borrow_mut().hashing, Hashing::Off) {
            Hashing::With(hasher) => Some(*hasher),
            Hashing::Off | Hashing::Later => None,
        }
    }

    fn has_lost_hash(&self) -> bool {
        self.state.borrow().hashed == Hashed::Lost
    }

    async fn complete(&self) -> WriteAnswer {
        self.state.borrow_mut().is_released = true;
        poll_fn(|_| match &self.state.borrow().answer {
            Some(answer) => Poll::Ready(answer.clone()),
            None => Poll::Pending,
        })
        .await
    }
}
