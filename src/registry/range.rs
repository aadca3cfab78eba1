//! Range requests (RFC 9110, section 14).
//!
//! One range of bytes is passed on to the store. Everything else (several ranges, other units, what
//! is malformed) is ignored, which the RFC allows and stores would answer in different ways.

use std::fmt;

/// One range of bytes of some content, as asked for; whether the content is that long is not known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// From the first of these offsets to the last, both included; to the end where there is no last.
    From(u64, Option<u64>),
    /// The last so many bytes.
    Last(u64),
}

impl ByteRange {
    /// Reads a `Range` header. `None` where the header must or may be ignored.
    pub fn parse(value: &str) -> Option<Self> {
        let (unit, range) = value.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = range.trim().split_once('-')?;
        match (first, last) {
            ("", last) => Some(Self::Last(parse_offset(last)?)),
            (first, "") => Some(Self::From(parse_offset(first)?, None)),
            (first, last) => {
                let (first, last) = (parse_offset(first)?, parse_offset(last)?);
                (first <= last).then_some(Self::From(first, Some(last)))
            }
        }
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From(first, Some(last)) => write!(f, "bytes={first}-{last}"),
            Self::From(first, None) => write!(f, "bytes={first}-"),
            Self::Last(length) => write!(f, "bytes=-{length}"),
        }
    }
}

/// Digits only: the number parser of the standard library would take a sign as well.
fn parse_offset(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn one_range_of_bytes_is_taken_and_the_rest_ignored() {
        for (value, range) in [
            ("bytes=0-0", Some(ByteRange::From(0, Some(0)))),
            ("bytes=5-", Some(ByteRange::From(5, None))),
            ("bytes=-7", Some(ByteRange::Last(7))),
            ("Bytes = 1-2", Some(ByteRange::From(1, Some(2)))),
            ("bytes=5-2", None),
            ("bytes=0-1,3-4", None),
            ("bytes=-", None),
            ("bytes=+1-2", None),
            ("bytes=a-b", None),
            ("bytes=0-18446744073709551616", None),
            ("items=0-1", None),
            ("bytes", None),
            ("", None),
        ] {
            assert_eq!(ByteRange::parse(value), range, "{value:?}");
        }
        assert_eq!(ByteRange::From(1, Some(2)).to_string(), "bytes=1-2");
        assert_eq!(ByteRange::From(1, None).to_string(), "bytes=1-");
        assert_eq!(ByteRange::Last(9).to_string(), "bytes=-9");
    }
}
