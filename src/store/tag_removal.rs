//! Taking a tag away beside others who set it.
//!
//! A tag is its object `current/link`; whoever removes that last has removed the tag. Its history, the
//! entries in `index/`, goes afterwards, and stays if the tag has been set again meanwhile.
//!
//! *By tag*, whatever it points at goes: the removal of `current/link` is the moment at which it happens,
//! and whoever sets the tag does so before or after it.
//!
//! *With its manifest*, a tag goes only if it still points at that. Where the store heeds a removal's
//! condition, that is all. Elsewhere the removal may run over a move of the tag, so the history is listed
//! before and after it. Who moves a tag writes the entry of the new digest first and `current/link` then.
//! An entry that has come, or has been written anew, between the two listings is therefore one of a move
//! that was run over, or has not got there yet: its digest is put back. No clocks are compared, only what
//! the store says of an entry now with what it said before. What this does not find is a move whose entry
//! was there before the first listing and whose `current/link` came between the last look at the tag and
//! its removal, two calls that follow each other. A tag that has no entry but its own can't have such a
//! move; for others the last look is taken after the first listing, to keep that time short.

use std::collections::BTreeMap;
use std::pin::pin;

use bytes::Bytes;
use futures::stream::TryStreamExt;

use super::fault::{StoreError, StoreErrorKind};
use super::layout::{self, Key};
use super::multi_delete::remove_all;
use super::objects::{Condition, ListRequest, Listed, Objects, Removal, Version, pages};
use super::store_impl::link;
use super::{Store, TagVersion};
use crate::oci::{Digest, Name, Tag};

/// How often a removal is tried while others write the tag without moving it.
const ATTEMPTS: usize = 5;

/// Finds out whether the store heeds the condition of a removal, and remembers it.
///
/// The object stays, so whoever tries the same at the same time finds it. Only a clear refusal proves that
/// conditions are heeded, and only a removal that was done proves that they are not. Anything else (the
/// store is overloaded, may not be written to, does not know such a request) proves nothing.
pub(super) async fn probe(objects: &impl Objects) {
    if objects.heeds_conditional_removal().get().is_some() {
        return;
    }
    let key = layout::removal_probe();
    let text = Bytes::from_static(b"Moorage tries here whether the store heeds conditions.\n");
    let never = Version("\"never\"".to_owned());
    if objects.write(&key, text).await.is_err() {
        return;
    }
    let heeds = match objects.remove_if(&key, &never).await {
        Ok(Removal::Changed) => Some(true),
        Ok(Removal::Removed) => Some(false),
        Ok(Removal::Absent) | Err(_) => None,
    };
    objects.heeds_conditional_removal().set(heeds);
}

/// The removal of a tag.
pub(super) struct TagRemoval<'a, O> {
    pub objects: &'a O,
    pub name: &'a Name,
    pub tag: &'a Tag,
}

/// The objects in the folder of a tag.
#[derive(Debug, Default)]
pub(super) struct Folder {
    /// Whether the tag is there, and not only its history.
    pub is_set: bool,
    /// The version of its object, where the listing has it.
    pub version: Option<Version>,
    /// The other objects, with the time at which each was written.
    pub history: BTreeMap<Key, String>,
}

