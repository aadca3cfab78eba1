//! Events through the whole filter: what of a request is in them, who sends them, and that no request waits for them.

use base64::Engine as _;
use serde_json::Value;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::driver::{Proxy, config_with};
use crate::filter::scripted_host::{Call, ROOT};
use crate::registry::private_key_tests::jwk;

const MANIFEST: &[u8] =
    br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

/// `wonderland` at the lowest cost.
const ADA: &str = "ada:$2y$04$NHFVFxLN6UTwJghZxZIXVubLaLeO0XGdvYfKmmHmjwazQ77YPGUu.";

/// A configuration with these endpoints, each with its name and further fields.
fn config(endpoints: &[(&str, &str)]) -> String {
    let endpoint = |(name, fields): &(&str, &str)| {
        format!(r#"{{"name":"{name}","cluster":"{name}","authority":"e","path":"/"{fields}}}"#)
    };
    let endpoints: Vec<_> = endpoints.iter().map(endpoint).collect();
    config_with(&format!(r#""events":{{"source":"r","endpoints":[{}]}}"#, endpoints.join(",")))
}

/// Puts a manifest under the tag `t` while no endpoint answers.
fn put(proxy: &mut Proxy, repository: &str, headers: &[(&str, &str)]) {
    let id = proxy.begin("PUT", &format!("/v2/{repository}/manifests/t"), headers, false);
    proxy.send(id, MANIFEST, true);
    while proxy.reply(id).is_none() {
        answer_store(proxy);
        proxy.tick();
        while proxy.run_queue() {}
    }
    assert_eq!(proxy.outcome(id).0, 201);
    proxy.close(id);
}

/// Answers the calls to the store, and none to endpoints.
fn answer_store(proxy: &mut Proxy) {
    while let Some(call) = proxy.open_calls().into_iter().find(|call| call.cluster == "c") {
        let (status, body) = proxy.serve(&call);
        proxy.report(call.token, Some(status), &body);
    }
}

/// The requests to an endpoint that wait for their answers.
fn requests(proxy: &Proxy, endpoint: &str) -> Vec<Call> {
    proxy.open_calls().into_iter().filter(|call| call.cluster == endpoint).collect()
}

/// The events of a request in the format of `distribution`.
fn events(request: &Call) -> Vec<Value> {
    let body: Value = serde_json::from_slice(&request.body).expect("JSON");
    body["events"].as_array().expect("a list").clone()
}

#[test]
fn the_plugin_sends_what_a_request_did_and_the_client_does_not_wait() {
    let mut proxy = Proxy::new(&config(&[("first", ""), ("second", r#","format":"cloudevents""#)]));
    let headers = [
        (":authority", "registry.example.org:8443"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "an-id"),
        ("user-agent", "a client"),
    ];
    put(&mut proxy, "a", &headers);
    proxy.tick();
    let [first, second] = ["first", "second"].map(|endpoint| requests(&proxy, endpoint).remove(0));
    for request in [&first, &second] {
        assert_eq!((request.reported_to, request.owner), (ROOT, ROOT), "it outlives the client");
    }
    let event = events(&first).remove(0);
    assert_eq!((&event["action"], &event["target"]["repository"]), (&"push".into(), &"a".into()));
    let url = event["target"]["url"].as_str().expect("a URL");
    assert!(url.starts_with("https://registry.example.org:8443/v2/a/manifests/sha256:"), "{url}");
    let request = serde_json::json!({
        "id": "an-id", "addr": "192.0.2.1:1000", "host": "registry.example.org:8443",
        "method": "PUT", "useragent": "a client",
    });
    assert_eq!(event["request"], request);
    assert_eq!(event["source"]["instanceID"], "r");
    let batch: Value = serde_json::from_slice(&second.body).expect("JSON");
    assert_eq!(batch[0]["id"], event["id"], "both are told of the same event");
    assert_eq!(batch[0]["type"], "io.moorage.registry.manifest.push");

    // One that hangs keeps nothing from the other, nor from clients.
    proxy.report(second.token, Some(200), b"");
    put(&mut proxy, "a", &headers);
    proxy.tick();
    assert_eq!(requests(&proxy, "first").len(), 1);
    let second = requests(&proxy, "second").remove(0);
    proxy.report(second.token, Some(200), b"");
    proxy.report(first.token, None, b"");
    let counts = proxy.plugin.event_counts();
    assert_eq!((counts.sent, counts.dropped, counts.queued), (2, 0, 2));
    proxy.assert_idle();
}

#[test]
fn an_endpoint_gets_what_it_wants_and_nobody_a_pull_that_was_not_asked_for() {
    let mut proxy = Proxy::new(&config(&[
        ("pulls", r#","actions":["pull"],"repositories":["a"]"#),
        ("moves", r#","actions":["tag_moved"]"#),
        ("others", ""),
    ]));
    put(&mut proxy, "a", &[]);
    put(&mut proxy, "b", &[]);
    for repository in ["a", "b"] {
        let id = proxy.begin("GET", &format!("/v2/{repository}/manifests/t"), &[], true);
        answer_store(&mut proxy);
        assert_eq!(proxy.outcome(id).0, 200);
        proxy.close(id);
    }
    proxy.tick();
    let told = |endpoint| {
        let all = requests(&proxy, endpoint).iter().flat_map(events).collect::<Vec<_>>();
        let told = |event: Value| format!("{} {}", event["action"], event["target"]["repository"]);
        all.into_iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(told("pulls"), [r#""pull" "a""#]);
    assert_eq!(told("moves"), [""; 0]);
    // The second came while the request with the first was under way.
    assert_eq!(told("others"), [r#""push" "a""#]);
}

#[test]
fn the_actor_is_who_was_verified() {
    let key = jwk();
    let access = format!(
        r#""access":{{"key":{key},"users":["{ADA}"],
            "rules":[{{"who":["user:ada"],"repositories":["**"],"actions":["*"]}}]}},"#
    );
    let config = config(&[("e", "")]).replacen('{', &format!("{{{access}"), 1);
    let mut proxy = Proxy::new(&config);
    let basic = base64::engine::general_purpose::STANDARD.encode("ada:wonderland");
    put(&mut proxy, "a", &[("authorization", &format!("Basic {basic}"))]);
    proxy.tick();
    let request = requests(&proxy, "e").remove(0);
    assert_eq!(events(&request)[0]["actor"]["name"], "user:ada");
    assert!(!String::from_utf8_lossy(&request.body).contains(&basic));
}
