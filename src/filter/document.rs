//! An error document of the store, which stands where its answer to a routed request should.

use http::StatusCode;
use proxy_wasm::hostcalls;
use proxy_wasm::types::BufferType;

use super::replace_buffer;

/// How much of a document is read, in bytes. They are a few hundred.
const LIMIT: usize = 4 * 1024;

/// A document that arrives, with the status that it came with.
pub struct Document {
    /// The status.
    pub status: StatusCode,
    /// What has come of it.
    pub bytes: Vec<u8>,
}

impl Document {
    /// A document of which nothing has come yet.
    pub fn new(status: StatusCode) -> Self {
        Self { status, bytes: Vec::new() }
    }

    /// Takes the `size` bytes of the response that Envoy holds: none of it is for the client.
    pub fn take(&mut self, size: usize) {
        let room = LIMIT.saturating_sub(self.bytes.len());
        let read = hostcalls::get_buffer(BufferType::HttpResponseBody, 0, size.min(room));
        self.bytes.extend(read.ok().flatten().unwrap_or_default());
        replace_buffer(BufferType::HttpResponseBody, size, b"");
    }
}
