//! What a manifest is and what it refers to.
//!
//! A manifest's bytes are never changed and never written anew: they are what its digest is the
//! digest of. This module only reads them. [`media_type_of`] reads what is stored, as leniently as
//! `distribution`; [`ParsedManifest::parse`] reads what a client pushes, and is strict.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use thiserror::Error;

use super::{Digest, MediaType};

/// Why some stored content is no manifest that this registry knows.
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
    let fields: Fields = serde_json::from_slice(content)?;
    match fields.read::<u64>("schemaVersion")? {
        Some(1) if fields.has("signatures") => return Ok(MediaType::DockerSchema1Signed),
        Some(1) => return Ok(MediaType::DockerSchema1),
        Some(2) => {}
        _ => return Err(ManifestError::SchemaVersion),
    }
    match fields.read::<String>("mediaType")? {
        Some(declared) if !declared.is_empty() => match declared.parse() {
            Ok(media_type) => Ok(media_type),
            Err(_) => Err(ManifestError::MediaType(declared)),
        },
        _ => fields.shape().ok_or(ManifestError::Shape),
    }
}

/// Why a pushed manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct InvalidManifest {
    /// The field that is wrong, such as `layers[2].digest`; `Content-Type` for the header; empty for
    /// the whole.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl InvalidManifest {
    /// Something is wrong with a field.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// A blob or manifest that must be in the repository when this one is put. What an index lists may be either, and is named here as what its
/// type suggests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Dependency {
    /// A blob of the same repository.
    Blob(Digest),
    /// A manifest of the same repository.
    Manifest(Digest),
}

impl Dependency {
    /// Its digest.
    pub fn digest(&self) -> &Digest {
        match self {
            Self::Blob(digest) | Self::Manifest(digest) => digest,
        }
    }
}

/// A manifest that a client pushes, checked as far as it can be without the store.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedManifest {
    /// Its media type.
    pub media_type: MediaType,
    /// Its dependencies, each once, in order.
    pub dependencies: Vec<Dependency>,
    /// How many descriptors of layers or manifests it has, and of a configuration; all count, those that
    /// stand twice and those of what is kept elsewhere as well.
    pub descriptors: usize,
    /// The type of an image's configuration, if that has one.
    pub config_type: Option<String>,
    /// The digest of the manifest it is about, which need not be there.
    pub subject: Option<Digest>,
    /// The `artifactType` that a list of referrers gives: `artifactType`, or an image's configuration type without one.
    pub artifact_type: Option<String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Layers that registries do not hold. With `urls`, clients fetch them from there.
pub const FOREIGN_LAYERS: [&str; 4] = [
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
];

/// The manifest that stored content says it is about. Content that says nothing that makes sense is
/// about none.
pub fn subject_of(content: &[u8]) -> Option<Digest> {
    let fields: Fields = serde_json::from_slice(content).ok()?;
    fields.read::<Descriptor>("subject").ok()??.digest?.parse().ok()
}

/// The descriptors that stored content lists, unread; `None` if it is no OCI image index.
pub fn index_entries(content: &[u8]) -> Option<Vec<Box<RawValue>>> {
    if media_type_of(content).ok()? != MediaType::OciIndex {
        return None;
    }
    let fields: Fields = serde_json::from_slice(content).ok()?;
    fields.read("manifests").ok()?
}

