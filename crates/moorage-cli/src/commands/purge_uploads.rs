//! `moorage purge-uploads`: removes from a bucket what pushes that were never finished left behind.
//!
//! An upload session is the folder `repositories/<name>/_uploads/<id>/` of the registry, its object `startedat` the time
//! at which it began. Clients that break off leave it there, and nothing in the filter comes back to it: the filter
//! only acts on requests. CNCF Distribution's own purger (`uploadpurging`) goes by `startedat` alone; this one also
//! leaves sessions alone that were written to of late. It aborts multipart uploads of content that are as old.
//!
//! It touches nothing else: neither blobs without a link nor manifests without a tag.

use std::collections::BTreeMap;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures::TryStreamExt;
use jiff::Timestamp;
use moorage::store::layout::{self, Key};
use moorage::store::{Bucket, Http, ListRequest, Listed, Objects, StoreError, pages};
use serde::Serialize;

use crate::Failure;
use crate::connection::ConnectionOptions;
use crate::output::{Format, Output};

/// The object of a session that tells when it began, as text (RFC 3339).
const STARTED_AT: &str = "startedat";

/// Removes uploads that were never finished.
///
/// A session goes if it began, and was last written to, longer ago than the age.
#[derive(Debug, Args)]
pub struct PurgeUploads {
    /// How old an abandoned upload is at least, such as 24h or 7days.
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    older_than: Duration,

    /// Tell only what would be removed.
    #[arg(long)]
    dry_run: bool,

    /// How to say what was done.
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    #[command(flatten)]
    connection: ConnectionOptions,
}

fn parse_age(value: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(value)
}

