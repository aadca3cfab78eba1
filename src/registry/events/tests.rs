//! Which events requests give, and how they are written.

use std::time::Duration;

use http::header::{HeaderName, IF_NONE_MATCH, USER_AGENT};
use http::{Method, Response};
use serde_json::{Value, json};
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::oci::Digest;
use crate::registry::test_registry::{TestRegistry, digest_of, image, name, whole};
use crate::registry::{Body, Mount, handle};
use crate::store::layout;
use crate::store::memory::run;

/// What an event of the tests is about: its action, its kind, what CloudEvents call its subject, and its size.
type Told = (EventAction, TargetKind, String, Option<u64>);

fn registry(wanted: &[EventAction]) -> TestRegistry {
    let registry = TestRegistry::with_blobs();
    registry.environment.wanted.set(wanted.iter().copied().collect());
    registry
}

/// The events since this was last asked for.
fn told(registry: &TestRegistry) -> Vec<Told> {
    let events = registry.environment.events.take();
    let told = |event: Event| {
        let subject = match (&event.target.tag, &event.target.digest) {
            (Some(tag), _) => format!(":{tag}"),
            (None, digest) => digest.as_ref().map(Digest::to_string).unwrap_or_default(),
        };
        (event.action, event.target.kind, subject, event.target.size)
    };
    events.into_iter().map(told).collect()
}

fn size_of(manifest: &Value) -> Option<u64> {
    u64::try_from(manifest.to_string().len()).ok()
}

#[test]
fn a_filter_lets_through_what_has_its_action_and_is_in_its_repositories() {
    use EventAction::{Delete, Mount, Pull, Push, TagMoved};

    let filter = EventFilter {
        actions: EventActions::from_iter([Push, TagMoved]),
        repositories: ["apps/**", "base"].map(|glob| glob.parse().expect("a glob")).to_vec(),
    };
    for (action, repository, matches) in [
        (Push, "apps/web", true),
        (Push, "apps/a/b", true),
        (TagMoved, "base", true),
        (Push, "apps", false),
        (Push, "other", false),
        (Pull, "base", false),
        (Delete, "base", false),
        (Mount, "base", false),
    ] {
        let name = repository.parse().expect("a name");
        assert_eq!(filter.matches(action, &name), matches, "{action:?} in {repository}");
    }
    for action in EventAction::ALL {
        assert_eq!(action.as_str().parse(), Ok(action));
    }
    assert_eq!("Push".parse::<EventAction>(), Err(EventActionError));
}

#[test]
fn what_is_done_to_manifests_is_told_and_what_is_refused_is_not() {
    use EventAction::{Delete, Push, TagMoved};
    use TargetKind::{Manifest, Tag};

    let registry = registry(&EventAction::ALL);
    let (first, second) = (image("first"), image("second"));
    let digest = digest_of(&second.to_string());
    let pushed = |tag: &str, manifest| (Push, Manifest, tag.to_owned(), size_of(manifest));
    let moved = |tag: &str, manifest| (TagMoved, Tag, tag.to_owned(), size_of(manifest));
    let deleted = |kind, what: &str| (Delete, kind, what.to_owned(), None);
    let put = |reference: &str, manifest: &Value| registry.put(reference, manifest).status();

    assert_eq!(put("t", &first), 201);
    assert_eq!(told(&registry), [pushed(":t", &first)], "a new tag has not moved");
    assert_eq!(put("t", &first), 201);
    assert_eq!(told(&registry), [pushed(":t", &first)], "nor has one that is set to the same");
    assert_eq!(put("t", &second), 201);
    assert_eq!(registry.environment.events.borrow()[1].target.previous, {
        let before = digest_of(&first.to_string());
        Some(before)
    });
    assert_eq!(told(&registry), [pushed(":t", &second), moved(":t", &second)]);
    assert_eq!(put(digest.as_str(), &second), 201);
    assert_eq!(told(&registry), [pushed(digest.as_str(), &second)]);
    assert_eq!(put(&format!("{digest}?tag=u&tag=v"), &second), 201);
    assert_eq!(told(&registry), [pushed(":u", &second), pushed(":v", &second)]);

    let mut missing = image("missing");
    missing["config"]["digest"] = digest_of("missing").as_str().into();
    assert_eq!(put("t", &missing), 400);
    assert_eq!(registry.delete("none").status(), 404);
    assert_eq!(told(&registry), []);
    assert_eq!(registry.delete("u").status(), 202);
    assert_eq!(told(&registry), [deleted(Tag, ":u")]);
    assert_eq!(registry.delete(digest.as_str()).status(), 202);
    assert_eq!(told(&registry), [deleted(Manifest, digest.as_str())]);
}

