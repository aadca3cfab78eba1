//! `cosign`, the client that signs images and verifies them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Output;

use tempfile::TempDir;
use tokio::process::Command;

use crate::process::{output, run};

/// How a signature is kept.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// As a bundle, an artifact that refers to its image.
    Referrer,
    /// As an image under a tag that is made of its image's digest, as cosign 2 does.
    Tag,
}

impl Form {
    fn option(self) -> &'static str {
        match self {
            Self::Referrer => "--new-bundle-format=true",
            Self::Tag => "--new-bundle-format=false",
        }
    }
}

/// A user who signs with a key pair of her own, without a transparency log. The keys go when this is
/// dropped.
pub struct Cosign {
    program: PathBuf,
    folder: TempDir,
}

impl Cosign {
    /// Makes a key pair. `program` is cosign.
    pub async fn new(program: PathBuf) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let cosign = Self { program, folder };
        run(&mut cosign.command("generate-key-pair")).await;
        cosign
    }

    /// Signs an image, named by its digest, and pushes the signature into the image's repository.
    pub async fn sign(&self, registry: SocketAddr, reference: &str, form: Form) {
        let mut command = self.command("sign");
        command
            .args(["--yes", "--key", "cosign.key", "--allow-http-registry"])
            .args(["--use-signing-config=false", "--tlog-upload=false", form.option()])
            .arg(format!("{registry}/{reference}"));
        run(&mut command).await;
    }

    /// Whether an image has a signature by this user's key.
    pub async fn verifies(&self, registry: SocketAddr, reference: &str, form: Form) -> bool {
        let mut command = self.command("verify");
        command
            .args(["--key", "cosign.pub", "--insecure-ignore-tlog", "--allow-http-registry"])
            .args([form.option(), &format!("{registry}/{reference}")]);
        let Output { status, stderr, .. } = output(&mut command).await;
        let complaint = String::from_utf8_lossy(&stderr);
        let refused = ["no signatures found", "no matching signatures", "no matching attestations"];
        let refused = refused.iter().any(|text| complaint.contains(text));
        assert!(status.success() || refused, "cosign failed otherwise: {complaint}");
        status.success()
    }

    /// In the folder with the keys, without settings of whoever runs the tests.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg(name)
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("DOCKER_CONFIG", self.folder.path())
            .env("COSIGN_PASSWORD", "");
        command
    }
}
