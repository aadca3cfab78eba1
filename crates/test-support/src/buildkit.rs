//! BuildKit: a daemon of the test's own, and its clients `buildctl` and `buildx`.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use crate::daemon::Daemon;
use crate::process::{optional_tool, output};

/// How a build is asked for.
#[derive(Clone, Debug)]
pub enum Client {
    Buildctl,
    /// What `docker buildx` runs: the program.
    Buildx(PathBuf),
}

/// A running BuildKit that has built nothing yet. It ends when this is dropped.
pub struct Buildkit {
    buildctl: PathBuf,
    daemon: Daemon,
}

/// What else than its own memory a build works with, by attributes as BuildKit writes them.
#[derive(Clone, Copy)]
pub enum Cache<'a> {
    None,
    Export(&'a str),
    Import(&'a str),
}

/// A build that succeeded.
pub struct Build {
    /// What BuildKit told of its steps, as plain text.
    pub progress: String,
    /// The files of the image.
    pub files: TempDir,
}

impl Buildkit {
    /// Starts the daemon, if this machine has BuildKit.
    pub async fn start() -> Option<Self> {
        let buildkitd = optional_tool("MOORAGE_BUILDKITD")?;
        let buildctl = optional_tool("MOORAGE_BUILDCTL")?;
        let daemon = Daemon::start(
            buildkitd.to_str().expect("the path is text"),
            &[],
            arguments,
            |folder| {
                let mut command = Command::new(&buildctl);
                command.arg("--addr").arg(address(folder)).args(["debug", "workers"]);
                command
            },
        );
        let daemon = daemon.await;
        Some(Self { buildctl, daemon })
    }

    /// Builds the image of the `Dockerfile` in a folder.
    pub async fn build(&self, client: &Client, folder: &Path, cache: Cache<'_>) -> Build {
        let files = TempDir::new().expect("a temporary folder");
        let (mut command, export, import) = match client {
            Client::Buildctl => (self.buildctl_build(folder), "--export-cache", "--import-cache"),
            Client::Buildx(program) => {
                (self.buildx_build(program, folder).await, "--cache-to", "--cache-from")
            }
        };
        command
            .args(["--progress=plain", "--output"])
            .arg(format!("type=local,dest={}", files.path().display()));
        match cache {
            Cache::None => {}
            Cache::Export(attributes) => _ = command.args([export, attributes]),
            Cache::Import(attributes) => _ = command.args([import, attributes]),
        }
        let output = output(&mut command).await;
        let progress = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{client:?} failed: {progress}");
        Build { progress, files }
    }

    fn buildctl_build(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.buildctl);
        command
            .arg("--addr")
            .arg(address(self.daemon.folder()))
            .args(["build", "--frontend=dockerfile.v0"])
            .arg(format!("--local=context={}", folder.display()))
            .arg(format!("--local=dockerfile={}", folder.display()));
        command
    }

    async fn buildx_build(&self, program: &Path, folder: &Path) -> Command {
        let mut create = self.buildx(program, "create");
        create.args(["--name=test", "--driver=remote"]).arg(address(self.daemon.folder()));
        // It is there already if this is not the first build.
        output(&mut create).await;
        let mut command = self.buildx(program, "build");
        command.args(["--builder=test", "--provenance=false"]).arg(folder);
        command
    }

    /// Without settings of whoever runs the tests.
    fn buildx(&self, program: &Path, name: &str) -> Command {
        let mut command = Command::new(program);
        command
            .arg(name)
            .env("DOCKER_CONFIG", self.daemon.folder().join("client"))
            .env("BUILDX_CONFIG", self.daemon.folder().join("buildx"));
        command
    }
}

fn address(folder: &Path) -> String {
    format!("unix://{}/socket", folder.display())
}

/// Everything in the daemon's folder, and for the steps of a build no network of their own.
fn arguments(folder: &Path) -> Vec<String> {
    // In place of the machine's own.
    let config = folder.join("buildkitd.toml");
    fs::write(&config, "").expect("a file");
    vec![
        format!("--config={}", config.display()),
        format!("--root={}/root", folder.display()),
        format!("--addr={}", address(folder)),
        "--containerd-worker=false".to_owned(),
        "--oci-worker-snapshotter=native".to_owned(),
        "--oci-worker-net=host".to_owned(),
    ]
}