#[test]
fn only_a_manifest_that_is_sent_is_a_pull() {
    let registry = registry(&[EventAction::Pull]);
    let image = image("x");
    let digest = digest_of(&image.to_string());
    assert_eq!(registry.put("t", &image).status(), 201);
    let pulled =
        |what: &str| (EventAction::Pull, TargetKind::Manifest, what.to_owned(), size_of(&image));
    let entity_tag = format!("\"{digest}\"");
    let known = [(IF_NONE_MATCH, entity_tag.as_str())];
    for (method, reference, headers, expected) in [
        (Method::GET, "t", &[][..], vec![pulled(":t")]),
        (Method::GET, digest.as_str(), &[], vec![pulled(digest.as_str())]),
        (Method::HEAD, "t", &[], vec![]),
        (Method::GET, "t", &known, vec![]),
        (Method::GET, "none", &[], vec![]),
    ] {
        registry.send_manifest(method.clone(), reference, headers, Body::None);
        assert_eq!(told(&registry), expected, "{method} {reference} {headers:?}");
    }
    // A large one is streamed, after this.
    let mut request = registry.request(Method::GET, "/v2/a/b/manifests/t", &[]);
    request.reply_max_bytes = 0;
    run(handle(&request, &registry.store, &registry.settings));
    assert_eq!(told(&registry), [pulled(":t")]);
}

#[test]
fn a_blob_is_told_of_with_its_size_however_it_is_uploaded() {
    let registry = registry(&EventAction::ALL);
    let content = b"a blob's content";
    let digest = digest_of(content);
    let pushed = |digest: &Digest, size| {
        (EventAction::Push, TargetKind::Blob, digest.to_string(), Some(size))
    };
    let post = |query: &str, content: &'static [u8]| {
        let target = format!("/v2/a/blobs/uploads/?{query}");
        registry.send(Method::POST, &target, &[], content).0
    };
    let ways: [&dyn Fn() -> Response<bytes::Bytes>; 4] = [
        &|| post(&format!("digest={digest}"), content),
        &|| registry.finish(&registry.begin(""), &digest, &content[..]),
        &|| registry.finish(&registry.append(&registry.begin(""), &content[..]), &digest, ""),
        &|| {
            let location = registry.append(&registry.begin(""), &content[..3]);
            registry.finish(&location, &digest, &content[3..])
        },
    ];
    for (number, way) in ways.iter().enumerate() {
        assert_eq!(way().status(), 201);
        assert_eq!(told(&registry), [pushed(&digest, 16)], "way {number}");
    }
    let nothing = digest_of("");
    assert_eq!(post(&format!("digest={nothing}"), b"").status(), 201);
    assert_eq!(told(&registry), [pushed(&nothing, 0)]);
    let other = digest_of("other");
    assert_eq!(registry.finish(&registry.begin(""), &other, &content[..]).status(), 400);
    assert_eq!(told(&registry), []);
    let target = format!("/v2/a/blobs/{digest}");
    for (status, expected) in [
        (202, vec![(EventAction::Delete, TargetKind::Blob, digest.to_string(), None)]),
        (404, vec![]),
    ] {
        assert_eq!(registry.send(Method::DELETE, &target, &[], "").0.status(), status);
        assert_eq!(told(&registry), expected);
    }
}

