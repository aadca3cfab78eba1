//! The names of the folders in a folder, in the order of the names.
//!
//! A bucket lists folders in the order of `<name>/`. That is nearly the order of the names: only `-`
//! and `.` sort before the slash, so `1-alpine/` and `1.2/` come before `1/`. Here a page is put right
//! at a cost in proportion to the page, however many folders there are.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::str::FromStr;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::fault::StoreError;
use super::layout::Key;
use super::objects::{ListRequest, Listed, Lists, Start};
use crate::oci::{NAME_MAX_LENGTH, Name, TAG_MAX_LENGTH, Tag};

/// How many entries more than names are asked for: a repository's own folders lie among those of the
/// repositories that are nested in it.
const SPARE_ENTRIES: usize = 4;

/// The names of folders: letters, digits, `-`, `.` and `_`, in the order of their bytes.
pub trait FolderName: FromStr + Ord {
    /// The longest name, in bytes.
    const MAX_LENGTH: usize;

    /// The name as text.
    fn as_str(&self) -> &str;
}

impl FolderName for Tag {
    const MAX_LENGTH: usize = TAG_MAX_LENGTH;

    fn as_str(&self) -> &str {
        self.as_str()
    }
}

/// One component of a repository's name.
impl FolderName for Name {
    const MAX_LENGTH: usize = NAME_MAX_LENGTH;

    fn as_str(&self) -> &str {
        self.as_str()
    }
}

/// Some names, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names<N> {
    /// The names.
    pub names: Vec<N>,
    /// Whether there are more after the last of them.
    pub more: bool,
}

/// The first `limit` names from `from` on of the folders in `folder`. Folders of other names are
/// passed over: no registry wrote them.
///
/// A call for every thousand names; and where there are more, one for every `-` and `.` in the name that
/// the listing broke off after, together: no more than a name has characters.
pub(super) async fn names<N: FolderName>(
    objects: &impl Lists,
    folder: &Key,
    from: Bound<&str>,
    limit: usize,
) -> Result<Names<N>, StoreError> {
    let listed = list(objects, folder, from, limit).await?;
    let mut names = listed.names;
    if let Some(last) = listed.broke_off_after {
        let end = names.iter().nth(limit.saturating_sub(1));
        let unseen = prefixes_listed_later(&last)
            .filter(|name| lies_within(name, from))
            .filter_map(|name| name.parse::<N>().ok())
            .filter(|name| !names.contains(name) && end.is_none_or(|end| name < end));
        let found = existing(objects, folder, unseen.collect()).await?;
        names.extend(found);
    }
    let more = names.len() > limit;
    Ok(Names { names: names.into_iter().take(limit).collect(), more })
}

/// Whether there is any object whose key begins so.
pub(super) async fn is_folder(objects: &impl Lists, folder: &Key) -> Result<bool, StoreError> {
    let page = objects.list(ListRequest::new(folder, Listed::Objects).limit(1)).await?;
    Ok(!page.keys.is_empty())
}

struct ListedNames<N> {
    names: BTreeSet<N>,
    /// The last entry that was listed, where the listing has more: a name, or something else.
    broke_off_after: Option<String>,
}

/// Lists until there are more than `limit` names from `from` on, or no more folders.
async fn list<N: FolderName>(
    objects: &impl Lists,
    folder: &Key,
    from: Bound<&str>,
    limit: usize,
) -> Result<ListedNames<N>, StoreError> {
    let start = match from {
        Bound::Included(name) | Bound::Excluded(name) => listing_start(name, N::MAX_LENGTH),
        Bound::Unbounded => String::new(),
    };
    let request = ListRequest::new(folder, Listed::Folders);
    let first = request.limit(limit + 1 + listed_before(&start) + SPARE_ENTRIES);
    let mut page = match start.as_str() {
        "" => objects.list(first).await?,
        start => objects.list(first.from(Start::After(start))).await?,
    };
    let mut names = BTreeSet::new();
    let mut last = String::new();
    loop {
        let entries = page.keys.iter().filter_map(|key| key.as_str().strip_prefix(folder.as_str()));
        let folders = entries.clone().filter_map(|entry| entry.strip_suffix('/'));
        names.extend(folders.filter(|name| lies_within(name, from)).flat_map(str::parse));
        // Objects and folders are each in order, but a store may give one before the other.
        if let Some(entry) = entries.max() {
            entry.trim_end_matches('/').clone_into(&mut last);
        }
        let Some(cursor) = page.next else {
            return Ok(ListedNames { names, broke_off_after: None });
        };
        if names.len() > limit {
            return Ok(ListedNames { names, broke_off_after: Some(last) });
        }
        let missing = limit + 1 - names.len() + SPARE_ENTRIES;
        page = objects.list(request.limit(missing).from(Start::At(&cursor))).await?;
    }
}

fn lies_within(name: &str, from: Bound<&str>) -> bool {
    match from {
        Bound::Included(first) => name >= first,
        Bound::Excluded(last) => name > last,
        Bound::Unbounded => true,
    }
}

/// What a listing has to begin after so that it has every name from `bound` on: at most as long as a
/// name, and of characters that may stand in any store's answer. Whatever `bound` is, the same names
/// lie behind both.
fn listing_start(bound: &str, max_length: usize) -> String {
    let mut start = String::new();
    for byte in bound.bytes().take(max_length) {
        match byte {
            // Every name that begins with the rest lies behind.
            ..b'-' => break,
            // None does.
            b'{'.. => {
                start.push('~');
                break;
            }
            _ => start.push(char::from(byte)),
        }
    }
    start
}

