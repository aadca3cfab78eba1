//! `/v2/<name>/blobs/<digest>`
//!
//! A blob that is pulled never passes through this code: the proxy streams it from the store. What is here decides
//! whether it may; what the client sees of the store's answer is decided in [`crate::registry::ContentStream`].
//!
//! Source: OCI distribution specification, "Pulling blobs", "Deleting Blobs".

use bytes::Bytes;
use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_TYPE, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use crate::oci::{Digest, Name};
use crate::registry::content_stream::{WantedParts, requested_ranges, too_costly};
use crate::registry::events::Reporter;
use crate::registry::http::conditional::IfNoneMatch;
use crate::registry::http::error::{Error, ErrorCode};
use crate::registry::http::range::Ranges;
use crate::registry::http::reply::{bare, identity, not_modified, with_common_headers};
use crate::registry::{Answer, ContentStream, Request};
use crate::store::{BlobStream, Store};

/// Content under a digest never changes: a year, the longest that caches care for.
const CACHE_FOR_GOOD: HeaderValue = HeaderValue::from_static("max-age=31536000, immutable");

/// `GET` and `HEAD`: one round trip to the store, then the stream.
pub async fn get(
    request: &Request,
    store: &impl Store,
    name: &Name,
    digest: &Digest,
) -> Result<Answer, Error> {
    request.refuse_body()?;
    let content =
        store.blob_link_for_pull(name, digest).await?.ok_or_else(|| blob_unknown(digest))?;
    if request.method == Method::HEAD && is_condemned(request, store, name, digest) {
        return Err(blob_unknown(digest));
    }
    if IfNoneMatch::parse(request.header_values(IF_NONE_MATCH)).matches(digest) {
        return Ok(Answer::reply(not_modified(digest)));
    }
    let (range, parts) = match requested_ranges(request, digest) {
        None => (None, None),
        Some(Ranges::One(range)) => (Some(range), None),
        Some(Ranges::Several(ranges)) => {
            (ranges.span(), Some(WantedParts::new(ranges, &*request.environment)))
        }
        Some(Ranges::TooMany) => return Err(too_costly()),
    };
    Ok(Answer::Stream(Box::new(ContentStream {
        read: BlobStream { method: request.method.clone(), content, range },
        parts,
        headers: blob_headers(digest),
        unknown: blob_unknown(digest),
    })))
}

/// Whether a collection of garbage is known to be about to remove the blob. Whoever asks by `HEAD` if it is there most likely
/// means to refer to it, and shall upload it instead; pulls need not care.
fn is_condemned(request: &Request, store: &impl Store, name: &Name, digest: &Digest) -> bool {
    let condemned = store.known_condemned(request.environment.recent_time());
    condemned.is_some_and(|condemned| condemned.has_blob(name, digest))
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

/// `DELETE`: takes the blob out of the repository, in two round trips to the store. Its content stays
/// until garbage is collected, and other repositories keep it.
pub async fn delete(
    reporter: Reporter<'_>,
    store: &impl Store,
    name: &Name,
    digest: &Digest,
) -> Result<Response<Bytes>, Error> {
    if store.blob_link(name, digest).await?.is_none() {
        return Err(blob_unknown(digest));
    }
    store.unlink_blob(name, digest).await?;
    reporter.blob_deleted(name, digest);
    Ok(bare(StatusCode::ACCEPTED))
}

fn blob_unknown(digest: &Digest) -> Error {
    let message = "the repository has no such blob";
    Error::new(ErrorCode::BlobUnknown, message).with_detail(digest.as_str())
}

#[cfg(test)]
pub mod tests {
    use http::header::{HeaderName, IF_RANGE, RANGE};
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::oci::{Algorithm, ByteRange};
    use crate::registry::{Allowance, Body, Settings, StreamAnswer, handle, test_registry};
    use crate::store::layout;
    use crate::store::memory::{Effect, MemoryStore, run};

    pub fn digest() -> Digest {
        Digest::of(Algorithm::Sha256, b"blob")
    }

    /// A repository `a` that links the blob.
    fn store() -> MemoryStore {
        let store = MemoryStore::default();
        let name = "a".parse().expect("a valid name");
        store.put(layout::blob_link(&name, &digest()), digest().to_string());
        store
    }

    pub fn request(method: Method, name: &str, headers: &[(HeaderName, &str)]) -> Request {
        test_registry::request(method, &format!("/v2/{name}/blobs/{}", digest()), headers)
    }

    pub fn stream(method: Method, headers: &[(HeaderName, &str)]) -> ContentStream {
        match run(handle(&request(method, "a", headers), &store(), &Settings::default())) {
            (Answer::Stream(stream), 1) => *stream,
            other => panic!("a stream after one round trip to the store, not {other:?}"),
        }
    }

    pub fn answer(stream: &ContentStream, status: StatusCode, headers: &HeaderMap) -> StreamAnswer {
        stream.answer(status, headers, &Allowance::default())
    }

    pub fn status_and_code(response: &Response<Bytes>) -> (u16, String) {
        let json: serde_json::Value = serde_json::from_slice(response.body()).expect("JSON");
        let code = json["errors"][0]["code"].as_str().expect("a code");
        (response.status().as_u16(), code.to_owned())
    }

    pub fn reply(request: Request) -> Response<Bytes> {
        run(handle(&request, &store(), &Settings::default())).0.expect_reply()
    }

    #[test]
    fn a_blob_is_streamed_only_where_the_repository_links_it() {
        assert_eq!(stream(Method::GET, &[]).read.content, digest());
        let elsewhere = reply(request(Method::GET, "b", &[]));
        assert_eq!(status_and_code(&elsewhere), (404, "BLOB_UNKNOWN".to_owned()));
    }

    #[test]
    fn the_content_is_read_where_the_link_points() {
        let sha512 = Digest::of(Algorithm::Sha512, b"blob");
        let store = store();
        let name = "a".parse().expect("a valid name");
        store.put(layout::blob_link(&name, &sha512), digest().to_string());
        let request = test_registry::request(Method::GET, &format!("/v2/a/blobs/{sha512}"), &[]);
        let (Answer::Stream(stream), _) = run(handle(&request, &store, &Settings::default()))
        else {
            panic!("the blob is streamed");
        };
        assert_eq!(stream.read.content, digest());
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
            let (answer, round_trips) = run(handle(&request, &store, &Settings::default()));
            (answer.expect_reply(), round_trips)
        };
        let (response, round_trips) = delete();
        assert_eq!((response.status().as_u16(), round_trips), (202, 2));
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
            assert_eq!(stream(method, &headers).read.range, expected, "{headers:?}");
        }
    }

    pub fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let value = |value| HeaderValue::from_static(value);
        pairs.iter().map(|(name, text)| (name.clone(), value(text))).collect()
    }
}
