//! Clients that run containers: they unpack what they pull into a storage of their own, and most pack it
//! anew to push it.

use std::fs;
use std::net::SocketAddr;

use serde_json::json;
use tempfile::TempDir;

use super::Registries;
use moorage_test_support::containerd::Containerd;
use moorage_test_support::docker::Docker;
use moorage_test_support::image::Layout;
use moorage_test_support::podman::Podman;
use moorage_test_support::process::optional_tool;
use moorage_test_support::skopeo;

/// One that packs anew: an image keeps its id on the way, not its digest.
trait Engine {
    /// Pulls an image, and gives its id: the hex digits of its configuration's digest.
    async fn pull(&self, registry: SocketAddr, reference: &str) -> String;
    /// Pushes an image by its id, and gives the digest of what it pushed.
    async fn push(&self, id: &str, registry: SocketAddr, reference: &str) -> String;
}

impl Engine for Podman {
    async fn pull(&self, registry: SocketAddr, reference: &str) -> String {
        Podman::pull(self, registry, reference).await
    }

    async fn push(&self, id: &str, registry: SocketAddr, reference: &str) -> String {
        Podman::push(self, id, registry, reference).await
    }
}

impl Engine for Docker {
    async fn pull(&self, registry: SocketAddr, reference: &str) -> String {
        Docker::pull(self, registry, reference).await
    }

    async fn push(&self, id: &str, registry: SocketAddr, reference: &str) -> String {
        Docker::push(self, id, registry, reference).await
    }
}

/// Takes an image from one storage to the other, by Moorage and by the peer.
async fn unpacks_what_it_pushed(ours: impl Engine, theirs: impl Engine) {
    let registries = Registries::start().await;
    let (moorage, peer) = (registries.envoy.address, registries.peer.address);
    let layout = Layout::image().await;
    skopeo::push(layout.path(), skopeo::AS_IT_IS, moorage, "image:1.0").await;
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
#[ignore = "needs Envoy: run ./build.sh test"]
async fn buildah_unpacks_what_buildah_pushed() {
    let Some(program) = optional_tool("MOORAGE_BUILDAH") else { return };
    unpacks_what_it_pushed(Podman::new(program.clone()), Podman::new(program)).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn podman_unpacks_what_podman_pushed() {
    let Some(program) = optional_tool("MOORAGE_PODMAN") else { return };
    unpacks_what_it_pushed(Podman::new(program.clone()), Podman::new(program)).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn docker_unpacks_what_docker_pushed() {
    let Some(docker) = optional_tool("MOORAGE_DOCKER") else { return };
    let ours = Docker::start(docker.clone()).await;
    unpacks_what_it_pushed(ours, Docker::start(docker).await).await;
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn podman_pushes_what_it_built_and_lists_it() {
    let Some(program) = optional_tool("MOORAGE_PODMAN") else { return };
    let registries = Registries::start().await;
    let registry = registries.envoy.address;
    let folder = to_build();
    let (ours, theirs) = (Podman::new(program.clone()), Podman::new(program));
    let id = ours.build(folder.path()).await;
    for tag in ["1", "1.1"] {
        ours.push(&id, registry, &format!("built:{tag}")).await;
    }
    assert_eq!(theirs.pull(registry, "built:1.1").await, id);
    assert_eq!(theirs.list_tags(registry, "built").await, json!(["1", "1.1"]));
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn docker_pushes_what_it_built() {
    let Some(program) = optional_tool("MOORAGE_DOCKER") else { return };
    let registries = Registries::start().await;
    let registry = registries.envoy.address;
    let folder = to_build();
    let docker = Docker::start(program.clone()).await;
    let id = docker.build(folder.path()).await;
    // The second finds the layers that the first has pushed.
    for reference in ["built:1", "built:1.1", "built/elsewhere:1"] {
        docker.push(&id, registry, reference).await;
    }
    let docker = Docker::start(program).await;
    assert_eq!(docker.pull(registry, "built/elsewhere:1").await, id);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn containerd_unpacks_the_image_for_its_platform() {
    let Some(program) = optional_tool("MOORAGE_CTR") else { return };
    let registries = Registries::start().await;
    let registry = registries.envoy.address;
    let containerd = Containerd::start(program).await;
    for (reference, layout) in
        [("image:1", Layout::image().await), ("index:1", Layout::index().await)]
    {
        skopeo::push(layout.path(), skopeo::AS_IT_IS, registry, reference).await;
        assert_eq!(containerd.unpack(registry, reference).await, layout.digest().to_string());
    }
}

/// A folder with a file, and how to make an image of it.
fn to_build() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    let steps = "FROM scratch\nCOPY greeting /\n";
    for (name, text) in [("Containerfile", steps), ("greeting", "hello\n")] {
        fs::write(folder.path().join(name), text).expect("a file");
    }
    folder
}
