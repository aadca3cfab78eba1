//! `moorage retain`: deletes the tags that a policy does not keep.
//!
//! What stays is decided by [`moorage_maintenance::retain`]. Here the policy and the filter's configuration are read, all
//! repositories gone through, and every decision told.

use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use futures::stream::{self, StreamExt};
use moorage::config::Config;
use moorage::oci::{Name, Tag};
use moorage::registry::Settings;
use moorage::registry::glob::Glob;
use moorage::store::{Bucket, StoreError, repositories_with_manifests};
use moorage_maintenance::retain::{Fate, Outcome, Policy, Problem, Retention};
use serde::Serialize;

use crate::connection::ConnectionOptions;
use crate::output::{Format, Output, warn};
use crate::signed_http::SignedHttp;
use crate::{Failure, store_fault};

/// How many repositories are gone through at a time.
const REPOSITORIES_TOGETHER: usize = 8;

/// Deletes the tags that a policy does not keep. Without --apply it only tells which.
#[derive(Debug, Args)]
pub struct Retain {
    /// The file that says which tags stay, in YAML.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,

    /// Delete, and do not only tell what would be deleted.
    #[arg(long)]
    apply: bool,

    /// The file with the filter's configuration, in JSON: it says which tags are immutable.
    #[arg(long, value_name = "FILE", conflicts_with = "no_config")]
    config: Option<PathBuf>,

    /// The filter has no immutable tags, or they are not to be minded.
    #[arg(long)]
    no_config: bool,

    /// Only the repositories whose names match; may be repeated.
    #[arg(long = "repository", value_name = "GLOB")]
    repositories: Vec<Glob>,

    /// How to say what was done.
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    connection: ConnectionOptions,
}

/// What was decided and done.
#[derive(Debug, Default, Serialize)]
struct Report {
    applied: bool,
    /// How many repositories a rule is for.
    repositories: usize,
    /// Those tags that a rule is for.
    tags: Vec<Told>,
    kept: usize,
    /// Deleted, or would be.
    deleted: usize,
    /// How many tags no rule is for.
    left_alone: usize,
    failures: usize,
}

/// A tag, and what came of it.
#[derive(Debug, Serialize)]
struct Told {
    repository: String,
    tag: String,
    /// When it was last set.
    written: String,
    outcome: &'static str,
    why: String,
}

/// Retains, and gives the status.
///
/// # Errors
///
/// A policy or a configuration that makes no sense, and a store that does not say what repositories there are.
pub async fn run(options: Retain) -> Result<ExitCode, Failure> {
    let policy = read_policy(&options)?;
    let settings = read_settings(&options)?;
    let bucket = options.connection.connect().await?;
    let output = Output::new(options.format);
    output.looking_at("all repositories");
    let found = repositories_with_manifests(&bucket).await;
    let found = found.map_err(|error| Failure::Failed(told(&error, &bucket)))?;
    let report = Report { applied: options.apply, ..Report::default() };
    let mut telling = Telling { bucket: &bucket, output, report };
    let is_asked_for = |name: &Name| {
        options.repositories.is_empty()
            || options.repositories.iter().any(|glob| glob.matches(name.as_str()))
    };
    for (name, error) in found.unlisted.iter().filter(|(name, _)| is_asked_for(name)) {
        telling.failed(name.as_str(), &telling.told(error));
    }
    let names: Vec<_> = found.names.iter().filter(|name| is_asked_for(name)).collect();
    warn_of_idle_rules(&policy, &names, &options);
    let immutable = |name: &Name, tag: &Tag| settings.immutable(name, tag);
    let retention = Retention {
        objects: &bucket,
        policy: &policy,
        immutable: &immutable,
        now: bucket.http().store_time().unwrap_or_else(SystemTime::now),
        apply: options.apply,
    };
    let names = names.into_iter().filter(|name| policy.rules_for(name).next().is_some());
    let retained = async |name| (name, retention.repository(name).await);
    let mut outcomes = pin!(stream::iter(names).map(&retained).buffered(REPOSITORIES_TOGETHER));
    while let Some((name, outcome)) = outcomes.next().await {
        telling.output.looking_at(name.to_string());
        telling.repository(name, outcome);
    }
    Ok(telling.finish())
}

