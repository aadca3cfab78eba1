//! How often credentials may be wrong: for a name, from an address, and over all; and how often what takes long may be
//! asked for.
//!
//! What has failed is paid back with time, one failure after the other (the generic cell rate algorithm); who has more
//! to pay than may be owed has to wait. Only failures count: who has the right credentials owes nothing for them, but
//! has to wait like all others, because nobody can tell before they are checked.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// How many names and addresses are told apart at a time. Others count over all alone: who makes up names, or comes from
/// everywhere, takes no more memory.
const DEBTORS_MAX: usize = 20_000;

/// How many failures may be owed, and how long it takes to pay for one.
#[derive(Debug, Clone, Copy)]
struct Limit {
    most: u32,
    each: Duration,
}

/// Wrong passwords for a name.
const OF_NAME: Limit = Limit { most: 10, each: Duration::from_secs(5) };

/// Wrong passwords from an address, behind which there may be many people.
const OF_ADDRESS: Limit = Limit { most: 20, each: Duration::from_secs(4) };

/// Wrong passwords over all.
const OF_ALL: Limit = Limit { most: 100, each: Duration::from_millis(500) };

/// Tokens from an address that nobody trusted has signed. They are no guesses, but each takes a millisecond to find out.
const FORGERIES: Limit = Limit { most: 200, each: Duration::from_millis(50) };

/// New tokens for an address, behind which there may be all nodes of a cluster. To sign one takes a millisecond: so no client
/// takes more than a fifth of a worker's time by asking for them.
const NEW_TOKENS: Limit = Limit { most: 500, each: Duration::from_millis(5) };

/// Until when what is owed has been paid, since 1970.
#[derive(Debug, Clone, Copy, Default)]
struct Debt(Duration);

impl Debt {
    /// How long to wait until one more may be owed.
    fn wait(self, limit: Limit, now: Duration) -> Duration {
        let with_one_more = self.0.max(now) + limit.each;
        with_one_more.saturating_sub(now + limit.each * limit.most)
    }

    fn add(&mut self, limit: Limit, now: Duration) {
        self.0 = self.0.max(now) + limit.each;
    }

    fn take_back(&mut self, limit: Limit) {
        self.0 = self.0.saturating_sub(limit.each);
    }
}

/// Who owes for failures.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Debtor {
    /// Whose password was wrong.
    Name(String),
    /// From where wrong passwords came.
    Address(Option<IpAddr>),
    /// From where forged tokens came.
    Forger(Option<IpAddr>),
    /// To where new tokens went.
    Recipient(Option<IpAddr>),
}

impl Debtor {
    fn limit(&self) -> Limit {
        match self {
            Self::Name(_) => OF_NAME,
            Self::Address(_) => OF_ADDRESS,
            Self::Forger(_) => FORGERIES,
            Self::Recipient(_) => NEW_TOKENS,
        }
    }
}

/// The failures of late.
#[derive(Debug, Default)]
pub struct Attempts {
    debts: RefCell<HashMap<Debtor, Debt>>,
    all: RefCell<Debt>,
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
        let debtors = [Debtor::Name(name.to_owned()), Debtor::Address(address)];
        let wait = debtors.iter().map(|debtor| self.wait(debtor, now)).max().unwrap_or_default();
        let wait = wait.max(self.all.borrow().wait(OF_ALL, now));
        if !wait.is_zero() {
            return Err(wait);
        }
        for debtor in debtors {
            self.add(debtor, now);
        }
        self.all.borrow_mut().add(OF_ALL, now);
        Ok(())
    }

    /// The attempt was none to be counted.
    pub fn succeeded(&self, name: &str, address: Option<IpAddr>) {
        let mut debts = self.debts.borrow_mut();
        for debtor in [Debtor::Name(name.to_owned()), Debtor::Address(address)] {
            if let Some(debt) = debts.get_mut(&debtor) {
                debt.take_back(debtor.limit());
            }
        }
        self.all.borrow_mut().take_back(OF_ALL);
    }

    /// How long to wait before the signature of a token from this address may be looked at; nothing, usually.
    pub fn wait_for_signature(&self, address: Option<IpAddr>, now: Duration) -> Duration {
        self.wait(&Debtor::Forger(address), now)
    }

    /// Counts a token that nobody trusted has signed.
    pub fn forged(&self, address: Option<IpAddr>, now: Duration) {
        self.add(Debtor::Forger(address), now);
    }

    /// Counts a new token for this address.
    ///
    /// # Errors
    ///
    /// How long to wait before the next, which can't be given now.
    pub fn give_token(&self, address: Option<IpAddr>, now: Duration) -> Result<(), Duration> {
        let recipient = Debtor::Recipient(address);
        let wait = self.wait(&recipient, now);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.add(recipient, now);
        Ok(())
    }

    fn wait(&self, debtor: &Debtor, now: Duration) -> Duration {
        let debt = self.debts.borrow().get(debtor).copied().unwrap_or_default();
        debt.wait(debtor.limit(), now)
    }

    fn add(&self, debtor: Debtor, now: Duration) {
        let mut debts = self.debts.borrow_mut();
        let is_full = debts.len() >= DEBTORS_MAX && !debts.contains_key(&debtor);
        if is_full {
            debts.retain(|_, debt| debt.0 > now);
        }
        if !is_full || debts.len() < DEBTORS_MAX {
            let limit = debtor.limit();
            debts.entry(debtor).or_default().add(limit, now);
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
    fn what_succeeds_is_not_counted_and_what_failed_is_paid_back() {
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
        for number in 0..2 * DEBTORS_MAX as u32 {
            attempts.forged(address(number), Duration::from_secs(1000));
            // One at a time, so that there are never too many over all.
            let later = Duration::from_secs(1000) + OF_ALL.each * number;
            attempts.begin(&number.to_string(), address(number), later).expect("an attempt");
        }
        assert!(attempts.debts.borrow().len() <= DEBTORS_MAX);
    }
}
