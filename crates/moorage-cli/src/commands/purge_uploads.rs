//! `moorage purge-uploads`: removes from a bucket what pushes that were never finished left behind.
//!
//! An upload session is the folder `repositories/<name>/_uploads/<id>/` of the registry, its object `startedat` the time
//! at which it began. Clients that break off leave it there, and nothing in the filter comes back to it: the filter
//! only acts on requests. CNCF Distribution's own purger (`uploadpurging`) goes by `startedat` alone; this one also
//! leaves sessions alone that were written to of late. It aborts multipart uploads of content that are as old.
//!
//! It touches nothing else: neither blobs without a link nor manifests without a tag.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use futures::future::join_all;
use jiff::Timestamp;
use moorage::store::layout;
use moorage::store::{Bucket, StoreError, UploadFolder, repositories_with_uploads, upload_folders};
use serde::Serialize;

use crate::Failure;
use crate::connection::ConnectionOptions;
use crate::output::{Format, Output};
use crate::signed_http::SignedHttp;
use crate::store_fault;

/// How many repositories' sessions are listed together.
const LISTED_TOGETHER: usize = 16;

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
    if let Err(error) = purge.sessions().await {
        return Err(Failure::Failed(purge.told(&error)));
    }
    purge.multipart_uploads().await;
    purge.output.finish(purge.report.summary(), &purge.report);
    Ok(if purge.report.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A purge, and how far it came.
struct Purge {
    bucket: Bucket<SignedHttp>,
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
    started: String,
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

impl Purge {
    /// Removes the abandoned sessions of all repositories.
    ///
    /// # Errors
    ///
    /// If there is no telling what repositories there are.
    async fn sessions(&mut self) -> Result<(), StoreError> {
        self.output.looking_at("all repositories");
        let found = repositories_with_uploads(&self.bucket).await?;
        for (name, error) in found.unlisted {
            self.failed(name.as_str(), &self.told(&error));
        }
        for names in found.names.chunks(LISTED_TOGETHER) {
            // All of them to their ends before the first is looked at: a call that nobody waits for times out.
            let listings = names.iter().map(|name| upload_folders(&self.bucket, name));
            let listings = join_all(listings).await;
            for (name, sessions) in names.iter().zip(listings) {
                self.output.looking_at(name.to_string());
                match sessions {
                    Ok(sessions) => self.sessions_of_repository(sessions).await,
                    Err(error) => self.failed(name.as_str(), &self.told(&error)),
                }
            }
        }
        Ok(())
    }

    async fn sessions_of_repository(&mut self, sessions: Vec<UploadFolder>) {
        for session in sessions {
            self.report.sessions_found += 1;
            self.output.seen_one();
            let UploadFolder { repository, id, .. } = &session;
            match self.session(&session).await {
                Ok(Some(started)) => {
                    let done = if self.report.dry_run { "would remove" } else { "removed" };
                    self.output.done(format!("{done} {repository} {id}, started {started}"));
                    let (of, id) = (repository.to_string(), id.clone());
                    self.report.sessions_removed.push(Removed { of, id, started });
                }
                Ok(None) => {}
                Err(problem) => self.failed(&format!("{repository} {id}"), &problem),
            }
        }
    }

    /// Removes a session if it is abandoned, and then tells since when it was there.
    async fn session(&self, session: &UploadFolder) -> Result<Option<String>, String> {
        // A slow upload is still an upload.
        if !self.is_old(session.modified) {
            return Ok(None);
        }
        let fault = |error: StoreError| self.told(&error);
        let started = if session.has_start() {
            match session.read_start(&self.bucket).await.map_err(fault)? {
                Some(content) => match started(&content)? {
                    time if time < self.cutoff => time.to_string(),
                    _ => return Ok(None),
                },
                // Whoever closed or cancelled it in the meantime removes the rest.
                None => return Ok(None),
            }
        } else {
            "at an unknown time".to_owned()
        };
        if !self.report.dry_run {
            session.remove(&self.bucket).await.map_err(fault)?;
        }
        Ok(Some(started))
    }

    fn is_old(&self, time: SystemTime) -> bool {
        Timestamp::try_from(time).is_ok_and(|time| time < self.cutoff)
    }

    fn told(&self, error: &StoreError) -> String {
        store_fault::told(error, self.bucket.http())
    }

    /// Aborts old multipart uploads of content. A store that can't list them is passed over: it may have none, or rid
    /// itself of them by a rule of its bucket's.
    async fn multipart_uploads(&mut self) {
        self.output.looking_at("multipart uploads");
        let uploads = match self.bucket.multipart_uploads(&layout::all_content()).await {
            Ok(uploads) => uploads,
            Err(error) if error.is_unknown_operation() => {
                let line = "multipart uploads are passed over: the store can't list them";
                return self.output.done(line);
            }
            Err(error) => return self.failed("multipart uploads", &self.told(&error)),
        };
        for upload in uploads {
            let initiated = Timestamp::try_from(upload.initiated);
            let Some(initiated) = initiated.ok().filter(|initiated| *initiated < self.cutoff)
            else {
                continue;
            };
            if !self.report.dry_run
                && let Err(error) = self.bucket.abort_multipart_upload(&upload).await
            {
                let what = format!("multipart upload of {}", upload.key.as_str());
                self.failed(&what, &self.told(&error));
                continue;
            }
            let done = if self.report.dry_run { "would abort" } else { "aborted" };
            let (of, started) = (upload.key.as_str().to_owned(), initiated.to_string());
            self.output.done(format!("{done} the multipart upload of {of}, started {started}"));
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

fn started(content: &[u8]) -> Result<Timestamp, String> {
    let text = String::from_utf8_lossy(content);
    text.trim().parse().map_err(|_| format!("startedat holds no time: {text:?}"))
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
