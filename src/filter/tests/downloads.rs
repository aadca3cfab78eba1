//! Blobs on their way to a client.

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::driver::{CONFIG, Proxy};
use crate::filter::host::Action;

const BLOB: &[u8] = b"0123456789abcdef";

/// A stream of the blob that Envoy's router has begun.
fn begun(proxy: &mut Proxy, headers: &[(&str, &str)]) -> u32 {
    let digest = proxy.put(BLOB);
    let id = proxy.ask("GET", &format!("/v2/a/blobs/{digest}"), headers);
    assert!(proxy.reply(id).is_none());
    assert!(proxy.path(id).ends_with("/data"), "{}", proxy.path(id));
    proxy.with(id, |stream| {
        assert!(!stream.is_paused, "the router has the request");
        let names: Vec<_> = stream.request_headers.iter().map(|(name, _)| name.as_str()).collect();
        assert!(!names.contains(&"authorization"), "{names:?}");
    });
    id
}

fn header(proxy: &Proxy, id: u32, name: &str) -> Option<String> {
    let headers = proxy.with(id, |stream| stream.response_headers.clone());
    let found = headers.into_iter().find(|(key, _)| key == name)?;
    Some(String::from_utf8(found.1).expect("text"))
}

#[test]
fn a_blob_passes_untouched_under_headers_of_our_own() {
    let mut proxy = Proxy::new(CONFIG);
    let id = begun(&mut proxy, &[("authorization", "Basic secret")]);
    let headers = [("content-length", "16"), ("server", "store"), ("content-type", "text/html")];
    assert_eq!(proxy.respond(id, "200", &headers, false, false), Action::Continue);
    assert_eq!(header(&proxy, id, "content-type").as_deref(), Some("application/octet-stream"));
    assert_eq!(header(&proxy, id, "server"), None);
    let body =
        [proxy.respond_with(id, &BLOB[..5], false), proxy.respond_with(id, &BLOB[5..], true)];
    assert_eq!(body.concat(), BLOB);
    proxy.close(id);
    proxy.assert_idle();
}

#[test]
fn several_ranges_are_cut_out_of_whatever_pieces_come() {
    // The store may also ignore the range, and send the whole blob.
    let part =
        ("206", &[("content-range", "bytes 1-9/16"), ("content-length", "9")][..], &BLOB[1..10]);
    let whole = ("200", &[("content-length", "16")][..], BLOB);
    for (size, (status, headers, content)) in
        (1..=BLOB.len()).flat_map(|size| [(size, part), (size, whole)])
    {
        let mut proxy = Proxy::new(CONFIG);
        let id = begun(&mut proxy, &[("range", "bytes=1-2,5-6,9-9")]);
        assert_eq!(proxy.respond(id, status, headers, false, false), Action::Continue);
        let length: usize =
            header(&proxy, id, "content-length").and_then(|n| n.parse().ok()).expect("a length");
        let mut body = Vec::new();
        let pieces: Vec<_> = content.chunks(size).collect();
        for (number, piece) in pieces.iter().enumerate() {
            body.extend(proxy.respond_with(id, piece, number + 1 == pieces.len()));
        }
        let body = String::from_utf8(body).expect("text");
        assert_eq!(body.len(), length);
        for part in ["1-2/16\r\n\r\n12\r\n", "5-6/16\r\n\r\n56\r\n", "9-9/16\r\n\r\n9\r\n"] {
            assert!(body.contains(part), "{part:?} in {body:?} by {size}");
        }
        assert!(proxy.reply(id).is_none());
        proxy.with(id, |stream| assert!(stream.is_response_whole));
        proxy.close(id);
        proxy.assert_idle();
    }
}

#[test]
fn a_store_that_sends_too_little_ends_the_stream() {
    let mut proxy = Proxy::new(CONFIG);
    let id = begun(&mut proxy, &[("range", "bytes=1-2,5-6")]);
    proxy.respond(id, "206", &[("content-range", "bytes 1-6/16")], false, false);
    let sent = proxy.respond_with(id, &BLOB[1..3], false);
    assert!(!sent.is_empty() && !proxy.with(id, |stream| stream.is_reset));
    assert_eq!(proxy.respond_with(id, &BLOB[3..4], true), b"");
    proxy.with(id, |stream| assert!(stream.is_reset, "the client knows that there is more"));
}

#[test]
fn what_the_store_answers_instead_of_a_blob_becomes_the_apis_error() {
    let document = b"<Error><Code>NoSuchKey</Code></Error>";
    for (status, body, expected) in [
        ("404", &document[..], (404, "BLOB_UNKNOWN")),
        ("404", b"", (500, "UNKNOWN")),
        ("503", b"no healthy upstream", (503, "UNAVAILABLE")),
        ("504", b"", (504, "UNAVAILABLE")),
        ("403", b"<Error><Code>AccessDenied</Code></Error>", (500, "UNKNOWN")),
    ] {
        let mut proxy = Proxy::new(CONFIG);
        let id = begun(&mut proxy, &[]);
        let action = proxy.respond(id, status, &[], false, body.is_empty());
        assert_eq!(action, Action::Pause);
        for (number, piece) in body.chunks(10).enumerate() {
            assert!(proxy.reply(id).is_none());
            let is_last = (number + 1) * 10 >= body.len();
            assert_eq!(proxy.respond_with(id, piece, is_last), b"", "none of it is for the client");
        }
        assert_eq!(proxy.outcome(id), (expected.0, expected.1.to_owned()), "{status}");
        proxy.close(id);
        proxy.assert_idle();
    }
}

