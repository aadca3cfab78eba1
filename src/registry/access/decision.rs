//! The one function that decides: what a request needs, who calls and what the rules say, and whether that is allowed.

use super::actions::Actions;
use super::need::{Need, RepositoryNeed, Tags};
use super::rules::{Rules, TagUse};
use super::tokens::Caller;

/// Whether a request is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is.
    Allowed {
        /// The numbers of the rules that say so, from 0.
        rules: Vec<usize>,
        /// Whether a blob may be mounted from where the request says.
        may_mount: bool,
    },
    /// It is not.
    Denied(Reason),
}

/// Why a request is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The caller has not said who it is.
    NoCredentials,
    /// The caller has, and its token or the rules do not grant what the request needs.
    Insufficient,
    /// The rules would, but not for these tags.
    Tags,
}

/// Decides.
pub fn decide(rules: &Rules, need: &Need<'_>, caller: &Caller) -> Decision {
    let denied = match caller.has_credentials() {
        true => Decision::Denied(Reason::Insufficient),
        false => Decision::Denied(Reason::NoCredentials),
    };
    let allowed = Decision::Allowed { rules: Vec::new(), may_mount: false };
    match need {
        Need::Nothing => allowed,
        Need::Credentials if caller.has_credentials() => allowed,
        Need::Catalog if caller.has_credentials() && caller.token_lists_catalog() => allowed,
        Need::Credentials | Need::Catalog => denied,
        Need::Repository(need) => decide_repository(rules, need, caller).unwrap_or(denied),
    }
}

/// `None` if what is done is not allowed at all.
fn decide_repository(
    rules: &Rules,
    need: &RepositoryNeed<'_>,
    caller: &Caller,
) -> Option<Decision> {
    let name = need.name.as_str();
    if !caller.token_grants(name, need.actions) {
        return None;
    }
    let granted = rules.granted(&caller.identity, name, need.tags.as_use());
    if granted.actions.contains(need.actions) {
        let may_mount = need.mount_from.as_ref().is_some_and(|from| {
            let from = from.as_str();
            caller.token_grants(from, Actions::PULL) && rules.may_pull(&caller.identity, from)
        });
        return Some(Decision::Allowed { rules: granted.rules_for(need.actions), may_mount });
    }
    let without_tags = rules.granted(&caller.identity, name, TagUse::None);
    let is_for_its_tags = need.tags != Tags::None && without_tags.actions.contains(need.actions);
    // Whoever has no name may have the right with one.
    (is_for_its_tags && !caller.identity.is_anonymous()).then_some(Decision::Denied(Reason::Tags))
}

impl Caller {
    /// Whether it has said who it is, if only by a token for anonymous callers.
    pub fn has_credentials(&self) -> bool {
        self.grants.is_some() || !self.identity.is_anonymous()
    }

    /// Whether its token, if it has one, grants all of this in a repository.
    pub fn token_grants(&self, repository: &str, actions: Actions) -> bool {
        self.grants.as_ref().is_none_or(|grants| {
            let granted = grants.iter().map(|grant| grant.in_repository(repository));
            granted.fold(Actions::NONE, |all, more| all | more).contains(actions)
        })
    }

    fn token_lists_catalog(&self) -> bool {
        self.grants.as_ref().is_none_or(|grants| grants.iter().any(|grant| grant.is_catalog()))
    }
}
