//! Events reach a real receiver, whatever it does meanwhile, and no client waits for it.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use moorage::oci::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

use moorage_test_support::accounts::{self, DEPLOY};
use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::image::Layout;
use moorage_test_support::process::{optional_tool, run, wait_for};
use moorage_test_support::receiver::{Answer, Receiver};
use moorage_test_support::{client, crane, digest_of};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A registry on a store in a folder.
struct Registry {
    envoy: Envoy,
    _store: BlobStore,
    _root: TempDir,
}

/// One that tells a receiver of what happens; the endpoint has these further fields.
async fn registry(receiver: SocketAddr, fields: &str) -> Registry {
    registry_with(receiver, fields, |bootstrap| bootstrap).await
}

async fn registry_with(
    receiver: SocketAddr,
    fields: &str,
    change: impl FnOnce(Bootstrap) -> Bootstrap,
) -> Registry {
    let root = TempDir::new().expect("a temporary folder");
    let store = BlobStore::open(root.path()).await;
    let bootstrap = Bootstrap::new(store.address).with_events(receiver, fields);
    let envoy = Envoy::start(&change(bootstrap)).await;
    Registry { envoy, _store: store, _root: root }
}

/// A manifest that refers to nothing; `note` makes it different from others.
fn index(note: &str) -> String {
    let annotations = json!({ "note": note });
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": annotations })
        .to_string()
}

impl Registry {
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> u16 {
        let response = client::send_body(self.envoy.address, method, path, headers, body).await;
        response.status().as_u16()
    }

    async fn put(&self, reference: &str, note: &str) -> Digest {
        let (path, manifest) = (format!("/v2/a/manifests/{reference}"), index(note));
        let digest = digest_of(&manifest);
        assert_eq!(self.send(Method::PUT, &path, &[], manifest).await, 201);
        digest
    }
}

/// What an event tells, in short.
fn told(event: &Value) -> String {
    let target = &event["target"];
    let what = target["tag"].as_str().or(target["digest"].as_str()).unwrap_or_default();
    let (action, repository) = (event["action"].as_str(), target["repository"].as_str());
    format!("{} {} {what}", action.unwrap_or_default(), repository.unwrap_or_default())
}

fn all_told(events: &[Value]) -> Vec<String> {
    events.iter().map(told).collect()
}