impl ParsedManifest {
    /// Reads a pushed manifest. `content_type` is the request's `Content-Type`, if it has one; its
    /// parameters are ignored.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with the field it is wrong in.
    pub fn parse(content: &[u8], content_type: Option<&str>) -> Result<Self, InvalidManifest> {
        let fields: Fields =
            serde_json::from_slice(content).map_err(|e| InvalidManifest::new("", e.to_string()))?;
        if let Some(field) = &fields.repeated {
            return Err(InvalidManifest::new(field.as_str(), "stands more than once"));
        }
        match fields.value::<u64>("schemaVersion")? {
            Some(2) => {}
            Some(1) => {
                let problem = "is 1, and legacy.accept_schema1 is off";
                return Err(InvalidManifest::new("schemaVersion", problem));
            }
            Some(_) => return Err(InvalidManifest::new("schemaVersion", "must be 2")),
            None => return Err(InvalidManifest::new("schemaVersion", "is missing")),
        }
        let media_type = agreed_media_type(&fields, content_type)?;
        let is_index = matches!(media_type, MediaType::OciIndex | MediaType::DockerManifestList);
        fields.refuse_other_shape(is_index)?;
        let Listed { dependencies, descriptors, config_type } =
            if is_index { index_dependencies(&fields)? } else { image_dependencies(&fields)? };
        let subject = match fields.value::<Descriptor>("subject")? {
            Some(subject) => Some(subject.check("subject")?),
            None => None,
        };
        let artifact_type = fields.value::<String>("artifactType")?.filter(|t| !t.is_empty());
        Ok(Self {
            media_type,
            dependencies,
            descriptors,
            subject,
            artifact_type: artifact_type.or_else(|| config_type.clone()),
            config_type,
            annotations: fields.value("annotations")?.unwrap_or_default(),
        })
    }
}

/// The type that the header, `mediaType` and the fields agree on.
fn agreed_media_type(
    fields: &Fields,
    content_type: Option<&str>,
) -> Result<MediaType, InvalidManifest> {
    let known = |field: &str, text: &str| {
        let unknown =
            || InvalidManifest::new(field, format!("{text:?} is no manifest's media type"));
        match text.parse::<MediaType>().map_err(|_| unknown())? {
            MediaType::DockerSchema1 | MediaType::DockerSchema1Signed => {
                Err(InvalidManifest::new(field, "is of schema 1, but the manifest is not"))
            }
            media_type => Ok(media_type),
        }
    };
    let essence = content_type.map(|text| text.split(';').next().unwrap_or(text).trim());
    let header = essence.filter(|text| !text.is_empty()).map(|text| known("Content-Type", text));
    let declared = fields.value::<String>("mediaType")?.filter(|text| !text.is_empty());
    let declared = declared.map(|text| known("mediaType", &text)).transpose()?;
    match (header.transpose()?, declared) {
        (Some(header), Some(declared)) if header != declared => {
            let problem = format!("is {declared}, but the request's Content-Type is {header}");
            Err(InvalidManifest::new("mediaType", problem))
        }
        (_, Some(declared)) => Ok(declared),
        // Only OCI lets a manifest leave its type out.
        (Some(header @ (MediaType::OciManifest | MediaType::OciIndex)), None) => Ok(header),
        (Some(_), None) => Err(InvalidManifest::new("mediaType", "is missing")),
        (None, None) => {
            let neither = "is missing, and the fields are those of neither an image nor an index";
            fields.shape().ok_or_else(|| InvalidManifest::new("mediaType", neither))
        }
    }
}

/// The descriptors of a manifest.
struct Listed {
    /// The dependencies, each once.
    dependencies: Vec<Dependency>,
    /// How many descriptors there are.
    descriptors: usize,
    /// The type of an image's configuration.
    config_type: Option<String>,
}

/// An image needs its configuration and layers.
fn image_dependencies(fields: &Fields) -> Result<Listed, InvalidManifest> {
    let config = fields.required::<Descriptor>("config")?;
    let layers = fields.required::<Vec<Descriptor>>("layers")?;
    let mut dependencies = Vec::with_capacity(layers.len() + 1);
    dependencies.push(config.dependency("config")?);
    for (position, layer) in layers.iter().enumerate() {
        let dependency = layer.dependency(&format!("layers[{position}]"))?;
        if !layer.is_kept_elsewhere() {
            dependencies.push(dependency);
        }
    }
    let dependencies = each_once(dependencies);
    Ok(Listed { dependencies, descriptors: layers.len() + 1, config_type: config.media_type })
}

