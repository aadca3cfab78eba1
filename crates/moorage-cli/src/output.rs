//! What a command prints: lines and a progress bar for people, one JSON document for programs.

use std::fmt::Display;
use std::io::{BufWriter, IsTerminal, Write};
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::Failure;

/// In which form a command says what it did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

/// Prints a line. A reader that went away doesn't stop the command.
pub fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints a JSON document, as it is made: it may be large.
pub fn say_json(document: &impl Serialize) {
    let mut output = BufWriter::new(std::io::stdout().lock());
    // Texts and numbers always serialise.
    let _ = serde_json::to_writer_pretty(&mut output, document);
    let _ = writeln!(output).and_then(|()| output.flush());
}

/// Prints what can't be had again, such as a secret that is kept nowhere.
///
/// # Errors
///
/// If it can't be written.
pub fn hand_over(line: impl Display) -> Result<(), Failure> {
    let mut output = std::io::stdout();
    let written = writeln!(output, "{line}").and_then(|()| output.flush());
    written.map_err(|error| Failure::Failed(format!("standard output can't be written: {error}")))
}

/// Prints a line on standard error that is no complaint.
pub fn note(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Prints a line on standard error about what is done, and may not be meant.
pub fn warn(line: impl Display) {
    complain(format_args!("warning: {line}"));
}

/// Prints a line on standard error.
pub fn complain(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "moorage: {line}");
}

/// What a command says on its way.
#[derive(Debug)]
pub struct Output {
    format: Format,
    /// Shown on standard error while that is a terminal.
    progress: ProgressBar,
}

impl Output {
    /// For a command that prints in this format.
    pub fn new(format: Format) -> Self {
        let progress = match std::io::stderr().is_terminal() {
            true => ProgressBar::new_spinner(),
            false => ProgressBar::hidden(),
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({pos} seen, {elapsed})") {
            progress.set_style(style);
        }
        progress.enable_steady_tick(Duration::from_millis(100));
        Self { format, progress }
    }

    /// What is being looked at now.
    pub fn looking_at(&self, what: impl Into<String>) {
        self.progress.set_message(what.into());
    }

    /// One more has been seen.
    pub fn seen_one(&self) {
        self.progress.inc(1);
    }

    /// Something was done: a line for people.
    pub fn done(&self, line: impl Display) {
        if self.format == Format::Table {
            self.progress.suspend(|| say(line));
        }
    }

    /// Something worth knowing, on standard error.
    pub fn note(&self, line: impl Display) {
        self.progress.suspend(|| note(line));
    }

    /// Something could not be done.
    pub fn failed(&self, line: impl Display) {
        self.progress.suspend(|| complain(line));
    }

    /// The end, of which nothing is told here.
    pub fn clear(&self) {
        self.progress.finish_and_clear();
    }

    /// The end, too soon: what programs get of it.
    pub fn break_off(&self, report: &impl Serialize) {
        self.progress.finish_and_clear();
        if self.format == Format::Json {
            say_json(report);
        }
    }

    /// The end: a summary for people, all of it for programs.
    pub fn finish(&self, summary: impl Display, report: &impl Serialize) {
        self.progress.finish_and_clear();
        match self.format {
            Format::Table => say(summary),
            Format::Json => say_json(report),
        }
    }
}
