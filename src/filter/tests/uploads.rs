//! Uploads whose bodies stream to the store.

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::driver::{CONFIG, Proxy, config_with};
use super::store::REPOSITORY;
use crate::filter::host::Action;
use crate::oci::{Algorithm, Digest};

const WHOLE: &[u8] = b"a blob's content";
const MIB: usize = 1024 * 1024;

fn digest() -> Digest {
    Digest::of(Algorithm::Sha256, WHOLE)
}

/// Sends a chunk to an upload; gives its `Location` after that.
fn append(proxy: &mut Proxy, location: &str, chunk: &[u8]) -> String {
    let id = proxy.begin("PATCH", location, &[], false);
    proxy.answer_calls();
    proxy.send(id, chunk, true);
    finish(proxy, id, chunk);
    let reply = proxy.reply(id).expect("a reply");
    assert_eq!(reply.status, 202, "{}", String::from_utf8_lossy(&reply.body));
    proxy.close(id);
    reply.headers.into_iter().find(|(name, _)| name == "location").expect("a location").1
}

/// The store takes the streamed body.
fn finish(proxy: &mut Proxy, id: u32, content: &[u8]) {
    proxy.answer_calls();
    let path = proxy.path(id);
    proxy.with(id, |stream| {
        assert!(!stream.is_paused && stream.is_sent_whole, "the end has been let go");
        assert_eq!(stream.sent_on, content);
    });
    proxy.objects.insert(path, content.to_vec());
    let action = proxy.respond(id, "200", &[], false, true);
    assert_eq!(action, Action::Pause, "the client gets the handler's answer, not the store's");
    proxy.answer_calls();
}

#[test]
fn the_end_of_a_body_is_held_until_everything_agrees() {
    for announced in [true, false] {
        let mut proxy = Proxy::new(CONFIG);
        let location = proxy.begin_upload();
        let length = WHOLE.len().to_string();
        let headers: Vec<_> =
            announced.then_some(("content-length", length.as_str())).into_iter().collect();
        let path = format!("{location}&digest={}", digest());
        let id = proxy.begin("PUT", &path, &headers, false);
        assert_eq!(proxy.send(id, &WHOLE[..5], false), Action::Continue);
        proxy.with(id, |stream| assert_eq!(stream.sent_on, &WHOLE[..5]));
        // The session has not been looked up yet. With a length, the piece that completes it is held, and Envoy tells
        // the end of the body by a piece of its own.
        assert_eq!(proxy.send(id, &WHOLE[5..], !announced), Action::Pause);
        if announced {
            assert_eq!(proxy.send(id, b"", true), Action::Pause);
        }
        proxy.with(id, |stream| assert_eq!(stream.sent_on, &WHOLE[..5]));
        finish(&mut proxy, id, WHOLE);
        assert_eq!(proxy.outcome(id).0, 201);
        proxy.close(id);
        proxy.assert_idle();
        let link = format!("{REPOSITORY}/_layers/sha256/{}/link", digest().hex());
        assert!(proxy.objects.contains_key(&link));
        assert!(!proxy.objects.keys().any(|key| key.contains("_uploads")));
    }
}

#[test]
fn a_body_of_another_digest_never_gets_its_end_to_the_store() {
    let mut proxy = Proxy::new(CONFIG);
    let location = proxy.begin_upload();
    let wrong = Digest::of(Algorithm::Sha256, b"other");
    let id = proxy.begin("PUT", &format!("{location}&digest={wrong}"), &[], false);
    proxy.send(id, &WHOLE[..5], false);
    proxy.send(id, &WHOLE[5..], true);
    proxy.answer_calls();
    assert_eq!(proxy.outcome(id), (400, "DIGEST_INVALID".to_owned()));
    proxy.with(id, |stream| assert_eq!(stream.sent_on, &WHOLE[..5]));
    proxy.close(id);
    proxy.assert_idle();
}

#[test]
fn chunks_are_hashed_as_they_pass_through_one_request_after_the_other() {
    let mut proxy = Proxy::new(CONFIG);
    let location = proxy.begin_upload();
    let second = append(&mut proxy, &location, &WHOLE[..5]);
    assert!(second.contains("offset=5"), "{second}");
    let third = append(&mut proxy, &second, &WHOLE[5..]);
    let progress = proxy.objects.iter().find(|(key, _)| key.contains("/progress/"));
    let progress = String::from_utf8_lossy(progress.expect("progress").1).into_owned();
    assert!(progress.contains("\"state\""), "the hash's state is there: {progress}");
    assert!(third.contains("offset=16"), "{third}");
    proxy.assert_idle();
}

