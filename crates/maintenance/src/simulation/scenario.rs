//! Schedules: what clients and collectors do beside each other, as a seed decides it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use moorage::store::StoreError;

use super::bucket::{Blindness, Objects, SimHttp, SimStore};
use super::client::{Client, Ledger, blob, digest_of, image, index};
use super::oracle;
use super::proxy::{LINK_TTL, Proxy};
use super::world::World;
use crate::gc::{Collector, GcError, Observer, Options, Plan, Removed, Stage};
use crate::mark::Garbage;
use crate::s3_inventory::Summary;
use crate::snapshot::Snapshot;
use crate::time::Clock;

/// The repositories that there are.
pub const REPOSITORIES: [&str; 3] = ["a", "b/c", "d"];

/// How many layers clients choose from.
const LAYERS: usize = 10;

/// How long what is new stays.
const GRACE: Duration = Duration::from_secs(60 * 60);

/// What is taken away from the collector or the writers, to see that it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// Nothing.
    None,
    /// Writers do not look at the markers.
    NoMarkerCheck,
    /// The collector does not look a second time.
    NoSecondLook,
    /// Nothing is young.
    NoGrace,
    /// The collector does not wait for writers to see the marker, nor for proxies to forget links.
    NoWait,
}

/// What came of a schedule.
#[derive(Debug, Default)]
pub struct Outcome {
    pub faults: Vec<String>,
    pub acknowledged: usize,
    pub refused: usize,
    pub removed: u64,
    pub spared: u64,
}

/// A bucket with a past: images, and what was left of images that were deleted.
#[derive(Clone)]
pub struct Past {
    objects: Objects,
    ledger: Ledger,
    now: Duration,
}

/// Tells nobody.
struct Silent;

impl Observer for Silent {
    fn stage(&self, _: Stage) {}
    fn inventory(&self, _: &Summary) {}
    fn planned(&self, _: &Plan) {}
    fn removed(&self, _: &Snapshot, _: &Garbage) {}
    fn failed(&self, _: &str, _: &StoreError) {}
}

/// The clock of a collector.
struct CollectorClock {
    world: Rc<World>,
    /// How much it is ahead of the bucket's.
    ahead: Duration,
    /// Whether nobody waits by it.
    is_hasty: bool,
}

impl Clock for CollectorClock {
    fn now(&self) -> Duration {
        self.world.now() + self.ahead
    }

    fn sleep(&self, time: Duration) -> LocalBoxFuture<'_, ()> {
        // What renews a marker must not go round without end.
        let is_renewal = time == Duration::from_secs(30);
        let time = if self.is_hasty && !is_renewal { Duration::ZERO } else { time };
        self.world.wait(time).boxed_local()
    }
}

fn options(world: &World, mutation: Mutation, only_tagged: bool) -> Options {
    Options {
        grace: if mutation == Mutation::NoGrace { Duration::ZERO } else { GRACE },
        untagged_older_than: only_tagged.then_some(GRACE),
        trash: world.one_in(4).then_some(Duration::from_secs(24 * 60 * 60)),
        link_ttl: LINK_TTL,
        parallel: 1 + world.below(8),
        inventory: None,
    }
}

pub async fn collect(
    world: Rc<World>,
    store: Rc<SimStore>,
    mutation: Mutation,
    options: Options,
    run: String,
) -> Result<Removed, GcError> {
    let blindness = match mutation {
        Mutation::NoSecondLook => Blindness::Changes,
        _ => Blindness::None,
    };
    let bucket = SimHttp::bucket(&world, &store, blindness);
    let run = run.parse().expect("a run's name");
    let clock = &CollectorClock {
        ahead: world.time_up_to(Duration::from_secs(60 * 60)),
        is_hasty: mutation == Mutation::NoWait,
        world: Rc::clone(&world),
    };
    let (options, observer) = (&options, &Silent);
    let collector = Collector { bucket: &bucket, clock, options, observer };
    collector.run(&run, std::future::pending()).await
}

