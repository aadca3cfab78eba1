//! Where an inventory is, and its files from there: a manifest, or a data file that is what the manifest says.
//!
//! A data file is read wholly before a row of it is believed, so what is in a bucket is first copied to a temporary
//! file. That also lets a Parquet file be read from its end.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bytes::Bytes;
use md5::{Digest, Md5};

use super::InventoryError;
use super::manifest::DataFile;

/// How a manifest is called.
const MANIFEST: &str = "manifest.json";
/// The largest manifest, in bytes: room for some 50,000 files.
const MANIFEST_LIMIT: u64 = 16 * 1024 * 1024;
/// How much of an object is asked for at a time, in bytes.
const PART: u64 = 8 * 1024 * 1024;
/// How much of a local file is read at a time, in bytes.
const LOCAL_PART: usize = 64 * 1024;

/// Where an inventory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A `manifest.json` on this machine, or the folder that has it. The data files are beside it, in a folder `data`
    /// beside it, or in one beside its folder, as S3 lays them out.
    Local(PathBuf),
    /// A `manifest.json` in a bucket. The data files are in the same bucket, under the keys that the manifest says.
    Object {
        /// The bucket that the inventory was delivered to.
        bucket: String,
        /// The key of the manifest.
        key: String,
    },
}

impl FromStr for Location {
    type Err = InventoryError;

    fn from_str(text: &str) -> Result<Self, InventoryError> {
        let wrong = || InventoryError::Location(text.to_owned());
        let Some(object) = text.strip_prefix("s3://") else {
            return match text {
                "" => Err(wrong()),
                text if text.contains("://") => Err(wrong()),
                path => Ok(Self::Local(path.into())),
            };
        };
        let (bucket, key) = object.split_once('/').ok_or_else(wrong)?;
        let folder = key.strip_suffix(MANIFEST).ok_or_else(wrong)?;
        match bucket.is_empty() || !(folder.is_empty() || folder.ends_with('/')) {
            true => Err(wrong()),
            false => Ok(Self::Object { bucket: bucket.to_owned(), key: key.to_owned() }),
        }
    }
}

/// Reads the objects of an inventory, which mostly lie in another bucket than what it lists.
#[expect(async_fn_in_trait, reason = "the program runs in one thread; no future is ever sent")]
pub trait InventoryStore {
    /// Why an object can't be read, in words for an operator.
    type Error: Display;

    /// Reads `length` bytes of an object from `offset` on, fewer only where it ends; `None` if there is no such object.
    /// An offset at the end of the object or behind it gives no bytes.
    async fn read(
        &self,
        bucket: &str,
        key: &str,
        offset: u64,
        length: u64,
    ) -> Result<Option<Bytes>, Self::Error>;
}

/// The files of one inventory.
#[derive(Debug)]
pub(super) struct Files<'a, S> {
    pub(super) location: &'a Location,
    pub(super) store: &'a S,
}

