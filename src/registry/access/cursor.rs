//! A place in a list that its reader may not see: sealed, so that it can be given to the client and come back.
//!
//! All Envoys of a fleet have the same key, so each can open what another has sealed.

use base64::Engine as _;
use chacha20poly1305::aead::AeadInOut as _;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _};

use crate::oci::NAME_MAX_LENGTH;
use crate::registry::Nonce;
use crate::registry::jose::{BASE64, PrivateKey, decode};

/// What a sealed place begins with: no name of a repository does.
const MARK: char = '~';

/// The length of a nonce, in bytes.
const NONCE_BYTES: usize = 12;

/// What stands after a place that is shorter than others: no name has it.
const PADDING: u8 = 0;

/// What seals and opens places.
pub struct Places(ChaCha20Poly1305);

impl std::fmt::Debug for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Places")
    }
}

/// Whether a place is sealed.
pub fn is_sealed(place: &str) -> bool {
    place.starts_with(MARK)
}

impl Places {
    /// By a key that follows from the one that signs tokens.
    pub fn new(key: &PrivateKey) -> Self {
        Self(ChaCha20Poly1305::new(&key.derive(b"moorage: places in lists").into()))
    }

    /// Seals a place; empty, which is the beginning of the list, if that is impossible, which nothing is known for.
    pub fn seal(&self, place: &str, nonce: Nonce) -> String {
        let [.., nonce] = nonce.0.as_chunks::<NONCE_BYTES>().0 else {
            return String::new();
        };
        let mut bytes = place.as_bytes().to_vec();
        // Or its length would be seen.
        bytes.resize(bytes.len().max(NAME_MAX_LENGTH), PADDING);
        if self.0.encrypt_in_place(&(*nonce).into(), b"", &mut bytes).is_err() {
            return String::new();
        }
        format!("{MARK}{}", BASE64.encode([nonce.as_slice(), &bytes].concat()))
    }

    /// Opens a sealed place; `None` if no registry with this key has sealed it.
    pub fn open(&self, sealed: &str) -> Option<String> {
        let bytes = decode(sealed.strip_prefix(MARK)?)?;
        let (nonce, bytes) = bytes.split_first_chunk::<NONCE_BYTES>()?;
        let mut bytes = bytes.to_vec();
        self.0.decrypt_in_place(&(*nonce).into(), b"", &mut bytes).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        Some(text.trim_end_matches(char::from(PADDING)).to_owned())
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::registry::jose::private_key_tests::key;

    #[test]
    fn a_place_comes_back_and_shows_nothing_meanwhile() {
        let places = Places::new(&key());
        let sealed = places.seal("hidden/team", Nonce([7; 32]));
        assert!(is_sealed(&sealed) && !sealed.contains("hidden"));
        assert_eq!(places.open(&sealed).as_deref(), Some("hidden/team"));
        assert_ne!(sealed, places.seal("hidden/team", Nonce([8; 32])));
        let other = Places(ChaCha20Poly1305::new(&[1; 32].into()));
        assert_eq!(other.open(&sealed), None);
        for end in 0..sealed.len() {
            assert_eq!(places.open(&sealed[..end]), None, "{end}");
        }
    }
}
