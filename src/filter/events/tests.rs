//! One endpoint, and whatever it answers.

use std::time::Duration;

use bytes::Bytes;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::EventCounts;
use super::delivery::{Answer, Delivery};
use super::queue::{BATCH_EVENTS, EVENTS_MAX};
use crate::config::Config;
use crate::filter::host::CallError;
use crate::filter::scripted_host::{Call, CallResponse, Callback, ROOT, ScriptedHost};

const CONFIG: &[u8] = br#"{"store":{"cluster":"c","authority":"s3","bucket":"registry"},
    "events":{"endpoints":[{"name":"e","cluster":"receiver","authority":"events.example.org",
    "path":"/hooks","timeout":"2s","headers":{"authorization":"secret"}}]}}"#;

/// The shortest and the longest pause, and what an endpoint can ask for at most, in seconds.
const PAUSES: [u64; 3] = [1, 60, 600];

struct Fixture {
    host: ScriptedHost,
    delivery: Delivery,
    now: Duration,
}

impl Fixture {
    fn new() -> Self {
        let host = ScriptedHost::default();
        (host.state().active, host.state().effective) = (Some(ROOT), Some(ROOT));
        host.state().callback = Callback::CallResponse;
        let mut endpoints = Config::parse(CONFIG).expect("a valid configuration").events.endpoints;
        Self { host, delivery: Delivery::new(endpoints.remove(0)), now: Duration::ZERO }
    }

    /// Puts so many events into the queue, numbered from `first` on.
    fn push(&mut self, first: usize, count: usize) {
        for number in first..first + count {
            self.delivery.push(Bytes::from(number.to_string()));
        }
    }

    /// So much time passes, and a tick.
    fn tick(&mut self, time: Duration) {
        self.now += time;
        self.delivery.tick(&self.host, self.now);
    }

    /// The requests so far.
    fn requests(&self) -> Vec<Call> {
        self.host.state().calls.clone()
    }

    /// The numbers of the events in the last request.
    fn last_sent(&self) -> Vec<usize> {
        let body: serde_json::Value =
            serde_json::from_slice(&self.requests().last().expect("a request").body).expect("JSON");
        let events = body["events"].as_array().expect("a list").iter();
        events
            .map(|event| usize::try_from(event.as_u64().expect("a number")).expect("small"))
            .collect()
    }

    fn answer(&mut self, answer: Answer) {
        self.delivery.complete(&self.host, self.now, answer);
    }

    /// How long it is until the next request, in tenths of a second.
    fn pause(&mut self) -> u64 {
        let before = self.requests().len();
        for tenths in 1..=10_000 {
            self.tick(Duration::from_millis(100));
            if self.requests().len() > before {
                return tenths;
            }
        }
        panic!("nothing was sent again");
    }

    fn counts(&self) -> [u64; 3] {
        let EventCounts { sent, dropped, queued } = self.delivery.counts();
        [sent, dropped, u64::try_from(queued).expect("few")]
    }
}

fn status(status: u16) -> Answer {
    Answer::Status(status, None)
}

#[test]
fn what_has_come_up_to_a_tick_goes_in_one_request() {
    let mut fixture = Fixture::new();
    fixture.tick(Duration::ZERO);
    assert!(fixture.requests().is_empty(), "nothing is sent where nothing has happened");
    fixture.push(0, 3);
    assert!(fixture.requests().is_empty());
    fixture.tick(Duration::ZERO);
    let request = fixture.requests().remove(0);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hooks"));
    assert_eq!((request.cluster.as_str(), request.timeout), ("receiver", Duration::from_secs(2)));
    for header in [
        (":authority", "events.example.org"),
        ("content-type", "application/vnd.docker.distribution.events.v1+json"),
        ("authorization", "secret"),
    ] {
        let (name, value) = (header.0.to_owned(), header.1.to_owned());
        assert!(request.headers.contains(&(name, value)), "{header:?} of {:?}", request.headers);
    }
    assert_eq!(request.body, br#"{"events":[0,1,2]}"#);
    assert_eq!(fixture.counts(), [0, 0, 3], "they are kept until the endpoint has them");
}

#[test]
fn one_request_is_under_way_and_a_whole_batch_does_not_wait_for_the_next_tick() {
    let mut fixture = Fixture::new();
    fixture.push(0, BATCH_EVENTS + 1);
    fixture.tick(Duration::ZERO);
    fixture.push(BATCH_EVENTS + 1, BATCH_EVENTS);
    fixture.tick(Duration::from_millis(100));
    assert_eq!(fixture.requests().len(), 1);
    assert_eq!(fixture.last_sent(), (0..BATCH_EVENTS).collect::<Vec<_>>());
    fixture.answer(status(202));
    assert_eq!(fixture.requests().len(), 2);
    assert_eq!(fixture.last_sent(), (BATCH_EVENTS..2 * BATCH_EVENTS).collect::<Vec<_>>());
    fixture.answer(status(200));
    assert_eq!(fixture.requests().len(), 2);
    fixture.tick(Duration::from_millis(100));
    assert_eq!(fixture.last_sent(), [2 * BATCH_EVENTS]);
    fixture.answer(status(204));
    assert_eq!(fixture.counts(), [201, 0, 0]);
}

#[test]
fn what_may_be_taken_later_is_kept_and_sent_again_after_pauses_that_grow() {
    for answer in [Answer::None, status(500), status(503), status(599), status(408), status(429)] {
        let mut fixture = Fixture::new();
        fixture.push(0, 2);
        fixture.tick(Duration::ZERO);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            fixture.answer(answer);
            assert_eq!(fixture.counts(), [0, 0, 2]);
            assert_eq!(fixture.pause(), seconds * 10, "{answer:?}");
            assert_eq!(fixture.last_sent(), [0, 1]);
        }
        fixture.answer(status(200));
        assert_eq!(fixture.counts(), [2, 0, 0]);
        // The next failure begins anew.
        fixture.push(2, 1);
        fixture.tick(Duration::ZERO);
        fixture.answer(answer);
        assert_eq!(fixture.pause(), 10);
    }
}