/// Purges, and gives the status.
///
/// # Errors
///
/// If the purge can't begin. What fails later is told, and the purge goes on.
pub async fn run(options: PurgeUploads) -> Result<ExitCode, Failure> {
    let too_old = |_| Failure::Usage("--older-than reaches back before the calendar".to_owned());
    let cutoff = Timestamp::now().checked_sub(options.older_than).map_err(too_old)?;
    let bucket = options.connection.connect().await?;
    let output = Output::new(options.format);
    let report = Report { dry_run: options.dry_run, ..Report::default() };
    let mut purge = Purge { bucket, output, cutoff, report };
    purge.sessions().await.map_err(|error| Failure::Failed(told(&error)))?;
    purge.multipart_uploads().await;
    purge.output.finish(purge.report.summary(), &purge.report);
    Ok(if purge.report.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A purge, and how far it came.
struct Purge<H> {
    bucket: Bucket<H>,
    output: Output,
    /// What happened before this is old.
    cutoff: Timestamp,
    report: Report,
}

/// What a purge did.
#[derive(Debug, Default, Serialize)]
struct Report {
    dry_run: bool,
    /// How many upload sessions there were.
    sessions_found: usize,
    /// Those that were removed, or would be.
    sessions_removed: Vec<Removed>,
    /// The keys of multipart uploads that were aborted, or would be.
    multipart_uploads_aborted: Vec<Removed>,
    failures: usize,
}

/// Something that was removed.
#[derive(Debug, Serialize)]
struct Removed {
    /// The repository, or the key.
    of: String,
    id: String,
    started: Option<String>,
}

impl Report {
    fn summary(&self) -> String {
        let Self { sessions_found, failures, .. } = self;
        let (removed, aborted) =
            (self.sessions_removed.len(), self.multipart_uploads_aborted.len());
        let would_be = if self.dry_run { "would be " } else { "" };
        format!(
            "upload sessions: {sessions_found} found, {removed} {would_be}removed; \
             multipart uploads: {aborted} {would_be}aborted; failures: {failures}"
        )
    }
}

/// What went wrong with the store, for the person who runs it: with the store's own explanation.
fn told(error: &StoreError) -> String {
    let Some(answer) = error.answer() else {
        return error.to_string();
    };
    let code = answer.code.as_ref().map(|code| format!(" {code}")).unwrap_or_default();
    let message = answer.message.as_deref().unwrap_or_default();
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let message = if message.is_empty() { message } else { format!(": {message}") };
    format!("the store answered {}{code}{message}", answer.status.as_u16())
}

impl<H: Http> Purge<H> {
    /// Removes the abandoned sessions of all repositories.
    ///
    /// Repositories nest, so every folder of a name is listed once. What repositories hold is passed over,
    /// but for their uploads.
    ///
    /// # Errors
    ///
    /// If there is no telling what repositories there are.
    async fn sessions(&mut self) -> Result<(), StoreError> {
        let root = layout::all_repositories();
        let mut pending = self.folders(&root).await?;
        pending.reverse();
        while let Some(folder) = pending.pop() {
            let path = folder.as_str().strip_prefix(root.as_str()).unwrap_or_default();
            let path = path.trim_end_matches('/').to_owned();
            match path.rsplit_once('/') {
                Some((repository, "_uploads")) => self.repository(repository, &folder).await,
                _ if is_part_of_repository(&path) => {}
                _ => match self.folders(&folder).await {
                    Ok(folders) => pending.extend(folders.into_iter().rev()),
                    Err(error) => self.failed(&path, &told(&error)),
                },
            }
        }
        Ok(())
    }

    /// The folders in a folder.
    async fn folders(&self, folder: &Key) -> Result<Vec<Key>, StoreError> {
        let pages = pages(&self.bucket, ListRequest::new(folder, Listed::Folders));
        let keys: Vec<Key> = pages.map_ok(|page| page.keys).try_concat().await?;
        Ok(keys.into_iter().filter(|key| key.as_str().ends_with('/')).collect())
    }

    async fn repository(&mut self, repository: &str, folder: &Key) {
        self.output.looking_at(repository);
        let sessions = match self.sessions_of(folder).await {
            Ok(sessions) => sessions,
            Err(error) => return self.failed(repository, &told(&error)),
        };
        for (id, session) in sessions {
            self.report.sessions_found += 1;
            self.output.seen_one();
            match self.session(&session).await {
                Ok(Some(started)) => {
                    let done = if self.report.dry_run { "would remove" } else { "removed" };
                    self.output.done(format!("{done} {repository} {id}, started {started}"));
                    let (of, started) = (repository.to_owned(), Some(started));
                    self.report.sessions_removed.push(Removed { of, id, started });
                }
                Ok(None) => {}
                Err(problem) => self.failed(&format!("{repository} {id}"), &problem),
            }
        }
    }

    /// The sessions of an `_uploads` folder, by their ids.
    async fn sessions_of(&self, folder: &Key) -> Result<BTreeMap<String, Session>, StoreError> {
        let mut sessions: BTreeMap<String, Session> = BTreeMap::new();
        let mut pages = pin!(pages(&self.bucket, ListRequest::new(folder, Listed::Objects)));
        while let Some(page) = pages.try_next().await? {
            for (key, modified) in page.keys.into_iter().zip(page.modified) {
                let within = key.as_str().strip_prefix(folder.as_str());
                let Some((id, name)) = within.and_then(|within| within.split_once('/')) else {
                    continue;
                };
                let (id, is_start) = (id.to_owned(), name == STARTED_AT);
                sessions.entry(id).or_default().add(key, is_start, &modified);
            }
        }
        Ok(sessions)
    }

    /// Removes a session if it is abandoned, and then tells since when it was there.
    async fn session(&self, session: &Session) -> Result<Option<String>, String> {
        if !session.is_idle_since(self.cutoff) {
            return Ok(None);
        }
        let fault = |error: StoreError| told(&error);
        let started = match &session.started_at {
            None => "at an unknown time".to_owned(),
            Some(key) => match self.bucket.read(key).await.map_err(fault)? {
                Some(content) => match started(&content)? {
                    time if time < self.cutoff => time.to_string(),
                    _ => return Ok(None),
                },
                // Whoever closed or cancelled it in the meantime removes the rest.
                None => return Ok(None),
            },
        };
        if !self.report.dry_run {
            // `startedat` last: whatever breaks off, the session can still be found by it.
            for key in session.others.iter().chain(&session.started_at) {
                self.bucket.remove(key).await.map_err(fault)?;
            }
        }
        Ok(Some(started))
    }

    /// Aborts old multipart uploads of content. A store that can't list them is passed over: it may have none, or rid
    /// itself of them by a rule of its bucket's.
    async fn multipart_uploads(&mut self) {
        self.output.looking_at("multipart uploads");
        let uploads = match self.bucket.multipart_uploads(&layout::all_content()).await {
            Ok(uploads) => uploads,
            Err(error) if is_not_implemented(&error) => {
                let line = "multipart uploads are passed over: the store can't list them";
                return self.output.done(line);
            }
            Err(error) => return self.failed("multipart uploads", &told(&error)),
        };
        for upload in uploads {
            let initiated = upload.initiated.parse::<Timestamp>();
            if !initiated.is_ok_and(|initiated| initiated < self.cutoff) {
                continue;
            }
            if !self.report.dry_run
                && let Err(error) = self.bucket.abort_multipart_upload(&upload).await
            {
                let what = format!("multipart upload of {}", upload.key.as_str());
                self.failed(&what, &told(&error));
                continue;
            }
            let done = if self.report.dry_run { "would abort" } else { "aborted" };
            let (of, started) = (upload.key.as_str().to_owned(), Some(upload.initiated));
            let since = started.as_deref().unwrap_or_default();
            self.output.done(format!("{done} the multipart upload of {of}, started {since}"));
            let removed = Removed { of, id: upload.id.0, started };
            self.report.multipart_uploads_aborted.push(removed);
        }
    }

    /// Notes that something could not be done. The purge goes on.
    fn failed(&mut self, what: &str, why: &str) {
        self.report.failures += 1;
        self.output.failed(format!("{what}: {why}"));
    }
}

fn is_not_implemented(error: &StoreError) -> bool {
    error.answer().is_some_and(|answer| {
        answer.status.as_u16() == 501 || answer.code.as_deref() == Some("NotImplemented")
    })
}

/// Whether a folder belongs to a repository rather than to a name: no part of a name begins with `_`.
fn is_part_of_repository(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.starts_with('_'))
}

fn started(content: &[u8]) -> Result<Timestamp, String> {
    let text = String::from_utf8_lossy(content);
    text.trim().parse().map_err(|_| format!("startedat holds no time: {text:?}"))
}

/// The objects of an upload session.
#[derive(Debug, Default, PartialEq, Eq)]
struct Session {
    /// `startedat`, if there is such an object.
    started_at: Option<Key>,
    /// All others.
    others: Vec<Key>,
    /// When the newest of them all was written.
    touched: Option<Timestamp>,
    /// Whether the store said of each when it was written.
    is_unclear: bool,
}

impl Session {
    fn add(&mut self, key: Key, is_start: bool, modified: &str) {
        match modified.parse::<Timestamp>() {
            Ok(modified) => self.touched = self.touched.max(Some(modified)),
            Err(_) => self.is_unclear = true,
        }
        if is_start {
            self.started_at = Some(key);
        } else {
            self.others.push(key);
        }
    }

    /// Whether nothing was written to it from then on: a slow upload is still an upload.
    fn is_idle_since(&self, cutoff: Timestamp) -> bool {
        !self.is_unclear && self.touched.is_some_and(|touched| touched < cutoff)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        purge: PurgeUploads,
    }

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn key() -> Key {
        layout::all_content()
    }

    #[test]
    fn a_session_is_as_idle_as_its_newest_object() {
        let mut session = Session::default();
        let cutoff = time("2026-02-01T00:00:00Z");
        for (last_modified, idle) in [
            ("2026-01-01T00:00:00Z", true),
            ("2026-01-31T23:59:59.999Z", true),
            ("2026-02-01T00:00:00Z", false),
            ("2026-01-15T00:00:00Z", false),
        ] {
            session.add(key(), false, last_modified);
            assert_eq!(session.is_idle_since(cutoff), idle, "{last_modified}");
        }
        let mut unclear = Session::default();
        unclear.add(key(), false, "2026-01-01T00:00:00Z");
        unclear.add(key(), true, "");
        assert!(!unclear.is_idle_since(cutoff), "nobody knows when it was last written to");
    }

    #[test]
    fn a_start_is_a_time_of_rfc_3339() {
        let ten = time("2026-11-24T10:00:00Z");
        for (content, expected) in [
            ("2026-11-24T10:00:00Z", Some(ten)),
            ("2026-11-24T10:00:00Z\n", Some(ten)),
            ("2026-11-24T12:00:00.0+02:00", Some(ten)),
            ("2026-11-24", None),
            ("yesterday", None),
            ("", None),
            ("\u{0}", None),
        ] {
            assert_eq!(started(content.as_bytes()).ok(), expected, "{content:?}");
        }
        assert!(started(b"\xff").is_err());
    }

    #[test]
    fn an_age_is_needed_and_read_as_people_write_it() {
        let parse = |line: &str| Line::try_parse_from(line.split_whitespace());
        let week = parse("p --older-than 7days").expect("an age").purge.older_than;
        assert_eq!(week, Duration::from_secs(7 * 24 * 60 * 60));
        for line in ["p", "p --older-than", "p --older-than soon", "p --older-than 24"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
