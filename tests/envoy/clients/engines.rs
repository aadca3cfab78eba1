//! Clients that run containers: they unpack what they pull into a storage of their own, and pack it anew
//! to push it.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;

use super::Registries;
use crate::support::image::Layout;
use crate::support::podman::Podman;
use crate::support::process::optional_tool;
use crate::support::skopeo;

#[tokio::test]
async fn buildah_unpacks_what_buildah_pushed() {
    let Some(program) = optional_tool("MOORAGE_BUILDAH") else { return };
    unpacks_what_it_pushed(program).await;
}

#[tokio::test]
async fn podman_unpacks_what_podman_pushed() {
    let Some(program) = optional_tool("MOORAGE_PODMAN") else { return };
    unpacks_what_it_pushed(program).await;
}

/// Takes an image from storage to storage, by Moorage and the peer.
async fn unpacks_what_it_pushed(program: PathBuf) {
    let registries = Registries::start().await;
    let (moorage, peer) = (registries.envoy.address, registries.peer.address);
    let layout = Layout::image().await;
    skopeo::push(layout.path(), skopeo::AS_IT_IS, moorage, "image:1.0").await;
    let (ours, theirs) = (Podman::new(program.clone()), Podman::new(program));
    let id = ours.pull(moorage, "image:1.0").await;
    assert_eq!(id, layout.config_digest().hex());
    let digest = ours.push(&id, moorage, "a/b:1.0").await;
    for registry in [moorage, peer] {
        assert_eq!(theirs.pull(registry, &format!("a/b@{digest}")).await, id);
    }
    let digest = theirs.push(&id, peer, "a/b:2.0").await;
    assert_eq!(ours.pull(moorage, &format!("a/b@{digest}")).await, id);
}

#[tokio::test]
async fn podman_pushes_what_it_built_and_lists_it() {
    let Some(program) = optional_tool("MOORAGE_PODMAN") else { return };
    let registries = Registries::start().await;
    let registry = registries.envoy.address;
    let folder = TempDir::new().expect("a temporary folder");
    fs::write(folder.path().join("Containerfile"), "FROM scratch\nCOPY greeting /\n")
        .expect("a file");
    fs::write(folder.path().join("greeting"), "hello\n").expect("a file");
    let (ours, theirs) = (Podman::new(program.clone()), Podman::new(program));
    let id = ours.build(folder.path()).await;
    for tag in ["1", "1.1"] {
        ours.push(&id, registry, &format!("built:{tag}")).await;
    }
    assert_eq!(theirs.pull(registry, "built:1.1").await, id);
    assert_eq!(theirs.list_tags(registry, "built").await, json!(["1", "1.1"]));
}
