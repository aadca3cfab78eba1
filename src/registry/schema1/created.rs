//! The time at which a part of an image was made.
//!
//! It is copied from the image's configuration into the manifest, in the one form that `distribution`
//! writes it in. Nothing is calculated with it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// The digits of a second's fraction that are kept: nanoseconds.
const FRACTION_DIGITS: usize = 9;

/// The text is no time of RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("must be a time as RFC 3339 writes it")]
pub struct CreatedError;

/// A time as RFC 3339 writes it, with no more digits than it needs, and `Z` for an offset of zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created(String);

impl Default for Created {
    /// The time of what has none: `distribution`'s zero.
    fn default() -> Self {
        Self("0001-01-01T00:00:00Z".to_owned())
    }
}

impl FromStr for Created {
    type Err = CreatedError;

    fn from_str(text: &str) -> Result<Self, CreatedError> {
        let (seconds, rest) = text.split_at_checked(19).ok_or(CreatedError)?;
        if !is_date_and_time(seconds.as_bytes()) {
            return Err(CreatedError);
        }
        let zone_start = rest.find(['Z', '+', '-']).ok_or(CreatedError)?;
        let (fraction, zone) = rest.split_at(zone_start);
        let zone = match zone {
            "Z" | "+00:00" | "-00:00" => "Z",
            zone if is_offset(zone.as_bytes()) => zone,
            _ => return Err(CreatedError),
        };
        let digits = fraction.strip_prefix('.').unwrap_or_default();
        let is_fraction = fraction.is_empty() || !digits.is_empty();
        if !is_fraction || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(CreatedError);
        }
        let kept = digits.get(..FRACTION_DIGITS).unwrap_or(digits).trim_end_matches('0');
        let point = if kept.is_empty() { "" } else { "." };
        Ok(Self(format!("{seconds}{point}{kept}{zone}")))
    }
}

/// `YYYY-MM-DDTHH:MM:SS`, with a day that there is.
fn is_date_and_time(text: &[u8]) -> bool {
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', i1, i2, b':', s1, s2] =
        text
    else {
        return false;
    };
    let (Some(century), Some(year), Some(month), Some(day)) =
        (number(y1, y2), number(y3, y4), number(m1, m2), number(d1, d2))
    else {
        return false;
    };
    let year = u16::from(century) * 100 + u16::from(year);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return false,
    };
    (1..=days).contains(&day)
        && is_below(h1, h2, 24)
        && is_below(i1, i2, 60)
        && is_below(s1, s2, 60)
}

/// `+HH:MM` or `-HH:MM`.
fn is_offset(text: &[u8]) -> bool {
    match *text {
        [b'+' | b'-', h1, h2, b':', m1, m2] => is_below(h1, h2, 24) && is_below(m1, m2, 60),
        _ => false,
    }
}

fn is_below(tens: u8, ones: u8, limit: u8) -> bool {
    number(tens, ones).is_some_and(|number| number < limit)
}

fn number(tens: u8, ones: u8) -> Option<u8> {
    let digits = tens.is_ascii_digit() && ones.is_ascii_digit();
    digits.then(|| (tens - b'0') * 10 + (ones - b'0'))
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Created {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Created {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_time_is_written_in_one_form() {
        for (text, written) in [
            ("2016-02-29T23:59:59Z", "2016-02-29T23:59:59Z"),
            ("2016-02-29T23:59:59.120300Z", "2016-02-29T23:59:59.1203Z"),
            ("2016-02-29T23:59:59.000Z", "2016-02-29T23:59:59Z"),
            ("2016-02-29T23:59:59.1234567899Z", "2016-02-29T23:59:59.123456789Z"),
            ("2016-02-29T23:59:59.5+02:00", "2016-02-29T23:59:59.5+02:00"),
            ("2016-02-29T23:59:59-11:30", "2016-02-29T23:59:59-11:30"),
            ("2016-02-29T23:59:59+00:00", "2016-02-29T23:59:59Z"),
            ("2000-02-29T00:00:00-00:00", "2000-02-29T00:00:00Z"),
        ] {
            assert_eq!(
                text.parse::<Created>().map(|time| time.to_string()),
                Ok(written.to_owned())
            );
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "Z",
            "2016-02-29",
            "2016-02-29T23:59:59",
            "2015-02-29T23:59:59Z",
            "1900-02-29T00:00:00Z",
            "2016-04-31T00:00:00Z",
            "2016-13-01T00:00:00Z",
            "2016-00-01T00:00:00Z",
            "2016-01-00T00:00:00Z",
            "2016-02-29T24:00:00Z",
            "2016-02-29T23:60:00Z",
            "2016-02-29T23:59:60Z",
            "2016-02-29t23:59:59z",
            "2016-02-29 23:59:59Z",
            "2016-02-29T23:59:59.Z",
            "2016-02-29T23:59:59.xZ",
            "2016-02-29T23:59:59,5Z",
            "2016-02-29T23:59:59+2:00",
            "2016-02-29T23:59:59+24:00",
            "2016-02-29T23:59:59+00:60",
            "2016-02-29T23:59:59ZZ",
            "ä016-02-29T23:59:59Z",
            "2016-02-29T23:59:5ä",
        ] {
            assert_eq!(text.parse::<Created>(), Err(CreatedError), "{text:?}");
        }
    }
}
