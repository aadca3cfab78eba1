//! Keys as JSON or PEM, and signatures by them, as JSON object signing has them (RFC 7515, 7517 and 7518): what the
//! tokens of callers and the manifests of schema 1 have in common. What is signed is theirs.

mod private_key;
mod public_key;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

#[cfg(test)]
pub use private_key::tests as private_key_tests;
pub use private_key::{KeyError, PrivateKey};
pub use public_key::{PublicJwk, PublicKey, p256_coordinates};

/// Base64 as JWS has it (RFC 7515, section 2): URL-safe, written without padding, read with or without.
pub const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes base64 as JWS has it; `None` for what is none.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}
