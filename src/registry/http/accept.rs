//! Which manifest types a client accepts.
//!
//! Negotiation follows RFC 9110, section 12.5.1. Parameters of a media range other than `q` are
//! ignored, as `distribution` ignores them: no manifest type has parameters, so a range that carries
//! one can only mean the type without it.
//!
//! No well-kept crate does this: `headers` leaves `Accept` out, and those that have it rank what a server
//! offers, where a registry asks whether the one type that it has is admitted.

use crate::oci::MediaType;

/// The media types that a client accepts: the media ranges of all its `Accept` headers together.
#[derive(Debug, Clone, PartialEq)]
pub struct Accept {
    /// `None` where the client said nothing, which means anything.
    ranges: Option<Vec<MediaRange>>,
}

impl Accept {
    /// Reads the values of the `Accept` headers of one request, in any number.
    ///
    /// Elements that are no media range are passed over, as RFC 9110 has recipients do with list
    /// elements they can't use. A header without any element says as little as no header.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let elements: Vec<&str> = values
            .into_iter()
            .flat_map(|value| split_outside_quotes(value, ','))
            .map(trim)
            .filter(|element| !element.is_empty())
            .collect();
        if elements.is_empty() {
            return Self { ranges: None };
        }
        Self { ranges: Some(elements.into_iter().filter_map(MediaRange::parse).collect()) }
    }

    /// Whether the client names `media_type` and nothing more about it. Then [`Accept::admits`] it: no
    /// range is more specific, and no weight is higher. To find out costs a fraction of [`Accept::parse`],
    /// and nearly all clients do.
    pub fn names<'a>(values: impl IntoIterator<Item = &'a str>, media_type: MediaType) -> bool {
        let name = media_type.as_str();
        values.into_iter().any(|value| {
            !value.contains('"') && value.split(',').any(|element| trim(element) == name)
        })
    }

    /// Whether the client said nothing.
    pub fn is_absent(&self) -> bool {
        self.ranges.is_none()
    }

    /// Whether the client takes `media_type`: the most specific range that matches decides, and
    /// refuses it with a `q` of 0.
    pub fn admits(&self, media_type: MediaType) -> bool {
        self.admits_type(media_type.as_str())
    }

    /// Whether the client takes a schema 1 manifest, signed or not: clients name either type and mean
    /// both, and the first ones said `application/json`, which was another name of the type then.
    pub fn admits_schema1(&self) -> bool {
        self.admits(MediaType::DockerSchema1Signed)
            || self.admits(MediaType::DockerSchema1)
            || self.admits_type("application/json")
    }

    fn admits_type(&self, name: &str) -> bool {
        let Some(ranges) = &self.ranges else {
            return true;
        };
        ranges
            .iter()
            .filter_map(|range| Some((range.specificity(name)?, range.quality)))
            .max()
            .is_some_and(|(_, quality)| quality > Quality::ZERO)
    }
}

/// How narrowly a media range matched; later is narrower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Specificity {
    Anything,
    Type,
    Exact,
}

/// A `q` value in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Quality(u16);

impl Quality {
    const ZERO: Self = Self(0);
    const ONE: Self = Self(1000);

    /// `( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )`, RFC 9110 section 12.4.2.
    fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let thousandths: u16 = format!("{fraction:0<3}").parse().ok()?;
        match (whole, thousandths) {
            ("0", _) => Some(Self(thousandths)),
            ("1", 0) => Some(Self::ONE),
            _ => None,
        }
    }
}

/// One element of an `Accept` header, in lower case. A wildcard is `*`.
#[derive(Debug, Clone, PartialEq)]
struct MediaRange {
    main_type: String,
    subtype: String,
    quality: Quality,
}

impl MediaRange {
    fn parse(element: &str) -> Option<Self> {
        let mut parts = split_outside_quotes(element, ';').map(trim);
        let (main_type, subtype) = parts.next()?.split_once('/')?;
        let is_wildcard_then_type = main_type == "*" && subtype != "*";
        if !is_token(main_type) || !is_token(subtype) || is_wildcard_then_type {
            return None;
        }
        Some(Self {
            main_type: main_type.to_ascii_lowercase(),
            subtype: subtype.to_ascii_lowercase(),
            quality: quality_parameter(parts)?,
        })
    }

    /// How the range matches the type of this name, which is in lower case.
    fn specificity(&self, name: &str) -> Option<Specificity> {
        let (main_type, subtype) = name.split_once('/')?;
        match (self.main_type.as_str(), self.subtype.as_str()) {
            ("*", "*") => Some(Specificity::Anything),
            (t, "*") if t == main_type => Some(Specificity::Type),
            (t, s) if t == main_type && s == subtype => Some(Specificity::Exact),
            _ => None,
        }
    }
}

