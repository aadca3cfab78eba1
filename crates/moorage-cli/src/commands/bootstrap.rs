//! `moorage bootstrap`: makes Envoy's bootstrap from a settings file and environment variables.
//!
//! The making is [`moorage_bootstrap`]'s. Here is where the settings come from, which `moorage serve` shares, and having
//! an Envoy check what was made.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;
use moorage_bootstrap::Settings;

use crate::{Failure, output};

/// Makes Envoy's bootstrap from a few settings.
///
/// The settings are those of a YAML file, of environment variables, or both: a variable wins. docs/settings.md has all
/// of them. With access control the bootstrap has secrets in it.
#[derive(Debug, Args)]
pub struct Bootstrap {
    #[command(flatten)]
    source: SettingsSource,

    /// Check only, and print nothing: the settings, and with Envoy, where one is found, what is made of them.
    #[arg(long)]
    check: bool,

    /// The Envoy that checks; `envoy` of the PATH unless set.
    #[arg(long, value_name = "PROGRAM", env = "MOORAGE_ENVOY", requires = "check")]
    envoy: Option<PathBuf>,
}

/// Where settings come from.
#[derive(Debug, Clone, Args)]
pub struct SettingsSource {
    /// The file of settings; without it there are only variables.
    #[arg(long, value_name = "FILE", env = "MOORAGE_CONFIG")]
    pub config: Option<PathBuf>,
}

impl SettingsSource {
    /// The settings.
    ///
    /// # Errors
    ///
    /// A file that can't be read, and a setting that is wrong, by its name.
    pub fn settings(&self) -> Result<Settings, Failure> {
        let text = self.config.as_deref().map(read).transpose()?;
        let variable = |name: &str| std::env::var(name).ok();
        Settings::read(text.as_deref(), variable).map_err(|error| match &self.config {
            Some(file) => Failure::Usage(format!("{}: {error}", file.display())),
            None => Failure::Usage(error.to_string()),
        })
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file)
        .map_err(|error| Failure::Usage(format!("--config {}: {error}", file.display())))
}

/// Runs `moorage bootstrap`.
///
/// # Errors
///
/// Settings that make no bootstrap.
pub fn run(command: Bootstrap) -> Result<ExitCode, Failure> {
    let bootstrap = command.source.settings()?.bootstrap();
    if !command.check {
        output::say(bootstrap.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let program = command.envoy.as_deref().unwrap_or(Path::new("envoy"));
    match validate(program, &bootstrap)? {
        Some(fault) => Err(Failure::Failed(fault)),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Has Envoy check a bootstrap. Gives what is wrong with it, if anything is; that there is no Envoy is said, and is no
/// fault unless one was named.
fn validate(program: &Path, bootstrap: &str) -> Result<Option<String>, Failure> {
    let failed = |what: &str, error: std::io::Error| Failure::Failed(format!("{what}: {error}"));
    let file = private_file(bootstrap).map_err(|error| failed("a temporary file", error))?;
    let checked = Command::new(program)
        .args([
            OsStr::new("--mode"),
            OsStr::new("validate"),
            OsStr::new("--log-level"),
            OsStr::new("error"),
        ])
        .arg("--config-path")
        .arg(&file)
        .output();
    let removed = std::fs::remove_file(&file);
    let output = match checked {
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound && program == Path::new("envoy") =>
        {
            output::say("the settings are right; no Envoy was there to check what they make");
            return Ok(None);
        }
        Err(error) => return Err(failed(&program.display().to_string(), error)),
        Ok(output) => output,
    };
    removed.map_err(|error| failed(&file.display().to_string(), error))?;
    if output.status.success() {
        output::say("the settings are right, and Envoy takes what they make");
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Ok(Some(format!(
        "the settings make a bootstrap that Envoy refuses; a file that it names may be missing here. Envoy says:\n{}",
        said.trim_end()
    )))
}

/// A new file that nobody else can read.
fn private_file(text: &str) -> std::io::Result<PathBuf> {
    let mut number = [0; 16];
    getrandom::fill(&mut number).map_err(std::io::Error::other)?;
    let name = format!("moorage-{}.yaml", base16ct::lower::encode_string(&number));
    let path = std::env::temp_dir().join(name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(text.as_bytes())?;
    Ok(path)
}
