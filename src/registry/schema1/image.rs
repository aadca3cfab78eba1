//! From a Docker schema 2 image to a schema 1 manifest.
//!
//! Schema 1 has an entry and a layer for every step of an image's history, the newest first. The entry of
//! the newest one is the image's configuration with the fields of its time; the others are made up, and
//! only good for showing the history. Each has an id that is derived from its layer and its parent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha384};

use super::created::Created;
use super::empty_layer::empty_layer_digest;
use super::json;
use crate::oci::manifest::InvalidManifest;
use crate::oci::{Algorithm, Digest, Name, Tag};

/// The longest history that is converted. A few bytes of a configuration become hundreds of a manifest,
/// each time someone asks; images that anyone builds have some hundred entries at most.
const STEPS_MAX: usize = 1000;

/// What a schema 2 manifest says of its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The digest of the configuration.
    pub config: Digest,
    layers: Vec<Digest>,
}

/// The schema 1 manifest of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// The manifest without signatures: what its digest is the digest of.
    pub payload: String,
    /// Whether it refers to the empty layer.
    pub has_empty_layer: bool,
}

/// The configuration of an image, as far as it decides what becomes of it.
#[derive(Deserialize)]
struct Config {
    rootfs: Option<RootFs>,
    history: Option<Vec<Step>>,
    architecture: Option<String>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<String>>,
    /// The layer below the first one, which Windows has and registries don't.
    base_layer: Option<String>,
}

#[derive(Deserialize)]
struct Step {
    created: Option<Created>,
    author: Option<String>,
    created_by: Option<String>,
    comment: Option<String>,
    empty_layer: Option<bool>,
}

impl Image {
    /// Reads a stored schema 2 manifest.
    pub fn parse(manifest: &[u8]) -> Result<Self, InvalidManifest> {
        #[derive(Deserialize)]
        struct Manifest {
            config: Descriptor,
            layers: Vec<Descriptor>,
        }
        #[derive(Deserialize)]
        struct Descriptor {
            digest: String,
        }
        let manifest: Manifest = serde_json::from_slice(manifest)
            .map_err(|e| InvalidManifest::new("", e.to_string()))?;
        let digest = |field: &str, descriptor: &Descriptor| {
            let digest = descriptor.digest.parse::<Digest>();
            digest.map_err(|e| InvalidManifest::new(format!("{field}.digest"), e.to_string()))
        };
        let layers = manifest.layers.iter().map(|layer| digest("layers", layer));
        Ok(Self {
            config: digest("config", &manifest.config)?,
            layers: layers.collect::<Result<_, _>>()?,
        })
    }

    /// Makes the schema 1 manifest of the image, for the name and tag it is asked for by. `config` is
    /// the image's configuration.
    ///
    /// # Errors
    ///
    /// What is wrong with the configuration: the field is one of its fields.
    pub fn convert(
        &self,
        config: &[u8],
        name: &Name,
        tag: &Tag,
    ) -> Result<Converted, InvalidManifest> {
        let config = std::str::from_utf8(config)
            .map_err(|_| InvalidManifest::new("", "the image's configuration is not UTF-8"))?;
        let read = read_config(config)?;
        let chain = self.chain(&read)?;
        let (newest, older) =
            chain.split_last().ok_or_else(|| InvalidManifest::new("history", "is empty"))?;
        let newest_entry = newest_entry(config, newest)?;
        let older_entries = older.iter().rev().map(|link| older_entry(link).map_err(unwritable));
        let payload = Payload {
            schema_version: 1,
            name: name.as_str(),
            tag: tag.as_str(),
            architecture: read.architecture.as_deref().unwrap_or_default(),
            fs_layers: chain
                .iter()
                .rev()
                .map(|link| FsLayer { blob_sum: link.layer.as_str() })
                .collect(),
            history: std::iter::once(Ok(newest_entry))
                .chain(older_entries)
                .map(|entry| entry.map(|v1_compatibility| History { v1_compatibility }))
                .collect::<Result<_, _>>()?,
        };
        Ok(Converted {
            payload: json::indented(&payload).map_err(unwritable)?,
            has_empty_layer: chain.iter().any(|link| link.is_empty),
        })
    }

