//! A stream whose body Envoy's router streams to the store.
//!
//! The end of the body is held back until the handler lets it go. The store's answer is never passed
//! on: the handler's own takes its place.

use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderValue, Response, StatusCode};

use super::error_document::ErrorDocument;
use super::headers;
use super::host::Host;
use super::plugin::Worker;
use super::streamed_body::StreamedBody;
use super::task::Task;
use super::telemetry::{StoreCall, StoreOperation, StoreResult};
use crate::registry::http::error::{Error, ErrorCode};
use crate::registry::{Answer, Request, handle_streamed, proxy_error};
use crate::store::WriteAnswer;

/// How much of a body is read and thrown away before it is refused, in bytes: clients that are still
/// sending may not read the answer.
const DRAINED_BEFORE_REFUSING: u64 = 8 * 1024 * 1024;

/// The next step of an upload.
pub enum Step {
    /// Envoy holds what it has.
    Wait,
    /// Envoy sends on what it has.
    GoOn,
    /// The client gets this.
    Reply(Rc<Response<Bytes>>),
}

/// A streamed upload.
pub struct StreamedUpload<H: Host> {
    worker: Rc<Worker<H>>,
    body: Rc<StreamedBody>,
    task: Task<Answer>,
    /// The handler's answer, while it can't be given yet.
    reply: Option<Rc<Response<Bytes>>>,
    /// Whether the body goes to the store, until there is an answer that does not wait for its end.
    /// What comes then, or otherwise, is thrown away.
    is_routed: bool,
    /// Whether Envoy holds the end of the body.
    is_held: bool,
    /// How much has been thrown away, in bytes.
    drained: u64,
    /// Until when the client may send the rest of a body that has an answer already.
    deadline: Option<Duration>,
    /// Whether Envoy shows no more of the body, because it has ended the request by itself.
    is_cut_off: bool,
    /// The store's answer, as far as it has come.
    answer: Option<ErrorDocument>,
    /// The same, as it is counted.
    store_call: Option<StoreCall<H>>,
}

impl<H: Host> StreamedUpload<H> {
    /// Hands the request to its handler, which has not run yet.
    pub fn new(worker: &Rc<Worker<H>>, context_id: u32, request: Request) -> Self {
        let body = Rc::new(StreamedBody::new(&request, &worker.budget));
        let (shared, handed) = (Rc::clone(worker), Rc::clone(&body));
        let answer = async move {
            handle_streamed(&request, &*handed, &shared.bucket, &shared.settings).await
        };
        Self {
            worker: Rc::clone(worker),
            body,
            task: Task::new(&worker.host, context_id, worker.queue, answer),
            reply: None,
            is_routed: false,
            is_held: false,
            drained: 0,
            deadline: None,
            is_cut_off: false,
            answer: None,
            store_call: None,
        }
    }

    /// Whether the response that comes is the store's.
    pub fn is_routed(&self) -> bool {
        self.is_routed
    }

    /// Runs the handler as far as it gets.
    pub fn advance(&mut self) -> Step {
        if self.reply.is_none()
            && let Poll::Ready(answer) = self.task.poll()
        {
            self.reply = Some(reply(answer));
        }
        if let Some(write) = self.body.take_write() {
            if self.drained > 0 {
                // Its password had to wait for its turn, and what came meanwhile is gone.
                self.reply = Some(Rc::new(come_again()));
                return self.answer_or_wait();
            }
            headers::rewrite_request(
                &self.worker.host,
                &self.worker.telemetry,
                &self.worker.bucket.bucket().write_request(&write),
            );
            self.store_call = Some(self.worker.telemetry.store_call(StoreOperation::StreamPut));
            self.is_routed = true;
            if self.body.wants_sha256() && self.worker.native_hash.ask(&self.worker.host) {
                self.body.leave_hashing();
            }
        }
        match &self.reply {
            Some(_) => self.answer_or_wait(),
            None if self.is_routed && (self.body.is_released() || !self.body.is_whole()) => {
                Step::GoOn
            }
            None => Step::Wait,
        }
    }

