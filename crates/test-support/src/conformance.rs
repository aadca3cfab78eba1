//! The OCI conformance suite, as a process, and what it found.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::process::output;

/// How the suite calls itself: every check's name begins with it.
const ROOT: &str = "OCI Conformance Test";

/// What one run of the suite found.
pub struct Outcome {
    pub passed: usize,
    pub failed: usize,
    /// Checks of what the registry doesn't have, and need not.
    pub skipped: usize,
    /// Checks that the settings left out.
    pub disabled: usize,
    pub failures: Vec<Check>,
    pub skips: Vec<Check>,
    /// Where its reports are.
    pub reports: PathBuf,
}

/// A check that did not pass.
pub struct Check {
    pub name: String,
    /// What the suite says about it.
    pub messages: Vec<String>,
}

/// Runs the suite against `registry`. `settings` are the suite's environment variables, beyond those for
/// the address; `name` is the folder for its reports, in `conformance/` where cargo builds.
pub async fn run(
    suite: &Path,
    registry: SocketAddr,
    name: &str,
    settings: &[(&str, &str)],
) -> Outcome {
    let reports = reports_folder(name);
    let mut command = Command::new(suite);
    // Settings that someone has for another registry, and the file that the suite looks for.
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("OCI_") {
            command.env_remove(name);
        }
    }
    command
        .current_dir(&reports)
        .env("OCI_REGISTRY", registry.to_string())
        .env("OCI_TLS", "disabled")
        .env("OCI_RESULTS_DIR", &reports)
        .envs(settings.iter().copied());
    let output = output(&mut command).await;
    let summary = String::from_utf8_lossy(&output.stdout);
    fs::write(reports.join("summary.txt"), summary.as_bytes()).expect("the summary is written");
    let complaint = String::from_utf8_lossy(&output.stderr);
    let count = |status| {
        let count = count_of(&summary, status);
        count.unwrap_or_else(|| panic!("no count of {status} in the suite's output: {complaint}"))
    };
    Outcome {
        passed: count("Pass"),
        failed: count("FAIL") + count("Error"),
        skipped: count("Skip"),
        disabled: count("Disabled"),
        failures: checks_with(&summary, &["FAIL", "Error"]),
        skips: checks_with(&summary, &["Skip"]),
        reports,
    }
}

/// An empty folder, so that no report is taken for a later run's.
fn reports_folder(name: &str) -> PathBuf {
    // The test itself lies in the folder `deps` of a profile in the folder of all that is built.
    let test = std::env::current_exe().expect("a running test has a path");
    let built = test.ancestors().nth(3).expect("it is within a folder");
    let folder = built.join("conformance").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("old reports can be removed");
    }
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// The count in a line such as `  Pass....:        703`.
fn count_of(summary: &str, status: &str) -> Option<usize> {
    summary.lines().find_map(|line| {
        let (name, rest) = line.trim_start().split_once('.')?;
        let (_, count) = rest.split_once(':')?;
        (name == status).then(|| count.trim().parse().ok())?
    })
}

/// The checks that ended with one of `statuses`. In the summary every check has a line
/// `<name>: <status>`, and what follows up to the next one is what it says.
fn checks_with(summary: &str, statuses: &[&str]) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut current: Option<Check> = None;
    let (tree, _) = summary.split_once("\n\nConfiguration:").unwrap_or((summary, ""));
    for line in tree.lines().map(str::trim_start) {
        if line.starts_with(ROOT) {
            checks.extend(current.take());
            let (name, status) = line.rsplit_once(": ").unwrap_or((line, ""));
            current = statuses
                .contains(&status)
                .then(|| Check { name: name.to_owned(), messages: Vec::new() });
        } else if let Some(check) = &mut current {
            check.messages.push(line.trim_start_matches("- ").to_owned());
        }
    }
    checks.extend(current);
    // A group of checks has the status of its worst and says nothing itself.
    checks.retain(|check| !check.messages.is_empty());
    checks
}
