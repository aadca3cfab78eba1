//! Descriptors of referrers: what was noted of a manifest beside its subject.
//!
//! A descriptor is made of its manifest alone, so it stays true as long as it is kept. That the manifest still refers to the subject, it
//! does not say: a page of referrers lists them in the bucket, and reads the descriptors of those that are listed. Kept is only what
//! is the descriptor of that manifest by its own words; anything else is read again each time.

use bytes::Bytes;
use serde::Deserialize;

use super::entries::Entry;
use super::{CacheEnvironment, Cached};
use crate::oci::Digest;
use crate::store::fault::StoreError;
use crate::store::layout::{Key, Kind};
use crate::store::objects::{Head, Objects};

impl<O: Objects, S: CacheEnvironment> Cached<O, S> {
    /// Reads the beginning of a descriptor, or has all of it from memory.
    pub(super) async fn read_descriptor(
        &self,
        key: &Key,
        digest: &Digest,
        limit: u64,
    ) -> Result<Option<Head>, StoreError> {
        if let Some(bytes) = self.known_descriptor(key.kind(), limit) {
            return Ok(Some(Head { bytes, is_whole: true }));
        }
        let head = self.bucket.read_head(key, limit).await?;
        let whole = head.as_ref().filter(|head| head.is_whole);
        if let Some(head) = whole.filter(|head| is_of(&head.bytes, digest))
            && self.settings.max_bytes > 0
        {
            // A copy: what was read is counted as such until it is dropped, and what is kept is not.
            let descriptor = Bytes::copy_from_slice(&head.bytes);
            self.keep(key.kind(), Entry::Descriptor(descriptor));
        }
        Ok(head)
    }

    fn known_descriptor(&self, kind: &Kind, limit: u64) -> Option<Bytes> {
        match self.entries.borrow_mut().get(kind)? {
            Entry::Descriptor(bytes) if (bytes.len() as u64) < limit => Some(bytes.clone()),
            _ => None,
        }
    }

    /// Forgets a descriptor that is written or removed.
    pub(super) fn forget_descriptor(&self, key: &Key) {
        if matches!(key.kind(), Kind::Referrer(..)) {
            self.entries.borrow_mut().remove(key.kind());
        }
    }
}

/// Whether this is a descriptor of the manifest with this digest.
fn is_of(bytes: &[u8], digest: &Digest) -> bool {
    #[derive(Deserialize)]
    struct Fields {
        digest: String,
    }
    serde_json::from_slice::<Fields>(bytes).is_ok_and(|fields| fields.digest == digest.as_str())
}
