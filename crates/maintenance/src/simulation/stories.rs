//! Orders of things that chance hardly ever brings about, each told by itself.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{join, join3};
use http::Method;
use moorage::store::layout;

use super::bucket::{Blindness, SimStore};
use super::client::{Client, Ledger, blob, digest_of, image, index};
use super::oracle;
use super::proxy::{LINK_TTL, Proxy};
use super::scenario::{Mutation, collect};
use super::world::World;
use crate::gc::{GcError, Options, Removed};
use crate::time::Clock as _;

const HOUR: Duration = Duration::from_secs(60 * 60);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// One client and, now and then, a run. Nothing fails.
struct Story {
    world: Rc<World>,
    store: Rc<SimStore>,
    client: Client,
}

impl Story {
    fn begin() -> Self {
        let world = World::new(1);
        let store = Rc::new(SimStore::default());
        let client = Client {
            world: Rc::clone(&world),
            proxy: Proxy::new(&world, &store, Blindness::None),
            ledger: Rc::new(RefCell::new(Ledger::default())),
            grace: HOUR,
        };
        Self { world, store, client }
    }

    /// What the client does next.
    fn then<T: 'static>(&self, step: impl AsyncFnOnce(Client) -> T + 'static) -> T {
        let client = self.client.clone();
        self.world.quietly(async move { step(client).await })
    }

    /// A run, a day after what was before.
    fn run(&self, name: &str) -> Removed {
        self.world.pass(DAY);
        self.world.quietly(self.collect(name)).expect("a run")
    }

    fn collect(&self, name: &str) -> impl Future<Output = Result<Removed, GcError>> + use<> {
        let options = Options {
            grace: HOUR,
            untagged_older_than: Some(HOUR),
            trash: None,
            link_ttl: LINK_TTL,
            parallel: 4,
            inventory: None,
        };
        let (world, store) = (Rc::clone(&self.world), Rc::clone(&self.store));
        collect(world, store, Mutation::None, options, name.to_owned())
    }

    /// What the client does, a day after what was before, and a run that begins five seconds later.
    fn beside_a_run<T: 'static>(
        &self,
        name: &str,
        step: impl AsyncFnOnce(Client) -> T + 'static,
    ) -> (T, Removed) {
        self.world.pass(DAY);
        let (run, client) = (self.collect(name), self.client.clone());
        let world = Rc::clone(&self.world);
        let run = async move {
            world.wait(Duration::from_secs(5)).await;
            run.await
        };
        let (done, removed) = self.world.quietly(async move { join(step(client), run).await });
        (done, removed.expect("a run"))
    }

    /// What was acknowledged so long ago, and is not in use any more, is nobody's.
    fn forget_promises(&self) {
        self.client.ledger.take();
    }

    /// What was acknowledged is there.
    fn check(&self, status: u16) {
        let faults = oracle::lost(&self.store, &self.client.ledger.borrow(), Duration::ZERO);
        assert!(faults.is_empty(), "answered {status}: {faults:#?}");
    }

    fn has(&self, key: &layout::Key) -> bool {
        self.store.objects.borrow().contains_key(key.as_str())
    }
}

fn blobs(names: &[&str]) -> Vec<Bytes> {
    names.iter().map(|name| blob(name)).collect()
}

/// A layer is garbage at one run, then an image needs it that is garbage itself at the next. The image may go at the third
/// only: until then it is whole, and whoever refers to it gets what was acknowledged.
#[test]
fn what_was_garbage_before_stays_for_garbage_that_needs_it_and_is_new() {
    let story = Story::begin();
    let first = image(&blobs(&["first", "layer"]), None);
    let second = image(&blobs(&["second", "layer"]), None);
    let (old, new) = (first.clone(), second.clone());
    story.then(async move |client| {
        assert!(client.push("a", "t", &blobs(&["first", "layer"]), first.clone(), None).await);
        client.delete_manifest("a", &digest_of(&first)).await;
    });
    story.run("run-0");
    story.then(async move |client| {
        assert!(client.push("a", "u", &blobs(&["second", "layer"]), second, None).await);
        client.delete_tag("a", "u").await;
    });
    assert!(story.run("run-1").links > 0, "the configuration of the first image goes");
    let name = "a".parse().expect("a name");
    assert!(!story.has(&layout::manifest_link(&name, &digest_of(&old))));
    assert!(story.has(&layout::manifest_link(&name, &digest_of(&new))));
    let referring = index(&[new]);
    let reply =
        story.then(async move |client| client.put_manifest("a", "v", &referring, None).await.0);
    assert_eq!(reply, 201);
    let faults = oracle::lost(&story.store, &story.client.ledger.borrow(), story.world.now());
    assert!(faults.is_empty(), "{faults:#?}");
}

