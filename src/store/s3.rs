//! S3's answers, as far as they are used: error codes, and the XML of its documents.
//!
//! They are read event by event. To deserialise a single one of them (`quick_xml::de`) makes the module 79 KB larger, a
//! twentieth of it.

use http::StatusCode;
use quick_xml::Reader;
use quick_xml::escape::{escape, resolve_predefined_entity};
use quick_xml::events::{BytesRef, Event};

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

/// The elements of an XML document, one after the other as they end.
struct Elements<'a> {
    reader: Reader<&'a [u8]>,
    /// The names of the element that has just ended and of those that it is in, the outermost first.
    path: Vec<String>,
    /// Its text.
    text: String,
    has_ended: bool,
}

impl<'a> Elements<'a> {
    /// The elements of `body`; `None` if that is not even text.
    fn of(body: &'a [u8]) -> Option<Self> {
        let reader = Reader::from_str(std::str::from_utf8(body).ok()?);
        Some(Self { reader, path: Vec::new(), text: String::new(), has_ended: false })
    }

    /// Goes on to the next element that ends; `false` at the end of the document, and `None` if it is no XML.
    fn advance(&mut self) -> Option<bool> {
        if std::mem::take(&mut self.has_ended) {
            self.path.pop();
        }
        loop {
            match self.reader.read_event().ok()? {
                Event::Start(element) => {
                    self.path.push(element.local_name().as_ref().to_owned());
                    self.text.clear();
                }
                Event::Text(piece) => self.text.push_str(&piece),
                Event::GeneralRef(reference) => self.text.push(resolve(&reference)?),
                Event::End(_) => {
                    self.has_ended = true;
                    return Some(true);
                }
                Event::Eof => return Some(false),
                _ => {}
            }
        }
    }
}

/// The character that an entity reference stands for.
fn resolve(reference: &BytesRef) -> Option<char> {
    if let Some(character) = reference.resolve_char_ref().ok()? {
        return Some(character);
    }
    resolve_predefined_entity(reference)?.chars().next()
}

/// The text of the first element with this path in an XML document, if `body` is one.
pub fn text_at(body: &[u8], wanted: &[&str]) -> Option<String> {
    let mut elements = Elements::of(body)?;
    while elements.advance()? {
        if elements.path == wanted {
            return Some(elements.text.trim().to_owned());
        }
    }
    None
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
    pub entries: Vec<ListedEntry>,
    /// The token of the next page.
    pub next: Option<String>,
}

/// A key or a common prefix, as it is listed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ListedEntry {
    /// The key or the prefix.
    pub key: String,
    /// When it was last modified; empty for a common prefix.
    pub modified: String,
    /// Its size in bytes; 0 for a common prefix, and where the store does not say.
    pub size: u64,
    /// Its entity tag, in quotes; empty for a common prefix, and where the store does not say.
    pub etag: String,
}

/// Reads the answer to `ListObjectsV2`; `None` if it is no such answer.
pub fn parse_listing(body: &[u8]) -> Option<Listing> {
    const ROOT: &str = "ListBucketResult";
    let mut elements = Elements::of(body)?;
    let mut listing = Listing::default();
    let mut entry = ListedEntry::default();
    let (mut is_complete, mut is_truncated) = (false, false);
    while elements.advance()? {
        let path: Vec<&str> = elements.path.iter().map(String::as_str).collect();
        let text = &mut elements.text;
        match path.as_slice() {
            [ROOT, "Contents", "Key"] | [ROOT, "CommonPrefixes", "Prefix"] => {
                entry.key = std::mem::take(text);
            }
            [ROOT, "Contents", "LastModified"] => entry.modified = std::mem::take(text),
            [ROOT, "Contents", "ETag"] => entry.etag = in_quotes(text.trim()),
            [ROOT, "Contents", "Size"] => entry.size = text.trim().parse().ok()?,
            [ROOT, "Contents" | "CommonPrefixes"] => {
                listing.entries.push(std::mem::take(&mut entry));
            }
            [ROOT, "NextContinuationToken"] => listing.next = Some(std::mem::take(text)),
            [ROOT, "IsTruncated"] => is_truncated = text.trim() == "true",
            [ROOT] => is_complete = true,
            _ => {}
        }
    }
    // One that has more, and does not say where, is no listing.
    let leads_on = !is_truncated || listing.next.is_some();
    (is_complete && leads_on).then_some(listing)
}

