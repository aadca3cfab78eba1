//! Podman pulls of an image in the format `zstd:chunked` only the files that it has not got, by their
//! ranges, and needs no more bytes from Moorage than from docker-registry.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use super::noise;
use crate::support::blob_store::BlobStore;
use crate::support::docker_registry::DockerRegistry;
use crate::support::envoy::{Bootstrap, Envoy};
use crate::support::process::{note, optional_tool, output, run};
use crate::support::relay::Relay;

const FILES: usize = 60;
const FILE_SIZE: usize = 200_000;
const IMAGE_SIZE: u64 = (FILES * FILE_SIZE) as u64;

/// A user of podman whose storage takes parts of images.
struct Podman {
    program: PathBuf,
    folder: TempDir,
}

impl Drop for Podman {
    /// The storage driver leaves a mount, which keeps the folder from being removed.
    fn drop(&mut self) {
        let mounted = self.folder.path().join("root/overlay");
        let unmounted = std::process::Command::new("umount").arg("--quiet").arg(mounted).status();
        if let Err(error) = unmounted {
            note(&format!("umount can't be run: {error}"));
        }
    }
}

impl Podman {
    /// No images yet. `None`, and a line that says so, where this machine has no podman that can.
    async fn new() -> Option<Self> {
        let program = optional_tool("MOORAGE_PODMAN")?;
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().display();
        let configuration = format!(
            "[storage]\n\
             driver = \"overlay\"\n\
             graphroot = \"{path}/root\"\n\
             runroot = \"{path}/run\"\n\
             [storage.options]\n\
             pull_options = {{ enable_partial_images = \"true\" }}\n"
        );
        fs::write(folder.path().join("storage.conf"), configuration).expect("a file");
        let podman = Self { program, folder };
        let trial = output(podman.command().arg("images")).await;
        if !trial.status.success() {
            let complaint = String::from_utf8_lossy(&trial.stderr);
            note(&format!("left out: podman has no overlay storage here: {complaint}"));
            return None;
        }
        Some(podman)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("CONTAINERS_STORAGE_CONF", self.folder.path().join("storage.conf"));
        command
    }

    async fn run(&self, arguments: &[&str]) -> String {
        let printed = run(self.command().args(arguments)).await;
        String::from_utf8(printed).expect("text").trim().to_owned()
    }

    /// Builds an image of what is in the folder `files`, and pushes it.
    async fn push(&self, folder: &Path, registry: SocketAddr, reference: &str) {
        fs::write(folder.join("Containerfile"), "FROM scratch\nCOPY files /\n").expect("a file");
        let id = self.run(&["build", "--quiet", folder.to_str().expect("text")]).await;
        let destination = format!("docker://{registry}/{reference}");
        let format = "--compression-format=zstd:chunked";
        self.run(&["push", "--quiet", "--tls-verify=false", format, &id, &destination]).await;
    }

    /// Pulls an image through a relay; gives its id and how many bytes the registry sent.
    async fn pull(&self, registry: SocketAddr, reference: &str) -> (String, u64) {
        let relay = Relay::start(registry).await;
        let source = format!("docker://{}/{reference}", relay.address);
        let id = self.run(&["pull", "--quiet", "--tls-verify=false", &source]).await;
        (id, relay.sent())
    }

    /// Whether an image has just the files of the folder.
    async fn has_files(&self, id: &str, files: &Path) -> bool {
        let mounted = self.run(&["image", "mount", id]).await;
        let difference = output(Command::new("diff").arg("-r").arg(&mounted).arg(files)).await;
        self.run(&["image", "unmount", id]).await;
        difference.status.success()
    }
}

#[tokio::test]
async fn podman_pulls_the_files_it_needs_with_as_many_bytes_as_from_docker_registry() {
    let Some(pusher) = Podman::new().await else { return };
    let root = TempDir::new().expect("a temporary folder");
    let bucket = root.path().join("registry");
    fs::create_dir(&bucket).expect("a folder");
    let store = BlobStore::open(root.path()).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    let peer = DockerRegistry::start(&bucket).await;

    // The second image has half of the files of the first one.
    let context = TempDir::new().expect("a temporary folder");
    let files = context.path().join("files");
    fs::create_dir(&files).expect("a folder");
    let write = |numbers: &mut dyn Iterator<Item = usize>, version| {
        for number in numbers {
            let content = noise(number + version * FILES, FILE_SIZE);
            fs::write(files.join(format!("{number:03}")), content).expect("a file");
        }
    };
    write(&mut (0..FILES), 0);
    pusher.push(context.path(), envoy.address, "image:1").await;
    write(&mut (0..FILES).step_by(2), 1);
    pusher.push(context.path(), envoy.address, "image:2").await;

    let mut second = Vec::new();
    for registry in [envoy.address, peer.address] {
        let Some(puller) = Podman::new().await else { return };
        let (_, whole) = puller.pull(registry, "image:1").await;
        assert!(whole > IMAGE_SIZE && whole < IMAGE_SIZE * 11 / 10, "{whole} bytes");
        let (id, bytes) = puller.pull(registry, "image:2").await;
        assert!(puller.has_files(&id, &files).await, "an image of other files");
        second.push(bytes);
    }
    let (ours, theirs) = (second[0], second[1]);
    println!("the second pull took {ours} bytes, from docker-registry {theirs}, of {IMAGE_SIZE}");
    assert!(theirs < IMAGE_SIZE * 6 / 10, "podman does not pull in parts: {theirs} bytes");
    assert!(ours * 10 <= theirs * 11, "{ours} bytes, from docker-registry {theirs}");
}
