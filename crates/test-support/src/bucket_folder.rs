//! A bucket as the folder that the local blob store keeps it in, for tests in which the age of objects matters.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

/// A folder with the bucket `registry`. It goes when this is dropped.
pub struct BucketFolder {
    root: TempDir,
}

impl BucketFolder {
    /// An empty bucket.
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        let root = TempDir::new().expect("a temporary folder");
        fs::create_dir(root.path().join("registry")).expect("a folder");
        Self { root }
    }

    /// The folder that all buckets lie in.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The file of an object.
    pub fn path(&self, key: &str) -> PathBuf {
        self.root.path().join("registry").join(key)
    }

    /// Stores an object that is so old.
    pub fn put(&self, key: &str, content: impl AsRef<[u8]>, age: Duration) {
        let path = self.path(key);
        fs::create_dir_all(path.parent().expect("keys have folders")).expect("a folder");
        fs::write(&path, content).expect("a file");
        set_age(&path, age);
    }

    /// The keys of all objects.
    pub fn keys(&self) -> BTreeSet<String> {
        objects(&self.path("")).into_keys().collect()
    }
}

/// The files of all objects below a bucket's folder, by their keys.
pub fn objects(bucket: &Path) -> BTreeMap<String, PathBuf> {
    let (mut objects, mut folders) = (BTreeMap::new(), vec![bucket.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let key = path.strip_prefix(bucket).expect("a path in the bucket");
            let key = key.to_str().expect("a key is text").to_owned();
            objects.insert(key, path);
        }
    }
    objects
}

/// Makes a file so old.
pub fn set_age(path: &Path, age: Duration) {
    let file = File::options().write(true).open(path).expect("a file");
    let times = FileTimes::new().set_modified(SystemTime::now() - age);
    file.set_times(times).expect("its time is set");
}
