//! The Envoy filter: the only code that knows proxy-wasm.
//!
//! This module is the plugin: it reads the configuration and makes an [`Exchange`] for every request.

mod body;
mod claims;
mod clients;
mod cut;
mod document;
mod exchange;
mod headers;
mod inbox;
mod queue;
mod stamp;
mod surroundings;
mod task;
mod upload;
mod upstream;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType, LogLevel};

use crate::config::Config;
use crate::registry::{Allowance, Settings};
use crate::store::{Bucket, Budget, Cached, Surroundings};
use clients::Clients;
use exchange::{Exchange, Handle};
use queue::Queue;
use surroundings::{Proxy, TICK};
use task::{run_as, take_woken};
use upstream::Upstream;

/// How many exchanges go on in one callback of the plugin. Envoy sends their replies when the callback is over,
/// each from within the one before, and that can't go deep: with 1,600 the VM's stack is at its end.
const CALLED_TOGETHER: usize = 16;

/// How many ticks pass from one look for bodies that are late to the next: a second.
const TICKS_BETWEEN_EXPIRIES: u64 = 10;

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
    bucket: Cached<Bucket<Upstream>, Proxy>,
    settings: Settings,
    jwt_payload: Option<String>,
    /// The memory that requests may hold.
    budget: Rc<Budget>,
    clients: Rc<Clients>,
    body_timeout: Duration,
    /// What answers in parts may read from the store for nothing.
    gaps: Allowance,
    /// By which Envoy calls the plugin back when exchanges are woken.
    queue: Queue,
    /// Whether exchanges are left that are late.
    has_late_exchanges: Cell<bool>,
    /// The exchanges that wait for something, or have, by their context ids.
    exchanges: RefCell<HashMap<u32, Weak<RefCell<Exchange>>>>,
}

impl Registry {
    fn new(config: Config, queue: Queue) -> Self {
        let upstream = Upstream::new(&config.store);
        let budget = Rc::new(config.limits.budget());
        let limit = config.manifest_max_bytes;
        let bucket = Bucket::new(upstream, &config.store, limit, Rc::clone(&budget));
        let proxy = Proxy::new(&config.store.bucket);
        let streams = config.limits.streams_per_client;
        let clients = Rc::new(Clients::new(streams, config.client_memory_bytes()));
        Self {
            bucket: Cached::new(bucket, proxy, config.cache.settings()),
            settings: config.settings(),
            jwt_payload: config.jwt_payload,
            budget,
            clients,
            body_timeout: config.limits.body_timeout,
            gaps: Allowance::default(),
            queue,
            has_late_exchanges: Cell::default(),
            exchanges: RefCell::default(),
        }
    }

    /// Goes on with exchanges that have been woken; if there are more of them than [`CALLED_TOGETHER`], Envoy calls
    /// the plugin again. To be called as the plugin only.
    fn wake_exchanges(&self) {
        for context_id in take_woken(self.queue, CALLED_TOGETHER) {
            self.call_exchange(context_id, Exchange::wake);
        }
    }

    /// Ends exchanges whose clients should have sent their bodies by now; if there are more of them than
    /// [`CALLED_TOGETHER`], Envoy calls the plugin again. To be called as the plugin only.
    fn expire_exchanges(&self) {
        let now = self.bucket.surroundings().now();
        let is_late = |exchange: &Weak<RefCell<Exchange>>| {
            exchange.upgrade().is_some_and(|exchange| exchange.borrow().is_late(now))
        };
        let exchanges = self.exchanges.borrow();
        let late = exchanges.iter().filter(|(_, exchange)| is_late(exchange));
        let mut late: Vec<u32> = late.map(|(id, _)| *id).take(CALLED_TOGETHER + 1).collect();
        drop(exchanges);
        self.has_late_exchanges.set(late.len() > CALLED_TOGETHER);
        if self.has_late_exchanges.get() {
            self.queue.ask_for_a_call();
        }
        late.truncate(CALLED_TOGETHER);
        for context_id in late {
            self.call_exchange(context_id, Exchange::expire);
        }
    }

    /// Calls an exchange back, as itself.
    fn call_exchange(&self, context_id: u32, act: impl FnOnce(&mut Exchange)) {
        let exchange = self.exchanges.borrow().get(&context_id).and_then(Weak::upgrade);
        let Some(exchange) = exchange else {
            return;
        };
        if let Err(error) = hostcalls::set_effective_context(context_id) {
            log::error!("Envoy does not go on with an exchange: {error:?}");
            return;
        }
        run_as(context_id, || act(&mut exchange.borrow_mut()));
    }

    /// Until when a body has to be there that begins to come now.
    fn body_deadline(&self) -> Duration {
        self.bucket.surroundings().now().saturating_add(self.body_timeout)
    }

    fn remember(&self, context_id: u32, exchange: Weak<RefCell<Exchange>>) {
        self.exchanges.borrow_mut().insert(context_id, exchange);
    }

    fn forget(&self, context_id: u32) {
        self.exchanges.borrow_mut().remove(&context_id);
    }
}

impl Context for Plugin {
    /// The response to a storage call that an exchange made when it was woken.
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, _: usize) {
        if let Some(registry) = &self.registry {
            registry.bucket.bucket().http().complete(token, headers, body_size);
            registry.wake_exchanges();
        }
    }
}

impl RootContext for Plugin {
    fn on_configure(&mut self, _size: usize) -> bool {
        let json = self.get_plugin_configuration().unwrap_or_default();
        let config = match Config::parse(&json) {
            Ok(config) => config,
            Err(error) => {
                log::error!("the plugin's configuration is refused: {error}");
                return false;
            }
        };
        let Some(queue) = Queue::register() else {
            return false;
        };
        self.registry = Some(Rc::new(Registry::new(config, queue)));
        self.set_tick_period(TICK);
        true
    }

    fn on_tick(&mut self) {
        if let Some(registry) = &self.registry {
            let ticks = registry.bucket.surroundings().tick();
            if ticks.is_multiple_of(TICKS_BETWEEN_EXPIRIES) {
                registry.expire_exchanges();
            }
        }
    }

    fn on_queue_ready(&mut self, queue: u32) {
        while let Ok(Some(_)) = hostcalls::dequeue_shared_queue(queue) {}
        if let Some(registry) = &self.registry {
            registry.wake_exchanges();
            if registry.has_late_exchanges.get() {
                registry.expire_exchanges();
            }
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        let registry = self.registry.as_ref()?;
        Some(Box::new(Handle::new(Rc::clone(registry), context_id)))
    }
}

/// Replaces the `size` bytes that Envoy holds.
fn replace_buffer(buffer: BufferType, size: usize, bytes: &[u8]) {
    if let Err(error) = hostcalls::set_buffer(buffer, 0, size, bytes) {
        log::error!("Envoy does not take a body: {error:?}");
    }
}
