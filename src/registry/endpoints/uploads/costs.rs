//! What uploads cost the store, whatever a client makes of them.

use http::Method;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::streamed_body::{location, outcome, repository, with_digest};
use crate::oci::{Algorithm, Digest, Hasher, UploadId};
use crate::registry::test_registry::{TestRegistry, digest_of};
use crate::store::memory::Effect;
use crate::store::{LIST_LENGTH, StoreErrorKind, Uploads as _, layout};

/// What the store is asked for while something is done.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    calls: usize,
    read: usize,
    written: usize,
}

fn cost_of<T>(registry: &TestRegistry, act: impl FnOnce() -> T) -> (T, Cost) {
    let store = &registry.store;
    let figures = || (store.calls().len(), store.bytes_read.get(), store.bytes_written.get());
    let (calls, read, written) = figures();
    let result = act();
    let after = figures();
    let cost = Cost { calls: after.0 - calls, read: after.1 - read, written: after.2 - written };
    (result, cost)
}

/// A store whose listings have as many entries a page as a real one's.
fn registry() -> TestRegistry {
    let mut registry = TestRegistry::default();
    registry.store.page_limit = Some(1000);
    registry
}

fn sha512(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha512, content)
}

fn session_id(location: &str) -> UploadId {
    let path = location.split('?').next().expect("a path");
    path.rsplit('/').next().expect("a segment").parse().expect("an id")
}

/// Appends that many chunks of one byte each.
fn append_bytes(registry: &TestRegistry, mut at: String, count: usize) -> (String, Vec<u8>) {
    let content: Vec<u8> = (0..count).map(|n| (n % 251) as u8).collect();
    for byte in &content {
        at = registry.append(&at, vec![*byte]);
    }
    (at, content)
}

#[test]
fn a_chunk_costs_as_much_after_a_thousand_others_as_after_few() {
    let registry = registry();
    let mut at = registry.begin("");
    let mut costs = Vec::new();
    for _ in 0..1_500 / LIST_LENGTH {
        let ((next, _), cost) = cost_of(&registry, || append_bytes(&registry, at, LIST_LENGTH));
        at = next;
        costs.push(cost);
    }
    let most = |figure: fn(&Cost) -> usize| costs.iter().skip(2).map(figure).max();
    let early = &costs[2];
    assert_eq!(most(|cost| cost.calls), Some(early.calls), "{costs:?}");
    // Once in a while the ids of all lists are written, and read.
    let ids = 60 * costs.len();
    assert!(most(|cost| cost.read) <= Some(early.read + ids), "{costs:?}");
    assert!(most(|cost| cost.written) <= Some(early.written + ids), "{costs:?}");
    let written: usize = costs.iter().map(|cost| cost.written).sum();
    assert!(written < 3_000_000, "{written} bytes for 1,500 bytes");
}

#[test]
fn an_upload_of_many_chunks_is_closed_and_nothing_of_it_stays() {
    for count in [LIST_LENGTH, LIST_LENGTH + 1, 2 * LIST_LENGTH + 1, 40 * LIST_LENGTH] {
        let registry = registry();
        let (at, content) = append_bytes(&registry, registry.begin(""), count);
        let digest = digest_of(&content);
        let target = with_digest(&at, &digest);
        let ((response, round_trips), cost) =
            cost_of(&registry, || registry.send(Method::PUT, &target, &[], ""));
        assert_eq!(outcome(&response), (201, String::new()));
        assert_eq!(registry.blob(&digest).as_deref(), Some(content.as_slice()));
        assert_eq!(registry.leftovers(), Vec::<String>::new());
        // Each chunk is read and removed, each list as well; the rest is a handful.
        let objects = count + count.div_ceil(LIST_LENGTH);
        assert!(cost.calls <= 2 * objects + 16, "{count}: {cost:?}");
        assert!(
            round_trips <= 12 + count / 16 + objects / 256,
            "{count}: {round_trips} round trips"
        );
    }
}

#[test]
fn where_an_upload_is_costs_as_little_after_thousands_of_chunks() {
    let registry = registry();
    let (at, content) = append_bytes(&registry, registry.begin(""), 40 * LIST_LENGTH);
    let ((response, _), cost) = cost_of(&registry, || registry.send(Method::GET, &at, &[], ""));
    assert_eq!(location(&response), at);
    assert_eq!(cost.calls, 2, "for {} chunks", content.len());
    assert_eq!(registry.send(Method::DELETE, &at, &[], "").0.status(), 204);
    assert_eq!(registry.leftovers(), Vec::<String>::new());
}

