//! A private key, to sign with.
//!
//! Nothing here ever shows it: not an error, not `Debug`. What can be seen of it is its id.

use std::fmt;

use base64::Engine as _;
use p256::SecretKey;
use p256::ecdsa::{self, signature::Signer as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::public_key::{P256_BYTES, p256_key};
use super::{BASE64, PublicKey, decode, p256_coordinates};

/// What a PEM file of OpenSSL may have in front of the key is its curve.
const SEC1_BEGIN: &str = "-----BEGIN EC PRIVATE KEY-----";

/// Why a configured key is refused. No text of it says anything about the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Neither JSON nor text.
    #[error("must be a P-256 private key, as a JWK's JSON object or as PEM text")]
    Form,
    /// JSON that is no such key.
    #[error("is no P-256 private JWK: it needs kty EC, crv P-256, and x, y and d in base64url")]
    Jwk,
    /// Members of the JSON that contradict each other.
    #[error("is a JWK whose x and y, or the kid that it must have, do not belong to its d")]
    Mismatch,
    /// Text that is no such key.
    #[error("is no P-256 private key in PEM: PRIVATE KEY or EC PRIVATE KEY, not encrypted")]
    Pem,
}

/// A P-256 private key.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey {
    key: ecdsa::SigningKey,
    id: String,
}

impl PrivateKey {
    /// Reads a key: the object of a JWK (RFC 7517), or the text of a PEM file with PKCS #8 or SEC 1.
    pub fn read(value: &Value) -> Result<Self, KeyError> {
        match value {
            Value::Object(_) => Self::from_jwk(value),
            Value::String(text) => Self::from_pem(text),
            _ => Err(KeyError::Form),
        }
    }

    fn from_jwk(jwk: &Value) -> Result<Self, KeyError> {
        let member = |name: &str| jwk.get(name).and_then(Value::as_str);
        if member("kty") != Some("EC") || member("crv") != Some("P-256") {
            return Err(KeyError::Jwk);
        }
        let number = |name: &str| {
            let number = member(name).and_then(decode).ok_or(KeyError::Jwk)?;
            if number.len() == P256_BYTES { Ok(number) } else { Err(KeyError::Jwk) }
        };
        let (x, y, d) = (number("x")?, number("y")?, number("d")?);
        let key = ecdsa::SigningKey::from_slice(&d).map_err(|_| KeyError::Jwk)?;
        let mut key = Self::new(key).ok_or(KeyError::Jwk)?;
        if p256_key(&x, &y).as_ref() != Some(key.key.verifying_key()) {
            return Err(KeyError::Mismatch);
        }
        match jwk.get("kid") {
            None => {}
            Some(Value::String(id)) => key.id.clone_from(id),
            Some(_) => return Err(KeyError::Jwk),
        }
        Ok(key)
    }

    fn from_pem(text: &str) -> Result<Self, KeyError> {
        let start = text.find(SEC1_BEGIN).unwrap_or_default();
        let pem = text.get(start..).unwrap_or_default();
        let secret = SecretKey::from_pem(pem).map_err(|_| KeyError::Pem)?;
        Self::new(ecdsa::SigningKey::from(&secret)).ok_or(KeyError::Pem)
    }

    fn new(key: ecdsa::SigningKey) -> Option<Self> {
        let id = thumbprint(key.verifying_key())?;
        Some(Self { key, id })
    }

    /// The key's id: the `kid` of its JWK, or where there is none its thumbprint (RFC 7638).
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The public half.
    pub fn public(&self) -> &ecdsa::VerifyingKey {
        self.key.verifying_key()
    }

    /// The public half, to verify by.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::P256(*self.public())
    }

    /// A secret that follows from the key and this label, and tells nothing of either.
    pub fn derive(&self, label: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(label).chain_update(self.key.to_bytes()).finalize().into()
    }

    /// Signs by ES256 (RFC 7518, section 3.4). The signature is deterministic (RFC 6979): the same
    /// content always has the same one, and no random source is needed.
    ///
    /// `None` if that is impossible, which no content is known for.
    pub fn sign(&self, content: &[u8]) -> Option<Vec<u8>> {
        let signature: ecdsa::Signature = self.key.try_sign(content).ok()?;
        Some(signature.to_bytes().to_vec())
    }
}

