//! The configuration of access control. No error that it gives shows a secret.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::ConfigError;
use super::fields::{Fields, wrong};
use crate::registry::access::{
    Access, Accounts, Actions, ExtAuthzSource, Group, Issuer, JwtSource, Names, Robot, Rule, Rules,
    Signing, Sources, TokenHashError, Tokens, User, is_account_name, user_subject,
};
use crate::registry::glob::Glob;
use crate::registry::{PrivateKey, PublicJwk, strict_json};

/// The `service` unless set.
const DEFAULT_SERVICE: &str = "moorage";

/// How long a token is valid unless set.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);

/// The claim that names a caller unless set.
const DEFAULT_SUBJECT: &str = "sub";

/// The shortest life of a token: some clients take no less.
const LIFETIME_MIN: Duration = Duration::from_secs(60);

/// The longest life of a token, for which it can't be taken back.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessConfig {
    /// The P-256 key that signs tokens: a JWK, or PEM.
    key: PrivateKey,
    /// Further keys whose tokens are valid: those that signed before, or will.
    accepted_keys: Vec<PrivateKey>,
    /// The `aud` of tokens, and the `service` of challenges; `moorage` unless set.
    service: String,
    /// The `iss` of tokens; the same as `service` unless set.
    issuer: String,
    /// The address of the token endpoint, as clients reach it; derived from each request unless set.
    realm: Option<String>,
    /// How long a token is valid; five minutes unless set.
    token_lifetime: Duration,
    /// Users with their passwords, as lines of htpasswd.
    users: Vec<User>,
    /// Robots with their tokens.
    tokens: Vec<Robot>,
    /// The members of groups: `user:NAME`, or the name alone, or those of certificates.
    groups: Vec<Group>,
    /// The names in client certificates that are callers: `spiffe://…`, or `dns:…`.
    certificates: Vec<Glob>,
    /// The tokens that Envoy's `jwt_authn` filter verifies.
    jwt: Vec<JwtSource>,
    /// What Envoy's `ext_authz` filter leaves in metadata.
    ext_authz: Option<ExtAuthzSource>,
    /// Other token servers, whose tokens say what a caller may do.
    issuers: Vec<IssuerConfig>,
    /// The rules.
    rules: Vec<Rule>,
}

/// Another token server.
#[derive(Debug, Clone, PartialEq, Eq)]
struct IssuerConfig {
    /// The `iss` of its tokens.
    issuer: String,
    /// The `aud` of its tokens for this registry; `service` unless set.
    audience: Option<String>,
    /// Its keys, as a JWKS (RFC 7517, section 5).
    keys: Vec<PublicJwk>,
    /// In the place of `keys`: the `payload_in_metadata` of the provider by which `jwt_authn` verifies its tokens.
    payload: Option<String>,
    names: Names,
}

