//! The file `manifest.json` of an inventory: what it is about, and which files it consists of.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::InventoryError;
use super::row::{Columns, is_same_column};

/// What of a manifest matters here. S3 also has `version` and `destinationBucket`; copies of an inventory may lie
/// elsewhere.
#[derive(Debug)]
pub(super) struct Manifest {
    /// When S3 began to make the inventory.
    pub(super) created: SystemTime,
    pub(super) format: Format,
    /// The data files, in no particular order.
    pub(super) files: Vec<DataFile>,
}

/// The form of the data files.
#[derive(Debug)]
pub(super) enum Format {
    /// Rows of so many fields, of which these are needed; the files themselves have no header.
    Csv { fields: usize, columns: Columns<usize> },
    /// The files have schemas of their own.
    Parquet,
}

impl Format {
    /// That of a CSV inventory with this schema: the names of its fields, with commas between them.
    fn csv(schema: &str) -> Result<Self, InventoryError> {
        let names: Vec<&str> = schema.split(',').map(str::trim).collect();
        let find = |name: &str| names.iter().position(|field| is_same_column(field, name));
        let columns = Columns::find(find).map_err(|missing| InventoryError::Fields { missing })?;
        Ok(Self::Csv { fields: names.len(), columns })
    }
}

/// A data file, as the manifest describes it.
#[derive(Debug)]
pub(super) struct DataFile {
    /// Its key in the bucket that the inventory was delivered to.
    pub(super) key: String,
    /// In bytes.
    pub(super) size: u64,
    pub(super) md5: [u8; 16],
}

impl DataFile {
    /// The last part of the key: how the file is called where it was copied to.
    pub(super) fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }
}

impl Manifest {
    /// Reads the content of `file`, which should be the manifest of an inventory of `bucket`.
    pub(super) fn parse(file: &str, content: &[u8], bucket: &str) -> Result<Self, InventoryError> {
        let wrong = |reason: String| InventoryError::Manifest { file: file.to_owned(), reason };
        let text: Text =
            serde_json::from_slice(content).map_err(|error| wrong(error.to_string()))?;
        if text.source_bucket != bucket {
            let (expected, found) = (bucket.to_owned(), text.source_bucket);
            return Err(InventoryError::OtherBucket { expected, found });
        }
        let created = text.creation_timestamp.time().ok_or_else(|| {
            wrong("creationTimestamp is no time in milliseconds since 1970".to_owned())
        })?;
        let format = match text.file_format.to_ascii_lowercase().as_str() {
            "csv" => Format::csv(&text.file_schema)?,
            "parquet" => Format::Parquet,
            _ => return Err(InventoryError::Format(text.file_format)),
        };
        let files = text.files.into_iter().map(FileText::parse).collect::<Result<_, _>>();
        Ok(Self { created, format, files: files.map_err(wrong)? })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    source_bucket: String,
    creation_timestamp: Timestamp,
    file_format: String,
    file_schema: String,
    files: Vec<FileText>,
}

/// Milliseconds since 1970. S3 writes them as text; a number means the same.
#[derive(Deserialize)]
#[serde(untagged)]
enum Timestamp {
    Text(String),
    Number(u64),
}

impl Timestamp {
    fn time(&self) -> Option<SystemTime> {
        let milliseconds = match self {
            Self::Text(text) => text.parse().ok()?,
            Self::Number(number) => *number,
        };
        UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))
    }
}

#[derive(Deserialize)]
struct FileText {
    key: String,
    size: u64,
    #[serde(rename = "MD5checksum")]
    md5: String,
}

impl FileText {
    fn parse(self) -> Result<DataFile, String> {
        let Self { key, size, md5 } = self;
        let mut digest = [0; 16];
        let decoded = base16ct::mixed::decode(&md5, &mut digest).map(<[u8]>::len);
        if decoded != Ok(16) {
            return Err(format!("{key} has the MD5checksum {md5:?}, which is none"));
        }
        let file = DataFile { key, size, md5: digest };
        // The name is looked for in local folders, and must not lead out of them.
        match file.name() {
            "" | "." | ".." => Err(format!("the key {:?} names no file", file.key)),
            name if name.contains(['\\', '\0']) => {
                Err(format!("the key {:?} names no file", file.key))
            }
            _ => Ok(file),
        }
    }
}
