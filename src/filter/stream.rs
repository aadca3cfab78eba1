//! One request and its response: from Envoy's callbacks to the handler's future, and from its answer to Envoy's
//! reply. A stream is in one [`State`] at a time, and every callback says what comes of it in each.

use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, WARNING};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::byte_ranges::cut;
use super::clients::ClientShare;
use super::collected_body::{Collected, CollectedBody, DISCARDED_MAX};
use super::error_document::ErrorDocument;
use super::host::{Action, Host};
use super::plugin::Worker;
use super::streamed_upload::{Step, StreamedUpload};
use super::task::Task;
use super::telemetry::{BlobBytes, StoreCall, StoreOperation, StoreResult};
use super::{headers, metadata};
use crate::registry::access::is_refused_at_once;
use crate::registry::http::error::{Error, ErrorCode};
use crate::registry::{
    self, Answer, BodyUse, ContentStream, Cutter, Exchange, Operation, Request, StreamAnswer,
};
use crate::store::{Purpose, Reservation, UNCOUNTED};

/// The memory that a waiting request takes, in bytes, about: its headers, its handler's future and
/// the calls that that has under way.
const WAITING_REQUEST: usize = 16 * 1024;

/// One request and its response.
pub struct Stream<H: Host> {
    worker: Rc<Worker<H>>,
    context_id: u32,
    state: State<H>,
    /// Whether the plugin knows of it.
    pub is_known: bool,
    /// The memory that it holds while it waits, or its reply until the client has it.
    room: Option<Reservation>,
    /// Its part of its client's share; nothing until that is asked for.
    client: Option<ClientShare>,
    /// What is noted of the request.
    exchange: Option<Rc<Exchange>>,
    /// When the request began to take time, since 1970; `None` if it is answered at once.
    begun: Option<Duration>,
    /// The status of the answer that has begun to go out.
    status: Option<StatusCode>,
    /// The store's answer that a streamed blob waits for.
    store_call: Option<StoreCall<H>>,
    /// Whether a blob has passed through Envoy's router.
    has_streamed: bool,
}

enum State<H: Host> {
    /// The filter has not seen the request yet, and Envoy shows it no response before.
    Unseen,
    /// The request's body arrives, which the handler is to have whole, or not at all.
    Collecting(Box<Request>, CollectedBody),
    /// The handler waits for the store. A response now is Envoy's own, for example a timeout.
    Handling(Task<Answer>),
    /// Envoy's router streams the request's body to the store.
    Uploading(StreamedUpload<H>),
    /// Envoy's router streams a blob.
    Streaming(Box<ContentStream>),
    /// The store had no blob but an error: its document is read before the client gets an answer.
    Failing(Box<ContentStream>, ErrorDocument),
    /// Envoy's router streams a blob, of which the client gets some parts.
    Cutting(Cutter),
    /// Envoy's own reply goes out with this body in place of its plain text.
    Rewording(Bytes),
    /// The answer has been given.
    Done,
}

impl<H: Host> Stream<H> {
    /// A stream of which nothing is known yet.
    pub fn new(worker: Rc<Worker<H>>, context_id: u32) -> Self {
        let state = State::Unseen;
        Self {
            worker,
            context_id,
            state,
            is_known: false,
            room: None,
            client: None,
            exchange: None,
            begun: None,
            status: None,
            store_call: None,
            has_streamed: false,
        }
    }

    /// The state that it shares with the others of its worker.
    pub fn worker(&self) -> &Worker<H> {
        &self.worker
    }

    /// What is noted of the request, once there is one.
    pub fn exchange(&self) -> Option<Rc<Exchange>> {
        self.exchange.as_ref().map(Rc::clone)
    }

    /// Its context id.
    pub fn context_id(&self) -> u32 {
        self.context_id
    }

