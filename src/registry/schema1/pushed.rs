//! A schema 1 manifest that a client pushes.
//!
//! What is stored of it, and what its digest is the digest of, is the manifest without its signatures,
//! to the byte as it was signed. The signatures are verified, and then no more: as in `distribution`,
//! whoever asks for the manifest later gets one of the registry's.

use std::collections::BTreeMap;

use serde::Deserialize;
use thiserror::Error;

use super::jws::{Unverified, verify};
use crate::oci::manifest::{Dependency, InvalidManifest, ParsedManifest, each_once, media_type_of};
use crate::oci::{DigestError, MediaType};

/// A verified manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Pushed {
    /// The manifest without its signatures.
    pub payload: Vec<u8>,
    /// The name of the repository that it says it is for.
    pub name: String,
    /// The tag that it says it is for.
    pub tag: String,
    /// What it is and what it refers to.
    pub manifest: ParsedManifest,
}

/// Why a pushed manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PushedError {
    /// No signature vouches for it.
    #[error("the manifest is not verified: {0}")]
    Unverified(#[from] Unverified),
    /// It is malformed.
    #[error(transparent)]
    Invalid(#[from] InvalidManifest),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    name: String,
    tag: String,
    fs_layers: Vec<FsLayer>,
    history: Vec<History>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FsLayer {
    blob_sum: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct History {
    /// Only its being there matters.
    #[serde(rename = "v1Compatibility")]
    _v1_compatibility: String,
}

impl Pushed {
    /// Reads a pushed schema 1 manifest and verifies its signatures. `content_type` is the request's
    /// `Content-Type`, if it has one; its parameters are ignored.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn parse(content: &[u8], content_type: Option<&str>) -> Result<Self, PushedError> {
        check_content_type(content_type)?;
        let payload = verify(content)?;
        // Only what was signed counts. What it is when it is read again depends on it alone, too.
        if !matches!(media_type_of(&payload), Ok(MediaType::DockerSchema1)) {
            let problem = "is not 1 in what was signed, or that has signatures itself";
            return Err(InvalidManifest::new("schemaVersion", problem).into());
        }
        let mut deserializer = serde_json::Deserializer::from_slice(&payload);
        let fields: Fields = serde_path_to_error::deserialize(&mut deserializer)
            .map_err(|e| InvalidManifest::new(e.path().to_string(), e.inner().to_string()))?;
        if fields.history.len() != fields.fs_layers.len() {
            let problem = "has not as many entries as fsLayers";
            return Err(InvalidManifest::new("history", problem).into());
        }
        let manifest = ParsedManifest {
            media_type: MediaType::DockerSchema1,
            dependencies: layers(&fields.fs_layers)?,
            descriptors: fields.fs_layers.len(),
            config_type: None,
            subject: None,
            artifact_type: None,
            annotations: BTreeMap::new(),
        };
        Ok(Self { payload, name: fields.name, tag: fields.tag, manifest })
    }
}

/// The type may be that of signed manifests, or JSON's, which the first clients sent.
fn check_content_type(content_type: Option<&str>) -> Result<(), InvalidManifest> {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let is_schema1 =
        matches!(essence.parse(), Ok(MediaType::DockerSchema1Signed | MediaType::DockerSchema1));
    if is_schema1 || essence.is_empty() || essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let problem = format!("is {essence:?}, but the manifest is one of schema 1");
    Err(InvalidManifest::new("Content-Type", problem))
}

/// The layers, each once: empty ones usually stand many times.
fn layers(fs_layers: &[FsLayer]) -> Result<Vec<Dependency>, InvalidManifest> {
    let reference = |(position, layer): (usize, &FsLayer)| {
        let invalid = |error: DigestError| {
            InvalidManifest::new(format!("fsLayers[{position}].blobSum"), error.to_string())
        };
        layer.blob_sum.parse().map(Dependency::Blob).map_err(invalid)
    };
    let references = fs_layers.iter().enumerate().map(reference);
    Ok(each_once(references.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::oci::{Algorithm, Digest};
    use crate::registry::schema1::{key, sign};

    fn digest(content: &str) -> Digest {
        Digest::of(Algorithm::Sha256, content.as_bytes())
    }

    fn manifest() -> Value {
        let layer = |content| json!({ "blobSum": digest(content).as_str() });
        json!({
            "schemaVersion": 1,
            "name": "a/b",
            "tag": "t",
            "architecture": "amd64",
            "fsLayers": [layer("two"), layer("one"), layer("two")],
            "history": [{ "v1Compatibility": "{}" }, { "v1Compatibility": "{}" }, { "v1Compatibility": "{}" }],
        })
    }

    fn signed(manifest: &Value) -> String {
        sign(&manifest.to_string(), &key()).expect("a signature")
    }

    #[test]
    fn a_signed_manifest_is_what_was_signed() {
        let manifest = manifest();
        for content_type in [
            None,
            Some(""),
            Some("application/json"),
            Some("Application/JSON; charset=utf-8"),
            Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
            Some("application/vnd.docker.distribution.manifest.v1+json"),
        ] {
            let pushed = Pushed::parse(signed(&manifest).as_bytes(), content_type);
            let pushed = pushed.expect("a manifest");
            assert_eq!(pushed.payload, manifest.to_string().as_bytes());
            assert_eq!((pushed.name.as_str(), pushed.tag.as_str()), ("a/b", "t"));
            let layers = ["two", "one"].map(|content| Dependency::Blob(digest(content)));
            assert_eq!(pushed.manifest.dependencies, layers);
            assert_eq!(pushed.manifest.media_type, MediaType::DockerSchema1);
        }
    }

    /// Each row: a field, what is put there before it is signed, and the field that is complained of.
    #[test]
    fn what_is_wrong_is_named() {
        for (field, value, named) in [
            ("schemaVersion", json!(2), "schemaVersion"),
            ("name", json!(null), "name"),
            ("tag", json!(1), "tag"),
            ("history", json!([]), "history"),
            ("history", json!([{}, {}, {}]), "history[0]"),
            ("fsLayers", json!({}), "fsLayers"),
            ("fsLayers", json!([{ "blobSum": "tarsum+sha256:0" }, {}, {}]), "fsLayers[1]"),
        ] {
            let mut json = manifest();
            json[field] = value;
            let refused = Pushed::parse(signed(&json).as_bytes(), None);
            let Err(PushedError::Invalid(invalid)) = refused else {
                panic!("{field}: {refused:?}");
            };
            assert_eq!(invalid.field, named);
        }
        let mut json = manifest();
        json["fsLayers"][1]["blobSum"] = "x".into();
        let refused = Pushed::parse(signed(&json).as_bytes(), None).expect_err("no digest");
        assert!(refused.to_string().contains("fsLayers[1].blobSum"), "{refused}");
        let other_type = "application/vnd.docker.distribution.manifest.v2+json";
        let refused = Pushed::parse(signed(&manifest()).as_bytes(), Some(other_type));
        assert!(matches!(refused, Err(PushedError::Invalid(i)) if i.field == "Content-Type"));
        let unsigned = manifest().to_string();
        let refused = Pushed::parse(unsigned.as_bytes(), None);
        assert!(matches!(refused, Err(PushedError::Unverified(_))));
    }
}
