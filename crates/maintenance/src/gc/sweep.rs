//! Removing what has been found to be garbage twice, in batches.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use moorage::store::layout::{self, Key};
use moorage::store::{Http, MARKER_MAX_KEYS, Marker, Objects as _, StoreError, for_each_bounded};

use super::hold::Hold;
use super::{Collector, GcError, Observer, Plan, Stage, trash};
use crate::mark::{Garbage, Kind};
use crate::snapshot::Totals;
use crate::time::Clock;

/// How often a removal is tried.
const ATTEMPTS: usize = 3;

/// What a run has removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Links, and entries of histories and of referrers.
    pub links: u64,
    /// Contents, and their bytes.
    pub contents: Totals,
    /// What had been garbage and was not any more when it was looked at again.
    pub spared: u64,
    /// What could not be removed, or not be copied to the trash, and is left to the next run.
    pub failures: u64,
}

impl<H: Http, C: Clock, O: Observer> Collector<'_, H, C, O> {
    /// Removes what has these hashes, in their order.
    pub(super) async fn sweep(
        &self,
        hold: &Hold<'_, H, C>,
        mut plan: Plan,
        candidates: &[u64],
    ) -> Result<Removed, GcError> {
        let mut removed = Removed::default();
        for batch in candidates.chunks(MARKER_MAX_KEYS) {
            let batch = self.copy_to_trash(hold, &mut plan, batch, &mut removed).await?;
            self.observer.stage(Stage::Waiting(batch.len()));
            hold.publish(&batch).await?;
            // Whatever was written before the marker could be seen is seen now.
            plan.snapshot = self.look(plan.snapshot, hold.store_time()).await?;
            self.read(&mut plan).await?;
            plan.garbage = plan.garbage_within(|key| hold.covers(key));
            removed.spared += batch.len().saturating_sub(plan.garbage.len()) as u64;
            let failures = removed.failures;
            // Whatever fails, what leads to something goes before that.
            for group in plan.garbage.chunk_by(|a, b| a.kind == b.kind) {
                self.remove_group(hold, &plan, group, &mut removed).await?;
                if removed.failures > failures {
                    break;
                }
            }
            self.observer.stage(Stage::Settling);
            hold.settle(self.options.link_ttl).await;
            hold.unpublish().await;
            // What may still take effect keeps its marker, and there is no other beside it.
            if removed.failures > failures || hold.may_still_remove() {
                break;
            }
        }
        Ok(removed)
    }

    /// Copies what has these hashes to the trash, before anybody is kept from pushing it; gives those that may go, which are
    /// all but those that could not be copied.
    async fn copy_to_trash(
        &self,
        hold: &Hold<'_, H, C>,
        plan: &mut Plan,
        batch: &[u64],
        removed: &mut Removed,
    ) -> Result<Vec<u64>, GcError> {
        let Some(keep) = self.options.trash else {
            return Ok(batch.to_vec());
        };
        let batch = Marker::new(Duration::ZERO, batch.iter().copied());
        plan.garbage = plan.garbage_within(|key| batch.has(key));
        trash::label(self.bucket, hold.run(), hold.store_time(), keep).await?;
        let (done, copied) = (Cell::new(0), RefCell::new(Vec::new()));
        for_each_bounded(self.options.parallel, &plan.garbage, async |garbage| {
            let key = garbage.key(&plan.snapshot);
            if self.copy(hold, plan, garbage, &key).await? {
                copied.borrow_mut().push(Marker::hash(&key));
            }
            done.set(done.get() + 1);
            self.observer.stage(Stage::Trashing(done.get()));
            Ok::<_, StoreError>(())
        })
        .await?;
        let copied = copied.into_inner();
        removed.failures += plan.garbage.len().saturating_sub(copied.len()) as u64;
        Ok(copied)
    }

    /// Copies something to the trash; `false` if that can't be done.
    async fn copy(
        &self,
        hold: &Hold<'_, H, C>,
        plan: &Plan,
        garbage: &Garbage,
        key: &Key,
    ) -> Result<bool, StoreError> {
        let to = layout::trashed(hold.run().as_str(), key);
        // Of a link any number does: it is copied by one call.
        let length = match garbage.kind {
            Kind::Content => garbage.size(&plan.snapshot),
            _ => 1,
        };
        let Err(error) = self.bucket.copy_object(key, &to, length).await else {
            return Ok(true);
        };
        // What is gone needs no copy.
        let is_there = self.bucket.exists(key).await?;
        if is_there {
            self.observer.failed(&format!("copying {} to the trash", key.as_str()), &error);
        }
        Ok(!is_there)
    }

    /// Removes things of one kind.
    async fn remove_group(
        &self,
        hold: &Hold<'_, H, C>,
        plan: &Plan,
        group: &[Garbage],
        removed: &mut Removed,
    ) -> Result<(), GcError> {
        let count = Cell::new(*removed);
        let outcome = for_each_bounded(self.options.parallel, group, async |garbage| {
            let outcome = self.remove(hold, plan, garbage).await?;
            let mut so_far = count.get();
            match outcome {
                Ok(()) => {
                    self.observer.removed(&plan.snapshot, garbage);
                    so_far.add(garbage, garbage.size(&plan.snapshot));
                    self.observer.stage(Stage::Removing(so_far.links + so_far.contents.objects));
                }
                Err(error) => {
                    let key = garbage.key(&plan.snapshot);
                    self.observer.failed(&format!("removing {}", key.as_str()), &error);
                    so_far.failures += 1;
                }
            }
            count.set(so_far);
            Ok::<_, GcError>(())
        })
        .await;
        *removed = count.get();
        outcome
    }

    async fn remove(
        &self,
        hold: &Hold<'_, H, C>,
        plan: &Plan,
        garbage: &Garbage,
    ) -> Result<Result<(), StoreError>, GcError> {
        let key = garbage.key(&plan.snapshot);
        let mut attempts = 1;
        loop {
            hold.begin_removal()?;
            match self.bucket.remove_once(&key).await {
                Ok(()) => return Ok(Ok(())),
                Err(error) => {
                    hold.is_unsure();
                    if attempts == ATTEMPTS {
                        return Ok(Err(error));
                    }
                }
            }
            attempts += 1;
        }
    }
}

impl Removed {
    /// One thing more.
    fn add(&mut self, garbage: &Garbage, size: u64) {
        match garbage.kind {
            Kind::Content => self.contents.add(size),
            _ => self.links += 1,
        }
    }
}
