//! The rules: which callers may do what in which repositories. What no rule grants is denied.

use std::fmt;
use std::str::FromStr;

use super::actions::Actions;
use super::identity::Identity;
use crate::registry::glob::Glob;

/// Some callers, some repositories, and what the ones may do in the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The callers.
    pub who: Vec<Who>,
    /// The repositories.
    pub repositories: Vec<Glob>,
    /// What they may do.
    pub actions: Actions,
    /// The tags that they may set and delete; any if there are none. What touches tags beyond that, or does not tell
    /// which it touches, the rule does not grant.
    pub tags: Option<Vec<Glob>>,
}

/// Some callers, as a rule names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Callers without a name.
    Anonymous,
    /// Callers with one.
    Authenticated,
    /// The callers of these names, `user:` or `spiffe://` or `dns:` included.
    Subject(Glob),
    /// The members of these groups.
    Group(Glob),
    /// Whoever has a token of these token servers, named or not.
    Issuer(Glob),
}

/// What a request does with tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagUse<'a> {
    /// It sets and deletes none.
    None,
    /// It sets or deletes these.
    These(&'a [String]),
    /// It may take away tags of any name, or what they need.
    Any,
}

/// All rules, in the order in which they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

/// What the rules grant to a caller in a repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Granted {
    /// What may be done.
    pub actions: Actions,
    /// The number of the first rule that grants each of it: pull, push, delete.
    rules: [Option<usize>; 3],
}

impl Rules {
    /// These rules.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// The rules, each at its number.
    pub fn all(&self) -> &[Rule] {
        &self.0
    }

    /// What they grant to a caller in a repository, if the request does this with tags.
    pub fn granted(&self, caller: &Identity, repository: &str, tags: TagUse<'_>) -> Granted {
        let mut granted = Granted::default();
        for (number, rule) in self.0.iter().enumerate() {
            let new = rule.actions_with(tags).without(granted.actions);
            if !new.is_empty() && rule.is_for(caller, repository) {
                granted.add(new, number);
            }
        }
        granted
    }

    /// Whether a caller may pull from some repository.
    pub fn may_pull(&self, caller: &Identity, repository: &str) -> bool {
        let grants_pull = |rule: &&Rule| rule.actions.contains(Actions::PULL);
        self.0.iter().filter(grants_pull).any(|rule| rule.is_for(caller, repository))
    }
}

impl Rule {
    fn is_for(&self, caller: &Identity, repository: &str) -> bool {
        self.is_for_repository(repository) && self.is_for_caller(caller)
    }

    /// Whether a repository is among those that the rule is for.
    pub fn is_for_repository(&self, repository: &str) -> bool {
        self.repositories.iter().any(|pattern| pattern.matches(repository))
    }

    /// Whether a caller is among those that the rule is for.
    pub fn is_for_caller(&self, caller: &Identity) -> bool {
        self.who.iter().any(|who| who.is(caller))
    }

    /// What the rule grants to a request that does this with tags.
    pub fn actions_with(&self, tags: TagUse<'_>) -> Actions {
        let Some(patterns) = &self.tags else {
            return self.actions;
        };
        let is_among = |tag: &String| patterns.iter().any(|pattern| pattern.matches(tag));
        let are_all_among = match tags {
            TagUse::None => true,
            TagUse::These(tags) => tags.iter().all(is_among),
            TagUse::Any => false,
        };
        match are_all_among {
            true => self.actions,
            false => self.actions.and(Actions::PULL),
        }
    }
}

impl Granted {
    fn add(&mut self, actions: Actions, rule: usize) {
        self.actions = self.actions | actions;
        let each = [Actions::PULL, Actions::PUSH, Actions::DELETE];
        for (slot, action) in self.rules.iter_mut().zip(each) {
            if actions.contains(action) {
                *slot = Some(rule);
            }
        }
    }

    /// The numbers of the rules that grant these actions, in the order of the actions.
    pub fn rules_for(&self, actions: Actions) -> Vec<usize> {
        let each = [Actions::PULL, Actions::PUSH, Actions::DELETE];
        let mut rules = Vec::new();
        for (rule, action) in self.rules.iter().zip(each) {
            if let Some(rule) = rule
                && actions.contains(action)
                && !rules.contains(rule)
            {
                rules.push(*rule);
            }
        }
        rules
    }
}

impl Who {
    fn is(&self, caller: &Identity) -> bool {
        match self {
            Self::Anonymous => caller.is_anonymous() && caller.issuer.is_none(),
            Self::Authenticated => !caller.is_anonymous(),
            Self::Subject(pattern) => !caller.is_anonymous() && pattern.matches(&caller.subject),
            Self::Group(pattern) => caller.groups.iter().any(|group| pattern.matches(group)),
            Self::Issuer(pattern) => {
                caller.issuer.as_ref().is_some_and(|issuer| pattern.matches(issuer))
            }
        }
    }
}

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let glob = |text: &str| text.parse::<Glob>().map_err(|error| format!("{text:?} {error}"));
        match text {
            "anonymous" => Ok(Self::Anonymous),
            "authenticated" => Ok(Self::Authenticated),
            _ if text.starts_with("spiffe://") => Ok(Self::Subject(glob(text)?)),
            _ => match text.split_once(':') {
                Some(("user" | "dns", name)) if !name.is_empty() => Ok(Self::Subject(glob(text)?)),
                Some(("group", name)) => Ok(Self::Group(glob(name)?)),
                Some(("issuer", name)) => Ok(Self::Issuer(glob(name)?)),
                _ => Err(format!(
                    "{text:?} names nobody: it must be anonymous, authenticated, user:NAME, group:NAME, \
                     spiffe://NAME, dns:NAME or issuer:NAME"
                )),
            },
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Authenticated => f.write_str("authenticated"),
            Self::Subject(pattern) => write!(f, "{pattern}"),
            Self::Group(pattern) => write!(f, "group:{pattern}"),
            Self::Issuer(pattern) => write!(f, "issuer:{pattern}"),
        }
    }
}

