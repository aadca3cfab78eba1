//! The names of the repositories, in the order of their components.
//!
//! Names nest: `a` and `a/b` may both be repositories, and a folder need not be one to have others in
//! it. So the folders are walked depth first, siblings in the order of their names, which is
//! `distribution`'s order. Whole siblings before the page are never looked at, and the walk ends with
//! the page.

use std::collections::VecDeque;
use std::ops::Bound;

use futures::future::try_join;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::fault::StoreError;
use super::layout;
use super::names::{is_folder, names};
use super::objects::{Counted, ListRequest, Listed, Lists, Objects};
use crate::oci::Name;

/// How many siblings are looked at together. A page may end with the first of them.
const LOOK_AHEAD: usize = 32;

/// How many entries show what a folder is. A repository has three of its own.
const GLANCE: usize = 8;

/// How many calls a page may cost beside two for each repository that is asked for.
const SPARE_CALLS: usize = 256;

/// How many calls a page may cost, whatever is asked for; a few more, to end it where the next can begin.
const MAX_CALLS: usize = 2_000;

/// Some repositories, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repositories {
    /// Their names.
    pub names: Vec<Name>,
    /// Where the next page begins, if there may be more: the last name, or that of a folder behind it
    /// that is none.
    pub next: Option<String>,
}

/// The first `limit` repositories after `after`, which may be any text. There may be fewer, and more after
/// them: folders that are no repositories, as uploads that were begun and given up leave them, would
/// otherwise make a page cost any number of calls.
pub(super) async fn repositories(
    objects: &impl Objects,
    after: &str,
    limit: usize,
) -> Result<Repositories, StoreError> {
    walk(objects, after, limit, (SPARE_CALLS + 2 * limit).min(MAX_CALLS)).await
}

/// Walks until there are more than `limit` repositories, or until `max_calls` have been made and there is
/// a folder to go on after.
async fn walk(
    objects: &impl Objects,
    after: &str,
    limit: usize,
    max_calls: usize,
) -> Result<Repositories, StoreError> {
    let objects = &Counted::new(objects);
    let after: Vec<&str> = after.split('/').collect();
    let mut found = Vec::new();
    let mut passed: Option<Name> = None;
    let mut levels = vec![Level::new(None, &after)];
    while let Some(level) = levels.last_mut()
        && found.len() <= limit
    {
        if let Some(passed) = &passed
            && objects.calls() >= max_calls
        {
            return Ok(Repositories { names: found, next: Some(passed.to_string()) });
        }
        let missing = limit + 1 - found.len();
        let Some(folder) = level.next_folder(objects, missing).await? else {
            levels.pop();
            continue;
        };
        let after_within = level.after_within(&folder.name);
        if after_within.is_none() {
            passed = Some(folder.name.clone());
            found.extend(folder.is_repository.then(|| folder.name.clone()));
        }
        if folder.has_folders {
            levels.push(Level::new(Some(folder.name), after_within.unwrap_or_default()));
        }
    }
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(Name::to_string);
    Ok(Repositories { names: found, next })
}

/// A folder that is being walked.
struct Level<'a> {
    /// Its name; none for the folder of all repositories.
    name: Option<Name>,
    /// What the walk begins after, as components below this folder; empty where all of it counts.
    after: &'a [&'a str],
    /// Where the siblings begin that have not been listed, if there are any.
    unlisted: Option<Bound<String>>,
    /// The siblings that have been listed and not looked at, by their last components.
    listed: VecDeque<Name>,
    /// The siblings that have been looked at.
    looked_at: VecDeque<Folder>,
}

