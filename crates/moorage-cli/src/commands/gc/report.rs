//! What `moorage gc` tells: each thing that is garbage or was removed, the sums, and one JSON document for programs.

use std::cell::{Cell, RefCell};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::BinaryBytes;
use jiff::Timestamp;
use moorage::store::StoreError;
use moorage_maintenance::gc::{Observer, Plan, Removed, RunId, Stage, Summary, Trash, Undone};
use moorage_maintenance::mark::{Garbage, Kind};
use moorage_maintenance::s3_inventory::Summary as InventorySummary;
use moorage_maintenance::snapshot::{Snapshot, Totals};
use serde::Serialize;

use crate::commands::told_inventory;
use crate::output::{self, Format, Output};
use crate::signed_http::SignedHttp;
use crate::store_fault;

/// What is told of a run.
pub struct Report<'a> {
    output: Output,
    format: Format,
    applies: bool,
    sums_only: bool,
    http: &'a SignedHttp,
    document: RefCell<Document>,
    found_before: Cell<usize>,
}

/// The JSON document.
#[derive(Debug, Default, Serialize)]
struct Document {
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    /// How many objects the registry has.
    objects: u64,
    /// What is garbage; what was removed, where something was.
    garbage: Vec<Thing>,
    repositories: Vec<RepositorySums>,
    /// Content that is garbage in several repositories.
    shared: Sums,
    /// Content that no repository has.
    unlinked: Sums,
    total: Sums,
    /// How many things the run before had found too.
    found_before: usize,
    /// Repositories that are left alone.
    unclear: Vec<Unclear>,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<RemovedSums>,
    failures: u64,
}

/// Something that is garbage.
#[derive(Debug, Serialize)]
struct Thing {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    key: String,
    bytes: u64,
    reason: &'static str,
}

#[derive(Debug, Default, Serialize)]
struct Sums {
    objects: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct RepositorySums {
    repository: String,
    links: u64,
    contents: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Unclear {
    repository: String,
    what: String,
    why: String,
}

#[derive(Debug, Serialize)]
struct RemovedSums {
    links: u64,
    contents: u64,
    bytes: u64,
    spared: u64,
}

impl From<Totals> for Sums {
    fn from(totals: Totals) -> Self {
        Self { objects: totals.objects, bytes: totals.bytes }
    }
}

fn kind(garbage: &Garbage) -> &'static str {
    match garbage.kind {
        Kind::TagHistory => "tag history",
        Kind::Referrer => "referrer",
        Kind::IndexLink => "index",
        Kind::ManifestLink => "manifest",
        Kind::BlobLink => "blob",
        Kind::Content => "content",
    }
}

impl<'a> Report<'a> {
    /// A report in this format, of a run that removes things or does not.
    pub fn new(format: Format, applies: bool, sums_only: bool, http: &'a SignedHttp) -> Self {
        Self {
            output: Output::new(format),
            format,
            applies,
            sums_only,
            http,
            document: RefCell::new(Document { dry_run: !applies, ..Document::default() }),
            found_before: Cell::default(),
        }
    }

    fn tell(&self, what: &str, snapshot: &Snapshot, garbage: &Garbage) {
        if self.sums_only {
            return;
        }
        let (repository, bytes) = (garbage.name(snapshot), garbage.size(snapshot));
        let (kind, reason) = (kind(garbage), garbage.reason.as_str());
        match self.format {
            Format::Table => {
                let digest = snapshot.digest(garbage.content_id(snapshot));
                let of = repository.map(|name| format!(" of {name}")).unwrap_or_default();
                let size = match garbage.kind {
                    Kind::Content => format!(" ({})", BinaryBytes(bytes)),
                    _ => String::new(),
                };
                self.output.done(format!("{what}: {kind} {digest}{of}{size}: {reason}"));
            }
            Format::Json => self.document.borrow_mut().garbage.push(Thing {
                kind,
                repository: repository.map(ToString::to_string),
                key: garbage.key(snapshot).as_str().to_owned(),
                bytes,
                reason,
            }),
        }
    }

    fn tell_sums(&self, summary: &Summary) {
        for repository in &summary.repositories {
            let moorage_maintenance::gc::RepositorySummary { name, links, contents } = repository;
            let (count, bytes) = (contents.objects, BinaryBytes(contents.bytes));
            self.output.done(format!("{name}: {bytes} in {count} contents, and {links} links"));
        }
        for (what, totals) in
            [("of several repositories", summary.shared), ("of no repository", summary.unlinked)]
        {
            if totals.objects > 0 {
                let (count, bytes) = (totals.objects, BinaryBytes(totals.bytes));
                self.output.done(format!("{what}: {bytes} in {count} contents"));
            }
        }
    }

    /// The end of a run that removes nothing.
    pub fn finish_dry_run(self) -> ExitCode {
        let document = self.document.take();
        let Sums { objects, bytes } = document.total;
        let summary = format!(
            "of {} objects {objects} are garbage, {}; --apply notes them, and removes those that the next run finds again",
            document.objects,
            BinaryBytes(bytes)
        );
        self.output.finish(summary, &document);
        ExitCode::SUCCESS
    }

