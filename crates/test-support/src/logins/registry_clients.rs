//! Clients that keep nothing but files of what they pull: crane, oras and helm.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{Client, Home, Outcome, Registry, outcome};
use crate::helm;

/// `crane`, which trusts what Go's library trusts.
pub struct Crane {
    program: PathBuf,
    registry: Registry,
    home: Home,
}

impl Crane {
    /// Nobody is logged in.
    pub fn new(program: PathBuf, registry: Registry) -> Self {
        Self { program, registry, home: Home::new() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("DOCKER_CONFIG", self.home.0.path())
            .env("SSL_CERT_FILE", &self.registry.certificate);
        command
    }
}

impl Client for Crane {
    const ASKS_AT_LOGIN: bool = false;

    async fn login(&mut self, user: &str, password: &str) -> Outcome {
        let host = &self.registry.host;
        let login = ["auth", "login", host, "--username", user, "--password", password];
        outcome(&mut self.command(&login)).await
    }

    async fn logout(&mut self) -> Outcome {
        outcome(&mut self.command(&["auth", "logout", &self.registry.host])).await
    }

    async fn pull(&self, reference: &str) -> Outcome {
        let pull = ["pull", "--format=oci", &self.registry.full(reference)];
        outcome(self.command(&pull).arg(self.home.to_be_pulled(reference))).await
    }

    async fn push(&self, source: &str, destination: &str) -> Outcome {
        let destination = self.registry.full(destination);
        outcome(self.command(&["push"]).arg(self.home.pulled(source)).arg(destination)).await
    }

    async fn copy(&self, source: &str, destination: &str) -> Outcome {
        let (source, destination) = (self.registry.full(source), self.registry.full(destination));
        outcome(&mut self.command(&["copy", &source, &destination])).await
    }
}

/// `oras`.
pub struct Oras {
    program: PathBuf,
    registry: Registry,
    home: Home,
}

impl Oras {
    /// Nobody is logged in.
    pub fn new(program: PathBuf, registry: Registry) -> Self {
        Self { program, registry, home: Home::new() }
    }

    /// The options for the registry, whose names begin with `side`.
    fn trust(&self, command: &mut Command, side: &str) {
        command
            .arg(format!("--{side}registry-config"))
            .arg(self.home.logins())
            .arg(format!("--{side}ca-file"))
            .arg(&self.registry.certificate);
    }

    /// A copy between two ends, each of which is a layout or a reference.
    async fn copy_between(&self, from: End<'_>, to: End<'_>) -> Outcome {
        let mut command = Command::new(&self.program);
        command.args(["copy", "--no-tty"]);
        for (side, end) in [("from-", from), ("to-", to)] {
            match end {
                End::Layout(folder) => {
                    command.arg(format!("--{side}oci-layout"));
                    command.arg(format!("{}:image", folder.display()));
                }
                End::Registry(reference) => {
                    self.trust(&mut command, side);
                    command.arg(self.registry.full(reference));
                }
            }
        }
        outcome(&mut command).await
    }
}

/// What oras copies from or to.
enum End<'a> {
    Layout(&'a Path),
    Registry(&'a str),
}

impl Client for Oras {
    async fn login(&mut self, user: &str, password: &str) -> Outcome {
        let mut command = Command::new(&self.program);
        command.args(["login", "--username", user, "--password", password]);
        self.trust(&mut command, "");
        outcome(command.arg(&self.registry.host)).await
    }

    async fn logout(&mut self) -> Outcome {
        let mut command = Command::new(&self.program);
        command.args(["logout", "--registry-config"]).arg(self.home.logins());
        outcome(command.arg(&self.registry.host)).await
    }

    async fn pull(&self, reference: &str) -> Outcome {
        let folder = self.home.to_be_pulled(reference);
        self.copy_between(End::Registry(reference), End::Layout(&folder)).await
    }

    async fn push(&self, source: &str, destination: &str) -> Outcome {
        let folder = self.home.pulled(source);
        self.copy_between(End::Layout(&folder), End::Registry(destination)).await
    }

    async fn copy(&self, source: &str, destination: &str) -> Outcome {
        self.copy_between(End::Registry(source), End::Registry(destination)).await
    }
}

/// `helm`. What it pulls and pushes are charts; a push has the chart's own name and version.
pub struct Helm {
    helm: helm::Helm,
    registry: Registry,
    home: Home,
}

impl Helm {
    /// Nobody is logged in.
    pub fn new(program: PathBuf, registry: Registry) -> Self {
        Self { helm: helm::Helm::new(program), registry, home: Home::new() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.helm.command(arguments);
        command.arg("--ca-file").arg(&self.registry.certificate);
        command
    }
}

impl Client for Helm {
    const MOUNTS: bool = false;

    async fn login(&mut self, user: &str, password: &str) -> Outcome {
        let host = &self.registry.host;
        let login = ["registry", "login", host, "--username", user, "--password", password];
        outcome(&mut self.command(&login)).await
    }

    async fn logout(&mut self) -> Outcome {
        outcome(&mut self.helm.command(&["registry", "logout", &self.registry.host])).await
    }

    async fn pull(&self, reference: &str) -> Outcome {
        let (name, version) = reference.rsplit_once(':').expect("a tag");
        let chart = format!("oci://{}", self.registry.full(name));
        let mut command = self.command(&["pull", &chart, "--version", version]);
        outcome(command.arg("--destination").arg(self.home.to_be_pulled(reference))).await
    }

    async fn push(&self, source: &str, destination: &str) -> Outcome {
        let archive = |reference: &str| {
            let (_, chart) = reference.rsplit_once('/').expect("a chart is in a folder");
            format!("{}.tgz", chart.replace(':', "-"))
        };
        assert_eq!(archive(source), archive(destination), "helm gives a chart no other name");
        let (folder, _) = destination.rsplit_once('/').expect("a chart is in a folder");
        let mut command = self.command(&["push"]);
        command.arg(self.home.pulled(source).join(archive(source)));
        outcome(command.arg(format!("oci://{}", self.registry.full(folder)))).await
    }
}
