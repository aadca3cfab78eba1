//! `moorage health`: whether the Envoy of this machine or container takes requests, or a registry is ready: for health
//! checks where there is no shell. Load balancers and Kubernetes' own probes ask `/readyz` of the registry themselves.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::serve::Admin;
use crate::signed_http::{plain_client_builder, root_cause};
use crate::{Failure, output};

/// How long a registry may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most bytes of an answer that are shown.
const SHOWN: usize = 4096;

/// Says whether Envoy is ready: status 0 if so, 1 while it starts, drains or does not answer.
#[derive(Debug, Args)]
pub struct Health {
    /// Envoy's admin page.
    #[arg(long, value_name = "HOST:PORT", env = "MOORAGE_ADMIN", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,

    /// Ask this page instead, such as http://registry:5000/readyz.
    #[arg(long, value_name = "URL")]
    url: Option<String>,

    /// Take any certificate from it.
    #[arg(long, requires = "url")]
    insecure: bool,
}

/// Asks Envoy's page `/ready`, or the URL, and gives the status.
///
/// # Errors
///
/// If it does not answer, or with another status than 200.
pub async fn run(options: Health) -> Result<ExitCode, Failure> {
    let answer = match &options.url {
        Some(url) => ask(url, options.insecure).await?,
        None => {
            let answer = Admin::at(options.admin)?.ready().await;
            answer.map_err(|error| Failure::Failed(error.to_string()))?
        }
    };
    output::say(answer);
    Ok(ExitCode::SUCCESS)
}

async fn ask(url: &str, insecure: bool) -> Result<String, Failure> {
    let failed = |error: reqwest::Error| {
        Failure::Failed(format!("{url} does not answer: {}", root_cause(&error)))
    };
    let client = plain_client_builder().timeout(PATIENCE).tls_danger_accept_invalid_certs(insecure);
    let response = client.build().map_err(failed)?.get(url).send().await.map_err(failed)?;
    let status = response.status();
    let body = response.text().await.map_err(failed)?;
    let shown: String = body.trim_end().chars().take(SHOWN).collect();
    match status.as_u16() {
        200 => Ok(shown),
        _ => Err(Failure::Failed(format!("{url} answers {status}: {shown}"))),
    }
}
