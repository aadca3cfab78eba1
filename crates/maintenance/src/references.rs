//! What a stored manifest refers to, for those who must not overlook anything.
//!
//! [`moorage::oci::manifest`] reads what a client pushes, and refuses what makes no sense. Here it is too late for that: a
//! manifest is as it is. All that its descriptors name counts, whatever its type lets it have; content of which it is not
//! clear what it refers to is none that can be read, and whoever removes things then leaves alone all that it may refer to.
//!
//! What a type has no use for is no reason not to read it: registries take anything there, and a client could keep a
//! repository from being looked after by one manifest.

use std::collections::BTreeMap;

use moorage::oci::manifest::media_type_of;
use moorage::oci::{Digest, MediaType};
use serde::Deserialize;
use serde_json::value::RawValue;

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

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FsLayer {
    blob_sum: String,
}

/// The fields of a manifest, unread. Of one that stands twice the last counts, as everywhere.
type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// Every field in which a manifest may name others, but for the subject.
const REFERRING: [&str; 5] = ["config", "layers", "manifests", "blobs", "fsLayers"];

impl References {
    /// Reads a stored manifest.
    ///
    /// # Errors
    ///
    /// Why it can't be told what it refers to.
    pub fn of(content: &[u8]) -> Result<Self, String> {
        let media_type = media_type_of(content).map_err(|error| error.to_string())?;
        let fields: Fields<'_> =
            serde_json::from_slice(content).map_err(|error| error.to_string())?;
        let needed = fields_of(media_type);
        let mut digests = Vec::new();
        for name in REFERRING {
            match read(&fields, name) {
                Ok(found) => digests.extend(found),
                Err(why) if needed.contains(&name) => return Err(why),
                Err(_) => {}
            }
        }
        digests.sort_unstable();
        digests.dedup();
        let subject = match read(&fields, "subject") {
            Ok(subject) => subject.into_iter().next(),
            Err(why) if needed.contains(&"subject") => return Err(why),
            Err(_) => None,
        };
        Ok(Self {
            is_index: matches!(media_type, MediaType::OciIndex | MediaType::DockerManifestList),
            digests,
            subject,
        })
    }
}

/// The fields by which a manifest of this type refers to others.
fn fields_of(media_type: MediaType) -> &'static [&'static str] {
    match media_type {
        MediaType::OciManifest | MediaType::DockerManifest => &["config", "layers", "subject"],
        MediaType::OciIndex | MediaType::DockerManifestList => &["manifests", "subject"],
        MediaType::DockerSchema1 | MediaType::DockerSchema1Signed => &["fsLayers"],
    }
}

/// The digests that a field names; none if it is not there.
fn read(fields: &Fields<'_>, name: &str) -> Result<Vec<Digest>, String> {
    let texts = match name {
        "config" | "subject" => {
            value::<Descriptor>(fields, name)?.into_iter().map(digest).collect()
        }
        "fsLayers" => {
            let layers = value::<Vec<FsLayer>>(fields, name)?.into_iter().flatten();
            layers.map(|layer| layer.blob_sum).collect::<Vec<_>>()
        }
        _ => {
            let descriptors = value::<Vec<Descriptor>>(fields, name)?.into_iter().flatten();
            descriptors.map(digest).collect()
        }
    };
    texts.iter().map(|text| parse(text)).collect()
}

fn digest(descriptor: Descriptor) -> String {
    descriptor.digest
}

/// The value of a field; `None` where it is not there, or null.
fn value<'a, T: Deserialize<'a>>(fields: &Fields<'a>, name: &str) -> Result<Option<T>, String> {
    let Some(value) = fields.get(name) else {
        return Ok(None);
    };
    serde_json::from_str(value.get()).map_err(|error| format!("{name}: {error}"))
}

fn parse(text: &str) -> Result<Digest, String> {
    text.parse().map_err(|error| format!("it refers to {text:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use moorage::oci::Algorithm;
    use moorage::oci::manifest::{Dependency, ParsedManifest};
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

    /// Whatever a client may push can be read, and refers to all that had to be there.
    #[test]
    fn what_the_registry_takes_can_be_read() {
        let image = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("c"), "layers": [descriptor("l")] });
        let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor("m")] });
        let hostile = [
            json!(null),
            json!(5),
            json!([]),
            json!({}),
            json!([5]),
            json!([{}]),
            json!([{ "digest": "x" }]),
            json!({ "digest": "x" }),
            json!(descriptor("x")),
            json!([["application/octet-stream", digest("x").as_str(), 1, null]]),
            json!(["application/octet-stream", digest("x").as_str(), 1, null]),
            json!([{ "digest": digest("x").as_str(), "size": 1, "urls": ["u"] }]),
        ];
        let fields = ["config", "layers", "manifests", "blobs", "fsLayers", "subject", "history"];
        let mut taken = 0;
        for base in [image, index] {
            for (field, value) in
                fields.iter().flat_map(|field| hostile.iter().map(move |v| (field, v)))
            {
                let mut manifest = base.clone();
                manifest[field] = value.clone();
                let content = manifest.to_string();
                let Ok(pushed) = ParsedManifest::parse(content.as_bytes(), None) else {
                    continue;
                };
                taken += 1;
                let found = References::of(content.as_bytes());
                let found = found.unwrap_or_else(|why| panic!("{content}: {why}"));
                let is_found = |d: &Dependency| found.digests.contains(d.digest());
                assert!(pushed.dependencies.iter().all(is_found), "{content}");
                assert_eq!(found.subject, pushed.subject, "{content}");
            }
        }
        assert!(taken >= 30, "{taken} are taken");
        // Of schema 1 the registry reads nothing but the layers.
        for (field, value) in
            fields.iter().flat_map(|field| hostile.iter().map(move |v| (field, v)))
        {
            let mut manifest =
                json!({ "schemaVersion": 1, "fsLayers": [{ "blobSum": digest("a").as_str() }] });
            if *field != "fsLayers" {
                manifest[field] = value.clone();
            }
            let found = References::of(manifest.to_string().as_bytes());
            assert!(found.is_ok_and(|found| found.digests.contains(&digest("a"))), "{manifest}");
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
