//! What clients see of the API: statuses, headers, conditional and range requests, bad input.

use bytes::Bytes;
use http::{Method, Response};
use moorage::oci::Digest;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client::{error_of, request, send};
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::within;
use moorage_test_support::stand_in::{Behaviour, StandIn};
use moorage_test_support::tree::Tree;

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
const BLOB: &[u8] = b"0123456789";

struct Registry {
    envoy: Envoy,
    manifest: Digest,
    blob: Digest,
    _store: BlobStore,
    _root: TempDir,
}

impl Registry {
    /// A registry with a manifest `a/b:t` and a blob.
    async fn start() -> Self {
        Self::start_with(|bootstrap| bootstrap).await
    }

    /// The same, with changes to the bootstrap.
    async fn start_with(change: impl FnOnce(Bootstrap) -> Bootstrap) -> Self {
        let root = TempDir::new().expect("a temporary folder");
        let mut tree = Tree::default();
        let manifest = tree.put_manifest("a/b", "t", MANIFEST);
        let blob = tree.put_blob("a/b", BLOB);
        tree.write_to(&root.path().join("registry"));
        let store = BlobStore::open(root.path()).await;
        let envoy = Envoy::start(&change(Bootstrap::new(store.address))).await;
        Self { envoy, manifest, blob, _store: store, _root: root }
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
        send(self.envoy.address, request(method, path, headers)).await
    }

    fn blob_path(&self) -> String {
        format!("/v2/a/b/blobs/{}", self.blob)
    }
}

