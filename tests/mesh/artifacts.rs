//! The module as OCI layouts: registries and clients take them for what they are.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use moorage::oci::Digest;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::cosign::{Cosign, Form};
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::image::files;
use moorage_test_support::process::{optional_tool, run, tool};
use moorage_test_support::{crane, oras};

/// What `scripts/oci_layout.py` makes.
const FORMS: [&str; 2] = ["image", "artifact"];

/// The name that the layouts give to what they hold.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A layout of a module, in a folder that goes with it.
pub struct ModuleLayout {
    folder: TempDir,
}

impl ModuleLayout {
    /// The module that the tests run.
    pub async fn of(form: &str) -> Self {
        Self::made_of(form, &tool("MOORAGE_WASM")).await
    }

    async fn made_of(form: &str, module: &Path) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/oci_layout.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(form).arg(module).arg(folder.path().join("layout"));
        run(&mut command).await;
        Self { folder }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("layout")
    }

    fn blobs(&self) -> BTreeMap<String, Vec<u8>> {
        files(&self.path().join("blobs/sha256"))
    }

    /// A blob that is JSON.
    fn json(&self, digest: &str) -> Value {
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        serde_json::from_slice(&self.blobs()[hex]).expect("JSON")
    }

    /// The digest of what it names.
    fn digest(&self) -> Digest {
        let index = fs::read(self.path().join("index.json")).expect("a layout has an index");
        let index: Value = serde_json::from_slice(&index).expect("JSON");
        let digest = index["manifests"][0]["digest"].as_str();
        digest.and_then(|text| text.parse().ok()).expect("a digest")
    }
}

async fn registry(root: &TempDir) -> (BlobStore, Envoy) {
    let store = BlobStore::open(root.path()).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    (store, envoy)
}

#[tokio::test]
#[ignore = "needs the module: run ./build.sh test"]
async fn the_same_module_gives_the_same_layout_whenever_and_wherever_it_lies() {
    let elsewhere = TempDir::new().expect("a temporary folder");
    let copy = elsewhere.path().join("another name.wasm");
    fs::write(&copy, fs::read(tool("MOORAGE_WASM")).expect("the module")).expect("a copy");
    for form in FORMS {
        let (one, other) = (ModuleLayout::of(form).await, ModuleLayout::made_of(form, &copy).await);
        assert_eq!(one.digest(), other.digest(), "{form}");
        assert_eq!(one.blobs(), other.blobs(), "{form}");
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn both_forms_come_back_from_the_registry_byte_for_byte() {
    let root = TempDir::new().expect("a temporary folder");
    let (_store, envoy) = registry(&root).await;
    for form in FORMS {
        let layout = ModuleLayout::of(form).await;
        if let Some(program) = optional_tool("MOORAGE_CRANE") {
            let reference = format!("crane/{form}:{VERSION}");
            crane::push(&program, &layout.path(), envoy.address, &reference).await;
            let pulled = crane::pull(&program, envoy.address, &reference).await;
            assert_eq!(pulled.digest(), layout.digest(), "{form}");
            assert_eq!(pulled.blobs(), layout.blobs(), "{form}");
        }
        if let Some(program) = optional_tool("MOORAGE_ORAS") {
            let reference = format!("oras/{form}:{VERSION}");
            oras::push_named(&program, &layout.path(), VERSION, envoy.address, &reference).await;
            let pulled = oras::pull(&program, envoy.address, &reference).await;
            assert_eq!(pulled.digest(), layout.digest(), "{form}");
            assert_eq!(pulled.blobs(), layout.blobs(), "{form}");
        }
    }
}

#[tokio::test]
#[ignore = "needs the module: run ./build.sh test"]
async fn each_platform_of_the_image_has_the_module_as_plugin_wasm() {
    let layout = ModuleLayout::of("image").await;
    let index = layout.json(&layout.digest().to_string());
    let manifests = index["manifests"].as_array().expect("manifests");
    assert_eq!(manifests.len(), 2);
    for descriptor in manifests {
        let manifest = layout.json(descriptor["digest"].as_str().expect("a digest"));
        let config = layout.json(manifest["config"]["digest"].as_str().expect("a digest"));
        let platform = &descriptor["platform"];
        assert_eq!(
            (&config["architecture"], &config["os"]),
            (&platform["architecture"], &platform["os"])
        );
        let layers = manifest["layers"].as_array().expect("layers");
        assert_eq!(layers.len(), 1);
        assert_eq!(layers[0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
        let layer = layers[0]["digest"].as_str().and_then(|text| text.strip_prefix("sha256:"));
        let layer = layout.path().join("blobs/sha256").join(layer.expect("a digest"));
        let content = run(Command::new("tar").arg("xzOf").arg(layer).arg("plugin.wasm")).await;
        assert_eq!(content, fs::read(tool("MOORAGE_WASM")).expect("the module"));
    }
}

#[tokio::test]
#[ignore = "needs the module: run ./build.sh test"]
async fn the_artifact_is_what_cncf_has_written_down() {
    let layout = ModuleLayout::of("artifact").await;
    let manifest = layout.json(&layout.digest().to_string());
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    let layers = manifest["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 1);
    assert_eq!(layers[0]["mediaType"], "application/wasm");
    let config = layout.json(manifest["config"]["digest"].as_str().expect("a digest"));
    assert_eq!(config["architecture"], "wasm");
    assert_eq!(config["layerDigests"][0], layers[0]["digest"]);
    let hex = layers[0]["digest"].as_str().and_then(|text| text.strip_prefix("sha256:"));
    let module = fs::read(tool("MOORAGE_WASM")).expect("the module");
    assert_eq!(layout.blobs()[hex.expect("a digest")], module);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn the_image_is_signed_and_verified_by_cosign() {
    let (Some(cosign), Some(crane)) =
        (optional_tool("MOORAGE_COSIGN"), optional_tool("MOORAGE_CRANE"))
    else {
        return;
    };
    let root = TempDir::new().expect("a temporary folder");
    let (_store, envoy) = registry(&root).await;
    let (signer, other) = (Cosign::new(cosign.clone()).await, Cosign::new(cosign).await);
    for form in FORMS {
        let layout = ModuleLayout::of(form).await;
        push(&crane, &layout, envoy.address, &format!("{form}:{VERSION}")).await;
        let image = format!("{form}@{}", layout.digest());
        signer.sign(envoy.address, &image, Form::Referrer).await;
        assert!(signer.verifies(envoy.address, &image, Form::Referrer).await, "{form}");
        assert!(!other.verifies(envoy.address, &image, Form::Referrer).await, "{form}");
    }
}

/// Pushes a layout of the module.
pub async fn push(crane: &Path, layout: &ModuleLayout, registry: SocketAddr, reference: &str) {
    crane::push(crane, &layout.path(), registry, reference).await;
}
