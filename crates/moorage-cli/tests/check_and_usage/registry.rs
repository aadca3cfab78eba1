//! A registry's bucket with a few images, and the program that is run on it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use moorage::oci::{Digest, Name};
use moorage::store::layout;
use moorage_test_support::bucket_folder::BucketFolder;
use moorage_test_support::digest_of;
use moorage_test_support::process::{output, tool};
use serde_json::{Value, json};
use tokio::process::Command;

/// Older than what may be on its way.
pub const OLD: Duration = Duration::from_secs(2 * 24 * 60 * 60);

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What `a` and `team/b` have: `a:1` of a configuration and a layer, which `team/b:1` has as well; and an index `a:multi` of
/// one image.
pub struct Registry {
    pub bucket: BucketFolder,
    pub layer: Digest,
    pub image: Digest,
    pub child: Digest,
    pub child_layer: Digest,
    pub signature: Digest,
}

pub fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn descriptor(media_type: &str, content: &str) -> Value {
    json!({ "mediaType": media_type, "digest": digest_of(content).as_str(), "size": content.len() })
}

fn image_of(layer: &str, subject: Option<&str>) -> String {
    let mut image = json!({ "schemaVersion": 2, "mediaType": IMAGE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", "{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)] });
    if let Some(subject) = subject {
        image["subject"] = descriptor(IMAGE, subject);
    }
    image.to_string()
}

impl Registry {
    pub fn new() -> Self {
        let bucket = BucketFolder::new();
        let put = |key: &layout::Key, content: &str| bucket.put(key.as_str(), content, OLD);
        let blob = |repository: &str, content: &str| {
            let digest = digest_of(content);
            put(&layout::content(&digest), content);
            put(&layout::blob_link(&name(repository), &digest), digest.as_str());
            digest
        };
        let manifest = |repository: &str, tag: Option<&str>, content: &str| {
            let (name, digest) = (name(repository), digest_of(content));
            put(&layout::content(&digest), content);
            put(&layout::manifest_link(&name, &digest), digest.as_str());
            if let Some(tag) = tag {
                let tag = tag.parse().expect("a tag");
                put(&layout::tag_history(&name, &tag, &digest), digest.as_str());
                put(&layout::tag_link(&name, &tag), digest.as_str());
            }
            digest
        };
        let one = image_of("the layer", None);
        for repository in ["a", "team/b"] {
            blob(repository, "{}");
            blob(repository, "the layer");
            manifest(repository, Some("1"), &one);
        }
        let child = image_of("a layer for ARM", None);
        let child_layer = blob("a", "a layer for ARM");
        manifest("a", None, &child);
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(IMAGE, &child)] });
        manifest("a", Some("multi"), &index.to_string());
        blob("a", "a signature");
        let signature = image_of("a signature", Some(&one));
        manifest("a", None, &signature);
        let entry = layout::referrer(&name("a"), &digest_of(&one), &digest_of(&signature));
        put(&entry, &descriptor(IMAGE, &signature).to_string());
        let (layer, image) = (digest_of("the layer"), digest_of(&one));
        let (child, signature) = (digest_of(&child), digest_of(&signature));
        Self { bucket, layer, image, child, child_layer, signature }
    }

    pub fn root(&self) -> &Path {
        self.bucket.root()
    }

    pub fn remove(&self, key: &layout::Key) {
        fs::remove_file(self.bucket.path(key.as_str())).expect("an object");
    }

    pub fn put(&self, key: &layout::Key, content: &str) {
        self.bucket.put(key.as_str(), content, OLD);
    }
}

/// What the program said.
#[derive(Debug)]
pub struct Outcome {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }

    pub fn document(&self) -> Value {
        serde_json::from_str(&self.stdout).expect("one document")
    }
}

/// Runs a command of the program on a store, with no environment.
pub async fn moorage(store: SocketAddr, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(tool("MOORAGE_CLI"));
    command.args(arguments).arg("--endpoint").arg(format!("http://{store}"));
    let output = output(command.env_clear()).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome {
        status: output.status.code(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}
