//! `moorage serve` with a real Envoy: what is under way goes on to its end when it is told to end, and what can't start says
//! why.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::channel::mpsc;
use futures::future::join_all;
use http::Method;
use moorage::oci::Digest;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::client;
use moorage_test_support::envoy::{Bootstrap, listeners, stat};
use moorage_test_support::process::{output, own_address, tool, wait_for, within};
use moorage_test_support::tree::Tree;

/// More than the buffers of Envoy and of the kernel hold for one connection.
const BLOB_SIZE: usize = 16 * 1024 * 1024;

/// Of pulls and of pushes, each.
const CLIENTS: usize = 25;

/// A registry that `moorage serve` runs. It ends when this is dropped.
struct Served {
    server: SocketAddr,
    admin: SocketAddr,
    process: Child,
    blob: Digest,
    folder: TempDir,
    _store: BlobStore,
}

impl Served {
    async fn start(grace: &str, limit: &str) -> Self {
        Self::start_with(grace, limit, |bootstrap| bootstrap).await
    }

    /// The same, with changes to the bootstrap.
    async fn start_with(grace: &str, limit: &str, change: impl Fn(Bootstrap) -> Bootstrap) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let mut tree = Tree::default();
        let blob = tree.put_blob("a", Vec::leak(vec![7; BLOB_SIZE]));
        tree.write_to(&folder.path().join("buckets/registry"));
        let store = BlobStore::open(&folder.path().join("buckets")).await;
        let (file, admin) = (folder.path().join("envoy.yaml"), own_address());
        change(Bootstrap::new(store.address)).with_admin(admin).write_to(&file);
        let log = fs::File::create(folder.path().join("log")).expect("a log file");
        let mut process = serve(&file)
            .args(["--drain-grace", grace, "--drain-limit", limit])
            .args(["--", "--concurrency", "2", "--log-level", "warning"])
            .stderr(log)
            .spawn()
            .expect("the program starts");
        let listening = wait_for("the registry", async || {
            let ended = process.try_wait().expect("it can be asked");
            assert_eq!(ended, None, "{}", log_in(folder.path()));
            listeners(admin).await
        });
        let server = listening.await[0];
        Self { server, admin, process, blob, folder, _store: store }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.process.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        kill_process(pid.expect("it runs"), signal).expect("it can be sent");
    }

    async fn status(&mut self) -> Option<i32> {
        within("the end", self.process.wait()).await.expect("it can be waited for").code()
    }

    async fn status_of(&self, path: &str) -> Option<u16> {
        Some(client::try_get(self.server, path).await?.status().as_u16())
    }

    async fn under_way(&self, requests: u64) {
        wait_for("the requests", async || {
            let active = stat(self.admin, "http.registry.downstream_rq_active").await;
            (active == requests).then_some(())
        })
        .await;
    }

    /// Begins to take the blob, and stops after the answer's head.
    async fn pull(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.server).await.expect("it listens");
        let request = format!("GET /v2/a/blobs/{} HTTP/1.1\r\nHost: registry\r\n\r\n", self.blob);
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within("an answer", stream.read_u8()).await.expect("it goes on"));
        }
        assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
        stream
    }

    fn log(&self) -> String {
        log_in(self.folder.path())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // If a test has failed the program still runs. Killing it alone would leave Envoy.
        let Some(pid) = self.process.id() else { return };
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        for pid in children.unwrap_or_default().split_whitespace() {
            if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

fn log_in(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap_or_default()
}

fn serve(bootstrap: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moorage"));
    command.args(["serve", "--bootstrap"]).arg(bootstrap).arg("--envoy").arg(tool("MOORAGE_ENVOY"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command
}

/// Takes the rest of the blob as a client on a slow line does, and gives how much came.
async fn take_slowly(mut stream: TcpStream) -> usize {
    let (mut piece, mut taken) = (vec![0; 256 * 1024], 0);
    // Envoy closes the connection after the answer.
    loop {
        match within("a piece", stream.read(&mut piece)).await.expect("it goes on") {
            0 => break,
            length => taken += length,
        }
        // The line's speed.
        sleep(Duration::from_millis(10)).await;
    }
    taken
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn fifty_pulls_and_pushes_under_way_come_to_their_ends_when_it_is_told_to_end() {
    let mut served = Served::start("2s", "120s").await;
    let server = served.server;
    assert_eq!(served.status_of("/readyz").await, Some(200));
    let pulls = join_all((0..CLIENTS).map(|_| served.pull())).await;
    let (mut pieces, mut pushes) = (Vec::new(), Vec::new());
    for _ in 0..CLIENTS {
        let begun = client::request(Method::POST, "/v2/a/blobs/uploads/", &[]);
        let at = client::location(&client::send(server, begun).await);
        let (piece, sent) = mpsc::unbounded();
        piece.unbounded_send(Bytes::from_static(b"the first half, ")).expect("it is read");
        pieces.push(piece);
        pushes.push(tokio::spawn(async move {
            client::send_pieces(server, Method::PATCH, &at, &[], sent).await
        }));
    }
    served.under_way(2 * CLIENTS as u64).await;

    served.signal(Signal::TERM);
    wait_for("/readyz to fail", async || (served.status_of("/readyz").await? == 503).then_some(()))
        .await;
    // Load balancers have not seen it yet, so whoever comes is still served.
    assert_eq!(served.status_of("/v2/").await, Some(200));
    wait_for("new connections to be refused", async || TcpStream::connect(server).await.err())
        .await;

    for piece in pieces {
        piece.unbounded_send(Bytes::from_static(b"and the second")).expect("it is read");
    }
    for push in pushes {
        let pushed = within("a push", push).await.expect("it was not aborted");
        assert_eq!(
            (pushed.status().as_u16(), &pushed.headers()["range"]),
            (202, &"0-29".parse().expect("text"))
        );
    }
    let taken = join_all(pulls.into_iter().map(take_slowly)).await;
    assert_eq!(taken, [BLOB_SIZE; CLIENTS], "{}", served.log());
    assert_eq!(served.status().await, Some(0), "{}", served.log());
    assert!(served.log().contains("nothing is under way any more"), "{}", served.log());
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn the_end_of_an_answer_that_envoy_still_holds_is_not_cut_off() {
    let mut served = Served::start_with("0s", "120s", Bootstrap::with_small_send_buffers).await;
    let mut pull = served.pull().await;
    let (mut piece, mut taken) = (vec![0; 64 * 1024], 0);
    // To Envoy a request has ended once it has all of the answer.
    while stat(served.admin, "http.registry.downstream_rq_active").await > 0 {
        taken += within("a piece", pull.read(&mut piece)).await.expect("it goes on");
    }
    served.signal(Signal::TERM);
    wait_for("the drain to wait", async || {
        served.log().contains("still to take the ends of their answers").then_some(())
    })
    .await;
    assert_eq!(taken + take_slowly(pull).await, BLOB_SIZE);
    assert_eq!(served.status().await, Some(0), "{}", served.log());
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn a_second_signal_and_the_limit_cut_off_what_is_under_way() {
    for (grace, limit, signals, told) in [
        ("1h", "1h", &[Signal::TERM, Signal::INT][..], "told twice"),
        ("0s", "1s", &[Signal::INT][..], "1 request is under way after the limit"),
    ] {
        let mut served = Served::start(grace, limit).await;
        let _pull = served.pull().await;
        let begun = Instant::now();
        for signal in signals {
            served.signal(*signal);
            // Two of the same kind at once are one.
            wait_for("the drain", async || served.log().contains("drain").then_some(())).await;
        }
        assert_eq!(served.status().await, Some(0), "{}", served.log());
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        assert!(served.log().contains(told), "{}", served.log());
    }
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn health_says_what_envoy_does() {
    let served = Served::start("1h", "1h").await;
    let health = async || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moorage"));
        output(command.args(["health", "--admin", &served.admin.to_string()])).await
    };
    let well = health().await;
    assert_eq!((well.status.code(), well.stdout.as_slice()), (Some(0), &b"LIVE\n"[..]));
    served.signal(Signal::TERM);
    wait_for("the drain", async || (served.status_of("/readyz").await? == 503).then_some(())).await;
    assert_eq!(health().await.status.code(), Some(1));
    served.signal(Signal::TERM);
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn an_envoy_that_ends_by_itself_is_told_of_with_its_status() {
    let mut served = Served::start("5s", "5s").await;
    let admin = served.admin;
    let quit = client::send(admin, client::request(Method::POST, "/quitquitquit", &[])).await;
    assert_eq!(quit.status(), 200);
    assert_eq!(served.status().await, Some(0));
    assert!(served.log().contains("Envoy ended by itself with status 0"), "{}", served.log());
}

#[tokio::test]
#[ignore = "needs Envoy: run ./build.sh test"]
async fn what_can_not_start_says_why() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("envoy.yaml");
    let admin = format!(
        "admin: {{ address: {{ socket_address: {{ address: {}, port_value: 9901 }} }} }}\n",
        own_address().ip()
    );
    let wrong = format!("{admin}static_resources: {{ listeners: 7 }}\n");
    for (bootstrap, envoy, told) in [
        (wrong.as_str(), None, "Envoy ended by itself with status 1"),
        ("static_resources: {}\n", None, "has no `admin`"),
        ("[", None, "is no YAML"),
        (admin.as_str(), Some("/nowhere/envoy"), "there is no program `/nowhere/envoy`"),
    ] {
        fs::write(&file, bootstrap).expect("a file");
        let mut command = serve(&file);
        if let Some(envoy) = envoy {
            command = Command::new(env!("CARGO_BIN_EXE_moorage"));
            command.args(["serve", "--envoy", envoy, "--bootstrap"]).arg(&file);
        }
        let output = output(&mut command).await;
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{complaint}");
        assert!(complaint.contains(told), "{complaint}");
    }
}
