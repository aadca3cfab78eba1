//! What a run holds while it is at work: its claim, and the marker of the batch that it sweeps. Both are renewed beside the work.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use moorage::store::layout::{self, Key};
use moorage::store::{
    Bucket, Http, ListRequest, Listed, MARKER_LIFETIME, Marker, Objects as _, SETTLING_MIN,
    StoreError, VIEW_MAX_AGE, pages,
};

use futures::TryStreamExt as _;
use futures::future::{Either, select};
use futures::lock::Mutex;

use super::{GcError, LEASE, RunId, claim};
use crate::time::{Clock, Seconds};

/// How often claim and marker are renewed.
const RENEWAL: Duration = Duration::from_secs(30);

/// The longest that a call to the store may take until it has its effect, whatever became of its answer. A marker counts
/// for so much longer than things are removed by it.
const LONGEST_CALL: Duration = Duration::from_secs(300);

const _: () = assert!(LEASE.as_secs() + LONGEST_CALL.as_secs() <= MARKER_LIFETIME.as_secs());

/// How much longer proxies may remember links than they are told to.
const CLOCK_MARGIN: Duration = Duration::from_secs(5);

/// How much longer is waited than a view may be old: for proxies that are busy, whose clocks stand still meanwhile.
const VIEW_MARGIN: Duration = Duration::from_secs(10);

/// What a run holds.
pub struct Hold<'a, H, C> {
    bucket: &'a Bucket<H>,
    clock: &'a C,
    run: &'a RunId,
    /// The store's time at some moment of this machine's clock.
    store_time: (Seconds, Duration),
    /// The marker, under its key.
    marker: RefCell<Option<(Key, Marker)>>,
    /// Until when things may be removed by the marker, by this machine's clock.
    lease_end: Cell<Duration>,
    /// How many batches there have been.
    batches: Cell<usize>,
    /// Whether anything has been removed by the marker.
    has_removed: Cell<bool>,
    /// Whether a removal may still take effect of which no answer came.
    is_unsure: Cell<bool>,
    /// Held while claim and marker are renewed: what is written then must not come after its removal.
    renewal: Mutex<()>,
}

impl<'a, H: Http, C: Clock> Hold<'a, H, C> {
    /// Claims to be the only run.
    pub async fn take(
        bucket: &'a Bucket<H>,
        clock: &'a C,
        run: &'a RunId,
    ) -> Result<Self, GcError> {
        claim::write(bucket, run).await?;
        let store_time = match claim::check(bucket, run).await {
            Ok(time) => time,
            Err(error) => {
                // It would stand in the way of the next one.
                let _ = bucket.remove(&layout::claim(run.as_str())).await;
                return Err(error);
            }
        };
        Ok(Self {
            bucket,
            clock,
            run,
            // The claim was written before this, so the time by it is never ahead.
            store_time: (store_time, clock.now()),
            marker: RefCell::default(),
            lease_end: Cell::default(),
            batches: Cell::default(),
            has_removed: Cell::default(),
            is_unsure: Cell::default(),
            renewal: Mutex::default(),
        })
    }

    /// The run.
    pub fn run(&self) -> &RunId {
        self.run
    }

    /// The time by the store's clock, or a little earlier.
    pub fn store_time(&self) -> Seconds {
        let (time, at) = self.store_time;
        let since = self.clock.now().saturating_sub(at).as_secs();
        time.saturating_add(Seconds::try_from(since).unwrap_or(Seconds::MAX))
    }

    /// Publishes what is about to be removed, and waits until every writer must have seen it.
    pub async fn publish(&self, hashes: &[u64]) -> Result<(), GcError> {
        self.clear_markers().await?;
        let batch = self.batches.replace(self.batches.get() + 1);
        // A key of its own: whoever has read one need not read it again unless it was renewed.
        let key = layout::marker(&format!("{}-{batch}", self.run.as_str()));
        let marker = Marker::new(Duration::ZERO, hashes.iter().copied());
        self.marker.replace(Some((key, marker)));
        self.has_removed.set(false);
        self.is_unsure.set(false);
        self.write_marker().await?;
        self.clock.sleep(VIEW_MAX_AGE + VIEW_MARGIN).await;
        Ok(())
    }

    /// Whether the object of this key may be removed: it has been published, and the marker still counts.
    pub fn covers(&self, key: &Key) -> bool {
        self.marker.borrow().as_ref().is_some_and(|(_, marker)| marker.has(key))
    }

    /// Makes sure that the marker counts long enough for a removal that begins now.
    pub fn begin_removal(&self) -> Result<(), GcError> {
        if self.clock.now() >= self.lease_end.get() {
            return Err(GcError::LeaseLost);
        }
        self.has_removed.set(true);
        Ok(())
    }

