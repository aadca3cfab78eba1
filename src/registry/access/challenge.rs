//! The answers to requests that are not allowed.

use http::HeaderValue;
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};

use super::Access;
use super::authentication::Refusal;
use super::decision::Reason;
use super::need::{Need, RepositoryNeed, Tags};
use crate::registry::Request;
use crate::registry::http::error::{Error, ErrorCode};

impl Access {
    /// The answer to a request whose caller is not known.
    pub fn refused(&self, request: &Request, need: &Need<'_>, refusal: Refusal) -> Error {
        if refusal.is_failed_login() {
            request.exchange.note_failed_login();
        }
        let (message, error) = match refusal {
            Refusal::TooMany(seconds) => return too_many(seconds),
            Refusal::Unreadable => {
                ("the Authorization header is neither Bearer nor Basic".to_owned(), None)
            }
            Refusal::Password => ("there is no such user with such a password".to_owned(), None),
            Refusal::Token(why) => (format!("the token is refused: {why}"), Some("invalid_token")),
        };
        let answer = Error::new(ErrorCode::Unauthorized, message);
        answer.with_header(WWW_AUTHENTICATE, self.challenge(request, need, error))
    }

    /// The answer to a request that its caller may not make.
    pub fn denied(&self, request: &Request, need: &Need<'_>, reason: Reason) -> Error {
        if reason != Reason::NoCredentials {
            request.exchange.note_denial();
        }
        let (message, error) = match reason {
            Reason::Tags => return tags_denied(need),
            Reason::NoCredentials => ("authentication is required", None),
            Reason::Insufficient => {
                ("the caller, or its token, may not do this", Some("insufficient_scope"))
            }
        };
        let mut answer = Error::new(ErrorCode::Unauthorized, message);
        let scopes = need.scopes();
        if !scopes.is_empty() {
            answer = answer.with_detail(scopes);
        }
        answer.with_header(WWW_AUTHENTICATE, self.challenge(request, need, error))
    }

    /// What the client has to come back with (RFC 6750, section 3).
    fn challenge(&self, request: &Request, need: &Need<'_>, error: Option<&str>) -> HeaderValue {
        let mut challenge = format!(
            r#"Bearer realm="{}",service="{}""#,
            self.realm(request),
            self.tokens.service()
        );
        let scopes = need.scopes();
        if !scopes.is_empty() {
            challenge.push_str(&format!(r#",scope="{scopes}""#));
        }
        if let Some(error) = error {
            challenge.push_str(&format!(r#",error="{error}""#));
        }
        // None of it has anything but visible ASCII: names, hosts, and what the configuration was checked for.
        HeaderValue::try_from(challenge).unwrap_or(HeaderValue::from_static("Bearer"))
    }
}

/// 429, because credentials were wrong too often, or tokens asked for.
pub fn too_many(seconds: u32) -> Error {
    let message = format!(
        "too many wrong credentials, or requests for tokens, of late; try again in {seconds} seconds"
    );
    Error::new(ErrorCode::TooManyRequests, message)
        .with_header(RETRY_AFTER, HeaderValue::from(seconds))
}

/// 403: another token would not help.
fn tags_denied(need: &Need<'_>) -> Error {
    let message = match need {
        Need::Repository(RepositoryNeed { name, tags: Tags::These(tags), .. }) => {
            format!("the rules do not let you set or delete the tag {} in {name}", tags.join(", "))
        }
        Need::Repository(RepositoryNeed { name, .. }) => format!(
            "the rules let you delete some tags of {name} alone, and this would take away others with them"
        ),
        _ => "the rules do not allow this".to_owned(),
    };
    Error::new(ErrorCode::Denied, message)
}
