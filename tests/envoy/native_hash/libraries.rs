//! Libraries that do not fit Envoy, and one that takes the place of another while Envoy runs.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::channel::mpsc;
use http::Method;
use hyper::body::Frame;
use serde_json::{Value, json};
use tempfile::TempDir;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client::{self, location};
use moorage_test_support::digest_of;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::process::wait_for;

use super::{Registry, SIZE, bootstrap, content, library, streamed};

/// The library with one text in it replaced by another one of the same length.
fn changed_library(folder: &TempDir, text: &str, replacement: &str) -> PathBuf {
    assert_eq!(text.len(), replacement.len());
    let mut bytes = fs::read(library()).expect("the library is there");
    let mut is_there = false;
    for at in 0..bytes.len() - text.len() {
        if bytes[at..].starts_with(text.as_bytes()) {
            bytes[at..at + text.len()].copy_from_slice(replacement.as_bytes());
            is_there = true;
        }
    }
    assert!(is_there, "{text:?} is not in the library");
    let path = folder.path().join("changed.so");
    fs::write(&path, bytes).expect("it is written");
    path
}

/// Envoy only warns of another version of the interface. docs/native-hash.md says so.
#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn of_a_library_for_another_version_of_the_interface_envoy_warns() {
    let folder = TempDir::new().expect("a temporary folder");
    let registry = Registry::with(&changed_library(&folder, "v0.2.0\0", "v0.9.9\0"), |it| it).await;
    let log = registry.envoy.log();
    assert!(log.contains("ABI version v0.9.9 is deprecated"), "{log}");
    let session = registry.begin("a").await;
    let content = content(SIZE, 50);
    let next = location(&registry.append(&session, &content).await);
    assert_eq!(registry.close(&next, &digest_of(&content)).await.status(), 201);
    registry.expect_hashes(1).await;

    let registry = Registry::start().await;
    assert!(!registry.envoy.log().contains("ABI version"), "{}", registry.envoy.log());
}

/// As an Envoy refuses that has not all that the library calls, or calls what the library has not.
#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn envoy_does_not_start_with_a_library_that_does_not_fit() {
    let root = TempDir::new().expect("a temporary folder");
    let store = BlobStore::open(root.path()).await;
    let folder = TempDir::new().expect("a temporary folder");
    let rows = [
        ("callback_http_has_filter_state", "callback_http_has_filter_stats", "undefined symbol"),
        ("on_http_filter_scheduled", "on_http_filter_schedulex", "scheduled"),
    ];
    for (text, replacement, complaint) in rows {
        let library = changed_library(&folder, text, replacement);
        let output = bootstrap(&store, &library).validate().await;
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && log.contains(complaint), "{text}: {log}");
        fs::remove_file(library).expect("it is there");
    }
    let output =
        bootstrap(&store, Path::new("/nowhere/libmoorage_native_hash.so")).validate().await;
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && log.contains("cannot open shared object"), "{log}");
    assert!(bootstrap(&store, &library()).validate().await.status.success());
}

/// A listener that is replaced while Envoy runs (LDS).
struct Listener {
    fields: Value,
    folder: TempDir,
}

impl Listener {
    async fn start(store: &BlobStore, library: &Path) -> (Self, Envoy) {
        let folder = TempDir::new().expect("a temporary folder");
        let file = folder.path().join("bootstrap.yaml");
        bootstrap(store, library).write_to(&file);
        let text = fs::read_to_string(&file).expect("text");
        let mut whole: Value = serde_saphyr::from_str(&text).expect("YAML");
        let fields = whole["static_resources"]["listeners"][0].take();
        whole["static_resources"]["listeners"] = json!([]);
        let path = folder.path().join("listener.json").display().to_string();
        whole["node"] = json!({ "id": "test", "cluster": "test" });
        whole["dynamic_resources"] =
            json!({ "lds_config": { "path_config_source": { "path": path } } });
        Self::write(&folder, &fields);
        let envoy = Envoy::start(&Bootstrap::of_text(whole.to_string())).await;
        (Self { fields, folder }, envoy)
    }

    fn write(folder: &TempDir, fields: &Value) {
        let mut listener = fields.clone();
        listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
        let new = folder.path().join("new.json");
        fs::write(&new, json!({ "resources": [listener] }).to_string()).expect("it is written");
        fs::rename(new, folder.path().join("listener.json")).expect("it is moved");
    }

    /// Has Envoy serve with another library, and waits until it does.
    async fn change_library(&mut self, envoy: &Envoy, library: &Path) {
        let text = self.fields.to_string();
        let filters = "/filter_chains/0/filters/0/typed_config/http_filters";
        let filters = self.fields.pointer_mut(filters).and_then(Value::as_array_mut);
        let mut filters = filters.expect("filters").iter_mut();
        let hasher = filters.find(|filter| filter["name"] == "native_hash").expect("the hasher");
        let file = "/typed_config/dynamic_module_config/module/local/filename";
        *hasher.pointer_mut(file).expect("its file") = json!(library.display().to_string());
        assert_ne!(self.fields.to_string(), text, "something changes");
        Self::write(&self.folder, &self.fields);
        wait_for("the new listener", async || {
            (envoy.stat("listener_manager.listener_modified").await == 1).then_some(())
        })
        .await;
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn an_upload_goes_on_while_envoy_gets_another_library() {
    let root = TempDir::new().expect("a temporary folder");
    let store = BlobStore::open(root.path()).await;
    let folder = TempDir::new().expect("a temporary folder");
    let old = folder.path().join("old.so");
    let new = folder.path().join("new.so");
    fs::copy(library(), &old).expect("it is copied");
    fs::copy(library(), &new).expect("it is copied");
    let (mut listener, envoy) = Listener::start(&store, &old).await;
    let registry = Registry { envoy, root, _store: store };
    let content = content(SIZE, 60);
    let session = registry.begin("a").await;
    let (frames, receiver) = mpsc::unbounded();
    let mut sender = client::connect(registry.envoy.address).await.expect("a connection");
    let request = streamed(Method::PATCH, &session, receiver);
    let answer = tokio::spawn(async move { sender.send_request(request).await });
    frames.unbounded_send(Frame::data(content.slice(..SIZE / 2))).expect("a receiver");
    wait_for("the body to begin", async || {
        (registry.envoy.stat("cluster.blob_store.upstream_rq_active").await > 0).then_some(())
    })
    .await;

    listener.change_library(&registry.envoy, &new).await;
    fs::remove_file(&old).expect("it is there");
    frames.unbounded_send(Frame::data(content.slice(SIZE / 2..))).expect("a receiver");
    drop(frames);
    let answer = answer.await.expect("no panic").expect("an answer");
    let next = location(&answer.map(|_| Bytes::new()));
    assert_eq!(registry.close(&next, &digest_of(&content)).await.status(), 201);
    let session = registry.begin("b").await;
    let next = location(&registry.append(&session, &content).await);
    assert_eq!(registry.close(&next, &digest_of(&content)).await.status(), 201);
    registry.expect_hashes(2).await;
}
