//! The key that converted manifests are signed with: a P-256 key under the id that `libtrust` gives it.

use serde_json::Value;

use super::libtrust::P256Jwk;
use crate::registry::jose::{KeyError, PrivateKey};

/// A key with its public half as `libtrust` writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKey {
    key: PrivateKey,
    public: P256Jwk,
}

impl SigningKey {
    /// Reads a key as [`PrivateKey::read`] does. If a JWK has a `kid`, it must be the one that `libtrust` would give
    /// it: clients compute it themselves.
    pub fn read(value: &Value) -> Result<Self, KeyError> {
        let key = PrivateKey::read(value)?;
        let public = P256Jwk::of(key.public()).ok_or(KeyError::Jwk)?;
        if value.get("kid").is_some_and(|kid| kid.as_str() != Some(&public.kid)) {
            return Err(KeyError::Mismatch);
        }
        Ok(Self { key, public })
    }

    /// The key's id.
    pub fn id(&self) -> &str {
        &self.public.kid
    }

    /// The public half.
    pub fn public(&self) -> &P256Jwk {
        &self.public
    }

    /// Signs as [`PrivateKey::sign`] does.
    pub fn sign(&self, content: &[u8]) -> Option<Vec<u8>> {
        self.key.sign(content)
    }
}

#[cfg(test)]
pub mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::registry::jose::private_key_tests::jwk;

    /// The key of RFC 6979, appendix A.2.5.
    pub fn key() -> SigningKey {
        SigningKey::read(&jwk()).expect("a key")
    }

    #[test]
    fn a_key_has_the_id_of_libtrust_and_no_other() {
        let id = "LJ5H:RTFE:UD2C:BWN4:MK5W:NHB4:E5M6:HH3S:HU5O:CDOL:4DYI:CWQH";
        assert_eq!(key().id(), id);
        let mut with_id = jwk();
        with_id["kid"] = id.into();
        assert_eq!(SigningKey::read(&with_id).expect("a key").id(), id);
        with_id["kid"] = "mine".into();
        assert_eq!(SigningKey::read(&with_id), Err(KeyError::Mismatch));
    }
}
