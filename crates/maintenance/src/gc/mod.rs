//! Collecting garbage while any number of proxies serve and write the bucket.
//!
//! A run finds what is garbage ([`crate::mark`]) and notes it in the bucket. What the run before had noted too is swept,
//! in batches:
//!
//! 1. The batch is copied to the trash.
//! 2. It is published as a marker ([`moorage::store::Marker`]), and for longer than a writer's view of the markers may be
//!    old, nothing happens.
//! 3. Everything is listed and marked once more. Only what is still garbage is removed: links before what they lead to.
//! 4. For as long as proxies may remember links that are gone, the marker stays. Then it is removed.
//!
//! Why no acknowledged write loses anything: a link that was written before the second look is seen by it. A link that is
//! written later has a writer who looks at the markers afterwards, by a view that is newer than the marker, and who does
//! not acknowledge the write. Nor does one who looked at the markers before he relied on anything, and saw this one: what he
//! found may be gone, and the marker too, when he comes to write. What a manifest refers to is covered in the same way.
//! Needed are a store that gives what was written last, and clocks that run at about the same speed; neither locks nor
//! conditional writes. Writers that do not look at markers, which are all but Moorage, must not write meanwhile.
//!
//! The marker is renewed all the time, and nothing is removed any more once that has not worked for [`LEASE`]: it lasts
//! longer than that by the time that a call may take.

mod claim;
mod hold;
mod memory;
mod summary;
mod sweep;
mod trash;
mod undo;

use std::future::Future;
use std::time::Duration;

use moorage::store::layout::{self, Key};
use moorage::store::{Bucket, Http, Marker, Objects as _, StoreError};
use thiserror::Error;

pub use claim::RunId;
pub use memory::{MemoryError, recall};
pub use summary::{RepositorySummary, Summary, Unclear};
pub use sweep::Removed;
pub use trash::{Trash, list as list_trash};
pub use undo::{Undone, undo};

use crate::manifests::Manifests;
use crate::mark::{Ages, Garbage, mark, mark_within};
use crate::s3_inventory::{InventoryError, Summary as InventorySummary};
use crate::snapshot::{Inventory, Snapshot, SnapshotError};
use crate::time::{CLOCK_STEP, Clock, Seconds};
use hold::Hold;

/// How long after the last renewal of its marker a run still begins to remove things.
pub const LEASE: Duration = Duration::from_secs(120);

/// How long it counts that a run found something to be garbage, for the next to remove it.
const CONDEMNED_FOR: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// How a run collects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What was written, or linked, less long ago than this stays.
    pub grace: Duration,
    /// Manifests that no tag leads to go at this age; never if it is `None`.
    pub untagged_older_than: Option<Duration>,
    /// How long what is removed is kept in the trash; it is not if it is `None`.
    pub trash: Option<Duration>,
    /// The longest that any proxy remembers links: `cache.link_ttl` of its configuration.
    pub link_ttl: Duration,
    /// How many calls are made at a time.
    pub parallel: usize,
    /// An inventory that is taken in place of the first listing.
    pub inventory: Option<Inventory>,
}

/// Why a run did not come to its end. What it had not removed is still there, and another run goes on.
#[derive(Debug, Error)]
pub enum GcError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The inventory can't be read.
    #[error("the inventory: {0}")]
    Inventory(#[from] InventoryError),
    /// Another run is under way.
    #[error(
        "another run is under way: {run}, last seen {seconds} s ago; wait for its end, or, if it died, for {} more s",
        claim::LIFETIME.as_secs().saturating_sub(*.seconds)
    )]
    UnderWay {
        /// The other run.
        run: String,
        /// How long ago it gave a sign of life, in seconds.
        seconds: u64,
    },
    /// Another run has published what it removes, and may be at it still.
    #[error("the run {run} may still be removing things; try again in {seconds} s")]
    Sweeping {
        /// The other run.
        run: String,
        /// How long its marker counts, in seconds.
        seconds: u64,
    },
    /// What is in a marker's place can't be read.
    #[error(
        "{0} is no marker that this version can read: another version of Moorage may be collecting garbage; if none is, \
         remove that object"
    )]
    ForeignMarker(String),
    /// Whoever runs it does not want it any more.
    #[error("interrupted; run it again to go on")]
    Interrupted,
    /// Somebody has removed this run's claim.
    #[error("this run was taken for dead and has been taken over; nothing more was removed")]
    TakenOver,
    /// The marker could not be renewed in time.
    #[error(
        "the store did not take the renewal of this run's marker in time; nothing more was removed"
    )]
    LeaseLost,
    /// The store does not say when an object was written that has just been.
    #[error(
        "the blob store does not list an object that was written before: its listings can't be relied on"
    )]
    StaleListing,
    /// There is nothing of such a run in the trash.
    #[error(
        "the trash has nothing of a run {0}; `moorage/trash/` in the bucket has a folder for each run that can be undone"
    )]
    NoSuchRun(String),
}

