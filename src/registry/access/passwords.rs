//! Whose name and password these are. To check one takes long, so it is done when it is its turn, and what comes of it is
//! remembered.

use std::cell::{OnceCell, RefCell};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::accounts::ROBOT_PREFIX;
use super::authentication::{Refusal, whole_seconds};
use super::credentials::NameAndPassword;
use super::expiring_cache::{ExpiringCache, Key};
use super::identity::Proof;
use super::jwt::since_1970;
use super::tokens::Caller;
use super::{Access, Pace};
use crate::registry::{Environment, Nonce};

/// How many pairs of name and password a worker remembers.
const PAIRS_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// For how long a pair is remembered, wrong ones too.
const PAIR_REMEMBERED: Duration = Duration::from_secs(300);

/// How often a request looks whether the same pair has been checked for another.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How often it does so at most: for as long as a turn may take.
const LOOKS_MAX: u32 = 120;

/// What a worker knows of passwords.
#[derive(Debug)]
pub struct Passwords {
    /// The key of the hashes by which pairs are remembered.
    secret: OnceCell<Nonce>,
    /// Whom a pair is of; nobody, if it is wrong.
    pairs: ExpiringCache<Option<Rc<Caller>>>,
    /// Those that are being checked.
    under_way: RefCell<Vec<Key>>,
    pace: Pace,
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            secret: OnceCell::new(),
            pairs: ExpiringCache::new(PAIRS_MAX),
            under_way: RefCell::default(),
            pace: Pace::default(),
        }
    }
}

impl Passwords {
    fn key(&self, pair: &NameAndPassword, environment: &dyn Environment) -> Key {
        let secret = self.secret.get_or_init(|| environment.nonce());
        let hash = Sha256::new().chain_update(secret.0).chain_update(pair.name.len().to_be_bytes());
        hash.chain_update(&pair.name).chain_update(&pair.password).finalize().into()
    }
}

/// A pair that is being checked, until this is dropped.
struct UnderWay<'a>(&'a RefCell<Vec<Key>>, Key);

impl<'a> UnderWay<'a> {
    /// `None` if it is being checked already.
    fn begin(all: &'a RefCell<Vec<Key>>, key: Key) -> Option<Self> {
        if all.borrow().contains(&key) {
            return None;
        }
        all.borrow_mut().push(key);
        Some(Self(all, key))
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.borrow_mut().retain(|key| *key != self.1);
    }
}

impl Access {
    /// Whose name and token of a robot these are; `None` if they are a name and a password. It is found out anew each
    /// time, which takes no longer than to remember it: so nobody can make a worker forget passwords by making up tokens.
    fn caller_with_robots_name(
        &self,
        pair: &NameAndPassword,
        environment: &dyn Environment,
    ) -> Option<Result<Rc<Caller>, Refusal>> {
        if !pair.password.starts_with(ROBOT_PREFIX) {
            return None;
        }
        let robot = self.accounts.robot(&pair.password, environment.recent());
        let robot = robot.filter(|robot| robot.name == pair.name).ok_or(Refusal::Password);
        Some(robot.map(|robot| self.account(&robot.name, Proof::RobotToken)))
    }

    /// Whose name and password these are. A robot's token stands in the place of a password.
    ///
    /// # Errors
    ///
    /// [`Refusal::Password`], or [`Refusal::TooMany`].
    pub async fn caller_with_password(
        &self,
        pair: &NameAndPassword,
        environment: &dyn Environment,
    ) -> Result<Rc<Caller>, Refusal> {
        if let Some(robot) = self.caller_with_robots_name(pair, environment) {
            return robot;
        }
        let key = self.passwords.key(pair, environment);
        for _ in 0..LOOKS_MAX {
            if let Some(known) = self.known_pair(&key, environment) {
                return known;
            }
            if let Some(_until_checked) = UnderWay::begin(&self.passwords.under_way, key) {
                let checked = self.check_pair(pair, key, environment).await;
                return self.held_back(checked, environment).await;
            }
            environment.delay(LOOK_AGAIN).await;
        }
        Err(Refusal::TooMany(1))
    }

    /// The same as far as it can be told at once: `None` if the password has to be checked first.
    pub(super) fn caller_with_known_password(
        &self,
        pair: &NameAndPassword,
        environment: &dyn Environment,
    ) -> Option<Result<Rc<Caller>, Refusal>> {
        let robot = self.caller_with_robots_name(pair, environment);
        robot.or_else(|| self.known_pair(&self.passwords.key(pair, environment), environment))
    }

    /// What is known of a pair that has been checked before.
    fn known_pair(
        &self,
        key: &Key,
        environment: &dyn Environment,
    ) -> Option<Result<Rc<Caller>, Refusal>> {
        let known = self.passwords.pairs.get(key, since_1970(environment.recent()))?;
        Some(known.ok_or(Refusal::Password))
    }

    async fn check_pair(
        &self,
        pair: &NameAndPassword,
        key: Key,
        environment: &dyn Environment,
    ) -> Result<Rc<Caller>, Refusal> {
        let is_right = self.check_password(pair, environment.client_address(), environment).await?;
        let caller = is_right.then(|| self.account(&pair.name, Proof::Password));
        let until = since_1970(environment.now()) + PAIR_REMEMBERED;
        self.passwords.pairs.insert(key, caller.clone(), until);
        caller.ok_or(Refusal::Password)
    }

    /// Checks a password by bcrypt, when it is its turn.
    async fn check_password(
        &self,
        pair: &NameAndPassword,
        address: Option<IpAddr>,
        environment: &dyn Environment,
    ) -> Result<bool, Refusal> {
        let Some(cost) = self.accounts.password_cost() else {
            return Ok(false);
        };
        let (attempts, pace) = (&self.attempts, &self.passwords.pace);
        let too_many = |wait| Refusal::TooMany(whole_seconds(wait));
        let now = since_1970(environment.now());
        attempts.begin(&pair.name, address, now).map_err(too_many)?;
        let wait = match pace.take_turn(cost, now) {
            Ok(wait) => wait,
            Err(wait) => {
                attempts.succeeded(&pair.name, address);
                return Err(too_many(wait));
            }
        };
        if !wait.is_zero() {
            environment.delay(wait).await;
        }
        let begin = since_1970(environment.now());
        let is_right = self.accounts.has_password(&pair.name, &pair.password);
        pace.learn(cost, since_1970(environment.now()).saturating_sub(begin));
        if is_right {
            attempts.succeeded(&pair.name, address);
        }
        Ok(is_right)
    }
}
