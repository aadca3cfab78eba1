//! The S3 requests that a purge needs, one after the other, and what their answers say.
//!
//! Signatures come from the crate `rusty-s3`. Its own actions are not used: its listings ask for
//! `encoding-type`, which smaller stores don't know and which keys of a registry don't need, and it
//! has none for listing multipart uploads.

use std::time::Duration;

use jiff::Timestamp;
use rusty_s3::{Bucket, Credentials, Method};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};
use url::Url;

/// How long one request may take, its answer included.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How long a signature is valid. Clocks may differ by as much, as far as S3 is concerned.
const SIGNED_FOR: Duration = Duration::from_secs(15 * 60);

/// A bucket of an S3 store.
pub struct Store {
    bucket: Bucket,
    credentials: Option<Credentials>,
    agent: Agent,
}

/// Why a request failed.
#[derive(Debug, Error)]
pub enum Fault {
    /// No answer, or not all of it.
    #[error("the store can't be reached: {0}")]
    Connection(#[from] ureq::Error),
    /// An answer that is an error.
    #[error("the store answered {status}{}", explained(code, message))]
    Status {
        /// The HTTP status.
        status: u16,
        /// S3's name for the error, if the answer has one.
        code: String,
        /// S3's explanation, if the answer has one.
        message: String,
    },
    /// An answer that is none of S3's.
    #[error("the store's answer makes no sense: {0}")]
    Nonsense(String),
}

impl Fault {
    /// Whether the store doesn't know what was asked of it.
    pub fn is_not_implemented(&self) -> bool {
        matches!(self, Self::Status { status, code, .. } if *status == 501 || code == "NotImplemented")
    }

    /// Whether there is no such object or upload. Not having the bucket is another matter.
    fn is_absent(&self) -> bool {
        matches!(self, Self::Status { code, .. } if code == "NoSuchKey" || code == "NoSuchUpload")
    }
}

/// How far down a listing goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// One folder: its own objects, and the folders in it.
    Folder,
    /// Every object below.
    All,
}

/// What a listing found, in the order of the keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The objects.
    pub objects: Vec<Object>,
    /// The folders, as what the keys in them begin with.
    pub folders: Vec<String>,
}

/// An object, as listed.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Object {
    /// Its key.
    pub key: String,
    /// When it was written.
    pub last_modified: Timestamp,
}

/// A multipart upload that was neither completed nor aborted, as listed.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Upload {
    /// The key that the object would get.
    pub key: String,
    /// What tells it from other uploads of the key.
    pub upload_id: String,
    /// When it was begun.
    pub initiated: Timestamp,
}

impl Store {
    /// The bucket, with requests signed if there are credentials.
    pub fn new(bucket: Bucket, credentials: Option<Credentials>) -> Self {
        // The certificates that this machine trusts: a store of one's own often has its own.
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            // A signature is for one host and path.
            .max_redirects(0)
            .build()
            .into();
        Self { bucket, credentials, agent }
    }

    /// Lists what has keys that begin with `prefix`. A request for every thousand entries.
    pub fn list(&self, prefix: &str, depth: Depth) -> Result<Listing, Fault> {
        let mut listing = Listing::default();
        let mut token: Option<String> = None;
        loop {
            let mut query = vec![("list-type", "2"), ("prefix", prefix)];
            if depth == Depth::Folder {
                query.push(("delimiter", "/"));
            }
            if let Some(token) = &token {
                query.push(("continuation-token", token));
            }
            let page: ListingPage = parse(&self.get(self.bucket.base_url().clone(), query)?)?;
            listing.objects.extend(page.contents);
            listing.folders.extend(page.common_prefixes.into_iter().map(|folder| folder.prefix));
            if !page.is_truncated {
                return Ok(listing);
            }
            token = Some(needed(page.next_continuation_token, "NextContinuationToken")?);
        }
    }

    /// An object's content, `None` if there is no such object.
    pub fn content(&self, key: &str) -> Result<Option<Vec<u8>>, Fault> {
        if_there(self.get(self.bucket.object_url(key), Vec::new()))
    }

    /// Removes an object, if it is there.
    pub fn remove(&self, key: &str) -> Result<(), Fault> {
        if_there(self.delete(self.bucket.object_url(key), Vec::new())).map(drop)
    }

    /// Lists the multipart uploads of keys that begin with `prefix`.
    pub fn uploads(&self, prefix: &str) -> Result<Vec<Upload>, Fault> {
        let mut uploads = Vec::new();
        let mut markers: Option<(String, String)> = None;
        loop {
            let mut query = vec![("uploads", ""), ("prefix", prefix)];
            if let Some((key, id)) = &markers {
                query.extend([("key-marker", key.as_str()), ("upload-id-marker", id)]);
            }
            let page: UploadsPage = parse(&self.get(self.bucket.base_url().clone(), query)?)?;
            uploads.extend(page.upload);
            if !page.is_truncated {
                return Ok(uploads);
            }
            markers = Some((
                needed(page.next_key_marker, "NextKeyMarker")?,
                needed(page.next_upload_id_marker, "NextUploadIdMarker")?,
            ));
        }
    }

    /// Aborts a multipart upload, if it is still there.
    pub fn abort(&self, upload: &Upload) -> Result<(), Fault> {
        let query = vec![("uploadId", upload.upload_id.as_str())];
        if_there(self.delete(self.bucket.object_url(&upload.key), query)).map(drop)
    }

    fn get(&self, url: Url, query: Vec<(&str, &str)>) -> Result<Vec<u8>, Fault> {
        let url = self.signed(Method::Get, url, query);
        read(self.agent.get(url.as_str()).call()?)
    }

