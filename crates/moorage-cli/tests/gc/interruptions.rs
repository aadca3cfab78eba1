//! Two runs at once, and runs that are interrupted.

use std::process::Stdio;

use futures::future::join;
use http::Method;
use tokio::process::Command;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::process::{run, wait_for, within};
use moorage_test_support::scripted::{Call, Fate, ScriptedStore};

use crate::bucket::{Bucket, Fate as Expected, Outcome, assert_same, command, gc};
use crate::garbage;

const APPLY: [&str; 3] = ["--apply", "--untagged-older-than", "24h"];

async fn noted() -> (Bucket, BlobStore) {
    let mut bucket = Bucket::new();
    garbage::write_few(&mut bucket);
    let store = BlobStore::open(bucket.root.path()).await;
    gc(store.address, &APPLY).await.clean();
    (bucket, store)
}

fn is_marker(key: &str) -> bool {
    key.starts_with("moorage/gc/markers/")
}

fn is_removal(call: &Call) -> bool {
    call.method == Method::DELETE && call.key.starts_with("docker/")
}

fn garbage_left(bucket: &Bucket) -> usize {
    let left = bucket.registry();
    bucket.garbage().iter().filter(|key| left.contains_key(*key)).count()
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn of_two_runs_at_once_one_is_told_so() {
    let (bucket, store) = noted().await;
    let first = gc(store.address, &APPLY);
    let others = async {
        wait_for("the first run's marker", async || {
            bucket.objects().keys().any(|key| is_marker(key)).then_some(())
        })
        .await;
        let registry = bucket.registry();
        let second = gc(store.address, &APPLY).await;
        let undo = gc(store.address, &["--undo", "20200101T000000Z-0000"]).await;
        let dry = gc(store.address, &["--untagged-older-than", "24h"]).await;
        // The first one still waits: so it was not done already.
        assert_same(&bucket.registry(), &registry, "the first run waits");
        ([second, undo], dry)
    };
    let (first, (refused, dry)) = join(first, others).await;

    first.clean();
    for outcome in refused {
        assert_eq!((outcome.status, outcome.stderr.len()), (Some(1), 1), "{outcome:?}");
        assert!(outcome.stderr[0].contains("another run is under way: 20"), "{outcome:?}");
    }
    assert_eq!(dry.clean()["total"]["objects"], bucket.garbage().len());
    assert_eq!(garbage_left(&bucket), 0);
}

/// A run that gets a signal once this is called, and is not answered any more.
async fn interrupted(store: &BlobStore, signal: &str, when: fn(&[Call], &Call) -> bool) -> Outcome {
    let (mut calls, mut is_held) = (Vec::new(), false);
    let scripted = ScriptedStore::start(store.address, move |call| {
        is_held |= when(&calls, call);
        calls.push(call.clone());
        // The claim is given back at the end.
        let is_own = call.key.starts_with("moorage/gc/");
        if is_held && !is_own { Fate::Hold } else { Fate::Pass }
    })
    .await;
    let mut command = command(scripted.address, &APPLY);
    command.args(["--format", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.kill_on_drop(true).spawn().expect("the program starts");
    let pid = child.id().expect("it runs").to_string();
    let is_there = |calls: &[Call]| {
        calls.iter().enumerate().any(|(number, call)| when(&calls[..number], call))
    };
    wait_for("the call", async || is_there(&scripted.calls()).then_some(())).await;
    run(Command::new("kill").args([signal, &pid])).await;
    Outcome::of(within("the end", child.wait_with_output()).await.expect("it ends"))
}

fn says_so(outcome: &Outcome) {
    assert_eq!((outcome.status, outcome.stderr.len()), (Some(1), 1), "{outcome:?}");
    assert!(outcome.stderr[0].contains("interrupted"), "{outcome:?}");
    outcome.json();
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn an_interrupted_run_is_finished_by_the_next() {
    let (bucket, store) = noted().await;
    // While it lists; while it waits with its marker; while it removes things.
    let listing = interrupted(&store, "-INT", |_, call| call.key.contains("prefix=docker")).await;
    says_so(&listing);
    assert_eq!(garbage_left(&bucket), bucket.garbage().len());
    let waiting = interrupted(&store, "-TERM", |_, call| is_marker(&call.key)).await;
    says_so(&waiting);
    assert_eq!(garbage_left(&bucket), bucket.garbage().len());
    assert!(!bucket.objects().keys().any(|key| is_marker(key)), "it has removed nothing");
    let removing = interrupted(&store, "-INT", |calls, call| {
        is_removal(call) && calls.iter().filter(|call| is_removal(call)).count() == 4
    });
    says_so(&removing.await);
    let left = garbage_left(&bucket);
    assert!(left > 0 && left < bucket.garbage().len(), "{left}");

    // A removal of which no answer came may take effect for a while: the marker stays for as long.
    let at_once = gc(store.address, &APPLY).await;
    assert_eq!((at_once.status, at_once.stderr.len()), (Some(1), 1), "{at_once:?}");
    assert!(at_once.stderr[0].contains("may still be removing things"), "{at_once:?}");
    assert_eq!(bucket.outlive_dead_runs(), 1);
    gc(store.address, &APPLY).await.clean();

    let mut whole = Bucket::new();
    garbage::write_few(&mut whole);
    let mut expected = whole.registry();
    expected.retain(|key, _| !whole.garbage().contains(key));
    assert_same(&bucket.registry(), &expected, "what is left");
    assert!(!bucket.objects().keys().any(|key| key.starts_with("moorage/gc/claims/")));
}

#[tokio::test]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn a_foreign_marker_stops_the_sweep() {
    let (mut bucket, store) = noted().await;
    let before = bucket.registry();
    bucket.put_at("moorage/gc/markers/other", "{\"format\":2}\n", Expected::Stays);

    let outcome = gc(store.address, &APPLY).await;

    assert_eq!((outcome.status, outcome.stderr.len()), (Some(1), 1), "{outcome:?}");
    let line = &outcome.stderr[0];
    assert!(line.contains("moorage/gc/markers/other is no marker"), "{line}");
    assert_same(&bucket.registry(), &before, "nothing is removed");
}
