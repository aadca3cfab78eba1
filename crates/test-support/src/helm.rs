//! `helm`, the client for charts.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use crate::image::files;
use crate::process::run;

/// One user's helm, without settings and with no chart cached. Its folders go when this is dropped.
pub struct Helm {
    program: PathBuf,
    folder: TempDir,
}

impl Helm {
    /// `program` is helm.
    pub fn new(program: PathBuf) -> Self {
        Self { program, folder: TempDir::new().expect("a temporary folder") }
    }

    /// Packs a chart of this name and version, and gives the archive's path.
    pub async fn package(&self, name: &str, version: &str) -> PathBuf {
        let chart = self.folder.path().join("chart");
        fs::create_dir_all(chart.join("templates")).expect("a folder");
        let text = format!("apiVersion: v2\nname: {name}\nversion: {version}\n");
        fs::write(chart.join("Chart.yaml"), text).expect("a file");
        let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: settings }\n";
        fs::write(chart.join("templates/settings.yaml"), template).expect("a file");
        let folder = self.folder.path().to_str().expect("the path is text");
        self.run(&["package", "--destination", folder, &format!("{folder}/chart")]).await;
        self.folder.path().join(format!("{name}-{version}.tgz"))
    }

    /// Pushes a chart's archive into a folder of the registry, under its own name and version.
    pub async fn push(&self, archive: &Path, registry: SocketAddr, folder: &str) {
        let archive = archive.to_str().expect("the path is text");
        self.run(&["push", "--plain-http", archive, &format!("oci://{registry}/{folder}")]).await;
    }

    /// Pulls the newest of a chart's versions that is in the range `versions`, and gives the archive's
    /// name and content.
    pub async fn pull(
        &self,
        registry: SocketAddr,
        name: &str,
        versions: &str,
    ) -> (String, Vec<u8>) {
        let pulled = TempDir::new().expect("a temporary folder");
        let folder = pulled.path().to_str().expect("the path is text");
        let chart = format!("oci://{registry}/{name}");
        let pull = ["pull", "--plain-http", "--version", versions, "--destination", folder, &chart];
        self.run(&pull).await;
        files(pulled.path()).pop_first().expect("a chart was pulled")
    }

    /// helm, with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        for folder in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "DOCKER_CONFIG"] {
            command.env(folder, self.folder.path().join(folder));
        }
        command.args(arguments);
        command
    }

    async fn run(&self, arguments: &[&str]) {
        run(&mut self.command(arguments)).await;
    }
}
