//! Finding out who calls.

use std::cell::RefCell;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::accounts::{ROBOT_PREFIX, user_subject};
use super::credentials::{Credentials, NameAndPassword};
use super::identity::{Identity, Proof};
use super::jwt::{InvalidToken, since_1970};
use super::remembered::{Key, Remembered};
use super::tokens::{Caller, Names};
use super::{Access, Attempts, Pace};
use crate::registry::glob::Glob;
use crate::registry::{Environment, Nonce, Request};

/// How many pairs of name and password a worker remembers.
const PAIRS_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// For how long a pair is remembered, wrong ones too.
const PAIR_REMEMBERED: Duration = Duration::from_secs(300);

/// How long a refusal because of too many attempts is held back, so that a client can't make many of them.
const REFUSED_AFTER: Duration = Duration::from_secs(1);

/// How often a request looks whether the same pair has been checked for another.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How often it does so at most: for as long as a turn may take.
const LOOKS_MAX: u32 = 120;

/// Why nobody knows who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The `Authorization` header is none that is known here.
    Unreadable,
    /// There is no such user with such a password.
    Password,
    /// The token is not valid.
    Token(InvalidToken),
    /// There have been too many wrong ones; the next may come after so many seconds.
    TooMany(u32),
}

/// What a filter before this one has found out about callers: Envoy's `jwt_authn`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtSource {
    /// The provider's `payload_in_metadata`.
    pub payload: String,
    /// What of a claim is whose name.
    pub names: Names,
    /// The token server, if what its tokens say in `access` is all that callers may do.
    pub issuer: Option<String>,
}

/// The same for Envoy's `ext_authz`: the keys of its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtAuthzSource {
    /// That has the name.
    pub subject: String,
    /// That has the groups.
    pub groups: Option<String>,
    /// What is put before both.
    pub prefix: String,
}

/// The ways, beside credentials, in which callers are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// The names of client certificates that are callers: URIs and, after `dns:`, names of hosts.
    pub certificates: Vec<Glob>,
    /// The tokens that `jwt_authn` verifies.
    pub jwt: Vec<JwtSource>,
    /// What `ext_authz` says.
    pub ext_authz: Option<ExtAuthzSource>,
}

impl Sources {
    /// Whether whoever has a client certificate with this name is a caller of that name: a URI, or a host after `dns:`.
    pub fn has_certificate(&self, name: &str) -> bool {
        self.certificates.iter().any(|pattern| pattern.matches(name))
    }
}

/// What a worker knows of passwords.
#[derive(Debug)]
pub struct Passwords {
    /// The key of the hashes by which pairs are remembered.
    secret: RefCell<Option<Nonce>>,
    /// Whom a pair is of; nobody, if it is wrong.
    pairs: Remembered<Option<Rc<Caller>>>,
    /// Those that are being checked.
    under_way: RefCell<Vec<Key>>,
    attempts: Attempts,
    pace: Pace,
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            secret: RefCell::default(),
            pairs: Remembered::new(PAIRS_MAX),
            under_way: RefCell::default(),
            attempts: Attempts::default(),
            pace: Pace::default(),
        }
    }
}

