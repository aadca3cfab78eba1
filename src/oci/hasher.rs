//! Hashing content that comes in pieces, perhaps through several proxies one after the other.
//!
//! The state of a hash can be written down and taken up again elsewhere, so that an upload
//! in chunks is hashed as it passes, whichever proxies it passes through.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest as _, Sha256, Sha512};

use super::{Algorithm, Digest};

/// The digest of some content in the making.
#[derive(Debug, Clone)]
pub enum Hasher {
    /// By SHA-256.
    Sha256(Sha256),
    /// By SHA-512.
    Sha512(Sha512),
}

impl Hasher {
    /// Nothing has been hashed yet.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// Takes up SHA-256 from a state of the crate `sha2`; `None` if it is none.
    pub fn from_sha256_state(state: &[u8]) -> Option<Self> {
        take_up(state).map(Self::Sha256)
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Hashes the next piece of the content.
    pub fn update(&mut self, piece: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(piece),
            Self::Sha512(hasher) => hasher.update(piece),
        }
    }

    /// The digest of all pieces.
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::from_hash(Algorithm::Sha256, &hasher.finalize()),
            Self::Sha512(hasher) => Digest::from_hash(Algorithm::Sha512, &hasher.finalize()),
        }
    }
}

/// How a hasher is written down. The state is the crate `sha2`'s own form of it, which its
/// documentation keeps stable within a major release.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    algorithm: String,
    state: String,
}

impl Serialize for Hasher {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let state = match self {
            Self::Sha256(hasher) => STANDARD.encode(hasher.serialize()),
            Self::Sha512(hasher) => STANDARD.encode(hasher.serialize()),
        };
        let algorithm = self.algorithm().as_str().to_owned();
        Written { algorithm, state }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Hasher {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let state = STANDARD.decode(&written.state).map_err(serde::de::Error::custom)?;
        let hasher = match written.algorithm.as_str() {
            "sha256" => take_up(&state).map(Self::Sha256),
            "sha512" => take_up(&state).map(Self::Sha512),
            _ => None,
        };
        hasher.ok_or_else(|| serde::de::Error::custom("it is no state of a hash"))
    }
}

fn take_up<H: SerializableState>(state: &[u8]) -> Option<H> {
    H::deserialize(&SerializedState::<H>::try_from(state).ok()?).ok()
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_hash_is_taken_up_where_it_was_left() {
        // Lengths around the blocks of both algorithms.
        let content: Vec<u8> = (0..=255).cycle().take(300).collect();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for split in [0, 1, 63, 64, 65, 127, 128, 129, 300] {
                let mut hasher = Hasher::new(algorithm);
                hasher.update(&content[..split]);
                let written = serde_json::to_string(&hasher).expect("JSON");
                let mut hasher: Hasher = serde_json::from_str(&written).expect("a hasher");
                hasher.update(&content[split..]);
                assert_eq!(hasher.finish(), Digest::of(algorithm, &content), "{split}");
            }
        }
    }

    #[test]
    fn what_is_no_state_is_refused() {
        for text in [
            r#"{"algorithm":"sha256","state":""}"#,
            r#"{"algorithm":"sha256","state":"?"}"#,
            r#"{"algorithm":"md5","state":"AAAA"}"#,
            r#"{"algorithm":"sha256"}"#,
            "[]",
        ] {
            assert!(serde_json::from_str::<Hasher>(text).is_err(), "{text}");
        }
    }
}