    fn delete(&self, url: Url, query: Vec<(&str, &str)>) -> Result<Vec<u8>, Fault> {
        let url = self.signed(Method::Delete, url, query);
        read(self.agent.delete(url.as_str()).call()?)
    }

    /// The URL with its query, and with the signature that goes into it.
    fn signed(&self, method: Method, mut url: Url, mut query: Vec<(&str, &str)>) -> Url {
        let Some(credentials) = &self.credentials else {
            if !query.is_empty() {
                url.query_pairs_mut().extend_pairs(query);
            }
            return url;
        };
        // Signatures go by this order.
        query.sort_unstable();
        rusty_s3::signing::sign(
            &Timestamp::now(),
            method,
            url,
            credentials.key(),
            credentials.secret(),
            credentials.token(),
            self.bucket.region(),
            SIGNED_FOR.as_secs(),
            query.iter().copied(),
            std::iter::empty(),
        )
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListingPage {
    is_truncated: bool,
    next_continuation_token: Option<String>,
    #[serde(default)]
    contents: Vec<Object>,
    #[serde(default)]
    common_prefixes: Vec<CommonPrefix>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CommonPrefix {
    prefix: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UploadsPage {
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
    #[serde(default)]
    upload: Vec<Upload>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ErrorDocument {
    code: String,
    message: String,
}

fn read(mut response: ureq::http::Response<ureq::Body>) -> Result<Vec<u8>, Fault> {
    let body = response.body_mut().read_to_vec()?;
    let status = response.status();
    if status.is_success() {
        return Ok(body);
    }
    let ErrorDocument { code, message } = parse(&body).unwrap_or_default();
    Err(Fault::Status { status: status.as_u16(), code, message })
}

/// What an error document adds to the status, in one line whatever the store writes.
fn explained(code: &str, message: &str) -> String {
    let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match (code, words.as_str()) {
        ("", _) => String::new(),
        (code, "") => format!(" {code}"),
        (code, words) => format!(" {code}: {words}"),
    }
}

fn if_there<T>(outcome: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(fault) if fault.is_absent() => Ok(None),
        Err(fault) => Err(fault),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    let text = std::str::from_utf8(body).map_err(|error| Fault::Nonsense(error.to_string()))?;
    quick_xml::de::from_str(text).map_err(|error| Fault::Nonsense(error.to_string()))
}

/// What a page must have that says that there are more.
fn needed(marker: Option<String>, name: &str) -> Result<String, Fault> {
    marker
        .filter(|text| !text.is_empty())
        .ok_or_else(|| Fault::Nonsense(format!("a truncated listing without {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn a_page_of_a_listing_is_read() {
        let page: ListingPage = parse(
            b"<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
              <Name>b</Name><IsTruncated>true</IsTruncated>\
              <NextContinuationToken>a&amp;b=</NextContinuationToken>\
              <CommonPrefixes><Prefix>p/1/</Prefix></CommonPrefixes>\
              <Contents><Key>p/k</Key><LastModified>2026-11-24T10:00:00.123Z</LastModified>\
              <ETag>&quot;e&quot;</ETag><Size>1</Size></Contents>\
              <CommonPrefixes><Prefix>p/2/</Prefix></CommonPrefixes></ListBucketResult>",
        )
        .expect("a page");
        let object =
            Object { key: "p/k".to_owned(), last_modified: time("2026-11-24T10:00:00.123Z") };
        let folders: Vec<_> =
            page.common_prefixes.into_iter().map(|folder| folder.prefix).collect();
        assert!(page.is_truncated);
        assert_eq!(page.next_continuation_token.as_deref(), Some("a&b="));
        assert_eq!(page.contents, [object]);
        assert_eq!(folders, ["p/1/", "p/2/"]);
    }

    #[test]
    fn a_page_of_multipart_uploads_is_read() {
        let page: UploadsPage = parse(
            b"<ListMultipartUploadsResult><KeyMarker/><IsTruncated>false</IsTruncated><NextKeyMarker/>\
              <Upload><Key>k</Key><UploadId>i</UploadId><Owner><ID>o</ID></Owner>\
              <Initiated>2026-11-24T10:00:00Z</Initiated></Upload></ListMultipartUploadsResult>",
        )
        .expect("a page");
        let upload = Upload {
            key: "k".to_owned(),
            upload_id: "i".to_owned(),
            initiated: time("2026-11-24T10:00:00Z"),
        };
        assert!(!page.is_truncated);
        assert_eq!(page.upload, [upload]);
        assert!(needed(page.next_key_marker, "NextKeyMarker").is_err());
    }

    #[test]
    fn an_error_is_told_in_one_line() {
        for (code, message, told) in [
            ("SlowDown", "Less,\n  please", "the store answered 503 SlowDown: Less, please"),
            ("SlowDown", "", "the store answered 503 SlowDown"),
            ("", "", "the store answered 503"),
        ] {
            let (code, message) = (code.to_owned(), message.to_owned());
            assert_eq!(Fault::Status { status: 503, code, message }.to_string(), told);
        }
    }

    #[test]
    fn an_answer_that_is_no_listing_is_not_an_empty_one() {
        for body in [
            "",
            "ok",
            "<html><body>Welcome</body></html>",
            "<ListBucketResult><Contents>",
            "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>k</Key></Contents></ListBucketResult>",
        ] {
            assert!(parse::<ListingPage>(body.as_bytes()).is_err(), "{body}");
        }
    }
}
