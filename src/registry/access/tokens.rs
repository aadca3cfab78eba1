//! Bearer tokens: those that this registry signs, and those of other token servers that it trusts.

use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::actions::ResourceActions;
use super::cursor::Cursors;
use super::expiring_cache::{ExpiringCache, Key};
use super::identity::{Identity, Proof};
use super::jwt::{self, Claims, InvalidToken, Jwt, since_1970};
use crate::registry::Nonce;
use crate::registry::http::beginning;
use crate::registry::jose::{BASE64, PrivateKey, PublicKey};

/// How much of an identity is logged, in bytes. Another's token may have a name of any length.
const LOG_NAME_MAX: usize = 1024;

/// How many verified tokens a worker remembers.
const REMEMBERED_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// A caller: who it is, and what its token lets it do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who it is.
    pub identity: Identity,
    /// What its token grants, beyond which it may do nothing; `None` for a caller without such a token.
    pub grants: Option<Vec<ResourceActions>>,
    /// The identity as the access log has it.
    log_name: Rc<str>,
}

impl Caller {
    /// A caller with this identity and what its token grants, if it has such a token.
    pub fn new(identity: Identity, grants: Option<Vec<ResourceActions>>) -> Self {
        let log_name = beginning(&identity.to_string(), LOG_NAME_MAX).into();
        Self { identity, grants, log_name }
    }

    /// The identity, and how it was proven, for the access log: no more than 1 KiB of it.
    pub fn log_name(&self) -> &Rc<str> {
        &self.log_name
    }
}

/// What tokens are signed with, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signing {
    /// The key that signs.
    pub key: PrivateKey,
    /// Further keys whose tokens are valid.
    pub accepted_keys: Vec<PrivateKey>,
    /// The `iss` of tokens.
    pub issuer: String,
    /// How long a token is valid.
    pub lifetime: Duration,
}

/// Another token server.
#[derive(Debug, Clone, PartialEq)]
pub struct Issuer {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// The `aud` that its tokens have for this registry.
    pub audience: String,
    /// Its keys, with their ids.
    pub keys: Vec<(Option<String>, PublicKey)>,
    /// What of a claim is whose name.
    pub names: Names,
}

/// How the names of rules are made from the claims of another's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The claim that names the caller.
    pub subject: String,
    /// The claim that has the groups.
    pub groups: Option<String>,
    /// What is put before both.
    pub prefix: String,
}

impl Names {
    /// The name of a caller in rules; empty for an anonymous one.
    pub fn subject(&self, of_token: &str) -> String {
        match of_token {
            "" => String::new(),
            name => format!("user:{}{name}", self.prefix),
        }
    }

    /// The names of groups in rules.
    pub fn groups(&self, of_token: Vec<String>) -> Vec<String> {
        of_token.into_iter().map(|group| format!("{}{group}", self.prefix)).collect()
    }
}

/// All that is needed to sign and verify tokens.
#[derive(Debug)]
pub struct Tokens {
    signing: Signing,
    /// The public keys of `signing`, the one that signs first.
    own_keys: Vec<(String, PublicKey)>,
    /// The `aud` of tokens for this registry.
    service: String,
    issuers: Vec<Issuer>,
    verified: ExpiringCache<Rc<Caller>>,
}

/// The claims of a token that is signed here.
///
/// Source: `distribution`'s "Token Authentication Implementation". `groups` and `proof` are of this registry alone.
#[derive(Serialize)]
struct NewClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: u64,
    nbf: u64,
    iat: u64,
    jti: String,
    access: &'a [ResourceActions],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    groups: &'a [String],
    proof: &'static str,
}

impl Tokens {
    /// Tokens for `service`, signed here or by these token servers.
    pub fn new(service: String, signing: Signing, issuers: Vec<Issuer>) -> Self {
        let own_keys = std::iter::once(&signing.key).chain(&signing.accepted_keys);
        let own_keys = own_keys.map(|key| (key.id().to_owned(), key.public_key())).collect();
        Self { signing, own_keys, service, issuers, verified: ExpiringCache::new(REMEMBERED_MAX) }
    }

    /// The `aud` of tokens for this registry.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The other token servers whose tokens are verified here.
    pub fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// What encrypts cursors, by the same key.
    pub fn cursors(&self) -> Cursors {
        Cursors::new(&self.signing.key)
    }

