//! The plugin: the configuration, what all streams of a worker share, and the callbacks that are not of one stream.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::announcements::Announcements;
use super::clients::Clients;
use super::clock::{Clock, TICK};
use super::environment::{RequestEnvironment, WorkerEnvironment};
use super::events::{EventCounts, Events};
use super::host::Host;
use super::http_filter::HttpFilter;
use super::native_hash::NativeHash;
use super::stream::Stream;
use super::task::{run_as, take_woken};
use super::telemetry::{Held, Telemetry};
use super::upstream::Upstream;
use super::wake_queue::WakeQueue;
use crate::config::Config;
use crate::registry::{Allowance, Environment, Settings};
use crate::store::{Bucket, Budget, Cached};

/// How many streams go on in one callback of the plugin. Envoy sends their replies when the callback is over,
/// each from within the one before, and that can't go deep: with 1,600 the VM's stack is at its end.
const STREAMS_PER_CALLBACK: usize = 16;

/// How many ticks pass from one look for bodies that are late to the next: a second.
const TICKS_BETWEEN_EXPIRIES: u64 = 10;

/// One configured plugin within a VM.
#[derive(Debug)]
pub struct Plugin<H: Host> {
    host: H,
    /// Set by a valid configuration. Envoy makes no stream before there is one.
    worker: Option<Rc<Worker<H>>>,
}

/// The state that all streams of a plugin share in one worker.
pub struct Worker<H: Host> {
    pub host: H,
    pub bucket: Cached<Bucket<Upstream<H>>, WorkerEnvironment<H>>,
    pub settings: Settings,
    pub jwt_payload: Option<String>,
    /// What operators see of it.
    pub telemetry: Rc<Telemetry<H>>,
    /// What the log is told once.
    pub announcements: Announcements<H>,
    clock: Rc<Clock<H>>,
    /// What Envoy is to the handlers.
    pub environment: Rc<dyn Environment>,
    /// What is sent to those who want to know what happens.
    events: Rc<Events<H>>,
    /// The memory that requests may hold.
    pub budget: Rc<Budget>,
    pub clients: Rc<Clients>,
    body_timeout: Duration,
    /// How much answers in parts may read from the store and throw away.
    pub gaps: Allowance,
    /// Who else may hash a body.
    pub native_hash: NativeHash,
    /// By which Envoy calls the plugin back when streams are woken.
    pub queue: WakeQueue,
    /// Whether streams are left that are late.
    has_late_streams: Cell<bool>,
    /// The streams that wait for something, or have, by their context ids.
    streams: RefCell<HashMap<u32, Weak<RefCell<Stream<H>>>>>,
}

impl<H: Host> std::fmt::Debug for Worker<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<H: Host> Worker<H> {
    /// A worker with this configuration. `seed` is random, and secret: all other random values follow from it.
    fn new(
        host: &H,
        config: Config,
        announcements: Announcements<H>,
        queue: WakeQueue,
        seed: [u8; 32],
    ) -> Self {
        let telemetry = Rc::new(Telemetry::new(host.clone(), &config.telemetry));
        let upstream = Upstream::new(host.clone(), &config.store, Rc::clone(&telemetry));
        let budget = Rc::new(config.limits.budget());
        let options = config.store.bucket_options(config.manifest_max_bytes);
        let bucket = Bucket::new(upstream, &options, Rc::clone(&budget));
        let clock = Rc::new(Clock::new(host.clone()));
        let bucket_name = &config.store.bucket;
        let cache_environment = WorkerEnvironment::new(
            host.clone(),
            Rc::clone(&clock),
            Rc::clone(&telemetry),
            bucket_name,
        );
        let events = Rc::new(Events::new(host.clone(), config.events.clone()));
        let environment =
            RequestEnvironment::new(host.clone(), Rc::clone(&clock), Rc::clone(&events), seed);
        let hash_seed = environment.nonce().bits() as u64;
        let streams = config.limits.streams_per_client;
        let clients = Rc::new(Clients::new(streams, config.client_memory_bytes()));
        Self {
            host: host.clone(),
            bucket: Cached::new(bucket, cache_environment, config.cache.settings(), hash_seed),
            settings: config.settings(),
            jwt_payload: config.jwt_payload,
            telemetry,
            announcements,
            clock,
            environment: Rc::new(environment),
            events,
            budget,
            clients,
            body_timeout: config.limits.body_timeout,
            gaps: Allowance::default(),
            native_hash: NativeHash::default(),
            queue,
            has_late_streams: Cell::default(),
            streams: RefCell::default(),
        }
    }

    /// Goes on with streams that have been woken; if there are more of them than [`STREAMS_PER_CALLBACK`], Envoy calls
    /// the plugin again. To be called as the plugin only.
    fn wake_streams(&self) {
        for context_id in take_woken(&self.host, self.queue, STREAMS_PER_CALLBACK) {
            self.call_stream(context_id, Stream::wake);
        }
    }

