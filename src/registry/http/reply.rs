//! The parts of replies that several endpoints have in common.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use super::conditional::entity_tag;
use crate::oci::Digest;

/// The header that tells a client which API answers.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const API_VERSION_2: HeaderValue = HeaderValue::from_static("registry/2.0");

/// The header that gives the digest of what a reply is about.
pub const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// The header that gives the id of an upload session.
pub const DOCKER_UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// Adds the headers that every reply carries: which API answers, and that no browser may take what a
/// client has uploaded for something else than its `Content-Type` says.
pub fn with_common_headers<B>(mut response: Response<B>) -> Response<B> {
    let headers = response.headers_mut();
    headers.insert(API_VERSION, API_VERSION_2);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A reply of this status with neither headers nor a body.
pub fn bare(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

/// 304, with the headers that RFC 9110 section 15.4.5 asks for.
pub fn not_modified(digest: &Digest) -> Response<Bytes> {
    let mut response = bare(StatusCode::NOT_MODIFIED);
    response.headers_mut().extend(identity(digest));
    response
}

/// The headers that say which content this is.
pub fn identity(digest: &Digest) -> [(HeaderName, HeaderValue); 2] {
    // A digest is ASCII letters, digits and a colon, so the conversion can't fail.
    let value = HeaderValue::try_from(digest.as_str()).unwrap_or(HeaderValue::from_static(""));
    [(DOCKER_CONTENT_DIGEST, value), (ETAG, entity_tag(digest))]
}

/// A list as JSON.
pub fn json(list: &impl Serialize, content_type: &'static str) -> Response<Bytes> {
    // Texts and JSON values always serialise.
    let body = serde_json::to_vec(list).map(Bytes::from).unwrap_or_default();
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