/// An index needs what it lists: mostly manifests, and those that say nothing of their type are taken for
/// such. BuildKit's cache is an index of blobs, its layers and a configuration.
fn index_dependencies(fields: &Fields) -> Result<Listed, InvalidManifest> {
    let manifests = fields.required::<Vec<Descriptor>>("manifests")?;
    let dependencies = manifests.iter().enumerate().map(|(position, child)| {
        let field = format!("manifests[{position}]");
        match child.media_type {
            Some(_) => child.dependency(&field),
            None => child.check(&field).map(Dependency::Manifest),
        }
    });
    let dependencies = each_once(dependencies.collect::<Result<_, _>>()?);
    Ok(Listed { dependencies, descriptors: manifests.len(), config_type: None })
}

/// The dependencies without repeats, in their order.
pub fn each_once(mut dependencies: Vec<Dependency>) -> Vec<Dependency> {
    let mut seen = HashSet::with_capacity(dependencies.len());
    dependencies.retain(|dependency| seen.insert(dependency.clone()));
    dependencies
}

/// A descriptor, as far as a registry cares.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", remote = "Self")]
struct Descriptor {
    media_type: Option<String>,
    digest: Option<String>,
    size: Option<i64>,
    urls: Option<Vec<String>>,
}

/// Only an object is one. Derived code takes a list of the fields' values as well, which nobody else would understand.
impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Descriptor;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a descriptor, a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Descriptor, A::Error> {
                Descriptor::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(ObjectVisitor)
    }
}

impl Descriptor {
    /// Checks digest and size.
    fn check(&self, field: &str) -> Result<Digest, InvalidManifest> {
        let size = format!("{field}.size");
        match self.size {
            Some(0..) => {}
            Some(_) => return Err(InvalidManifest::new(size, "is negative")),
            None => return Err(InvalidManifest::new(size, "is missing")),
        }
        let digest = self.digest.as_deref().unwrap_or_default();
        digest.parse().map_err(|error: super::DigestError| {
            InvalidManifest::new(format!("{field}.digest"), error.to_string())
        })
    }

    fn dependency(&self, field: &str) -> Result<Dependency, InvalidManifest> {
        let digest = self.check(field)?;
        let is_manifest = self.media_type.as_ref().is_some_and(|t| t.parse::<MediaType>().is_ok());
        Ok(if is_manifest { Dependency::Manifest(digest) } else { Dependency::Blob(digest) })
    }

    fn is_kept_elsewhere(&self) -> bool {
        let is_foreign = self.media_type.as_deref().is_some_and(|t| FOREIGN_LAYERS.contains(&t));
        is_foreign && self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
    }
}

/// The fields of a JSON object, unread.
struct Fields<'a> {
    values: BTreeMap<String, &'a RawValue>,
    /// A field that stands more than once.
    repeated: Option<String>,
}

