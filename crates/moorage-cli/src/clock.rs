//! The system's clock, and its signals.

use std::future::Future;
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use futures::future::{LocalBoxFuture, select};
use moorage_maintenance::time::Clock;
use tokio::signal::unix::{SignalKind, signal};

use crate::Failure;

/// The system's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
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
