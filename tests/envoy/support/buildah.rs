//! `buildah`, for how podman pushes and pulls: through storage of its own, where it unpacks images.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;
use tokio::process::Command;

use super::process::run;

/// The images of one user. They go when this is dropped.
pub struct Buildah {
    program: PathBuf,
    folder: TempDir,
}

impl Buildah {
    /// No images yet.
    pub fn new(program: PathBuf) -> Self {
        Self { program, folder: TempDir::new().expect("a temporary folder") }
    }

    /// Pulls an image, and gives its id: the hex digits of its configuration's digest.
    pub async fn pull(&self, registry: SocketAddr, reference: &str) -> String {
        let source = format!("docker://{registry}/{reference}");
        self.run(&["pull", "--quiet", "--tls-verify=false", &source]).await
    }

    /// Pushes an image by its id, and gives the digest of what it pushed: it packs the layers anew.
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
        fs::read_to_string(file).expect("buildah has written the digest")
    }

    async fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(self.folder.path().join("root"))
            .arg("--runroot")
            .arg(self.folder.path().join("run"))
            .args(["--storage-driver", "vfs"])
            .args(arguments);
        let output = String::from_utf8(run(&mut command).await).expect("text");
        output.trim().to_owned()
    }
}
