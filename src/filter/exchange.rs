//! One HTTP exchange: from Envoy's callbacks to the handler's future, and from its answer to Envoy's
//! reply.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Response};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType};

use super::body::Collector;
use super::cut::cut;
use super::document::Document;
use super::stamp::stamp;
use super::task::{Task, run_as};
use super::upload::{Step, Upload};
use super::{Registry, claims, headers, replace_buffer};
use crate::registry::error::{Error, ErrorCode};
use crate::registry::{self, Answer, BlobStream, Cutter, Request, StreamAnswer};

/// An exchange as Envoy sees it. The plugin has it as well, to go on with it when what it waits for
/// was read by another.
pub struct Handle(Rc<RefCell<Exchange>>);

impl Handle {
    /// An exchange of which nothing is known yet.
    pub fn new(registry: Rc<Registry>, context_id: u32) -> Self {
        let state = State::Unseen;
        let exchange = Exchange { registry, context_id, state, is_known: false };
        Self(Rc::new(RefCell::new(exchange)))
    }

    /// Calls the exchange back, as itself. If it waits for something then, the plugin gets to know it.
    fn call<T>(&self, act: impl FnOnce(&mut Exchange) -> T) -> T {
        let mut exchange = self.0.borrow_mut();
        let result = run_as(exchange.context_id, || act(&mut exchange));
        let waits = matches!(exchange.state, State::Handling(_) | State::Uploading(_));
        if waits && !exchange.is_known {
            exchange.is_known = true;
            exchange.registry.remember(exchange.context_id, Rc::downgrade(&self.0));
        }
        result
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let exchange = self.0.borrow();
        if exchange.is_known {
            exchange.registry.forget(exchange.context_id);
        }
    }
}

/// One request and its response.
pub struct Exchange {
    registry: Rc<Registry>,
    context_id: u32,
    state: State,
    /// Whether the plugin knows of it.
    is_known: bool,
}

enum State {
    /// The filter has not seen the request yet, and Envoy shows it no response before.
    Unseen,
    /// The request's body arrives, which the handler is to have whole.
    Collecting(Request, Collector),
    /// The handler waits for the store. A response now is Envoy's own, for example a timeout.
    Handling(Task<Answer>),
    /// Envoy's router streams the request's body to the store.
    Uploading(Upload),
    /// Envoy's router streams a blob.
    Streaming(BlobStream),
    /// The store had no blob but an error: its document is read before the client gets an answer.
    Failing(BlobStream, Document),
    /// Envoy's router streams a blob, of which the client gets some parts.
    Cutting(Cutter),
    /// Envoy's own reply goes out with this body in place of its plain text.
    Rewording(Bytes),
    /// The answer has been given.
    Done,
}

impl Exchange {
    /// Runs the handler as far as it gets. Tells whether the request may go on to the router.
    fn advance(&mut self) -> Action {
        let State::Handling(task) = &mut self.state else {
            return Action::Pause;
        };
        match task.poll() {
            Poll::Pending => Action::Pause,
            Poll::Ready(Answer::Reply(response)) => self.reply(&response),
            Poll::Ready(Answer::Stream(stream)) => {
                headers::rewrite_request(&self.registry.bucket.bucket().stream_request(&stream));
                self.state = State::Streaming(stream);
                Action::Continue
            }
        }
    }

    /// Hands the request to its handler before its body has come.
    fn begin_upload(&mut self, mut request: Request) -> Action {
        request.stamp = stamp(&request);
        let mut upload = Upload::new(&self.registry, self.context_id, request);
        let step = upload.advance();
        self.state = State::Uploading(upload);
        self.follow(step)
    }

    /// Hands the request to its handler.
    fn begin(&mut self, mut request: Request) -> Action {
        let registry = Rc::clone(&self.registry);
        if let Some(key) = &registry.jwt_payload
            && request.method == Method::PUT
        {
            request.resources = claims::resources(key);
        }
        if registry::needs_stamp(&request) {
            request.stamp = stamp(&request);
        }
        let answer =
            async move { registry::handle(&request, &registry.bucket, &registry.settings).await };
        self.state = State::Handling(Task::new(self.context_id, self.registry.queue, answer));
        self.advance()
    }

    /// Does what an upload wants done.
    fn follow(&mut self, step: Step) -> Action {
        match step {
            Step::Wait => Action::Pause,
            Step::GoOn => Action::Continue,
            Step::Reply(response) => self.reply(&response),
        }
    }

