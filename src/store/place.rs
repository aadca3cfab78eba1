//! What an object is, by its key: the reverse of [`layout`](super::layout), for those who look at a whole bucket.

use super::layout::Key;
use crate::oci::{Digest, Name, Tag};

/// What the object of a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Content under its digest.
    Content(Digest),
    /// That a repository has a blob.
    BlobLink(Name, Digest),
    /// That a repository has a manifest.
    ManifestLink(Name, Digest),
    /// The link of a tag.
    Tag(Name, Tag),
    /// That a tag points, or pointed, at a manifest.
    TagHistory(Name, Tag, Digest),
    /// That a manifest refers to a subject.
    Referrer {
        /// The repository.
        name: Name,
        /// The subject.
        subject: Digest,
        /// The manifest.
        digest: Digest,
    },
    /// Something of an upload session.
    Upload(Name),
}

impl Place {
    /// Reads a key; `None` for one that no registry wrote, or that is none of the registry's, such as those below
    /// `moorage/`.
    pub fn of(key: &Key) -> Option<Self> {
        let key = key.as_str().strip_prefix("docker/registry/v2/")?;
        if let Some(content) = key.strip_prefix("blobs/") {
            return content_of(content).map(Self::Content);
        }
        let rest = key.strip_prefix("repositories/")?;
        // No part of a name begins so.
        let (name, own) = rest.split_at(rest.find("/_")?);
        let name: Name = name.parse().ok()?;
        let own = &own[1..];
        if own.starts_with("_uploads/") {
            return Some(Self::Upload(name));
        }
        if let Some(link) = own.strip_prefix("_layers/") {
            return Some(Self::BlobLink(name, linked(link)?));
        }
        let manifests = own.strip_prefix("_manifests/")?;
        if let Some(link) = manifests.strip_prefix("revisions/") {
            return Some(Self::ManifestLink(name, linked(link)?));
        }
        if let Some(referrer) = manifests.strip_prefix("referrers/") {
            let (algorithm, rest) = referrer.split_once('/')?;
            let (hex, link) = rest.split_once('/')?;
            let subject = digest(algorithm, hex)?;
            return Some(Self::Referrer { name, subject, digest: linked(link)? });
        }
        let (tag, rest) = manifests.strip_prefix("tags/")?.split_once('/')?;
        let tag: Tag = tag.parse().ok()?;
        match rest.strip_prefix("index/") {
            Some(link) => Some(Self::TagHistory(name, tag, linked(link)?)),
            None => (rest == "current/link").then_some(Self::Tag(name, tag)),
        }
    }
}

/// The digest of `<algorithm>/<first two hex>/<hex>/data`.
fn content_of(rest: &str) -> Option<Digest> {
    let (algorithm, rest) = rest.split_once('/')?;
    let (folder, rest) = rest.split_once('/')?;
    let hex = rest.strip_suffix("/data")?;
    if !hex.starts_with(folder) || folder.len() != 2 {
        return None;
    }
    digest(algorithm, hex)
}

/// The digest of `<algorithm>/<hex>/link`.
fn linked(rest: &str) -> Option<Digest> {
    let (algorithm, hex) = rest.strip_suffix("/link")?.split_once('/')?;
    digest(algorithm, hex)
}

fn digest(algorithm: &str, hex: &str) -> Option<Digest> {
    format!("{algorithm}:{hex}").parse().ok()
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::oci::{Algorithm, UploadId};
    use crate::store::layout;

    #[test]
    fn a_key_is_read_as_what_it_was_made_of() {
        let name: Name = "a/b".parse().expect("a name");
        let tag: Tag = "_index".parse().expect("a tag");
        let id = UploadId::from_random(0);
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Digest::of(algorithm, b"x");
            let subject = Digest::of(Algorithm::Sha256, b"subject");
            for (key, place) in [
                (layout::content(&digest), Place::Content(digest.clone())),
                (layout::blob_link(&name, &digest), Place::BlobLink(name.clone(), digest.clone())),
                (
                    layout::manifest_link(&name, &digest),
                    Place::ManifestLink(name.clone(), digest.clone()),
                ),
                (layout::tag_link(&name, &tag), Place::Tag(name.clone(), tag.clone())),
                (
                    layout::tag_history(&name, &tag, &digest),
                    Place::TagHistory(name.clone(), tag.clone(), digest.clone()),
                ),
                (
                    layout::referrer(&name, &subject, &digest),
                    Place::Referrer { name: name.clone(), subject, digest: digest.clone() },
                ),
                (layout::upload_start(&name, &id), Place::Upload(name.clone())),
            ] {
                let listed = Key::listed(key.as_str()).expect("a key");
                assert_eq!(Place::of(&listed), Some(place));
            }
        }
    }

    #[test]
    fn other_keys_are_nothing() {
        let hex = "0".repeat(64);
        let root = "docker/registry/v2";
        for key in [
            "moorage/gc/condemned".to_owned(),
            format!("{root}/blobs/sha256/01/{hex}/data"),
            format!("{root}/blobs/sha256/00/{hex}/startedat"),
            format!("{root}/blobs/md5/00/{hex}/data"),
            format!("{root}/repositories/a/_layers/sha256/{hex}"),
            format!("{root}/repositories/a/_layers/sha256/{}/link", &hex[1..]),
            format!("{root}/repositories/A/_layers/sha256/{hex}/link"),
            format!("{root}/repositories/_layers/sha256/{hex}/link"),
            format!("{root}/repositories/a/_manifests/tags/t/current"),
            format!("{root}/repositories/a/_manifests/tags/-/current/link"),
            format!("{root}/repositories/a/_manifests/revisions/sha256/{hex}/signatures/x"),
            format!("{root}/repositories/a/data"),
        ] {
            assert_eq!(Place::of(&Key::of(&key)), None, "{key}");
        }
    }
}
