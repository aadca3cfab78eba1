//! `moorage usage`: says what takes how much space, repository by repository, and draws it.
//!
//! What takes how much [`moorage_maintenance::usage`] finds out. Here are the options, and the forms in which it is told.

use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use indicatif::BinaryBytes;
use jiff::Timestamp;
use moorage_maintenance::s3_inventory::Location;
use moorage_maintenance::snapshot::{Snapshot, Totals};
use moorage_maintenance::time::{Clock as _, Seconds};
use moorage_maintenance::usage::{Picture, RepositoryUsage, Usage as Used};
use serde::Serialize;

use super::{parse_parallel, snapshot_of_inventory};
use crate::clock::SystemClock;
use crate::connection::ConnectionOptions;
use crate::output::{Format, Output, say, say_json};
use crate::{Failure, store_fault};

/// The version of the JSON document. It goes up when something in it gets another meaning or is left out.
const DOCUMENT_VERSION: u32 = 1;

/// Says what takes how much space.
///
/// Content is stored once, however many repositories have it. What a repository has alone goes with it; what it shares stays.
#[derive(Debug, Args)]
pub struct Usage {
    /// How to say it.
    #[arg(long, value_enum, default_value_t)]
    format: UsageFormat,

    /// Write a picture to this file as well: a treemap, in SVG.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// How many calls to the store are made at a time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = parse_parallel)]
    parallel: usize,

    /// Take an inventory of the bucket (Amazon S3 Inventory) in place of listing it: a folder with its manifest.json, or
    /// s3://BUCKET/KEY/manifest.json.
    #[arg(long, value_name = "WHERE")]
    inventory: Option<Location>,

    #[command(flatten)]
    connection: ConnectionOptions,
}

/// In which form usage is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum UsageFormat {
    /// A table for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// A line for each repository, for spreadsheets.
    Csv,
}

/// Finds out and tells, and gives the status.
///
/// # Errors
///
/// If it can't be found out, or the picture can't be written.
pub async fn run(command: Usage) -> Result<ExitCode, Failure> {
    let bucket = command.connection.connect().await?;
    let output = Output::new(Format::Table);
    let failed = |error| Failure::Failed(store_fault::told(&error, bucket.http()));
    let snapshot = match &command.inventory {
        None => {
            let now = Seconds::try_from(SystemClock::begin().now().as_secs()).unwrap_or(Seconds::MAX);
            let seen = |objects| output.looking_at(format!("listing: {objects} objects"));
            let load = Snapshot::load(&bucket, command.parallel, Snapshot::default(), now, seen);
            load.await.map_err(failed)?
        }
        Some(location) => {
            let (connection, parallel) = (&command.connection, command.parallel);
            snapshot_of_inventory(&bucket, connection, location, parallel, &output).await?
        }
    };
    let left = |manifests| output.looking_at(format!("reading manifests: {manifests} left"));
    let used = Used::of(&bucket, snapshot, command.parallel, left).await.map_err(failed)?;
    if used.unclear > 0 {
        output.note(format!(
            "{} repositories count as free of garbage, because it can't be told what they need: moorage check says why",
            used.unclear
        ));
    }
    if let Some(path) = &command.svg {
        let heading = heading(&command.connection.bucket, &used);
        let picture = Picture { usage: &used, heading: &heading };
        std::fs::File::create(path)
            .and_then(|file| {
                let mut file = BufWriter::new(file);
                write!(file, "{picture}")?;
                file.flush()
            })
            .map_err(|error| Failure::Failed(format!("--svg {}: {error}", path.display())))?;
    }
    output.clear();
    match command.format {
        UsageFormat::Table => say(format_args!("{}\n{}", table(&used.repositories), sums(&used))),
        UsageFormat::Json => say_json(&Document::of(&used)),
        UsageFormat::Csv => say(csv(&used.repositories)),
    }
    Ok(ExitCode::SUCCESS)
}

fn time(seconds: Seconds) -> String {
    let time = Timestamp::from_second(i64::from(seconds));
    time.map_or_else(|_| "?".to_owned(), |time| time.to_string())
}

fn heading(bucket: &str, used: &Used) -> String {
    let Used { contents, repositories, date, .. } = used;
    let (bytes, count) = (BinaryBytes(contents.bytes), repositories.len());
    format!("{bucket}: {bytes} in {count} repositories, {}", time(*date))
}

