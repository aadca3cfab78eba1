//! A store that a test watches: each request is seen before the store has it, so something can be done to the bucket at
//! that very moment, or the request be refused.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

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

/// An answer in the store's stead: a status and a body.
pub type Refusal = (u16, &'static str);

/// Sees a request's method, and its path and query with plain slashes.
type Watch = dyn Fn(&Method, &str) -> Option<Refusal> + Send + Sync;

/// What stands before the store. It takes no more connections when this is dropped.
pub struct WatchedStore {
    pub address: SocketAddr,
    listener: JoinHandle<()>,
}

impl Drop for WatchedStore {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl WatchedStore {
    /// Leads to `store`, unless `watch` answers.
    pub async fn start(
        store: SocketAddr,
        watch: impl Fn(&Method, &str) -> Option<Refusal> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let watch: Arc<Watch> = Arc::new(watch);
        let listener = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let watch = Arc::clone(&watch);
                let service = service_fn(move |request| answer(store, Arc::clone(&watch), request));
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // A connection that breaks is the client's affair.
                tokio::spawn(async move { connection.await.ok() });
            }
        });
        Self { address, listener }
    }
}

async fn answer(
    store: SocketAddr,
    watch: Arc<Watch>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    if let Some((status, body)) = watch(&parts.method, &parts.uri.to_string().replace("%2F", "/")) {
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status.try_into().expect("a status");
        return Ok(response);
    }
    let body = body.collect().await.expect("the request has its whole body").to_bytes();
    let response = client::send(store, Request::from_parts(parts, Full::<Bytes>::from(body))).await;
    Ok(response.map(Full::from))
}