impl<'a> Level<'a> {
    fn new(name: Option<Name>, after: &'a [&'a str]) -> Self {
        // The folder that the walk begins in is looked at alone: what comes after it may not be of use.
        let first: Option<Name> = after.first().and_then(|component| component.parse().ok());
        let unlisted = match (&first, after.first()) {
            (Some(first), _) => Bound::Excluded(first.to_string()),
            (None, Some(text)) => Bound::Included((*text).to_owned()),
            (None, None) => Bound::Unbounded,
        };
        Self {
            name,
            after,
            unlisted: Some(unlisted),
            listed: first.into_iter().collect(),
            looked_at: VecDeque::new(),
        }
    }

    /// The next folder in this one, where at most `missing` are still of use.
    async fn next_folder(
        &mut self,
        objects: &impl Lists,
        missing: usize,
    ) -> Result<Option<Folder>, StoreError> {
        loop {
            if let Some(folder) = self.looked_at.pop_front() {
                return Ok(Some(folder));
            }
            if self.listed.is_empty() {
                let Some(from) = self.unlisted.take() else {
                    return Ok(None);
                };
                self.list(objects, from, missing.max(LOOK_AHEAD)).await?;
            }
            let count = self.listed.len().min(missing).min(LOOK_AHEAD);
            let siblings: Vec<_> = self.listed.drain(..count).collect();
            let looks = siblings.iter().filter_map(|last| self.full_name(last));
            let looks = stream::iter(looks.map(|name| Folder::look(objects, name)));
            self.looked_at = looks.buffered(LOOK_AHEAD).try_collect().await?;
        }
    }

    async fn list(
        &mut self,
        objects: &impl Lists,
        from: Bound<String>,
        limit: usize,
    ) -> Result<(), StoreError> {
        let key = self.name.as_ref().map_or_else(layout::all_repositories, layout::repository);
        let from = from.as_ref().map(String::as_str);
        let siblings = names::<Name>(objects, &key, from, limit).await?;
        let last = siblings.names.last().filter(|_| siblings.more);
        self.unlisted = last.map(|last| Bound::Excluded(last.to_string()));
        self.listed = siblings.names.into();
        Ok(())
    }

    /// The name of a folder in this one; `None` if it is too long for a repository and all within.
    fn full_name(&self, last_component: &Name) -> Option<Name> {
        match &self.name {
            Some(name) => format!("{name}/{last_component}").parse().ok(),
            None => Some(last_component.clone()),
        }
    }

    /// What the walk begins after within this folder, if it begins there: then the folder itself has
    /// been passed.
    fn after_within(&self, folder: &Name) -> Option<&'a [&'a str]> {
        let (first, rest) = self.after.split_first()?;
        (folder.as_str().rsplit('/').next() == Some(*first)).then_some(rest)
    }
}

/// The kinds of folder.
struct Folder {
    name: Name,
    is_repository: bool,
    /// Whether there may be folders in it that are, or have, repositories.
    has_folders: bool,
}

impl Folder {
    /// One call; three where a repository has many others in it.
    async fn look(objects: &impl Lists, name: Name) -> Result<Self, StoreError> {
        let folder = layout::repository(&name);
        let page = objects.list(ListRequest::new(&folder, Listed::Folders).limit(GLANCE)).await?;
        let own = [layout::blob_links(&name), layout::manifests(&name)];
        let is_cut_off = page.next.is_some();
        let has_passed_own = page.keys.iter().max() > own.iter().max();
        let mut is_repository = page.keys.iter().any(|key| own.contains(key));
        if !is_repository && is_cut_off && !has_passed_own {
            let [layers, manifests] = &own;
            let own = try_join(is_folder(objects, layers), is_folder(objects, manifests)).await?;
            is_repository = own.0 || own.1;
        }
        let is_nested = |key: &layout::Key| {
            let nested = key.as_str().strip_prefix(folder.as_str());
            nested.is_some_and(|nested| !nested.starts_with('_'))
        };
        let has_folders = is_cut_off || page.keys.iter().any(is_nested);
        Ok(Self { name, is_repository, has_folders })
    }
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::store::layout::Key;
    use crate::store::memory::{MemoryStore, run};

    /// A bucket with objects at these places below the repositories.
    fn store(places: impl IntoIterator<Item = String>, page_limit: usize) -> MemoryStore {
        let mut store = MemoryStore::default();
        store.page_limit = Some(page_limit);
        let root = layout::all_repositories();
        for place in places {
            store.put(Key::of(&format!("{}{place}/x", root.as_str())), "");
        }
        store
    }

    fn read(store: &MemoryStore, after: &str, limit: usize) -> (Vec<String>, bool) {
        let (names, next) = page(store, after, limit, usize::MAX);
        (names, next.is_some())
    }

    fn page(
        store: &MemoryStore,
        after: &str,
        limit: usize,
        max_calls: usize,
    ) -> (Vec<String>, Option<String>) {
        let page = run(walk(store, after, limit, max_calls)).0.expect("the store does not fail");
        (page.names.iter().map(Name::to_string).collect(), page.next)
    }

    /// All pages from `after` on, as a client follows them.
    fn follow(store: &MemoryStore, after: &str, limit: usize, max_calls: usize) -> Vec<String> {
        let mut all = Vec::new();
        let mut next = Some(after.to_owned());
        while let Some(after) = next {
            let (names, behind) = page(store, &after, limit, max_calls);
            assert!(names.len() <= limit);
            assert!(behind.as_ref().is_none_or(|b| components(b) > components(&after)), "{after}");
            all.extend(names);
            next = behind;
        }
        all
    }

