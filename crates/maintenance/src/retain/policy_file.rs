//! The policy as a file: its fields, and what is refused.
//!
//! Nothing is guessed: a field that nobody knows, an empty list, or a number that would keep nothing is an error, with
//! its line and its place.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use moorage::registry::glob::Glob;
use serde::de::{Deserialize, Deserializer, SeqAccess, Unexpected, Visitor};
use serde_saphyr::{Location, Spanned, UserMessageFormatter, options, render_options};
use thiserror::Error;

use super::policy::{Condition, Policy, Rule, Selection};
use super::versions::{Line, Versions};

/// Why a text is no policy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {problem}")]
pub struct PolicyError {
    /// The line, from 1 on.
    pub line: u64,
    /// What is wrong there, with the field.
    pub problem: String,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rules: Spanned<Vec<Spanned<RuleFields>>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFields {
    repositories: Patterns,
    except_repositories: Option<Patterns>,
    tags: Patterns,
    except_tags: Option<Patterns>,
    keep: Spanned<Keep>,
    #[serde(default)]
    delete_immutable: bool,
    #[serde(default)]
    may_delete_all: bool,
    #[serde(default)]
    delete_orphaned_referrers: bool,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionFields {
    tags: Option<Patterns>,
    newest: Option<Spanned<String>>,
    younger_than: Option<Spanned<String>>,
    versions: Option<VersionsFields>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct VersionsFields {
    newest: Spanned<String>,
    of_each: Option<LineField>,
    #[serde(default = "yes")]
    prereleases: bool,
}

#[derive(Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum LineField {
    Major,
    Minor,
}

fn yes() -> bool {
    true
}

/// A list of patterns, each with its place.
struct Patterns(Spanned<PatternList>);

struct PatternList(Vec<Spanned<String>>);

/// What stays: the word `nothing`, or conditions.
enum Keep {
    Nothing,
    Any(Vec<Spanned<ConditionFields>>),
}

/// Reads a policy.
pub(super) fn parse(text: &str) -> Result<Policy, PolicyError> {
    let options = options! { with_snippet: false, strict_booleans: true };
    let file: File = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| of_yaml(&error, text))?;
    let rules = not_empty(&file.rules, "rules", file.rules.value.len())?;
    let rules = rules.value.iter().enumerate();
    let rules = rules.map(|(number, fields)| rule(&format!("rules[{number}]"), &fields.value));
    Ok(Policy { rules: rules.collect::<Result<_, _>>()? })
}

/// An error of the YAML, or of a field's type. The line is shown, because not every such error has the field's name.
fn of_yaml(error: &serde_saphyr::Error, text: &str) -> PolicyError {
    let location = error.location().unwrap_or(Location::UNKNOWN);
    let told = error.render_with_options(render_options! { formatter: &UserMessageFormatter });
    let told = told.lines().next().unwrap_or_default();
    let place = format!(" at line {}, column {}", location.line(), location.column());
    let told = told.strip_suffix(&place).unwrap_or(told);
    let shown = usize::try_from(location.line().saturating_sub(1)).ok();
    let shown = shown.and_then(|number| text.lines().nth(number)).map(str::trim);
    let mut problem = told.to_owned();
    if let Some(shown) = shown.filter(|line| !line.is_empty()) {
        problem.push_str(&format!(", in `{shown}`"));
        if shown.contains("[*") || shown.contains("- *") || shown.contains(" *") {
            problem.push_str("; a pattern that begins with * needs quotes: \"*\"");
        }
    }
    PolicyError { line: location.line(), problem }
}

fn wrong<T>(at: &Spanned<T>, field: &str, problem: impl Display) -> PolicyError {
    PolicyError { line: at.referenced.line(), problem: format!("{field} {problem}") }
}

fn not_empty<'a, T>(
    at: &'a Spanned<T>,
    field: &str,
    length: usize,
) -> Result<&'a Spanned<T>, PolicyError> {
    match length {
        0 => Err(wrong(at, field, "is empty, so it says nothing")),
        _ => Ok(at),
    }
}

