//! `regctl`, the client that leaves content as it is, works with referrers, and deletes tags by the API.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;
use tokio::process::Command;

use crate::image::Layout;
use crate::process::run;

/// Pushes an image from an OCI layout.
pub async fn push(regctl: &Path, layout: &Path, registry: SocketAddr, reference: &str) {
    let source = format!("ocidir://{}:image", layout.display());
    let destination = format!("{registry}/{reference}");
    print(regctl, registry, &["image", "copy", &source, &destination]).await;
}

/// Pulls an image with all its platforms into a layout.
pub async fn pull(regctl: &Path, registry: SocketAddr, reference: &str) -> Layout {
    let layout = Layout::to_be_pulled();
    let source = format!("{registry}/{reference}");
    let destination = format!("ocidir://{}:image", layout.path().display());
    print(regctl, registry, &["image", "copy", &source, &destination]).await;
    layout
}

/// The tags of a repository, in the registry's order.
pub async fn list_tags(regctl: &Path, registry: SocketAddr, name: &str) -> Vec<String> {
    let tags = print(regctl, registry, &["tag", "ls", &format!("{registry}/{name}")]).await;
    tags.lines().map(str::to_owned).collect()
}

/// Deletes a tag and leaves its manifest.
pub async fn delete_tag(regctl: &Path, registry: SocketAddr, reference: &str) {
    print(regctl, registry, &["tag", "delete", &format!("{registry}/{reference}")]).await;
}

/// Deletes a manifest by its digest.
pub async fn delete_manifest(regctl: &Path, registry: SocketAddr, reference: &str) {
    print(regctl, registry, &["manifest", "delete", &format!("{registry}/{reference}")]).await;
}

/// Attaches a file to an image, as an artifact of the type `artifact_type`.
pub async fn attach(
    regctl: &Path,
    registry: SocketAddr,
    reference: &str,
    artifact_type: &str,
    file: &Path,
) {
    let (subject, file) = (format!("{registry}/{reference}"), file.to_str().expect("text"));
    let put = ["artifact", "put", "--artifact-type", artifact_type, "--subject", &subject];
    print(regctl, registry, &[put.as_slice(), &["--file", file]].concat()).await;
}

/// The referrers of an image, as descriptors: those of a type.
pub async fn referrers(
    regctl: &Path,
    registry: SocketAddr,
    reference: &str,
    artifact_type: &str,
) -> Vec<Value> {
    let subject = format!("{registry}/{reference}");
    let list = ["artifact", "list", "--format={{json .}}", "--filter-artifact-type"];
    let list = [list.as_slice(), &[artifact_type, &subject]].concat();
    let answer = print(regctl, registry, &list).await;
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    answer["descriptors"].as_array().cloned().unwrap_or_default()
}

/// What the file of an artifact holds.
pub async fn artifact(regctl: &Path, registry: SocketAddr, reference: &str) -> String {
    print(regctl, registry, &["artifact", "get", &format!("{registry}/{reference}")]).await
}

/// Runs regctl, and gives what it printed.
async fn print(regctl: &Path, registry: SocketAddr, arguments: &[&str]) -> String {
    let mut command = Command::new(regctl);
    command
        // No settings of whoever runs the tests.
        .env("REGCTL_CONFIG", "/nonexistent")
        .args(["--host", &format!("reg={registry},tls=disabled")])
        .args(arguments);
    String::from_utf8(run(&mut command).await).expect("text")
}
