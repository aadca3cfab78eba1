//! All kinds of garbage at once, from the dry run to the undoing.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join;
use serde_json::Value;

use moorage_test_support::blob_store::BlobStore;

use crate::bucket::{Bucket, Outcome, assert_same, gc, keys};
use crate::garbage::{self, UNCLEAR};

const APPLY: [&str; 1] = ["--apply"];

/// The order in which things are removed.
const KINDS: [&str; 6] = ["tag history", "referrer", "index", "manifest", "blob", "content"];

/// The program at work on one registry of a bucket.
struct Registry {
    bucket: Bucket,
    prefix: &'static str,
    store: BlobStore,
    before: BTreeMap<String, Vec<u8>>,
}

impl Registry {
    /// One that lies in the folder `prefix` of a bucket, beside another in the folder `other`.
    async fn new(prefix: &'static str, other: &'static str) -> Self {
        let mut bucket = Bucket::new();
        for prefix in [other, prefix] {
            bucket.below(prefix);
            garbage::write_all(&mut bucket);
        }
        let store = BlobStore::open(bucket.root.path()).await;
        let before = bucket.registry();
        Self { bucket, prefix, store, before }
    }

    async fn gc(&self, arguments: &[&str]) -> Outcome {
        let ages = ["--untagged-older-than", "24h", "--prefix", self.prefix];
        gc(self.store.address, &[&ages, arguments].concat()).await
    }

    /// What the bucket should hold when the garbage is gone.
    fn left(&self) -> BTreeMap<String, Vec<u8>> {
        let mut left = self.before.clone();
        for key in self.bucket.garbage() {
            assert!(left.remove(&format!("{}{key}", self.prefix)).is_some(), "{key}");
        }
        left
    }

    /// The collection's own objects, without the prefix.
    fn own(&self) -> BTreeSet<String> {
        let folder = format!("{}moorage/", self.prefix);
        let objects = self.bucket.objects();
        let own = objects.keys().filter_map(|key| key.strip_prefix(&folder));
        own.filter(|key| !key.starts_with("probes/")).map(str::to_owned).collect()
    }

    /// How many objects the registry has, and how many bytes the contents among these keys.
    fn size(&self, keys: &BTreeSet<String>) -> (u64, u64) {
        let folder = format!("{}docker/registry/v2/", self.prefix);
        let objects = self.before.keys().filter(|key| key.starts_with(&folder)).count();
        let contents = keys.iter().filter(|key| key.contains("/v2/blobs/"));
        let bytes = contents.map(|key| self.before[&format!("{}{key}", self.prefix)].len());
        (objects as u64, bytes.sum::<usize>() as u64)
    }

    /// Each repository of which it can't be told what it needs is named, and why.
    fn names_what_is_unclear(&self, outcome: &Outcome) {
        assert_eq!(outcome.status, Some(0), "{outcome:?}");
        assert_eq!(outcome.stderr.len(), UNCLEAR.len(), "{outcome:?}");
        let document = outcome.json();
        for (number, (repository, why)) in UNCLEAR.into_iter().enumerate() {
            let line = &outcome.stderr[number];
            assert!(line.contains(&format!("{repository} is left alone")), "{line}");
            assert!(line.contains(why), "{line}");
            assert_eq!(document["unclear"][number]["repository"], repository);
        }
    }

    /// The sums of a document agree with the bucket.
    fn adds_up(&self, document: &Value) {
        let garbage = self.bucket.garbage();
        let (objects, bytes) = self.size(&garbage);
        assert_eq!(document["objects"], objects);
        assert_eq!(document["total"]["objects"], garbage.len());
        assert_eq!(document["total"]["bytes"], bytes);
        let mut sums = [&document["shared"], &document["unlinked"]].map(|sums| {
            let number = |field: &str| sums[field].as_u64().expect("a number");
            (number("objects"), number("bytes"))
        });
        assert!(sums.iter().all(|(objects, bytes)| *objects > 0 && *bytes > 0), "{sums:?}");
        for repository in document["repositories"].as_array().expect("a list") {
            let number = |field: &str| repository[field].as_u64().expect("a number");
            sums[0].0 += number("links") + number("contents");
            sums[0].1 += number("bytes");
        }
        assert_eq!(sums[0].0 + sums[1].0, garbage.len() as u64);
        assert_eq!(sums[0].1 + sums[1].1, bytes);
    }

