//! The filter: what stands between Envoy's callbacks and the handlers of [`registry`](crate::registry).
//!
//! [`Plugin`] reads the configuration and makes an [`HttpFilter`] for every request; that drives the request's
//! [`stream`](HttpFilter), from headers and body to the handler's future, and from its answer to Envoy's reply.
//! Everything stands on the trait [`Host`], of which Envoy is one implementation, in the wasm build with the feature
//! `filter`. The tests have another, which is scripted.

mod announcements;
mod byte_ranges;
mod clients;
mod clock;
mod collected_body;
mod environment;
#[cfg(all(feature = "filter", target_family = "wasm"))]
mod envoy;
mod error_document;
mod events;
mod headers;
mod host;
mod http_filter;
mod metadata;
mod native_hash;
mod plugin;
#[cfg(all(feature = "filter", target_family = "wasm"))]
mod random;
#[cfg(test)]
mod scripted_host;
mod stream;
mod streamed_body;
mod streamed_upload;
mod task;
mod telemetry;
#[cfg(test)]
mod tests;
mod upstream;
mod wake_queue;

pub use events::EventCounts;
pub use host::{Action, CallError, Headers, Host, MetricKind, SharedData, SharedDataError};
pub use http_filter::HttpFilter;
pub use plugin::Plugin;
