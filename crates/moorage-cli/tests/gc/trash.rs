//! The trash: when there is one, until when, and how it is told of.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use serde_json::json;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::process::output;
use moorage_test_support::scripted::{Fate, ScriptedStore};

use crate::bucket::Fate::Stays;
use crate::bucket::{Bucket, assert_same, command, gc};
use crate::garbage;

const APPLY: [&str; 3] = ["--apply", "--untagged-older-than", "24h"];
const VERSIONS: &str =
    "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
const HOUR: u64 = 60 * 60;

fn trashed(bucket: &Bucket) -> BTreeSet<String> {
    let objects = bucket.objects();
    objects.keys().filter_map(|key| Some(key.strip_prefix("moorage/trash/")?.to_owned())).collect()
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn a_bucket_that_keeps_versions_needs_no_trash() {
    let mut bucket = Bucket::new();
    garbage::write_few(&mut bucket);
    let store = BlobStore::open(bucket.root.path()).await;
    let versioned =
        ScriptedStore::start(store.address, |call| match call.key.contains("?versioning") {
            true => Fate::Answer(200, VERSIONS),
            false => Fate::Pass,
        })
        .await;
    for _ in 0..2 {
        gc(versioned.address, &APPLY).await.clean();
    }
    let left = bucket.registry();
    assert!(bucket.garbage().iter().all(|key| !left.contains_key(key)), "{left:?}");
    assert_eq!(trashed(&bucket), BTreeSet::new());
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or(Duration::ZERO).as_secs()
}

/// A bucket with the trash of three runs: one whose time is over, one whose is not, and one that does not say.
fn with_trash() -> Bucket {
    let mut bucket = Bucket::new();
    let image = bucket.image("app", "image", Stays);
    bucket.tag("app", "t", &image);
    for (run, removed, keep_until) in
        [("old", now() - 9 * HOUR, now() - HOUR), ("new", now() - HOUR, now() + HOUR)]
    {
        let label = json!({ "run": run, "removed": removed, "keep_until": keep_until });
        bucket.put_at(&format!("moorage/trash/{run}/run.json"), label.to_string(), Stays);
    }
    for run in ["old", "new", "strange"] {
        let key = "docker/registry/v2/blobs/sha256/00/00/data";
        bucket.put_at(&format!("moorage/trash/{run}/{key}"), "content", Stays);
    }
    bucket
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn trash_goes_when_its_time_is_over() {
    let bucket = with_trash();
    let mut kept = trashed(&bucket);
    kept.retain(|key| !key.starts_with("old/"));
    let store = BlobStore::open(bucket.root.path()).await;

    let dry = gc(store.address, &[]).await;
    assert_eq!((dry.status, trashed(&bucket).len()), (Some(0), 5), "{dry:?}");
    let outcome = gc(store.address, &["--apply"]).await;

    assert_eq!((outcome.status, outcome.stderr.len()), (Some(0), 1), "{outcome:?}");
    assert!(outcome.stderr[0].contains("moorage/trash/strange/"), "{outcome:?}");
    assert_eq!(trashed(&bucket), kept);
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn runs_that_can_be_undone_are_listed() {
    let bucket = with_trash();
    let before = bucket.objects();
    let store = BlobStore::open(bucket.root.path()).await;

    let listed = gc(store.address, &["--list-runs"]).await.clean();
    let runs = listed["runs"].as_array().expect("a list");
    let names: Vec<_> = runs.iter().map(|run| run["run"].as_str().expect("a name")).collect();
    assert_eq!(names, ["new", "old", "strange"]);
    assert!(runs[0]["keep_until"].is_string() && runs[2]["keep_until"].is_null(), "{runs:?}");
    let lines = output(&mut command(store.address, &["--list-runs"])).await;
    let lines = String::from_utf8_lossy(&lines.stdout).into_owned();
    assert_eq!(lines.lines().count(), 3, "{lines}");
    assert!(lines.starts_with("new: removed 20"), "{lines}");

    let unknown = gc(store.address, &["--undo", "none"]).await;
    assert_eq!((unknown.status, unknown.stderr.len()), (Some(1), 1), "{unknown:?}");
    assert!(unknown.stderr[0].contains("nothing of a run none"), "{unknown:?}");
    assert_same(&bucket.objects(), &before, "nothing is written");
}
