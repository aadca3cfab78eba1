//! Range requests (RFC 9110, section 14).
//!
//! One range of bytes is passed on to the store. Several are read from it as one, and cut out of that on
//! their way (see [`super::multipart`]), so they have to stand in their order. What is malformed, has other
//! units, or is out of order is ignored, which the RFC allows and stores would answer in different ways.

use std::ops::Range;

use crate::oci::ByteRange;

/// The most ranges of one request. Podman and its kin (containers/storage, `maxNumberMissingChunks`) ask
/// for so many at most.
const RANGES_MAX: usize = 1024;

/// The ranges that a `Range` header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    /// One range.
    One(ByteRange),
    /// Several.
    Several(RangeSet),
    /// More than are answered.
    TooMany,
}

impl Ranges {
    /// Reads a `Range` header. `None` where the header must or may be ignored.
    pub fn parse(value: &str) -> Option<Self> {
        let (unit, list) = value.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        // A list may have elements with nothing in them (RFC 9110, section 5.6.1.2).
        let mut specs = list.split(',').map(str::trim).filter(|spec| !spec.is_empty());
        let first = ByteRange::parse(specs.next()?)?;
        let mut all = vec![first];
        for spec in specs {
            if all.len() == RANGES_MAX {
                return Some(Self::TooMany);
            }
            all.push(ByteRange::parse(spec)?);
        }
        if all.len() == 1 {
            return Some(Self::One(first));
        }
        RangeSet::new(all).map(Self::Several)
    }
}

/// Several ranges, each behind the one before as far as that can be told without the content's length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeSet(Vec<ByteRange>);

impl RangeSet {
    fn new(ranges: Vec<ByteRange>) -> Option<Self> {
        let is_ascending = ranges.windows(2).all(|pair| match *pair {
            [ByteRange::From(_, Some(last)), ByteRange::From(first, _)] => last < first,
            [ByteRange::From(_, Some(_)), ByteRange::Last(_)] => true,
            _ => false,
        });
        is_ascending.then_some(Self(ranges))
    }

    /// The one range that contains them all. `None` for the whole content: where its last bytes are asked
    /// for, nobody knows yet how far they are from the others.
    pub fn span(&self) -> Option<ByteRange> {
        match (self.0.first()?, self.0.last()?) {
            (ByteRange::From(first, _), ByteRange::From(_, last)) => {
                Some(ByteRange::From(*first, *last))
            }
            _ => None,
        }
    }

    /// The bytes of content of this length that are meant, without the ranges that it has no bytes for. `None` if two
    /// of them overlap, as only its last bytes can do with those before.
    pub fn within(&self, length: u64) -> Option<Vec<Range<u64>>> {
        let found: Vec<_> = self.0.iter().filter_map(|range| range.within(length)).collect();
        let is_ascending = found.windows(2).all(|pair| match pair {
            [before, after] => before.end <= after.start,
            _ => true,
        });
        is_ascending.then_some(found)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn several(ranges: &[ByteRange]) -> Option<Ranges> {
        Some(Ranges::Several(RangeSet(ranges.to_vec())))
    }

    #[test]
    fn ranges_of_bytes_are_taken_and_the_rest_ignored() {
        use ByteRange::{From, Last};
        let one = |range| Some(Ranges::One(range));
        for (value, ranges) in [
            ("bytes=0-0", one(From(0, Some(0)))),
            ("bytes=5-", one(From(5, None))),
            ("bytes=-7", one(Last(7))),
            ("Bytes = 1-2", one(From(1, Some(2)))),
            ("bytes=,1-2, ,", one(From(1, Some(2)))),
            ("bytes=5-2", None),
            ("bytes=-", None),
            ("bytes=+1-2", None),
            ("bytes=a-b", None),
            ("bytes=0-18446744073709551616", None),
            ("items=0-1", None),
            ("bytes", None),
            ("bytes=", None),
            ("", None),
            ("bytes=0-1,3-4", several(&[From(0, Some(1)), From(3, Some(4))])),
            ("bytes=0-1 ,\t2-", several(&[From(0, Some(1)), From(2, None)])),
            ("bytes=0-1,-4", several(&[From(0, Some(1)), Last(4)])),
            ("bytes=0-1,4-3", None),
            ("bytes=0-1,x", None),
            ("bytes=3-4,0-1", None),
            ("bytes=0-3,3-4", None),
            ("bytes=0-,3-4", None),
            ("bytes=0-,-4", None),
            ("bytes=-4,0-1", None),
            ("bytes=-4,-4", None),
        ] {
            assert_eq!(Ranges::parse(value), ranges, "{value:?}");
        }
        assert_eq!(From(1, Some(2)).to_string(), "bytes=1-2");
        assert_eq!(From(1, None).to_string(), "bytes=1-");
        assert_eq!(Last(9).to_string(), "bytes=-9");
        assert_eq!(From(1, Some(u64::MAX)).to_string(), "bytes=1-9223372036854775807");
        assert_eq!(From(u64::MAX, None).to_string(), "bytes=9223372036854775807-");
        assert_eq!(Last(1 << 63).to_string(), "bytes=-9223372036854775807");
    }

    #[test]
    fn no_more_ranges_are_read_than_podman_asks_for() {
        let list = |count: usize| {
            let ranges: Vec<_> = (0..count).map(|n| format!("{}-{}", 2 * n, 2 * n)).collect();
            Ranges::parse(&format!("bytes={}", ranges.join(",")))
        };
        assert!(matches!(list(1024), Some(Ranges::Several(_))));
        assert_eq!(list(1025), Some(Ranges::TooMany));
        assert_eq!(list(100_000), Some(Ranges::TooMany));
    }

    #[test]
    fn several_ranges_are_read_as_one_and_found_in_it() {
        // The header, its span, the content's length, and what is meant of that: from, and up to.
        type Row = (&'static str, Option<&'static str>, u64, Option<&'static [(u64, u64)]>);
        let rows: &[Row] = &[
            ("bytes=2-3,6-7", Some("bytes=2-7"), 10, Some(&[(2, 4), (6, 8)])),
            ("bytes=2-3,4-", Some("bytes=2-"), 10, Some(&[(2, 4), (4, 10)])),
            ("bytes=2-3,6-20,30-", Some("bytes=2-"), 10, Some(&[(2, 4), (6, 10)])),
            ("bytes=10-11,12-", Some("bytes=10-"), 10, Some(&[])),
            ("bytes=0-1,-3", None, 10, Some(&[(0, 2), (7, 10)])),
            ("bytes=0-1,-0", None, 10, Some(&[(0, 2)])),
            ("bytes=0-1,-8", None, 10, Some(&[(0, 2), (2, 10)])),
            ("bytes=0-1,-9", None, 10, None),
            ("bytes=0-1,-99", None, 10, None),
            ("bytes=0-1,-9", None, 0, Some(&[])),
            ("bytes=0-0,18446744073709551615-", Some("bytes=0-"), 1, Some(&[(0, 1)])),
        ];
        for (value, span, length, found) in rows {
            let Some(Ranges::Several(set)) = Ranges::parse(value) else {
                panic!("{value} has several ranges");
            };
            let read = set.span().map(|range| range.to_string());
            assert_eq!(read.as_deref(), *span, "{value}");
            let within = set.within(*length);
            let within: Option<Vec<_>> = within
                .map(|found| found.into_iter().map(|range| (range.start, range.end)).collect());
            assert_eq!(within.as_deref(), *found, "{value} of {length}");
        }
    }
}
