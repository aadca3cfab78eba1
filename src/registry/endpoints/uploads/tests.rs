//! What uploads answer and leave behind, with the bodies' bytes going through memory.

use bytes::Bytes;
use http::header::{CONTENT_RANGE, HeaderName, TRANSFER_ENCODING};
use http::{Method, Response};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::streamed_body::{location, outcome, repository, with_digest};
use crate::oci::{Algorithm, Digest};
use crate::registry::Mount;
use crate::registry::test_registry::{TestRegistry, digest_of};
use crate::store::layout;
use crate::store::memory::Effect;

const WHOLE: &[u8] = b"a blob's content";

/// A way to upload [`WHOLE`], with what it is called.
type Way<'a> = (&'a str, &'a dyn Fn(&TestRegistry) -> Response<Bytes>);

/// A request about an upload, with the status and the code it is refused with.
type Refusal<'a> = (&'a str, &'a [(HeaderName, &'a str)], u16, &'a str);

fn sha512(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha512, content)
}

fn range(response: &Response<Bytes>) -> &str {
    response.headers()["range"].to_str().expect("text")
}

#[test]
fn a_blob_is_uploaded_in_every_way_and_nothing_else_stays() {
    for digest in [digest_of(WHOLE), sha512(WHOLE)] {
        let ways: &[Way] = &[
            ("POST alone", &|registry| {
                let target = with_digest("/v2/a/blobs/uploads/", &digest);
                registry.send(Method::POST, &target, &[], WHOLE).0
            }),
            ("POST alone, of unknown length", &|registry| {
                let target = with_digest("/v2/a/blobs/uploads/", &digest);
                registry.send(Method::POST, &target, &[(TRANSFER_ENCODING, "chunked")], WHOLE).0
            }),
            ("PUT of it all", &|registry| registry.finish(&registry.begin(""), &digest, WHOLE)),
            ("PATCH of it all", &|registry| {
                registry.finish(&registry.append(&registry.begin(""), WHOLE), &digest, "")
            }),
            ("PATCH and PUT of the rest", &|registry| {
                let location = registry.append(&registry.begin(""), &WHOLE[..3]);
                registry.finish(&location, &digest, &WHOLE[3..])
            }),
            ("three chunks and an empty one", &|registry| {
                let mut location = registry.begin("");
                for chunk in [&WHOLE[..1], &WHOLE[1..5], &WHOLE[5..], b""] {
                    location = registry.append(&location, chunk);
                }
                registry.finish(&location, &digest, "")
            }),
            ("the algorithm is known from the start", &|registry| {
                let query = format!("?digest-algorithm={}", digest.algorithm().as_str());
                let location = registry.append(&registry.begin(&query), &WHOLE[..7]);
                registry.finish(&location, &digest, &WHOLE[7..])
            }),
            ("without the query of the locations", &|registry| {
                let location = registry.begin("");
                let bare = location.split('?').next().expect("a path");
                registry.append(bare, &WHOLE[..7]);
                registry.append(bare, &WHOLE[7..9]);
                registry.finish(bare, &digest, &WHOLE[9..])
            }),
        ];
        for (way, upload) in ways {
            for ignores_checksums in [false, true] {
                let mut registry = TestRegistry::default();
                registry.store.ignores_checksums = ignores_checksums;
                let response = upload(&registry);
                assert_eq!(outcome(&response), (201, String::new()), "{way}");
                assert_eq!(location(&response), format!("/v2/a/blobs/{digest}"), "{way}");
                assert_eq!(response.headers()["docker-content-digest"], digest.as_str());
                assert_eq!(registry.blob(&digest).as_deref(), Some(WHOLE), "{way}");
                assert_eq!(registry.leftovers(), Vec::<String>::new(), "{way}");
            }
        }
    }
}