    /// Gives the answer that there is, unless the client may still be sending and not read it.
    fn answer_or_wait(&mut self) -> Step {
        let may_reply =
            self.body.is_whole() || self.is_cut_off || self.drained > DRAINED_BEFORE_REFUSING;
        match self.reply.take_if(|_| may_reply) {
            Some(reply) => Step::Reply(reply),
            None => {
                self.deadline.get_or_insert_with(|| self.worker.body_deadline());
                Step::Wait
            }
        }
    }

    /// The next `size` bytes of the body are there.
    pub fn take(&mut self, size: usize, end_of_stream: bool) -> Step {
        if !self.is_routed || self.reply.is_some() {
            self.worker.host.replace_request_body(size, b"");
            self.drained += size as u64;
            self.body.push(size, None, end_of_stream);
        } else if !self.body.is_whole() {
            let wanted = size > 0 && self.body.wants_bytes();
            let bytes = match wanted {
                true => self.worker.host.request_body(size),
                false => None,
            };
            self.body.push(size, bytes, end_of_stream);
        }
        self.pass_on()
    }

    /// The body has ended, with trailers. What the client sent beside its body is not for the store.
    pub fn end(&mut self) -> Step {
        self.worker.host.remove_request_trailers();
        self.body.end();
        self.pass_on()
    }

    /// Runs the handler after the body has gone on, and notes if Envoy is to hold what there is of it.
    fn pass_on(&mut self) -> Step {
        if let Some(length) = self.body.awaits_hash() {
            let hasher = self.worker.native_hash.take(&self.worker.host, length);
            if hasher.is_some() {
                self.worker.telemetry.count_native_hash();
            }
            self.body.give_hash(hasher);
        }
        let step = self.advance();
        self.is_held |= self.is_routed && matches!(step, Step::Wait);
        step
    }

    /// Something that the handler may have waited for has happened. [`Step::GoOn`] means that Envoy has
    /// to be told to send on what it holds.
    pub fn wake(&mut self) -> Step {
        match self.advance() {
            Step::GoOn if !std::mem::take(&mut self.is_held) => Step::Wait,
            step => step,
        }
    }

    /// Whether the client should have sent the rest of a body by now that has an answer already.
    pub fn is_late(&self, now: Duration) -> bool {
        self.reply.is_some() && self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// Gives the answer, if there is one, without the rest of the body.
    pub fn stop_draining(&mut self) -> Step {
        self.reply.take().map_or(Step::Wait, Step::Reply)
    }

    /// The store's answer begins, or one of Envoy's own.
    pub fn begin_answer(
        &mut self,
        status: StatusCode,
        is_local_reply: bool,
        end_of_stream: bool,
    ) -> Step {
        if let Some(call) = self.store_call.take() {
            call.end(StoreResult::of_status(status));
        }
        self.is_cut_off |= is_local_reply;
        let blames_client =
            matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE);
        if is_local_reply && blames_client {
            let reply = self.reply.take();
            return Step::Reply(reply.unwrap_or_else(|| Rc::new(proxy_error(status))));
        }
        self.answer = Some(ErrorDocument::new(status));
        if end_of_stream { self.end_answer() } else { Step::Wait }
    }

    /// The next `size` bytes of the store's answer are there.
    pub fn take_answer(&mut self, size: usize, end_of_stream: bool) -> Step {
        if let Some(document) = &mut self.answer {
            document.take(&self.worker.host, size);
        }
        if end_of_stream { self.end_answer() } else { Step::Wait }
    }

    fn end_answer(&mut self) -> Step {
        if let Some(ErrorDocument { status, bytes }) = self.answer.take() {
            self.body.answer(WriteAnswer { status, document: bytes.into() });
        }
        // Whatever is left of the body has no one to go to.
        match self.advance() {
            Step::GoOn => Step::Wait,
            step => step,
        }
    }
}

/// The answer to an upload of which something came before it was known where it goes. The same request again is known at once.
fn come_again() -> Response<Bytes> {
    let message = "others' passwords were checked before the one of this upload; send it again";
    Error::new(ErrorCode::TooManyRequests, message)
        .with_header(RETRY_AFTER, HeaderValue::from_static("1"))
        .into_response()
}

fn reply(answer: Answer) -> Rc<Response<Bytes>> {
    match answer {
        Answer::Reply(response) => response,
        Answer::Stream(_) => {
            let message = "an upload can't be answered with a blob";
            Rc::new(Error::new(ErrorCode::Unknown, message).into_response())
        }
    }
}
