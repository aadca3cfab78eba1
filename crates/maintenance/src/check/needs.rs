//! What a stored manifest needs to be there for a pull, and how large that is.
//!
//! [`References`] decides what it refers to. What its descriptors say besides is taken where it makes sense: who looks for
//! what is broken must not stop at a size that is no number.

use std::collections::HashMap;

use moorage::oci::Digest;
use moorage::oci::manifest::FOREIGN_LAYERS;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::references::References;

/// How something is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NeedKind {
    /// As a blob: every pull gets it.
    Blob,
    /// As a layer that clients get from elsewhere if it is not here.
    Elsewhere,
    /// As an entry of an index, a manifest or a blob: whoever pulls another platform does not miss it.
    Child,
}

/// Something that a manifest refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// Its digest.
    pub digest: Digest,
    /// How it is needed.
    pub kind: NeedKind,
    /// Its size in bytes, if the manifest says it.
    pub size: Option<u64>,
}

/// What a manifest needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// What it refers to; a digest stands several times if the sizes of its descriptors differ.
    pub all: Vec<Need>,
    /// The manifest that it is about, which need not be there.
    pub subject: Option<Digest>,
}

#[derive(Default, Deserialize)]
struct Fields {
    config: Option<Lenient<Descriptor>>,
    layers: Option<Lenient<Vec<Lenient<Descriptor>>>>,
    manifests: Option<Lenient<Vec<Lenient<Descriptor>>>>,
    blobs: Option<Lenient<Vec<Lenient<Descriptor>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    size: Option<Lenient<u64>>,
    media_type: Option<Lenient<String>>,
    urls: Option<Lenient<Vec<String>>>,
}

/// What makes sense, or anything else.
#[derive(Deserialize)]
#[serde(untagged)]
enum Lenient<T> {
    Sense(T),
    Nonsense(IgnoredAny),
}

impl<T> Lenient<T> {
    fn sense(self) -> Option<T> {
        match self {
            Self::Sense(value) => Some(value),
            Self::Nonsense(_) => None,
        }
    }
}

impl Needs {
    /// Reads a stored manifest.
    ///
    /// # Errors
    ///
    /// Why it can't be told what it needs.
    pub fn of(content: &[u8]) -> Result<Self, String> {
        let References { is_index, digests, subject } = References::of(content)?;
        let described = described(content);
        let mut all = Vec::with_capacity(digests.len());
        for digest in digests {
            let descriptors = described.get(&digest).map_or(&[][..], Vec::as_slice);
            let is_elsewhere = !descriptors.is_empty()
                && descriptors.iter().all(|descriptor| descriptor.is_kept_elsewhere);
            let kind = match (is_index, is_elsewhere) {
                (true, _) => NeedKind::Child,
                (false, true) => NeedKind::Elsewhere,
                (false, false) => NeedKind::Blob,
            };
            let mut sizes: Vec<_> = descriptors.iter().filter_map(|known| known.size).collect();
            sizes.sort_unstable();
            sizes.dedup();
            let of_size = |size| Need { digest: digest.clone(), kind, size };
            match sizes.is_empty() {
                true => all.push(of_size(None)),
                false => all.extend(sizes.into_iter().map(|size| of_size(Some(size)))),
            }
        }
        Ok(Self { all, subject })
    }
}

/// What a descriptor says.
struct Described {
    size: Option<u64>,
    is_kept_elsewhere: bool,
}

/// The descriptors that make sense, by what they describe.
fn described(content: &[u8]) -> HashMap<Digest, Vec<Described>> {
    let fields: Fields = serde_json::from_slice(content).unwrap_or_default();
    let lists = [fields.layers, fields.manifests, fields.blobs].into_iter().flatten();
    let listed = lists.filter_map(Lenient::sense).flatten();
    let all = listed.chain(fields.config).filter_map(Lenient::sense);
    let mut described: HashMap<_, Vec<_>> = HashMap::new();
    for (digest, descriptor) in all.filter_map(Descriptor::described) {
        described.entry(digest).or_default().push(descriptor);
    }
    described
}

