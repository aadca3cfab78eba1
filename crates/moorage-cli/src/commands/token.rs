//! `moorage token new`: makes a token for a robot, a program that has no password to remember.
//!
//! Standard output has the token, and nothing else: a script hands it straight to whatever keeps secrets, and what it
//! leaves in a log, standard error, is the entry for the configuration, which is no secret.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use moorage::registry::access::{TokenHash, robot_token};
use serde::Serialize;

use super::{check_account_name, random_bytes};
use crate::output::Format;
use crate::{Failure, output};

/// Makes tokens for robots, which are programs.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    New(NewToken),
}

/// Makes a token, and its entry of `access.tokens`.
///
/// The token goes to standard output, this once. The entry, which is no secret, goes to standard error; with --format
/// json, both are in one document on standard output.
#[derive(Debug, Args)]
pub struct NewToken {
    /// The robot's name; in rules it is user:NAME.
    name: String,

    /// For how long it is valid, such as 90d or 1year; for ever unless set.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    expires: Option<Duration>,

    /// How to print both.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What the configuration has of a token.
#[derive(Debug, Serialize)]
struct Entry {
    name: String,
    sha256: String,
    /// In RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

/// A token with its entry.
#[derive(Serialize)]
struct Made {
    token: String,
    entry: Entry,
}

/// Makes a token.
///
/// # Errors
///
/// A name that no robot can have, and a time that leads nowhere.
pub fn run(TokenCommand::New(options): TokenCommand) -> Result<ExitCode, Failure> {
    check_account_name(&options.name)?;
    let expires = options.expires.map(|time| end(Timestamp::now(), time)).transpose()?;
    let made = make(options.name, expires, &random_bytes()?);
    // Texts always serialise.
    match options.format {
        Format::Json => {
            output::hand_over(serde_json::to_string_pretty(&made).unwrap_or_default())?;
        }
        Format::Table => {
            output::hand_over(&made.token)?;
            output::note(
                "The token is on standard output. It is kept nowhere, and not shown again.",
            );
            output::note(
                "This is its entry of the list access.tokens in the filter's configuration:",
            );
            output::note(serde_json::to_string(&made.entry).unwrap_or_default());
        }
    }
    if made.entry.expires.is_none() {
        output::warn("the token never expires; --expires 90d would have it end");
    }
    Ok(ExitCode::SUCCESS)
}

fn make(name: String, expires: Option<Timestamp>, random: &[u8; 32]) -> Made {
    let token = robot_token(random);
    let expires = expires.map(|time| time.to_string());
    let entry = Entry { name, sha256: TokenHash::of(&token).to_hex(), expires };
    Made { token, entry }
}

/// When a token ends that is valid for so long from now on, in whole seconds.
fn end(now: Timestamp, time: Duration) -> Result<Timestamp, Failure> {
    let wrong = |why: &str| Failure::Usage(format!("--expires {why}"));
    if time < Duration::from_secs(1) {
        return Err(wrong("must be a second at least"));
    }
    let end = SignedDuration::try_from(time).ok().and_then(|time| now.checked_add(time).ok());
    let end = end.and_then(|end| Timestamp::from_second(end.as_second()).ok());
    end.ok_or_else(|| wrong("leads beyond the calendar"))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use moorage::config::AccessConfig;
    use moorage::registry::access::{Accounts, Robot};
    use serde_json::json;

    use super::*;
    use moorage_test_support::accounts::key;

    fn now() -> Timestamp {
        "2026-11-25T12:00:00.75Z".parse().expect("a time")
    }

    /// The accounts of a configuration with this entry.
    fn accounts(entry: &Entry) -> Accounts {
        let config = json!({ "key": key(), "tokens": [entry] }).to_string();
        let config = AccessConfig::parse(config.as_bytes()).expect("a valid configuration");
        config.access().accounts().clone()
    }

    #[test]
    fn the_filter_takes_a_token_until_it_ends() {
        let day = Duration::from_secs(24 * 60 * 60);
        let expires = end(now(), day).expect("a time");
        let made = make("ci".to_owned(), Some(expires), &[7; 32]);
        assert_eq!(made.entry.expires.as_deref(), Some("2026-11-26T12:00:00Z"));
        assert_eq!(made.token.len(), "mrg_".len() + 43);
        let accounts = accounts(&made.entry);
        let begin = SystemTime::from(now());
        let name = |time| accounts.robot(&made.token, time).map(|robot| robot.name.as_str());
        assert_eq!(name(begin + day - Duration::from_secs(1)), Some("ci"));
        assert_eq!(name(begin + day), None);
        assert!(accounts.robot(&format!("{}x", made.token), begin).is_none());
    }

    #[test]
    fn a_token_without_an_end_is_valid_for_ever() {
        let made = make("ci".to_owned(), None, &[8; 32]);
        let accounts = accounts(&made.entry);
        assert!(matches!(accounts.robots.as_slice(), [Robot { expires: None, .. }]));
        let far = SystemTime::from(now()) + Duration::from_secs(1_000_000_000);
        assert!(accounts.robot(&made.token, far).is_some());
    }

    #[test]
    fn a_time_that_leads_nowhere_is_refused() {
        for time in [Duration::ZERO, Duration::from_millis(999), Duration::MAX] {
            assert!(matches!(end(now(), time), Err(Failure::Usage(_))), "{time:?}");
        }
        assert!(end(now(), Duration::from_secs(1)).is_ok());
        let ages = Duration::from_secs(10_000 * 365 * 24 * 60 * 60);
        assert!(end(now(), ages).is_err());
    }
}
