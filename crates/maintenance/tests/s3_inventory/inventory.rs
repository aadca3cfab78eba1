//! An inventory for tests: its manifest, as S3 writes it, and its data files.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::executor::block_on;
use md5::{Digest, Md5};
use moorage_maintenance::s3_inventory::{
    InventoryError, InventoryStore, ListedObject, Location, Summary, read,
};
use serde_json::{Value, json};

/// The bucket that the inventories are about.
pub const BUCKET: &str = "images";
/// The bucket that they are delivered to.
pub const DELIVERED: &str = "inventories";
/// The key of the manifest there.
pub const MANIFEST: &str = "daily/images/all/2024-01-03T01-00Z/manifest.json";
/// The fields of a CSV inventory of current versions.
pub const FIELDS: &str = "Bucket, Key, Size, LastModifiedDate, ETag";
/// The fields of one of all versions.
pub const VERSION_FIELDS: &str =
    "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate";

const PARQUET_SCHEMA: &str = "message s3.inventory {  required binary bucket (STRING);  \
    required binary key (STRING);  optional int64 size;  \
    optional int64 last_modified_date (TIMESTAMP(MILLIS,true));  optional binary e_tag (STRING);}";

/// An inventory that can be broken before it is read.
pub struct Inventory {
    pub manifest: Value,
    /// By their keys.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Inventory {
    fn new(format: &str, schema: &str, files: Vec<(String, Vec<u8>)>) -> Self {
        let described = files.iter().map(|(key, content)| describe(key, content));
        let manifest = json!({
            "sourceBucket": BUCKET,
            "destinationBucket": format!("arn:aws:s3:::{DELIVERED}"),
            "version": "2016-11-30",
            "creationTimestamp": "1704243600000",
            "fileFormat": format,
            "fileSchema": schema,
            "files": described.collect::<Vec<_>>(),
        });
        Self { manifest, files: files.into_iter().collect() }
    }

    /// With these fields, and a compressed file for each of these texts.
    pub fn csv(schema: &str, texts: &[&str]) -> Self {
        Self::of_bytes("CSV", schema, texts.iter().map(|text| gzip(text.as_bytes())).collect())
    }

    /// With one file of Parquet.
    pub fn parquet(content: Vec<u8>) -> Self {
        Self::of_bytes("Parquet", PARQUET_SCHEMA, vec![content])
    }

    /// With these files, whatever they are.
    pub fn of_bytes(format: &str, schema: &str, contents: Vec<Vec<u8>>) -> Self {
        let key =
            |number: usize| format!("daily/images/all/data/{number}.{}", format.to_lowercase());
        let files = contents.into_iter().enumerate();
        Self::new(format, schema, files.map(|(number, content)| (key(number), content)).collect())
    }

    /// Writes it as S3 lays it out, and gives the path of the manifest.
    pub fn write_to(&self, folder: &Path) -> String {
        let mut files = self.files.clone();
        files.insert(MANIFEST.to_owned(), self.manifest.to_string().into_bytes());
        for (key, content) in files {
            let path = folder.join(key);
            std::fs::create_dir_all(path.parent().expect("it is in the folder")).expect("a folder");
            std::fs::write(path, content).expect("a file can be written");
        }
        folder.join(MANIFEST).to_str().expect("UTF-8").to_owned()
    }

    /// A store that has it.
    pub fn store(&self) -> MemoryStore {
        let mut objects = self.files.clone();
        objects.insert(MANIFEST.to_owned(), self.manifest.to_string().into_bytes());
        MemoryStore { objects, reads: RefCell::default() }
    }

    /// Reads it from a store.
    pub fn read(&self, prefix: &str) -> Result<(Vec<ListedObject>, Summary), InventoryError> {
        read_from(&format!("s3://{DELIVERED}/{MANIFEST}"), &self.store(), prefix)
    }

    /// The error of reading it.
    pub fn error(&self) -> String {
        match self.read("registry/") {
            Ok((objects, _)) => panic!("it was read: {objects:?}"),
            Err(error) => error.to_string(),
        }
    }
}

/// A data file as the manifest describes it.
pub fn describe(key: &str, content: &[u8]) -> Value {
    let md5 = base16ct::lower::encode_string(&Md5::digest(content));
    json!({ "key": key, "size": content.len(), "MD5checksum": md5 })
}

/// Reads the inventory at this place.
pub fn read_from(
    location: &str,
    store: &MemoryStore,
    prefix: &str,
) -> Result<(Vec<ListedObject>, Summary), InventoryError> {
    let location: Location = location.parse()?;
    let mut objects = Vec::new();
    let summary = block_on(read(&location, store, BUCKET, prefix, |object| objects.push(object)))?;
    Ok((objects, summary))
}

/// The objects of the bucket that inventories are delivered to.
pub struct MemoryStore {
    pub objects: BTreeMap<String, Vec<u8>>,
    /// The lengths that were asked for.
    pub reads: RefCell<Vec<u64>>,
}

impl InventoryStore for MemoryStore {
    type Error = String;

    async fn read(
        &self,
        bucket: &str,
        key: &str,
        offset: u64,
        length: u64,
    ) -> Result<Option<Bytes>, String> {
        if bucket != DELIVERED {
            return Err(format!("403 AccessDenied for {bucket}"));
        }
        self.reads.borrow_mut().push(length);
        let position = |at: u64| usize::try_from(at).expect("it is small");
        Ok(self.objects.get(key).map(|content| {
            let rest = content.get(position(offset)..).unwrap_or_default();
            Bytes::copy_from_slice(&rest[..rest.len().min(position(length))])
        }))
    }
}

/// Compresses as S3 does.
pub fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

/// An object, with the time in RFC 3339.
pub fn object(key: &str, size: u64, modified: &str) -> ListedObject {
    let modified = humantime::parse_rfc3339(modified).expect("a time");
    ListedObject { key: key.to_owned(), size, modified }
}
