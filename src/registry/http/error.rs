//! The API's errors: the codes, the one table from code to status, and the JSON they are sent as.
//!
//! Source: OCI distribution specification, "Error codes", and for what it leaves open the table of
//! the `distribution` registry.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::beginning;
use super::reply::with_common_headers;
use crate::oci::Digest;
use crate::store::{StoreError, StoreErrorKind, WriteError};

/// When to try again what a collection of garbage stands in the way of, in seconds.
const RETRY_AFTER_COLLECTION: HeaderValue = HeaderValue::from_static("30");

/// When to try again what can't be done just now, in seconds (RFC 9110, section 10.2.3).
const RETRY_SOON: HeaderValue = HeaderValue::from_static("1");

/// The most bytes of a text that stands in the detail of an error.
const DETAIL_MAX: usize = 1024;

/// The reasons for which a request fails, in the API's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Something failed that the client can't help.
    Unknown,
    /// The method or operation is not supported.
    Unsupported,
    /// The store can't be reached or is overloaded.
    Unavailable,
    /// The store did not answer in time.
    StoreTimedOut,
    /// The digest in the request is malformed, or does not match the content.
    DigestInvalid,
    /// The repository's name is malformed.
    NameInvalid,
    /// The path is no endpoint of the API.
    NoSuchEndpoint,
    /// The tag is malformed.
    TagInvalid,
    /// The repository has no such manifest.
    ManifestUnknown,
    /// The repository has no such blob.
    BlobUnknown,
    /// There is no such upload session under way.
    BlobUploadUnknown,
    /// The upload can't be closed as it is.
    BlobUploadInvalid,
    /// The blob is larger than the store takes.
    BlobTooLarge,
    /// The repository has nothing.
    NameUnknown,
    /// The number of entries for a page is malformed or too large.
    PaginationNumberInvalid,
    /// The range asked for lies outside the content, or the range sent is not the one that comes next.
    RangeInvalid,
    /// The ranges asked for cost more than they are worth.
    RangesTooCostly,
    /// The manifest is malformed.
    ManifestInvalid,
    /// The manifest is larger than any that is accepted.
    ManifestTooLarge,
    /// The manifest's signatures do not vouch for it.
    ManifestUnverified,
    /// The manifest refers to something that the repository does not have.
    ManifestBlobUnknown,
    /// A condition of the request does not hold.
    PreconditionFailed,
    /// The request has a condition that can't be held to.
    ConditionUnsupported,
    /// The request carries a body of a size that can't be right.
    SizeInvalid,
    /// The request's body did not come in time.
    BodyTimedOut,
    /// The request for a token is malformed.
    TokenRequestInvalid,
    /// The client has not said who it is.
    Unauthorized,
    /// The client may not do this.
    Denied,
    /// The client asks too often.
    TooManyRequests,
}

impl ErrorCode {
    /// The one table: how each code is written, and the status it is sent with.
    fn entry(self) -> (&'static str, StatusCode) {
        match self {
            Self::Unknown => ("UNKNOWN", StatusCode::INTERNAL_SERVER_ERROR),
            Self::Unsupported => ("UNSUPPORTED", StatusCode::METHOD_NOT_ALLOWED),
            Self::Unavailable => ("UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE),
            // The API's code for a registry that can't serve just now, with the status that says why.
            Self::StoreTimedOut => ("UNAVAILABLE", StatusCode::GATEWAY_TIMEOUT),
            Self::DigestInvalid => ("DIGEST_INVALID", StatusCode::BAD_REQUEST),
            Self::NameInvalid => ("NAME_INVALID", StatusCode::BAD_REQUEST),
            // The API has no code of its own for a path that is none of its endpoints.
            Self::NoSuchEndpoint => ("NAME_UNKNOWN", StatusCode::NOT_FOUND),
            Self::TagInvalid => ("TAG_INVALID", StatusCode::BAD_REQUEST),
            Self::ManifestUnknown => ("MANIFEST_UNKNOWN", StatusCode::NOT_FOUND),
            Self::BlobUnknown => ("BLOB_UNKNOWN", StatusCode::NOT_FOUND),
            Self::BlobUploadUnknown => ("BLOB_UPLOAD_UNKNOWN", StatusCode::NOT_FOUND),
            Self::BlobUploadInvalid => ("BLOB_UPLOAD_INVALID", StatusCode::BAD_REQUEST),
            Self::BlobTooLarge => ("SIZE_INVALID", StatusCode::PAYLOAD_TOO_LARGE),
            Self::NameUnknown => ("NAME_UNKNOWN", StatusCode::NOT_FOUND),
            Self::PaginationNumberInvalid => ("PAGINATION_NUMBER_INVALID", StatusCode::BAD_REQUEST),
            Self::RangeInvalid => ("RANGE_INVALID", StatusCode::RANGE_NOT_SATISFIABLE),
            // They could be answered, so 416 would be wrong; and clients know this status as "too many".
            Self::RangesTooCostly => ("RANGE_INVALID", StatusCode::BAD_REQUEST),
            Self::ManifestInvalid => ("MANIFEST_INVALID", StatusCode::BAD_REQUEST),
            Self::ManifestUnverified => ("MANIFEST_UNVERIFIED", StatusCode::BAD_REQUEST),
            // The specification asks for this status, and no code of the API goes with it.
            Self::ManifestTooLarge => ("MANIFEST_INVALID", StatusCode::PAYLOAD_TOO_LARGE),
            Self::ManifestBlobUnknown => ("MANIFEST_BLOB_UNKNOWN", StatusCode::BAD_REQUEST),
            // The API has no conditional writes, so these codes are of this registry alone.
            Self::PreconditionFailed => ("PRECONDITION_FAILED", StatusCode::PRECONDITION_FAILED),
            Self::ConditionUnsupported => ("UNSUPPORTED", StatusCode::NOT_IMPLEMENTED),
            Self::SizeInvalid => ("SIZE_INVALID", StatusCode::BAD_REQUEST),
            // The API has no code for it.
            Self::BodyTimedOut => ("UNKNOWN", StatusCode::REQUEST_TIMEOUT),
            // The API has no code for it; clients go by the status.
            Self::TokenRequestInvalid => ("UNSUPPORTED", StatusCode::BAD_REQUEST),
            Self::Unauthorized => ("UNAUTHORIZED", StatusCode::UNAUTHORIZED),
            Self::Denied => ("DENIED", StatusCode::FORBIDDEN),
            Self::TooManyRequests => ("TOOMANYREQUESTS", StatusCode::TOO_MANY_REQUESTS),
        }
    }

    /// The code as it is written in the API's JSON.
    pub fn as_str(self) -> &'static str {
        self.entry().0
    }

