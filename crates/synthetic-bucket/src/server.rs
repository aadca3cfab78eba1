//! The store's HTTP: requests in path style, `/<bucket>/<key>`, without signatures.
//!
//! It knows `ListObjectsV2`, `GetObject` with a range, `HeadObject`, `PutObject`, `DeleteObject`, `CopyObject` and
//! `GetBucketVersioning`, and says that there are no multipart uploads. Anything else is 501. `GET /_calls` is not S3's:
//! it tells how many calls of each kind there were, as JSON.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpListener, TcpStream};

use crate::answers::{self, Answer};
use crate::bucket::Bucket;
use crate::listing::Query;

/// The largest object that is taken, in bytes: all of it is kept in memory.
const BODY_LIMIT: usize = 64 * 1024 * 1024;
/// The most entries of a page.
const PAGE_LIMIT: usize = 1000;
/// Where the calls are told. No bucket has such a name.
const CALLS_PATH: &str = "/_calls";

/// A store that serves one bucket.
pub struct Store {
    name: String,
    bucket: RwLock<Bucket>,
    calls: Calls,
    latency: Duration,
}

/// How many calls of each kind there were.
#[derive(Debug, Default, Serialize)]
struct Calls {
    list: AtomicU64,
    get: AtomicU64,
    head: AtomicU64,
    put: AtomicU64,
    copy: AtomicU64,
    delete: AtomicU64,
    /// Those about the bucket itself, and those that are not known here.
    other: AtomicU64,
}

impl Store {
    /// A store whose bucket has this name, and which waits so long before each answer.
    pub fn new(name: String, bucket: Bucket, latency: Duration) -> Self {
        Self { name, bucket: RwLock::new(bucket), calls: Calls::default(), latency }
    }

    /// The bucket, to be read.
    ///
    /// Nothing that is done to it can be left half done, so it is fit to be used after a panic as well.
    fn read(&self) -> RwLockReadGuard<'_, Bucket> {
        self.bucket.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Bucket> {
        self.bucket.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request.
    pub async fn answer<B: Body>(&self, request: Request<B>) -> Answer {
        if request.uri().path() == CALLS_PATH {
            return answers::json(serde_json::to_string(&self.calls).unwrap_or_default());
        }
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        let (head, body) = request.into_parts();
        let Some(path) = decode(head.uri.path()) else {
            return answers::error(StatusCode::BAD_REQUEST, "InvalidURI");
        };
        let path = path.trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        if bucket != self.name {
            return answers::error(StatusCode::NOT_FOUND, "NoSuchBucket");
        }
        if key.is_empty() {
            return self.about_the_bucket(&head);
        }
        if head.uri.query().is_some_and(|query| !query.is_empty()) {
            return self.unknown();
        }
        match head.method {
            Method::GET | Method::HEAD => self.get(&head, key),
            Method::PUT => match head.headers.get("x-amz-copy-source") {
                Some(source) => self.copy(key, source.to_str().unwrap_or_default()),
                None => self.put(&head.headers, key, body).await,
            },
            Method::DELETE => self.delete(&head.headers, key),
            _ => self.unknown(),
        }
    }

    fn unknown(&self) -> Answer {
        count(&self.calls.other);
        answers::error(StatusCode::NOT_IMPLEMENTED, "NotImplemented")
    }

    fn about_the_bucket(&self, head: &Parts) -> Answer {
        let query = head.uri.query().unwrap_or_default();
        let parameters = form_urlencoded::parse(query.as_bytes());
        let parameters: Vec<(String, String)> = parameters.into_owned().collect();
        let parameter = |wanted: &str| {
            let found = parameters.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.as_str())
        };
        if head.method != Method::GET {
            self.unknown()
        } else if parameter("list-type") == Some("2") {
            count(&self.calls.list);
            match query_of(parameter) {
                Some(query) => answers::page(&self.name, &query, self.read().page(&query)),
                None => answers::error(StatusCode::BAD_REQUEST, "InvalidArgument"),
            }
        } else if parameter("versioning").is_some() {
            count(&self.calls.other);
            answers::unversioned()
        } else if parameter("uploads").is_some() {
            count(&self.calls.other);
            answers::no_multipart_uploads()
        } else {
            self.unknown()
        }
    }

    fn get(&self, head: &Parts, key: &str) -> Answer {
        count(if head.method == Method::HEAD { &self.calls.head } else { &self.calls.get });
        let range = head.headers.get("range").and_then(|range| range.to_str().ok());
        match self.read().get(key) {
            Some(object) => answers::object(&head.method, object, range),
            None if head.method == Method::HEAD => answers::empty(StatusCode::NOT_FOUND),
            None => answers::no_such_key(),
        }
    }

