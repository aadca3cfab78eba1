//! The program `synthetic-bucket`: serves a made-up registry as a bucket, or writes it to a disk.
//!
//! ```text
//! synthetic-bucket --objects N [--seed N] [--listen 127.0.0.1:0] [--bucket registry] [--latency MILLISECONDS]
//! synthetic-bucket --objects N [--seed N] --write DIR
//! ```
//!
//! One line of JSON on standard output says what was made ([`moorage_synthetic_bucket::census::Census`]), and under
//! `listening` where it is served; with `--write` it is `null`, and the program ends. `DIR` is the folder that stands
//! for the bucket. `--latency` has each answer wait so long, as a store far away does. A bad argument is one line on
//! standard error and status 2.

mod options;

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use moorage_synthetic_bucket::bucket::Bucket;
use moorage_synthetic_bucket::census::Census;
use moorage_synthetic_bucket::server::{self, Store};
use moorage_synthetic_bucket::{folder, plan};
use serde::Serialize;
use tokio::net::TcpListener;

use options::Options;

/// What stops the program, as the one line the user sees.
type Failure = String;

/// What is printed.
#[derive(Serialize)]
struct Made<'a> {
    listening: Option<SocketAddr>,
    #[serde(flatten)]
    census: &'a Census,
}

fn main() -> ExitCode {
    match Options::parse(std::env::args_os().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("synthetic-bucket: {failure}");
            ExitCode::from(2)
        }
    }
}

fn run(options: Options) -> Result<(), Failure> {
    let registry = plan::make(options.objects, options.seed);
    let census = registry.census.clone();
    if let Some(bucket) = options.write {
        folder::write(&registry, &bucket)
            .map_err(|error| format!("cannot write below {}: {error}", bucket.display()))?;
        return announce(None, &census);
    }
    let store = Store::new(options.bucket, Bucket::new(registry), options.latency);
    serve(options.listen, store, &census)
}

#[tokio::main]
async fn serve(address: SocketAddr, store: Store, census: &Census) -> Result<(), Failure> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let address =
        listener.local_addr().map_err(|error| format!("cannot tell the port: {error}"))?;
    announce(Some(address), census)?;
    let served = server::serve(listener, Arc::new(store)).await;
    served.map_err(|error| format!("cannot accept a connection: {error}"))
}

/// Whoever started this reads the line to learn the port, and that it may connect.
fn announce(listening: Option<SocketAddr>, census: &Census) -> Result<(), Failure> {
    let line = serde_json::to_string(&Made { listening, census })
        .map_err(|error| format!("cannot say what was made: {error}"))?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .map_err(|error| format!("cannot write to standard output: {error}"))
}
