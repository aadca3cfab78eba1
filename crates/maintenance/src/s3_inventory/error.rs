//! What can be wrong with an inventory, in words for the person who configured it.

use std::fmt::Display;

use thiserror::Error;

/// Why an inventory can't be taken in place of listings. What was read of it up to then is to be thrown away.
#[derive(Debug, Error)]
pub enum InventoryError {
    /// The text names no place where an inventory could be.
    #[error(
        "{0:?} names no inventory: it is a folder, a file manifest.json, or s3://BUCKET/KEY of a manifest.json"
    )]
    Location(String),
    /// A file of the inventory can't be read, or an object that the store does not give.
    #[error("{file} of the inventory can't be read: {reason}")]
    Unreadable {
        /// The file or object.
        file: String,
        /// The cause, as the system or the store words it.
        reason: String,
    },
    /// A file that should be there is not.
    #[error(
        "{file} of the inventory is not there, so objects would be overlooked; \
         get the whole inventory, or take another one"
    )]
    Missing {
        /// The file or object.
        file: String,
    },
    /// The manifest is not one of S3 Inventory.
    #[error("{file} is no manifest of S3 Inventory: {reason}")]
    Manifest {
        /// The file or object.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The inventory lists the objects of another bucket.
    #[error(
        "the inventory lists the bucket {found}, and this is about {expected}; take an inventory of that one"
    )]
    OtherBucket {
        /// The registry's bucket.
        expected: String,
        /// The bucket that the inventory, or a row of it, is about.
        found: String,
    },
    /// The inventory is in a format that is not read.
    #[error(
        "the inventory is in the format {0}, which is not read here; \
         set the inventory's format to CSV or Parquet and take the next one"
    )]
    Format(String),
    /// The inventory lacks what is needed of each object.
    #[error(
        "the inventory has no {missing}; \
         add what is missing to the inventory's configuration and take the next one"
    )]
    Fields {
        /// The names of the fields, as S3 Inventory has them.
        missing: String,
    },
    /// A file is shorter or longer than the manifest says.
    #[error(
        "{file} of the inventory has {found} bytes, and its manifest says {expected}; \
         it was cut off or changed: get it again, or take another inventory"
    )]
    Size {
        /// The file or object.
        file: String,
        /// As the manifest says, in bytes.
        expected: u64,
        /// As it is, in bytes; of an object, as far as it was read.
        found: u64,
    },
    /// A file is not what the manifest says.
    #[error(
        "{file} of the inventory does not have the MD5 that its manifest says; \
         it was damaged or changed: get it again, or take another inventory"
    )]
    Checksum {
        /// The file or object.
        file: String,
    },
    /// A file has its checksum, and yet can't be understood to its end.
    #[error("{file} of the inventory can't be understood{}: {reason}", at_row(*row))]
    Damaged {
        /// The file or object.
        file: String,
        /// The row, counted from 1, if it is about one.
        row: Option<u64>,
        /// What is wrong.
        reason: String,
    },
}

fn at_row(row: Option<u64>) -> String {
    row.map(|row| format!(" at row {row}")).unwrap_or_default()
}

/// What is wrong with the content of a file; whoever reads the file adds its name.
#[derive(Debug)]
pub(super) enum Fault {
    /// It lacks these fields.
    Fields(String),
    /// It has a row of another bucket than the source.
    OtherBucket(String),
    /// It can't be understood.
    Damaged {
        /// Counted from 1.
        row: Option<u64>,
        reason: String,
    },
}

impl Fault {
    /// Something that is not about one row.
    pub(super) fn damaged(reason: impl Display) -> Self {
        Self::Damaged { row: None, reason: reason.to_string() }
    }

    /// Something about a row, counted from 1.
    pub(super) fn at(row: u64, reason: impl Display) -> Self {
        Self::Damaged { row: Some(row), reason: reason.to_string() }
    }

    /// The error for this file, of an inventory of `bucket`.
    pub(super) fn of(self, file: &str, bucket: &str) -> InventoryError {
        match self {
            Self::Fields(missing) => InventoryError::Fields { missing },
            Self::OtherBucket(found) => {
                InventoryError::OtherBucket { expected: bucket.to_owned(), found }
            }
            Self::Damaged { row, reason } => {
                InventoryError::Damaged { file: file.to_owned(), row, reason }
            }
        }
    }
}
