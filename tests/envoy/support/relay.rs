//! A relay that counts what a server sends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A running relay. It takes no more connections when this is dropped.
pub struct Relay {
    pub address: SocketAddr,
    sent: Arc<AtomicU64>,
    listener: JoinHandle<()>,
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
        let sent = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sent);
        let listener = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                // A connection that breaks is the affair of those at its ends.
                tokio::spawn(async move { relay(client, server, &count).await.ok() });
            }
        });
        Self { address, sent, listener }
    }

    /// How many bytes the server has sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

async fn relay(client: TcpStream, server: SocketAddr, sent: &AtomicU64) -> std::io::Result<()> {
    let (mut from_server, mut to_server) = TcpStream::connect(server).await?.into_split();
    let (mut from_client, mut to_client) = client.into_split();
    let there = async {
        copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let back = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let size = from_server.read(&mut buffer).await?;
            if size == 0 {
                return to_client.shutdown().await;
            }
            sent.fetch_add(size as u64, Ordering::Relaxed);
            to_client.write_all(&buffer[..size]).await?;
        }
    };
    tokio::try_join!(there, back).map(drop)
}
