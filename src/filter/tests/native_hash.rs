//! Uploads that the native hasher hashes, as far as the filter can see it.

use sha2::digest::common::hazmat::SerializableState as _;
use sha2::{Digest as _, Sha256};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::driver::{CONFIG, Proxy};
use crate::oci::{Algorithm, Digest};

const CONTENT: &[u8] = b"a blob's content";

/// As long, and by its digest it shows whose hash it was that counted.
const OTHER: &[u8] = b"another content.";

const WANTED: &str = "filter_state.wasm.moorage_native_hash";
const RESULT: &str = "filter_state.moorage.native_hash.result";

/// What the hasher leaves of a body.
fn result(content: &[u8]) -> Vec<u8> {
    let state = Sha256::new().chain_update(content).serialize();
    [&(content.len() as u64).to_le_bytes()[..], &state].concat()
}

/// A proxy with a hasher before the filter that says this of itself.
fn proxy_with_hasher(version: &[u8]) -> Proxy {
    let mut proxy = Proxy::new(CONFIG);
    proxy.left_before.insert("filter_state.moorage.native_hash".to_owned(), version.to_vec());
    proxy
}

fn is_asked(proxy: &Proxy, id: u32) -> bool {
    proxy.with(id, |stream| stream.properties.contains_key(WANTED))
}

/// Sends the content in two pieces, of which the hasher leaves `left` at the end; gives the reply's status and code.
fn send(proxy: &mut Proxy, method: &str, path: &str, left: Option<Vec<u8>>) -> (u16, String) {
    let id = proxy.begin(method, path, &[], false);
    proxy.answer_calls();
    proxy.send(id, &CONTENT[..5], false);
    if let Some(left) = left {
        proxy.with(id, |stream| stream.properties.insert(RESULT.to_owned(), left));
    }
    proxy.send(id, &CONTENT[5..], true);
    proxy.answer_calls();
    if proxy.reply(id).is_none() {
        proxy.objects.insert(proxy.path(id), CONTENT.to_vec());
        proxy.respond(id, "200", &[], false, true);
        proxy.answer_calls();
    }
    let outcome = proxy.outcome(id);
    proxy.close(id);
    outcome
}

fn put(proxy: &mut Proxy, of: &[u8], left: Option<Vec<u8>>) -> (u16, String) {
    let path = format!("{}&digest={}", proxy.begin_upload(), Digest::of(Algorithm::Sha256, of));
    send(proxy, "PUT", &path, left)
}

#[test]
fn the_native_hash_of_a_body_counts_and_the_module_hashes_nothing_itself() {
    let mut proxy = proxy_with_hasher(b"sha256/1");
    assert_eq!(put(&mut proxy, OTHER, Some(result(OTHER))).0, 201);
    let refused = put(&mut proxy, CONTENT, Some(result(OTHER)));
    assert_eq!(refused, (400, "DIGEST_INVALID".to_owned()));
    let location = proxy.begin_upload();
    assert_eq!(send(&mut proxy, "PATCH", &location, Some(result(OTHER))).0, 202);
    let progress = proxy.objects.iter().find(|(key, _)| key.contains("/progress/"));
    let progress = String::from_utf8_lossy(progress.expect("progress").1).into_owned();
    let state = serde_json::Value::String(base64_of(&result(OTHER)[8..])).to_string();
    assert!(progress.contains(&state), "{progress} has not {state}");
    proxy.plugin.tick();
    assert_eq!(proxy.metric("moorage_native_hashes_total").iter().sum::<u64>(), 3);
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn only_what_is_hashed_by_sha256_from_its_first_byte_on_is_left_to_the_hasher() {
    let mut proxy = proxy_with_hasher(b"sha256/1");
    let location = proxy.begin_upload();
    let digest = |algorithm| Digest::of(algorithm, CONTENT);
    let rows = [
        ("PATCH", location.clone(), true),
        ("PUT", format!("{location}&digest={}", digest(Algorithm::Sha256)), true),
        ("POST", format!("/v2/a/blobs/uploads/?digest={}", digest(Algorithm::Sha256)), true),
        ("PATCH", format!("{location}&algorithm=sha512"), false),
        ("PUT", format!("{location}&digest={}", digest(Algorithm::Sha512)), false),
        // One that goes on, and one that says nothing of where it is.
        ("PATCH", location.replace("offset=0", "offset=5"), false),
        ("PATCH", location.replace("?offset=0", ""), false),
        ("PUT", "/v2/a/manifests/tag".to_owned(), false),
    ];
    for (method, path, expected) in rows {
        let id = proxy.begin(method, &path, &[], false);
        assert_eq!(is_asked(&proxy, id), expected, "{method} {path}");
        proxy.close(id);
    }
}

#[test]
fn without_a_hasher_or_with_one_of_another_version_the_module_hashes() {
    for mut proxy in [Proxy::new(CONFIG), proxy_with_hasher(b"sha256/2")] {
        // What there may be under the key of the result is not looked at.
        assert_eq!(put(&mut proxy, CONTENT, Some(result(OTHER))).0, 201);
        let refused = put(&mut proxy, OTHER, Some(result(OTHER)));
        assert_eq!(refused, (400, "DIGEST_INVALID".to_owned()));
    }
}

#[test]
fn a_hash_that_is_missing_or_not_of_the_whole_body_stores_nothing_and_is_not_asked_for_again() {
    let short = result(&CONTENT[..5]);
    let torn = result(CONTENT)[..20].to_vec();
    for left in [None, Some(short), Some(torn), Some(Vec::new())] {
        let mut proxy = proxy_with_hasher(b"sha256/1");
        let refused = put(&mut proxy, CONTENT, left.clone());
        assert_eq!(refused, (503, "UNAVAILABLE".to_owned()), "{left:?}");
        assert!(!proxy.objects.keys().any(|key| key.contains("/blobs/")), "{left:?}");
        assert_eq!(put(&mut proxy, CONTENT, Some(result(OTHER))).0, 201, "{left:?}");
    }
}

#[test]
fn a_chunk_whose_hash_is_lost_is_taken_and_hashed_when_the_upload_is_closed() {
    let mut proxy = proxy_with_hasher(b"sha256/1");
    let location = proxy.begin_upload();
    assert_eq!(send(&mut proxy, "PATCH", &location, None).0, 202);
    let next = location.replace("offset=0", &format!("offset={}", CONTENT.len()));
    for (of, is_wrong) in [(OTHER, true), (CONTENT, false)] {
        let digest = Digest::of(Algorithm::Sha256, of);
        let id = proxy.ask("PUT", &format!("{next}&digest={digest}"), &[]);
        // The store here can't copy what has been found right to where it belongs.
        assert_eq!(proxy.outcome(id).1 == "DIGEST_INVALID", is_wrong);
    }
}
