//! Removing what has been found to be garbage twice, in batches.

use std::cell::Cell;

use moorage::store::{
    Http, MARKER_MAX_KEYS, Objects as _, SETTLING_MIN, StoreError, for_each_bounded, layout,
};

use super::hold::Hold;
use super::{Collector, GcError, Observer, Plan, Stage, trash};
use crate::mark::{Ages, Garbage, Kind, mark_within};
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
        ages: Ages,
        candidates: &[u64],
    ) -> Result<Removed, GcError> {
        let mut removed = Removed::default();
        for batch in candidates.chunks(MARKER_MAX_KEYS) {
            self.observer.stage(Stage::Waiting(batch.len()));
            hold.publish(batch).await?;
            // Whatever was written before the marker could be seen is seen now.
            plan.snapshot = self.look(plan.snapshot, hold.store_time()).await?;
            self.read(&mut plan).await?;
            let Plan { snapshot, manifests, .. } = &plan;
            plan.garbage = mark_within(snapshot, manifests, ages, |key| hold.covers(key));
            removed.spared += batch.len().saturating_sub(plan.garbage.len()) as u64;
            let swept = self.sweep_batch(hold, &plan, &mut removed).await;
            if swept.is_ok() {
                self.observer.stage(Stage::Settling);
                self.clock.sleep(self.options.link_ttl.max(SETTLING_MIN)).await;
                hold.unpublish().await;
            }
            swept?;
            if removed.failures > 0 {
                break;
            }
        }
        Ok(removed)
    }

    /// Removes what is published and still garbage. Whatever fails, what leads to something goes before that.
    async fn sweep_batch(
        &self,
        hold: &Hold<'_, H, C>,
        plan: &Plan,
        removed: &mut Removed,
    ) -> Result<(), GcError> {
        if let Some(keep) = self.options.trash {
            let failures = self.trash(hold, plan, keep).await?;
            removed.failures += failures;
            if failures > 0 {
                return Ok(());
            }
        }
        for group in plan.garbage.chunk_by(|a, b| a.kind == b.kind) {
            self.remove_group(hold, plan, group, removed).await?;
            if removed.failures > 0 {
                break;
            }
        }
        Ok(())
    }

    /// Copies what is to be removed to the trash; gives how often that failed.
    async fn trash(
        &self,
        hold: &Hold<'_, H, C>,
        plan: &Plan,
        keep: std::time::Duration,
    ) -> Result<u64, GcError> {
        if plan.garbage.is_empty() {
            return Ok(0);
        }
        trash::label(self.bucket, hold.run(), hold.store_time(), keep).await?;
        let (done, failures) = (Cell::new(0), Cell::new(0));
        for_each_bounded(self.options.parallel, &plan.garbage, async |garbage| {
            let key = garbage.key(&plan.snapshot);
            let to = layout::trashed(hold.run().as_str(), &key);
            // Of a link any number does: it is copied by one call.
            let length = match garbage.kind {
                Kind::Content => garbage.size(&plan.snapshot),
                _ => 1,
            };
            if let Err(error) = self.bucket.copy_object(&key, &to, length).await
                && self.bucket.exists(&key).await?
            {
                failures.set(failures.get() + 1);
                self.observer.failed(&format!("copying {} to the trash", key.as_str()), &error);
            }
            done.set(done.get() + 1);
            self.observer.stage(Stage::Trashing(done.get()));
            Ok::<_, StoreError>(())
        })
        .await?;
        Ok(failures.get())
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
