//! What a stored manifest is.
//!
//! A manifest's bytes are never changed and never written anew: they are what its digest is the
//! digest of. This module only reads them.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use thiserror::Error;

use super::media_type::MediaType;

/// Why some content is no manifest that this registry knows.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// Not a JSON object, or a field that decides what it is has the wrong type.
    #[error("it is not a manifest's JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// `schemaVersion` is neither 1 nor 2.
    #[error("its schemaVersion is neither 1 nor 2")]
    SchemaVersion,
    /// `mediaType` names something else.
    #[error("its mediaType {0:?} is not a manifest's")]
    MediaType(String),
    /// Without a `mediaType`, it has the fields of neither an image nor an index.
    #[error("it has the fields of neither an image manifest nor an index")]
    Shape,
}

/// Tells the media type of a manifest from its content, always the same one for the same bytes.
///
/// `mediaType` decides where there is one; OCI manifests may leave it out and are then told by their
/// fields, in the order in which `distribution` tries them: an index if it has `manifests`, else an
/// image. Of a field that stands twice the last one counts, as it does there.
pub fn media_type_of(content: &[u8]) -> Result<MediaType, ManifestError> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(content)?;
    match read::<u64>(&fields, "schemaVersion")? {
        Some(1) if fields.contains_key("signatures") => return Ok(MediaType::DockerSchema1Signed),
        Some(1) => return Ok(MediaType::DockerSchema1),
        Some(2) => {}
        _ => return Err(ManifestError::SchemaVersion),
    }
    match read::<String>(&fields, "mediaType")? {
        Some(declared) if !declared.is_empty() => match declared.parse() {
            Ok(media_type) => Ok(media_type),
            Err(_) => Err(ManifestError::MediaType(declared)),
        },
        _ => told_by_fields(&fields),
    }
}

fn told_by_fields(fields: &BTreeMap<String, &RawValue>) -> Result<MediaType, ManifestError> {
    let has = |name| fields.get(name).is_some_and(|value| value.get() != "null");
    if has("manifests") {
        Ok(MediaType::OciIndex)
    } else if has("config") || has("layers") {
        Ok(MediaType::OciManifest)
    } else {
        Err(ManifestError::Shape)
    }
}

/// A field's value; `None` where it is absent or null.
fn read<T: DeserializeOwned>(
    fields: &BTreeMap<String, &RawValue>,
    name: &str,
) -> Result<Option<T>, serde_json::Error> {
    match fields.get(name) {
        Some(value) => serde_json::from_str(value.get()),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn the_content_tells_its_media_type() {
        let mut rows = vec![
            (r#"{"schemaVersion":2,"config":{},"layers":[]}"#.to_owned(), MediaType::OciManifest),
            (r#"{"schemaVersion":2,"mediaType":"","layers":[]}"#.to_owned(), MediaType::OciManifest),
            (r#"{"schemaVersion":2,"mediaType":null,"config":{}}"#.to_owned(), MediaType::OciManifest),
            (r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(), MediaType::OciIndex),
            (r#"{"schemaVersion":2,"manifests":[],"config":{}}"#.to_owned(), MediaType::OciIndex),
            (r#"{"schemaVersion":2,"manifests":null,"config":{}}"#.to_owned(), MediaType::OciManifest),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), MediaType::DockerSchema1),
            (r#"{"schemaVersion":1,"signatures":[]}"#.to_owned(), MediaType::DockerSchema1Signed),
            (
                r#"{"schemaVersion":2,"mediaType":"x","mediaType":"application/vnd.oci.image.index.v1+json"}"#
                    .to_owned(),
                MediaType::OciIndex,
            ),
        ];
        for media_type in [
            MediaType::DockerManifest,
            MediaType::DockerManifestList,
            MediaType::OciManifest,
            MediaType::OciIndex,
        ] {
            rows.push((format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}"}}"#), media_type));
        }
        for (content, media_type) in rows {
            let told = media_type_of(content.as_bytes());
            assert!(matches!(told, Ok(t) if t == media_type), "{content}: {told:?}");
        }
    }

    #[test]
    fn other_content_is_no_manifest() {
        for content in [
            "",
            "{",
            "[]",
            "null",
            "\u{0}",
            "{}",
            r#"{"schemaVersion":3}"#,
            r#"{"schemaVersion":"2"}"#,
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":2,"mediaType":"text/plain"}"#,
            r#"{"schemaVersion":2,"mediaType":5}"#,
            r#"{"schemaVersion":2,"layers":[]} x"#,
        ] {
            assert!(media_type_of(content.as_bytes()).is_err(), "{content:?}");
        }
    }
}