    /// Ends streams whose clients should have sent their bodies by now; if there are more of them than
    /// [`STREAMS_PER_CALLBACK`], Envoy calls the plugin again. To be called as the plugin only.
    fn expire_streams(&self) {
        let now = self.clock.now();
        let is_late = |stream: &Weak<RefCell<Stream<H>>>| {
            stream.upgrade().is_some_and(|stream| stream.borrow().is_late(now))
        };
        let streams = self.streams.borrow();
        let late = streams.iter().filter(|(_, stream)| is_late(stream));
        let mut late: Vec<u32> = late.map(|(id, _)| *id).take(STREAMS_PER_CALLBACK + 1).collect();
        drop(streams);
        self.has_late_streams.set(late.len() > STREAMS_PER_CALLBACK);
        if self.has_late_streams.get() {
            self.queue.ask_for_callback(&self.host);
        }
        late.truncate(STREAMS_PER_CALLBACK);
        for context_id in late {
            self.call_stream(context_id, Stream::expire);
        }
    }

    /// Calls a stream back, as itself.
    fn call_stream(&self, context_id: u32, act: impl FnOnce(&mut Stream<H>)) {
        let stream = self.streams.borrow().get(&context_id).and_then(Weak::upgrade);
        if let Some(stream) = stream
            && self.host.set_effective_context(context_id)
        {
            let mut stream = stream.borrow_mut();
            self.telemetry.during(stream.exchange(), || {
                run_as(context_id, || act(&mut stream));
            });
        }
    }

    /// Until when a body has to be there that begins to come now.
    pub fn body_deadline(&self) -> Duration {
        self.clock.now().saturating_add(self.body_timeout)
    }

    /// From now on the plugin can call the stream back.
    pub fn remember(&self, context_id: u32, stream: Weak<RefCell<Stream<H>>>) {
        self.streams.borrow_mut().insert(context_id, stream);
    }

    /// The stream is over.
    pub fn forget(&self, context_id: u32) {
        self.streams.borrow_mut().remove(&context_id);
    }
}

#[cfg(test)]
impl<H: Host> Worker<H> {
    /// Whether no stream holds anything any more.
    pub fn is_idle(&self) -> bool {
        use crate::store::Purpose::{Bodies, Reads, Replies, Waiting};

        let held = [Waiting, Bodies, Reads, Replies].map(|purpose| self.budget.held(purpose));
        held == [0; 4]
            && self.clients.are_idle()
            && self.streams.borrow().is_empty()
            && self.bucket.bucket().http().calls_under_way() == 0
    }
}

impl<H: Host> Plugin<H> {
    /// A plugin that has not been configured yet.
    pub fn new(host: H) -> Self {
        Self { host, worker: None }
    }

    /// Takes the configuration, as JSON; `false`, with the reason in the log, for one that is refused.
    pub fn configure(&mut self, json: &[u8]) -> bool {
        let config = match Config::parse(json) {
            Ok(config) => config,
            Err(error) => {
                log::error!("the plugin's configuration is refused: {error}");
                return false;
            }
        };
        let Some(seed) = self.host.random() else {
            log::error!(
                "Envoy gives no random bytes (random_get of WASI preview 1), and ids of uploads are made of them; \
                 the plugin does not start"
            );
            return false;
        };
        let Some(queue) = WakeQueue::register(&self.host) else {
            return false;
        };
        let announcements = Announcements::new(self.host.clone(), &config, json);
        announcements.begin(&config);
        self.worker = Some(Rc::new(Worker::new(&self.host, config, announcements, queue, seed)));
        self.host.set_tick_period(TICK);
        true
    }

    /// A tick of the timer is over.
    pub fn tick(&mut self) {
        if let Some(worker) = &self.worker {
            let ticks = worker.clock.tick();
            worker.events.tick();
            let held = Held { budget: &worker.budget, cache: worker.bucket.cached_bytes() };
            worker.telemetry.tick(ticks, worker.clock.now(), held, worker.events.counts());
            if ticks.is_multiple_of(TICKS_BETWEEN_EXPIRIES) {
                worker.announcements.tell_of_store(&worker.bucket);
                worker.expire_streams();
            }
        }
    }

    /// Something is in the queue.
    pub fn queue_ready(&mut self, queue: u32) {
        while self.host.dequeue(queue) {}
        if let Some(worker) = &self.worker {
            worker.wake_streams();
            if worker.has_late_streams.get() {
                worker.expire_streams();
            }
        }
    }

    /// The response to the call `token`, of so many headers and so many bytes of body: one by which events are sent, or a
    /// storage call that a stream made when it was woken.
    pub fn call_response(&mut self, token: u32, headers: usize, body_size: usize) {
        if let Some(worker) = &self.worker {
            if worker.events.complete(token, headers) {
                return;
            }
            worker.bucket.bucket().http().complete(token, headers, body_size);
            worker.wake_streams();
        }
    }

    /// How many events this worker has sent, lost and waiting; none before there is a valid configuration.
    pub fn event_counts(&self) -> EventCounts {
        self.worker.as_ref().map(|worker| worker.events.counts()).unwrap_or_default()
    }

    /// The filter of a new stream; `None` before there is a valid configuration.
    pub fn create_filter(&self, context_id: u32) -> Option<HttpFilter<H>> {
        let worker = self.worker.as_ref()?;
        Some(HttpFilter::new(Rc::clone(worker), context_id))
    }

    /// The state that all streams share.
    #[cfg(test)]
    pub fn worker(&self) -> &Rc<Worker<H>> {
        self.worker.as_ref().expect("a configured plugin")
    }
}