    /// Whether it waits for the client or the store.
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Collecting(..) | State::Handling(_) | State::Uploading(_))
    }

    /// Reserves the memory for what a request takes that waits. Without that, or if its client has too much, it
    /// is given up; what is to be done then comes back.
    pub fn reserve_memory(&mut self) -> Option<Action> {
        if !self.client().hold(WAITING_REQUEST) {
            let message = "this client has as many requests under way as it may have; try again when one \
                           has ended";
            let error = Error::new(ErrorCode::TooManyRequests, message);
            return Some(self.reply(&error.into_response()));
        }
        self.room = self.worker.budget.reserve(Purpose::Waiting, WAITING_REQUEST);
        if self.room.is_some() { None } else { Some(self.refuse()) }
    }

    /// Gives up the request, because there is no memory for it.
    fn refuse(&mut self) -> Action {
        let message = "the proxy has as many requests under way as it has memory for; try again";
        self.reply(&Error::new(ErrorCode::Unavailable, message).into_response())
    }

    fn client(&mut self) -> &mut ClientShare {
        self.client.get_or_insert_with(|| self.worker.clients.current(&self.worker.host))
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
                headers::rewrite_request(
                    &self.worker.host,
                    &self.worker.telemetry,
                    &self.worker.bucket.bucket().stream_request(&stream.read),
                );
                self.begin_to_take_time();
                self.store_call = Some(self.worker.telemetry.store_call(StoreOperation::StreamGet));
                self.has_streamed = true;
                self.state = State::Streaming(stream);
                Action::Continue
            }
        }
    }

    /// Hands the request to its handler before its body has come.
    fn begin_upload(&mut self, request: Request) -> Action {
        if !self.client().begin_stream() {
            return self.refuse_stream();
        }
        let mut upload = StreamedUpload::new(&self.worker, self.context_id, request);
        let step = upload.advance();
        self.state = State::Uploading(upload);
        self.follow(step)
    }

    /// Hands the request to its handler.
    fn begin(&mut self, mut request: Request) -> Action {
        let worker = Rc::clone(&self.worker);
        if let Some(key) = &worker.jwt_payload
            && request.method == Method::PUT
        {
            request.resources = metadata::access(&worker.host, metadata::JWT_AUTHN, key);
        }
        let answer =
            async move { registry::handle(&request, &worker.bucket, &worker.settings).await };
        self.state = State::Handling(Task::new(
            &self.worker.host,
            self.context_id,
            self.worker.queue,
            answer,
        ));
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
            State::Collecting(mut request, body) => {
                request.body = body.finish();
                self.begin(*request)
            }
            state => {
                self.state = state;
                Action::Pause
            }
        }
    }

    fn reply(&mut self, response: &Response<Bytes>) -> Action {
        self.has_streamed |= self.is_upload_routed();
        self.state = State::Done;
        self.room = None;
        if let Some(client) = &mut self.client {
            client.release_bytes();
        }
        match self.hold_reply(response.body().len()) {
            Ok(()) => self.send(response),
            Err(error) => self.send(&error.into_response()),
        }
        Action::Pause
    }

    /// Finds room for a reply of so many bytes until the client has it.
    fn hold_reply(&mut self, size: usize) -> Result<(), Error> {
        if size <= UNCOUNTED {
            return Ok(());
        }
        if !self.client().hold(size) {
            let message = "this client has not taken the replies that it has asked for; try again \
                           when it has";
            return Err(Error::new(ErrorCode::TooManyRequests, message));
        }
        self.room = self.worker.budget.reserve(Purpose::Replies, size);
        if self.room.is_some() {
            return Ok(());
        }
        let message = "the proxy holds as many replies as it has memory for; try again";
        Err(Error::new(ErrorCode::Unavailable, message))
    }

    fn send(&mut self, response: &Response<Bytes>) {
        let error = response.extensions().get().copied();
        self.note_answer(response.status(), response.headers(), error);
        headers::send_response(&self.worker.host, response, self.is_stale());
    }

    /// Whether the answer might be out of date.
    fn is_stale(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.is_stale())
    }

    /// Notes the answer that begins to go out.
    fn note_answer(&mut self, status: StatusCode, headers: &HeaderMap, error: Option<ErrorCode>) {
        self.status = Some(status);
        if let Some(exchange) = &self.exchange {
            self.worker.telemetry.answered(exchange, headers, error);
        }
    }

    /// Sends on what the store answers, with these headers in place of its own.
    fn forward(&mut self, status: StatusCode, mut headers: HeaderMap) {
        if self.is_stale() {
            headers.insert(WARNING, HeaderValue::from_static(headers::STALE));
        }
        self.note_answer(status, &headers, None);
        headers::rewrite_response(&self.worker.host, status, &headers);
    }

    /// The request is over, whether it had an answer or not.
    pub fn ended(&mut self) {
        drop(self.store_call.take());
        if let Some(exchange) = self.exchange.take() {
            let bytes = self.blob_bytes(exchange.operation());
            let telemetry = &self.worker.telemetry;
            if self.status.is_none() {
                // With it ends what its handler still waits for, which the log is to have.
                self.state = State::Done;
                telemetry.left(&exchange);
            }
            let time = self.begun.map(|begun| telemetry.now().saturating_sub(begun));
            telemetry.ended(&exchange, self.status, time.unwrap_or_default(), bytes);
        }
    }

    /// How much of a blob has passed through Envoy's router.
    fn blob_bytes(&self, operation: Operation) -> BlobBytes {
        let size = |of| {
            let size = self.worker.host.property(vec![of, "size"])?;
            Some(u64::from_le_bytes(size.try_into().ok()?))
        };
        match operation {
            _ if !self.has_streamed && !self.is_upload_routed() => BlobBytes::default(),
            Operation::BlobGet => BlobBytes { sent: size("response").unwrap_or(0), received: 0 },
            // Of a manifest that is too large for a reply nobody asks how large it is.
            Operation::ManifestGet => BlobBytes::default(),
            _ => BlobBytes { received: size("request").unwrap_or(0), sent: 0 },
        }
    }

    fn is_upload_routed(&self) -> bool {
        matches!(&self.state, State::Uploading(upload) if upload.is_routed())
    }

    /// Whether the client should have sent its body by now.
    pub fn is_late(&self, now: Duration) -> bool {
        match &self.state {
            State::Collecting(_, body) => body.is_late(now),
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

    /// From now on it is counted how long the request takes. To ask for the time of what is answered from memory at once would
    /// cost more than it tells.
    pub fn begin_to_take_time(&mut self) {
        self.begun.get_or_insert_with(|| self.worker.telemetry.now());
    }

    /// What is noted from now on is of this request.
    fn note_request(&mut self, exchange: &Rc<Exchange>) {
        self.worker.announcements.look_at_listener();
        self.worker.telemetry.begin(exchange);
        self.exchange = Some(Rc::clone(exchange));
    }

    /// The store's answer to a streamed request begins.
    fn begin_stream(&mut self, stream: Box<ContentStream>, end_of_stream: bool) -> Action {
        let (status, store_headers) = headers::read_response(&self.worker.host);
        if let Some(call) = self.store_call.take() {
            call.end(StoreResult::of_status(status));
        }
        match stream.answer(status, &store_headers, &self.worker.gaps) {
            StreamAnswer::Forward(status, headers) => {
                self.state = State::Done;
                self.forward(status, headers);
                Action::Continue
            }
            StreamAnswer::Cut(status, headers, cutter) => {
                self.state = State::Cutting(cutter);
                self.forward(status, headers);
                Action::Continue
            }
            StreamAnswer::Reply(response) => self.reply(&response),
            StreamAnswer::Fail if end_of_stream => self.reply(&stream.failure(status, b"")),
            StreamAnswer::Fail => {
                self.state = State::Failing(stream, ErrorDocument::new(status));
                Action::Pause
            }
        }
    }

    /// Envoy replies by itself: the status and headers stay, the text becomes the API's JSON.
    fn reword(&mut self) -> Action {
        let (status, mut headers) = headers::read_response(&self.worker.host);
        let (json, body) = registry::proxy_error(status).into_parts();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        for (name, value) in &json.headers {
            headers.insert(name, value.clone());
        }
        self.note_answer(status, &headers, json.extensions.get().copied());
        headers::rewrite_response(&self.worker.host, status, &headers);
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
        if action == Action::Continue {
            self.worker.host.resume_request();
        }
    }
}

/// Envoy's callbacks.
impl<H: Host> Stream<H> {
    pub fn request_headers(&mut self, end_of_stream: bool) -> Action {
        let Some(mut request) = headers::read_request(&self.worker.host, &self.worker.environment)
        else {
            self.note_request(&Rc::new(Exchange::new(&Method::GET, "", None)));
            let message = "the request's path is not text";
            return self.reply(&Error::new(ErrorCode::NoSuchEndpoint, message).into_response());
        };
        self.note_request(&request.exchange);
        if self.worker.budget.is_half_held(Purpose::Replies) {
            request.reply_max_bytes = UNCOUNTED;
        }
        if end_of_stream {
            return self.begin(request);
        }
        let deadline = self.worker.body_deadline();
        let body = match request.body_use() {
            BodyUse::Streamed => return self.begin_upload(request),
            // Clients that are still sending may not read the answer.
            BodyUse::Whole if is_refused_at_once(&request, &self.worker.settings) => {
                let limit = request.body_max_bytes(&self.worker.settings);
                CollectedBody::discard(&request, limit, deadline)
            }
            BodyUse::Whole if !self.client().begin_stream() => return self.refuse_stream(),
            BodyUse::Whole => {
                let limit = request.body_max_bytes(&self.worker.settings);
                CollectedBody::keep(&request, limit, &self.worker.budget, deadline)
            }
            BodyUse::None => CollectedBody::discard(&request, DISCARDED_MAX, deadline),
        };
        let is_hopeless = body.is_full();
        self.state = State::Collecting(Box::new(request), body);
        if is_hopeless { self.begin_with_body() } else { Action::Pause }
    }

    pub fn request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let collected = match &mut self.state {
            State::Streaming(_) => return Action::Continue,
            State::Uploading(upload) => {
                let step = upload.take(size, end_of_stream);
                return self.follow(step);
            }
            State::Collecting(_, body) => body.take(&self.worker.host, size, self.client.as_mut()),
            _ => Collected::Incomplete,
        };
        // Were it left to wait, Envoy would buffer it, and refuse it in its own words when it is more
        // than a buffer holds.
        self.worker.host.replace_request_body(size, b"");
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

    pub fn request_trailers(&mut self) -> Action {
        match &mut self.state {
            State::Streaming(_) => Action::Continue,
            State::Uploading(upload) => {
                let step = upload.end();
                self.follow(step)
            }
            // To continue here would send the request on as the client wrote it, to the bucket. A request that goes
            // on later goes without its trailers: what the client sent beside its body is not for the store.
            _ => {
                self.worker.host.remove_request_trailers();
                self.begin_with_body()
            }
        }
    }

    pub fn response_headers(&mut self, end_of_stream: bool) -> Action {
        if let State::Uploading(upload) = &mut self.state
            && upload.is_routed()
        {
            let (status, _) = headers::read_response(&self.worker.host);
            let step = upload.begin_answer(
                status,
                headers::is_local_reply(&self.worker.host),
                end_of_stream,
            );
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

    pub fn response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match &mut self.state {
            State::Uploading(upload) => {
                let step = upload.take_answer(size, end_of_stream);
                self.follow(step)
            }
            State::Failing(stream, document) => {
                document.take(&self.worker.host, size);
                if !end_of_stream {
                    return Action::Pause;
                }
                let response = stream.failure(document.status, &document.bytes);
                self.reply(&response)
            }
            State::Cutting(cutter) => cut(&self.worker.host, cutter, size, end_of_stream),
            State::Rewording(body) => {
                let body = std::mem::take(body);
                self.worker.host.replace_response_body(size, &body);
                Action::Continue
            }
            _ => Action::Continue,
        }
    }
}
