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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::filter::scripted_host::ScriptedHost;

    /// A host with a queue that no other test has: the executor is one for all that run in this thread.
    fn host(queues_before: usize) -> (ScriptedHost, WakeQueue) {
        let host = ScriptedHost::default();
        host.state().queues = vec![0; queues_before];
        let queue = WakeQueue::register(&host).expect("a queue");
        (host, queue)
    }

    /// A task that takes two turns, and wakes itself for the second.
    fn two_turns(host: &ScriptedHost, context_id: u32, queue: WakeQueue) -> Task<()> {
        let mut is_second = false;
        Task::new(
            host,
            context_id,
            queue,
            poll_fn(move |context| {
                if std::mem::replace(&mut is_second, true) {
                    return Poll::Ready(());
                }
                context.waker().wake_by_ref();
                Poll::Pending
            }),
        )
    }

    #[test]
    fn a_task_that_is_woken_while_its_own_stream_runs_goes_on_at_once() {
        let (host, queue) = host(1_000);
        let mut task = two_turns(&host, 2, queue);
        assert!(run_as(2, || task.poll()).is_ready());
        assert_eq!(host.state().queues[1_000], 0);
        assert!(take_woken(&host, queue, 10).is_empty());
    }

    #[test]
    fn a_task_that_is_woken_while_another_stream_runs_waits_for_the_queue() {
        let (host, queue) = host(1_001);
        let mut task = two_turns(&host, 2, queue);
        assert!(run_as(3, || task.poll()).is_pending());
        assert_eq!(host.state().queues[1_001], 1, "Envoy is asked for a callback");
        assert_eq!(take_woken(&host, queue, 10), [2]);
        assert!(task.poll().is_ready());
    }

    #[test]
    fn who_runs_within_another_stream_is_that_stream_no_longer_afterwards() {
        let (host, queue) = host(1_002);
        let mut task = two_turns(&host, 2, queue);
        let poll = run_as(2, || {
            run_as(3, || ());
            task.poll()
        });
        assert!(poll.is_ready());
    }

    #[test]
    fn the_oldest_streams_go_on_first_and_those_that_are_left_in_a_further_callback() {
        let (host, queue) = host(1_003);
        let mut tasks = [7, 5, 6].map(|id| two_turns(&host, id, queue));
        assert!(tasks.iter_mut().all(|task| task.poll().is_pending()));
        host.state().queues[1_003] = 0;
        assert_eq!(take_woken(&host, queue, 2), [5, 6]);
        assert_eq!(host.state().queues[1_003], 1, "there are more");
        assert_eq!(take_woken(&host, queue, 2), [7]);
        assert_eq!(host.state().queues[1_003], 1, "there are no more");
        assert!(take_woken(&host, queue, 2).is_empty());
    }

    #[test]
    fn a_stream_that_is_woken_often_is_in_the_queue_once() {
        let (host, queue) = host(1_004);
        let task = two_turns(&host, 2, queue);
        (0..3).for_each(|_| task.waker.wake_by_ref());
        assert_eq!(host.state().queues[1_004], 1);
        assert_eq!(take_woken(&host, queue, 10), [2]);
    }
}
