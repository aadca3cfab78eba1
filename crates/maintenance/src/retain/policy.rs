//! The policy: which tags are decided on, and which of them stay.
//!
//! A tag that no rule is for is left alone, and so is a repository. Of the others a tag stays if any condition of any
//! rule that is for it keeps it; the order of rules never matters.

use std::num::NonZeroUsize;
use std::time::Duration;

use moorage::oci::Name;
use moorage::registry::glob::Glob;

use super::policy_file::{self, PolicyError};
use super::versions::Versions;

/// Which tags stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The rules, one at least.
    pub rules: Vec<Rule>,
}

/// What is decided for some tags of some repositories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The repositories.
    pub repositories: Selection,
    /// The tags that are decided on.
    pub tags: Selection,
    /// A tag stays if any of these keeps it. There are none only where the policy says so in so many words.
    pub keep: Vec<Condition>,
    /// Whether tags that the filter's configuration makes immutable are decided on like others.
    pub delete_immutable: bool,
    /// Whether a repository may be left without any tag.
    pub may_delete_all: bool,
    /// Whether fallback tags go whose subject the repository does not have.
    pub delete_orphaned_referrers: bool,
}

/// Names that match one of some patterns and none of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The patterns, one at least.
    pub patterns: Vec<Glob>,
    /// The patterns of those that are left out all the same.
    pub except: Vec<Glob>,
}

/// What keeps a tag: all that is set holds for it. Something is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// It matches one of these patterns. The other conditions are then about the tags that do.
    pub tags: Option<Vec<Glob>>,
    /// It is one of so many that were written last.
    pub newest: Option<NonZeroUsize>,
    /// It was written less than so long ago.
    pub younger_than: Option<Duration>,
    /// It is one of the newest versions.
    pub versions: Option<Versions>,
}

impl Policy {
    /// Reads a policy, which is YAML.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its line, the field, and what can stand there.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        policy_file::parse(text)
    }

    /// The rules that are for some tags of the repository, with their numbers.
    pub fn rules_for(&self, repository: &Name) -> impl Iterator<Item = (usize, &Rule)> {
        let is_for = |rule: &&Rule| rule.repositories.has(repository.as_str());
        self.rules.iter().enumerate().filter(move |(_, rule)| is_for(rule))
    }
}

impl Rule {
    /// Whether the policy says in so many words that nothing need stay.
    pub fn may_keep_nothing(&self) -> bool {
        self.may_delete_all || self.keep.is_empty()
    }
}

impl Selection {
    /// Whether the name is one of these.
    pub fn has(&self, name: &str) -> bool {
        matches_any(&self.patterns, name) && !matches_any(&self.except, name)
    }
}

impl Condition {
    /// The patterns, if the condition is nothing else.
    pub fn patterns_alone(&self) -> Option<&[Glob]> {
        let Self { tags, newest: None, younger_than: None, versions: None } = self else {
            return None;
        };
        tags.as_deref()
    }
}

/// Whether one of the patterns is for the name.
pub(super) fn matches_any(patterns: &[Glob], name: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(name))
}
