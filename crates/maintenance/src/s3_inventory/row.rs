//! One row of an inventory, whatever form it was written in, and which rows are objects of the registry.

use std::borrow::Cow;
use std::time::SystemTime;

use super::ListedObject;

/// What of a row matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Row<'a> {
    /// An object as it is now.
    Current {
        /// The bucket, if the inventory tells it of each row.
        bucket: Option<&'a str>,
        /// The whole key, decoded.
        key: Cow<'a, str>,
        /// In bytes.
        size: u64,
        modified: SystemTime,
    },
    /// A version that is not the latest, or the mark of a deletion.
    NotCurrent,
}

/// The columns that are needed, by their position or whatever else finds them.
#[derive(Debug)]
pub(super) struct Columns<C> {
    pub(super) bucket: Option<C>,
    pub(super) key: C,
    pub(super) size: C,
    pub(super) modified: C,
    pub(super) is_latest: Option<C>,
    pub(super) is_delete_marker: Option<C>,
}

impl<C> Columns<C> {
    /// Finds them by their names in S3's CSV. Parquet has the same ones in snake case.
    ///
    /// # Errors
    ///
    /// The names of those that are needed and missing.
    pub(super) fn find(find: impl Fn(&str) -> Option<C>) -> Result<Self, String> {
        let is_latest = find("IsLatest");
        // Without it there is no telling which version of an object is the one that is read.
        let lacks_latest = is_latest.is_none() && find("VersionId").is_some();
        match (find("Key"), find("Size"), find("LastModifiedDate")) {
            (Some(key), Some(size), Some(modified)) if !lacks_latest => Ok(Self {
                bucket: find("Bucket"),
                key,
                size,
                modified,
                is_latest,
                is_delete_marker: find("IsDeleteMarker"),
            }),
            (key, size, modified) => {
                let needed = [
                    ("Key", key.is_none()),
                    ("Size", size.is_none()),
                    ("LastModifiedDate", modified.is_none()),
                    ("IsLatest", lacks_latest),
                ];
                let missing = needed.iter().filter(|(_, is_missing)| *is_missing);
                Err(missing.map(|(name, _)| *name).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// Whether two names are of the same column: `LastModifiedDate` and `last_modified_date` are.
pub(super) fn is_same_column(one: &str, other: &str) -> bool {
    let letters = |name: &str| name.replace('_', "").to_ascii_lowercase();
    letters(one) == letters(other)
}

/// Tells objects of the registry from others, and counts both.
#[derive(Debug)]
pub(super) struct Selection<'a, F> {
    bucket: &'a str,
    prefix: &'a str,
    each: F,
    pub(super) objects: u64,
    pub(super) elsewhere: u64,
    pub(super) not_current: u64,
}

impl<'a, F: FnMut(ListedObject)> Selection<'a, F> {
    /// Those of this bucket whose keys begin with the prefix go to `each`.
    pub(super) fn new(bucket: &'a str, prefix: &'a str, each: F) -> Self {
        Self { bucket, prefix, each, objects: 0, elsewhere: 0, not_current: 0 }
    }

    /// Takes a row.
    ///
    /// # Errors
    ///
    /// The bucket that the row is about, if it is another one.
    pub(super) fn take(&mut self, row: Row<'_>) -> Result<(), String> {
        let Row::Current { bucket, key, size, modified } = row else {
            self.not_current += 1;
            return Ok(());
        };
        if let Some(other) = bucket.filter(|bucket| *bucket != self.bucket) {
            return Err(other.to_owned());
        }
        match key.strip_prefix(self.prefix) {
            Some(key) => {
                self.objects += 1;
                (self.each)(ListedObject { key: key.to_owned(), size, modified });
            }
            None => self.elsewhere += 1,
        }
        Ok(())
    }
}
