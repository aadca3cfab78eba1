//! Others write while tags are deleted, and stores fail in the middle of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use moorage::oci::Tag;
use moorage::store::layout;
use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::scripted::{Fate, ScriptedStore};

use super::registry::{DAY, Outcome, Registry, image_of, name, retain};

const POLICY: &str = "rules: [{ repositories: [\"*\"], tags: [\"*\"], keep: [{ younger_than: 7days }, { tags: [main] }] }]";

const APPLY: [&str; 2] = ["--no-config", "--apply"];

/// What somebody else does to the tag `a:old` while it is being deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// It is set to another manifest.
    Move,
    /// It is pushed again, to the same manifest.
    SetAgain,
    Remove,
}

/// Runs the program, and lets somebody else act before the first request that is so.
async fn with_act(
    act: Act,
    is_moment: impl Fn(&Method, &str) -> bool + Send + 'static,
) -> (Registry, Outcome) {
    let registry = Registry::new();
    let digest = registry.image("a", "old", DAY * 30);
    registry.image("a", "older", DAY * 40);
    registry.image("a", "main", DAY * 40);
    let store = BlobStore::open(registry.root()).await;
    let others = registry.clone();
    let is_done = Arc::new(AtomicBool::new(false));
    let was_done = Arc::clone(&is_done);
    let scripted = ScriptedStore::start(store.address, move |call| {
        if is_moment(&call.method, &call.plain_key()) && !is_done.swap(true, Ordering::Relaxed) {
            match act {
                Act::Move => {
                    let other = others.manifest("a", &image_of("moved"));
                    others.tag("a", "old", &other, Duration::ZERO);
                }
                Act::SetAgain => others.tag("a", "old", &digest, Duration::ZERO),
                Act::Remove => {
                    let tag: Tag = "old".parse().expect("a tag");
                    others.remove(layout::tag_link(&name("a"), &tag).as_str());
                }
            }
        }
        Fate::Pass
    })
    .await;
    let outcome = retain(scripted.address, &registry, POLICY, &APPLY).await;
    assert!(was_done.load(Ordering::Relaxed), "the moment never came");
    (registry, outcome)
}

fn is_read(method: &Method, path: &str) -> bool {
    method == Method::GET && path.ends_with("/tags/old/current/link")
}

fn is_second_look(_: &Method, path: &str) -> bool {
    path.contains("prefix=") && path.contains("/tags/old/current/link")
}

