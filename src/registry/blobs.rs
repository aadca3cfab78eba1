//! `/v2/<name>/blobs/<digest>`
//!
//! A blob that is pulled never passes through this code: the proxy streams it from the store. What is here decides
//! whether it may, and what the client sees of the store's answer.
//!
//! Source: OCI distribution specification, "Pulling blobs", "Deleting Blobs".

mod parts;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, IF_NONE_MATCH,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::conditional::IfNoneMatch;
use super::error::{Error, ErrorCode};
use super::manifests::{identity, not_modified};
use super::multipart::{Allowance, Cutter};
use super::range::{ByteRange, Ranges, parse_unsatisfied_range};
use super::reference::{Digest, Name};
use super::{Answer, Request, refuse_body, with_common_headers};
use crate::store::{Fault, Store, unsatisfied_length};
use parts::{WantedParts, requested_ranges, too_costly};

pub use parts::needs_stamp;

/// Content under a digest never changes: a year, the longest that caches care for.
const CACHE_FOR_GOOD: HeaderValue = HeaderValue::from_static("max-age=31536000, immutable");

/// Content on its way from the store to the client: a blob, or a manifest too large to be sent from memory.
#[derive(Debug, Clone, PartialEq)]
pub struct ContentStream {
    /// `GET` or `HEAD`: how the store is to be asked.
    pub method: Method,
    /// The digest under which the content is stored.
    pub content: Digest,
    /// The part of it that the store is asked for.
    pub range: Option<ByteRange>,
    /// What is to be cut out of that, where the client asked for several parts.
    pub(super) parts: Option<WantedParts>,
    /// The headers of a success, without those that tell of the bytes that are sent.
    pub(super) headers: HeaderMap,
    /// The error if there is no such content after all.
    pub(super) unknown: Error,
}

/// What the client sees of the store's answer.
#[derive(Debug)]
pub enum StreamAnswer {
    /// The store's body, under this status and these headers instead of the store's own.
    Forward(StatusCode, HeaderMap),
    /// What is cut out of the store's body, under this status and these headers.
    Cut(StatusCode, HeaderMap, Cutter),
    /// Nothing of it: this instead, at once.
    Reply(Response<Bytes>),
    /// Nothing of it: something else instead, once the store's body has been read into
    /// [`ContentStream::failure`].
    Fail,
}

/// `GET` and `HEAD`: one wave of storage calls, then the stream.
pub async fn get(
    request: &Request,
    store: &impl Store,
    name: &Name,
    digest: Digest,
) -> Result<Answer, Error> {
    refuse_body(request)?;
    let content = store.blob_link(name, &digest).await?.ok_or_else(|| blob_unknown(&digest))?;
    if IfNoneMatch::parse(request.header_values(IF_NONE_MATCH)).matches(&digest) {
        return Ok(Answer::reply(not_modified(&digest)));
    }
    let (range, parts) = match requested_ranges(request, &digest) {
        None => (None, None),
        Some(Ranges::One(range)) => (Some(range), None),
        Some(Ranges::Several(ranges)) => {
            (ranges.span(), Some(WantedParts::new(ranges, &request.stamp)))
        }
        Some(Ranges::TooMany) => return Err(too_costly()),
    };
    Ok(Answer::Stream(Box::new(ContentStream {
        method: request.method.clone(),
        content,
        range,
        parts,
        headers: blob_headers(&digest),
        unknown: blob_unknown(&digest),
    })))
}