    /// The HTTP status the code is sent with.
    pub fn status(self) -> StatusCode {
        self.entry().1
    }
}

/// The refusal of a write that needs what a collection of garbage is about to remove. It is over in a few minutes; whoever
/// pushes again then uploads what was removed.
pub fn being_collected(digest: &Digest) -> Error {
    let message = "garbage is being collected, and this was not in use until now; push again in a few minutes";
    Error::new(ErrorCode::Unavailable, message)
        .with_detail(digest.as_str())
        .with_header(RETRY_AFTER, RETRY_AFTER_COLLECTION)
}

/// A failed request: what the client is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Error {
    code: ErrorCode,
    message: String,
    detail: Option<Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Further entries of the same answer.
    more: Vec<Error>,
}

impl Error {
    /// An error with a message for the person who reads the client's output.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: None, headers: Vec::new(), more: Vec::new() }
    }

    /// The endpoint does not have the method.
    pub fn method_not_allowed(allowed: &[&str]) -> Self {
        let allowed = allowed.join(", ");
        // The names of methods are ASCII letters.
        let value = HeaderValue::try_from(&allowed).unwrap_or(HeaderValue::from_static(""));
        Self::new(
            ErrorCode::Unsupported,
            format!("the operation is unsupported; this endpoint takes {allowed}"),
        )
        .with_header(ALLOW, value)
    }

    /// Adds what a program may want to read: the digest, the reference, the offending field. Of a text that a client has made
    /// too long for any of these the beginning does.
    pub fn with_detail(mut self, detail: impl Into<Value>) -> Self {
        self.detail = Some(match detail.into() {
            Value::String(text) if text.len() > DETAIL_MAX => beginning(&text, DETAIL_MAX).into(),
            detail => detail,
        });
        self
    }

    /// Adds a header to the answer.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Several errors in one answer, which has the status of the first; `None` if there are none.
    pub fn all(errors: Vec<Error>) -> Option<Self> {
        let mut errors = errors.into_iter();
        let mut first = errors.next()?;
        first.more.extend(errors);
        Some(first)
    }

    /// The code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The answer: the status of the table and the JSON envelope, with the headers that every reply
    /// carries, and the [`ErrorCode`] as an extension for whoever logs it. What can't be done just now is worth another try soon.
    pub fn into_response(self) -> Response<Bytes> {
        let mut response = with_common_headers(Response::new(envelope(&self)));
        *response.status_mut() = self.code.status();
        response.extensions_mut().insert(self.code);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let is_worth_another_try =
            matches!(self.code, ErrorCode::Unavailable | ErrorCode::TooManyRequests);
        headers.extend(self.headers);
        if is_worth_another_try {
            headers.entry(RETRY_AFTER).or_insert(RETRY_SOON);
        }
        response
    }
}