    async fn put(&self, headers: &HeaderMap, key: &str, body: impl Body) -> Answer {
        count(&self.calls.put);
        let Some(bytes) = read(body).await else {
            return answers::error(StatusCode::BAD_REQUEST, "EntityTooLarge");
        };
        if let Some(checksum) = headers.get("x-amz-checksum-sha256")
            && checksum.as_bytes() != STANDARD.encode(Sha256::digest(&bytes)).as_bytes()
        {
            return answers::error(StatusCode::BAD_REQUEST, "BadDigest");
        }
        let mut bucket = self.write();
        match refusal(&bucket, headers, key) {
            Some(answer) => answer,
            None => answers::written(&bucket.put(key.to_owned(), bytes)),
        }
    }

    fn copy(&self, key: &str, source: &str) -> Answer {
        count(&self.calls.copy);
        let source = decode(source).unwrap_or_default();
        let source = source.trim_start_matches('/').split_once('/');
        let Some((_, source)) = source.filter(|(bucket, _)| *bucket == self.name) else {
            return answers::error(StatusCode::NOT_FOUND, "NoSuchBucket");
        };
        match self.write().copy(source, key.to_owned()) {
            Some(copy) => answers::copied(&copy),
            None => answers::no_such_key(),
        }
    }

    fn delete(&self, headers: &HeaderMap, key: &str) -> Answer {
        count(&self.calls.delete);
        let mut bucket = self.write();
        if let Some(answer) = refusal(&bucket, headers, key) {
            return answer;
        }
        bucket.remove(key);
        answers::empty(StatusCode::NO_CONTENT)
    }
}

/// All of a body; `None` if it breaks off, or is larger than what is taken.
async fn read(body: impl Body) -> Option<Bytes> {
    let mut bytes = BytesMut::new();
    let mut body = std::pin::pin!(body);
    while let Some(frame) = body.frame().await {
        if let Ok(piece) = frame.ok()?.into_data() {
            if bytes.len() + piece.remaining() > BODY_LIMIT {
                return None;
            }
            bytes.put(piece);
        }
    }
    Some(bytes.freeze())
}

/// Why a write or a removal is refused, if a condition is not met.
fn refusal(bucket: &Bucket, headers: &HeaderMap, key: &str) -> Option<Answer> {
    let wants_absent = headers.contains_key("if-none-match");
    let wanted = headers.get("if-match");
    if !wants_absent && wanted.is_none() {
        return None;
    }
    let found = bucket.get(key);
    let failed = || Some(answers::error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed"));
    match (found, wanted) {
        (Some(_), None) => failed(),
        (Some(object), Some(wanted)) if object.etag.as_bytes() != wanted.as_bytes() => failed(),
        (None, Some(_)) => Some(answers::no_such_key()),
        _ => None,
    }
}

/// What a listing is asked for; `None` if that makes no sense.
fn query_of<'a>(parameter: impl Fn(&str) -> Option<&'a str>) -> Option<Query> {
    let text = |name| parameter(name).unwrap_or_default().to_owned();
    let by_folder = match parameter("delimiter") {
        None | Some("") => false,
        Some("/") => true,
        Some(_) => return None,
    };
    // A store that encodes keys in its answer, if it is asked to, is not needed: there are none that have to be.
    if parameter("encoding-type").is_some() {
        return None;
    }
    let limit = match parameter("max-keys") {
        Some(limit) => limit.parse::<usize>().ok()?.min(PAGE_LIMIT),
        None => PAGE_LIMIT,
    };
    let after = match parameter("continuation-token") {
        Some(token) => answers::decode_token(token)?,
        None => text("start-after"),
    };
    Some(Query { prefix: text("prefix"), after, by_folder, limit })
}

fn decode(text: &str) -> Option<String> {
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}

fn count(calls: &AtomicU64) {
    calls.fetch_add(1, Ordering::Relaxed);
}

/// Serves a store for as long as this is awaited.
pub async fn serve(listener: TcpListener, store: Arc<Store>) -> io::Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        // Head and body of an answer may be two writes, of which the second must not wait.
        socket.set_nodelay(true)?;
        tokio::spawn(serve_connection(socket, Arc::clone(&store)));
    }
}

async fn serve_connection(socket: TcpStream, store: Arc<Store>) {
    let service = service_fn(|request| {
        let store = Arc::clone(&store);
        async move { Ok::<_, Infallible>(store.answer(request).await) }
    });
    // An error here is a client that went away in the middle, as clients do.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
}
