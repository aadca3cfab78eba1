//! A real store behind a script that decides what becomes of each call: for faults in the middle of what somebody does, while
//! all else has its effect.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::client;
use crate::process::wait_for;

/// A call to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub method: Method,
    /// The key within the bucket, with the query if there is one.
    pub key: String,
    /// Whether it is a copy of another object.
    pub is_copy: bool,
}

impl Call {
    /// The key with plain slashes, also in a query.
    pub fn plain_key(&self) -> String {
        self.key.replace("%2F", "/")
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The store answers it.
    Pass,
    /// This status and body; the store never learns of it.
    Answer(u16, &'static str),
    /// The connection breaks before the store learns of it.
    Break,
    /// The connection breaks when the store has done it.
    Lose,
    /// Nothing happens, for as long as the caller waits.
    Hold,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A running one. It takes no more connections when this is dropped.
pub struct ScriptedStore {
    pub address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    listener: JoinHandle<()>,
}

impl Drop for ScriptedStore {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl ScriptedStore {
    /// Stands before `store`. The script is asked once for each call, in the order in which they come.
    pub async fn start(
        store: SocketAddr,
        mut script: impl FnMut(&Call) -> Fate + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let calls = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&calls);
        let script = Arc::new(Mutex::new(move |call: Call| {
            let fate = script(&call);
            seen.lock().expect("no test thread panicked").push(call);
            fate
        }));
        let listener = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = Arc::clone(&script);
                let service = service_fn(move |request| {
                    let fate = script.lock().expect("no script panicked")(call(&request));
                    meet(store, request, fate)
                });
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // A connection that breaks is the affair of those at its ends.
                tokio::spawn(async move { connection.await.ok() });
            }
        });
        Self { address, calls, listener }
    }

    /// The calls so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("no test thread panicked").clone()
    }

    /// Waits until there has been such a call.
    pub async fn called(&self, what: &str, is_it: impl Fn(&Call) -> bool) {
        wait_for(what, async || self.calls().iter().any(&is_it).then_some(())).await;
    }
}

fn call(request: &Request<Incoming>) -> Call {
    let path = request.uri().path_and_query().map_or("", |path| path.as_str());
    Call {
        method: request.method().clone(),
        key: path.strip_prefix("/registry/").unwrap_or(path).to_owned(),
        is_copy: request.headers().contains_key("x-amz-copy-source"),
    }
}

/// An error breaks the connection.
async fn meet(
    store: SocketAddr,
    request: Request<Incoming>,
    fate: Fate,
) -> Result<Response<Full<Bytes>>, Failure> {
    let broken = || Err(io::Error::other("as the script has it").into());
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    match fate {
        Fate::Answer(status, body) => Ok(Response::builder().status(status).body(body.into())?),
        Fate::Break => broken(),
        Fate::Hold => std::future::pending().await,
        Fate::Pass | Fate::Lose => {
            let request = Request::from_parts(parts, Full::new(body));
            let (parts, body) = client::open(store, request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            match fate {
                Fate::Lose => broken(),
                _ => Ok(Response::from_parts(parts, body.into())),
            }
        }
    }
}
