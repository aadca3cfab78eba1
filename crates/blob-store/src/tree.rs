//! The files: names that are paths, objects that appear whole, and conditions that are checked in one step with the
//! rename or the removal.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use s3s::dto::{ETag, ETagCondition};
use s3s::{S3Error, S3Result, s3_error};

use crate::folders::Folders;
use crate::object::{CHUNK, Content, Object, copy_range, etag_of, slice};

/// The folder of all buckets.
pub struct Tree {
    root: PathBuf,
    /// Where objects are written before they get their name. No bucket name starts with a dot.
    staging: PathBuf,
    pub uploads: PathBuf,
    /// With the counter, a name that no other start of a store on this folder gives.
    start: String,
    counter: AtomicU64,
    /// Held while names change: conditions and renames, and folders that come and go with them.
    names: Mutex<()>,
    pub folders: Folders,
}

impl Tree {
    /// The folder `root`, which is made if it is not there.
    pub fn open(root: &Path) -> io::Result<Self> {
        let private = root.join(".blob-store");
        let tree = Self {
            root: root.to_owned(),
            staging: private.join("staging"),
            uploads: private.join("uploads"),
            start: unique_start(),
            counter: AtomicU64::new(0),
            names: Mutex::new(()),
            folders: Folders::default(),
        };
        fs::create_dir_all(&tree.staging)?;
        fs::create_dir_all(&tree.uploads)?;
        Ok(tree)
    }

    /// The folder of a bucket.
    pub fn bucket(&self, bucket: &str) -> S3Result<PathBuf> {
        let folder = self.root.join(bucket);
        if folder.is_dir() { Ok(folder) } else { Err(s3_error!(NoSuchBucket)) }
    }

    /// The file of an object. A key names one below its bucket, whatever a client puts in it.
    pub fn path(&self, bucket: &str, key: &str) -> S3Result<PathBuf> {
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if key.split('/').all(plain) {
            Ok(self.bucket(bucket)?.join(key))
        } else {
            Err(s3_error!(InvalidArgument, "a key with an empty or dot part"))
        }
    }

    /// An object.
    pub fn find(&self, bucket: &str, key: &str) -> S3Result<Object> {
        match Object::open(&self.path(bucket, key)?) {
            Ok(Some(object)) => Ok(object),
            Ok(None) => Err(s3_error!(NoSuchKey)),
            Err(error) => Err(internal(error)),
        }
    }