#[test]
fn trailers_end_a_body_and_are_not_for_the_store() {
    let mut proxy = Proxy::new(CONFIG);
    let location = proxy.begin_upload();
    let id = proxy.begin("PATCH", &location, &[], false);
    proxy.send(id, WHOLE, false);
    assert_eq!(proxy.send_trailers(id), Action::Pause);
    proxy.with(id, |stream| assert!(!stream.has_trailers));
    finish(&mut proxy, id, WHOLE);
    assert_eq!(proxy.outcome(id).0, 202);
}

/// An upload that has `sent` of a second chunk while the first one's hash is still being read.
fn waiting_for_its_hasher(proxy: &mut Proxy, sent: &[usize]) -> u32 {
    let location = proxy.begin_upload();
    let second = append(proxy, &location, b"first");
    begin_waiting(proxy, &second, sent)
}

fn begin_waiting(proxy: &mut Proxy, location: &str, sent: &[usize]) -> u32 {
    let id = proxy.begin("PATCH", location, &[], false);
    for size in sent {
        assert_eq!(proxy.send(id, &vec![7; *size], false), Action::Continue);
    }
    id
}

#[test]
fn what_comes_before_the_hasher_is_kept_up_to_32_mib() {
    for (sent, is_hashed) in
        [(vec![16 * MIB, 16 * MIB], true), (vec![16 * MIB, 16 * MIB, 1], false)]
    {
        let mut proxy = Proxy::new(CONFIG);
        let id = waiting_for_its_hasher(&mut proxy, &sent);
        let held = proxy.worker().budget.held(crate::store::Purpose::Bodies);
        assert_eq!(held > 0, is_hashed, "what will not be hashed is not kept");
        proxy.answer_calls();
        proxy.send(id, b"", true);
        let content = vec![7; sent.iter().sum()];
        finish(&mut proxy, id, &content);
        assert_eq!(proxy.outcome(id).0, 202);
        let progress = proxy.objects.iter().find(|(key, _)| key.contains("/progress/"));
        let progress = String::from_utf8_lossy(progress.expect("progress").1).into_owned();
        let full = 5 + content.len();
        let hashed_to_its_end = progress.contains(&format!("\"bytes\":{full}"));
        assert_eq!(hashed_to_its_end, is_hashed, "{progress}");
        proxy.close(id);
        proxy.assert_idle();
    }
}

#[test]
fn what_waited_for_its_hasher_is_hashed_as_if_it_had_not() {
    let hashes = [false, true].map(|waits| {
        let mut proxy = Proxy::new(CONFIG);
        let location = proxy.begin_upload();
        let second = append(&mut proxy, &location, b"first");
        let id = proxy.begin("PATCH", &second, &[], false);
        if !waits {
            proxy.answer_calls();
        }
        for piece in WHOLE.chunks(3) {
            proxy.send(id, piece, false);
        }
        proxy.answer_calls();
        proxy.send(id, b"", true);
        finish(&mut proxy, id, WHOLE);
        assert_eq!(proxy.outcome(id).0, 202);
        let progress = proxy.objects.iter().rfind(|(key, _)| key.contains("/progress/"));
        let json = serde_json::from_slice(progress.expect("progress").1).expect("JSON");
        let hashes = match json {
            serde_json::Value::Object(mut fields) => fields.remove("hashes"),
            _ => None,
        };
        hashes.expect("hashes")
    });
    assert_eq!(hashes[0][0]["bytes"], 5 + WHOLE.len());
    assert_eq!(hashes[0], hashes[1]);
}

