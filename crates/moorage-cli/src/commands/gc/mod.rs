//! `moorage gc`: frees what nothing needs any more, beside any number of proxies that serve and write.
//!
//! What is garbage, and why it is safe to remove it, is [`moorage_maintenance::gc`]'s. Here are the options, and what is told.

mod report;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use moorage::store::Bucket;
use moorage_maintenance::gc::{self, Collector, GcError, Options, RunId, list_trash};
use moorage_maintenance::s3_inventory::Location;

use super::{parse_parallel, random_bytes};
use crate::clock::{SystemClock, interrupted};
use crate::connection::ConnectionOptions;
use crate::output::Format;
use crate::signed_http::SignedHttp;
use crate::{Failure, store_fault};
use report::Report;

/// How long what is removed is kept where the bucket has no versions, unless another time is given.
const TRASH: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Frees what nothing needs any more.
///
/// Without --apply it only tells. With it, what two runs in a row find to be garbage is removed, while Moorage serves and
/// takes pushes; writers other than Moorage must not write meanwhile. It can be interrupted at any time and run again.
#[derive(Debug, Args)]
pub struct Gc {
    /// Remove what this run and the one before find to be garbage.
    #[arg(long, conflicts_with = "undo")]
    apply: bool,

    /// What was written, or linked, less long ago stays. Pushes must not take longer.
    #[arg(long, value_name = "AGE", default_value = "24h", value_parser = humantime::parse_duration)]
    grace: Duration,

    /// Remove manifests that no tag leads to, when they are so old; without this they stay.
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    untagged_older_than: Option<Duration>,

    /// How long what is removed can be brought back, or off; 7days unless the bucket keeps versions itself.
    #[arg(long, value_name = "AGE|off", value_parser = parse_trash)]
    trash: Option<Trash>,

    /// The longest that any proxy remembers links: the filter's cache.link_ttl.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    link_ttl: Duration,

    /// How many calls to the store are made at a time.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = parse_parallel)]
    parallel: usize,

    /// Take an inventory of the bucket (Amazon S3 Inventory) in place of the first listing: a folder with its
    /// manifest.json, or s3://BUCKET/KEY/manifest.json.
    #[arg(long, value_name = "WHERE")]
    inventory: Option<Location>,

    /// Bring back what that run removed.
    #[arg(long, value_name = "RUN")]
    undo: Option<RunId>,

    /// List the runs that can be undone.
    #[arg(long, conflicts_with_all = ["apply", "undo"])]
    list_runs: bool,

    /// Tell only sums, not each thing.
    #[arg(long)]
    summary: bool,

    /// How to say what was found and done.
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    connection: ConnectionOptions,
}

/// What becomes of what is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trash {
    Off,
    For(Duration),
}

fn parse_trash(text: &str) -> Result<Trash, humantime::DurationError> {
    match text {
        "off" => Ok(Trash::Off),
        _ => humantime::parse_duration(text).map(Trash::For),
    }
}

/// Collects, and gives the status.
///
/// # Errors
///
/// If it can't be done to the end. What was removed is told.
pub async fn run(command: Gc) -> Result<ExitCode, Failure> {
    let bucket = command.connection.connect().await?;
    let told = |error: &GcError| match error {
        GcError::Store(error) => Failure::Failed(store_fault::told(error, bucket.http())),
        other => Failure::Failed(other.to_string()),
    };
    if command.list_runs {
        return list_runs(&command, &bucket).await.map_err(|error| told(&error));
    }
    let clock = SystemClock::begin();
    if let Some(undone) = &command.undo {
        let run = new_run()?;
        let stop = interrupted()?;
        let outcome = gc::undo(&bucket, &clock, &run, undone, command.parallel, stop).await;
        return outcome
            .map(|outcome| report::undone(command.format, undone, outcome))
            .map_err(|error| told(&error));
    }
    let inventory = command.inventory.as_ref().map(|at| command.connection.inventory(at));
    let inventory = inventory.transpose()?;
    let options = Options {
        grace: command.grace,
        untagged_older_than: command.untagged_older_than,
        trash: trash(&command, &bucket).await.map_err(|error| told(&error))?,
        link_ttl: command.link_ttl,
        parallel: command.parallel,
        inventory,
    };
    let report = Report::new(command.format, command.apply, command.summary, bucket.http());
    let collector =
        Collector { bucket: &bucket, clock: &clock, options: &options, observer: &report };
    if !command.apply {
        collector.dry_run().await.map_err(|error| told(&error))?;
        return Ok(report.finish_dry_run());
    }
    let run = new_run()?;
    match collector.run(&run, interrupted()?).await {
        Ok(removed) => Ok(report.finish(&run, removed, options.trash)),
        Err(error) => {
            report.break_off();
            Err(told(&error))
        }
    }
}

/// How long what is removed is kept.
async fn trash(command: &Gc, bucket: &Bucket<SignedHttp>) -> Result<Option<Duration>, GcError> {
    match command.trash {
        Some(Trash::Off) => Ok(None),
        Some(Trash::For(time)) => Ok(Some(time)),
        None if !command.apply => Ok(None),
        None => Ok((!bucket.keeps_versions().await?).then_some(TRASH)),
    }
}

async fn list_runs(command: &Gc, bucket: &Bucket<SignedHttp>) -> Result<ExitCode, GcError> {
    Ok(report::runs(command.format, &list_trash(bucket).await?))
}

/// A name that no other run has.
fn new_run() -> Result<RunId, Failure> {
    let [a, b] = random_bytes()?;
    let name = format!("{}-{a:02x}{b:02x}", Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
    name.parse().map_err(Failure::Failed)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        gc: Gc,
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let parse = |line: &str| Line::try_parse_from(line.split_whitespace()).map(|line| line.gc);
        assert_eq!(parse("gc --trash off").expect("a line").trash, Some(Trash::Off));
        let day = Duration::from_secs(24 * 60 * 60);
        assert_eq!(parse("gc --trash 1day").expect("a line").trash, Some(Trash::For(day)));
        assert_eq!(parse("gc").expect("a line").grace, day);
        for line in [
            "gc --trash never",
            "gc --grace soon",
            "gc --parallel 0",
            "gc --parallel 257",
            "gc --undo ../x",
            "gc --apply --undo a",
            "gc --list-runs --apply",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn each_run_has_a_name_of_its_own() {
        let names: Vec<_> = (0..2).map(|_| new_run().expect("a name")).collect();
        assert_eq!(names[0].as_str().len(), "20261125T162000Z-3f9a".len());
    }
}