impl AccessConfig {
    /// Reads the object `access` from its JSON.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`], whose text names the field.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        Self::read(strict_json::parse(json)?)
    }

    /// Reads the object `access`.
    pub(super) fn read(value: Value) -> Result<Self, ConfigError> {
        let mut fields = Fields::new("access", value)?;
        let service = fields.take_text("service")?.unwrap_or_else(|| DEFAULT_SERVICE.to_owned());
        let config = Self {
            key: read_key(&mut fields)?,
            accepted_keys: read_keys(&mut fields)?,
            issuer: fields.take_text("issuer")?.unwrap_or_else(|| service.clone()),
            service,
            realm: fields.take_text("realm")?,
            token_lifetime: read_lifetime(&mut fields)?,
            users: fields.take_parsed_list("users")?,
            tokens: fields.take_objects("tokens", read_robot)?,
            groups: read_groups(&mut fields)?,
            certificates: fields.take_parsed_list("certificates")?,
            jwt: fields.take_objects("jwt", read_jwt)?,
            ext_authz: read_ext_authz(&mut fields)?,
            issuers: fields.take_objects("issuers", read_issuer)?,
            rules: fields.take_objects("rules", read_rule)?,
        };
        config.check(&fields)?;
        fields.end()?;
        Ok(config)
    }

    /// Finds what has the right type and can't be right.
    fn check(&self, fields: &Fields) -> Result<(), ConfigError> {
        for (name, text) in [("service", &self.service), ("issuer", &self.issuer)] {
            if !is_quotable(text) {
                return Err(
                    fields.wrong(name, "must be visible ASCII, without quotes and backslashes")
                );
            }
        }
        let is_address = |realm: &String| {
            let rest = realm.strip_prefix("https://").or_else(|| realm.strip_prefix("http://"));
            rest.is_some_and(is_quotable)
        };
        if self.realm.as_ref().is_some_and(|realm| !is_address(realm)) {
            let problem = "must be the address of the token endpoint: https://HOST/auth/token";
            return Err(fields.wrong("realm", problem));
        }
        for (number, user) in self.users.iter().enumerate() {
            if self.users.iter().take(number).any(|other| other.name == user.name) {
                let problem = format!("is the name {:?} again", user.name);
                return Err(fields.wrong(&format!("users[{number}]"), problem));
            }
        }
        match self.issuers.iter().position(|issuer| issuer.issuer == self.issuer) {
            None => Ok(()),
            Some(number) => {
                let problem =
                    "is the name of this registry's own tokens: set access.issuer to another";
                Err(fields.wrong(&format!("issuers[{number}].issuer"), problem))
            }
        }
    }

    /// The access control of a worker.
    pub fn access(&self) -> Access {
        let accounts = Accounts {
            users: self.users.clone(),
            robots: self.tokens.clone(),
            groups: self.groups.clone(),
        };
        let signing = Signing {
            key: self.key.clone(),
            accepted_keys: self.accepted_keys.clone(),
            issuer: self.issuer.clone(),
            lifetime: self.token_lifetime,
        };
        let issuers = self.issuers.iter().filter_map(|issuer| issuer.issuer(&self.service));
        let tokens = Tokens::new(self.service.clone(), signing, issuers.collect());
        let jwt = self.jwt.iter().cloned();
        let sources = Sources {
            certificates: self.certificates.clone(),
            jwt: jwt.chain(self.issuers.iter().filter_map(IssuerConfig::source)).collect(),
            ext_authz: self.ext_authz.clone(),
        };
        let rules = Rules::new(self.rules.clone());
        Access::new(rules, accounts, sources, tokens, self.realm.clone())
    }
}

/// Whether a text can stand in the quotes of a challenge as it is.
fn is_quotable(text: &str) -> bool {
    let is_allowed = |byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'\\');
    !text.is_empty() && text.bytes().all(is_allowed)
}

fn read_key(fields: &mut Fields) -> Result<PrivateKey, ConfigError> {
    match fields.take("key") {
        Some(key) => PrivateKey::read(&key).map_err(|error| fields.wrong("key", error)),
        None => {
            let problem = "is missing: a P-256 private key, by which tokens are signed (openssl ecparam -genkey \
                           -name prime256v1 -noout)";
            Err(fields.wrong("key", problem))
        }
    }
}

fn read_keys(fields: &mut Fields) -> Result<Vec<PrivateKey>, ConfigError> {
    let mut keys = Vec::new();
    for (place, key) in fields.take_list("accepted_keys")? {
        keys.push(PrivateKey::read(&key).map_err(|error| wrong(place, error))?);
    }
    Ok(keys)
}

fn read_lifetime(fields: &mut Fields) -> Result<Duration, ConfigError> {
    let lifetime = fields.take_time("token_lifetime")?.unwrap_or(DEFAULT_LIFETIME);
    if (LIFETIME_MIN..=LIFETIME_MAX).contains(&lifetime) {
        return Ok(lifetime);
    }
    Err(fields.wrong("token_lifetime", "must be from \"1m\" to \"24h\""))
}

fn read_robot(mut fields: Fields) -> Result<Robot, ConfigError> {
    let name = fields.need_text("name")?;
    if !is_account_name(&name) {
        let problem = "must have a character at least, and neither colons nor control characters";
        return Err(fields.wrong("name", problem));
    }
    let hash = fields.need_text("sha256")?;
    let hash = hash.parse().map_err(|error: TokenHashError| fields.wrong("sha256", error))?;
    let expires = match fields.take_text("expires")? {
        None => None,
        Some(text) => Some(humantime::parse_rfc3339_weak(&text).map_err(|_| {
            fields.wrong("expires", "must be a time such as \"2027-02-23T12:00:00Z\"")
        })?),
    };
    fields.end()?;
    Ok(Robot { name, hash, expires })
}