#[test]
fn a_failure_at_any_call_leaves_an_upload_of_many_chunks_where_it_was_or_further() {
    let first = LIST_LENGTH - 1;
    let calls = |registry: &TestRegistry, at: &str| {
        cost_of(registry, || append_bytes(registry, at.to_owned(), 3))
    };
    let all = {
        let registry = registry();
        let (at, _) = append_bytes(&registry, registry.begin(""), first);
        calls(&registry, &at).1.calls
    };
    assert!(all > 9, "it is at these calls that a list is written");
    for call in 0..all {
        for effect in [Effect::None, Effect::Done] {
            let registry = registry();
            let (mut at, _) = append_bytes(&registry, registry.begin(""), first);
            let failing = registry.store.calls().len() + call;
            registry.store.failing_call.set(Some((failing, effect)));
            let mut sent = vec![0; first];
            while sent.len() < first + 3 {
                let (response, _) = registry.send(Method::PATCH, &at, &[], "x");
                if response.status() != 202 {
                    at = location(&registry.send(Method::GET, &at, &[], "").0);
                } else {
                    at = location(&response);
                }
                let offset = at.split('=').next_back().and_then(|n| n.parse().ok());
                sent = vec![0; offset.expect("a number")];
            }
            let content: Vec<u8> =
                (0..first).map(|n| n as u8).chain(sent[first..].iter().map(|_| b'x')).collect();
            let digest = digest_of(&content);
            assert_eq!(registry.finish(&at, &digest, "").status(), 201, "{call} {effect:?}");
            assert_eq!(registry.blob(&digest).as_deref(), Some(content.as_slice()));
            assert_eq!(registry.leftovers(), Vec::<String>::new(), "{call} {effect:?}");
        }
    }
}

#[test]
fn what_was_read_to_be_hashed_is_not_read_again() {
    const SIZE: usize = 100_000;
    let registry = registry();
    let content = vec![7; SIZE];
    let mut at = registry.append(&registry.begin(""), content.clone());
    let wrong = sha512(b"other");
    let mut sent = content;
    let refuse = |at: &str, last: &'static str| {
        let (response, cost) = cost_of(&registry, || registry.finish(at, &wrong, last));
        assert_eq!(outcome(&response), (400, "DIGEST_INVALID".to_owned()));
        cost.read
    };
    assert!(refuse(&at, "") >= SIZE);
    // Neither by asking again, nor with a last chunk, nor after another one.
    for last in ["", "", "last"] {
        assert!(refuse(&at, last) < 2_000, "{last:?}");
    }
    for _ in 0..3 {
        at = registry.append(&at, "more");
        sent.extend(b"more");
        for last in ["last", ""] {
            assert!(refuse(&at, last) < 2_000, "{last:?}");
        }
    }
    // What was hashed as it passed still is.
    let digest = digest_of(&sent);
    assert_eq!(registry.finish(&at, &digest, "").status(), 201);
    assert_eq!(registry.blob(&digest).as_deref(), Some(sent.as_slice()));
}

#[test]
fn a_chunk_that_comes_for_another_algorithm_takes_no_hash_away() {
    let registry = registry();
    let content = vec![7; 50_000];
    let at = registry.append(&registry.begin(""), content.clone());
    let at = registry.append(&format!("{at}&algorithm=sha512"), "more");
    let whole = [content.as_slice(), b"more"].concat();
    let digest = digest_of(&whole);
    let (response, cost) = cost_of(&registry, || registry.finish(&at, &digest, ""));
    assert_eq!(response.status(), 201);
    // The last chunk is hashed once more, and both are joined.
    assert!(cost.read < whole.len() + 2_000, "{cost:?}");
}

#[test]
fn what_begins_uploads_tries_once_whether_the_store_verifies_checksums() {
    for is_broken in [false, true] {
        let mut registry = registry();
        let probe = layout::checksum_probe();
        if is_broken {
            registry.store.fail(probe.clone(), StoreErrorKind::Unavailable);
        }
        for _ in 0..3 {
            registry.begin("");
        }
        let probes = registry.store.calls().iter().filter(|key| **key == probe).count();
        assert!((1..=2).contains(&probes), "{probes}");
        let known = registry.store.known_to_verify_checksums();
        assert_eq!(known, (!is_broken).then_some(true));
    }
}

/// Moorage wrote all chunks into the progress once, and one hash that covered them.
#[test]
fn an_upload_that_an_older_moorage_began_goes_on() {
    for (count, is_hashed) in [(3, true), (3, false), (3 * LIST_LENGTH, true)] {
        let registry = registry();
        let at = registry.begin("");
        let id = session_id(&at);
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut content = Vec::new();
        let mut chunks = Vec::new();
        for number in 0..count {
            let chunk = UploadId::from_random(number as u128);
            registry.store.put(layout::upload_chunk(&repository(), &id, &chunk), "old");
            hasher.update(b"old");
            content.extend(b"old");
            chunks.push(serde_json::json!({ "id": chunk, "length": 3 }));
        }
        let hash = is_hashed.then_some(hasher);
        let progress = serde_json::json!({ "chunks": chunks, "hash": hash });
        let key = layout::upload_progress(&repository(), &id, content.len() as u64);
        registry.store.put(key, progress.to_string());
        let at = at.replace("offset=0", &format!("offset={}", content.len()));
        let at = registry.append(&at, "new");
        content.extend(b"new");
        let digest = digest_of(&content);
        assert_eq!(outcome(&registry.finish(&at, &digest, "")), (201, String::new()));
        assert_eq!(registry.blob(&digest).as_deref(), Some(content.as_slice()));
        assert_eq!(registry.leftovers(), Vec::<String>::new());
    }
}
