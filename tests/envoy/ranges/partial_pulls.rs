//! Podman pulls of an image in the format `zstd:chunked` only the files that it has not got, by their
//! ranges, and needs no more bytes from Moorage than from docker-registry.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;
use tokio::process::Command;

use super::noise;
use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::docker_registry::DockerRegistry;
use moorage_test_support::envoy::{Bootstrap, Envoy};
use moorage_test_support::podman::Podman;
use moorage_test_support::process::{optional_tool, output};
use moorage_test_support::relay::Relay;

const FILES: usize = 60;
const FILE_SIZE: usize = 200_000;
const IMAGE_SIZE: u64 = (FILES * FILE_SIZE) as u64;

struct Registry {
    name: &'static str,
    address: SocketAddr,
}

/// Builds an image of what is in the folder `files`, and pushes it.
async fn push(podman: &Podman, folder: &Path, registry: SocketAddr, reference: &str) {
    fs::write(folder.join("Containerfile"), "FROM scratch\nCOPY files /\n").expect("a file");
    let id = podman.build(folder).await;
    let destination = format!("docker://{registry}/{reference}");
    let format = "--compression-format=zstd:chunked";
    podman.run(&["push", "--quiet", "--tls-verify=false", format, &id, &destination]).await;
}

/// Pulls an image; gives its id and how many bytes the registry sent.
async fn pull(podman: &Podman, registry: SocketAddr, reference: &str) -> (String, u64) {
    let relay = Relay::start(registry).await;
    let id = podman.pull(relay.address, reference).await;
    (id, relay.sent())
}

/// Whether an image has just the files of the folder.
async fn has_files(podman: &Podman, id: &str, files: &Path) -> bool {
    let mounted = podman.run(&["image", "mount", id]).await;
    let difference = output(Command::new("diff").arg("-r").arg(&mounted).arg(files)).await;
    podman.run(&["image", "unmount", id]).await;
    difference.status.success()
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn podman_pulls_the_files_it_needs_with_as_many_bytes_as_from_docker_registry() {
    let Some(program) = optional_tool("MOORAGE_PODMAN") else { return };
    let Some(pusher) = Podman::taking_parts(program.clone()).await else { return };
    let root = TempDir::new().expect("a temporary folder");
    let bucket = root.path().join("registry");
    fs::create_dir(&bucket).expect("a folder");
    let store = BlobStore::open(root.path()).await;
    let envoy = Envoy::start(&Bootstrap::new(store.address)).await;
    let peer = DockerRegistry::start(&bucket).await;

    let context = TempDir::new().expect("a temporary folder");
    let files = context.path().join("files");
    fs::create_dir(&files).expect("a folder");
    let write = |numbers: &[usize], version: usize, size: usize| {
        for number in numbers {
            let content = noise(number + version * FILES, size);
            fs::write(files.join(format!("{number:03}")), content).expect("a file");
        }
    };
    let all: Vec<_> = (0..FILES).collect();
    let half: Vec<_> = (0..FILES).step_by(2).collect();
    let moorage = &Registry { name: "Moorage", address: envoy.address };
    let peer = &Registry { name: "docker-registry", address: peer.address };
    let mut pullers = Vec::new();
    for registry in [moorage, peer] {
        let Some(puller) = Podman::taking_parts(program.clone()).await else { return };
        pullers.push((registry, puller));
    }
    // All files are new; then every other one; then a little at both ends, with all the others between.
    for (tag, numbers, size, most) in [
        ("1", all.as_slice(), FILE_SIZE, IMAGE_SIZE * 11 / 10),
        ("2", half.as_slice(), FILE_SIZE, IMAGE_SIZE * 6 / 10),
        ("3", &[0, FILES - 1], 2_000, IMAGE_SIZE / 100),
    ] {
        write(numbers, tag.parse().expect("a number"), size);
        let reference = format!("image:{tag}");
        push(&pusher, context.path(), moorage.address, &reference).await;
        let mut sent = Vec::new();
        for (registry, puller) in &pullers {
            let (id, bytes) = pull(puller, registry.address, &reference).await;
            println!("{reference} took {bytes} bytes from {}", registry.name);
            assert!(has_files(puller, &id, &files).await, "{reference} has other files");
            assert!(bytes < most, "{reference} took {bytes} bytes from {}", registry.name);
            sent.push(bytes);
        }
        let (ours, theirs) = (sent[0], sent[1]);
        assert!(ours * 10 <= theirs * 11, "{ours} bytes, {theirs} from docker-registry");
    }
}
