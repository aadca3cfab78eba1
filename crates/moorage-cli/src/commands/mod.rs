//! The commands, a file or folder each.

pub mod access;
pub mod bootstrap;
pub mod check;
pub mod gc;
pub mod health;
pub mod purge_uploads;
pub mod retain;
pub mod serve;
pub mod token;
pub mod usage;
pub mod user;

use std::time::{Duration, SystemTime};

use moorage::registry::access::{NewUserError, is_account_name};
use moorage::store::Bucket;
use moorage_maintenance::s3_inventory::{Location, Summary};
use moorage_maintenance::snapshot::{Snapshot, SnapshotError};

use crate::connection::ConnectionOptions;
use crate::output::Output;
use crate::signed_http::SignedHttp;
use crate::{Failure, store_fault};

/// Refuses a name that no account can have. It is not shown: who gives `NAME:PASSWORD` would show the password.
fn check_account_name(name: &str) -> Result<(), Failure> {
    if is_account_name(name) {
        return Ok(());
    }
    Err(Failure::Usage(NewUserError::Name.to_string()))
}

/// How many calls are made at a time, as options say it.
fn parse_parallel(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(parallel @ 1..=256) => Ok(parallel),
        _ => Err("must be a number from 1 to 256".to_owned()),
    }
}

/// What an inventory of the bucket lists. A line says how old it is.
///
/// # Errors
///
/// If it can't be read.
async fn snapshot_of_inventory(
    bucket: &Bucket<SignedHttp>,
    connection: &ConnectionOptions,
    location: &Location,
    parallel: usize,
    output: &Output,
) -> Result<Snapshot, Failure> {
    output.looking_at("the inventory");
    let inventory = connection.inventory(location)?;
    let read = Snapshot::of_inventory(bucket, &inventory, parallel).await;
    let (snapshot, summary) = read.map_err(|error| {
        Failure::Failed(match error {
            SnapshotError::Store(error) => store_fault::told(&error, bucket.http()),
            SnapshotError::Inventory(_) => error.to_string(),
        })
    })?;
    output.note(told_inventory(&summary));
    Ok(snapshot)
}

/// Says how old an inventory is.
fn told_inventory(summary: &Summary) -> String {
    let age = Duration::from_secs(summary.age(SystemTime::now()).as_secs());
    format!(
        "the inventory lists {} objects as they were {} ago; what was written since is not looked at",
        summary.objects,
        humantime::format_duration(age)
    )
}

/// Random bytes of the system's, good enough for secrets.
fn random_bytes<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::Failed(format!("the system has no random bytes: {error}")))?;
    Ok(bytes)
}
