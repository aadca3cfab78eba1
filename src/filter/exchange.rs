//! One HTTP exchange: from Envoy's callbacks to the handler's future, and from its answer to Envoy's
//! reply.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Response};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType};

use super::body::{Collected, Collector};
use super::clients::ClientShare;
use super::cut::cut;
use super::document::Document;
use super::stamp::stamp;
use super::task::{Task, run_as};
use super::upload::{Step, Upload};
use super::{Registry, claims, headers, replace_buffer};
use crate::registry::error::{Error, ErrorCode};
use crate::registry::{self, Answer, BodyUse, ContentStream, Cutter, Request, StreamAnswer};
use crate::store::{Purpose, Reservation, UNCOUNTED};

/// What a request that waits takes of the module's memory, in bytes, about: its headers, its handler's future and
/// the calls that that has under way.
const WAITING_REQUEST: usize = 16 * 1024;

/// An exchange as Envoy sees it. The plugin has it as well, to go on with it when what it waits for
/// was read by another.
pub struct Handle(Rc<RefCell<Exchange>>);

impl Handle {
    /// An exchange of which nothing is known yet.
    pub fn new(registry: Rc<Registry>, context_id: u32) -> Self {
        let state = State::Unseen;
        let (room, client) = (None, None);
        let exchange = Exchange { registry, context_id, state, is_known: false, room, client };
        Self(Rc::new(RefCell::new(exchange)))
    }

    /// Calls the exchange back, as itself. If it waits for something then, the plugin gets to know it, and
    /// it has to find room for that.
    fn call(&self, act: impl FnOnce(&mut Exchange) -> Action) -> Action {
        let mut exchange = self.0.borrow_mut();
        let action = run_as(exchange.context_id, || act(&mut exchange));
        if exchange.is_known || !exchange.is_waiting() {
            return action;
        }
        exchange.is_known = true;
        exchange.registry.remember(exchange.context_id, Rc::downgrade(&self.0));
        exchange.find_room().unwrap_or(action)
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
    /// The memory that it holds while it waits, or its reply until the client has it.
    room: Option<Reservation>,
    /// What it has of what its client may have; nothing until that is asked for.
    client: Option<ClientShare>,
}

enum State {
    /// The filter has not seen the request yet, and Envoy shows it no response before.
    Unseen,
    /// The request's body arrives, which the handler is to have whole, or not at all.
    Collecting(Request, Collector),
    /// The handler waits for the store. A response now is Envoy's own, for example a timeout.
    Handling(Task<Answer>),
    /// Envoy's router streams the request's body to the store.
    Uploading(Upload),
    /// Envoy's router streams a blob.
    Streaming(Box<ContentStream>),
    /// The store had no blob but an error: its document is read before the client gets an answer.
    Failing(Box<ContentStream>, Document),
    /// Envoy's router streams a blob, of which the client gets some parts.
    Cutting(Cutter),
    /// Envoy's own reply goes out with this body in place of its plain text.
    Rewording(Bytes),
    /// The answer has been given.
    Done,
}

impl Exchange {
    /// Whether it waits for the client or the store.
    fn is_waiting(&self) -> bool {
        matches!(self.state, State::Collecting(..) | State::Handling(_) | State::Uploading(_))
    }

    /// Reserves the memory for what a request takes that waits. Without that, or if its client has too much, it
    /// is given up; what is to be done then comes back.
    fn find_room(&mut self) -> Option<Action> {
        if !self.client().hold(WAITING_REQUEST) {
            let message = "this client has as many requests under way as it may have; try again when one \
                           has ended";
            let error = Error::new(ErrorCode::TooManyRequests, message);
            return Some(self.reply(&error.into_response()));
        }
        self.room = self.registry.budget.reserve(Purpose::Waiting, WAITING_REQUEST);
        if self.room.is_some() { None } else { Some(self.refuse()) }
    }

    /// Gives up the request, because there is no memory for it.
    fn refuse(&mut self) -> Action {
        let message = "the proxy has as many requests under way as it has memory for; try again";
        self.reply(&Error::new(ErrorCode::Unavailable, message).into_response())
    }

    fn client(&mut self) -> &mut ClientShare {
        self.client.get_or_insert_with(|| self.registry.clients.current())
    }

    /// Gives up the request, because its client has too many streams under way.
    fn refuse_stream(&mut self) -> Action {
        let message = "this client has as many uploads and downloads under way as it may have; \
                       try again when one has ended";
        self.reply(&Error::new(ErrorCode::TooManyRequests, message).into_response())
    }

