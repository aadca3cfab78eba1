//! The trash: copies of what runs removed, each under its run and its own key, until their time is over.

use std::time::Duration;

use futures::TryStreamExt as _;
use moorage::store::layout::{self, Key};
use moorage::store::{
    ListRequest, Listed, Objects, StoreError, StoreErrorKind, for_each_bounded, pages,
};
use serde::{Deserialize, Serialize};

use super::RunId;
use crate::time::Seconds;

/// How many objects are removed at a time.
const PARALLEL_REMOVALS: usize = 16;

/// What tells of the trash of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trash {
    /// The run.
    pub run: String,
    /// When it removed things, in seconds since 1970, by the store's clock.
    pub removed: u64,
    /// Until when what it removed can be brought back.
    pub keep_until: u64,
}

/// Says what the trash of a run is, before there is any.
pub async fn label(
    objects: &impl Objects,
    run: &RunId,
    now: Seconds,
    keep: Duration,
) -> Result<(), StoreError> {
    let removed = u64::from(now);
    let keep_until = removed.saturating_add(keep.as_secs());
    let label = Trash { run: run.as_str().to_owned(), removed, keep_until };
    let json = serde_json::to_vec(&label).unwrap_or_default();
    objects.write(&layout::trash_label(run.as_str()), json.into()).await
}

/// The trash that there is, by the names of the runs; `None` for what has no label that can be read.
///
/// # Errors
///
/// As the store fails.
pub async fn list(objects: &impl Objects) -> Result<Vec<(String, Option<Trash>)>, StoreError> {
    let root = layout::all_trash();
    let listed = pages(objects, ListRequest::new(&root, Listed::Folders));
    let folders: Vec<Key> = listed.map_ok(|page| page.keys).try_concat().await?;
    let mut found = Vec::new();
    for folder in folders {
        let run = folder.as_str().strip_prefix(root.as_str()).and_then(|run| run.strip_suffix('/'));
        let Some(run) = run else {
            continue;
        };
        let label = objects.read(&layout::trash_label(run)).await?;
        let label = label.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        found.push((run.to_owned(), label));
    }
    Ok(found)
}

/// Removes the trash whose time is over at `now`. `failed` is told of what is left because it can't be told how old it is.
pub async fn empty_old(
    objects: &impl Objects,
    now: Seconds,
    failed: impl Fn(&str, &StoreError),
) -> Result<(), StoreError> {
    for (run, label) in list(objects).await? {
        match label {
            Some(label) if label.keep_until < u64::from(now) => empty(objects, &run).await?,
            Some(_) => {}
            None => {
                let message = "there is no run.json in it that says until when it is kept; it stays until it is removed";
                let error = StoreError::new(StoreErrorKind::Failed, message);
                failed(layout::trash(&run).as_str(), &error);
            }
        }
    }
    Ok(())
}

/// Removes the trash of a run, the label last.
pub async fn empty(objects: &impl Objects, run: &str) -> Result<(), StoreError> {
    let (folder, label) = (layout::trash(run), layout::trash_label(run));
    let mut listed = std::pin::pin!(pages(objects, ListRequest::new(&folder, Listed::Objects)));
    while let Some(page) = listed.try_next().await? {
        let keys = page.keys.iter().filter(|key| **key != label);
        for_each_bounded(PARALLEL_REMOVALS, keys, async |key| objects.remove(key).await).await?;
    }
    objects.remove(&label).await
}
