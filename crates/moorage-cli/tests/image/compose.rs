//! The files of `deploy/compose/`, run by podman-compose: a registry with its store, an edge node before it, and TLS with
//! users in front of the same data.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use moorage_test_support::accounts::{DEPLOY, access};
use moorage_test_support::client;
use moorage_test_support::podman::Podman;
use moorage_test_support::process::{optional_tool, own_address, run, wait_for};
use moorage_test_support::tls::Authority;

use crate::{build, top};

const WITH_EDGE: [&str; 4] = ["compose.yaml", "names.yaml", "compose.edge.yaml", "edge-names.yaml"];
const WITH_TLS: [&str; 3] = ["compose.yaml", "names.yaml", "compose.tls.yaml"];

/// The services of some files, with all that they keep. They end when this is dropped.
struct Services {
    compose: PathBuf,
    podman: Podman,
    /// A copy of `deploy/compose/`, with what users put beside its files.
    folder: TempDir,
    project: String,
    registry: SocketAddr,
    edge: SocketAddr,
}

impl Services {
    async fn new(compose: PathBuf, podman: Podman, garage: &Path) -> Self {
        build(&podman).await;
        build_garage(&podman, garage).await;
        let folder = TempDir::new().expect("a temporary folder");
        for file in fs::read_dir(top().join("deploy/compose")).expect("a folder") {
            let file = file.expect("an entry");
            fs::copy(file.path(), folder.path().join(file.file_name())).expect("a file");
        }
        write_names(folder.path());
        let project = format!("moorage-{}", std::process::id());
        let (registry, edge) = (own_address(), own_address());
        Self { compose, podman, folder, project, registry, edge }
    }

    /// Puts what `compose.tls.yaml` wants beside it, readable for the image's user.
    async fn certify(&self, authority: &Authority) {
        let tls = self.folder.path().join("tls");
        fs::create_dir(&tls).expect("a folder");
        fs::copy(authority.server_certificate(), tls.join("fullchain.pem")).expect("a file");
        fs::copy(authority.server_key(), tls.join("privkey.pem")).expect("a file");
        let rules = self.folder.path().join("access.yaml");
        // JSON is YAML as well.
        fs::write(&rules, access().await.to_string()).expect("a file");
        for file in [&tls.join("fullchain.pem"), &tls.join("privkey.pem"), &rules] {
            fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("it is ours");
        }
    }

    /// podman-compose with these files, of those in the folder, and these arguments.
    fn command(&self, files: &[&str], arguments: &[&str]) -> Command {
        let podman = self.podman.command_line();
        let (podman, options) = podman.split_once(' ').expect("options");
        let mut command = Command::new(&self.compose);
        command
            .args(["--podman-path", podman, "--podman-args"])
            .arg(format!("{options} --runtime runc"))
            .args(["--podman-run-args", "--ulimit nofile=4096:4096 --ulimit nproc=4096:4096"])
            .args(["--project-name", &self.project]);
        for file in files {
            command.arg("--file").arg(self.folder.path().join(file));
        }
        command
            .args(arguments)
            .env("MOORAGE_IMAGE", "localhost/moorage")
            .env("GARAGE_IMAGE", "localhost/garage")
            .env("MOORAGE_BIND", self.registry.to_string())
            .env("MOORAGE_EDGE_BIND", self.edge.to_string())
            .env_remove("MOORAGE_STORE_KEY")
            .env_remove("MOORAGE_STORE_SECRET");
        command
    }

    async fn compose(&self, files: &[&str], arguments: &[&str]) {
        run(&mut self.command(files, arguments)).await;
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        // Whatever there is of them, with their volumes; nothing is left to be done if that fails.
        let mut down = self.command(&WITH_EDGE, &["down", "--volumes", "--timeout", "0"]);
        let _ = down.as_std_mut().output();
    }
}

/// Writes what podman wants besides: it knows services by their names only with one more package, and, where CNI still makes
/// its networks, leads what comes to a published port into any of the container's, also into an internal one.
fn write_names(folder: &Path) {
    let [.., number] = std::process::id().to_be_bytes();
    let address = |host| Ipv4Addr::new(10, 213, number, host);
    let (subnet, store, registry) = (address(0), address(2), address(3));
    let names = format!(
        r#"
services:
  store:
    networks: {{ storage: {{ ipv4_address: {store} }} }}
  registry:
    networks: {{ storage: {{ ipv4_address: {registry} }} }}
    extra_hosts: ["store:{store}"]
networks:
  storage: {{ internal: false, ipam: {{ config: [{{ subnet: {subnet}/24 }}] }} }}
"#
    );
    let edge_names = format!(
        r#"
services:
  edge:
    extra_hosts: ["store:{store}", "registry:{registry}"]
"#
    );
    fs::write(folder.join("names.yaml"), names).expect("a file");
    fs::write(folder.join("edge-names.yaml"), edge_names).expect("a file");
}

/// An image as Garage's own: the program and what it needs, and nothing else.
async fn build_garage(podman: &Podman, garage: &Path) {
    let folder = TempDir::new().expect("a temporary folder");
    let script = r#"
        set -euo pipefail
        source scripts/image.sh
        install -D -- "$1" "$2/root/garage"
        mkdir -m 1777 "$2/root/tmp"
        libraries_of "$1" | while read -r library; do install -D -- "$library" "$2/root$library"; done
        printf 'FROM scratch\nCOPY root/ /\n' >"$2/Containerfile"
    "#;
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash"]).arg(garage).arg(folder.path()).current_dir(top());
    run(&mut command).await;
    let folder = folder.path().to_str().expect("the path is text");
    podman.run(&["build", "--quiet", "--tag", "garage", folder]).await;
}

async fn ready(server: SocketAddr) {
    wait_for("the registry and its store", async || {
        (client::try_get(server, "/readyz").await?.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs podman, podman-compose, Garage and Envoy: run ./build.sh test"]
async fn what_compose_starts_takes_images_and_keeps_them() {
    let (Some(program), Some(compose), Some(garage)) = (
        optional_tool("MOORAGE_PODMAN"),
        optional_tool("MOORAGE_PODMAN_COMPOSE"),
        optional_tool("MOORAGE_GARAGE"),
    ) else {
        return;
    };
    let services = Services::new(compose, Podman::new(program.clone()), &garage).await;
    let podman = &services.podman;
    let (registry, edge) = (services.registry, services.edge);
    let id = podman.run(&["image", "inspect", "--format", "{{.Id}}", "localhost/garage"]).await;

    services.compose(&WITH_EDGE, &["up", "--detach"]).await;
    ready(registry).await;
    ready(edge).await;
    podman.push(&id, edge, "team/store:1").await;
    for server in [registry, edge] {
        let pulled = Podman::new(program.clone()).pull(server, "team/store:1").await;
        assert_eq!(pulled, id, "from {server}");
    }
    services.compose(&WITH_EDGE, &["down"]).await;

    let authority = Authority::new().await;
    services.certify(&authority).await;
    services.compose(&WITH_TLS, &["up", "--detach"]).await;
    wait_for("the registry", async || {
        (authority.get(registry, "/readyz", None).await == 200).then_some(())
    })
    .await;
    assert_eq!(authority.get(registry, "/v2/", None).await, 401);
    let credentials = format!("{}:{}", DEPLOY.name, DEPLOY.password);
    let source = format!("docker://{registry}/team/store:1");
    let pull = ["pull", "--quiet", "--tls-verify=false", "--creds", &credentials, &source];
    assert_eq!(Podman::new(program).run(&pull).await, id);
}
