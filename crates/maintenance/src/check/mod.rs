//! Whether a registry's bucket holds together: every tag leads to a manifest, every manifest to all that it needs, every
//! link to content, and, if that is wanted, every content is what its digest says.
//!
//! Nothing is written, and any number of proxies may serve and write meanwhile. What looks broken in the listings is looked
//! at again, and once more after a while, before it is told: a push or a removal may have been under way. What has broken
//! since a part of the bucket was listed may be overlooked; the next check sees it.

mod affected;
mod confirm;
mod deep;
mod finding;
mod needs;
mod reading;
mod suspects;
mod telling;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use moorage::registry::glob::Glob;
use moorage::store::{Bucket, Http, StoreError, StoreErrorKind};

pub use finding::{Affected, Finding, Level, Problem};
pub use telling::Told;

use crate::snapshot::{Repository, Snapshot, Totals};
use crate::time::{Clock, Seconds};
use confirm::Confirmation;
use deep::Deep;
use reading::Reading;

/// How a check goes about it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which repositories to look at: those that any of these matches; all, and what is no repository's, without any.
    pub repositories: Vec<Glob>,
    /// Whether all content is hashed, and all links are read.
    pub is_deep: bool,
    /// How long a change may take that is under way: what still looks broken then is broken.
    pub settle: Duration,
    /// How many calls are made at a time.
    pub parallel: usize,
}

/// What a check is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// So many objects have been listed.
    Listing(u64),
    /// So many manifests are left to be read.
    Reading(usize),
    /// So much has been hashed.
    Hashing(Totals),
    /// So many things look broken, and are looked at again.
    LookingAgain(usize),
    /// So many things looked broken twice. Whatever is under way gets the time to come to its end.
    Settling(usize),
}

/// What a check found.
#[derive(Debug)]
pub struct Checked {
    /// What the bucket holds.
    pub snapshot: Snapshot,
    /// What is wrong, the worst first; then by repository.
    pub findings: Vec<Finding>,
    /// How many repositories were looked at.
    pub repositories: u64,
    /// How many manifests were read.
    pub manifests: u64,
    /// What was hashed.
    pub hashed: Option<Totals>,
}

impl Checked {
    /// How many findings there are of a level.
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level() == level).count()
    }

    /// A finding in words.
    pub fn told(&self, finding: &Finding) -> Told {
        telling::told(&self.snapshot, finding)
    }
}

/// A check of a bucket.
#[derive(Debug)]
pub struct Checker<'a, H, C> {
    /// The bucket.
    pub bucket: &'a Bucket<H>,
    /// The clock.
    pub clock: &'a C,
    /// How it goes about it.
    pub options: &'a Options,
}

