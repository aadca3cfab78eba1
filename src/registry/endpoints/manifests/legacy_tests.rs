//! Tests of what old clients get, in a repository that has images of the types that there were.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, VARY};
use http::{Method, Response};
use serde_json::{Value, json};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use crate::oci::{Digest, MediaType, Tag};
use crate::registry::schema1::{EMPTY_LAYER, Pushed, empty_layer_digest, key, sign};
use crate::registry::test_registry::{
    OCI_INDEX, OCI_MANIFEST, TestRegistry, descriptor, digest_of, error, name, whole,
};
use crate::registry::{AbsentAccept, Body};
use crate::store::memory::Effect;
use crate::store::{StoreErrorKind, layout};

const SCHEMA1: &str = MediaType::DockerSchema1.as_str();
const SIGNED: &str = MediaType::DockerSchema1Signed.as_str();
const SCHEMA2: &str = MediaType::DockerManifest.as_str();
const LIST: &str = MediaType::DockerManifestList.as_str();

/// The configuration of an image with one layer, and an empty one above.
fn config() -> Value {
    json!({
        "architecture": "amd64",
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": ["sha256:0"] },
        "history": [
            { "created": "2016-01-02T03:04:05Z", "created_by": "ADD file" },
            { "created": "2016-01-02T03:04:06Z", "created_by": "CMD", "empty_layer": true },
        ],
    })
}

fn schema2() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": SCHEMA2,
        "config": descriptor("application/vnd.docker.container.image.v1+json", &config().to_string()),
        "layers": [descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", "layer")],
    })
}

fn oci_image() -> Value {
    let mut image = schema2();
    image["mediaType"] = OCI_MANIFEST.into();
    image
}

/// An index of the types `index` and `child`, with another platform first.
fn index(index: &str, child: &str, manifest: &Value) -> Value {
    let platform = |architecture| json!({ "os": "linux", "architecture": architecture });
    let mut other = descriptor(child, "not there");
    other["platform"] = platform("arm64");
    let mut own = descriptor(child, &manifest.to_string());
    own["platform"] = platform("amd64");
    json!({ "schemaVersion": 2, "mediaType": index, "manifests": [other, own] })
}

/// A repository with a key to sign with, a schema 2 image as `image`, a list of it as `list`, and the
/// same of OCI's types as `oci-image` and `oci-index`.
fn registry() -> TestRegistry {
    let mut registry = TestRegistry::with_blobs();
    registry.settings.legacy.schema1_key = Some(key());
    registry.settings.legacy.accept_schema1 = true;
    put_blob(&registry, &config().to_string());
    let (schema2, oci_image) = (schema2(), oci_image());
    put(&registry, "image", &schema2);
    put(&registry, "list", &index(LIST, SCHEMA2, &schema2));
    put(&registry, "oci-image", &oci_image);
    put(&registry, "oci-index", &index(OCI_INDEX, OCI_MANIFEST, &oci_image));
    registry
}

fn put_blob(registry: &TestRegistry, content: &str) {
    let digest = digest_of(content);
    registry.store.put(layout::content(&digest), content.to_owned());
    registry.store.put(layout::blob_link(&name(), &digest), digest.to_string());
}

fn put(registry: &TestRegistry, tag: &str, manifest: &Value) -> Digest {
    let (content, tag) = (manifest.to_string(), tag.parse::<Tag>().expect("a valid tag"));
    let digest = digest_of(&content);
    registry.store.put(layout::content(&digest), content);
    registry.store.put(layout::manifest_link(&name(), &digest), digest.to_string());
    registry.store.put(layout::tag_link(&name(), &tag), digest.to_string());
    digest
}

fn get(registry: &TestRegistry, reference: &str, accept: &[&str]) -> (Response<Bytes>, usize) {
    let headers: Vec<_> = accept.iter().map(|value| (ACCEPT, *value)).collect();
    registry.send_manifest(Method::GET, reference, &headers, Body::None)
}

/// The type of what is answered, or the code of the error.
fn outcome(response: &Response<Bytes>) -> String {
    match response.headers()[CONTENT_TYPE].to_str().expect("text") {
        "application/json" => error(response).1,
        media_type => media_type.to_owned(),
    }
}

