//! A store that misbehaves on demand. It speaks as much S3 as reading needs, over plain sockets, so
//! that it can also break off where no HTTP library would.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::listing::list;
use crate::tree::Tree;

/// What becomes of one request.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// The object or listing is served, or `NoSuchKey`; a write is answered with 200 and forgotten.
    Serve,
    /// The same, once so many requests have arrived in all.
    ServeAfterArrivals(usize),
    /// The same, once something was asked for whose key has this in it.
    ServeAfter(&'static str),
    /// This status and body.
    Answer(u16, &'static str),
    /// The connection is reset before an answer.
    Reset,
    /// No answer ever; the connection stays open until the other side closes it.
    Stall,
    /// The object's headers and half of its bytes, then the connection is closed.
    Truncate,
    /// As many bytes as the object has, but others.
    Corrupt,
}

/// Decides by the request's key (a listing's is its query, with the question mark), and by how many requests for that key came before.
type Script = dyn Fn(&str, usize) -> Behaviour + Send + Sync;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    /// The key within the bucket; a listing's is its query, with the question mark.
    pub key: String,
    /// The names, as they were sent, and the values.
    pub headers: Vec<(String, String)>,
}

impl Received {
    /// The value of a header, whose name is given in lower case, as Envoy sends all.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(header, _)| header == name);
        header.map(|(_, value)| value.as_str())
    }
}

/// A running stand-in. It ends when this is dropped.
pub struct StandIn {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Received>>>,
    server: JoinHandle<()>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl StandIn {
    /// Serves `tree` as the bucket `registry`, as `script` says.
    pub async fn start(
        tree: Tree,
        script: impl Fn(&str, usize) -> Behaviour + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::new(Shared {
            tree,
            script: Box::new(script),
            requests: Arc::clone(&requests),
            arrivals: watch::Sender::new(0),
        });
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                // A connection that breaks is the other side's affair.
                tokio::spawn(async move { shared.serve(stream).await.ok() });
            }
        });
        Self { address, requests, server }
    }

    /// The keys asked for so far, in order.
    pub fn requests(&self) -> Vec<String> {
        self.received().into_iter().map(|request| request.key).collect()
    }

    /// The requests so far, in order.
    pub fn received(&self) -> Vec<Received> {
        self.requests.lock().expect("no test thread panicked").clone()
    }
}

struct Shared {
    tree: Tree,
    script: Box<Script>,
    requests: Arc<Mutex<Vec<Received>>>,
    arrivals: watch::Sender<usize>,
}

impl Shared {
    /// Answers one request; every answer closes its connection.
    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let Some(request) = read_request(&mut stream).await? else {
            return Ok(());
        };
        let Received { method, key, .. } = request.clone();
        let behaviour = self.record(request);
        if let Behaviour::ServeAfterArrivals(count) = behaviour {
            let mut arrivals = self.arrivals.subscribe();
            // The sender lives as long as `self`.
            let _ = arrivals.wait_for(|&arrived| arrived >= count).await;
        }
        if let Behaviour::ServeAfter(part) = behaviour {
            let mut arrivals = self.arrivals.subscribe();
            let is_there = |_: &usize| self.requests().iter().any(|it| it.key.contains(part));
            let _ = arrivals.wait_for(is_there).await;
        }
        let mut stream = stream.into_inner();
        let objects = &self.tree.objects;
        let object = match key.strip_prefix('?') {
            Some(query) => Some(list(objects, query)),
            None => objects.get(&key).cloned(),
        };
        let found = |object: Bytes| (200, object);
        let missing = || (404, Bytes::from_static(b"<Error><Code>NoSuchKey</Code></Error>"));
        let (status, body) = match behaviour {
            Behaviour::Serve | Behaviour::ServeAfterArrivals(_) | Behaviour::ServeAfter(_)
                if method == "PUT" =>
            {
                (200, Bytes::new())
            }
            Behaviour::Serve
            | Behaviour::ServeAfterArrivals(_)
            | Behaviour::ServeAfter(_)
            | Behaviour::Truncate => object.map_or_else(missing, found),
            Behaviour::Corrupt => found(garbage(object.map_or(0, |object| object.len()))),
            Behaviour::Answer(status, body) => (status, Bytes::from_static(body.as_bytes())),
            Behaviour::Reset => return stream.set_zero_linger(),
            Behaviour::Stall => return stream.read_to_end(&mut Vec::new()).await.map(|_| ()),
        };
        let length = body.len();
        // A cache does not know how old an answer without a date is.
        let date = httpdate::fmt_http_date(SystemTime::now());
        let head = format!(
            "HTTP/1.1 {status} Status\r\ncontent-length: {length}\r\nconnection: close\r\n\
             date: {date}\r\netag: \"store\"\r\nserver: stand-in\r\nx-amz-request-id: 1\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        let sent = match behaviour {
            _ if method == "HEAD" => 0,
            Behaviour::Truncate => length / 2,
            _ => length,
        };
        stream.write_all(&body[..sent]).await?;
        stream.shutdown().await
    }

    fn requests(&self) -> Vec<Received> {
        self.requests.lock().expect("no test thread panicked").clone()
    }

    fn record(&self, request: Received) -> Behaviour {
        let mut requests = self.requests.lock().expect("no test thread panicked");
        let before = requests.iter().filter(|earlier| earlier.key == request.key).count();
        let behaviour = (self.script)(&request.key, before);
        requests.push(request);
        self.arrivals.send_replace(requests.len());
        behaviour
    }
}

fn garbage(length: usize) -> Bytes {
    vec![b'x'; length].into()
}

/// Reads a request with its body, whose key is that within the bucket `registry`.
async fn read_request(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Received>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    let mut words = head.split(' ');
    let method = words.next().unwrap_or_default();
    let path = words.next().unwrap_or_default();
    let key = path.strip_prefix("/registry/").unwrap_or(path);
    let headers = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let request = Received { method: method.to_owned(), key: key.to_owned(), headers };
    let length = request.header("content-length").and_then(|text| text.parse().ok());
    stream.read_exact(&mut vec![0; length.unwrap_or(0)]).await?;
    Ok(Some(request))
}