#[test]
fn a_mount_is_told_of_with_its_source() {
    for (mode, query, from) in [
        (Mount::From, "&from=a/b", Some("a/b")),
        (Mount::Anywhere, "", None),
        (Mount::Off, "&from=a/b", Some("nothing is mounted")),
    ] {
        let mut registry = registry(&EventAction::ALL);
        registry.settings.mount = mode;
        let digest = digest_of("layer");
        let target = format!("/v2/a/blobs/uploads/?mount={digest}{query}");
        let (response, _) = registry.send(Method::POST, &target, &[], "");
        if mode == Mount::Off {
            assert_eq!(response.status(), 202);
            assert_eq!(told(&registry), []);
            continue;
        }
        assert_eq!(response.status(), 201);
        let source = registry.environment.events.borrow()[0].target.from_repository.clone();
        assert_eq!(source.as_ref().map(Name::as_str), from);
        let mounted = (EventAction::Mount, TargetKind::Blob, digest.to_string(), None);
        assert_eq!(told(&registry), [mounted]);
    }
}

#[test]
fn what_a_tag_was_is_read_only_for_who_wants_it_and_beside_what_is_read_anyway() {
    let calls = |wanted: &[EventAction]| {
        let registry = registry(wanted);
        assert_eq!(registry.put("t", &image("first")).status(), 201);
        let before = registry.store.calls().len();
        let second = whole(&image("second"));
        let (response, round_trips) = registry.send_manifest(Method::PUT, "t", &[], second);
        assert_eq!((response.status().as_u16(), round_trips), (201, 3));
        registry.store.calls().len() - before
    };
    let without = calls(&[]);
    assert_eq!(calls(&[EventAction::Push]), without);
    assert_eq!(calls(&[EventAction::TagMoved]), without + 1);
}

#[test]
fn a_push_is_not_refused_because_it_is_unknown_what_its_tag_was() {
    let registry = registry(&EventAction::ALL);
    assert_eq!(registry.put("t", &image("first")).status(), 201);
    let key = layout::tag_link(&name(), &"t".parse().expect("a tag"));
    registry.store.put(key, "no digest");
    told(&registry);
    assert_eq!(registry.put("t", &image("second")).status(), 201);
    let actions: Vec<_> = told(&registry).into_iter().map(|(action, ..)| action).collect();
    assert_eq!(actions, [EventAction::Push]);
}

#[test]
fn what_a_client_chooses_is_cut() {
    let registry = registry(&[EventAction::Push]);
    let long = "ä".repeat(200);
    let request_id = HeaderName::from_static("x-request-id");
    let headers = [(USER_AGENT, long.as_str()), (request_id, long.as_str())];
    registry.environment.address.set("192.0.2.1".parse().ok());
    let (response, _) = registry.send_manifest(Method::PUT, "t", &headers, whole(&image("x")));
    assert_eq!(response.status(), 201);
    let event = registry.environment.events.take().remove(0);
    assert_eq!(event.request.user_agent, "ä".repeat(128));
    assert_eq!(event.request.id, "ä".repeat(128));
    assert_eq!(
        (event.request.address.as_str(), event.request.method.as_str()),
        ("192.0.2.1:1000", "PUT")
    );
    assert_eq!((event.actor.as_str(), event.target.url), ("", None));
}

/// A tag that was moved, with all that an event may have.
fn moved() -> Event {
    let digest = |hex: &str| format!("sha256:{}", hex.repeat(32)).parse().ok();
    Event {
        id: "00000000-0000-8000-8000-000000000001".to_owned(),
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_123),
        action: EventAction::TagMoved,
        target: Target {
            digest: digest("ab"),
            media_type: Some(MediaType::OciManifest),
            size: Some(123),
            tag: "latest".parse().ok(),
            previous: digest("cd"),
            url: Some("https://registry.example.org/v2/a/b/manifests/x".to_owned()),
            ..Target::new(TargetKind::Tag, &name())
        },
        request: RequestRecord {
            id: "1".to_owned(),
            address: "192.0.2.1:1000".to_owned(),
            host: "registry.example.org".to_owned(),
            method: "PUT".to_owned(),
            user_agent: "a \"client\"\n".to_owned(),
        },
        actor: "user:ada".to_owned(),
    }
}

