//! Tags.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// The longest tag the specification allows, in bytes.
pub const TAG_MAX_LENGTH: usize = 128;

/// The text is no tag: the specification allows `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "tag must be at most {TAG_MAX_LENGTH} letters, digits, '_', '.' and '-', and begin with a letter, a digit or '_'"
)]
pub struct TagError;

/// A tag: a name within a repository that points at a manifest and can be moved.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let valid = text.len() <= TAG_MAX_LENGTH
            && text.bytes().next().is_some_and(is_word)
            && text.bytes().all(|b| is_word(b) || b == b'.' || b == b'-');
        if valid { Ok(Self(text.into())) } else { Err(TagError) }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn tags_follow_the_specification_grammar() {
        let longest = "t".repeat(TAG_MAX_LENGTH);
        for valid in ["latest", "_", "1", "v1.2.3-rc.1", "A_b-C.d", "a..b", &longest] {
            assert_eq!(valid.parse::<Tag>().map(|t| t.to_string()), Ok(valid.to_owned()));
        }
        let too_long = "t".repeat(TAG_MAX_LENGTH + 1);
        for invalid in
            ["", ".", "..", ".a", "-a", "a/b", "a b", "a\0", "ä", "a+b", "a%20", &too_long]
        {
            assert_eq!(invalid.parse::<Tag>(), Err(TagError), "{invalid:?}");
        }
    }
}
