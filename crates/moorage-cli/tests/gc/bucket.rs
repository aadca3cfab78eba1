//! A bucket as a folder, of which it is known what is garbage; and the program at work on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, FileTimes};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use moorage::oci::{Algorithm, Digest, Name};
use moorage::store::Marker;
use moorage::store::layout::{self, Key};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use moorage_test_support::bucket_folder;
use moorage_test_support::process::{output, tool};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What should become of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Stays,
    Goes,
}

/// A bucket. What is written to it is a day and an hour old.
pub struct Bucket {
    pub root: TempDir,
    prefix: String,
    garbage: BTreeSet<String>,
}

impl Bucket {
    pub fn new() -> Self {
        let root = TempDir::new().expect("a temporary folder");
        fs::create_dir(root.path().join("registry")).expect("a folder");
        Self { root, prefix: String::new(), garbage: BTreeSet::new() }
    }

    /// Has what follows written below a folder of the bucket, which ends with a slash; for a registry of its own.
    pub fn below(&mut self, prefix: &str) {
        self.prefix = prefix.to_owned();
        self.garbage.clear();
    }

    /// The keys of what is garbage, in the registry that was written last.
    pub fn garbage(&self) -> BTreeSet<String> {
        self.garbage.clone()
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.path().join("registry").join(&self.prefix).join(key)
    }

    /// Stores an object.
    pub fn put(&mut self, key: &Key, content: impl AsRef<[u8]>, fate: Fate) {
        self.put_at(key.as_str(), content, fate);
    }

    /// Stores an object that no registry of ours would write.
    pub fn put_at(&mut self, key: &str, content: impl AsRef<[u8]>, fate: Fate) {
        let path = self.path(key);
        fs::create_dir_all(path.parent().expect("keys have folders")).expect("a folder");
        fs::write(&path, content).expect("a file");
        set_age(&path, Duration::from_secs(25 * 60 * 60));
        if fate == Fate::Goes {
            self.garbage.insert(key.to_owned());
        }
    }

    /// Makes an object as young as it is.
    pub fn rejuvenate(&self, key: &Key) {
        set_age(&self.path(key.as_str()), Duration::from_secs(23 * 60 * 60));
    }

    /// Stores content that no repository has by this.
    pub fn content(&mut self, content: impl AsRef<[u8]>, fate: Fate) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, content.as_ref());
        self.put(&layout::content(&digest), content, fate);
        digest
    }

    /// Puts a blob into a repository.
    pub fn link(&mut self, repository: &str, digest: &Digest, fate: Fate) {
        self.put(&layout::blob_link(&name(repository), digest), digest.as_str(), fate);
    }

    /// Stores a blob of a repository.
    pub fn blob(&mut self, repository: &str, content: &str, fate: Fate) -> Digest {
        let digest = self.content(content, fate);
        self.link(repository, &digest, fate);
        digest
    }

    /// Stores a manifest of a repository.
    pub fn manifest(&mut self, repository: &str, manifest: &Value, fate: Fate) -> Digest {
        self.manifest_of(repository, manifest.to_string().as_bytes(), fate)
    }

    /// Stores what stands in a manifest's place.
    pub fn manifest_of(&mut self, repository: &str, content: &[u8], fate: Fate) -> Digest {
        let digest = self.content(content, fate);
        self.put(&layout::manifest_link(&name(repository), &digest), digest.as_str(), fate);
        digest
    }

    /// Stores an image with a configuration and a layer of its own, named after `what`.
    pub fn image(&mut self, repository: &str, what: &str, fate: Fate) -> Digest {
        let image = self.image_json(repository, what, fate);
        self.manifest(repository, &image, fate)
    }

    /// Stores its blobs, and gives its manifest.
    pub fn image_json(&mut self, repository: &str, what: &str, fate: Fate) -> Value {
        let config = self.blob(repository, &format!("the configuration of {what}"), fate);
        let layer = self.blob(repository, &format!("the layer of {what}"), fate);
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
        })
    }

    /// Stores an artifact that refers to another, with the entry that says so.
    pub fn referrer(
        &mut self,
        repository: &str,
        subject: &Digest,
        what: &str,
        fate: Fate,
    ) -> Digest {
        let mut artifact = self.image_json(repository, what, fate);
        artifact["subject"] = descriptor(MANIFEST, subject);
        let digest = self.manifest(repository, &artifact, fate);
        let entry = descriptor(MANIFEST, &digest).to_string();
        self.put(&layout::referrer(&name(repository), subject, &digest), entry, fate);
        digest
    }

    /// Sets a tag.
    pub fn tag(&mut self, repository: &str, tag: &str, digest: &Digest) {
        let key = layout::tag_link(&name(repository), &tag.parse().expect("a tag"));
        self.put(&key, digest.as_str(), Fate::Stays);
        self.history(repository, tag, digest, Fate::Stays);
    }

    /// Notes that a tag pointed at a manifest.
    pub fn history(&mut self, repository: &str, tag: &str, digest: &Digest, fate: Fate) {
        let key = layout::tag_history(&name(repository), &tag.parse().expect("a tag"), digest);
        self.put(&key, digest.as_str(), fate);
    }

    /// The objects of the whole bucket.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let bucket = self.root.path().join("registry");
        let objects = bucket_folder::objects(&bucket).into_iter();
        objects.map(|(key, path)| (key, fs::read(path).expect("a file"))).collect()
    }

    /// The same, but for what collections keep for themselves.
    pub fn registry(&self) -> BTreeMap<String, Vec<u8>> {
        let mut objects = self.objects();
        objects.retain(|key, _| !key.starts_with(&format!("{}moorage/", self.prefix)));
        objects
    }

    /// Has the time go by that runs which died are waited for: their claims are old, their markers over. Gives how many
    /// markers there were.
    pub fn outlive_dead_runs(&self) -> usize {
        for claim in self.files(&layout::claims()) {
            set_age(&claim, Duration::from_secs(60 * 60));
        }
        let markers = self.files(&layout::markers());
        for path in &markers {
            let mut marker = Marker::parse(&fs::read(path).expect("a file")).expect("a marker");
            marker.until = Duration::from_secs(1);
            fs::write(path, marker.to_bytes()).expect("a file");
        }
        markers.len()
    }

    fn files(&self, folder: &Key) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path(folder.as_str())).into_iter().flatten();
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }
}

