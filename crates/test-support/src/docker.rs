//! docker: a daemon of the test's own, and its client.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::containerd::Containerd;
use crate::daemon::Daemon;
use crate::process::run;

/// A running docker without images. It ends when this is dropped.
pub struct Docker {
    program: PathBuf,
    daemon: Daemon,
    _containerd: Containerd,
}

impl Docker {
    /// Starts `dockerd`, on a containerd of its own. `docker` is the client.
    pub async fn start(docker: PathBuf) -> Self {
        Self::start_with(docker, &[]).await
    }

    /// The same, with these variables for the daemon.
    pub async fn start_with(docker: PathBuf, environment: &[(&str, String)]) -> Self {
        let containerd = Containerd::start("ctr".into()).await;
        let program = docker.clone();
        let daemon = Daemon::start(
            "dockerd",
            environment,
            |folder| arguments(folder, &containerd.socket()),
            |folder| client(&program, folder, &["version"]),
        );
        Self { daemon: daemon.await, program: docker, _containerd: containerd }
    }

    /// Pulls an image, and gives its id: the hex digits of its configuration's digest.
    pub async fn pull(&self, registry: SocketAddr, reference: &str) -> String {
        let image = format!("{registry}/{reference}");
        self.run(&["pull", "--quiet", &image]).await;
        let id = self.inspect(&image, "{{.Id}}").await;
        id.strip_prefix("sha256:").expect("a digest").to_owned()
    }

    /// Pushes an image by its id, and gives the digest of what it pushed.
    pub async fn push(&self, id: &str, registry: SocketAddr, reference: &str) -> String {
        let image = format!("{registry}/{reference}");
        self.run(&["tag", id, &image]).await;
        let printed = self.run(&["push", &image]).await;
        let (_, digest) = printed.split_once("digest: ").expect("docker tells the digest");
        digest.split_whitespace().next().expect("a digest").to_owned()
    }

    /// Builds an image from the file `Containerfile` in `folder`, and gives its id.
    pub async fn build(&self, folder: &Path) -> String {
        let (file, folder) = (folder.join("Containerfile"), folder.to_str());
        let file = file.to_str().expect("the path is text");
        let build = ["build", "--quiet", "--file", file, folder.expect("the path is text")];
        let id = self.run(&build).await;
        id.strip_prefix("sha256:").expect("a digest").to_owned()
    }

    async fn inspect(&self, image: &str, format: &str) -> String {
        self.run(&["image", "inspect", "--format", format, image]).await
    }

    /// The client, with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        client(&self.program, self.daemon.folder(), arguments)
    }

    async fn run(&self, arguments: &[&str]) -> String {
        let output = String::from_utf8(run(&mut self.command(arguments)).await).expect("text");
        output.trim().to_owned()
    }
}

/// Everything in the daemon's folder, and the machine's network left as it is.
fn arguments(folder: &Path, containerd: &Path) -> Vec<String> {
    // In place of the machine's own.
    let config = folder.join("daemon.json");
    fs::write(&config, "{}").expect("a file");
    let (folder, containerd) = (folder.display(), containerd.display());
    vec![
        format!("--config-file={}", config.display()),
        format!("--containerd={containerd}"),
        format!("--data-root={folder}/data"),
        format!("--exec-root={folder}/exec"),
        format!("--pidfile={folder}/pid"),
        format!("--host=unix://{folder}/socket"),
        "--storage-driver=vfs".to_owned(),
        "--bridge=none".to_owned(),
        "--iptables=false".to_owned(),
        "--ip6tables=false".to_owned(),
    ]
}

/// The client, without BuildKit and without settings of whoever runs the tests.
fn client(program: &Path, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .arg(format!("--host=unix://{}/socket", folder.display()))
        .args(arguments)
        .env("DOCKER_CONFIG", folder.join("client"))
        .env("DOCKER_BUILDKIT", "0")
        .env_remove("DOCKER_CONTEXT")
        .env_remove("DOCKER_HOST");
    command
}
