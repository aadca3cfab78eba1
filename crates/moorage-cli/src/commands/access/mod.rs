//! `moorage access`: whether access control is configured as it should be, and why a caller may do something or not.
//!
//! What is valid, who is in which group, and what is allowed say the filter's own functions. Nothing is decided here.

mod caller;
mod check;
mod configuration;
mod explain;
mod explanation;

use std::process::ExitCode;

use clap::Subcommand;

use crate::Failure;

/// Checks and explains access control.
#[derive(Debug, Subcommand)]
pub enum AccessCommand {
    Check(check::Check),
    Explain(explain::Explain),
}

/// Runs a command, and gives the status.
///
/// # Errors
///
/// If the command can't begin.
pub fn run(command: AccessCommand) -> Result<ExitCode, Failure> {
    match command {
        AccessCommand::Check(options) => check::run(&options),
        AccessCommand::Explain(options) => explain::run(options),
    }
}
