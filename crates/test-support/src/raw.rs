//! HTTP over plain sockets: what no client library sends, or sends so slowly.

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::process::within;

/// The preface of an HTTP/2 client (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// `SETTINGS_INITIAL_WINDOW_SIZE` (RFC 9113, section 6.5.2).
const INITIAL_WINDOW_SIZE: u16 = 4;

/// Connects from an address of this machine: all of 127.0.0.0/8 are.
pub async fn connect_from(client: IpAddr, server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(client, 0)).expect("a free port");
    within("a connection", socket.connect(server)).await.expect("the server takes connections")
}

/// Begins a request with this head, from its first line to the last header, and leaves it at that.
pub async fn begin(client: IpAddr, server: SocketAddr, head: &str) -> TcpStream {
    let mut stream = connect_from(client, server).await;
    let request = format!("{head}\r\nhost: registry\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the server reads");
    stream
}

/// Sends a request that is these bytes, and gives all that came until the server closed the connection.
pub async fn send(server: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = connect_from(IpAddr::from([127, 0, 0, 1]), server).await;
    stream.write_all(request).await.expect("the server reads");
    answer(&mut stream).await
}

/// All that comes until the server closes the connection.
async fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    within("an answer", stream.read_to_end(&mut answer)).await.expect("the server closes in order");
    answer
}

/// Sends `GET` of a path, whatever it is made of, and gives the status and all that came.
pub async fn get(server: SocketAddr, path: &str) -> (u16, String) {
    get_from(IpAddr::from([127, 0, 0, 1]), server, path).await
}

/// The same from that address of this machine.
pub async fn get_from(client: IpAddr, server: SocketAddr, path: &str) -> (u16, String) {
    let head = format!("GET {path} HTTP/1.1\r\nconnection: close");
    let mut stream = begin(client, server, &head).await;
    let answer = String::from_utf8_lossy(&answer(&mut stream).await).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{path}: {answer:?}")), answer)
}

/// Opens a connection of HTTP/2 that takes no byte of any body, and asks for `path` on so many streams.
pub async fn stalled_http2(
    client: IpAddr,
    server: SocketAddr,
    path: &str,
    streams: u32,
) -> TcpStream {
    let mut bytes = PREFACE.to_vec();
    let mut settings = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
    settings.extend(0_u32.to_be_bytes());
    frame(&mut bytes, 4, 0, 0, &settings);
    for stream in 0..streams {
        // HEADERS with END_STREAM and END_HEADERS.
        frame(&mut bytes, 1, 0x5, 2 * stream + 1, &header_block(path));
    }
    let mut stream = connect_from(client, server).await;
    stream.write_all(&bytes).await.expect("the server reads");
    stream
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a short payload");
    bytes.extend(&length.to_be_bytes()[1..]);
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
}

/// A `GET` in HPACK: two fields of the static table, two names of it with values as they are (RFC 7541,
/// sections 6.1 and 6.2.2).
fn header_block(path: &str) -> Vec<u8> {
    let (method_get, scheme_http, named_authority, named_path) = (0x82, 0x86, 0x01, 0x04);
    let mut block = vec![method_get, scheme_http, named_authority];
    text(&mut block, "registry");
    block.push(named_path);
    text(&mut block, path);
    block
}

/// A string without Huffman coding, with its length before it (RFC 7541, section 5).
fn text(block: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    if length < 127 {
        block.push(length as u8);
    } else {
        block.push(127);
        length -= 127;
        while length >= 128 {
            block.push((length % 128) as u8 | 128);
            length /= 128;
        }
        block.push(length as u8);
    }
    block.extend(text.as_bytes());
}
