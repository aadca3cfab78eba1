//! Draining: no new requests come, and those under way go on to their end. `envoy/drain.sh` does the same for an Envoy
//! that somebody else has started.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::admin::{Admin, AdminError, UnderWay};
use crate::output;

/// How often Envoy is asked what is under way.
const PAUSE: Duration = Duration::from_millis(200);

/// How an Envoy is drained.
#[derive(Debug)]
pub struct Drain {
    pub admin: Admin,
    /// How long new connections are still taken once the health check fails.
    pub grace: Duration,
    /// How long what is under way may take after that.
    pub limit: Duration,
}

impl Drain {
    /// Drains, and returns when nothing is under way any more or the limit is reached. It says on standard error what
    /// it waits for. An Envoy that can't be drained, since it has only begun to start, is told of as well.
    pub async fn run(&self) {
        let outcome = self.steps().await;
        if let Err(error) = outcome {
            output::warn(format!("Envoy is not drained: {error}"));
        }
    }

    async fn steps(&self) -> Result<(), AdminError> {
        self.admin.fail_health_check().await?;
        let grace = humantime::format_duration(self.grace);
        output::note(format!(
            "drain: /readyz is 503 now; new connections are taken for another {grace}; a second signal ends at once"
        ));
        sleep(self.grace).await;
        self.admin.drain_listeners().await?;
        self.wait_for_requests().await
    }

    /// Waits until nothing is under way. What is said is said when it changes.
    async fn wait_for_requests(&self) -> Result<(), AdminError> {
        let deadline = Instant::now() + self.limit;
        let mut said = None;
        loop {
            let under_way = match self.admin.under_way().await {
                // A busy machine may be late with one answer.
                Err(AdminError::Away(..)) if Instant::now() < deadline => {
                    sleep(PAUSE).await;
                    continue;
                }
                answer => answer?,
            };
            if under_way.is_nothing() {
                output::note("drain: nothing is under way any more");
                return Ok(());
            }
            let UnderWay { requests, .. } = under_way;
            if Instant::now() >= deadline {
                output::warn(format!("{} after the limit: cut off", told(requests)));
                return Ok(());
            }
            if said != Some(requests) {
                output::note(format!("drain: {}", told(requests)));
                said = Some(requests);
            }
            sleep(PAUSE).await;
        }
    }
}

fn told(requests: u64) -> String {
    match requests {
        0 => "clients are still to take the ends of their answers".to_owned(),
        1 => "1 request is under way".to_owned(),
        requests => format!("{requests} requests are under way"),
    }
}
