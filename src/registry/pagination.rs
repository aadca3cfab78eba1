//! The pages of a list: the query parameters `n` and `last`, and the header `Link` to the next page.
//!
//! Source: OCI distribution specification, "Listing Tags"; RFC 8288 for `Link`.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, LINK};
use http::{HeaderValue, Response};
use serde::Serialize;

use super::Request;
use super::error::{Error, ErrorCode};

/// How many entries a page has where the client does not say.
pub const DEFAULT_ENTRIES: usize = 1000;

/// The most entries that a client may ask for.
pub const MAX_ENTRIES: usize = 10_000;

/// What a name takes in memory until the page is answered, in bytes, about.
const ENTRY: usize = 128;

/// Which page a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest<'a> {
    /// The most entries; 0 for none at all.
    pub entries: usize,
    /// The entry that the page begins after, which need not exist; empty for the first page.
    pub last: Cow<'a, str>,
}

impl<'a> PageRequest<'a> {
    /// Reads the query.
    ///
    /// # Errors
    ///
    /// `PAGINATION_NUMBER_INVALID` where `n` is no number or more than [`MAX_ENTRIES`].
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

    /// What a page of so many names takes in memory, in bytes, about.
    pub fn size_of_names(&self) -> usize {
        self.entries.saturating_mul(ENTRY)
    }
}

fn number(text: &str) -> Option<usize> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_decimal && *number <= MAX_ENTRIES)
}

/// A list as JSON.
pub fn json(list: &impl Serialize, content_type: &'static str) -> Response<Bytes> {
    // Texts and JSON values always serialise.
    let body = serde_json::to_vec(list).map(Bytes::from).unwrap_or_default();
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
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
    use crate::registry::{Body, HeaderFields, REPLY_MAX_BYTES, Stamp};

    fn request(query: &str) -> Request {
        Request {
            method: Method::GET,
            target: format!("/v2/_catalog{query}"),
            headers: HeaderFields::default(),
            body: Body::None,
            resources: Vec::new(),
            stamp: Stamp::default(),
            reply_max_bytes: REPLY_MAX_BYTES,
        }
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
