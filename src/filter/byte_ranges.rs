//! Several parts of a blob, cut out of it on its way to the client.

use super::headers;
use super::host::{Action, Host};
use crate::registry::http::error::{Error, ErrorCode};
use crate::registry::{Cutter, Piece};

/// Makes the client's of the `size` bytes of the store's answer that Envoy holds.
pub fn cut(host: &impl Host, cutter: &mut Cutter, size: usize, end_of_stream: bool) -> Action {
    let pieces = cutter.cut(size);
    if end_of_stream && !cutter.is_done() {
        return give_up(host, "the blob store sent less than it said");
    }
    match pieces.as_slice() {
        [Piece::Bytes(all)] if *all == (0..size) => Action::Continue,
        // Nothing is left to go on with, and an empty piece would be a frame of its own in HTTP/2.
        [] if !end_of_stream => {
            host.replace_response_body(size, b"");
            Action::Pause
        }
        [] => {
            host.replace_response_body(size, b"");
            Action::Continue
        }
        pieces => match join(host, pieces, size) {
            Some(joined) => {
                host.replace_response_body(size, &joined);
                Action::Continue
            }
            None => give_up(host, "Envoy does not show a body"),
        },
    }
}

/// The answer's length is promised already. A response in the middle of it ends the stream, which tells the
/// client that it has not got it whole.
fn give_up(host: &impl Host, message: &str) -> Action {
    log::error!("{message}");
    let response = Error::new(ErrorCode::Unknown, message).into_response();
    headers::send_response(host, &response, false);
    Action::Pause
}

/// The pieces as one, from the `size` bytes that Envoy holds.
fn join(host: &impl Host, pieces: &[Piece], size: usize) -> Option<Vec<u8>> {
    let bytes = host.response_body(size)?;
    let mut joined = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => joined.extend_from_slice(text.as_bytes()),
            Piece::Bytes(range) => joined.extend_from_slice(bytes.get(range.clone())?),
        }
    }
    Some(joined)
}
