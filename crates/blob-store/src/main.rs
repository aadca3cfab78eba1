//! A blob store for one machine: an S3 server that keeps a bucket in a folder.
//!
//! `./build.sh run` and the integration tests put it behind Envoy, so that trying Moorage needs
//! neither an account nor a network. Object `k` of bucket `b` is the file `<root>/b/k`, which makes
//! the folder a tree that CNCF Distribution's filesystem driver reads and writes as well; the
//! operations are in `s3.rs`. The library `s3s-fs` would have been less code, but it fails to write
//! keys of more than some 160 bytes, which the registry has, and checks a condition and writes in two
//! steps, so that two writers could both win.
//!
//! It is **not** a production store: no replication, plain HTTP only, and nothing is synced to the disk.
//! What it has acknowledged outlives its own end, whatever ends it. If the machine fails, the last half
//! minute of writes may be lost, and objects from then may be there and be empty or damaged. In
//! production the bucket is a real one, and Envoy's `blob_store` cluster points at it.
//!
//! ```text
//! blob-store [--listen 127.0.0.1:5002] --root DIR [--bucket registry]
//!            [--access-key KEY --secret-key SECRET] [--require-length]
//! ```
//!
//! With `--require-length` it refuses objects whose length is not announced, as AWS S3 does.
//! With a pair of keys it refuses requests without a valid SigV4 signature; without, it serves
//! everyone who reaches the port. Once bound it prints `listening on ADDR:PORT`, one line, with the
//! real port where port 0 was asked for. SIGTERM and SIGINT end it at once with status 0; a bad
//! argument or a taken port is one line on stderr and status 2.

mod body;
mod checksums;
mod folders;
mod listing;
mod multipart;
mod object;
mod options;
mod s3;
mod server;
mod tree;

use std::process::ExitCode;

use options::Options;

/// What stops the store from serving, as the one line the user sees.
type Failure = String;

fn main() -> ExitCode {
    match Options::parse(std::env::args_os().skip(1)).and_then(server::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("blob-store: {failure}");
            ExitCode::from(2)
        }
    }
}
