//! The configuration of access control. No error that it gives shows a secret.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::{ConfigError, duration};
use crate::registry::access::{
    Access, Accounts, ExtAuthzSource, Group, Issuer, JwtSource, Names, Robot, Rule, Rules, Signing,
    Sources, Tokens, User, user_subject,
};
use crate::registry::glob::Glob;
use crate::registry::{PrivateKey, PublicJwk, PublicKey};

/// The shortest life of a token: some clients take no less.
const LIFETIME_MIN: Duration = Duration::from_secs(60);

/// The longest life of a token, for which it can't be taken back.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessConfig {
    /// The P-256 key that signs tokens: a JWK, or PEM.
    key: PrivateKey,
    /// Further keys whose tokens are valid: those that signed before, or will.
    #[serde(default, deserialize_with = "secrets")]
    accepted_keys: Vec<PrivateKey>,
    /// The `aud` of tokens, and the `service` of challenges; `moorage` unless set.
    #[serde(default = "default_service")]
    service: String,
    /// The `iss` of tokens; the same as `service` unless set.
    issuer: Option<String>,
    /// The address of the token endpoint, as clients reach it; derived from each request unless set.
    realm: Option<String>,
    /// How long a token is valid; five minutes unless set.
    #[serde(default = "default_lifetime", deserialize_with = "duration")]
    token_lifetime: Duration,
    /// Users with their passwords, as lines of htpasswd.
    #[serde(default, deserialize_with = "secrets")]
    users: Vec<User>,
    /// Robots with their tokens.
    #[serde(default, deserialize_with = "secrets")]
    tokens: Vec<Robot>,
    /// The members of groups: `user:NAME`, or the name alone, or those of certificates.
    #[serde(default)]
    groups: BTreeMap<String, Vec<Glob>>,
    /// The names in client certificates that are callers: `spiffe://…`, or `dns:…`.
    #[serde(default)]
    certificates: Vec<Glob>,
    /// The tokens that Envoy's `jwt_authn` filter verifies.
    #[serde(default)]
    jwt: Vec<JwtConfig>,
    /// What Envoy's `ext_authz` filter leaves in metadata.
    ext_authz: Option<ExtAuthzConfig>,
    /// Other token servers, whose tokens say what a caller may do.
    #[serde(default)]
    issuers: Vec<IssuerConfig>,
    /// The rules.
    #[serde(default)]
    rules: Vec<Rule>,
}

/// Tokens that name a caller, which Envoy's `jwt_authn` filter verifies.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct JwtConfig {
    /// The provider's `payload_in_metadata`.
    payload: String,
    /// The claim that names the caller.
    #[serde(default = "default_subject")]
    subject: String,
    /// The claim that has its groups; none unless set.
    groups: Option<String>,
    /// What is put before the names of callers and groups.
    #[serde(default)]
    prefix: String,
}

/// What Envoy's `ext_authz` filter leaves in metadata.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExtAuthzConfig {
    /// The key of the caller's name.
    subject: String,
    /// The key of the caller's groups; none unless set.
    groups: Option<String>,
    /// What is put before the names of callers and groups.
    #[serde(default)]
    prefix: String,
}

/// Another token server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerConfig {
    /// The `iss` of its tokens.
    issuer: String,
    /// The `aud` of its tokens for this registry; `service` unless set.
    audience: Option<String>,
    /// Its keys, as a JWKS (RFC 7517, section 5).
    keys: Option<Jwks>,
    /// In the place of `keys`: the `payload_in_metadata` of the provider by which `jwt_authn` verifies its tokens.
    payload: Option<String>,
    /// The claim that names the caller.
    #[serde(default = "default_subject")]
    subject: String,
    /// The claim that has its groups; none unless set.
    groups: Option<String>,
    /// What is put before the names of callers and groups.
    #[serde(default)]
    prefix: String,
}

/// A set of keys. Servers publish keys for other algorithms and uses with them, which are left alone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Jwks {
    keys: Vec<PublicJwk>,
}

fn default_service() -> String {
    "moorage".to_owned()
}

fn default_lifetime() -> Duration {
    Duration::from_secs(300)
}

fn default_subject() -> String {
    "sub".to_owned()
}

/// Reads a list whose entries are secrets, so that no complaint about a type quotes one.
fn secrets<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let Value::Array(list) = Value::deserialize(deserializer)? else {
        return Err(de::Error::custom("must be a list"));
    };
    let read = |(number, entry)| {
        T::deserialize(entry).map_err(|error: serde_json::Error| {
            let error = error.to_string();
            let problem = if quotes(&error) { "is of the wrong type" } else { &error };
            de::Error::custom(format!("[{number}]: {problem}"))
        })
    };
    list.into_iter().enumerate().map(read).collect()
}

/// Whether an error of the library repeats what was there instead of what should be.
fn quotes(error: &str) -> bool {
    ["invalid type", "invalid value"].iter().any(|begin| error.starts_with(begin))
}

/// Reads the whole object: were it a text, for example a key, an error would quote it.
pub fn object<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<AccessConfig>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        object @ Value::Object(_) => {
            let config = serde_path_to_error::deserialize(object)
                .map_err(|error| de::Error::custom(format!("{}: {}", error.path(), error.inner())));
            config.map(Some)
        }
        _ => Err(de::Error::custom("must be an object")),
    }
}

