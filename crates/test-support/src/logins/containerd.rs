//! containerd's client `ctr`, which is told user and password with whatever it does.

use std::fs;
use std::path::PathBuf;

use tokio::process::Command;

use super::{Client, Home, Outcome, Registry, outcome};
use crate::containerd::Containerd;

/// `ctr`, on a containerd of its own.
pub struct Ctr {
    containerd: Containerd,
    registry: Registry,
    /// What it has of registries, a folder for each (`docs/hosts.md` of containerd).
    hosts: Home,
    /// `user:password`.
    login: Option<String>,
}

impl Ctr {
    /// Nobody is logged in. `program` is ctr.
    pub async fn start(program: PathBuf, registry: Registry) -> Self {
        let hosts = Home::new();
        let folder = hosts.0.path().join(&registry.host);
        fs::create_dir(&folder).expect("a folder");
        let (host, certificate) = (&registry.host, registry.certificate.display());
        let text = format!("[host.\"https://{host}\"]\nca = \"{certificate}\"\n");
        fs::write(folder.join("hosts.toml"), text).expect("a file");
        Self { containerd: Containerd::start(program).await, registry, hosts, login: None }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.containerd.command(arguments);
        command.arg("--hosts-dir").arg(self.hosts.0.path());
        if let Some(login) = &self.login {
            command.args(["--user", login]);
        }
        command
    }
}

impl Client for Ctr {
    const ASKS_AT_LOGIN: bool = false;

    async fn login(&mut self, user: &str, password: &str) -> Outcome {
        self.login = Some(format!("{user}:{password}"));
        Ok(())
    }

    async fn logout(&mut self) -> Outcome {
        self.login = None;
        Ok(())
    }

    async fn pull(&self, reference: &str) -> Outcome {
        let mut command = self.command(&["content", "fetch", "--all-platforms"]);
        outcome(command.arg(self.registry.full(reference))).await
    }

    async fn push(&self, source: &str, destination: &str) -> Outcome {
        let mut command = self.command(&["images", "push"]);
        outcome(command.arg(self.registry.full(destination)).arg(self.registry.full(source))).await
    }
}
