//! `moorage check`: says what of a bucket is broken, what that means for pulls, and what to do.
//!
//! What is broken [`moorage_maintenance::check`] finds out. Here are the options, and how it is told.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::BinaryBytes;
use moorage::registry::glob::Glob;
use moorage_maintenance::check::{Checked, Checker, Finding, Level, Options, Stage};
use moorage_maintenance::s3_inventory::Location;
use moorage_maintenance::snapshot::Totals;
use serde::{Serialize, Serializer};

use super::{parse_parallel, snapshot_of_inventory};
use crate::clock::SystemClock;
use crate::connection::ConnectionOptions;
use crate::output::{Format, Output};
use crate::{Failure, store_fault};

/// Says what of a bucket is broken, and what that means for pulls.
///
/// It writes nothing, and others may push, pull and delete meanwhile. The status is 1 if a pull fails because of something
/// that was found, and 0 otherwise.
#[derive(Debug, Args)]
pub struct Check {
    /// Hash all content, and read all links.
    #[arg(long)]
    deep: bool,

    /// Only the repositories whose names match; may be repeated.
    #[arg(long = "repository", value_name = "GLOB")]
    repositories: Vec<Glob>,

    /// Tell only what is as bad as that.
    #[arg(long, value_enum, default_value_t)]
    level: LevelOption,

    /// How long a push or a removal may take that is under way: what looks broken is looked at again after this time.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    settle: Duration,

    /// How many calls to the store are made at a time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = parse_parallel)]
    parallel: usize,

    /// Take an inventory of the bucket (Amazon S3 Inventory) in place of listing it: a folder with its manifest.json, or
    /// s3://BUCKET/KEY/manifest.json.
    #[arg(long, value_name = "WHERE")]
    inventory: Option<Location>,

    /// How to say what was found.
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    connection: ConnectionOptions,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum LevelOption {
    /// A pull fails.
    Error,
    /// It may be meant so, or is noticed by few.
    Warning,
    /// It takes room, and harms nobody.
    #[default]
    Note,
}

impl From<LevelOption> for Level {
    fn from(option: LevelOption) -> Self {
        match option {
            LevelOption::Error => Self::Error,
            LevelOption::Warning => Self::Warning,
            LevelOption::Note => Self::Note,
        }
    }
}

/// Checks, and gives the status.
///
/// # Errors
///
/// If it can't be done to the end.
pub async fn run(command: Check) -> Result<ExitCode, Failure> {
    let bucket = command.connection.connect().await?;
    let output = Output::new(command.format);
    let options = Options {
        repositories: command.repositories,
        is_deep: command.deep,
        settle: command.settle,
        parallel: command.parallel,
    };
    let checker = Checker { bucket: &bucket, clock: &SystemClock::begin(), options: &options };
    let at = |stage| output.looking_at(told_stage(stage));
    let checked = match &command.inventory {
        None => checker.run(at).await,
        Some(location) => {
            let (connection, parallel) = (&command.connection, command.parallel);
            let snapshot =
                snapshot_of_inventory(&bucket, connection, location, parallel, &output).await?;
            checker.check(snapshot, at).await
        }
    };
    let checked =
        checked.map_err(|error| Failure::Failed(store_fault::told(&error, bucket.http())))?;
    let report = Report { checked: &checked, level: command.level.into() };
    for finding in report.findings() {
        output.done(line(&checked, finding));
    }
    output.finish(report.summary(), &report);
    let is_sound = checked.count(Level::Error) == 0;
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn told_stage(stage: Stage) -> String {
    match stage {
        Stage::Listing(objects) => format!("listing: {objects} objects"),
        Stage::Reading(left) => format!("reading manifests: {left} left"),
        Stage::Hashing(Totals { objects, bytes }) => {
            format!("hashing: {objects} contents, {}", BinaryBytes(bytes))
        }
        Stage::LookingAgain(things) => format!("looking again at {things} things"),
        Stage::Settling(things) => {
            format!("{things} things look broken; waiting for changes that may be under way")
        }
    }
}

fn line(checked: &Checked, finding: &Finding) -> String {
    let told = checked.told(finding);
    let level = finding.level().as_str();
    let place = told.place.map(|place| format!("{place}: ")).unwrap_or_default();
    format!("{level}: {place}{}; {}; {}", told.what, told.means, told.advice)
}

/// What was found, from some level on.
struct Report<'a> {
    checked: &'a Checked,
    level: Level,
}

impl Report<'_> {
    fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.checked.findings.iter().filter(|finding| finding.level() >= self.level)
    }

    fn summary(&self) -> String {
        let Checked { snapshot, repositories, manifests, hashed, .. } = self.checked;
        let hashed = hashed.map(|Totals { objects, bytes }| {
            format!("; hashed: {objects} contents, {}", BinaryBytes(bytes))
        });
        let [errors, warnings, notes] = self.counts();
        format!(
            "objects: {}; repositories: {repositories}; manifests: {manifests}{}; errors: {errors}; warnings: \
             {warnings}; notes: {notes}",
            snapshot.objects,
            hashed.unwrap_or_default(),
        )
    }

    fn counts(&self) -> [usize; 3] {
        [Level::Error, Level::Warning, Level::Note].map(|level| self.checked.count(level))
    }
}

