//! How often credentials may be wrong: for a name, from an address, and over all; and how often what takes long may be
//! asked for.
//!
//! Each limit is a leaky bucket (the generic cell rate algorithm): a failure adds to it, with time it drains, and while it
//! is full there is no further attempt. Only failures count: who has the right credentials adds nothing, but has to wait
//! like all others, because nobody can tell before they are checked.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// How many names and addresses are told apart at a time. Others count over all alone: who makes up names, or comes from
/// everywhere, takes no more memory.
const BUCKETS_MAX: usize = 20_000;

/// How much a bucket holds, and how long it takes to drain by one.
#[derive(Debug, Clone, Copy)]
struct Limit {
    capacity: u32,
    interval: Duration,
}

/// Wrong passwords for a name.
const OF_NAME: Limit = Limit { capacity: 10, interval: Duration::from_secs(5) };

/// Wrong passwords from an address, behind which there may be many people.
const OF_ADDRESS: Limit = Limit { capacity: 20, interval: Duration::from_secs(4) };

/// Wrong passwords over all.
const OF_ALL: Limit = Limit { capacity: 100, interval: Duration::from_millis(500) };

/// Tokens from an address that nobody trusted has signed. They are no guesses, but each takes a millisecond to find out.
const FORGERIES: Limit = Limit { capacity: 200, interval: Duration::from_millis(50) };

/// New tokens for an address, behind which there may be all nodes of a cluster. To sign one takes a millisecond: so no client
/// takes more than a fifth of a worker's time by asking for them.
const NEW_TOKENS: Limit = Limit { capacity: 500, interval: Duration::from_millis(5) };

/// A bucket: when it will have drained, since 1970.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    empty_at: Duration,
}

impl Bucket {
    /// How long to wait until one more fits in.
    fn wait(self, limit: Limit, now: Duration) -> Duration {
        let with_one_more = self.empty_at.max(now) + limit.interval;
        with_one_more.saturating_sub(now + limit.interval * limit.capacity)
    }

    fn add(&mut self, limit: Limit, now: Duration) {
        self.empty_at = self.empty_at.max(now) + limit.interval;
    }

    fn take_back(&mut self, limit: Limit) {
        self.empty_at = self.empty_at.saturating_sub(limit.interval);
    }
}

/// What a bucket is for.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Subject {
    /// Wrong passwords for a name, by its SHA-256: a name may be as long as a header.
    Name([u8; 32]),
    /// Wrong passwords from an address.
    Address(Option<IpAddr>),
    /// Forged tokens from an address.
    ForgedTokens(Option<IpAddr>),
    /// New tokens for an address.
    NewTokens(Option<IpAddr>),
}

impl Subject {
    fn name(name: &str) -> Self {
        Self::Name(Sha256::digest(name).into())
    }

    fn limit(&self) -> Limit {
        match self {
            Self::Name(_) => OF_NAME,
            Self::Address(_) => OF_ADDRESS,
            Self::ForgedTokens(_) => FORGERIES,
            Self::NewTokens(_) => NEW_TOKENS,
        }
    }
}

/// The failures of late.
#[derive(Debug, Default)]
pub struct Attempts {
    buckets: RefCell<HashMap<Subject, Bucket>>,
    all: RefCell<Bucket>,
}

impl Attempts {
    /// Counts an attempt at the password of `name` as a failure, until [`succeeded`](Self::succeeded) takes that back:
    /// so attempts that are made at the same time count too.
    ///
    /// # Errors
    ///
    /// How long to wait before the next attempt, which can't be made now.
    pub fn begin(
        &self,
        name: &str,
        address: Option<IpAddr>,
        now: Duration,
    ) -> Result<(), Duration> {
        let subjects = [Subject::name(name), Subject::Address(address)];
        let wait = subjects.iter().map(|subject| self.wait(subject, now)).max().unwrap_or_default();
        let wait = wait.max(self.all.borrow().wait(OF_ALL, now));
        if !wait.is_zero() {
            return Err(wait);
        }
        for subject in subjects {
            self.add(subject, now);
        }
        self.all.borrow_mut().add(OF_ALL, now);
        Ok(())
    }

    /// The attempt was none to be counted.
    pub fn succeeded(&self, name: &str, address: Option<IpAddr>) {
        let mut buckets = self.buckets.borrow_mut();
        for subject in [Subject::name(name), Subject::Address(address)] {
            if let Some(bucket) = buckets.get_mut(&subject) {
                bucket.take_back(subject.limit());
            }
        }
        self.all.borrow_mut().take_back(OF_ALL);
    }

    /// How long to wait before the signature of a token from this address may be looked at; nothing, usually.
    pub fn wait_for_signature(&self, address: Option<IpAddr>, now: Duration) -> Duration {
        self.wait(&Subject::ForgedTokens(address), now)
    }

    /// Counts a token that nobody trusted has signed.
    pub fn forged(&self, address: Option<IpAddr>, now: Duration) {
        self.add(Subject::ForgedTokens(address), now);
    }

