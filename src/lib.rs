//! Moorage: an OCI registry that runs inside Envoy and keeps everything in an S3 bucket.
//!
//! There is no registry process. Envoy loads this crate as a proxy-wasm module, and the module
//! answers the [distribution API](https://github.com/opencontainers/distribution-spec/blob/main/spec.md)
//! from a bucket in the layout of the CNCF Distribution registry.
//!
//! * [`oci`] is what the specifications name: names, tags, digests, manifests.
//! * [`store`] is the storage: which object holds what, and how an S3-compatible bucket is asked for it.
//! * [`registry`] is the API: what a request means and what is answered.
//! * [`config`] is the plugin's configuration.
//! * [`filter`] joins them to Envoy. It is the only code that knows proxy-wasm.
//!
//! Each stands on those above it alone, which the test `architecture` holds them to. All but the few lines that call
//! Envoy compile for every target, so their tests run natively and, as wasm, under Node.

pub mod config;
pub mod filter;
pub mod oci;
pub mod registry;
pub mod store;
