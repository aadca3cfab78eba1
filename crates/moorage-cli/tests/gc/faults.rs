//! A store that fails in the middle of a run: nothing that is needed goes, the run says so, and later ones finish.

use futures::future::join_all;
use http::Method;

use moorage_test_support::blob_store::BlobStore;
use moorage_test_support::scripted::{Call, Fate, ScriptedStore};

use crate::bucket::{Bucket, Outcome, gc};
use crate::garbage;

const APPLY: [&str; 3] = ["--apply", "--untagged-older-than", "24h"];
const BUSY: Fate = Fate::Answer(503, "<Error><Code>SlowDown</Code></Error>");

/// When the store begins to fail, by the calls so far and the one that comes.
type Moment = fn(&[Call], &Call) -> bool;

fn is_put(call: &Call, folder: &str) -> bool {
    call.method == Method::PUT && call.key.starts_with(folder)
}

fn is_removal(call: &Call) -> bool {
    call.method == Method::DELETE && call.key.starts_with("docker/")
}

fn is_listing(call: &Call) -> bool {
    call.key.contains("list-type=2")
}

fn removals(calls: &[Call]) -> usize {
    calls.iter().filter(|call| is_removal(call)).count()
}

/// From this moment on the store fails for good. Each is in another part of a run.
const MOMENTS: [(&str, Moment); 12] = [
    ("the claim", |_, call| is_put(call, "moorage/gc/claims/")),
    ("the first listing", |_, call| is_listing(call) && call.key.contains("docker")),
    ("the memory of manifests", |_, call| call.key == "moorage/gc/manifests"),
    ("the note of what is garbage", |_, call| is_put(call, "moorage/gc/condemned")),
    ("the marker", |_, call| is_put(call, "moorage/gc/markers/")),
    ("the second look", |calls, call| {
        is_listing(call) && calls.iter().any(|call| is_put(call, "moorage/gc/markers/"))
    }),
    ("the trash's label", |_, call| is_put(call, "moorage/trash/")),
    ("a copy to the trash", |calls, call| {
        call.is_copy && calls.iter().filter(|call| call.is_copy).count() == 3
    }),
    ("the first removal", |_, call| is_removal(call)),
    ("a later removal", |calls, call| is_removal(call) && removals(calls) == 7),
    ("the removal of content", |_, call| {
        is_removal(call) && call.key.starts_with("docker/registry/v2/blobs/")
    }),
    ("the marker's removal", |_, call| {
        call.method == Method::DELETE && call.key.starts_with("moorage/gc/markers/")
    }),
];

/// A bucket with little garbage, of which a first run has taken note.
struct Noted {
    bucket: Bucket,
    store: BlobStore,
}

impl Noted {
    async fn new() -> Self {
        let mut bucket = Bucket::new();
        garbage::write_few(&mut bucket);
        let store = BlobStore::open(bucket.root.path()).await;
        gc(store.address, &APPLY).await.clean();
        Self { bucket, store }
    }

    /// Runs behind a script; gives the calls that there were, too.
    async fn run(
        &self,
        script: impl FnMut(&Call) -> Fate + Send + 'static,
    ) -> (Outcome, Vec<Call>) {
        let scripted = ScriptedStore::start(self.store.address, script).await;
        let outcome = gc(scripted.address, &APPLY).await;
        (outcome, scripted.calls())
    }

    /// Nothing that is needed has gone, and once the store works and the run is taken for dead all else goes.
    async fn recovers(&self, what: &str) {
        self.nothing_needed_is_gone(what);
        self.bucket.outlive_dead_runs();
        // It may be that the first note of it was lost.
        for _ in 0..2 {
            gc(self.store.address, &APPLY).await.clean();
        }
        self.nothing_needed_is_gone(what);
        let left = self.bucket.registry();
        let garbage = self.bucket.garbage();
        assert!(garbage.iter().all(|key| !left.contains_key(key)), "{what}: {left:?}");
    }

    fn nothing_needed_is_gone(&self, what: &str) {
        let left = self.bucket.registry();
        let mut whole = Bucket::new();
        garbage::write_few(&mut whole);
        let garbage = whole.garbage();
        for (key, content) in whole.registry().iter().filter(|(key, _)| !garbage.contains(*key)) {
            assert_eq!(left.get(key), Some(content), "{what}: {key}");
        }
    }
}

async fn fails_for_good(what: &str, moment: Moment, fault: Fate) {
    let what = format!("{what}, {fault:?}");
    let noted = Noted::new().await;
    let (mut calls, mut is_broken) = (Vec::new(), false);
    let run = noted.run(move |call| {
        is_broken |= moment(&calls, call);
        calls.push(call.clone());
        if is_broken { fault } else { Fate::Pass }
    });
    let (outcome, calls) = run.await;

    let mut calls_before = (0..calls.len()).map(|number| (&calls[..number], &calls[number]));
    assert!(calls_before.any(|(before, call)| moment(before, call)), "{what} did not come");
    assert_eq!(outcome.status, Some(1), "{what}: {outcome:?}");
    assert!(!outcome.stderr.is_empty(), "{what}: {outcome:?}");
    outcome.json();
    noted.recovers(&what).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn a_store_that_fails_from_some_moment_on_loses_nothing() {
    let faults = [BUSY, Fate::Break, Fate::Lose];
    let cases = MOMENTS.iter().zip(faults.into_iter().cycle());
    join_all(cases.map(|((what, moment), fault)| fails_for_good(what, *moment, fault))).await;
}

/// Every n-th call fails.
async fn fails_now_and_then(n: usize, fault: Fate) {
    let what = format!("every call number {n}, {fault:?}");
    let noted = Noted::new().await;
    let mut calls = 0;
    let run = noted.run(move |_| {
        calls += 1;
        if calls % n == 0 { fault } else { Fate::Pass }
    });
    let (outcome, calls) = run.await;
    assert!(calls.len() >= n, "{what}: {calls:?}");

    // What is tried again comes about; what is not is told.
    let is_done =
        noted.bucket.garbage().iter().all(|key| !noted.bucket.registry().contains_key(key));
    assert_eq!(outcome.status, Some(i32::from(!is_done)), "{what}: {outcome:?}");
    assert_eq!(outcome.stderr.is_empty(), is_done, "{what}: {outcome:?}");
    noted.recovers(&what).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the local blob store: run ./build.sh test"]
async fn a_store_that_fails_now_and_then_loses_nothing() {
    let cases = [(2, BUSY), (3, Fate::Break), (5, Fate::Lose), (7, BUSY), (11, Fate::Lose)];
    join_all(cases.map(|(n, fault)| fails_now_and_then(n, fault))).await;
}
