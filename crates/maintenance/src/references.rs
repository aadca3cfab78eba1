//! What a stored manifest refers to, for those who must not overlook anything.
//!
//! [`moorage::oci::manifest`] reads what a client pushes, and refuses what makes no sense. Here it is too late for that: a
//! manifest is as it is. All that its descriptors name counts, whatever its type lets it have; content of which it is not
//! clear what it refers to is none that can be read, and whoever removes things then leaves alone all that it may refer to.

use moorage::oci::manifest::media_type_of;
use moorage::oci::{Digest, MediaType};
use serde::Deserialize;

/// What a manifest refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct References {
    /// Whether it is an index: what it refers to may be manifests or blobs. Others refer to blobs.
    pub is_index: bool,
    /// What it needs, each once, in no order. Layers that may be elsewhere are among them.
    pub digests: Vec<Digest>,
    /// The manifest that it is about, which need not be there.
    pub subject: Option<Digest>,
}

/// Everything in which a manifest names others.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    blobs: Option<Vec<Descriptor>>,
    fs_layers: Option<Vec<FsLayer>>,
    subject: Option<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FsLayer {
    blob_sum: String,
}

impl References {
    /// Reads a stored manifest.
    ///
    /// # Errors
    ///
    /// Why it can't be told what it refers to.
    pub fn of(content: &[u8]) -> Result<Self, String> {
        let media_type = media_type_of(content).map_err(|error| error.to_string())?;
        let fields: Fields = serde_json::from_slice(content).map_err(|error| error.to_string())?;
        let descriptors =
            [fields.layers, fields.manifests, fields.blobs].into_iter().flatten().flatten();
        let descriptors = descriptors.chain(fields.config).map(|descriptor| descriptor.digest);
        let layers = fields.fs_layers.into_iter().flatten().map(|layer| layer.blob_sum);
        let digests = descriptors.chain(layers).map(|text| parse(&text));
        let mut digests = digests.collect::<Result<Vec<_>, _>>()?;
        digests.sort_unstable();
        digests.dedup();
        Ok(Self {
            is_index: matches!(media_type, MediaType::OciIndex | MediaType::DockerManifestList),
            digests,
            subject: fields.subject.map(|subject| parse(&subject.digest)).transpose()?,
        })
    }
}

fn parse(text: &str) -> Result<Digest, String> {
    text.parse().map_err(|error| format!("it refers to {text:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use moorage::oci::Algorithm;
    use serde_json::{Value, json};

    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    fn descriptor(text: &str) -> Value {
        json!({ "mediaType": "application/octet-stream", "digest": digest(text).as_str(), "size": 1 })
    }

    #[test]
    fn all_that_a_manifest_names_counts() {
        let foreign = json!({
            "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "digest": digest("foreign").as_str(), "size": 1, "urls": ["https://example.org/layer"],
        });
        for (manifest, is_index, expected, subject) in [
            (
                json!({ "schemaVersion": 2, "config": descriptor("c"), "layers": [descriptor("l"), descriptor("l"), foreign] }),
                false,
                vec!["c", "foreign", "l"],
                None,
            ),
            (
                json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
                    "manifests": [descriptor("m")], "subject": descriptor("s") }),
                true,
                vec!["m"],
                Some("s"),
            ),
            (
                json!({ "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
                    "manifests": [descriptor("m")] }),
                true,
                vec!["m"],
                None,
            ),
            (
                json!({ "schemaVersion": 1, "fsLayers": [{ "blobSum": digest("a").as_str() }, { "blobSum": digest("a").as_str() }] }),
                false,
                vec!["a"],
                None,
            ),
            (
                json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "config": descriptor("c"), "layers": null, "blobs": [descriptor("b")] }),
                false,
                vec!["b", "c"],
                None,
            ),
        ] {
            let found = References::of(manifest.to_string().as_bytes()).expect("references");
            let mut expected: Vec<_> = expected.into_iter().map(digest).collect();
            expected.sort_unstable();
            assert_eq!(
                found,
                References { is_index, digests: expected, subject: subject.map(digest) }
            );
        }
    }

    #[test]
    fn what_may_refer_to_anything_is_not_read_as_referring_to_nothing() {
        for content in [
            "".to_owned(),
            "[]".to_owned(),
            json!({ "mediaType": "application/vnd.oci.artifact.manifest.v1+json", "blobs": [descriptor("b")] }).to_string(),
            json!({ "schemaVersion": 3, "layers": [descriptor("l")] }).to_string(),
            json!({ "schemaVersion": 2, "layers": [{ "digest": "blake3:00" }] }).to_string(),
            json!({ "schemaVersion": 2, "layers": [{ "size": 1 }] }).to_string(),
            json!({ "schemaVersion": 2, "layers": { "0": descriptor("l") } }).to_string(),
            json!({ "schemaVersion": 2, "layers": [], "subject": { "digest": 1 } }).to_string(),
        ] {
            assert!(References::of(content.as_bytes()).is_err(), "{content}");
        }
    }
}
