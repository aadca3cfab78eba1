//! What came of the tags of a repository.

use moorage::oci::Tag;
use moorage::store::StoreError;

use super::decision::{Decision, Verdict};
use super::tags::ListedTag;

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

impl TagOutcome {
    pub(super) fn new(listed: &ListedTag, fate: Fate, why: &str) -> Self {
        let ListedTag { tag, modified, .. } = listed;
        Self { tag: tag.clone(), modified: modified.clone(), fate, why: why.to_owned() }
    }

    pub(super) fn by(listed: &ListedTag, decision: &Decision) -> Self {
        let fate = match decision.verdict {
            Verdict::Keep | Verdict::FollowSubject => Fate::Kept,
            Verdict::LeaveAlone => Fate::LeftAlone,
            Verdict::Delete => Fate::Deleted,
        };
        Self::new(listed, fate, &decision.why)
    }
}

impl Outcome {
    pub(super) fn set(&mut self, number: usize, fate: Fate) {
        if let Some(tag) = self.tags.get_mut(number) {
            tag.fate = fate;
        }
    }

    pub(super) fn decide(&mut self, number: usize, fate: Fate, why: &str) {
        if let Some(tag) = self.tags.get_mut(number) {
            tag.fate = fate;
            tag.why = why.to_owned();
        }
    }

    pub(super) fn explain(&mut self, numbers: &[usize], why: &str) {
        for number in numbers {
            self.decide(*number, Fate::Kept, why);
        }
    }

    pub(super) fn keep(mut self, numbers: &[usize], why: &str) -> Self {
        self.explain(numbers, why);
        self
    }

    pub(super) fn tags_at(&self, numbers: &[usize]) -> impl Iterator<Item = &TagOutcome> {
        numbers.iter().filter_map(|number| self.tags.get(*number))
    }
}