#[test]
fn what_envoy_answers_by_itself_is_worded_as_the_apis_json() {
    // While a call is under way, while a manifest is collected, and while the rest of an upload is thrown away that
    // was refused before anything of it went on.
    for (method, path, end_of_stream) in [
        ("GET", "/v2/a/manifests/t", true),
        ("PUT", "/v2/a/manifests/t", false),
        ("PUT", "/v2/a/blobs/uploads/01234567-89ab-8def-8123-456789abcdef?digest=none", false),
    ] {
        let mut proxy = Proxy::new(CONFIG);
        let id = proxy.begin(method, path, &[], end_of_stream);
        assert_eq!(proxy.respond(id, "504", &[("server", "envoy")], true, false), Action::Continue);
        let length = header(&proxy, id, "content-length");
        assert_eq!(header(&proxy, id, ":status").as_deref(), Some("504"), "{method} {path}");
        assert_eq!(header(&proxy, id, "server").as_deref(), Some("envoy"));
        let pieces =
            [proxy.respond_with(id, b"stream ", false), proxy.respond_with(id, b"timeout", true)];
        let body = pieces.concat();
        assert_eq!(length, Some(body.len().to_string()));
        let json: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(json["errors"][0]["code"], "UNAVAILABLE");
        proxy.close(id);
        proxy.assert_idle();
    }
}

#[test]
fn a_request_for_a_blob_has_no_body() {
    for (announced, sent) in [(None, &b"abc"[..]), (Some("3"), b"abc"), (Some("65537"), b"")] {
        let mut proxy = Proxy::new(CONFIG);
        let path = format!("/v2/a/blobs/{}", proxy.put(BLOB));
        let headers: Vec<_> =
            announced.map(|length| ("content-length", length)).into_iter().collect();
        let id = proxy.begin("GET", &path, &headers, false);
        if !sent.is_empty() {
            proxy.send(id, sent, true);
        }
        proxy.answer_calls();
        assert_eq!(proxy.outcome(id), (400, "SIZE_INVALID".to_owned()));
        proxy.with(id, |stream| assert!(!stream.is_request_sent, "the store gets nothing of it"));
    }
}

#[test]
fn a_client_may_go_away_in_every_state() {
    type Step = fn(&mut Proxy) -> u32;
    let steps: [(&str, Step); 11] = [
        ("while its body is collected", |proxy| {
            let id = proxy.begin("PUT", "/v2/a/manifests/t", &[], false);
            proxy.send(id, &[b' '; 10_000], false);
            id
        }),
        ("while a call is under way", |proxy| proxy.begin("GET", "/v2/a/manifests/t", &[], true)),
        ("while its upload streams", |proxy| {
            let location = proxy.begin_upload();
            let id = proxy.begin("PATCH", &location, &[], false);
            proxy.send(id, b"bytes", false);
            id
        }),
        ("while the end of its upload is held", |proxy| {
            let location = proxy.begin_upload();
            let id = proxy.begin("PATCH", &location, &[], false);
            proxy.send(id, b"bytes", true);
            id
        }),
        ("while its refused upload is thrown away", |proxy| {
            let path = "/v2/a/blobs/uploads/01234567-89ab-8def-8123-456789abcdef?digest=none";
            let id = proxy.begin("PUT", path, &[], false);
            proxy.send(id, b"bytes", false);
            id
        }),
        ("while Envoy's own answer is reworded", |proxy| {
            let id = proxy.begin("GET", "/v2/a/manifests/t", &[], true);
            proxy.respond(id, "504", &[], true, false);
            id
        }),
        ("while a blob streams", |proxy| {
            let id = begun(proxy, &[]);
            proxy.respond(id, "200", &[("content-length", "16")], false, false);
            id
        }),
        ("before a blob streams", |proxy| begun(proxy, &[])),
        ("while an error document comes", |proxy| {
            let id = begun(proxy, &[]);
            proxy.respond(id, "404", &[], false, false);
            proxy.respond_with(id, b"<Error>", false);
            id
        }),
        ("while parts are cut out", |proxy| {
            let id = begun(proxy, &[("range", "bytes=1-2,5-6")]);
            proxy.respond(id, "206", &[("content-range", "bytes 1-6/16")], false, false);
            proxy.respond_with(id, b"1", false);
            id
        }),
        ("when it has its reply", |proxy| proxy.ask("GET", "/v2/", &[])),
    ];
    for (when, step) in steps {
        let mut proxy = Proxy::new(CONFIG);
        drop(proxy.plugin.create_filter(99));
        proxy.assert_idle();
        let id = step(&mut proxy);
        proxy.close(id);
        assert_eq!(proxy.open_calls().len(), 0, "{when}: its calls end with it");
        proxy.run_queue();
        proxy.assert_idle();
        let next = proxy.ask("GET", "/v2/", &[]);
        assert_eq!(proxy.outcome(next).0, 200, "{when}: others go on");
    }
}