/// An entity tag as a header has it. Some stores leave out the quotes in a listing.
fn in_quotes(tag: &str) -> String {
    match tag {
        "" => String::new(),
        quoted if quoted.starts_with(['"', 'W']) => quoted.to_owned(),
        bare => format!("\"{bare}\""),
    }
}

/// The document that asks for the removal of objects: their keys, each with the entity tag that it must have if one is given.
pub fn removals_document<'a>(
    removals: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
) -> String {
    let mut document = "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">".to_owned();
    for (key, tag) in removals {
        document.extend(["<Object><Key>", &escape(key), "</Key>"]);
        if let Some(tag) = tag {
            document.extend(["<ETag>", &escape(tag), "</ETag>"]);
        }
        document.push_str("</Object>");
    }
    document.push_str("</Delete>");
    document
}

/// The answer to a removal of objects: each key that it tells of, with the code of its error if it was not removed.
pub type RemovedKeys = Vec<(String, Option<String>)>;

/// Reads the answer to `DeleteObjects`; `None` if it is no such answer.
pub fn parse_removals(body: &[u8]) -> Option<RemovedKeys> {
    const ROOT: &str = "DeleteResult";
    let mut elements = Elements::of(body)?;
    // One that has removed nothing may be an empty element.
    elements.reader.config_mut().expand_empty_elements = true;
    let mut removed = RemovedKeys::new();
    let (mut key, mut code) = (String::new(), String::new());
    let mut is_complete = false;
    while elements.advance()? {
        let path: Vec<&str> = elements.path.iter().map(String::as_str).collect();
        let text = &mut elements.text;
        match path.as_slice() {
            [ROOT, "Deleted" | "Error", "Key"] => key = std::mem::take(text),
            [ROOT, "Error", "Code"] => text.trim().clone_into(&mut code),
            [ROOT, "Deleted"] => removed.push((std::mem::take(&mut key), None)),
            [ROOT, "Error"] => {
                removed.push((std::mem::take(&mut key), Some(std::mem::take(&mut code))));
            }
            [ROOT] => is_complete = true,
            _ => {}
        }
    }
    is_complete.then_some(removed)
}

/// One page of `ListMultipartUploads`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct UploadListing {
    /// The uploads.
    pub uploads: Vec<ListedUpload>,
    /// Behind which key, and which upload of that key, the next page begins.
    pub next: Option<(String, String)>,
}

/// A multipart upload, as it is listed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ListedUpload {
    /// The key that the object would get.
    pub key: String,
    /// The upload's id.
    pub id: String,
    /// When it was begun.
    pub initiated: String,
}