#[test]
fn chunks_of_all_sizes_are_put_together() {
    const MIB: usize = 1024 * 1024;
    let content: Bytes = (0..24 * MIB).map(|n| (n / 7) as u8).collect::<Vec<_>>().into();
    let digest = digest_of(&content);
    for sizes in [vec![6 * MIB, 6 * MIB, 12 * MIB], vec![MIB, 10 * MIB, 3, 13 * MIB - 3]] {
        let registry = TestRegistry::default();
        let mut location = registry.begin("");
        let mut rest = content.clone();
        for size in sizes {
            location = registry.append(&location, rest.split_to(size));
        }
        assert_eq!(outcome(&registry.finish(&location, &digest, "")), (201, String::new()));
        assert_eq!(registry.blob(&digest), Some(content.clone()));
        assert_eq!(registry.store.parts_under_way(), 0);
    }
}

#[test]
fn the_empty_blob_needs_no_body() {
    let digest = digest_of(b"");
    let registry = TestRegistry::default();
    let target = with_digest("/v2/a/blobs/uploads/", &digest);
    assert_eq!(registry.send(Method::POST, &target, &[], "").0.status(), 201);
    assert_eq!(registry.blob(&digest), Some(Bytes::new()));
    let registry = TestRegistry::default();
    assert_eq!(registry.finish(&registry.begin(""), &digest, "").status(), 201);
    assert_eq!(registry.blob(&digest), Some(Bytes::new()));
}

#[test]
fn what_does_not_match_its_digest_is_never_there() {
    let wrong = (400, "DIGEST_INVALID".to_owned());
    for digest in [digest_of(b"other"), sha512(b"other")] {
        for ignores_checksums in [false, true] {
            let mut registry = TestRegistry::default();
            registry.store.ignores_checksums = ignores_checksums;
            // Twice: from the second time on it is known whether the store verifies by itself.
            for _ in 0..2 {
                let target = with_digest("/v2/a/blobs/uploads/", &digest);
                let posted = registry.send(Method::POST, &target, &[], WHOLE).0;
                assert_eq!(outcome(&posted), wrong);
                assert_eq!(outcome(&registry.finish(&registry.begin(""), &digest, WHOLE)), wrong);
                let location = registry.append(&registry.begin(""), &WHOLE[..3]);
                assert_eq!(outcome(&registry.finish(&location, &digest, &WHOLE[3..])), wrong);
                assert_eq!(outcome(&registry.finish(&location, &digest, "")), wrong);
                let keys = registry.store.objects();
                assert!(!keys.contains_key(&layout::content(&digest)));
                assert_eq!(registry.blob(&digest), None);
                // The session is where it was.
                let right = digest_of(WHOLE);
                assert_eq!(registry.finish(&location, &right, &WHOLE[3..]).status(), 201);
            }
        }
    }
}

#[test]
fn the_status_tells_where_an_upload_goes_on() {
    let registry = TestRegistry::default();
    let first = registry.begin("");
    let status = |target: &str| registry.send(Method::GET, target, &[], "").0;
    assert_eq!((status(&first).status().as_u16(), range(&status(&first))), (204, "0-0"));
    let second = registry.append(&first, &WHOLE[..5]);
    for target in [&first, &second, first.split('?').next().expect("a path")] {
        let response = status(target);
        assert_eq!((response.status().as_u16(), range(&response)), (204, "0-4"), "{target}");
        assert_eq!(location(&response), second, "{target}");
        assert!(first.contains(response.headers()["docker-upload-uuid"].to_str().expect("text")));
    }
}

