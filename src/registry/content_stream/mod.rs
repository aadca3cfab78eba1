//! Content that the proxy streams from the store to a client: what the client sees of the store's answer.
//!
//! The content itself never passes through this code, but for what is cut out of it where a client asked for
//! several ranges.

mod parts;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::http::error::{Error, ErrorCode};
use super::http::multipart::{Allowance, Cutter};
use crate::oci::parse_unsatisfied_range;
use crate::store::{BlobStream, ReadError};

pub use parts::{WantedParts, requested_ranges, too_costly};

/// Content on its way from the store to the client: a blob, or a manifest too large to be sent from memory.
#[derive(Debug, Clone, PartialEq)]
pub struct ContentStream {
    /// The request to the store.
    pub read: BlobStream,
    /// The parts to be cut out of that, where the client asked for several parts.
    pub(in crate::registry) parts: Option<WantedParts>,
    /// The headers of a success, without those that tell of the bytes that are sent.
    pub(in crate::registry) headers: HeaderMap,
    /// The error if there is no such content after all.
    pub(in crate::registry) unknown: Error,
}

/// How the store's answer is passed on to the client.
#[derive(Debug)]
pub enum StreamAnswer {
    /// The store's body, under this status and these headers instead of the store's own.
    Forward(StatusCode, HeaderMap),
    /// Parts that are cut out of the store's body, under this status and these headers.
    Cut(StatusCode, HeaderMap, Cutter),
    /// Nothing of it: this instead, at once.
    Reply(Response<Bytes>),
    /// Nothing of it: something else instead, once the store's body has been read into
    /// [`ContentStream::failure`].
    Fail,
}

impl ContentStream {
    /// Decides on the status and headers of the store's answer.
    ///
    /// `allowance` is what answers in parts may read from the store for nothing.
    ///
    /// Of the store's headers only those that describe the bytes are kept. The rest tells about the
    /// store, not about the blob.
    pub fn answer(
        &self,
        status: StatusCode,
        store_headers: &HeaderMap,
        allowance: &Allowance,
    ) -> StreamAnswer {
        let is_expected = match status {
            StatusCode::OK => true,
            StatusCode::PARTIAL_CONTENT => self.read.range.is_some(),
            _ => false,
        };
        if !is_expected {
            return self.refusal(status, store_headers);
        }
        let mut headers = self.headers.clone();
        let answer = match &self.parts {
            Some(wanted) => wanted.of(self, status, store_headers, allowance),
            None => Ok(None),
        };
        match answer {
            Ok(Some((answer, start))) => {
                headers.insert(CONTENT_TYPE, answer.content_type());
                headers.insert(CONTENT_LENGTH, answer.content_length().into());
                StreamAnswer::Cut(StatusCode::PARTIAL_CONTENT, headers, answer.cutter(start))
            }
            Ok(None) => {
                for name in [CONTENT_LENGTH, CONTENT_RANGE] {
                    if let Some(value) = store_headers.get(&name) {
                        headers.insert(name, value.clone());
                    }
                }
                StreamAnswer::Forward(status, headers)
            }
            Err(error) => StreamAnswer::Reply(error.into_response()),
        }
    }

    /// The answer where the store sends nothing of the blob.
    fn refusal(&self, status: StatusCode, store_headers: &HeaderMap) -> StreamAnswer {
        let range = store_headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        match range.and_then(parse_unsatisfied_range) {
            Some(length) if self.read.is_unsatisfiable(status) => {
                StreamAnswer::Reply(self.unsatisfiable(Some(length)).into_response())
            }
            _ => StreamAnswer::Fail,
        }
    }

    /// The blob, of this length if that is known, has nothing of what was asked for (RFC 9110,
    /// section 15.5.17).
    fn unsatisfiable(&self, length: Option<u64>) -> Error {
        let message = "the range lies outside the blob";
        let error =
            Error::new(ErrorCode::RangeInvalid, message).with_detail(self.read.content.as_str());
        let range =
            length.and_then(|length| HeaderValue::try_from(format!("bytes */{length}")).ok());
        match range {
            Some(range) => error.with_header(CONTENT_RANGE, range),
            None => error,
        }
    }

