//! What may be done with a repository, and how tokens and challenges say so.

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

/// A set of what can be done with a repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Actions(u8);

impl Actions {
    /// To read what it has.
    pub const PULL: Self = Self(1);
    /// To put something into it.
    pub const PUSH: Self = Self(2);
    /// To take something out of it.
    pub const DELETE: Self = Self(4);
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Everything.
    pub const ALL: Self = Self(7);

    /// The names, in the order in which challenges have them.
    const NAMES: [(Self, &str); 3] =
        [(Self::PULL, "pull"), (Self::PUSH, "push"), (Self::DELETE, "delete")];

    /// The set of the actions with these names, `*` for all. What has another name is none of this registry's.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let named = |name| match name {
            "*" => Self::ALL,
            name => {
                let known = Self::NAMES.iter().find(|(_, known)| *known == name);
                known.map_or(Self::NONE, |(action, _)| *action)
            }
        };
        names.into_iter().map(named).fold(Self::NONE, BitOr::bitor)
    }

    /// Whether all of `others` are in the set.
    pub fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// What is in both sets.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this set alone.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether nothing is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names of what is in the set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .filter(move |(action, _)| self.contains(*action))
            .map(|(_, name)| name)
    }
}

/// One action, or all by `*`.
impl FromStr for Actions {
    type Err = ActionError;

    fn from_str(name: &str) -> Result<Self, ActionError> {
        Some(Self::named([name])).filter(|action| !action.is_empty()).ok_or(ActionError)
    }
}

/// A text that is no action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is no action: there are pull, push, delete and *")]
pub struct ActionError;

impl BitOr for Actions {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// As in a scope: `pull,push`.
impl fmt::Display for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, name) in self.names().enumerate() {
            f.write_str(if number > 0 { "," } else { "" })?;
            f.write_str(name)?;
        }
        Ok(())
    }
}

/// Something with what may be done with it: an entry of a token's `access` claim.
///
/// Source: `distribution`'s "Token Authentication Implementation", "resource actions".
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResourceActions {
    /// The type; `repository` for a repository.
    #[serde(rename = "type")]
    pub kind: String,
    /// The class, `image` or `plugin`; empty if nothing is said of it, which means `image`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub class: String,
    /// The name.
    pub name: String,
    /// The names of the actions.
    pub actions: Vec<String>,
}

impl ResourceActions {
    /// What it allows in the repository.
    pub fn in_repository(&self, repository: &str) -> Actions {
        if self.kind == "repository" && self.name == repository {
            Actions::named(self.actions.iter().map(String::as_str))
        } else {
            Actions::NONE
        }
    }

    /// Whether it is the list of repositories.
    pub fn is_catalog(&self) -> bool {
        let is_all = |action: &String| action == "*";
        self.kind == "registry" && self.name == "catalog" && self.actions.iter().any(is_all)
    }
}

/// A scope that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the scope {0:?} is not of the form type:name:actions")]
pub struct ScopeError(String);

/// Reads the scopes of one `scope` parameter, which are separated by spaces: `repository:a/b:pull,push`, or with a class
/// `repository(plugin):a/b:pull`. A name may have colons, as that of a host has.
///
/// # Errors
///
/// A [`ScopeError`] for one that is none.
pub fn parse_scopes(text: &str) -> Result<Vec<ResourceActions>, ScopeError> {
    text.split(' ').filter(|scope| !scope.is_empty()).map(parse_scope).collect()
}

fn parse_scope(text: &str) -> Result<ResourceActions, ScopeError> {
    let error = || ScopeError(text.to_owned());
    let (kind, rest) = text.split_once(':').ok_or_else(error)?;
    let (name, actions) = rest.rsplit_once(':').ok_or_else(error)?;
    let (kind, class) = match kind.split_once('(') {
        None => (kind, ""),
        Some((kind, class)) => (kind, class.strip_suffix(')').ok_or_else(error)?),
    };
    if kind.is_empty() || name.is_empty() {
        return Err(error());
    }
    let actions = actions.split(',').filter(|action| !action.is_empty());
    Ok(ResourceActions {
        kind: kind.to_owned(),
        class: class.to_owned(),
        name: name.to_owned(),
        actions: actions.map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn sets_are_named_in_one_order_and_know_no_other_names() {
        let set = Actions::named(["push", "admin", "pull"]);
        assert_eq!(set, Actions::PULL | Actions::PUSH);
        assert_eq!(set.to_string(), "pull,push");
        assert_eq!(Actions::named(["*"]), Actions::ALL);
        assert_eq!(Actions::named(["PULL", ""]), Actions::NONE);
        assert!(Actions::ALL.contains(set) && !set.contains(Actions::DELETE));
        assert_eq!(Actions::ALL.without(set), Actions::DELETE);
    }

    #[test]
    fn scopes_are_read_as_clients_write_them() {
        let scope = |kind: &str, class: &str, name: &str, actions: &[&str]| ResourceActions {
            kind: kind.to_owned(),
            class: class.to_owned(),
            name: name.to_owned(),
            actions: actions.iter().map(|action| (*action).to_owned()).collect(),
        };
        for (text, expected) in [
            ("", vec![]),
            ("repository:a/b:pull", vec![scope("repository", "", "a/b", &["pull"])]),
            (
                "repository:a:pull,push  repository(plugin):h:5000/b:*",
                vec![
                    scope("repository", "", "a", &["pull", "push"]),
                    scope("repository", "plugin", "h:5000/b", &["*"]),
                ],
            ),
            ("registry:catalog:*", vec![scope("registry", "", "catalog", &["*"])]),
            ("repository:a:", vec![scope("repository", "", "a", &[])]),
        ] {
            assert_eq!(parse_scopes(text), Ok(expected), "{text:?}");
        }
        for text in ["repository", "repository:a", ":a:pull", "repository::pull", "r(x:a:pull"] {
            assert_eq!(parse_scopes(text), Err(ScopeError(text.to_owned())));
        }
    }

    #[test]
    fn a_resource_is_for_its_own_repository_alone() {
        let scopes = parse_scopes("repository:a:pull,x registry:a:push registry:catalog:*");
        let scopes = scopes.expect("scopes");
        let allowed = |name: &str| {
            scopes.iter().map(|scope| scope.in_repository(name)).fold(Actions::NONE, BitOr::bitor)
        };
        assert_eq!(allowed("a"), Actions::PULL);
        assert_eq!(allowed("a/b"), Actions::NONE);
        assert_eq!(allowed("catalog"), Actions::NONE);
        assert_eq!(scopes.iter().filter(|scope| scope.is_catalog()).count(), 1);
    }
}
