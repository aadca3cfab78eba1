//! Moorage: an OCI registry that runs inside Envoy and keeps everything in an S3 bucket.
//!
//! There is no registry process. Envoy loads this crate as a proxy-wasm module, and the module
//! answers the [distribution API](https://github.com/opencontainers/distribution-spec/blob/main/spec.md)
//! from a bucket in the layout of the CNCF Distribution registry.
//!
//! * [`registry`] is the API: what a request means and what is answered. It knows neither Envoy nor S3.
//! * [`store`] is the storage: which object holds what, and how to ask an S3-compatible store for it.
//! * [`config`] is the plugin's configuration.
//! * `filter` joins the two to Envoy. It is the only code that knows proxy-wasm, and exists only in
//!   the wasm build with the feature `filter` (on by default).
//!
//! `registry` and `store` compile for every target, so their tests run natively and, as wasm, under Node.

#![forbid(unsafe_op_in_unsafe_fn)]
#![deny(unsafe_code, missing_docs)]

pub mod config;
#[cfg(all(feature = "filter", target_family = "wasm"))]
mod filter;
pub mod registry;
pub mod store;
