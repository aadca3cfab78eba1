//! Cursors into a list: the name that the next page begins after, which its reader may not be allowed to see. So it is
//! encrypted, and can be given to the client and come back.
//!
//! All Envoys of a fleet have the same key, so each can open the cursors of another.

use base64::Engine as _;
use chacha20poly1305::aead::AeadInOut as _;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _};

use crate::oci::NAME_MAX_LENGTH;
use crate::registry::Nonce;
use crate::registry::jose::{BASE64, PrivateKey, decode};

/// What an encrypted cursor begins with: no name of a repository does.
const MARK: char = '~';

/// The length of a nonce, in bytes.
const NONCE_BYTES: usize = 12;

/// What stands after a name that is shorter than others: no name has it.
const PADDING: u8 = 0;

/// What encrypts and decrypts cursors.
pub struct Cursors(ChaCha20Poly1305);

impl std::fmt::Debug for Cursors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cursors")
    }
}

/// Whether a cursor is encrypted, and not a name.
pub fn is_encrypted(cursor: &str) -> bool {
    cursor.starts_with(MARK)
}

impl Cursors {
    /// By a key that follows from the one that signs tokens.
    pub fn new(key: &PrivateKey) -> Self {
        Self(ChaCha20Poly1305::new(&key.derive(b"moorage: cursors into lists").into()))
    }

    /// The cursor for a name; empty, which is the beginning of the list, if that is impossible, which nothing is known for.
    pub fn encrypt(&self, name: &str, nonce: Nonce) -> String {
        let [.., nonce] = nonce.0.as_chunks::<NONCE_BYTES>().0 else {
            return String::new();
        };
        let mut bytes = name.as_bytes().to_vec();
        // Or its length would be seen.
        bytes.resize(bytes.len().max(NAME_MAX_LENGTH), PADDING);
        if self.0.encrypt_in_place(&(*nonce).into(), b"", &mut bytes).is_err() {
            return String::new();
        }
        format!("{MARK}{}", BASE64.encode([nonce.as_slice(), &bytes].concat()))
    }

    /// The name of a cursor; `None` if no registry with this key has encrypted it.
    pub fn decrypt(&self, cursor: &str) -> Option<String> {
        let bytes = decode(cursor.strip_prefix(MARK)?)?;
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
    fn a_name_comes_back_and_shows_nothing_meanwhile() {
        let cursors = Cursors::new(&key());
        let cursor = cursors.encrypt("hidden/team", Nonce([7; 32]));
        assert!(is_encrypted(&cursor) && !cursor.contains("hidden"));
        assert_eq!(cursors.decrypt(&cursor).as_deref(), Some("hidden/team"));
        assert_ne!(cursor, cursors.encrypt("hidden/team", Nonce([8; 32])));
        let other = Cursors(ChaCha20Poly1305::new(&[1; 32].into()));
        assert_eq!(other.decrypt(&cursor), None);
        for end in 0..cursor.len() {
            assert_eq!(cursors.decrypt(&cursor[..end]), None, "{end}");
        }
    }
}
