//! What the tests run on: real processes on ports of their own, and one stand-in store for faults.

#![allow(missing_docs, reason = "names say what helpers of tests do; docs are where they do not")]

pub mod accounts;
pub mod blob_store;
pub mod bucket_folder;
pub mod buildkit;
pub mod client;
pub mod collector;
pub mod conformance;
pub mod containerd;
pub mod cosign;
pub mod crane;
pub mod daemon;
pub mod docker;
pub mod docker_registry;
pub mod documented_metrics;
pub mod envoy;
pub mod garage;
pub mod helm;
pub mod image;
pub mod jwt;
pub mod listing;
pub mod logins;
pub mod metrics_page;
pub mod oras;
pub mod otel_collector;
pub mod podman;
pub mod process;
pub mod prometheus;
pub mod proxy;
pub mod raw;
pub mod receiver;
pub mod regctl;
pub mod relay;
pub mod scripted;
pub mod skopeo;
pub mod stand_in;
pub mod tls;
pub mod tree;
pub mod whole;

use moorage::oci::{Algorithm, Digest};

/// The SHA-256 digest of some content.
pub fn digest_of(content: &(impl AsRef<[u8]> + ?Sized)) -> Digest {
    Digest::of(Algorithm::Sha256, content.as_ref())
}
