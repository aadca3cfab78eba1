//! docker, with a daemon of its own, which is the one that talks to the registry.

use std::path::PathBuf;

use super::{Client, Outcome, Registry, outcome};
use crate::docker;
use crate::proxy::Proxy;

/// docker.
pub struct Docker {
    docker: docker::Docker,
    registry: Registry,
    _proxy: Proxy,
}

impl Docker {
    /// Nobody is logged in. `program` is docker. It finds the registry through `proxy`: at an address of this machine
    /// itself, docker would not verify the certificate.
    pub async fn start(program: PathBuf, registry: Registry, proxy: Proxy) -> Self {
        let environment = [
            ("SSL_CERT_FILE", registry.certificate.display().to_string()),
            ("HTTPS_PROXY", format!("http://{}", proxy.address)),
            ("NO_PROXY", String::new()),
        ];
        let docker = docker::Docker::start_with(program, &environment).await;
        Self { docker, registry, _proxy: proxy }
    }

    async fn outcome(&self, arguments: &[&str]) -> Outcome {
        outcome(&mut self.docker.command(arguments)).await
    }
}

impl Client for Docker {
    async fn login(&mut self, user: &str, password: &str) -> Outcome {
        let login = ["login", "--username", user, "--password", password, &self.registry.host];
        self.outcome(&login).await
    }

    async fn logout(&mut self) -> Outcome {
        self.outcome(&["logout", &self.registry.host]).await
    }

    async fn pull(&self, reference: &str) -> Outcome {
        self.outcome(&["pull", "--quiet", &self.registry.full(reference)]).await
    }

    async fn push(&self, source: &str, destination: &str) -> Outcome {
        let (source, destination) = (self.registry.full(source), self.registry.full(destination));
        self.outcome(&["tag", &source, &destination]).await?;
        self.outcome(&["push", "--quiet", &destination]).await
    }
}