    /// The answer in place of the store's, when that was not the content: `status` and `body` are the
    /// store's.
    pub fn failure(&self, status: StatusCode, body: &[u8]) -> Response<Bytes> {
        let error = match self.read.error(status, body) {
            ReadError::Absent => self.unknown.clone(),
            ReadError::Unsatisfiable { length } => self.unsatisfiable(length),
            ReadError::Fault(error) => error.into(),
        };
        error.into_response()
    }
}

#[cfg(test)]
mod tests {
    use http::header::RANGE;
    use http::{HeaderName, Method};
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::registry::endpoints::blobs::tests::{answer, digest, status_and_code, stream};

    const NO_SUCH_KEY: &[u8] = b"<Error><Code>NoSuchKey</Code></Error>";

    #[test]
    fn nothing_of_the_store_but_lengths_reaches_the_client() {
        let store_headers: HeaderMap = [
            ("content-length", "2"),
            ("content-range", "bytes 1-2/4"),
            ("content-type", "text/html"),
            ("etag", "\"md5\""),
            ("server", "store"),
            ("x-amz-request-id", "1"),
            ("set-cookie", "a=b"),
        ]
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
        let stream = stream(Method::GET, &[(RANGE, "bytes=1-2")]);
        let StreamAnswer::Forward(status, headers) =
            answer(&stream, StatusCode::PARTIAL_CONTENT, &store_headers)
        else {
            panic!("the blob is forwarded");
        };
        assert_eq!(status, 206);
        let mut headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("text").to_owned()))
            .collect();
        headers.sort();
        let expected = [
            ("accept-ranges", "bytes".to_owned()),
            ("cache-control", "max-age=31536000, immutable".to_owned()),
            ("content-length", "2".to_owned()),
            ("content-range", "bytes 1-2/4".to_owned()),
            ("content-type", "application/octet-stream".to_owned()),
            ("docker-content-digest", digest().to_string()),
            ("docker-distribution-api-version", "registry/2.0".to_owned()),
            ("etag", format!("\"{}\"", digest())),
            ("x-content-type-options", "nosniff".to_owned()),
        ];
        assert_eq!(headers, expected);
    }

    #[test]
    fn any_other_answer_of_the_store_becomes_an_error() {
        let get = stream(Method::GET, &[]);
        let head = stream(Method::HEAD, &[]);
        let range = stream(Method::GET, &[(RANGE, "bytes=9-")]);
        let rows: &[(&ContentStream, u16, &[u8], u16, &str)] = &[
            (&get, 404, NO_SUCH_KEY, 404, "BLOB_UNKNOWN"),
            (&head, 404, b"", 404, "BLOB_UNKNOWN"),
            (&get, 404, b"", 500, "UNKNOWN"),
            (&get, 404, b"<Error><Code>NoSuchBucket</Code></Error>", 500, "UNKNOWN"),
            (&range, 416, b"<Error><Code>InvalidRange</Code></Error>", 416, "RANGE_INVALID"),
            (&get, 416, b"", 500, "UNKNOWN"),
            (&get, 206, b"", 500, "UNKNOWN"),
            (&get, 204, b"", 500, "UNKNOWN"),
            (&get, 304, b"", 500, "UNKNOWN"),
            (&get, 403, b"<Error><Code>AccessDenied</Code></Error>", 500, "UNKNOWN"),
            (&get, 500, b"", 500, "UNKNOWN"),
            (&head, 500, b"", 500, "UNKNOWN"),
            (&get, 503, b"no healthy upstream", 503, "UNAVAILABLE"),
            (&get, 504, b"", 504, "UNAVAILABLE"),
        ];
        for (stream, status, body, expected, code) in rows {
            let status = StatusCode::from_u16(*status).expect("a status");
            assert!(matches!(answer(stream, status, &HeaderMap::new()), StreamAnswer::Fail));
            let response = stream.failure(status, body);
            let found = status_and_code(&response);
            assert_eq!(found, (*expected, (*code).to_owned()), "{status}");
        }
    }
}
