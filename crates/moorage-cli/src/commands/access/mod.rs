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

/// The key of RFC 7515, appendix A.3, as a JWK, for configurations of tests.
#[cfg(test)]
pub fn test_key() -> serde_json::Value {
    serde_json::json!({
        "kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
    })
}
