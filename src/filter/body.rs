//! A request's body, taken from Envoy as it comes.
//!
//! Chunks are kept as they are and joined at the end, once: a buffer that grows would hold the body
//! twice each time it does.

use proxy_wasm::hostcalls;
use proxy_wasm::types::BufferType;

use super::headers::announced_length;
use crate::registry::{Body, Request};

/// Collects a body up to a limit.
pub struct Collector {
    limit: u64,
    /// The length that `Content-Length` announced.
    announced: Option<u64>,
    chunks: Vec<Vec<u8>>,
    length: u64,
}

impl Collector {
    /// Collects the body of `request`, of which at most `limit` bytes are of interest.
    pub fn new(request: &Request, limit: u64) -> Self {
        let announced = announced_length(request);
        Self { limit, announced, chunks: Vec::new(), length: 0 }
    }

    /// Whether the body is, or will be, more than the limit: no more of it is needed.
    pub fn is_full(&self) -> bool {
        self.length.max(self.announced.unwrap_or(0)) > self.limit
    }

    /// Copies the `size` bytes that Envoy holds.
    pub fn take(&mut self, buffer: BufferType, size: usize) {
        self.length += size as u64;
        if size > 0 && !self.is_full() {
            self.chunks.extend(hostcalls::get_buffer(buffer, 0, size).ok().flatten());
        }
    }

    /// The body that came.
    pub fn finish(self) -> Body {
        if self.is_full() {
            Body::TooLarge
        } else if self.announced.is_some_and(|announced| announced > self.length) {
            Body::Short
        } else if self.length == 0 {
            Body::None
        } else {
            Body::Whole(self.chunks.concat().into())
        }
    }
}
