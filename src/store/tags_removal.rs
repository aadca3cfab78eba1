//! Taking away every tag that points at a manifest, many at a time.
//!
//! Nothing in the layout leads from a manifest to its tags, so all objects of the repository's tags are listed. A listing says when
//! each was written, and mostly its MD5 as its version, by which it is known what a tag points at; a tag of which that is not
//! known is read. What goes then, goes together: the tags of a page of the listing, and after another listing their histories.
//!
//! For each tag it is the removal that [`super::tag_removal`] tells of, with the same order of calls: looked at, removed,
//! listed again, its history removed with the manifest's own entry last. What is done by one call for many tags is done by a call for
//! each where that is not as safe: where the store heeds the condition of a single removal only, and, where it heeds none, for a
//! tag that has been moved before, whose removal has to follow the look at it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use futures::stream::TryStreamExt;

use super::budget::no_room_for_reads;
use super::fault::StoreError;
use super::layout::{self, Key};
use super::multi_delete::{remove_all, remove_unchanged};
use super::objects::{ListRequest, Listed, Objects, Page, Start, Version, pages};
use super::store_impl::link;
use super::tag_removal::{self, Folder, TagRemoval};
use super::{PARALLEL_CALLS, PARALLEL_GROUPS, Store, TagVersion, for_each_bounded};
use crate::oci::{Digest, Name, Tag};

/// How much memory it takes to know of an object and to remove it, in bytes, at most about.
const OBJECT_BYTES: usize = 1024;

/// The removal of all tags of a manifest.
pub(super) struct TagsRemoval<'a, O> {
    pub objects: &'a O,
    pub name: &'a Name,
    pub digest: &'a Digest,
}

/// Tags with what lies in their folders.
type Folders = BTreeMap<Tag, Folder>;

/// What a listing says of where a tag points.
enum Seen {
    /// At the manifest.
    OnIt(Version),
    /// Elsewhere.
    Elsewhere,
    /// It has to be read.
    Unknown,
}