impl From<SnapshotError> for GcError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Store(error) => Self::Store(error),
            SnapshotError::Inventory(error) => Self::Inventory(error),
        }
    }
}

/// What a run is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// So many objects have been listed.
    Listing(u64),
    /// So many manifests are left to be read.
    Reading(usize),
    /// So many things have been published for removal; writers get the time to see it.
    Waiting(usize),
    /// So many things have been copied to the trash.
    Trashing(usize),
    /// So many things have been removed.
    Removing(u64),
    /// The links that were removed are forgotten by the proxies meanwhile.
    Settling,
    /// Old trash is removed.
    EmptyingTrash,
}

/// Whoever is told how a run goes.
pub trait Observer {
    /// The run has come so far.
    fn stage(&self, stage: Stage);

    /// An inventory has been read in place of the first listing.
    fn inventory(&self, summary: &InventorySummary);

    /// What is garbage is known, and nothing has been removed.
    fn planned(&self, plan: &Plan);

    /// Something was removed.
    fn removed(&self, snapshot: &Snapshot, garbage: &Garbage);

    /// Something could not be done; the run goes on.
    fn failed(&self, what: &str, error: &StoreError);
}

/// What a run found.
#[derive(Debug, Default)]
pub struct Plan {
    /// What the bucket holds.
    pub snapshot: Snapshot,
    /// What is known of its manifests.
    pub manifests: Manifests,
    /// What is garbage.
    pub garbage: Vec<Garbage>,
    /// How many of it the run before had found too.
    pub found_before: usize,
    /// What counted as old.
    pub ages: Ages,
}

impl Plan {
    /// What is garbage and may go, where only that may for whose key `may_go` holds.
    fn garbage_within(&self, may_go: impl Fn(&Key) -> bool) -> Vec<Garbage> {
        mark_within(&self.snapshot, &self.manifests, self.ages, &may_go)
    }
}

/// A collector of the garbage of a bucket.
#[derive(Debug)]
pub struct Collector<'a, H, C, O> {
    /// The bucket.
    pub bucket: &'a Bucket<H>,
    /// The clock.
    pub clock: &'a C,
    /// How it collects.
    pub options: &'a Options,
    /// Whoever is told.
    pub observer: &'a O,
}

