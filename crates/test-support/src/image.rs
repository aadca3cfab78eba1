//! Images to push, as OCI layouts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use moorage::oci::{Algorithm, Digest};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::process::run;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The type of a signature by cosign.
pub const SIGNATURE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// An OCI layout in a temporary folder, with one image under the name `image`.
pub struct Layout {
    folder: TempDir,
}

impl Layout {
    /// An empty folder, for a client to pull into.
    pub fn to_be_pulled() -> Self {
        Self { folder: TempDir::new().expect("a temporary folder") }
    }

    /// An image of two layers for one platform.
    pub async fn image() -> Self {
        Self::image_of(["base", "amd64"]).await
    }

    /// The same, with a file of this name in each layer.
    pub async fn image_of(layers: [&str; 2]) -> Self {
        let layout = Self::empty();
        let manifest = layout.image_manifest("amd64", layers).await;
        layout.name(MANIFEST, &manifest);
        layout
    }

    /// An index of images for several platforms.
    pub async fn index() -> Self {
        let layout = Self::empty();
        let mut manifests = Vec::new();
        for architecture in ["amd64", "arm64", "riscv64"] {
            let manifest = layout.image_manifest(architecture, ["base", architecture]).await;
            let mut descriptor = layout.add(MANIFEST, &manifest);
            descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
            manifests.push(descriptor);
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        layout.name(INDEX, index.to_string().as_bytes());
        layout
    }

    /// An artifact: no image's configuration, and no `mediaType` in its manifest.
    pub fn artifact() -> Self {
        let layout = Self::empty();
        let config = layout.add("application/vnd.example.config.v1+json", b"{}");
        let layer = layout.add("application/vnd.example.data", b"an artifact's content");
        let manifest = json!({
            "schemaVersion": 2,
            "config": config,
            "layers": [layer],
            "annotations": { "org.example.note": "not an image" },
        });
        layout.name(MANIFEST, manifest.to_string().as_bytes());
        layout
    }

    /// An artifact of one blob with this content.
    pub fn artifact_of(content: &[u8]) -> Self {
        let layout = Self::empty();
        let config = layout.add("application/vnd.oci.empty.v1+json", b"{}");
        let layer = layout.add("application/vnd.example.data", content);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": "application/vnd.example.data",
            "config": config,
            "layers": [layer],
        });
        layout.name(MANIFEST, manifest.to_string().as_bytes());
        layout
    }

    /// A chart as helm pushes it.
    pub async fn chart() -> Self {
        let layout = Self::empty();
        // JSON is YAML as well.
        let about = json!({ "name": "web", "version": "1.2.3", "apiVersion": "v2" }).to_string();
        let config = layout.add("application/vnd.cncf.helm.config.v1+json", about.as_bytes());
        let chart = gzip(&tar("web/Chart.yaml", &about).await).await;
        let chart = layout.add("application/vnd.cncf.helm.chart.content.v1.tar+gzip", &chart);
        let manifest = json!({
            "schemaVersion": 2,
            "config": config,
            "layers": [chart],
            "annotations": { "org.opencontainers.image.title": "web" },
        });
        layout.name(MANIFEST, manifest.to_string().as_bytes());
        layout
    }

    /// A signature of another layout's image, as cosign makes it: an artifact with a subject.
    pub fn signature(subject: &Layout) -> Self {
        let subject = subject.descriptor();
        let payload =
            json!({ "critical": { "image": { "docker-manifest-digest": subject["digest"] } } });
        let layout = Self::empty();
        let config = layout.add("application/vnd.oci.image.config.v1+json", b"{}");
        let media_type = "application/vnd.dev.cosign.simplesigning.v1+json";
        let mut layer = layout.add(media_type, payload.to_string().as_bytes());
        layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": "MEUCIQ==" });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": SIGNATURE,
            "config": config,
            "layers": [layer],
            "subject": subject,
            "annotations": { "org.example.signed-by": "tests" },
        });
        layout.name(MANIFEST, manifest.to_string().as_bytes());
        layout
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The descriptor of the image, without annotations.
    pub fn descriptor(&self) -> Value {
        let index = fs::read(self.path().join("index.json")).expect("a layout has an index");
        let index: Value = serde_json::from_slice(&index).expect("JSON");
        let image = &index["manifests"][0];
        json!({ "mediaType": image["mediaType"], "digest": image["digest"], "size": image["size"] })
    }

    /// The digest of the image.
    pub fn digest(&self) -> Digest {
        let descriptor = self.descriptor();
        descriptor["digest"].as_str().and_then(|text| text.parse().ok()).expect("a digest")
    }

    /// The digest of the image's configuration, if the image is for one platform.
    pub fn config_digest(&self) -> Digest {
        let path = self.path().join("blobs/sha256").join(self.digest().hex());
        let manifest: Value =
            serde_json::from_slice(&fs::read(path).expect("a manifest")).expect("JSON");
        let digest = manifest["config"]["digest"].as_str();
        digest.and_then(|text| text.parse().ok()).expect("a digest")
    }

    /// Every manifest and blob, by the name of its file: the digest's hex digits.
    pub fn blobs(&self) -> BTreeMap<String, Vec<u8>> {
        files(&self.path().join("blobs/sha256"))
    }

    fn empty() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        fs::create_dir_all(folder.path().join("blobs/sha256")).expect("a folder");
        let version = json!({ "imageLayoutVersion": "1.0.0" });
        fs::write(folder.path().join("oci-layout"), version.to_string()).expect("a file");
        Self { folder }
    }

    async fn image_manifest(&self, architecture: &str, files: [&str; 2]) -> Vec<u8> {
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        for name in files {
            let tar = tar(name, &format!("the file {name}\n")).await;
            diff_ids.push(Digest::of(Algorithm::Sha256, &tar).to_string());
            let gzipped = gzip(&tar).await;
            layers.push(self.add("application/vnd.oci.image.layer.v1.tar+gzip", &gzipped));
        }
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": [{ "created_by": "first" }, { "created_by": "second" }],
        });
        let config = config.to_string();
        let config = self.add("application/vnd.oci.image.config.v1+json", config.as_bytes());
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
        manifest.to_string().into_bytes()
    }

    /// Adds a blob and gives its descriptor.
    fn add(&self, media_type: &str, content: &[u8]) -> Value {
        let digest = Digest::of(Algorithm::Sha256, content);
        let path = self.folder.path().join("blobs/sha256").join(digest.hex());
        fs::write(path, content).expect("a file");
        json!({ "mediaType": media_type, "digest": digest.as_str(), "size": content.len() })
    }

    /// Adds a manifest as the image of the layout.
    fn name(&self, media_type: &str, manifest: &[u8]) {
        let mut descriptor = self.add(media_type, manifest);
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": "image" });
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        fs::write(self.folder.path().join("index.json"), index.to_string()).expect("a file");
    }
}

/// The files in a folder, by their names.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let file = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, fs::read(path).expect("a file"))
    };
    entries.map(file).collect()
}

/// A tar archive of one file.
async fn tar(name: &str, content: &str) -> Vec<u8> {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join(name);
    fs::create_dir_all(file.parent().expect("a file is in a folder")).expect("a folder");
    fs::write(file, content).expect("a file");
    let mut command = Command::new("tar");
    command
        .args(["--create", "--mtime=@0", "--owner=0", "--group=0", "--file=-", "--directory"])
        .arg(folder.path())
        .arg(name);
    run(&mut command).await
}

async fn gzip(content: &[u8]) -> Vec<u8> {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("content");
    fs::write(&file, content).expect("a file");
    let input = fs::File::open(file).expect("the file is there");
    run(Command::new("gzip").arg("--no-name").stdin(Stdio::from(input))).await
}