fn read_policy(options: &Retain) -> Result<Policy, Failure> {
    let path = options.policy.display();
    let text = std::fs::read_to_string(&options.policy)
        .map_err(|error| Failure::Usage(format!("--policy {path}: {error}")))?;
    Policy::parse(&text).map_err(|error| Failure::Usage(format!("{path}: {error}")))
}

/// The filter's settings; those of a filter without immutable tags where there is no configuration.
fn read_settings(options: &Retain) -> Result<Settings, Failure> {
    let Some(path) = &options.config else {
        if options.apply && !options.no_config {
            let problem = "--apply needs --config FILE, the filter's configuration, to know which tags are \
                           immutable; or --no-config, if there are none";
            return Err(Failure::Usage(problem.to_owned()));
        }
        if !options.no_config {
            warn("without --config no tag counts as immutable");
        }
        return Ok(Settings::default());
    };
    let shown = path.display();
    let json = std::fs::read(path)
        .map_err(|error| Failure::Usage(format!("--config {shown}: {error}")))?;
    let config = Config::parse(&json)
        .map_err(|error| Failure::Usage(format!("{shown}, the filter's configuration: {error}")))?;
    Ok(config.settings())
}

/// A rule that is for no repository is one that says something else than was meant, or is no longer needed.
fn warn_of_idle_rules(policy: &Policy, names: &[&Name], options: &Retain) {
    if !options.repositories.is_empty() {
        return;
    }
    for (number, rule) in policy.rules.iter().enumerate() {
        if !names.iter().any(|name| rule.repositories.has(name.as_str())) {
            warn(format_args!("rules[{number}] is for no repository that there is"));
        }
    }
}

fn told(error: &StoreError, bucket: &Bucket<SignedHttp>) -> String {
    store_fault::told(error, bucket.http())
}

/// Tells what was decided and done.
struct Telling<'a> {
    bucket: &'a Bucket<SignedHttp>,
    output: Output,
    report: Report,
}

impl Telling<'_> {
    fn repository(&mut self, name: &Name, outcome: Outcome) {
        self.report.repositories += 1;
        for tag in outcome.tags {
            self.output.seen_one();
            let outcome = self.outcome(tag.fate);
            match tag.fate {
                Fate::Kept => self.report.kept += 1,
                Fate::Deleted => self.report.deleted += 1,
                Fate::LeftAlone => {
                    self.report.left_alone += 1;
                    continue;
                }
                Fate::Gone | Fate::Undone => {}
            }
            self.output.done(format!("{outcome:<7} {name}:{}  {}", tag.tag, tag.why));
            self.report.tags.push(Told {
                repository: name.to_string(),
                tag: tag.tag.to_string(),
                written: tag.modified,
                outcome,
                why: tag.why,
            });
        }
        for problem in outcome.problems {
            self.problem(name, &problem);
        }
    }

    fn outcome(&self, fate: Fate) -> &'static str {
        match fate {
            Fate::Kept | Fate::LeftAlone => "keep",
            Fate::Deleted if self.report.applied => "deleted",
            Fate::Deleted => "delete",
            Fate::Gone => "gone",
            Fate::Undone => "undone",
        }
    }

    fn problem(&mut self, name: &Name, problem: &Problem) {
        match problem {
            Problem::WouldDeleteAll { rule } => self.failed(
                name.as_str(),
                &format!(
                    "nothing was deleted, because no tag would stay; if that is meant, set may_delete_all: true \
                     in rules[{rule}]"
                ),
            ),
            Problem::Store { tag: Some(tag), error } => {
                self.failed(&format!("{name}:{tag}"), &self.told(error));
            }
            Problem::Store { tag: None, error } => self.failed(name.as_str(), &self.told(error)),
        }
    }

    fn told(&self, error: &StoreError) -> String {
        told(error, self.bucket)
    }

    /// Notes that something could not be done. The other repositories are gone through all the same.
    fn failed(&mut self, what: &str, why: &str) {
        self.report.failures += 1;
        self.output.failed(format!("{what}: {why}"));
    }

    fn finish(self) -> ExitCode {
        let Report { applied, repositories, kept, deleted, left_alone, failures, .. } = self.report;
        let would_be = if applied { "" } else { "would be " };
        let summary = format!(
            "repositories: {repositories}; tags: {kept} kept, {deleted} {would_be}deleted, {left_alone} left alone; \
             failures: {failures}"
        );
        self.output.finish(summary, &self.report);
        if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