/// Panics with the keys whose objects differ.
#[track_caller]
pub fn assert_same(
    left: &BTreeMap<String, Vec<u8>>,
    right: &BTreeMap<String, Vec<u8>>,
    what: &str,
) {
    let keys = left.keys().chain(right.keys());
    let differences: BTreeSet<_> = keys.filter(|key| left.get(*key) != right.get(*key)).collect();
    assert!(differences.is_empty(), "{what}: {differences:?}");
}

pub fn name(name: &str) -> Name {
    name.parse().expect("a name")
}

pub fn descriptor(media_type: &str, digest: &Digest) -> Value {
    json!({ "mediaType": media_type, "digest": digest.as_str(), "size": 1 })
}

fn set_age(path: &Path, age: Duration) {
    let file = File::options().write(true).open(path).expect("a file");
    let modified = SystemTime::now() - age;
    file.set_times(FileTimes::new().set_modified(modified)).expect("its time is set");
}

/// How a run ended, and what it told.
#[derive(Debug)]
pub struct Outcome {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: Vec<String>,
}

impl Outcome {
    pub fn of(output: std::process::Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr);
        Self {
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: stderr.lines().map(str::to_owned).collect(),
        }
    }

    /// The JSON document that it printed.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The same, of a run with which nothing was wrong.
    pub fn clean(&self) -> Value {
        assert_eq!((self.status, self.stderr.len()), (Some(0), 0), "{self:?}");
        self.json()
    }
}

/// The program, about to run on a store, with nothing in its environment. Proxies are taken to remember no links.
pub fn command(store: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(tool("MOORAGE_CLI"));
    command.args(["gc", "--link-ttl", "0s", "--endpoint"]).arg(format!("http://{store}"));
    command.args(arguments).env_clear();
    command
}

/// Runs the program, which prints JSON.
pub async fn gc(store: SocketAddr, arguments: &[&str]) -> Outcome {
    Outcome::of(output(command(store, arguments).args(["--format", "json"])).await)
}

/// The keys of what a run's document says is, or was, garbage.
pub fn keys(document: &Value) -> BTreeSet<String> {
    let things = document["garbage"].as_array().expect("a list");
    things.iter().map(|thing| thing["key"].as_str().expect("a key").to_owned()).collect()
}
