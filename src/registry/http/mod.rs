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
