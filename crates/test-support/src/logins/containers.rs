//! Clients that share a library: skopeo, podman and buildah. Their logins are in a file that they are told, the
//! certificates that they trust in a folder (`man 5 containers-certs.d`).

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{Client, Home, Outcome, Registry, outcome};
use crate::podman::Podman;
use crate::process::output;
use crate::skopeo::AS_IT_IS;

/// `skopeo`, which keeps what it pulls in OCI layouts.
pub struct Skopeo {
    registry: Registry,
    home: Home,
}

impl Skopeo {
    /// Nobody is logged in.
    pub fn new(registry: Registry) -> Self {
        Self { registry, home: Home::new() }
    }

    fn layout(folder: &Path) -> String {
        format!("oci:{}:image", folder.display())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("skopeo");
        command.arg("--insecure-policy").args(arguments).arg("--authfile").arg(self.home.logins());
        command
    }
}

impl Client for Skopeo {
    async fn login(&mut self, user: &str, password: &str) -> Outcome {
        let mut command = self.command(&["login", "--tls-verify=true"]);
        command.arg("--cert-dir").arg(&self.registry.certs_dir);
        command.args(["--username", user, "--password", password, &self.registry.host]);
        outcome(&mut command).await
    }

    async fn logout(&mut self) -> Outcome {
        outcome(self.command(&["logout"]).arg(&self.registry.host)).await
    }

    async fn pull(&self, reference: &str) -> Outcome {
        let mut command = self.command(&["copy", "--quiet", "--src-tls-verify=true"]);
        command.args(AS_IT_IS).arg("--src-cert-dir").arg(&self.registry.certs_dir);
        command.arg(format!("docker://{}", self.registry.full(reference)));
        outcome(command.arg(Self::layout(&self.home.to_be_pulled(reference)))).await
    }

    async fn push(&self, source: &str, destination: &str) -> Outcome {
        let mut command = self.command(&["copy", "--quiet", "--dest-tls-verify=true"]);
        command.args(AS_IT_IS).arg("--dest-cert-dir").arg(&self.registry.certs_dir);
        command.arg(Self::layout(&self.home.pulled(source)));
        outcome(command.arg(format!("docker://{}", self.registry.full(destination)))).await
    }
}

/// podman or buildah, which keep images in a storage.
pub struct Engine {
    podman: Podman,
    registry: Registry,
    home: Home,
}

impl Engine {
    /// Nobody is logged in. `program` is podman, or buildah.
    pub fn new(program: PathBuf, registry: Registry) -> Self {
        Self { podman: Podman::new(program), registry, home: Home::new() }
    }

    fn command(&self, name: &str) -> Command {
        let mut command = self.podman.command(&[name, "--tls-verify=true"]);
        command
            .arg("--authfile")
            .arg(self.home.logins())
            .arg("--cert-dir")
            .arg(&self.registry.certs_dir);
        command
    }
}

impl Client for Engine {
    async fn login(&mut self, user: &str, password: &str) -> Outcome {
        let mut command = self.command("login");
        command.args(["--username", user, "--password", password, &self.registry.host]);
        outcome(&mut command).await
    }

    async fn logout(&mut self) -> Outcome {
        let mut command = self.podman.command(&["logout", "--authfile"]);
        outcome(command.arg(self.home.logins()).arg(&self.registry.host)).await
    }

    async fn pull(&self, reference: &str) -> Outcome {
        // buildah asks for nothing that it has. If it has nothing, there is nothing to remove.
        output(&mut self.podman.command(&["rmi", &self.registry.full(reference)])).await;
        outcome(self.command("pull").arg(format!("docker://{}", self.registry.full(reference))))
            .await
    }

    async fn push(&self, source: &str, destination: &str) -> Outcome {
        let mut command = self.command("push");
        command.arg(self.registry.full(source));
        outcome(command.arg(format!("docker://{}", self.registry.full(destination)))).await
    }
}
