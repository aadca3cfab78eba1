//! What becomes of a request's body: whether it is hashed, and what is left of it for Moorage's filter.
//!
//! Not here: how Envoy is asked, which the trait [`Request`] stands for.

use sha2::digest::common::hazmat::SerializableState as _;
use sha2::{Digest as _, Sha256};

/// In filter state for every request with a body: a hasher stands before Moorage's filter. The value is [`VERSION`].
pub const PRESENT: &str = "moorage.native_hash";

/// In filter state once Moorage's filter wants the body hashed. Envoy puts `wasm.` before whatever a WebAssembly
/// module sets, so that nobody else can set it.
pub const WANTED: &str = "wasm.moorage_native_hash";

/// In filter state when the body is whole: the number of its bytes, as eight bytes with the lowest first, and
/// then the state of its hash, as the crate `sha2` writes it down.
pub const RESULT: &str = "moorage.native_hash.result";

/// The algorithm, and the form of what is left: it changes with the major release of `sha2`.
pub const VERSION: &str = "sha256/1";

/// A request, as Envoy shows it.
pub trait Request {
    /// Whether there is something in filter state under that key.
    fn has_state(&self, key: &str) -> bool;

    /// Puts something into filter state, under a key that has nothing yet.
    fn set_state(&self, key: &str, value: &[u8]);

    /// The length of the body that the request announces, in bytes.
    fn announced_length(&self) -> Option<u64>;

    /// Shows the bytes of the body that have just come, in pieces.
    fn each_piece(&self, take: &mut dyn FnMut(&[u8]));
}

/// The body of one request.
#[derive(Debug)]
pub enum BodyHash {
    /// None of its bytes has come. If the request announces how many there are, this is that.
    Untouched(Option<u64>),
    /// It is being hashed.
    Running(Running),
    /// It is not hashed, or no more.
    Over,
}

/// A hash in the making.
#[derive(Debug)]
pub struct Running {
    hasher: Sha256,
    /// How many bytes have been hashed.
    length: u64,
    announced: Option<u64>,
}

impl Default for BodyHash {
    fn default() -> Self {
        Self::Untouched(None)
    }
}

impl BodyHash {
    /// The request begins. Tells Moorage's filter that there is a hasher, if there is something to hash.
    pub fn begin(&mut self, request: &impl Request, end_of_stream: bool) {
        if !end_of_stream {
            // Later the headers are those of a request to the store.
            *self = Self::Untouched(request.announced_length());
            request.set_state(PRESENT, VERSION.as_bytes());
        }
    }

    /// Some of the body has come, before Moorage's filter has seen it.
    pub fn take(&mut self, request: &impl Request, end_of_stream: bool) {
        if let Self::Untouched(_) = self
            && !request.has_state(WANTED)
        {
            let mut is_empty = true;
            request.each_piece(&mut |piece| is_empty &= piece.is_empty());
            if !is_empty {
                *self = Self::Over;
            }
        } else if let Some(running) = self.take_running() {
            *self = running.take(request, end_of_stream);
        }
    }

    /// The body has ended, with trailers.
    pub fn end(&mut self, request: &impl Request) {
        if matches!(self, Self::Untouched(_)) && !request.has_state(WANTED) {
            *self = Self::Over;
        } else if let Some(running) = self.take_running() {
            running.leave(request);
        }
    }

    /// The hash so far, of a body that is wanted. If something goes wrong with it, nothing is left of it.
    fn take_running(&mut self) -> Option<Running> {
        match std::mem::replace(self, Self::Over) {
            Self::Untouched(announced) => {
                Some(Running { hasher: Sha256::new(), length: 0, announced })
            }
            Self::Running(running) => Some(running),
            Self::Over => None,
        }
    }
}

impl Running {
    fn take(mut self, request: &impl Request, end_of_stream: bool) -> BodyHash {
        request.each_piece(&mut |piece| {
            self.hasher.update(piece);
            self.length = self.length.saturating_add(piece.len() as u64);
        });
        // Moorage's filter takes a body for whole as soon as it is as long as announced, which Envoy may show before it says
        // that this was its end.
        if end_of_stream || self.announced.is_some_and(|announced| self.length >= announced) {
            self.leave(request);
            return BodyHash::Over;
        }
        BodyHash::Running(self)
    }

