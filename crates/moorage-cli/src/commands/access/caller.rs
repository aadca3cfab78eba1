//! Whom a command line means by `--as`, and whom the filter would take that for.

use std::time::SystemTime;

use moorage::registry::access::{
    Access, Caller, Identity, Proof, ROBOT_PREFIX, is_account_name, user_subject,
};

/// Somebody who calls, as the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A caller without a name.
    Anonymous,
    /// One with this name after `user:`. It may have a prefix with a colon, if another server names it.
    User(String),
    /// One with a client certificate of this name: `spiffe://…`, or `dns:…`.
    Certificate(String),
}

/// A caller, and how it came to be that.
#[derive(Debug)]
pub struct KnownCaller {
    /// The caller, with all its groups.
    pub caller: Caller,
    /// Those of its groups that the configuration puts it into.
    pub configured_groups: Vec<String>,
    /// What may not be meant.
    pub warnings: Vec<String>,
}

impl Named {
    /// Reads a name. What is wrong with it is said without showing it: it may be a token.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let is_plain = |name: &str| !name.is_empty() && !name.contains(char::is_control);
        if text.starts_with(ROBOT_PREFIX) {
            return Err("takes the name of a robot, not its token");
        }
        let named = match text.split_once(':') {
            None if text == "anonymous" => Some(Self::Anonymous),
            None => Some(Self::User(text.to_owned())).filter(|_| is_account_name(text)),
            Some(("user", name)) if is_plain(name) => Some(Self::User(name.to_owned())),
            Some(("dns", name)) if is_plain(name) => Some(Self::Certificate(text.to_owned())),
            Some(("spiffe", name)) if name.starts_with("//") && is_plain(name) => {
                Some(Self::Certificate(text.to_owned()))
            }
            _ => None,
        };
        named.ok_or("must be anonymous, NAME, user:NAME, spiffe://NAME or dns:NAME")
    }

    /// The caller that this access control makes of it, with these groups, which a token of another server has.
    pub fn known(&self, access: &Access, groups: Vec<String>, now: SystemTime) -> KnownCaller {
        let mut warnings = Vec::new();
        let identity = match self {
            Self::User(name) => {
                warnings.extend(account_warnings(access, name, now));
                Identity::named(user_subject(name), Vec::new(), proof(access, name, now))
            }
            Self::Certificate(name) if access.sources().has_certificate(name) => {
                Identity::named(name.clone(), Vec::new(), Proof::Certificate)
            }
            Self::Certificate(_) => {
                let taken_for = "no entry of certificates is for it, so it is taken for anonymous";
                warnings.push(taken_for.to_owned());
                Identity::anonymous()
            }
            Self::Anonymous => Identity::anonymous(),
        };
        if identity.is_anonymous() && !groups.is_empty() {
            warnings.push("no caller without a name has groups in practice".to_owned());
        }
        let configured_groups = access.caller_known_as(identity.clone()).identity.groups;
        let caller = access.caller_known_as(Identity { groups, ..identity });
        KnownCaller { caller, configured_groups, warnings }
    }
}

/// How the name would be proven.
fn proof(access: &Access, name: &str, now: SystemTime) -> Proof {
    let proven = |proof: &Proof| {
        let identity = Identity::named(user_subject(name), Vec::new(), *proof);
        access.accounts().lasts_until(&identity, now).is_some()
    };
    [Proof::Password, Proof::RobotToken].into_iter().find(proven).unwrap_or(Proof::Jwt)
}

fn account_warnings(access: &Access, name: &str, now: SystemTime) -> Option<String> {
    if proof(access, name, now) != Proof::Jwt {
        return None;
    }
    let had_token = access.accounts().robots.iter().any(|robot| robot.name == name);
    let problem = match had_token {
        true => format!("every token of {name:?} has expired"),
        false => format!("there is no account {name:?}"),
    };
    Some(match names_others(access) {
        true => format!("{problem}: only another server or filter can name this caller"),
        false => format!("{problem}: whoever calls by that name is refused"),
    })
}