/// A layer is looked up, and goes with the run that has condemned it before the manifest that needs it is written: the writer
/// finds no marker any more.
#[test]
fn who_takes_longer_than_a_whole_removal_looks_again() {
    let name = "a".parse().expect("a name");
    let link = layout::blob_link(&name, &digest_of(&blob("layer")));
    let second = image(&blobs(&["second", "layer"]), None);
    // What is slow: that another reference is looked up, or that the manifest is written.
    for (method, content) in [(Method::HEAD, blob("second")), (Method::PUT, second.clone())] {
        let story = Story::begin();
        let first = image(&blobs(&["first", "layer"]), None);
        story.then(async move |client| {
            assert!(client.push("a", "t", &blobs(&["first", "layer"]), first.clone(), None).await);
            client.delete_manifest("a", &digest_of(&first)).await;
        });
        story.run("run-0");
        let (store, second) = (Rc::clone(&story.store), second.clone());
        let (status, removed) = story.beside_a_run("run-1", async move |client| {
            let other = image(&blobs(&["second"]), None);
            client.push("a", "u", &blobs(&["second"]), other, None).await;
            store.slow_down(method, digest_of(&content).hex(), 150);
            client.put_manifest("a", "t", &second, None).await.0
        });
        assert!(removed.links > 0 && !story.has(&link), "the layer goes");
        story.check(status);
    }
}

/// The link of a manifest that is put again is removed with what was condemned, while its content is still on its way.
#[test]
fn a_manifest_whose_own_link_went_meanwhile_is_not_acknowledged() {
    let story = Story::begin();
    let manifest = image(&blobs(&["config", "layer"]), None);
    let digest = digest_of(&manifest);
    let name = "a".parse().expect("a name");
    let link = layout::manifest_link(&name, &digest);
    let again = manifest.clone();
    story.then(async move |client| {
        assert!(client.push("a", "t", &blobs(&["config", "layer"]), manifest, None).await);
        // Its blobs stay: another manifest needs them.
        let other = image(&blobs(&["config", "layer", "other"]), None);
        assert!(client.push("a", "u", &blobs(&["config", "layer", "other"]), other, None).await);
        client.delete_tag("a", "t").await;
    });
    story.run("run-0");
    story.forget_promises();
    // The collection looks a second time after 25 seconds.
    story.store.slow_down(Method::PUT, layout::content(&digest).as_str(), 200);
    story.store.slow_down(Method::PUT, link.as_str(), 35);
    story.store.slow_down(Method::DELETE, link.as_str(), 30);
    let (status, _) = story.beside_a_run("run-1", async move |client| {
        client.put_manifest("a", "t", &again, None).await.0
    });
    story.check(status);
}

/// A manifest with an immutable tag is put, and deleted at the same time: the deletion finds no tag yet and takes the link away,
/// then finds the tag and puts the link back. Meanwhile the collection looks, and finds neither.
#[test]
fn a_link_that_was_away_for_a_while_does_not_make_its_tag_safe() {
    let mut story = Story::begin();
    let manifest = image(&blobs(&["config", "layer"]), None);
    let digest = digest_of(&manifest);
    let (first, second) = (manifest.clone(), manifest);
    story.then(async move |client| {
        assert!(client.push("a", "t", &blobs(&["config", "layer"]), first.clone(), None).await);
        client.delete_manifest("a", &digest_of(&first)).await;
    });
    story.run("run-0");
    story.forget_promises();
    story.client.proxy = Proxy::with_immutable_tags(&story.world, &story.store, Blindness::None);
    let store = Rc::clone(&story.store);
    let name = "a".parse().expect("a name");
    let link = layout::manifest_link(&name, &digest);
    let ((status, deleted), _) = story.beside_a_run("run-1", async move |client| {
        let seconds = Duration::from_secs;
        store.slow_down(Method::PUT, "tags/v/current/link", 30);
        store.slow_down(Method::DELETE, link.as_str(), 3);
        let put = client.put_manifest("a", "v", &second, None);
        let delete = async {
            client.world.wait(seconds(1)).await;
            let target = format!("/v2/a/manifests/{digest}");
            client.proxy.send(Method::DELETE, &target, None).await.status
        };
        let slower = async {
            client.world.wait(seconds(2)).await;
            store.slow_down(Method::GET, "_manifests%2Ftags%2F", 35);
            store.slow_down(Method::GET, link.as_str(), 12);
        };
        let (put, deleted, ()) = join3(put, delete, slower).await;
        (put.0, deleted)
    });
    assert_eq!(deleted, 403, "the tag is immutable");
    story.check(status);
}

/// The end of a run overtakes the renewal of its claim or of its marker.
#[test]
fn a_run_that_is_over_leaves_neither_claim_nor_marker() {
    for slow in ["gc/claims/", "gc/markers/"] {
        for seconds in (1..30).step_by(4) {
            let story = Story::begin();
            let first = image(&blobs(&["first", "layer"]), None);
            story.then(async move |client| {
                let blobs = blobs(&["first", "layer"]);
                assert!(client.push("a", "t", &blobs, first.clone(), None).await);
                client.delete_manifest("a", &digest_of(&first)).await;
            });
            story.run("run-0");
            story.store.slow_down(Method::PUT, slow, seconds);
            assert!(story.run("run-1").links > 0);
            let objects = story.store.objects.borrow();
            let left: Vec<_> = objects.keys().filter(|key| key.contains(slow)).collect();
            assert!(left.is_empty(), "{seconds} s: {left:?}");
        }
    }
}
