//! The header fields of a request, as the proxy gives them.
//!
//! They are few, and most of them are never looked at: to search them costs less than to make a
//! `HeaderMap` of them would.

use std::fmt;

use http::HeaderName;

/// Header fields in the order in which they came, repeated ones included.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HeaderFields(Vec<(String, Vec<u8>)>);

impl HeaderFields {
    /// The fields with these names, in lower case, and values, which may be anything.
    pub fn new(fields: Vec<(String, Vec<u8>)>) -> Self {
        Self(fields)
    }

    /// The values of all fields of that name.
    pub fn get_all(&self, name: HeaderName) -> impl Iterator<Item = &[u8]> {
        let fields = self.0.iter();
        fields.filter(move |(key, _)| name == key.as_str()).map(|(_, value)| value.as_slice())
    }

    /// The same as text. A value that is no visible ASCII reads as U+FFFD: it is there, and means nothing.
    pub fn texts(&self, name: HeaderName) -> impl Iterator<Item = &str> {
        let is_visible = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
        self.get_all(name).map(move |value| match std::str::from_utf8(value) {
            Ok(text) if value.iter().all(is_visible) => text,
            _ => "\u{fffd}",
        })
    }
}

impl HeaderFields {
    /// The first value of that name, pseudo-headers (`:authority`) included, if it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(value).ok()
    }
}

/// Their names alone: some of the values are secrets.
impl fmt::Debug for HeaderFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> From<&[(N, V)]> for HeaderFields {
    fn from(fields: &[(N, V)]) -> Self {
        let field = |(name, value): &(N, V)| (name.as_ref().to_owned(), value.as_ref().to_vec());
        Self(fields.iter().map(field).collect())
    }
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, RANGE};
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn all_values_of_a_name_are_found_in_their_order() {
        let fields = [(":path", "/"), ("accept", "a"), ("accept-x", "b"), ("accept", "c\td")];
        let fields = HeaderFields::from(&fields[..]);
        assert_eq!(fields.texts(ACCEPT).collect::<Vec<_>>(), ["a", "c\td"]);
        assert_eq!(fields.texts(RANGE).next(), None);
    }

    #[test]
    fn no_value_is_shown_to_whoever_debugs() {
        let fields = HeaderFields::from(&[("authorization", "Basic c2VjcmV0")][..]);
        assert_eq!(format!("{fields:?}"), r#"["authorization"]"#);
    }

    #[test]
    fn a_value_that_is_no_text_is_there_and_means_nothing() {
        for value in [&b"\xff"[..], "ä".as_bytes(), b"a\0", b"\x7f", b"a\nb"] {
            let fields = HeaderFields::from(&[("range", value)][..]);
            assert_eq!(fields.texts(RANGE).collect::<Vec<_>>(), ["\u{fffd}"], "{value:?}");
        }
    }
}