impl AccessConfig {
    /// Reads the object `access` by itself.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`], whose text names the field.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        let value: Value = serde_json::from_slice(json)?;
        let config = object(value).map_err(|error: serde_json::Error| ConfigError::Access {
            field: "access".to_owned(),
            problem: error.to_string(),
        })?;
        let config = config.ok_or_else(|| ConfigError::Access {
            field: "access".to_owned(),
            problem: "must be an object".to_owned(),
        })?;
        config.check()?;
        Ok(config)
    }

    /// Finds what has the right type and can't be right.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let refuse = |field: &str, problem: String| {
            Err(ConfigError::Access { field: format!("access.{field}"), problem })
        };
        for (field, text) in [("service", Some(&self.service)), ("issuer", self.issuer.as_ref())] {
            if text.is_some_and(|text| !is_quotable(text) || text.is_empty()) {
                let problem = "must be visible ASCII, without quotes and backslashes";
                return refuse(field, problem.to_owned());
            }
        }
        let is_address = |realm: &String| {
            let rest = realm.strip_prefix("https://").or_else(|| realm.strip_prefix("http://"));
            rest.is_some_and(|rest| !rest.is_empty()) && is_quotable(realm)
        };
        if self.realm.as_ref().is_some_and(|realm| !is_address(realm)) {
            let problem = "must be the address of the token endpoint: https://HOST/auth/token";
            return refuse("realm", problem.to_owned());
        }
        if !(LIFETIME_MIN..=LIFETIME_MAX).contains(&self.token_lifetime) {
            return refuse("token_lifetime", "must be from 1m to 24h".to_owned());
        }
        let mut names: Vec<_> = self.users.iter().map(|user| &user.name).collect();
        names.sort_unstable();
        if let Some([name, _]) = names.array_windows().find(|[one, next]| one == next) {
            return refuse("users", format!("has {name:?} twice"));
        }
        for issuer in &self.issuers {
            if let Some(problem) = issuer.problem(self.issuer_name()) {
                return refuse("issuers", format!("{:?}: {problem}", issuer.issuer));
            }
        }
        Ok(())
    }

    fn issuer_name(&self) -> &str {
        self.issuer.as_deref().unwrap_or(&self.service)
    }

    /// The access control of a worker.
    pub fn access(&self) -> Access {
        let accounts = Accounts {
            users: self.users.clone(),
            robots: self.tokens.clone(),
            groups: self.groups.iter().map(group).collect(),
        };
        let signing = Signing {
            key: self.key.clone(),
            accepted_keys: self.accepted_keys.clone(),
            issuer: self.issuer_name().to_owned(),
            lifetime: self.token_lifetime,
        };
        let issuers = self.issuers.iter().filter_map(|issuer| issuer.issuer(&self.service));
        let tokens = Tokens::new(self.service.clone(), signing, issuers.collect());
        let jwt = self.jwt.iter().map(JwtConfig::source);
        let sources = Sources {
            certificates: self.certificates.clone(),
            jwt: jwt.chain(self.issuers.iter().filter_map(IssuerConfig::source)).collect(),
            ext_authz: self.ext_authz.as_ref().map(ExtAuthzConfig::source),
        };
        let rules = Rules::new(self.rules.clone());
        Access::new(rules, accounts, sources, tokens, self.realm.clone())
    }
}

/// Whether a text can stand in the quotes of a challenge as it is.
fn is_quotable(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'\\'))
}

fn group((name, members): (&String, &Vec<Glob>)) -> Group {
    let is_whole = |member: &str| {
        member.contains("://") || member.starts_with("user:") || member.starts_with("dns:")
    };
    let member = |member: &Glob| match is_whole(member.as_str()) {
        true => member.clone(),
        // As long as it was, and as valid, but for what is put before it.
        false => user_subject(member.as_str()).parse().unwrap_or_else(|_| member.clone()),
    };
    Group { name: name.clone(), members: members.iter().map(member).collect() }
}

impl JwtConfig {
    fn source(&self) -> JwtSource {
        let names = names(&self.subject, &self.groups, &self.prefix);
        JwtSource { payload: self.payload.clone(), names, issuer: None }
    }
}

impl ExtAuthzConfig {
    fn source(&self) -> ExtAuthzSource {
        ExtAuthzSource {
            subject: self.subject.clone(),
            groups: self.groups.clone(),
            prefix: self.prefix.clone(),
        }
    }
}

impl IssuerConfig {
    fn problem(&self, own: &str) -> Option<&'static str> {
        if self.issuer == own {
            return Some("is the name of this registry's own tokens: set access.issuer to another");
        }
        match (&self.keys, &self.payload) {
            (Some(_), Some(_)) => Some("has keys and payload, and can only have one of them"),
            (None, None) => Some("needs keys (a JWKS), or payload (what jwt_authn verifies)"),
            (Some(keys), None) if keys.readable().next().is_none() => {
                Some("has no key for ES256, RS256 or EdDSA (P-256, RSA up to 8192 bits, Ed25519)")
            }
            _ => None,
        }
    }

    /// The token server, if its tokens are verified here.
    fn issuer(&self, service: &str) -> Option<Issuer> {
        Some(Issuer {
            issuer: self.issuer.clone(),
            audience: self.audience.clone().unwrap_or_else(|| service.to_owned()),
            keys: self.keys.as_ref()?.readable().collect(),
            names: names(&self.subject, &self.groups, &self.prefix),
        })
    }

    /// Where its claims are, if `jwt_authn` verifies them.
    fn source(&self) -> Option<JwtSource> {
        Some(JwtSource {
            payload: self.payload.clone()?,
            names: names(&self.subject, &self.groups, &self.prefix),
            issuer: Some(self.issuer.clone()),
        })
    }
}

impl Jwks {
    fn readable(&self) -> impl Iterator<Item = (Option<String>, PublicKey)> {
        self.keys.iter().filter_map(|jwk| Some((jwk.kid.clone(), jwk.read()?)))
    }
}

fn names(subject: &str, groups: &Option<String>, prefix: &str) -> Names {
    Names { subject: subject.to_owned(), groups: groups.clone(), prefix: prefix.to_owned() }
}
