//! A registry's bucket with images of all ages, and the program that is run on it.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use moorage::oci::{Digest, Name, Tag};
use moorage::store::layout;
use moorage_test_support::bucket_folder::BucketFolder;
use moorage_test_support::digest_of;
use moorage_test_support::process::{output, tool};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A bucket, and files beside it.
#[derive(Clone)]
pub struct Registry {
    bucket: Arc<BucketFolder>,
    files: Arc<TempDir>,
}

impl Registry {
    pub fn new() -> Self {
        let files = TempDir::new().expect("a temporary folder");
        Self { bucket: Arc::new(BucketFolder::new()), files: Arc::new(files) }
    }

    pub fn root(&self) -> &Path {
        self.bucket.root()
    }

    pub fn keys(&self) -> BTreeSet<String> {
        self.bucket.keys()
    }

    /// All tags there are, as `repository:tag`.
    pub fn tags(&self) -> BTreeSet<String> {
        let tag = |key: &String| {
            let rest = key.strip_prefix("docker/registry/v2/repositories/")?;
            let rest = rest.strip_suffix("/current/link")?;
            Some(rest.replacen("/_manifests/tags/", ":", 1))
        };
        self.keys().iter().filter_map(tag).collect()
    }

    /// A file beside the bucket.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.files.path().join(name);
        fs::write(&path, content).expect("a file");
        path
    }

    /// Stores an image that no other equals, tagged so long ago.
    pub fn image(&self, repository: &str, tag: &str, age: Duration) -> Digest {
        let digest = self.manifest(repository, &image_of(&format!("{repository}:{tag}")));
        self.tag(repository, tag, &digest, age);
        digest
    }

    /// Stores an index of these manifests.
    pub fn index(&self, repository: &str, manifests: &[&Digest]) -> Digest {
        let entry = |digest: &&Digest| json!({ "mediaType": IMAGE, "digest": digest.to_string(), "size": 2 });
        let entries: Vec<_> = manifests.iter().map(entry).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
        self.manifest(repository, &index.to_string())
    }

    /// Stores a manifest.
    pub fn manifest(&self, repository: &str, content: &str) -> Digest {
        let digest = digest_of(content);
        let name = name(repository);
        self.bucket.put(layout::content(&digest).as_str(), content, DAY * 100);
        let link = layout::manifest_link(&name, &digest);
        self.bucket.put(link.as_str(), digest.as_str(), DAY * 100);
        digest
    }

    /// Points a tag at a manifest, as of so long ago.
    pub fn tag(&self, repository: &str, tag: &str, digest: &Digest, age: Duration) {
        let (name, tag): (_, Tag) = (name(repository), tag.parse().expect("a tag"));
        let history = layout::tag_history(&name, &tag, digest);
        self.bucket.put(history.as_str(), digest.as_str(), age);
        self.bucket.put(layout::tag_link(&name, &tag).as_str(), digest.as_str(), age);
    }

    /// Notes that a manifest refers to another.
    pub fn referrer(&self, repository: &str, subject: &Digest, digest: &Digest) {
        let key = layout::referrer(&name(repository), subject, digest);
        self.bucket.put(key.as_str(), "{}", DAY);
    }

    /// Attaches something to a manifest by a tag that ends so; gives its digest and the tag.
    pub fn attach(&self, repository: &str, subject: &Digest, end: &str) -> (Digest, String) {
        let tag = format!("{}{end}", subject.as_str().replacen(':', "-", 1));
        let digest = self.manifest(repository, &image_of(&tag));
        self.tag(repository, &tag, &digest, DAY * 2);
        (digest, tag)
    }

    /// Removes an object.
    pub fn remove(&self, key: &str) {
        fs::remove_file(self.bucket.path(key)).expect("an object");
    }

    /// Stores an object that was written just now.
    pub fn put(&self, key: &str, content: &str) {
        self.bucket.put(key, content, Duration::ZERO);
    }
}

/// An image that is told apart by this text.
pub fn image_of(text: &str) -> String {
    let config = json!({ "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": digest_of(text).to_string(), "size": text.len() });
    json!({ "schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [] }).to_string()
}

pub fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// What the program said.
pub struct Outcome {
    pub status: Option<i32>,
    pub stdout: Vec<String>,
    pub stderr: Vec<String>,
}

impl Outcome {
    /// The tags of which a line tells this.
    pub fn told(&self, outcome: &str) -> BTreeSet<String> {
        let lines = self.stdout.iter().filter_map(|line| line.strip_prefix(outcome));
        let tags = lines.filter_map(|rest| rest.strip_prefix(' ')?.split_whitespace().next());
        tags.map(str::to_owned).collect()
    }

    /// Why, in the line about this tag.
    pub fn why(&self, tag: &str) -> &str {
        let line = self.stdout.iter().find_map(|line| line.split_once(&format!(" {tag}  ")));
        line.unwrap_or_else(|| panic!("nothing about {tag} in {:?}", self.stdout)).1
    }
}

/// Runs the program with this policy, unless the arguments name another, and with no environment.
pub async fn retain(
    store: SocketAddr,
    registry: &Registry,
    policy: &str,
    arguments: &[&str],
) -> Outcome {
    let mut command = Command::new(tool("MOORAGE_CLI"));
    command.args(["retain", "--endpoint"]).arg(format!("http://{store}")).args(arguments);
    if !arguments.contains(&"--policy") {
        command.arg("--policy").arg(registry.file("policy.yaml", policy));
    }
    let output = output(command.env_clear()).await;
    let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
    Outcome {
        status: output.status.code(),
        stdout: lines(&output.stdout),
        stderr: lines(&output.stderr),
    }
}