impl<O: Objects> TagsRemoval<'_, O> {
    /// Removes all those that may go; tells whether there was one.
    pub async fn run(&self, may_go: impl Fn(&Tag) -> bool) -> Result<bool, StoreError> {
        let prefix = layout::tags(self.name);
        let mut found_any = false;
        let mut folders = Folders::new();
        let mut room = self.objects.budget().reserve_read(0)?;
        let mut pages = pin!(pages(self.objects, ListRequest::new(&prefix, Listed::Objects)));
        while let Some(page) = pages.try_next().await? {
            if !room.grow(OBJECT_BYTES * page.keys.len()) {
                return Err(no_room_for_reads());
            }
            let is_last = page.next.is_none();
            let last = self.sort(page, &mut folders);
            // The next page may have more of the last tag.
            let unfinished = last.filter(|_| !is_last);
            let unfinished = unfinished.and_then(|tag| folders.remove_entry(&tag));
            let mut group = std::mem::replace(&mut folders, unfinished.into_iter().collect());
            group.retain(|tag, _| may_go(tag));
            found_any |= self.remove_those_on_it(&group).await?;
            let kept: usize = folders.values().map(|folder| folder.history.len() + 1).sum();
            room.shrink_to(OBJECT_BYTES * kept);
        }
        Ok(found_any)
    }

    /// Adds the objects of a page to the folders of their tags; gives the tag of the last. Objects of other names, which no registry
    /// wrote, are passed over.
    fn sort(&self, page: Page, folders: &mut Folders) -> Option<Tag> {
        let prefix = layout::tags(self.name);
        let mut last: Option<Tag> = None;
        let objects = page.keys.into_iter().zip(page.modified).zip(page.versions);
        for ((key, modified), version) in objects {
            let within = key.as_str().strip_prefix(prefix.as_str()).and_then(|w| w.split_once('/'));
            let Some((tag, place)) = within else {
                continue;
            };
            let tag = match last.take() {
                Some(same) if same.as_str() == tag => same,
                _ => match tag.parse() {
                    Ok(tag) => tag,
                    Err(_) => continue,
                },
            };
            let folder = folders.entry(tag.clone()).or_default();
            if place == "current/link" {
                folder.is_set = true;
                folder.version = Some(version).filter(|version| !version.0.is_empty());
            } else {
                folder.history.insert(key, modified);
            }
            last = Some(tag);
        }
        last
    }

    /// Removes those of some tags that point at the manifest.
    async fn remove_those_on_it(&self, before: &Folders) -> Result<bool, StoreError> {
        let on_it = self.find(before).await?;
        if !on_it.is_empty() {
            tag_removal::probe(self.objects).await;
        }
        let removed = match self.objects.heeds_conditional_removal().get() {
            Some(true) => self.remove_if_unchanged(&on_it).await?,
            _ => self.remove_under_watch(before, &on_it).await?,
        };
        let broken_off = before.iter().filter(|(tag, folder)| self.has_only_history(tag, folder));
        let touched = removed.iter().copied().chain(broken_off.map(|(tag, _)| tag)).collect();
        self.remove_histories(before, &removed, &touched).await?;
        Ok(!removed.is_empty())
    }

    /// Whether this is what a removal from this manifest left when it broke off. A PUT under way may have written it, too; it loses
    /// no more than an entry of its tag's history.
    fn has_only_history(&self, tag: &Tag, folder: &Folder) -> bool {
        let own = layout::tag_history(self.name, tag, self.digest);
        !folder.is_set && folder.history.contains_key(&own)
    }

    /// Those of the tags that point at the manifest.
    async fn find<'f>(
        &self,
        before: &'f Folders,
    ) -> Result<Vec<(&'f Tag, TagVersion)>, StoreError> {
        let digest = self.digest;
        let on_it = RefCell::new(Vec::new());
        let mut unknown = Vec::new();
        for (tag, folder) in before.iter().filter(|(_, folder)| folder.is_set) {
            match self.look(tag, folder) {
                Seen::OnIt(version) => {
                    on_it.borrow_mut().push((tag, TagVersion { digest: digest.clone(), version }));
                }
                Seen::Elsewhere => {}
                Seen::Unknown => unknown.push(tag),
            }
        }
        for_each_bounded(PARALLEL_CALLS, unknown, async |tag| {
            let seen = self.objects.tag_version(self.name, tag).await?;
            on_it.borrow_mut().extend(seen.filter(|seen| seen.digest == *digest).map(|s| (tag, s)));
            Ok(())
        })
        .await?;
        Ok(on_it.into_inner())
    }

    /// Compares the version of a tag's object with those that it would have if it pointed at this manifest, or at another one that its
    /// history names.
    fn look(&self, tag: &Tag, folder: &Folder) -> Seen {
        let Some(version) = &folder.version else {
            return Seen::Unknown;
        };
        if version.is_of(&link(self.digest)) {
            return Seen::OnIt(version.clone());
        }
        let digest_of = |key| layout::digest_of_tag_history(self.name, tag, key);
        let mut others = folder.history.keys().filter_map(digest_of);
        match others.any(|other| version.is_of(&link(&other))) {
            true => Seen::Elsewhere,
            false => Seen::Unknown,
        }
    }

    /// Removes the tags that still have their versions, in a store that heeds conditions.
    async fn remove_if_unchanged<'t>(
        &self,
        on_it: &[(&'t Tag, TagVersion)],
    ) -> Result<BTreeSet<&'t Tag>, StoreError> {
        let removals: Vec<_> = on_it
            .iter()
            .map(|(tag, seen)| (layout::tag_link(self.name, tag), Some(seen.version.clone())))
            .collect();
        let tried = remove_unchanged(self.objects, &removals).await?;
        let removed = RefCell::new(BTreeSet::new());
        for_each_bounded(PARALLEL_GROUPS, on_it.iter().zip(tried), async |((tag, seen), tried)| {
            if self.of(tag).current_if_unchanged(seen, tried).await? {
                removed.borrow_mut().insert(*tag);
            }
            Ok(())
        })
        .await?;
        Ok(removed.into_inner())
    }

    /// Removes the tags in a store that ignores conditions.
    async fn remove_under_watch<'t>(
        &self,
        before: &Folders,
        on_it: &[(&'t Tag, TagVersion)],
    ) -> Result<BTreeSet<&'t Tag>, StoreError> {
        let is_alone = |tag: &Tag| {
            before.get(tag).is_some_and(|it| self.of(tag).has_no_entry_but(self.digest, it))
        };
        let tags = on_it.iter().map(|(tag, _)| *tag);
        let (alone, moved_before): (Vec<_>, Vec<_>) = tags.partition(|tag| is_alone(tag));
        let links: Vec<_> = alone.iter().map(|tag| layout::tag_link(self.name, tag)).collect();
        remove_all(self.objects, &links).await?;
        let removed = RefCell::new(alone.into_iter().collect::<BTreeSet<_>>());
        for_each_bounded(PARALLEL_GROUPS, moved_before, async |tag| {
            if self.of(tag).points_at(self.digest).await? {
                self.objects.remove(&layout::tag_link(self.name, tag)).await?;
                removed.borrow_mut().insert(tag);
            }
            Ok(())
        })
        .await?;
        Ok(removed.into_inner())
    }

    /// Removes the histories of the tags that are not there any more: of `touched`, some of which have been removed just now.
    async fn remove_histories(
        &self,
        before: &Folders,
        removed: &BTreeSet<&Tag>,
        touched: &BTreeSet<&Tag>,
    ) -> Result<(), StoreError> {
        let after = self.list_again(before, touched).await?;
        let heeds = self.objects.heeds_conditional_removal().get() == Some(true);
        let entries = RefCell::new((Vec::new(), Vec::new()));
        for_each_bounded(PARALLEL_GROUPS, &after, async |(tag, now)| {
            let (Some(tag), Some(earlier)) = (touched.get(tag), before.get(tag)) else {
                return Ok(());
            };
            let history: Vec<&Key> = if removed.contains(tag) && !heeds {
                self.of(tag).history_to_remove(earlier, now, self.digest).await?
            } else if now.is_set || !(removed.contains(tag) || self.has_only_history(tag, now)) {
                Vec::new()
            } else {
                now.history.keys().collect()
            };
            let own = layout::tag_history(self.name, tag, self.digest);
            let (last, others): (Vec<_>, Vec<_>) =
                history.into_iter().cloned().partition(|key| *key == own);
            let (all_others, all_last) = &mut *entries.borrow_mut();
            all_others.extend(others);
            all_last.extend(last);
            Ok(())
        })
        .await?;
        // By the manifest's own entry, whoever repeats a removal that broke off knows what it left.
        let (others, last) = entries.into_inner();
        remove_all(self.objects, &others).await?;
        remove_all(self.objects, &last).await
    }

    /// Lists the folders of these tags as they are now, perhaps with others that lie between them.
    async fn list_again(
        &self,
        before: &Folders,
        tags: &BTreeSet<&Tag>,
    ) -> Result<Folders, StoreError> {
        let prefix = layout::tags(self.name);
        let mut folders = Folders::new();
        // In the order of a listing, which has the slash at the end of each.
        let places: BTreeMap<_, _> = tags.iter().map(|tag| (format!("{tag}/"), *tag)).collect();
        let (Some((first, _)), Some((last, _))) =
            (places.first_key_value(), places.last_key_value())
        else {
            return Ok(folders);
        };
        let objects = |tag: &Tag| before.get(tag).map_or(0, |folder| folder.history.len() + 1);
        // What lies between is listed as well, so ask for no more than that may be.
        let between = before.keys().filter(|tag| {
            let place = format!("{tag}/");
            place >= *first && place <= *last
        });
        let limit = between.map(objects).sum::<usize>() + 1;
        let request = ListRequest::new(&prefix, Listed::Objects).limit(limit);
        let mut pages = pin!(pages(self.objects, request.from(Start::After(first))));
        while let Some(page) = pages.try_next().await? {
            let end = page.keys.last().and_then(|key| key.as_str().strip_prefix(prefix.as_str()));
            let is_past =
                end.is_some_and(|end| end > last.as_str() && !end.starts_with(last.as_str()));
            self.sort(page, &mut folders);
            if is_past {
                break;
            }
        }
        Ok(folders)
    }

    fn of<'s>(&'s self, tag: &'s Tag) -> TagRemoval<'s, O> {
        TagRemoval { objects: self.objects, name: self.name, tag }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::store::StoreErrorKind;
    use crate::store::memory::{Effect, MemoryStore, run};

    fn name() -> Name {
        "a".parse().expect("a name")
    }

    fn tag(text: &str) -> Tag {
        text.parse().expect("a tag")
    }

    /// What a store can do.
    #[derive(Debug, Clone, Copy)]
    struct Abilities {
        conditions: bool,
        many: bool,
        conditions_of_many: bool,
        versions: bool,
    }

    const ALL: Abilities =
        Abilities { conditions: true, many: true, conditions_of_many: true, versions: true };

    fn every_ability() -> impl Iterator<Item = Abilities> {
        (0..16).map(|bits| Abilities {
            conditions: bits & 1 == 0,
            many: bits & 2 == 0,
            conditions_of_many: bits & 4 == 0,
            versions: bits & 8 == 0,
        })
    }

    fn store(abilities: Abilities) -> MemoryStore {
        let mut store = MemoryStore::default();
        store.ignores_conditional_removal = !abilities.conditions;
        store.lacks_multi_delete = !abilities.many;
        store.ignores_conditions_of_many = !abilities.conditions_of_many;
        store.lists_no_versions = !abilities.versions;
        store
    }

    fn point(store: &MemoryStore, text: &str, digest: &Digest) {
        run(store.record_tag(&name(), &tag(text), digest)).0.expect("no fault");
        run(store.set_tag(&name(), &tag(text), digest)).0.expect("no fault");
    }

    /// The same without a call.
    fn put(store: &MemoryStore, text: &str, digest: &Digest) {
        store.put(layout::tag_history(&name(), &tag(text), digest), link(digest));
        store.put(layout::tag_link(&name(), &tag(text)), link(digest));
    }

    fn remove(store: &MemoryStore, digest: &Digest) -> Result<bool, StoreError> {
        run(store.remove_tags_on(&name(), digest, |tag| tag.as_str() != "kept")).0
    }

    fn tags_with_objects(store: &MemoryStore) -> BTreeSet<String> {
        let objects = store.objects();
        let prefix = layout::tags(&name());
        let within = objects.keys().filter_map(|key| key.as_str().strip_prefix(prefix.as_str()));
        within.filter_map(|within| within.split_once('/')).map(|(tag, _)| tag.to_owned()).collect()
    }

    /// Tags of all kinds, and a page limit at which their folders lie on one page or on several.
    fn fill(store: &MemoryStore, count: usize) -> (Digest, BTreeSet<String>) {
        let gone = store.put_manifest(&name(), &tag("no-history"), b"gone");
        let other = store.put_manifest(&name(), &tag("other"), b"other");
        for number in 0..count {
            point(store, &format!("v{number}"), &gone);
            point(store, &format!("v{number}-slim"), &gone);
        }
        point(store, "moved-here", &other);
        point(store, "moved-here", &gone);
        point(store, "moved-away", &gone);
        point(store, "moved-away", &other);
        point(store, "kept", &gone);
        run(store.record_tag(&name(), &tag("broken-off"), &gone)).0.expect("no fault");
        run(store.record_tag(&name(), &tag("begun"), &other)).0.expect("no fault");
        let stay = ["other", "moved-away", "kept", "begun"];
        (gone, stay.map(str::to_owned).into())
    }

    #[test]
    fn every_tag_on_it_goes_with_its_history_and_no_other_whatever_the_store_can_do() {
        for abilities in every_ability() {
            for page_limit in [1, 2, 3, 7, 1_000] {
                let mut store = store(abilities);
                store.page_limit = Some(page_limit);
                let (gone, stay) = fill(&store, 10);
                let at = format!("{abilities:?}, {page_limit} a page");
                assert_eq!(remove(&store, &gone), Ok(true), "{at}");
                assert_eq!(tags_with_objects(&store), stay, "{at}");
                assert_eq!(remove(&store, &gone), Ok(false), "{at}");
            }
        }
    }

    #[test]
    fn a_failure_at_any_call_is_made_good_by_a_repeat() {
        for abilities in every_ability() {
            for failing in 0.. {
                let mut ends = 0;
                for effect in [Effect::None, Effect::Done] {
                    let mut store = store(abilities);
                    store.page_limit = Some(7);
                    let (gone, stay) = fill(&store, 2);
                    let call = store.calls().len() + failing;
                    store.failing_call.set(Some((call, effect)));
                    let _ = remove(&store, &gone);
                    store.failing_call.set(None);
                    ends += usize::from(store.calls().len() <= call);
                    assert!(remove(&store, &gone).is_ok());
                    assert_eq!(tags_with_objects(&store), stay, "{abilities:?}, call {failing}");
                }
                if ends == 2 {
                    break;
                }
            }
        }
    }

    #[test]
    fn an_object_that_the_store_does_not_remove_with_the_others_is_an_error() {
        let mut store = store(Abilities { conditions: false, ..ALL });
        let (gone, stay) = fill(&store, 5);
        store.page_limit = Some(1_000);
        let left = layout::tag_link(&name(), &tag("v3"));
        store.left_by_multi_delete.replace(vec![left.clone()]);
        store.fail(left.clone(), StoreErrorKind::Failed);
        assert!(remove(&store, &gone).is_err());
        assert!(store.objects().contains_key(&left));
        let mut mended = store.copy();
        mended.page_limit = Some(1_000);
        assert_eq!(remove(&mended, &gone), Ok(true));
        assert_eq!(tags_with_objects(&mended), stay);
    }

    #[test]
    fn thousands_of_tags_cost_few_calls() {
        // How many calls beside those that find out what the store can do.
        for (abilities, limit) in [
            (ALL, 60),
            (Abilities { conditions: false, ..ALL }, 60),
            (Abilities { versions: false, ..ALL }, 5_060),
            (Abilities { conditions_of_many: false, ..ALL }, 5_060),
            (Abilities { conditions: false, versions: false, ..ALL }, 5_060),
            (Abilities { conditions: false, many: false, ..ALL }, 10_060),
        ] {
            let mut store = store(abilities);
            store.page_limit = Some(1_000);
            let gone = store.put_manifest(&name(), &tag("first"), b"gone");
            for number in 0..5_000 {
                put(&store, &format!("v{number}"), &gone);
            }
            let before = store.calls().len();
            assert_eq!(remove(&store, &gone), Ok(true));
            let calls = store.calls().len() - before;
            println!("{abilities:?}: {calls} calls");
            assert!(calls <= limit, "{abilities:?}: {calls} calls");
        }
    }

    #[test]
    fn among_many_tags_that_point_elsewhere_only_the_listing_costs() {
        let mut store = store(ALL);
        store.page_limit = Some(1_000);
        let other = store.put_manifest(&name(), &tag("first"), b"other");
        (0..5_000).for_each(|number| put(&store, &format!("v{number}"), &other));
        let gone = store.put_manifest(&name(), &tag("v2500-gone"), b"gone");
        let before = store.calls().len();
        assert_eq!(remove(&store, &gone), Ok(true));
        let calls = store.calls().len() - before;
        assert!(calls <= 11 + 2 + 3, "{calls} calls");
    }
}
