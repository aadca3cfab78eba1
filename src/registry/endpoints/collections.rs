//! What writers and `HEAD` answer while garbage is being collected.

use http::Method;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use std::time::Duration;

use crate::oci::Name;
use crate::registry::Mount;
use crate::registry::test_registry::{
    OCI_MANIFEST, TestRegistry, descriptor, digest_of, error, image, name,
};
use crate::store::layout::{self, Key};
use crate::store::{Marker, StoreErrorKind};

/// A registry whose bucket has a marker of these keys.
fn registry(keys: &[Key]) -> TestRegistry {
    let registry = TestRegistry::with_blobs();
    let marker = Marker::new(Duration::from_secs(1000), keys.iter().map(Marker::hash));
    registry.store.put(layout::marker("run"), marker.to_bytes());
    registry
}

fn refused() -> (u16, String) {
    (503, "UNAVAILABLE".to_owned())
}

#[test]
fn a_manifest_is_refused_that_needs_what_is_about_to_be_removed() {
    let mut manifest = image("x");
    manifest["subject"] = descriptor(OCI_MANIFEST, "subject");
    let digest = digest_of(&manifest.to_string());
    let other: Name = "b".parse().expect("a name");
    let tag = "t".parse().expect("a tag");
    let history = layout::tag_history(&name(), &tag, &digest);
    for (key, is_refused) in [
        (layout::manifest_link(&name(), &digest), true),
        (layout::content(&digest), true),
        (layout::blob_link(&name(), &digest_of("layer")), true),
        (layout::manifest_link(&name(), &digest_of("layer")), true),
        (layout::content(&digest_of("config")), true),
        (history.clone(), true),
        (layout::referrer(&name(), &digest_of("subject"), &digest), true),
        (layout::content(&digest_of("subject")), false),
        (layout::blob_link(&other, &digest_of("layer")), false),
        (layout::content(&digest_of("another")), false),
    ] {
        let registry = registry(std::slice::from_ref(&key));
        let answer = registry.put("t", &manifest);
        if is_refused {
            assert_eq!(error(&answer), refused(), "{key:?}");
            assert_eq!(answer.headers()["retry-after"], "30");
            assert_eq!(registry.get("t").status(), 404, "{key:?}");
            assert!(!registry.store.objects().contains_key(&history), "{key:?} leaves a history");
        } else {
            assert_eq!(answer.status(), 201, "{key:?}");
        }
        // Who only reads is not concerned.
        let calls = registry.store.calls().len();
        registry.get("t");
        let read = registry.store.calls().split_off(calls);
        assert!(!read.contains(&layout::markers()));
    }
}

#[test]
fn a_blob_that_is_about_to_be_removed_is_neither_there_nor_mounted_nor_uploaded() {
    let digest = digest_of("layer");
    for key in [layout::blob_link(&"a".parse().expect("a name"), &digest), layout::content(&digest)]
    {
        let mut registry = registry(&[key]);
        registry.settings.mount = Mount::From;
        // A write has the worker look at the markers.
        let mount = format!("/v2/a/blobs/uploads/?mount={digest}&from=a/b");
        assert_eq!(registry.send(Method::POST, &mount, &[], "").0.status(), 202);
        let blob = format!("/v2/a/blobs/{digest}");
        assert_eq!(registry.send(Method::HEAD, &blob, &[], "").0.status(), 404);
        let at_once = format!("/v2/a/blobs/uploads/?digest={digest}");
        assert_eq!(error(&registry.send(Method::POST, &at_once, &[], "layer").0), refused());
        let session = format!("{}&digest={digest}", registry.begin(""));
        assert_eq!(error(&registry.send(Method::PUT, &session, &[], "layer").0), refused());
        let location = registry.begin("");
        let location = registry.append(&location, "layer");
        let close = format!("{location}&digest={digest}");
        assert_eq!(error(&registry.send(Method::PUT, &close, &[], "").0), refused());
        // Its chunks are there still, for when it is over.
        registry.store.delete(&layout::marker("run"));
        registry.environment.time.set(Duration::from_secs(20));
        assert_eq!(registry.send(Method::PUT, &close, &[], "").0.status(), 201);
        let other = digest_of("other");
        let other = format!("/v2/a/blobs/uploads/?digest={other}");
        assert_eq!(registry.send(Method::POST, &other, &[], "other").0.status(), 201);
    }
}

#[test]
fn nothing_is_acknowledged_while_nobody_can_tell_what_is_collected() {
    let mut registry = TestRegistry::with_blobs();
    registry.store.fail(layout::markers(), StoreErrorKind::Unavailable);
    assert_eq!(error(&registry.put("t", &image("x"))), refused());
    assert_eq!(registry.get("t").status(), 404);
}
