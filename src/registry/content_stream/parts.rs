//! Which parts of a blob a client asks for, and what it gets of them.

use std::ops::Range;
use std::time::SystemTime;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::ContentStream;
use crate::oci::{ByteRange, Digest, parse_content_range};
use crate::registry::http::conditional::if_range_holds;
use crate::registry::http::error::{Error, ErrorCode};
use crate::registry::http::multipart::{Allowance, Boundary, Multipart};
use crate::registry::http::range::{RangeSet, Ranges};
use crate::registry::{Environment, Request};
use crate::store::{StoreError, StoreErrorKind};

/// The parts of the blob to send. `Range` has a meaning for `GET` only (RFC 9110, section 14.2).
pub fn requested_ranges(request: &Request, digest: &Digest) -> Option<Ranges> {
    let mut if_range = request.header_values(IF_RANGE);
    let applies =
        request.method == Method::GET && if_range.all(|value| if_range_holds(value, digest));
    let range = request.header_value(RANGE).filter(|_| applies)?;
    Ranges::parse(range)
}

/// The ranges would cost the store more than they are worth. Clients that ask for several know status 400:
/// podman joins some of them and asks again, stargz-snapshotter asks for one at a time from then on.
pub fn too_costly() -> Error {
    let message =
        "there are too many ranges, or too much lies between them: ask for fewer in one request";
    Error::new(ErrorCode::RangesTooCostly, message)
}

/// Several parts of a blob that a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedParts {
    ranges: RangeSet,
    boundary: Boundary,
    /// When the client asked.
    time: SystemTime,
}

impl WantedParts {
    /// The parts that a client asks for now.
    pub fn new(ranges: RangeSet, environment: &dyn Environment) -> Self {
        let (boundary, time) = (Boundary::new(environment.nonce()), environment.now());
        Self { ranges, boundary, time }
    }

    /// The parts that the client gets of the store's answer, and where in the content that answer begins. `None` if
    /// it gets the whole blob.
    pub fn of(
        &self,
        stream: &ContentStream,
        status: StatusCode,
        store_headers: &HeaderMap,
        allowance: &Allowance,
    ) -> Result<Option<(Multipart, u64)>, Error> {
        let (body, length) =
            sent_by_store(status, store_headers, stream.read.range).ok_or_else(another_range)?;
        let Some(parts) = self.ranges.within(length) else {
            return Ok(None);
        };
        if parts.is_empty() {
            return Err(stream.unsatisfiable(Some(length)));
        }
        let answer = Multipart::new(self.boundary.clone(), parts, length);
        if answer.may_read(&body, allowance, self.time) {
            Ok(Some((answer, body.start)))
        } else {
            Err(too_costly())
        }
    }
}

/// Which part of an object the store sends, as offsets, and the object's length. `None` if it is not the one
/// it was asked for, or the store does not say.
fn sent_by_store(
    status: StatusCode,
    headers: &HeaderMap,
    asked: Option<ByteRange>,
) -> Option<(Range<u64>, u64)> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if status == StatusCode::OK {
        let length = text(CONTENT_LENGTH)?.parse().ok()?;
        return Some((0..length, length));
    }
    let (sent, length) = parse_content_range(text(CONTENT_RANGE)?)?;
    (asked?.within(length)? == sent).then_some((sent, length))
}

