//! A snapshot that is made of an inventory in place of listings.

use moorage::store::{Bucket, BucketOptions, Http, StoreError};
use thiserror::Error;

use super::{Loader, Snapshot};
use crate::s3_inventory::{
    self, HttpInventoryStore, InventoryError, ListedObject, Location, Summary,
};
use crate::time::seconds;

/// An inventory of the registry's bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Where it is.
    pub location: Location,
    /// The bucket that it is of, and the way to the store.
    pub bucket: BucketOptions,
}

/// Why there is no snapshot.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The inventory can't be read.
    #[error("the inventory: {0}")]
    Inventory(#[from] InventoryError),
}

impl Snapshot {
    /// Reads an inventory of the bucket, and the tags and links of which it does not tell where they lead, `parallel` at a
    /// time.
    ///
    /// # Errors
    ///
    /// As the store fails, and if anything of the inventory is missing or not understood.
    pub async fn of_inventory<H: Http>(
        bucket: &Bucket<H>,
        inventory: &Inventory,
        parallel: usize,
    ) -> Result<(Self, Summary), SnapshotError> {
        let Inventory { location, bucket: options } = inventory;
        let store = HttpInventoryStore::new(bucket.http(), options.clone());
        let prefix = options.key_prefix();
        let mut loader = Loader::default();
        let add = |object: ListedObject| loader.add_listed(&object);
        let summary = s3_inventory::read(location, &store, &options.bucket, &prefix, add).await?;
        loader.begin_at(seconds(summary.created));
        loader.read(bucket, parallel, &Self::default()).await?;
        Ok((loader.into_snapshot(), summary))
    }
}
