//! A request's body that the filter takes in itself, as it comes from Envoy.
//!
//! Chunks are kept as they are and joined at the end, once: a buffer that grows would hold the body
//! twice each time it does.

use std::time::Duration;

use bytes::Bytes;

use super::clients::ClientShare;
use super::headers::announced_length;
use super::host::Host;
use crate::registry::{Body, Request};
use crate::store::{Budget, Purpose, Reservation};

/// How much of a body is thrown away where the request takes none, in bytes. Whoever sends more gets the
/// answer before its end.
pub const DISCARDED_MAX: u64 = 64 * 1024;

/// The state of a body after its latest piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collected {
    /// There may be more of it.
    Incomplete,
    /// It is more than is wanted.
    Enough,
    /// There is no memory for more of it.
    NoRoom,
    /// The client has as much under way as it may have.
    TooMuch,
}

/// Takes in a body up to a limit.
pub struct CollectedBody {
    limit: u64,
    /// The length that `Content-Length` announced.
    announced: Option<u64>,
    /// Whether the body is kept.
    is_kept: bool,
    chunks: Vec<Vec<u8>>,
    length: u64,
    room: Option<Reservation>,
    deadline: Duration,
}

impl CollectedBody {
    /// Keeps the body of `request`, of which at most `limit` bytes are of interest, and which has to be there by
    /// `deadline`.
    pub fn keep(request: &Request, limit: u64, budget: &Budget, deadline: Duration) -> Self {
        let room = budget.reserve(Purpose::Bodies, 0);
        Self { is_kept: true, room, ..Self::discard(request, limit, deadline) }
    }

    /// Throws away the body of `request`, which takes none; with more than `limit` bytes it gets the answer before its end.
    pub fn discard(request: &Request, limit: u64, deadline: Duration) -> Self {
        Self {
            limit,
            announced: announced_length(request),
            is_kept: false,
            chunks: Vec::new(),
            length: 0,
            room: None,
            deadline,
        }
    }

    /// Whether the body is, or will be, more than the limit: no more of it is needed.
    pub fn is_full(&self) -> bool {
        self.length.max(self.announced.unwrap_or(0)) > self.limit
    }

    /// Whether the body should have been there by now.
    pub fn is_late(&self, now: Duration) -> bool {
        now >= self.deadline
    }

    /// Takes the `size` bytes that Envoy holds, on the account of `client`.
    pub fn take(
        &mut self,
        host: &impl Host,
        size: usize,
        client: Option<&mut ClientShare>,
    ) -> Collected {
        self.length = self.length.saturating_add(size as u64);
        if self.is_full() {
            return Collected::Enough;
        }
        if self.is_kept && size > 0 {
            if !client.is_none_or(|client| client.hold(size)) {
                return Collected::TooMuch;
            }
            if !self.room.as_mut().is_some_and(|room| room.grow(size)) {
                return Collected::NoRoom;
            }
            self.chunks.extend(host.request_body(size));
        }
        Collected::Incomplete
    }

    /// The body that came.
    pub fn finish(self) -> Body {
        if self.is_full() {
            Body::TooLarge
        } else if self.announced.is_some_and(|announced| announced > self.length) {
            Body::Short
        } else if self.length == 0 {
            Body::None
        } else if !self.is_kept {
            Body::Discarded
        } else {
            let body = Bytes::from(self.chunks.concat());
            Body::Whole(match self.room {
                Some(room) => room.hold(body),
                None => body,
            })
        }
    }
}
