//! The executor: one future for each exchange, polled when something it waits for has happened.
//!
//! Envoy runs a filter in one thread and calls an exchange back when a storage call of its completes;
//! the exchange polls its task then. What one exchange has read may also be what others wait for.
//! They are woken through a queue: Envoy calls the plugin back for it, and the plugin polls them. It
//! can't be done at once, from within another exchange: a storage call that an exchange made then
//! would be reported to that other one, and be lost with it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use proxy_wasm::hostcalls;

thread_local! {
    static WORKER: Worker = const {
        Worker {
            running: Cell::new(None),
            is_woken_again: Cell::new(false),
            woken: RefCell::new(Vec::new()),
            queue: Cell::new(None),
        }
    };
}

/// What is going on in this worker.
struct Worker {
    /// The exchange that is being called back.
    running: Cell<Option<u32>>,
    /// Whether that one has been woken meanwhile.
    is_woken_again: Cell<bool>,
    /// The exchanges that are to be polled from the queue.
    woken: RefCell<Vec<u32>>,
    /// The queue by which Envoy calls the plugin back.
    queue: Cell<Option<u32>>,
}

/// A future that is polled by hand.
pub struct Task<T> {
    future: Pin<Box<dyn Future<Output = T>>>,
    waker: Waker,
}

impl<T> Task<T> {
    /// A task of the exchange with this context id. It has not run yet.
    pub fn new(context_id: u32, future: impl Future<Output = T> + 'static) -> Self {
        Self { future: Box::pin(future), waker: Arc::new(Owner(context_id)).into() }
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

/// The exchange that owns a task.
struct Owner(u32);

impl Wake for Owner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        WORKER.with(|worker| {
            if worker.running.get() == Some(self.0) {
                worker.is_woken_again.set(true);
                return;
            }
            let mut woken = worker.woken.borrow_mut();
            if woken.contains(&self.0) {
                return;
            }
            woken.push(self.0);
            if woken.len() == 1 {
                ask_for_a_call(worker.queue.get());
            }
        });
    }
}

fn ask_for_a_call(queue: Option<u32>) {
    let Some(queue) = queue else {
        return;
    };
    if let Err(error) = hostcalls::enqueue_shared_queue(queue, Some(b"wake")) {
        log::error!("Envoy does not queue: {error:?}");
    }
}

/// Names the queue by which exchanges are woken. Without one they are woken by nothing but their own
/// storage calls.
pub fn wake_through(queue: u32) {
    WORKER.with(|worker| worker.queue.set(Some(queue)));
}

/// Does something as the exchange with this context id: what wakes it meanwhile needs no queue.
pub fn run_as<T>(context_id: u32, act: impl FnOnce() -> T) -> T {
    let before = WORKER.with(|worker| worker.running.replace(Some(context_id)));
    let result = act();
    WORKER.with(|worker| worker.running.set(before));
    result
}

/// The exchanges that have been woken.
pub fn take_woken() -> Vec<u32> {
    WORKER.with(|worker| worker.woken.take())
}