    fn components(name: &str) -> Vec<&str> {
        name.split('/').collect()
    }

    /// The repositories among some places, in `distribution`'s order.
    fn naive(places: &BTreeSet<String>) -> Vec<&str> {
        let names = places.iter().filter_map(|place| {
            place.strip_suffix("/_layers").or_else(|| place.strip_suffix("/_manifests"))
        });
        let mut names: Vec<_> = names.filter(|name| name.parse::<Name>().is_ok()).collect();
        names.sort_by_key(|name| components(name));
        names.dedup();
        names
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

        #[test]
        fn pages_are_those_of_the_sorted_names(
            places in prop::collection::btree_set(
                "[1a]([-.]?[1a]){0,2}(/[1a]([-.]?[1a]){0,1}){0,3}/_(layers|manifests|uploads|x)|A/_layers|a--/1/_layers",
                0..25,
            ),
            other in "[1a._/~ é-]{0,6}",
            limit in 1usize..6,
            page_limit in 1usize..8,
            max_calls in 0usize..20,
        ) {
            let store = store(places.iter().cloned(), page_limit);
            let names = naive(&places);
            for after in names.iter().copied().chain(["", "a", "1/1", &other]) {
                let rest: Vec<_> =
                    names.iter().filter(|name| components(name) > components(after)).collect();
                let (found, more) = read(&store, after, limit);
                let expected: Vec<_> = rest.iter().take(limit).map(|name| **name).collect();
                prop_assert_eq!(found, expected, "{:?}", after);
                prop_assert_eq!(more, rest.len() > limit);
            }
            prop_assert_eq!(follow(&store, "", limit, max_calls), names);
        }
    }

    #[test]
    fn a_page_costs_as_much_among_many_repositories_as_among_few() {
        let places = (0..500).flat_map(|n| {
            let name = format!("team-{n:03}");
            [
                format!("{name}/_layers"),
                format!("{name}/app/_layers"),
                format!("{name}/web/_layers"),
            ]
        });
        let store = store(places, 1_000);
        let (names, more) = read(&store, "team-250/app", 60);
        assert_eq!((names.len(), more), (60, true));
        assert_eq!(names.first().map(String::as_str), Some("team-250/web"));
        // A look at each, one listing for every three, and a look ahead.
        let calls = store.calls().len();
        assert!(calls <= 60 + 20 + LOOK_AHEAD + 10, "{calls} calls");
    }

    #[test]
    fn a_page_ends_early_among_folders_that_are_no_repositories() {
        let mut places: Vec<_> = (0..3_000).map(|n| format!("bare-{n:04}/_uploads")).collect();
        let real = ["a", "bare-1500/nested", "z"];
        places.extend(real.map(|name| format!("{name}/_layers")));
        let store = store(places, 1_000);
        let mut all = Vec::new();
        let mut next = Some(String::new());
        while let Some(after) = next {
            let before = store.calls().len();
            let page = run(repositories(&store, &after, 1)).0.expect("the store does not fail");
            let calls = store.calls().len() - before;
            assert!(calls <= SPARE_CALLS + 2 * LOOK_AHEAD, "{calls} calls after {after:?}");
            all.extend(page.names.iter().map(Name::to_string));
            next = page.next;
        }
        assert_eq!(all, real);
    }

    #[test]
    fn a_page_goes_on_at_any_depth_at_little_cost() {
        let deep = vec!["a"; 120].join("/");
        let many = |depth: usize| {
            let parent = vec!["a"; depth].join("/");
            (0..40).map(move |n| format!("{parent}/b-{n}/_uploads"))
        };
        let places = (1..=120).flat_map(many).chain([format!("{deep}/_layers")]);
        let store = store(places, 1_000);
        assert_eq!(read(&store, "", 1), (vec![deep.clone()], false));
        let before = store.calls().len();
        let (_, next) = page(&store, &format!("{deep}/b-1"), 1, 0);
        let calls = store.calls().len() - before;
        assert_eq!(next, Some(format!("{deep}/b-10")));
        assert!(calls <= 3 * 120 + 2 * LOOK_AHEAD, "{calls} calls");
    }

    #[test]
    fn names_as_long_and_deep_as_can_be_are_found() {
        let deep = vec!["a"; 128].join("/");
        let too_deep = format!("{deep}/b");
        let store = store([format!("{deep}/_layers"), format!("{too_deep}/_layers")], 1_000);
        assert_eq!(read(&store, "", 10), (vec![deep], false));
    }
}
