//! Tags by which clients attach signatures and the like to a manifest.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use moorage::oci::Digest;
use moorage::store::layout;
use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::scripted::{Fate, ScriptedStore};

use super::registry::{DAY, Registry, image_of, name, retain};

const POLICY: &str =
    "rules: [{ repositories: [\"*\"], tags: [\"*\"], keep: [{ newest: 2 }, { tags: [main] }] }]";

const APPLY: [&str; 2] = ["--no-config", "--apply"];

/// The repository `a` after it was filled: its tags, and those that go.
struct Filled {
    registry: Registry,
    goes: BTreeSet<String>,
}

fn all(tags: &[&str]) -> BTreeSet<String> {
    tags.iter().map(|tag| format!("a:{tag}")).collect()
}

/// The tags `new`, `newer` and `main` stay; `old`, `older` and `oldest` go, the last an index of two platforms.
fn filled() -> Filled {
    let registry = Registry::new();
    let attach = |subject: &Digest, end: &str| registry.attach("a", subject, end);
    let main = registry.image("a", "main", DAY * 90);
    registry.image("a", "newer", DAY * 3);
    let platforms = ["x", "y", "shared"].map(|text| registry.manifest("a", &image_of(text)));
    let [x, y, shared] = &platforms;
    let new = registry.index("a", &[y, shared]);
    registry.tag("a", "new", &new, DAY * 4);
    let old = registry.image("a", "old", DAY * 50);
    let oldest = registry.index("a", &[x, shared]);
    registry.tag("a", "oldest", &oldest, DAY * 60);
    // What goes is on the same manifest as what stays.
    registry.tag("a", "older", &main, DAY * 55);
    let untagged = registry.manifest("a", &image_of("untagged"));
    let elsewhere: Digest = format!("sha256:{}", "0".repeat(64)).parse().expect("a digest");

    let mut goes = vec!["old".to_owned(), "older".to_owned(), "oldest".to_owned()];
    let (signature, tag) = attach(&old, ".sig");
    goes.push(tag);
    goes.push(attach(&old, ".att").1);
    goes.push(attach(&old, "").1);
    goes.push(attach(&oldest, ".sig").1);
    // A platform of an index that goes, and of none that stays; and a signature of a signature.
    goes.push(attach(x, ".sig").1);
    goes.push(attach(&signature, ".sig").1);
    // What refers to it by `subject`, and is signed itself.
    let report = registry.manifest("a", &image_of("report"));
    registry.referrer("a", &old, &report);
    goes.push(attach(&report, ".sig").1);

    // Of what stays, of a platform of an index that stays, of what refers to what stays.
    attach(&main, ".sig");
    attach(&new, ".sig");
    attach(y, ".sig");
    attach(shared, ".sig");
    let report = registry.manifest("a", &image_of("another report"));
    registry.referrer("a", &new, &report);
    let (signature, _) = attach(&report, ".sig");
    attach(&signature, ".att");
    // Of what never had a tag, and of what is in another repository.
    attach(&untagged, ".sig");
    attach(&elsewhere, ".sig");
    let goes = goes.iter().map(|tag| format!("a:{tag}")).collect();
    Filled { registry, goes }
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn signatures_go_with_the_last_tag_of_what_they_are_about() {
    let Filled { registry, goes } = filled();
    let store = BlobStore::open(registry.root()).await;
    let before = registry.tags();

    let dry = retain(store.address, &registry, POLICY, &["--no-config"]).await;
    assert_eq!((dry.status, dry.stderr.len()), (Some(0), 0), "{:?}", dry.stderr);
    assert_eq!(dry.told("delete"), goes);
    assert_eq!(registry.tags(), before);

    let done = retain(store.address, &registry, POLICY, &APPLY).await;
    assert_eq!((done.status, done.stderr.len()), (Some(0), 0), "{:?}", done.stderr);
    assert_eq!(done.told("deleted"), goes);
    assert_eq!(registry.tags(), &before - &goes);

    let again = retain(store.address, &registry, POLICY, &APPLY).await;
    assert_eq!((again.status, again.told("deleted").len()), (Some(0), 0), "{:?}", again.stdout);
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn what_is_about_nothing_in_the_repository_goes_only_where_the_policy_says_so() {
    let registry = Registry::new();
    registry.image("a", "main", DAY);
    let untagged = registry.manifest("a", &image_of("untagged"));
    let (_, of_untagged) = registry.attach("a", &untagged, ".sig");
    let absent = |digit: &str| -> Digest {
        format!("sha256:{}", digit.repeat(64)).parse().expect("a digest")
    };
    let (_, orphan) = registry.attach("a", &absent("0"), ".sig");
    let (digest, pushed_first) = registry.attach("a", &absent("1"), "");
    registry.tag("a", &pushed_first, &digest, DAY / 2);
    let store = BlobStore::open(registry.root()).await;

    let outcome = retain(store.address, &registry, POLICY, &APPLY).await;
    assert_eq!(outcome.told("deleted"), BTreeSet::new());
    let policy = POLICY.replace("keep:", "delete_orphaned_referrers: true, keep:");
    let outcome = retain(store.address, &registry, &policy, &APPLY).await;

    assert_eq!((outcome.status, outcome.stderr.len()), (Some(0), 0), "{:?}", outcome.stderr);
    assert_eq!(outcome.told("deleted"), all(&[&orphan]));
    assert_eq!(registry.tags(), all(&["main", &of_untagged, &pushed_first]));
    assert!(outcome.why(&format!("a:{pushed_first}")).contains("may still be pushed"));
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn a_tag_that_comes_meanwhile_holds_its_signatures() {
    let registry = Registry::new();
    registry.image("a", "main", DAY);
    registry.image("a", "newer", DAY * 2);
    let old = registry.image("a", "old", DAY * 9);
    let (_, signature) = registry.attach("a", &old, ".sig");
    let store = BlobStore::open(registry.root()).await;
    let others = registry.clone();
    let scripted = ScriptedStore::start(store.address, move |call| {
        if call.method == Method::DELETE && call.key.ends_with("/tags/old/current/link") {
            others.tag("a", "rescued", &old, Duration::ZERO);
        }
        Fate::Pass
    })
    .await;

    let outcome = retain(scripted.address, &registry, POLICY, &APPLY).await;

    assert_eq!((outcome.status, outcome.stderr.len()), (Some(0), 0), "{:?}", outcome.stderr);
    assert_eq!(registry.tags(), all(&["main", "newer", "rescued", &signature]));
    assert!(outcome.told("keep").contains(&format!("a:{signature}")), "{:?}", outcome.stdout);
}

/// Each row: what of a tag that stays makes no sense.
#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn where_nobody_knows_what_a_manifest_lists_signatures_stay() {
    for broken in ["content is absent", "content is corrupt", "content is no manifest", "link"] {
        let registry = Registry::new();
        let main =
            registry.manifest("a", if broken.ends_with("no manifest") { "{}" } else { "[]" });
        registry.tag("a", "main", &main, DAY);
        registry.image("a", "newer", DAY * 2);
        let old = registry.image("a", "old", DAY * 9);
        let (_, signature) = registry.attach("a", &old, ".sig");
        match broken {
            "content is absent" => registry.remove(layout::content(&main).as_str()),
            "content is corrupt" => registry.put(layout::content(&main).as_str(), "{}"),
            "link" => {
                let link = layout::tag_link(&name("a"), &"main".parse().expect("a tag"));
                registry.put(link.as_str(), "nonsense");
            }
            _ => {}
        }
        let store = BlobStore::open(registry.root()).await;

        let outcome = retain(store.address, &registry, POLICY, &APPLY).await;

        assert_eq!((outcome.status, outcome.stderr.len()), (Some(0), 0), "{:?}", outcome.stderr);
        assert_eq!(registry.tags(), all(&["main", "newer", &signature]), "{broken}");
        let why = outcome.why(&format!("a:{signature}"));
        assert!(why.contains("nobody knows") || why.contains("can't be read"), "{broken}: {why}");
    }
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn where_a_tag_could_not_be_deleted_signatures_stay() {
    let Filled { registry, .. } = filled();
    let store = BlobStore::open(registry.root()).await;
    let scripted = ScriptedStore::start(store.address, |call| {
        let fails = call.method == Method::DELETE && call.key.ends_with("/tags/older/current/link");
        match fails {
            true => Fate::Answer(403, "<Error><Code>AccessDenied</Code></Error>"),
            false => Fate::Pass,
        }
    })
    .await;

    let outcome = retain(scripted.address, &registry, POLICY, &APPLY).await;

    assert_eq!((outcome.status, outcome.stderr.len()), (Some(1), 1), "{:?}", outcome.stderr);
    let deleted = outcome.told("deleted");
    assert!(deleted.is_subset(&all(&["old", "oldest"])), "{deleted:?}");
}
