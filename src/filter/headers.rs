//! Between Envoy's header maps and the types of the crate `http`.
//!
//! Each map crosses in one host call, and always as bytes: a header's value may be anything.

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use proxy_wasm::hostcalls;
use proxy_wasm::types::MapType;

use crate::registry::{Body, HeaderFields, REPLY_MAX_BYTES, Request, Stamp};
use crate::store::HttpRequest;

/// Envoy's headers for the request to the store that remain when it is rewritten: what the client
/// sent is not for the store, least of all its credentials. Without `x-forwarded-proto` Envoy finds no
/// route.
const KEPT: [&str; 3] = [":scheme", "x-forwarded-proto", "x-request-id"];

/// What stands for a header's value that is no text, which no answer of the API has.
const NO_TEXT: &str = "\u{fffd}";

/// Reads the client's request, without its body. `None` if its method or path is not even text.
pub fn read_request() -> Option<Request> {
    let mut method = None;
    let mut target = None;
    let mut fields = pairs(MapType::HttpRequestHeaders);
    for (name, value) in &mut fields {
        match name.as_str() {
            ":method" => method = Method::from_bytes(value).ok(),
            ":path" => target = String::from_utf8(std::mem::take(value)).ok(),
            _ => {}
        }
    }
    Some(Request {
        method: method?,
        target: target?,
        headers: HeaderFields::new(fields),
        body: Body::None,
        resources: Vec::new(),
        stamp: Stamp::default(),
        reply_max_bytes: REPLY_MAX_BYTES,
    })
}

/// The length of the body that `Content-Length` announces, in bytes.
pub fn announced_length(request: &Request) -> Option<u64> {
    request.headers.texts(CONTENT_LENGTH).next()?.parse().ok()
}

/// Turns the client's request into one to the store, for Envoy's router to send.
pub fn rewrite_request(request: &HttpRequest) {
    let kept = pairs(MapType::HttpRequestHeaders);
    let mut headers: Vec<(&str, &[u8])> = vec![
        (":method", request.method.as_str().as_bytes()),
        (":path", request.path.as_bytes()),
        (":authority", request.authority.as_bytes()),
    ];
    headers.extend(request.headers.iter().map(|(name, value)| (*name, value.as_bytes())));
    let kept = kept.iter().filter(|(name, _)| KEPT.contains(&name.as_str()));
    headers.extend(kept.map(|(name, value)| (name.as_str(), value.as_slice())));
    set(MapType::HttpRequestHeaders, headers);
}

/// Reads the status and headers of the response that is on its way to the client.
pub fn read_response() -> (StatusCode, HeaderMap) {
    let mut status = None;
    let mut headers = HeaderMap::new();
    for (name, value) in pairs(MapType::HttpResponseHeaders) {
        match name.as_str() {
            ":status" => status = StatusCode::from_bytes(&value).ok(),
            _ => append(&mut headers, &name, value),
        }
    }
    (status.unwrap_or(StatusCode::BAD_GATEWAY), headers)
}

/// Whether the response that is on its way to the client is one that Envoy gives by itself, not the store's: it
/// ends the request, of whose body no more is shown then.
///
/// Source: Envoy's documentation, "Response code details".
pub fn is_local_reply() -> bool {
    let details = hostcalls::get_property(vec!["response", "code_details"]).ok().flatten();
    details.is_some_and(|details| details != b"via_upstream")
}

/// Replaces status and headers of the response that is on its way to the client.
pub fn rewrite_response(status: StatusCode, headers: &HeaderMap) {
    let mut pairs: Vec<(&str, &[u8])> = vec![(":status", status.as_str().as_bytes())];
    pairs.extend(headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
    set(MapType::HttpResponseHeaders, pairs);
}

/// Sends a response in place of whatever Envoy would have done.
pub fn send_response(response: &Response<Bytes>) {
    let text = |value| std::str::from_utf8(HeaderValue::as_bytes(value)).unwrap_or(NO_TEXT);
    let headers = response.headers().iter().map(|(name, value)| (name.as_str(), text(value)));
    let headers = headers.collect();
    let body = Some(&response.body()[..]).filter(|body| !body.is_empty());
    let status = u32::from(response.status().as_u16());
    if let Err(error) = hostcalls::send_http_response(status, headers, body) {
        log::error!("Envoy does not take a response: {error:?}");
    }
}

fn pairs(map: MapType) -> Vec<(String, Vec<u8>)> {
    hostcalls::get_map_bytes(map).unwrap_or_default()
}

fn set(map: MapType, pairs: Vec<(&str, &[u8])>) {
    if let Err(error) = hostcalls::set_map_bytes(map, pairs) {
        log::error!("Envoy does not take headers: {error:?}");
    }
}

/// Pseudo-headers, and whatever is no header of HTTP, have no place in a [`HeaderMap`].
fn append(headers: &mut HeaderMap, name: &str, value: Vec<u8>) {
    if let (Ok(name), Ok(value)) = (
        HeaderName::from_bytes(name.as_bytes()),
        HeaderValue::from_maybe_shared(Bytes::from(value)),
    ) {
        headers.append(name, value);
    }
}