    /// Counts a new token for this address.
    ///
    /// # Errors
    ///
    /// How long to wait before the next, which can't be given now.
    pub fn give_token(&self, address: Option<IpAddr>, now: Duration) -> Result<(), Duration> {
        let new_tokens = Subject::NewTokens(address);
        let wait = self.wait(&new_tokens, now);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.add(new_tokens, now);
        Ok(())
    }

    fn wait(&self, subject: &Subject, now: Duration) -> Duration {
        let bucket = self.buckets.borrow().get(subject).copied().unwrap_or_default();
        bucket.wait(subject.limit(), now)
    }

    fn add(&self, subject: Subject, now: Duration) {
        let mut buckets = self.buckets.borrow_mut();
        let is_new = !buckets.contains_key(&subject);
        if is_new && buckets.len() >= BUCKETS_MAX {
            buckets.retain(|_, bucket| bucket.empty_at > now);
        }
        if !is_new || buckets.len() < BUCKETS_MAX {
            let limit = subject.limit();
            buckets.entry(subject).or_default().add(limit, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn address(number: u32) -> Option<IpAddr> {
        Some(Ipv4Addr::from_bits(number).into())
    }

    /// How many guesses can be made at once.
    fn guesses(attempts: &Attempts, at: u64, name: &str, addresses: impl Fn(u32) -> u32) -> u32 {
        let now = Duration::from_secs(at);
        let made =
            (0..1000).take_while(|n| attempts.begin(name, address(addresses(*n)), now).is_ok());
        u32::try_from(made.count()).expect("few")
    }

    #[test]
    fn guesses_are_limited_by_name_by_address_and_over_all() {
        // For one name from everywhere; for many names from one address; and for many from everywhere.
        assert_eq!(guesses(&Attempts::default(), 1000, "ada", |made| made), 10);
        let attempts = Attempts::default();
        assert_eq!(guesses(&attempts, 1000, "ada", |_| 1), 10);
        assert_eq!(guesses(&attempts, 1000, "bob", |_| 1), 10, "twenty from one address");
        assert_eq!(guesses(&attempts, 1000, "eve", |_| 1), 0);
        assert_eq!(guesses(&attempts, 1000, "eve", |made| 2 + made), 10);
        let attempts = Attempts::default();
        let of_all =
            (0..50).map(|n| guesses(&attempts, 1000, &format!("user-{n}"), |m| 99 * n + m));
        assert_eq!(of_all.sum::<u32>(), 100);
    }

    #[test]
    fn what_succeeds_is_not_counted_and_what_failed_drains_with_time() {
        let attempts = Attempts::default();
        let at = Duration::from_secs;
        for _ in 0..1000 {
            attempts.begin("ada", address(1), at(1000)).expect("an attempt");
            attempts.succeeded("ada", address(1));
        }
        assert_eq!(guesses(&attempts, 1000, "ada", |_| 1), 10);
        assert_eq!(attempts.begin("ada", address(1), at(1001)), Err(at(4)));
        assert_eq!(attempts.begin("ada", address(1), at(1005)), Ok(()));
        assert_eq!(attempts.begin("ada", address(1), at(1005)), Err(at(5)));
        assert_eq!(guesses(&attempts, 9000, "ada", |_| 1), 10);
    }

    #[test]
    fn forged_tokens_are_no_guesses() {
        let attempts = Attempts::default();
        let now = Duration::from_secs(1000);
        assert_eq!(guesses(&attempts, 1000, "ada", |_| 1), 10);
        for _ in 0..200 {
            assert_eq!(attempts.wait_for_signature(address(1), now), Duration::ZERO);
            attempts.forged(address(1), now);
        }
        assert_eq!(attempts.wait_for_signature(address(1), now), Duration::from_millis(50));
        assert_eq!(attempts.wait_for_signature(address(2), now), Duration::ZERO);
        assert_eq!(guesses(&attempts, 1000, "bob", |_| 1), 10);
    }

    #[test]
    fn new_tokens_are_limited_by_address() {
        let attempts = Attempts::default();
        let now = Duration::from_secs(1000);
        let given = (0..1000).take_while(|_| attempts.give_token(address(1), now).is_ok());
        assert_eq!(given.count(), 500);
        assert_eq!(attempts.give_token(address(1), now), Err(Duration::from_millis(5)));
        assert_eq!(attempts.give_token(address(2), now), Ok(()));
        assert_eq!(attempts.give_token(address(1), now + Duration::from_millis(5)), Ok(()));
    }

    #[test]
    fn who_comes_from_everywhere_uses_up_no_memory() {
        let attempts = Attempts::default();
        for number in 0..2 * BUCKETS_MAX as u32 {
            attempts.forged(address(number), Duration::from_secs(1000));
            // One at a time, so that there are never too many over all.
            let later = Duration::from_secs(1000) + OF_ALL.interval * number;
            attempts.begin(&number.to_string(), address(number), later).expect("an attempt");
        }
        assert!(attempts.buckets.borrow().len() <= BUCKETS_MAX);
    }
}
