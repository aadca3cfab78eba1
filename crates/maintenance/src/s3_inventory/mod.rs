//! Reads an inventory of a bucket, to be taken in place of listings: Amazon S3 Inventory, in CSV or Parquet.
//!
//! An inventory is a `manifest.json` and the data files that it names. Each data file has to be there with the size and
//! the MD5 that the manifest says before a row of it is taken, and a row that can't be understood ends the reading: an
//! object that is overlooked would be garbage to a collector. A row is held at a time, whatever the files have in them.
//!
//! What an inventory can't tell is whether it lists all of a bucket: one that is configured for a prefix looks the
//! same. And S3 makes it over hours, without regard to what is written meanwhile: an object that was written or removed
//! shortly before [`Summary::created`], or since, may be in it or not.

mod csv_rows;
mod error;
mod http_store;
mod manifest;
mod parquet_rows;
mod row;
mod source;

use std::fs::File;
use std::time::{Duration, SystemTime};

pub use error::InventoryError;
pub use http_store::HttpInventoryStore;
pub use source::{InventoryStore, Location};

use error::Fault;
use manifest::{Format, Manifest};
use row::{Row, Selection};
use source::Files;

/// An object of the registry, as an inventory has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// Its key, without the registry's prefix.
    pub key: String,
    /// Its size, in bytes.
    pub size: u64,
    /// When it was last written, by the store's clock.
    pub modified: SystemTime,
}

/// What an inventory was, once all of it has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// When the store began to make it.
    pub created: SystemTime,
    /// How many data files it has.
    pub files: usize,
    /// How many objects of the registry it lists: those that were handed on.
    pub objects: u64,
    /// How many objects lie outside the registry's prefix.
    pub elsewhere: u64,
    /// How many versions it lists that are not the latest, and marks of deletions.
    pub not_current: u64,
}

impl Summary {
    /// How old it is at this time; nothing if it is of the future.
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.created).unwrap_or_default()
    }
}

/// Reads an inventory of `bucket` and gives `each` the objects whose keys begin with `prefix`, in no particular order.
///
/// The prefix is empty, or ends with a slash as [`BucketOptions::key_prefix`] does. The store is asked only for what
/// lies in a bucket.
///
/// # Errors
///
/// If anything of it is missing, damaged or not understood. What `each` was given until then is to be thrown away.
///
/// [`BucketOptions::key_prefix`]: moorage::store::BucketOptions::key_prefix
pub async fn read(
    location: &Location,
    store: &impl InventoryStore,
    bucket: &str,
    prefix: &str,
    each: impl FnMut(ListedObject),
) -> Result<Summary, InventoryError> {
    let files = Files { location, store };
    let content = files.manifest().await?;
    let manifest = Manifest::parse(&files.manifest_name(), &content, bucket)?;
    let mut selection = Selection::new(bucket, prefix, each);
    for data in &manifest.files {
        let file = files.data(data).await?;
        let read = rows(file, &manifest.format, &mut |row| selection.take(row));
        read.map_err(|fault| fault.of(&data.key, bucket))?;
    }
    let Selection { objects, elsewhere, not_current, .. } = selection;
    let (created, files) = (manifest.created, manifest.files.len());
    Ok(Summary { created, files, objects, elsewhere, not_current })
}

/// Gives each row of a data file. A row can be refused with the name of the bucket that it is about.
fn rows(
    file: File,
    format: &Format,
    each: &mut impl FnMut(Row<'_>) -> Result<(), String>,
) -> Result<(), Fault> {
    match format {
        Format::Csv { fields, columns } => csv_rows::rows(file, *fields, columns, each),
        Format::Parquet => parquet_rows::rows(file, each),
    }
}
