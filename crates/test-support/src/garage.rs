//! The S3 store `garage`, as processes: a distributed store, which demands signatures. Of one node, or of
//! three that keep everything three times.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::blob_store::{ACCESS_KEY, SECRET_KEY};
use crate::client;
use crate::process::{self, wait_for};

const BUCKET: &str = "registry";

/// A running store with the empty bucket `registry`. It ends when this is dropped.
pub struct Garage {
    pub address: SocketAddr,
    _node: Node,
}

impl Garage {
    /// Starts the program `garage` and waits until it serves. The keys are the local blob store's.
    pub async fn start(garage: &Path) -> Self {
        loop {
            // Garage can't choose ports by itself. Until it has them somebody else may take them.
            let mut node = Node::new(garage, 1);
            if node.serve(&["--single-node", "--default-bucket"]).await {
                return Self { address: node.address, _node: node };
            }
        }
    }
}

/// A store of three running nodes with the empty bucket `registry`. Two of them are enough to read and to
/// write. They end when this is dropped.
pub struct GarageCluster {
    nodes: Vec<Node>,
}

impl GarageCluster {
    const NODES: usize = 3;

    /// Starts the nodes and makes them one store. The keys are the local blob store's.
    pub async fn start(garage: &Path) -> Self {
        let mut nodes = Vec::new();
        while nodes.len() < Self::NODES {
            let mut node = Node::new(garage, Self::NODES);
            if node.serve(&[]).await {
                nodes.push(node);
            }
        }
        let cluster = Self { nodes };
        cluster.set_up().await;
        cluster
    }

    async fn set_up(&self) {
        let first = &self.nodes[0];
        for node in &self.nodes {
            let (id, at) = node.id().await;
            if node.address != first.address {
                first.run(&["node", "connect", &format!("{id}@{at}")]).await;
            }
            first.run(&["layout", "assign", &id, "-z", "dc1", "-c", "1G"]).await;
        }
        first.run(&["layout", "apply", "--version", "1"]).await;
        self.is_whole().await;
        first.run(&["key", "import", "--yes", "-n", "registry", ACCESS_KEY, SECRET_KEY]).await;
        first.run(&["bucket", "create", BUCKET]).await;
        first.run(&["bucket", "allow", "--read", "--write", "--key", ACCESS_KEY, BUCKET]).await;
    }

    /// Waits until each node is in touch with all.
    async fn is_whole(&self) {
        for node in &self.nodes {
            wait_for("a node of garage to see all others", async || node.sees_all().await).await;
        }
    }

    /// Where each node serves.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// Ends a node at once, in the middle of whatever it does.
    pub async fn kill(&mut self, number: usize) {
        let process = self.nodes[number].process.as_mut().expect("it was started");
        process.kill().await.expect("the node runs");
    }

    /// Starts a node again that was killed, and waits until all are in touch.
    pub async fn restart(&mut self, number: usize) {
        while !self.nodes[number].serve(&[]).await {}
        self.is_whole().await;
    }
}

/// A process of Garage, and what it keeps.
struct Node {
    garage: PathBuf,
    folder: TempDir,
    address: SocketAddr,
    process: Option<Child>,
}

impl Node {
    /// A node on ports that are free now, which keeps a copy of everything, of so many.
    fn new(garage: &Path, copies: usize) -> Self {
        let (garage, folder) = (garage.to_owned(), TempDir::new().expect("a temporary folder"));
        let address = free_address();
        let node = Self { garage, folder, address, process: None };
        let configuration = configuration(node.folder.path(), address, copies);
        fs::write(node.configuration(), configuration).expect("a file");
        node
    }

    fn configuration(&self) -> PathBuf {
        self.folder.path().join("garage.toml")
    }

    /// `garage` with its configuration, which also tells commands where the node is.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.garage);
        command.arg("-c").arg(self.configuration()).args(arguments);
        command
    }

    /// Starts it and waits until it serves. Whether it does: its ports may have been taken.
    async fn serve(&mut self, flags: &[&str]) -> bool {
        let log = self.folder.path().join("log");
        let mut process = self
            .command(&["server"])
            .args(flags)
            .env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY)
            .env("GARAGE_DEFAULT_SECRET_KEY", SECRET_KEY)
            .env("GARAGE_DEFAULT_BUCKET", BUCKET)
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
            client::try_get(self.address, "/").await.map(|_| true)
        })
        .await;
        self.process = Some(process);
        serves
    }

    /// Runs a command at the node, and gives what it printed.
    async fn run(&self, arguments: &[&str]) -> String {
        let printed = process::run(&mut self.command(arguments)).await;
        String::from_utf8(printed).expect("garage prints text")
    }

    /// Its id, and where other nodes find it.
    async fn id(&self) -> (String, String) {
        let printed = self.run(&["node", "id", "-q"]).await;
        let (id, at) = printed.trim().split_once('@').expect("an id and an address");
        (id.to_owned(), at.to_owned())
    }

    async fn sees_all(&self) -> Option<()> {
        let output = process::output(&mut self.command(&["json-api", "GetClusterHealth"])).await;
        let health: Value = serde_json::from_slice(&output.stdout).ok()?;
        (health["status"] == "healthy" && health["connectedNodes"] == GarageCluster::NODES)
            .then_some(())
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

/// The region is the one that requests are signed for. By the secret the nodes of a store know each other.
fn configuration(folder: &Path, address: SocketAddr, copies: usize) -> String {
    let (rpc, folder, secret) = (free_address(), folder.display(), "0".repeat(64));
    format!(
        r#"metadata_dir = "{folder}/meta"
data_dir = "{folder}/data"
db_engine = "lmdb"
replication_factor = {copies}
rpc_bind_addr = "{rpc}"
rpc_public_addr = "{rpc}"
rpc_secret = "{secret}"
[s3_api]
s3_region = "us-east-1"
api_bind_addr = "{address}"
"#
    )
}
