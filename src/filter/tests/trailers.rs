//! Requests that end with trailers, in every state: they end the body, and are never for the store.

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::driver::{CONFIG, Proxy};
use crate::filter::host::Action;

#[test]
fn trailers_of_a_request_for_a_blob_do_not_go_to_the_store() {
    for is_cached in [false, true] {
        let config = match is_cached {
            true => CONFIG.replace("\"max_bytes\":0", "\"max_bytes\":1000000"),
            false => CONFIG.to_owned(),
        };
        let mut proxy = Proxy::new(&config);
        let path = format!("/v2/a/blobs/{}", proxy.put(b"blob"));
        let first = proxy.ask("GET", &path, &[]);
        proxy.close(first);
        let id = proxy.begin("GET", &path, &[], false);
        let action = proxy.send_trailers(id);
        assert_eq!(action == Action::Continue, is_cached, "a link that is known is not read");
        proxy.answer_calls();
        proxy.with(id, |stream| {
            assert!(stream.is_sent_whole, "the router has the request");
            assert!(!stream.has_trailers, "the client's trailers are not for the store");
        });
        proxy.close(id);
        proxy.assert_idle();
    }
}

#[test]
fn a_body_and_its_trailers_are_thrown_away_while_the_handler_runs() {
    let mut proxy = Proxy::new(CONFIG);
    // So much is not waited for: the handler runs before it has come.
    let id = proxy.begin("GET", "/v2/a/manifests/t", &[("content-length", "65537")], false);
    assert_eq!(proxy.open_calls().len(), 1);
    for _ in 0..2 {
        assert_eq!(proxy.send(id, &[0; 1000], false), Action::Pause);
        proxy.with(id, |stream| assert!(stream.request_body.is_empty()));
    }
    assert_eq!(proxy.send_trailers(id), Action::Pause);
    proxy.answer_calls();
    assert_eq!(proxy.outcome(id), (404, "MANIFEST_UNKNOWN".to_owned()));
    proxy.close(id);
    proxy.assert_idle();
}

#[test]
fn a_body_that_ends_early_with_trailers_is_refused() {
    let mut proxy = Proxy::new(CONFIG);
    let id = proxy.begin("PUT", "/v2/a/manifests/t", &[("content-length", "3")], false);
    proxy.send(id, b"{}", false);
    assert_eq!(proxy.send_trailers(id), Action::Pause);
    assert_eq!(proxy.outcome(id), (400, "SIZE_INVALID".to_owned()));
    proxy.close(id);
    proxy.assert_idle();
}

#[test]
fn trailers_end_an_upload_that_is_refused_already() {
    let mut proxy = Proxy::new(CONFIG);
    let unknown = "/v2/a/blobs/uploads/01234567-89ab-8def-8123-456789abcdef?offset=0";
    let id = proxy.begin("PATCH", unknown, &[], false);
    proxy.answer_calls();
    proxy.send(id, b"bytes", false);
    assert!(proxy.reply(id).is_none(), "the client still sends");
    assert_eq!(proxy.send_trailers(id), Action::Pause);
    assert_eq!(proxy.outcome(id), (404, "BLOB_UPLOAD_UNKNOWN".to_owned()));
    proxy.close(id);
    proxy.assert_idle();
}
