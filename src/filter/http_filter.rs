//! One request and its response, as Envoy calls them back.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use super::host::{Action, Host};
use super::plugin::Worker;
use super::stream::Stream;
use super::task::run_as;

/// The filter of one stream. The plugin has the stream as well, to go on with it when what it waits for
/// was read by another.
pub struct HttpFilter<H: Host>(Rc<RefCell<Stream<H>>>);

impl<H: Host> fmt::Debug for HttpFilter<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpFilter")
    }
}

impl<H: Host> HttpFilter<H> {
    /// The filter of a stream of which nothing is known yet.
    pub(super) fn new(worker: Rc<Worker<H>>, context_id: u32) -> Self {
        Self(Rc::new(RefCell::new(Stream::new(worker, context_id))))
    }

    /// The client's headers are there; `end_of_stream` without a body.
    pub fn request_headers(&self, end_of_stream: bool) -> Action {
        self.call(|stream| stream.request_headers(end_of_stream))
    }

    /// Envoy holds `size` bytes of the client's body.
    pub fn request_body(&self, size: usize, end_of_stream: bool) -> Action {
        self.call(|stream| stream.request_body(size, end_of_stream))
    }

    /// The client's body has ended, with trailers.
    pub fn request_trailers(&self) -> Action {
        self.call(Stream::request_trailers)
    }

    /// A response begins: the store's to a streamed request, or one of Envoy's own.
    pub fn response_headers(&self, end_of_stream: bool) -> Action {
        self.call(|stream| stream.response_headers(end_of_stream))
    }

    /// Envoy holds `size` bytes of the response.
    pub fn response_body(&self, size: usize, end_of_stream: bool) -> Action {
        self.call(|stream| stream.response_body(size, end_of_stream))
    }

    /// The request is over, whether it had an answer or not.
    pub fn ended(&self) {
        self.0.borrow_mut().ended();
    }

    /// The response to the storage call `token`, of so many headers and so many bytes of body.
    pub fn call_response(&self, token: u32, headers: usize, body_size: usize) {
        self.call(|stream| {
            stream.worker().bucket.bucket().http().complete(token, headers, body_size);
            stream.wake();
            Action::Pause
        });
    }

    /// Calls the stream back, as itself. If it waits for something then, the plugin gets to know it, and
    /// it has to find room for that.
    fn call(&self, act: impl FnOnce(&mut Stream<H>) -> Action) -> Action {
        let mut stream = self.0.borrow_mut();
        let telemetry = Rc::clone(&stream.worker().telemetry);
        let action = telemetry
            .during(stream.exchange(), || run_as(stream.context_id(), || act(&mut stream)));
        if stream.is_known || !stream.is_waiting() {
            return action;
        }
        stream.is_known = true;
        stream.begin_to_take_time();
        stream.worker().remember(stream.context_id(), Rc::downgrade(&self.0));
        stream.reserve_memory().unwrap_or(action)
    }
}

impl<H: Host> Drop for HttpFilter<H> {
    fn drop(&mut self) {
        let stream = self.0.borrow();
        if stream.is_known {
            stream.worker().forget(stream.context_id());
        }
    }
}
