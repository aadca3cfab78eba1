//! A bucket's content, written by hand: what some registry could have left there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use moorage::oci::{Algorithm, Digest, Name, Tag};
use moorage::store::layout::{self, Key};

/// Objects by their keys.
#[derive(Clone, Default)]
pub struct Tree {
    pub objects: BTreeMap<String, Bytes>,
}

impl Tree {
    /// Stores an object.
    pub fn put(&mut self, key: &Key, bytes: impl Into<Bytes>) {
        self.objects.insert(key.as_str().to_owned(), bytes.into());
    }

    /// Stores a manifest of a repository, tagged.
    pub fn put_manifest(&mut self, name: &str, tag: &str, content: &'static [u8]) -> Digest {
        let name: Name = name.parse().expect("a valid name");
        let tag: Tag = tag.parse().expect("a valid tag");
        let digest = Digest::of(Algorithm::Sha256, content);
        self.put(&layout::content(&digest), content);
        self.put(&layout::manifest_link(&name, &digest), digest.to_string());
        self.put(&layout::tag_link(&name, &tag), digest.to_string());
        digest
    }

    /// Points a tag at a manifest.
    pub fn tag(&mut self, name: &str, tag: &str, digest: &Digest) {
        let name: Name = name.parse().expect("a valid name");
        let tag: Tag = tag.parse().expect("a valid tag");
        self.put(&layout::tag_link(&name, &tag), digest.to_string());
    }

    /// Stores a blob of a repository.
    pub fn put_blob(&mut self, name: &str, content: &'static [u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content);
        self.put(&layout::content(&digest), content);
        self.link_blob(name, &digest);
        digest
    }

    /// Links a blob in a repository.
    pub fn link_blob(&mut self, name: &str, digest: &Digest) {
        let name: Name = name.parse().expect("a valid name");
        self.put(&layout::blob_link(&name, digest), digest.to_string());
    }

    /// Writes all objects as files below the folder `bucket`.
    pub fn write_to(&self, bucket: &Path) {
        for (key, bytes) in &self.objects {
            let path = bucket.join(key);
            fs::create_dir_all(path.parent().expect("keys have folders")).expect("a folder");
            fs::write(path, bytes).expect("a file");
        }
    }
}
