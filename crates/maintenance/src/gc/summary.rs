//! What a plan comes to: how much each repository would be rid of, and why.

use std::collections::{BTreeMap, HashMap};

use moorage::oci::Name;

use super::Plan;
use crate::mark::{Garbage, Kind, NO_REPOSITORY, Reason, lost_manifests};
use crate::snapshot::{DigestId, Repository, Snapshot, Totals};

/// What a plan comes to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The repositories that have garbage, those first whose garbage is largest.
    pub repositories: Vec<RepositorySummary>,
    /// Content that several repositories have, and that is garbage in all of them.
    pub shared: Totals,
    /// Content that no repository has.
    pub unlinked: Totals,
    /// How many objects are garbage for each reason, and how many bytes of content.
    pub reasons: BTreeMap<Reason, Totals>,
    /// All of it.
    pub total: Totals,
}

/// The garbage of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositorySummary {
    /// Its name.
    pub name: Name,
    /// Links, and entries of histories and of referrers.
    pub links: u64,
    /// Content that only this repository has.
    pub contents: Totals,
}

/// A repository that is left alone, because it can't be told what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unclear {
    /// Its name.
    pub name: Name,
    /// What can't be read: a manifest's digest, or the key of a link.
    pub what: String,
    /// Why.
    pub why: String,
}

/// Who has content that is garbage.
enum Owner {
    One(u32),
    Several,
}

impl Plan {
    /// What it comes to.
    pub fn summary(&self) -> Summary {
        let owners = self.owners();
        let mut summary = Summary::default();
        let mut repositories: HashMap<u32, (u64, Totals)> = HashMap::new();
        for garbage in &self.garbage {
            let size = garbage.size(&self.snapshot);
            summary.total.add(size);
            summary.reasons.entry(garbage.reason).or_default().add(size);
            if garbage.repository != NO_REPOSITORY {
                repositories.entry(garbage.repository).or_default().0 += 1;
                continue;
            }
            match owners.get(&garbage.content_id(&self.snapshot)) {
                Some(Owner::One(repository)) => {
                    repositories.entry(*repository).or_default().1.add(size);
                }
                Some(Owner::Several) => summary.shared.add(size),
                None => summary.unlinked.add(size),
            }
        }
        let named = repositories.into_iter().map(|(place, (links, contents))| {
            let name = self.snapshot.repositories[place as usize].name.clone();
            RepositorySummary { name, links, contents }
        });
        summary.repositories = named.collect();
        summary.repositories.sort_unstable_by(|a, b| {
            b.contents.bytes.cmp(&a.contents.bytes).then_with(|| a.name.cmp(&b.name))
        });
        summary
    }

    /// Who has content by links that are garbage themselves.
    fn owners(&self) -> HashMap<DigestId, Owner> {
        let mut owners = HashMap::new();
        let is_link = |kind| matches!(kind, Kind::IndexLink | Kind::ManifestLink | Kind::BlobLink);
        for garbage in self.garbage.iter().filter(|garbage| is_link(garbage.kind)) {
            owners
                .entry(garbage.content_id(&self.snapshot))
                .and_modify(|owner| match owner {
                    Owner::One(repository) if *repository == garbage.repository => {}
                    _ => *owner = Owner::Several,
                })
                .or_insert(Owner::One(garbage.repository));
        }
        owners
    }

    /// The repositories that are left alone, with each thing that can't be read.
    pub fn unclear(&self) -> Vec<Unclear> {
        let mut unclear = Vec::new();
        for repository in &self.snapshot.repositories {
            let name = || repository.name.clone();
            for digest in self.unreadable_manifests(repository) {
                let why = self.manifests.unreadable(digest).unwrap_or_default().to_owned();
                let what = format!("the manifest {}", self.snapshot.digest(digest));
                unclear.push(Unclear { name: name(), what, why });
            }
            for digest in lost_manifests(repository, &self.manifests, self.ages.young_since) {
                let why = "its content is gone; push the image again, or delete what leads to it";
                let what = format!("the manifest {}", self.snapshot.digest(digest));
                unclear.push(Unclear { name: name(), what, why: why.to_owned() });
            }
            for key in &repository.broken {
                let why = "it holds no digest".to_owned();
                unclear.push(Unclear { name: name(), what: format!("the object {key}"), why });
            }
        }
        unclear
    }

    fn unreadable_manifests(&self, repository: &Repository) -> Vec<DigestId> {
        let links = repository.manifests.iter().map(|link| link.target);
        let targets = links.chain(repository.tags.iter().map(|tag| tag.target));
        let mut unreadable: Vec<_> =
            targets.filter(|digest| self.manifests.unreadable(*digest).is_some()).collect();
        unreadable.sort_unstable();
        unreadable.dedup();
        unreadable
    }
}

impl Garbage {
    /// The repository that has it; `None` for content.
    pub fn name<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s Name> {
        Some(&snapshot.repositories.get(self.repository as usize)?.name)
    }
}
