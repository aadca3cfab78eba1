//! Removing many objects with as few calls as the store allows.
//!
//! S3 removes up to a thousand objects by one call (`DeleteObjects`), each on the condition of its version if one is given. Not
//! every store knows the call, and some that do ignore the conditions in it. What a store does is found out once: whether it
//! knows the call by asking for a removal, whether it heeds conditions by trying it on an object that is there for that.
//!
//! The answer tells what became of each object. Whatever it does not say is removed, is removed by a call of its own.

use std::cell::Cell;
use std::collections::BTreeMap;

use bytes::Bytes;

use super::fault::StoreError;
use super::layout::{self, Key};
use super::objects::{Objects, PAGE_LIMIT, Removal, Version};
use super::{PARALLEL_GROUPS, for_each_bounded};

/// So many objects make it worth while to find out whether their conditions can be asked for together. That takes two calls.
const WORTH_A_TRIAL: usize = 8;

/// What is known of the store's removal of many objects by one call.
#[derive(Debug, Clone, Default)]
pub struct MultiDelete {
    is_known: Cell<Option<bool>>,
    heeds_conditions: Cell<Option<bool>>,
}

impl MultiDelete {
    /// Whether the store heeds conditions in such a call, once that has been tried.
    pub fn heeds_conditions(&self) -> Option<bool> {
        self.heeds_conditions.get()
    }
}

/// Removes objects. One that isn't there is no error. A call for every thousand, or for each where the store knows no
/// removal of many.
pub(super) async fn remove_all(objects: &impl Objects, keys: &[Key]) -> Result<(), StoreError> {
    for keys in keys.chunks(PAGE_LIMIT) {
        let left = left_by_one_call(objects, keys).await?;
        let remove = async |key: &Key| objects.remove(key).await;
        for_each_bounded(PARALLEL_GROUPS, left, remove).await?;
    }
    Ok(())
}

/// Removes objects by one call if the store can; gives those that still have to be removed.
async fn left_by_one_call<'k>(
    objects: &impl Objects,
    keys: &'k [Key],
) -> Result<Vec<&'k Key>, StoreError> {
    let is_known = &objects.multi_delete().is_known;
    if keys.len() < 2 || is_known.get() == Some(false) {
        return Ok(keys.iter().collect());
    }
    let removals: Vec<_> = keys.iter().map(|key| (key.clone(), None)).collect();
    let outcomes = objects.remove_many(&removals).await?;
    is_known.set(Some(outcomes.is_some()));
    Ok(match outcomes {
        None => keys.iter().collect(),
        Some(outcomes) => {
            let pairs = keys.iter().zip(outcomes);
            pairs.filter(|(_, outcome)| outcome.is_none()).map(|(key, _)| key).collect()
        }
    })
}

/// Removes objects that still have their versions, and gives what became of each: `None` where it has to be asked for by
/// itself. A call for every thousand where the store heeds conditions in it, otherwise none. The first time for several objects
/// it takes two more, one after the other, to find that out.
pub(super) async fn remove_unchanged(
    objects: &impl Objects,
    removals: &[(Key, Option<Version>)],
) -> Result<Vec<Option<Removal>>, StoreError> {
    let untried = vec![None; removals.len()];
    if removals.len() >= WORTH_A_TRIAL {
        probe(objects).await;
    }
    let is_worth_it = removals.len() > 1;
    if !is_worth_it || objects.multi_delete().heeds_conditions() != Some(true) {
        return Ok(untried);
    }
    let mut all = Vec::with_capacity(removals.len());
    for removals in removals.chunks(PAGE_LIMIT) {
        match objects.remove_many(removals).await? {
            Some(outcomes) => all.extend(outcomes),
            None => all.extend(vec![None; removals.len()]),
        }
    }
    Ok(all)
}

/// Finds out whether the store heeds conditions in a removal of many, as it is done for a single one: an object that is there is
/// removed on the condition of a version that it never had. What proves nothing is not remembered.
async fn probe(objects: &impl Objects) {
    let known = objects.multi_delete();
    if known.heeds_conditions.get().is_some() || known.is_known.get() == Some(false) {
        return;
    }
    let key = layout::removal_probe();
    let text = Bytes::from_static(b"Moorage tries here whether the store heeds conditions.\n");
    if objects.write(&key, text).await.is_err() {
        return;
    }
    let never = Version("\"never\"".to_owned());
    let heeds = match objects.remove_many(&[(key, Some(never))]).await {
        // A store may know the call and not the condition, so nothing follows for one without.
        Ok(None) => Some(false),
        Ok(Some(outcomes)) => match outcomes.first() {
            Some(Some(Removal::Changed)) => Some(true),
            Some(Some(Removal::Removed)) => Some(false),
            _ => None,
        },
        Err(_) => None,
    };
    known.heeds_conditions.set(heeds);
}

