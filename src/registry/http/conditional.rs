//! Entity tags and conditional requests (RFC 9110, sections 8.8.3 and 13).
//!
//! The entity tag of a manifest or blob is its digest in double quotes.

use http::HeaderValue;
use thiserror::Error;

use crate::oci::Digest;

/// The entity tag of the content with this digest.
pub fn entity_tag(digest: &Digest) -> HeaderValue {
    // Digests are ASCII letters, digits and a colon.
    HeaderValue::try_from(["\"", digest.as_str(), "\""].concat())
        .unwrap_or(HeaderValue::from_static("\"\""))
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
        for element in elements(values) {
            match element {
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

/// The condition on which a tag is set, from `If-Match` and `If-None-Match` of a `PUT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagPrecondition {
    /// `If-None-Match: *`: the tag is not there.
    Absent,
    /// `If-Match`: the tag points at one of these; at anything, for `If-Match: *`, where there are none.
    PointsAt(Vec<Digest>),
    /// Something that can't hold: an entity tag that no manifest has, or two that contradict each other.
    Never,
}

/// The conditions of a `PUT` that are not understood: `If-None-Match` with anything but `*`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("for a PUT, If-None-Match may only be *")]
pub struct UnsupportedCondition;

impl TagPrecondition {
    /// Reads the values of the two headers; `None` if there are none. `If-Match` compares strongly
    /// (RFC 9110, section 13.1.1), so weak tags never match.
    pub fn parse<'a>(
        if_match: impl IntoIterator<Item = &'a str>,
        if_none_match: impl IntoIterator<Item = &'a str>,
    ) -> Result<Option<Self>, UnsupportedCondition> {
        let if_match: Vec<&str> = elements(if_match).collect();
        let if_none_match: Vec<&str> = elements(if_none_match).collect();
        if if_none_match.iter().any(|element| *element != "*") {
            return Err(UnsupportedCondition);
        }
        Ok(match (if_match.as_slice(), if_none_match.is_empty()) {
            ([], true) => None,
            ([], false) => Some(Self::Absent),
            (_, false) => Some(Self::Never),
            (tags, true) if tags.contains(&"*") => Some(Self::PointsAt(Vec::new())),
            (tags, true) => {
                let strong = tags.iter().filter(|tag| !tag.starts_with("W/"));
                let digests: Vec<_> =
                    strong.filter_map(|tag| opaque_tag(tag).parse().ok()).collect();
                Some(if digests.is_empty() { Self::Never } else { Self::PointsAt(digests) })
            }
        })
    }
}

/// The elements of a list of entity tags. Splitting at every comma is safe: no entity tag of this
/// registry contains one.
fn elements<'a>(values: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let elements = values.into_iter().flat_map(|value| value.split(','));
    elements.map(str::trim).filter(|element| !element.is_empty())
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
    use crate::oci::Algorithm;

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
    fn a_put_is_conditional_on_what_its_headers_say() {
        let digest = Digest::of(Algorithm::Sha256, b"content");
        let quoted = format!("\"{digest}\"");
        let weak = format!("W/{quoted}");
        let points_at = TagPrecondition::PointsAt(vec![digest]);
        let rows: &[(&[&str], &[&str], Option<TagPrecondition>)] = &[
            (&[], &[], None),
            (&[""], &[""], None),
            (&[], &["*"], Some(TagPrecondition::Absent)),
            (&["*"], &[], Some(TagPrecondition::PointsAt(vec![]))),
            (&[&quoted], &[], Some(points_at.clone())),
            (&["\"other\"", &quoted], &[], Some(points_at)),
            (&[&weak], &[], Some(TagPrecondition::Never)),
            (&["\"other\""], &[], Some(TagPrecondition::Never)),
            (&["*"], &["*"], Some(TagPrecondition::Never)),
        ];
        for (if_match, if_none_match, expected) in rows {
            let (first, second) = (if_match.iter().copied(), if_none_match.iter().copied());
            let found = TagPrecondition::parse(first, second);
            assert_eq!(found, Ok(expected.clone()), "{if_match:?} {if_none_match:?}");
        }
        let unsupported = TagPrecondition::parse([], [quoted.as_str()]);
        assert_eq!(unsupported, Err(UnsupportedCondition));
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
