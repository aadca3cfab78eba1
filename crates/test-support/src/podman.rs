//! `podman`, and `buildah`, which takes the same options: clients that keep images unpacked, in a
//! storage of their own, and pack their layers anew when they push.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::process::{note, output, run};

/// The images of one user. They go when this is dropped.
pub struct Podman {
    program: PathBuf,
    folder: TempDir,
    /// Whether its storage takes parts of layers.
    takes_parts: bool,
}

impl Podman {
    /// No images yet. `program` is podman, or buildah.
    pub fn new(program: PathBuf) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        Self { program, folder, takes_parts: false }
    }

    /// No images yet, in a storage that takes of a layer in the format `zstd:chunked` only the files that it
    /// has not got. `None`, and a line that says so, where podman can't have one.
    pub async fn taking_parts(program: PathBuf) -> Option<Self> {
        let podman = Self { takes_parts: true, ..Self::new(program) };
        let folder = podman.folder.path().display();
        let configuration = format!(
            "[storage]\n\
             driver = \"overlay\"\n\
             graphroot = \"{folder}/root\"\n\
             runroot = \"{folder}/run\"\n\
             [storage.options]\n\
             pull_options = {{ enable_partial_images = \"true\" }}\n"
        );
        fs::write(podman.configuration(), configuration).expect("a file");
        let trial = output(&mut podman.command(&["images"])).await;
        if !trial.status.success() {
            let complaint = String::from_utf8_lossy(&trial.stderr);
            note(&format!("left out: podman has no overlay storage here: {complaint}"));
            return None;
        }
        Some(podman)
    }

    /// Pulls an image, and gives its id: the hex digits of its configuration's digest.
    pub async fn pull(&self, registry: SocketAddr, reference: &str) -> String {
        let source = format!("docker://{registry}/{reference}");
        self.run(&["pull", "--quiet", "--tls-verify=false", &source]).await
    }

    /// Pushes an image by its id, and gives the digest of what it pushed.
    pub async fn push(&self, id: &str, registry: SocketAddr, reference: &str) -> String {
        let file = self.folder.path().join("digest");
        let destination = format!("docker://{registry}/{reference}");
        let path = file.to_str().expect("the path is text");
        self.run(&[
            "push",
            "--quiet",
            "--tls-verify=false",
            "--digestfile",
            path,
            id,
            &destination,
        ])
        .await;
        fs::read_to_string(file).expect("the digest is written")
    }

    /// Builds an image from the Containerfile in `folder`, and gives its id.
    pub async fn build(&self, folder: &Path) -> String {
        self.run(&["build", "--quiet", folder.to_str().expect("the path is text")]).await
    }

    /// The tags of a repository. For podman alone: buildah doesn't list them.
    pub async fn list_tags(&self, registry: SocketAddr, name: &str) -> Value {
        let repository = format!("{registry}/{name}");
        let search = ["search", "--tls-verify=false", "--list-tags", "--format=json", &repository];
        let found: Value = serde_json::from_str(&self.run(&search).await).expect("JSON");
        found[0]["Tags"].clone()
    }

    /// Runs podman with these arguments on its storage, and gives what it printed.
    pub async fn run(&self, arguments: &[&str]) -> String {
        let output = run(&mut self.command(arguments)).await;
        String::from_utf8(output).expect("text").trim().to_owned()
    }

    /// podman, on its storage, with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        if self.takes_parts {
            command.env("CONTAINERS_STORAGE_CONF", self.configuration());
        } else {
            command
                .arg("--root")
                .arg(self.folder.path().join("root"))
                .arg("--runroot")
                .arg(self.folder.path().join("run"))
                .args(["--storage-driver", "vfs"]);
        }
        command.args(arguments);
        command
    }

    fn configuration(&self) -> PathBuf {
        self.folder.path().join("storage.conf")
    }
}