impl Passwords {
    fn key(&self, pair: &NameAndPassword, environment: &dyn Environment) -> Key {
        let secret = *self.secret.borrow_mut().get_or_insert_with(|| environment.nonce());
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
    /// Who sends this request.
    ///
    /// # Errors
    ///
    /// Why nobody knows.
    pub async fn caller(&self, request: &Request) -> Result<Rc<Caller>, Refusal> {
        let environment = &*request.environment;
        match Credentials::read(request.header_values(http::header::AUTHORIZATION)) {
            // On the heap: most requests have a token, and need not make room for all of this.
            Credentials::Basic(pair) => {
                Box::pin(self.caller_with_password(&pair, environment)).await
            }
            credentials => {
                let caller = self.caller_without_password(&credentials, environment);
                self.held_back(caller, environment).await
            }
        }
    }

    /// The same as far as it can be told at once: `None` if a password has to be checked first.
    pub fn caller_at_once(&self, request: &Request) -> Option<Result<Rc<Caller>, Refusal>> {
        let environment = &*request.environment;
        match Credentials::read(request.header_values(http::header::AUTHORIZATION)) {
            Credentials::Basic(pair) => {
                let key = self.passwords.key(&pair, environment);
                self.known_pair(&key, environment)
            }
            credentials => Some(self.caller_without_password(&credentials, environment)),
        }
    }

    fn caller_without_password(
        &self,
        credentials: &Credentials<'_>,
        environment: &dyn Environment,
    ) -> Result<Rc<Caller>, Refusal> {
        match credentials {
            Credentials::Bearer(token) => self.caller_with_token(token, environment),
            Credentials::None => Ok(self.caller_from_sources(environment)),
            Credentials::Basic(_) | Credentials::Unreadable => Err(Refusal::Unreadable),
        }
    }

    /// Whose token this is.
    fn caller_with_token(
        &self,
        token: &str,
        environment: &dyn Environment,
    ) -> Result<Rc<Caller>, Refusal> {
        let recent = environment.recent();
        if let Some(caller) = self.tokens.known(token, recent) {
            return Ok(caller);
        }
        if token.starts_with(ROBOT_PREFIX) {
            return self.caller_with_robot_token(token, environment);
        }
        if let Some(caller) = self.caller_of_jwt_authn(environment) {
            return Ok(caller);
        }
        let (address, now) = (environment.client_address(), environment.now());
        let since_1970 = since_1970(now);
        let wait = self.passwords.attempts.wait_for_signature(address, since_1970);
        if !wait.is_zero() {
            return Err(Refusal::TooMany(whole_seconds(wait)));
        }
        let complete = |caller: &mut Caller| {
            self.accounts.add_groups(&mut caller.identity);
            self.accounts.lasts_until(&caller.identity, now).ok_or(InvalidToken::Gone)
        };
        self.tokens.verify(token, now, complete).map_err(|invalid| {
            if invalid == InvalidToken::Signature {
                self.passwords.attempts.forged(address, since_1970);
            }
            Refusal::Token(invalid)
        })
    }

    /// Whose token of a robot this is.
    ///
    /// # Errors
    ///
    /// [`Refusal::Token`].
    pub fn caller_with_robot_token(
        &self,
        token: &str,
        environment: &dyn Environment,
    ) -> Result<Rc<Caller>, Refusal> {
        let robot = self.accounts.robot(token, environment.recent());
        let robot = robot.ok_or(Refusal::Token(InvalidToken::Robot))?;
        Ok(self.account(&robot.name, Proof::RobotToken))
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
        let (address, now) = (environment.client_address(), environment.now());
        let (caller, until) = if pair.password.starts_with(ROBOT_PREFIX) {
            let robot = self.accounts.robot(&pair.password, now);
            let robot = robot.filter(|robot| robot.name == pair.name);
            let until = since_1970(now) + PAIR_REMEMBERED;
            let until = robot.map_or(until, |robot| robot.until(until));
            (robot.map(|robot| self.account(&robot.name, Proof::RobotToken)), until)
        } else {
            let is_right = self.check_password(pair, address, environment).await?;
            let until = since_1970(environment.now()) + PAIR_REMEMBERED;
            (is_right.then(|| self.account(&pair.name, Proof::Password)), until)
        };
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
        let Passwords { attempts, pace, .. } = &self.passwords;
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

    /// Holds a refusal back that many may ask for.
    async fn held_back(
        &self,
        caller: Result<Rc<Caller>, Refusal>,
        environment: &dyn Environment,
    ) -> Result<Rc<Caller>, Refusal> {
        if let Err(Refusal::TooMany(_)) = caller {
            environment.delay(REFUSED_AFTER).await;
        }
        caller
    }

    /// Who calls without credentials.
    fn caller_from_sources(&self, environment: &dyn Environment) -> Rc<Caller> {
        let caller = self.caller_of_jwt_authn(environment);
        let caller = caller.or_else(|| self.caller_of_ext_authz(environment));
        let caller = caller.or_else(|| self.caller_with_certificate(environment));
        caller.unwrap_or_else(|| Rc::clone(&self.anonymous))
    }

    fn caller_of_jwt_authn(&self, environment: &dyn Environment) -> Option<Rc<Caller>> {
        const FILTER: &str = "envoy.filters.http.jwt_authn";
        let has_token = |source: &&JwtSource| environment.has_metadata(FILTER, &[&source.payload]);
        let source = self.sources.jwt.iter().find(has_token)?;
        let claim = |name: &str| environment.metadata_texts(FILTER, &[&source.payload, name]);
        let subject = environment.metadata_text(FILTER, &[&source.payload, &source.names.subject]);
        let groups = source.names.groups.as_deref().map(claim).unwrap_or_default();
        let identity = Identity {
            subject: source.names.subject(&subject.unwrap_or_default()),
            groups: source.names.groups(groups),
            issuer: source.issuer.clone(),
            proof: Proof::Jwt,
        };
        let has_grants = source.issuer.is_some();
        let grants = has_grants.then(|| environment.metadata_access(FILTER, &source.payload));
        let mut caller = self.caller_known_as(identity);
        caller.grants = grants;
        Some(Rc::new(caller))
    }

    fn caller_of_ext_authz(&self, environment: &dyn Environment) -> Option<Rc<Caller>> {
        const FILTER: &str = "envoy.filters.http.ext_authz";
        let source = self.sources.ext_authz.as_ref()?;
        let subject = environment.metadata_text(FILTER, &[&source.subject])?;
        if subject.is_empty() {
            return None;
        }
        let groups = source.groups.as_ref();
        let groups = groups.map(|key| environment.metadata_texts(FILTER, &[key]));
        let prefixed = |name: &String| format!("{}{name}", source.prefix);
        let groups = groups.unwrap_or_default().iter().map(prefixed).collect();
        let subject = user_subject(&prefixed(&subject));
        let identity = Identity::named(subject, groups, Proof::ExtAuthz);
        Some(Rc::new(self.caller_known_as(identity)))
    }

    fn caller_with_certificate(&self, environment: &dyn Environment) -> Option<Rc<Caller>> {
        if self.sources.certificates.is_empty() {
            return None;
        }
        let is_caller = |name: &String| self.sources.has_certificate(name);
        let name = environment.certificate_names().into_iter().find(is_caller)?;
        let identity = Identity::named(name, Vec::new(), Proof::Certificate);
        Some(Rc::new(self.caller_known_as(identity)))
    }

    /// The caller with this account.
    fn account(&self, name: &str, proof: Proof) -> Rc<Caller> {
        let identity = Identity::named(user_subject(name), Vec::new(), proof);
        Rc::new(self.caller_known_as(identity))
    }
}

/// A time in whole seconds, one at least.
fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1)
}
