//! The part of requests and replies that is HTTP's, not the API's: negotiation, conditions, ranges, pages of lists and errors.

pub mod accept;
pub mod conditional;
pub mod error;
mod header_fields;
pub mod multipart;
pub mod pagination;
pub mod range;
pub mod reply;

pub use header_fields::HeaderFields;

/// Whether a text has nothing but what a host with a port may have: a name, an address, brackets around one of IPv6.
pub fn is_authority(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
    !text.is_empty() && text.bytes().all(is_allowed)
}

/// The beginning of a text that may be long, of so many bytes at most.
pub fn beginning(text: &str, max_bytes: usize) -> &str {
    // Within the text, and between two characters.
    text.get(..text.floor_char_boundary(max_bytes)).unwrap_or(text)
}
