//! A store that does not give what it lists, and content that is read in pieces.

use std::rc::Rc;

use bytes::Bytes;
use http::{Method, StatusCode};
use moorage::oci::{Algorithm, Digest};
use moorage::store::{
    Http, HttpError, HttpRequest, HttpResponse, Repeat, StoreError, StoreErrorKind, layout,
};

use super::fixture::{Fixture, SETTLE, blob_link, problems};
use crate::check::{Checked, Checker, Options};
use crate::simulation::bucket::{SimStore, bucket_over};
use crate::simulation::world::World;
use crate::time::Clock as _;

/// What answers a request in the store's place.
type Fault = Box<dyn Fn(&HttpRequest) -> Option<HttpResponse>>;

/// A way to the store that answers some requests itself.
struct FaultyHttp {
    store: Rc<SimStore>,
    world: Rc<World>,
    fault: Fault,
}

impl Http for FaultyHttp {
    async fn send(&self, request: &HttpRequest, _: Repeat) -> Result<HttpResponse, HttpError> {
        let fault = (self.fault)(request);
        Ok(fault.unwrap_or_else(|| self.store.apply(request, self.world.now())))
    }
}

fn answer(status: u16, body: &'static str) -> HttpResponse {
    let status = StatusCode::from_u16(status).expect("a status");
    HttpResponse { status, version: None, body: Bytes::from_static(body.as_bytes()) }
}

fn check(
    fixture: &Fixture,
    fault: impl Fn(&HttpRequest) -> Option<HttpResponse> + 'static,
) -> Result<Checked, StoreError> {
    let (store, world) = (Rc::clone(&fixture.store), Rc::clone(&fixture.world));
    let http = FaultyHttp { store, world: Rc::clone(&world), fault: Box::new(fault) };
    let bucket = bucket_over(http);
    let options = Options { repositories: Vec::new(), is_deep: true, settle: SETTLE, parallel: 4 };
    fixture.world.quietly(async move {
        let checker = Checker { bucket: &bucket, clock: &*world, options: &options };
        checker.run(|_| {}).await
    })
}

fn of(digest: &Digest) -> String {
    layout::content(digest).as_str().to_owned()
}

#[test]
fn what_the_store_lists_and_does_not_give_is_broken() {
    for (content, found) in [
        ("layer", ["error content-damaged a", "error content-damaged b"]),
        ("manifest", ["error manifest-unreadable a", "error manifest-unreadable b"]),
    ] {
        let fixture = Fixture::new();
        let key = of(if content == "layer" { &fixture.layer } else { &fixture.one });
        let fault = move |request: &HttpRequest| {
            let is_it = request.method == Method::GET && request.path.ends_with(&key);
            is_it.then(|| answer(500, "<Error><Code>InternalError</Code></Error>"))
        };
        let checked = check(&fixture, fault).expect("only one object is broken");
        assert_eq!(problems(&checked), found);
        let told = checked.told(&checked.findings[0]);
        assert!(told.what.contains("500 InternalError"), "{}", told.what);
    }
}

#[test]
fn a_store_that_fails_as_a_whole_ends_the_check() {
    for (part, status, kind) in [
        ("?", 503, StoreErrorKind::Unavailable),
        ("?", 500, StoreErrorKind::Failed),
        ("/data", 503, StoreErrorKind::Unavailable),
        ("/data", 504, StoreErrorKind::TimedOut),
        ("/data", 403, StoreErrorKind::Failed),
        ("/link", 500, StoreErrorKind::Failed),
        ("/link", 404, StoreErrorKind::Failed),
    ] {
        let fault = move |request: &HttpRequest| {
            let is_part = match part {
                "?" => request.path.contains('?'),
                end => request.path.ends_with(end),
            };
            is_part.then(|| answer(status, ""))
        };
        let error = check(&Fixture::new(), fault).expect_err("the store fails");
        assert_eq!(error.kind(), kind, "{part} {status}");
    }
}

/// Around the length of a piece.
#[test]
fn content_of_any_length_is_hashed_to_its_end() {
    const PIECE: usize = 4 * 1024 * 1024;
    for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 3] {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let fixture = Fixture::empty();
            let mut content: Vec<u8> = (0..=250).cycle().take(length).collect();
            let digest = Digest::of(algorithm, &content);
            fixture.put(&layout::content(&digest), content.clone());
            fixture.put(&blob_link("a", &digest), digest.as_str().to_owned());
            let checked = check(&fixture, |_| None).expect("the store works");
            assert_eq!(problems(&checked), Vec::<String>::new(), "{length}");
            let hashed = checked.hashed.expect("all content");
            assert_eq!((hashed.objects, hashed.bytes), (1, length as u64));

            let Some(last) = content.last_mut() else {
                continue;
            };
            *last ^= 1;
            fixture.put(&layout::content(&digest), content);
            let checked = check(&fixture, |_| None).expect("the store works");
            assert_eq!(problems(&checked), ["error content-damaged a"], "{length}");
        }
    }
}
