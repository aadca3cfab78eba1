//! The S3 store `garage`, as a process: a distributed store of one node, which demands signatures.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::blob_store::{ACCESS_KEY, SECRET_KEY};
use super::client;
use super::process::wait_for;

/// A running store with the empty bucket `registry`. It ends when this is dropped.
pub struct Garage {
    pub address: SocketAddr,
    _process: Child,
    _folder: TempDir,
}

impl Garage {
    /// Starts the program `garage` and waits until it serves. The keys are the local blob store's.
    pub async fn start(garage: &Path) -> Self {
        loop {
            // Garage can't choose ports by itself. Until it has them somebody else may take them.
            if let Some(store) = Self::try_start(garage).await {
                return store;
            }
        }
    }

    /// Starts it on ports that are free now; `None` if they were taken when it wanted them.
    async fn try_start(garage: &Path) -> Option<Self> {
        let folder = TempDir::new().expect("a temporary folder");
        let address = free_address();
        let config = folder.path().join("garage.toml");
        let log = folder.path().join("log");
        fs::write(&config, configuration(folder.path(), address)).expect("a file");
        let mut process = Command::new(garage)
            .arg("-c")
            .arg(&config)
            .args(["server", "--single-node", "--default-bucket"])
            .env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY)
            .env("GARAGE_DEFAULT_SECRET_KEY", SECRET_KEY)
            .env("GARAGE_DEFAULT_BUCKET", "registry")
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).expect("a log file"))
            .kill_on_drop(true)
            .spawn()
            .expect("garage starts");
        let serves = wait_for("garage", async || {
            if let Ok(Some(status)) = process.try_wait() {
                let log = fs::read_to_string(&log).unwrap_or_default();
                assert!(log.contains("Address already in use"), "garage ended, {status}: {log}");
                return Some(false);
            }
            client::try_get(address, "/").await.map(|_| true)
        });
        serves.await.then(|| Self { address, _process: process, _folder: folder })
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

/// The region is the one that requests are signed for. The secret is for other nodes; there are none.
fn configuration(folder: &Path, address: SocketAddr) -> String {
    let (rpc, folder, secret) = (free_address(), folder.display(), "0".repeat(64));
    format!(
        r#"metadata_dir = "{folder}/meta"
data_dir = "{folder}/data"
db_engine = "lmdb"
replication_factor = 1
rpc_bind_addr = "{rpc}"
rpc_secret = "{secret}"
[s3_api]
s3_region = "us-east-1"
api_bind_addr = "{address}"
"#
    )
}
