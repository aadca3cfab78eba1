//! The store over HTTP, as a client of S3 sees it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Response};
use moorage_synthetic_bucket::bucket::Bucket;
use moorage_synthetic_bucket::plan;
use moorage_synthetic_bucket::registry::{Body, Entry, Registry};
use moorage_synthetic_bucket::server::{self, Store};
use moorage_test_support::client::{get, request, send, send_body};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

async fn start(registry: Registry) -> SocketAddr {
    let store = Store::new("registry".to_owned(), Bucket::new(registry), Duration::ZERO);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(server::serve(listener, Arc::new(store)));
    address
}

fn text(response: &Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).expect("text")
}

/// The texts of all elements of this name.
fn elements<'a>(document: &'a str, name: &str) -> Vec<&'a str> {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    let pieces = document.split(&start).skip(1);
    pieces.map(|piece| piece.split_once(&end).expect("an end").0).collect()
}

async fn put(store: SocketAddr, key: &str, headers: &[(&str, &str)], body: &str) -> u16 {
    let path = format!("/registry/{key}");
    send_body(store, Method::PUT, &path, headers, body.to_owned()).await.status().as_u16()
}

#[tokio::test]
async fn objects_are_read_whole_and_in_part() {
    let registry = plan::make(500, 1);
    let content = |wanted: fn(&Body) -> bool| {
        let place = registry.contents.iter().position(|content| wanted(&content.body));
        Entry::Content(u32::try_from(place.expect("one of them")).expect("few"))
    };
    let manifest = content(|body| matches!(body, Body::Manifest(_)));
    let layer = content(|body| *body == Body::Zeros);
    let path = |entry| format!("/registry/{}", registry.key(entry));
    let (manifest_path, layer_path) = (path(manifest), path(layer));
    let (etag, size) = (registry.etag(manifest), registry.size(manifest));
    let (hash, layer_size) = {
        let Entry::Content(place) = manifest else { panic!("no content") };
        (registry.contents[place as usize].hash, registry.size(layer))
    };
    let store = start(registry).await;

    let whole = get(store, &manifest_path, &[]).await;
    assert_eq!(whole.status(), 200);
    assert_eq!(whole.headers()["etag"], etag);
    assert!(whole.headers()["last-modified"].to_str().expect("text").contains(" 2024 "));
    assert_eq!(Sha256::digest(whole.body()).as_slice(), hash);

    let part = get(store, &manifest_path, &[("range", "bytes=2-5")]).await;
    assert_eq!((part.status().as_u16(), &part.body()[..]), (206, &whole.body()[2..6]));
    assert_eq!(part.headers()["content-range"], format!("bytes 2-5/{size}"));
    let outside = get(store, &manifest_path, &[("range", "bytes=99999999-")]).await;
    assert_eq!(outside.status(), 416);

    let zeros = get(store, &layer_path, &[("range", "bytes=-1000")]).await;
    assert_eq!((zeros.status().as_u16(), zeros.body().len()), (206, 1000));
    assert!(zeros.body().iter().all(|byte| *byte == 0));
    let head = send(store, request(Method::HEAD, &layer_path, &[])).await;
    assert_eq!(head.headers()["content-length"], layer_size.to_string());

    for (method, path, status) in [
        (Method::GET, "/registry/nothing", 404),
        (Method::HEAD, "/registry/nothing", 404),
        (Method::GET, "/elsewhere/nothing", 404),
        (Method::GET, "/registry/%ff", 400),
        (Method::GET, "/registry", 501),
        (Method::POST, "/registry/a?uploads=", 501),
        (Method::PATCH, "/registry/a", 501),
        (Method::DELETE, "/registry/nothing", 204),
    ] {
        let answer = send(store, request(method.clone(), path, &[])).await;
        assert_eq!(answer.status().as_u16(), status, "{method} {path}");
    }
}

