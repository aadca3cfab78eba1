//! `skopeo`, the client.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::image::{Layout, files};
use crate::process::run;

/// Options of a copy: all platforms, and not a byte changed.
pub const AS_IT_IS: &[&str] = &["--all", "--preserve-digests"];

/// Pushes an image from an OCI layout. The registry gets the very bytes, unless `options` has it
/// convert them.
pub async fn push(layout: &Path, options: &[&str], registry: SocketAddr, reference: &str) {
    run(&mut push_command(layout, options, registry, reference)).await;
}

/// What does that.
pub fn push_command(
    layout: &Path,
    options: &[&str],
    registry: SocketAddr,
    reference: &str,
) -> Command {
    let source = format!("oci:{}:image", layout.display());
    let destination = format!("docker://{registry}/{reference}");
    let mut command = Command::new("skopeo");
    command
        .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
        .args(options)
        .args([source, destination]);
    command
}

/// Pulls an image with all its platforms, and gives every file of it: manifests and blobs.
pub async fn pull(registry: SocketAddr, reference: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = TempDir::new().expect("a temporary folder");
    pull_to(registry, reference, &format!("dir:{}", folder.path().display())).await;
    files(folder.path())
}

/// Pulls an OCI image with all its platforms into a layout.
pub async fn pull_layout(registry: SocketAddr, reference: &str) -> Layout {
    let layout = Layout::to_be_pulled();
    pull_to(registry, reference, &format!("oci:{}:image", layout.path().display())).await;
    layout
}

async fn pull_to(registry: SocketAddr, reference: &str, destination: &str) {
    let source = format!("docker://{registry}/{reference}");
    let mut command = Command::new("skopeo");
    command
        .args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"])
        .args(AS_IT_IS)
        .args([&source, destination]);
    run(&mut command).await;
}

/// A manifest as `skopeo` gets it.
pub async fn inspect_raw(registry: SocketAddr, reference: &str) -> Vec<u8> {
    let image = format!("docker://{registry}/{reference}");
    let mut command = Command::new("skopeo");
    command.args(["inspect", "--raw", "--no-tags", "--tls-verify=false", &image]);
    run(&mut command).await
}

/// The tags of a repository, in the registry's order.
pub async fn list_tags(registry: SocketAddr, name: &str) -> Value {
    let repository = format!("docker://{registry}/{name}");
    let mut command = Command::new("skopeo");
    command.args(["list-tags", "--tls-verify=false", &repository]);
    let answer: Value = serde_json::from_slice(&run(&mut command).await).expect("JSON");
    answer["Tags"].clone()
}
