//! Starting programs, and waiting for what they do.

use std::env;
use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// How long anything may take that a test waits for. Far more than it needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// The path that `./build.sh test` gives in the environment variable `name`.
///
/// Tests that need it have an `#[ignore]` with the reason: plain `cargo test` leaves them out and says so.
pub fn tool(name: &str) -> PathBuf {
    let path = env::var_os(name).map(PathBuf::from);
    path.unwrap_or_else(|| {
        panic!(
            "{name} is not set: run this test with ./build.sh test, which gets what it needs, and \
             mark it with #[ignore = \"needs ...\"], so that plain cargo test leaves it out"
        )
    })
}

/// The same for a tool that not every machine can have. Without it, what needs it is left out, and a
/// line says so; but CI leaves nothing out.
pub fn optional_tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os(name).map(PathBuf::from);
    if path.is_none() {
        let is_ci = env::var_os("CI").is_some_and(|value| !value.is_empty());
        assert!(!is_ci, "{name} is not set, and CI must run every test: ./build.sh setup says why");
        note(&format!("left out what needs {name}, which is not set: ./build.sh setup says why"));
    }
    path
}

/// Prints a line that is seen even if the test succeeds.
pub fn note(line: &str) {
    // Only what `print!` writes is kept from view. If nobody can see the line, nobody misses it.
    let _ = writeln!(io::stderr(), "note: {line}");
}

/// An address of this machine that no other process of the tests has, on a port that is nobody's there: for programs that
/// are told where to listen, and can't say which port they have chosen.
pub fn own_address() -> SocketAddr {
    static NUMBER: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    // All of 127.0.0.0/8 is this machine, and nobody's connections come from there by themselves.
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    SocketAddr::from(([127, high | 1, low, number], 9901))
}

/// Polls until `condition` gives something; panics with `what` was waited for when it takes too long.
pub async fn wait_for<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let polling = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    within(what, polling).await
}

/// Awaits `future`; panics with `what` was waited for when it takes too long.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = timeout(PATIENCE, future).await;
    outcome.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// Runs a command to its end.
pub async fn output(command: &mut Command) -> Output {
    let program = format!("{:?}", command.as_std().get_program());
    let output = within(&program, command.kill_on_drop(true).output()).await;
    output.unwrap_or_else(|error| panic!("{program} can't be run: {error}"))
}

/// Runs a command that must succeed, and gives what it printed.
pub async fn run(command: &mut Command) -> Vec<u8> {
    let output = output(command).await;
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?} failed: {complaint}", command.as_std());
    output.stdout
}

/// Runs a command that may fail, and gives what it printed, or what it said instead.
///
/// # Errors
///
/// What it said on standard error.
pub async fn try_run(command: &mut Command) -> Result<Vec<u8>, String> {
    let output = output(command).await;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