    /// How long a token is valid that is signed here.
    pub fn lifetime(&self) -> Duration {
        self.signing.lifetime
    }

    /// Signs a token; `None` if that is impossible, which nothing is known for.
    pub fn sign(
        &self,
        caller: &Identity,
        grants: &[ResourceActions],
        now: SystemTime,
        nonce: Nonce,
    ) -> Option<String> {
        let Signing { key, issuer, lifetime, .. } = &self.signing;
        let now = since_1970(now).as_secs();
        let claims = NewClaims {
            iss: issuer,
            sub: &caller.subject,
            aud: &self.service,
            exp: now + lifetime.as_secs(),
            nbf: now,
            iat: now,
            jti: BASE64.encode(nonce.bits().to_be_bytes()),
            access: grants,
            groups: &caller.groups,
            proof: caller.proof.as_str(),
        };
        jwt::sign(&claims, key)
    }

    /// The caller whose token this is, if it has been verified before. One SHA-256.
    pub fn known(&self, token: &str, now: SystemTime) -> Option<Rc<Caller>> {
        self.verified.get(&key_of(token), since_1970(now))
    }

    /// Whether a token says to be by a server whose tokens are verified here.
    pub fn verifies(&self, token: &str) -> bool {
        Jwt::parse(token).is_ok_and(|jwt| {
            let issuer = jwt.claims.text("iss").unwrap_or_default();
            issuer == self.signing.issuer || self.issuers.iter().any(|known| known.issuer == issuer)
        })
    }

    /// Verifies a token, which takes a millisecond, and remembers it until it ends. `complete` makes a caller of what
    /// the token says and tells until when there is one, since 1970, or refuses it.
    ///
    /// # Errors
    ///
    /// Why the token is refused.
    pub fn verify(
        &self,
        token: &str,
        now: SystemTime,
        complete: impl FnOnce(&mut Caller) -> Result<Duration, InvalidToken>,
    ) -> Result<Rc<Caller>, InvalidToken> {
        let jwt = Jwt::parse(token)?;
        let issuer = jwt.claims.text("iss")?;
        let (mut caller, end) = if issuer == self.signing.issuer {
            let end = jwt.claims.check(&self.service, now)?;
            let keys = self.own_keys.iter().map(|(id, key)| (Some(id.as_str()), key));
            verify_signature(&jwt, keys)?;
            (own_caller(&jwt.claims)?, end)
        } else {
            let issuer = self.issuers.iter().find(|known| known.issuer == issuer);
            let issuer = issuer.ok_or(InvalidToken::Issuer)?;
            let end = jwt.claims.check(&issuer.audience, now)?;
            let keys = issuer.keys.iter().map(|(id, key)| (id.as_deref(), key));
            verify_signature(&jwt, keys)?;
            (issuer.caller(&jwt.claims)?, end)
        };
        let end = complete(&mut caller)?.min(end);
        let caller = Rc::new(caller);
        self.verified.insert(key_of(token), Rc::clone(&caller), end);
        Ok(caller)
    }
}

fn key_of(token: &str) -> Key {
    Sha256::digest(token).into()
}

fn verify_signature<'k>(
    jwt: &Jwt,
    keys: impl Iterator<Item = (Option<&'k str>, &'k PublicKey)>,
) -> Result<(), InvalidToken> {
    if jwt.is_signed_by(keys) { Ok(()) } else { Err(InvalidToken::Signature) }
}

/// The caller of a token that was signed here.
fn own_caller(claims: &Claims) -> Result<Caller, InvalidToken> {
    let identity = Identity {
        subject: claims.text("sub")?.to_owned(),
        groups: claims.texts("groups")?,
        issuer: None,
        proof: Proof::named(claims.text("proof")?).ok_or(InvalidToken::Form)?,
    };
    Ok(Caller::new(identity, Some(claims.access()?)))
}

impl Issuer {
    fn caller(&self, claims: &Claims) -> Result<Caller, InvalidToken> {
        let groups = match &self.names.groups {
            Some(claim) => claims.texts(claim)?,
            None => Vec::new(),
        };
        let identity = Identity {
            subject: self.names.subject(claims.text(&self.names.subject)?),
            groups: self.names.groups(groups),
            issuer: Some(self.issuer.clone()),
            proof: Proof::IssuerToken,
        };
        Ok(Caller::new(identity, Some(claims.access()?)))
    }
}
