//! What takes how much space: for each repository, what it alone has, and what it shares with others.
//!
//! Content is stored once, however many repositories have it. So the sizes of repositories don't add up to that of the
//! bucket; their portions do, in which content counts for each of its repositories in equal parts.

mod svg;
mod treemap;

use std::collections::HashMap;

use moorage::oci::Name;
use moorage::store::{Bucket, Http, StoreError, layout};

pub use svg::Picture;

use crate::gc::{Plan, recall};
use crate::listing::list_all;
use crate::manifests::Manifests;
use crate::mark::{Ages, Kind, mark};
use crate::snapshot::{Repository, Snapshot, Totals};
use crate::time::Seconds;

/// How old garbage is at least, in seconds: as for `moorage gc` if nothing else is said.
const GRACE: Seconds = 24 * 60 * 60;

/// What takes how much space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// As of when, by the store's clock.
    pub date: Seconds,
    /// How many objects the registry has, the trash aside.
    pub objects: u64,
    /// All content, once.
    pub contents: Totals,
    /// What of it several repositories have.
    pub shared: Totals,
    /// What of it no repository has.
    pub unlinked: Totals,
    /// What of it the next collection of garbage would find, about.
    pub garbage: Totals,
    /// What belongs to upload sessions.
    pub uploads: Totals,
    /// What collections of garbage removed and keep.
    pub trash: Totals,
    /// What no registry wrote.
    pub foreign: Totals,
    /// The repositories, the largest first.
    pub repositories: Vec<RepositoryUsage>,
    /// How many repositories count as free of garbage because it can't be told what they need.
    pub unclear: u64,
}

/// What a repository takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryUsage {
    /// Its name.
    pub name: Name,
    /// All content that it has, in bytes.
    pub bytes: u64,
    /// What of it no other repository has, in bytes: so much goes with the repository.
    pub own: u64,
    /// What it has alone and an equal part of what it shares, in bytes.
    pub portion: u64,
    /// What of its own content is garbage, in bytes.
    pub garbage: u64,
    /// How many tags it has.
    pub tags: u64,
    /// How many manifests.
    pub manifests: u64,
    /// How many blobs.
    pub blobs: u64,
}

impl RepositoryUsage {
    /// What it shares with others, in bytes.
    pub fn shared(&self) -> u64 {
        self.bytes - self.own
    }
}

impl Usage {
    /// Finds out for a snapshot, `parallel` calls at a time: reads the manifests, but for those that a collection of
    /// garbage remembers, and lists the trash. `left` is told how many manifests are left.
    ///
    /// # Errors
    ///
    /// As the store fails.
    pub async fn of<H: Http>(
        bucket: &Bucket<H>,
        mut snapshot: Snapshot,
        parallel: usize,
        left: impl Fn(usize),
    ) -> Result<Self, StoreError> {
        let mut trash = Totals::default();
        list_all(bucket, layout::all_trash(), parallel, |object| {
            trash.add(object.size);
            Ok(())
        })
        .await?;
        let mut manifests = Manifests::default();
        recall(bucket, &mut snapshot, &mut manifests).await?;
        manifests.read(bucket, &mut snapshot, parallel, left).await?;
        let young_since = snapshot.begun.saturating_sub(GRACE);
        let ages = Ages { young_since, untagged_before: None };
        let garbage = mark(&snapshot, &manifests, ages);
        let plan = Plan { snapshot, manifests, garbage, ages, ..Plan::default() };
        Ok(Self::of_plan(&plan, trash))
    }

    fn of_plan(plan: &Plan, trash: Totals) -> Self {
        let snapshot = &plan.snapshot;
        let owners = Owners::of(snapshot);
        let summary = plan.summary();
        let garbage: HashMap<_, _> = summary
            .repositories
            .iter()
            .map(|repository| (&repository.name, repository.contents.bytes))
            .collect();
        let mut usage = Self {
            date: snapshot.begun,
            objects: snapshot.objects,
            contents: Totals::default(),
            shared: Totals::default(),
            unlinked: Totals::default(),
            garbage: garbage_of(plan),
            uploads: snapshot.uploads,
            trash,
            foreign: snapshot.foreign,
            repositories: Vec::with_capacity(snapshot.repositories.len()),
            unclear: 0,
        };
        for id in snapshot.digests.ids() {
            let Some(stored) = snapshot.digests.stored(id) else {
                continue;
            };
            usage.contents.add(stored.size);
            match owners.counts[id.index()] {
                0 => usage.unlinked.add(stored.size),
                1 => {}
                _ => usage.shared.add(stored.size),
            }
        }
        for (place, repository) in (0..).zip(&snapshot.repositories) {
            let garbage = garbage.get(&repository.name).copied().unwrap_or_default();
            usage.repositories.push(owners.usage(snapshot, repository, place, garbage));
        }
        usage
            .repositories
            .sort_unstable_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
        let mut unclear: Vec<_> = plan.unclear().into_iter().map(|unclear| unclear.name).collect();
        unclear.dedup();
        usage.unclear = unclear.len() as u64;
        usage
    }
}

/// The content that is garbage.
fn garbage_of(plan: &Plan) -> Totals {
    let mut totals = Totals::default();
    for garbage in plan.garbage.iter().filter(|garbage| garbage.kind == Kind::Content) {
        totals.add(garbage.size(&plan.snapshot));
    }
    totals
}

/// Who has what content.
struct Owners {
    /// How many repositories have it, by the number of the digest.
    counts: Vec<u32>,
    /// The last repository that has it, counted from 1, by the number of the digest.
    last: Vec<u32>,
}

impl Owners {
    fn of(snapshot: &Snapshot) -> Self {
        let none = vec![0; snapshot.digests.len()];
        let mut owners = Self { counts: none.clone(), last: none };
        for (place, repository) in (1..).zip(&snapshot.repositories) {
            for link in repository.blobs.iter().chain(&repository.manifests) {
                let index = link.target.index();
                if std::mem::replace(&mut owners.last[index], place) != place {
                    owners.counts[index] += 1;
                }
            }
        }
        owners
    }

    fn usage(
        &self,
        snapshot: &Snapshot,
        repository: &Repository,
        place: u32,
        garbage: u64,
    ) -> RepositoryUsage {
        let links = repository.blobs.iter().chain(&repository.manifests);
        let mut targets: Vec<_> = links.map(|link| link.target).collect();
        targets.sort_unstable();
        targets.dedup();
        let (mut bytes, mut own, mut portion) = (0, 0, 0);
        for target in targets {
            let size = snapshot.digests.stored(target).map_or(0, |stored| stored.size);
            let count = u64::from(self.counts[target.index()].max(1));
            bytes += size;
            own += if count == 1 { size } else { 0 };
            portion += size / count;
            // What can't be divided counts for the last.
            if self.last[target.index()] == place + 1 {
                portion += size % count;
            }
        }
        RepositoryUsage {
            name: repository.name.clone(),
            bytes,
            own,
            portion,
            garbage,
            tags: repository.tags.len() as u64,
            manifests: repository.manifests.len() as u64,
            blobs: repository.blobs.len() as u64,
        }
    }
}

#[cfg(test)]
mod tests;
