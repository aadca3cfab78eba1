//! One request with what is noted about it until it is answered: for the access log, the metrics and traces.
//!
//! Nothing here decides anything. Handlers and the store's transport note what they know; the proxy reads it when there is an
//! answer.

use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use http::Method;

use super::access::Caller;
use super::http::beginning;
use super::http::error::Error;
use super::operation::Operation;
use super::route::Endpoint;
use crate::oci::MediaType;

/// How much of a target is kept for the access log, in bytes.
const TARGET_MAX: usize = 1024;

/// How much of a method is kept, in bytes: all of those that there are (RFC 9110, section 16.1), and not all that a client may
/// make up.
const METHOD_MAX: usize = 32;

/// A request as it was asked, and what has been noted about it so far. It stays until the client has its answer, however slow
/// that is, and is not counted in the budget: nothing in it may be as long as a client likes.
#[derive(Debug)]
pub struct Exchange {
    /// The method, or the beginning of one that nobody knows.
    pub method: Method,
    /// The beginning of the path and query, as they were sent.
    pub target: String,
    /// The beginning of the `User-Agent`.
    pub user_agent: Option<String>,
    /// The endpoint, or why there is none.
    pub endpoint: Result<Endpoint, Error>,
    verdict: RefCell<Option<Verdict>>,
    has_failed_login: Cell<bool>,
    is_denied: Cell<bool>,
    /// The type of the manifest that is pushed, once it has been read.
    pub pushed_type: OnceCell<MediaType>,
    /// What the store's calls for this request are to carry from it, once it was looked for.
    pub trace_headers: OnceCell<Vec<(&'static str, String)>>,
    cache: Cell<Option<CacheUse>>,
    calls: Cell<StoreCalls>,
}

/// What access control has made of a request.
#[derive(Debug)]
struct Verdict {
    /// Who calls, as the log has it; `None` if nobody knows.
    caller: Option<Rc<str>>,
    /// The rules that allow it; `None` if it is denied.
    rules: Option<Vec<usize>>,
}

/// How much of what a request had to know the cache knew. Of several lookups the worst counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheUse {
    /// All of it.
    Hit,
    /// Not all of it.
    Miss,
    /// Something that might be out of date, because the store could not say.
    Stale,
}

impl CacheUse {
    /// How it is written in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
        }
    }
}

/// The calls to the store that were made for a request.
#[derive(Debug, Clone, Copy, Default)]
struct StoreCalls {
    made: u32,
    under_way: u32,
    /// When the first of those under way began.
    since: Duration,
    /// For how long any was under way, until then.
    time: Duration,
}

impl Exchange {
    /// A request for `target`, the path and query as they were sent, of which nothing is noted yet.
    pub fn new(method: &Method, target: &str, user_agent: Option<String>) -> Self {
        Self {
            method: shortened_method(method),
            endpoint: Endpoint::parse(target),
            target: beginning(target, TARGET_MAX).to_owned(),
            user_agent,
            verdict: RefCell::default(),
            has_failed_login: Cell::default(),
            is_denied: Cell::default(),
            pushed_type: OnceCell::new(),
            trace_headers: OnceCell::new(),
            cache: Cell::default(),
            calls: Cell::default(),
        }
    }

    /// What the request does.
    pub fn operation(&self) -> Operation {
        Operation::of(&self.method, &self.endpoint)
    }

    /// Notes who calls, if that is known, and the rules that allow what is asked for; none if it is denied.
    pub fn note_verdict(&self, caller: Option<&Caller>, rules: Option<Vec<usize>>) {
        let caller = caller.map(|caller| Rc::clone(caller.log_name()));
        *self.verdict.borrow_mut() = Some(Verdict { caller, rules });
    }

    /// Notes that a password or token was wrong.
    pub fn note_failed_login(&self) {
        self.has_failed_login.set(true);
    }

    /// Whether a password or token was wrong.
    pub fn has_failed_login(&self) -> bool {
        self.has_failed_login.get()
    }

    /// Notes that the caller has shown credentials, and may not do this.
    pub fn note_denial(&self) {
        self.is_denied.set(true);
    }

    /// Whether the caller has shown credentials, and may not do this.
    pub fn is_denied(&self) -> bool {
        self.is_denied.get()
    }

