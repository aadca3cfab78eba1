//! Envoy's bootstrap for Moorage, made from a few settings: a YAML file, environment variables, or both.
//!
//! [`Settings`] is what may be set, each setting with its default; [`variables`] what environment variables set of it;
//! [`endpoint`] reads URLs and addresses. [`Settings::bootstrap`] fills in the one template, `bootstrap.yaml.jinja`,
//! from which the files in `envoy/` are made too. What the filter itself is told is read by the filter's own code, so
//! what is valid here is valid there.
//!
//! It starts no Envoy and looks at no file but those that `access` and `events` name.

mod endpoint;
mod plugin;
mod settings;
mod template;
mod variables;

pub use endpoint::{Address, Endpoint};
pub use settings::{
    AccessLog, Addressing, AdminPaths, Credentials, Edge, Settings, SettingsError, Store, Tls,
    Tracing,
};
pub use variables::VARIABLES;