/// The table of `content-negotiation.md` in the OCI distribution specification's repository. It is
/// older than most of what it says is done today, so some rows are meant to differ.
#[test]
fn the_negotiation_table_holds_but_for_what_is_meant_to_differ() {
    enum Row {
        AsInTable(&'static str),
        Differs { table: &'static str, ours: &'static str, why: &'static str },
    }
    use Row::{AsInTable, Differs};
    let anything =
        "RFC 9110: */* admits what is stored, and today's tools send it without a thought";
    let order = "RFC 9110: the order says nothing; the table's own note doubts the row";
    let v1 =
        "a client that knows lists is not one of schema 1; the table's own note doubts the row";
    let no_list = "there is no list to answer with; the table's own note says so";
    let both = [LIST, SCHEMA2, SCHEMA1].join(", ");
    let reordered = [SCHEMA2, LIST, SCHEMA1].join(", ");
    let rows: &[(&str, &[&str], Row)] = &[
        ("list", &[], AsInTable(SIGNED)),
        ("list", &["*/*"], Differs { table: SIGNED, ours: LIST, why: anything }),
        ("list", &["application/json"], AsInTable(SIGNED)),
        ("list", &[SCHEMA1], AsInTable(SIGNED)),
        ("list", &[SCHEMA2], AsInTable(SCHEMA2)),
        ("list", &[LIST], AsInTable(LIST)),
        ("list", &[&both], AsInTable(LIST)),
        ("list", &[&reordered], Differs { table: SCHEMA2, ours: LIST, why: order }),
        ("image", &[], AsInTable(SIGNED)),
        ("image", &["*/*"], Differs { table: SIGNED, ours: SCHEMA2, why: anything }),
        ("image", &["application/json"], AsInTable(SIGNED)),
        ("image", &[SCHEMA1], AsInTable(SIGNED)),
        ("image", &[SCHEMA2], AsInTable(SCHEMA2)),
        ("image", &[LIST], Differs { table: LIST, ours: "MANIFEST_UNKNOWN", why: v1 }),
        ("image", &[&both], Differs { table: LIST, ours: SCHEMA2, why: no_list }),
        ("image", &[&reordered], AsInTable(SCHEMA2)),
    ];
    let registry = registry();
    for (tag, accept, row) in rows {
        let (response, _) = get(&registry, tag, accept);
        let expected = match row {
            AsInTable(expected) => *expected,
            Differs { table, ours, why } => {
                assert_ne!(table, ours, "{tag} {accept:?} is no difference: {why}");
                *ours
            }
        };
        assert_eq!(outcome(&response), expected, "{tag} {accept:?}");
        assert_eq!(response.headers()[VARY], "Accept", "{tag} {accept:?}");
    }
}

/// What the table says nothing about.
#[test]
fn other_clients_get_what_they_take() {
    let registry = registry();
    let no_schema2 = format!("{SCHEMA2};q=0, */*");
    let rows: &[(&str, &[&str], &str)] = &[
        ("oci-index", &[], OCI_INDEX),
        ("oci-image", &[], OCI_MANIFEST),
        ("oci-index", &[OCI_MANIFEST], OCI_MANIFEST),
        ("oci-index", &[LIST, OCI_MANIFEST], OCI_MANIFEST),
        ("oci-index", &[LIST], "MANIFEST_UNKNOWN"),
        ("oci-index", &[SIGNED], "MANIFEST_UNKNOWN"),
        ("oci-image", &[SIGNED, SCHEMA2, LIST], "MANIFEST_UNKNOWN"),
        ("list", &[OCI_INDEX, SCHEMA2], SCHEMA2),
        ("list", &[OCI_INDEX, OCI_MANIFEST], "MANIFEST_UNKNOWN"),
        ("list", &[SIGNED], SIGNED),
        ("image", &[&no_schema2], SIGNED),
        ("image", &["text/html"], "MANIFEST_UNKNOWN"),
        ("image", &["", " , "], SIGNED),
    ];
    for (tag, accept, expected) in rows {
        let (response, _) = get(&registry, tag, accept);
        assert_eq!(outcome(&response), *expected, "{tag} {accept:?}");
        assert_eq!(response.headers()[VARY], "Accept", "{tag} {accept:?}");
    }
}

#[test]
fn a_manifest_of_an_index_is_served_with_its_own_digest() {
    let mut registry = registry();
    let digest = digest_of(&schema2().to_string());
    let (response, round_trips) = get(&registry, "list", &[SCHEMA2]);
    assert_eq!((response.body(), round_trips), (&Bytes::from(schema2().to_string()), 3));
    assert_eq!(response.headers()["docker-content-digest"], digest.as_str());
    assert_eq!(response.headers()[ETAG], format!("\"{digest}\""));

    // Platforms that are not listed, or that are but not there.
    for platform in ["linux/s390x", "linux/arm64"] {
        registry.settings.legacy.platform = platform.parse().expect("a platform");
        let (response, _) = get(&registry, "list", &[SCHEMA2]);
        assert_eq!(error(&response), (404, "MANIFEST_UNKNOWN".to_owned()), "{platform}");
    }
}

#[test]
fn by_digest_the_stored_bytes_are_served_whatever_is_accepted() {
    let registry = registry();
    let content = schema2().to_string();
    for accept in [&[][..], &[SCHEMA1], &[LIST]] {
        let (response, round_trips) = get(&registry, digest_of(&content).as_str(), accept);
        assert_eq!((outcome(&response).as_str(), round_trips), (SCHEMA2, 1));
        assert_eq!(response.body(), content.as_bytes());
        assert!(!response.headers().contains_key(VARY));
    }
}

#[test]
fn a_converted_image_is_verified_by_its_signature_and_known_by_its_payload() {
    let registry = registry();
    let (response, _) = get(&registry, "image", &[SIGNED]);
    let pushed = Pushed::parse(response.body(), Some(SIGNED)).expect("a signed manifest");
    assert_eq!((pushed.name.as_str(), pushed.tag.as_str()), ("a/b", "image"));
    let digest = digest_of(std::str::from_utf8(&pushed.payload).expect("text"));
    assert_eq!(response.headers()["docker-content-digest"], digest.as_str());
    let entity_tag = format!("\"{digest}\"");
    assert_eq!(response.headers()[ETAG], entity_tag);
    let payload: Value = serde_json::from_slice(&pushed.payload).expect("JSON");
    let layers = json!([
        { "blobSum": empty_layer_digest().as_str() },
        { "blobSum": digest_of("layer").as_str() },
    ]);
    assert_eq!(payload["fsLayers"], layers);

    // The same again, and from a list.
    assert_eq!(get(&registry, "image", &[]).0.body(), response.body());
    let headers = [(ACCEPT, SIGNED), (IF_NONE_MATCH, &entity_tag)];
    for method in [Method::GET, Method::HEAD] {
        let (unchanged, _) = registry.send_manifest(method, "image", &headers, Body::None);
        assert_eq!((unchanged.status().as_u16(), unchanged.body().len()), (304, 0));
        assert_eq!(unchanged.headers()[VARY], "Accept");
    }
    let (head, _) = registry.send_manifest(Method::HEAD, "image", &[(ACCEPT, SIGNED)], Body::None);
    assert_eq!((head.headers(), head.body()), (response.headers(), response.body()));
}

#[test]
fn only_a_conversion_costs_more_than_what_is_stored() {
    let registry = registry();
    // The first one also writes the empty layer: its content, then its link.
    for (tag, accept, round_trips, calls) in [
        ("image", SCHEMA2, 2, 3),
        ("list", LIST, 2, 3),
        ("image", SIGNED, 5, 3 + 4 + 2),
        ("image", SIGNED, 3, 3 + 4),
        ("list", SCHEMA2, 3, 3 + 2),
        ("list", SIGNED, 4, 3 + 2 + 4),
        ("image", LIST, 2, 3),
    ] {
        let before = registry.store.calls().len();
        let (_, made) = get(&registry, tag, &[accept]);
        let calls_made = registry.store.calls().len() - before;
        assert_eq!((made, calls_made), (round_trips, calls), "{tag} {accept}");
    }
    let empty = empty_layer_digest();
    let objects = registry.store.objects();
    assert_eq!(objects[&layout::content(&empty)], EMPTY_LAYER[..]);
    assert_eq!(objects[&layout::blob_link(&name(), &empty)], empty.as_str());
}

#[test]
fn without_a_key_nothing_is_converted() {
    let mut registry = registry();
    registry.settings.legacy.schema1_key = None;
    assert_eq!(outcome(&get(&registry, "image", &[]).0), SCHEMA2);
    assert_eq!(outcome(&get(&registry, "list", &[]).0), LIST);
    for tag in ["image", "list"] {
        let (response, _) = get(&registry, tag, &[SIGNED]);
        assert_eq!(error(&response), (404, "MANIFEST_UNKNOWN".to_owned()));
        let body = String::from_utf8_lossy(response.body());
        assert!(body.contains("legacy.schema1_key"), "{body}");
    }
}

#[test]
fn an_absent_accept_can_mean_anything() {
    let mut registry = registry();
    registry.settings.legacy.absent_accept = AbsentAccept::Stored;
    assert_eq!(outcome(&get(&registry, "image", &[]).0), SCHEMA2);
    assert_eq!(outcome(&get(&registry, "list", &[]).0), LIST);
    assert_eq!(outcome(&get(&registry, "image", &[SIGNED]).0), SIGNED);
}

#[test]
fn an_image_that_has_no_image_configuration_is_invalid() {
    let invalid = (400, "MANIFEST_INVALID".to_owned());
    let unlinked = registry();
    let config = digest_of(&config().to_string());
    unlinked.store.delete(&layout::blob_link(&name(), &config));
    let gone = registry();
    gone.store.delete(&layout::content(&config));
    let other = registry();
    let mut image = schema2();
    // The repository's blob `config`, which is no JSON.
    image["config"] = descriptor("application/vnd.docker.container.image.v1+json", "config");
    put(&other, "image", &image);
    for (registry, reason) in [
        (unlinked, "not in the repository"),
        (gone, "not in the repository"),
        (other, "configuration"),
    ] {
        let (response, _) = get(&registry, "image", &[SIGNED]);
        assert_eq!(error(&response), invalid);
        let body = String::from_utf8_lossy(response.body());
        assert!(body.contains(reason), "{body}");
        assert_eq!(response.headers()[VARY], "Accept");
    }
}

#[test]
fn a_storage_fault_is_never_the_images() {
    let config = digest_of(&config().to_string());
    for (kind, expected) in [
        (StoreErrorKind::Failed, (500, "UNKNOWN".to_owned())),
        (StoreErrorKind::Unavailable, (503, "UNAVAILABLE".to_owned())),
    ] {
        let child = digest_of(&schema2().to_string());
        for key in [
            layout::blob_link(&name(), &config),
            layout::content(&config),
            layout::blob_link(&name(), &empty_layer_digest()),
            layout::manifest_link(&name(), &child),
        ] {
            let mut registry = registry();
            registry.store.fail(key.clone(), kind);
            assert_eq!(error(&get(&registry, "list", &[SIGNED]).0), expected, "{key:?}");
        }
    }
    let unknown = (500, "UNKNOWN".to_owned());
    let corrupt = registry();
    corrupt.store.put(layout::content(&config), "{}");
    assert_eq!(error(&get(&corrupt, "image", &[SIGNED]).0), unknown);
    let corrupt = registry();
    corrupt.store.put(layout::content(&digest_of(&schema2().to_string())), "{}");
    assert_eq!(error(&get(&corrupt, "list", &[SIGNED]).0), unknown);
    let mut too_large = registry();
    put_blob(&too_large, &"x".repeat(2000));
    let mut image = schema2();
    image["config"] = descriptor("config", &"x".repeat(2000));
    put(&too_large, "image", &image);
    too_large.store.content_limit = 1999;
    assert_eq!(error(&get(&too_large, "image", &[SIGNED]).0), unknown);
}

#[test]
fn a_conversion_that_breaks_off_is_completed_by_the_next() {
    // Five round trips: the last two calls write the empty layer's content and its link.
    for failing in [7, 8] {
        for effect in [Effect::None, Effect::Done] {
            let registry = registry();
            registry.store.failing_call.set(Some((failing, effect)));
            assert_eq!(get(&registry, "image", &[SIGNED]).0.status(), 503, "{failing}");
            registry.store.failing_call.set(None);
            assert_eq!(get(&registry, "image", &[SIGNED]).0.status(), 200);
            let objects = registry.store.objects();
            assert!(objects.contains_key(&layout::content(&empty_layer_digest())));
        }
    }
}

#[test]
fn a_registry_that_may_not_be_changed_gets_no_layer() {
    let mut registry = registry();
    registry.settings.read_only = true;
    let (response, _) = get(&registry, "image", &[SIGNED]);
    assert_eq!(error(&response), (404, "MANIFEST_UNKNOWN".to_owned()));
    assert!(!registry.store.objects().contains_key(&layout::content(&empty_layer_digest())));
    registry.settings.read_only = false;
    assert_eq!(get(&registry, "image", &[SIGNED]).0.status(), 200);
    registry.settings.read_only = true;
    assert_eq!(get(&registry, "image", &[SIGNED]).0.status(), 200);
}

fn payload() -> Value {
    json!({
        "schemaVersion": 1,
        "name": "a/b",
        "tag": "old",
        "architecture": "amd64",
        "fsLayers": [{ "blobSum": digest_of("layer").as_str() }],
        "history": [{ "v1Compatibility": "{}" }],
    })
}

fn put_signed(registry: &TestRegistry, reference: &str, payload: &Value) -> Response<Bytes> {
    let signed = sign(&payload.to_string(), &key()).expect("a signature");
    let headers: [(HeaderName, &str); 1] = [(CONTENT_TYPE, SIGNED)];
    registry.send_manifest(Method::PUT, reference, &headers, Body::Whole(signed.into())).0
}

#[test]
fn a_pushed_schema_1_manifest_is_stored_without_its_signatures() {
    let payload = payload();
    let digest = digest_of(&payload.to_string());
    for reference in ["old".to_owned(), digest.to_string(), format!("{digest}?tag=old")] {
        let mut registry = registry();
        let response = put_signed(&registry, &reference, &payload);
        assert_eq!(response.status(), 201, "{response:?}");
        assert_eq!(response.headers()["docker-content-digest"], digest.as_str());
        let (stored, _) = get(&registry, digest.as_str(), &[]);
        assert_eq!(stored.body(), payload.to_string().as_bytes());
        assert_eq!(outcome(&stored), SCHEMA1);
        if !reference.ends_with("old") {
            continue;
        }
        // By tag, whoever wants it signed gets it signed by the registry, under the same digest.
        for (accept, media_type) in [
            (&[][..], SIGNED),
            (&[SIGNED, SCHEMA2], SIGNED),
            (&["application/json"], SIGNED),
            (&[SCHEMA1, SIGNED], SCHEMA1),
            (&["*/*"], SCHEMA1),
            (&[SCHEMA2], "MANIFEST_UNKNOWN"),
        ] {
            let (response, round_trips) = get(&registry, "old", accept);
            assert_eq!((outcome(&response).as_str(), round_trips), (media_type, 2), "{accept:?}");
            if media_type != "MANIFEST_UNKNOWN" {
                assert_eq!(response.headers()["docker-content-digest"], digest.as_str());
            }
            if media_type == SIGNED {
                let pushed = Pushed::parse(response.body(), None).expect("a signed manifest");
                assert_eq!(pushed.payload, payload.to_string().as_bytes());
            }
        }
        registry.settings.legacy.schema1_key = None;
        assert_eq!(outcome(&get(&registry, "old", &[]).0), SCHEMA1);
        assert_eq!(outcome(&get(&registry, "old", &[SIGNED]).0), "MANIFEST_UNKNOWN");
    }
}

/// Each row: what is changed in the manifest before it is signed, where it is put, and the error.
#[test]
fn a_pushed_schema_1_manifest_must_be_the_one_of_the_url() {
    let registry = registry();
    let digest = digest_of(&payload().to_string());
    for (field, value, reference, code) in [
        ("name", json!("a/c"), "old", "NAME_INVALID"),
        ("tag", json!("new"), "old", "TAG_INVALID"),
        ("tag", json!("old"), &format!("{digest}?tag=old&tag=new"), "TAG_INVALID"),
        ("tag", json!("new"), digest.as_str(), "DIGEST_INVALID"),
        ("history", json!([]), "old", "MANIFEST_INVALID"),
        (
            "fsLayers",
            json!([{ "blobSum": digest_of("missing").as_str() }]),
            "old",
            "MANIFEST_BLOB_UNKNOWN",
        ),
    ] {
        let mut payload = payload();
        payload[field] = value;
        let refused = put_signed(&registry, reference, &payload);
        assert_eq!(error(&refused), (400, code.to_owned()), "{field} {reference}");
    }
    let signed = sign(&payload().to_string(), &key()).expect("a signature");
    for (what, body) in
        [("unsigned", payload().to_string()), ("changed", signed.replace("amd64", "arm64"))]
    {
        let refused = registry.send_manifest(Method::PUT, "old", &[], Body::Whole(body.into())).0;
        assert_eq!(error(&refused), (400, "MANIFEST_UNVERIFIED".to_owned()), "{what}");
    }
    assert_eq!(get(&registry, "old", &[]).0.status(), 404);
}

#[test]
fn schema_1_is_put_only_where_that_is_configured() {
    let mut registry = registry();
    registry.settings.legacy.accept_schema1 = false;
    let refused = put_signed(&registry, "old", &payload());
    assert_eq!(error(&refused), (400, "MANIFEST_INVALID".to_owned()));
    let body = String::from_utf8_lossy(refused.body());
    assert!(body.contains("legacy.accept_schema1"), "{body}");
    // Its type alone makes nothing of schema 1.
    registry.settings.legacy.accept_schema1 = true;
    let headers: [(HeaderName, &str); 1] = [(CONTENT_TYPE, SIGNED)];
    let (refused, _) = registry.send_manifest(Method::PUT, "new", &headers, whole(&schema2()));
    assert_eq!(error(&refused), (400, "MANIFEST_INVALID".to_owned()));
}
