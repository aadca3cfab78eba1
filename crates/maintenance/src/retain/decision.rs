//! Which tags of a repository stay, by the policy.
//!
//! A pure function of the policy, the listed tags and a time. Where it depends on order or age it never depends on the
//! order in which tags are listed: tags that were written at the same time as the last one that stays, stay.

use std::cmp::Reverse;
use std::time::{Duration, SystemTime};

use moorage::oci::{Name, Tag};
use moorage::registry::glob::Glob;

use super::fallback::FallbackTag;
use super::policy::{Condition, Policy, Rule, matches_any};
use super::tags::ListedTag;
use super::versions::Kept;

/// What becomes of a tag, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of it.
    pub verdict: Verdict,
    /// Why, for the person who wrote the policy.
    pub why: String,
}

/// What becomes of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep,
    /// It goes.
    Delete,
    /// The policy has no rule for it, so it stays.
    LeaveAlone,
    /// It stays or goes with the manifest that it is about.
    FollowSubject,
}

impl Decision {
    fn keep(why: impl Into<String>) -> Self {
        Self { verdict: Verdict::Keep, why: why.into() }
    }
}

/// Decides on all tags of a repository, in their order. `immutable` gives the number of the rule of the filter's
/// configuration that makes a tag immutable, if there is one.
///
/// It is not looked at here whether the repository would be left without a tag.
pub fn decide(
    policy: &Policy,
    repository: &Name,
    tags: &[ListedTag],
    now: SystemTime,
    immutable: impl Fn(&Tag) -> Option<usize>,
) -> Vec<Decision> {
    let rules: Vec<_> = policy
        .rules_for(repository)
        .map(|(number, rule)| AppliedRule::new(number, rule, tags, now))
        .collect();
    let decisions = tags.iter().map(|tag| decide_one(&rules, tag, immutable(&tag.tag)));
    decisions.collect()
}

/// Why a repository is not to be touched: these decisions delete all of its tags, fallback tags aside, and a rule that
/// deletes one of them does not say that it may. The rule's number.
pub(super) fn would_delete_all(
    policy: &Policy,
    repository: &Name,
    tags: &[ListedTag],
    decisions: &[Decision],
) -> Option<usize> {
    let mut goes_any = false;
    for decision in decisions {
        match decision.verdict {
            Verdict::Delete => goes_any = true,
            Verdict::Keep | Verdict::LeaveAlone => return None,
            Verdict::FollowSubject => {}
        }
    }
    let is_silent = |rule: &Rule| {
        !rule.may_keep_nothing() && tags.iter().any(|tag| rule.tags.has(tag.tag.as_str()))
    };
    let rule = policy.rules_for(repository).find(|(_, rule)| is_silent(rule));
    rule.filter(|_| goes_any).map(|(number, _)| number)
}

fn decide_one(rules: &[AppliedRule<'_>], tag: &ListedTag, immutable: Option<usize>) -> Decision {
    let name = tag.tag.as_str();
    if FallbackTag::parse(&tag.tag).is_some() {
        return decide_fallback(rules, name, immutable);
    }
    let rules: Vec<_> = rules.iter().filter(|applied| applied.rule.tags.has(name)).collect();
    if rules.is_empty() {
        let why = "no rule is for it".to_owned();
        return Decision { verdict: Verdict::LeaveAlone, why };
    }
    if let Some(number) = immutable
        && !rules.iter().all(|applied| applied.rule.delete_immutable)
    {
        return Decision::keep(immutable_by(number));
    }
    let mut against = Vec::new();
    for applied in rules {
        match applied.keeps(tag) {
            Ok(why) => return Decision::keep(why),
            Err(why) => against.extend(why),
        }
    }
    Decision { verdict: Verdict::Delete, why: against.join("; ") }
}

/// The conditions are about images; a fallback tag stays by them only where it is named by a pattern.
fn decide_fallback(rules: &[AppliedRule<'_>], name: &str, immutable: Option<usize>) -> Decision {
    if let Some(number) = immutable
        && !rules.iter().all(|applied| applied.rule.delete_immutable)
    {
        return Decision::keep(immutable_by(number));
    }
    for AppliedRule { number, rule, .. } in rules {
        if matches_any(&rule.tags.except, name) {
            return Decision::keep(format!("rules[{number}].except_tags names it"));
        }
        for (condition, patterns) in rule.keep.iter().enumerate() {
            if let Some(pattern) = patterns.patterns_alone().and_then(|all| first(all, name)) {
                return Decision::keep(format!("rules[{number}].keep[{condition}]: {pattern}"));
            }
        }
    }
    let why = "stays as long as what it is about has a tag".to_owned();
    Decision { verdict: Verdict::FollowSubject, why }
}

fn immutable_by(number: usize) -> String {
    format!("immutable, by policy.tags.immutable[{number}] of the filter's configuration")
}

fn first<'a>(patterns: &'a [Glob], name: &str) -> Option<&'a Glob> {
    patterns.iter().find(|pattern| pattern.matches(name))
}

