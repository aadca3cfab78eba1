//! `moorage health`: whether the Envoy of this machine or container takes requests, for health checks of containers that
//! have no shell. Load balancers and Kubernetes ask `/readyz` of the registry itself.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;

use super::serve::Admin;
use crate::{Failure, output};

/// Says whether Envoy is ready: status 0 if so, 1 while it starts, drains or does not answer.
#[derive(Debug, Args)]
pub struct Health {
    /// Envoy's admin page.
    #[arg(long, value_name = "HOST:PORT", env = "MOORAGE_ADMIN", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
}

/// Asks Envoy's page `/ready`, and gives the status.
///
/// # Errors
///
/// If it does not answer, or with another status than 200.
pub async fn run(options: Health) -> Result<ExitCode, Failure> {
    let answer = Admin::at(options.admin)?.ready().await;
    output::say(answer.map_err(|error| Failure::Failed(error.to_string()))?);
    Ok(ExitCode::SUCCESS)
}