impl<H: Http, C: Clock> Checker<'_, H, C> {
    /// Lists the bucket and checks it. `at` is told how far that has come.
    ///
    /// # Errors
    ///
    /// As the store fails.
    pub async fn run(&self, at: impl Fn(Stage)) -> Result<Checked, StoreError> {
        let now = Seconds::try_from(self.clock.now().as_secs()).unwrap_or(Seconds::MAX);
        let listed = |objects| at(Stage::Listing(objects));
        let parallel = self.options.parallel;
        let snapshot =
            Snapshot::load(self.bucket, parallel, Snapshot::default(), now, listed).await?;
        self.check(snapshot, at).await
    }

    /// Checks what a snapshot has.
    ///
    /// # Errors
    ///
    /// As the store fails.
    pub async fn check(
        &self,
        mut snapshot: Snapshot,
        at: impl Fn(Stage),
    ) -> Result<Checked, StoreError> {
        let left = |manifests| at(Stage::Reading(manifests));
        let is_asked = |repository: &Repository| self.is_asked(repository);
        let reading =
            Reading::read(self.bucket, &mut snapshot, is_asked, self.options.parallel, left)
                .await?;
        let is_all_asked = self.options.repositories.is_empty();
        let mut findings = suspects::suspects(&snapshot, &reading, is_asked, is_all_asked);
        let places = (0..).zip(&snapshot.repositories);
        let asked = places.filter(|(_, repository)| is_asked(repository));
        let asked: Vec<u32> = asked.map(|(place, _)| place).collect();
        let repositories = asked.len() as u64;
        let mut hashed = None;
        if self.options.is_deep {
            let deep = Deep {
                bucket: self.bucket,
                snapshot: &snapshot,
                reading: &reading,
                asked,
                is_all_asked,
                parallel: self.options.parallel,
            };
            let (damaged, totals) = deep.suspects(|totals| at(Stage::Hashing(totals))).await?;
            findings.extend(without_wrong_sizes(damaged, &findings));
            hashed = Some(totals);
        }
        let mut findings = self.confirm(&snapshot, findings, &at).await?;
        sort(&mut findings);
        affected::note_affected(&snapshot, &reading, &mut findings);
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.level()));
        Ok(Checked { snapshot, findings, repositories, manifests: reading.read, hashed })
    }

    fn is_asked(&self, repository: &Repository) -> bool {
        let asked = &self.options.repositories;
        asked.is_empty() || asked.iter().any(|glob| glob.matches(repository.name.as_str()))
    }

    /// Looks again at what looks broken, twice.
    async fn confirm(
        &self,
        snapshot: &Snapshot,
        findings: Vec<Finding>,
        at: &impl Fn(Stage),
    ) -> Result<Vec<Finding>, StoreError> {
        at(Stage::LookingAgain(findings.len()));
        let findings = self.look_again(snapshot, findings).await?;
        let (broken, mut notes): (Vec<_>, Vec<_>) =
            findings.into_iter().partition(|finding| finding.level() > Level::Note);
        if broken.is_empty() {
            return Ok(notes);
        }
        at(Stage::Settling(broken.len()));
        self.clock.sleep(self.options.settle).await;
        notes.extend(self.look_again(snapshot, broken).await?);
        Ok(notes)
    }

    async fn look_again(
        &self,
        snapshot: &Snapshot,
        findings: Vec<Finding>,
    ) -> Result<Vec<Finding>, StoreError> {
        let confirmation = Confirmation { bucket: self.bucket, snapshot };
        let looked = stream::iter(findings).map(|finding| confirmation.confirm(finding));
        let found = looked.buffer_unordered(self.options.parallel);
        found.try_filter_map(async |finding| Ok(finding)).try_collect().await
    }
}

/// Damaged content but for that of which it is known already that its size is wrong.
fn without_wrong_sizes(damaged: Vec<Finding>, known: &[Finding]) -> Vec<Finding> {
    let is_size = |finding: &&Finding| matches!(finding.problem, Problem::SizeDiffers { .. });
    let wrong = known.iter().filter(is_size);
    let wrong: HashSet<_> = wrong.map(|finding| (finding.repository, finding.digest)).collect();
    let is_new = |finding: &Finding| {
        !matches!(finding.problem, Problem::ContentDamaged { .. })
            || !wrong.contains(&(finding.repository, finding.digest))
    };
    damaged.into_iter().filter(is_new).collect()
}

/// By repository, then by what it is about.
fn sort(findings: &mut [Finding]) {
    findings.sort_unstable_by(|a, b| {
        let order = |finding: &Finding| (finding.repository.is_none(), finding.repository);
        let what = |finding: &Finding| (finding.digest, finding.problem.as_str());
        order(a).cmp(&order(b)).then_with(|| a.tag.cmp(&b.tag)).then_with(|| what(a).cmp(&what(b)))
    });
}

/// Why the store does not give one object. A store that can't be reached, or gives nothing to who asks, is no matter of
/// one object.
///
/// # Errors
///
/// The error, if it is the store's as a whole.
fn object_fault(error: StoreError) -> Result<String, StoreError> {
    let is_server_error = error.answer().is_some_and(|answer| answer.status.is_server_error());
    match error.kind() {
        StoreErrorKind::Failed if is_server_error => {
            Ok(format!("the store does not give it: {error}"))
        }
        _ => Err(error),
    }
}
