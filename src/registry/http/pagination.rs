//! The pages of a list: the query parameters `n` and `last`, and the header `Link` to the next page.
//!
//! Source: OCI distribution specification, "Listing Tags"; RFC 8288 for `Link`.

use std::borrow::Cow;

use http::HeaderValue;
use http::header::{HeaderName, LINK};

use super::error::{Error, ErrorCode};
use crate::oci::parse_decimal;
use crate::registry::Request;

/// How many entries a page has where the client does not say.
pub const DEFAULT_ENTRIES: usize = 1000;

/// The most entries that a client may ask for.
pub const MAX_ENTRIES: usize = 10_000;

/// The memory that a name takes until the page is answered, in bytes, about.
const ENTRY: usize = 128;

/// Which page a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest<'a> {
    /// The most entries; 0 for an empty page.
    pub entries: usize,
    /// The entry that the page begins after, which need not exist; empty for the first page.
    pub last: Cow<'a, str>,
}

impl<'a> PageRequest<'a> {
    /// Reads the query.
    ///
    /// # Errors
    ///
    /// `PAGINATION_NUMBER_INVALID` where `n` is malformed or more than [`MAX_ENTRIES`].
    pub fn parse(request: &'a Request) -> Result<Self, Error> {
        let entries = match request.query_values("n").next() {
            None => DEFAULT_ENTRIES,
            Some(text) => number(&text).ok_or_else(|| {
                let message = format!("n must be a number of entries, 0 to {MAX_ENTRIES}");
                Error::new(ErrorCode::PaginationNumberInvalid, message).with_detail(&*text)
            })?,
        };
        let last = request.query_values("last").next().unwrap_or_default();
        Ok(Self { entries, last })
    }

    /// The memory that a page of so many names takes, in bytes, about.
    pub fn size_of_names(&self) -> usize {
        size_of_names(self.entries)
    }
}

/// The memory that so many names take, in bytes, about.
pub fn size_of_names(names: usize) -> usize {
    names.saturating_mul(ENTRY)
}

fn number(text: &str) -> Option<usize> {
    parse_decimal(text)?.try_into().ok().filter(|number| *number <= MAX_ENTRIES)
}

/// The header that leads to the next page: `path` with these parameters. It is relative, and so right
/// behind any proxy.
pub fn link(path: &str, parameters: &[(&str, &str)]) -> Option<(HeaderName, HeaderValue)> {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    // Names, digests and what was encoded are visible ASCII.
    Some((LINK, HeaderValue::try_from(format!("<{path}?{query}>; rel=\"next\"")).ok()?))
}

#[cfg(test)]
mod tests {
    use http::Method;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::registry::test_registry;

    fn request(query: &str) -> Request {
        test_registry::request(Method::GET, &format!("/v2/_catalog{query}"), &[])
    }

    #[test]
    fn a_page_is_asked_for_by_its_size_and_the_entry_before_it() {
        for (query, entries, last) in [
            ("", DEFAULT_ENTRIES, ""),
            ("?n=0", 0, ""),
            ("?n=10&last=a%2Fb", 10, "a/b"),
            ("?last=%ff&n=0010000", MAX_ENTRIES, "\u{fffd}"),
        ] {
            let expected = PageRequest { entries, last: last.into() };
            assert_eq!(PageRequest::parse(&request(query)), Ok(expected), "{query}");
        }
        for query in ["?n=", "?n=-1", "?n=%2B1", "?n=1.0", "?n=x", "?n=10001", "?n=1e2"] {
            let request = request(query);
            let code = PageRequest::parse(&request).map_err(|error| error.code());
            assert_eq!(code, Err(ErrorCode::PaginationNumberInvalid), "{query}");
        }
        let huge = request(&format!("?n={}", "9".repeat(100)));
        assert!(PageRequest::parse(&huge).is_err());
    }

    #[test]
    fn the_values_of_a_link_are_encoded() {
        let (name, value) = link("/v2/_catalog", &[("n", "1"), ("last", "a/b>;\r\n\"é")])
            .expect("a header's value");
        assert_eq!(name, LINK);
        let expected = "</v2/_catalog?n=1&last=a%2Fb%3E%3B%0D%0A%22%C3%A9>; rel=\"next\"";
        assert_eq!(value, expected);
    }
}
