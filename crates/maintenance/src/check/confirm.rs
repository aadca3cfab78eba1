//! Looking again at what looks broken: fresh reads of exactly the objects that it is about.
//!
//! Somebody may have written or removed them while the bucket was listed. What is not broken any more, or is only about
//! something that is gone by now, is no finding.

use moorage::oci::{Digest, Name};
use moorage::store::layout::{self, Key};
use moorage::store::{Bucket, Http, ListRequest, Listed, Objects as _, Store as _, StoreError};

use super::deep;
use super::finding::{Finding, Problem};
use super::reading;
use crate::snapshot::{DigestId, Snapshot};

/// Whoever looks again.
pub struct Confirmation<'a, H> {
    pub bucket: &'a Bucket<H>,
    pub snapshot: &'a Snapshot,
}

impl<H: Http> Confirmation<'_, H> {
    /// What is left of a finding.
    ///
    /// # Errors
    ///
    /// As the store fails.
    pub async fn confirm(&self, finding: Finding) -> Result<Option<Finding>, StoreError> {
        let digest = finding.digest.map(|digest| self.snapshot.digest(digest));
        let Some(repository) = finding.repository(self.snapshot) else {
            return self.confirm_content(finding, digest).await;
        };
        let name = repository.name.clone();
        match (&finding.problem, digest) {
            (Problem::LinkBroken { key }, _) => {
                let key = Key::listed(key);
                Ok(match self.read_link(key.as_ref()).await? {
                    Linked::Broken => Some(finding),
                    Linked::Absent | Linked::To(_) => None,
                })
            }
            (Problem::LinkMisleads { key, .. }, Some(digest)) => {
                let key = Key::listed(key);
                Ok(match self.read_link(key.as_ref()).await? {
                    Linked::To(found) if found != digest => {
                        let misleads = deep::misleads(self.bucket, &digest, &found).await?;
                        misleads.then_some(finding)
                    }
                    _ => None,
                })
            }
            (_, Some(digest)) => self.confirm_of_repository(finding, &name, &digest).await,
            (_, None) => Ok(Some(finding)),
        }
    }

    /// The same for what is about a digest in a repository.
    async fn confirm_of_repository(
        &self,
        mut finding: Finding,
        name: &Name,
        digest: &Digest,
    ) -> Result<Option<Finding>, StoreError> {
        let is_broken = match &finding.problem {
            Problem::TagWithoutManifest => {
                let tag = finding.tag.as_ref().map(|tag| layout::tag_link(name, tag));
                // Whoever moved it meanwhile has looked at where it leads.
                self.read_link(tag.as_ref()).await? == Linked::To(digest.clone())
                    && !self.has_manifest_link(name, digest).await?
            }
            Problem::HistoryWithoutTag => {
                let tag = finding.tag.as_ref().map(|tag| layout::tag_link(name, tag));
                self.read_link(tag.as_ref()).await? == Linked::Absent
                    && self.is_there(finding.key(self.snapshot)).await?
            }
            Problem::ManifestMissing => {
                match self.read_link(Some(&layout::manifest_link(name, digest))).await? {
                    Linked::To(target) => !self.bucket.has_content(&target).await?,
                    Linked::Absent | Linked::Broken => false,
                }
            }
            Problem::ManifestUnreadable { .. } => {
                let link = self.read_link(Some(&layout::manifest_link(name, digest))).await?;
                let why = match link {
                    Linked::To(target) => reading::read(self.bucket, &target).await?,
                    Linked::Absent | Linked::Broken => None,
                };
                let why = why.and_then(Result::err);
                let is_broken = why.is_some();
                if let Some(why) = why {
                    finding.problem = Problem::ManifestUnreadable { why };
                }
                is_broken
            }
            Problem::ReferrerWithoutManifest => {
                self.is_there(finding.key(self.snapshot)).await?
                    && !self.has_manifest_link(name, digest).await?
            }
            Problem::ReferrerMissing => {
                self.has_manifest_link(name, digest).await?
                    && !self.is_there(finding.key(self.snapshot)).await?
            }
            Problem::ReferrerDamaged => {
                let key = finding.key(self.snapshot);
                self.has_manifest_link(name, digest).await?
                    && deep::is_damaged_referrer(self.bucket, key.as_ref(), digest).await?
            }
            Problem::LinkDangling => self.lacks_content(name, digest).await?,
            Problem::ContentDamaged { .. } => {
                let is_linked = self.is_there(Some(layout::blob_link(name, digest))).await?
                    || self.has_manifest_link(name, digest).await?;
                return if is_linked { self.confirm_damage(finding).await } else { Ok(None) };
            }
            _ => return self.confirm_lack(finding, name, digest).await,
        };
        Ok(is_broken.then_some(finding))
    }

    /// The same for what a manifest needs.
    async fn confirm_lack(
        &self,
        mut finding: Finding,
        name: &Name,
        digest: &Digest,
    ) -> Result<Option<Finding>, StoreError> {
        finding.manifests = self.still_linked(name, &finding.manifests).await?;
        if finding.manifests.is_empty() {
            let is_dangling =
                finding.problem == Problem::BlobMissing && self.lacks_content(name, digest).await?;
            finding.problem = Problem::LinkDangling;
            return Ok(is_dangling.then_some(finding));
        }
        let blob = layout::blob_link(name, digest);
        let is_broken = match finding.problem {
            Problem::BlobNotLinked => self.read_link(Some(&blob)).await? == Linked::Absent,
            Problem::BlobMissing => self.lacks_content(name, digest).await?,
            Problem::ChildMissing => {
                !self.is_there(Some(blob)).await? && !self.has_manifest_link(name, digest).await?
            }
            Problem::SizeDiffers { stated, .. } => {
                let size = match finding.content(self.snapshot) {
                    Some(content) => self.size(&content).await?,
                    None => None,
                };
                let found = size.filter(|size| *size != stated);
                if let Some(found) = found {
                    finding.problem = Problem::SizeDiffers { stated, found };
                }
                found.is_some()
            }
            _ => true,
        };
        Ok(is_broken.then_some(finding))
    }

    /// The same for what is no repository's.
    async fn confirm_content(
        &self,
        finding: Finding,
        digest: Option<Digest>,
    ) -> Result<Option<Finding>, StoreError> {
        match (&finding.problem, digest) {
            (Problem::ContentUnlinked { .. }, Some(digest)) => {
                Ok(self.bucket.has_content(&digest).await?.then_some(finding))
            }
            (Problem::ContentDamaged { .. }, _) => self.confirm_damage(finding).await,
            _ => Ok(Some(finding)),
        }
    }

    /// Hashes content once more.
    async fn confirm_damage(&self, mut finding: Finding) -> Result<Option<Finding>, StoreError> {
        let Some(content) = finding.content(self.snapshot) else {
            return Ok(None);
        };
        let why = match deep::hash(self.bucket, &content, &[content.algorithm()]).await? {
            deep::Hashed::Absent => return Ok(None),
            deep::Hashed::Whole { digests, .. } if digests.contains(&content) => return Ok(None),
            deep::Hashed::Whole { .. } => None,
            deep::Hashed::Unreadable(why) => Some(why),
        };
        finding.problem = Problem::ContentDamaged { why };
        Ok(Some(finding))
    }

    /// Those of the manifests that the repository still has.
    async fn still_linked(
        &self,
        name: &Name,
        manifests: &[DigestId],
    ) -> Result<Vec<DigestId>, StoreError> {
        let mut linked = Vec::with_capacity(manifests.len());
        for manifest in manifests {
            if self.has_manifest_link(name, &self.snapshot.digest(*manifest)).await? {
                linked.push(*manifest);
            }
        }
        Ok(linked)
    }

    /// Whether there is a link to a blob, and not the content that it leads to.
    async fn lacks_content(&self, name: &Name, digest: &Digest) -> Result<bool, StoreError> {
        match self.read_link(Some(&layout::blob_link(name, digest))).await? {
            Linked::To(target) => Ok(!self.bucket.has_content(&target).await?),
            Linked::Absent | Linked::Broken => Ok(false),
        }
    }

    async fn has_manifest_link(&self, name: &Name, digest: &Digest) -> Result<bool, StoreError> {
        self.is_there(Some(layout::manifest_link(name, digest))).await
    }

    async fn is_there(&self, key: Option<Key>) -> Result<bool, StoreError> {
        match key {
            Some(key) => Ok(self.bucket.read(&key).await?.is_some()),
            None => Ok(false),
        }
    }

    async fn read_link(&self, key: Option<&Key>) -> Result<Linked, StoreError> {
        let Some(key) = key else {
            return Ok(Linked::Absent);
        };
        Ok(match self.bucket.read(key).await? {
            None => Linked::Absent,
            Some(bytes) => {
                let text = std::str::from_utf8(&bytes).ok();
                let digest = text.and_then(|text| text.parse().ok());
                digest.map_or(Linked::Broken, Linked::To)
            }
        })
    }

    /// The size of content, by a listing of just that object.
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let key = layout::content(digest);
        let page = self.bucket.list(ListRequest::new(&key, Listed::Objects).limit(1)).await?;
        let is_it = page.keys.first() == Some(&key);
        Ok(page.sizes.first().copied().filter(|_| is_it))
    }
}

/// What a link holds.
#[derive(Debug, PartialEq, Eq)]
enum Linked {
    Absent,
    /// Something that is no digest.
    Broken,
    To(Digest),
}
