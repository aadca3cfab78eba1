//! `moorage access check`: whether the filter would take the configuration.

use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use moorage::registry::Settings;
use moorage::registry::access::Access;

use super::configuration::{ConfigurationError, ConfigurationOptions};
use crate::{Failure, output};

/// Says whether a configuration is valid, as the filter would.
///
/// The status is 0 if it is, 1 if it is not, and 2 if it can't be read.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    configuration: ConfigurationOptions,
}

/// Checks, and gives the status.
///
/// # Errors
///
/// If the file can't be read, or is not valid.
pub fn run(options: &Check) -> Result<ExitCode, Failure> {
    let settings = options.configuration.settings().map_err(|error| match error {
        ConfigurationError::Invalid(text) => Failure::Failed(text),
        unreadable => unreadable.into(),
    })?;
    output::say(summary(&settings));
    for warning in warnings(&settings, SystemTime::now()) {
        output::warn(warning);
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(settings: &Settings) -> String {
    let Some(access) = &settings.access else {
        return "valid, without access control".to_owned();
    };
    let accounts = access.accounts();
    format!(
        "valid: users: {}; robots' tokens: {}; groups: {}; rules: {}",
        accounts.users.len(),
        accounts.robots.len(),
        accounts.groups.len(),
        access.rules().all().len(),
    )
}

/// What the filter takes, and nobody may have meant.
fn warnings(settings: &Settings, now: SystemTime) -> Vec<String> {
    match &settings.access {
        None => vec!["everybody may do everything: there is no field access".to_owned()],
        Some(access) => access_warnings(access, now),
    }
}

fn access_warnings(access: &Access, now: SystemTime) -> Vec<String> {
    let mut warnings = Vec::new();
    if access.rules().all().is_empty() {
        warnings.push("nobody may do anything: there are no rules".to_owned());
    }
    for (number, robot) in access.accounts().robots.iter().enumerate() {
        if !robot.is_valid(now) {
            warnings.push(format!("tokens[{number}] of {:?} has expired", robot.name));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::commands::access::configuration;
    use moorage_test_support::accounts::key;

    fn checked(config: &Value) -> (String, Vec<String>) {
        let settings = configuration::parse(config.to_string().as_bytes()).expect("valid");
        (summary(&settings), warnings(&settings, SystemTime::now()))
    }

    #[test]
    fn what_is_valid_and_hardly_meant_is_warned_of() {
        let token =
            |expires: &str| json!({ "name": "ci", "sha256": "5".repeat(64), "expires": expires });
        let rule = json!({ "who": ["user:ci"], "repositories": ["**"], "actions": ["pull"] });
        let mut config = json!({ "key": key(), "rules": [rule] });
        config["tokens"] = json!([token("9999-01-01T00:00:00Z")]);
        let expected = "valid: users: 0; robots' tokens: 1; groups: 0; rules: 1";
        assert_eq!(checked(&config), (expected.to_owned(), vec![]));
        config["tokens"] = json!([token("9999-01-01T00:00:00Z"), token("2020-01-01T00:00:00Z")]);
        config["rules"] = json!([]);
        let (_, warnings) = checked(&config);
        assert!(warnings[0].contains("no rules"), "{warnings:?}");
        assert!(warnings[1].contains("tokens[1]") && warnings.len() == 2, "{warnings:?}");
        let open = json!({ "store": { "cluster": "s", "authority": "s", "bucket": "b" } });
        let (summary, warnings) = checked(&open);
        assert!(summary.contains("without") && warnings[0].contains("everybody"), "{warnings:?}");
    }
}
