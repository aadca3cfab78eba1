//! References: a tag or a digest, by which a manifest is asked for.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::{Digest, DigestError, Tag, TagError};

/// Why a text refers to no manifest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReferenceError {
    /// It has a colon, so it must be a digest, but the digest is malformed.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// It has no colon, so it must be a tag, but the tag is malformed.
    #[error(transparent)]
    Tag(#[from] TagError),
}

/// A reference to a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// By tag: whatever it points at now.
    Tag(Tag),
    /// By digest: that very content.
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        // A tag has no colon and a digest has one: which error to give is never in doubt.
        if text.contains(':') {
            Ok(Self::Digest(text.parse()?))
        } else {
            Ok(Self::Tag(text.parse()?))
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_colon_makes_a_reference_a_digest() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(matches!("latest".parse(), Ok(Reference::Tag(_))));
        assert!(matches!(digest.parse(), Ok(Reference::Digest(_))));
        assert!(matches!("sha256:0".parse::<Reference>(), Err(ReferenceError::Digest(_))));
        assert!(matches!("..".parse::<Reference>(), Err(ReferenceError::Tag(_))));
    }
}
