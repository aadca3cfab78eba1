//! A range of bytes, as requests to and from the registry name it (RFC 9110, section 14).

use std::fmt;
use std::ops::Range;

/// One range of bytes of some content, as asked for; whether the content is that long is not known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// From the first of these offsets to the last, both included; to the end where there is no last.
    From(u64, Option<u64>),
    /// The last so many bytes.
    Last(u64),
}

impl ByteRange {
    /// Reads an element of a `Range` header, such as `0-499`, `500-` or `-500`.
    pub fn parse(spec: &str) -> Option<Self> {
        let (first, last) = spec.split_once('-')?;
        match (first, last) {
            ("", last) => Some(Self::Last(parse_decimal(last)?)),
            (first, "") => Some(Self::From(parse_decimal(first)?, None)),
            (first, last) => {
                let (first, last) = (parse_decimal(first)?, parse_decimal(last)?);
                (first <= last).then_some(Self::From(first, Some(last)))
            }
        }
    }

    /// The bytes of content of this length that are meant: offsets, the last one excluded. `None` if it has no such
    /// bytes.
    pub fn within(self, length: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::From(first, last) => {
                first..last.map_or(length, |last| last.saturating_add(1).min(length))
            }
            Self::Last(count) => length.saturating_sub(count)..length,
        };
        (!range.is_empty()).then_some(range)
    }
}

/// As the store is asked for it. No object is so long that it matters, but some stores take an offset beyond a
/// signed number for nonsense, which the client has not deserved.
impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |offset: &u64| (*offset).min(i64::MAX as u64);
        match self {
            Self::From(first, Some(last)) => write!(f, "bytes={}-{}", known(first), known(last)),
            Self::From(first, None) => write!(f, "bytes={}-", known(first)),
            Self::Last(length) => write!(f, "bytes=-{}", known(length)),
        }
    }
}

/// Reads a number of decimal digits alone: the parser of the standard library would take a sign as well.
pub fn parse_decimal(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Reads the `Content-Range` of the part of an object that a store sends (RFC 9110, section 14.4): the offsets, the last
/// one excluded, and the object's length.
pub fn parse_content_range(value: &str) -> Option<(Range<u64>, u64)> {
    let (range, length) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, length) =
        (parse_decimal(first)?, parse_decimal(last)?, parse_decimal(length)?);
    (first <= last && last < length).then(|| (first..last + 1, length))
}

/// The object's length in a `Content-Range` that says that no range of it was satisfiable.
pub fn parse_unsatisfied_range(value: &str) -> Option<u64> {
    parse_decimal(value.strip_prefix("bytes */")?)
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn what_a_store_says_of_its_ranges_is_read() {
        for (value, found) in [
            ("bytes 0-4/5", Some((0..5, 5))),
            ("bytes 1-2/9", Some((1..3, 9))),
            ("bytes 1-9/9", None),
            ("bytes 2-1/9", None),
            ("bytes 1-2/*", None),
            ("bytes */9", None),
            ("bytes 0-18446744073709551615/18446744073709551615", None),
            ("", None),
        ] {
            assert_eq!(parse_content_range(value), found, "{value:?}");
        }
        assert_eq!(parse_unsatisfied_range("bytes */9"), Some(9));
        assert_eq!(parse_unsatisfied_range("bytes 1-2/9"), None);
    }
}