    /// No answer came to a removal: it may still take effect.
    pub fn is_unsure(&self) {
        self.is_unsure.set(true);
    }

    /// Waits until proxies have forgotten the links that were removed.
    pub async fn settle(&self, link_ttl: Duration) {
        // Whoever reads a clock that stands still for a moment remembers longer.
        self.clock.sleep((link_ttl + CLOCK_MARGIN).max(SETTLING_MIN)).await;
    }

    /// Whether a removal may still take effect of which no answer came.
    pub fn may_still_remove(&self) -> bool {
        self.is_unsure.get()
    }

    /// The batch is over. A marker that is still needed is left to its end.
    pub async fn unpublish(&self) {
        let _renewal = self.renewal.lock().await;
        let marker = self.marker.take();
        if let Some((key, _)) = marker
            && !self.is_unsure.get()
        {
            // One that can't be removed comes to its end by itself.
            let _ = self.bucket.remove(&key).await;
        }
    }

    /// The run is over, or broke off. Its marker stays where things have been removed by it that proxies may remember.
    pub async fn release(&self) {
        if !self.has_removed.get() {
            self.unpublish().await;
        }
        let _ = self.bucket.remove(&layout::claim(self.run.as_str())).await;
    }

    /// Does something while claim and marker are renewed beside it, until `stop` is over.
    pub async fn during<T>(
        &self,
        work: impl Future<Output = Result<T, GcError>>,
        stop: impl Future<Output = ()>,
    ) -> Result<T, GcError> {
        let (keep_alive, stop) = (pin!(self.keep_alive()), pin!(stop));
        // In the end, a renewal that is under way comes to its end.
        let renewed = pin!(self.renewal.lock());
        match select(pin!(work), select(keep_alive, stop)).await {
            Either::Left((outcome, beside)) => {
                select(renewed, beside).await;
                outcome
            }
            Either::Right((Either::Left((error, _)), _)) => Err(error),
            Either::Right((Either::Right((_, keep_alive)), _)) => {
                select(renewed, keep_alive).await;
                Err(GcError::Interrupted)
            }
        }
    }

    /// Renews claim and marker until that fails for too long.
    async fn keep_alive(&self) -> GcError {
        let mut last = self.clock.now();
        loop {
            self.clock.sleep(RENEWAL).await;
            let begun = self.clock.now();
            match self.renew().await {
                Ok(()) => last = begun,
                Err(GcError::Store(error)) => {
                    if self.clock.now().saturating_sub(last) >= claim::LIFETIME / 2 {
                        return error.into();
                    }
                }
                Err(error) => return error,
            }
        }
    }

    async fn renew(&self) -> Result<(), GcError> {
        let _renewal = self.renewal.lock().await;
        if self.bucket.read(&layout::claim(self.run.as_str())).await?.is_none() {
            return Err(GcError::TakenOver);
        }
        claim::write(self.bucket, self.run).await?;
        if self.marker.borrow().is_some() {
            self.write_marker().await?;
        }
        Ok(())
    }

    async fn write_marker(&self) -> Result<(), StoreError> {
        let begun = self.clock.now();
        let until = Duration::from_secs(u64::from(self.store_time())) + MARKER_LIFETIME;
        let written = self.marker.borrow_mut().as_mut().map(|(key, marker)| {
            marker.until = until;
            (key.clone(), marker.to_bytes())
        });
        if let Some((key, bytes)) = written {
            self.bucket.write(&key, bytes).await?;
            self.lease_end.set(begun + LEASE);
        }
        Ok(())
    }

    /// Makes sure that nobody else sweeps, and removes the markers of runs that are long over.
    pub async fn clear_markers(&self) -> Result<(), GcError> {
        let folder = layout::markers();
        let listed = pages(self.bucket, ListRequest::new(&folder, Listed::Objects));
        let keys: Vec<Key> = listed.map_ok(|page| page.keys).try_concat().await?;
        let now = Duration::from_secs(u64::from(self.store_time()));
        for key in keys.into_iter().filter(|key| !key.as_str().ends_with('/')) {
            let Some(bytes) = self.bucket.read(&key).await? else {
                continue;
            };
            let name = || key.as_str().rsplit('/').next().unwrap_or_default().to_owned();
            let Ok(marker) = Marker::parse(&bytes) else {
                return Err(GcError::ForeignMarker(key.as_str().to_owned()));
            };
            if let Some(left) = marker.until.checked_sub(now).filter(|left| !left.is_zero()) {
                return Err(GcError::Sweeping { run: name(), seconds: left.as_secs() });
            }
            self.bucket.remove(&key).await?;
        }
        Ok(())
    }
}
