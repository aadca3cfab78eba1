//! The system's clock, and its signals.

use std::future::Future;
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt as _;
use futures::future::{LocalBoxFuture, select};
use moorage_maintenance::time::Clock;
use tokio::signal::unix::{SignalKind, signal};

use crate::Failure;

/// The time since 1970, as the system had it when this was made and as it has passed since.
///
/// A collection counts on its marker for so long after it wrote it. So time must not stand still because the system's clock
/// is set back; nor because the machine sleeps, which is no time for the clock that is never set.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    begun: (SystemTime, Instant),
}

impl SystemClock {
    /// A clock that begins now.
    pub fn begin() -> Self {
        Self { begun: (SystemTime::now(), Instant::now()) }
    }
}

/// How much time has passed, by a clock that may be set and by one that may stand still; `None` if the one was set back to
/// before the beginning.
fn passed(by_system: Option<Duration>, steady: Duration) -> Duration {
    by_system.map_or(steady, |time| time.max(steady))
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        let (system, steady) = self.begun;
        let since_begun = passed(system.elapsed().ok(), steady.elapsed());
        let begun = system.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        begun.saturating_add(since_begun)
    }

    fn sleep(&self, time: Duration) -> LocalBoxFuture<'_, ()> {
        tokio::time::sleep(time).boxed_local()
    }
}

/// Waits for a signal that asks the program to end: SIGINT or SIGTERM.
///
/// # Errors
///
/// If signals can't be watched.
pub fn interrupted() -> Result<impl Future<Output = ()>, Failure> {
    let watch = |kind| {
        signal(kind).map_err(|error| Failure::Failed(format!("signals can't be watched: {error}")))
    };
    let (mut interrupt, mut terminate) =
        (watch(SignalKind::interrupt())?, watch(SignalKind::terminate())?);
    Ok(async move {
        let signals = (Box::pin(interrupt.recv()), Box::pin(terminate.recv()));
        select(signals.0, signals.1).await;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_while_the_system_s_clock_is_set_back_and_while_the_machine_sleeps() {
        let seconds = Duration::from_secs;
        assert_eq!(passed(Some(seconds(10)), seconds(10)), seconds(10));
        assert_eq!(passed(Some(seconds(1)), seconds(10)), seconds(10), "set back by a little");
        assert_eq!(passed(None, seconds(10)), seconds(10), "set back by hours");
        assert_eq!(passed(Some(seconds(3600)), seconds(10)), seconds(3600), "asleep for an hour");
    }
}
