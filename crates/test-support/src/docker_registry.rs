//! Debian's `docker-registry` (CNCF Distribution 2.8) on the same tree: the peer.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::process::{output, wait_for};

/// A running registry. It ends when this is dropped.
pub struct DockerRegistry {
    pub address: SocketAddr,
    _process: Child,
    folder: TempDir,
}

/// What its `garbage-collect --dry-run` calls garbage.
#[derive(Debug, Default)]
pub struct Eligible {
    /// Manifests, with their repositories.
    pub manifests: BTreeSet<(String, String)>,
    /// Contents: of blobs, and of manifests.
    pub contents: BTreeSet<String>,
}

impl DockerRegistry {
    /// Serves the registry that lies in the folder `bucket`.
    pub async fn start(bucket: &Path) -> Self {
        Self::start_with(bucket, "").await
    }

    /// The same, and takes signed schema 1 manifests. What it signs itself it signs with the key in the
    /// file `key`, a JWK.
    pub async fn with_schema1(bucket: &Path, key: &Path) -> Self {
        let key = key.display();
        let compatibility =
            format!("compatibility: {{ schema1: {{ enabled: true, signingkeyfile: {key} }} }}\n");
        Self::start_with(bucket, &compatibility).await
    }

    /// Has it tell what is garbage; with `options`, such as `--delete-untagged`.
    ///
    /// # Errors
    ///
    /// What it says if it gives up.
    pub async fn garbage(&self, options: &[&str]) -> Result<Eligible, String> {
        let mut command = Command::new("docker-registry");
        command.args(["garbage-collect", "--dry-run"]).args(options);
        let output = output(command.arg(self.folder.path().join("config.yml"))).await;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let (mut eligible, mut repository) = (Eligible::default(), String::new());
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            match line.split_once(" eligible for deletion: ") {
                Some(("manifest", digest)) => {
                    eligible.manifests.insert((repository.clone(), digest.to_owned()));
                }
                Some(("blob", digest)) => {
                    eligible.contents.insert(digest.to_owned());
                }
                // Each repository begins with its name.
                _ if !line.is_empty() && !line.contains([' ', ':']) => repository = line.to_owned(),
                _ => {}
            }
        }
        Ok(eligible)
    }

    async fn start_with(bucket: &Path, more: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let config = folder.path().join("config.yml");
        let log = folder.path().join("log");
        let root = bucket.display();
        let text = format!(
            "version: 0.1\n\
             log: {{ formatter: json }}\n\
             storage: {{ filesystem: {{ rootdirectory: {root} }}, delete: {{ enabled: true }} }}\n\
             http: {{ addr: '127.0.0.1:0' }}\n\
             {more}"
        );
        fs::write(&config, text).expect("the configuration is written");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).expect("a log file"))
            .kill_on_drop(true)
            .spawn()
            .expect("docker-registry starts");
        let address = wait_for("docker-registry", async || {
            let text = fs::read_to_string(&log).ok()?;
            let (_, rest) = text.split_once("listening on ")?;
            rest.split_once('"')?.0.parse().ok()
        });
        Self { address: address.await, _process: process, folder }
    }
}