/// Whether a filter before Moorage, or a token of another server, may name callers.
fn names_others(access: &Access) -> bool {
    let sources = access.sources();
    !sources.jwt.is_empty() || sources.ext_authz.is_some() || !access.tokens().issuers().is_empty()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::access::configuration;
    use moorage_test_support::accounts::key;

    fn known(name: &str, groups: &[&str], now: SystemTime) -> KnownCaller {
        let config = json!({
            "key": key(),
            "users": ["ada:$2y$05$NHFVFxLN6UTwJghZxZIXVu1Y2UfC8511cK9JLb2Did1ReDyxC6EFu"],
            "tokens": [{ "name": "ci", "sha256": "5".repeat(64), "expires": "2030-01-01T00:00:00Z" }],
            "groups": { "dev": ["ada", "spiffe://example.org/*"], "ops": ["ada"] },
            "certificates": ["spiffe://example.org/*"],
        });
        let settings = configuration::parse(config.to_string().as_bytes()).expect("valid");
        let access = settings.access.expect("access control");
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Named::parse(name).expect("a name").known(&access, groups, now)
    }

    fn in_2029() -> SystemTime {
        humantime::parse_rfc3339("2029-12-31T23:59:59Z").expect("a time")
    }

    #[test]
    fn callers_are_named_as_in_rules_or_by_their_accounts() {
        let user = |name: &str| Ok(Named::User(name.to_owned()));
        let certificate = |name: &str| Ok(Named::Certificate(name.to_owned()));
        for (text, expected) in [
            ("anonymous", Ok(Named::Anonymous)),
            ("ada", user("ada")),
            ("user:ada", user("ada")),
            ("user:anonymous", user("anonymous")),
            ("user:gitlab:ada", user("gitlab:ada")),
            ("spiffe://example.org/ci", certificate("spiffe://example.org/ci")),
            ("dns:ci.example.org", certificate("dns:ci.example.org")),
        ] {
            assert_eq!(Named::parse(text), expected, "{text:?}");
        }
        for text in ["", "user:", "dns:", "group:dev", "spiffe:x", "issuer:x", "a\tb", "mrg_x"] {
            assert!(Named::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_caller_has_the_groups_of_the_configuration_and_of_its_token() {
        let ada = known("ada", &["qa", "ops"], in_2029());
        assert_eq!(ada.caller.identity.groups, ["qa", "ops", "dev"]);
        assert_eq!(ada.configured_groups, ["dev", "ops"]);
        assert_eq!(ada.caller.identity.proof, Proof::Password);
        assert!(ada.warnings.is_empty() && ada.caller.grants.is_none());
        let pod = known("spiffe://example.org/ci", &[], in_2029());
        assert_eq!(
            (pod.configured_groups.as_slice(), pod.warnings.len()),
            (&["dev".to_owned()][..], 0)
        );
        let anonymous = known("anonymous", &[], in_2029());
        assert!(anonymous.caller.identity.is_anonymous() && anonymous.warnings.is_empty());
    }

    #[test]
    fn a_caller_who_can_not_be_is_warned_of() {
        let later = in_2029() + std::time::Duration::from_secs(1);
        for (name, now, warning) in [
            ("bob", in_2029(), "no account \"bob\""),
            ("user:bob", in_2029(), "no account \"bob\""),
            ("ci", later, "expired"),
            ("spiffe://elsewhere.org/ci", in_2029(), "taken for anonymous"),
        ] {
            let warnings = known(name, &[], now).warnings;
            assert!(warnings.len() == 1 && warnings[0].contains(warning), "{name}: {warnings:?}");
        }
        assert!(known("ci", &[], in_2029()).warnings.is_empty());
        let elsewhere = known("spiffe://elsewhere.org/ci", &[], in_2029());
        assert!(elsewhere.caller.identity.is_anonymous());
    }
}