fn blob_headers(digest: &Digest) -> HeaderMap {
    let mut response = with_common_headers(Response::new(()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CACHE_CONTROL, CACHE_FOR_GOOD);
    headers.extend(identity(digest));
    std::mem::take(headers)
}

/// `DELETE`: takes the blob out of the repository, in two waves of storage calls. Its content stays
/// until garbage is collected, and other repositories keep it.
pub async fn delete(
    store: &impl Store,
    name: &Name,
    digest: &Digest,
) -> Result<Response<Bytes>, Error> {
    if store.blob_link(name, digest).await?.is_none() {
        return Err(blob_unknown(digest));
    }
    store.unlink_blob(name, digest).await?;
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

fn blob_unknown(digest: &Digest) -> Error {
    let message = "the repository has no such blob";
    Error::new(ErrorCode::BlobUnknown, message).with_detail(digest.as_str())
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
            StatusCode::PARTIAL_CONTENT => self.range.is_some(),
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
            Some(length) if self.is_unsatisfiable(status) => {
                StreamAnswer::Reply(self.unsatisfiable(Some(length)).into_response())
            }
            _ => StreamAnswer::Fail,
        }
    }

    fn is_unsatisfiable(&self, status: StatusCode) -> bool {
        status == StatusCode::RANGE_NOT_SATISFIABLE && self.range.is_some()
    }

    /// The blob, of this length if that is known, has nothing of what was asked for (RFC 9110,
    /// section 15.5.17).
    fn unsatisfiable(&self, length: Option<u64>) -> Error {
        let message = "the range lies outside the blob";
        let error = Error::new(ErrorCode::RangeInvalid, message).with_detail(self.content.as_str());
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
        let error = match Fault::of(status, body) {
            Fault::NoSuchKey => self.unknown.clone(),
            // A HEAD's answer has no body to tell what is missing. The link was read from the same
            // bucket a moment ago, so it is the object.
            _ if status == StatusCode::NOT_FOUND && self.method == Method::HEAD => {
                self.unknown.clone()
            }
            _ if self.is_unsatisfiable(status) => self.unsatisfiable(unsatisfied_length(body)),
            Fault::Other(error) => error.into(),
        };
        error.into_response()
    }
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, IF_RANGE, RANGE};
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::registry::reference::Algorithm;
    use crate::registry::{Body, REPLY_MAX_BYTES, Settings, Stamp, handle};
    use crate::store::layout;
    use crate::store::memory::{Effect, MemoryStore, run};

    const NO_SUCH_KEY: &[u8] = b"<Error><Code>NoSuchKey</Code></Error>";

    pub(super) fn digest() -> Digest {
        Digest::of(Algorithm::Sha256, b"blob")
    }

    /// A repository `a` that links the blob.
    fn store() -> MemoryStore {
        let store = MemoryStore::default();
        let name = "a".parse().expect("a valid name");
        store.put(layout::blob_link(&name, &digest()), digest().to_string());
        store
    }

    pub(super) fn request(method: Method, name: &str, headers: &[(HeaderName, &str)]) -> Request {
        Request {
            method,
            target: format!("/v2/{name}/blobs/{}", digest()),
            headers: headers.into(),
            body: Body::None,
            resources: Vec::new(),
            stamp: Stamp::default(),
            reply_max_bytes: REPLY_MAX_BYTES,
        }
    }

    pub(super) fn stream(method: Method, headers: &[(HeaderName, &str)]) -> ContentStream {
        match run(handle(&request(method, "a", headers), &store(), &Settings::default())) {
            (Answer::Stream(stream), 1) => *stream,
            other => panic!("a stream after one wave of calls, not {other:?}"),
        }
    }

    pub(super) fn answer(
        stream: &ContentStream,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> StreamAnswer {
        stream.answer(status, headers, &Allowance::default())
    }

    pub(super) fn status_and_code(response: &Response<Bytes>) -> (u16, String) {
        let json: serde_json::Value = serde_json::from_slice(response.body()).expect("JSON");
        let code = json["errors"][0]["code"].as_str().expect("a code");
        (response.status().as_u16(), code.to_owned())
    }

    pub(super) fn reply(request: Request) -> Response<Bytes> {
        run(handle(&request, &store(), &Settings::default())).0.expect_reply()
    }

    #[test]
    fn a_blob_is_streamed_only_where_the_repository_links_it() {
        assert_eq!(stream(Method::GET, &[]).content, digest());
        let elsewhere = reply(request(Method::GET, "b", &[]));
        assert_eq!(status_and_code(&elsewhere), (404, "BLOB_UNKNOWN".to_owned()));
    }

    #[test]
    fn the_content_is_read_where_the_link_points() {
        let sha512 = Digest::of(Algorithm::Sha512, b"blob");
        let store = store();
        let name = "a".parse().expect("a valid name");
        store.put(layout::blob_link(&name, &sha512), digest().to_string());
        let mut request = request(Method::GET, "a", &[]);
        request.target = format!("/v2/a/blobs/{sha512}");
        let (Answer::Stream(stream), _) = run(handle(&request, &store, &Settings::default()))
        else {
            panic!("the blob is streamed");
        };
        assert_eq!(stream.content, digest());
        let StreamAnswer::Forward(_, headers) = answer(&stream, StatusCode::OK, &HeaderMap::new())
        else {
            panic!("the blob is forwarded");
        };
        assert_eq!(headers["docker-content-digest"], sha512.as_str());
    }

    #[test]
    fn deleting_a_blob_takes_it_out_of_one_repository() {
        let store = store();
        let b = "b".parse().expect("a valid name");
        store.put(layout::blob_link(&b, &digest()), digest().to_string());
        store.put(layout::content(&digest()), "blob");
        let mut expected = store.objects();
        expected.remove(&layout::blob_link(&"a".parse().expect("a valid name"), &digest()));

        let delete = || {
            let request = request(Method::DELETE, "a", &[]);
            let (answer, waves) = run(handle(&request, &store, &Settings::default()));
            (answer.expect_reply(), waves)
        };
        let (response, waves) = delete();
        assert_eq!((response.status().as_u16(), waves), (202, 2));
        assert_eq!(store.objects(), expected);
        assert_eq!(status_and_code(&delete().0), (404, "BLOB_UNKNOWN".to_owned()));
    }

    #[test]
    fn deleting_can_be_switched_off() {
        for settings in [
            Settings { delete_enabled: false, ..Settings::default() },
            Settings { read_only: true, ..Settings::default() },
        ] {
            let store = store();
            let outcome = run(handle(&request(Method::DELETE, "a", &[]), &store, &settings));
            let (Answer::Reply(response), 0) = outcome else {
                panic!("no storage call may be made: {outcome:?}");
            };
            assert_eq!(status_and_code(&response), (405, "UNSUPPORTED".to_owned()));
            assert_eq!(response.headers()["allow"], "GET, HEAD");
        }
    }

    #[test]
    fn a_fault_while_a_blob_is_deleted_is_never_not_found() {
        for call in 0..2 {
            let store = store();
            store.failing_call.set(Some((call, Effect::None)));
            let delete = request(Method::DELETE, "a", &[]);
            let (answer, _) = run(handle(&delete, &store, &Settings::default()));
            let response = answer.expect_reply();
            assert_eq!(status_and_code(&response), (503, "UNAVAILABLE".to_owned()), "call {call}");
        }
    }

    #[test]
    fn a_request_with_a_body_is_refused() {
        let mut request = request(Method::GET, "a", &[]);
        request.body = Body::Whole("body".into());
        assert_eq!(status_and_code(&reply(request)), (400, "SIZE_INVALID".to_owned()));
    }

    #[test]
    fn a_client_that_has_the_blob_gets_304() {
        let entity_tag = format!("\"{}\"", digest());
        let response = reply(request(Method::GET, "a", &[(IF_NONE_MATCH, &entity_tag)]));
        assert_eq!(response.status(), 304);
        assert!(response.body().is_empty());
    }

    #[test]
    fn a_range_is_passed_on_where_it_applies() {
        let entity_tag = format!("\"{}\"", digest());
        let range = (RANGE, "bytes=1-2");
        let wanted = Some(ByteRange::From(1, Some(2)));
        for (method, headers, expected) in [
            (Method::GET, vec![range.clone()], wanted),
            (Method::HEAD, vec![range.clone()], None),
            (Method::GET, vec![range.clone(), (IF_RANGE, &entity_tag)], wanted),
            (Method::GET, vec![range.clone(), (IF_RANGE, "\"other\"")], None),
            (Method::GET, vec![(RANGE, "bytes=0-1,3-4")], Some(ByteRange::From(0, Some(4)))),
            (Method::GET, vec![(RANGE, "bytes=3-4,0-1")], None),
            (Method::GET, vec![(RANGE, "bytes=0-1,-2")], None),
            (Method::HEAD, vec![(RANGE, "bytes=0-1,3-4")], None),
            (Method::GET, vec![(RANGE, "bytes=0-1,3-4"), (IF_RANGE, "\"other\"")], None),
        ] {
            assert_eq!(stream(method, &headers).range, expected, "{headers:?}");
        }
    }

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

    pub(super) fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let value = |value| HeaderValue::from_static(value);
        pairs.iter().map(|(name, text)| (name.clone(), value(text))).collect()
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
