//! What requests are answered while the store is away, if `cache.stale_if_error` is set: pulls with what is known, and all
//! others with the error.

use std::time::Duration;

use http::Method;
use http::header::HeaderName;
use serde_json::json;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use crate::registry::test_registry::{
    OCI_INDEX, TestRegistry, descriptor, digest_of, error, image, name, request, whole,
};
use crate::registry::{Answer, Body, Mount, Settings, handle};
use crate::store::memory::{Effect, MemoryStore, TestCacheEnvironment, run};
use crate::store::{CacheSettings, Cached, StoreError, StoreErrorKind};

const CACHE: CacheSettings = CacheSettings {
    max_bytes: 1_000_000,
    link_ttl: Duration::from_secs(60),
    tag_ttl: Duration::from_secs(60),
    negative_ttl: Duration::ZERO,
    stale_if_error: Duration::from_secs(3_600),
};

/// A registry with the image `t` in `a/b`, all of which was pulled longer ago than the times of the cache.
struct Fixture<'a> {
    store: Cached<MemoryStore, &'a TestCacheEnvironment>,
    settings: Settings,
}

impl<'a> Fixture<'a> {
    fn new(world: &'a TestCacheEnvironment) -> Self {
        let TestRegistry { store, settings, .. } = TestRegistry::with_blobs();
        store.put_blob(&"other".parse().expect("a valid name"), b"mounted");
        let registry = TestRegistry { store, settings, ..TestRegistry::default() };
        assert_eq!(registry.put("t", &image("pulled")).status(), 201);
        let settings = Settings { mount: Mount::From, ..registry.settings };
        let fixture = Self { store: Cached::new(registry.store, world, CACHE, 0), settings };
        for path in pulls() {
            assert_eq!(fixture.status(Method::GET, &path, Body::None), 200, "{path}");
        }
        world.now.set(world.now.get() + Duration::from_secs(600));
        fixture
    }

    fn fail(&self, kind: StoreErrorKind) {
        let error = StoreError::new(kind, "injected");
        *self.store.bucket().outage.borrow_mut() = Some((error, Effect::None));
    }

    /// The status of an answer; 200 for one that would be streamed.
    fn status(&self, method: Method, path: &str, body: Body) -> u16 {
        let headers: &[(HeaderName, &str)] = &[];
        let mut request = request(method, path, headers);
        request.body = body;
        match run(handle(&request, &self.store, &self.settings)).0 {
            Answer::Stream(_) => 200,
            Answer::Reply(reply) if reply.status().is_server_error() => error(&reply).0,
            Answer::Reply(reply) => reply.status().as_u16(),
        }
    }
}

/// The paths that pull the image and its blobs.
fn pulls() -> [String; 5] {
    let manifest = digest_of(&image("pulled").to_string());
    let (config, layer) = (digest_of("config"), digest_of("layer"));
    [
        "/v2/a/b/manifests/t".to_owned(),
        format!("/v2/a/b/manifests/{manifest}"),
        format!("/v2/a/b/blobs/{config}"),
        format!("/v2/a/b/blobs/{layer}"),
        format!("/v2/other/blobs/{}", digest_of("mounted")),
    ]
}

#[test]
fn while_the_store_is_away_pulls_are_answered_and_nothing_else_relies_on_what_is_remembered() {
    let manifest = digest_of(&image("pulled").to_string());
    let [_, _, config, layer, mounted] = pulls();
    let mounted = mounted.rsplit_once('/').expect("a digest").1.to_owned();
    let index = json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(
            "application/vnd.oci.image.manifest.v1+json",
            &image("pulled").to_string(),
        )],
    });
    let others = || {
        let own = name();
        [
            // What it refers to is known.
            (Method::PUT, format!("/v2/{own}/manifests/t"), whole(&image("pulled"))),
            (Method::PUT, format!("/v2/{own}/manifests/new"), whole(&image("new"))),
            (Method::PUT, format!("/v2/{own}/manifests/index"), whole(&index)),
            (Method::DELETE, format!("/v2/{own}/manifests/t"), Body::None),
            (Method::DELETE, format!("/v2/{own}/manifests/{manifest}"), Body::None),
            (Method::DELETE, config.clone(), Body::None),
            (Method::DELETE, layer.clone(), Body::None),
            (Method::POST, format!("/v2/{own}/blobs/uploads/"), Body::None),
            (
                Method::POST,
                format!("/v2/{own}/blobs/uploads/?mount={mounted}&from=other"),
                Body::None,
            ),
            (Method::GET, format!("/v2/{own}/tags/list"), Body::None),
            (Method::GET, format!("/v2/{own}/referrers/{manifest}"), Body::None),
            (Method::GET, "/v2/_catalog".to_owned(), Body::None),
            (Method::GET, format!("/v2/{own}/manifests/unknown"), Body::None),
        ]
    };
    for (kind, status) in [(StoreErrorKind::Unavailable, 503), (StoreErrorKind::TimedOut, 504)] {
        for number in 0..others().len() {
            let world = TestCacheEnvironment::default();
            let fixture = Fixture::new(&world);
            let before = fixture.store.bucket().state();
            fixture.fail(kind);
            for path in pulls() {
                for method in [Method::GET, Method::HEAD] {
                    assert_eq!(fixture.status(method, &path, Body::None), 200, "{path}");
                }
            }
            let (method, path, body) = others()[number].clone();
            assert_eq!(fixture.status(method.clone(), &path, body), status, "{method} {path}");
            assert_eq!(fixture.store.bucket().state(), before, "{method} {path}");
            for path in pulls() {
                assert_eq!(fixture.status(Method::GET, &path, Body::None), 200, "after {method}");
            }
        }
    }
}