fn rule(path: &str, fields: &RuleFields) -> Result<Rule, PolicyError> {
    let selection = |name: &str, patterns: &Patterns, except: &Option<Patterns>| {
        let patterns = globs(&format!("{path}.{name}"), patterns)?;
        let except = match except {
            Some(except) => globs(&format!("{path}.except_{name}"), except)?,
            None => Vec::new(),
        };
        Ok(Selection { patterns, except })
    };
    Ok(Rule {
        repositories: selection("repositories", &fields.repositories, &fields.except_repositories)?,
        tags: selection("tags", &fields.tags, &fields.except_tags)?,
        keep: conditions(&format!("{path}.keep"), &fields.keep)?,
        delete_immutable: fields.delete_immutable,
        may_delete_all: fields.may_delete_all,
        delete_orphaned_referrers: fields.delete_orphaned_referrers,
    })
}

fn globs(path: &str, patterns: &Patterns) -> Result<Vec<Glob>, PolicyError> {
    let list = &not_empty(&patterns.0, path, patterns.0.value.0.len())?.value.0;
    let glob = |(number, pattern): (usize, &Spanned<String>)| {
        let field = format!("{path}[{number}]");
        pattern.value.parse().map_err(|problem| wrong(pattern, &field, problem))
    };
    list.iter().enumerate().map(glob).collect()
}

fn conditions(path: &str, keep: &Spanned<Keep>) -> Result<Vec<Condition>, PolicyError> {
    let Keep::Any(conditions) = &keep.value else {
        return Ok(Vec::new());
    };
    if conditions.is_empty() {
        let problem = "is empty, so every tag would be deleted; if that is meant, say `nothing`";
        return Err(wrong(keep, path, problem));
    }
    let conditions = conditions.iter().enumerate();
    conditions.map(|(number, fields)| condition(&format!("{path}[{number}]"), fields)).collect()
}

fn condition(path: &str, at: &Spanned<ConditionFields>) -> Result<Condition, PolicyError> {
    let fields = &at.value;
    let condition = Condition {
        tags: match &fields.tags {
            Some(patterns) => Some(globs(&format!("{path}.tags"), patterns)?),
            None => None,
        },
        newest: match &fields.newest {
            Some(newest) => Some(count(&format!("{path}.newest"), newest)?),
            None => None,
        },
        younger_than: match &fields.younger_than {
            Some(age) => Some(duration(&format!("{path}.younger_than"), age)?),
            None => None,
        },
        versions: match &fields.versions {
            Some(versions) => Some(self::versions(&format!("{path}.versions"), versions)?),
            None => None,
        },
    };
    if condition == (Condition { tags: None, newest: None, younger_than: None, versions: None }) {
        let problem = "is empty: it needs tags, newest, younger_than or versions";
        return Err(wrong(at, path, problem));
    }
    Ok(condition)
}

fn versions(path: &str, fields: &VersionsFields) -> Result<Versions, PolicyError> {
    Ok(Versions {
        newest: count(&format!("{path}.newest"), &fields.newest)?,
        of_each: match fields.of_each {
            None => Line::All,
            Some(LineField::Major) => Line::Major,
            Some(LineField::Minor) => Line::Minor,
        },
        prereleases: fields.prereleases,
    })
}

fn count<T: FromStr>(field: &str, text: &Spanned<String>) -> Result<T, PolicyError> {
    text.value.parse().map_err(|_| wrong(text, field, "must be a number from 1 on"))
}

fn duration(field: &str, text: &Spanned<String>) -> Result<Duration, PolicyError> {
    match humantime::parse_duration(&text.value) {
        Ok(age) if !age.is_zero() => Ok(age),
        _ => Err(wrong(text, field, "must be an age with its unit, such as 30days or 12h")),
    }
}

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for PatternList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;

        impl<'de> Visitor<'de> for ListVisitor {
            type Value = PatternList;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of patterns, such as [\"v*\"]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<PatternList, A::Error> {
                elements(list).map(PatternList)
            }
        }

        deserializer.deserialize_any(ListVisitor)
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeepVisitor;

        impl<'de> Visitor<'de> for KeepVisitor {
            type Value = Keep;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of conditions, or the word `nothing`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Keep, E> {
                match text {
                    "nothing" => Ok(Keep::Nothing),
                    other => Err(E::invalid_value(Unexpected::Str(other), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Keep, A::Error> {
                elements(list).map(Keep::Any)
            }
        }

        deserializer.deserialize_any(KeepVisitor)
    }
}

fn elements<'de, A: SeqAccess<'de>, T: Deserialize<'de>>(mut list: A) -> Result<Vec<T>, A::Error> {
    let mut elements = Vec::new();
    while let Some(element) = list.next_element()? {
        elements.push(element);
    }
    Ok(elements)
}

#[cfg(test)]
mod tests;
