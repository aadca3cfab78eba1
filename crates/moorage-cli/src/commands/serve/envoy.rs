//! The Envoy that `moorage serve` starts: its process from start to end.
//!
//! `moorage serve` may be the first process of a container. Such a one gets the children of processes that ended, so what
//! is waited for here is any child.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use tokio::signal::unix;
use tokio::time::timeout;

use super::bootstrap::Bootstrap;
use crate::{Failure, output};

/// How long Envoy may take to end, once it is told to.
const PATIENCE: Duration = Duration::from_secs(5);

/// How Envoy came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Status(u8),
    /// By this signal.
    Signal(i32),
}

impl End {
    /// The status for whoever started this program: Envoy's own, or 128 and the signal, as shells have it.
    pub fn status(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Status(status) => status,
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        })
    }

    /// The status if this program has told Envoy to end: one that was still starting ends by the signal, and all is well.
    pub fn status_after_stop(self) -> ExitCode {
        match self {
            Self::Signal(signal) if signal == Signal::TERM.as_raw() => ExitCode::SUCCESS,
            end => end.status(),
        }
    }

    /// What is said if nobody told Envoy to end.
    pub fn complaint(self) -> String {
        match self {
            Self::Status(status) => {
                format!("Envoy ended by itself with status {status}: what it wrote above says why")
            }
            Self::Signal(signal) if signal == Signal::KILL.as_raw() => {
                "Envoy was killed (signal 9), most likely for want of memory: give it more, or lower max_heap_bytes, \
                 cache.max_bytes and limits.memory_bytes"
                    .to_owned()
            }
            Self::Signal(signal) => format!(
                "Envoy was ended by signal {signal}: what it wrote above may say why; if it crashed, that is a fault \
                 worth a report"
            ),
        }
    }
}

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    pid: Pid,
    children: unix::Signal,
    end: Option<End>,
}

impl Envoy {
    /// Starts the program with a bootstrap and more arguments.
    ///
    /// # Errors
    ///
    /// If it is not there, or can't be started.
    pub fn start(
        program: &Path,
        bootstrap: Bootstrap,
        arguments: &[OsString],
    ) -> Result<Self, Failure> {
        // Before the child is there, so that no end of it is missed.
        let children = unix::signal(unix::SignalKind::child());
        let children = children.map_err(|error| {
            Failure::Failed(format!("the ends of child processes can't be watched: {error}"))
        })?;
        let mut command = Command::new(program);
        command.arg("--disable-hot-restart");
        // In a process group of its own: a Ctrl-C reaches this program alone, which drains Envoy first.
        command.args(arguments).process_group(0);
        let child = bootstrap.give_to(&mut command);
        let child = child.map_err(|error| cannot_start(program, &error))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::Failed("Envoy has no process id".to_owned()))?;
        Ok(Self { pid, children, end: None })
    }

    /// The process, for signals.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits for its end. May be given up and called again.
    pub async fn ended(&mut self) -> End {
        loop {
            self.reap();
            if let Some(end) = self.end {
                return end;
            }
            // `None` never comes: the handler stays.
            let _ = self.children.recv().await;
        }
    }

    /// Tells it to end, and makes it if it does not.
    pub async fn stop(&mut self) -> End {
        self.send(Signal::TERM);
        if let Ok(end) = timeout(PATIENCE, self.ended()).await {
            return end;
        }
        output::warn("Envoy does not end when it is told to: it is killed");
        self.send(Signal::KILL);
        self.ended().await
    }

    /// To nobody once Envoy has ended: its number may be another one's by then.
    fn send(&mut self, signal: Signal) {
        self.reap();
        if self.end.is_none() {
            // It has ended at this moment, or gets it.
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Takes note of all children that have ended.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.pid {
                self.end = end(status).or(self.end);
            }
        }
    }
}

fn end(status: WaitStatus) -> Option<End> {
    let exited = status.exit_status().map(|status| End::Status(u8::try_from(status).unwrap_or(1)));
    exited.or(status.terminating_signal().map(End::Signal))
}

fn cannot_start(program: &Path, error: &std::io::Error) -> Failure {
    let name = program.display();
    Failure::Failed(match error.kind() {
        std::io::ErrorKind::NotFound => format!(
            "there is no program `{name}`: install Envoy 1.38 or later, or say where it is with --envoy"
        ),
        _ => format!("`{name}` can't be started: {error}"),
    })
}

/// Where a program is looked for that is named by no option.
pub fn default_program() -> PathBuf {
    PathBuf::from("envoy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_was_asked_for_is_none_to_complain_of() {
        let success = format!("{:?}", ExitCode::SUCCESS);
        for (end, expected) in [
            (End::Status(0), ExitCode::SUCCESS),
            (End::Status(3), ExitCode::from(3)),
            (End::Signal(15), ExitCode::SUCCESS),
            (End::Signal(9), ExitCode::from(137)),
        ] {
            let status = format!("{:?}", end.status_after_stop());
            assert_eq!(status, format!("{expected:?}"), "{end:?}");
        }
        assert_ne!(format!("{:?}", End::Signal(15).status()), success);
    }
}
