//! `moorage access explain`: whether a caller may do something, and by which rules or why not.

use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, ValueEnum};
use moorage::oci::{Name, Tag};
use moorage::registry::Settings;
use moorage::registry::access::Operation;

use super::caller::Named;
use super::configuration::ConfigurationOptions;
use super::explanation::{Asked, Explanation, explain};
use crate::output::Format;
use crate::{Failure, output};

/// Says whether a caller may do something, by which rules, or why not.
///
/// The status is 0 if it may, 1 if it may not, and 2 if the command line or the configuration is wrong.
#[derive(Debug, Args)]
pub struct Explain {
    #[command(flatten)]
    configuration: ConfigurationOptions,

    /// Who: anonymous, the NAME of a user or robot, user:NAME, spiffe://NAME or dns:NAME.
    #[arg(long = "as", value_name = "NAME")]
    caller: String,

    /// A group that a token of another server puts the caller into, without group:; may be repeated.
    #[arg(long = "group", value_name = "NAME")]
    groups: Vec<String>,

    /// What is done.
    #[arg(value_enum)]
    action: Action,

    /// The repository in which.
    repository: Name,

    /// The tag of the manifest; without it, a manifest by its digest, or a blob.
    #[arg(long)]
    tag: Option<Tag>,

    /// How to say it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What is done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    Pull,
    Push,
    Delete,
}

impl From<Action> for Operation {
    fn from(action: Action) -> Self {
        match action {
            Action::Pull => Self::Pull,
            Action::Push => Self::Push,
            Action::Delete => Self::Delete,
        }
    }
}

/// Explains, and gives the status.
///
/// # Errors
///
/// A name that is none, and a file that can't be read or is not valid.
pub fn run(options: Explain) -> Result<ExitCode, Failure> {
    let caller = Named::parse(&options.caller)
        .map_err(|problem| Failure::Usage(format!("--as {problem}")))?;
    let settings = options.configuration.settings()?;
    let asked = Asked {
        operation: options.action.into(),
        repository: options.repository,
        tag: options.tag,
    };
    let explanation = answer(&settings, &caller, options.groups, &asked, SystemTime::now());
    match options.format {
        // Texts and numbers always serialise.
        Format::Json => output::say(serde_json::to_string_pretty(&explanation).unwrap_or_default()),
        Format::Table => output::say(&explanation),
    }
    for warning in &explanation.warnings {
        output::warn(warning);
    }
    Ok(if explanation.allowed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The answer by these settings.
fn answer(
    settings: &Settings,
    caller: &Named,
    groups: Vec<String>,
    asked: &Asked,
    now: SystemTime,
) -> Explanation {
    let mut explanation = match &settings.access {
        None => Explanation::of_no_access_control(),
        Some(access) => {
            let known = caller.known(access, groups, now);
            let mut explanation = explain(access.rules(), &known.caller, asked);
            explanation.configured_groups = known.configured_groups;
            explanation.warnings = known.warnings;
            explanation
        }
    };
    explanation.warnings.extend(other_limits(settings, asked));
    explanation
}

/// What of the configuration beside the rules forbids it to whomever.
fn other_limits(settings: &Settings, asked: &Asked) -> Vec<String> {
    let mut limits = Vec::new();
    if asked.operation != Operation::Pull && settings.read_only {
        limits.push("by read_only nobody may change anything".to_owned());
    }
    if asked.operation == Operation::Delete && !settings.delete_enabled {
        limits.push("by delete_enabled nobody may delete anything".to_owned());
    }
    if asked.operation != Operation::Pull
        && let Some(tag) = &asked.tag
        && let Some(number) = settings.immutable(&asked.repository, tag)
    {
        let rule = format!("policy.tags.immutable[{number}]");
        limits.push(format!("by {rule} nobody may move or delete the tag {tag} once it is set"));
    }
    limits
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::access::configuration;
    use moorage_test_support::accounts::key;

    fn asked(operation: Operation, repository: &str, tag: &str) -> Asked {
        let repository = repository.parse().expect("a name");
        let tag = Some(tag).filter(|tag| !tag.is_empty());
        Asked { operation, repository, tag: tag.map(|tag| tag.parse().expect("a tag")) }
    }

    #[test]
    fn what_forbids_it_to_everybody_is_warned_of() {
        let config = json!({
            "store": { "cluster": "s", "authority": "s", "bucket": "b" },
            "access": { "key": key() },
            "read_only": true,
            "delete_enabled": false,
            "policy": { "tags": { "immutable": [{ "repositories": ["a"], "tags": ["v*"] }] } },
        });
        let settings = configuration::parse(config.to_string().as_bytes()).expect("valid");
        for (asked, limits) in [
            (asked(Operation::Pull, "a", "v1"), &[][..]),
            (asked(Operation::Push, "a", ""), &["read_only"]),
            (asked(Operation::Push, "a", "v1"), &["read_only", "immutable[0]"]),
            (asked(Operation::Push, "b", "v1"), &["read_only"]),
            (asked(Operation::Delete, "a", "x"), &["read_only", "delete_enabled"]),
        ] {
            let caller = Named::Anonymous;
            let answer = answer(&settings, &caller, Vec::new(), &asked, SystemTime::now());
            assert_eq!(answer.warnings.len(), limits.len(), "{asked:?}: {:?}", answer.warnings);
            for (warning, limit) in answer.warnings.iter().zip(limits) {
                assert!(warning.contains(limit), "{asked:?}: {warning}");
            }
        }
    }

    #[test]
    fn without_access_control_everybody_may_do_everything() {
        let config = json!({ "store": { "cluster": "s", "authority": "s", "bucket": "b" } });
        let settings = configuration::parse(config.to_string().as_bytes()).expect("valid");
        let asked = asked(Operation::Delete, "a", "");
        let answer = answer(&settings, &Named::Anonymous, Vec::new(), &asked, SystemTime::now());
        assert!(answer.allowed && answer.to_string().contains("no access control"), "{answer}");
    }
}
