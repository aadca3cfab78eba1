//! One purge from the command line to the exit status, and what it says on the way.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use jiff::Timestamp;

use crate::options::Options;
use crate::s3::{Fault, Store};
use crate::{multipart, sessions};

/// Reads the command line, purges, and gives the status.
pub fn main() -> ExitCode {
    let options = match Options::read(std::env::args_os().skip(1), |name| std::env::var(name).ok())
    {
        Ok(options) => options,
        Err(problem) => {
            complain(problem);
            return ExitCode::from(2);
        }
    };
    let mut purge = Purge::new(options);
    if let Err(fault) = purge.everything() {
        complain(fault);
        return ExitCode::FAILURE;
    }
    say(purge.summary());
    if purge.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A purge, and how far it came.
pub struct Purge {
    /// The bucket.
    pub store: Store,
    /// What all keys of the registry begin with, `docker/registry/v2/` included.
    pub registry: String,
    /// What happened before this is old.
    pub cutoff: Timestamp,
    /// Whether to tell only what would be removed.
    pub dry_run: bool,
    /// How many upload sessions there were.
    pub sessions: usize,
    /// How many of them were removed.
    pub removed: usize,
    /// How many multipart uploads were aborted.
    pub aborted: usize,
    failures: usize,
}

impl Purge {
    fn new(options: Options) -> Self {
        Self {
            store: Store::new(options.bucket, options.credentials),
            registry: format!("{}docker/registry/v2/", options.prefix),
            cutoff: options.cutoff,
            dry_run: options.dry_run,
            sessions: 0,
            removed: 0,
            aborted: 0,
            failures: 0,
        }
    }

    fn everything(&mut self) -> Result<(), Fault> {
        sessions::purge(self)?;
        multipart::purge(self);
        Ok(())
    }

    /// Notes that something could not be done. The purge goes on.
    pub fn failed(&mut self, what: impl Display, fault: impl Display) {
        self.failures += 1;
        complain(format!("{what}: {fault}"));
    }

    fn summary(&self) -> String {
        let Self { sessions, removed, aborted, failures, .. } = self;
        let would_be = if self.dry_run { "would be " } else { "" };
        format!(
            "upload sessions: {sessions} found, {removed} {would_be}removed; \
             multipart uploads: {aborted} {would_be}aborted; failures: {failures}"
        )
    }
}

/// Prints a line. A reader that went away doesn't stop the purge.
pub fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn complain(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "purge-uploads: {line}");
}
