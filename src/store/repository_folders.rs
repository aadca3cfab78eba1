//! The repositories as a bucket has them, for those who go through all of it.
//!
//! Names nest, so every folder that a name can have is listed. A folder that can't be listed is told, and the others are
//! still found. Pages of the catalog, in the API's order, are [`catalog`](super::catalog)'s.

use futures::stream::{self, StreamExt, TryStreamExt};

use super::fault::StoreError;
use super::layout::{self, Key};
use super::objects::{ListRequest, Listed, Objects, pages};
use crate::oci::Name;

/// How many folders are listed at a time.
const PARALLEL_LISTINGS: usize = 16;

/// Some of the repositories of a bucket.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FoundRepositories {
    /// Their names, in order.
    pub names: Vec<Name>,
    /// The folders that could not be listed, so that nobody knows of repositories there, and why.
    pub unlisted: Vec<(Name, StoreError)>,
}

/// Finds the repositories that have upload sessions: a call for each folder of names, and another for every thousand
/// folders in it.
///
/// # Errors
///
/// As the store fails at the folder of all repositories.
pub async fn repositories_with_uploads(
    objects: &impl Objects,
) -> Result<FoundRepositories, StoreError> {
    repositories_with(objects, layout::uploads).await
}

/// Finds the repositories that have manifests, tags or referrers: a call for each folder of names, and another for every
/// thousand folders in it.
///
/// # Errors
///
/// As the store fails at the folder of all repositories.
pub async fn repositories_with_manifests(
    objects: &impl Objects,
) -> Result<FoundRepositories, StoreError> {
    repositories_with(objects, layout::manifests).await
}

/// Finds the repositories that have this folder. What they hold themselves is passed over.
async fn repositories_with(
    objects: &impl Objects,
    folder: impl Fn(&Name) -> Key,
) -> Result<FoundRepositories, StoreError> {
    let mut found = FoundRepositories::default();
    let root = folders(objects, &layout::all_repositories()).await?;
    let mut level = nested(None, &root);
    while !level.is_empty() {
        let listings = stream::iter(level).map(|name| async move {
            let listing = folders(objects, &layout::repository(&name)).await;
            (name, listing)
        });
        let listings: Vec<_> = listings.buffered(PARALLEL_LISTINGS).collect().await;
        level = Vec::new();
        for (name, listing) in listings {
            match listing {
                Ok(folders) => {
                    level.extend(nested(Some(&name), &folders));
                    let has_folder = folders.contains(&folder(&name));
                    found.names.extend(has_folder.then_some(name));
                }
                Err(error) => found.unlisted.push((name, error)),
            }
        }
    }
    found.names.sort_unstable();
    Ok(found)
}

/// All folders in a folder.
async fn folders(objects: &impl Objects, folder: &Key) -> Result<Vec<Key>, StoreError> {
    let pages = pages(objects, ListRequest::new(folder, Listed::Folders));
    pages.map_ok(|page| page.keys).try_concat().await
}

/// The folders that belong to longer names than this one. A repository's own begin with `_`, as no part
/// of a name does; neither does what no registry wrote make a name.
fn nested(name: Option<&Name>, folders: &[Key]) -> Vec<Name> {
    let root = name.map_or_else(layout::all_repositories, layout::repository);
    let names = folders.iter().filter_map(|folder| {
        let last = folder.as_str().strip_prefix(root.as_str())?.strip_suffix('/')?;
        match name {
            Some(name) => format!("{name}/{last}").parse().ok(),
            None => last.parse().ok(),
        }
    });
    names.collect()
}
