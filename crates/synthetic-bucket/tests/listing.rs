//! Pages of a listing, against all keys in a list that is filtered.

use std::collections::BTreeSet;

use moorage_synthetic_bucket::bucket::Bucket;
use moorage_synthetic_bucket::listing::{Listed, Query};
use moorage_synthetic_bucket::plan;
use proptest::prelude::*;

/// All pages, one after another. Each but the last is full.
fn walk(bucket: &Bucket, query: &Query) -> Vec<String> {
    let (mut query, mut found) = (query.clone(), Vec::new());
    loop {
        let page = bucket.page(&query);
        let is_full = page.entries.len() == query.limit;
        assert!(page.entries.len() <= query.limit && (is_full || page.next.is_none()));
        found.extend(page.entries.into_iter().map(|entry| match entry {
            Listed::Object { key, .. } => key,
            Listed::Folder(folder) => folder,
        }));
        match page.next {
            Some(next) => query.after = next,
            None => return found,
        }
    }
}

/// What a listing should have.
fn expected(keys: &BTreeSet<String>, query: &Query) -> Vec<String> {
    let mut found = Vec::new();
    for key in keys.iter().filter(|key| **key > query.after) {
        let Some(within) = key.strip_prefix(&query.prefix) else { continue };
        let entry = match within.find('/').filter(|_| query.by_folder) {
            Some(end) => key[..query.prefix.len() + end + 1].to_owned(),
            None => key.clone(),
        };
        if entry != query.after {
            found.push(entry);
        }
    }
    found.dedup();
    found
}

fn small_key() -> impl Strategy<Value = String> {
    "[a0-]{1,2}(/[a0.]{1,2}){0,2}"
}

proptest! {
    #[test]
    fn pages_are_what_a_list_of_all_keys_says(
        written in prop::collection::vec(small_key(), 0..30),
        removed in prop::collection::vec(small_key(), 0..10),
        prefix in "([a0]/?)?",
        after in "|[a0/]{1,3}",
        by_folder: bool,
        limit in 1_usize..7,
    ) {
        let mut bucket = Bucket::new(Default::default());
        let mut keys = BTreeSet::new();
        for key in written {
            bucket.put(key.clone(), Default::default());
            keys.insert(key);
        }
        for key in removed {
            bucket.remove(&key);
            keys.remove(&key);
        }
        let query = Query { prefix, after, by_folder, limit };
        prop_assert_eq!(walk(&bucket, &query), expected(&keys, &query));
    }
}

#[test]
fn what_is_written_and_removed_shows_among_what_was_made_up() {
    let registry = plan::make(2_000, 1);
    let mut keys: BTreeSet<String> =
        registry.entries.iter().map(|entry| registry.key(*entry)).collect();
    let mut bucket = Bucket::new(registry);
    let all: Vec<String> = keys.iter().cloned().collect();
    for (number, key) in all.iter().enumerate() {
        match number % 5 {
            0 => {
                bucket.remove(key);
                keys.remove(key);
                assert_eq!(bucket.get(key), None);
            }
            1 => {
                bucket.put(key.clone(), "anew".into());
            }
            2 => {
                let copy = format!("moorage/trash/{key}");
                let copied = bucket.copy(key, copy.clone()).expect("it is there");
                assert_eq!(copied.bytes, bucket.get(key).expect("it is there").bytes);
                keys.insert(copy);
            }
            _ => {}
        }
    }
    for (prefix, by_folder, limit) in [
        ("", false, 1000),
        ("", false, 7),
        ("", true, 1),
        ("docker/registry/v2/", true, 1000),
        ("docker/registry/v2/blobs/sha256/", true, 10),
        ("docker/registry/v2/repositories/", true, 3),
        ("docker/registry/v2/repositories/tool-0/", true, 1),
        ("docker/registry/v2/repositories/builds/nightly-0/_manifests/tags/", true, 9),
        ("moorage/", false, 100),
        ("nothing", false, 100),
    ] {
        let query = Query { prefix: prefix.to_owned(), by_folder, limit, ..Query::default() };
        assert_eq!(walk(&bucket, &query), expected(&keys, &query), "{query:?}");
    }
    assert_eq!(bucket.page(&Query::default()).entries, [], "a page of no entries");
}
