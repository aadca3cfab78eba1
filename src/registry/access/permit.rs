//! What lets a request pass to its handler.

use std::rc::Rc;

use super::cursor::is_encrypted;
use super::decision::{Decision, decide};
use super::need::Need;
use super::tokens::Caller;
use super::{Access, ResourceActions};
use crate::oci::Name;
use crate::registry::http::error::{Error, ErrorCode};
use crate::registry::route::Endpoint;
use crate::registry::{Request, Settings};

/// That a request is allowed. It names the endpoint, and nothing else does: so no handler is called without one.
#[derive(Debug)]
pub struct Permit<'r> {
    endpoint: &'r Endpoint,
    /// None where there is no access control.
    access: Option<(&'r Access, Rc<Caller>)>,
    may_mount: bool,
}

/// Decides whether a request is allowed. Makes no call to the store; it may take a while if a password has to be
/// checked.
///
/// # Errors
///
/// The answer to a request that is not, or that is for no endpoint.
pub async fn permit<'r>(request: &'r Request, settings: &'r Settings) -> Result<Permit<'r>, Error> {
    let endpoint = request.endpoint()?;
    let Some(access) = settings.access.as_deref() else {
        return Ok(Permit { endpoint, access: None, may_mount: true });
    };
    let need = Need::of(request, endpoint);
    if need == Need::Nothing {
        return Ok(Permit { endpoint, access: None, may_mount: false });
    }
    let caller = match access.caller(request).await {
        Ok(caller) => caller,
        Err(refusal) => {
            request.exchange.note_verdict(None, None);
            return Err(access.refused(request, &need, refusal));
        }
    };
    match decide(access.rules(), &need, &caller) {
        Decision::Allowed { may_mount, rules } => {
            request.exchange.note_verdict(Some(&caller), Some(rules));
            Ok(Permit { endpoint, access: Some((access, caller)), may_mount })
        }
        Decision::Denied(reason) => {
            request.exchange.note_verdict(Some(&caller), None);
            Err(access.denied(request, &need, reason))
        }
    }
}

/// Whether it is clear from a request's headers that it will be refused, so that its body need not be kept.
pub fn is_refused_at_once(request: &Request, settings: &Settings) -> bool {
    let (Ok(endpoint), Some(access)) = (request.endpoint(), settings.access.as_deref()) else {
        return false;
    };
    let need = Need::of(request, endpoint);
    match access.caller_at_once(request) {
        _ if need == Need::Nothing => false,
        None => false,
        Some(Err(_)) => true,
        Some(Ok(caller)) => matches!(decide(access.rules(), &need, &caller), Decision::Denied(_)),
    }
}

impl<'r> Permit<'r> {
    /// The endpoint that the request may use.
    pub fn endpoint(&self) -> &'r Endpoint {
        self.endpoint
    }

    /// Whether a blob may be mounted from where the request says.
    pub fn may_mount(&self) -> bool {
        self.may_mount
    }

    /// Whether the caller may know that there is such a repository.
    pub fn may_see(&self, name: &Name) -> bool {
        let may_pull = |(access, caller): &(&Access, Rc<Caller>)| {
            access.rules().may_pull(&caller.identity, name.as_str())
        };
        self.access.as_ref().is_none_or(may_pull)
    }

    /// Whether the caller may see all repositories, because nobody may do less.
    pub fn sees_all(&self) -> bool {
        self.access.is_none()
    }

    /// The cursor for a name in the list of repositories, which may be one that the caller may not see.
    pub fn cursor(&self, name: String, request: &Request) -> String {
        match &self.access {
            Some((access, _)) => access.cursors().encrypt(&name, request.environment.nonce()),
            None => name,
        }
    }

    /// The name of a cursor into the list of repositories, which may be that name itself.
    ///
    /// # Errors
    ///
    /// `PAGINATION_NUMBER_INVALID` for an encrypted one that is not of this registry.
    pub fn name_of_cursor(&self, cursor: String) -> Result<String, Error> {
        match &self.access {
            Some((access, _)) if is_encrypted(&cursor) => {
                access.cursors().decrypt(&cursor).ok_or_else(|| {
                    let message = "last is no place in this list: begin again at the first page";
                    Error::new(ErrorCode::PaginationNumberInvalid, message)
                })
            }
            _ => Ok(cursor),
        }
    }

    /// The caller's name in rules; empty where there is no access control.
    pub fn caller_name(&self) -> &str {
        self.access.as_ref().map_or("", |(_, caller)| caller.identity.name())
    }

    /// What the caller's token grants; nothing if there is no access control or no token.
    pub fn grants(&self) -> &[ResourceActions] {
        let grants = self.access.as_ref().and_then(|(_, caller)| caller.grants.as_deref());
        grants.unwrap_or_default()
    }
}