    /// The body is there, or as much of it as is read.
    fn begin_with_body(&mut self) -> Action {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Collecting(mut request, collector) => {
                request.body = collector.finish();
                self.begin(request)
            }
            state => {
                self.state = state;
                Action::Pause
            }
        }
    }

    fn reply(&mut self, response: &Response<Bytes>) -> Action {
        self.state = State::Done;
        headers::send_response(response);
        Action::Pause
    }

    /// The store's answer to a streamed request begins.
    fn begin_stream(&mut self, stream: BlobStream, end_of_stream: bool) -> Action {
        let (status, store_headers) = headers::read_response();
        match stream.answer(status, &store_headers, &self.registry.gaps) {
            StreamAnswer::Forward(status, headers) => {
                self.state = State::Done;
                headers::rewrite_response(status, &headers);
                Action::Continue
            }
            StreamAnswer::Cut(status, headers, cutter) => {
                self.state = State::Cutting(cutter);
                headers::rewrite_response(status, &headers);
                Action::Continue
            }
            StreamAnswer::Reply(response) => self.reply(&response),
            StreamAnswer::Fail if end_of_stream => self.reply(&stream.failure(status, b"")),
            StreamAnswer::Fail => {
                self.state = State::Failing(stream, Document::new(status));
                Action::Pause
            }
        }
    }

    /// Envoy replies by itself: the status and headers stay, the text becomes the API's JSON.
    fn reword(&mut self) -> Action {
        let (status, mut headers) = headers::read_response();
        let (json, body) = registry::proxy_error(status).into_parts();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        for (name, value) in &json.headers {
            headers.insert(name, value.clone());
        }
        headers::rewrite_response(status, &headers);
        self.state = State::Rewording(body);
        Action::Continue
    }

    /// Goes on, because what it waits for may have happened.
    pub fn wake(&mut self) {
        let action = match &mut self.state {
            State::Uploading(upload) => {
                let step = upload.wake();
                self.follow(step)
            }
            _ => self.advance(),
        };
        if action == Action::Continue
            && let Err(error) = hostcalls::resume_http_request()
        {
            log::error!("Envoy does not resume a request: {error:?}");
        }
    }
}

impl Context for Handle {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, _: usize) {
        self.call(|exchange| {
            exchange.registry.bucket.bucket().http().complete(token, headers, body_size);
            exchange.wake();
        });
    }
}

impl HttpContext for Handle {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        self.call(|exchange| exchange.request_headers(end_of_stream))
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.call(|exchange| exchange.request_body(size, end_of_stream))
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        self.call(Exchange::request_trailers)
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        self.call(|exchange| exchange.response_headers(end_of_stream))
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.call(|exchange| exchange.response_body(size, end_of_stream))
    }
}

/// What Envoy calls back with.
impl Exchange {
    fn request_headers(&mut self, end_of_stream: bool) -> Action {
        let Some(request) = headers::read_request() else {
            let message = "the request's path is not text";
            return self.reply(&Error::new(ErrorCode::NoSuchEndpoint, message).into_response());
        };
        if end_of_stream {
            return self.begin(request);
        }
        if registry::is_streamed(&request) {
            return self.begin_upload(request);
        }
        let collector = Collector::new(&request, self.registry.settings.manifest_max_bytes);
        let is_hopeless = collector.is_full();
        self.state = State::Collecting(request, collector);
        if is_hopeless { self.begin_with_body() } else { Action::Pause }
    }

    fn request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let is_complete = match &mut self.state {
            State::Streaming(_) => return Action::Continue,
            State::Uploading(upload) => {
                let step = upload.take(size, end_of_stream);
                return self.follow(step);
            }
            State::Collecting(_, collector) => {
                collector.take(BufferType::HttpRequestBody, size);
                end_of_stream || collector.is_full()
            }
            _ => false,
        };
        // Were it left to wait, Envoy would buffer it, and refuse it in its own words when it is more
        // than a buffer holds.
        replace_buffer(BufferType::HttpRequestBody, size, b"");
        if is_complete { self.begin_with_body() } else { Action::Pause }
    }

    fn request_trailers(&mut self) -> Action {
        match &mut self.state {
            State::Streaming(_) => Action::Continue,
            State::Uploading(upload) => {
                let step = upload.end();
                self.follow(step)
            }
            // To continue here would send the request on as the client wrote it, to the bucket.
            _ => self.begin_with_body(),
        }
    }

    fn response_headers(&mut self, end_of_stream: bool) -> Action {
        if let State::Uploading(upload) = &mut self.state
            && upload.is_routed()
        {
            let (status, _) = headers::read_response();
            let step = upload.begin_answer(status, end_of_stream);
            return self.follow(step);
        }
        // What was answered from memory passes here as well.
        if let State::Done = self.state {
            return Action::Continue;
        }
        match std::mem::replace(&mut self.state, State::Done) {
            State::Streaming(stream) => self.begin_stream(stream, end_of_stream),
            State::Collecting(..) | State::Handling(_) | State::Uploading(_) => self.reword(),
            state => {
                self.state = state;
                Action::Continue
            }
        }
    }

    fn response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match &mut self.state {
            State::Uploading(upload) => {
                let step = upload.take_answer(size, end_of_stream);
                self.follow(step)
            }
            State::Failing(stream, document) => {
                document.take(size);
                if !end_of_stream {
                    return Action::Pause;
                }
                let response = stream.failure(document.status, &document.bytes);
                self.reply(&response)
            }
            State::Cutting(cutter) => cut(cutter, size, end_of_stream),
            State::Rewording(body) => {
                let body = std::mem::take(body);
                replace_buffer(BufferType::HttpResponseBody, size, &body);
                Action::Continue
            }
            _ => Action::Continue,
        }
    }
}
