//! Multipart uploads that were begun and neither completed nor aborted: listing them, and aborting them.
//!
//! Stores keep their parts, and charge for them, without listing them as objects. The filter never asks for this; it is
//! for those who look after a bucket.

use http::{Method, StatusCode};
use percent_encoding::utf8_percent_encode;
use quick_xml::Reader;
use quick_xml::events::Event;

use super::bucket::{Bucket, QUERY, fault};
use super::compose::MultipartId;
use super::fault::{Fault, StoreError, StoreErrorKind};
use super::layout::Key;
use super::s3::{Http, error_code, resolve};

/// A multipart upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultipartUpload {
    /// The key that the object would get, relative to the prefix of the registry.
    pub key: Key,
    /// The id, which tells it from other uploads of the key.
    pub id: MultipartId,
    /// When it was begun, as the store words it.
    pub initiated: String,
}

/// Where a page of a listing begins: behind this key and, of that key, this upload.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Markers {
    key: String,
    id: String,
}

impl<H: Http> Bucket<H> {
    /// The multipart uploads of keys that begin with `prefix`. A call for every thousand of them.
    ///
    /// # Errors
    ///
    /// Those of the store; one that has no such listing answers 501.
    pub async fn multipart_uploads(
        &self,
        prefix: &Key,
    ) -> Result<Vec<MultipartUpload>, StoreError> {
        let mut uploads = Vec::new();
        let mut markers: Option<Markers> = None;
        loop {
            let mut request = self.request(Method::GET, prefix);
            request.path = self.multipart_path(prefix, markers.as_ref());
            let response = self.send(&request).await?;
            if response.status != StatusCode::OK {
                return Err(match Fault::of(response.status, &response.body) {
                    Fault::Other(error) => error,
                    Fault::NoSuchKey => {
                        fault(&request, StoreErrorKind::Failed, "the bucket can't be listed")
                    }
                });
            }
            let nonsense = || {
                fault(&request, StoreErrorKind::Failed, "the blob store's listing makes no sense")
            };
            let page = parse_page(&response.body).ok_or_else(nonsense)?;
            uploads.extend(page.uploads.into_iter().filter_map(|listed| {
                let key = Key::listed(listed.key.strip_prefix(self.key_prefix())?)?;
                Some(MultipartUpload {
                    key,
                    id: MultipartId(listed.id),
                    initiated: listed.initiated,
                })
            }));
            if page.next.is_none() {
                return Ok(uploads);
            }
            if page.next == markers {
                let message = "the blob store's listing is endless";
                return Err(fault(&request, StoreErrorKind::Failed, message));
            }
            markers = page.next;
        }
    }

    /// Aborts a multipart upload. One that isn't there is no error. One call.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn abort_multipart_upload(&self, upload: &MultipartUpload) -> Result<(), StoreError> {
        let mut request = self.request(Method::DELETE, &upload.key);
        let id = utf8_percent_encode(&upload.id.0, QUERY);
        request.path.push_str(&format!("?uploadId={id}"));
        let response = self.send(&request).await?;
        match response.status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(()),
            StatusCode::NOT_FOUND
                if error_code(&response.body).as_deref() == Some("NoSuchUpload") =>
            {
                Ok(())
            }
            status => match Fault::of(status, &response.body) {
                Fault::NoSuchKey => Ok(()),
                Fault::Other(error) => Err(error),
            },
        }
    }

    fn multipart_path(&self, prefix: &Key, markers: Option<&Markers>) -> String {
        let prefix = format!("{}{}", self.key_prefix(), prefix.as_str());
        let mut parameters = vec![("uploads", "")];
        if let Some(Markers { key, id }) = markers {
            parameters.extend([("key-marker", key.as_str()), ("upload-id-marker", id)]);
        }
        parameters.push(("prefix", &prefix));
        let parameters = parameters
            .iter()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, QUERY)));
        format!("{}?{}", self.root(), parameters.collect::<Vec<_>>().join("&"))
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Listed {
    key: String,
    id: String,
    initiated: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Page {
    uploads: Vec<Listed>,
    next: Option<Markers>,
}

/// Reads the answer to `ListMultipartUploads`; `None` if it is no such answer.
fn parse_page(body: &[u8]) -> Option<Page> {
    const ROOT: &str = "ListMultipartUploadsResult";
    let mut reader = Reader::from_str(std::str::from_utf8(body).ok()?);
    let mut page = Page::default();
    let mut path: Vec<String> = Vec::new();
    let mut text = String::new();
    let mut listed = Listed::default();
    let (mut key, mut id) = (String::new(), String::new());
    let (mut is_complete, mut is_truncated) = (false, None);
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
                    [ROOT, "Upload", "Key"] => listed.key = std::mem::take(&mut text),
                    [ROOT, "Upload", "UploadId"] => listed.id = std::mem::take(&mut text),
                    [ROOT, "Upload", "Initiated"] => listed.initiated = std::mem::take(&mut text),
                    [ROOT, "Upload"] => page.uploads.push(std::mem::take(&mut listed)),
                    [ROOT, "NextKeyMarker"] => key = std::mem::take(&mut text),
                    [ROOT, "NextUploadIdMarker"] => id = std::mem::take(&mut text),
                    [ROOT, "IsTruncated"] => is_truncated = Some(text.trim() == "true"),
                    [ROOT] => is_complete = true,
                    _ => {}
                }
                path.pop();
                text.clear();
            }
            Event::Eof => break,
            _ => {}
        }
    }
    let is_whole = page.uploads.iter().all(|u| !u.key.is_empty() && !u.initiated.is_empty());
    // One that has more, and does not say where, is no listing.
    match is_truncated? {
        true if key.is_empty() || id.is_empty() => return None,
        true => page.next = Some(Markers { key, id }),
        false => {}
    }
    (is_complete && is_whole).then_some(page)
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_page_of_multipart_uploads_is_read() {
        let page = |markers: &str, truncated| {
            parse_page(
                format!(
                    "<ListMultipartUploadsResult><KeyMarker/><IsTruncated>{truncated}</IsTruncated>{markers}\
                     <Upload><Key>k&amp;</Key><UploadId>i</UploadId><Owner><ID>o</ID></Owner>\
                     <Initiated>2026-11-24T10:00:00Z</Initiated></Upload></ListMultipartUploadsResult>"
                )
                .as_bytes(),
            )
        };
        let listed = Listed {
            key: "k&".to_owned(),
            id: "i".to_owned(),
            initiated: "2026-11-24T10:00:00Z".to_owned(),
        };
        let found = page("<NextKeyMarker/>", false).expect("a page");
        assert_eq!(found, Page { uploads: vec![listed], next: None });
        let both = "<NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>i</NextUploadIdMarker>";
        let next = Some(Markers { key: "k".to_owned(), id: "i".to_owned() });
        assert_eq!(page(both, true).expect("a page").next, next);
        assert_eq!(page("<NextKeyMarker/>", true), None, "it does not say where it goes on");
    }

    #[test]
    fn an_answer_that_is_no_listing_is_not_an_empty_one() {
        for body in [
            "",
            "ok",
            "<html><body>Welcome</body></html>",
            "<ListMultipartUploadsResult><Upload>",
            "<ListMultipartUploadsResult></ListMultipartUploadsResult>",
            "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><Upload><Key>k</Key></Upload>\
             </ListMultipartUploadsResult>",
        ] {
            assert_eq!(parse_page(body.as_bytes()), None, "{body}");
        }
    }
}
