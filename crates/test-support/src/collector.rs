//! `moorage gc`, the program, for tests that collect garbage beside something else.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::process::Command;

use crate::blob_store::{ACCESS_KEY, SECRET_KEY};
use crate::process::{output, tool};

/// A run on the bucket `registry` of a store, with these arguments, that prints JSON.
///
/// # Errors
///
/// What it says if it fails.
pub async fn gc(store: SocketAddr, arguments: &[&str]) -> Result<Value, String> {
    run(store, arguments, &[]).await
}

/// The same, with calls that are signed by the test store's keys.
///
/// # Errors
///
/// What it says if it fails.
pub async fn signed_gc(store: SocketAddr, arguments: &[&str]) -> Result<Value, String> {
    let keys = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];
    run(store, arguments, &keys).await
}

async fn run(
    store: SocketAddr,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> Result<Value, String> {
    let mut command = Command::new(tool("MOORAGE_CLI"));
    command.args(["gc", "--format", "json", "--endpoint"]).arg(format!("http://{store}"));
    command.args(arguments).env_clear().envs(variables.iter().copied());
    let output = output(&mut command).await;
    let complaint = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(complaint.into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {complaint}"))
}

/// What a run says is garbage, of this kind: the digests. Links count once for each repository.
pub fn garbage(document: &Value, kinds: &[&str]) -> BTreeSet<(String, String)> {
    let things = document["garbage"].as_array().expect("a list of garbage");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let wanted = things.iter().filter(|thing| kinds.contains(&text(&thing["kind"]).as_str()));
    wanted
        .map(|thing| {
            let key = text(&thing["key"]);
            let hex = key.rsplit('/').nth(1).unwrap_or_default();
            (text(&thing["repository"]), format!("sha256:{hex}"))
        })
        .collect()
}
