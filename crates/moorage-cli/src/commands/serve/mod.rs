//! `moorage serve`: starts the Envoy that serves the registry, and drains it before it ends. The entry point of the image,
//! where it is the first process and there is no shell.

mod admin;
mod bootstrap;
mod drain;
mod envoy;
mod signals;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

pub use admin::Admin;
pub use bootstrap::Bootstrap;

use super::bootstrap::SettingsSource;
use crate::{Failure, output};
use drain::Drain;
use envoy::Envoy;
use signals::{PassedOn, Stops};

/// Serves the registry: starts Envoy, and drains it on SIGTERM or SIGINT.
///
/// Envoy's bootstrap is made of a settings file and environment variables, as `moorage bootstrap` makes it, and written
/// nowhere.
///
/// Draining: /readyz answers 503, then no new connections are taken, then Envoy ends once nothing is under way. A second
/// signal ends it at once. SIGHUP and SIGUSR1 are passed on to Envoy.
#[derive(Debug, Args)]
#[command(
    after_help = "The status is Envoy's, 128 and the signal if one ended it, and 0 once it was told to end."
)]
pub struct Serve {
    #[command(flatten)]
    source: SettingsSource,

    /// In place of settings, a bootstrap for Envoy, in YAML or JSON.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    bootstrap: Option<PathBuf>,

    /// Envoy's program.
    #[arg(long, value_name = "PATH", env = "MOORAGE_ENVOY", default_value_os_t = envoy::default_program())]
    envoy: PathBuf,

    /// How long new connections are still taken once /readyz is 503, so that load balancers see that first.
    #[arg(long, value_name = "TIME", env = "MOORAGE_DRAIN_GRACE", default_value = "5s", value_parser = parse_time)]
    drain_grace: Duration,

    /// How long what is under way may take after that. Then it is cut off.
    #[arg(long, value_name = "TIME", env = "MOORAGE_DRAIN_LIMIT", default_value = "300s", value_parser = parse_time)]
    drain_limit: Duration,

    /// More arguments for Envoy, such as --concurrency 2 or --log-level warning.
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

/// No service manager waits for longer, and more than some centuries can't be added to a time.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

fn parse_time(text: &str) -> Result<Duration, String> {
    let time =
        humantime::parse_duration(text).map_err(|error| format!("{error}; such as 30s or 5min"))?;
    if time > LONGEST { Err("no more than a day".to_owned()) } else { Ok(time) }
}

/// Serves until Envoy ends, and gives the status.
///
/// # Errors
///
/// If Envoy can't be started, or what it is started with makes no sense.
pub async fn run(options: Serve) -> Result<ExitCode, Failure> {
    let (bootstrap, admin) = match options.bootstrap {
        Some(file) => bootstrap::read(file)?,
        None => {
            let settings = options.source.settings()?;
            (Bootstrap::of(&settings)?, settings.admin.0)
        }
    };
    let admin = Admin::at(admin)?;
    let drain = Drain { admin, grace: options.drain_grace, limit: options.drain_limit };
    // From here on signals don't end this program, which would leave Envoy alone.
    let mut stops = Stops::watch()?;
    let mut passed_on = PassedOn::watch()?;
    let mut envoy = Envoy::start(&options.envoy, bootstrap, &options.arguments)?;
    let pid = envoy.pid();
    tokio::select! {
        end = envoy.ended() => {
            output::complain(end.complaint());
            return Ok(end.status());
        }
        () = passed_on.to(pid) => {}
        () = drained(&mut stops, &drain) => {}
    }
    Ok(envoy.stop().await.status_after_stop())
}

/// Waits until this program is told to end, and drains, unless it is told so again.
async fn drained(stops: &mut Stops, drain: &Drain) {
    stops.next().await;
    tokio::select! {
        () = drain.run() => {}
        () = stops.next() => output::note("drain: told twice to end: what is under way is cut off"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        serve: Serve,
    }

    #[test]
    fn arguments_after_two_dashes_are_envoys() {
        let parse = |line: &str| Line::try_parse_from(line.split_whitespace());
        let line = "s --bootstrap b.yaml --drain-limit 5min -- --concurrency 2";
        let serve = parse(line).expect("it makes sense").serve;
        assert_eq!(serve.arguments, ["--concurrency", "2"]);
        assert_eq!(serve.drain_limit, Duration::from_secs(300));
        for wrong in
            ["--concurrency 2", "--drain-grace soon", "--drain-limit 25h", "--drain-limit 30"]
        {
            assert!(parse(&format!("s --bootstrap b.yaml {wrong}")).is_err(), "{wrong}");
        }
    }
}