/// A rule, with what its conditions come to for the tags of a repository.
struct AppliedRule<'a> {
    number: usize,
    rule: &'a Rule,
    conditions: Vec<AppliedCondition<'a>>,
    now: SystemTime,
}

/// A condition, with what it comes to for the tags of a repository.
struct AppliedCondition<'a> {
    condition: &'a Condition,
    /// The times of the tags that it is about, the latest first.
    times: Vec<SystemTime>,
    versions: Option<Kept<'a>>,
}

impl<'a> AppliedRule<'a> {
    fn new(number: usize, rule: &'a Rule, tags: &[ListedTag], now: SystemTime) -> Self {
        let is_decided = |tag: &&ListedTag| {
            rule.tags.has(tag.tag.as_str()) && FallbackTag::parse(&tag.tag).is_none()
        };
        let tags: Vec<_> = tags.iter().filter(is_decided).collect();
        let conditions = rule.keep.iter().map(|keep| AppliedCondition::new(keep, &tags)).collect();
        Self { number, rule, conditions, now }
    }

    /// Why the tag stays; or, for each condition, why it does not keep the tag.
    fn keeps(&self, tag: &ListedTag) -> Result<String, Vec<String>> {
        let number = self.number;
        let mut against = Vec::new();
        for (index, condition) in self.conditions.iter().enumerate() {
            match condition.keeps(tag, self.now) {
                Ok(why) => return Ok(format!("rules[{number}].keep[{index}]: {why}")),
                Err(why) => against.push(format!("rules[{number}].keep[{index}]: {why}")),
            }
        }
        if against.is_empty() {
            against.push(format!("rules[{number}] keeps nothing"));
        }
        Err(against)
    }
}

impl<'a> AppliedCondition<'a> {
    fn new(condition: &'a Condition, tags: &[&ListedTag]) -> Self {
        let is_about = |tag: &&&ListedTag| {
            condition.tags.as_ref().is_none_or(|globs| matches_any(globs, tag.tag.as_str()))
        };
        let tags: Vec<_> = tags.iter().filter(is_about).collect();
        let mut times: Vec<_> = match condition.newest {
            Some(_) => tags.iter().map(|tag| tag.written).collect(),
            None => Vec::new(),
        };
        times.sort_unstable_by_key(|time| Reverse(*time));
        let versions = condition.versions.as_ref();
        let versions = versions.map(|versions| Kept::of(versions, tags.iter().map(|tag| &tag.tag)));
        Self { condition, times, versions }
    }

    /// Whether all that is set holds, and why, or what does not.
    fn keeps(&self, tag: &ListedTag, now: SystemTime) -> Result<String, String> {
        let mut reasons = Vec::new();
        if let Some(patterns) = &self.condition.tags {
            match first(patterns, tag.tag.as_str()) {
                Some(pattern) => reasons.push(format!("matches {pattern}")),
                None => return Err("matches none of its tags".to_owned()),
            }
        }
        if let Some(newest) = self.condition.newest {
            let later = self.times.partition_point(|time| *time > tag.written);
            let place = later + 1;
            if later >= newest.get() {
                return Err(format!("number {place}, only the newest {newest} stay"));
            }
            reasons.push(format!("number {place} of the newest {newest}"));
        }
        if let Some(limit) = self.condition.younger_than {
            // The future is as young as can be.
            let age = now.duration_since(tag.written).unwrap_or_default();
            let (told, limit_told) = (told(age), humantime::format_duration(limit));
            if age >= limit {
                return Err(format!("{told} old, not younger than {limit_told}"));
            }
            reasons.push(format!("{told} old, younger than {limit_told}"));
        }
        if let Some(versions) = &self.versions {
            reasons.push(versions.tag(&tag.tag)?);
        }
        Ok(reasons.join(", "))
    }
}

/// An age in its largest unit that is worth telling.
fn told(age: Duration) -> String {
    let seconds = age.as_secs();
    for (unit, length) in [("d", 24 * 60 * 60), ("h", 60 * 60), ("m", 60)] {
        if seconds >= 2 * length {
            return format!("{}{unit}", seconds / length);
        }
    }
    format!("{seconds}s")
}

#[cfg(test)]
mod tests;