#[cfg(test)]
pub mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::registry::access::identity::Proof;

    /// Rules, each with callers, repositories, actions, and tags if it is for some alone, separated by spaces.
    pub fn rules(rules: &[[&str; 4]]) -> Rules {
        fn parsed<T: FromStr<Err: fmt::Debug>>(list: &str) -> Vec<T> {
            list.split(' ').map(|text| text.parse().expect("valid")).collect()
        }
        let rule = |[who, repositories, actions, tags]: &[&str; 4]| Rule {
            who: parsed(who),
            repositories: parsed(repositories),
            actions: Actions::named(actions.split(' ')),
            tags: (!tags.is_empty()).then(|| parsed(tags)),
        };
        Rules::new(rules.iter().map(rule).collect())
    }

    fn user(name: &str, groups: &[&str]) -> Identity {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Identity::named(name.to_owned(), groups, Proof::Password)
    }

    #[test]
    fn a_rule_is_for_those_whom_it_names() {
        let ada = user("user:ada", &["dev", "org/qa"]);
        let ci = user("spiffe://example.org/ns/ci/sa/push", &[]);
        let mut guest = Identity::anonymous();
        guest.issuer = Some("https://gitlab.example.org".to_owned());
        for (who, callers) in [
            ("anonymous", [true, false, false, false]),
            ("authenticated", [false, true, true, false]),
            ("user:ada", [false, true, false, false]),
            ("user:a*", [false, true, false, false]),
            ("user:**", [false, true, false, false]),
            ("group:dev", [false, true, false, false]),
            ("group:org/*", [false, true, false, false]),
            ("group:ada", [false, false, false, false]),
            ("spiffe://example.org/ns/*/sa/push", [false, false, true, false]),
            ("spiffe://example.org/*", [false, false, false, false]),
            ("issuer:https://gitlab.example.org", [false, false, false, true]),
            ("dns:**", [false, false, false, false]),
        ] {
            let rules = rules(&[[who, "**", "pull", ""]]);
            let found = [&Identity::anonymous(), &ada, &ci, &guest]
                .map(|caller| rules.may_pull(caller, "a"));
            assert_eq!(found, callers, "{who}");
        }
    }

    #[test]
    fn what_no_rule_grants_is_denied_and_rules_add_up() {
        let rules = rules(&[
            ["anonymous authenticated", "public/**", "pull", ""],
            ["user:ada", "ada/* public/ada", "push pull", ""],
            ["user:ada", "ada/*", "delete", ""],
        ]);
        let ada = user("user:ada", &[]);
        let granted = |caller, name| rules.granted(caller, name, TagUse::None);
        assert_eq!(granted(&ada, "ada/x").actions, Actions::ALL);
        assert_eq!(granted(&ada, "ada/x").rules_for(Actions::ALL), [1, 2]);
        assert_eq!(granted(&ada, "public/ada").actions, Actions::PULL | Actions::PUSH);
        assert_eq!(granted(&ada, "public/ada").rules_for(Actions::PULL), [0]);
        assert_eq!(granted(&ada, "public/ada").rules_for(Actions::PULL | Actions::PUSH), [0, 1]);
        assert_eq!(granted(&ada, "ada").actions, Actions::NONE);
        let anonymous = Identity::anonymous();
        assert_eq!(granted(&anonymous, "public/a/b").actions, Actions::PULL);
        assert_eq!(granted(&anonymous, "ada/x").actions, Actions::NONE);
        assert!(!rules.may_pull(&anonymous, "ada/x") && rules.may_pull(&ada, "ada/x"));
    }

    #[test]
    fn tags_limit_pushes_and_deletions_and_nothing_else() {
        let rules = rules(&[["authenticated", "**", "*", "v* edge"]]);
        let ada = user("user:ada", &[]);
        let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
        for (of_request, expected) in [
            (TagUse::None, Actions::ALL),
            (TagUse::Any, Actions::PULL),
            (TagUse::These(&tags(&["v1"])), Actions::ALL),
            (TagUse::These(&tags(&["v1", "edge"])), Actions::ALL),
            (TagUse::These(&tags(&["v1", "latest"])), Actions::PULL),
            (TagUse::These(&tags(&["edge2"])), Actions::PULL),
        ] {
            assert_eq!(rules.granted(&ada, "a", of_request).actions, expected, "{of_request:?}");
        }
    }
}
