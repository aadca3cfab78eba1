//! What calls to the store carry of the client's request: what they are found by, and nothing that is the client's own.

use moorage_test_support::accounts::{self, DEPLOY};
use moorage_test_support::digest_of;
use moorage_test_support::stand_in::{Behaviour, Received, StandIn};
use moorage_test_support::tree::Tree;

use super::*;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACESTATE: &str = "vendor=of-the-client";
const COOKIE: &str = "session=of-the-client";

/// What the store got for a request with these headers.
async fn calls_for(
    envoy: &Envoy,
    store: &StandIn,
    (method, path, body): (Method, &str, &str),
    headers: &[(&str, &str)],
) -> Vec<Received> {
    let before = store.received().len();
    client::send_body(envoy.address, method, path, headers, body.to_owned()).await;
    store.received().split_off(before)
}

#[tokio::test]
#[ignore = "needs Envoy and openssl: run ./build.sh test"]
async fn calls_to_the_store_carry_the_requests_id_and_trace_and_no_credentials() {
    use base64::Engine as _;
    let mut tree = Tree::default();
    tree.put_manifest("a", "v1", MANIFEST.as_bytes());
    let blob = tree.put_blob("a", b"a blob");
    let store = StandIn::start(tree, |_, _| Behaviour::Serve).await;
    let access = accounts::access().await;
    let envoy = Envoy::start(&Bootstrap::new(store.address).with_access(&access)).await;
    let login = format!("{}:{}", DEPLOY.name, DEPLOY.password);
    let login = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login));
    let pull = format!("/v2/a/blobs/{blob}");
    let push = format!("/v2/a/blobs/uploads/?digest={}", digest_of("another"));
    for (number, request) in [
        (Method::GET, "/v2/a/manifests/v1", ""),
        (Method::GET, pull.as_str(), ""),
        (Method::HEAD, pull.as_str(), ""),
        (Method::GET, "/v2/a/tags/list", ""),
        (Method::PUT, "/v2/a/manifests/v2", MANIFEST),
        (Method::POST, push.as_str(), "another"),
        (Method::GET, "/readyz", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("request-{number}");
        let headers = [
            ("x-request-id", id.as_str()),
            ("traceparent", TRACEPARENT),
            ("tracestate", TRACESTATE),
            ("authorization", login.as_str()),
            ("cookie", COOKIE),
            ("x-of-the-client", COOKIE),
            ("user-agent", "of-the-client"),
        ];
        let calls = calls_for(&envoy, &store, request.clone(), &headers).await;
        assert!(!calls.is_empty(), "{request:?} asks the store");
        for call in calls {
            let sent = |name| call.header(name);
            assert_eq!(sent("x-request-id"), Some(id.as_str()), "{request:?}: {call:?}");
            assert_eq!(sent("traceparent"), Some(TRACEPARENT), "{request:?}: {call:?}");
            assert_eq!(sent("tracestate"), Some(TRACESTATE), "{request:?}: {call:?}");
            for name in ["authorization", "cookie", "x-of-the-client", "user-agent"] {
                assert_eq!(sent(name), None, "{request:?}: {call:?}");
            }
        }
    }
    // One that has none of them: Envoy gives it an id.
    let request = (Method::GET, "/v2/a/manifests/v1", "");
    let calls = calls_for(&envoy, &store, request, &[("authorization", login.as_str())]).await;
    let ids: Vec<_> = calls.iter().map(|call| call.header("x-request-id")).collect();
    assert!(ids[0].is_some_and(|id| id.len() == 36), "{ids:?}");
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert!(calls.iter().all(|call| call.header("traceparent").is_none()), "{calls:?}");
}
