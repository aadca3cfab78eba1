//! `moorage bootstrap`: makes Envoy's bootstrap from a settings file and environment variables.
//!
//! The making is [`moorage_bootstrap`]'s. Here is where the settings come from, which `moorage serve` shares, and having
//! an Envoy check what was made.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use clap::Args;
use moorage_bootstrap::Settings;

use super::serve;
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

    /// The Envoy that `--check` asks; `envoy` of the PATH unless set.
    // No `requires`: the variable may be there for `moorage serve`.
    #[arg(long, value_name = "PROGRAM", env = "MOORAGE_ENVOY")]
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
/// Settings that make no bootstrap, or with `--check` one that Envoy refuses.
pub fn run(command: Bootstrap) -> Result<ExitCode, Failure> {
    let settings = command.source.settings()?;
    if command.check {
        output::say(check(command.envoy.as_deref(), &settings)?);
    } else {
        output::say(settings.bootstrap().trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

/// Has Envoy check what settings make, and gives what was found right. That there is no Envoy is no fault unless one was
/// named.
fn check(envoy: Option<&Path>, settings: &Settings) -> Result<&'static str, Failure> {
    let program = envoy.unwrap_or(Path::new("envoy"));
    let mut command = Command::new(program);
    command.args(["--mode", "validate", "--log-level", "error"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let child = serve::Bootstrap::of(settings)?.give_to(&mut command);
    let output = match child.and_then(Child::wait_with_output) {
        Err(error) if error.kind() == ErrorKind::NotFound && envoy.is_none() => {
            return Ok("the settings are right; no Envoy was there to check what they make");
        }
        Err(error) => return Err(Failure::Failed(format!("{}: {error}", program.display()))),
        Ok(output) => output,
    };
    if output.status.success() {
        return Ok("the settings are right, and Envoy takes what they make");
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::Failed(format!(
        "the settings make a bootstrap that Envoy refuses; a file that it names may be missing here. Envoy says:\n{}",
        said.trim_end()
    )))
}
