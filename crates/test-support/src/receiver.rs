//! A receiver of events: it keeps what it is sent, and answers as a script says.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::envoy::Bootstrap;
use crate::process::wait_for;

/// The name of the cluster that leads to a receiver.
pub const CLUSTER: &str = "event_receiver";

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// This status.
    Status(u16),
    /// No answer, for as long as the sender waits.
    Hang,
}

/// A request, whatever it was answered.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The method, the path and the query.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Value,
    pub answer: Answer,
}

/// A running receiver. It ends, with its connections, when this is dropped.
pub struct Receiver {
    pub address: SocketAddr,
    deliveries: Arc<Mutex<Vec<Delivery>>>,
    _connections: JoinSet<()>,
}

impl Receiver {
    /// Answers as `script` says, by how many requests came before.
    pub async fn start(script: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), script).await
    }

    /// The same, at an address that another had.
    pub async fn start_at(
        address: SocketAddr,
        script: impl Fn(usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let deliveries = Arc::new(Mutex::new(Vec::new()));
        let (shared, script) = (Arc::clone(&deliveries), Arc::new(script));
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            // They end with the one who waits for them here.
            let mut served = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, script) = (Arc::clone(&shared), Arc::clone(&script));
                let service = service_fn(move |request| {
                    answer(request, Arc::clone(&shared), Arc::clone(&script))
                });
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // A connection that breaks is the sender's affair.
                served.spawn(async move { drop(connection.await) });
            }
        });
        Self { address, deliveries, _connections: connections }
    }

    /// An address at which nobody listens.
    pub async fn nowhere() -> SocketAddr {
        Self::start(|_| Answer::Hang).await.address
    }

    /// The requests so far, in order.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.deliveries.lock().expect("no test thread panicked").clone()
    }

    /// The events of all requests that were answered with 2xx, in order.
    pub fn taken(&self) -> Vec<Value> {
        let deliveries = self.deliveries().into_iter();
        let taken =
            deliveries.filter(|delivery| matches!(delivery.answer, Answer::Status(200..=299)));
        let events = taken.flat_map(|delivery| match delivery.body {
            Value::Array(events) => events,
            mut envelope => match envelope["events"].take() {
                Value::Array(events) => events,
                other => panic!("no list of events: {other}"),
            },
        });
        events.collect()
    }

    /// Waits until it has taken so many events, and gives them.
    pub async fn take(&self, count: usize) -> Vec<Value> {
        wait_for("events", async || Some(self.taken()).filter(|taken| taken.len() >= count)).await
    }

    /// Waits until there have been so many requests.
    pub async fn asked(&self, count: usize) {
        wait_for("requests", async || (self.deliveries().len() >= count).then_some(())).await;
    }
}

async fn answer(
    request: Request<Incoming>,
    deliveries: Arc<Mutex<Vec<Delivery>>>,
    script: Arc<impl Fn(usize) -> Answer>,
) -> io::Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let answer = {
        let mut deliveries = deliveries.lock().expect("no test thread panicked");
        let answer = script(deliveries.len());
        deliveries.push(Delivery {
            target: format!("{} {}", parts.method, parts.uri),
            headers: parts.headers,
            body: serde_json::from_slice(&body).expect("events are JSON"),
            answer,
        });
        answer
    };
    match answer {
        Answer::Status(status) => {
            let response = Response::builder().status(status).body(Full::default());
            response.map_err(io::Error::other)
        }
        Answer::Hang => std::future::pending().await,
    }
}

impl Bootstrap {
    /// Has events sent to a receiver, with these further fields of its endpoint.
    pub fn with_events(self, receiver: SocketAddr, fields: &str) -> Self {
        let port = receiver.port();
        let cluster = format!(
            r#"
  clusters:
    - name: {CLUSTER}
      type: STATIC
      connect_timeout: 1s
      load_assignment:
        cluster_name: {CLUSTER}
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    socket_address: {{ address: 127.0.0.1, port_value: {port} }}
"#
        );
        let endpoint = format!(
            r#"{{ "name": "receiver", "cluster": "{CLUSTER}", "authority": "events.example.org", "path": "/hooks?x=y"{fields} }}"#
        );
        self.with("\n  clusters:\n", &cluster).with_fields(&format!(
            r#""events": {{ "source": "registry-1", "endpoints": [{endpoint}] }}"#
        ))
    }
}
