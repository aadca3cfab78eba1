//! The executor: one future for each stream, polled when something it waits for has happened.
//!
//! Envoy runs a filter in one thread and calls a stream back when a storage call of its completes;
//! the stream polls its task then. What one stream has read may also be what others wait for.
//! They are woken through a queue: Envoy calls the plugin back for it, and the plugin polls them. It
//! can't be done at once, from within another stream: a storage call that a stream made then
//! would be reported to that other one, and be lost with it.
//!
//! It is written here because no executor fits: those of `futures` and its like poll whatever was woken, whenever it
//! was woken, and a stream may be polled in its own callback or the plugin's alone.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use super::host::Host;
use super::wake_queue::WakeQueue;

thread_local! {
    static WORKER: Worker = Worker::default();
}

/// The state of the executor in this worker's VM, which all plugins of the same code share.
#[derive(Default)]
struct Worker {
    /// The stream that is being called back.
    running: Cell<Option<u32>>,
    /// Whether that one has been woken meanwhile.
    is_woken_again: Cell<bool>,
    /// The streams that are to be polled from each plugin's queue.
    woken: RefCell<HashMap<WakeQueue, BTreeSet<u32>>>,
}

/// A future that is polled by hand.
pub struct Task<T> {
    future: Pin<Box<dyn Future<Output = T>>>,
    waker: Waker,
}

impl<T> Task<T> {
    /// A task of the stream with this context id, whose plugin has this queue. It has not run yet.
    pub fn new(
        host: &impl Host,
        context_id: u32,
        queue: WakeQueue,
        future: impl Future<Output = T> + 'static,
    ) -> Self {
        let owner = Owner { host: host.clone(), context_id, queue };
        Self { future: Box::pin(future), waker: Arc::new(owner).into() }
    }

    /// Runs the future until it waits or ends. Not to be called again after it has ended.
    pub fn poll(&mut self) -> Poll<T> {
        loop {
            WORKER.with(|worker| worker.is_woken_again.set(false));
            let poll = self.future.as_mut().poll(&mut Context::from_waker(&self.waker));
            if poll.is_ready() || !WORKER.with(|worker| worker.is_woken_again.get()) {
                return poll;
            }
        }
    }
}

/// The stream that owns a task.
struct Owner<H> {
    host: H,
    context_id: u32,
    queue: WakeQueue,
}

impl<H: Host> Wake for Owner<H> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        WORKER.with(|worker| {
            if worker.running.get() == Some(self.context_id) {
                worker.is_woken_again.set(true);
                return;
            }
            let mut woken = worker.woken.borrow_mut();
            if woken.entry(self.queue).or_default().insert(self.context_id) {
                // Every time, not only for the first: should Envoy refuse one, the next gets through.
                self.queue.ask_for_callback(&self.host);
            }
        });
    }
}

/// Does something as the stream with this context id: what wakes it meanwhile needs no queue.
pub fn run_as<T>(context_id: u32, act: impl FnOnce() -> T) -> T {
    let before = WORKER.with(|worker| worker.running.replace(Some(context_id)));
    let result = act();
    WORKER.with(|worker| worker.running.set(before));
    result
}

/// Streams that have been woken of the plugin with this queue, `limit` of them at most, the oldest first. If there are
/// more, Envoy is asked for another call.
pub fn take_woken(host: &impl Host, queue: WakeQueue, limit: usize) -> Vec<u32> {
    WORKER.with(|worker| {
        let mut woken = worker.woken.borrow_mut();
        let Some(all) = woken.get_mut(&queue) else {
            return Vec::new();
        };
        let now = std::iter::from_fn(|| all.pop_first()).take(limit).collect();
        if !all.is_empty() {
            queue.ask_for_callback(host);
        }
        now
    })
}
