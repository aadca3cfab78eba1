//! The image that `./build.sh image` builds, run by podman as `docs/deployment.md` says.

mod compose;
mod container;

use std::path::{Path, PathBuf};

use tokio::process::Command;

use moorage_test_support::podman::Podman;
use moorage_test_support::process::{run, tool};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Builds the image from files that `./build.sh test` has built, and gives its id.
async fn build(podman: &Podman) -> String {
    let mut command = Command::new(top().join("build.sh"));
    command.args(["image", "--base", "self", "--tag", "moorage"]);
    command.env("MOORAGE_IMAGE_BUILDER", podman.command_line());
    for built in ["MOORAGE_WASM", "MOORAGE_CLI", "MOORAGE_NATIVE_HASH_LIBRARY"] {
        command.env(built, tool(built));
    }
    run(&mut command).await;
    podman.run(&["image", "inspect", "--format", "{{.Id}}", "localhost/moorage"]).await
}
