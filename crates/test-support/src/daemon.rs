//! Daemons that need root's rights: containerd, docker's and BuildKit's.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::process::{output, wait_for};

/// A running daemon with a folder of its own. It lives in namespaces of its own as well: when this is
/// dropped the kernel ends every process that it started and releases every mount that it made.
pub struct Daemon {
    process: Child,
    folder: TempDir,
}

impl Daemon {
    /// Starts `program`, with these variables besides the test's own, and waits until the command that `probe` gives
    /// succeeds. Arguments and probe are told the daemon's folder.
    pub async fn start(
        program: &str,
        environment: &[(&str, String)],
        arguments: impl Fn(&Path) -> Vec<String>,
        probe: impl Fn(&Path) -> Command,
    ) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let log = folder.path().join("log");
        let process = Command::new("unshare")
            .args(["--mount", "--mount-proc", "--pid", "--fork", "--kill-child", program])
            .args(arguments(folder.path()))
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).expect("a log file"))
            .kill_on_drop(true)
            .spawn()
            .expect("unshare starts");
        let mut daemon = Self { process, folder };
        wait_for(program, async || {
            if let Ok(Some(status)) = daemon.process.try_wait() {
                let log = fs::read_to_string(&log).unwrap_or_default();
                panic!("{program} ended, {status}: {log}");
            }
            output(&mut probe(daemon.folder())).await.status.success().then_some(())
        })
        .await;
        daemon
    }

    /// The daemon's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.start_kill();
        // What it started ends a moment after it, and may write until then.
        for _ in 0..100 {
            if fs::remove_dir_all(self.folder()).is_ok() {
                return;
            }
            sleep(Duration::from_millis(20));
        }
    }
}
