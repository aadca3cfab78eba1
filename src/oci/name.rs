//! Repository names.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// The longest repository name accepted, in bytes; `distribution`'s own limit.
pub const NAME_MAX_LENGTH: usize = 255;

/// Why a text is no repository name. The texts are what the client is told.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Longer than [`NAME_MAX_LENGTH`].
    #[error("repository name is longer than {NAME_MAX_LENGTH} characters")]
    TooLong,
    /// A path component that the grammar does not allow, an empty one included.
    #[error(
        "repository name must consist of path components of lower-case letters and digits, separated by '.', '_', '__' or dashes"
    )]
    Malformed,
}

/// The name of a repository, such as `library/alpine`.
///
/// The grammar is that of the OCI distribution specification, section "Pulling manifests":
/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > NAME_MAX_LENGTH {
            return Err(NameError::TooLong);
        }
        if !is_name(text.as_bytes()) {
            return Err(NameError::Malformed);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `text` is runs of `[a-z0-9]` joined by separators.
fn is_name(text: &[u8]) -> bool {
    let mut end_of_run = 0;
    for (position, byte) in text.iter().enumerate() {
        if !(byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            continue;
        }
        let follows_another = position == end_of_run;
        if !follows_another && (end_of_run == 0 || !is_separator(&text[end_of_run..position])) {
            return false;
        }
        end_of_run = position + 1;
    }
    end_of_run > 0 && end_of_run == text.len()
}

/// Whether `text` is the slash between components, or one of the separators within them: `.`, `_`, `__`
/// or any number of `-`.
fn is_separator(text: &[u8]) -> bool {
    matches!(text, b"/" | b"." | b"_" | b"__") || text.iter().all(|byte| *byte == b'-')
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn names_follow_the_specification_grammar() {
        let longest = "a".repeat(NAME_MAX_LENGTH);
        for valid in [
            "a",
            "0",
            "a/b",
            "library/alpine",
            "a.b",
            "a_b",
            "a__b",
            "a-b",
            "a---b",
            "a/b-c/d__e.f",
            "_catalog1".trim_start_matches('_'),
            "manifests/blobs",
            &longest,
        ] {
            assert_eq!(valid.parse::<Name>().map(|n| n.to_string()), Ok(valid.to_owned()));
        }
        for malformed in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a.",
            ".a",
            "a..b",
            "a___b",
            "a_-b",
            "a._b",
            "-a",
            "a-",
            "_a",
            "..",
            "a/../b",
            "a/./b",
            "a b",
            "a\0b",
            "ä",
            "a%2fb",
            "a:b",
            "a\\b",
            "a/_manifests",
        ] {
            assert_eq!(malformed.parse::<Name>(), Err(NameError::Malformed), "{malformed:?}");
        }
        assert_eq!("a".repeat(NAME_MAX_LENGTH + 1).parse::<Name>(), Err(NameError::TooLong));
    }
}
