//! A bucket that is damaged in each way, one by one.

use std::net::SocketAddr;

use moorage::store::layout::{self, Key};
use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::bucket_folder::BucketFolder;
use moorage_test_support::digest_of;
use moorage_test_support::docker_registry::DockerRegistry;
use moorage_test_support::image::Layout;
use moorage_test_support::skopeo::{self, AS_IT_IS};
use serde_json::json;

use crate::registry::{Outcome, Registry, moorage, name};

async fn check(store: SocketAddr, arguments: &[&str]) -> Outcome {
    // Nothing is under way.
    moorage(store, &[&["check", "--settle", "0s"], arguments].concat()).await
}

/// What is damaged, the level, and what the line of it says. Without a level, nothing is.
type Row = (fn(&Registry), &'static str, &'static [&'static str]);

fn tag(repository: &str, tag: &str) -> Key {
    layout::tag_link(&name(repository), &tag.parse().expect("a tag"))
}

const DAMAGES: &[Row] = &[
    (
        |r| r.put(&tag("a", "1"), "nonsense"),
        "error",
        &["a:1: the tag holds no digest", "pulls of a:1 fail"],
    ),
    (
        |r| r.put(&tag("a", "1"), &format!("{}\n", r.image)),
        "error",
        &["a:1: the tag holds no digest"],
    ),
    (
        |r| r.remove(&layout::manifest_link(&name("team/b"), &r.image)),
        "error",
        &["team/b:1: the tag points at", "pulls of team/b:1 fail with MANIFEST_UNKNOWN", "push"],
    ),
    (
        |r| r.remove(&layout::content(&r.child)),
        "error",
        &["a: the content of the manifest", "pulls of a:multi fail with MANIFEST_UNKNOWN"],
    ),
    (
        |r| r.put(&layout::content(&r.child), "{}"),
        "error",
        &["can't be read: it is not what", "pulls of a:multi fail with UNKNOWN (500)"],
    ),
    (
        |r| r.remove(&layout::blob_link(&name("team/b"), &r.layer)),
        "error",
        &["team/b: the repository does not have the blob", "team/b:1 fail with BLOB_UNKNOWN"],
    ),
    (
        |r| r.remove(&layout::content(&r.child_layer)),
        "error",
        &[
            "a: the content of the blob",
            "pulls of a:multi fail with BLOB_UNKNOWN",
            "restore docker/",
        ],
    ),
    (
        |r| r.put(&layout::content(&r.child_layer), "a lay"),
        "error",
        &["has 5 bytes", "says 15", "pulls of a:multi break off"],
    ),
    (
        |r| r.put(&layout::blob_link(&name("a"), &r.layer), ""),
        "error",
        &["a: the link of", "holds none", "pulls of a:1 fail", "write sha256:"],
    ),
    (
        |r| r.remove(&layout::manifest_link(&name("a"), &r.child)),
        "warning",
        &["a: the manifest", "lists", "on the platform that it is for"],
    ),
    (
        |r| r.put(&layout::blob_link(&name("a"), &digest_of("x")), digest_of("x").as_str()),
        "warning",
        &["no manifest needs it", "moorage gc"],
    ),
    (
        |r| {
            r.remove(&layout::manifest_link(&name("a"), &r.signature));
            r.remove(&layout::content(&r.signature));
        },
        "warning",
        &["is noted to refer to", "can't be pulled"],
    ),
    (
        |r| r.remove(&layout::referrer(&name("a"), &r.image, &r.signature)),
        "warning",
        &["is not noted there", "signatures"],
    ),
    (|r| r.remove(&tag("a", "multi")), "note", &["a:multi: the tag is gone", "moorage gc"]),
    (
        |r| r.put(&layout::content(&digest_of("of nobody")), "of nobody"),
        "note",
        &["no repository has the content", "9 bytes"],
    ),
    (|r| r.put(&Key::listed("docker/registry/v2/x").expect("a key"), "x"), "", &[]),
    (
        |r| r.put(&Key::listed("docker/registry/v2/blobs/x").expect("a key"), "x"),
        "note",
        &["1 objects among the registry's", "blobs/x"],
    ),
];

const DEEP_DAMAGES: &[Row] = &[
    (
        |r| r.put(&layout::content(&r.child_layer), "a layer for arm"),
        "error",
        &["is not what its digest says", "pulls of a:multi break off"],
    ),
    (
        |r| r.put(&layout::blob_link(&name("a"), &r.child_layer), r.layer.as_str()),
        "error",
        &["which is something else", "_layers/", "pulls of a:multi break off"],
    ),
    (
        |r| r.put(&layout::referrer(&name("a"), &r.image, &r.signature), "[]"),
        "warning",
        &["is not its descriptor"],
    ),
];

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn each_damage_is_told_with_what_it_means() {
    for (damages, is_deep) in [(DAMAGES, false), (DAMAGES, true), (DEEP_DAMAGES, true)] {
        for (damage, level, told) in damages {
            let registry = Registry::new();
            damage(&registry);
            let store = BlobStore::open(registry.root()).await;
            let outcome = check(store.address, if is_deep { &["--deep"] } else { &[] }).await;

            assert_eq!(outcome.stderr, "", "{told:?}");
            assert_eq!(outcome.status, Some(i32::from(*level == "error")), "{outcome:?}");
            let lines = outcome.lines();
            let (summary, findings) = lines.split_last().expect("a summary");
            assert_eq!(findings.len(), usize::from(!level.is_empty()), "{told:?}: {findings:?}");
            for line in findings {
                assert!(line.starts_with(&format!("{level}: ")), "{line}");
                for text in *told {
                    assert!(line.contains(text), "no {text:?} in {line}");
                }
            }
            let counted = |name| usize::from(*level == name);
            let (errors, warnings) = (counted("error"), counted("warning"));
            let expected =
                format!("errors: {errors}; warnings: {warnings}; notes: {}", counted("note"));
            assert!(summary.ends_with(&expected), "{summary}");
        }
    }
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn what_only_a_deep_look_sees_is_not_found_otherwise() {
    for (damage, ..) in DEEP_DAMAGES {
        let registry = Registry::new();
        damage(&registry);
        let store = BlobStore::open(registry.root()).await;
        let outcome = check(store.address, &[]).await;
        assert_eq!((outcome.status, outcome.lines().len()), (Some(0), 1), "{outcome:?}");
    }
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn a_sound_bucket_is_told_in_a_line_and_left_as_it_is() {
    let registry = Registry::new();
    let before = registry.bucket.keys();
    let store = BlobStore::open(registry.root()).await;

    let outcome = check(store.address, &["--deep"]).await;

    assert_eq!((outcome.status, outcome.stderr.as_str()), (Some(0), ""));
    let [line] = outcome.lines()[..] else {
        panic!("more than a line: {}", outcome.stdout);
    };
    let expected = "repositories: 2; manifests: 4; hashed: 8 contents, ";
    assert!(line.contains(expected) && line.contains("errors: 0; warnings: 0; notes: 0"), "{line}");
    assert_eq!(registry.bucket.keys(), before);
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn json_has_each_finding_with_its_level_and_key() {
    let registry = Registry::new();
    registry.remove(&layout::content(&registry.layer));
    registry.remove(&tag("a", "multi"));
    let store = BlobStore::open(registry.root()).await;

    let outcome = check(store.address, &["--format", "json", "--repository", "a"]).await;

    assert_eq!((outcome.status, outcome.stderr.as_str()), (Some(1), ""));
    let document = outcome.document();
    assert_eq!(document["repositories"], 1);
    let counts = ["errors", "warnings", "notes"].map(|level| document[level].as_u64());
    assert_eq!(counts, [Some(1), Some(0), Some(1)]);
    let [missing, history] = document["findings"].as_array().expect("findings").as_slice() else {
        panic!("not two: {document}");
    };
    let key = layout::content(&registry.layer);
    for (field, expected) in [
        ("level", json!("error")),
        ("problem", json!("blob-missing")),
        ("repository", json!("a")),
        ("tag", json!(null)),
        ("digest", json!(registry.layer.as_str())),
        ("manifests", json!([registry.image.as_str()])),
        ("references", json!(["a:1"])),
        ("affected_tags", json!(1)),
        ("key", json!(key.as_str())),
        ("means", json!("pulls of a:1 fail with BLOB_UNKNOWN")),
    ] {
        assert_eq!(missing[field], expected, "{field}");
    }
    assert_eq!(
        (&history["problem"], &history["tag"]),
        (&json!("history-without-tag"), &json!("multi"))
    );

    // What is less bad still counts.
    let errors = check(store.address, &["--format", "json", "--level", "error"]).await;
    let document = errors.document();
    let findings = document["findings"].as_array().expect("findings").iter();
    let found: Vec<_> = findings.map(|finding| finding["repository"].as_str()).collect();
    assert_eq!(found, [Some("a"), Some("team/b")]);
    assert_eq!(document["notes"], 1);
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn what_can_not_be_checked_is_said_in_one_line() {
    let registry = Registry::new();
    let store = BlobStore::signed(registry.root()).await;
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("an address")
    };
    for (address, arguments, status, told) in [
        (nobody, &[][..], 1, "can't be reached"),
        (store.address, &[], 1, "AccessDenied"),
        (nobody, &["--repository", "a/***"], 2, "three stars"),
        (nobody, &["--parallel", "0"], 2, "from 1 to 256"),
        (nobody, &["--level", "fatal"], 2, "fatal"),
    ] {
        let outcome = check(address, arguments).await;
        assert_eq!((outcome.status, outcome.stdout.as_str()), (Some(status), ""), "{outcome:?}");
        let is_a_line = outcome.stderr.lines().count() == 1;
        assert!(is_a_line && outcome.stderr.contains(told), "{}", outcome.stderr);
    }
}

/// What `distribution` wrote has no entries of referrers, and else nothing that is missing.
#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn a_bucket_that_distribution_wrote_is_sound() {
    let bucket = BucketFolder::new();
    let peer = DockerRegistry::start(&bucket.path("")).await;
    let (image, index, artifact) =
        (Layout::image().await, Layout::index().await, Layout::artifact());
    for (layout, reference) in
        [(&image, "a/b:1"), (&index, "a/b:multi"), (&artifact, "c:1"), (&image, "c:2")]
    {
        skopeo::push(layout.path(), AS_IT_IS, peer.address, reference).await;
    }
    skopeo::push(image.path(), &["--format", "v2s2"], peer.address, "docker:1").await;
    let store = BlobStore::open(bucket.root()).await;

    let outcome = check(store.address, &["--deep"]).await;

    assert_eq!((outcome.status, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    let [line] = outcome.lines()[..] else {
        panic!("more than a line: {}", outcome.stdout);
    };
    assert!(line.contains("repositories: 3; manifests: 6; "), "{line}");
}