    /// Gives each step of the history its layer, id and parent, the oldest first.
    fn chain<'a>(&self, config: &'a Config) -> Result<Vec<Link<'a>>, InvalidManifest> {
        let steps = config.history.as_deref().unwrap_or_default();
        if steps.is_empty() {
            return Err(InvalidManifest::new("history", "is empty"));
        }
        if steps.len() > STEPS_MAX {
            let problem = format!("has more than {STEPS_MAX} entries");
            return Err(InvalidManifest::new("history", problem));
        }
        let Some(root) = &config.rootfs else {
            return Err(InvalidManifest::new("rootfs", "is missing"));
        };
        let expected = root.diff_ids.as_ref().map_or(0, Vec::len);
        if expected != self.layers.len() {
            let problem =
                format!("has {expected} entries, but the manifest {} layers", self.layers.len());
            return Err(InvalidManifest::new("rootfs.diff_ids", problem));
        }
        let empty = empty_layer_digest();
        let mut layers = self.layers.iter();
        let mut chain: Vec<Link<'a>> = Vec::with_capacity(steps.len());
        for step in steps {
            let is_empty = step.empty_layer == Some(true);
            let layer = if is_empty { Some(&empty) } else { layers.next() };
            let layer = layer.ok_or_else(|| {
                InvalidManifest::new(
                    "history",
                    "has more entries with a layer than there are layers",
                )
            })?;
            // The oldest step's id is derived before Windows' base layer becomes its parent.
            let parent = chain.last().map(|link| link.id.clone()).unwrap_or_default();
            let id = hex_of(&format!("{} {parent}", layer.hex()));
            let is_older = chain.len() + 1 < steps.len();
            let parent = match &root.base_layer {
                Some(base) if chain.is_empty() && is_older && !base.is_empty() => base_id(base),
                _ => parent,
            };
            chain.push(Link { step, layer: layer.clone(), is_empty, id, parent });
        }
        if layers.next().is_some() {
            let problem = "has fewer entries with a layer than there are layers";
            return Err(InvalidManifest::new("history", problem));
        }
        Ok(chain)
    }
}

/// A step of the history, in the chain of images that schema 1 makes of it.
struct Link<'a> {
    step: &'a Step,
    layer: Digest,
    is_empty: bool,
    id: String,
    /// The id of the step before; empty for the oldest.
    parent: String,
}

fn read_config(config: &str) -> Result<Config, InvalidManifest> {
    let mut deserializer = serde_json::Deserializer::from_str(config);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let problem = format!("the image's configuration is not one: {}", error.inner());
        // The whole has the path ".".
        InvalidManifest::new(error.path().to_string().trim_matches('.'), problem)
    })
}

fn unwritable(error: serde_json::Error) -> InvalidManifest {
    InvalidManifest::new("", format!("it can't be written as schema 1: {error}"))
}

fn hex_of(text: &str) -> String {
    Digest::of(Algorithm::Sha256, text.as_bytes()).hex().to_owned()
}

/// The id of the image that Windows' base layer is taken for: half of its name's SHA-384, about.
fn base_id(base_layer: &str) -> String {
    let hash = Sha384::digest(base_layer.as_bytes());
    base16ct::lower::encode_string(&hash[..32])
}

/// The entry of the newest step: the configuration, less what schema 1 did not have.
fn newest_entry(config: &str, newest: &Link) -> Result<String, InvalidManifest> {
    let mut fields: BTreeMap<String, &RawValue> =
        serde_json::from_str(config).map_err(|e| InvalidManifest::new("", e.to_string()))?;
    fields.remove("rootfs");
    fields.remove("history");
    let mut written = BTreeMap::new();
    for (name, value) in fields {
        written.insert(name, json::compacted(value.get()));
    }
    let id = hex_of(&format!("{} {} {config}", newest.layer.hex(), newest.parent));
    written.insert("id".to_owned(), format!("\"{id}\""));
    if !newest.parent.is_empty() {
        written.insert("parent".to_owned(), format!("\"{}\"", newest.parent));
    }
    if newest.is_empty {
        written.insert("throwaway".to_owned(), "true".to_owned());
    }
    let mut fields = Vec::with_capacity(written.len());
    for (name, value) in written {
        fields.push(format!("{}:{value}", json::compact(&name).map_err(unwritable)?));
    }
    Ok(format!("{{{}}}", fields.join(",")))
}

