//! Looking out for a collection of garbage while something is written that it could take away.
//!
//! A writer relies on something: on a blob that it has found, on content that it has just stored. Then it writes a link.
//! The collection publishes what it is about to remove, and looks once more a while later ([`crate::store`]'s
//! [`Condemned`]). So the writer looks at what is published twice: by a view from before it relied on anything, and by one
//! from after its link was written. What was published before is in the first view; what is published later is looked at
//! again by the collection after the link is there. And what was published and is over between the two views can't be, as
//! long as no more than [`WRITE_MAX`] lies between them: each marker is there for longer ([`SETTLING_MIN`] and more).
//! Whoever takes longer relies on it anew.

use std::time::Duration;

use super::request::Environment;
use crate::store::layout::Key;
use crate::store::{Condemned, Marker, SETTLING_MIN, Store, StoreError};

/// How long after its beginning a lookout still proves something.
const WRITE_MAX: Duration = Duration::from_secs(20);

// A marker is there for more than a view's age before anything is removed, and for so long after that. Of two views so far
// apart the first may be as old.
const _: () = assert!(WRITE_MAX.as_secs() <= SETTLING_MIN.as_secs());

/// How often something is relied on anew.
const ATTEMPTS: usize = 3;

/// A lookout.
pub struct Lookout<'a> {
    environment: &'a dyn Environment,
    /// When it began, since 1970.
    begun: Duration,
    /// The view of then.
    condemned: Condemned,
}

impl<'a> Lookout<'a> {
    /// Begins to look out. To be called before anything is relied on, or together with that. One call at most every
    /// [`VIEW_MAX_AGE`](crate::store::VIEW_MAX_AGE).
    ///
    /// # Errors
    ///
    /// As the store fails.
    pub async fn begin(
        store: &impl Store,
        environment: &'a dyn Environment,
    ) -> Result<Self, StoreError> {
        let begun = environment.recent_time();
        let condemned = store.condemned(begun).await?;
        Ok(Self { environment, begun, condemned })
    }

    /// Tells whether what was relied on is safe, now that the link is written. `keys` are those of all of it, the link
    /// included; `rely` makes sure anew that it is there, and is called only if all took long. No call if it did not.
    ///
    /// # Errors
    ///
    /// As the store fails, and those of `rely`.
    pub async fn end<E: From<StoreError>, K: IntoIterator<Item = Key>>(
        mut self,
        store: &impl Store,
        keys: impl Fn() -> K,
        rely: impl AsyncFn() -> Result<bool, E>,
    ) -> Result<bool, E> {
        for _ in 0..ATTEMPTS {
            let now = self.environment.recent_time();
            let condemned = store.condemned(now).await?;
            if any_condemned([&self.condemned, &condemned], &keys) {
                return Ok(false);
            }
            // A clock that was set back proves nothing.
            if now.checked_sub(self.begun).is_some_and(|time| time <= WRITE_MAX) {
                return Ok(true);
            }
            self = Self::begin(store, self.environment).await?;
            if !rely().await? {
                return Ok(false);
            }
        }
        Ok(false)
    }
}

/// Whether any of these keys is in any of the views. Mostly nothing is, and then they are not even made.
fn any_condemned<K: IntoIterator<Item = Key>>(
    views: [&Condemned; 2],
    keys: &impl Fn() -> K,
) -> bool {
    let is_condemned = |key: Key| {
        let hash = Marker::hash(&key);
        views.iter().any(|view| view.has_hash(hash))
    };
    views.iter().any(|view| !view.is_empty()) && keys().into_iter().any(is_condemned)
}