    /// A name that nothing else has.
    pub fn unique_name(&self) -> String {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number}", self.start)
    }

    /// A file for an object that has no name yet.
    pub fn new_staged(&self) -> io::Result<Staged> {
        let path = self.staging.join(self.unique_name());
        let file = File::create_new(&path)?;
        Ok(Staged { path, file })
    }

    /// A whole object under another name, without its bytes being written again where that may be: the copy is another
    /// name of the same file. Objects are replaced and removed, never changed in place, so neither gets to know the
    /// other. It counts as written now, and so does what it was made of. A small object is really copied: its file may
    /// be one that another program writes in place.
    ///
    /// # Errors
    ///
    /// `NoSuchKey`, and those of the file system.
    pub fn copy(&self, from: (&str, &str), to: (&str, &str)) -> S3Result<String> {
        let source = self.path(from.0, from.1)?;
        let staged = match self.stage_link(&source) {
            Some(staged) => staged,
            None => self.stage_copy(from.0, from.1, None)?,
        };
        self.publish(staged, to.0, to.1, &Conditions::default())
    }

    /// Another name of a large file, as one that has no name yet. `None` where it is small or not there, and where the
    /// file system gives a file no second name.
    fn stage_link(&self, source: &Path) -> Option<Staged> {
        let is_large = |metadata: &Metadata| metadata.is_file() && metadata.len() > CHUNK as u64;
        let path = self.staging.join(self.unique_name());
        // A symbolic link would be linked itself, and not what it leads to.
        fs::symlink_metadata(source).ok().filter(is_large)?;
        fs::hard_link(source, &path).ok()?;
        // From here on it is removed if something fails.
        let file = File::options().append(true).open(&path);
        let staged = file.map(|file| Staged { path: path.clone(), file });
        let staged = staged.inspect_err(|_| drop(fs::remove_file(&path))).ok()?;
        staged.file.set_modified(SystemTime::now()).ok()?;
        Some(staged)
    }

    /// A copy of an object, or of a part of it, that has no name yet.
    pub fn stage_copy(
        &self,
        bucket: &str,
        key: &str,
        range: Option<s3s::dto::Range>,
    ) -> S3Result<Staged> {
        let object = self.find(bucket, key)?;
        let wanted = match range {
            None => 0..object.length,
            Some(range) => range.check(object.length)?,
        };
        let mut staged = self.new_staged().map_err(internal)?;
        match object.content {
            Content::Read(bytes) => staged.file.write_all(&slice(&bytes, &wanted)),
            Content::Open(file) => copy_range(file, &wanted, &mut staged.file),
        }
        .map_err(internal)?;
        Ok(staged)
    }

    /// Gives a staged file its name, if the conditions hold for what has that name now.
    pub fn publish(
        &self,
        staged: Staged,
        bucket: &str,
        key: &str,
        conditions: &Conditions,
    ) -> S3Result<String> {
        let path = self.path(bucket, key)?;
        let _held = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        conditions.check(&path)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(internal)?;
        }
        fs::rename(&staged.path, &path).map_err(internal)?;
        etag_of(&path).map_err(internal)
    }

    /// Removes an object. One that isn't there is no error, unless it should have some entity tag.
    pub fn remove(&self, bucket: &str, key: &str, conditions: &Conditions) -> S3Result<()> {
        let bucket_folder = self.bucket(bucket)?;
        let path = self.path(bucket, key)?;
        let _held = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        conditions.check(&path)?;
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if is_absent(&error) || path.is_dir() => return Ok(()),
            Err(error) => return Err(internal(error)),
        }
        // Folders exist for their objects only. The first that isn't empty ends this.
        let above = path.ancestors().skip(1);
        for folder in above.take_while(|folder| *folder != bucket_folder) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// A file on its way to become an object. Dropped without a name, it is gone.
pub struct Staged {
    pub path: PathBuf,
    pub file: File,
}

impl Staged {
    /// Writes on.
    pub fn append(mut self, pieces: &[Bytes]) -> io::Result<Self> {
        let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut rest = slices.as_mut_slice();
        // Takes away what is empty: that nothing was written would be an error otherwise.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match self.file.write_vectored(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After the rename there is nothing of this name, and that is fine.
        let _ = fs::remove_file(&self.path);
    }
}

/// What must hold for the object that has the name now.
#[derive(Default)]
pub struct Conditions {
    if_match: Option<ETagCondition>,
    must_be_new: bool,
}

impl Conditions {
    /// The conditions of a write.
    ///
    /// # Errors
    ///
    /// `NotImplemented` for `If-None-Match` other than `*`.
    pub fn new(
        if_match: Option<ETagCondition>,
        if_none_match: Option<ETagCondition>,
    ) -> S3Result<Self> {
        // S3 itself knows no other for a write.
        if if_none_match.as_ref().is_some_and(|value| !value.is_any()) {
            return Err(s3_error!(NotImplemented, "If-None-Match other than *"));
        }
        Ok(Self { if_match, must_be_new: if_none_match.is_some() })
    }

    fn check(&self, path: &Path) -> S3Result<()> {
        if self.must_be_new && path.is_file() {
            return Err(s3_error!(PreconditionFailed));
        }
        let Some(condition) = &self.if_match else {
            return Ok(());
        };
        let etag = match etag_of(path) {
            Ok(etag) => ETag::Strong(etag),
            // As AWS answers: a 404, not a 412.
            Err(error) if is_absent(&error) => return Err(s3_error!(NoSuchKey)),
            Err(error) => return Err(internal(error)),
        };
        match condition.as_etag() {
            Some(expected) if !etag.strong_cmp(expected) => Err(s3_error!(PreconditionFailed)),
            _ => Ok(()),
        }
    }
}

/// Whether an error says that there is no such file, not that it can't be had.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename
    )
}

/// What the file system says becomes `InternalError`; the log has the reason.
pub fn internal(error: io::Error) -> S3Error {
    eprintln!("blob-store: {error}");
    s3_error!(error, InternalError)
}