#[test]
fn what_waits_for_hashers_is_bounded_for_all_together() {
    // A quarter of 512 MiB is for bodies: four uploads fill it, and a fifth is hashed at its end.
    let config = config_with(r#""limits":{"memory_bytes":536870912,"streams_per_client":0}"#);
    let mut proxy = Proxy::new(&config);
    let sent = [16 * MIB, 16 * MIB];
    let locations = [(); 5].map(|()| {
        let location = proxy.begin_upload();
        append(&mut proxy, &location, b"first")
    });
    let ids = locations.map(|location| begin_waiting(&mut proxy, &location, &sent));
    let held = proxy.worker().budget.held(crate::store::Purpose::Bodies);
    assert!((96 * MIB..=128 * MIB).contains(&held), "{held}");
    for id in ids {
        proxy.close(id);
    }
    proxy.assert_idle();
}

#[test]
fn a_store_that_answers_before_the_end_ends_the_upload() {
    for (status, document, expected) in [
        ("503", "", (503, "UNAVAILABLE")),
        ("400", "<Error><Code>EntityTooLarge</Code></Error>", (413, "SIZE_INVALID")),
        ("200", "", (500, "UNKNOWN")),
        // Only of a local reply of Envoy do these mean that the rest of the body does not come.
        ("408", "", (500, "UNKNOWN")),
        ("413", "", (413, "SIZE_INVALID")),
    ] {
        let mut proxy = Proxy::new(CONFIG);
        let location = proxy.begin_upload();
        let id = proxy.begin("PATCH", &location, &[], false);
        proxy.answer_calls();
        proxy.send(id, &WHOLE[..5], false);
        let action = proxy.respond(id, status, &[], false, document.is_empty());
        assert_eq!(action, Action::Pause);
        let pieces: Vec<_> = document.as_bytes().chunks(10).collect();
        for (number, piece) in pieces.iter().enumerate() {
            assert_eq!(proxy.respond_with(id, piece, number + 1 == pieces.len()), b"");
        }
        proxy.answer_calls();
        // The answer waits for the rest of the body, which is thrown away.
        assert!(proxy.reply(id).is_none());
        proxy.send(id, &WHOLE[5..], true);
        assert_eq!(proxy.outcome(id), (expected.0, expected.1.to_owned()), "{status}");
        proxy.with(id, |stream| assert_eq!(stream.sent_on, &WHOLE[..5]));
        proxy.close(id);
        proxy.assert_idle();
    }
}

#[test]
fn envoys_own_answer_ends_an_upload_with_its_status() {
    for (status, expected) in [("408", 408), ("413", 413), ("503", 503), ("504", 504)] {
        let mut proxy = Proxy::new(CONFIG);
        let location = proxy.begin_upload();
        let id = proxy.begin("PATCH", &location, &[], false);
        proxy.answer_calls();
        proxy.send(id, &WHOLE[..5], false);
        proxy.respond(id, status, &[], true, true);
        proxy.answer_calls();
        assert_eq!(proxy.outcome(id).0, expected);
        proxy.close(id);
        proxy.assert_idle();
    }
}

#[test]
fn a_store_that_answers_before_the_session_is_known_does_not_answer_the_client() {
    let mut proxy = Proxy::new(CONFIG);
    let location = proxy.begin_upload();
    let id = proxy.begin("PATCH", &location, &[], false);
    proxy.send(id, &WHOLE[..5], false);
    assert_eq!(proxy.respond(id, "503", &[], false, true), Action::Pause);
    proxy.answer_calls();
    proxy.send(id, &WHOLE[5..], true);
    assert_eq!(proxy.outcome(id), (503, "UNAVAILABLE".to_owned()));
    proxy.close(id);
    proxy.assert_idle();
}

#[test]
fn an_upload_that_ends_before_its_announced_length_is_no_blob() {
    let mut proxy = Proxy::new(CONFIG);
    let location = proxy.begin_upload();
    let path = format!("{location}&digest={}", digest());
    let length = WHOLE.len().to_string();
    let id = proxy.begin("PUT", &path, &[("content-length", &length)], false);
    proxy.send(id, &WHOLE[..5], false);
    assert_eq!(proxy.send(id, b"", true), Action::Pause);
    proxy.answer_calls();
    assert_eq!(proxy.outcome(id).0, 400);
    proxy.with(id, |stream| assert!(!stream.is_sent_whole, "the store never gets its end"));
    proxy.close(id);
    proxy.assert_idle();
}

#[test]
fn an_upload_that_envoy_ends_while_it_is_drained_keeps_its_own_answer() {
    let mut proxy = Proxy::new(CONFIG);
    let location = proxy.begin_upload();
    let wrong = Digest::of(Algorithm::Sha256, b"other");
    let id = proxy.begin("PUT", &format!("{location}1&digest={wrong}"), &[], false);
    proxy.answer_calls();
    proxy.send(id, &WHOLE[..5], false);
    assert!(proxy.reply(id).is_none(), "the client still sends");
    proxy.respond(id, "408", &[], true, true);
    assert_eq!(proxy.outcome(id), (416, "RANGE_INVALID".to_owned()));
    proxy.close(id);
    proxy.assert_idle();
}

#[test]
fn a_refused_upload_waits_for_its_client_for_a_time_and_for_8_mib_at_most() {
    let unknown = "/v2/a/blobs/uploads/01234567-89ab-8def-8123-456789abcdef?offset=0";
    let mut proxy = Proxy::new(CONFIG);
    let slow = proxy.begin("PATCH", unknown, &[], false);
    proxy.answer_calls();
    assert!(proxy.reply(slow).is_none(), "a client that still sends may not read the answer");
    proxy.pass(61);
    assert_eq!(proxy.outcome(slow), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
    let large = proxy.begin("PATCH", unknown, &[], false);
    proxy.answer_calls();
    for _ in 0..8 {
        proxy.send(large, &vec![0; MIB], false);
        assert!(proxy.reply(large).is_none());
    }
    proxy.send(large, b"x", false);
    assert_eq!(proxy.outcome(large).0, 404);
    for id in [slow, large] {
        proxy.close(id);
    }
    proxy.assert_idle();
}
