//! What looks broken in a snapshot: a pure function of what was listed and read.
//!
//! A snapshot is of no single moment, so nothing here is known to be broken until somebody has looked again
//! ([`super::confirm`]).

use std::collections::BTreeMap;

use moorage::store::Place;

use super::finding::{Finding, Problem};
use super::needs::NeedKind;
use super::reading::{Reading, StoredNeed};
use crate::retain::FallbackTag;
use crate::snapshot::{DigestId, Link, Repository, Snapshot};
use crate::time::Seconds;

/// Content and history that were written this long ago, in seconds, belong to no push that is under way.
const OLD: Seconds = 24 * 60 * 60;

/// Finds what looks broken in the repositories that are asked for; with all of them, in the rest of the bucket too.
pub fn suspects(
    snapshot: &Snapshot,
    reading: &Reading,
    is_asked: impl Fn(&Repository) -> bool,
    is_all_asked: bool,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for (place, repository) in (0..).zip(&snapshot.repositories) {
        if is_asked(repository) {
            let mut search = Search { snapshot, reading, repository, place, found: &mut found };
            search.links_without_digests();
            search.tags();
            search.manifests();
            search.referrers();
        }
    }
    if is_all_asked {
        unlinked_content(snapshot, reading, &mut found);
        foreign_objects(snapshot, &mut found);
    }
    found
}

/// A repository, while it is looked through.
struct Search<'a> {
    snapshot: &'a Snapshot,
    reading: &'a Reading,
    repository: &'a Repository,
    place: u32,
    found: &'a mut Vec<Finding>,
}

/// What is wrong with something that a manifest needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lack {
    BlobNotLinked,
    BlobMissing,
    ChildMissing,
    Size { stated: u64, found: u64 },
}

impl From<Lack> for Problem {
    fn from(lack: Lack) -> Self {
        match lack {
            Lack::BlobNotLinked => Self::BlobNotLinked,
            Lack::BlobMissing => Self::BlobMissing,
            Lack::ChildMissing => Self::ChildMissing,
            Lack::Size { stated, found } => Self::SizeDiffers { stated, found },
        }
    }
}