#[test]
fn a_chunk_that_does_not_come_next_is_refused_with_what_does() {
    let registry = TestRegistry::default();
    let first = registry.begin("");
    let second = registry.append(&first, &WHOLE[..5]);
    let chunked = (TRANSFER_ENCODING, "chunked");
    let far = format!("{}?offset=9", first.split('?').next().expect("a path"));
    let rows: &[Refusal] = &[
        (&first, &[], 416, "RANGE_INVALID"),
        (&first, &[(CONTENT_RANGE, "0-4")], 416, "RANGE_INVALID"),
        (&second, &[(CONTENT_RANGE, "0-4")], 416, "RANGE_INVALID"),
        (&second, &[(CONTENT_RANGE, "6-10")], 416, "RANGE_INVALID"),
        (&second, &[(CONTENT_RANGE, "x")], 416, "RANGE_INVALID"),
        (&second, &[(CONTENT_RANGE, "5-3")], 416, "RANGE_INVALID"),
        (&far, &[], 416, "RANGE_INVALID"),
        (&far, &[(CONTENT_RANGE, "9-13")], 416, "RANGE_INVALID"),
        (&second, &[(CONTENT_RANGE, "5-8")], 400, "SIZE_INVALID"),
        (&second, &[(CONTENT_RANGE, "5-8"), chunked.clone()], 400, "SIZE_INVALID"),
    ];
    for (target, headers, status, code) in rows {
        for method in [Method::PATCH, Method::PUT] {
            let digest = digest_of(WHOLE);
            let target =
                if method == Method::PUT { &with_digest(target, &digest) } else { *target };
            let (response, _) = registry.send(method, target, headers, &WHOLE[5..10]);
            assert_eq!(outcome(&response), (*status, (*code).to_owned()), "{target} {headers:?}");
            if headers.iter().all(|(_, value)| *value != "x" && *value != "5-3") && *status == 416 {
                assert_eq!(location(&response), second, "{target} {headers:?}");
                assert_eq!(range(&response), "0-4");
            }
        }
    }
    for right in [&[(CONTENT_RANGE, "5-9")][..], &[(CONTENT_RANGE, "bytes 10-11/16"), chunked], &[]]
    {
        let at = location(&registry.send(Method::GET, &first, &[], "").0);
        let offset: usize =
            at.split('=').next_back().and_then(|n| n.parse().ok()).expect("a number");
        let end = [10, 12, 16].into_iter().find(|end| *end > offset).expect("an end");
        let (response, _) = registry.send(Method::PATCH, &at, right, &WHOLE[offset..end]);
        assert_eq!(response.status(), 202, "{right:?}");
    }
    let at = location(&registry.send(Method::GET, &first, &[], "").0);
    assert_eq!(registry.finish(&at, &digest_of(WHOLE), "").status(), 201);
}

#[test]
fn an_upload_that_is_not_there_is_unknown_to_every_method() {
    let registry = TestRegistry::default();
    let cancelled = registry.append(&registry.begin(""), WHOLE);
    assert_eq!(registry.send(Method::DELETE, &cancelled, &[], "").0.status(), 204);
    assert_eq!(registry.leftovers(), Vec::<String>::new());
    let digest = digest_of(WHOLE);
    let unknown = (404, "BLOB_UPLOAD_UNKNOWN".to_owned());
    let never = "/v2/a/blobs/uploads/01234567-89ab-cdef-0123-456789abcdef";
    for target in [cancelled.as_str(), never, "/v2/a/blobs/uploads/x"] {
        for (method, content) in [
            (Method::GET, &b""[..]),
            (Method::DELETE, b""),
            (Method::PATCH, WHOLE),
            (Method::PATCH, b""),
            (Method::PUT, WHOLE),
            (Method::PUT, b""),
        ] {
            let target = with_digest(target, &digest);
            let (response, _) = registry.send(method.clone(), &target, &[], content);
            assert_eq!(outcome(&response), unknown, "{method} {target}");
        }
    }
    assert_eq!(registry.blob(&digest), None);
}

