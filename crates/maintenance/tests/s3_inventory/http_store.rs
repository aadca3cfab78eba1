use std::cell::RefCell;

use bytes::Bytes;
use futures::executor::block_on;
use http::StatusCode;
use moorage::store::{
    Addressing, BucketOptions, Http, HttpError, HttpRequest, HttpResponse, Repeat,
};
use moorage_maintenance::s3_inventory::{HttpInventoryStore, InventoryStore};

/// Gives one answer to all requests, and keeps the last.
struct Scripted {
    answer: Result<(u16, &'static str), HttpError>,
    asked: RefCell<Option<HttpRequest>>,
}

impl Http for Scripted {
    async fn send(&self, request: &HttpRequest, _: Repeat) -> Result<HttpResponse, HttpError> {
        self.asked.replace(Some(request.clone()));
        let (status, body) = self.answer.clone()?;
        let status = StatusCode::from_u16(status).expect("a status");
        Ok(HttpResponse { status, version: None, body: Bytes::from_static(body.as_bytes()) })
    }
}

fn registry(addressing: Addressing) -> BucketOptions {
    BucketOptions {
        authority: "s3.example:9000".to_owned(),
        bucket: "images".to_owned(),
        addressing,
        prefix: "registry".to_owned(),
        content_limit: 1,
    }
}

/// What bytes 3 to 6 of an object are, after this answer.
fn read(
    answer: Result<(u16, &'static str), HttpError>,
) -> (Result<Option<Bytes>, String>, HttpRequest) {
    read_addressed(answer, Addressing::Path)
}

fn read_addressed(
    answer: Result<(u16, &'static str), HttpError>,
    addressing: Addressing,
) -> (Result<Option<Bytes>, String>, HttpRequest) {
    let http = Scripted { answer, asked: RefCell::default() };
    let store = HttpInventoryStore::new(&http, registry(addressing));
    let read = block_on(store.read("inventories", "a b/c+d/é.csv", 3, 4));
    let asked = http.asked.take().expect("it was asked");
    (read.map_err(|error| error.to_string()), asked)
}

#[test]
fn the_other_bucket_is_asked_for_a_range() {
    let (_, asked) = read(Ok((206, "3456")));
    assert_eq!(asked.authority, "s3.example:9000");
    assert_eq!(asked.path, "/inventories/a%20b/c%2Bd/%C3%A9.csv");
    assert_eq!(asked.headers, [("range", "bytes=3-6".to_owned())]);
    let (_, asked) = read_addressed(Ok((206, "3456")), Addressing::VirtualHost);
    assert_eq!(asked.authority, "inventories.s3.example:9000");
    assert_eq!(asked.path, "/a%20b/c%2Bd/%C3%A9.csv");
}

#[test]
fn an_answer_is_bytes_or_nothing_or_an_error() {
    let missing = "<Error><Code>NoSuchKey</Code></Error>";
    for (status, body, expected) in [
        (206, "3456", Some("3456")),
        (206, "34", Some("34")),
        (200, "0123456789", Some("3456")),
        (200, "01234", Some("34")),
        (200, "01", Some("")),
        (416, "<Error><Code>InvalidRange</Code></Error>", Some("")),
        (404, missing, None),
    ] {
        let expected = expected.map(|bytes| Bytes::from_static(bytes.as_bytes()));
        assert_eq!(read(Ok((status, body))).0, Ok(expected), "{status} {body}");
    }
    for (answer, reason) in [
        (Ok((404, "<Error><Code>NoSuchBucket</Code></Error>")), "404 NoSuchBucket"),
        (Ok((403, "<Error><Code>AccessDenied</Code></Error>")), "403 AccessDenied"),
        (Ok((301, "")), "301; check the bucket's region"),
        (Err(HttpError::Connection), "the store can't be reached: the connection failed"),
    ] {
        let error = read(answer).0.expect_err(reason);
        assert!(error.contains(reason), "{error}");
    }
}
