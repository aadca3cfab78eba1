//! The tags of a repository, with the times at which they were last set.
//!
//! Both come from a listing, so no tag is read: a tag is its object `current/link`, and the time is that object's
//! `LastModified`, by the store's clock. A tag that has only its history left points at nothing and is none.

use std::pin::pin;
use std::time::SystemTime;

use futures::stream::TryStreamExt;
use moorage::oci::{Name, Tag};
use moorage::store::{ListRequest, Listed, Objects, Place, StoreError, layout, pages, parse_time};

/// A tag, as a listing has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTag {
    /// The tag.
    pub tag: Tag,
    /// When it was last set, to whatever manifest.
    pub written: SystemTime,
    /// The same, as the store words it.
    pub modified: String,
}

/// Lists the tags of a repository, in the order of the listing: a call for every thousand objects that the tags have,
/// their histories included.
///
/// # Errors
///
/// As the store fails, or if it does not say when a tag was written.
pub async fn list_tags(objects: &impl Objects, name: &Name) -> Result<Vec<ListedTag>, StoreError> {
    let folder = layout::tags(name);
    let mut tags = Vec::new();
    let mut pages = pin!(pages(objects, ListRequest::new(&folder, Listed::Objects)));
    while let Some(page) = pages.try_next().await? {
        for (key, modified) in page.keys.iter().zip(page.modified) {
            // Whatever else lies there, no registry reads it as a tag.
            if let Some(Place::Tag(_, tag)) = Place::of(key) {
                tags.push(ListedTag { tag, written: parse_time(key, &modified)?, modified });
            }
        }
    }
    Ok(tags)
}

/// When a tag was last set, as the store words it now; `None` if there is no such tag. A call.
///
/// # Errors
///
/// As the store fails.
pub(super) async fn modified(
    objects: &impl Objects,
    name: &Name,
    tag: &Tag,
) -> Result<Option<String>, StoreError> {
    let key = layout::tag_link(name, tag);
    let page = objects.list(ListRequest::new(&key, Listed::Objects).limit(1)).await?;
    let mut found = page.keys.iter().zip(page.modified);
    Ok(found.find(|(found, _)| **found == key).map(|(_, modified)| modified))
}