    /// Runs the handler as far as it gets. Tells whether the request may go on to the router.
    fn advance(&mut self) -> Action {
        let State::Handling(task) = &mut self.state else {
            return Action::Pause;
        };
        match task.poll() {
            Poll::Pending => Action::Pause,
            Poll::Ready(Answer::Reply(response)) => self.reply(&response),
            Poll::Ready(Answer::Stream(_)) if !self.client().begin_stream() => self.refuse_stream(),
            Poll::Ready(Answer::Stream(stream)) => {
                self.room = None;
                self.client().release_bytes();
                headers::rewrite_request(&self.registry.bucket.bucket().stream_request(&stream));
                self.state = State::Streaming(stream);
                Action::Continue
            }
        }
    }

    /// Hands the request to its handler before its body has come.
    fn begin_upload(&mut self, mut request: Request) -> Action {
        if !self.client().begin_stream() {
            return self.refuse_stream();
        }
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
        self.room = None;
        if let Some(client) = &mut self.client {
            client.release_bytes();
        }
        let size = response.body().len();
        if size <= UNCOUNTED {
            headers::send_response(response);
        } else if !self.client().hold(size) {
            let message = "this client has not taken the replies that it has asked for; try again \
                           when it has";
            headers::send_response(
                &Error::new(ErrorCode::TooManyRequests, message).into_response(),
            );
        } else {
            self.room = self.registry.budget.reserve(Purpose::Replies, size);
            if self.room.is_some() {
                headers::send_response(response);
            } else {
                let message = "the proxy holds as many replies as it has memory for; try again";
                headers::send_response(
                    &Error::new(ErrorCode::Unavailable, message).into_response(),
                );
            }
        }
        Action::Pause
    }

    /// Whether the client should have sent its body by now.
    pub fn is_late(&self, now: Duration) -> bool {
        match &self.state {
            State::Collecting(_, collector) => collector.is_late(now),
            State::Uploading(upload) => upload.is_late(now),
            _ => false,
        }
    }

    /// Gives up waiting for the client, which is late.
    pub fn expire(&mut self) {
        if let State::Uploading(upload) = &mut self.state {
            let step = upload.stop_draining();
            self.follow(step);
        } else {
            let message = "the request's body did not come in time";
            self.reply(&Error::new(ErrorCode::BodyTimedOut, message).into_response());
        }
    }

    /// The store's answer to a streamed request begins.
    fn begin_stream(&mut self, stream: Box<ContentStream>, end_of_stream: bool) -> Action {
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
            Action::Pause
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
        let Some(mut request) = headers::read_request() else {
            let message = "the request's path is not text";
            return self.reply(&Error::new(ErrorCode::NoSuchEndpoint, message).into_response());
        };
        if self.registry.budget.is_half_held(Purpose::Replies) {
            request.reply_max_bytes = UNCOUNTED;
        }
        if end_of_stream {
            return self.begin(request);
        }
        let deadline = self.registry.body_deadline();
        let collector = match registry::use_of_body(&request) {
            BodyUse::Streamed => return self.begin_upload(request),
            BodyUse::Whole if !self.client().begin_stream() => return self.refuse_stream(),
            BodyUse::Whole => {
                let limit = self.registry.settings.manifest_max_bytes;
                Collector::keep(&request, limit, &self.registry.budget, deadline)
            }
            BodyUse::None => Collector::discard(&request, deadline),
        };
        let is_hopeless = collector.is_full();
        self.state = State::Collecting(request, collector);
        if is_hopeless { self.begin_with_body() } else { Action::Pause }
    }

    fn request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let collected = match &mut self.state {
            State::Streaming(_) => return Action::Continue,
            State::Uploading(upload) => {
                let step = upload.take(size, end_of_stream);
                return self.follow(step);
            }
            State::Collecting(_, collector) => {
                collector.take(BufferType::HttpRequestBody, size, self.client.as_mut())
            }
            _ => Collected::Incomplete,
        };
        // Were it left to wait, Envoy would buffer it, and refuse it in its own words when it is more
        // than a buffer holds.
        replace_buffer(BufferType::HttpRequestBody, size, b"");
        match collected {
            Collected::NoRoom => self.refuse(),
            Collected::TooMuch => {
                let message = "this client has as much of manifests under way as it may have; \
                               try again when one is stored";
                self.reply(&Error::new(ErrorCode::TooManyRequests, message).into_response())
            }
            Collected::Incomplete if !end_of_stream => Action::Pause,
            Collected::Incomplete | Collected::Enough => self.begin_with_body(),
        }
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
            let step = upload.begin_answer(status, headers::is_local_reply(), end_of_stream);
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
