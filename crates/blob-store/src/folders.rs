//! The names in folders, sorted, and kept so that a page of a listing need not read a folder again that has not changed.
//!
//! A folder's own time of change tells when a name came or went, by whichever program. File systems count it in steps
//! of milliseconds, so names that were read while the last change was that fresh are not trusted later.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::tree::is_absent;

/// Folders of fewer names are read each time: that costs as little as to look them up.
const WORTH_KEEPING: usize = 64;

/// How many names are kept, of all folders together; the folders that were asked for longest ago go first.
const NAMES_MAX: usize = 1_000_000;

/// How long ago a folder must have changed, at least, for its names to be kept. Longer than any step of a clock.
const SETTLED: Duration = Duration::from_millis(100);

/// Folders whose names are known.
#[derive(Debug, Default)]
pub struct Folders {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    folders: HashMap<PathBuf, Folder>,
    names: usize,
    /// Counts the questions: what was asked for last has the highest number.
    asked: u64,
    /// How often a folder was read.
    #[cfg(test)]
    reads: usize,
}

#[derive(Debug)]
struct Folder {
    version: Version,
    names: Arc<[String]>,
    asked: u64,
}

/// What changes when a name comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Version {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            changed: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl Folders {
    /// The names in a folder as parts of keys, folders with their slash: sorted like this, a walk
    /// meets the keys in byte order. Names that are no text can't be keys. A folder that is not there has none.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn entries(&self, folder: &Path) -> io::Result<Arc<[String]>> {
        let metadata = match fs::metadata(folder) {
            Ok(metadata) => metadata,
            Err(error) if is_absent(&error) => return Ok(Arc::default()),
            Err(error) => return Err(error),
        };
        let version = Version::of(&metadata);
        if let Some(names) = self.lock().get(folder, version) {
            return Ok(names);
        }
        // Before the folder is read: a change from here on gives it another time.
        let is_settled = metadata.modified().is_ok_and(|changed| {
            SystemTime::now().duration_since(changed).is_ok_and(|age| age >= SETTLED)
        });
        let Names { names, has_links } = read(folder)?;
        let names: Arc<[String]> = names.into();
        let mut known = self.lock();
        #[cfg(test)]
        {
            known.reads += 1;
        }
        // What a link leads to can change with nothing in this folder.
        if is_settled && !has_links && names.len() >= WORTH_KEEPING {
            known.keep(folder, version, Arc::clone(&names));
        }
        Ok(names)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn get(&mut self, folder: &Path, version: Version) -> Option<Arc<[String]>> {
        self.asked += 1;
        let found = self.folders.get_mut(folder).filter(|known| known.version == version)?;
        found.asked = self.asked;
        Some(Arc::clone(&found.names))
    }

    fn keep(&mut self, folder: &Path, version: Version, names: Arc<[String]>) {
        self.names += names.len();
        let kept = Folder { version, names, asked: self.asked };
        if let Some(before) = self.folders.insert(folder.to_owned(), kept) {
            self.names -= before.names.len();
        }
        while self.names > NAMES_MAX {
            let oldest = self.folders.iter().min_by_key(|(_, folder)| folder.asked);
            let Some(oldest) = oldest.map(|(path, _)| path.clone()) else {
                return;
            };
            self.names -= self.folders.remove(&oldest).map_or(0, |folder| folder.names.len());
        }
    }
}

struct Names {
    names: Vec<String>,
    has_links: bool,
}

fn read(folder: &Path) -> io::Result<Names> {
    let mut found = Names { names: Vec::new(), has_links: false };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(found),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let Ok(mut name) = entry.file_name().into_string() else {
            continue;
        };
        let kind = entry.file_type()?;
        found.has_links |= kind.is_symlink();
        // A link counts as what it leads to.
        if kind.is_dir() || (kind.is_symlink() && entry.path().is_dir()) {
            name.push('/');
        }
        found.names.push(name);
    }
    found.names.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};

    use super::*;

    /// Makes the folder's last change so old that its names are kept.
    fn settle(folder: &Path) {
        let hour_ago = SystemTime::now() - Duration::from_secs(60 * 60);
        let times = FileTimes::new().set_modified(hour_ago);
        File::open(folder).and_then(|file| file.set_times(times)).expect("its time is set");
    }

    fn folder(names: usize) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for number in 0..names {
            fs::write(folder.path().join(format!("{number:03}")), "").expect("a file");
        }
        folder
    }

    #[test]
    fn a_folder_that_did_not_change_is_read_once() {
        let folder = folder(WORTH_KEEPING);
        settle(folder.path());
        let folders = Folders::default();
        for _ in 0..3 {
            let names = folders.entries(folder.path()).expect("a folder");
            assert_eq!(names.len(), WORTH_KEEPING);
        }
        assert_eq!(folders.lock().reads, 1);
    }

    #[test]
    fn a_change_by_any_program_is_seen_at_once() {
        let folder = folder(WORTH_KEEPING);
        settle(folder.path());
        let folders = Folders::default();
        let count = || folders.entries(folder.path()).expect("a folder").len();
        assert_eq!(count(), WORTH_KEEPING);
        // Two changes may have the same time; after the first no names are kept that could miss the second.
        for number in 0..50 {
            fs::write(folder.path().join(format!("x{number}")), "").expect("a file");
            assert_eq!(count(), WORTH_KEEPING + number + 1);
        }
        fs::remove_file(folder.path().join("x0")).expect("it is removed");
        assert_eq!(count(), WORTH_KEEPING + 49);
    }

    #[test]
    fn a_folder_that_is_not_there_has_no_names() {
        let folder = folder(WORTH_KEEPING);
        settle(folder.path());
        let folders = Folders::default();
        assert_eq!(folders.entries(folder.path()).expect("a folder").len(), WORTH_KEEPING);
        fs::remove_dir_all(folder.path()).expect("it is removed");
        assert_eq!(folders.entries(folder.path()).expect("no fault").len(), 0);
    }

    #[test]
    fn no_more_names_are_kept_than_the_limit() {
        let mut known = Known::default();
        let version = Version { device: 0, inode: 0, changed: (0, 0) };
        let names: Arc<[String]> = vec![String::new(); NAMES_MAX / 2].into();
        for path in ["a", "b", "a", "c"] {
            if known.get(Path::new(path), version).is_none() {
                known.keep(Path::new(path), version, Arc::clone(&names));
            }
        }
        assert_eq!((known.folders.len(), known.names), (2, NAMES_MAX));
        assert!(!known.folders.contains_key(Path::new("b")), "it was asked for longest ago");
    }
}