#[test]
fn malformed_parameters_are_refused() {
    let registry = TestRegistry::default();
    let at = registry.begin("");
    let bare = at.split('?').next().expect("a path");
    for (method, target, code) in [
        (Method::PUT, at.clone(), "DIGEST_INVALID"),
        (Method::PUT, format!("{at}&digest=x"), "DIGEST_INVALID"),
        (Method::PUT, format!("{at}&digest=md5:00"), "DIGEST_INVALID"),
        (Method::POST, "/v2/a/blobs/uploads/?digest=x".to_owned(), "DIGEST_INVALID"),
        (Method::POST, "/v2/a/blobs/uploads/?digest-algorithm=md5".to_owned(), "DIGEST_INVALID"),
        (Method::PATCH, format!("{bare}?offset=-1"), "BLOB_UPLOAD_INVALID"),
        (Method::PATCH, format!("{bare}?algorithm=md5"), "DIGEST_INVALID"),
    ] {
        let (response, _) = registry.send(method, &target, &[], WHOLE);
        assert_eq!(outcome(&response), (400, code.to_owned()), "{target}");
    }
}

#[test]
fn a_blob_is_mounted_from_where_the_settings_allow() {
    let digest = digest_of(WHOLE);
    let mount = |setting, from: &str| {
        let mut registry = TestRegistry::default();
        registry.settings.mount = setting;
        registry.store.put_blob(&"b".parse().expect("a valid name"), b"a blob's content");
        let target = format!("/v2/a/blobs/uploads/?mount={digest}{from}");
        let (response, _) = registry.send(Method::POST, &target, &[], "");
        (response.status().as_u16(), registry.blob(&digest).is_some())
    };
    let (mounted, begun) = ((201, true), (202, false));
    for (setting, from, expected) in [
        (Mount::From, "&from=b", mounted),
        (Mount::From, "&from=c", begun),
        (Mount::From, "&from=B", begun),
        (Mount::From, "", begun),
        (Mount::Anywhere, "", mounted),
        (Mount::Anywhere, "&from=b", mounted),
        (Mount::Anywhere, "&from=c", begun),
        (Mount::Off, "&from=b", begun),
        (Mount::Off, "", begun),
    ] {
        assert_eq!(mount(setting, from), expected, "{setting:?} {from}");
    }
}

#[test]
fn a_registry_that_may_not_be_changed_takes_no_uploads() {
    let mut registry = TestRegistry::default();
    let location = registry.begin("");
    registry.settings.read_only = true;
    for (method, target) in [
        (Method::POST, "/v2/a/blobs/uploads/"),
        (Method::PATCH, &location),
        (Method::PUT, &location),
        (Method::DELETE, &location),
    ] {
        let (response, _) = registry.send(method, target, &[], WHOLE);
        assert_eq!(outcome(&response), (405, "UNSUPPORTED".to_owned()));
    }
    assert_eq!(registry.send(Method::GET, &location, &[], "").0.status(), 204);
}

#[test]
fn an_upload_takes_as_few_round_trips_as_it_can() {
    let registry = TestRegistry::default();
    let digest = digest_of(WHOLE);
    let (begun, round_trips) = registry.send(Method::POST, "/v2/a/blobs/uploads/", &[], "");
    assert_eq!(round_trips, 1);
    // The session beside the stream, the stream's end, and the link with the session's end.
    let target = with_digest(&location(&begun), &digest);
    assert_eq!(registry.send(Method::PUT, &target, &[], WHOLE).1, 3);
    let target = with_digest("/v2/a/blobs/uploads/", &digest);
    assert_eq!(registry.send(Method::POST, &target, &[], WHOLE).1, 3);
    // The stream, its end, and the progress; for the second chunk the old progress goes as well.
    let (first, round_trips) = registry.send(Method::PATCH, &registry.begin(""), &[], &WHOLE[..5]);
    assert_eq!(round_trips, 3);
    let (second, round_trips) = registry.send(Method::PATCH, &location(&first), &[], &WHOLE[5..]);
    assert_eq!(round_trips, 4);
    // The progress; the chunks; their parts joined; the link; the session's end, startedat last.
    let target = with_digest(&location(&second), &digest);
    assert_eq!(registry.send(Method::PUT, &target, &[], "").1, 6);
}