impl<H: Http, C: Clock, O: Observer> Collector<'_, H, C, O> {
    /// Finds what is garbage, and writes nothing. The observer is told.
    ///
    /// # Errors
    ///
    /// As the store fails.
    pub async fn dry_run(&self) -> Result<(), GcError> {
        let now = u32::try_from(self.clock.now().as_secs()).unwrap_or(Seconds::MAX);
        let plan = self.plan(now).await?;
        self.observer.planned(&plan);
        Ok(())
    }

    /// Finds what is garbage, and removes what was garbage at the run before; until `stop` is over.
    ///
    /// # Errors
    ///
    /// Why it did not come to its end.
    pub async fn run(
        &self,
        run: &RunId,
        stop: impl Future<Output = ()>,
    ) -> Result<Removed, GcError> {
        let hold = Hold::take(self.bucket, self.clock, run).await?;
        let collected = hold.during(self.collect(&hold), stop).await;
        hold.release().await;
        collected
    }

    async fn collect(&self, hold: &Hold<'_, H, C>) -> Result<Removed, GcError> {
        let mut plan = self.plan(hold.store_time()).await?;
        let candidates = self.candidates(&mut plan).await?;
        self.observer.planned(&plan);
        self.note_condemned(hold, &plan).await?;
        memory::remember(self.bucket, &plan.snapshot, &plan.manifests).await?;
        let removed = self.sweep(hold, plan, &candidates).await?;
        self.observer.stage(Stage::EmptyingTrash);
        trash::empty_old(self.bucket, hold.store_time(), |what, error| {
            self.observer.failed(what, error);
        })
        .await?;
        Ok(removed)
    }

    /// Finds what is garbage at `now`, by the store's clock.
    async fn plan(&self, now: Seconds) -> Result<Plan, GcError> {
        let snapshot = match &self.options.inventory {
            Some(inventory) => self.read_inventory(inventory).await?,
            None => self.look(Snapshot::default(), now).await?,
        };
        // What has come since an inventory was made is none of it, and nothing of the inventory is older than it was then.
        let ages = self.ages(snapshot.begun.min(now));
        let mut plan = Plan { snapshot, ages, ..Plan::default() };
        memory::recall(self.bucket, &mut plan.snapshot, &mut plan.manifests).await?;
        self.read(&mut plan).await?;
        plan.garbage = mark(&plan.snapshot, &plan.manifests, ages);
        Ok(plan)
    }

    fn ages(&self, now: Seconds) -> Ages {
        let ago = |age: Duration| {
            let age = Seconds::try_from(age.as_secs()).unwrap_or(Seconds::MAX);
            now.saturating_sub(age.max(CLOCK_STEP))
        };
        let young_since = ago(self.options.grace);
        let untagged_before = self.options.untagged_older_than.map(ago);
        Ages { young_since, untagged_before }
    }

    async fn read_inventory(&self, inventory: &Inventory) -> Result<Snapshot, GcError> {
        let parallel = self.options.parallel;
        let (snapshot, summary) = Snapshot::of_inventory(self.bucket, inventory, parallel).await?;
        self.observer.inventory(&summary);
        Ok(snapshot)
    }

    async fn look(&self, earlier: Snapshot, now: Seconds) -> Result<Snapshot, StoreError> {
        let seen = |objects| self.observer.stage(Stage::Listing(objects));
        Snapshot::load(self.bucket, self.options.parallel, earlier, now, seen).await
    }

    async fn read(&self, plan: &mut Plan) -> Result<(), StoreError> {
        let left = |manifests| self.observer.stage(Stage::Reading(manifests));
        plan.manifests.read(self.bucket, &mut plan.snapshot, self.options.parallel, left).await
    }

    /// What of the garbage was garbage at the run before: the hashes of its keys, in the order in which they go.
    async fn candidates(&self, plan: &mut Plan) -> Result<Vec<u64>, GcError> {
        let noted = self.bucket.read(&layout::condemned()).await?;
        let noted = noted.and_then(|bytes| Marker::parse(&bytes).ok());
        let now = Duration::from_secs(u64::from(plan.snapshot.begun));
        let mut candidates = Vec::new();
        if let Some(noted) = noted.filter(|noted| noted.until > now) {
            let garbage = plan.garbage_within(|key| noted.has(key));
            let keys = garbage.iter().map(|garbage| garbage.key(&plan.snapshot));
            candidates.extend(keys.map(|key| Marker::hash(&key)));
        }
        plan.found_before = candidates.len();
        Ok(candidates)
    }

    /// Notes what is garbage, for the next run.
    async fn note_condemned(&self, hold: &Hold<'_, H, C>, plan: &Plan) -> Result<(), StoreError> {
        let hashes = plan.garbage.iter().map(|garbage| Marker::hash(&garbage.key(&plan.snapshot)));
        let until = Duration::from_secs(u64::from(hold.store_time())) + CONDEMNED_FOR;
        let condemned = Marker::new(until, hashes);
        self.bucket.write(&layout::condemned(), condemned.to_bytes()).await
    }
}
