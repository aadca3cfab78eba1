//! Who may do what.
//!
//! [`Access::caller`] finds out who calls, [`decide`](decision::decide) says whether the rules allow it, for every
//! endpoint and before any call to the store. What comes of it is a [`Permit`], and the handlers are reached by way of
//! that alone.
//!
//! The scheme is that of the distribution token specification: a request without sufficient credentials is answered
//! by a challenge that names the token endpoint and what a token has to grant, and clients come back with that. Basic
//! credentials, certificates and what filters before this one have verified are taken as they are.
//!
//! Source: `distribution`'s "Token Authentication Specification", "Token Scope" and "OAuth2 Token Authentication".

mod accounts;
mod actions;
mod attempts;
mod authentication;
mod challenge;
mod credentials;
mod cursor;
mod decision;
mod expiring_cache;
mod htpasswd;
mod identity;
mod jwt;
mod need;
mod new_user;
mod pace;
mod passwords;
mod permit;
mod rules;
mod sources;
#[cfg(test)]
mod tests;
mod tokens;

use std::rc::Rc;
use std::time::SystemTime;

pub use accounts::{
    Accounts, Group, ROBOT_PREFIX, Robot, TokenHash, TokenHashError, robot_token, user_subject,
};
pub use actions::{ActionError, Actions, ResourceActions, ScopeError, parse_scopes};
use attempts::Attempts;
pub use authentication::Refusal;
pub use challenge::too_many;
pub use credentials::NameAndPassword;
use cursor::Cursors;
pub use decision::{Decision, Reason, decide};
pub use htpasswd::{COST_MAX, COST_MIN, HtpasswdError, User, is_account_name};
pub use identity::{Identity, Proof};
pub use jwt::MAX_LENGTH as TOKEN_MAX_BYTES;
pub use need::{Need, Operation, RepositoryNeed, Tags};
pub use new_user::NewUserError;
use pace::Pace;
use passwords::Passwords;
pub use permit::{Permit, is_refused_at_once, permit};
pub use rules::{Granted, Rule, Rules, TagUse, Who};
pub use sources::{ExtAuthzSource, JwtSource, Sources};
pub use tokens::{Caller, Issuer, Names, Signing, Tokens};

use crate::registry::{Nonce, Request};

/// The access control of a registry: its rules, its accounts, and what a worker remembers of callers.
#[derive(Debug)]
pub struct Access {
    rules: Rules,
    accounts: Accounts,
    sources: Sources,
    tokens: Tokens,
    /// The address of the token endpoint; as clients see this registry unless set.
    realm: Option<String>,
    attempts: Attempts,
    passwords: Passwords,
    cursors: Cursors,
    anonymous: Rc<Caller>,
}

impl Access {
    /// Access control by these rules.
    pub fn new(
        rules: Rules,
        accounts: Accounts,
        sources: Sources,
        tokens: Tokens,
        realm: Option<String>,
    ) -> Self {
        let anonymous = Rc::new(Caller::new(Identity::anonymous(), None));
        let cursors = tokens.cursors();
        let (attempts, passwords) = (Attempts::default(), Passwords::default());
        Self { rules, accounts, sources, tokens, realm, attempts, passwords, cursors, anonymous }
    }

    /// The rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The accounts.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// The ways, beside credentials, in which callers are known.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The caller that somebody is who is known without a token that grants anything, with the groups that the
    /// configuration puts it into.
    pub fn caller_known_as(&self, mut identity: Identity) -> Caller {
        self.accounts.add_groups(&mut identity);
        Caller::new(identity, None)
    }

    /// What encrypts cursors.
    fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    /// How tokens are signed.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// What of this a token may grant to a caller. Which tags it touches is only known when it is used.
    pub fn grants(&self, caller: &Caller, asked: &[ResourceActions]) -> Vec<ResourceActions> {
        asked.iter().filter_map(|resource| self.grant(caller, resource)).collect()
    }

    fn grant(&self, caller: &Caller, asked: &ResourceActions) -> Option<ResourceActions> {
        if asked.is_catalog() {
            return Some(asked.clone());
        }
        let wanted = asked.in_repository(&asked.name);
        let granted = self.rules.granted(&caller.identity, &asked.name, TagUse::None);
        let actions = wanted.and(granted.actions);
        if actions.is_empty() {
            return None;
        }
        Some(ResourceActions {
            actions: actions.names().map(str::to_owned).collect(),
            ..asked.clone()
        })
    }

    /// Signs a token for the caller; `None` if that is impossible, which nothing is known for.
    pub fn sign(
        &self,
        caller: &Caller,
        grants: &[ResourceActions],
        now: SystemTime,
        nonce: Nonce,
    ) -> Option<String> {
        // Groups that follow from the configuration are looked up anew whenever the token is verified.
        let mut identity = caller.identity.clone();
        self.accounts.remove_groups(&mut identity);
        self.tokens.sign(&identity, grants, now, nonce)
    }

    /// The address at which the client gets tokens, as it sees this registry.
    fn realm(&self, request: &Request) -> String {
        if let Some(realm) = &self.realm {
            return realm.clone();
        }
        // What is no host could break out of the header's quotes; whoever sends it gets no good address anyway.
        let host = request.host().unwrap_or_default();
        format!("{}://{host}{}", request.scheme(), crate::registry::route::TOKEN_PATH)
    }
}