/// The parts that both formats have.
fn parts() -> Value {
    json!({
        "target": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "size": 123,
            "digest": format!("sha256:{}", "ab".repeat(32)),
            "length": 123,
            "repository": "a/b",
            "url": "https://registry.example.org/v2/a/b/manifests/x",
            "tag": "latest",
            "previousDigest": format!("sha256:{}", "cd".repeat(32)),
        },
        "request": {
            "id": "1",
            "addr": "192.0.2.1:1000",
            "host": "registry.example.org",
            "method": "PUT",
            "useragent": "a \"client\"\n",
        },
        "actor": { "name": "user:ada" },
    })
}

fn batch(format: Format, events: &[Event]) -> Value {
    let events: Vec<_> = events.iter().map(|event| format.event(event, "registry-1")).collect();
    serde_json::from_slice(&format.batch(events.iter())).expect("JSON")
}

#[test]
fn an_event_takes_no_more_memory_than_its_length() {
    for format in [Format::Distribution, Format::CloudEvents] {
        let written = format.event(&moved(), "registry-1");
        let length = written.len();
        let memory = written.try_into_mut().expect("nobody else has it");
        assert_eq!(memory.capacity(), length, "{format:?}");
    }
}

#[test]
fn distribution_reads_its_own_fields() {
    let mut event = parts();
    event["id"] = "00000000-0000-8000-8000-000000000001".into();
    event["timestamp"] = "2027-01-15T08:00:00.123Z".into();
    event["action"] = "tag_moved".into();
    event["source"] = json!({ "instanceID": "registry-1" });
    assert_eq!(batch(Format::Distribution, &[moved()]), json!({ "events": [event] }));
    assert_eq!(
        batch(Format::Distribution, &[moved(), moved()]),
        json!({ "events": [event, event] })
    );
    let mounted = Event {
        action: EventAction::Mount,
        target: Target {
            digest: moved().target.digest,
            from_repository: "other".parse().ok(),
            url: Some("https://registry.example.org/v2/a/b/blobs/x".to_owned()),
            ..Target::new(TargetKind::Blob, &name())
        },
        actor: String::new(),
        ..moved()
    };
    let written = &batch(Format::Distribution, &[mounted])["events"][0];
    assert_eq!(
        written["target"],
        json!({
            "mediaType": "application/octet-stream",
            "digest": format!("sha256:{}", "ab".repeat(32)),
            "repository": "a/b",
            "fromRepository": "other",
            "url": "https://registry.example.org/v2/a/b/blobs/x",
        })
    );
    assert_eq!(written["actor"], json!({}));
}

#[test]
fn a_cloud_event_has_what_the_specification_wants() {
    let mut data = parts();
    data["action"] = "tag_moved".into();
    let event = json!({
        "specversion": "1.0",
        "id": "00000000-0000-8000-8000-000000000001",
        "source": "registry-1",
        "type": "io.moorage.registry.tag.moved",
        "subject": "a/b:latest",
        "time": "2027-01-15T08:00:00.123Z",
        "datacontenttype": "application/json",
        "data": data,
    });
    assert_eq!(batch(Format::CloudEvents, &[moved(), moved()]), json!([event, event]));
    let by_digest = Target { tag: None, kind: TargetKind::Manifest, ..moved().target };
    for (action, kind) in [
        (EventAction::Push, "io.moorage.registry.manifest.push"),
        (EventAction::Pull, "io.moorage.registry.manifest.pull"),
        (EventAction::Delete, "io.moorage.registry.manifest.delete"),
    ] {
        let event = Event { action, target: by_digest.clone(), ..moved() };
        let written = batch(Format::CloudEvents, &[event]);
        assert_eq!(written[0]["type"], kind);
        assert_eq!(written[0]["subject"], format!("a/b@sha256:{}", "ab".repeat(32)));
    }
}
