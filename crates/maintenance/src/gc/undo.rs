//! Bringing back what a run removed.

use std::cell::Cell;
use std::future::Future;

use futures::TryStreamExt as _;
use moorage::store::layout::{self, Key};
use moorage::store::{
    Bucket, Http, ListRequest, Listed, Objects as _, Place, StoreError, for_each_bounded, pages,
};

use super::hold::Hold;
use super::{GcError, RunId, trash};
use crate::time::Clock;

/// What was brought back.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Undone {
    /// How many objects are there again.
    pub restored: u64,
    /// How many had been there again already, and were left as they are.
    pub present: u64,
}

/// Brings back what the run `undone` removed, `parallel` objects at a time: contents before the links that lead to them.
/// What is there is left as it is. The trash stays until its time is over. `run` is the name of this run; it excludes
/// collections meanwhile, and ends when `stop` is over.
///
/// # Errors
///
/// Why it did not come to its end. It can be repeated.
pub async fn undo<H: Http, C: Clock>(
    bucket: &Bucket<H>,
    clock: &C,
    run: &RunId,
    undone: &RunId,
    parallel: usize,
    stop: impl Future<Output = ()>,
) -> Result<Undone, GcError> {
    let hold = Hold::take(bucket, clock, run).await?;
    let restored = async {
        // A removal may still take effect that a run did not hear of.
        hold.clear_markers().await?;
        restore(bucket, undone, parallel).await
    };
    let outcome = hold.during(restored, stop).await;
    hold.release().await;
    outcome
}

async fn restore<H: Http>(
    bucket: &Bucket<H>,
    run: &RunId,
    parallel: usize,
) -> Result<Undone, GcError> {
    let trash = trash::list(bucket).await?;
    if !trash.iter().any(|(name, _)| name == run.as_str()) {
        return Err(GcError::NoSuchRun(run.as_str().to_owned()));
    }
    let (contents, links): (Vec<_>, Vec<_>) =
        listed(bucket, run).await?.into_iter().partition(|(key, _)| is_content(key));
    let undone = Cell::new(Undone::default());
    for objects in [contents, links] {
        for_each_bounded(parallel, &objects, async |(key, size)| {
            let is_present = bucket.exists(key).await?;
            if !is_present {
                let from = layout::trashed(run.as_str(), key);
                bucket.copy_object(&from, key, *size).await?;
            }
            let mut so_far = undone.get();
            so_far.present += u64::from(is_present);
            so_far.restored += u64::from(!is_present);
            undone.set(so_far);
            Ok::<_, StoreError>(())
        })
        .await?;
    }
    Ok(undone.get())
}

/// The objects that the run removed, by the keys that they had, with their sizes in bytes.
async fn listed<H: Http>(bucket: &Bucket<H>, run: &RunId) -> Result<Vec<(Key, u64)>, StoreError> {
    let folder = layout::trash(run.as_str());
    let mut listed = std::pin::pin!(pages(bucket, ListRequest::new(&folder, Listed::Objects)));
    let mut objects = Vec::new();
    while let Some(page) = listed.try_next().await? {
        for (key, size) in page.keys.iter().zip(page.sizes) {
            objects.extend(layout::untrashed(run.as_str(), key).map(|key| (key, size)));
        }
    }
    Ok(objects)
}

fn is_content(key: &Key) -> bool {
    matches!(Place::of(key), Some(Place::Content(_)))
}