impl<O: Objects> TagRemoval<'_, O> {
    /// Removes the tag; `false` if there is no such tag.
    pub async fn whatever_it_points_at(&self) -> Result<bool, StoreError> {
        let before = self.folder().await?;
        if !before.is_set {
            // What is left of a request that broke off.
            self.remove_history(before.history.keys(), None).await?;
            return Ok(false);
        }
        self.objects.remove(&self.current()).await?;
        let after = self.folder().await?;
        if !after.is_set {
            self.remove_history(after.kept_since(&before), None).await?;
        }
        Ok(true)
    }

    /// Removes the tag if it still points where it did, in a store that heeds conditions.
    pub async fn if_unchanged(&self, seen: &TagVersion) -> Result<bool, StoreError> {
        if !self.current_if_unchanged(seen, None).await? {
            return Ok(false);
        }
        let after = self.folder().await?;
        if !after.is_set {
            self.remove_history(after.history.keys(), Some(&seen.digest)).await?;
        }
        Ok(true)
    }

    /// The same without its history. `tried` is what has become of a first attempt, if one has been made.
    pub async fn current_if_unchanged(
        &self,
        seen: &TagVersion,
        mut tried: Option<Removal>,
    ) -> Result<bool, StoreError> {
        let TagVersion { digest, mut version } = seen.clone();
        for _ in 0..ATTEMPTS {
            let removal = match tried.take() {
                Some(removal) => removal,
                None => self.objects.remove_if(&self.current(), &version).await?,
            };
            match removal {
                Removal::Removed => return Ok(true),
                Removal::Absent => return Ok(false),
                Removal::Changed => {}
            }
            match self.objects.tag_version(self.name, self.tag).await? {
                Some(now) if now.digest == digest => version = now.version,
                _ => return Ok(false),
            }
        }
        let message = format!("the tag {} is written all the time and can't be removed", self.tag);
        Err(StoreError::new(StoreErrorKind::Unavailable, message))
    }

    /// Removes the tag if it still points where it did, in a store that ignores conditions: as well as
    /// can be.
    pub async fn under_watch(&self, seen: &TagVersion) -> Result<bool, StoreError> {
        let before = self.folder().await?;
        if !before.is_set {
            return Ok(false);
        }
        let is_alone = self.has_no_entry_but(&seen.digest, &before);
        if !is_alone && !self.points_at(&seen.digest).await? {
            return Ok(false);
        }
        self.objects.remove(&self.current()).await?;
        let after = self.folder().await?;
        let history = self.history_to_remove(&before, &after, &seen.digest).await?;
        self.remove_history(history.into_iter(), Some(&seen.digest)).await?;
        Ok(true)
    }

    /// Whether the tag has no history but of this manifest, so that there can't be a move of it whose entry was there before.
    pub fn has_no_entry_but(&self, digest: &Digest, folder: &Folder) -> bool {
        let own = layout::tag_history(self.name, self.tag, digest);
        folder.history.keys().all(|entry| *entry == own)
    }

    /// Whether the tag points at this manifest now.
    pub async fn points_at(&self, digest: &Digest) -> Result<bool, StoreError> {
        let now = self.objects.tag_version(self.name, self.tag).await?;
        Ok(now.is_some_and(|now| now.digest == *digest))
    }

    /// After a removal without a condition: puts back a move that it may have run over, and gives what of the history has to
    /// go.
    pub async fn history_to_remove<'f>(
        &self,
        before: &'f Folder,
        after: &'f Folder,
        removed: &Digest,
    ) -> Result<Vec<&'f Key>, StoreError> {
        if after.is_set || self.put_back(after.written_since(before), removed).await? {
            return Ok(Vec::new());
        }
        Ok(after.kept_since(before).collect())
    }

    fn current(&self) -> Key {
        layout::tag_link(self.name, self.tag)
    }

    /// Lists the tag's folder.
    async fn folder(&self) -> Result<Folder, StoreError> {
        let (prefix, current) = (layout::tag(self.name, self.tag), self.current());
        let mut history = BTreeMap::new();
        let mut pages = pin!(pages(self.objects, ListRequest::new(&prefix, Listed::Objects)));
        while let Some(page) = pages.try_next().await? {
            history.extend(page.keys.into_iter().zip(page.modified));
        }
        let is_set = history.remove(&current).is_some();
        Ok(Folder { is_set, version: None, history })
    }

    /// Removes entries of the history. That of `digest` goes last: by it, whoever repeats a removal that
    /// broke off knows what it left.
    async fn remove_history<'k>(
        &self,
        entries: impl Iterator<Item = &'k Key>,
        digest: Option<&Digest>,
    ) -> Result<(), StoreError> {
        let last = digest.map(|digest| layout::tag_history(self.name, self.tag, digest));
        let (last, others): (Vec<_>, Vec<_>) = entries.partition(|key| Some(*key) == last.as_ref());
        for keys in [others, last] {
            let keys: Vec<_> = keys.into_iter().cloned().collect();
            remove_all(self.objects, &keys).await?;
        }
        Ok(())
    }

    /// Points the tag at the digest of the latest of these entries, if any is that of a move which may
    /// have been run over; tells whether there was one.
    async fn put_back(
        &self,
        mut entries: Vec<(&Key, &str)>,
        removed: &Digest,
    ) -> Result<bool, StoreError> {
        entries.sort_by_key(|(_, modified)| *modified);
        for (key, _) in entries.into_iter().rev() {
            let digest = layout::digest_of_tag_history(self.name, self.tag, key);
            let Some(digest) = digest.filter(|digest| digest != removed) else {
                continue;
            };
            // Without the manifest's link its PUT has not come to the tag yet, or never will.
            let manifest = layout::manifest_link(self.name, &digest);
            if self.objects.read_version(&manifest).await?.is_some() {
                self.set_if_absent(&digest).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Points the tag at a manifest, unless someone has set it. Where writes have no conditions, a look
    /// has to do.
    async fn set_if_absent(&self, digest: &Digest) -> Result<(), StoreError> {
        let current = self.current();
        if self.objects.honours_conditions().await? {
            self.objects.write_if(&current, link(digest), &Condition::Absent).await?;
        } else if self.objects.read_version(&current).await?.is_none() {
            self.objects.write(&current, link(digest)).await?;
        }
        Ok(())
    }
}

impl Folder {
    /// The entries that were there before, and have not been written since.
    fn kept_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a Key> {
        let is_kept = |entry: &(&Key, &String)| before.history.get(entry.0) == Some(entry.1);
        self.history.iter().filter(is_kept).map(|(key, _)| key)
    }

    /// The entries that have come since, or have been written anew, with their times.
    fn written_since<'a>(&'a self, before: &Self) -> Vec<(&'a Key, &'a str)> {
        let is_new = |entry: &(&Key, &String)| before.history.get(entry.0) != Some(entry.1);
        let entries = self.history.iter().filter(is_new);
        entries.map(|(key, modified)| (key, modified.as_str())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::store::memory::{Effect, MemoryStore, run};

    fn probed(store: &MemoryStore) -> Option<bool> {
        run(probe(store));
        store.heeds_conditional_removal().get()
    }

    #[test]
    fn what_a_store_heeds_is_tried_once_and_nothing_is_concluded_from_a_failure() {
        for (ignores, heeds) in [(false, true), (true, false)] {
            for failing in [0, 1] {
                let mut store = MemoryStore::default();
                store.ignores_conditional_removal = ignores;
                store.failing_call = Cell::new(Some((failing, Effect::None)));
                assert_eq!(probed(&store), None, "call {failing}");
                assert_eq!(probed(&store), Some(heeds));
                let calls = store.calls().len();
                assert_eq!(probed(&store), Some(heeds));
                assert_eq!(store.calls().len(), calls);
            }
        }
    }

    /// Beside the reading of each tag: the tag and its history's entry go by a call each, after a listing;
    /// without conditions there is another listing before.
    #[test]
    fn a_removal_makes_few_calls() {
        let name: Name = "a".parse().expect("a name");
        let tag: Tag = "t".parse().expect("a tag");
        for (ignores, calls) in [(false, 3), (true, 4)] {
            let mut store = MemoryStore::default();
            store.ignores_conditional_removal = ignores;
            probed(&store);
            let digest = store.put_manifest(&name, &tag, b"{}");
            run(store.record_tag(&name, &tag, &digest)).0.expect("no fault");
            let seen = run(store.tag_version(&name, &tag)).0.expect("no fault").expect("a tag");
            let before = store.calls().len();
            assert_eq!(run(store.remove_tag_if(&name, &tag, &seen)).0, Ok(true));
            assert_eq!(store.calls().len() - before, calls);
            let prefix = layout::tag(&name, &tag);
            assert!(store.objects().keys().all(|k| !k.as_str().starts_with(prefix.as_str())));
        }
    }
}
