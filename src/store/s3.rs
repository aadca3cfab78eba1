//! S3's protocol, as far as it is used, and what it is spoken over.

use bytes::Bytes;
use http::{Method, StatusCode};
use quick_xml::Reader;
use quick_xml::events::Event;
use thiserror::Error;

use crate::registry::ByteRange;

/// A request to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// The method.
    pub method: Method,
    /// The `Host` of the request.
    pub authority: String,
    /// The path: bucket and key. It needs no encoding.
    pub path: String,
    /// The part of the object that is asked for.
    pub range: Option<ByteRange>,
}

/// The store's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status.
    pub status: StatusCode,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HttpError {
    /// No connection, or it broke before the whole answer was there.
    #[error("the connection failed")]
    Connection,
    /// The proxy knows no way to the store.
    #[error("Envoy has no cluster of the name that store.cluster gives")]
    NoSuchCluster,
    /// The answer is none that HTTP knows.
    #[error("the answer is not HTTP")]
    Nonsense,
}

/// What carries requests to the store.
#[expect(async_fn_in_trait, reason = "the filter runs in one thread; no future is ever sent")]
pub trait Http {
    /// Sends one request and reads its whole answer. The time this may take is the implementation's
    /// to limit; it reports a request that took too long as status 504, as Envoy does.
    async fn send(&self, request: &HttpRequest) -> Result<HttpResponse, HttpError>;
}

/// The `Code` of an S3 error document, if `body` is one.
pub fn error_code(body: &[u8]) -> Option<String> {
    let mut reader = Reader::from_str(std::str::from_utf8(body).ok()?);
    let mut path = Vec::new();
    loop {
        match reader.read_event().ok()? {
            Event::Start(element) => path.push(element.local_name().as_ref().to_owned()),
            Event::End(_) => {
                path.pop();
            }
            Event::Text(text) if path == ["Error", "Code"] => return Some(text.trim().to_owned()),
            Event::Eof => return None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn the_code_of_an_error_document_is_found() {
        for (body, code) in [
            ("<Error><Code>NoSuchKey</Code></Error>", Some("NoSuchKey")),
            (
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\n  \
                 <Message>a &amp; b</Message>\n  <Code>\n SlowDown </Code></Error>",
                Some("SlowDown"),
            ),
            ("<Error><Detail><Code>Inner</Code></Detail></Error>", None),
            ("<html><Code>NoSuchKey</Code></html>", None),
            ("<Error><Code>", None),
            ("no healthy upstream", None),
            ("\u{0}<<<>", None),
            ("", None),
        ] {
            assert_eq!(error_code(body.as_bytes()).as_deref(), code, "{body}");
        }
    }
}