#[test]
fn an_endpoint_can_ask_for_a_longer_pause_but_not_for_any() {
    for (asked, seconds) in [(0, PAUSES[0]), (30, 30), (PAUSES[1] * 2, 120), (u64::MAX, PAUSES[2])]
    {
        let mut fixture = Fixture::new();
        fixture.push(0, 1);
        fixture.tick(Duration::ZERO);
        fixture.answer(Answer::Status(429, Some(Duration::from_secs(asked))));
        assert_eq!(fixture.pause(), seconds * 10, "{asked}");
    }
}

#[test]
fn what_an_endpoint_will_not_take_is_lost_and_what_comes_after_it_is_sent() {
    for code in [301, 400, 401, 404, 413, 422] {
        let mut fixture = Fixture::new();
        fixture.push(0, 2);
        fixture.tick(Duration::ZERO);
        fixture.push(2, 1);
        fixture.answer(status(code));
        assert_eq!(fixture.counts(), [0, 2, 1], "{code}");
        fixture.tick(Duration::from_millis(100));
        assert_eq!(fixture.last_sent(), [2]);
        fixture.answer(status(200));
        assert_eq!(fixture.counts(), [1, 2, 0]);
    }
}

#[test]
fn of_an_endpoint_that_is_away_for_long_the_oldest_events_are_kept() {
    let mut fixture = Fixture::new();
    fixture.push(0, EVENTS_MAX + 5);
    assert_eq!(fixture.counts(), [0, 5, 4_096]);
    fixture.tick(Duration::ZERO);
    fixture.answer(Answer::None);
    fixture.push(EVENTS_MAX + 5, 1);
    assert_eq!(fixture.counts(), [0, 6, 4_096]);
    fixture.pause();
    assert_eq!(fixture.last_sent()[0], 0);
    while fixture.counts()[2] > 0 {
        fixture.answer(status(200));
        fixture.tick(Duration::from_millis(100));
    }
    assert_eq!(fixture.counts(), [4_096, 6, 0]);
}

#[test]
fn a_request_that_envoy_does_not_make_is_made_later() {
    for error in [CallError::NoSuchCluster, CallError::Refused] {
        let mut fixture = Fixture::new();
        fixture.host.state().refuses_calls = Some(error);
        fixture.push(0, 1);
        fixture.tick(Duration::ZERO);
        fixture.tick(Duration::from_millis(900));
        fixture.host.state().refuses_calls = None;
        assert_eq!(fixture.pause(), 1);
        assert_eq!(fixture.last_sent(), [0]);
    }
}

#[test]
fn a_request_of_which_envoy_never_tells_is_given_up() {
    let mut fixture = Fixture::new();
    fixture.push(0, 1);
    fixture.tick(Duration::ZERO);
    let token = fixture.requests()[0].token;
    assert!(fixture.delivery.waits_for(token));
    fixture.tick(Duration::from_secs(12));
    assert!(!fixture.delivery.waits_for(token), "an answer now is nobody's");
    assert_eq!(fixture.pause(), 10);
    assert_eq!(fixture.last_sent(), [0]);
}

#[test]
fn an_answer_is_a_status_with_a_number_of_seconds_or_none() {
    let status_header = |value: &str| (":status".to_owned(), value.as_bytes().to_vec());
    let retry_after = |value: &[u8]| ("retry-after".to_owned(), value.to_vec());
    for (headers, expected) in [
        (vec![], Answer::None),
        (vec![status_header("200")], status(200)),
        (vec![status_header("70000")], Answer::None),
        (vec![retry_after(b"5")], Answer::None),
        (
            vec![status_header("429"), retry_after(b"5")],
            Answer::Status(429, Some(Duration::from_secs(5))),
        ),
        (vec![status_header("503"), retry_after(b"Fri, 01 Jan 2027 00:00:00 GMT")], status(503)),
        (vec![status_header("503"), retry_after(b"\xff")], status(503)),
        (vec![status_header("503"), retry_after(b"-1")], status(503)),
    ] {
        let fixture = Fixture::new();
        let count = headers.len();
        fixture.host.state().reported = Some(CallResponse { headers, body: Vec::new() });
        assert_eq!(Answer::read(&fixture.host, count), expected);
    }
}