    /// The end of a run that removes things.
    pub fn finish(self, run: &RunId, removed: Removed, trash: Option<Duration>) -> ExitCode {
        let mut document = self.document.take();
        let Removed { links, contents, spared, failures } = removed;
        document.run = Some(run.as_str().to_owned());
        document.failures += failures;
        document.removed =
            Some(RemovedSums { links, contents: contents.objects, bytes: contents.bytes, spared });
        let new = document.total.objects.saturating_sub(self.found_before.get() as u64);
        let undo = match trash {
            Some(time) if links + contents.objects > 0 => format!(
                "; `moorage gc --undo {}` brings it back within {}",
                run.as_str(),
                humantime::format_duration(time)
            ),
            _ => String::new(),
        };
        let summary = format!(
            "removed {} contents, {}, and {links} links; {spared} came into use again; {new} more are noted for the next \
             run; failures: {failures}{undo}",
            contents.objects,
            BinaryBytes(contents.bytes)
        );
        self.output.finish(summary, &document);
        if document.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// The run did not come to its end: programs get what there is.
    pub fn break_off(self) {
        let document = self.document.take();
        self.output.break_off(&document);
    }
}

impl Observer for Report<'_> {
    fn stage(&self, stage: Stage) {
        self.output.looking_at(match stage {
            Stage::Listing(objects) => format!("listing: {objects} objects"),
            Stage::Reading(left) => format!("reading manifests: {left} left"),
            Stage::Waiting(things) => {
                format!("{things} things are published; waiting until every writer has seen it")
            }
            Stage::Trashing(done) => format!("copying to the trash: {done} done"),
            Stage::Removing(done) => format!("removing: {done} done"),
            Stage::Settling => "waiting until proxies have forgotten what is gone".to_owned(),
            Stage::EmptyingTrash => "emptying old trash".to_owned(),
        });
    }

    fn inventory(&self, summary: &InventorySummary) {
        self.output.note(told_inventory(summary));
    }

    fn planned(&self, plan: &Plan) {
        let summary = plan.summary();
        if !self.applies {
            for garbage in &plan.garbage {
                self.tell("garbage", &plan.snapshot, garbage);
            }
        }
        self.tell_sums(&summary);
        let unclear = plan.unclear();
        for moorage_maintenance::gc::Unclear { name, what, why } in &unclear {
            self.output.failed(format!(
                "{name} is left alone, because it can't be told what it needs: {what}: {why}"
            ));
        }
        self.found_before.set(plan.found_before);
        let mut document = self.document.borrow_mut();
        document.objects = plan.snapshot.objects;
        document.found_before = plan.found_before;
        document.total = summary.total.into();
        document.shared = summary.shared.into();
        document.unlinked = summary.unlinked.into();
        document.repositories = summary
            .repositories
            .iter()
            .map(|repository| RepositorySums {
                repository: repository.name.to_string(),
                links: repository.links,
                contents: repository.contents.objects,
                bytes: repository.contents.bytes,
            })
            .collect();
        document.unclear = unclear
            .into_iter()
            .map(|unclear| Unclear {
                repository: unclear.name.to_string(),
                what: unclear.what,
                why: unclear.why,
            })
            .collect();
    }

    fn removed(&self, snapshot: &Snapshot, garbage: &Garbage) {
        self.tell("removed", snapshot, garbage);
    }

    fn failed(&self, what: &str, error: &StoreError) {
        let why = store_fault::told(error, self.http);
        self.output.failed(format!("{what}: {why}"));
    }
}

/// Tells what was brought back.
pub fn undone(format: Format, run: &RunId, undone: Undone) -> ExitCode {
    let Undone { restored, present } = undone;
    match format {
        Format::Table => output::say(format!(
            "brought back {restored} objects that {} had removed; {present} were there already",
            run.as_str()
        )),
        Format::Json => {
            let document = serde_json::json!({
                "undone": run.as_str(), "restored": restored, "present": present,
            });
            output::say(document);
        }
    }
    ExitCode::SUCCESS
}

/// Lists the runs that can be undone.
pub fn runs(format: Format, runs: &[(String, Option<Trash>)]) -> ExitCode {
    let time = |seconds: u64| {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |time| time.to_string())
    };
    match format {
        Format::Table => {
            for (run, trash) in runs {
                output::say(match trash {
                    Some(Trash { removed, keep_until, .. }) => {
                        format!(
                            "{run}: removed {}, kept until {}",
                            time(*removed),
                            time(*keep_until)
                        )
                    }
                    None => format!("{run}: nothing says until when it is kept"),
                });
            }
        }
        Format::Json => {
            let runs: Vec<_> = runs
                .iter()
                .map(|(run, trash)| {
                    let times = trash.as_ref().map(|t| (time(t.removed), time(t.keep_until)));
                    let (removed, keep_until) = times.unzip();
                    serde_json::json!({ "run": run, "removed": removed, "keep_until": keep_until })
                })
                .collect();
            output::say(serde_json::json!({ "runs": runs }));
        }
    }
    ExitCode::SUCCESS
}
