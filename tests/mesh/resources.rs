//! What Istio and Envoy Gateway give an Envoy, a bootstrap of it, and whether an Envoy serves with that.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::image::Layout;
use moorage_test_support::process::try_run;
use moorage_test_support::{client, skopeo};

const MANAGER: &str = "envoy.filters.network.http_connection_manager";

/// A file of `deploy/`.
pub fn deploy(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
    fs::read_to_string(path).expect("the file is there")
}

/// A text with pieces of it replaced, each of which must be there.
pub fn replaced(text: &str, pieces: &[(&str, &str)]) -> String {
    pieces.iter().fold(text.to_owned(), |text, (piece, by)| {
        assert!(text.contains(piece), "{piece:?} is not in the text");
        text.replace(piece, by)
    })
}

/// The lists that a program of `tests/mesh-config` prints.
pub struct Resources {
    pub lists: Value,
    /// The folder in which Istio's agent keeps modules.
    pub folder: TempDir,
}

impl Resources {
    /// What Istio makes of a text of YAML documents.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub async fn of_istio(istio_config: &Path, text: &str) -> Result<Self, String> {
        let folder = TempDir::new().expect("a temporary folder");
        let mut command = Command::new(istio_config);
        command.arg(folder.path());
        Self::printed(command, folder, text).await
    }

    /// What Envoy Gateway makes of it.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub async fn of_envoy_gateway(config: &Path, text: &str) -> Result<Self, String> {
        let folder = TempDir::new().expect("a temporary folder");
        Self::printed(Command::new(config), folder, text).await
    }

    async fn printed(mut command: Command, folder: TempDir, text: &str) -> Result<Self, String> {
        let file = folder.path().join("resources.yaml");
        fs::write(&file, text).expect("a file");
        let printed = try_run(command.arg(&file)).await?;
        // Istio logs to standard output as well.
        let printed = String::from_utf8(printed).expect("text");
        let printed = printed.lines().find(|line| line.starts_with('{')).expect("an object");
        let lists = serde_json::from_str(printed).expect("JSON");
        Ok(Self { lists, folder })
    }

    /// The item of a list that has a name.
    pub fn named(&self, list: &str, name: &str) -> &Value {
        let items = self.lists[list].as_array().unwrap_or_else(|| panic!("no {list}"));
        let found = items.iter().find(|item| item["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in the {list}: {}", self.lists))
    }

    /// A bootstrap of all of it. It serves in plain HTTP on ports that Envoy chooses.
    ///
    /// What comes from a control plane is in it, or in files. What Istio's own filters do, which no other Envoy has, is
    /// left out.
    pub fn bootstrap(&self) -> Bootstrap {
        let mut listeners = self.lists["listeners"].clone();
        for listener in listeners.as_array_mut().expect("listeners") {
            self.settle(listener);
        }
        let bootstrap = json!({
            // Envoy discovers nothing without a name of its own.
            "node": { "id": "gateway", "cluster": "gateway" },
            "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
            "static_resources": { "listeners": listeners, "clusters": self.lists["clusters"] },
        });
        Bootstrap::of_text(bootstrap.to_string())
    }

    fn settle(&self, listener: &mut Value) {
        listener["address"] =
            json!({ "socket_address": { "address": "127.0.0.1", "port_value": 0 } });
        remove(listener, &["listener_filters", "traffic_direction", "bind_to_port"]);
        let mut chains: Vec<&mut Value> = Vec::new();
        let listener = listener.as_object_mut().expect("an object");
        for (name, value) in listener {
            match name.as_str() {
                "filter_chains" => chains.extend(value.as_array_mut().expect("a list")),
                "default_filter_chain" => chains.push(value),
                _ => {}
            }
        }
        for chain in chains {
            remove(chain, &["transport_socket", "filter_chain_match"]);
            let filters = chain["filters"].as_array_mut().expect("filters");
            filters.retain(is_envoys);
            for filter in filters.iter_mut().filter(|filter| filter["name"] == MANAGER) {
                self.settle_manager(&mut filter["typed_config"]);
            }
        }
    }

    fn settle_manager(&self, manager: &mut Value) {
        if let Some(name) = manager["rds"]["route_config_name"].as_str() {
            manager["route_config"] = self.named("routes", name).clone();
            remove(manager, &["rds"]);
        }
        let filters = manager["http_filters"].as_array_mut().expect("HTTP filters");
        filters.retain(is_envoys);
        for filter in filters.iter_mut().filter(|filter| filter.get("config_discovery").is_some()) {
            let name = filter["name"].as_str().expect("a name").to_owned();
            filter["config_discovery"]["config_source"] = json!({
                "path_config_source": { "path": self.extension_file(&name) },
                "resource_api_version": "V3",
            });
        }
    }

    /// A file by which Envoy discovers an extension.
    fn extension_file(&self, name: &str) -> PathBuf {
        let mut extension = self.named("extensions", name).clone();
        extension["@type"] = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig".into();
        let response = json!({ "version_info": "1", "resources": [extension] });
        let file = self.folder.path().join(format!("{name}.json"));
        fs::write(&file, response.to_string()).expect("a file");
        file
    }
}

fn remove(value: &mut Value, fields: &[&str]) {
    let fields_there = value.as_object_mut().expect("an object");
    for field in fields {
        fields_there.remove(*field);
    }
}

/// Whether every Envoy has a filter, not Istio's alone.
fn is_envoys(filter: &Value) -> bool {
    let kind = filter["typed_config"]["@type"].as_str().unwrap_or_default();
    kind.is_empty() || kind.contains("/envoy.")
}

/// How the store is named in the files.
pub fn at(store: SocketAddr) -> (String, String) {
    (store.to_string(), format!("address: {}, port_value: {}", store.ip(), store.port()))
}

/// Pushes images with and without blobs in chunks, and pulls them.
pub async fn serves(envoy: &Envoy) {
    let (image, index) = (Layout::image().await, Layout::index().await);
    for (name, layout) in [("an/image", image), ("an/index", index)] {
        let reference = format!("{name}:1");
        skopeo::push(layout.path(), skopeo::AS_IT_IS, envoy.address, &reference).await;
        let pulled = skopeo::pull_layout(envoy.address, &reference).await;
        assert_eq!(pulled.blobs(), layout.blobs(), "{name}");
    }
    let missing = client::get(envoy.address, "/v2/an/image/manifests/none", &[]).await;
    assert_eq!(client::error_of(&missing), (404, "MANIFEST_UNKNOWN".to_owned()));
    // Only what Moorage has rewritten to the bucket's object gets there.
    let object = "/registry/docker/registry/v2/blobs/sha256/00/00/data";
    assert_eq!(client::get(envoy.address, object, &[]).await.status(), 404);
}
