//! A JSON Web Token (RFC 7519) as it is written: a header, claims and a signature, each in base64. Read strictly, and
//! nothing is believed of it before [`Jwt::is_signed_by`] has said so.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use super::actions::ResourceActions;
use crate::registry::jose::{BASE64, PrivateKey, PublicKey, decode};
use crate::registry::strict_json;

/// The longest token that is looked at, in bytes. Envoy takes 60 KiB of headers in all, unless told otherwise.
pub const MAX_LENGTH: usize = 16 * 1024;

/// By how much the clock of whoever signs may be ahead of this one's.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidToken {
    /// It is no JSON Web Token, or a claim is not of its type, or there twice.
    #[error("it does not have the form of a JSON Web Token")]
    Form,
    /// None of the token servers that are trusted.
    #[error("its issuer is not trusted here")]
    Issuer,
    /// It is for somebody else.
    #[error("it is for another service")]
    Audience,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// Its time has not begun.
    #[error("it is not valid yet")]
    NotYet,
    /// No key of the issuer has signed it.
    #[error("its signature is not by a key of its issuer")]
    Signature,
    /// It is a robot's, and there is no such robot, or its time is over.
    #[error("it is unknown or has expired")]
    Robot,
    /// It is in the name of a user or robot who is not there any more.
    #[error("its user does not exist any more")]
    Gone,
}

/// A token's claims. Those that this registry does not know are kept as they are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// A claim that is a text; empty if it is absent.
    pub fn text(&self, name: &str) -> Result<&str, InvalidToken> {
        match self.0.get(name) {
            None => Ok(""),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(InvalidToken::Form),
        }
    }

    /// A claim that is a list of texts, or one text; empty if it is absent.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, InvalidToken> {
        match self.0.get(name) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text.clone()]),
            Some(Value::Array(list)) => texts(list).ok_or(InvalidToken::Form),
            Some(_) => Err(InvalidToken::Form),
        }
    }

    /// What the token grants: its `access` claim.
    pub fn access(&self) -> Result<Vec<ResourceActions>, InvalidToken> {
        match self.0.get("access") {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(list)) => {
                list.iter().map(resource).collect::<Option<_>>().ok_or(InvalidToken::Form)
            }
            Some(_) => Err(InvalidToken::Form),
        }
    }

    /// A time (RFC 7519, section 2, "NumericDate"), since 1970.
    fn time(&self, name: &str) -> Result<Option<Duration>, InvalidToken> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => {
                let seconds = value.as_f64().ok_or(InvalidToken::Form)?;
                let time = Duration::try_from_secs_f64(seconds).map_err(|_| InvalidToken::Form)?;
                Ok(Some(time))
            }
        }
    }

    /// Checks that the token is for `audience` and that its time is now. Gives the end of it, since 1970: a token
    /// without an end is refused.
    pub fn check(&self, audience: &str, now: SystemTime) -> Result<Duration, InvalidToken> {
        if !self.texts("aud")?.iter().any(|of_token| of_token == audience) {
            return Err(InvalidToken::Audience);
        }
        let now = since_1970(now);
        let end = self.time("exp")?.ok_or(InvalidToken::Form)?;
        if end <= now {
            return Err(InvalidToken::Expired);
        }
        for begin in ["nbf", "iat"] {
            if self.time(begin)?.is_some_and(|begin| begin > now + CLOCK_SKEW) {
                return Err(InvalidToken::NotYet);
            }
        }
        Ok(end)
    }
}

/// The texts of a list; `None` if it has anything else.
fn texts(list: &[Value]) -> Option<Vec<String>> {
    list.iter().map(|text| text.as_str().map(str::to_owned)).collect()
}

/// An entry of the `access` claim; `None` if it is none.
fn resource(entry: &Value) -> Option<ResourceActions> {
    let text = |name| Some(entry.get(name)?.as_str()?.to_owned());
    let actions = match entry.get("actions") {
        None => Vec::new(),
        Some(actions) => texts(actions.as_array()?)?,
    };
    let class = if entry.get("class").is_some() { text("class")? } else { String::new() };
    Some(ResourceActions { kind: text("type")?, name: text("name")?, class, actions })
}

/// The time since 1970; none for one before.
pub fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// What a reader must understand, of which this one understands nothing (RFC 7515, section 4.1.11).
    crit: Option<Value>,
}

/// A token that has been read, and not verified.
#[derive(Debug)]
pub struct Jwt<'a> {
    /// What it claims.
    pub claims: Claims,
    algorithm: String,
    key_id: Option<String>,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Jwt<'a> {
    /// Reads a token.
    ///
    /// # Errors
    ///
    /// [`InvalidToken::Form`].
    pub fn parse(text: &'a str) -> Result<Self, InvalidToken> {
        if text.len() > MAX_LENGTH {
            return Err(InvalidToken::Form);
        }
        let read = || {
            let (signed, signature) = text.rsplit_once('.')?;
            let (header, claims) = signed.split_once('.')?;
            let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
            // Of two claims of a name, another reader may take the other (RFC 7519, section 4).
            let Value::Object(claims) = strict_json::parse(&decode(claims)?).ok()? else {
                return None;
            };
            if header.crit.is_some() {
                return None;
            }
            let (algorithm, key_id) = (header.alg, header.kid);
            Some(Self {
                claims: Claims(claims),
                algorithm,
                key_id,
                signed,
                signature: decode(signature)?,
            })
        };
        read().ok_or(InvalidToken::Form)
    }

    /// Whether one of these keys, which have ids perhaps, has signed it. A token that names a key is verified by that
    /// one alone.
    pub fn is_signed_by<'k>(
        &self,
        keys: impl IntoIterator<Item = (Option<&'k str>, &'k PublicKey)>,
    ) -> bool {
        let may_be = |id: Option<&str>| match (&self.key_id, id) {
            (Some(named), Some(id)) => named == id,
            _ => true,
        };
        let mut keys = keys.into_iter().filter(|(id, _)| may_be(*id));
        keys.any(|(_, key)| key.verifies(&self.algorithm, self.signed.as_bytes(), &self.signature))
    }
}

/// Writes a token and signs it by ES256; `None` if that is impossible, which nothing is known for.
pub fn sign(claims: &impl Serialize, key: &PrivateKey) -> Option<String> {
    let header = serde_json::json!({ "typ": "JWT", "alg": "ES256", "kid": key.id() });
    let claims = serde_json::to_string(claims).ok()?;
    let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims));
    let signature = key.sign(signed.as_bytes())?;
    Some(format!("{signed}.{}", BASE64.encode(signature)))
}
