//! Keys as `libtrust` writes them as JSON, and the ids that it gives them.

use p256::ecdsa;
use p256::pkcs8::EncodePublicKey;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::registry::jose::{PublicJwk, PublicKey, p256_coordinates};

/// The letters of base32 (RFC 4648, section 6).
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// How many bytes of its hash identify a key.
const ID_BYTES: usize = 30;

/// A P-256 public key as JSON, in the order in which `libtrust` writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct P256Jwk {
    crv: &'static str,
    /// The key's id.
    pub kid: String,
    kty: &'static str,
    /// The coordinates.
    pub x: String,
    /// The same.
    pub y: String,
}

impl P256Jwk {
    /// The JSON form of a key; `None` if it can't be written, as the point at infinity.
    pub fn of(key: &ecdsa::VerifyingKey) -> Option<Self> {
        let (x, y) = p256_coordinates(key)?;
        Some(Self { crv: "P-256", kid: key_id(&p256::PublicKey::from(key))?, kty: "EC", x, y })
    }
}

/// The key, if it is one of those that `libtrust` signs by, and its id is its own.
pub fn read(jwk: &PublicJwk) -> Option<PublicKey> {
    let key = jwk.read()?;
    let id = match &key {
        PublicKey::P256(key) => key_id(&p256::PublicKey::from(key))?,
        PublicKey::Rsa(key) => key_id(key.as_ref())?,
        PublicKey::Ed25519(_) => return None,
    };
    jwk.kid.as_ref().is_none_or(|kid| *kid == id).then_some(key)
}

/// An id in the form of `libtrust`: most of the hash of the key in DER (RFC 5280, section 4.1.2.7).
fn key_id(key: &impl EncodePublicKey) -> Option<String> {
    let der = key.to_public_key_der().ok()?;
    Some(grouped_base32(Sha256::digest(der.as_bytes()).get(..ID_BYTES)?))
}

/// Base32 in groups of four letters. `bytes` are a multiple of five, so that there is no padding.
fn grouped_base32(bytes: &[u8]) -> String {
    let mut text = String::new();
    for five in bytes.chunks(5) {
        let number = five.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        for letter in 0..8 {
            if letter % 4 == 0 && !text.is_empty() {
                text.push(':');
            }
            let index = usize::try_from(number >> (35 - 5 * letter) & 31).unwrap_or_default();
            text.extend(BASE32.get(index).map(|letter| char::from(*letter)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    /// RFC 7515, appendix A.3.
    const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

    #[test]
    fn an_id_is_twelve_groups_of_base32_and_a_key_has_no_other() {
        let mut json = json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y });
        let key = |json: &serde_json::Value| read(&PublicJwk::from_json(json));
        let Some(PublicKey::P256(public)) = key(&json) else {
            panic!("a P-256 key");
        };
        let jwk = P256Jwk::of(&public).expect("a key");
        assert_eq!((jwk.x.as_str(), jwk.y.as_str()), (X, Y));
        let groups: Vec<_> = jwk.kid.split(':').collect();
        assert!(groups.len() == 12 && groups.iter().all(|group| group.len() == 4), "{}", jwk.kid);
        json["kid"] = jwk.kid.into();
        assert!(key(&json).is_some());
        json["kid"] = "AAAA:BBBB".into();
        assert!(key(&json).is_none());
        // From RFC 4648, section 10.
        assert_eq!(grouped_base32(b"foobafooba"), "MZXW:6YTB:MZXW:6YTB");
    }
}
