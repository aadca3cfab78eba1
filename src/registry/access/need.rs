//! What a request needs to be allowed.

use http::Method;

use super::actions::Actions;
use super::rules::TagUse;
use crate::oci::{Name, Reference, Tag};
use crate::registry::Request;
use crate::registry::route::Endpoint;

/// What a request needs to be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need<'r> {
    /// Nothing: it is for the token endpoint, which finds out by itself who calls, or asks whether the registry is well.
    Nothing,
    /// Credentials of any caller. Clients ask this first, to learn the scheme.
    Credentials,
    /// To list the repositories. The list has those alone that the caller may pull from.
    Catalog,
    /// To do something with a repository.
    Repository(RepositoryNeed<'r>),
}

/// What is done with a repository, in the words of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Something is read.
    Pull,
    /// Something is put into it, or begun to be.
    Push,
    /// Something is taken out of it.
    Delete,
}

impl Operation {
    fn of(method: &Method) -> Self {
        match *method {
            Method::GET | Method::HEAD => Self::Pull,
            Method::DELETE => Self::Delete,
            _ => Self::Push,
        }
    }

    /// The actions that it takes. Who pushes looks at what is there as well.
    pub fn actions(self) -> Actions {
        match self {
            Self::Pull => Actions::PULL,
            Self::Push => Actions::PULL | Actions::PUSH,
            Self::Delete => Actions::DELETE,
        }
    }

    /// The tags that it sets or deletes if it is done with a manifest by this tag, or by its digest alone.
    fn tags(self, tag: Option<&Tag>) -> Tags {
        match (self, tag) {
            (Self::Pull, _) | (Self::Push, None) => Tags::None,
            (_, Some(tag)) => Tags::These(vec![tag.to_string()]),
            // Every tag goes with its manifest.
            (Self::Delete, None) => Tags::Any,
        }
    }
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

impl<'r> RepositoryNeed<'r> {
    /// What a request needs that does this with a manifest of a repository, by its tag or by its digest alone. A blob that
    /// is pulled or pushed needs what a manifest without a tag does.
    pub fn new(name: &'r Name, operation: Operation, tag: Option<&Tag>) -> Self {
        let (actions, tags) = (operation.actions(), operation.tags(tag));
        Self { name, actions, tags, mount_from: None }
    }
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
        let operation = Operation::of(&request.method);
        let (name, tags) = match endpoint {
            Endpoint::Base => return Self::Credentials,
            Endpoint::Token | Endpoint::Health | Endpoint::Ready => return Self::Nothing,
            Endpoint::Catalog => return Self::Catalog,
            Endpoint::Manifest { name, reference } => (name, tags(request, operation, reference)),
            Endpoint::Blob { name, .. } => (name, Tags::Any),
            Endpoint::Uploads { name } | Endpoint::Upload { name, .. } => (name, Tags::None),
            Endpoint::Tags { name } | Endpoint::Referrers { name, .. } => (name, Tags::None),
        };
        let mount_from = match endpoint {
            Endpoint::Uploads { .. } => request.mount_source(),
            _ => None,
        };
        let actions = operation.actions();
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
fn tags(request: &Request, operation: Operation, reference: &Reference) -> Tags {
    match (reference, operation) {
        (Reference::Tag(tag), _) => operation.tags(Some(tag)),
        (Reference::Digest(_), Operation::Push) => {
            let tags: Vec<_> = request.query_values("tag").map(|tag| tag.into_owned()).collect();
            if tags.is_empty() { operation.tags(None) } else { Tags::These(tags) }
        }
        (Reference::Digest(_), _) => operation.tags(None),
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::registry::HeaderFields;
    use crate::registry::test_registry::TestEnvironment;

    #[test]
    fn what_is_done_in_the_words_of_rules_needs_what_its_requests_do() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let manifest = |reference: &str| format!("/v2/a/b/manifests/{reference}");
        let name: Name = "a/b".parse().expect("a valid name");
        let tag: Tag = "v1".parse().expect("a valid tag");
        for (method, target, operation, tag) in [
            (Method::GET, manifest("v1"), Operation::Pull, Some(&tag)),
            (Method::HEAD, manifest(&digest), Operation::Pull, None),
            (Method::GET, "/v2/a/b/tags/list".to_owned(), Operation::Pull, None),
            (Method::PUT, manifest("v1"), Operation::Push, Some(&tag)),
            (Method::PUT, manifest(&format!("{digest}?tag=v1")), Operation::Push, Some(&tag)),
            (Method::PUT, manifest(&digest), Operation::Push, None),
            (Method::POST, "/v2/a/b/blobs/uploads/".to_owned(), Operation::Push, None),
            (Method::DELETE, manifest("v1"), Operation::Delete, Some(&tag)),
            (Method::DELETE, manifest(&digest), Operation::Delete, None),
            (Method::DELETE, format!("/v2/a/b/blobs/{digest}"), Operation::Delete, None),
        ] {
            let headers = HeaderFields::default();
            let environment = Rc::<TestEnvironment>::default();
            let request = Request::new(method.clone(), &target, headers, environment);
            let endpoint = request.endpoint().expect("an endpoint");
            let expected = Need::Repository(RepositoryNeed::new(&name, operation, tag));
            assert_eq!(Need::of(&request, endpoint), expected, "{method} {target}");
        }
    }
}