/// Reads the answer to `ListMultipartUploads`; `None` if it is no such answer.
pub fn parse_upload_listing(body: &[u8]) -> Option<UploadListing> {
    const ROOT: &str = "ListMultipartUploadsResult";
    let mut elements = Elements::of(body)?;
    let mut listing = UploadListing::default();
    let mut listed = ListedUpload::default();
    let (mut key, mut id) = (String::new(), String::new());
    let (mut is_complete, mut is_truncated) = (false, None);
    while elements.advance()? {
        let path: Vec<&str> = elements.path.iter().map(String::as_str).collect();
        let text = &mut elements.text;
        match path.as_slice() {
            [ROOT, "Upload", "Key"] => listed.key = std::mem::take(text),
            [ROOT, "Upload", "UploadId"] => listed.id = std::mem::take(text),
            [ROOT, "Upload", "Initiated"] => listed.initiated = std::mem::take(text),
            [ROOT, "Upload"] => listing.uploads.push(std::mem::take(&mut listed)),
            [ROOT, "NextKeyMarker"] => key = std::mem::take(text),
            [ROOT, "NextUploadIdMarker"] => id = std::mem::take(text),
            [ROOT, "IsTruncated"] => is_truncated = Some(text.trim() == "true"),
            [ROOT] => is_complete = true,
            _ => {}
        }
    }
    if is_truncated? {
        // One that has more, and does not say where, is no listing.
        listing.next = Some((key, id)).filter(|(key, id)| !key.is_empty() && !id.is_empty());
        listing.next.as_ref()?;
    }
    let is_whole = listing.uploads.iter().all(|u| !u.key.is_empty() && !u.initiated.is_empty());
    (is_complete && is_whole).then_some(listing)
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
             <Contents><LastModified>2026-01-02T03:04:05.678Z</LastModified><Key>p/1</Key><ETag>\"e\"</ETag><Size>5</Size></Contents>\
             <CommonPrefixes><Prefix>p/2/</Prefix></CommonPrefixes></ListBucketResult>";
        let expected = Listing {
            entries: vec![
                ListedEntry {
                    key: "p/1".to_owned(),
                    modified: "2026-01-02T03:04:05.678Z".to_owned(),
                    size: 5,
                    etag: "\"e\"".to_owned(),
                },
                ListedEntry { key: "p/2/".to_owned(), ..ListedEntry::default() },
            ],
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

    #[test]
    fn an_entity_tag_is_listed_with_quotes_whatever_the_store_does() {
        for (listed, tag) in
            [("&quot;e&quot;", "\"e\""), ("e", "\"e\""), ("W/\"e\"", "W/\"e\""), ("", "")]
        {
            let body = format!(
                "<ListBucketResult><Contents><Key>k</Key><ETag>{listed}</ETag></Contents></ListBucketResult>"
            );
            let listing = parse_listing(body.as_bytes()).expect("a listing");
            assert_eq!(listing.entries[0].etag, tag);
        }
    }

    #[test]
    fn a_removal_of_many_is_asked_for_and_each_key_is_looked_for_in_the_answer() {
        let document = removals_document([("a&b", None), ("c", Some("\"e\""))]);
        assert!(document.contains("<Object><Key>a&amp;b</Key></Object>"), "{document}");
        assert!(document.contains("<Key>c</Key><ETag>&quot;e&quot;</ETag>"), "{document}");
        let answer = "<?xml version=\"1.0\"?><DeleteResult xmlns=\"x\"><Deleted><Key>a&amp;b</Key></Deleted>\
             <Error><Key>c</Key><Code>PreconditionFailed</Code><Message>m</Message></Error></DeleteResult>";
        let removed = parse_removals(answer.as_bytes());
        let expected =
            vec![("a&b".to_owned(), None), ("c".to_owned(), Some("PreconditionFailed".to_owned()))];
        assert_eq!(removed, Some(expected));
        assert_eq!(parse_removals(b"<DeleteResult/>"), Some(Vec::new()));
        for nonsense in ["", "<Error><Code>InternalError</Code></Error>", "<DeleteResult>"] {
            assert_eq!(parse_removals(nonsense.as_bytes()), None, "{nonsense}");
        }
    }

    #[test]
    fn a_page_of_multipart_uploads_is_read() {
        let page = |markers: &str, truncated| {
            parse_upload_listing(
                format!(
                    "<ListMultipartUploadsResult><KeyMarker/><IsTruncated>{truncated}</IsTruncated>{markers}\
                     <Upload><Key>k&amp;</Key><UploadId>i</UploadId><Owner><ID>o</ID></Owner>\
                     <Initiated>2026-11-24T10:00:00Z</Initiated></Upload></ListMultipartUploadsResult>"
                )
                .as_bytes(),
            )
        };
        let listed = ListedUpload {
            key: "k&".to_owned(),
            id: "i".to_owned(),
            initiated: "2026-11-24T10:00:00Z".to_owned(),
        };
        let found = page("<NextKeyMarker/>", false).expect("a page");
        assert_eq!(found, UploadListing { uploads: vec![listed], next: None });
        let both = "<NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>i</NextUploadIdMarker>";
        let next = Some(("k".to_owned(), "i".to_owned()));
        assert_eq!(page(both, true).expect("a page").next, next);
        assert_eq!(page("<NextKeyMarker/>", true), None, "it does not say where it goes on");
    }

    #[test]
    fn an_answer_that_is_no_listing_of_uploads_is_not_an_empty_one() {
        for body in [
            "",
            "ok",
            "<html><body>Welcome</body></html>",
            "<ListMultipartUploadsResult><Upload>",
            "<ListMultipartUploadsResult></ListMultipartUploadsResult>",
            "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><Upload><Key>k</Key></Upload>\
             </ListMultipartUploadsResult>",
        ] {
            assert_eq!(parse_upload_listing(body.as_bytes()), None, "{body}");
        }
    }
}
