//! The commands, a file or folder each.

pub mod access;
pub mod gc;
pub mod purge_uploads;
pub mod retain;
pub mod token;
pub mod user;

use moorage::registry::access::{NewUserError, is_account_name};

use crate::Failure;

/// Refuses a name that no account can have. It is not shown: who gives `NAME:PASSWORD` would show the password.
fn check_account_name(name: &str) -> Result<(), Failure> {
    if is_account_name(name) {
        return Ok(());
    }
    Err(Failure::Usage(NewUserError::Name.to_string()))
}

/// Random bytes of the system's, good enough for secrets.
fn random_bytes<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::Failed(format!("the system has no random bytes: {error}")))?;
    Ok(bytes)
}
