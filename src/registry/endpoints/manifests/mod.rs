//! `/v2/<name>/manifests/<reference>`
//!
//! Source: OCI distribution specification, "Pulling manifests", "Pushing manifests", "Content management".

#[cfg(feature = "schema1")]
mod convert;
#[cfg(not(feature = "schema1"))]
#[path = "convert_left_out.rs"]
mod convert;
#[cfg(test)]
mod crashes;
mod delete;
mod fetch;
mod get;
mod immutable;
#[cfg(all(test, feature = "schema1"))]
mod legacy_tests;
mod negotiate;
mod put;
#[cfg(all(test, not(target_family = "wasm")))]
mod races;

pub use delete::delete;
pub use fetch::content_of;
pub use get::get;
pub use put::put;

use crate::oci::{Digest, Name, Reference};
use crate::registry::http::error::{Error, ErrorCode};

fn manifest_unknown(name: &Name, reference: &Reference) -> Error {
    let message = format!("the repository {name} has no manifest {reference}");
    Error::new(ErrorCode::ManifestUnknown, message).with_detail(detail(name, reference))
}

fn detail(name: &Name, reference: &Reference) -> serde_json::Value {
    serde_json::json!({ "name": name.as_str(), "reference": reference.to_string() })
}

/// The manifest is there, but what is stored may not be served.
fn unservable(digest: &Digest, why: &str) -> Error {
    let message = format!("the manifest {digest} can't be served: {why}");
    log::error!("{message}");
    Error::new(ErrorCode::Unknown, message).with_detail(digest.as_str())
}
