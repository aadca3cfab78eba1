//! Clients that log in at a registry behind TLS, whose certificate they verify. Each keeps its logins in a folder of
//! its own and finds no other's.

mod containerd;
mod containers;
mod docker;
mod registry_clients;

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;
use tokio::process::Command;

use crate::process::output;
use crate::tls::Authority;

pub use containerd::Ctr;
pub use containers::{Engine, Skopeo};
pub use docker::Docker;
pub use registry_clients::{Crane, Helm, Oras};

/// What became of what a client was told to do; an error is what it said.
pub type Outcome = Result<(), String>;

/// A client with at most one login. References are a repository and a tag, without the registry.
#[expect(async_fn_in_trait, reason = "no test moves a client to another thread")]
pub trait Client {
    /// Whether it asks the registry when it logs in. Others learn only later that a password is wrong.
    const ASKS_AT_LOGIN: bool = true;

    /// Whether it has the registry mount blobs instead of sending them.
    const MOUNTS: bool = true;

    /// Logs in, instead of whoever was before.
    async fn login(&mut self, user: &str, password: &str) -> Outcome;

    /// Logs out.
    async fn logout(&mut self) -> Outcome;

    /// Pulls an image.
    async fn pull(&self, reference: &str) -> Outcome;

    /// Pushes what was pulled from `source`, sending it.
    async fn push(&self, source: &str, destination: &str) -> Outcome;

    /// Brings what was pulled from `source` to another repository of the registry, sending as little as it can.
    async fn copy(&self, source: &str, destination: &str) -> Outcome {
        self.push(source, destination).await
    }
}

/// A registry, as a client is told of it.
#[derive(Clone)]
pub struct Registry {
    /// Its host and port.
    pub host: String,
    /// The certificate that is to be trusted, in PEM.
    certificate: PathBuf,
    /// The folder with that and nothing else.
    certs_dir: PathBuf,
}

impl Registry {
    /// The registry at `host`, if it has a certificate by this authority.
    pub fn new(host: impl Into<String>, authority: &Authority) -> Self {
        let (certificate, certs_dir) = (authority.certificate(), authority.certs_dir());
        Self { host: host.into(), certificate, certs_dir }
    }

    fn full(&self, reference: &str) -> String {
        format!("{}/{reference}", self.host)
    }
}

/// Where a client keeps its login, and what it pulled.
struct Home(TempDir);

impl Home {
    /// Nobody is logged in.
    fn new() -> Self {
        let home = Self(TempDir::new().expect("a temporary folder"));
        fs::write(home.logins(), "{}").expect("a file");
        home
    }

    fn logins(&self) -> PathBuf {
        self.0.path().join("config.json")
    }

    /// The folder for what is pulled from there.
    fn pulled(&self, reference: &str) -> PathBuf {
        self.0.path().join("pulled").join(reference.replace([':', '/'], "_"))
    }

    /// The same, with nothing in it.
    fn to_be_pulled(&self, reference: &str) -> PathBuf {
        let folder = self.pulled(reference);
        if folder.exists() {
            fs::remove_dir_all(&folder).expect("what was pulled can be removed");
        }
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }
}

async fn outcome(command: &mut Command) -> Outcome {
    let output = output(command).await;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
