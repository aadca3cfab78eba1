//! Patterns of names: `*` stands for any characters within a component, `**` for any characters at all.
//!
//! It is written here because the libraries for globs are for paths of files: they know more signs than these, each a
//! surprise in a rule about who may do what, and are larger than all of this registry's access control.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A pattern of names whose components are separated by slashes.
#[derive(Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// Any characters but slashes, or none.
    WithinComponent,
    /// Any characters, or none.
    AcrossComponents,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GlobError {
    /// It is empty, and so would match nothing.
    #[error("is empty")]
    Empty,
    /// It is very long.
    #[error("has more than {MAX_LENGTH} characters")]
    TooLong,
    /// Nobody can tell what three stars mean.
    #[error("has three stars in a row: `*` stands for any characters but slashes, `**` for any")]
    Stars,
}

/// The longest pattern, in bytes.
const MAX_LENGTH: usize = 1024;

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        if text.is_empty() {
            return Err(GlobError::Empty);
        }
        if text.len() > MAX_LENGTH {
            return Err(GlobError::TooLong);
        }
        if text.contains("***") {
            return Err(GlobError::Stars);
        }
        let mut parts = Vec::new();
        for (number, across) in text.split("**").enumerate() {
            if number > 0 {
                parts.push(Part::AcrossComponents);
            }
            for (number, literal) in across.split('*').enumerate() {
                if number > 0 {
                    parts.push(Part::WithinComponent);
                }
                if !literal.is_empty() {
                    parts.push(Part::Text(literal.to_owned()));
                }
            }
        }
        Ok(Self { text: text.to_owned(), parts })
    }
}

impl Glob {
    /// Whether the pattern is for this name.
    pub fn matches(&self, name: &str) -> bool {
        match self.parts.as_slice() {
            [Part::AcrossComponents] => true,
            [Part::Text(text)] => text == name,
            [Part::Text(text), Part::AcrossComponents] => name.starts_with(text.as_str()),
            parts => matches(parts, name.as_bytes()),
        }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Looks at each part once, and keeps at how many places of the name what comes before it can end: so no pattern takes
/// more time than its length times that of the name.
fn matches(parts: &[Part], name: &[u8]) -> bool {
    // `ends[n]` is whether the parts so far match the first `n` bytes.
    let mut ends = vec![false; name.len() + 1];
    if let Some(start) = ends.first_mut() {
        *start = true;
    }
    for part in parts {
        ends = match part {
            Part::Text(text) => after_text(&ends, text.as_bytes(), name),
            Part::WithinComponent => after_star(&ends, name, |byte| byte != b'/'),
            Part::AcrossComponents => after_star(&ends, name, |_| true),
        };
    }
    ends.last() == Some(&true)
}

fn after_text(ends: &[bool], text: &[u8], name: &[u8]) -> Vec<bool> {
    let mut after = vec![false; ends.len()];
    for (start, _) in ends.iter().enumerate().filter(|(_, is_end)| **is_end) {
        let is_here = name.get(start..).is_some_and(|rest| rest.starts_with(text));
        if is_here && let Some(end) = after.get_mut(start + text.len()) {
            *end = true;
        }
    }
    after
}

fn after_star(ends: &[bool], name: &[u8], may_pass: impl Fn(u8) -> bool) -> Vec<bool> {
    let mut reached = false;
    let bytes = std::iter::once(None).chain(name.iter().map(Some));
    let step = |(byte, is_end): (Option<&u8>, &bool)| {
        reached = *is_end || reached && byte.is_none_or(|byte| may_pass(*byte));
        reached
    };
    bytes.zip(ends).map(step).collect()
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn glob(text: &str) -> Glob {
        text.parse().expect("a pattern")
    }

    #[test]
    fn a_star_stays_within_a_component_and_two_do_not() {
        for (pattern, matching, others) in [
            ("a", &["a"][..], &["", "b", "aa", "a/b"][..]),
            ("**", &["", "a", "a/b/c"], &[]),
            ("*", &["", "a"], &["a/b", "/"]),
            (
                "public/**",
                &["public/a", "public/a/b", "public/"],
                &["public", "publica/b", "x/public/a"],
            ),
            ("public/*", &["public/a", "public/"], &["public/a/b", "public"]),
            ("a*/b", &["a/b", "ab/b"], &["a/c/b", "a/", "b/b"]),
            ("*-ci", &["-ci", "x-ci", "x-ci-ci"], &["x-cd", "x/y-ci"]),
            ("**/ci", &["a/ci", "a/b/ci", "/ci"], &["ci", "a/cix"]),
            ("a**b", &["ab", "axb", "a/x/b", "abb"], &["a", "b", "abc"]),
            ("a*b*c", &["abc", "axbxc", "abbcc"], &["a/bc", "ab", "acb"]),
            ("team-*/**/dev", &["team-a/x/dev", "team-a/x/y/dev"], &["team-a/dev", "team/x/dev"]),
        ] {
            let pattern = glob(pattern);
            for name in matching {
                assert!(pattern.matches(name), "{pattern} is for {name:?}");
            }
            for name in others {
                assert!(!pattern.matches(name), "{pattern} is not for {name:?}");
            }
        }
    }

    #[test]
    fn what_can_not_be_meant_is_no_pattern() {
        for (text, error) in [
            ("", GlobError::Empty),
            ("a/***", GlobError::Stars),
            (&"a".repeat(MAX_LENGTH + 1), GlobError::TooLong),
        ] {
            assert_eq!(text.parse::<Glob>(), Err(error));
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        let pattern = glob(&"*a".repeat(MAX_LENGTH / 2));
        assert!(!pattern.matches(&"a".repeat(255)));
        let pattern = glob(&"**a*a".repeat(MAX_LENGTH / 5));
        assert!(!pattern.matches(&"a/".repeat(127)));
    }
}
