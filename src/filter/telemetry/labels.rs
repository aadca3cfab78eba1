//! The values of the metrics' labels. Each label has few: Envoy never frees a metric, so nothing that a client can choose is
//! one.

use http::{Method, StatusCode};

use crate::registry::http::error::ErrorCode;
use crate::store::{CacheKind, HttpError, HttpRequest, HttpResponse, Purpose};

/// What the store is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreOperation {
    /// An object, or a part of one, is read.
    Get,
    /// It is asked whether an object is there.
    Head,
    /// An object is written.
    Put,
    /// An object is removed.
    Delete,
    /// Objects are listed.
    List,
    /// An object is copied.
    Copy,
    /// Something of a multipart upload, copying of parts included.
    Multipart,
    /// A blob is streamed to a client.
    StreamGet,
    /// A blob is streamed from a client.
    StreamPut,
}

impl StoreOperation {
    /// What a request is for.
    pub fn of(request: &HttpRequest) -> Self {
        let query = request.path.split_once('?').map_or("", |(_, query)| query);
        let has = |parameter: &str| {
            query.split('&').any(|pair| pair.split('=').next() == Some(parameter))
        };
        let is_copy = request.headers.iter().any(|(name, _)| *name == "x-amz-copy-source");
        match request.method {
            _ if has("uploadId") || has("uploads") => Self::Multipart,
            Method::GET if has("list-type") => Self::List,
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::DELETE => Self::Delete,
            // Of many objects at once.
            Method::POST if has("delete") => Self::Delete,
            _ if is_copy => Self::Copy,
            _ => Self::Put,
        }
    }

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Head => "head",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Copy => "copy",
            Self::Multipart => "multipart",
            Self::StreamGet => "stream_get",
            Self::StreamPut => "stream_put",
        }
    }
}

/// What became of a call to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreResult {
    /// It was done.
    Ok,
    /// There is no such object.
    NotFound,
    /// The store does not do it: a condition does not hold, or it lacks the right.
    Refused,
    /// The store failed, or answered something that makes no sense.
    Failed,
    /// The store could not be reached, or has too much to do.
    Unavailable,
    /// It took too long.
    TimedOut,
    /// Nobody waited for it any more: the client has gone.
    Abandoned,
}

impl StoreResult {
    /// What an answer with this status means.
    pub fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Self::Unavailable,
            StatusCode::GATEWAY_TIMEOUT => Self::TimedOut,
            status if status.is_client_error() => Self::Refused,
            status if status.is_server_error() => Self::Failed,
            _ => Self::Ok,
        }
    }

    /// What the outcome of a call means.
    pub fn of(outcome: &Result<HttpResponse, HttpError>) -> Self {
        match outcome {
            Ok(response) => Self::of_status(response.status),
            Err(HttpError::Nonsense) => Self::Failed,
            Err(_) => Self::Unavailable,
        }
    }

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotFound => "not_found",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unavailable => "unavailable",
            Self::TimedOut => "timed_out",
            Self::Abandoned => "abandoned",
        }
    }
}

/// The label's value for a method. Clients may send any.
pub fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

/// The label's value for a kind of what is cached.
pub fn cache_kind(kind: CacheKind) -> &'static str {
    match kind {
        CacheKind::Content => "content",
        CacheKind::Link => "link",
        CacheKind::Tag => "tag",
    }
}

/// The label's value for a purpose of memory.
pub fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Waiting => "waiting",
        Purpose::Bodies => "bodies",
        Purpose::Reads => "reads",
        Purpose::Replies => "replies",
    }
}

/// The label's value for an error: the API's code.
pub fn error(code: ErrorCode) -> &'static str {
    code.as_str()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::store::Timeout;

    #[test]
    fn a_call_is_named_for_what_it_asks_of_the_store() {
        let copy = [("x-amz-copy-source", "/b/k".to_owned())];
        for (method, path, headers, expected) in [
            (Method::GET, "/b/k", &[][..], "get"),
            (Method::GET, "/b/uploads", &[], "get"),
            (Method::HEAD, "/b/k", &[], "head"),
            (Method::PUT, "/b/k", &[], "put"),
            (Method::PUT, "/b/k", &copy, "copy"),
            (Method::DELETE, "/b/k", &[], "delete"),
            (Method::POST, "/b/?delete=", &[], "delete"),
            (Method::GET, "/b/?list-type=2&prefix=a", &[], "list"),
            (Method::POST, "/b/k?uploads", &[], "multipart"),
            (Method::GET, "/b/?prefix=a&uploads=", &[], "multipart"),
            (Method::PUT, "/b/k?partNumber=1&uploadId=x", &copy, "multipart"),
            (Method::DELETE, "/b/k?uploadId=x", &[], "multipart"),
        ] {
            let request = HttpRequest {
                method,
                authority: "s3".to_owned(),
                path: path.to_owned(),
                headers: headers.to_vec(),
                body: Bytes::new(),
                wants_version: false,
                timeout: Timeout::Ordinary,
            };
            assert_eq!(StoreOperation::of(&request).as_str(), expected, "{path}");
        }
    }

    #[test]
    fn an_answer_means_what_its_status_says() {
        let status = |number| StatusCode::from_u16(number).expect("a status");
        for (number, expected) in [
            (200, "ok"),
            (206, "ok"),
            (304, "ok"),
            (404, "not_found"),
            (403, "refused"),
            (412, "refused"),
            (429, "unavailable"),
            (500, "failed"),
            (503, "unavailable"),
            (504, "timed_out"),
        ] {
            assert_eq!(StoreResult::of_status(status(number)).as_str(), expected, "{number}");
        }
        assert_eq!(StoreResult::of(&Err(HttpError::Connection)), StoreResult::Unavailable);
        assert_eq!(StoreResult::of(&Err(HttpError::Nonsense)), StoreResult::Failed);
    }
}
