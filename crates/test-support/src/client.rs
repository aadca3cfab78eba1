//! A plain HTTP client that sends paths and headers just as they are given.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use futures::stream::{Stream, StreamExt};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::process::within;

/// Sends a request and gives the response once its headers are there.
pub async fn open<B>(
    server: SocketAddr,
    request: Request<B>,
) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: std::error::Error + Send + Sync,
{
    Ok(connect(server).await?.send_request(request).await?)
}

/// Opens a connection, which ends when this is dropped.
pub async fn connect<B>(
    server: SocketAddr,
) -> Result<http1::SendRequest<B>, Box<dyn std::error::Error + Send + Sync>>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: std::error::Error + Send + Sync,
{
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// The same over HTTP/2, whose use the server is taken to know. The request's URI has a host.
pub async fn open_http2<B>(
    server: SocketAddr,
    request: Request<B>,
) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: std::error::Error + Send + Sync,
{
    Ok(connect_http2(server).await?.send_request(request).await?)
}

/// The same as [`connect`], over HTTP/2. Clones are the same connection.
pub async fn connect_http2<B>(
    server: SocketAddr,
) -> Result<http2::SendRequest<B>, Box<dyn std::error::Error + Send + Sync>>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: std::error::Error + Send + Sync,
{
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let executor = TokioExecutor::new();
    let (sender, connection) = http2::handshake(executor, TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Sends a request and reads the whole response.
pub async fn send<B>(server: SocketAddr, request: Request<B>) -> Response<Bytes>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: std::error::Error + Send + Sync,
{
    let what = format!("{} {}", request.method(), request.uri());
    let asking = async {
        let response = open(server, request).await?;
        let (parts, body) = response.into_parts();
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Response::from_parts(
            parts,
            body.collect().await?.to_bytes(),
        ))
    };
    let response = within(&what, asking).await;
    response.unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// A request with these headers and no body.
pub fn request(method: Method, path: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", "registry");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).expect("a valid request")
}

/// Sends a request with a body.
pub async fn send_body(
    server: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Response<Bytes> {
    let mut request = request(method, path, headers);
    *request.body_mut() = Full::new(body.into());
    send(server, request).await
}

/// Sends a request whose body comes in pieces. Its length is not announced, unless by a header.
pub async fn send_pieces(
    server: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    pieces: impl Stream<Item = Bytes> + Send + 'static,
) -> Response<Bytes> {
    let frames = pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    send(server, request(method, path, headers).map(|_| StreamBody::new(frames))).await
}

/// Sends `GET` with these headers.
pub async fn get(server: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
    send(server, request(Method::GET, path, headers)).await
}

/// Sends `GET`; `None` if nobody answers.
pub async fn try_get(server: SocketAddr, path: &str) -> Option<Response<Bytes>> {
    let response = open(server, request(Method::GET, path, &[])).await.ok()?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    Some(Response::from_parts(parts, body))
}

/// Where an answer says that it goes on, as of an upload.
pub fn location(response: &Response<Bytes>) -> String {
    response.headers()["location"].to_str().expect("text").to_owned()
}

/// The status and code of an error, which must be the API's JSON with all that belongs to it.
pub fn error_of(response: &Response<Bytes>) -> (u16, String) {
    let text = String::from_utf8_lossy(response.body());
    let headers = response.headers();
    assert_eq!(headers["content-type"], "application/json", "{text}");
    assert_eq!(headers["docker-distribution-api-version"], "registry/2.0", "{text}");
    assert_eq!(headers["x-content-type-options"], "nosniff", "{text}");
    assert_eq!(headers["content-length"], response.body().len().to_string(), "{text}");
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text:?}"));
    let errors = json["errors"].as_array().expect("a list of errors");
    assert_eq!(errors.len(), 1, "{text}");
    let code = errors[0]["code"].as_str().expect("a code");
    assert!(errors[0]["message"].is_string(), "{text}");
    (response.status().as_u16(), code.to_owned())
}
