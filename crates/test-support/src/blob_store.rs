//! The local blob store, `examples/blob-store.rs`, as a process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::process::{run, tool, within};

/// The keys of a store that demands signatures.
pub const ACCESS_KEY: &str = "moorage-test";
pub const SECRET_KEY: &str = "not-a-secret-at-all";

const ANY_PORT: &str = "127.0.0.1:0";

/// A running blob store. It ends when this is dropped.
pub struct BlobStore {
    pub address: SocketAddr,
    process: Child,
}

impl BlobStore {
    /// Serves the buckets below `root` to everyone.
    pub async fn open(root: &Path) -> Self {
        Self::start(root, ANY_PORT, &[]).await
    }

    /// Serves the buckets below `root` to everyone, at an address that another had.
    pub async fn reopen(root: &Path, address: SocketAddr) -> Self {
        Self::start(root, &address.to_string(), &[]).await
    }

    /// Ends it at once, in the middle of whatever it does.
    pub async fn kill(mut self) {
        self.process.kill().await.expect("the blob store runs");
    }

    /// Sends it a signal, such as `STOP`.
    pub async fn signal(&self, name: &str) {
        let pid = self.process.id().expect("the blob store runs").to_string();
        run(Command::new("kill").arg(format!("-{name}")).arg(pid)).await;
    }

    /// Serves the buckets below `root` to whoever signs with the keys above.
    pub async fn signed(root: &Path) -> Self {
        Self::start(root, ANY_PORT, &["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]).await
    }

    /// Serves the buckets below `root`, but takes no body whose length is not announced.
    pub async fn requiring_length(root: &Path) -> Self {
        Self::start(root, ANY_PORT, &["--require-length"]).await
    }

    async fn start(root: &Path, listen: &str, flags: &[&str]) -> Self {
        let mut process = Command::new(tool("MOORAGE_BLOB_STORE"))
            .args(["--listen", listen, "--root"])
            .arg(root)
            .args(flags)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the blob store starts");
        let stdout = process.stdout.take().expect("its output is piped");
        let mut lines = BufReader::new(stdout).lines();
        let line = within("the blob store", lines.next_line()).await;
        let line = line.expect("its output is text").expect("it says where it listens");
        let address = line.strip_prefix("listening on ").and_then(|text| text.parse().ok());
        Self { address: address.unwrap_or_else(|| panic!("no address in {line:?}")), process }
    }
}
