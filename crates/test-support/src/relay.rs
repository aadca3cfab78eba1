//! A relay between a client and a server: it counts what passes, and is slow or dies when it is told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// A running relay. It takes no more connections when this is dropped.
pub struct Relay {
    pub address: SocketAddr,
    line: Arc<Line>,
    listener: JoinHandle<()>,
}

/// What all connections of a relay share.
struct Line {
    /// How many bytes the server has sent.
    sent: AtomicU64,
    /// How many bytes clients may send before the relay dies.
    left: AtomicU64,
    /// How many bytes pass from a client in a second.
    rate: AtomicU64,
    is_dead: watch::Sender<bool>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Relay {
    /// Relays to `server`.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let line = Arc::new(Line {
            sent: AtomicU64::new(0),
            left: AtomicU64::new(u64::MAX),
            rate: AtomicU64::new(u64::MAX),
            is_dead: watch::Sender::new(false),
        });
        let shared = Arc::clone(&line);
        let listener = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let line = Arc::clone(&shared);
                // A connection that breaks is the affair of those at its ends.
                tokio::spawn(async move { line.relay(client, server).await.ok() });
            }
        });
        Self { address, line, listener }
    }

    /// How many bytes the server has sent so far.
    pub fn sent(&self) -> u64 {
        self.line.sent.load(Ordering::Relaxed)
    }

    /// From now on so many bytes pass from each client in a second.
    pub fn slow_down(&self, bytes_per_second: u64) {
        self.line.rate.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Dies when clients have sent so many bytes more: every connection breaks, and so do new ones.
    pub fn die_after(&self, bytes: u64) {
        self.line.left.store(bytes, Ordering::Relaxed);
    }

    /// Whether it is dead.
    pub fn is_dead(&self) -> bool {
        *self.line.is_dead.borrow()
    }

    /// Relays again.
    pub fn revive(&self) {
        self.line.left.store(u64::MAX, Ordering::Relaxed);
        self.line.is_dead.send_replace(false);
    }
}

impl Line {
    async fn relay(&self, client: TcpStream, server: SocketAddr) -> std::io::Result<()> {
        let mut is_dead = self.is_dead.subscribe();
        if *is_dead.borrow() {
            return client.set_zero_linger();
        }
        let (mut from_server, mut to_server) = TcpStream::connect(server).await?.into_split();
        let (mut from_client, mut to_client) = client.into_split();
        let there = pass(&mut from_client, &mut to_server, |size| {
            self.is_let_through(size).then(|| self.time_of(size))
        });
        let back = pass(&mut from_server, &mut to_client, |size| {
            self.sent.fetch_add(size, Ordering::Relaxed);
            Some(Duration::ZERO)
        });
        tokio::select! {
            // The sender lives as long as `self`.
            _ = is_dead.wait_for(|is_dead| *is_dead) => Ok(()),
            result = async { tokio::try_join!(there, back) } => result.map(drop),
        }
    }

    /// How long so many bytes from a client take.
    fn time_of(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.rate.load(Ordering::Relaxed) as f64)
    }

    /// Whether clients may send so many bytes more. If not, this is the end.
    fn is_let_through(&self, bytes: u64) -> bool {
        let take = |left: u64| left.checked_sub(bytes);
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        if taken.is_err() {
            self.is_dead.send_replace(true);
        }
        taken.is_ok()
    }
}

/// Passes on what comes, each after the time that `takes` says of its size, if it is to pass at all.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    takes: impl Fn(u64) -> Option<Duration>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let size = from.read(&mut buffer).await?;
        if size == 0 {
            return to.shutdown().await;
        }
        if let Some(time) = takes(size as u64) {
            sleep(time).await;
            to.write_all(&buffer[..size]).await?;
        }
    }
}
