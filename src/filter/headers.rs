//! Between Envoy's header maps and the types of the crate `http`.
//!
//! Each map crosses in one host call, and always as bytes: a header's value may be anything.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, WARNING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

use super::host::Host;
use super::telemetry::Telemetry;
use crate::registry::{Environment, HeaderFields, Request};
use crate::store::HttpRequest;

/// Envoy's headers for the request to the store that remain when it is rewritten: what the client
/// sent is not for the store, least of all its credentials. Without `x-forwarded-proto` Envoy finds no
/// route.
const KEPT: [&str; 2] = [":scheme", "x-forwarded-proto"];

/// The `Warning` of an answer that might be out of date (RFC 7234, section 5.5.1; later versions of HTTP have no header
/// for it).
pub const STALE: &str = "110 moorage \"Response is Stale\"";

/// The stand-in for a header's value that is no text, which no answer of the API has.
const NO_TEXT: &str = "\u{fffd}";

/// Reads the client's request, without its body. `None` if its method or path is not even text.
pub fn read_request(host: &impl Host, environment: &Rc<dyn Environment>) -> Option<Request> {
    let mut method = None;
    let mut target = None;
    let mut fields = host.request_headers();
    for (name, value) in &mut fields {
        match name.as_str() {
            ":method" => method = Method::from_bytes(value).ok(),
            ":path" => target = String::from_utf8(std::mem::take(value)).ok(),
            _ => {}
        }
    }
    Some(Request::new(method?, target?, HeaderFields::new(fields), Rc::clone(environment)))
}

/// The length of the body that `Content-Length` announces, in bytes.
pub fn announced_length(request: &Request) -> Option<u64> {
    request.headers.texts(CONTENT_LENGTH).next()?.parse().ok()
}

/// Turns the client's request into one to the store, for Envoy's router to send.
pub fn rewrite_request<H: Host>(host: &H, telemetry: &Telemetry<H>, request: &HttpRequest) {
    let kept = host.request_headers();
    let trace_headers = telemetry.keep_trace_headers(&kept);
    let mut headers: Vec<(&str, &[u8])> = vec![
        (":method", request.method.as_str().as_bytes()),
        (":path", request.path.as_bytes()),
        (":authority", request.authority.as_bytes()),
    ];
    headers.extend(request.headers.iter().map(|(name, value)| (*name, value.as_bytes())));
    headers.extend(trace_headers.iter().map(|(name, value)| (*name, value.as_bytes())));
    let kept = kept.iter().filter(|(name, _)| KEPT.contains(&name.as_str()));
    headers.extend(kept.map(|(name, value)| (name.as_str(), value.as_slice())));
    host.set_request_headers(headers);
}

/// Reads the status and headers of the response that is on its way to the client.
pub fn read_response(host: &impl Host) -> (StatusCode, HeaderMap) {
    let mut status = None;
    let mut headers = HeaderMap::new();
    for (name, value) in host.response_headers() {
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
pub fn is_local_reply(host: &impl Host) -> bool {
    let details = host.property(vec!["response", "code_details"]);
    details.is_some_and(|details| details != b"via_upstream")
}

/// Replaces status and headers of the response that is on its way to the client.
pub fn rewrite_response(host: &impl Host, status: StatusCode, headers: &HeaderMap) {
    let mut pairs: Vec<(&str, &[u8])> = vec![(":status", status.as_str().as_bytes())];
    pairs.extend(headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
    host.set_response_headers(pairs);
}

/// Sends a response in place of whatever Envoy would have done, with a warning if it might be out of date.
pub fn send_response(host: &impl Host, response: &Response<Bytes>, is_stale: bool) {
    let text = |value| std::str::from_utf8(HeaderValue::as_bytes(value)).unwrap_or(NO_TEXT);
    let headers = response.headers().iter().map(|(name, value)| (name.as_str(), text(value)));
    let warning = is_stale.then_some((WARNING.as_str(), STALE));
    let headers = headers.chain(warning).collect();
    let body = Some(&response.body()[..]).filter(|body| !body.is_empty());
    host.send_response(response.status().as_u16(), headers, body);
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

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::filter::scripted_host::{ScriptedHost, StreamState};

    #[test]
    fn a_response_is_envoys_own_only_if_envoy_says_so() {
        for (details, is_local) in [
            (None, false),
            (Some("via_upstream"), false),
            (Some("request_payload_too_large"), true),
            (Some("upstream_reset_before_response_started{connection_termination}"), true),
        ] {
            let host = ScriptedHost::default();
            let mut stream = StreamState::default();
            if let Some(details) = details {
                stream.properties.insert("response.code_details".to_owned(), details.into());
            }
            host.state().streams.insert(2, stream);
            host.state().effective = Some(2);
            assert_eq!(is_local_reply(&host), is_local, "{details:?}");
        }
    }
}
