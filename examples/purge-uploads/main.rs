//! Removes from a bucket what pushes that were never finished left behind.
//!
//! An upload session is the folder `repositories/<name>/_uploads/<uuid>/` of the registry, its object
//! `startedat` the time at which it began. Clients that break off leave it there, and nothing in the
//! filter comes back to it: the filter only acts on requests. This is run by hand or by a timer
//! instead, and speaks S3 to the bucket directly, past Envoy. CNCF Distribution's own purger
//! (`uploadpurging`) goes by `startedat` alone; this one also leaves sessions alone that were written
//! to of late.
//!
//! It touches nothing else: neither blobs without a link nor manifests without a tag, which are
//! `registry garbage-collect`'s.
//!
//! ```text
//! purge-uploads --older-than AGE [--dry-run] [--endpoint http://127.0.0.1:5002]
//!               [--bucket registry] [--prefix FOLDER] [--region us-east-1]
//!               [--addressing path|virtual-host]
//! ```
//!
//! Requests are signed if `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` (and `AWS_SESSION_TOKEN`) are
//! set. What is removed is told on stdout, with a summary; failures on stderr, a line each. The status
//! is 0, 1 after any failure, 2 for a command line that makes no sense.

#[cfg(not(target_family = "wasm"))]
mod multipart;
#[cfg(not(target_family = "wasm"))]
mod options;
#[cfg(not(target_family = "wasm"))]
mod run;
#[cfg(not(target_family = "wasm"))]
mod s3;
#[cfg(not(target_family = "wasm"))]
mod sessions;

#[cfg(not(target_family = "wasm"))]
fn main() -> std::process::ExitCode {
    run::main()
}

/// Sockets don't exist on this target; the example only has to compile there.
#[cfg(target_family = "wasm")]
fn main() {}
