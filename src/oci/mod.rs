//! What the OCI specifications name, and everything else stands on: names, tags, digests, references, media types,
//! manifests, byte ranges and the ids of uploads.
//!
//! Each type is parsed once and is valid from then on. Storage keys are built from these types alone, so what
//! they refuse can never be part of a key. Nothing here knows of a store, of HTTP messages or of Envoy.

mod byte_range;
mod digest;
mod hasher;
pub mod manifest;
mod media_type;
mod name;
mod reference;
mod tag;
mod upload_id;

pub use byte_range::{ByteRange, parse_content_range, parse_decimal, parse_unsatisfied_range};
pub use digest::{Algorithm, Digest, DigestError};
pub use hasher::Hasher;
pub use media_type::{MediaType, UnknownMediaType};
pub use name::{NAME_MAX_LENGTH, Name, NameError};
pub use reference::{Reference, ReferenceError};
pub use tag::{TAG_MAX_LENGTH, Tag, TagError};
pub use upload_id::{UploadId, UploadIdError};
