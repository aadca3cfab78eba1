//! Faults of a store, and how an answer of its is told from a fault.

use std::fmt;

use http::StatusCode;
use thiserror::Error;

use super::s3::{error_code, error_message};

/// The kinds of fault that are answered differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The store can't be reached, breaks the connection, or says that it has too much to do.
    Unavailable,
    /// The store did not answer in time.
    TimedOut,
    /// The store answered with an error, or with something that makes no sense.
    Failed,
    /// The store was not asked: the proxy has as much under way as it has memory for.
    Busy,
}

/// A storage fault. Never "there is no such object", which is no fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct StoreError {
    kind: StoreErrorKind,
    message: String,
    answer: Option<Box<StoreAnswer>>,
}

/// A store's answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreAnswer {
    /// The status.
    pub status: StatusCode,
    /// The `Code` of S3's error document, if there was one.
    pub code: Option<String>,
    /// Its `Message`. It may name what clients are not to know, so it is for operators alone.
    pub message: Option<String>,
}

impl StoreError {
    /// A fault with a message for the person who runs the registry.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, message, answer: None }
    }

    /// The kind of fault.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether the store can't be reached, hangs, has too much to do or fails: not one that has said no, or that was not
    /// asked.
    pub fn is_outage(&self) -> bool {
        match self.kind {
            StoreErrorKind::Unavailable | StoreErrorKind::TimedOut => true,
            StoreErrorKind::Failed => {
                let answer = self.answer.as_ref();
                answer.is_some_and(|answer| answer.status.is_server_error())
                    && !self.is_unknown_operation()
            }
            StoreErrorKind::Busy => false,
        }
    }

    /// Whether the store doesn't know what was asked of it.
    pub fn is_unknown_operation(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| {
            answer.status == StatusCode::NOT_IMPLEMENTED
                || answer.code.as_deref() == Some("NotImplemented")
        })
    }

    /// The store's answer, if there was one.
    pub fn answer(&self) -> Option<&StoreAnswer> {
        self.answer.as_deref()
    }
}

/// An answer of the store that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The one that is no fault: there is no such object.
    NoSuchKey,
    /// Any other.
    Other(StoreError),
}

impl Fault {
    /// Classifies an answer by its status and its body, S3's error document.
    ///
    /// Only S3's own `NoSuchKey` counts as "no such object". A 404 that comes from something else
    /// (a bucket that isn't there, a proxy in between) must not make images vanish.
    pub fn of(status: StatusCode, body: &[u8]) -> Self {
        let code = error_code(body);
        if status == StatusCode::NOT_FOUND && code.as_deref() == Some("NoSuchKey") {
            return Self::NoSuchKey;
        }
        let kind = match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                StoreErrorKind::Unavailable
            }
            StatusCode::GATEWAY_TIMEOUT => StoreErrorKind::TimedOut,
            _ => StoreErrorKind::Failed,
        };
        let message = match kind {
            StoreErrorKind::Unavailable => "the blob store can't be reached or is overloaded",
            StoreErrorKind::TimedOut => "the blob store did not answer in time",
            StoreErrorKind::Failed | StoreErrorKind::Busy => "the blob store failed",
        };
        let answer = StoreAnswer { status, code, message: error_message(body) };
        let message = format!("{message} ({answer})");
        Self::Other(StoreError { kind, message, answer: Some(Box::new(answer)) })
    }
}

/// Status and code, with a hint where the cause is a well-known one.
impl fmt::Display for StoreAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it answered {}", self.status.as_u16())?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        match self.status {
            StatusCode::FORBIDDEN => f.write_str(
                "; check the credentials, and that they may list the bucket: \
                 without that, S3 answers so for objects that aren't there",
            ),
            StatusCode::NOT_FOUND => f.write_str(
                "; check the bucket's name, the store's address and the proxy's route to it",
            ),
            status if status.is_redirection() => f.write_str("; check the bucket's region"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn document(code: &str) -> String {
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>")
    }

    #[test]
    fn only_no_such_key_means_absent() {
        use StoreErrorKind::{Failed, TimedOut, Unavailable};
        let rows: &[(u16, String, Option<StoreErrorKind>)] = &[
            (404, document("NoSuchKey"), None),
            (404, document("NoSuchBucket"), Some(Failed)),
            (404, "<html><body>not found</body></html>".into(), Some(Failed)),
            (404, String::new(), Some(Failed)),
            (500, document("NoSuchKey"), Some(Failed)),
            (500, document("InternalError"), Some(Failed)),
            (403, document("AccessDenied"), Some(Failed)),
            (301, document("PermanentRedirect"), Some(Failed)),
            (204, String::new(), Some(Failed)),
            (503, document("SlowDown"), Some(Unavailable)),
            (503, "no healthy upstream".into(), Some(Unavailable)),
            (429, String::new(), Some(Unavailable)),
            (504, "upstream request timeout".into(), Some(TimedOut)),
        ];
        for (status, body, kind) in rows {
            let status = StatusCode::from_u16(*status).expect("a status");
            let found = match Fault::of(status, body.as_bytes()) {
                Fault::NoSuchKey => None,
                Fault::Other(error) => Some(error.kind()),
            };
            assert_eq!(found, *kind, "{status} {body}");
        }
    }

    #[test]
    fn the_message_names_status_and_code() {
        let Fault::Other(error) =
            Fault::of(StatusCode::FORBIDDEN, document("AccessDenied").as_bytes())
        else {
            panic!("a refusal is a fault");
        };
        assert!(error.to_string().contains("403 AccessDenied"), "{error}");
    }

    #[test]
    fn an_unknown_operation_is_told_from_a_failure() {
        let is_unknown = |status, body: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            match Fault::of(status, body.as_bytes()) {
                Fault::Other(error) => error.is_unknown_operation(),
                Fault::NoSuchKey => panic!("that is no fault"),
            }
        };
        assert!(is_unknown(501, ""));
        assert!(is_unknown(400, &document("NotImplemented")));
        assert!(!is_unknown(500, ""));
    }
}
