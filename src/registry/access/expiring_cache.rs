//! A cache of what has been found out about credentials: bounded, each entry with an end of its own, and keyed by hashes
//! that give nothing away.

use std::cell::RefCell;
use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

/// The hash of credentials.
pub type Key = [u8; 32];

/// A value for each of some credentials, until a time of its own. The oldest go when there are too many.
pub struct ExpiringCache<T> {
    entries: RefCell<LruCache<Key, Entry<T>>>,
}

struct Entry<T> {
    value: T,
    /// The end of it, since 1970.
    until: Duration,
}

impl<T: Clone> ExpiringCache<T> {
    /// Nothing yet, and never more than so many entries.
    pub fn new(entries_max: NonZeroUsize) -> Self {
        Self { entries: RefCell::new(LruCache::new(entries_max)) }
    }

    /// What is known, if it still holds.
    pub fn get(&self, key: &Key, now: Duration) -> Option<T> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get(key)?;
        if entry.until <= now {
            entries.pop(key);
            return None;
        }
        Some(entry.value.clone())
    }

    /// Remembers a value until a time, since 1970.
    pub fn insert(&self, key: Key, value: T, until: Duration) {
        self.entries.borrow_mut().put(key, Entry { value, until });
    }
}

impl<T> fmt::Debug for ExpiringCache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExpiringCache({})", self.entries.borrow().len())
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_value_is_known_until_its_time_and_there_are_never_too_many() {
        let two = NonZeroUsize::new(2).expect("not zero");
        let cache = ExpiringCache::new(two);
        let at = Duration::from_secs;
        cache.insert([1; 32], "a", at(10));
        assert_eq!(cache.get(&[1; 32], at(9)), Some("a"));
        assert_eq!(cache.get(&[1; 32], at(10)), None);
        assert_eq!(cache.get(&[1; 32], at(9)), None, "it is gone for good");
        for key in 2..5 {
            cache.insert([key; 32], "b", at(10));
        }
        let known = (0..10).filter(|key| cache.get(&[*key; 32], at(0)).is_some()).count();
        assert_eq!(known, 2);
    }
}
