//! `moorage user add`: makes the line by which a user with a password is configured.
//!
//! The password never stands on the command line, where other users of the machine could see it, and is kept nowhere.

use std::io::{self, BufRead, IsTerminal};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use moorage::registry::access::{COST_MAX, COST_MIN, NewUserError, User};

use super::{check_account_name, random_bytes};
use crate::{Failure, output};

/// How much of a line is read, in bytes. No password that is taken has as many.
const LINE_MAX: u64 = 4096;

/// Makes users, who have a password.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    Add(AddUser),
}

/// Makes a user for `access.users`, as a line of htpasswd.
///
/// The password is asked for on a terminal, and otherwise is the first line of standard input.
#[derive(Debug, Args)]
pub struct AddUser {
    /// The user's name; in rules it is user:NAME.
    name: String,

    /// How much work it is to check the password: each step doubles it, for Envoy and for who guesses.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(i64::from(COST_MIN)..=i64::from(COST_MAX))
    )]
    cost: u32,
}

/// Makes a user.
///
/// # Errors
///
/// A name or password that no user can have, and a password that can't be read.
pub fn run(UserCommand::Add(options): UserCommand) -> Result<ExitCode, Failure> {
    check_account_name(&options.name)?;
    let input = io::stdin();
    let password = match input.is_terminal() {
        true => ask_twice(&options.name)?,
        false => read_line(input.lock())?,
    };
    let user = new_user(&options.name, &password, options.cost, random_bytes()?)?;
    output::hand_over(user.line())?;
    output::note("This is an entry of the list access.users in the filter's configuration.");
    Ok(ExitCode::SUCCESS)
}

fn new_user(name: &str, password: &str, cost: u32, salt: [u8; 16]) -> Result<User, Failure> {
    User::new(name, password, cost, salt).map_err(|error| match error {
        NewUserError::Name | NewUserError::Cost => Failure::Usage(error.to_string()),
        _ => Failure::Failed(error.to_string()),
    })
}

/// Asks on the terminal, which does not show what is typed.
fn ask_twice(name: &str) -> Result<String, Failure> {
    let ask = |prompt| {
        rpassword::prompt_password(prompt)
            .map_err(|error| Failure::Failed(format!("the password can't be asked for: {error}")))
    };
    let password = ask(format!("Password of {name}: "))?;
    if ask("The same again: ".to_owned())? != password {
        return Err(Failure::Failed("the two passwords are not the same".to_owned()));
    }
    Ok(password)
}

fn read_line(input: impl BufRead) -> Result<String, Failure> {
    let unreadable = |error: io::Error| {
        Failure::Failed(format!("standard input, for the password, can't be read: {error}"))
    };
    let mut line = Vec::new();
    input.take(LINE_MAX).read_until(b'\n', &mut line).map_err(unreadable)?;
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    // The error of the conversion would hold the password.
    String::from_utf8(line.to_vec())
        .map_err(|_| Failure::Failed("the password is no text in UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_the_password() {
        for (input, password) in [
            ("secret\n", "secret"),
            ("secret\r\n", "secret"),
            ("secret", "secret"),
            (" a b \nmore\n", " a b "),
            ("\nmore\n", ""),
            ("", ""),
        ] {
            assert_eq!(read_line(input.as_bytes()).expect("a line"), password, "{input:?}");
        }
        let endless = io::BufReader::new(io::repeat(b'x'));
        assert!(read_line(endless).expect("a line").len() <= 4096);
        assert!(read_line(&b"secret\xff\n"[..]).is_err());
    }

    #[test]
    fn a_refused_password_is_not_shown_and_is_no_fault_of_the_command_line() {
        let long = "secret ".repeat(11);
        for password in ["", &long, "secret\0", "mrg_secret"] {
            let failure = new_user("ada", password, 4, [7; 16]).expect_err(password);
            assert!(matches!(failure, Failure::Failed(_)), "{password:?}");
            let shown = format!("{failure} {failure:?}");
            assert!(!shown.contains("secret"), "{shown}");
        }
        assert!(matches!(new_user("a:b", "a", 4, [7; 16]), Err(Failure::Usage(_))));
    }
}
