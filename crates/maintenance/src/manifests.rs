//! The manifests of a bucket, as far as it matters what they refer to: read once, and remembered between runs.

use std::collections::HashMap;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use moorage::oci::Digest;
use moorage::store::{Content, Objects, Store as _, StoreError};

use crate::references::References;
use crate::snapshot::{DigestId, Digests, Snapshot};

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Whether it is an index.
    pub is_index: bool,
    /// What it refers to.
    pub references: Box<[DigestId]>,
    /// The manifest that it is about.
    pub subject: Option<DigestId>,
}

/// The manifests that have been read.
#[derive(Debug, Default)]
pub struct Manifests {
    read: HashMap<DigestId, Manifest>,
    /// Those whose references nobody knows, and why.
    unreadable: HashMap<DigestId, String>,
    /// Whether there are manifests that have been read only since they were remembered.
    has_new: bool,
}

impl Manifests {
    /// A manifest that has been read and made sense.
    pub fn get(&self, digest: DigestId) -> Option<&Manifest> {
        self.read.get(&digest)
    }

    /// Why a manifest's references can't be told.
    pub fn unreadable(&self, digest: DigestId) -> Option<&str> {
        self.unreadable.get(&digest).map(String::as_str)
    }

    /// All that have been read.
    pub fn iter(&self) -> impl Iterator<Item = (DigestId, &Manifest)> {
        self.read.iter().map(|(digest, manifest)| (*digest, manifest))
    }

    /// A manifest is known.
    pub fn insert(&mut self, digest: DigestId, manifest: Manifest) {
        self.read.insert(digest, manifest);
    }

    /// Whether it is worth remembering them anew.
    pub fn has_new(&self) -> bool {
        self.has_new
    }

    /// Reads every manifest that a link or a tag of the snapshot leads to, and that has not been read, `parallel` at a
    /// time: about one call each. `seen` is told how many are left.
    ///
    /// # Errors
    ///
    /// As the store fails. What can't be read as a manifest is no error: see [`Manifests::unreadable`].
    pub async fn read(
        &mut self,
        objects: &impl Objects,
        snapshot: &mut Snapshot,
        parallel: usize,
        seen: impl Fn(usize),
    ) -> Result<(), StoreError> {
        // What could not be read may have come since.
        self.unreadable.clear();
        let unread = self.unread(snapshot);
        let mut left = unread.len();
        let digests = unread.into_iter().map(|id| (id, snapshot.digest(id)));
        let read = stream::iter(digests.collect::<Vec<_>>()).map(async |(id, digest)| {
            let content = verified(&digest, objects.content(&digest).await?);
            let references = content.map(|content| References::of(&content?));
            Ok::<_, StoreError>((id, references))
        });
        let mut read = std::pin::pin!(read.buffer_unordered(parallel));
        while let Some((id, references)) = read.try_next().await? {
            left -= 1;
            seen(left);
            match references {
                // It may be gone by now.
                None => {}
                Some(Ok(references)) => {
                    self.has_new = true;
                    self.read.insert(id, Manifest::new(&references, &mut snapshot.digests));
                }
                Some(Err(why)) => {
                    self.unreadable.insert(id, why);
                }
            }
        }
        Ok(())
    }

    /// The manifests of the snapshot that have not been read and whose content is there, each once.
    fn unread(&self, snapshot: &Snapshot) -> Vec<DigestId> {
        let is_there = |id: &DigestId| snapshot.digests.stored(*id).is_some();
        let mut unread: Vec<_> = snapshot
            .repositories
            .iter()
            .flat_map(|repository| {
                // An inventory may be older than a tag, and not list what that leads to.
                let tags = repository.tags.iter().map(|tag| tag.target);
                repository.manifests.iter().map(|link| link.target).filter(is_there).chain(tags)
            })
            .filter(|id| !self.read.contains_key(id))
            .collect();
        unread.sort_unstable();
        unread.dedup();
        unread
    }
}

/// Content that was read to be taken for a manifest, if it is what its digest says, or why it can't be; `None` if it is not
/// there.
pub fn verified(digest: &Digest, content: Content) -> Option<Result<Bytes, String>> {
    if let Content::TooLarge { limit } = content {
        return Some(Err(format!("it has more than {limit} bytes")));
    }
    let bytes = content.into_bytes()?;
    Some(match digest.matches(&bytes) {
        true => Ok(bytes),
        false => Err("it is not what its digest says".to_owned()),
    })
}

impl Manifest {
    fn new(references: &References, digests: &mut Digests) -> Self {
        Self {
            is_index: references.is_index,
            references: references.digests.iter().map(|digest| digests.intern(digest)).collect(),
            subject: references.subject.as_ref().map(|digest| digests.intern(digest)),
        }
    }
}
