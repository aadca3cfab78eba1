//! Entity tags and conditional requests (RFC 9110, sections 8.8.3 and 13).
//!
//! The entity tag of a manifest or blob is its digest in double quotes.

use http::HeaderValue;

use super::reference::Digest;

/// The entity tag of the content with this digest.
pub fn entity_tag(digest: &Digest) -> HeaderValue {
    // Digests are ASCII letters, digits and a colon.
    HeaderValue::try_from(format!("\"{digest}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// The condition of a request's `If-None-Match` headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IfNoneMatch {
    anything: bool,
    tags: Vec<String>,
}

impl IfNoneMatch {
    /// Reads the values of all `If-None-Match` headers of one request.
    ///
    /// Besides what RFC 9110 section 13.1.2 defines, a digest without quotes is taken: old clients
    /// send one.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut condition = Self { anything: false, tags: Vec::new() };
        // Splitting at every comma is safe: no entity tag of this registry contains one.
        for element in values.into_iter().flat_map(|value| value.split(',')) {
            match element.trim() {
                "" => {}
                "*" => condition.anything = true,
                tag => condition.tags.push(opaque_tag(tag).to_owned()),
            }
        }
        condition
    }

    /// Whether the client already has the content with this digest, so that the answer is 304.
    /// The comparison is the weak one.
    pub fn matches(&self, digest: &Digest) -> bool {
        self.anything || self.tags.iter().any(|tag| tag == digest.as_str())
    }
}

/// Whether an `If-Range` value lets a `Range` stand: it must be the content's strong entity tag
/// (RFC 9110, section 13.1.5). A date never does, since no `Last-Modified` is given.
pub fn if_range_holds(value: &str, digest: &Digest) -> bool {
    value.trim().as_bytes() == entity_tag(digest).as_bytes()
}

/// The text within an entity tag: without the weakness mark and without quotes.
fn opaque_tag(tag: &str) -> &str {
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::registry::reference::Algorithm;

    #[test]
    fn if_none_match_compares_weakly_with_every_tag_given() {
        let digest = Digest::of(Algorithm::Sha256, b"content");
        let quoted = format!("\"{digest}\"");
        let weak = format!("W/\"{digest}\"");
        let list = format!("\"other\" , {quoted}");
        let rows: &[(&[&str], bool)] = &[
            (&[], false),
            (&[""], false),
            (&["*"], true),
            (&[&quoted], true),
            (&[&weak], true),
            (&[digest.as_str()], true),
            (&[&list], true),
            (&["\"other\"", &quoted], true),
            (&["\"other\"", "*"], true),
            (&["\"other\""], false),
            (&["\""], false),
            (&["W/"], false),
            (&[&quoted[..quoted.len() - 2]], false),
        ];
        for (values, matches) in rows {
            let condition = IfNoneMatch::parse(values.iter().copied());
            assert_eq!(condition.matches(&digest), *matches, "{values:?}");
        }
    }

    #[test]
    fn if_range_takes_the_strong_tag_only() {
        let digest = Digest::of(Algorithm::Sha256, b"content");
        assert!(if_range_holds(&format!("\"{digest}\""), &digest));
        for other in [&format!("W/\"{digest}\""), "\"other\"", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert!(!if_range_holds(other, &digest), "{other}");
        }
    }
}
