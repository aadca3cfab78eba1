//! `/v2/`
//!
//! Source: OCI distribution specification, "Determining Support".

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};

/// `GET` and `HEAD`: yes, this is a registry. No call to the store.
pub fn get() -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(b"{}"));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