/// How many folders a listing that begins after `start` may have whose names do not lie behind
/// `start`: its own, and those of its prefixes that the next character makes sort later.
fn listed_before(start: &str) -> usize {
    1 + prefixes_listed_later(start).count()
}

/// The names that sort before `name`, but are listed after it: its prefixes before a character that
/// sorts before the slash. Of any other two names the same characters decide with and without the
/// slash.
///
/// Where a listing breaks off after `name`, only these can be missing from among the names it has: any
/// other that sorts before one of them was listed before it, too.
fn prefixes_listed_later(name: &str) -> impl Iterator<Item = &str> {
    name.char_indices().filter(|(_, next)| *next < '/').map(|(end, _)| &name[..end])
}

/// Those of the names that there are folders of.
async fn existing<N: FolderName>(
    objects: &impl Lists,
    folder: &Key,
    names: Vec<N>,
) -> Result<Vec<N>, StoreError> {
    let parallel = names.len().max(1);
    let look_ups = names.into_iter().map(async |name| {
        let is_there = is_folder(objects, &folder.folder(&name)).await?;
        Ok(is_there.then_some(name))
    });
    let found: Vec<_> = stream::iter(look_ups).buffered(parallel).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::layout;
    use crate::store::memory::{MemoryStore, run};

    fn repository() -> Name {
        "a".parse().expect("a valid name")
    }

    /// A repository with these tags, and with folders and objects that are none.
    fn store(tags: &BTreeSet<String>, page_limit: usize) -> MemoryStore {
        let mut store = MemoryStore::default();
        store.page_limit = Some(page_limit);
        let folder = layout::tags(&repository());
        let folders = tags.iter().map(String::as_str).chain(["1 a", "1-\u{e9}", "a~"]);
        let keys = folders.map(|name| format!("{name}/current/link"));
        for key in keys.chain(["1-", "1-1", "a", "aa."].map(str::to_owned)) {
            store.put(Key::of(&format!("{}{key}", folder.as_str())), "");
        }
        store
    }

    fn read(store: &MemoryStore, from: Bound<&str>, limit: usize) -> (Vec<String>, bool) {
        let folder = layout::tags(&repository());
        let names =
            run(names::<Tag>(store, &folder, from, limit)).0.expect("the store does not fail");
        (names.names.iter().map(Tag::to_string).collect(), names.more)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

        #[test]
        fn pages_are_those_of_the_sorted_names(
            tags in prop::collection::btree_set("[1a_][1a._-]{0,4}", 0..30),
            other in "[1a._/~ é-]{0,5}",
            limit in 1usize..8,
            page_limit in 1usize..8,
        ) {
            let store = store(&tags, page_limit);
            let bounds = tags.iter().map(String::as_str).chain(["", &other]);
            for bound in bounds.flat_map(|bound| [Bound::Excluded(bound), Bound::Included(bound)]) {
                let all: Vec<_> = tags.iter().filter(|tag| lies_within(tag, bound)).collect();
                let (names, more) = read(&store, bound, limit);
                let expected: Vec<_> = all.iter().take(limit).map(|tag| (*tag).clone()).collect();
                prop_assert_eq!(names, expected, "{:?}", bound);
                prop_assert_eq!(more, all.len() > limit);
            }
        }

        #[test]
        fn pages_put_together_are_all_names(
            tags in prop::collection::btree_set("[1a_][1a._-]{0,4}", 0..30),
            limit in 1usize..8,
            page_limit in 1usize..8,
        ) {
            let store = store(&tags, page_limit);
            let (mut all, mut more) = read(&store, Bound::Unbounded, limit);
            while more {
                let last = all.last().expect("a page that isn't the last has names").clone();
                let (names, more_still) = read(&store, Bound::Excluded(&last), limit);
                all.extend(names);
                more = more_still;
            }
            prop_assert_eq!(all, tags.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn a_listing_begins_so_that_no_name_is_lost(
            name in "[1a_][1a._-]{0,4}",
            bound in "[1aZ._/~ é<-]{0,6}",
        ) {
            let start = listing_start(&bound, 3);
            let is_listed = format!("{name}/") > start;
            prop_assert!(name.len() > 3 || name <= bound || is_listed);
            prop_assert!(start.is_ascii() && start.len() <= 3);
        }
    }

    #[test]
    fn a_page_costs_as_much_in_a_large_folder_as_in_a_small_one() {
        let tags = (0..2_000).flat_map(|n| [format!("v1.{n}.0"), format!("v1.{n}.0-alpine")]);
        let store = store(&tags.collect(), 1_000);
        let (names, more) = read(&store, Bound::Excluded("v1.1500.0"), 100);
        assert_eq!((names.len(), more), (100, true));
        assert_eq!(names.first().map(String::as_str), Some("v1.1500.0-alpine"));
        assert!(store.calls().len() <= 5, "{:?}", store.calls());
    }

    #[test]
    fn no_names_make_a_page_cost_more_than_a_name_has_characters() {
        let dashes = (1..TAG_MAX_LENGTH).map(|length| format!("a{}", "-".repeat(length)));
        let store = store(&dashes.collect(), 1_000);
        let (names, more) = read(&store, Bound::Unbounded, 1);
        assert_eq!((names.len(), more), (1, true));
        assert!(store.calls().len() <= TAG_MAX_LENGTH + 2, "{} calls", store.calls().len());
    }
}
