//! What operators see: the record of each request, the metrics, and what leads from the store's log to a request.

use std::time::Duration;

#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::driver::{CONFIG, Proxy, config_with};
use super::record;
use crate::oci::{Algorithm, Digest};

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const LINKS: &str = "/registry/docker/registry/v2/repositories/a";

/// A proxy whose store has a manifest, tagged `t`, and a blob in the repository `a`; and their digest and path.
fn proxy(config: &str) -> (Proxy, Digest) {
    let mut proxy = Proxy::new(config);
    let digest = Digest::of(Algorithm::Sha256, MANIFEST);
    let hex = digest.hex();
    let blob = format!("/registry/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
    let link = digest.as_str().as_bytes().to_vec();
    proxy.objects.insert(blob, MANIFEST.to_vec());
    for path in [
        "_manifests/tags/t/current/link".to_owned(),
        format!("_manifests/revisions/sha256/{hex}/link"),
        format!("_layers/sha256/{hex}/link"),
    ] {
        proxy.objects.insert(format!("{LINKS}/{path}"), link.clone());
    }
    (proxy, digest)
}

fn cached() -> String {
    CONFIG.replace(r#""max_bytes":0"#, r#""max_bytes":1000000,"tag_ttl":"1m""#)
}

#[test]
fn the_record_of_a_request_has_what_was_asked_and_what_came_of_it() {
    let (mut proxy, digest) = proxy(&cached());
    let digest = digest.as_str();
    for (path, cache, calls) in
        [("/v2/a/manifests/t?x", "miss", "3"), ("/v2/a/manifests/t?x", "hit", "0")]
    {
        let id = proxy.ask("GET", path, &[("user-agent", "curl/8")]);
        let record = proxy.record(id);
        for (name, expected) in [
            ("operation", "manifest_get"),
            ("method", "GET"),
            ("path", path),
            ("user_agent", "curl/8"),
            ("repository", "a"),
            ("reference", "t"),
            ("digest", digest),
            ("media_type", OCI_MANIFEST),
            ("cache", cache),
            ("store_calls", calls),
            ("store_ms", "0"),
        ] {
            assert_eq!(record[name], expected, "{name} of {record:?}");
        }
        assert_eq!(record.len(), 11, "{record:?}");
        proxy.close(id);
    }
}

#[test]
fn the_record_of_a_blob_tells_what_the_client_asked_for_and_that_of_an_error_its_code() {
    let (mut proxy, digest) = proxy(CONFIG);
    let path = format!("/v2/a/blobs/{digest}");
    let id = proxy.ask("GET", &path, &[]);
    assert_ne!(proxy.path(id), path, "Envoy's own fields show what the store is asked");
    proxy.respond(id, "200", &[("content-length", "9")], false, false);
    let record = proxy.record(id);
    for (name, expected) in [
        ("operation", "blob_get"),
        ("path", path.as_str()),
        ("reference", digest.as_str()),
        ("digest", digest.as_str()),
        ("store_calls", "2"),
    ] {
        assert_eq!(record[name], expected, "{name} of {record:?}");
    }
    let id = proxy.ask("GET", "/v2/a/manifests/unknown", &[]);
    assert_eq!(proxy.record(id)["error"], "MANIFEST_UNKNOWN");
    let id = proxy.ask("GET", "/elsewhere", &[]);
    let record = proxy.record(id);
    assert_eq!((&*record["operation"], &*record["error"]), ("none", "NAME_UNKNOWN"));
}

#[test]
fn a_client_that_leaves_before_an_answer_has_a_record_of_what_it_asked_for() {
    let (mut proxy, _) = proxy(CONFIG);
    let id = proxy.begin("GET", "/v2/a/manifests/t", &[], true);
    assert!(proxy.with(id, |stream| stream.record.is_none()), "it waits for the store");
    proxy.host.state().now += Duration::from_millis(250);
    let record = record::fields(&proxy.close(id).record.expect("a record"));
    for (name, expected) in [
        ("operation", "manifest_get"),
        ("reference", "t"),
        ("store_calls", "1"),
        ("store_ms", "250"),
    ] {
        assert_eq!(record[name], expected, "{name} of {record:?}");
    }
    proxy.assert_idle();
}

#[test]
fn the_record_of_a_request_that_begins_an_upload_has_its_id() {
    let (mut proxy, _) = proxy(CONFIG);
    let id = proxy.ask("POST", "/v2/a/blobs/uploads/", &[]);
    let reply = proxy.reply(id).expect("a reply");
    let header = reply.headers.iter().find(|(name, _)| name == "docker-upload-uuid");
    assert_eq!(proxy.record(id).get("upload"), header.map(|(_, value)| value));
}

#[test]
fn a_record_has_no_end_of_what_is_too_long() {
    let (mut proxy, _) = proxy(CONFIG);
    let (path, agent) = (format!("/{}", "é".repeat(3000)), "x".repeat(3000));
    let id = proxy.ask(&"M".repeat(3000), &path, &[("user-agent", &agent)]);
    let record = proxy.record(id);
    let lengths = ["method", "path", "user_agent"].map(|name| record[name].len());
    assert_eq!(lengths, [32, 1023, 256]);
}

#[test]
fn requests_and_the_calls_for_them_are_counted_and_told_with_the_next_tick() {
    let (mut proxy, digest) = proxy(&cached());
    let blob = format!("/v2/a/blobs/{digest}");
    for path in ["/v2/a/manifests/t", "/v2/a/manifests/t", "/v2/a/manifests/unknown", "/v2/"] {
        let id = proxy.ask("GET", path, &[]);
        proxy.close(id);
    }
    let id = proxy.ask("BREW", "/v2/", &[]);
    proxy.close(id);
    let id = proxy.ask("GET", &blob, &[]);
    proxy.respond(id, "200", &[], false, false);
    proxy.with(id, |stream| {
        stream.properties.insert("response.size".to_owned(), 9_u64.to_le_bytes().to_vec());
    });
    proxy.close(id);
    // A client that goes before there is an answer.
    let id = proxy.begin("GET", "/v2/b/tags/list", &[], true);
    proxy.close(id);
    let requests = |rest: &str| format!("moorage_requests_total.operation.{rest}");
    let manifests = requests("manifest_get.method.GET.code.200");
    assert!(proxy.metric(&manifests).is_empty(), "it waits for the tick");
    proxy.tick();
    for (name, expected) in [
        (&*manifests, 2),
        (&requests("manifest_get.method.GET.code.404"), 1),
        (&requests("base.method.GET.code.200"), 1),
        (&requests("base.method.OTHER.code.405"), 1),
        (&requests("blob_get.method.GET.code.200"), 1),
        (&requests("tags_list.method.GET.code.0"), 1),
        ("moorage_errors_total.code.MANIFEST_UNKNOWN", 1),
        ("moorage_response_bytes_total", 9),
        ("moorage_store_calls_total.operation.get.result.ok", 4),
        ("moorage_store_calls_total.operation.get.result.not_found", 1),
        ("moorage_store_calls_total.operation.list.result.abandoned", 1),
        ("moorage_store_calls_total.operation.stream_get.result.ok", 1),
        ("moorage_cache_hits_total.kind.tag", 1),
        ("moorage_cache_misses_total.kind.tag", 2),
        ("moorage_cache_hits_total.kind.content", 1),
        ("moorage_cache_misses_total.kind.link", 2),
    ] {
        assert_eq!(proxy.metric(name).iter().sum::<u64>(), expected, "{name}");
    }
    let duration = "moorage_request_duration_milliseconds.operation.manifest_get";
    assert_eq!(proxy.metric(duration), [0, 0, 0]);
    // A request takes time from when it waits; an answer from memory takes none, whatever the clock says.
    let path = "/v2/a/manifests/unknown";
    let id = proxy.begin("GET", path, &[], true);
    proxy.host.state().now += std::time::Duration::from_millis(1500);
    proxy.answer_calls();
    proxy.close(id);
    assert_eq!(proxy.metric(duration).last(), Some(&1500));
    proxy.assert_idle();
}

#[test]
fn an_answer_that_may_be_out_of_date_says_so_in_a_header_the_record_and_a_metric() {
    let config = CONFIG.replace(r#""max_bytes":0"#, r#""stale_if_error":"1h""#);
    let (mut proxy, digest) = proxy(&config);
    let warning = |proxy: &Proxy, id| {
        let reply = proxy.reply(id).expect("a reply");
        reply.headers.into_iter().find(|(name, _)| name == "warning").map(|(_, value)| value)
    };
    let id = proxy.ask("GET", "/v2/a/manifests/t", &[]);
    assert_eq!(warning(&proxy, id), None);
    let ask_while_away = |proxy: &mut Proxy, path: &str| {
        let id = proxy.begin("GET", path, &[], true);
        while let Some(call) = proxy.open_calls().pop() {
            proxy.report(call.token, Some(503), b"");
        }
        id
    };
    let id = ask_while_away(&mut proxy, "/v2/a/manifests/t");
    assert_eq!(proxy.reply(id).map(|reply| reply.status), Some(200));
    assert_eq!(warning(&proxy, id).as_deref(), Some(r#"110 moorage "Response is Stale""#));
    assert_eq!(proxy.record(id)["cache"], "stale");
    // A stream has the header as well.
    let blob = format!("/v2/a/blobs/{digest}");
    proxy.ask("GET", &blob, &[]);
    proxy.pass(120);
    let id = ask_while_away(&mut proxy, &blob);
    proxy.respond(id, "200", &[], false, false);
    let headers = proxy.with(id, |stream| stream.response_headers.clone());
    assert!(headers.iter().any(|(name, _)| name == "warning"), "{headers:?}");
    proxy.tick();
    assert!(!proxy.metric("moorage_cache_stale_total.kind.tag").is_empty());
}

#[test]
fn what_a_worker_holds_is_told_once_it_has_a_number() {
    let (mut proxy, _) = proxy(&cached());
    proxy.pass(20);
    assert!(proxy.metric("moorage_cache_bytes.worker.0").is_empty(), "it has had no request");
    let id = proxy.ask("GET", "/v2/a/manifests/t", &[]);
    proxy.close(id);
    proxy.pass(1);
    proxy.pass(5);
    let cached = proxy.metric("moorage_cache_bytes.worker.0");
    assert!(cached.last().is_some_and(|bytes| *bytes > 0), "{cached:?}");
    let limit = "moorage_memory_limit_bytes.worker.0.purpose.reads";
    assert_eq!(proxy.metric(limit).last(), Some(&(64 * 1024 * 1024)));
}

#[test]
fn without_telemetry_nothing_is_told() {
    let settings = r#""telemetry":{"metrics":false,"log_fields":false}"#;
    let (mut proxy, _) = proxy(&config_with(settings));
    let id = proxy.ask("GET", "/v2/a/manifests/t", &[]);
    assert!(proxy.with(id, |stream| stream.record.is_none()));
    proxy.close(id);
    proxy.pass(1);
    assert!(proxy.host.state().metrics.is_empty());
}

#[test]
fn calls_to_the_store_carry_what_the_request_is_known_by() {
    let (mut proxy, digest) = proxy(CONFIG);
    let (id_header, trace) = ("9f1c", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let headers = [
        ("x-request-id", id_header),
        ("traceparent", trace),
        ("tracestate", "é"),
        ("authorization", "Bearer secret"),
    ];
    let blob = proxy.begin("GET", &format!("/v2/a/blobs/{digest}"), &headers, true);
    let call = proxy.open_calls().pop().expect("a call");
    let sent = |name: &str| {
        call.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    };
    assert_eq!((sent("x-request-id"), sent("traceparent")), (Some(id_header), Some(trace)));
    assert_eq!((sent("tracestate"), sent("authorization")), (None, None));
    proxy.answer_calls();
    let routed = proxy.with(blob, |stream| stream.request_headers.clone());
    for name in ["x-request-id", "traceparent"] {
        assert!(routed.iter().any(|(key, _)| key == name), "{name}");
    }
}

#[test]
fn no_client_makes_the_calls_that_it_shares_with_others_so_large_that_the_store_refuses_them() {
    let (mut proxy, digest) = proxy(CONFIG);
    let (long, half) = ("x".repeat(513), "y".repeat(512));
    let mut headers = vec![("traceparent", long.as_str())];
    headers.extend([("tracestate", half.as_str()); 90]);
    let blob = proxy.begin("GET", &format!("/v2/a/blobs/{digest}"), &headers, true);
    let call = proxy.open_calls().pop().expect("a call");
    let traces = |name: &str| name.starts_with("trace");
    let sent = call.headers.iter().filter(|(name, _)| traces(name));
    assert_eq!(sent.collect::<Vec<_>>(), [&("tracestate".to_owned(), half.clone())]);
    proxy.answer_calls();
    let routed = proxy.with(blob, |stream| stream.request_headers.clone());
    let routed = routed.into_iter().filter(|(name, _)| traces(name));
    assert_eq!(routed.collect::<Vec<_>>(), [("tracestate".to_owned(), half.into_bytes())]);
}
