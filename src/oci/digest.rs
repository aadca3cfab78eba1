//! Digests, and the algorithms that they are made by.
//!
//! Source: OCI image specification, "Digests".

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256, Sha512};
use thiserror::Error;

/// The digest algorithms in use: the two that the OCI image specification registers and every
/// client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, the canonical one.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The algorithm's name, as it stands in a digest and in storage keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many hexadecimal digits a digest of this algorithm has.
    pub fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    /// The algorithm of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }
}

/// Why a text is no digest that this registry takes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DigestError {
    /// No `algorithm:hex`.
    #[error("digest must have the form algorithm:hex")]
    Malformed,
    /// An algorithm other than sha256 and sha512.
    #[error("digest algorithm must be sha256 or sha512")]
    UnknownAlgorithm,
    /// Not exactly as many lower-case hexadecimal digits as the algorithm has.
    #[error("a {} digest has exactly {} lower-case hexadecimal digits", .0.as_str(), .0.hex_length())]
    WrongHex(Algorithm),
}

/// The digest of some content, such as `sha256:` and 64 lower-case hexadecimal digits.
///
/// Source: OCI image specification, "Digests".
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    text: Arc<str>,
}

impl Digest {
    /// The digest of `content` under `algorithm`.
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::from_hash(algorithm, &Sha256::digest(content)),
            Algorithm::Sha512 => Self::from_hash(algorithm, &Sha512::digest(content)),
        }
    }

    /// The digest whose hash is this. `hash` has as many bytes as the algorithm's hashes have.
    pub fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Self {
        debug_assert_eq!(hash.len() * 2, algorithm.hex_length());
        Self {
            algorithm,
            text: [algorithm.as_str(), ":", &base16ct::lower::encode_string(hash)].concat().into(),
        }
    }

    /// Whether `content` hashes to this digest.
    pub fn matches(&self, content: &[u8]) -> bool {
        Self::of(self.algorithm, content) == *self
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hexadecimal part.
    pub fn hex(&self) -> &str {
        &self.text[self.algorithm.as_str().len() + 1..]
    }

    /// The hash itself.
    pub fn hash(&self) -> Vec<u8> {
        // Lower-case hexadecimal digits, an even number of them: that is what makes it a digest.
        base16ct::lower::decode_vec(self.hex()).unwrap_or_default()
    }

    /// The whole digest, `algorithm:hex`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (name, hex) = text.split_once(':').ok_or(DigestError::Malformed)?;
        let algorithm = Algorithm::from_name(name).ok_or(DigestError::UnknownAlgorithm)?;
        let is_lower_hex = |b: u8| b.wrapping_sub(b'0') < 10 || b.wrapping_sub(b'a') < 6;
        // Every digit, even after a wrong one: without a branch at each it takes half the time.
        let is_hex = hex.bytes().fold(true, |is_hex, b| is_hex & is_lower_hex(b));
        if hex.len() != algorithm.hex_length() || !is_hex {
            return Err(DigestError::WrongHex(algorithm));
        }
        Ok(Self { algorithm, text: text.into() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn digests_need_a_known_algorithm_and_exact_lower_hex() {
        let sha256 = format!("sha256:{}", "0a".repeat(32));
        let sha512 = format!("sha512:{}", "f9".repeat(64));
        for valid in [&sha256, &sha512] {
            assert_eq!(valid.parse::<Digest>().map(|d| d.to_string()), Ok(valid.clone()));
        }
        for (invalid, error) in [
            ("sha256".to_owned(), DigestError::Malformed),
            (format!("sha384:{}", "0".repeat(96)), DigestError::UnknownAlgorithm),
            (format!("SHA256:{}", "0".repeat(64)), DigestError::UnknownAlgorithm),
            (format!("../x:{}", "0".repeat(64)), DigestError::UnknownAlgorithm),
            ("sha256:".to_owned(), DigestError::WrongHex(Algorithm::Sha256)),
            (format!("sha256:{}", "0".repeat(63)), DigestError::WrongHex(Algorithm::Sha256)),
            (format!("sha256:{}", "0".repeat(65)), DigestError::WrongHex(Algorithm::Sha256)),
            (format!("sha256:{}", "A".repeat(64)), DigestError::WrongHex(Algorithm::Sha256)),
            (format!("sha256:{}", "/".repeat(64)), DigestError::WrongHex(Algorithm::Sha256)),
            (format!("sha512:{}", "0".repeat(64)), DigestError::WrongHex(Algorithm::Sha512)),
        ] {
            assert_eq!(invalid.parse::<Digest>(), Err(error), "{invalid:?}");
        }
    }

    #[test]
    fn digests_of_known_content() {
        // FIPS 180-4's example "abc".
        let sha256 = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let sha512 = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                      2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        for text in [sha256, sha512] {
            let digest: Digest = text.parse().expect("a valid digest");
            assert_eq!(Digest::of(digest.algorithm(), b"abc"), digest);
            assert!(digest.matches(b"abc"));
            assert!(!digest.matches(b"abd"));
        }
    }
}
