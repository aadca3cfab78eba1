//! Finding out who calls: by a token, by a name and a password ([`passwords`](super::passwords)), or without credentials
//! ([`sources`](super::sources)).

use std::rc::Rc;
use std::time::Duration;

use super::Access;
use super::accounts::{ROBOT_PREFIX, user_subject};
use super::credentials::Credentials;
use super::identity::{Identity, Proof};
use super::jwt::{InvalidToken, since_1970};
use super::tokens::Caller;
use crate::registry::{Environment, Request};

/// How long a refusal because of too many attempts is held back, so that a client can't make many of them.
const REFUSED_AFTER: Duration = Duration::from_secs(1);

/// Why nobody knows who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The `Authorization` header is none that is known here.
    Unreadable,
    /// There is no such user with such a password.
    Password,
    /// The token is not valid.
    Token(InvalidToken),
    /// There have been too many wrong ones, or too many requests for tokens; the next may come after so many seconds.
    TooMany(u32),
}

impl Refusal {
    /// Whether somebody has tried a wrong password or token. One whose time is over is none: clients try those as a matter
    /// of course.
    pub fn is_failed_login(self) -> bool {
        match self {
            Self::Password => true,
            Self::Token(why) => !matches!(why, InvalidToken::Expired | InvalidToken::NotYet),
            Self::Unreadable | Self::TooMany(_) => false,
        }
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
            Credentials::Basic(pair) => self.caller_with_known_password(&pair, environment),
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
        // Who has two tokens is whom the one in this header names, if it is one that is verified here.
        if let Some(caller) = self.caller_of_jwt_authn(environment)
            && !self.tokens.verifies(token)
        {
            return Ok(caller);
        }
        let (address, now) = (environment.client_address(), environment.now());
        let since_1970 = since_1970(now);
        let wait = self.attempts.wait_for_signature(address, since_1970);
        if !wait.is_zero() {
            return Err(Refusal::TooMany(whole_seconds(wait)));
        }
        let complete = |caller: &mut Caller| {
            self.accounts.add_groups(&mut caller.identity);
            self.accounts.lasts_until(&caller.identity, now).ok_or(InvalidToken::Gone)
        };
        self.tokens.verify(token, now, complete).map_err(|invalid| {
            if invalid == InvalidToken::Signature {
                self.attempts.forged(address, since_1970);
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

    /// Counts a token that is to be signed.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooMany`].
    pub async fn admit_new_token(&self, environment: &dyn Environment) -> Result<(), Refusal> {
        let now = since_1970(environment.recent());
        let Err(wait) = self.attempts.give_token(environment.client_address(), now) else {
            return Ok(());
        };
        environment.delay(REFUSED_AFTER).await;
        Err(Refusal::TooMany(whole_seconds(wait)))
    }

    /// Holds a refusal back that many may ask for.
    pub(super) async fn held_back(
        &self,
        caller: Result<Rc<Caller>, Refusal>,
        environment: &dyn Environment,
    ) -> Result<Rc<Caller>, Refusal> {
        if let Err(Refusal::TooMany(_)) = caller {
            environment.delay(REFUSED_AFTER).await;
        }
        caller
    }

    /// The caller with this account.
    pub(super) fn account(&self, name: &str, proof: Proof) -> Rc<Caller> {
        let identity = Identity::named(user_subject(name), Vec::new(), proof);
        Rc::new(self.caller_known_as(identity))
    }
}

/// A time in whole seconds, one at least.
pub(super) fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1)
}
