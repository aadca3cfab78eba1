//! What becomes of the tags by which clients attach signatures and the like to a manifest.
//!
//! Such a tag goes when its subject loses its last tag, and not before: neither a tag on the subject stays, nor one on an
//! index that lists it, nor one on what it refers to itself. What is about a manifest that never had a tag, or lost it
//! earlier, stays: people pull by digest, and verify then. It is decided by what the repository has once the other tags
//! have gone.

use std::cell::RefCell;
use std::collections::HashSet;
use std::time::Duration;

use moorage::oci::{Digest, Name, Tag};
use moorage::store::{Objects, Store, StoreError, for_each_bounded};

use super::execution::{PARALLEL_TAGS, Retention, ends_repository};
use super::fallback::FallbackTag;
use super::outcome::{Fate, Outcome};
use super::reach::{Manifests, Reached};
use super::tags::{ListedTag, list_tags};

/// How old a fallback tag is at least before it goes for want of its subject: clients may push what refers to a manifest
/// before the manifest.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 60 * 60);

impl<O: Objects> Retention<'_, O> {
    /// Decides on these fallback tags by what stays and what has gone, and deletes those that go.
    pub(super) async fn follow(
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