fn sums(used: &Used) -> String {
    let told = |what: &str, Totals { objects, bytes }: Totals| {
        format!("\n{what}: {} in {objects}", BinaryBytes(bytes))
    };
    let mut lines = format!("\nrepositories: {}", used.repositories.len());
    for (what, totals) in [
        ("contents", used.contents),
        ("of them shared by several repositories", used.shared),
        ("of them in no repository", used.unlinked),
        ("of them garbage, about", used.garbage),
        ("uploads under way or abandoned", used.uploads),
        ("trash of collections of garbage", used.trash),
        ("other objects", used.foreign),
    ] {
        lines.push_str(&told(what, totals));
    }
    lines
}

/// The columns of a table and of CSV. In a table, sizes have units.
const COLUMNS: [&str; 8] =
    ["repository", "bytes", "own", "shared", "garbage", "tags", "manifests", "blobs"];

/// How many of the columns after the first are sizes.
const SIZES: usize = 4;

fn figures(repository: &RepositoryUsage) -> [u64; 7] {
    let RepositoryUsage { bytes, own, garbage, tags, manifests, blobs, .. } = *repository;
    [bytes, own, repository.shared(), garbage, tags, manifests, blobs]
}

fn table(repositories: &[RepositoryUsage]) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned).to_vec()];
    for repository in repositories {
        let mut row = vec![repository.name.to_string()];
        for (column, figure) in figures(repository).into_iter().enumerate() {
            let is_size = column < SIZES;
            row.push(if is_size { BinaryBytes(figure).to_string() } else { figure.to_string() });
        }
        rows.push(row);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: Vec<_> = (0..COLUMNS.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let first = format!("{:<width$}", row[0], width = widths[0]);
        let others = row.iter().zip(&widths).skip(1);
        others.fold(first, |line, (cell, width)| format!("{line}  {cell:>width$}"))
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Names consist of characters that need no quotes.
fn csv(repositories: &[RepositoryUsage]) -> String {
    let rows = repositories.iter().map(|repository| {
        let figures = figures(repository).map(|figure| figure.to_string());
        format!("\n{},{}", repository.name, figures.join(","))
    });
    std::iter::once(COLUMNS.join(",")).chain(rows).collect()
}

/// The JSON document.
#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    /// As of when, in RFC 3339.
    date: String,
    totals: TotalsDocument,
    repositories: Vec<RepositoryDocument<'a>>,
}

#[derive(Serialize)]
struct TotalsDocument {
    objects: u64,
    repositories: usize,
    contents: Amount,
    shared: Amount,
    unlinked: Amount,
    garbage: Amount,
    uploads: Amount,
    trash: Amount,
    foreign: Amount,
}

#[derive(Serialize)]
struct Amount {
    objects: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct RepositoryDocument<'a> {
    name: &'a str,
    bytes: u64,
    own_bytes: u64,
    shared_bytes: u64,
    portion_bytes: u64,
    garbage_bytes: u64,
    tags: u64,
    manifests: u64,
    blobs: u64,
}

impl From<Totals> for Amount {
    fn from(Totals { objects, bytes }: Totals) -> Self {
        Self { objects, bytes }
    }
}

impl<'a> Document<'a> {
    fn of(used: &'a Used) -> Self {
        let totals = TotalsDocument {
            objects: used.objects,
            repositories: used.repositories.len(),
            contents: used.contents.into(),
            shared: used.shared.into(),
            unlinked: used.unlinked.into(),
            garbage: used.garbage.into(),
            uploads: used.uploads.into(),
            trash: used.trash.into(),
            foreign: used.foreign.into(),
        };
        let repositories = used.repositories.iter().map(|repository| RepositoryDocument {
            name: repository.name.as_str(),
            bytes: repository.bytes,
            own_bytes: repository.own,
            shared_bytes: repository.shared(),
            portion_bytes: repository.portion,
            garbage_bytes: repository.garbage,
            tags: repository.tags,
            manifests: repository.manifests,
            blobs: repository.blobs,
        });
        let repositories = repositories.collect();
        Self { version: DOCUMENT_VERSION, date: time(used.date), totals, repositories }
    }
}
