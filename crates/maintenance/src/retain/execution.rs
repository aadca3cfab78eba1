//! A repository's retention: its tags are listed, decided on, and what goes is deleted.
//!
//! Others push meanwhile. A tag is deleted only if it still has the time that the decision was made by, and points at
//! what it pointed at then: it is read, its time is looked at once more, and it is removed on the condition that it has
//! not moved, by the code that the API's DELETE of a manifest removes tags with.
//!
//! Fallback tags come last, by what the repository has then: a tag that has come in the meantime holds the signatures of
//! what it points at.

use std::cell::RefCell;
use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use moorage::oci::{Digest, Name, Tag};
use moorage::store::{Objects, Store, StoreError, StoreErrorKind, for_each_bounded};

use super::decision::{Decision, Verdict, decide, would_delete_all};
use super::fallback::FallbackTag;
use super::policy::Policy;
use super::reach::{Manifests, Reached};
use super::tags::{ListedTag, list_tags, modified};

/// How many tags of a repository are read or deleted at a time.
const PARALLEL_TAGS: usize = 8;

/// How old a fallback tag is at least before it goes for want of its subject: clients may push what refers to a manifest
/// before the manifest.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 60 * 60);

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

/// What came of a repository.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Its tags, in the order of the listing.
    pub tags: Vec<TagOutcome>,
    /// What went wrong.
    pub problems: Vec<Problem>,
}

/// What came of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagOutcome {
    /// The tag.
    pub tag: Tag,
    /// When it was last set, as the store words it.
    pub modified: String,
    /// What came of it.
    pub fate: Fate,
    /// Why.
    pub why: String,
}

/// What came of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Kept,
    /// It stays, and no rule is for it.
    LeftAlone,
    /// It is deleted, or would be.
    Deleted,
    /// Somebody else deleted it.
    Gone,
    /// It should be deleted, and something went wrong.
    Undone,
}

/// What went wrong with a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Every tag would be deleted, and the rule of this number does not say that this is meant. Nothing is.
    WouldDeleteAll {
        /// The number of the rule.
        rule: usize,
    },
    /// The store failed.
    Store {
        /// At which tag, if it was one.
        tag: Option<Tag>,
        /// How.
        error: StoreError,
    },
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
    async fn delete(
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
        let (removed, shared) = (RefCell::default(), RefCell::new(outcome));
        let tags = numbers.iter().filter_map(|number| Some((*number, listed.get(*number)?)));
        // What ends it is among the problems.
        let _: Result<(), ()> = for_each_bounded(PARALLEL_TAGS, tags, async |(number, tag)| {
            match self.remove(name, tag).await {
                Ok(removal) => {
                    let mut outcome = shared.borrow_mut();
                    match removal {
                        Removal::Removed(digest) => {
                            RefCell::<Vec<_>>::borrow_mut(&removed).push(digest);
                            outcome.set(number, Fate::Deleted);
                        }
                        Removal::Moved => {
                            outcome.decide(
                                number,
                                Fate::Kept,
                                "it was set again since it was listed",
                            );
                        }
                        Removal::Gone => {
                            outcome.decide(number, Fate::Gone, "somebody else deleted it");
                        }
                    }
                    Ok(())
                }
                Err(error) => {
                    let ends_it = ends_repository(&error);
                    let tag = Some(tag.tag.clone());
                    shared.borrow_mut().problems.push(Problem::Store { tag, error });
                    if ends_it { Err(()) } else { Ok(()) }
                }
            }
        })
        .await;
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

    /// Decides on these fallback tags by what stays and what has gone, and deletes those that go.
    async fn follow(
        &self,
        name: &Name,
        numbers: &[usize],
        listed: &[ListedTag],
        removed: Vec<Digest>,
        outcome: &mut Outcome,
    ) -> Result<(), StoreError> {
        let goes: Vec<_> = outcome.tags.iter().filter(|tag| tag.fate == Fate::Deleted).collect();
        let may_be_orphans = self.deletes_orphans(name);
        if goes.is_empty() && !may_be_orphans {
            outcome.explain(numbers, "nothing that it is about loses a tag");
            return Ok(());
        }
        let goes: Vec<Tag> = goes.into_iter().map(|tag| tag.tag.clone()).collect();
        let now = match self.apply {
            true => list_tags(self.objects, name).await?,
            false => listed.to_vec(),
        };
        let (fallback, images): (Vec<_>, Vec<_>) =
            now.iter().map(|tag| &tag.tag).partition(|tag| FallbackTag::parse(tag).is_some());
        let stays = images.into_iter().filter(|tag| self.apply || !goes.contains(tag));
        let mut stays = self.digests(name, stays).await?;
        let removed = match self.apply {
            true => removed,
            false => self.digests(name, goes.iter()).await?.digests(),
        };
        let attached = self.digests(name, fallback.into_iter()).await?;
        let follows: HashSet<_> = outcome.tags_at(numbers).map(|tag| tag.tag.clone()).collect();
        let manifests = Manifests::open(self.objects, name, attached.of_fallback_tags()).await?;
        let lost = manifests.reached(removed).await?;
        // What stays, whatever stays with it.
        let may_go = |tag: &Tag| {
            follows.contains(tag)
                && FallbackTag::parse(tag).is_some_and(|tag| lost.has_subject_of(&tag))
        };
        stays.pointing.extend(attached.pointing.into_iter().filter(|(tag, _)| !may_go(tag)));
        let held = manifests.reached(stays.digests()).await?;
        let mut goes = Vec::new();
        for number in numbers {
            let Some(tag) = listed.get(*number) else { continue };
            let (verdict, why) = match follows_held(&tag.tag, &held, &lost, stays.unreadable) {
                Following::Orphan if may_be_orphans => self.orphan(name, tag).await?,
                Following::Orphan => (false, "no tag that goes is on what it is about".to_owned()),
                Following::Stays(why) => (false, why),
                Following::Goes => (true, "what it is about has no tag any more".to_owned()),
            };
            let fate = if verdict { Fate::Deleted } else { Fate::Kept };
            outcome.decide(*number, fate, &why);
            goes.extend(verdict.then_some(*number));
        }
        self.delete(name, &goes, listed, outcome).await;
        Ok(())
    }

    fn deletes_orphans(&self, name: &Name) -> bool {
        self.policy.rules_for(name).any(|(_, rule)| rule.delete_orphaned_referrers)
    }

    /// Whether a fallback tag goes because the repository does not have what it is about, and why or why not.
    async fn orphan(&self, name: &Name, tag: &ListedTag) -> Result<(bool, String), StoreError> {
        let Some(subject) = FallbackTag::parse(&tag.tag).and_then(|tag| tag.digest()) else {
            return Ok((false, "its name has only a part of its subject's digest".to_owned()));
        };
        if self.objects.manifest_link(name, &subject).await?.is_some() {
            return Ok((false, "what it is about is in the repository, without a tag".to_owned()));
        }
        if self.now.duration_since(tag.written).unwrap_or_default() < ORPHAN_AGE {
            return Ok((false, "what it is about may still be pushed".to_owned()));
        }
        Ok((true, "what it is about is not in the repository".to_owned()))
    }

    /// What these tags point at.
    async fn digests<'t>(
        &self,
        name: &Name,
        tags: impl Iterator<Item = &'t Tag>,
    ) -> Result<Pointing, StoreError> {
        let found = RefCell::new(Pointing::default());
        for_each_bounded(PARALLEL_TAGS, tags, async |tag| {
            match self.objects.tag(name, tag).await {
                Ok(Some(digest)) => found.borrow_mut().pointing.push((tag.clone(), digest)),
                Ok(None) => {}
                Err(error) if !ends_repository(&error) => found.borrow_mut().unreadable = true,
                Err(error) => return Err(error),
            }
            Ok(())
        })
        .await?;
        Ok(found.into_inner())
    }
}

