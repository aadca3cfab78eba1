//! The server: a socket, a service for what comes in by it, and signals that end it.

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::Failure;
use crate::options::{Keys, Options};
use crate::s3::Files;

/// Serves until a signal comes.
///
/// # Errors
///
/// Why it can't, in one line.
#[tokio::main]
pub async fn run(options: Options) -> Result<(), Failure> {
    // Before the line that tells others we are up: from then on a signal must end us cleanly.
    let stop = stop_signal()?;
    let service = open_store(&options)?;
    let listener = bind(options.listen).await?;
    announce(&listener)?;

    tokio::select! {
        () = serve(listener, service) => {}
        () = stop => {}
    }
    Ok(())
}

fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let watch = |kind| signal(kind).map_err(|error| format!("cannot watch signals: {error}"));
    let mut terminate = watch(SignalKind::terminate())?;
    let mut interrupt = watch(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn open_store(options: &Options) -> Result<S3Service, Failure> {
    create_bucket(&options.root, &options.bucket)?;
    let files = Files::open(&options.root, options.requires_length)
        .map_err(|error| format!("cannot write to {}: {error}", options.root.display()))?;
    let mut builder = S3ServiceBuilder::new(files);
    if let Some(Keys { access, secret }) = &options.keys {
        builder.set_auth(SimpleAuth::from_single(access.clone(), secret.clone()));
    }
    Ok(builder.build())
}

fn create_bucket(root: &Path, bucket: &str) -> Result<(), Failure> {
    let folder = root.join(bucket);
    std::fs::create_dir_all(&folder)
        .map_err(|error| format!("cannot create {}: {error}", folder.display()))
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))
}

/// Whoever started the store reads this line to learn the port, and that it may connect.
fn announce(listener: &TcpListener) -> Result<(), Failure> {
    let address = listener
        .local_addr()
        .map_err(|error| format!("cannot tell the address listened on: {error}"))?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "listening on {address}")
        .and_then(|()| stdout.flush())
        .map_err(|error| format!("cannot write to stdout: {error}"))
}

async fn serve(listener: TcpListener, service: S3Service) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                tokio::spawn(serve_connection(socket, service.clone()));
            }
            Err(error) => {
                eprintln!("blob-store: cannot accept a connection: {error}");
                // Out of file descriptors, most likely: without a pause this would spin.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn serve_connection(socket: TcpStream, service: S3Service) {
    // Head and body of an answer are two writes. With Nagle's algorithm on, the second waits
    // for the peer's delayed acknowledgement of the first: 40 ms for every answer.
    if let Err(error) = socket.set_nodelay(true) {
        eprintln!("blob-store: cannot set TCP_NODELAY, answers will be slow: {error}");
    }
    let builder = auto::Builder::new(hyper_util::rt::TokioExecutor::new());
    // An error here is a client that went away in the middle, as clients do.
    let _ = builder.serve_connection(TokioIo::new(socket), service).await;
}
