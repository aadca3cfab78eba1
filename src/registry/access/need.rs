//! What a request needs to be allowed.

use http::Method;

use super::actions::Actions;
use super::rules::TagUse;
use crate::oci::{Name, Reference};
use crate::registry::Request;
use crate::registry::route::Endpoint;

/// What a request needs to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need<'r> {
    /// Nothing: it is for the token endpoint, which finds out by itself who calls.
    Nothing,
    /// Credentials, whosoever. Clients ask this first, to learn the scheme.
    Credentials,
    /// To list the repositories. The list has those alone that the caller may pull from.
    Catalog,
    /// To do something with a repository.
    Repository(RepositoryNeed<'r>),
}

/// What a request does with a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryNeed<'r> {
    /// The repository.
    pub name: &'r Name,
    /// What is done with it.
    pub actions: Actions,
    /// The tags that are set or deleted.
    pub tags: Tags,
    /// The repository that a blob is mounted from. Without the right to pull from it nothing is mounted, which is no
    /// reason to refuse the request.
    pub mount_from: Option<Name>,
}

/// What a request does with tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tags {
    /// It sets and deletes none.
    None,
    /// It sets or deletes these.
    These(Vec<String>),
    /// It may take away tags of any name, or what they need.
    Any,
}

impl Tags {
    /// The same for the rules.
    pub fn as_use(&self) -> TagUse<'_> {
        match self {
            Self::None => TagUse::None,
            Self::These(tags) => TagUse::These(tags),
            Self::Any => TagUse::Any,
        }
    }
}

impl<'r> Need<'r> {
    /// What a request for this endpoint needs. An endpoint that is not thought of here does not compile.
    pub fn of(request: &Request, endpoint: &'r Endpoint) -> Self {
        let (name, tags) = match endpoint {
            Endpoint::Base => return Self::Credentials,
            Endpoint::Token => return Self::Nothing,
            Endpoint::Catalog => return Self::Catalog,
            Endpoint::Manifest { name, reference } => (name, tags(request, reference)),
            Endpoint::Blob { name, .. } => (name, Tags::Any),
            Endpoint::Uploads { name } | Endpoint::Upload { name, .. } => (name, Tags::None),
            Endpoint::Tags { name } | Endpoint::Referrers { name, .. } => (name, Tags::None),
        };
        let actions = match request.method {
            Method::GET | Method::HEAD => Actions::PULL,
            Method::DELETE => Actions::DELETE,
            _ => Actions::PULL | Actions::PUSH,
        };
        let mount_from = match endpoint {
            Endpoint::Uploads { .. } => request.mount_source(),
            _ => None,
        };
        Self::Repository(RepositoryNeed { name, actions, tags, mount_from })
    }

    /// The scopes of a token that grants it, separated by spaces.
    pub fn scopes(&self) -> String {
        match self {
            Self::Nothing | Self::Credentials => String::new(),
            Self::Catalog => "registry:catalog:*".to_owned(),
            Self::Repository(RepositoryNeed { name, actions, mount_from, .. }) => {
                let mut scopes = format!("repository:{name}:{actions}");
                if let Some(from) = mount_from {
                    scopes.push_str(&format!(" repository:{from}:{}", Actions::PULL));
                }
                scopes
            }
        }
    }
}

/// The tags that a request for a manifest sets or deletes.
fn tags(request: &Request, reference: &Reference) -> Tags {
    match (reference, &request.method) {
        (_, &Method::GET | &Method::HEAD) => Tags::None,
        (Reference::Tag(tag), _) => Tags::These(vec![tag.to_string()]),
        // Every tag goes with its manifest.
        (Reference::Digest(_), &Method::DELETE) => Tags::Any,
        (Reference::Digest(_), _) => {
            let tags: Vec<_> = request.query_values("tag").map(|tag| tag.into_owned()).collect();
            if tags.is_empty() { Tags::None } else { Tags::These(tags) }
        }
    }
}