/// What the store's answer says of each of the keys: `None` where it says nothing, or names an error that a call for the one
/// object may not have or tells more of.
pub(super) fn outcomes<'k>(
    keys: impl Iterator<Item = &'k str>,
    answer: Vec<(String, Option<String>)>,
) -> Vec<Option<Removal>> {
    let answer: BTreeMap<String, Option<String>> = answer.into_iter().collect();
    let outcome = |key| match answer.get(key)?.as_deref() {
        None => Some(Removal::Removed),
        Some("PreconditionFailed" | "ConditionalRequestConflict") => Some(Removal::Changed),
        Some("NoSuchKey") => Some(Removal::Absent),
        Some(_) => None,
    };
    keys.map(outcome).collect()
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::store::memory::{Effect, MemoryStore, run};

    /// A store with so many objects, and their keys.
    fn store(count: usize) -> (MemoryStore, Vec<Key>) {
        let store = MemoryStore::default();
        let keys: Vec<_> = (0..count).map(|n| layout::marker(&n.to_string())).collect();
        keys.iter().for_each(|key| store.put(key.clone(), "x"));
        (store, keys)
    }

    #[test]
    fn as_few_calls_are_made_as_the_store_allows_and_nothing_is_left() {
        for (count, lacks, calls) in
            [(0, false, 0), (1, false, 1), (2, false, 1), (2_500, false, 3), (5, true, 6)]
        {
            let (mut store, keys) = store(count);
            store.lacks_multi_delete = lacks;
            assert_eq!(run(remove_all(&store, &keys)).0, Ok(()));
            assert_eq!((store.calls().len(), store.objects().len()), (calls, 0), "{count}");
            // That a store knows no such call is remembered.
            let before = store.calls().len();
            assert_eq!(run(remove_all(&store, &keys)).0, Ok(()));
            let again = store.calls().len() - before;
            assert_eq!(again, if lacks { count } else { calls }, "{count}");
        }
    }

    #[test]
    fn what_the_answer_leaves_open_is_removed_by_itself() {
        let (store, keys) = store(5);
        store.left_by_multi_delete.replace(keys[1..3].to_vec());
        assert_eq!(run(remove_all(&store, &keys)).0, Ok(()));
        assert!(store.objects().is_empty());
        assert_eq!(store.calls()[1..], keys[1..3]);
    }

    #[test]
    fn an_object_that_can_not_be_removed_is_an_error() {
        let (mut store, keys) = store(5);
        store.left_by_multi_delete.replace(vec![keys[3].clone()]);
        store.fail(keys[3].clone(), crate::store::StoreErrorKind::Failed);
        assert!(run(remove_all(&store, &keys)).0.is_err());
        assert_eq!(store.objects().keys().collect::<Vec<_>>(), [&keys[3]]);
    }

    #[test]
    fn conditions_are_asked_for_together_only_where_that_was_seen_to_work() {
        for (ignores, lacks, works) in
            [(false, false, true), (true, false, false), (false, true, false)]
        {
            let (mut store, keys) = store(WORTH_A_TRIAL);
            store.ignores_conditions_of_many = ignores;
            store.lacks_multi_delete = lacks;
            let with = |version: Version| {
                keys.iter().map(|key| (key.clone(), Some(version.clone()))).collect::<Vec<_>>()
            };
            let mut removals = with(Version::md5_of(b"x"));
            removals[2].1 = Some(Version::md5_of(b"another"));
            let found = run(remove_unchanged(&store, &removals)).0.expect("no fault");
            if !works {
                assert_eq!(found, vec![None; WORTH_A_TRIAL], "{ignores} {lacks}");
                assert!(keys.iter().all(|key| store.objects().contains_key(key)));
                continue;
            }
            let removed = found.iter().filter(|outcome| **outcome == Some(Removal::Removed));
            assert_eq!(removed.count(), WORTH_A_TRIAL - 1);
            assert_eq!(found[2], Some(Removal::Changed));
            assert!(store.objects().contains_key(&keys[2]));
            assert_eq!(store.calls().len(), 3, "a trial by two, and one");
        }
    }

    #[test]
    fn a_trial_that_fails_proves_nothing() {
        for failing in [0, 1] {
            let (store, keys) = store(WORTH_A_TRIAL);
            store.failing_call.set(Some((failing, Effect::None)));
            let never = Some(Version("\"never\"".to_owned()));
            let removals: Vec<_> = keys.iter().map(|key| (key.clone(), never.clone())).collect();
            let untried = vec![None; WORTH_A_TRIAL];
            assert_eq!(run(remove_unchanged(&store, &removals)).0, Ok(untried));
            assert_eq!(store.multi_delete().heeds_conditions(), None);
            let changed = vec![Some(Removal::Changed); WORTH_A_TRIAL];
            assert_eq!(run(remove_unchanged(&store, &removals)).0, Ok(changed));
        }
    }

    #[test]
    fn each_key_has_what_the_answer_says_of_it() {
        let answer = [
            ("a", None),
            ("b", Some("PreconditionFailed")),
            ("c", Some("NoSuchKey")),
            ("d", Some("SlowDown")),
            ("x", None),
        ];
        let answer = answer.map(|(key, code)| (key.to_owned(), code.map(str::to_owned)));
        let found = outcomes(["e", "d", "c", "b", "a"].into_iter(), answer.into());
        let expected =
            [None, None, Some(Removal::Absent), Some(Removal::Changed), Some(Removal::Removed)];
        assert_eq!(found, expected);
    }
}