fn is_removal(method: &Method, path: &str) -> bool {
    method == Method::DELETE && path.ends_with("/tags/old/current/link")
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn a_tag_that_is_set_meanwhile_stays() {
    type Moment = fn(&Method, &str) -> bool;
    for (act, moment) in [
        (Act::Move, is_read as Moment),
        (Act::Move, is_second_look),
        (Act::Move, is_removal),
        (Act::SetAgain, is_read),
        (Act::SetAgain, is_second_look),
    ] {
        let (registry, outcome) = with_act(act, moment).await;
        assert_eq!((outcome.status, outcome.stderr.len()), (Some(0), 0), "{:?}", outcome.stderr);
        assert_eq!(registry.tags(), ["a:main", "a:old"].map(str::to_owned).into(), "{act:?}");
        assert_eq!(outcome.told("deleted"), ["a:older"].map(str::to_owned).into());
        assert!(outcome.told("keep").contains("a:old"), "{:?}", outcome.stdout);
        assert!(outcome.why("a:old").contains("set again"), "{:?}", outcome.stdout);
    }
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn a_tag_that_somebody_else_deletes_is_no_failure() {
    for moment in [is_read, is_second_look] {
        let (registry, outcome) = with_act(Act::Remove, moment).await;
        assert_eq!((outcome.status, outcome.stderr.len()), (Some(0), 0), "{:?}", outcome.stderr);
        assert_eq!(outcome.told("gone"), ["a:old"].map(str::to_owned).into());
        assert_eq!(registry.tags(), ["a:main"].map(str::to_owned).into());
    }
}

/// Whether a request lists exactly this folder of the registry.
fn is_listing(path: &str, folder: &str) -> bool {
    let prefix = path.split_once("prefix=").map(|(_, rest)| rest.split('&').next());
    prefix.flatten().and_then(|prefix| prefix.strip_prefix("docker/registry/v2/")) == Some(folder)
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn what_fails_in_one_repository_does_not_stop_the_others() {
    const BUSY: &str = "<Error><Code>SlowDown</Code><Message>Less, please</Message></Error>";
    const DENIED: &str = "<Error><Code>AccessDenied</Code><Message>No</Message></Error>";
    type Fault = fn(&Method, &str) -> bool;
    let listing: Fault = |_, path| is_listing(path, "repositories/b/_manifests/tags/");
    let read: Fault = |_, path| path.contains("repositories/b/_manifests/tags/2/current/link");
    let removal: Fault = |method, path| {
        method == Method::DELETE && path.contains("repositories/b/_manifests/tags/2/current/link")
    };
    let folder: Fault = |_, path| is_listing(path, "repositories/b/");
    for (fault, refusal, told) in [
        (listing, (503, BUSY), "b: the store answered 503 SlowDown"),
        (read, (503, BUSY), "b:2: the store answered 503 SlowDown"),
        (removal, (403, DENIED), "b:2: the store answered 403 AccessDenied"),
        (folder, (403, DENIED), "b: the store answered 403 AccessDenied"),
    ] {
        let registry = Registry::new();
        for repository in ["a", "b", "c"] {
            registry.image(repository, "main", DAY * 90);
            for tag in ["1", "2", "3"] {
                registry.image(repository, tag, DAY * 9);
            }
        }
        let store = BlobStore::open(registry.root()).await;
        let scripted = ScriptedStore::start(store.address, move |call| {
            match fault(&call.method, &call.plain_key()) {
                true => Fate::Answer(refusal.0, refusal.1),
                false => Fate::Pass,
            }
        })
        .await;

        let outcome = retain(scripted.address, &registry, POLICY, &APPLY).await;

        assert_eq!(outcome.status, Some(1), "{told}");
        let [complaint] = outcome.stderr.as_slice() else {
            panic!("not one line: {:?}", outcome.stderr);
        };
        assert!(complaint.contains(told), "{told}: {complaint}");
        let left = registry.tags();
        let of = |repository: &str| left.iter().filter(|tag| tag.starts_with(repository)).count();
        assert_eq!((of("a:"), of("c:")), (1, 1), "{told}: {left:?}");
        assert!(left.contains("b:main") && left.contains("b:2"), "{told}: {left:?}");
        // What is told is what happened.
        let deleted = outcome.told("deleted");
        assert_eq!(deleted.len() + left.len(), 12, "{told}: {deleted:?} {left:?}");
        assert!(deleted.is_disjoint(&left), "{told}: {deleted:?} {left:?}");

        let again = retain(store.address, &registry, POLICY, &APPLY).await;
        assert_eq!((again.status, again.stderr.len()), (Some(0), 0), "{:?}", again.stderr);
        let mains = ["a:main", "b:main", "c:main"].map(str::to_owned);
        assert_eq!(registry.tags(), BTreeSet::from(mains));
    }
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn a_tag_that_holds_no_digest_does_not_stop_the_others_of_its_repository() {
    let registry = Registry::new();
    registry.image("a", "main", DAY);
    for tag in ["1", "2", "3"] {
        registry.image("a", tag, DAY * 9);
    }
    let two = layout::tag_link(&name("a"), &"2".parse().expect("a tag"));
    registry.put(two.as_str(), "nonsense");
    let policy = "rules: [{ repositories: [a], tags: [\"*\"], keep: [{ tags: [main] }] }]";
    let store = BlobStore::open(registry.root()).await;

    let outcome = retain(store.address, &registry, policy, &APPLY).await;

    assert_eq!((outcome.status, outcome.stderr.len()), (Some(1), 1), "{:?}", outcome.stderr);
    assert!(outcome.stderr[0].contains("a:2") && outcome.stderr[0].contains("holds no digest"));
    assert_eq!(outcome.told("undone"), ["a:2"].map(str::to_owned).into());
    assert_eq!(registry.tags(), ["a:2", "a:main"].map(str::to_owned).into());
}
