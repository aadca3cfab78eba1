//! What the manifests of a snapshot need, read from each of them: nothing that was remembered, since what was so once may be
//! broken now.

use std::collections::{HashMap, HashSet};

use futures::stream::{self, StreamExt, TryStreamExt};
use moorage::oci::Digest;
use moorage::store::{Objects, Store as _, StoreError};

use super::needs::{Need, NeedKind, Needs};
use super::object_fault;
use crate::manifests::verified;
use crate::snapshot::{DigestId, Repository, Snapshot};

/// What the manifests need.
#[derive(Debug, Default)]
pub struct Reading {
    /// What each needs, by the content that it is.
    needs: Vec<StoredNeed>,
    /// The entries of indexes, by what they lead to, with the index.
    parents: Vec<(DigestId, DigestId)>,
    /// What a manifest says of the size of something, where nothing of that size is stored under that digest.
    sizes: Vec<StatedSize>,
    /// The manifest that each is about.
    subjects: Vec<(DigestId, DigestId)>,
    /// Those that can't be read, and why.
    unreadable: Vec<(DigestId, String)>,
    /// How many have been read.
    pub read: u64,
}

/// Something that a manifest needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredNeed {
    /// The content of the manifest.
    manifest: DigestId,
    /// What it needs.
    pub digest: DigestId,
    /// How.
    pub kind: NeedKind,
}

/// What a manifest says of a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StatedSize {
    /// The content of the manifest.
    manifest: DigestId,
    /// Of what.
    pub digest: DigestId,
    /// In bytes.
    pub size: u64,
}

impl Reading {
    /// Reads every manifest to which links of these repositories lead and whose content is there, `parallel` at a time:
    /// about one call each. `seen` is told how many are left.
    ///
    /// # Errors
    ///
    /// As the store fails, unless it fails for one object only.
    pub async fn read(
        objects: &impl Objects,
        snapshot: &mut Snapshot,
        is_asked: impl Fn(&Repository) -> bool,
        parallel: usize,
        seen: impl Fn(usize),
    ) -> Result<Self, StoreError> {
        let asked = snapshot.repositories.iter().filter(|repository| is_asked(repository));
        let links = asked.flat_map(|repository| &repository.manifests).map(|link| link.target);
        let mut manifests: Vec<_> =
            links.filter(|id| snapshot.digests.stored(*id).is_some()).collect();
        manifests.sort_unstable();
        manifests.dedup();
        let mut left = manifests.len();
        let mut reading = Self { read: left as u64, ..Self::default() };
        let digests: Vec<_> = manifests.iter().map(|id| (*id, snapshot.digest(*id))).collect();
        let read = stream::iter(digests)
            .map(async |(id, digest)| Ok::<_, StoreError>((id, read(objects, &digest).await?)));
        let mut read = std::pin::pin!(read.buffer_unordered(parallel));
        while let Some((id, needs)) = read.try_next().await? {
            left -= 1;
            seen(left);
            match needs {
                // It may be gone by now: whoever looks again finds out.
                None => {}
                Some(Ok(needs)) => reading.add(snapshot, id, needs),
                Some(Err(why)) => reading.unreadable.push((id, why)),
            }
        }
        reading.sort();
        Ok(reading)
    }

    /// What is known of a manifest's needs is complete.
    fn add(&mut self, snapshot: &mut Snapshot, manifest: DigestId, needs: Needs) {
        for Need { digest, kind, size } in needs.all {
            let digest = snapshot.digests.intern(&digest);
            self.needs.push(StoredNeed { manifest, digest, kind });
            if kind == NeedKind::Child {
                self.parents.push((digest, manifest));
            }
            let stored = snapshot.digests.stored(digest).map(|stored| stored.size);
            if let Some(size) = size.filter(|size| stored != Some(*size)) {
                self.sizes.push(StatedSize { manifest, digest, size });
            }
        }
        if let Some(subject) = needs.subject {
            self.subjects.push((manifest, snapshot.digests.intern(&subject)));
        }
    }

    fn sort(&mut self) {
        self.needs.sort_unstable();
        self.needs.dedup();
        self.parents.sort_unstable();
        self.parents.dedup();
        self.sizes.sort_unstable();
        self.subjects.sort_unstable();
        self.unreadable.sort_unstable();
    }

    /// What the manifest with this content needs.
    pub fn needs(&self, manifest: DigestId) -> &[StoredNeed] {
        run(&self.needs, manifest, |need| need.manifest)
    }

    /// All that any manifest needs.
    pub fn needed(&self) -> impl Iterator<Item = DigestId> {
        self.needs.iter().map(|need| need.digest)
    }

    /// The contents of the manifests that need any of these, by what they need.
    pub fn needing(&self, digests: &HashSet<DigestId>) -> HashMap<DigestId, Vec<DigestId>> {
        let mut needing: HashMap<_, Vec<_>> = HashMap::new();
        for need in self.needs.iter().filter(|need| digests.contains(&need.digest)) {
            needing.entry(need.digest).or_default().push(need.manifest);
        }
        needing
    }

    /// What it says of sizes that may be wrong.
    pub fn sizes(&self, manifest: DigestId) -> &[StatedSize] {
        run(&self.sizes, manifest, |size| size.manifest)
    }

    /// The contents of the indexes that list a digest.
    pub fn parents(&self, digest: DigestId) -> impl Iterator<Item = DigestId> {
        run(&self.parents, digest, |(child, _)| *child).iter().map(|(_, parent)| *parent)
    }

    /// The digest of the manifest that this one is about.
    pub fn subject(&self, manifest: DigestId) -> Option<DigestId> {
        run(&self.subjects, manifest, |(manifest, _)| *manifest)
            .first()
            .map(|(_, subject)| *subject)
    }

    /// Why a manifest can't be read.
    pub fn unreadable(&self, manifest: DigestId) -> Option<&str> {
        let found = run(&self.unreadable, manifest, |(manifest, _)| *manifest);
        found.first().map(|(_, why)| why.as_str())
    }
}

/// Those of sorted entries that have this key.
fn run<T>(entries: &[T], key: DigestId, key_of: impl Fn(&T) -> DigestId) -> &[T] {
    let start = entries.partition_point(|entry| key_of(entry) < key);
    let length = entries[start..].partition_point(|entry| key_of(entry) == key);
    &entries[start..start + length]
}

/// What the manifest stored under this digest needs, or why that can't be told; `None` if it is not there.
///
/// # Errors
///
/// As the store fails, unless it fails for this object only.
pub async fn read(
    objects: &impl Objects,
    digest: &Digest,
) -> Result<Option<Result<Needs, String>>, StoreError> {
    let content = match objects.content(digest).await {
        Ok(content) => content,
        Err(error) => return object_fault(error).map(|why| Some(Err(why))),
    };
    Ok(verified(digest, content).map(|content| Needs::of(&content?)))
}