impl<S: InventoryStore> Files<'_, S> {
    /// How messages name the manifest.
    pub(super) fn manifest_name(&self) -> String {
        match self.location {
            Location::Local(path) => manifest_path(path).display().to_string(),
            Location::Object { bucket, key } => object_name(bucket, key),
        }
    }

    /// The content of the manifest.
    pub(super) async fn manifest(&self) -> Result<Vec<u8>, InventoryError> {
        let file = self.manifest_name();
        let mut content = Vec::new();
        match self.location {
            Location::Local(path) => {
                let opened = open(&manifest_path(path), &file)?;
                let read = opened.take(MANIFEST_LIMIT + 1).read_to_end(&mut content);
                read.map_err(|error| unreadable(&file, error))?;
            }
            Location::Object { bucket, key } => {
                let keep = |part: &[u8]| {
                    content.extend_from_slice(part);
                    Ok(())
                };
                self.parts(bucket, key, MANIFEST_LIMIT + 1, keep).await?;
            }
        }
        match content.len() as u64 > MANIFEST_LIMIT {
            true => {
                let reason = format!("it is larger than {MANIFEST_LIMIT} bytes");
                Err(InventoryError::Manifest { file, reason })
            }
            false => Ok(content),
        }
    }

    /// A data file from its beginning, of which each byte has been verified.
    pub(super) async fn data(&self, data: &DataFile) -> Result<File, InventoryError> {
        match self.location {
            Location::Local(path) => local_data(&manifest_path(path), data),
            Location::Object { bucket, .. } => self.copied_data(bucket, data).await,
        }
    }

    async fn copied_data(&self, bucket: &str, data: &DataFile) -> Result<File, InventoryError> {
        let file = object_name(bucket, &data.key);
        let no_room = |error: io::Error| {
            let folder = std::env::temp_dir();
            unreadable(&file, format!("no copy can be written to {}: {error}", folder.display()))
        };
        let mut copy = tempfile::tempfile().map_err(no_room)?;
        let mut hash = Md5::new();
        let keep = |part: &[u8]| {
            hash.update(part);
            copy.write_all(part).map_err(no_room)
        };
        let found = self.parts(bucket, &data.key, data.size, keep).await?;
        copy.rewind().map_err(no_room)?;
        verify(&file, data, found, hash)?;
        Ok(copy)
    }

    /// Reads the first `limit` bytes of an object, or all if it has not as many, and tells how many it were.
    async fn parts(
        &self,
        bucket: &str,
        key: &str,
        limit: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), InventoryError>,
    ) -> Result<u64, InventoryError> {
        let file = object_name(bucket, key);
        let mut offset = 0;
        while offset < limit {
            let wanted = PART.min(limit - offset);
            let read = self.store.read(bucket, key, offset, wanted).await;
            let part = read.map_err(|error| unreadable(&file, error))?;
            let part = part.ok_or_else(|| InventoryError::Missing { file: file.clone() })?;
            let length = part.len() as u64;
            if length > wanted {
                return Err(unreadable(&file, "the store gave more than it was asked for"));
            }
            each(&part)?;
            offset += length;
            if length < wanted {
                break;
            }
        }
        Ok(offset)
    }
}

fn manifest_path(path: &Path) -> PathBuf {
    match path.is_dir() {
        true => path.join(MANIFEST),
        false => path.to_owned(),
    }
}

fn object_name(bucket: &str, key: &str) -> String {
    format!("s3://{bucket}/{key}")
}

fn unreadable(file: &str, reason: impl Display) -> InventoryError {
    InventoryError::Unreadable { file: file.to_owned(), reason: reason.to_string() }
}

fn open(path: &Path, file: &str) -> Result<File, InventoryError> {
    File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => InventoryError::Missing { file: file.to_owned() },
        _ => unreadable(file, error),
    })
}

fn local_data(manifest: &Path, data: &DataFile) -> Result<File, InventoryError> {
    let folder = manifest.parent().unwrap_or(Path::new(""));
    let name = data.name();
    let places = [
        folder.join(name),
        folder.join("data").join(name),
        folder.join("..").join("data").join(name),
    ];
    let found = places.iter().find(|place| place.is_file());
    let path = found.ok_or_else(|| InventoryError::Missing {
        file: format!("{name} (beside {}, in data or in ../data)", manifest.display()),
    })?;
    let file = path.display().to_string();
    let mut opened = open(path, &file)?;
    let (size, hash) = hash_all(&opened).map_err(|error| unreadable(&file, error))?;
    verify(&file, data, size, hash)?;
    opened.rewind().map_err(|error| unreadable(&file, error))?;
    Ok(opened)
}

/// How many bytes a file has, and their hash.
fn hash_all(file: &File) -> io::Result<(u64, Md5)> {
    let (mut size, mut hash) = (0, Md5::new());
    let mut reader = BufReader::with_capacity(LOCAL_PART, file);
    loop {
        let part = reader.fill_buf()?;
        let length = part.len();
        if length == 0 {
            return Ok((size, hash));
        }
        hash.update(part);
        size += length as u64;
        reader.consume(length);
    }
}

fn verify(file: &str, data: &DataFile, found: u64, hash: Md5) -> Result<(), InventoryError> {
    let file = file.to_owned();
    if found != data.size {
        return Err(InventoryError::Size { file, expected: data.size, found });
    }
    match hash.finalize()[..] == data.md5 {
        true => Ok(()),
        false => Err(InventoryError::Checksum { file }),
    }
}
