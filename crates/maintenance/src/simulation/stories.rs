//! Orders of things that chance hardly ever brings about, each told by itself.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use moorage::store::layout;

use super::bucket::{Blindness, SimStore};
use super::client::{Client, Ledger, blob, digest_of, image, index};
use super::oracle;
use super::proxy::{LINK_TTL, Proxy};
use super::scenario::{Mutation, collect};
use super::world::World;
use crate::gc::{Options, Removed};
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
        let options = Options {
            grace: HOUR,
            untagged_older_than: Some(HOUR),
            trash: None,
            link_ttl: LINK_TTL,
            parallel: 4,
            inventory: None,
        };
        let (world, store) = (Rc::clone(&self.world), Rc::clone(&self.store));
        let run = collect(world, store, Mutation::None, options, name.to_owned());
        self.world.quietly(run).expect("a run")
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
