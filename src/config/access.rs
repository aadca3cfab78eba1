//! The configuration of access control. No error that it gives shows a secret.

use std::time::Duration;

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
    let Some(keys) = value.get("keys").and_then(Value::as_array) else {
        return Err(fields.wrong("keys", "must be a JWKS: {\"keys\": [...]}"));
    };
    let keys: Vec<_> = keys.iter().map(PublicJwk::from_json).collect();
    if !keys.iter().any(|jwk| jwk.read().is_some()) {
        let problem =
            "has no key for ES256, RS256 or EdDSA (P-256, RSA of up to 8192 bits, Ed25519)";
        return Err(fields.wrong("keys", problem));
    }
    Ok(keys)
}

fn read_rule(mut fields: Fields) -> Result<Rule, ConfigError> {
    let actions: Vec<Actions> = fields.need_parsed_list("actions")?;
    // An empty list is not the same as none: whoever writes one hardly means every tag.
    let has_tags = fields.has("tags");
    let tags: Vec<Glob> = fields.take_parsed_list("tags")?;
    if has_tags && tags.is_empty() {
        return Err(fields.wrong("tags", "must have an entry at least: leave it out for any tag"));
    }
    let rule = Rule {
        who: fields.need_parsed_list("who")?,
        repositories: fields.need_parsed_list("repositories")?,
        actions: actions.into_iter().fold(Actions::NONE, |all, action| all | action),
        tags: has_tags.then_some(tags),
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::config::Config;
    use crate::registry::Mount;
    use crate::registry::private_key_tests::jwk as key;

    const USER: &str = "ada:$2y$04$NHFVFxLN6UTwJghZxZIXVubLaLeO0XGdvYfKmmHmjwazQ77YPGUu.";

    /// All fields, as a configuration may have them.
    fn all() -> Value {
        let mut public = key();
        public.as_object_mut().expect("an object").remove("d");
        json!({
            "key": key(),
            "accepted_keys": [key()],
            "service": "registry.example.org",
            "issuer": "moorage",
            "realm": "https://registry.example.org/auth/token",
            "token_lifetime": "10m",
            "users": [USER],
            "tokens": [{ "name": "ci", "sha256": "ab".repeat(32), "expires": "2027-02-23T12:00:00Z" }],
            "groups": { "dev": ["ada", "user:bob", "spiffe://example.org/**"] },
            "certificates": ["spiffe://example.org/**", "dns:*.example.org"],
            "jwt": [{ "payload": "oidc", "subject": "email", "groups": "groups", "prefix": "oidc:" }],
            "ext_authz": { "subject": "user", "groups": "groups", "prefix": "ext:" },
            "issuers": [
                { "issuer": "https://gitlab.example.org", "audience": "registry", "keys": { "keys": [public] } },
                { "issuer": "https://harbor.example.org", "payload": "harbor" },
            ],
            "rules": [
                { "who": ["anonymous", "user:*"], "repositories": ["**"], "actions": ["pull"] },
                { "who": ["group:dev"], "repositories": ["a/*"], "actions": ["*"], "tags": ["v*"] },
            ],
        })
    }

    fn parse(json: &Value) -> Result<AccessConfig, ConfigError> {
        AccessConfig::parse(json.to_string().as_bytes())
    }

    #[test]
    fn every_field_is_read_and_few_are_needed() {
        let config = parse(&all()).expect("a valid configuration");
        assert_eq!(config.token_lifetime, Duration::from_secs(600));
        let members: Vec<_> = config.groups[0].members.iter().map(Glob::as_str).collect();
        assert_eq!(members, ["user:ada", "user:bob", "spiffe://example.org/**"]);
        assert_eq!((config.rules.len(), config.issuers.len()), (2, 2));
        let least = parse(&json!({ "key": key() })).expect("a valid configuration");
        assert_eq!((least.service.as_str(), least.issuer.as_str()), ("moorage", "moorage"));
        assert_eq!(least.token_lifetime, Duration::from_secs(300));
    }

    #[test]
    fn what_can_not_be_right_is_refused_with_the_name_of_the_field_and_without_what_it_is() {
        let secret = "mrg_a-secret";
        let rule = |field: &str, value: Value| {
            let mut rule =
                json!({ "who": ["anonymous"], "repositories": ["a"], "actions": ["pull"] });
            rule[field] = value;
            json!([rule])
        };
        for (field, value, named) in [
            ("key", json!(null), "access.key: is missing"),
            ("key", json!(secret), "access.key"),
            ("key", json!({ "kty": "oct", "k": secret }), "access.key"),
            ("accepted_keys", json!(secret), "access.accepted_keys: must be a list"),
            ("accepted_keys", json!([secret]), "access.accepted_keys[0]"),
            ("users", json!(secret), "access.users: must be a list"),
            ("users", json!([secret]), "access.users[0]: a user must be NAME:HASH"),
            ("users", json!([format!("ada:{secret}")]), "access.users[0]: the password of \"ada\""),
            ("users", json!([{ "ada": secret }]), "access.users[0]: must be a text"),
            ("users", json!([USER, USER]), "access.users[1]: is the name \"ada\" again"),
            ("tokens", json!([secret]), "access.tokens[0]: must be an object"),
            ("tokens", json!([{ "name": "ci" }]), "access.tokens[0].sha256: is missing"),
            ("tokens", json!([{ "name": "" }]), "access.tokens[0].name"),
            ("tokens", json!([{ "name": "a:b" }]), "access.tokens[0].name"),
            ("tokens", json!([{ "name": "ci", "sha256": secret }]), "access.tokens[0].sha256"),
            ("tokens", json!([{ "name": "ci", "token": secret }]), "access.tokens[0]"),
            (
                "tokens",
                json!([{ "name": "ci", "sha256": "ab".repeat(32), "expires": secret }]),
                "access.tokens[0].expires",
            ),
            ("groups", json!({ "dev": "ada" }), "access.groups.dev: must be a list"),
            ("service", json!("a \"b\""), "access.service"),
            ("realm", json!("registry.example.org"), "access.realm"),
            ("realm", json!("https://a\"b"), "access.realm"),
            ("token_lifetime", json!("30s"), "access.token_lifetime"),
            ("token_lifetime", json!(90_000), "access.token_lifetime"),
            ("jwt", json!([{}]), "access.jwt[0].payload: is missing"),
            ("ext_authz", json!({}), "access.ext_authz.subject: is missing"),
            ("issuers", json!([{ "issuer": "x" }]), "access.issuers[0].keys"),
            (
                "issuers",
                json!([{ "issuer": "x", "keys": { "keys": [] } }]),
                "access.issuers[0].keys",
            ),
            (
                "issuers",
                json!([{ "issuer": "moorage", "payload": "x" }]),
                "access.issuers[0].issuer",
            ),
            ("rules", json!([{}]), "access.rules[0].actions"),
            ("rules", rule("who", json!(["everybody"])), "access.rules[0].who[0]"),
            ("rules", rule("who", json!([])), "access.rules[0].who"),
            ("rules", rule("who", json!(["user:"])), "access.rules[0].who[0]"),
            (
                "rules",
                rule("repositories", json!([""])),
                "access.rules[0].repositories[0]: is empty",
            ),
            ("rules", rule("repositories", json!(["a/***"])), "access.rules[0].repositories[0]"),
            ("rules", rule("actions", json!(["read"])), "access.rules[0].actions[0]"),
            ("rules", rule("tag", json!(["v*"])), "access.rules[0].tag"),
            ("rules", rule("tags", json!([])), "access.rules[0].tags: must have an entry"),
            ("passwords", json!([secret]), "access.passwords"),
        ] {
            let mut json = all();
            json[field] = value;
            let message = parse(&json).expect_err("must be refused").to_string();
            assert!(message.contains(named), "{field}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
        for text in ["", "[]", "\"mrg_a-secret\"", "5", "{\"key\":1,\"key\":2}"] {
            let message = AccessConfig::parse(text.as_bytes()).expect_err("no object").to_string();
            assert!(!message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn nothing_shows_a_secret() {
        let shown = format!("{:?}", parse(&all()).expect("a valid configuration"));
        for secret in ["NHFVFx", "ya-p2EW6", "abab"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn with_access_control_blobs_are_mounted_from_where_the_caller_may_pull() {
        let config = |mount: Option<&str>, access: bool| {
            let mut json = json!({ "store": { "cluster": "c", "authority": "s3", "bucket": "b" } });
            json["mount"] = mount.into();
            if access {
                json["access"] = json!({ "key": key() });
            }
            Config::parse(json.to_string().as_bytes())
        };
        let mount = |mount, access| config(mount, access).expect("a valid configuration").mount;
        assert_eq!(mount(None, false), Mount::Off);
        assert_eq!(mount(None, true), Mount::From);
        assert_eq!(mount(Some("off"), true), Mount::Off);
        assert_eq!(mount(Some("anywhere"), false), Mount::Anywhere);
        let error = config(Some("anywhere"), true).expect_err("must be refused").to_string();
        assert!(error.starts_with("mount: "), "{error}");
    }
}
