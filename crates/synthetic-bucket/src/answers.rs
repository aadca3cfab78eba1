//! What the store answers: S3's documents, errors and objects.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED};
use http::{HeaderValue, Method, Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use jiff::Timestamp;
use quick_xml::escape::escape;

use crate::bucket::Object;
use crate::listing::{Listed, Page, Query};
use crate::registry;

/// Where zeros are taken from.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// An answer.
pub type Answer = Response<Content>;

/// The body of an answer.
#[derive(Debug)]
pub enum Content {
    /// These bytes.
    These(Option<Bytes>),
    /// So many zeros.
    Zeros(u64),
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match &mut *self {
            Self::These(bytes) => bytes.take().filter(|bytes| !bytes.is_empty()),
            Self::Zeros(0) => None,
            Self::Zeros(rest) => {
                let length = usize::try_from(*rest).unwrap_or(usize::MAX).min(ZEROS.len());
                *rest -= length as u64;
                Some(Bytes::from_static(&ZEROS[..length]))
            }
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::These(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Self::Zeros(rest) => *rest,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Content::These(None));
    *answer.status_mut() = status;
    answer
}

/// The answer to a write.
pub fn written(etag: &str) -> Answer {
    let mut answer = empty(StatusCode::OK);
    answer.headers_mut().insert(ETAG, header(etag));
    answer
}

/// The answer to a copy.
pub fn copied(copy: &Object) -> Answer {
    let (etag, modified) = (escape(&copy.etag), time(copy.modified));
    let text = format!("<ETag>{etag}</ETag><LastModified>{modified}</LastModified>");
    document(StatusCode::OK, "CopyObjectResult", &text)
}

/// S3's document of an error.
pub fn error(status: StatusCode, code: &str) -> Answer {
    document(status, "Error", &format!("<Code>{code}</Code><Message>{code}</Message>"))
}

/// S3's answer to a key that is not there.
pub fn no_such_key() -> Answer {
    error(StatusCode::NOT_FOUND, "NoSuchKey")
}

/// Says that the bucket has no versions.
pub fn unversioned() -> Answer {
    document(StatusCode::OK, "VersioningConfiguration", "")
}

/// Says that there are no multipart uploads.
pub fn no_multipart_uploads() -> Answer {
    let text = "<IsTruncated>false</IsTruncated>";
    document(StatusCode::OK, "ListMultipartUploadsResult", text)
}

/// Text as JSON.
pub fn json(text: String) -> Answer {
    let mut answer = Response::new(Content::These(Some(text.into())));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// A page of a listing.
pub fn page(bucket: &str, query: &Query, page: Page) -> Answer {
    let mut text = String::with_capacity(384 * page.entries.len() + 1024);
    element("Name", bucket, &mut text);
    element("Prefix", &query.prefix, &mut text);
    element("KeyCount", &page.entries.len().to_string(), &mut text);
    element("MaxKeys", &query.limit.to_string(), &mut text);
    element("IsTruncated", if page.next.is_some() { "true" } else { "false" }, &mut text);
    if let Some(next) = page.next {
        // Nobody may make anything of a token, or take it for a key.
        element("NextContinuationToken", &STANDARD.encode(next), &mut text);
    }
    for entry in page.entries {
        match entry {
            Listed::Folder(folder) => {
                text.push_str("<CommonPrefixes>");
                element("Prefix", &folder, &mut text);
                text.push_str("</CommonPrefixes>");
            }
            Listed::Object { key, size, etag, modified } => {
                text.push_str("<Contents>");
                element("Key", &key, &mut text);
                element("LastModified", &time(modified), &mut text);
                element("ETag", &etag, &mut text);
                element("Size", &size.to_string(), &mut text);
                text.push_str("<StorageClass>STANDARD</StorageClass></Contents>");
            }
        }
    }
    document(StatusCode::OK, "ListBucketResult", &text)
}

/// Where a token that [`page`] gave leads.
pub fn decode_token(token: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(token).ok()?).ok()
}

/// An object, or the range of it that is asked for.
pub fn object(method: &Method, object: Object, range: Option<&str>) -> Answer {
    let size = object.bytes.size();
    let range = range.and_then(|range| parse_range(range, size));
    let (first, end, status) = match range {
        Some(Range::Of(first, last)) => (first, last + 1, StatusCode::PARTIAL_CONTENT),
        Some(Range::Outside) => {
            let mut answer = error(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
            let whole = header(&format!("bytes */{size}"));
            answer.headers_mut().insert(CONTENT_RANGE, whole);
            return answer;
        }
        None => (0, size, StatusCode::OK),
    };
    let content = match object.bytes {
        registry::Bytes::Zeros(_) => Content::Zeros(end - first),
        // Both are places in these bytes.
        registry::Bytes::These(bytes) => {
            Content::These(Some(bytes.slice(first as usize..end as usize)))
        }
    };
    let mut answer = Response::new(content);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("binary/octet-stream"));
    headers.insert(ETAG, header(&object.etag));
    headers.insert(LAST_MODIFIED, header(&httpdate::fmt_http_date(object.modified)));
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {first}-{}/{size}", end - 1);
        headers.insert(CONTENT_RANGE, header(&range));
    }
    if method == Method::HEAD {
        headers.insert(http::header::CONTENT_LENGTH, (end - first).into());
        *answer.body_mut() = Content::These(None);
    }
    answer
}

/// A range of an object.
#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// From one byte to another, both included.
    Of(u64, u64),
    /// None of its bytes.
    Outside,
}

/// Reads a `Range`; `None` for one that is to be ignored.
fn parse_range(range: &str, size: u64) -> Option<Range> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let end = size.checked_sub(1);
    let (first, last) = match (first, last) {
        ("", length) => {
            let length: u64 = length.parse().ok()?;
            (size.saturating_sub(length), if length == 0 { None } else { end })
        }
        (first, "") => (first.parse().ok()?, end),
        (first, last) => {
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            if last < first {
                return None;
            }
            (first, end.map(|end| last.min(end)))
        }
    };
    Some(match last {
        Some(last) if first <= last => Range::Of(first, last),
        _ => Range::Outside,
    })
}

fn document(status: StatusCode, root: &str, text: &str) -> Answer {
    let text = [
        r#"<?xml version="1.0" encoding="UTF-8"?><"#,
        root,
        r#" xmlns="http://s3.amazonaws.com/doc/2006-03-01/">"#,
        text,
        "</",
        root,
        ">",
    ];
    let mut answer = Response::new(Content::These(Some(text.concat().into())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    answer
}

fn element(name: &str, value: &str, text: &mut String) {
    for piece in ["<", name, ">", &escape(value), "</", name, ">"] {
        text.push_str(piece);
    }
}

fn time(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

/// The value of a header. All that are given are visible ASCII.
fn header(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        for (range, size, expected) in [
            ("bytes=0-0", 1, Some(Range::Of(0, 0))),
            ("bytes=0-9", 5, Some(Range::Of(0, 4))),
            ("bytes=3-", 5, Some(Range::Of(3, 4))),
            ("bytes=5-", 5, Some(Range::Outside)),
            ("bytes=-2", 5, Some(Range::Of(3, 4))),
            ("bytes=-9", 5, Some(Range::Of(0, 4))),
            ("bytes=-0", 5, Some(Range::Outside)),
            ("bytes=0-", 0, Some(Range::Outside)),
            ("bytes=4-3", 5, None),
            ("bytes=0-1,3-4", 5, None),
            ("bytes=-", 5, None),
            ("lines=0-1", 5, None),
        ] {
            assert_eq!(parse_range(range, size), expected, "{range} of {size}");
        }
    }
}