impl Descriptor {
    fn described(self) -> Option<(Digest, Described)> {
        let media_type = self.media_type.and_then(Lenient::sense);
        let is_foreign = media_type.is_some_and(|name| FOREIGN_LAYERS.contains(&name.as_str()));
        let has_urls = self.urls.and_then(Lenient::sense).is_some_and(|urls| !urls.is_empty());
        let size = self.size.and_then(Lenient::sense);
        let described = Described { size, is_kept_elsewhere: is_foreign && has_urls };
        Some((self.digest.parse().ok()?, described))
    }
}

#[cfg(test)]
mod tests {
    use moorage::oci::Algorithm;
    use serde_json::{Value, json};

    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    fn descriptor(text: &str, more: Value) -> Value {
        let mut descriptor = json!({ "mediaType": "application/octet-stream", "digest": digest(text).as_str(), "size": 1 });
        for (name, value) in more.as_object().expect("fields") {
            descriptor[name] = value.clone();
        }
        descriptor
    }

    fn needs(manifest: &Value) -> Vec<Need> {
        Needs::of(manifest.to_string().as_bytes()).expect("a manifest").all
    }

    fn expected(rows: &[(&str, NeedKind, Option<u64>)]) -> Vec<Need> {
        let need = |&(text, kind, size): &(&str, _, _)| Need { digest: digest(text), kind, size };
        let mut needs: Vec<_> = rows.iter().map(need).collect();
        needs.sort_unstable();
        needs
    }

    #[test]
    fn layers_that_are_elsewhere_need_not_be_here() {
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        let urls = json!(["https://example.org/layer"]);
        let manifest = json!({ "schemaVersion": 2, "config": descriptor("c", json!({ "size": 7 })), "layers": [
            descriptor("plain", json!({})),
            descriptor("foreign", json!({ "mediaType": foreign, "urls": urls })),
            descriptor("no urls", json!({ "mediaType": foreign, "urls": [] })),
            descriptor("no type", json!({ "urls": urls })),
            descriptor("both", json!({ "mediaType": foreign, "urls": urls })),
            descriptor("both", json!({})),
        ] });
        assert_eq!(
            needs(&manifest),
            expected(&[
                ("c", NeedKind::Blob, Some(7)),
                ("plain", NeedKind::Blob, Some(1)),
                ("foreign", NeedKind::Elsewhere, Some(1)),
                ("no urls", NeedKind::Blob, Some(1)),
                ("no type", NeedKind::Blob, Some(1)),
                ("both", NeedKind::Blob, Some(1)),
            ])
        );
    }

    #[test]
    fn an_index_has_children_and_schema_1_no_sizes() {
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor("m", json!({})), descriptor("m", json!({ "size": 2 }))] });
        assert_eq!(
            needs(&index),
            expected(&[("m", NeedKind::Child, Some(1)), ("m", NeedKind::Child, Some(2))])
        );
        let schema1 =
            json!({ "schemaVersion": 1, "fsLayers": [{ "blobSum": digest("a").as_str() }] });
        assert_eq!(needs(&schema1), expected(&[("a", NeedKind::Blob, None)]));
    }

    #[test]
    fn what_makes_no_sense_in_a_descriptor_says_nothing() {
        for size in [json!("1"), json!(-1), json!(1.5), json!(null), json!([]), json!({})] {
            let odd = json!({ "size": size, "mediaType": 3, "urls": "x" });
            let manifest = json!({ "schemaVersion": 2, "config": descriptor("c", odd) });
            assert_eq!(needs(&manifest), expected(&[("c", NeedKind::Blob, None)]), "{size}");
        }
        let twice = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":1,"size":2}}}}"#,
            digest("c")
        );
        let needs = Needs::of(twice.as_bytes()).expect("a manifest").all;
        assert_eq!(needs, expected(&[("c", NeedKind::Blob, None)]));
    }
}