    /// The identity of who calls, and how it was proven, as "user:ada (password)"; "unknown" if nobody knows. `None` without
    /// access control.
    pub fn identity(&self) -> Option<Ref<'_, str>> {
        Ref::filter_map(self.verdict.borrow(), |verdict| {
            Some(verdict.as_ref()?.caller.as_deref().unwrap_or("unknown"))
        })
        .ok()
    }

    /// Whether it is allowed, and by which rules, as "allowed by rules[2]". `None` without access control.
    pub fn decision(&self) -> Option<String> {
        let verdict = self.verdict.borrow();
        let Some(rules) = &verdict.as_ref()?.rules else {
            return Some("denied".to_owned());
        };
        let mut decision = "allowed".to_owned();
        for (number, rule) in rules.iter().enumerate() {
            decision.push_str(if number == 0 { " by rules[" } else { ", rules[" });
            // Writing to a text does not fail.
            let _ = write!(decision, "{rule}]");
        }
        Some(decision)
    }

    /// Notes what a lookup in the cache gave.
    pub fn note_cache(&self, found: CacheUse) {
        self.cache.set(self.cache.get().max(Some(found)));
    }

    /// Whether something in the answer might be out of date.
    pub fn is_stale(&self) -> bool {
        self.cache.get() == Some(CacheUse::Stale)
    }

    /// What the cache knew; `None` if it was not asked.
    pub fn cache(&self) -> Option<CacheUse> {
        self.cache.get()
    }

    /// A call to the store begins at this time.
    pub fn begin_store_call(&self, now: Duration) {
        let mut calls = self.calls.get();
        if calls.under_way == 0 {
            calls.since = now;
        }
        calls.made = calls.made.saturating_add(1);
        calls.under_way = calls.under_way.saturating_add(1);
        self.calls.set(calls);
    }

    /// A call to the store is over at this time.
    pub fn end_store_call(&self, now: Duration) {
        let mut calls = self.calls.get();
        calls.under_way = calls.under_way.saturating_sub(1);
        if calls.under_way == 0 {
            calls.time += now.saturating_sub(calls.since);
        }
        self.calls.set(calls);
    }

    /// How many calls to the store were made for the request.
    pub fn store_calls(&self) -> u32 {
        self.calls.get().made
    }

    /// How long the request has waited for the store: the time during which calls were under way, several at a time counted
    /// once.
    pub fn store_time(&self) -> Duration {
        self.calls.get().time
    }
}

/// A method of which no more is kept than [`METHOD_MAX`].
fn shortened_method(method: &Method) -> Method {
    match method.as_str().as_bytes().split_at_checked(METHOD_MAX) {
        // What a method begins with is one as well.
        Some((start, _)) => Method::from_bytes(start).unwrap_or_default(),
        None => method.clone(),
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::registry::access::{Identity, Proof};

    fn exchange() -> Exchange {
        Exchange::new(&Method::GET, "/v2/", None)
    }

    #[test]
    fn calls_at_the_same_time_are_waited_for_once() {
        let exchange = exchange();
        let at = Duration::from_millis;
        exchange.begin_store_call(at(10));
        exchange.begin_store_call(at(12));
        exchange.end_store_call(at(15));
        exchange.end_store_call(at(20));
        exchange.begin_store_call(at(100));
        exchange.end_store_call(at(105));
        assert_eq!((exchange.store_calls(), exchange.store_time()), (3, at(15)));
        exchange.begin_store_call(at(200));
        exchange.end_store_call(at(150));
        assert_eq!(exchange.store_time(), at(15), "a clock that is set back takes nothing away");
    }

    #[test]
    fn of_several_lookups_in_the_cache_the_worst_counts() {
        let exchange = exchange();
        assert_eq!(exchange.cache(), None);
        for (found, noted) in [
            (CacheUse::Hit, CacheUse::Hit),
            (CacheUse::Miss, CacheUse::Miss),
            (CacheUse::Hit, CacheUse::Miss),
            (CacheUse::Stale, CacheUse::Stale),
            (CacheUse::Miss, CacheUse::Stale),
        ] {
            exchange.note_cache(found);
            assert_eq!(exchange.cache(), Some(noted), "{found:?}");
        }
    }

    #[test]
    fn a_decision_names_its_rules_and_without_access_control_there_is_none() {
        for (rules, expected) in [
            (None, "denied"),
            (Some(vec![]), "allowed"),
            (Some(vec![2]), "allowed by rules[2]"),
            (Some(vec![0, 12]), "allowed by rules[0], rules[12]"),
        ] {
            let exchange = exchange();
            assert_eq!((exchange.identity().is_none(), exchange.decision()), (true, None));
            exchange.note_verdict(None, rules);
            assert_eq!(exchange.decision().as_deref(), Some(expected));
            assert_eq!(exchange.identity().as_deref(), Some("unknown"));
        }
    }

    #[test]
    fn of_what_a_client_sends_no_more_is_kept_than_the_log_needs() {
        let long = "A".repeat(60_000);
        let method = Method::from_bytes(long.as_bytes()).expect("a method");
        let caller = Identity::named(format!("user:{long}"), vec![long.clone()], Proof::Jwt);
        let caller = Caller::new(caller, None);
        for target in [
            format!("/{long}"),
            format!("/v2/{long}/manifests/t"),
            format!("/v2/a/manifests/{long}"),
            format!("/v2/a/manifests/sha256:{long}"),
            format!("/v2/a/blobs/{long}"),
            format!("/v2/a/blobs/uploads/{long}"),
            format!("/v2/a/manifests/t?{long}"),
        ] {
            let exchange = Exchange::new(&method, &target, None);
            exchange.note_verdict(Some(&caller), None);
            let kept = format!("{exchange:?}");
            assert!(kept.len() < 4_096, "{} bytes of {}", kept.len(), &target[..20]);
        }
    }
}
