//! The Envoy filter: the only code that knows proxy-wasm.
//!
//! This module is the plugin: it reads the configuration and makes an [`Exchange`] for every request.

mod body;
mod claims;
mod exchange;
mod headers;
mod inbox;
mod stamp;
mod task;
mod upload;
mod upstream;

use std::rc::Rc;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType, LogLevel};

use crate::config::Config;
use crate::registry::Settings;
use crate::store::Bucket;
use exchange::Exchange;
use upstream::Upstream;

/// How much of the store's error document is read, in bytes. They are a few hundred.
const ERROR_DOCUMENT_LIMIT: usize = 64 * 1024;

/// The entry point that Envoy calls once for every VM.
#[allow(unsafe_code, reason = "the macro exports a symbol, which counts as unsafe")]
mod entry {
    use super::*;

    proxy_wasm::main! {{
        proxy_wasm::set_log_level(LogLevel::Info);
        proxy_wasm::set_root_context(|_| Box::new(Plugin::default()));
    }}
}

/// One configured plugin within a VM.
#[derive(Default)]
struct Plugin {
    /// Set by a valid configuration. Envoy makes no exchange before there is one.
    registry: Option<Rc<Registry>>,
}

/// What all exchanges of a plugin share.
struct Registry {
    bucket: Bucket<Upstream>,
    settings: Settings,
    jwt_payload: Option<String>,
}

impl Context for Plugin {}

impl RootContext for Plugin {
    fn on_configure(&mut self, _size: usize) -> bool {
        let json = self.get_plugin_configuration().unwrap_or_default();
        match Config::parse(&json) {
            Ok(config) => {
                let upstream = Upstream::new(&config.store);
                let bucket = Bucket::new(upstream, &config.store, config.manifest_max_bytes);
                self.registry = Some(Rc::new(Registry {
                    bucket,
                    settings: config.settings(),
                    jwt_payload: config.jwt_payload,
                }));
                true
            }
            Err(error) => {
                log::error!("the plugin's configuration is refused: {error}");
                false
            }
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        let registry = Rc::clone(self.registry.as_ref()?);
        Some(Box::new(Exchange::new(registry)))
    }
}

/// Replaces the `size` bytes that Envoy holds.
fn replace_buffer(buffer: BufferType, size: usize, bytes: &[u8]) {
    if let Err(error) = hostcalls::set_buffer(buffer, 0, size, bytes) {
        log::error!("Envoy does not take a body: {error:?}");
    }
}