/// The value of the first `q` among `parameters`: 1 where there is none, `None` where it is malformed.
fn quality_parameter<'a>(mut parameters: impl Iterator<Item = &'a str>) -> Option<Quality> {
    let value = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.eq_ignore_ascii_case("q").then_some(value)
    });
    value.map_or(Some(Quality::ONE), Quality::parse)
}

/// Splits at `separator`, except within quoted strings (RFC 9110, section 5.6.4).
fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    text.split(move |c| {
        if escaped {
            escaped = false;
        } else if quoted && c == '\\' {
            escaped = true;
        } else if c == '"' {
            quoted = !quoted;
        }
        !quoted && c == separator
    })
}

/// Strips the white space that RFC 9110 allows around elements.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// `token` of RFC 9110, section 5.6.2. `*` is one of its characters.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
    const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";

    /// Each row: the `Accept` headers, and whether an OCI image manifest may be answered.
    #[test]
    fn accept_admits_what_rfc_9110_says() {
        let long_list = format!("{DOCKER}, {OCI} , application/json");
        let rows: &[(&[&str], bool)] = &[
            (&[], true),
            (&[""], true),
            (&[" , ,"], true),
            (&["*/*"], true),
            (&["application/*"], true),
            (&["Application/*"], true),
            (&["text/*"], false),
            (&[OCI], true),
            (&["APPLICATION/VND.OCI.IMAGE.MANIFEST.V1+JSON"], true),
            (&[DOCKER], false),
            (&[DOCKER, OCI], true),
            (&["", OCI], true),
            (&["", DOCKER], false),
            (&[&long_list], true),
            // Parameters other than q say nothing; a quoted one may contain separators.
            (&["application/vnd.oci.image.manifest.v1+json;charset=utf-8"], true),
            (&["application/vnd.oci.image.manifest.v1+json ; a=\"x,y;q=0\" ; q=0.1"], true),
            (&["text/plain;a=\"\\\",application/vnd.oci.image.manifest.v1+json\""], false),
            // q.
            (&["application/vnd.oci.image.manifest.v1+json;q=0"], false),
            (&["application/vnd.oci.image.manifest.v1+json;Q=0.000"], false),
            (&["application/vnd.oci.image.manifest.v1+json;q=0.001"], true),
            (&["application/vnd.oci.image.manifest.v1+json;q=1.000"], true),
            (&["*/*;q=0"], false),
            // The most specific range decides, wherever it stands.
            (&["*/*, application/vnd.oci.image.manifest.v1+json;q=0"], false),
            (&["application/vnd.oci.image.manifest.v1+json;q=0, */*"], false),
            (&["application/vnd.oci.image.manifest.v1+json;q=0", "*/*"], false),
            (&["*/*;q=0, application/*;q=0.5"], true),
            (&["application/*;q=0, */*"], false),
            (&["application/*;q=0, application/vnd.oci.image.manifest.v1+json"], true),
            // What is no media range is passed over.
            (&["nonsense"], false),
            (&["*/json"], false),
            (&["nonsense, */*"], true),
            (&["application/vnd.oci.image.manifest.v1+json;q=2"], false),
            (&["application/vnd.oci.image.manifest.v1+json;q=0.0001"], false),
            (&["application/vnd.oci.image.manifest.v1+json;q=abc"], false),
            (&["application/vnd.oci.image.manifest.v1+json;q="], false),
        ];
        for (values, admitted) in rows {
            let accept = Accept::parse(values.iter().copied());
            assert_eq!(accept.admits(MediaType::OciManifest), *admitted, "{values:?}");
            let is_named = Accept::names(values.iter().copied(), MediaType::OciManifest);
            assert!(*admitted || !is_named, "{values:?}");
        }
    }

    #[test]
    fn a_type_is_named_if_it_stands_there_alone() {
        let (list, quoted) = (format!("*/*;q=0,\t{OCI} ,x/y"), format!("x/y;a=\",{OCI},\""));
        let weighted = format!("{OCI};q=1");
        for (values, is_named) in [
            (&[OCI][..], true),
            (&[DOCKER, OCI], true),
            (&[&list], true),
            (&[], false),
            (&["*/*"], false),
            (&[DOCKER], false),
            (&[&weighted], false),
            (&[&quoted], false),
        ] {
            let found = Accept::names(values.iter().copied(), MediaType::OciManifest);
            assert_eq!(found, is_named, "{values:?}");
        }
    }
}
