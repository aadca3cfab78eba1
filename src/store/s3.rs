//! S3's protocol, as far as it is used, and what it is spoken over.

use bytes::Bytes;
use http::{Method, StatusCode};
use quick_xml::Reader;
use quick_xml::escape::{escape, resolve_predefined_entity};
use quick_xml::events::{BytesRef, Event};
use thiserror::Error;

/// A request to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// The method.
    pub method: Method,
    /// The `Host` of the request.
    pub authority: String,
    /// The path, bucket and key, and perhaps a query; encoded where that is needed.
    pub path: String,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body; empty for none.
    pub body: Bytes,
    /// Whether the answer's `ETag` is needed. Reading a header has its price.
    pub wants_version: bool,
    /// How long the answer may take.
    pub timeout: Timeout,
}

/// How long the store may take over a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// As long as `store.timeout_ms` says.
    Ordinary,
    /// As long as `store.copy_timeout_ms` says: it moves a good deal of data.
    Copy,
}

/// Whether the proxy may send a request to the store again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Once only: whoever asked has to know if it was done.
    Never,
    /// When the connection fails or the store errs, as long as there is time for it.
    WhenItFails,
}

/// The store's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status.
    pub status: StatusCode,
    /// The `ETag`, if it was asked for and given.
    pub version: Option<String>,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HttpError {
    /// No connection, or it broke before the whole answer was there.
    #[error("the connection failed")]
    Connection,
    /// The proxy knows no way to the store.
    #[error("Envoy has no cluster of the name that store.cluster gives")]
    NoSuchCluster,
    /// The answer is not HTTP.
    #[error("the answer is not HTTP")]
    Nonsense,
    /// No connection, or none that held, and the carrier knows why. It has repeated what it may.
    #[error("{0}")]
    Unreachable(String),
}

/// The transport of requests to the store.
#[expect(async_fn_in_trait, reason = "the filter runs in one thread; no future is ever sent")]
pub trait Http {
    /// Sends one request and reads its whole answer. The time this may take is the implementation's
    /// to limit; it reports a request that took too long as status 504, as Envoy does.
    async fn send(&self, request: &HttpRequest, repeat: Repeat) -> Result<HttpResponse, HttpError>;
}

/// The `Code` of an S3 error document, if `body` is one.
pub fn error_code(body: &[u8]) -> Option<String> {
    text_at(body, &["Error", "Code"])
}

/// The `Message` of an S3 error document, if `body` is one.
pub fn error_message(body: &[u8]) -> Option<String> {
    text_at(body, &["Error", "Message"])
}

/// Whether an answer says that the checksum sent with an object is not the object's.
pub fn is_checksum_mismatch(status: StatusCode, body: &[u8]) -> bool {
    status == StatusCode::BAD_REQUEST
        && matches!(
            error_code(body).as_deref(),
            Some("BadDigest" | "InvalidDigest" | "XAmzContentChecksumMismatch")
        )
}

/// The length of an object in S3's error document for a range that lies outside it, where it is given.
pub fn unsatisfied_length(body: &[u8]) -> Option<u64> {
    text_at(body, &["Error", "ActualObjectSize"])?.parse().ok()
}

