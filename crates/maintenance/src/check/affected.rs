//! Whose pulls fail: the tags that lead to a manifest, through indexes too.

use std::collections::BTreeSet;

use super::finding::{Affected, Finding, Problem};
use super::reading::Reading;
use crate::snapshot::{DigestId, Repository, Snapshot};

/// How many tags are told of those that need something.
const TOLD_TAGS: usize = 3;

/// Notes with each finding which manifests and tags need what it is about. The findings of a repository must stand together.
pub fn note_affected(snapshot: &Snapshot, reading: &Reading, findings: &mut [Finding]) {
    // Of others the manifests are known.
    let digests = findings.iter().filter(|finding| is_of_unknown_need(finding));
    let needing = reading.needing(&digests.filter_map(|finding| finding.digest).collect());
    let mut ways: Option<(u32, Ways<'_>)> = None;
    for finding in findings {
        let Some(place) = finding.repository else {
            continue;
        };
        if ways.as_ref().is_none_or(|(known, _)| *known != place) {
            let repository = &snapshot.repositories[place as usize];
            ways = Some((place, Ways::new(repository, reading)));
        }
        if let Some((_, ways)) = &ways {
            let digest = finding.digest.filter(|_| is_of_unknown_need(finding));
            if let Some(contents) = digest.and_then(|digest| needing.get(&digest)) {
                let links = contents.iter().flat_map(|content| places(&ways.links, *content));
                finding.manifests = links.collect();
            }
            finding.affected = ways.affected(finding);
        }
    }
}

/// Whether it was found without a thought of who needs it.
fn is_of_unknown_need(finding: &Finding) -> bool {
    matches!(
        finding.problem,
        Problem::ContentDamaged { .. } | Problem::LinkMisleads { .. } | Problem::LinkBroken { .. }
    )
}

/// The ways from a repository's tags to its manifests.
struct Ways<'a> {
    repository: &'a Repository,
    reading: &'a Reading,
    /// The places of the tags, by where they point.
    tags: Vec<(DigestId, usize)>,
    /// The digests of links to manifests, by the content that they lead to.
    links: Vec<(DigestId, DigestId)>,
}

impl<'a> Ways<'a> {
    fn new(repository: &'a Repository, reading: &'a Reading) -> Self {
        let tags = repository.tags.iter().enumerate();
        let mut tags: Vec<_> = tags.map(|(place, tag)| (tag.target, place)).collect();
        tags.sort_unstable();
        let links = repository.manifests.iter();
        let mut links: Vec<_> = links.map(|link| (link.target, link.digest)).collect();
        links.sort_unstable();
        Self { repository, reading, tags, links }
    }

    fn affected(&self, finding: &Finding) -> Affected {
        if let Some(tag) = &finding.tag {
            return Affected { tags: vec![tag.clone()], count: 1 };
        }
        let is_about_referrer = matches!(
            finding.problem,
            Problem::ReferrerWithoutManifest | Problem::ReferrerMissing | Problem::ReferrerDamaged
        );
        let needed_by = match is_about_referrer {
            true => &[],
            false => finding.manifests.as_slice(),
        };
        let places = self.tags_of(finding.digest.into_iter().chain(needed_by.iter().copied()));
        let count = places.len();
        let told = places.into_iter().take(TOLD_TAGS);
        let tags = told.map(|place| self.repository.tags[place].tag.clone()).collect();
        Affected { tags, count }
    }

    /// The places of the tags that lead to any of these manifests.
    fn tags_of(&self, manifests: impl Iterator<Item = DigestId>) -> BTreeSet<usize> {
        let mut waiting: Vec<DigestId> = manifests.collect();
        let mut seen: BTreeSet<DigestId> = waiting.iter().copied().collect();
        let mut tags = BTreeSet::new();
        while let Some(digest) = waiting.pop() {
            tags.extend(places(&self.tags, digest));
            for parent in self.reading.parents(digest) {
                // Only indexes that the repository has.
                for link in places(&self.links, parent) {
                    if seen.insert(link) {
                        waiting.push(link);
                    }
                }
            }
        }
        tags
    }
}

fn places<T: Copy>(sorted: &[(DigestId, T)], key: DigestId) -> impl Iterator<Item = T> {
    let start = sorted.partition_point(|(known, _)| *known < key);
    sorted[start..].iter().take_while(move |(known, _)| *known == key).map(|(_, value)| *value)
}
