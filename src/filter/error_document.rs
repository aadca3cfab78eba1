//! An error document of the store, which stands where its answer to a routed request should.

use http::StatusCode;

use super::host::Host;

/// How much of a document is read, in bytes. They are a few hundred.
const LIMIT: usize = 4 * 1024;

/// A document that arrives, with the status that it came with.
pub struct ErrorDocument {
    /// The status.
    pub status: StatusCode,
    /// The bytes that have come.
    pub bytes: Vec<u8>,
}

impl ErrorDocument {
    /// A document of which nothing has come yet.
    pub fn new(status: StatusCode) -> Self {
        Self { status, bytes: Vec::new() }
    }

    /// Takes the `size` bytes of the response that Envoy holds: none of it is for the client.
    pub fn take(&mut self, host: &impl Host, size: usize) {
        let room = LIMIT.saturating_sub(self.bytes.len());
        let read = host.response_body(size.min(room));
        self.bytes.extend(read.unwrap_or_default());
        host.replace_response_body(size, b"");
    }
}