/// The text of the first element with this path in an XML document, if `body` is one.
pub fn text_at(body: &[u8], wanted: &[&str]) -> Option<String> {
    let mut reader = Reader::from_str(std::str::from_utf8(body).ok()?);
    let mut path: Vec<String> = Vec::new();
    let mut text = String::new();
    loop {
        match reader.read_event().ok()? {
            Event::Start(element) => {
                path.push(element.local_name().as_ref().to_owned());
                text.clear();
            }
            Event::Text(piece) => text.push_str(&piece),
            Event::GeneralRef(reference) => text.push(resolve(&reference)?),
            Event::End(_) if path == wanted => return Some(text.trim().to_owned()),
            Event::End(_) => {
                path.pop();
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

/// The document that completes a multipart upload: its parts, by the entity tags that the store gave
/// them, in their order.
pub fn parts_document<'a>(tags: impl IntoIterator<Item = &'a str>) -> String {
    let part = |(number, tag): (u32, &str)| {
        let tag = escape(tag);
        format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>")
    };
    let parts: String = (1..).zip(tags).map(part).collect();
    format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>")
}

/// One page of `ListObjectsV2`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Keys and common prefixes together.
    pub keys: Vec<String>,
    /// When each key was last modified, at the same place; empty for a common prefix.
    pub modified: Vec<String>,
    /// The token of the next page.
    pub next: Option<String>,
}

/// Reads the answer to `ListObjectsV2`; `None` if it is no such answer.
pub fn parse_listing(body: &[u8]) -> Option<Listing> {
    const ROOT: &str = "ListBucketResult";
    let mut reader = Reader::from_str(std::str::from_utf8(body).ok()?);
    let mut listing = Listing::default();
    let mut path: Vec<String> = Vec::new();
    let mut text = String::new();
    let mut modified = String::new();
    let (mut is_complete, mut is_truncated) = (false, false);
    loop {
        match reader.read_event().ok()? {
            Event::Start(element) => {
                path.push(element.local_name().as_ref().to_owned());
                text.clear();
            }
            Event::Text(piece) => text.push_str(&piece),
            Event::GeneralRef(reference) => text.push(resolve(&reference)?),
            Event::End(_) => {
                let names: Vec<&str> = path.iter().map(String::as_str).collect();
                match names.as_slice() {
                    [ROOT, "Contents", "Key"] | [ROOT, "CommonPrefixes", "Prefix"] => {
                        listing.keys.push(std::mem::take(&mut text));
                        listing.modified.push(String::new());
                    }
                    [ROOT, "Contents", "LastModified"] => modified = std::mem::take(&mut text),
                    [ROOT, "Contents"] => {
                        if let Some(last) = listing.modified.last_mut() {
                            *last = std::mem::take(&mut modified);
                        }
                    }
                    [ROOT, "NextContinuationToken"] => {
                        listing.next = Some(std::mem::take(&mut text));
                    }
                    [ROOT, "IsTruncated"] => is_truncated = text.trim() == "true",
                    [ROOT] => is_complete = true,
                    _ => {}
                }
                path.pop();
            }
            // One that has more, and does not say where, is no listing.
            Event::Eof => {
                let leads_on = !is_truncated || listing.next.is_some();
                return (is_complete && leads_on).then_some(listing);
            }
            _ => {}
        }
    }
}

/// The character that an entity reference stands for.
pub(super) fn resolve(reference: &BytesRef) -> Option<char> {
    if let Some(character) = reference.resolve_char_ref().ok()? {
        return Some(character);
    }
    resolve_predefined_entity(reference)?.chars().next()
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn the_code_of_an_error_document_is_found() {
        for (body, code) in [
            ("<Error><Code>NoSuchKey</Code></Error>", Some("NoSuchKey")),
            (
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\n  \
                 <Message>a &amp; b</Message>\n  <Code>\n SlowDown </Code></Error>",
                Some("SlowDown"),
            ),
            ("<Error><Detail><Code>Inner</Code></Detail></Error>", None),
            ("<html><Code>NoSuchKey</Code></html>", None),
            ("<Error><Code>", None),
            ("no healthy upstream", None),
            ("\u{0}<<<>", None),
            ("", None),
        ] {
            assert_eq!(error_code(body.as_bytes()).as_deref(), code, "{body}");
        }
    }

    #[test]
    fn texts_are_found_by_their_path() {
        let body = b"<CopyPartResult xmlns=\"x\"><ETag>&quot;a&#98;&quot;</ETag></CopyPartResult>";
        let tag = text_at(body, &["CopyPartResult", "ETag"]);
        assert_eq!(tag.as_deref(), Some("\"ab\""));
        assert_eq!(text_at(body, &["CopyObjectResult", "ETag"]), None);
        assert_eq!(text_at(b"<a><b>", &["a", "b"]), None);
        let document = parts_document(["\"a\"", "b"]);
        assert_eq!(
            document,
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>&quot;a&quot;</ETag></Part>\
             <Part><PartNumber>2</PartNumber><ETag>b</ETag></Part></CompleteMultipartUpload>"
        );
    }

    #[test]
    fn a_listing_is_read() {
        let body = "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"x\"><Name>b</Name><Prefix>p/</Prefix>\
             <IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b&#43;</NextContinuationToken>\
             <Contents><LastModified>2026-01-02T03:04:05.678Z</LastModified><Key>p/1</Key><ETag>\"e\"</ETag></Contents>\
             <CommonPrefixes><Prefix>p/2/</Prefix></CommonPrefixes></ListBucketResult>";
        let expected = Listing {
            keys: vec!["p/1".to_owned(), "p/2/".to_owned()],
            modified: vec!["2026-01-02T03:04:05.678Z".to_owned(), String::new()],
            next: Some("a&b+".to_owned()),
        };
        assert_eq!(parse_listing(body.as_bytes()), Some(expected));
        let empty = b"<ListBucketResult><Name>b</Name></ListBucketResult>";
        assert_eq!(parse_listing(empty), Some(Listing::default()));
        let cut = "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
        for nonsense in
            [cut, "", "<html></html>", "<ListBucketResult><Contents><Key>a</Key></Contents>"]
        {
            assert_eq!(parse_listing(nonsense.as_bytes()), None, "{nonsense}");
        }
    }
}