/// The names of a response's headers, sorted, without those that Envoy adds to everything.
fn header_names(response: &Response<Bytes>) -> Vec<&str> {
    let mut names: Vec<_> = response.headers().keys().map(|name| name.as_str()).collect();
    names.retain(|name| !matches!(*name, "date" | "server"));
    names.sort_unstable();
    names
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn the_base_says_that_this_is_a_registry() {
    let registry = Registry::start().await;
    for path in ["/v2/", "/v2", "/v2/?a=b"] {
        let response = registry.send(Method::GET, path, &[]).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.body(), "{}");
        assert_eq!(response.headers()["docker-distribution-api-version"], "registry/2.0");
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn no_reply_may_be_taken_for_another_type_than_it_says() {
    let registry = Registry::start().await;
    let blob = registry.blob_path();
    let known = ("if-none-match", "*");
    for (path, header, status) in [
        ("/v2/", None, 200),
        ("/v2/_catalog", None, 200),
        ("/v2/a/b/tags/list", None, 200),
        ("/v2/a/b/manifests/t", None, 200),
        ("/v2/a/b/manifests/t", Some(known), 304),
        ("/v2/a/b/manifests/none", None, 404),
        ("/v2/no/such/endpoint", None, 404),
        (blob.as_str(), None, 200),
        (blob.as_str(), Some(("range", "bytes=2-4")), 206),
        (blob.as_str(), Some(known), 304),
    ] {
        let response = registry.send(Method::GET, path, header.as_slice()).await;
        let options = response.headers().get("x-content-type-options");
        let options = options.map(|value| value.as_bytes());
        assert_eq!(
            (response.status().as_u16(), options),
            (status, Some(&b"nosniff"[..])),
            "{path}"
        );
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn head_answers_like_get_without_the_body() {
    let registry = Registry::start().await;
    let by_digest = format!("/v2/a/b/manifests/{}", registry.manifest);
    for path in ["/v2/", "/v2/a/b/manifests/t", &by_digest, &registry.blob_path(), "/v2/a/b/x"] {
        let get = registry.send(Method::GET, path, &[]).await;
        let head = registry.send(Method::HEAD, path, &[]).await;
        assert!(!get.body().is_empty() && head.body().is_empty(), "{path}");
        assert_eq!(head.status(), get.status(), "{path}");
        assert_eq!(header_names(&head), header_names(&get), "{path}");
        assert_eq!(head.headers()["content-length"], get.body().len().to_string(), "{path}");
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_manifest_comes_with_its_headers_and_304_without_its_body() {
    let registry = Registry::start().await;
    let entity_tag = format!("\"{}\"", registry.manifest);
    for method in [Method::GET, Method::HEAD] {
        for reference in ["t", registry.manifest.as_str()] {
            let path = format!("/v2/a/b/manifests/{reference}");
            let full = registry.send(method.clone(), &path, &[]).await;
            assert_eq!(full.status(), 200);
            assert_eq!(full.headers()["etag"], entity_tag);
            assert_eq!(full.headers()["docker-content-digest"], registry.manifest.as_str());

            // Repeated headers count together.
            let condition = [("if-none-match", "\"x\""), ("if-none-match", entity_tag.as_str())];
            let unchanged = registry.send(method.clone(), &path, &condition).await;
            assert_eq!(unchanged.status(), 304);
            assert!(unchanged.body().is_empty());
            assert_eq!(unchanged.headers()["etag"], entity_tag);
            assert_eq!(unchanged.headers()["docker-content-digest"], registry.manifest.as_str());
            assert!(!unchanged.headers().contains_key("content-length"));
        }
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn repeated_accept_headers_count_together() {
    let registry = Registry::start().await;
    let path = "/v2/a/b/manifests/t";
    let docker = ("accept", "application/vnd.docker.distribution.manifest.v2+json");
    let oci = ("Accept", "Application/Vnd.OCI.Image.Manifest.V1+JSON;q=0.1");
    assert_eq!(registry.send(Method::GET, path, &[docker, oci]).await.status(), 200);
    let refused = registry.send(Method::GET, path, &[docker]).await;
    assert_eq!(error_of(&refused), (404, "MANIFEST_UNKNOWN".to_owned()));
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_blob_comes_with_its_headers_and_none_of_the_stores() {
    let registry = Registry::start().await;
    let response = registry.send(Method::GET, &registry.blob_path(), &[]).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.body(), BLOB);
    let expected = [
        "accept-ranges",
        "cache-control",
        "content-length",
        "content-type",
        "docker-content-digest",
        "docker-distribution-api-version",
        "etag",
        "x-content-type-options",
    ];
    assert_eq!(header_names(&response), expected);
    assert_eq!(response.headers()["server"], "envoy");
    assert_eq!(response.headers()["etag"], format!("\"{}\"", registry.blob));
    assert_eq!(response.headers()["docker-content-digest"], registry.blob.as_str());
    assert!(response.headers()["cache-control"].to_str().expect("text").contains("max-age="));
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_blob_is_served_in_ranges() {
    let registry = Registry::start().await;
    let path = registry.blob_path();
    let entity_tag = format!("\"{}\"", registry.blob);
    for (range, body, content_range) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
        ("bytes=-1", "9", "bytes 9-9/10"),
    ] {
        let headers = [("range", range), ("if-range", entity_tag.as_str())];
        let part = registry.send(Method::GET, &path, &headers).await;
        assert_eq!((part.status().as_u16(), &part.body()[..]), (206, body.as_bytes()), "{range}");
        assert_eq!(part.headers()["content-range"], content_range);
    }
    for headers in [
        vec![("range", "bytes=3-4,0-1")],
        vec![("range", "bytes=4-2")],
        vec![("range", "lines=1-2")],
        vec![("range", "bytes=1-2"), ("if-range", "\"other\"")],
    ] {
        let whole = registry.send(Method::GET, &path, &headers).await;
        assert_eq!((whole.status().as_u16(), &whole.body()[..]), (200, BLOB), "{headers:?}");
    }
    let beyond = registry.send(Method::GET, &path, &[("range", "bytes=10-")]).await;
    assert_eq!(error_of(&beyond), (416, "RANGE_INVALID".to_owned()));
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_repository_serves_only_what_it_links() {
    let registry = Registry::start().await;
    for (path, code) in [
        (format!("/v2/other/blobs/{}", registry.blob), "BLOB_UNKNOWN"),
        (format!("/v2/other/manifests/{}", registry.manifest), "MANIFEST_UNKNOWN"),
        // A blob that is no manifest of the repository, and the other way round.
        (format!("/v2/a/b/manifests/{}", registry.blob), "MANIFEST_UNKNOWN"),
        (format!("/v2/a/b/blobs/{}", registry.manifest), "BLOB_UNKNOWN"),
        ("/v2/a/b/manifests/other".to_owned(), "MANIFEST_UNKNOWN"),
    ] {
        let response = registry.send(Method::GET, &path, &[]).await;
        assert_eq!(error_of(&response), (404, code.to_owned()), "{path}");
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn other_methods_are_answered_with_allow() {
    let registry = Registry::start().await;
    let blob = registry.blob_path();
    for (path, allow) in [
        ("/v2/", "GET, HEAD"),
        ("/v2/a/b/manifests/t", "GET, HEAD, PUT, DELETE"),
        (&blob, "GET, HEAD, DELETE"),
    ] {
        for method in ["PUT", "POST", "PATCH", "DELETE", "OPTIONS"] {
            if allow.contains(method) {
                continue;
            }
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            let mut with_body = request(method.clone(), path, &[]);
            *with_body.body_mut() = Bytes::from_static(b"a body").into();
            let response = send(registry.envoy.address, with_body).await;
            assert_eq!(error_of(&response), (405, "UNSUPPORTED".to_owned()), "{method} {path}");
            assert_eq!(response.headers()["allow"], allow);
        }
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn bad_paths_have_their_own_errors() {
    // As clients send them, not as Envoy would put them right.
    let unchanged =
        |bootstrap: Bootstrap| bootstrap.with("normalize_path: true", "normalize_path: false");
    let registry = Registry::start_with(unchanged).await;
    let long = "a".repeat(300);
    for (path, status, code) in [
        ("/", 404, "NAME_UNKNOWN"),
        ("/health", 404, "NAME_UNKNOWN"),
        ("/registry/docker/registry/v2/blobs", 404, "NAME_UNKNOWN"),
        ("/v2/a/b", 404, "NAME_UNKNOWN"),
        ("/v2/../registry/manifests/t", 400, "NAME_INVALID"),
        ("/v2/a/%2e%2e/b/manifests/t", 400, "NAME_INVALID"),
        ("/v2/a%2fb/manifests/t", 400, "NAME_INVALID"),
        ("/v2/a//b/manifests/t", 400, "NAME_INVALID"),
        ("/v2/a%00b/manifests/t", 400, "NAME_INVALID"),
        ("/v2/A/manifests/t", 400, "NAME_INVALID"),
        (&format!("/v2/{long}/manifests/t"), 400, "NAME_INVALID"),
        (&format!("/v2/a/manifests/{long}"), 400, "TAG_INVALID"),
        ("/v2/a/manifests/..", 400, "TAG_INVALID"),
        ("/v2/a/manifests/t%2f..%2fu", 400, "TAG_INVALID"),
        ("/v2/a/manifests/sha256:abc", 400, "DIGEST_INVALID"),
        ("/v2/a/blobs/sha256:../../../x", 404, "NAME_UNKNOWN"),
        ("/v2/a/blobs/md5:0", 400, "DIGEST_INVALID"),
    ] {
        let response = registry.send(Method::GET, path, &[]).await;
        assert_eq!(error_of(&response), (status, code.to_owned()), "{path}");
    }
}

/// Sends bytes that no HTTP library would send, and reads whatever comes back until Envoy closes.
async fn send_raw(envoy: &Envoy, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(envoy.address).await.expect("Envoy listens");
    stream.write_all(bytes).await.expect("Envoy reads");
    let mut answer = Vec::new();
    within("Envoy's answer", stream.read_to_end(&mut answer)).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn requests_that_envoy_refuses_are_answered_in_json() {
    let registry = Registry::start().await;
    let large = "a".repeat(100_000);
    for (head, status) in [
        ("GET /v2/ HTTP/1.1\r\n".to_owned(), 400),
        ("GET /v2/a\0b/manifests/t HTTP/1.1\r\nHost: a\r\n".to_owned(), 400),
        ("GET /v2/a/manifests/t#f HTTP/1.1\r\nHost: a\r\n".to_owned(), 400),
        (format!("GET /v2/ HTTP/1.1\r\nHost: a\r\nX: {large}\r\n"), 431),
    ] {
        let answer = send_raw(&registry.envoy, format!("{head}\r\n").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("content-type: application/json"), "{answer}");
        assert!(answer.contains(r#"{"errors":[{"code":"UNKNOWN""#), "{answer}");
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn header_values_may_be_any_bytes() {
    let registry = Registry::start().await;
    let head = b"HEAD /v2/a/b/manifests/t HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    for (header, status) in [(&b"X-Any: \xff\xfe"[..], 200), (b"Accept: \xff", 404)] {
        let request = [head, header, b"\r\n\r\n"].concat();
        let answer = send_raw(&registry.envoy, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    assert!(!registry.envoy.log().contains("panic"), "{}", registry.envoy.log());
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn nothing_of_a_request_gets_to_the_store_as_the_client_wrote_it() {
    let mut tree = Tree::default();
    tree.put_manifest("a", "t", MANIFEST);
    let store = StandIn::start(tree, |_, _| Behaviour::Serve).await;
    let bootstrap = Bootstrap::new(store.address).with(
        "                stat_prefix: registry\n",
        "                stat_prefix: registry\n                \
         http_protocol_options: { enable_trailers: true }\n",
    );
    let envoy = Envoy::start(&bootstrap).await;
    // Body and trailers arrive while the filter waits for the store.
    let request = b"GET /v2/a/manifests/t HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
        Transfer-Encoding: chunked\r\nTrailer: x\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n";
    let answer = send_raw(&envoy, request).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let requests = store.requests();
    assert!(requests.iter().all(|key| key.starts_with("docker/registry/v2/")), "{requests:?}");
    assert_eq!(requests.len(), 3, "{requests:?}");
}