/// What identifies a key by its numbers alone (RFC 7638).
fn thumbprint(key: &ecdsa::VerifyingKey) -> Option<String> {
    let (x, y) = p256_coordinates(key)?;
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    Some(BASE64.encode(Sha256::digest(members)))
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PrivateKey").field(&self.id()).finish()
    }
}

#[cfg(test)]
pub mod tests {
    use serde_json::json;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    /// RFC 6979, appendix A.2.5: a key, and its signature of "sample".
    const D: &str = "ya-p2EW6dRZrXCFXZ7HWk05Qw9s26JsSe4piKxIPZyE";

    /// The key of RFC 6979, appendix A.2.5, as a JWK.
    pub fn jwk() -> Value {
        json!({
            "kty": "EC",
            "crv": "P-256",
            "x": "YP7UuiVanTHJYet0xjVtaMBJuJI7Yfps5mliLmDyn7Y",
            "y": "eQP-EAi4vJmkGunpVii8ZPLxsgwtfp9Rd6PClNRGIpk",
            "d": D,
        })
    }

    /// The same key.
    pub fn key() -> PrivateKey {
        PrivateKey::read(&jwk()).expect("a key")
    }

    #[test]
    fn signatures_are_those_of_rfc_6979() {
        let expected = "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716\
                        f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";
        let signature = key().sign(b"sample").expect("a signature");
        let hex = base16ct::lower::encode_string(&signature);
        assert_eq!(hex, expected);
    }

    /// What OpenSSL 3 makes of the key.
    const SEC1: &str = include_str!("testdata/sec1.pem");
    const PKCS8: &str = include_str!("testdata/pkcs8.pem");

    #[test]
    fn a_key_is_read_from_json_and_pem() {
        let mut with_id = jwk();
        with_id["kid"] = "mine".into();
        assert_eq!(PrivateKey::read(&with_id).expect("a key").id(), "mine");
        with_id["kid"] = key().id().into();
        with_id["use"] = "sig".into();
        let crlf = SEC1.replace('\n', "\r\n");
        let parameters =
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        for value in
            [with_id, json!(SEC1), json!(PKCS8), json!(crlf), json!(format!("{parameters}{SEC1}"))]
        {
            assert_eq!(PrivateKey::read(&value), Ok(key()));
        }
    }

    #[test]
    fn a_wrong_key_is_refused_and_never_shown() {
        let with = |member: &str, value: Value| {
            let mut json = jwk();
            json[member] = value;
            json
        };
        let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE";
        for (value, error) in [
            (json!(null), KeyError::Form),
            (json!(5), KeyError::Form),
            (json!([D]), KeyError::Form),
            (json!({}), KeyError::Jwk),
            (with("kty", json!("oct")), KeyError::Jwk),
            (with("crv", json!("P-384")), KeyError::Jwk),
            (with("d", json!("")), KeyError::Jwk),
            (with("d", json!(format!("{D}{D}"))), KeyError::Jwk),
            (with("d", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")), KeyError::Jwk),
            (with("d", json!("_____________________________________________")), KeyError::Jwk),
            (with("d", json!(other)), KeyError::Mismatch),
            (with("x", json!(other)), KeyError::Mismatch),
            (with("kid", json!(5)), KeyError::Jwk),
            (json!(""), KeyError::Pem),
            (json!(D), KeyError::Pem),
            (json!(SEC1.replace("EC ", "RSA ")), KeyError::Pem),
            (json!(SEC1.replace("BEGIN", "END")), KeyError::Pem),
            (json!(SEC1.get(..120)), KeyError::Pem),
        ] {
            assert_eq!(PrivateKey::read(&value), Err(error), "{value}");
            let told = error.to_string();
            assert!(!told.contains(&D[..8]) && !told.contains("BEGIN"), "{told}");
        }
        let shown = format!("{:?}", key());
        assert_eq!(shown, format!("PrivateKey({:?})", key().id()));
        // RFC 7638 has no key of this kind; so says `step crypto jwk thumbprint`.
        assert_eq!(key().id().len(), 43);
    }
}