impl Fields<'_> {
    /// Whether the field is there and not null.
    fn has(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| value.get() != "null")
    }

    /// A field's value; `None` where it is absent or null.
    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, serde_json::Error> {
        match self.values.get(name) {
            Some(value) => serde_json::from_str(value.get()),
            None => Ok(None),
        }
    }

    /// The same for a pushed manifest.
    fn value<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, InvalidManifest> {
        self.read(name).map_err(|error| InvalidManifest::new(name, error.to_string()))
    }

    fn required<T: DeserializeOwned>(&self, name: &str) -> Result<T, InvalidManifest> {
        self.value(name)?.ok_or_else(|| InvalidManifest::new(name, "is missing"))
    }

    /// The type of an OCI manifest without `mediaType`, by its fields.
    fn shape(&self) -> Option<MediaType> {
        if self.has("manifests") {
            Some(MediaType::OciIndex)
        } else if self.has("config") || self.has("layers") {
            Some(MediaType::OciManifest)
        } else {
            None
        }
    }

    /// A manifest that could be read as something else is refused: clients would not agree on what
    /// it is.
    fn refuse_other_shape(&self, is_index: bool) -> Result<(), InvalidManifest> {
        let (others, what): (&[_], _) = if is_index {
            (&["config", "layers", "fsLayers", "history"], "an index")
        } else {
            (&["manifests", "fsLayers", "history"], "an image manifest")
        };
        match others.iter().find(|name| self.has(name)) {
            Some(other) => Err(InvalidManifest::new(*other, format!("is no field of {what}"))),
            None => Ok(()),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;

        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields { values: BTreeMap::new(), repeated: None };
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if fields.values.insert(name.clone(), value).is_some() {
                        fields.repeated = Some(name);
                    }
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(FieldsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn the_content_tells_its_media_type() {
        let mut rows = vec![
            (r#"{"schemaVersion":2,"config":{},"layers":[]}"#.to_owned(), MediaType::OciManifest),
            (r#"{"schemaVersion":2,"mediaType":"","layers":[]}"#.to_owned(), MediaType::OciManifest),
            (
                r#"{"schemaVersion":2,"mediaType":null,"config":{}}"#.to_owned(),
                MediaType::OciManifest,
            ),
            (r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(), MediaType::OciIndex),
            (r#"{"schemaVersion":2,"manifests":[],"config":{}}"#.to_owned(), MediaType::OciIndex),
            (
                r#"{"schemaVersion":2,"manifests":null,"config":{}}"#.to_owned(),
                MediaType::OciManifest,
            ),
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

    fn digest(content: &str) -> String {
        Digest::of(Algorithm::Sha256, content.as_bytes()).to_string()
    }

    fn descriptor(media_type: &str, content: &str) -> Value {
        json!({ "mediaType": media_type, "digest": digest(content), "size": content.len() })
    }

    fn image() -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", "config"),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", "layer")],
        })
    }

    fn index() -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor("application/vnd.oci.image.manifest.v1+json", "child")],
        })
    }

    fn parse(json: &Value, content_type: Option<&str>) -> Result<ParsedManifest, InvalidManifest> {
        ParsedManifest::parse(json.to_string().as_bytes(), content_type)
    }

    #[test]
    fn a_manifest_refers_to_what_it_names() {
        let blob = |content| Dependency::Blob(digest(content).parse().expect("a digest"));
        let child = |content| Dependency::Manifest(digest(content).parse().expect("a digest"));
        let parsed = parse(&image(), None).expect("a valid manifest");
        assert_eq!(parsed.dependencies, [blob("config"), blob("layer")]);
        assert_eq!(
            parsed.artifact_type.as_deref(),
            Some("application/vnd.oci.image.config.v1+json")
        );
        assert_eq!(parse(&index(), None).expect("a valid index").dependencies, [child("child")]);

        let mut image = image();
        let mut foreign = descriptor(FOREIGN_LAYERS[0], "foreign");
        let twice = image["layers"][0].clone();
        let layers = image["layers"].as_array_mut().expect("a list");
        layers.extend([twice, foreign.clone()]);
        foreign["urls"] = json!(["https://example.org/layer"]);
        foreign["digest"] = digest("elsewhere").into();
        layers.push(foreign);
        image["subject"] = descriptor("application/vnd.oci.image.manifest.v1+json", "subject");
        image["artifactType"] = "application/vnd.example".into();
        image["annotations"] = json!({ "a": "b" });
        let parsed = parse(&image, None).expect("a valid manifest");
        assert_eq!(parsed.dependencies, [blob("config"), blob("layer"), blob("foreign")]);
        assert_eq!(parsed.subject.map(|d| d.to_string()), Some(digest("subject")));
        assert_eq!(parsed.artifact_type.as_deref(), Some("application/vnd.example"));
        assert_eq!(parsed.annotations["a"], "b");
    }

    #[test]
    fn header_and_body_must_agree() {
        let oci = "application/vnd.oci.image.manifest.v1+json";
        let docker = "application/vnd.docker.distribution.manifest.v2+json";
        let mut untyped = image();
        untyped.as_object_mut().expect("an object").remove("mediaType");
        for (json, content_type, refused) in [
            (image(), Some(oci), None),
            (image(), Some("APPLICATION/vnd.oci.image.manifest.v1+json; charset=utf-8"), None),
            (image(), None, None),
            (image(), Some(""), None),
            (untyped.clone(), Some(oci), None),
            (untyped.clone(), None, None),
            (image(), Some(docker), Some("mediaType")),
            (untyped.clone(), Some(docker), Some("mediaType")),
            (untyped, Some("application/vnd.oci.image.index.v1+json"), Some("config")),
            (image(), Some("text/plain"), Some("Content-Type")),
            (
                image(),
                Some("application/vnd.docker.distribution.manifest.v1+json"),
                Some("Content-Type"),
            ),
        ] {
            let field = parse(&json, content_type).err().map(|invalid| invalid.field);
            assert_eq!(field.as_deref(), refused, "{content_type:?} {json}");
        }
    }

    /// Each row: a field of an image or index, what is put there, and the field that is complained of.
    #[test]
    fn what_is_wrong_is_named() {
        for (base, pointer, value, field) in [
            (image(), "/schemaVersion", json!(1), "schemaVersion"),
            (image(), "/schemaVersion", json!(3), "schemaVersion"),
            (image(), "/schemaVersion", json!("2"), "schemaVersion"),
            (image(), "/schemaVersion", json!(null), "schemaVersion"),
            (image(), "/mediaType", json!("text/plain"), "mediaType"),
            (image(), "/config", json!(null), "config"),
            (image(), "/config", json!([]), "config"),
            (image(), "/layers", json!(null), "layers"),
            (image(), "/layers", json!({}), "layers"),
            // The values of a descriptor's fields are none.
            (image(), "/layers", json!([["x", digest("layer"), 5, null]]), "layers"),
            (image(), "/config", json!(["x", digest("config"), 5, null]), "config"),
            (image(), "/subject", json!(["x", digest("subject"), 5, null]), "subject"),
            (index(), "/manifests", json!([[null, digest("child"), 5, null]]), "manifests"),
            (image(), "/manifests", json!([]), "manifests"),
            (image(), "/fsLayers", json!([]), "fsLayers"),
            (image(), "/config/digest", json!("sha256:0"), "config.digest"),
            (image(), "/config/digest", json!(null), "config.digest"),
            (image(), "/layers/0/digest", json!("../../x"), "layers[0].digest"),
            (image(), "/layers/0/size", json!(-1), "layers[0].size"),
            (image(), "/layers/0/size", json!(null), "layers[0].size"),
            (image(), "/layers/0/size", json!("1"), "layers"),
            (image(), "/subject", json!({}), "subject.size"),
            (image(), "/annotations", json!([]), "annotations"),
            (index(), "/manifests", json!(null), "manifests"),
            (index(), "/manifests/0/digest", json!("x"), "manifests[0].digest"),
            (index(), "/layers", json!([]), "layers"),
            (index(), "/config", json!({}), "config"),
        ] {
            let mut json = base;
            let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
            json.pointer_mut(parent).expect("an object")[name] = value;
            let invalid = parse(&json, None).expect_err("must be refused");
            assert_eq!(invalid.field, field, "{json}");
        }
        let twice = format!("{},\"layers\":[]}}", image().to_string().trim_end_matches('}'));
        assert!(ParsedManifest::parse(twice.as_bytes(), None).is_err());
        let json = image().to_string();
        let twice = json.replacen('{', r#"{"schemaVersion":2,"#, 1);
        let invalid = ParsedManifest::parse(twice.as_bytes(), None).expect_err("must be refused");
        assert_eq!(invalid.field, "schemaVersion");
    }
}