impl Past {
    /// The past of this seed.
    pub fn new(seed: u64, mutation: Mutation, only_tagged: bool) -> Self {
        let world = World::new(seed);
        let store = Rc::new(SimStore::default());
        let ledger = Rc::new(RefCell::new(Ledger::default()));
        let proxy = Proxy::new(&world, &store, Blindness::None);
        let client =
            Client { world: Rc::clone(&world), proxy, ledger: Rc::clone(&ledger), grace: GRACE };
        world.quietly(live_through(client));
        world.pass(Duration::from_secs(10 * 24 * 60 * 60));
        let options = options(&world, mutation, only_tagged);
        let first =
            collect(Rc::clone(&world), Rc::clone(&store), mutation, options, "past".to_owned());
        world.quietly(first).expect("a run");
        world.pass(Duration::from_secs(24 * 60 * 60));
        let objects = store.objects.borrow().clone();
        let ledger = ledger.borrow().clone();
        Self { objects, ledger, now: world.now() }
    }
}

/// Pushes this and that, and deletes half of it.
async fn live_through(client: Client) {
    let world = Rc::clone(&client.world);
    for number in 0..9 {
        let name = *world.any(&REPOSITORIES);
        let blobs = some_blobs(&world, &format!("past {number}"));
        let manifest = image(&blobs, None);
        let tag = format!("t{number}");
        match number % 3 {
            0 => {
                client.push(name, &tag, &blobs, manifest, None).await;
            }
            1 => {
                client.push(name, &tag, &blobs, manifest.clone(), None).await;
                let digest = digest_of(&manifest);
                client.delete_manifest(name, &digest).await;
                // What is deleted so long ago is nobody's any more.
                client.ledger.borrow_mut().manifests.remove(&(name.to_owned(), digest.clone()));
                client.ledger.borrow_mut().deleted.remove(&(name.to_owned(), digest));
            }
            _ => {
                let digest = digest_of(&manifest).to_string();
                client.push(name, &digest, &blobs, manifest.clone(), None).await;
                if world.one_in(2) {
                    let index = index(&[manifest]);
                    client.put_manifest(name, &tag, &index, None).await;
                }
            }
        }
    }
}

fn some_blobs(world: &World, config: &str) -> Vec<Bytes> {
    let mut blobs = vec![blob(config)];
    for _ in 0..1 + world.below(3) {
        let layer = blob(&format!("layer {}", world.below(LAYERS)));
        if !blobs.contains(&layer) {
            blobs.push(layer);
        }
    }
    blobs
}

/// What a client does.
async fn act(client: Client, number: usize) {
    let world = Rc::clone(&client.world);
    world.wait(world.time_up_to(Duration::from_secs(200))).await;
    for step in 0..1 + world.below(2) {
        let name = *world.any(&REPOSITORIES);
        // Of the past or of others now and then, so that two push the same.
        let config = match world.below(3) {
            0 => format!("past {}", world.below(9)),
            1 => format!("shared {}", world.below(2)),
            _ => format!("client {number} {step}"),
        };
        let blobs = some_blobs(&world, &config);
        let tag = format!("t{}", world.below(6));
        match world.below(8) {
            0..=2 => {
                let manifest = image(&blobs, None);
                client.push(name, &tag, &blobs, manifest, None).await;
            }
            3 => {
                let manifest = image(&blobs, None);
                let digest = digest_of(&manifest).to_string();
                if client.push(name, &digest, &blobs, manifest.clone(), None).await {
                    client.put_manifest(name, &tag, &index(&[manifest]), None).await;
                }
            }
            4 => {
                if let Some((subject_name, subject)) = some_manifest(&client) {
                    let subject_digest = digest_of(&subject);
                    let manifest = image(&blobs, Some(&subject));
                    let reference = digest_of(&manifest).to_string();
                    client
                        .push(&subject_name, &reference, &blobs, manifest, Some(subject_digest))
                        .await;
                }
            }
            5 => {
                // It asks first, and pushes what refers to it a good deal later.
                for content in &blobs {
                    client.head(name, content).await;
                }
                world.wait(world.time_up_to(Duration::from_secs(90))).await;
                client.put_manifest(name, &tag, &image(&blobs, None), None).await;
            }
            6 => {
                if let Some((name, manifest)) = some_manifest(&client) {
                    client.put_manifest(&name, &tag, &manifest, None).await;
                }
            }
            _ => {
                if let Some((name, manifest)) = some_manifest(&client) {
                    if world.one_in(2) {
                        client.delete_tag(&name, &tag).await;
                    } else {
                        client.delete_manifest(&name, &digest_of(&manifest)).await;
                    }
                }
            }
        }
    }
}