impl From<StoreError> for Error {
    /// A storage fault is never "not found". What exactly failed stands in the message, because the
    /// person who sees it first is often the one who runs the registry.
    fn from(error: StoreError) -> Self {
        let code = match error.kind() {
            StoreErrorKind::Busy | StoreErrorKind::Unavailable => ErrorCode::Unavailable,
            StoreErrorKind::TimedOut => ErrorCode::StoreTimedOut,
            StoreErrorKind::Failed => ErrorCode::Unknown,
        };
        Self::new(code, error.to_string())
    }
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ChecksumMismatch => {
                let message = "the blob does not have the digest of the request";
                Self::new(ErrorCode::DigestInvalid, message)
            }
            WriteError::LengthRequired => {
                let message = "the blob store wants to know a body's length first: have the proxy buffer \
                               bodies of unknown length (file_system_buffer) on the routes to the store";
                StoreError::new(StoreErrorKind::Failed, message).into()
            }
            WriteError::TooLarge => {
                let message = "the blob store does not take so much in one request: \
                               upload the blob in chunks";
                Self::new(ErrorCode::BlobTooLarge, message)
            }
            WriteError::Fault(error) => error.into(),
        }
    }
}

/// The JSON and its headers for a reply that the proxy gives by itself: for a request it refuses, a
/// limit that is reached, a timeout. The status is the proxy's own.
pub fn proxy_error(status: StatusCode) -> Response<Bytes> {
    let code = [
        ErrorCode::Unauthorized,
        ErrorCode::Denied,
        ErrorCode::TooManyRequests,
        ErrorCode::Unavailable,
        ErrorCode::StoreTimedOut,
        ErrorCode::ManifestTooLarge,
    ]
    .into_iter()
    .find(|code| code.status() == status)
    .unwrap_or(ErrorCode::Unknown);
    let message = format!("the proxy answered {}", status.as_u16());
    let mut response = Error::new(code, message).into_response();
    *response.status_mut() = status;
    response
}

/// `{"errors":[{"code":…,"message":…,"detail":…}]}`
fn envelope(error: &Error) -> Bytes {
    #[derive(Serialize)]
    struct Envelope<'a> {
        errors: Vec<Entry<'a>>,
    }
    #[derive(Serialize)]
    struct Entry<'a> {
        code: &'static str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<&'a Value>,
    }
    let entries = std::iter::once(error).chain(&error.more).map(|error| Entry {
        code: error.code.as_str(),
        message: &error.message,
        detail: error.detail.as_ref(),
    });
    let envelope = Envelope { errors: entries.collect() };
    // Texts and JSON values always serialise; a reply without a body would still have its status.
    serde_json::to_vec(&envelope).map(Bytes::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn an_error_is_sent_with_its_status_and_the_json_envelope() {
        let response = Error::new(ErrorCode::BlobUnknown, "no \"blob\"")
            .with_detail("sha256:0")
            .into_response();
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        let body: Value = serde_json::from_slice(response.body()).expect("JSON");
        let expected = serde_json::json!({"errors": [
            {"code": "BLOB_UNKNOWN", "message": "no \"blob\"", "detail": "sha256:0"}
        ]});
        assert_eq!(body, expected);
    }

    #[test]
    fn an_absent_detail_is_left_out() {
        let body = Error::new(ErrorCode::Unknown, "m").into_response().into_body();
        assert_eq!(&body[..], br#"{"errors":[{"code":"UNKNOWN","message":"m"}]}"#);
    }

    #[test]
    fn a_wrong_method_is_answered_with_allow() {
        let response = Error::method_not_allowed(&["GET", "HEAD"]).into_response();
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()[ALLOW], "GET, HEAD");
    }

    #[test]
    fn what_cannot_be_done_just_now_is_worth_another_try() {
        for code in [ErrorCode::Unavailable, ErrorCode::TooManyRequests] {
            assert_eq!(Error::new(code, "m").into_response().headers()[RETRY_AFTER], "1");
        }
        for code in [ErrorCode::StoreTimedOut, ErrorCode::Unknown, ErrorCode::BlobUnknown] {
            let response = Error::new(code, "m").into_response();
            assert!(!response.headers().contains_key(RETRY_AFTER), "{code:?}");
        }
    }

    #[test]
    fn an_error_may_know_better_when_another_try_is_worth_it() {
        let error = Error::new(ErrorCode::TooManyRequests, "m");
        let response = error.with_header(RETRY_AFTER, HeaderValue::from(7)).into_response();
        let times: Vec<_> = response.headers().get_all(RETRY_AFTER).iter().collect();
        assert_eq!(times, ["7"]);
    }

    #[test]
    fn the_proxys_own_timeout_has_the_code_of_the_stores() {
        let response = proxy_error(StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(response.status(), 504);
        let body: Value = serde_json::from_slice(response.body()).expect("JSON");
        assert_eq!(body["errors"][0]["code"], "UNAVAILABLE");
    }

    #[test]
    fn storage_faults_are_never_not_found() {
        for (kind, code) in [
            (StoreErrorKind::Failed, ErrorCode::Unknown),
            (StoreErrorKind::TimedOut, ErrorCode::StoreTimedOut),
            (StoreErrorKind::Unavailable, ErrorCode::Unavailable),
            (StoreErrorKind::Busy, ErrorCode::Unavailable),
        ] {
            assert_eq!(Error::from(StoreError::new(kind, "x")).code(), code);
        }
    }
}
