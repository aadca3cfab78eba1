//! Requests through the whole filter: what of them reaches the store, and what is answered from memory.

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::driver::{CONFIG, Proxy, config_with};
use crate::filter::host::Action;
use crate::filter::scripted_host::ScriptedHost;

const MANIFEST: &[u8] =
    br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

/// A configuration with a cache in which tags are kept for an hour as well, and links for a minute.
fn cached() -> String {
    CONFIG.replace("\"max_bytes\":0", r#""max_bytes":1000000,"tag_ttl":3600"#)
}

/// Puts a manifest under the tag `t`.
fn tag(proxy: &mut Proxy, manifest: &[u8]) {
    let id = proxy.begin("PUT", "/v2/a/manifests/t", &[], false);
    proxy.send(id, manifest, true);
    proxy.answer_calls();
    assert_eq!(proxy.outcome(id).0, 201);
    proxy.close(id);
}

/// What the tag `t` gives.
fn tagged(proxy: &mut Proxy) -> Vec<u8> {
    let id = proxy.ask("GET", "/v2/a/manifests/t", &[]);
    let reply = proxy.reply(id).expect("a reply");
    assert_eq!(reply.status, 200);
    proxy.close(id);
    reply.body
}

#[test]
fn what_is_cached_is_answered_at_once_and_looked_up_again_when_its_time_is_over() {
    let mut proxy = Proxy::new(&cached());
    let path = format!("/v2/a/manifests/{}", proxy.put(MANIFEST));
    let calls = [0, 59, 1].map(|seconds| {
        proxy.pass(seconds);
        let before = proxy.host.state().calls.len();
        for method in ["GET", "HEAD"] {
            let id = proxy.ask(method, &path, &[]);
            // Envoy takes the body away, and the content's length from it.
            assert_eq!(proxy.reply(id).expect("a reply").body, MANIFEST);
            proxy.close(id);
        }
        proxy.host.state().calls.len() - before
    });
    assert_eq!(calls, [2, 0, 1], "the link and the content, then nothing, then the link");
    proxy.assert_idle();
}

#[test]
fn a_write_through_one_worker_is_seen_by_all() {
    let host = ScriptedHost::default();
    let mut first = Proxy::beside(&host, &cached(), 100);
    let mut second = Proxy::beside(&host, &cached(), 200);
    let another = [MANIFEST, b" "].concat();
    tag(&mut first, MANIFEST);
    assert_eq!(tagged(&mut first), MANIFEST);
    second.objects = first.objects.clone();
    tag(&mut second, &another);
    first.objects = second.objects.clone();
    assert_eq!(tagged(&mut first), another);
}

#[test]
fn nothing_of_a_client_reaches_the_store_but_its_range() {
    let mut proxy = Proxy::new(CONFIG);
    let path = format!("/v2/a/blobs/{}", proxy.put(b"0123456789"));
    let headers = [
        (":authority", "registry.example"),
        ("authorization", "Bearer secret"),
        ("cookie", "secret"),
        ("host", "elsewhere"),
        ("x-amz-acl", "public-read"),
        ("range", "bytes=2-4"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "1"),
    ];
    for method in ["GET", "HEAD"] {
        let id = proxy.ask(method, &path, &headers);
        let mut sent: Vec<_> = proxy
            .with(id, |stream| stream.request_headers.clone())
            .into_iter()
            .map(|(name, value)| (name, String::from_utf8(value).expect("text")))
            .collect();
        sent.sort();
        let expected = [
            (":authority", "s3"),
            (":method", method),
            (":path", &proxy.path(id)),
            (":scheme", "http"),
            ("range", "bytes=2-4"),
            ("x-forwarded-proto", "https"),
            ("x-request-id", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        // A range is one of what is got. (RFC 9110, section 14.2)
        let expected = expected.into_iter().filter(|(name, _)| method == "GET" || name != "range");
        assert_eq!(sent, expected.collect::<Vec<_>>());
        proxy.close(id);
    }
    proxy.assert_idle();
}

#[test]
fn the_head_of_a_blob_is_the_stores_under_headers_of_our_own() {
    let mut proxy = Proxy::new(CONFIG);
    let digest = proxy.put(b"0123456789");
    let id = proxy.ask("HEAD", &format!("/v2/a/blobs/{digest}"), &[]);
    let headers = [("content-length", "10"), ("etag", "\"the store's\""), ("x-amz-id-2", "1")];
    assert_eq!(proxy.respond(id, "200", &headers, false, true), Action::Continue);
    let headers = proxy.with(id, |stream| stream.response_headers.clone());
    let value = |name: &str| {
        let found = headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    };
    assert_eq!(value("content-length").as_deref(), Some("10"));
    assert_eq!(value("etag"), Some(format!("\"{digest}\"")));
    assert_eq!(value("docker-content-digest"), Some(digest.to_string()));
    assert_eq!(value("x-amz-id-2"), None);
    proxy.close(id);
    proxy.assert_idle();
}

#[test]
fn a_response_that_is_no_http_is_no_blob() {
    let mut proxy = Proxy::new(CONFIG);
    let path = format!("/v2/a/blobs/{}", proxy.put(b"0123456789"));
    for status in ["", "abc", "99"] {
        let id = proxy.ask("GET", &path, &[]);
        proxy.respond(id, status, &[], false, true);
        assert_eq!(proxy.outcome(id).0 / 100, 5, "{status:?}");
        proxy.close(id);
    }
    proxy.assert_idle();
}

#[test]
fn of_an_error_document_4_kib_are_read() {
    let document = b"<Error><Code>NoSuchKey</Code></Error>";
    for (padding, expected) in [(4096 - document.len(), 404), (4096, 500)] {
        let mut proxy = Proxy::new(CONFIG);
        let path = format!("/v2/a/blobs/{}", proxy.put(b"0123456789"));
        let id = proxy.ask("GET", &path, &[]);
        assert_eq!(proxy.respond(id, "404", &[], false, false), Action::Pause);
        assert_eq!(proxy.respond_with(id, &vec![b' '; padding], false), b"");
        assert_eq!(proxy.respond_with(id, document, true), b"");
        proxy.with(id, |stream| {
            assert!(stream.response_body.is_empty(), "it is not for the client")
        });
        assert_eq!(proxy.outcome(id).0, expected);
    }
}

#[test]
fn a_response_that_comes_after_the_reply_changes_nothing() {
    let mut proxy = Proxy::new(CONFIG);
    let digest = proxy.put(MANIFEST);
    let id = proxy.begin("GET", &format!("/v2/a/manifests/{digest}"), &[], true);
    let calls = proxy.open_calls();
    let [link, content] = calls.as_slice() else {
        panic!("the link and the content are read together: {calls:?}");
    };
    let (first, second) =
        if link.path.ends_with("/link") { (link, content) } else { (content, link) };
    proxy.report(first.token, Some(404), b"<Error><Code>NoSuchKey</Code></Error>");
    let reply = proxy.reply(id);
    proxy.report(second.token, Some(200), MANIFEST);
    if reply.is_some() {
        assert_eq!(proxy.reply(id), reply);
    }
    assert_eq!(proxy.outcome(id), (404, "MANIFEST_UNKNOWN".to_owned()));
    proxy.close(id);
    proxy.assert_idle();
}

#[test]
fn a_put_is_held_to_the_classes_that_the_callers_token_names() {
    let config = config_with(
        r#""jwt_payload":"payload","policy":{"repository":{"classes":["image","plugin"]}}"#,
    );
    let image = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,
        "digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[]}"#;
    let access = |class: &str| {
        let entry = [("type", "repository"), ("name", "a"), ("class", class)]
            .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()));
        header_map(&[(header_map(&entry), Vec::new())])
    };
    for (access, expected) in [
        (None, 201),
        (Some(access("image")), 201),
        (Some(access("")), 201),
        (Some(access("plugin")), 403),
        (Some(b"\x01\0\0\0".to_vec()), 201),
    ] {
        let mut proxy = Proxy::new(&config);
        proxy.put(b"{}");
        let id = proxy.begin("PUT", "/v2/a/manifests/t", &[], false);
        if let Some(access) = access {
            let key = "metadata.filter_metadata.envoy.filters.http.jwt_authn.payload.access";
            proxy.with(id, |stream| stream.properties.insert(key.to_owned(), access));
        }
        proxy.send(id, image, true);
        proxy.answer_calls();
        assert_eq!(proxy.outcome(id).0, expected);
        proxy.close(id);
        proxy.assert_idle();
    }
}

/// A structured value, in the form in which Envoy hands it over.
fn header_map(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let number = |length: usize| u32::try_from(length).expect("short").to_le_bytes();
    let texts = || entries.iter().flat_map(|(key, value)| [key, value]);
    let mut map = number(entries.len()).to_vec();
    map.extend(texts().flat_map(|text| number(text.len())));
    map.extend(texts().flat_map(|text| [text.as_slice(), b"\0"].concat()));
    map
}
