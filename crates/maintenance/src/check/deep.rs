//! Reading everything: all content is hashed, and all links and entries of referrers are read.
//!
//! Content may be of any size. So it is read in pieces, one after the other, and several contents at a time.

use futures::stream::{self, StreamExt, TryStreamExt};
use moorage::oci::{Algorithm, Digest, Hasher};
use moorage::store::layout::{self, Key};
use moorage::store::{Bucket, Http, Objects as _, StoreError};
use serde::Deserialize;

use super::finding::{Finding, Problem};
use super::object_fault;
use super::reading::Reading;
use crate::snapshot::{DigestId, Link, Repository, Snapshot, Totals};

/// How much of some content is read at a time, in bytes.
const PIECE: u64 = 4 * 1024 * 1024;

/// What came of hashing some content.
#[derive(Debug, PartialEq, Eq)]
pub enum Hashed {
    /// There is none.
    Absent,
    /// All of it was read.
    Whole {
        /// What it hashes to, by each of the algorithms.
        digests: Vec<Digest>,
        /// How many bytes there are.
        size: u64,
    },
    /// The store does not give it.
    Unreadable(String),
}

/// Hashes the content that is stored under a digest.
///
/// # Errors
///
/// As the store fails, unless it fails for this content only.
pub async fn hash<H: Http>(
    bucket: &Bucket<H>,
    content: &Digest,
    algorithms: &[Algorithm],
) -> Result<Hashed, StoreError> {
    let key = layout::content(content);
    let mut hashers: Vec<_> = algorithms.iter().map(|algorithm| Hasher::new(*algorithm)).collect();
    let mut size = 0;
    loop {
        let piece = match bucket.read_piece(&key, size, PIECE).await {
            Ok(Some(piece)) => piece,
            Ok(None) => return Ok(Hashed::Absent),
            Err(error) => return object_fault(error).map(Hashed::Unreadable),
        };
        hashers.iter_mut().for_each(|hasher| hasher.update(&piece));
        size += piece.len() as u64;
        if (piece.len() as u64) < PIECE {
            let digests = hashers.into_iter().map(Hasher::finish).collect();
            return Ok(Hashed::Whole { digests, size });
        }
    }
}

/// Whether the content that a link leads to is not what the link's key says.
///
/// # Errors
///
/// As the store fails.
pub async fn misleads<H: Http>(
    bucket: &Bucket<H>,
    digest: &Digest,
    found: &Digest,
) -> Result<bool, StoreError> {
    Ok(match hash(bucket, found, &[digest.algorithm()]).await? {
        Hashed::Whole { digests, .. } => !digests.contains(digest),
        Hashed::Absent | Hashed::Unreadable(_) => digest.algorithm() == found.algorithm(),
    })
}

/// Whether the entry of a referrer is there and is not its descriptor.
///
/// # Errors
///
/// As the store fails.
pub async fn is_damaged_referrer<H: Http>(
    bucket: &Bucket<H>,
    key: Option<&Key>,
    digest: &Digest,
) -> Result<bool, StoreError> {
    #[derive(Deserialize)]
    struct Descriptor {
        digest: String,
    }
    let Some(key) = key else {
        return Ok(false);
    };
    Ok(bucket.read(key).await?.is_some_and(|bytes| {
        let descriptor = serde_json::from_slice::<Descriptor>(&bytes);
        !descriptor.is_ok_and(|descriptor| descriptor.digest == digest.as_str())
    }))
}

/// A look at everything.
pub struct Deep<'a, H> {
    pub bucket: &'a Bucket<H>,
    pub snapshot: &'a Snapshot,
    pub reading: &'a Reading,
    /// The repositories to look at.
    pub asked: Vec<u32>,
    /// Whether content is looked at that none of them has.
    pub is_all_asked: bool,
    pub parallel: usize,
}