/// The JSON document. Findings are made as they are written: there may be very many.
impl Serialize for Report<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Checked { snapshot, repositories, manifests, hashed, .. } = self.checked;
        let [errors, warnings, notes] = self.counts();
        Document {
            objects: snapshot.objects,
            repositories: *repositories,
            manifests: *manifests,
            hashed: hashed.map(|Totals { objects, bytes }| Hashed { contents: objects, bytes }),
            errors,
            warnings,
            notes,
            findings: Findings(self),
        }
        .serialize(serializer)
    }
}

#[derive(Serialize)]
struct Document<'a> {
    /// How many objects the registry has.
    objects: u64,
    /// How many repositories were looked at.
    repositories: u64,
    /// How many manifests were read.
    manifests: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    hashed: Option<Hashed>,
    errors: usize,
    warnings: usize,
    notes: usize,
    findings: Findings<'a>,
}

#[derive(Serialize)]
struct Hashed {
    contents: u64,
    bytes: u64,
}

struct Findings<'a>(&'a Report<'a>);

impl Serialize for Findings<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let checked = self.0.checked;
        serializer
            .collect_seq(self.0.findings().map(|finding| FindingDocument::of(checked, finding)))
    }
}

#[derive(Serialize)]
struct FindingDocument {
    level: &'static str,
    problem: &'static str,
    repository: Option<String>,
    tag: Option<String>,
    digest: Option<String>,
    /// The manifests that need it; for a referrer, what it refers to.
    manifests: Vec<String>,
    /// What can't be pulled, or not all of it: the first few.
    references: Vec<String>,
    /// How many tags are affected.
    affected_tags: usize,
    /// The object that is missing or wrong.
    key: Option<String>,
    what: String,
    means: String,
    advice: String,
}

impl FindingDocument {
    fn of(checked: &Checked, finding: &Finding) -> Self {
        let told = checked.told(finding);
        let digest = |id: &_| checked.snapshot.digest(*id).to_string();
        let repository = finding.repository(&checked.snapshot);
        Self {
            level: finding.level().as_str(),
            problem: finding.problem.as_str(),
            repository: repository.map(|repository| repository.name.to_string()),
            tag: finding.tag.as_ref().map(ToString::to_string),
            digest: finding.digest.as_ref().map(digest),
            manifests: finding.manifests.iter().map(digest).collect(),
            references: told.references,
            affected_tags: finding.affected.count,
            key: told.key,
            what: told.what,
            means: told.means,
            advice: told.advice,
        }
    }
}
