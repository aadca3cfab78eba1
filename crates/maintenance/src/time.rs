//! Times as they are kept of each object: whole seconds since 1970, which is what stores tell.

use std::time::{Duration, SystemTime};

use futures::future::LocalBoxFuture;

/// A time in seconds since 1970.
pub type Seconds = u32;

/// By how much the time of an object may differ from when it was written: stores count in seconds, and two nodes of one
/// differ by another. What was written so short a time ago may have been written again at the same time.
pub const CLOCK_STEP: Seconds = 2;

/// A time in whole seconds.
pub fn seconds(time: SystemTime) -> Seconds {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Seconds::try_from(since.as_secs()).unwrap_or(Seconds::MAX)
}

/// A clock to go by, and to wait for.
pub trait Clock {
    /// The time since 1970.
    fn now(&self) -> Duration;

    /// Waits so long.
    fn sleep(&self, time: Duration) -> LocalBoxFuture<'_, ()>;
}
