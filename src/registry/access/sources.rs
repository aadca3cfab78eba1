//! Who calls without credentials: whom a filter before this one, or Envoy's TLS, has proven to be somebody.

use std::rc::Rc;

use super::Access;
use super::accounts::user_subject;
use super::identity::{Identity, Proof};
use super::tokens::{Caller, Names};
use crate::registry::Environment;
use crate::registry::glob::Glob;

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

impl Access {
    /// Who calls without credentials.
    pub(super) fn caller_from_sources(&self, environment: &dyn Environment) -> Rc<Caller> {
        let caller = self.caller_of_jwt_authn(environment);
        let caller = caller.or_else(|| self.caller_of_ext_authz(environment));
        let caller = caller.or_else(|| self.caller_with_certificate(environment));
        caller.unwrap_or_else(|| Rc::clone(&self.anonymous))
    }

    pub(super) fn caller_of_jwt_authn(&self, environment: &dyn Environment) -> Option<Rc<Caller>> {
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
}