#[tokio::test]
async fn objects_are_written_copied_and_removed_on_conditions() {
    let store = start(Registry::default()).await;
    assert_eq!(put(store, "a", &[("if-none-match", "*")], "one").await, 200);
    assert_eq!(put(store, "a", &[("if-none-match", "*")], "two").await, 412);
    let etag = get(store, "/registry/a", &[]).await.headers()["etag"].clone();
    let etag = etag.to_str().expect("text");
    assert_eq!(put(store, "a", &[("if-match", "\"other\"")], "two").await, 412);
    assert_eq!(put(store, "b", &[("if-match", etag)], "two").await, 404);
    assert_eq!(put(store, "a", &[("if-match", etag)], "two").await, 200);
    assert_eq!(get(store, "/registry/a", &[]).await.body(), "two");

    let sum = STANDARD.encode(Sha256::digest("three"));
    assert_eq!(put(store, "c", &[("x-amz-checksum-sha256", &sum)], "thrice").await, 400);
    assert_eq!(get(store, "/registry/c", &[]).await.status(), 404);
    assert_eq!(put(store, "c", &[("x-amz-checksum-sha256", &sum)], "three").await, 200);

    let copy = |source| request(Method::PUT, "/registry/d/e", &[("x-amz-copy-source", source)]);
    let copied = send(store, copy("/registry/%61")).await;
    assert_eq!(copied.status(), 200, "{}", text(&copied));
    assert_eq!(elements(text(&copied), "ETag").len(), 1);
    assert_eq!(get(store, "/registry/d/e", &[]).await.body(), "two");
    assert_eq!(send(store, copy("/registry/nothing")).await.status(), 404);
    assert_eq!(send(store, copy("/elsewhere/a")).await.status(), 404);
    assert_eq!(send(store, copy("a")).await.status(), 404);

    let remove = |etag| request(Method::DELETE, "/registry/a", &[("if-match", etag)]);
    assert_eq!(send(store, remove("\"other\"")).await.status(), 412);
    assert_eq!(get(store, "/registry/a", &[]).await.status(), 200);
    let removed = request(Method::DELETE, "/registry/a", &[]);
    assert_eq!(send(store, removed).await.status(), 204);
    assert_eq!(get(store, "/registry/a", &[]).await.status(), 404);
    assert_eq!(send(store, remove(etag)).await.status(), 404);
}

#[tokio::test]
async fn a_listing_comes_in_pages_and_calls_are_counted() {
    let registry = plan::make(3_000, 1);
    let keys: Vec<String> = registry.entries.iter().map(|entry| registry.key(*entry)).collect();
    let store = start(registry).await;
    let (mut found, mut token, mut pages) = (Vec::new(), None, 0);
    loop {
        let more = token.map(|token: String| {
            let encoded: String = form_urlencoded::byte_serialize(token.as_bytes()).collect();
            format!("&continuation-token={encoded}")
        });
        let path = format!("/registry/?list-type=2&prefix=docker%2F{}", more.unwrap_or_default());
        let page = get(store, &path, &[]).await;
        assert_eq!(page.status(), 200);
        let text = text(&page);
        found.extend(elements(text, "Key").into_iter().map(str::to_owned));
        let parts = ["Size", "LastModified", "ETag"].map(|name| elements(text, name).len());
        assert_eq!(parts, [elements(text, "Key").len(); 3]);
        assert!(elements(text, "LastModified")[0].ends_with(".000Z"));
        pages += 1;
        token = elements(text, "NextContinuationToken").first().map(|token| (*token).to_owned());
        assert_eq!(elements(text, "IsTruncated"), [if token.is_some() { "true" } else { "false" }]);
        if token.is_none() {
            break;
        }
    }
    assert_eq!(found, keys);

    let folders = "/registry/?list-type=2&delimiter=/&max-keys=1&prefix=docker/registry/v2/";
    let page = get(store, &format!("{folders}&start-after=docker/registry/v2/blobs/"), &[]).await;
    let prefixes = elements(text(&page), "CommonPrefixes");
    assert_eq!(prefixes, ["<Prefix>docker/registry/v2/repositories/</Prefix>"]);

    for wrong in ["max-keys=many", "continuation-token=*", "delimiter=x", "encoding-type=url"] {
        let answer = get(store, &format!("/registry/?list-type=2&{wrong}"), &[]).await;
        assert_eq!(answer.status(), 400, "{wrong}");
    }
    for (query, root) in
        [("versioning=", "VersioningConfiguration"), ("uploads=", "ListMultipartUploadsResult")]
    {
        let answer = get(store, &format!("/registry/?{query}"), &[]).await;
        assert!(answer.status() == 200 && text(&answer).contains(root));
    }
    get(store, "/registry/nothing", &[]).await;
    let calls: serde_json::Value =
        serde_json::from_slice(get(store, "/_calls", &[]).await.body()).expect("JSON");
    assert_eq!(calls["list"], pages + 1 + 4);
    assert_eq!((calls["get"].as_u64(), calls["other"].as_u64()), (Some(1), Some(2)));
}

#[tokio::test]
async fn keys_of_any_kind_survive_a_listing() {
    let store = start(Registry::default()).await;
    assert_eq!(put(store, "a%26%3Cb%3E", &[], "").await, 200);
    let page = get(store, "/registry/?list-type=2", &[]).await;
    assert_eq!(elements(text(&page), "Key"), ["a&amp;&lt;b&gt;"]);
}
