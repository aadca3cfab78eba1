//! The removal of many objects of an S3-compatible bucket by one call (`DeleteObjects`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use md5::{Digest as _, Md5};

use super::bucket::{Bucket, LISTED_ENTRY, fault};
use super::fault::{Fault, StoreError, StoreErrorKind};
use super::layout::{self, Key};
use super::multi_delete::outcomes;
use super::objects::{Removal, Version};
use super::s3;
use super::transport::{Http, HttpResponse};

/// The codes with which a store refuses a call that it knows, for now.
const REFUSED_FOR_NOW: [&str; 4] =
    ["BadDigest", "ExpiredToken", "IncompleteBody", "RequestTimeout"];

impl<H: Http> Bucket<H> {
    /// Asks for the removal of up to a thousand objects, each with the version that it must have if one is given; as
    /// [`Objects::remove_many`](super::Objects::remove_many).
    pub(super) async fn delete_objects(
        &self,
        removals: &[(Key, Option<Version>)],
    ) -> Result<Option<Vec<Option<Removal>>>, StoreError> {
        let keys: Vec<_> = removals
            .iter()
            .map(|(key, _)| format!("{}{}", self.key_prefix(), key.as_str()))
            .collect();
        // For what is asked, and for the answer.
        let _room = self.budget.reserve_read(2 * LISTED_ENTRY * removals.len())?;
        let tags = removals.iter().map(|(_, version)| version.as_ref().map(|tag| tag.0.as_str()));
        let document = s3::removals_document(keys.iter().map(String::as_str).zip(tags));
        let mut request = self.request(Method::POST, &layout::all_content());
        request.path = format!("{}?delete=", self.root());
        // S3 wants this or another checksum, and this one every store knows.
        let md5 = STANDARD.encode(Md5::digest(document.as_bytes()));
        request.headers.push(("content-md5", md5));
        request.body = document.into();
        let has_conditions = removals.iter().any(|(_, version)| version.is_some());
        let response = match has_conditions {
            // Never repeated, as with one object: nobody would know who removed it.
            true => self.send_once(&request).await?,
            false => self.send(&request).await?,
        };
        if response.status != StatusCode::OK {
            return match Fault::of(response.status, &response.body) {
                _ if is_unknown(&response) => Ok(None),
                Fault::Other(error) => Err(fault(&request, error.kind(), &error.to_string())),
                Fault::NoSuchKey => {
                    Err(fault(&request, StoreErrorKind::Failed, "the bucket can't be written to"))
                }
            };
        }
        let Some(answer) = s3::parse_removals(&response.body) else {
            let message = "the blob store's answer does not say what was removed";
            return Err(fault(&request, StoreErrorKind::Failed, message));
        };
        Ok(Some(outcomes(keys.iter().map(String::as_str), answer)))
    }
}

/// Whether the store does not know the call, or not like this. All the same can be done one by one.
fn is_unknown(response: &HttpResponse) -> bool {
    match response.status {
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => true,
        StatusCode::BAD_REQUEST => {
            let code = s3::error_code(&response.body).unwrap_or_default();
            !REFUSED_FOR_NOW.contains(&code.as_str())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use bytes::Bytes;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::store::memory::run;
    use crate::store::transport::{HttpError, HttpRequest, Repeat};
    use crate::store::{Addressing, BucketOptions};

    /// A store that always gives the same answer, with what it was asked.
    struct Always(u16, String, RefCell<Vec<(HttpRequest, Repeat)>>);

    impl Http for Always {
        async fn send(
            &self,
            request: &HttpRequest,
            repeat: Repeat,
        ) -> Result<HttpResponse, HttpError> {
            self.2.borrow_mut().push((request.clone(), repeat));
            let status = StatusCode::from_u16(self.0).expect("a status");
            Ok(HttpResponse { status, version: None, body: Bytes::from(self.1.clone()) })
        }
    }

    fn bucket(status: u16, body: &str) -> Bucket<Always> {
        let options = BucketOptions {
            authority: "a".to_owned(),
            bucket: "b".to_owned(),
            addressing: Addressing::Path,
            prefix: "p".to_owned(),
            content_limit: 1,
        };
        let http = Always(status, body.to_owned(), RefCell::default());
        Bucket::new(http, &options, Rc::default())
    }

    #[test]
    fn a_call_that_is_not_known_is_told_from_one_that_fails() {
        let document = |code: &str| format!("<Error><Code>{code}</Code></Error>");
        let removed =
            "<DeleteResult><Deleted><Key>p/moorage/probes/removals</Key></Deleted></DeleteResult>";
        for (status, body, expected) in [
            (200, removed.to_owned(), Some(Some(vec![Some(Removal::Removed)]))),
            (200, "<DeleteResult></DeleteResult>".to_owned(), Some(Some(vec![None]))),
            (200, document("InternalError"), None),
            (200, String::new(), None),
            (400, document("MalformedXML"), Some(None)),
            (400, document("RequestTimeout"), None),
            (405, document("MethodNotAllowed"), Some(None)),
            (501, String::new(), Some(None)),
            (403, document("AccessDenied"), None),
            (404, document("NoSuchBucket"), None),
            (503, document("SlowDown"), None),
        ] {
            for version in [None, Some(Version("\"v\"".to_owned()))] {
                let bucket = bucket(status, &body);
                let has_condition = version.is_some();
                let removal = (layout::removal_probe(), version);
                let found = run(bucket.delete_objects(&[removal])).0;
                assert_eq!(found.ok(), expected, "{status} {body}");
                let asked = bucket.http().2.borrow();
                let (request, repeat) = &asked[0];
                assert_eq!(request.path, "/b/?delete=");
                assert_eq!(*repeat == Repeat::Never, has_condition);
                let body = String::from_utf8_lossy(&request.body);
                assert!(body.contains("<Key>p/moorage/probes/removals</Key>"), "{body}");
                assert_eq!(body.contains("<ETag>&quot;v&quot;</ETag>"), has_condition);
                let md5 = STANDARD.encode(Md5::digest(&request.body));
                assert_eq!(request.headers, [("content-md5", md5)]);
            }
        }
    }
}