/// The entry of a step before the newest.
fn older_entry(link: &Link) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Entry<'a> {
        id: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        parent: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        comment: &'a str,
        created: Created,
        container_config: ContainerConfig<'a>,
        #[serde(skip_serializing_if = "str::is_empty")]
        author: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        throwaway: bool,
    }
    #[derive(Serialize)]
    struct ContainerConfig<'a> {
        #[serde(rename = "Cmd")]
        command: [&'a str; 1],
    }
    let Link { step, id, parent, is_empty, .. } = link;
    json::compact(&Entry {
        id,
        parent,
        comment: step.comment.as_deref().unwrap_or_default(),
        created: step.created.clone().unwrap_or_default(),
        container_config: ContainerConfig {
            command: [step.created_by.as_deref().unwrap_or_default()],
        },
        author: step.author.as_deref().unwrap_or_default(),
        throwaway: *is_empty,
    })
}

/// A schema 1 manifest without signatures, in the order in which it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    schema_version: u8,
    name: &'a str,
    tag: &'a str,
    architecture: &'a str,
    fs_layers: Vec<FsLayer<'a>>,
    history: Vec<History>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FsLayer<'a> {
    blob_sum: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct History {
    v1_compatibility: String,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn digest(content: &str) -> Digest {
        Digest::of(Algorithm::Sha256, content.as_bytes())
    }

    fn image(layers: &[&str]) -> Image {
        Image {
            config: digest("config"),
            layers: layers.iter().map(|layer| digest(layer)).collect(),
        }
    }

    fn convert(layers: &[&str], config: &str) -> Result<Converted, InvalidManifest> {
        let (name, tag) = ("a/b".parse().expect("a name"), "t".parse().expect("a tag"));
        image(layers).convert(config.as_bytes(), &name, &tag)
    }

    /// The entries of the history, the newest first.
    fn entries(converted: &Converted) -> Vec<String> {
        let payload: Value = serde_json::from_str(&converted.payload).expect("JSON");
        let history = payload["history"].as_array().expect("a list");
        let entry = |entry: &Value| entry["v1Compatibility"].as_str().expect("text").to_owned();
        history.iter().map(entry).collect()
    }

    #[test]
    fn an_image_is_written_newest_first_to_the_byte() {
        let config = r#"{"os": "linux", "architecture":"amd<64>", "rootfs":{"diff_ids":["x"]},
            "history":[{"created":"2016-01-02T03:04:05.60Z","created_by":"a & b","author":"me"},
            {"empty_layer":true}], "z": 1.50 , "id": "mine"}"#;
        let converted = convert(&["one"], config).expect("a manifest");
        assert!(converted.has_empty_layer);
        let (one, empty) = (digest("one"), empty_layer_digest());
        let first = hex_of(&format!("{} ", one.hex()));
        let second = hex_of(&format!("{} {first} {config}", empty.hex()));
        let newest = format!(
            r#"{{\"architecture\":\"amd\\u003c64\\u003e\",\"id\":\"{second}\",\"os\":\"linux\",\"parent\":\"{first}\",\"throwaway\":true,\"z\":1.50}}"#
        );
        let older = format!(
            r#"{{\"id\":\"{first}\",\"created\":\"2016-01-02T03:04:05.6Z\",\"container_config\":{{\"Cmd\":[\"a \\u0026 b\"]}},\"author\":\"me\"}}"#
        );
        let payload = format!(
            r#"{{
   "schemaVersion": 1,
   "name": "a/b",
   "tag": "t",
   "architecture": "amd\u003c64\u003e",
   "fsLayers": [
      {{
         "blobSum": "{empty}"
      }},
      {{
         "blobSum": "{one}"
      }}
   ],
   "history": [
      {{
         "v1Compatibility": "{newest}"
      }},
      {{
         "v1Compatibility": "{older}"
      }}
   ]
}}"#
        );
        assert_eq!(converted.payload, payload);
    }

    #[test]
    fn an_image_of_one_step_has_neither_parent_nor_empty_layer() {
        let config =
            r#"{"rootfs":{"diff_ids":["x"],"base_layer":"w"},"history":[{"comment":"c"}]}"#;
        let converted = convert(&["one"], config).expect("a manifest");
        assert!(!converted.has_empty_layer);
        let id = hex_of(&format!("{}  {config}", digest("one").hex()));
        assert_eq!(entries(&converted), [format!(r#"{{"id":"{id}"}}"#)]);
    }

    #[test]
    fn what_a_step_leaves_out_has_its_zero() {
        let config = r#"{"rootfs":{"diff_ids":["x","y"],"base_layer":null},
            "history":[{"created":null,"author":null,"comment":"","empty_layer":null},{}]}"#;
        let converted = convert(&["one", "two"], config).expect("a manifest");
        let id = hex_of(&format!("{} ", digest("one").hex()));
        let oldest = format!(
            r#"{{"id":"{id}","created":"0001-01-01T00:00:00Z","container_config":{{"Cmd":[""]}}}}"#
        );
        assert_eq!(entries(&converted)[1], oldest);
    }

    #[test]
    fn the_base_layer_of_windows_is_the_parent_of_the_oldest() {
        let config = json!({
            "rootfs": { "diff_ids": ["x", "y"], "base_layer": "windows" },
            "history": [{}, {}],
        });
        let converted = convert(&["one", "two"], &config.to_string()).expect("a manifest");
        let entries: Vec<Value> = entries(&converted)
            .iter()
            .map(|entry| serde_json::from_str(entry).expect("JSON"))
            .collect();
        assert_eq!(entries[1]["parent"], base_id("windows"));
        assert_eq!(entries[1]["id"], hex_of(&format!("{} ", digest("one").hex())));
        assert_eq!(entries[0]["parent"], entries[1]["id"]);
    }

    /// Each row: layers, a configuration, and the field of it that is complained of.
    #[test]
    fn a_configuration_that_is_none_is_named() {
        let root = |diff_ids: &[&str]| json!({ "diff_ids": diff_ids });
        let one: &[&str] = &["one"];
        for (layers, config, field) in [
            (one, json!([]), ""),
            (one, json!({}), "history"),
            (one, json!({ "history": [], "rootfs": root(one) }), "history"),
            (one, json!({ "history": null, "rootfs": root(one) }), "history"),
            (one, json!({ "history": {}, "rootfs": root(one) }), "history"),
            (one, json!({ "history": [{}] }), "rootfs"),
            (one, json!({ "history": [{}], "rootfs": {} }), "rootfs.diff_ids"),
            (one, json!({ "history": [{}], "rootfs": root(&["x", "y"]) }), "rootfs.diff_ids"),
            (one, json!({ "history": [{}, {}], "rootfs": root(one) }), "history"),
            (one, json!({ "history": [{ "empty_layer": true }], "rootfs": root(one) }), "history"),
            (
                one,
                json!({ "history": [{ "created": "now" }], "rootfs": root(one) }),
                "history[0].created",
            ),
            (
                one,
                json!({ "history": [{ "author": 5 }], "rootfs": root(one) }),
                "history[0].author",
            ),
            (one, json!({ "architecture": 5 }), "architecture"),
        ] {
            let refused = convert(layers, &config.to_string()).expect_err("must be refused");
            assert_eq!(refused.field, field, "{config} {refused}");
        }
        for config in
            [&b""[..], b"{", b"\xff", b"{\"history\":[{}],\"rootfs\":{\"diff_ids\":[]}} x"]
        {
            let (name, tag) = ("a".parse().expect("a name"), "t".parse().expect("a tag"));
            assert!(image(&[]).convert(config, &name, &tag).is_err(), "{config:?}");
        }
    }

    #[test]
    fn a_manifest_says_where_its_parts_are() {
        let descriptor = |content| json!({ "digest": digest(content).as_str() });
        let manifest = json!({
            "config": descriptor("config"),
            "layers": [descriptor("one"), descriptor("one"), descriptor("two")],
        });
        let parsed = Image::parse(manifest.to_string().as_bytes());
        assert_eq!(parsed, Ok(image(&["one", "one", "two"])));
        for (pointer, value) in [("/config/digest", json!("x")), ("/layers", json!(null))] {
            let mut manifest = manifest.clone();
            *manifest.pointer_mut(pointer).expect("a field") = value;
            assert!(Image::parse(manifest.to_string().as_bytes()).is_err());
        }
    }
}
