//! The program `moorage`, for those who run a registry: it starts the Envoy that serves it, does what is done to its bucket
//! from outside, and makes what its access control is made of.
//!
//! It stands on the same code as the filter: [`moorage::store`] knows which object holds what and how a store is asked
//! for it, [`moorage::registry::access`] who may do what. What is here is the command line, a signed way to the store,
//! and a file for each command.
//!
//! What was done goes to standard output, what failed to standard error, a line each. The status is 0 when all is done,
//! 1 when something failed or the answer is no, and 2 for a command line that makes no sense.

mod clock;
mod commands;
mod connection;
mod credentials;
mod output;
mod signed_http;
mod store_fault;

use std::io::Write;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};

use commands::access::{self, AccessCommand};
use commands::bootstrap::{self, Bootstrap};
use commands::check::{self, Check};
use commands::gc::{self, Gc};
use commands::health::{self, Health};
use commands::purge_uploads::{self, PurgeUploads};
use commands::retain::{self, Retain};
use commands::serve::{self, Serve};
use commands::token::{self, TokenCommand};
use commands::usage::{self, Usage};
use commands::user::{self, UserCommand};

/// Serves a Moorage registry by Envoy, and looks after its bucket, its accounts, its rules.
#[derive(Debug, Parser)]
#[command(
    name = "moorage",
    version,
    after_help = "Exit status: 0 all is done; 1 something failed, a line on standard error says what, or the answer \
                  is no; 2 the command line makes no sense."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bootstrap(Bootstrap),
    Serve(Serve),
    Health(Health),
    Check(Check),
    Gc(Gc),
    PurgeUploads(PurgeUploads),
    Retain(Retain),
    Usage(Usage),
    #[command(subcommand)]
    User(UserCommand),
    #[command(subcommand)]
    Token(TokenCommand),
    #[command(subcommand)]
    Access(AccessCommand),
}

/// Why a command could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line or the environment makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let result = match cli.command {
        Command::Bootstrap(command) => bootstrap::run(command),
        Command::Serve(command) => serve::run(command).await,
        Command::Health(command) => health::run(command).await,
        Command::Check(command) => check::run(command).await,
        Command::Gc(command) => gc::run(command).await,
        Command::PurgeUploads(command) => purge_uploads::run(command).await,
        Command::Retain(command) => retain::run(command).await,
        Command::Usage(command) => usage::run(command).await,
        Command::User(command) => user::run(command),
        Command::Token(command) => token::run(command),
        Command::Access(command) => access::run(command),
    };
    match result {
        Ok(status) => status,
        Err(failure) => {
            output::complain(&failure);
            match failure {
                Failure::Usage(_) => ExitCode::from(2),
                Failure::Failed(_) => ExitCode::FAILURE,
            }
        }
    }
}

/// Says in one line what is wrong with the command line; help and version, where asked for, in full.
fn refuse(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        output::say(text.trim_end());
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // It begins with what the program is, and says nothing of what is missing.
        let _ = std::io::stderr().write_all(text.as_bytes());
        return ExitCode::from(2);
    }
    let line = match is_about_a_value(error) {
        // Who gives a password behind the name would see it in a log.
        true => "there is an argument too many".to_owned(),
        false => {
            let paragraph = text.trim_start_matches("error: ").split("\n\n").next();
            paragraph.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
        }
    };
    output::complain(format!("{line}; `moorage --help` tells more"));
    ExitCode::from(2)
}

/// Whether a value stands where none belongs.
fn is_about_a_value(error: &clap::Error) -> bool {
    let is_option = |value: &ContextValue| value.to_string().starts_with('-');
    let argument = error.get(ContextKind::InvalidArg);
    error.kind() == ErrorKind::UnknownArgument && !argument.is_some_and(is_option)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
