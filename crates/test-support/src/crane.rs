//! `crane`, the client of the library that cosign and ko push with.

use std::net::SocketAddr;
use std::path::Path;

use tokio::process::Command;

use crate::image::Layout;
use crate::process::run;

/// Pushes an image from an OCI layout.
pub async fn push(crane: &Path, layout: &Path, registry: SocketAddr, reference: &str) {
    run(&mut push_command(crane, layout, registry, reference)).await;
}

/// What does that.
pub fn push_command(crane: &Path, layout: &Path, registry: SocketAddr, reference: &str) -> Command {
    let mut command = Command::new(crane);
    command.arg("push").arg(layout).arg(format!("{registry}/{reference}"));
    command
}

/// What copies an image to another place in the same registry; its blobs are mounted.
pub fn copy_command(crane: &Path, registry: SocketAddr, from: &str, to: &str) -> Command {
    let mut command = Command::new(crane);
    command.arg("copy").args([from, to].map(|reference| format!("{registry}/{reference}")));
    command
}

/// Pulls an image and everything that it has, and checks it against its digests.
pub async fn validate(crane: &Path, registry: SocketAddr, reference: &str) {
    let mut command = Command::new(crane);
    run(command.arg("validate").arg("--remote").arg(format!("{registry}/{reference}"))).await;
}

/// Pulls an image with all its platforms into a layout.
pub async fn pull(crane: &Path, registry: SocketAddr, reference: &str) -> Layout {
    let layout = Layout::to_be_pulled();
    let source = format!("{registry}/{reference}");
    let mut command = Command::new(crane);
    command.args(["pull", "--format=oci", &source]).arg(layout.path());
    run(&mut command).await;
    layout
}

/// The tags of a repository, in the registry's order.
pub async fn list(crane: &Path, registry: SocketAddr, name: &str) -> Vec<String> {
    lines(Command::new(crane).arg("ls").arg(format!("{registry}/{name}"))).await
}

/// The repositories.
pub async fn catalog(crane: &Path, registry: SocketAddr) -> Vec<String> {
    lines(Command::new(crane).arg("catalog").arg(registry.to_string())).await
}

/// Deletes a tag, or a manifest by its digest.
pub async fn delete(crane: &Path, registry: SocketAddr, reference: &str) {
    run(Command::new(crane).arg("delete").arg(format!("{registry}/{reference}"))).await;
}

async fn lines(command: &mut Command) -> Vec<String> {
    let output = String::from_utf8(run(command).await).expect("text");
    output.lines().map(str::to_owned).collect()
}