impl<H: Http> Deep<'_, H> {
    /// What looks damaged. `hashed` is told what has been hashed so far.
    ///
    /// # Errors
    ///
    /// As the store fails.
    pub async fn suspects(
        &self,
        hashed: impl Fn(Totals),
    ) -> Result<(Vec<Finding>, Totals), StoreError> {
        let mut found = self.misleading_links().await?;
        found.extend(self.damaged_referrers().await?);
        let linked = self.linked_contents();
        let mut totals = Totals::default();
        let contents = self.contents(&linked);
        let looked = stream::iter(contents).map(|id| self.look_at(id, &linked));
        let mut looked = std::pin::pin!(looked.buffer_unordered(self.parallel));
        while let Some((size, findings)) = looked.try_next().await? {
            if let Some(size) = size {
                totals.add(size);
            }
            hashed(totals);
            found.extend(findings);
        }
        Ok((found, totals))
    }

    fn repository(&self, place: u32) -> &Repository {
        &self.snapshot.repositories[place as usize]
    }

    /// The links of the repositories, by the content that they lead to; with the repository.
    fn linked_contents(&self) -> Vec<(DigestId, DigestId, u32)> {
        let links = self.asked.iter().flat_map(|place| {
            let Repository { blobs, manifests, .. } = self.repository(*place);
            blobs.iter().chain(manifests).map(|link| (link.target, link.digest, *place))
        });
        let mut links: Vec<_> = links.collect();
        links.sort_unstable();
        links.dedup();
        links
    }

    fn contents(&self, linked: &[(DigestId, DigestId, u32)]) -> Vec<DigestId> {
        let is_stored = |id: &DigestId| self.snapshot.digests.stored(*id).is_some();
        if self.is_all_asked {
            return self.snapshot.digests.ids().filter(is_stored).collect();
        }
        let mut contents: Vec<_> = linked.iter().map(|(content, ..)| *content).collect();
        contents.dedup();
        contents.retain(is_stored);
        contents
    }

    /// Hashes content, and gives its size and what looks damaged.
    async fn look_at(
        &self,
        id: DigestId,
        linked: &[(DigestId, DigestId, u32)],
    ) -> Result<(Option<u64>, Vec<Finding>), StoreError> {
        let content = self.snapshot.digest(id);
        let start = linked.partition_point(|(target, ..)| *target < id);
        let links = || linked[start..].iter().take_while(|(target, ..)| *target == id);
        let mut algorithms = vec![content.algorithm()];
        // Linked from a digest of another algorithm, it must be what that says as well.
        let others = links().map(|(_, digest, _)| self.snapshot.digest(*digest).algorithm());
        for algorithm in others {
            if !algorithms.contains(&algorithm) {
                algorithms.push(algorithm);
            }
        }
        let (digests, size, why) = match hash(self.bucket, &content, &algorithms).await? {
            Hashed::Absent => return Ok((None, Vec::new())),
            Hashed::Whole { digests, size } => (digests, Some(size), None),
            Hashed::Unreadable(why) => (Vec::new(), None, Some(why)),
        };
        let is_damaged = !digests.contains(&content);
        let mut found = Vec::new();
        for (_, digest, place) in links() {
            let is_told = self.reading.unreadable(id).is_some()
                && self.repository(*place).manifest(*digest).is_some();
            if is_damaged && !is_told {
                let problem = Problem::ContentDamaged { why: why.clone() };
                found.push(Finding::new(problem, Some(*place), Some(*digest)));
            } else if !is_damaged && !digests.contains(&self.snapshot.digest(*digest)) {
                found.extend(self.misleading(*digest, *place, &content));
            }
        }
        if is_damaged && links().next().is_none() {
            found.push(Finding::new(Problem::ContentDamaged { why }, None, Some(id)));
        }
        Ok((size, found))
    }

    /// The findings of links that lead to other content than their keys say.
    fn misleading(&self, id: DigestId, place: u32, found: &Digest) -> Vec<Finding> {
        let repository = self.repository(place);
        let digest = self.snapshot.digest(id);
        let target = self.snapshot.digests.get(found);
        let leads_there =
            |link: &Link| link.digest == id && (Some(link.target) == target || link.target == id);
        let blob = repository.blob(id).filter(|at| leads_there(&repository.blobs[*at]));
        let manifest = repository.manifest(id).filter(|at| leads_there(&repository.manifests[*at]));
        let keys = [
            blob.map(|_| layout::blob_link(&repository.name, &digest)),
            manifest.map(|_| layout::manifest_link(&repository.name, &digest)),
        ];
        let finding = |key: Key| {
            let key = key.as_str().to_owned();
            let problem = Problem::LinkMisleads { key, found: found.clone() };
            Finding::new(problem, Some(place), Some(id))
        };
        keys.into_iter().flatten().map(finding).collect()
    }

    /// Reads the links whose size is that of the digest in their keys, and which were not read for that reason.
    async fn misleading_links(&self) -> Result<Vec<Finding>, StoreError> {
        let links = self.asked.iter().flat_map(|place| {
            let Repository { name, blobs, manifests, .. } = self.repository(*place);
            let unread = |link: &&Link| link.digest == link.target;
            let blobs =
                blobs.iter().filter(unread).map(move |link| (link, layout::blob_link as KeyOf));
            let manifests = manifests
                .iter()
                .filter(unread)
                .map(move |link| (link, layout::manifest_link as KeyOf));
            blobs.chain(manifests).map(move |(link, key)| (*place, name, link.digest, key))
        });
        let read = stream::iter(links).map(async |(place, name, id, key_of)| {
            let digest = self.snapshot.digest(id);
            let key = key_of(name, &digest);
            let Some(bytes) = self.bucket.read(&key).await? else {
                return Ok(None);
            };
            if digest.as_str().as_bytes() == bytes {
                return Ok(None);
            }
            let key = key.as_str().to_owned();
            let found = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
            let problem = match found {
                Some(found) => Problem::LinkMisleads { key, found },
                None => Problem::LinkBroken { key },
            };
            Ok::<_, StoreError>(Some(Finding::new(problem, Some(place), Some(id))))
        });
        read.buffer_unordered(self.parallel)
            .try_filter_map(async |found| Ok(found))
            .try_collect()
            .await
    }

    async fn damaged_referrers(&self) -> Result<Vec<Finding>, StoreError> {
        let entries = self.asked.iter().flat_map(|place| {
            let repository = self.repository(*place);
            let is_told = |digest| repository.manifest(digest).is_none();
            repository.referrers.iter().filter(move |entry| !is_told(entry.digest)).map(
                move |entry| {
                    let finding =
                        Finding::new(Problem::ReferrerDamaged, Some(*place), Some(entry.digest));
                    Finding { manifests: vec![entry.subject], ..finding }
                },
            )
        });
        let read = stream::iter(entries).map(async |finding| {
            let digest = finding.digest.map(|digest| self.snapshot.digest(digest));
            let key = finding.key(self.snapshot);
            let is_damaged = match digest {
                Some(digest) => is_damaged_referrer(self.bucket, key.as_ref(), &digest).await?,
                None => false,
            };
            Ok::<_, StoreError>(is_damaged.then_some(finding))
        });
        read.buffer_unordered(self.parallel)
            .try_filter_map(async |found| Ok(found))
            .try_collect()
            .await
    }
}

/// What makes a link's key.
type KeyOf = fn(&moorage::oci::Name, &Digest) -> Key;