/// A client that goes on where the registry says, and begins anew where it must.
fn push(registry: &TestRegistry, chunks: &[&'static [u8]], digest: &Digest) -> Result<(), u16> {
    let content = chunks.concat();
    let (begun, _) = registry.send(Method::POST, "/v2/a/blobs/uploads/", &[], "");
    if begun.status() != 202 {
        return Err(begun.status().as_u16());
    }
    let mut at = location(&begun);
    let mut ends = chunks.iter().scan(0, |end, chunk| {
        *end += chunk.len();
        Some(*end)
    });
    let mut end = ends.next().unwrap_or(0);
    for _ in 0..4 {
        let offset: usize = at.split('=').next_back().and_then(|n| n.parse().ok()).unwrap_or(0);
        while end <= offset && end < content.len() {
            end = ends.next().unwrap_or(content.len());
        }
        let is_last = end == content.len();
        let (response, _) = if is_last {
            let target = with_digest(&at, digest);
            registry.send(Method::PUT, &target, &[], content[offset..].to_vec())
        } else {
            registry.send(Method::PATCH, &at, &[], content[offset..end].to_vec())
        };
        match response.status().as_u16() {
            201 => return Ok(()),
            202 => at = location(&response),
            _ => {
                let (status, _) = registry.send(Method::GET, &at, &[], "");
                if status.status() != 204 {
                    return Err(status.status().as_u16());
                }
                at = location(&status);
            }
        }
    }
    Err(0)
}

#[test]
fn a_failure_at_any_call_leaves_no_broken_blob_and_the_client_can_go_on() {
    let ways: &[&[&'static [u8]]] = &[&[WHOLE], &[&WHOLE[..5], &WHOLE[5..9], &WHOLE[9..]]];
    let digest = digest_of(WHOLE);
    for chunks in ways {
        let calls = {
            let registry = TestRegistry::default();
            push(&registry, chunks, &digest).expect("nothing fails");
            registry.store.calls().len()
        };
        for call in 0..calls {
            for effect in [Effect::None, Effect::Done] {
                let registry = TestRegistry::default();
                registry.store.failing_call.set(Some((call, effect)));
                let first = push(&registry, chunks, &digest);
                if let Some(content) = registry.blob(&digest) {
                    assert_eq!(content, WHOLE, "{call} {effect:?}");
                }
                registry.store.failing_call.set(None);
                if first.is_err() {
                    push(&registry, chunks, &digest).expect("nothing fails any more");
                }
                assert_eq!(registry.blob(&digest).as_deref(), Some(WHOLE), "{call} {effect:?}");
                // What is left is a session that is purged in time.
                let leftovers = registry.leftovers();
                let begun = leftovers.iter().filter(|key| key.ends_with("/startedat")).count();
                assert!(leftovers.is_empty() || begun > 0, "{call} {effect:?}: {leftovers:?}");
            }
        }
    }
}

#[test]
fn two_requests_that_race_for_the_same_place_leave_what_one_of_them_sent() {
    let registry = TestRegistry::default();
    let first = registry.begin("");
    let one = registry.append(&first, "one and");
    // As if the other had looked the session up before the first one was done.
    let progress = layout::upload_progress(&repository(), &session_id(&first), 7);
    let kept = registry.store.objects()[&progress].clone();
    registry.store.delete(&progress);
    registry.append(&first, "the other");
    registry.store.put(progress, kept);
    for (content, at) in [("one and", &one), ("the other", &first.replace("offset=0", "offset=9"))]
    {
        let digest = digest_of(content.as_bytes());
        let response = registry.finish(at, &digest, "");
        if response.status() == 201 {
            assert_eq!(registry.blob(&digest), Some(Bytes::from(content)));
            return;
        }
    }
    panic!("one of them must have won");
}

fn session_id(location: &str) -> crate::oci::UploadId {
    let path = location.split('?').next().expect("a path");
    path.rsplit('/').next().expect("a segment").parse().expect("an id")
}
