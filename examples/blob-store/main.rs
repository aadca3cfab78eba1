//! A blob store for one machine: an S3 server that keeps a bucket in a folder.
//!
//! `./build.sh run` and the integration tests put it behind Envoy, so that trying Moorage needs
//! neither an account nor a network. Object `k` of bucket `b` is the file `<root>/b/k`, which makes
//! the folder a tree that CNCF Distribution's filesystem driver reads and writes as well; the
//! operations are in `files.rs`. The library `s3s-fs` would have been less code, but it fails to write
//! keys of more than some 160 bytes, which the registry has, and checks a condition and writes in two
//! steps, so that two writers could both win.
//!
//! It is **not** a production store: no replication, no `fsync`, plain HTTP only. In production the
//! bucket is a real one, and Envoy's `blob_store` cluster points at it.
//!
//! ```text
//! blob-store [--listen 127.0.0.1:5002] --root DIR [--bucket registry]
//!            [--access-key KEY --secret-key SECRET] [--require-length]
//! ```
//!
//! With `--require-length` it refuses objects whose length is not announced, as AWS S3 does.
//! With a pair of keys it refuses requests without a valid SigV4 signature; without, it serves
//! everyone who reaches the port. Once bound it prints `listening on ADDR:PORT`, one line, with the
//! real port where port 0 was asked for. SIGTERM and SIGINT end it at once with status 0; a bad
//! argument or a taken port is one line on stderr and status 2.

#[cfg(not(target_family = "wasm"))]
mod files;

#[cfg(not(target_family = "wasm"))]
fn main() -> std::process::ExitCode {
    native::main()
}

/// Sockets and files don't exist on this target; the example only has to compile there.
#[cfg(target_family = "wasm")]
fn main() {}

#[cfg(not(target_family = "wasm"))]
mod native {
    use std::future::Future;
    use std::io::Write;
    use std::net::SocketAddr;
    use std::path::{Path, PathBuf};
    use std::process::ExitCode;
    use std::time::Duration;

    use hyper_util::rt::TokioIo;
    use hyper_util::server::conn::auto;
    use s3s::auth::SimpleAuth;
    use s3s::service::{S3Service, S3ServiceBuilder};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::signal::unix::{SignalKind, signal};

    use crate::files::Files;

    const USAGE: &str = "usage: blob-store [--listen ADDR:PORT] --root DIR [--bucket NAME] \
                         [--access-key KEY --secret-key SECRET] [--require-length]";

    /// What stops the store from serving, as the one line the user sees.
    type Failure = String;

    pub fn main() -> ExitCode {
        match Options::parse(std::env::args_os().skip(1)).and_then(run) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("blob-store: {failure}");
                ExitCode::from(2)
            }
        }
    }

    struct Options {
        listen: SocketAddr,
        root: PathBuf,
        bucket: String,
        keys: Option<Keys>,
        requires_length: bool,
    }

    struct Keys {
        access: String,
        secret: String,
    }

    impl Options {
        fn parse(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Self, Failure> {
            let mut listen = SocketAddr::from(([127, 0, 0, 1], 5002));
            let mut root = None;
            let mut bucket = "registry".to_owned();
            let (mut access, mut secret) = (None, None);
            let mut requires_length = false;

            let mut arguments = arguments.into_iter();
            while let Some(flag) = arguments.next() {
                let flag = flag.to_string_lossy().into_owned();
                if flag == "--require-length" {
                    requires_length = true;
                    continue;
                }
                let mut value =
                    || arguments.next().ok_or_else(|| format!("{flag} needs a value; {USAGE}"));
                match flag.as_str() {
                    "--listen" => listen = parse_listen(&text(&flag, value()?)?)?,
                    // Only a path may be other than UTF-8.
                    "--root" => root = Some(PathBuf::from(value()?)),
                    "--bucket" => bucket = parse_bucket(text(&flag, value()?)?)?,
                    "--access-key" => access = Some(text(&flag, value()?)?),
                    "--secret-key" => secret = Some(text(&flag, value()?)?),
                    _ => return Err(format!("unknown argument {flag:?}; {USAGE}")),
                }
            }

            let keys = match (access, secret) {
                (Some(access), Some(secret)) => Some(Keys { access, secret }),
                (None, None) => None,
                _ => return Err("--access-key and --secret-key go together".to_owned()),
            };
            let root = root.ok_or_else(|| format!("--root is missing; {USAGE}"))?;
            Ok(Self { listen, root, bucket, keys, requires_length })
        }
    }

    fn text(flag: &str, value: std::ffi::OsString) -> Result<String, Failure> {
        value.into_string().map_err(|value| format!("{flag} must be UTF-8, got {value:?}"))
    }

    fn parse_listen(value: &str) -> Result<SocketAddr, Failure> {
        value.parse().map_err(|_| {
            format!("--listen must be ADDR:PORT with a numeric address, got {value:?}")
        })
    }

    /// S3's characters for a bucket. They also keep the name a single folder below the root.
    fn parse_bucket(value: String) -> Result<String, Failure> {
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.'
        };
        let valid = (3..=63).contains(&value.len())
            && value.bytes().all(allowed)
            && value.as_bytes()[0].is_ascii_alphanumeric();
        if valid {
            Ok(value)
        } else {
            Err(format!(
                "--bucket must be 3 to 63 of a-z 0-9 . - and start with a letter or digit, \
                 got {value:?}"
            ))
        }
    }

    #[tokio::main]
    async fn run(options: Options) -> Result<(), Failure> {
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
        TcpListener::bind(address)
            .await
            .map_err(|error| format!("cannot listen on {address}: {error}"))
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
}