    async fn is_collected(&self) {
        let all = self.bucket.objects();
        let dry = self.gc(&[]).await;
        self.names_what_is_unclear(&dry);
        assert_eq!(keys(&dry.json()), self.bucket.garbage());
        self.adds_up(&dry.json());
        assert_same(&self.bucket.objects(), &all, "a dry run writes nothing");

        let first = self.gc(&APPLY).await;
        self.names_what_is_unclear(&first);
        self.adds_up(&first.json());
        assert_eq!(first.json()["found_before"], 0);
        assert_eq!(first.json()["removed"]["links"], 0);
        assert_same(&self.bucket.registry(), &self.before, "one run alone removes nothing");
        assert_eq!(self.own(), ["gc/condemned", "gc/manifests"].map(str::to_owned).into());

        let second = self.gc(&APPLY).await;
        self.names_what_is_unclear(&second);
        self.adds_up(&second.json());
        self.says_what_it_removed(&second.json());
        assert_same(&self.bucket.registry(), &self.left(), "what is left");

        let third = self.gc(&[]).await.json();
        assert_eq!(third["total"]["objects"], 0, "{third}");
        self.is_brought_back(second.json()["run"].as_str().expect("a run")).await;
    }

    fn says_what_it_removed(&self, document: &Value) {
        let garbage = self.bucket.garbage();
        assert_eq!(keys(document), garbage);
        assert_eq!(document["found_before"], garbage.len());
        let removed = &document["removed"];
        let number = |field: &str| removed[field].as_u64().expect("a number");
        assert_eq!(number("links") + number("contents"), garbage.len() as u64);
        assert_eq!(number("bytes"), self.size(&garbage).1);
        assert_eq!((number("spared"), &document["failures"]), (0, &Value::from(0)));
        let things = document["garbage"].as_array().expect("a list").iter();
        let kinds = things.map(|thing| KINDS.iter().position(|kind| thing["kind"] == *kind));
        let kinds: Option<Vec<_>> = kinds.collect();
        assert!(kinds.expect("known kinds").is_sorted(), "what leads to something goes before it");
    }

    async fn is_brought_back(&self, run: &str) {
        let trash = self.own();
        for key in self.bucket.garbage() {
            assert!(trash.contains(&format!("trash/{run}/{key}")), "{key}");
        }
        let undone = self.gc(&["--undo", run]).await.clean();
        assert_eq!(undone["restored"], self.bucket.garbage().len());
        assert_same(&self.bucket.registry(), &self.before, "what is brought back");
        let again = self.gc(&["--undo", run]).await.clean();
        assert_eq!((&again["restored"], &again["present"]), (&Value::from(0), &undone["restored"]));
    }
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn what_nothing_needs_goes_and_nothing_else() {
    let (whole, part) = join(Registry::new("", "pre/fix/"), Registry::new("pre/fix/", "")).await;
    join(whole.is_collected(), part.is_collected()).await;
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn untagged_manifests_stay_unless_asked_for() {
    let mut bucket = Bucket::new();
    garbage::write_few(&mut bucket);
    let store = BlobStore::open(bucket.root.path()).await;
    let found = async |arguments: &[&str]| keys(&gc(store.address, arguments).await.clean());

    let by_default = found(&[]).await;
    let with_untagged = found(&["--untagged-older-than", "24h"]).await;
    let all_too_young = found(&["--untagged-older-than", "24h", "--grace", "26h"]).await;
    let untagged_too_young = found(&["--untagged-older-than", "26h"]).await;

    assert_eq!(with_untagged, bucket.garbage());
    assert_eq!(untagged_too_young, by_default);
    assert_eq!(all_too_young, BTreeSet::new());
    // The history of a tag that is gone, a blob that no manifest has with its content, and content.
    assert_eq!(by_default.len(), 4, "{by_default:?}");
    assert!(by_default.iter().all(|key| !key.contains("/revisions/")), "{by_default:?}");
    assert!(by_default.is_subset(&with_untagged), "{by_default:?}");
}
