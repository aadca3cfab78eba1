//! Bringing events to one endpoint: one request at a time, until it takes them.
//!
//! What an endpoint may take later (no answer, 5xx, 408, 429) is sent again after a pause, which grows. What it will not take
//! (anything else but 2xx) is lost: it would keep all others from being sent for ever.

use std::time::Duration;

use super::EventCounts;
use super::losses::Losses;
use super::queue::Queue;
use super::troubles::{Trouble, Troubles};
use crate::config::EventEndpointConfig;
use crate::filter::host::{CallError, Host};

/// The pause after the first failure; each one after it is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause, unless the endpoint asks for more.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The longest pause that an endpoint can ask for.
const LONGEST_ASKED_PAUSE: Duration = Duration::from_secs(600);

/// How long after its timeout a request is given up. Envoy reports that sooner; were its report lost, nothing more would be
/// sent.
const LATENESS: Duration = Duration::from_secs(10);

/// The events of one endpoint.
#[derive(Debug)]
pub struct Delivery {
    endpoint: EventEndpointConfig,
    queue: Queue,
    state: State,
    /// The pause after the next failure.
    pause: Duration,
    sent: u64,
    losses: Losses,
    troubles: Troubles,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// What comes is sent.
    Ready,
    /// A request with so many events is under way.
    UnderWay { token: u32, count: usize, until: Duration },
    /// Nothing is sent until then.
    Paused { until: Duration },
}

/// What an endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nothing, or nothing in time.
    None,
    /// A status, and how long it asks to wait.
    Status(u16, Option<Duration>),
}

impl Answer {
    /// Reads the response that Envoy holds, of so many headers: without any there is none.
    pub fn read(host: &impl Host, header_count: usize) -> Self {
        if header_count == 0 {
            return Self::None;
        }
        let number = |name| {
            let value = host.call_response_header(name)?;
            std::str::from_utf8(&value).ok()?.trim().parse::<u64>().ok()
        };
        match number(":status").and_then(|status| u16::try_from(status).ok()) {
            // A date is not understood: then the pause is one of Moorage's own.
            Some(status) => Self::Status(status, number("retry-after").map(Duration::from_secs)),
            None => Self::None,
        }
    }
}

impl Delivery {
    /// An endpoint for which nothing waits.
    pub fn new(endpoint: EventEndpointConfig) -> Self {
        Self {
            endpoint,
            queue: Queue::default(),
            state: State::Ready,
            pause: FIRST_PAUSE,
            sent: 0,
            losses: Losses::default(),
            troubles: Troubles::default(),
        }
    }

    /// Takes an event, if there is room for it; counts it as lost otherwise.
    pub fn push(&mut self, event: bytes::Bytes) {
        if !self.queue.push(event) {
            self.losses.add(1);
        }
    }

    /// Whether that request is its own.
    pub fn waits_for(&self, token: u32) -> bool {
        matches!(self.state, State::UnderWay { token: own, .. } if own == token)
    }

    /// How many events there were.
    pub fn counts(&self) -> EventCounts {
        let (sent, dropped) = (self.sent, self.losses.total());
        EventCounts { sent, dropped, queued: self.queue.len() }
    }

    /// Sends what waits, if it is time. `now` is the time since the worker began.
    pub fn tick(&mut self, host: &impl Host, now: Duration) {
        match self.state {
            State::UnderWay { until, .. } if now >= until => {
                self.put_off(now, Trouble::NoAnswer, None);
            }
            State::Paused { until } if now >= until => self.state = State::Ready,
            _ => {}
        }
        if self.state == State::Ready && self.queue.len() > 0 {
            self.send(host, now);
        }
        if let Some(count) = self.losses.take_untold(now) {
            log::warn!(
                "{count} events for the endpoint {:?} are lost: it refused them, or more were waiting than are kept",
                self.endpoint.name
            );
        }
    }

    fn send(&mut self, host: &impl Host, now: Duration) {
        let EventEndpointConfig { cluster, authority, path, headers, timeout, format, .. } =
            &self.endpoint;
        let mut fields = vec![
            (":method", "POST"),
            (":path", path.as_str()),
            (":authority", authority.as_str()),
            ("content-type", format.content_type()),
        ];
        fields.extend(headers.iter().map(|field| (field.name.as_str(), field.value.as_str())));
        let count = self.queue.batch().count();
        let body = format.batch(self.queue.batch());
        match host.dispatch_call(cluster, fields, Some(&body), *timeout) {
            Ok(token) => {
                let until = now.saturating_add(*timeout).saturating_add(LATENESS);
                self.state = State::UnderWay { token, count, until };
            }
            Err(error) => self.put_off(now, Trouble::NotSent(error), None),
        }
    }

    /// The answer to the request under way is there.
    pub fn complete(&mut self, host: &impl Host, now: Duration, answer: Answer) {
        let State::UnderWay { count, .. } = self.state else {
            return;
        };
        let (status, asked) = match answer {
            Answer::None => return self.put_off(now, Trouble::NoAnswer, None),
            Answer::Status(status, asked) => (status, asked),
        };
        match status {
            200..=299 => {
                self.sent = self.sent.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
                self.end_trouble();
            }
            408 | 429 | 500.. => return self.put_off(now, Trouble::Status(status), asked),
            _ => {
                self.losses.add(count);
                self.tell(now, Trouble::Status(status), "what it was sent is lost");
            }
        }
        self.queue.remove(count);
        self.pause = FIRST_PAUSE;
        self.state = State::Ready;
        // What is less than a request waits for the next tick, and for what comes until then.
        if self.queue.has_whole_batch() {
            self.send(host, now);
        }
    }

    /// What was to be sent is sent later.
    fn put_off(&mut self, now: Duration, trouble: Trouble, asked: Option<Duration>) {
        let asked = asked.unwrap_or_default().min(LONGEST_ASKED_PAUSE);
        self.state = State::Paused { until: now.saturating_add(self.pause.max(asked)) };
        self.pause = self.pause.saturating_mul(2).min(LONGEST_PAUSE);
        self.tell(now, trouble, "its events are kept, and sent again");
    }

    /// Tells the log of a trouble, unless it was told enough.
    fn tell(&mut self, now: Duration, trouble: Trouble, consequence: &str) {
        if !self.troubles.begin(now, trouble) {
            return;
        }
        let EventEndpointConfig { name, cluster, .. } = &self.endpoint;
        match trouble {
            Trouble::NotSent(CallError::NoSuchCluster) => log::error!(
                "the endpoint {name:?} of events can't be reached: Envoy has no cluster {cluster:?}; {consequence}"
            ),
            Trouble::NotSent(CallError::Refused) => log::warn!(
                "Envoy does not send a request to the endpoint {name:?} of events; {consequence}"
            ),
            Trouble::NoAnswer => {
                log::warn!(
                    "the endpoint {name:?} of events does not answer in time; {consequence}"
                );
            }
            // Envoy's own answers look no different.
            Trouble::Status(status @ (503 | 504)) => log::warn!(
                "the endpoint {name:?} of events answers {status}, or Envoy does because it can't be reached in \
                 time; {consequence}"
            ),
            Trouble::Status(status) => {
                log::warn!("the endpoint {name:?} of events answers {status}; {consequence}");
            }
        }
    }

    fn end_trouble(&mut self) {
        if self.troubles.end() {
            log::info!("the endpoint {:?} of events takes them again", self.endpoint.name);
        }
    }
}
