//! The access log, as the bootstraps have it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use moorage_test_support::accounts::{self, DEPLOY, READER, User};
use moorage_test_support::digest_of;
use moorage_test_support::envoy::Bootstrap;
use moorage_test_support::stand_in::{Behaviour, StandIn};
use moorage_test_support::tree::Tree;
use serde_json::{Map, Value, json};

use super::*;

const USER_AGENT: &str = "tests/1.0";
const BLOB: &str = "a blob";

/// One registry, and what its access log has said so far.
struct Log {
    registry: Registry,
    requests: usize,
}

/// Whether the store is asked for a request.
#[derive(Debug, PartialEq, Eq)]
enum Store {
    Asked,
    Left,
}

impl Log {
    async fn start(change: impl FnOnce(Bootstrap) -> Bootstrap) -> Self {
        let registry = Registry::start(|bootstrap| change(bootstrap.logging_to_stderr())).await;
        Self { registry, requests: 0 }
    }

    /// Sends a request and gives the answer with what the log says of it, after looking at what every line has.
    async fn sent(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (Response<Bytes>, Value) {
        self.requests += 1;
        let id = format!("request-{}", self.requests);
        let own = [("x-request-id", id.as_str()), ("user-agent", USER_AGENT)];
        let headers = [&own[..], headers].concat();
        let response = self.registry.send(method.clone(), path, &headers, body.to_owned()).await;
        let mut line = line_of(&self.registry.envoy, &id).await;
        assert_eq!(line["status"], response.status().as_u16(), "{line}");
        assert_eq!(line["bytes"], response.body().len(), "{line}");
        assert_eq!(line["client"], "127.0.0.1", "{line}");
        assert!(line["ms"].is_u64() && line["time"].is_string(), "{line}");
        (response, line["moorage"].take())
    }

    /// The same for a request with these fields in the log, beside those that every request has.
    async fn tells(
        &mut self,
        method: Method,
        path: &str,
        body: &str,
        store: Store,
        fields: Value,
    ) -> Response<Bytes> {
        let (response, told) = self.sent(method.clone(), path, &[], body).await;
        let Value::Object(mut told) = told else { panic!("{method} {path}: {told}") };
        let mut number = |name| told.remove(name).and_then(|value| value.as_f64());
        let (calls, time) = (number("store_calls"), number("store_ms"));
        assert!(time >= Some(0.0), "{method} {path}: {time:?}");
        assert_eq!(calls > Some(0.0), store == Store::Asked, "{method} {path}: {calls:?}");
        let own = json!({ "method": method.as_str(), "path": path, "user_agent": USER_AGENT });
        assert_eq!(Value::Object(told), merged([own, fields]), "{method} {path}");
        response
    }
}

fn merged(objects: [Value; 2]) -> Value {
    let fields = objects.into_iter().flat_map(|object| match object {
        Value::Object(fields) => fields,
        other => panic!("no object: {other}"),
    });
    Value::Object(fields.collect::<Map<_, _>>())
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn each_request_has_a_line_that_says_what_was_asked_and_what_came_of_it() {
    use Store::{Asked, Left};
    let mut log = Log::start(|bootstrap| bootstrap).await;
    let (manifest, blob, none) = (digest_of(MANIFEST), digest_of(BLOB), digest_of("nothing"));
    let by_tag = "/v2/a/b/manifests/v1";
    let put = json!({
        "operation": "manifest_put", "repository": "a/b", "reference": "v1",
        "digest": manifest.as_str(), "media_type": MEDIA_TYPE,
    });
    log.tells(Method::PUT, by_tag, MANIFEST, Asked, put).await;

    upload(&mut log).await;

    let pulled = |cache: &str, reference: &str| {
        json!({
            "operation": "manifest_get", "repository": "a/b", "reference": reference,
            "digest": manifest.as_str(), "media_type": MEDIA_TYPE, "cache": cache,
        })
    };
    let by_digest = format!("/v2/a/b/manifests/{manifest}");
    log.tells(Method::GET, by_tag, "", Asked, pulled("miss", "v1")).await;
    log.tells(Method::GET, &by_digest, "", Left, pulled("hit", manifest.as_str())).await;
    log.tells(Method::HEAD, &by_digest, "", Left, pulled("hit", manifest.as_str())).await;

    let of_blob = |digest: &str, more: Value| {
        let fields = json!({ "operation": "blob_get", "repository": "a/b", "reference": digest });
        merged([fields, more])
    };
    let blob_path = format!("/v2/a/b/blobs/{blob}?x=%22");
    let found = json!({ "digest": blob.as_str(), "cache": "miss" });
    log.tells(Method::GET, &blob_path, "", Asked, of_blob(blob.as_str(), found)).await;
    let found = json!({ "digest": blob.as_str(), "cache": "hit" });
    log.tells(Method::GET, &blob_path, "", Asked, of_blob(blob.as_str(), found)).await;
    let found = json!({ "digest": blob.as_str(), "cache": "hit" });
    log.tells(Method::HEAD, &blob_path, "", Asked, of_blob(blob.as_str(), found)).await;
    let missing = json!({ "error": "BLOB_UNKNOWN", "cache": "miss" });
    let path = format!("/v2/a/b/blobs/{none}");
    log.tells(Method::GET, &path, "", Asked, of_blob(none.as_str(), missing)).await;

    for (method, path, store, fields) in [
        (
            Method::GET,
            "/v2/a/b/manifests/none",
            Asked,
            json!({ "operation": "manifest_get", "repository": "a/b", "reference": "none", "error": "MANIFEST_UNKNOWN" }),
        ),
        (
            Method::GET,
            "/v2/a/b/tags/list",
            Asked,
            json!({ "operation": "tags_list", "repository": "a/b" }),
        ),
        (Method::GET, "/v2/_catalog?n=1", Asked, json!({ "operation": "catalog_list" })),
        (Method::GET, "/v2/", Left, json!({ "operation": "base" })),
        (Method::GET, "/healthz", Left, json!({ "operation": "health" })),
        (Method::GET, "/readyz", Asked, json!({ "operation": "ready" })),
        (
            Method::GET,
            "/v2/A/manifests/v1",
            Left,
            json!({ "operation": "none", "error": "NAME_INVALID" }),
        ),
        (
            Method::GET,
            "/favicon.ico",
            Left,
            json!({ "operation": "none", "error": "NAME_UNKNOWN" }),
        ),
        (
            Method::POST,
            by_tag,
            Left,
            json!({ "operation": "manifest_get", "repository": "a/b", "reference": "v1", "error": "UNSUPPORTED" }),
        ),
    ] {
        log.tells(method, path, "", store, fields).await;
    }
    assert_eq!(access_log(&log.registry.envoy).len(), log.requests, "one line for each");
}

/// All of an upload, whose session's id all of its lines have.
async fn upload(log: &mut Log) {
    use Store::Asked;
    let (path, blob) = ("/v2/a/b/blobs/uploads/", digest_of(BLOB));
    let (begun, told) = log.sent(Method::POST, path, &[], "").await;
    assert_eq!(begun.status(), 202, "{begun:?}");
    let id = begun.headers()["docker-upload-uuid"].to_str().expect("text").to_owned();
    assert_eq!([&told["operation"], &told["upload"]], ["upload_start", id.as_str()], "{told}");
    let fields =
        |operation: &str| json!({ "operation": operation, "repository": "a/b", "upload": id });
    let at = location(&begun);
    let appended = log.tells(Method::PATCH, &at, BLOB, Asked, fields("upload_append")).await;
    let at = location(&appended);
    log.tells(Method::GET, &at, "", Asked, fields("upload_status")).await;
    let separator = if at.contains('?') { '&' } else { '?' };
    let finish = format!("{at}{separator}digest={blob}");
    let done = merged([fields("upload_finish"), json!({ "digest": blob.as_str() })]);
    log.tells(Method::PUT, &finish, "", Asked, done).await;
    // It is over.
    let gone = merged([fields("upload_cancel"), json!({ "error": "BLOB_UPLOAD_UNKNOWN" })]);
    log.tells(Method::DELETE, &at, "", Asked, gone).await;
}

fn basic(user: User) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", user.name, user.password)))
}

#[tokio::test]
#[ignore = "needs Envoy and openssl: run ./build.sh test"]
async fn with_access_control_a_line_says_who_it_was_and_never_how_that_was_proven() {
    let access = accounts::access().await;
    let mut log = Log::start(|bootstrap| bootstrap.with_access(&access)).await;
    let mut guess = DEPLOY;
    guess.password = "a guess";
    for (user, path, status, fields) in [
        (
            Some(DEPLOY),
            "/auth/token?service=moorage&scope=repository:a:pull",
            200,
            json!({
            "operation": "token", "identity": "user:deploy (password)", "decision": "allowed" }),
        ),
        (
            None,
            "/auth/token?service=moorage",
            200,
            json!({
            "operation": "token", "identity": "anonymous", "decision": "allowed" }),
        ),
        (
            Some(guess),
            "/auth/token",
            401,
            json!({
            "operation": "token", "identity": "unknown", "decision": "denied", "error": "UNAUTHORIZED" }),
        ),
        (
            Some(READER),
            "/v2/team/a/tags/list",
            401,
            json!({
            "operation": "tags_list", "repository": "team/a", "identity": "user:reader (password)",
            "decision": "denied", "error": "UNAUTHORIZED" }),
        ),
        (
            None,
            "/v2/",
            401,
            json!({
            "operation": "base", "identity": "anonymous", "decision": "denied", "error": "UNAUTHORIZED" }),
        ),
        (None, "/healthz", 200, json!({ "operation": "health" })),
    ] {
        let login = user.map(basic);
        let headers = login.as_ref().map(|login| ("authorization", login.as_str()));
        let (response, mut told) = log.sent(Method::GET, path, headers.as_slice(), "").await;
        assert_eq!(response.status(), status, "{path}: {response:?}");
        let own = json!({ "method": "GET", "path": path, "user_agent": USER_AGENT });
        let told_fields = told.as_object_mut().expect("an object");
        told_fields.remove("store_calls");
        told_fields.remove("store_ms");
        assert_eq!(told, merged([own, fields]), "{path}");
    }
    let text = log.registry.envoy.log();
    for secret in [DEPLOY.password, "a guess", &basic(DEPLOY), &basic(READER)] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_client_that_leaves_before_it_has_an_answer_has_a_line_all_the_same() {
    let store = StandIn::start(Tree::default(), |_, _| Behaviour::Stall).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address).logging_to_stderr()).await;
    let head = "GET /v2/a/manifests/v1 HTTP/1.1\r\nx-request-id: left";
    let stream = moorage_test_support::raw::begin([127, 0, 0, 1].into(), envoy.address, head).await;
    wait_for("the store to be asked", async || store.requests().pop()).await;
    drop(stream);
    let line = line_of(&envoy, "left").await;
    assert_eq!(line["status"], 0, "{line}");
    let told = &line["moorage"];
    for (field, expected) in [
        ("operation", "manifest_get"),
        ("path", "/v2/a/manifests/v1"),
        ("repository", "a"),
        ("reference", "v1"),
    ] {
        assert_eq!(told[field], expected, "{line}");
    }
    assert!(told["store_calls"].as_f64() > Some(0.0), "{line}");
}
