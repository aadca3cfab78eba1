//! `/auth/token`: where clients get the tokens that they come back with.
//!
//! Whoever calls gets a token for what it asks and the rules grant, which may be less, or nothing: that is no error, the
//! client learns it from what the token is used for.
//!
//! Source: `distribution`'s "Token Authentication Specification" (`GET`) and "OAuth2 Token Authentication" (`POST`).

use bytes::Bytes;
use http::header::{CACHE_CONTROL, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Response};
use serde::Serialize;

use crate::registry::access::{
    Access, Caller, NameAndPassword, ROBOT_PREFIX, Refusal, ResourceActions, TOKEN_MAX_BYTES,
    parse_scopes,
};
use crate::registry::http::error::{Error, ErrorCode};
use crate::registry::http::reply::json;
use crate::registry::{Body, Request};

/// The largest form that is read, in bytes.
pub const FORM_MAX_BYTES: u64 = 64 * 1024;

/// The most scopes of one token. Clients ask for one or two.
const SCOPES_MAX: usize = 100;

/// A token is a secret.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

#[derive(Serialize)]
struct NewToken {
    token: String,
    /// The same, by the name that OAuth2 has for it.
    access_token: String,
    /// Its lifetime, in seconds.
    expires_in: u64,
    issued_at: String,
    /// What it grants, in answer to a form.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

/// `GET`, and `POST` with a form. No call to the store.
pub async fn issue(request: &Request, access: &Access) -> Result<Response<Bytes>, Error> {
    match request.method {
        Method::POST => issue_for_form(request, access).await,
        _ => {
            let scopes = scopes(request.query_values("scope"))?;
            let caller = access.caller(request).await;
            let caller = caller.map_err(|refusal| refused(request, None, refusal))?;
            sign(request, access, &caller, &scopes, false).await
        }
    }
}

async fn issue_for_form(request: &Request, access: &Access) -> Result<Response<Bytes>, Error> {
    let Body::Whole(form) = &request.body else {
        let message = "a POST for a token needs a form, which may have 65536 bytes at most";
        return Err(Error::new(ErrorCode::TokenRequestInvalid, message));
    };
    let values = |name: &'static str| {
        let pairs = form_urlencoded::parse(form);
        pairs.filter_map(move |(key, value)| (key == name).then_some(value))
    };
    let value = |name| values(name).next().map(|value| value.into_owned());
    let scopes = scopes(values("scope"))?;
    let environment = &*request.environment;
    let caller = match value("grant_type").as_deref() {
        Some("password") => {
            let name = value("username").unwrap_or_default();
            let password = value("password").unwrap_or_default();
            access.caller_with_password(&NameAndPassword { name, password }, environment).await
        }
        // A robot's token is good until it ends, as one to get others by.
        Some("refresh_token") => match value("refresh_token") {
            Some(token) if token.starts_with(ROBOT_PREFIX) => {
                access.caller_with_robot_token(&token, environment)
            }
            _ => Err(Refusal::Password),
        },
        _ => {
            let message =
                "the form's grant_type must be password, or refresh_token with a robot's token";
            return Err(Error::new(ErrorCode::TokenRequestInvalid, message));
        }
    };
    let caller = caller.map_err(|refusal| refused(request, None, refusal))?;
    sign(request, access, &caller, &scopes, true).await
}

/// Reads the values of `scope`, each of which may have several.
fn scopes(values: impl Iterator<Item = impl AsRef<str>>) -> Result<Vec<ResourceActions>, Error> {
    let mut scopes = Vec::new();
    for value in values {
        let more = parse_scopes(value.as_ref())
            .map_err(|error| Error::new(ErrorCode::TokenRequestInvalid, error.to_string()))?;
        scopes.extend(more);
        if scopes.len() > SCOPES_MAX {
            let message = format!("a token may have {SCOPES_MAX} scopes at most");
            return Err(Error::new(ErrorCode::TokenRequestInvalid, message));
        }
    }
    Ok(scopes)
}

async fn sign(
    request: &Request,
    access: &Access,
    caller: &Caller,
    scopes: &[ResourceActions],
    is_form: bool,
) -> Result<Response<Bytes>, Error> {
    // By a token one gets no other: else a stolen one would last for ever.
    if caller.grants.is_some() {
        return Err(refused(request, Some(caller), Refusal::Unreadable));
    }
    let environment = &request.environment;
    let admitted = access.admit_new_token(&**environment).await;
    admitted.map_err(|refusal| refused(request, Some(caller), refusal))?;
    let grants = access.grants(caller, scopes);
    request.exchange.note_verdict(Some(caller), Some(Vec::new()));
    let now = environment.now();
    let token = access.sign(caller, &grants, now, environment.nonce());
    let token = token.ok_or_else(|| Error::new(ErrorCode::Unknown, "the token can't be signed"))?;
    if token.len() > TOKEN_MAX_BYTES {
        let message =
            format!("the token would have more than {TOKEN_MAX_BYTES} bytes: ask for fewer scopes");
        return Err(Error::new(ErrorCode::TokenRequestInvalid, message));
    }
    let mut response = json(
        &NewToken {
            access_token: token.clone(),
            token,
            expires_in: access.tokens().lifetime().as_secs(),
            issued_at: humantime::format_rfc3339_seconds(now).to_string(),
            scope: is_form.then(|| written(&grants)),
        },
        "application/json",
    );
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    Ok(response)
}

/// Scopes, separated by spaces.
fn written(grants: &[ResourceActions]) -> String {
    let scope = |grant: &ResourceActions| {
        format!("{}:{}:{}", grant.kind, grant.name, grant.actions.join(","))
    };
    grants.iter().map(scope).collect::<Vec<_>>().join(" ")
}

/// The answer to whoever is not known, or comes with a token. The challenge is Basic here: no token leads to another.
fn refused(request: &Request, caller: Option<&Caller>, refusal: Refusal) -> Error {
    request.exchange.note_verdict(caller, None);
    if refusal.is_failed_login() {
        request.exchange.note_failed_login();
    }
    let message = match refusal {
        Refusal::TooMany(seconds) => return crate::registry::access::too_many(seconds),
        Refusal::Password => "there is no such user with such a password",
        Refusal::Unreadable | Refusal::Token(_) => {
            "tokens are given for a name and a password, or for a robot's token"
        }
    };
    let challenge = HeaderValue::from_static(r#"Basic realm="Moorage""#);
    Error::new(ErrorCode::Unauthorized, message).with_header(WWW_AUTHENTICATE, challenge)
}