/// What some tags point at.
#[derive(Default)]
struct Pointing {
    pointing: Vec<(Tag, Digest)>,
    /// Whether there is one that points at nothing that makes sense.
    unreadable: bool,
}

impl Pointing {
    fn digests(&self) -> Vec<Digest> {
        self.pointing.iter().map(|(_, digest)| digest.clone()).collect()
    }

    fn of_fallback_tags(&self) -> Vec<(FallbackTag, Digest)> {
        let tags = self.pointing.iter();
        tags.filter_map(|(tag, digest)| Some((FallbackTag::parse(tag)?, digest.clone()))).collect()
    }
}

/// What becomes of a fallback tag.
enum Following {
    Stays(String),
    Goes,
    /// No tag that stays or goes has to do with what it is about.
    Orphan,
}

fn follows_held(tag: &Tag, held: &Reached, lost: &Reached, is_unknown: bool) -> Following {
    let Some(tag) = FallbackTag::parse(tag) else {
        return Following::Stays("it is like any other tag".to_owned());
    };
    if held.has_subject_of(&tag) {
        return Following::Stays("what it is about has a tag that stays".to_owned());
    }
    if is_unknown {
        let why = "a tag that stays holds no digest, so nobody knows whether it is on this";
        return Following::Stays(why.to_owned());
    }
    if let Some(unreadable) = &held.unreadable {
        let why = format!("{unreadable}, which has a tag, can't be read and may list this");
        return Following::Stays(why);
    }
    if lost.has_subject_of(&tag) { Following::Goes } else { Following::Orphan }
}

/// Whether there is no use in going on with the repository: the store fails, and not only one object makes no sense.
fn ends_repository(error: &StoreError) -> bool {
    error.answer().is_some() || error.kind() != StoreErrorKind::Failed
}

fn with_verdict(decisions: &[Decision], verdict: Verdict) -> Vec<usize> {
    let found = decisions.iter().enumerate().filter(|(_, decision)| decision.verdict == verdict);
    found.map(|(number, _)| number).collect()
}

impl TagOutcome {
    fn new(listed: &ListedTag, fate: Fate, why: &str) -> Self {
        let ListedTag { tag, modified, .. } = listed;
        Self { tag: tag.clone(), modified: modified.clone(), fate, why: why.to_owned() }
    }

    fn by(listed: &ListedTag, decision: &Decision) -> Self {
        let fate = match decision.verdict {
            Verdict::Keep | Verdict::FollowSubject => Fate::Kept,
            Verdict::LeaveAlone => Fate::LeftAlone,
            Verdict::Delete => Fate::Deleted,
        };
        Self::new(listed, fate, &decision.why)
    }
}

impl Outcome {
    fn set(&mut self, number: usize, fate: Fate) {
        if let Some(tag) = self.tags.get_mut(number) {
            tag.fate = fate;
        }
    }

    fn decide(&mut self, number: usize, fate: Fate, why: &str) {
        if let Some(tag) = self.tags.get_mut(number) {
            tag.fate = fate;
            tag.why = why.to_owned();
        }
    }

    fn explain(&mut self, numbers: &[usize], why: &str) {
        for number in numbers {
            self.decide(*number, Fate::Kept, why);
        }
    }

    fn keep(mut self, numbers: &[usize], why: &str) -> Self {
        self.explain(numbers, why);
        self
    }

    fn tags_at(&self, numbers: &[usize]) -> impl Iterator<Item = &TagOutcome> {
        numbers.iter().filter_map(|number| self.tags.get(*number))
    }
}
