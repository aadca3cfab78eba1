//! `oras`, the client for artifacts and their referrers.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;
use tokio::process::Command;

use crate::image::Layout;
use crate::process::run;

/// Referrers through the registry's API, instead of oras choosing a tag where the API is not there.
const WITH_API: &str = "v1.1-referrers-api";

/// Pushes an image from an OCI layout.
pub async fn push(oras: &Path, layout: &Path, registry: SocketAddr, reference: &str) {
    push_named(oras, layout, "image", registry, reference).await;
}

/// Pushes what an OCI layout has under the name `name`.
pub async fn push_named(
    oras: &Path,
    layout: &Path,
    name: &str,
    registry: SocketAddr,
    reference: &str,
) {
    let source = format!("{}:{name}", layout.display());
    let destination = format!("{registry}/{reference}");
    let mut command = Command::new(oras);
    command
        .args(["copy", "--no-tty", "--from-oci-layout", "--to-plain-http"])
        .args([source, destination]);
    run(&mut command).await;
}

/// Pulls an image with all its platforms into a layout.
pub async fn pull(oras: &Path, registry: SocketAddr, reference: &str) -> Layout {
    let layout = Layout::to_be_pulled();
    let source = format!("{registry}/{reference}");
    let destination = format!("{}:image", layout.path().display());
    let mut command = Command::new(oras);
    command
        .args(["copy", "--no-tty", "--from-plain-http", "--to-oci-layout"])
        .args([source, destination]);
    run(&mut command).await;
    layout
}

/// Attaches a file to an image, as an artifact of the type `artifact_type`.
pub async fn attach(
    oras: &Path,
    registry: SocketAddr,
    reference: &str,
    artifact_type: &str,
    file: &Path,
) {
    run(&mut attach_command(oras, registry, reference, artifact_type, file)).await;
}

/// What does that.
pub fn attach_command(
    oras: &Path,
    registry: SocketAddr,
    reference: &str,
    artifact_type: &str,
    file: &Path,
) -> Command {
    let subject = format!("{registry}/{reference}");
    let name = file.file_name().expect("a file has a name");
    let folder = file.parent().expect("a file is in a folder");
    let mut command = Command::new(oras);
    command
        .args(["attach", "--no-tty", "--plain-http", "--distribution-spec", WITH_API])
        .args(["--artifact-type", artifact_type, &subject])
        .arg(name)
        .current_dir(folder);
    command
}

/// The referrers of an image, as descriptors: all, or those of a type.
pub async fn discover(
    oras: &Path,
    registry: SocketAddr,
    reference: &str,
    artifact_type: Option<&str>,
) -> Vec<Value> {
    let subject = format!("{registry}/{reference}");
    let mut command = Command::new(oras);
    command
        .args(["discover", "--plain-http", "--distribution-spec", WITH_API])
        .args(["--depth", "1", "--format", "json", &subject]);
    if let Some(artifact_type) = artifact_type {
        command.args(["--artifact-type", artifact_type]);
    }
    let answer: Value = serde_json::from_slice(&run(&mut command).await).expect("JSON");
    answer["referrers"].as_array().cloned().unwrap_or_default()
}

/// Pulls the files of an artifact into a folder.
pub async fn pull_files(oras: &Path, registry: SocketAddr, reference: &str, folder: &Path) {
    let source = format!("{registry}/{reference}");
    let mut command = Command::new(oras);
    command.args(["pull", "--no-tty", "--plain-http", "--output"]).arg(folder).arg(source);
    run(&mut command).await;
}