/// Pushes a blob and two manifests, mounts the blob, pulls, and deletes all; gives the blob's digest and the second
/// manifest's.
async fn do_everything(registry: &Registry) -> (Digest, Digest) {
    let blob = digest_of("a blob");
    let upload = format!("/v2/a/blobs/uploads/?digest={blob}");
    assert_eq!(registry.send(Method::POST, &upload, &[], "a blob".to_owned()).await, 201);
    registry.put("t", "first").await;
    let second = registry.put("t", "second").await;
    let mount = format!("/v2/b/blobs/uploads/?mount={blob}&from=a");
    assert_eq!(registry.send(Method::POST, &mount, &[], String::new()).await, 201);
    for (method, status) in [(Method::GET, 200), (Method::HEAD, 200)] {
        let pulled = registry.send(method, "/v2/a/manifests/t", &[], String::new()).await;
        assert_eq!(pulled, status);
    }
    for path in ["manifests/t".to_owned(), format!("manifests/{second}"), format!("blobs/{blob}")] {
        let path = format!("/v2/a/{path}");
        assert_eq!(registry.send(Method::DELETE, &path, &[], String::new()).await, 202);
    }
    (blob, second)
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_receiver_is_told_of_all_that_happens_but_pulls() {
    let receiver = Receiver::start(|_| Answer::Status(200)).await;
    let fields = r#", "headers": { "Authorization": "Bearer of-events" }"#;
    let registry = registry(receiver.address, fields).await;
    let (blob, second) = do_everything(&registry).await;
    let events = receiver.take(8).await;
    let expected = [
        format!("push a {blob}"),
        "push a t".to_owned(),
        "push a t".to_owned(),
        "tag_moved a t".to_owned(),
        format!("mount b {blob}"),
        "delete a t".to_owned(),
        format!("delete a {second}"),
        format!("delete a {blob}"),
    ];
    assert_eq!(all_told(&events), expected);
    let moved = &events[3]["target"];
    assert_eq!(moved["digest"], second.as_str());
    assert_eq!(moved["previousDigest"], digest_of(&index("first")).as_str());
    assert_eq!(
        (&moved["size"], &moved["mediaType"]),
        (&index("second").len().into(), &INDEX.into())
    );
    assert_eq!(moved["url"], format!("http://registry/v2/a/manifests/{second}"));
    assert_eq!(events[4]["target"]["fromRepository"], "a");
    let request = &events[0]["request"];
    assert_eq!((&request["host"], &request["method"]), (&"registry".into(), &"POST".into()));
    let address = request["addr"].as_str().expect("an address");
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let delivery = receiver.deliveries().remove(0);
    assert_eq!(delivery.target, "POST /hooks?x=y");
    for (name, value) in [
        ("host", "events.example.org"),
        ("authorization", "Bearer of-events"),
        ("content-type", "application/vnd.docker.distribution.events.v1+json"),
    ] {
        assert_eq!(delivery.headers[name], value);
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn cloud_events_tell_the_same() {
    let receiver = Receiver::start(|_| Answer::Status(204)).await;
    let fields =
        r#", "format": "cloudevents", "actions": ["push", "pull", "mount", "delete", "tag_moved"]"#;
    let registry = registry(receiver.address, fields).await;
    do_everything(&registry).await;
    let events = receiver.take(9).await;
    let types: Vec<_> =
        events.iter().map(|event| event["type"].as_str().expect("a type")).collect();
    let expected = [
        "blob.push",
        "manifest.push",
        "manifest.push",
        "tag.moved",
        "blob.mount",
        "manifest.pull",
        "tag.delete",
        "manifest.delete",
        "blob.delete",
    ];
    assert_eq!(types, expected.map(|name| format!("io.moorage.registry.{name}")));
    assert_eq!(
        (&events[1]["subject"], &events[1]["source"]),
        (&"a:t".into(), &"registry-1".into())
    );
    let delivery = receiver.deliveries().remove(0);
    assert_eq!(delivery.headers["content-type"], "application/cloudevents-batch+json");
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn what_happens_while_a_receiver_is_away_is_told_when_it_is_back() {
    let address = Receiver::nowhere().await;
    let registry = registry(address, r#", "timeout": "1s""#).await;
    registry.put("t", "first").await;
    let is_away = async || registry.envoy.log().contains("its events are kept").then_some(());
    wait_for("a line of the log", is_away).await;
    registry.put("u", "second").await;
    // Hangs first, then has faults.
    let receiver = Receiver::start_at(address, |before| match before {
        0 => Answer::Hang,
        1 => Answer::Status(500),
        2 => Answer::Status(429),
        _ => Answer::Status(200),
    });
    let receiver = receiver.await;
    let events = receiver.take(2).await;
    assert_eq!(all_told(&events), ["push a t", "push a u"]);
    assert_eq!(receiver.deliveries().len(), 4, "nothing is sent twice that was taken");
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn what_a_receiver_refuses_is_not_sent_again() {
    let receiver = Receiver::start(|before| match before {
        0 => Answer::Status(400),
        _ => Answer::Status(200),
    });
    let receiver = receiver.await;
    let registry = registry(receiver.address, "").await;
    registry.put("t", "first").await;
    receiver.asked(1).await;
    registry.put("u", "second").await;
    assert_eq!(all_told(&receiver.take(1).await), ["push a u"]);
    let is_told = async || registry.envoy.log().contains("1 events for").then_some(());
    wait_for("a line of the log", is_told).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn no_client_waits_for_a_receiver_that_hangs() {
    let receiver = Receiver::start(|_| Answer::Hang).await;
    let registry = registry(receiver.address, r#", "timeout": "60s""#).await;
    registry.put("t", "first").await;
    receiver.asked(1).await;
    let everything = async {
        for number in 0..50 {
            registry.put("t", &number.to_string()).await;
        }
        do_everything(&registry).await;
    };
    // Far less than the request to the receiver may take.
    let done = tokio::time::timeout(Duration::from_secs(50), everything).await;
    assert!(done.is_ok(), "clients wait");
    assert_eq!(receiver.deliveries().len(), 1);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn the_actor_is_who_was_verified() {
    let receiver = Receiver::start(|_| Answer::Status(200)).await;
    let access = accounts::access().await;
    let registry = registry_with(receiver.address, "", |bootstrap| bootstrap.with_access(&access));
    let registry = registry.await;
    let credentials = format!("{}:{}", DEPLOY.name, DEPLOY.password);
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, credentials);
    let headers = [("authorization", format!("Basic {basic}"))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let path = "/v2/a/manifests/t";
    assert_eq!(registry.send(Method::PUT, path, &[], index("x")).await, 401);
    assert_eq!(registry.send(Method::PUT, path, &headers, index("x")).await, 201);
    let events = receiver.take(1).await;
    assert_eq!(events[0]["actor"]["name"], "user:deploy");
    assert_eq!(events.len(), 1);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn crane_pushes_copies_and_deletes() {
    let Some(program) = optional_tool("MOORAGE_CRANE") else {
        return;
    };
    let receiver = Receiver::start(|_| Answer::Status(200)).await;
    let registry = registry(receiver.address, r#", "repositories": ["apps/**"]"#).await;
    let server = registry.envoy.address;
    let layout = Layout::image().await;
    crane::push(&program, layout.path(), server, "apps/web:1").await;
    crane::push(&program, layout.path(), server, "other/web:1").await;
    run(&mut crane::copy_command(&program, server, "apps/web:1", "apps/copy:1")).await;
    crane::delete(&program, server, "apps/web:1").await;
    // Each image has a configuration and two layers.
    let events = receiver.take(9).await;
    let mut told: Vec<_> =
        events.iter().map(|event| (&event["action"], &event["target"]["repository"])).collect();
    told.sort_by_key(|(action, repository)| (action.to_string(), repository.to_string()));
    let (push, mount, delete) = (json!("push"), json!("mount"), json!("delete"));
    let (web, copy) = (json!("apps/web"), json!("apps/copy"));
    let expected = [
        (&delete, &web),
        (&mount, &copy),
        (&mount, &copy),
        (&mount, &copy),
        (&push, &copy),
        (&push, &web),
        (&push, &web),
        (&push, &web),
        (&push, &web),
    ];
    assert_eq!(told, expected);
    let agent = events[0]["request"]["useragent"].as_str().expect("a text");
    assert!(agent.contains("crane"), "{agent}");
}