fn unique_start() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanoseconds = now.map_or(0, |elapsed| elapsed.as_nanos());
    format!("{:x}-{nanoseconds:x}", std::process::id())
}

/// A length as the protocol has it.
pub fn signed(length: u64) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::time::Duration;

    use s3s::S3ErrorCode;

    use super::*;

    const LARGE: usize = CHUNK + 1;

    struct Bucket {
        tree: Tree,
        folder: tempfile::TempDir,
    }

    fn bucket() -> Bucket {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("b")).expect("a bucket");
        Bucket { tree: Tree::open(folder.path()).expect("a tree"), folder }
    }

    impl Bucket {
        fn put(&self, key: &str, content: &[u8]) -> String {
            let staged = self.tree.new_staged().expect("a file");
            let staged = staged.append(&[Bytes::copy_from_slice(content)]).expect("written");
            self.tree.publish(staged, "b", key, &Conditions::default()).expect("published")
        }

        fn copy(&self, from: &str, to: &str) -> String {
            self.tree.copy(("b", from), ("b", to)).expect("copied")
        }

        fn file(&self, key: &str) -> PathBuf {
            self.folder.path().join("b").join(key)
        }

        fn content(&self, key: &str) -> Vec<u8> {
            fs::read(self.file(key)).expect("an object")
        }
    }

    #[test]
    fn a_copy_keeps_its_content_whatever_becomes_of_what_it_was_made_of() {
        for size in [0, 1, CHUNK, LARGE] {
            let bucket = bucket();
            let (old, new) = (vec![1; size], vec![2; size]);
            bucket.put("from", &old);
            let etag = bucket.copy("from", "folder/to");
            assert_eq!(etag_of(&bucket.file("folder/to")).expect("an object"), etag, "{size}");
            bucket.put("from", &new);
            assert_eq!(bucket.content("folder/to"), old, "{size}");
            bucket.tree.remove("b", "from", &Conditions::default()).expect("removed");
            assert_eq!(bucket.content("folder/to"), old, "{size}");
            // Nor the other way.
            bucket.copy("folder/to", "again");
            bucket.put("folder/to", &new);
            assert_eq!(bucket.content("again"), old, "{size}");
        }
    }

    #[test]
    fn only_a_large_object_shares_its_file_with_its_copy() {
        for (size, is_shared) in [(CHUNK, false), (LARGE, true)] {
            let bucket = bucket();
            bucket.put("from", &vec![1; size]);
            bucket.copy("from", "to");
            let inode = |key| fs::metadata(bucket.file(key)).expect("a file").ino();
            assert_eq!(inode("from") == inode("to"), is_shared, "{size}");
        }
    }

    #[test]
    fn a_copy_is_as_new_as_if_it_had_been_written() {
        let bucket = bucket();
        bucket.put("from", &vec![1; LARGE]);
        let file = File::options().append(true).open(bucket.file("from")).expect("a file");
        let day = Duration::from_secs(24 * 60 * 60);
        file.set_modified(SystemTime::now() - day).expect("a time");
        bucket.copy("from", "to");
        let modified = bucket.tree.find("b", "to").expect("an object").modified;
        assert!(modified.elapsed().is_ok_and(|age| age < day / 2), "{modified:?}");
    }

    #[test]
    fn nothing_is_left_staged_of_a_copy_onto_itself_or_onto_another_name_of_its_file() {
        let bucket = bucket();
        bucket.put("from", &vec![1; LARGE]);
        for to in ["from", "to", "to"] {
            bucket.copy("from", to);
        }
        let staged = fs::read_dir(&bucket.tree.staging).expect("a folder").count();
        assert_eq!(staged, 0);
    }

    #[test]
    fn what_is_not_there_is_not_copied() {
        let bucket = bucket();
        fs::create_dir(bucket.file("folder")).expect("a folder");
        for from in ["absent", "folder"] {
            let copied = bucket.tree.copy(("b", from), ("b", "to"));
            assert!(copied.is_err_and(|error| *error.code() == S3ErrorCode::NoSuchKey), "{from}");
        }
    }
}
