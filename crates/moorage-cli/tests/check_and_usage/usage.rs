//! What a bucket's repositories take, in each form.

use std::net::SocketAddr;

use moorage::store::layout::{self, Key};
use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::digest_of;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::registry::{Outcome, Registry, moorage};

async fn usage(store: SocketAddr, arguments: &[&str]) -> Outcome {
    let outcome = moorage(store, &[&["usage"], arguments].concat()).await;
    assert_eq!((outcome.status, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    outcome
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn each_form_tells_the_same() {
    let registry = Registry::new();
    registry.put(&layout::content(&digest_of("of nobody")), "of nobody");
    registry.put(&Key::listed("moorage/trash/run/x").expect("a key"), "trash");
    let store = BlobStore::open(registry.root()).await;
    let before = registry.bucket.keys();

    let document = usage(store.address, &["--format", "json"]).await.document();

    assert_eq!(document["version"], 1);
    let date = document["date"].as_str().and_then(|date| humantime::parse_rfc3339(date).ok());
    assert!(date.is_some(), "{}", document["date"]);
    let totals = &document["totals"];
    assert_eq!(totals["repositories"], 2);
    assert_eq!(totals["unlinked"], json!({ "objects": 1, "bytes": 9 }));
    assert_eq!(totals["garbage"], json!({ "objects": 1, "bytes": 9 }));
    assert_eq!(totals["trash"], json!({ "objects": 1, "bytes": 5 }));
    assert_eq!(
        (&totals["contents"]["objects"], &totals["shared"]["objects"]),
        (&json!(9), &json!(3))
    );
    let repositories = document["repositories"].as_array().expect("a list");
    let names: Vec<_> = repositories.iter().map(|r| r["name"].as_str()).collect();
    assert_eq!(names, [Some("a"), Some("team/b")], "the largest first");
    let counts = |r: &Value| ["tags", "manifests", "blobs"].map(|field| r[field].as_u64());
    assert_eq!(counts(&repositories[0]), [Some(2), Some(4), Some(4)]);
    assert_eq!(counts(&repositories[1]), [Some(1), Some(1), Some(2)]);
    let bytes = |r: &Value, field: &str| r[field].as_u64().expect("a number");
    let shared = bytes(&totals["shared"], "bytes");
    for repository in repositories {
        assert_eq!(bytes(repository, "shared_bytes"), shared);
        assert_eq!(bytes(repository, "bytes"), shared + bytes(repository, "own_bytes"));
    }
    let portions: u64 = repositories.iter().map(|r| bytes(r, "portion_bytes")).sum();
    assert_eq!(portions, bytes(&totals["contents"], "bytes") - 9);

    let csv = usage(store.address, &["--format", "csv"]).await;
    let mut expected = vec!["repository,bytes,own,shared,garbage,tags,manifests,blobs".to_owned()];
    expected.extend(repositories.iter().map(|r| {
        let fields =
            ["bytes", "own_bytes", "shared_bytes", "garbage_bytes", "tags", "manifests", "blobs"];
        let figures = fields.map(|field| bytes(r, field).to_string()).join(",");
        format!("{},{figures}", r["name"].as_str().expect("a name"))
    }));
    assert_eq!(csv.lines(), expected);

    let table = usage(store.address, &[]).await;
    let lines = table.lines();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(lines[0]), expected[0].split(',').collect::<Vec<_>>());
    assert!(
        lines[1].starts_with("a       ") && lines[2].starts_with("team/b  "),
        "{}",
        table.stdout
    );
    assert!(table.stdout.contains("\nof them in no repository: 9 B in 1\n"), "{}", table.stdout);
    assert_eq!(registry.bucket.keys(), before);
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn the_picture_is_written_beside_what_is_told() {
    let registry = Registry::new();
    let store = BlobStore::open(registry.root()).await;
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("usage.svg");

    let outcome =
        usage(store.address, &["--svg", path.to_str().expect("text"), "--format", "csv"]).await;

    assert_eq!(outcome.lines().len(), 3);
    let svg = std::fs::read_to_string(&path).expect("a picture");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    assert!(svg.contains("<title>team/b: ") && svg.contains("registry: "), "{svg}");

    let nowhere = folder.path().join("missing/usage.svg");
    let arguments = ["usage", "--svg", nowhere.to_str().expect("text")];
    let refused = moorage(store.address, &arguments).await;
    assert_eq!((refused.status, refused.stdout.as_str()), (Some(1), ""));
    assert!(refused.stderr.contains("--svg"), "{}", refused.stderr);
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn repositories_of_which_nobody_knows_what_they_need_are_told() {
    let registry = Registry::new();
    registry.put(&layout::content(&registry.child), "{}");
    let store = BlobStore::open(registry.root()).await;
    let outcome = moorage(store.address, &["usage", "--format", "csv"]).await;
    assert_eq!((outcome.status, outcome.lines().len()), (Some(0), 3), "{outcome:?}");
    assert!(outcome.stderr.starts_with("1 repositories count as free of garbage"), "{outcome:?}");
}
