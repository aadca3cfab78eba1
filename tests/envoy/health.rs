//! `/healthz` and `/readyz`, as load balancers and probes see them.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::future::join_all;
use http::{Method, Response};
use moorage_test_support::accounts;
use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client::{self, error_of};
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::wait_for;
use moorage_test_support::stand_in::{Behaviour, StandIn};
use moorage_test_support::tree::Tree;
use serde_json::{Value, json};
use tempfile::TempDir;

/// `store.timeout_ms` of these tests.
const STORE_TIMEOUT: &str = r#""timeout_ms": 2000"#;

async fn send(server: SocketAddr, method: Method, path: &str) -> Response<Bytes> {
    client::send(server, client::request(method, path, &[])).await
}

/// The status and the JSON of an answer to `GET`.
async fn ask(server: SocketAddr, path: &str) -> (u16, Value) {
    let response = send(server, Method::GET, path).await;
    let headers = response.headers();
    assert_eq!(headers["cache-control"], "no-store", "{response:?}");
    assert_eq!(headers["content-type"], "application/json", "{response:?}");
    let json = serde_json::from_slice(response.body()).expect("JSON");
    assert_eq!(headers.contains_key("retry-after"), response.status() == 503, "{response:?}");
    (response.status().as_u16(), json)
}

/// Waits until `/readyz` says this; meanwhile `/healthz` is well.
async fn becomes(server: SocketAddr, status: u16, what: &str) {
    wait_for(what, async || {
        assert_eq!(ask(server, "/healthz").await, (200, json!({ "status": "ok" })));
        let (found, json) = ask(server, "/readyz").await;
        let store = json["store"].as_str().expect("a text");
        let fields =
            json!({ "status": if found == 200 { "ok" } else { "unavailable" }, "store": store });
        assert_eq!(json, fields);
        (found == status && store.contains(what)).then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs Envoy and openssl: run ./build.sh test"]
async fn whoever_asks_is_told_whether_the_store_answers_whatever_it_does() {
    let root = TempDir::new().expect("a temporary folder");
    std::fs::create_dir(root.path().join("registry")).expect("a folder");
    let store = BlobStore::open(root.path()).await;
    let address = store.address;
    let access = accounts::access().await;
    let bootstrap = Bootstrap::new(address).with_store_fields(STORE_TIMEOUT).with_access(&access);
    let envoy = Envoy::start(&bootstrap).await;
    let server = envoy.address;
    assert_eq!(
        error_of(&send(server, Method::GET, "/v2/").await).0,
        401,
        "there is access control"
    );
    assert_eq!(ask(server, "/healthz").await, (200, json!({ "status": "ok" })));
    assert_eq!(ask(server, "/readyz").await, (200, json!({ "status": "ok", "store": "ok" })));

    store.signal("STOP").await;
    becomes(server, 503, "did not answer in time").await;
    store.signal("CONT").await;
    becomes(server, 200, "ok").await;
    store.kill().await;
    becomes(server, 503, "can't be reached").await;
    let _store = BlobStore::reopen(root.path(), address).await;
    becomes(server, 200, "ok").await;
    // A bucket that is not there is nothing to be ready with.
    std::fs::remove_dir_all(root.path()).expect("the folder goes");
    becomes(server, 503, "the blob store failed").await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_hundred_who_ask_at_once_cost_the_store_one_call() {
    const ASKING: usize = 100;
    // It answers nothing but after all have asked.
    let store = StandIn::start(Tree::default(), |key, _| match key {
        "moorage/probes/health" => Behaviour::ServeAfter("repositories/released/"),
        _ => Behaviour::Serve,
    })
    .await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    let asking = join_all((0..ASKING).map(|_| ask(envoy.address, "/readyz")));
    let releasing = async {
        wait_for("all to ask", async || {
            let under_way = envoy.stat("http.registry.downstream_rq_active").await;
            (under_way == ASKING as u64).then_some(())
        })
        .await;
        send(envoy.address, Method::GET, "/v2/released/manifests/v1").await
    };
    let (answers, _) = futures::future::join(asking, releasing).await;
    for answer in answers {
        assert_eq!(answer, (200, json!({ "status": "ok", "store": "ok" })));
    }
    let looks = store.requests().into_iter().filter(|key| key == "moorage/probes/health").count();
    assert_eq!(looks, 1, "{:?}", store.requests());
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn both_are_read_only_take_any_query_and_fail_once_envoy_is_to_fail() {
    let store = StandIn::start(Tree::default(), |_, _| Behaviour::Serve).await;
    for bootstrap in [Bootstrap::new(store.address), Bootstrap::production_before(&[store.address])]
    {
        let envoy = Envoy::start(&bootstrap).await;
        let server = envoy.address;
        let fail = async |verb: &str| {
            let path = format!("/healthcheck/{verb}");
            assert_eq!(send(envoy.admin, Method::POST, &path).await.status(), 200);
        };
        for path in ["/healthz", "/readyz", "/healthz?", "/readyz?full=1&x=/v2/"] {
            let whole = send(server, Method::GET, path).await;
            assert_eq!(whole.status(), 200, "{path}: {whole:?}");
            let head = send(server, Method::HEAD, path).await;
            assert_eq!(head.status(), 200, "{path}: {head:?}");
            assert_eq!(head.headers()["content-length"], whole.body().len().to_string(), "{path}");
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                let refused = send(server, method.clone(), path).await;
                assert_eq!(error_of(&refused), (405, "UNSUPPORTED".to_owned()), "{method} {path}");
                assert_eq!(refused.headers()["allow"], "GET, HEAD", "{method} {path}");
            }
            fail("fail").await;
            for method in [Method::GET, Method::HEAD] {
                let failing = send(server, method.clone(), path).await;
                assert_eq!(failing.status(), 503, "{method} {path}: {failing:?}");
            }
            fail("ok").await;
            assert_eq!(send(server, Method::GET, path).await.status(), 200, "{path}");
        }
        for path in ["/healthz/", "/readyz/x", "/v2/healthz", "/Healthz"] {
            assert_eq!(send(server, Method::GET, path).await.status(), 404, "{path}");
        }
    }
}