/// A member is the name of a user, or the name of a caller in rules as a whole.
fn read_groups(fields: &mut Fields) -> Result<Vec<Group>, ConfigError> {
    let mut groups = fields.take_object("groups")?;
    let is_whole = |member: &Glob| {
        let member = member.as_str();
        member.contains("://") || member.starts_with("user:") || member.starts_with("dns:")
    };
    let mut all = Vec::new();
    for name in groups.names() {
        let member = |member: Glob| match is_whole(&member) {
            true => member,
            // As valid as it was, but for what is put before it.
            false => user_subject(member.as_str()).parse().unwrap_or(member),
        };
        let members = groups.take_parsed_list(&name)?.into_iter().map(member).collect();
        all.push(Group { name, members });
    }
    Ok(all)
}

fn read_names(fields: &mut Fields) -> Result<Names, ConfigError> {
    Ok(Names {
        subject: fields.take_text("subject")?.unwrap_or_else(|| DEFAULT_SUBJECT.to_owned()),
        groups: fields.take_text("groups")?,
        prefix: fields.take_text("prefix")?.unwrap_or_default(),
    })
}

fn read_jwt(mut fields: Fields) -> Result<JwtSource, ConfigError> {
    let payload = fields.need_text("payload")?;
    let names = read_names(&mut fields)?;
    fields.end()?;
    Ok(JwtSource { payload, names, issuer: None })
}

fn read_ext_authz(fields: &mut Fields) -> Result<Option<ExtAuthzSource>, ConfigError> {
    if !fields.has("ext_authz") {
        return Ok(None);
    }
    let mut fields = fields.take_object("ext_authz")?;
    let subject = fields.need_text("subject")?;
    let groups = fields.take_text("groups")?;
    let prefix = fields.take_text("prefix")?.unwrap_or_default();
    fields.end()?;
    Ok(Some(ExtAuthzSource { subject, groups, prefix }))
}

fn read_issuer(mut fields: Fields) -> Result<IssuerConfig, ConfigError> {
    let issuer = fields.need_text("issuer")?;
    let audience = fields.take_text("audience")?;
    let payload = fields.take_text("payload")?;
    let names = read_names(&mut fields)?;
    let keys = match (fields.take("keys"), &payload) {
        (None, Some(_)) => Vec::new(),
        (Some(keys), None) => read_jwks(&fields, keys)?,
        _ => {
            let problem = "needs either keys (a JWKS), or payload (what jwt_authn verifies)";
            return Err(fields.wrong("keys", problem));
        }
    };
    fields.end()?;
    Ok(IssuerConfig { issuer, audience, keys, payload, names })
}

/// Reads a set of keys. Servers publish keys for other algorithms and uses with them, which are left alone.
fn read_jwks(fields: &Fields, value: Value) -> Result<Vec<PublicJwk>, ConfigError> {
    #[derive(Deserialize)]
    struct Jwks {
        keys: Vec<PublicJwk>,
    }
    let jwks = Jwks::deserialize(value);
    let jwks = jwks.map_err(|_| fields.wrong("keys", "must be a JWKS: {\"keys\": [...]}"))?;
    if !jwks.keys.iter().any(|jwk| jwk.read().is_some()) {
        let problem =
            "has no key for ES256, RS256 or EdDSA (P-256, RSA of up to 8192 bits, Ed25519)";
        return Err(fields.wrong("keys", problem));
    }
    Ok(jwks.keys)
}

fn read_rule(mut fields: Fields) -> Result<Rule, ConfigError> {
    let actions: Vec<Actions> = fields.need_parsed_list("actions")?;
    let tags: Vec<Glob> = fields.take_parsed_list("tags")?;
    let rule = Rule {
        who: fields.need_parsed_list("who")?,
        repositories: fields.need_parsed_list("repositories")?,
        actions: actions.into_iter().fold(Actions::NONE, |all, action| all | action),
        tags: (!tags.is_empty()).then_some(tags),
    };
    fields.end()?;
    Ok(rule)
}

impl IssuerConfig {
    /// The token server, if its tokens are verified here.
    fn issuer(&self, service: &str) -> Option<Issuer> {
        if self.payload.is_some() {
            return None;
        }
        let keys = self.keys.iter().filter_map(|jwk| Some((jwk.kid.clone(), jwk.read()?)));
        Some(Issuer {
            issuer: self.issuer.clone(),
            audience: self.audience.clone().unwrap_or_else(|| service.to_owned()),
            keys: keys.collect(),
            names: self.names.clone(),
        })
    }

    /// Where its claims are, if `jwt_authn` verifies them.
    fn source(&self) -> Option<JwtSource> {
        Some(JwtSource {
            payload: self.payload.clone()?,
            names: self.names.clone(),
            issuer: Some(self.issuer.clone()),
        })
    }
}