fn another_range() -> Error {
    let message = "the blob store sent another range than it was asked for";
    log::error!("{message}");
    StoreError::new(StoreErrorKind::Failed, message).into()
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::registry::endpoints::blobs::tests::{
        answer, digest, headers, reply, request, status_and_code, stream,
    };
    use crate::registry::{Piece, StreamAnswer};

    #[test]
    fn several_ranges_are_answered_in_parts() {
        let several = |range| stream(Method::GET, &[(RANGE, range)]);
        let (near, last) = (several("bytes=1-1,5-6"), several("bytes=0-1,-2"));
        let part = |range| headers(&[(CONTENT_RANGE, range)]);
        let whole = |length| headers(&[(CONTENT_LENGTH, length)]);
        // The ranges, the store's answer, and which of the bytes it sends the client gets.
        let rows = [
            (&near, 206, part("bytes 1-6/9"), vec![(0, 1), (4, 6)]),
            (&near, 206, part("bytes 1-5/6"), vec![(0, 1), (4, 5)]),
            (&near, 206, part("bytes 1-3/4"), vec![(0, 1)]),
            (&near, 200, whole("9"), vec![(1, 2), (5, 7)]),
            (&last, 200, whole("9"), vec![(0, 2), (7, 9)]),
        ];
        for (stream, status, store_headers, expected) in rows {
            let status = StatusCode::from_u16(status).expect("a status");
            let answer = answer(stream, status, &store_headers);
            let StreamAnswer::Cut(status, headers, mut cutter) = answer else {
                panic!("parts are cut out, not {answer:?}");
            };
            let pieces = cutter.cut(9);
            let bytes = pieces.iter().filter_map(|piece| match piece {
                Piece::Bytes(range) => Some((range.start, range.end)),
                Piece::Text(_) => None,
            });
            assert_eq!(bytes.collect::<Vec<_>>(), expected, "{store_headers:?}");
            assert!(cutter.is_done());
            assert_eq!(status, 206);
            assert!(!headers.contains_key(CONTENT_RANGE));
            let length = pieces.iter().map(|piece| match piece {
                Piece::Bytes(range) => range.len(),
                Piece::Text(text) => text.len(),
            });
            assert_eq!(headers[CONTENT_LENGTH], length.sum::<usize>().to_string());
            let media_type = headers[CONTENT_TYPE].to_str().expect("text");
            assert!(media_type.starts_with("multipart/byteranges; boundary=00"), "{media_type}");
            assert_eq!(headers["etag"], format!("\"{}\"", digest()));
        }
    }

    #[test]
    fn a_blob_is_sent_whole_where_its_last_bytes_reach_into_other_ranges() {
        let stream = stream(Method::GET, &[(RANGE, "bytes=0-3,-4")]);
        let store_headers = headers(&[(CONTENT_LENGTH, "7")]);
        let StreamAnswer::Forward(status, headers) =
            answer(&stream, StatusCode::OK, &store_headers)
        else {
            panic!("the blob is forwarded");
        };
        assert_eq!((status.as_u16(), headers[CONTENT_LENGTH].as_bytes()), (200, &b"7"[..]));
    }

    #[test]
    fn ranges_that_can_not_be_answered_are_refused() {
        let one = stream(Method::GET, &[(RANGE, "bytes=9-")]);
        let several = stream(Method::GET, &[(RANGE, "bytes=0-0,2000000000-2000000000")]);
        let last = stream(Method::GET, &[(RANGE, "bytes=0-0,-1")]);
        let beyond = stream(Method::GET, &[(RANGE, "bytes=9-9,11-")]);
        let part = |range| headers(&[(CONTENT_RANGE, range)]);
        let rows = [
            (&one, 416, part("bytes */4"), 416, Some("bytes */4")),
            (&beyond, 416, part("bytes */4"), 416, Some("bytes */4")),
            (&beyond, 200, headers(&[(CONTENT_LENGTH, "4")]), 416, Some("bytes */4")),
            (&last, 200, headers(&[(CONTENT_LENGTH, "0")]), 416, Some("bytes */0")),
            (&several, 206, part("bytes 0-2000000000/2000000001"), 400, None),
            (&last, 200, headers(&[(CONTENT_LENGTH, "2000000000")]), 400, None),
            // Stores that can't be believed.
            (&several, 206, part("bytes 0-2/4"), 500, None),
            (&several, 206, part("bytes 1-3/4"), 500, None),
            (&several, 206, part("nonsense"), 500, None),
            (&several, 206, HeaderMap::new(), 500, None),
            (&several, 200, HeaderMap::new(), 500, None),
        ];
        for (stream, status, store_headers, expected, content_range) in rows {
            let status = StatusCode::from_u16(status).expect("a status");
            let answer = answer(stream, status, &store_headers);
            let StreamAnswer::Reply(response) = answer else {
                panic!("the ranges are refused, not {answer:?}");
            };
            let code = if expected == 500 { "UNKNOWN" } else { "RANGE_INVALID" };
            assert_eq!(
                status_and_code(&response),
                (expected, code.to_owned()),
                "{store_headers:?}"
            );
            let found = response.headers().get(CONTENT_RANGE);
            assert_eq!(found.map(HeaderValue::as_bytes), content_range.map(str::as_bytes));
        }
        // A store may give the length in its document alone.
        let document =
            b"<Error><Code>InvalidRange</Code><ActualObjectSize>4</ActualObjectSize></Error>";
        let response = one.failure(StatusCode::RANGE_NOT_SATISFIABLE, document);
        assert_eq!(response.headers()[CONTENT_RANGE], "bytes */4");
    }

    #[test]
    fn too_many_ranges_are_refused_before_the_content_is_read() {
        let ranges: Vec<_> = (0..1025).map(|n| format!("{}-{}", 2 * n, 2 * n)).collect();
        let range = format!("bytes={}", ranges.join(","));
        let response = reply(request(Method::GET, "a", &[(RANGE, &range)]));
        assert_eq!(status_and_code(&response), (400, "RANGE_INVALID".to_owned()));
    }
}
