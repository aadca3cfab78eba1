//! A repository's retention: its tags are listed, decided on, and what goes is deleted.
//!
//! Others push meanwhile. A tag is deleted only if it still has the time that the decision was made by, and points at
//! what it pointed at then: it is read, its time is looked at once more, and it is removed on the condition that it has
//! not moved, by the code that the API's DELETE of a manifest removes tags with.
//!
//! Fallback tags come last, by what the repository has then: a tag that has come in the meantime holds the signatures of
//! what it points at.

use std::cell::{Cell, RefCell};
use std::time::SystemTime;

use futures::stream::{self, StreamExt};
use moorage::oci::{Digest, Name, Tag};
use moorage::store::{Objects, Store, StoreError, StoreErrorKind};

use super::decision::{Decision, Verdict, decide, would_delete_all};
use super::outcome::{Fate, Outcome, Problem, TagOutcome};
use super::policy::Policy;
use super::tags::{ListedTag, list_tags, modified};

/// How many tags of a repository are read or deleted at a time.
pub(super) const PARALLEL_TAGS: usize = 8;

/// The number of the rule of the filter's configuration that makes a tag immutable, if there is one.
pub type Immutable<'a> = &'a dyn Fn(&Name, &Tag) -> Option<usize>;

/// What is needed to retain.
pub struct Retention<'a, O> {
    /// The bucket.
    pub objects: &'a O,
    /// The policy.
    pub policy: &'a Policy,
    /// Which tags are immutable.
    pub immutable: Immutable<'a>,
    /// The time that ages are counted to.
    pub now: SystemTime,
    /// Whether to delete, and not only to tell what would be deleted.
    pub apply: bool,
}

/// What came of one removal.
enum Removal {
    /// The tag is gone; it pointed at this.
    Removed(Digest),
    /// It has been set again.
    Moved,
    /// Somebody else removed it.
    Gone,
}

impl<O: Objects> Retention<'_, O> {
    /// Decides on the tags of a repository, and deletes those that go. What fails is among the outcome's problems.
    ///
    /// A call for every thousand objects that tags have. For each tag that goes two calls, and those of
    /// [`Store::remove_tag_if`]. Where there are fallback tags and something goes, a call for every tag, for every
    /// manifest that has one, and for every thousand referrers.
    pub async fn repository(&self, name: &Name) -> Outcome {
        let mut outcome = Outcome::default();
        let listed = match list_tags(self.objects, name).await {
            Ok(listed) => listed,
            Err(error) => {
                outcome.problems.push(Problem::Store { tag: None, error });
                return outcome;
            }
        };
        let immutable = |tag: &Tag| (self.immutable)(name, tag);
        let decisions = decide(self.policy, name, &listed, self.now, immutable);
        if let Some(rule) = would_delete_all(self.policy, name, &listed, &decisions) {
            outcome.problems.push(Problem::WouldDeleteAll { rule });
            let why = format!("nothing else would stay, and rules[{rule}] does not allow that");
            let keep = |tag: &ListedTag| TagOutcome::new(tag, Fate::Kept, &why);
            outcome.tags = listed.iter().map(keep).collect();
            return outcome;
        }
        outcome.tags = listed
            .iter()
            .zip(&decisions)
            .map(|(tag, decision)| TagOutcome::by(tag, decision))
            .collect();
        let goes = with_verdict(&decisions, Verdict::Delete);
        let removed = self.delete(name, &goes, &listed, &mut outcome).await;
        let follows = with_verdict(&decisions, Verdict::FollowSubject);
        if follows.is_empty() {
            return outcome;
        }
        if !outcome.problems.is_empty() {
            return outcome
                .keep(&follows, "something failed in the repository before it was its turn");
        }
        if let Err(error) = self.follow(name, &follows, &listed, removed, &mut outcome).await {
            outcome.problems.push(Problem::Store { tag: None, error });
            return outcome.keep(&follows, "nobody knows whether what it is about has a tag");
        }
        outcome
    }

    /// Deletes these tags of the listing, and gives the digests that they pointed at. Of a dry run nothing is known by
    /// then but that they go.
    pub(super) async fn delete(
        &self,
        name: &Name,
        numbers: &[usize],
        listed: &[ListedTag],
        outcome: &mut Outcome,
    ) -> Vec<Digest> {
        if !self.apply || numbers.is_empty() {
            return Vec::new();
        }
        for number in numbers {
            outcome.set(*number, Fate::Undone);
        }
        self.objects.try_conditional_removal().await;
        let (removed, is_over) = (RefCell::new(Vec::new()), Cell::new(false));
        let outcome = RefCell::new(outcome);
        let tags = numbers.iter().filter_map(|number| Some((*number, listed.get(*number)?)));
        let delete = async |(number, tag): (usize, &ListedTag)| {
            // What has been begun is not broken off: it would not be known what came of it.
            if is_over.get() {
                return;
            }
            let removal = self.remove(name, tag).await;
            let mut outcome = outcome.borrow_mut();
            match removal {
                Ok(Removal::Removed(digest)) => {
                    removed.borrow_mut().push(digest);
                    outcome.set(number, Fate::Deleted);
                }
                Ok(Removal::Moved) => {
                    outcome.decide(number, Fate::Kept, "it was set again since it was listed");
                }
                Ok(Removal::Gone) => {
                    outcome.decide(number, Fate::Gone, "somebody else deleted it");
                }
                Err(error) => {
                    outcome.decide(number, Fate::Undone, "its deletion failed, here or further on");
                    is_over.set(is_over.get() || ends_repository(&error));
                    outcome.problems.push(Problem::Store { tag: Some(tag.tag.clone()), error });
                }
            }
        };
        stream::iter(tags).for_each_concurrent(PARALLEL_TAGS, delete).await;
        removed.into_inner()
    }

    /// Removes a tag if it is as it was listed.
    async fn remove(&self, name: &Name, listed: &ListedTag) -> Result<Removal, StoreError> {
        let Some(seen) = self.objects.tag_version(name, &listed.tag).await? else {
            return Ok(Removal::Gone);
        };
        // In this order: if the time is still the same, what was read is what was decided on.
        match modified(self.objects, name, &listed.tag).await? {
            None => return Ok(Removal::Gone),
            Some(now) if now != listed.modified => return Ok(Removal::Moved),
            Some(_) => {}
        }
        match self.objects.remove_tag_if(name, &listed.tag, &seen).await? {
            true => Ok(Removal::Removed(seen.digest)),
            false => Ok(Removal::Moved),
        }
    }
}

/// Whether there is no use in going on with the repository: the store fails, and not only one object makes no sense.
pub(super) fn ends_repository(error: &StoreError) -> bool {
    error.answer().is_some() || error.kind() != StoreErrorKind::Failed
}

fn with_verdict(decisions: &[Decision], verdict: Verdict) -> Vec<usize> {
    let found = decisions.iter().enumerate().filter(|(_, decision)| decision.verdict == verdict);
    found.map(|(number, _)| number).collect()
}