    fn leave(self, request: &impl Request) {
        let mut result = self.length.to_le_bytes().to_vec();
        result.extend_from_slice(&self.hasher.serialize());
        request.set_state(RESULT, &result);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashMap;

    use sha2::digest::common::hazmat::SerializedState;

    use super::*;

    #[derive(Default)]
    struct Scripted {
        announced: Option<u64>,
        received: RefCell<Vec<&'static [u8]>>,
        state: RefCell<HashMap<String, Vec<u8>>>,
    }

    impl Request for Scripted {
        fn has_state(&self, key: &str) -> bool {
            self.state.borrow().contains_key(key)
        }

        fn set_state(&self, key: &str, value: &[u8]) {
            let before = self.state.borrow_mut().insert(key.to_owned(), value.to_vec());
            assert!(before.is_none(), "Envoy takes each key once");
        }

        fn announced_length(&self) -> Option<u64> {
            self.announced
        }

        fn each_piece(&self, take: &mut dyn FnMut(&[u8])) {
            self.received.borrow().iter().for_each(|piece| take(piece));
        }
    }

    impl Scripted {
        fn want(&self) {
            self.set_state(WANTED, b"1");
        }

        /// Envoy calls back with these pieces.
        fn receive(&self, body: &mut BodyHash, pieces: &[&'static [u8]], end_of_stream: bool) {
            *self.received.borrow_mut() = pieces.to_vec();
            body.take(self, end_of_stream);
        }

        /// The number of bytes and their digest, if they have been left.
        fn result(&self) -> Option<(u64, Vec<u8>)> {
            let state = self.state.borrow();
            let (length, state) = state.get(RESULT)?.split_first_chunk()?;
            let state = SerializedState::<Sha256>::try_from(state).ok()?;
            let hasher = Sha256::deserialize(&state).ok()?;
            Some((u64::from_le_bytes(*length), hasher.finalize().to_vec()))
        }
    }

    fn of(content: &[u8]) -> Option<(u64, Vec<u8>)> {
        Some((content.len() as u64, Sha256::digest(content).to_vec()))
    }

    fn begun(announced: Option<u64>) -> (Scripted, BodyHash) {
        let request = Scripted { announced, ..Scripted::default() };
        let mut body = BodyHash::default();
        body.begin(&request, false);
        (request, body)
    }

    #[test]
    fn a_body_that_is_wanted_leaves_its_hash_when_it_is_whole_and_not_before() {
        // Whole by its announced length, by its last piece, by an end without one.
        for (announced, last, ending) in [
            (Some(5), false, None),
            (None, true, None),
            (None, false, Some(true)),
            (Some(9), true, None),
        ] {
            let (request, mut body) = begun(announced);
            request.want();
            request.receive(&mut body, &[], false);
            request.receive(&mut body, &[b"a", b"", b"bc"], false);
            assert_eq!(request.result(), None);
            request.receive(&mut body, &[b"de"], last);
            if let Some(end_of_stream) = ending {
                assert_eq!(request.result(), None);
                request.receive(&mut body, &[], end_of_stream);
            }
            assert_eq!(request.result(), of(b"abcde"));
            // Envoy tells the end again, and nothing is left twice.
            request.receive(&mut body, &[], true);
            body.end(&request);
        }
    }

    #[test]
    fn trailers_end_a_body_also_one_that_has_no_bytes() {
        for content in [&b"abc"[..], b""] {
            let (request, mut body) = begun(None);
            request.want();
            if !content.is_empty() {
                request.receive(&mut body, &[content], false);
            }
            body.end(&request);
            assert_eq!(request.result(), of(content));
        }
    }

    #[test]
    fn a_body_that_nobody_wants_leaves_nothing_even_if_it_is_wanted_later() {
        let (request, mut body) = begun(None);
        request.receive(&mut body, &[b"abc"], false);
        request.want();
        request.receive(&mut body, &[b"de"], true);
        body.end(&request);
        assert_eq!(request.result(), None);
        let (request, mut body) = begun(None);
        body.end(&request);
        assert_eq!(request.result(), None);
    }

    #[test]
    fn a_body_may_be_wanted_after_pieces_without_bytes() {
        let (request, mut body) = begun(None);
        request.receive(&mut body, &[b""], false);
        request.want();
        request.receive(&mut body, &[b"abc"], true);
        assert_eq!(request.result(), of(b"abc"));
    }

    #[test]
    fn a_request_without_a_body_gets_nothing() {
        let request = Scripted::default();
        BodyHash::default().begin(&request, true);
        assert!(request.state.borrow().is_empty());
    }
}