/// A manifest that was acknowledged.
fn some_manifest(client: &Client) -> Option<(String, Bytes)> {
    let ledger = client.ledger.borrow();
    let place = client.world.below(ledger.manifests.len().max(1));
    let ((name, _), acknowledged) = ledger.manifests.iter().nth(place)?;
    Some((name.clone(), acknowledged.content.clone()))
}

/// Goes through the schedule of a seed, and then through two runs in which nothing else happens.
pub fn play(seed: u64, past: &Past, mutation: Mutation, only_tagged: bool) -> Outcome {
    let world = World::new(seed);
    world.pass(past.now.saturating_sub(world.now()));
    let store =
        Rc::new(SimStore { objects: RefCell::new(past.objects.clone()), ..SimStore::default() });
    let ledger = Rc::new(RefCell::new(past.ledger.clone()));
    // What is old may go if no tag leads to it, where that is asked for.
    let untagged_before = |time| if only_tagged { time } else { Duration::ZERO };
    let mut outcome = Outcome::default();
    let removed = act_together(&world, &store, &ledger, mutation, only_tagged);
    outcome.faults = oracle::lost(&store, &ledger.borrow(), untagged_before(past.now));
    for run in 0..2 {
        world.pass(Duration::from_secs(24 * 60 * 60));
        let options = options(&world, mutation, only_tagged);
        let run = collect(
            Rc::clone(&world),
            Rc::clone(&store),
            mutation,
            options,
            format!("quiet-{run}"),
        );
        if let Err(error) = world.quietly(run) {
            outcome.faults.push(format!("a run alone fails: {error}"));
        }
    }
    outcome.faults.extend(oracle::lost(&store, &ledger.borrow(), untagged_before(world.now())));
    outcome.faults.extend(oracle::left(&store, only_tagged));
    outcome.acknowledged = ledger.borrow().acknowledged - past.ledger.acknowledged;
    outcome.refused = ledger.borrow().refused;
    for removed in removed.borrow().iter() {
        outcome.removed += removed.links + removed.contents.objects;
        outcome.spared += removed.spared;
    }
    outcome
}

/// Clients and collectors, some of which crash.
fn act_together(
    world: &Rc<World>,
    store: &Rc<SimStore>,
    ledger: &Rc<RefCell<Ledger>>,
    mutation: Mutation,
    only_tagged: bool,
) -> Rc<RefCell<Vec<Removed>>> {
    let blindness = match mutation {
        Mutation::NoMarkerCheck => Blindness::Markers,
        _ => Blindness::None,
    };
    let proxies: Vec<_> = (0..3).map(|_| Proxy::new(world, store, blindness)).collect();
    let mut tasks = Vec::new();
    for number in 0..2 + world.below(4) {
        let client = Client {
            world: Rc::clone(world),
            proxy: Rc::clone(world.any(&proxies)),
            ledger: Rc::clone(ledger),
            grace: GRACE,
        };
        tasks.push(world.spawn(act(client, number)));
    }
    let removed = Rc::new(RefCell::new(Vec::new()));
    for number in 0..1 + world.below(3) {
        let start = world.time_up_to(Duration::from_secs(250));
        let options = options(world, mutation, only_tagged);
        let (waiting, results) = (Rc::clone(world), Rc::clone(&removed));
        let run =
            collect(Rc::clone(world), Rc::clone(store), mutation, options, format!("run-{number}"));
        tasks.push(world.spawn(async move {
            waiting.wait(start).await;
            let result = run.await;
            results.borrow_mut().extend(result);
        }));
    }
    if world.one_in(3) {
        let task = world.any(&tasks).clone();
        world.after(world.time_up_to(Duration::from_secs(300)), move || task.abort());
    }
    world.run();
    removed
}