impl Search<'_> {
    fn finding(&self, problem: Problem, digest: DigestId) -> Finding {
        Finding::new(problem, Some(self.place), Some(digest))
    }

    fn is_stored(&self, content: DigestId) -> bool {
        self.snapshot.digests.stored(content).is_some()
    }

    fn links_without_digests(&mut self) {
        let Repository { broken, padded, .. } = self.repository;
        for key in broken.iter().chain(padded) {
            let problem = Problem::LinkBroken { key: key.clone() };
            let mut finding = Finding::new(problem, Some(self.place), None);
            match finding.broken_place() {
                Some(Place::Tag(_, tag)) => finding.tag = Some(tag),
                Some(Place::BlobLink(_, digest) | Place::ManifestLink(_, digest)) => {
                    finding.digest = self.snapshot.digests.get(&digest);
                }
                _ => {}
            }
            self.found.push(finding);
        }
    }

    fn tags(&mut self) {
        for tag in &self.repository.tags {
            if self.repository.manifest(tag.target).is_none() {
                let finding = self.finding(Problem::TagWithoutManifest, tag.target);
                self.found.push(Finding { tag: Some(tag.tag.clone()), ..finding });
            }
        }
        let mut last = None;
        for entry in &self.repository.history {
            // One for each tag does.
            let is_new = last.replace(&entry.tag) != Some(&entry.tag);
            if is_new && self.repository.tag(&entry.tag).is_none() && !self.has_broken_tag(entry) {
                let finding = self.finding(Problem::HistoryWithoutTag, entry.digest);
                self.found.push(Finding { tag: Some(entry.tag.clone()), ..finding });
            }
        }
    }

    /// Whether the tag of this history is there, and holds no digest.
    fn has_broken_tag(&self, entry: &crate::snapshot::HistoryEntry) -> bool {
        let key = moorage::store::layout::tag_link(&self.repository.name, &entry.tag);
        self.repository.broken.iter().any(|broken| broken == key.as_str())
    }

    fn manifests(&mut self) {
        let mut lacks: BTreeMap<(Lack, DigestId), Vec<DigestId>> = BTreeMap::new();
        for link in &self.repository.manifests {
            if !self.is_stored(link.target) {
                self.found.push(self.finding(Problem::ManifestMissing, link.digest));
            } else if let Some(why) = self.reading.unreadable(link.target) {
                let problem = Problem::ManifestUnreadable { why: why.to_owned() };
                self.found.push(self.finding(problem, link.digest));
            } else {
                self.lacks_of(link, |lack, digest| {
                    lacks.entry((lack, digest)).or_default().push(link.digest);
                });
            }
        }
        self.dangling_links(&lacks);
        for ((lack, digest), manifests) in lacks {
            let finding = self.finding(lack.into(), digest);
            self.found.push(Finding { manifests, ..finding });
        }
    }

    /// What of the needs of a manifest is not there.
    fn lacks_of(&self, manifest: &Link, mut note: impl FnMut(Lack, DigestId)) {
        for StoredNeed { digest, kind, .. } in self.reading.needs(manifest.target) {
            match self.linked(*digest, *kind) {
                None if *kind == NeedKind::Elsewhere => {}
                None if *kind == NeedKind::Child => note(Lack::ChildMissing, *digest),
                None => note(Lack::BlobNotLinked, *digest),
                // That of a manifest is told for itself.
                Some(link) if self.repository.blob(*digest).is_some() => {
                    if !self.is_stored(link.target) && *kind != NeedKind::Elsewhere {
                        note(Lack::BlobMissing, *digest);
                    }
                }
                Some(_) => {}
            }
        }
        for size in self.reading.sizes(manifest.target) {
            let link = self.linked(size.digest, NeedKind::Child);
            // Of a manifest that can't be read more is told than its size.
            let link = link.filter(|link| self.reading.unreadable(link.target).is_none());
            let stored = link.and_then(|link| self.snapshot.digests.stored(link.target));
            if let Some(stored) = stored.filter(|stored| stored.size != size.size) {
                note(Lack::Size { stated: size.size, found: stored.size }, size.digest);
            }
        }
    }

    /// The repository's link to something that is needed in this way. What an index lists may be a blob or a manifest.
    fn linked(&self, digest: DigestId, kind: NeedKind) -> Option<&Link> {
        let Repository { blobs, manifests, .. } = self.repository;
        let blob = self.repository.blob(digest).map(|place| &blobs[place]);
        blob.or_else(|| {
            let place = self.repository.manifest(digest).filter(|_| kind == NeedKind::Child)?;
            Some(&manifests[place])
        })
    }

    fn dangling_links(&mut self, lacks: &BTreeMap<(Lack, DigestId), Vec<DigestId>>) {
        for link in &self.repository.blobs {
            let is_needed = lacks.contains_key(&(Lack::BlobMissing, link.digest));
            if !self.is_stored(link.target) && !is_needed {
                self.found.push(self.finding(Problem::LinkDangling, link.digest));
            }
        }
    }

    fn referrers(&mut self) {
        let repository = self.repository;
        for entry in &repository.referrers {
            if repository.manifest(entry.digest).is_none() {
                let finding = self.finding(Problem::ReferrerWithoutManifest, entry.digest);
                self.found.push(Finding { manifests: vec![entry.subject], ..finding });
            }
        }
        for link in &repository.manifests {
            let Some(subject) = self.reading.subject(link.target) else {
                continue;
            };
            let entry = (subject, link.digest);
            let known =
                repository.referrers.binary_search_by_key(&entry, |e| (e.subject, e.digest));
            // A second link to the same content needs no entry of its own.
            if known.is_err() && link.digest == link.target && !self.is_tagged_as_referrer(entry) {
                let finding = self.finding(Problem::ReferrerMissing, link.digest);
                self.found.push(Finding { manifests: vec![subject], ..finding });
            }
        }
    }

    /// Whether the index under the subject's referrers tag has it, where clients keep it for registries that know no
    /// referrers.
    fn is_tagged_as_referrer(&self, (subject, digest): (DigestId, DigestId)) -> bool {
        let about = FallbackTag::about(&self.snapshot.digest(subject));
        let tag = about.subject().parse().ok().and_then(|tag| self.repository.tag(&tag));
        let index = tag.and_then(|tag| self.repository.manifest(tag.target));
        index.is_some_and(|place| {
            let index = self.repository.manifests[place].target;
            self.reading.needs(index).iter().any(|need| need.digest == digest)
        })
    }
}

/// Content to which no link leads, and that no manifest needs whose repository merely lost the link.
fn unlinked_content(snapshot: &Snapshot, reading: &Reading, found: &mut Vec<Finding>) {
    let mut is_linked = vec![false; snapshot.digests.len()];
    for repository in &snapshot.repositories {
        for link in repository.blobs.iter().chain(&repository.manifests) {
            is_linked[link.target.index()] = true;
            is_linked[link.digest.index()] = true;
        }
        for tag in &repository.tags {
            is_linked[tag.target.index()] = true;
        }
    }
    for id in snapshot.otherwise_linked.iter().copied().chain(reading.needed()) {
        is_linked[id.index()] = true;
    }
    let old = snapshot.begun.saturating_sub(OLD);
    for id in snapshot.digests.ids().filter(|id| !is_linked[id.index()]) {
        if let Some(stored) = snapshot.digests.stored(id).filter(|stored| stored.modified < old) {
            let problem = Problem::ContentUnlinked { size: stored.size };
            found.push(Finding::new(problem, None, Some(id)));
        }
    }
}

fn foreign_objects(snapshot: &Snapshot, found: &mut Vec<Finding>) {
    if let Some(key) = snapshot.foreign_keys.first() {
        let problem = Problem::Foreign { totals: snapshot.foreign, key: key.clone() };
        found.push(Finding::new(problem, None, None));
    }
}
