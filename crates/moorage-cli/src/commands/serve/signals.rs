//! The signals that `moorage serve` is sent.

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{self, SignalKind};

use crate::Failure;

/// Those that tell it to end.
#[derive(Debug)]
pub struct Stops {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl Stops {
    /// Watches for them from now on. They end the program no more by themselves.
    ///
    /// # Errors
    ///
    /// If the system does not let it.
    pub fn watch() -> Result<Self, Failure> {
        let (terminate, interrupt) =
            (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Those that are Envoy's business: it opens its log files anew on SIGUSR1, and says that it leaves SIGHUP alone.
#[derive(Debug)]
pub struct PassedOn {
    hang_up: unix::Signal,
    user: unix::Signal,
}

impl PassedOn {
    /// Watches for them from now on.
    ///
    /// # Errors
    ///
    /// If the system does not let it.
    pub fn watch() -> Result<Self, Failure> {
        let (hang_up, user) = (watch(SignalKind::hangup())?, watch(SignalKind::user_defined1())?);
        Ok(Self { hang_up, user })
    }

    /// Passes them on to a process that runs, for ever.
    pub async fn to(&mut self, process: Pid) {
        loop {
            let signal = tokio::select! {
                _ = self.hang_up.recv() => Signal::HUP,
                _ = self.user.recv() => Signal::USR1,
            };
            // One that has ended at this moment needs it no more.
            let _ = kill_process(process, signal);
        }
    }
}

fn watch(kind: SignalKind) -> Result<unix::Signal, Failure> {
    unix::signal(kind)
        .map_err(|error| Failure::Failed(format!("signals can't be watched: {error}")))
}
