//! What a collection of garbage is about to remove, as writers get to know it.
//!
//! A collection publishes a [`Marker`] with the keys of a batch, waits until every writer must have seen it, looks once
//! more at what there is, and only then removes what is still garbage. A writer looks at the markers after it has written
//! links, and before it answers, by a view that is at most [`VIEW_MAX_AGE`] old. A link that was written before the
//! collection's second look is seen by that look; one that was written later had a writer who saw the marker, and who
//! then does not tell its client that all is well. Neither needs a lock, nor writes on conditions; only that the store
//! gives what was written last.
//!
//! What a writer relies on it may have found, or stored, a moment before it was removed. So it goes by a view from before that
//! as well, and a marker stays for [`SETTLING_MIN`] after the removal, and for as long as proxies remember links.
//!
//! A marker holds the first 64 bits of the SHA-256 of each key: a few hundred kilobytes for a large batch. Two keys that
//! share them cost a writer another try, and nothing else.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::fault::StoreError;
use super::layout::{self, Key};
use super::objects::{ListRequest, Listed, Objects, parse_time};
use super::single_flight::SingleFlight;
use crate::oci::{Digest, Name};

/// How old the view of the markers may be by which a writer goes.
pub const VIEW_MAX_AGE: Duration = Duration::from_secs(10);

/// How long a marker stays at least after things were removed by it. A writer may have relied on them just before, and
/// looks at the markers a while later.
pub const SETTLING_MIN: Duration = Duration::from_secs(20);

/// How long a marker counts after it was written; for a writer, after it first saw it. So the clocks of proxies, collections
/// and the store need not agree.
pub const MARKER_LIFETIME: Duration = Duration::from_secs(7 * 60);

/// How long ago a marker may have ended that a writer sees for the first time, and that counts for it: by so much may clocks
/// differ. What is older was left by a collection that died.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a marker counts that can't be read, from when it was written.
const UNREADABLE_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// The most keys that one marker may have.
pub const MARKER_MAX_KEYS: usize = 100_000;

/// The largest object that is taken for a marker, in bytes.
const MARKER_MAX_BYTES: u64 = 8 * MARKER_MAX_KEYS as u64 + 1024;

/// The most markers that there may be at a time. Each collection has one, and there is one collection.
const MAX_MARKERS: usize = 4;

/// The format that is written here. A reader that does not know it takes the marker for unreadable.
const FORMAT: u32 = 1;

/// The keys that a collection of garbage is about to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// When it ends, since 1970, by the store's clock.
    pub until: Duration,
    /// The hashes of the keys, in order.
    hashes: Vec<u64>,
}

/// The first line of a marker.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    format: u32,
    until: u64,
    keys: usize,
}

/// What is in the place of a marker, and is none that this version can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("it is no marker of a collection of garbage that this version of Moorage can read")]
pub struct UnreadableMarker;

impl Marker {
    /// A marker of the keys with these hashes ([`Marker::hash`]) that ends at `until`.
    pub fn new(until: Duration, hashes: impl IntoIterator<Item = u64>) -> Self {
        let mut hashes: Vec<u64> = hashes.into_iter().collect();
        hashes.sort_unstable();
        hashes.dedup();
        Self { until, hashes }
    }

    /// The object that it is: a line of JSON, then the hashes in order, eight bytes each, the most significant first.
    pub fn to_bytes(&self) -> Bytes {
        let (until, keys) = (self.until.as_secs(), self.hashes.len());
        let head = serde_json::json!(Head { format: FORMAT, until, keys });
        let mut bytes = format!("{head}\n").into_bytes();
        bytes.extend(self.hashes.iter().flat_map(|hash| hash.to_be_bytes()));
        bytes.into()
    }

    /// Reads such an object.
    ///
    /// # Errors
    ///
    /// If it is not exactly that.
    pub fn parse(bytes: &[u8]) -> Result<Self, UnreadableMarker> {
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(UnreadableMarker)?;
        let (head, hashes) = (&bytes[..end], &bytes[end + 1..]);
        let head: Head = serde_json::from_slice(head).map_err(|_| UnreadableMarker)?;
        let (hashes, rest) = hashes.as_chunks::<8>();
        let hashes: Vec<u64> = hashes.iter().map(|hash| u64::from_be_bytes(*hash)).collect();
        let is_whole = rest.is_empty() && hashes.len() == head.keys;
        if head.format != FORMAT || !is_whole || !hashes.is_sorted() {
            return Err(UnreadableMarker);
        }
        Ok(Self { until: Duration::from_secs(head.until), hashes })
    }

    /// The hash by which a key is in a marker: the first 64 bits of its SHA-256.
    pub fn hash(key: &Key) -> u64 {
        let hash = Sha256::digest(key.as_str().as_bytes());
        hash.iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte))
    }

    /// Whether the object of this key is about to be removed.
    pub fn has(&self, key: &Key) -> bool {
        self.has_hash(Self::hash(key))
    }

    fn has_hash(&self, hash: u64) -> bool {
        self.hashes.binary_search(&hash).is_ok()
    }

    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

/// What collections of garbage are about to remove, as it was at some moment.
#[derive(Debug, Clone, Default)]
pub struct Condemned(Rc<Markers>);

#[derive(Debug, Default)]
struct Markers {
    /// Those that can be read, whether they still count or not.
    markers: Vec<Known>,
    /// When this was.
    at: Duration,
    /// Whether there is one that can't be read, which may be of anything.
    has_unreadable: bool,
}

/// A marker that has been read.
#[derive(Debug, Clone)]
struct Known {
    key: Key,
    /// When it was written, as the store words it.
    modified: String,
    marker: Rc<Marker>,
    /// Until when it counts here.
    until: Duration,
}

impl Condemned {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.counting().next().is_none() && !self.0.has_unreadable
    }

    /// Whether the object of this key is.
    pub fn has(&self, key: &Key) -> bool {
        self.has_hash(Marker::hash(key))
    }

    /// The same, of a key with this hash ([`Marker::hash`]).
    pub fn has_hash(&self, hash: u64) -> bool {
        self.0.has_unreadable || self.counting().any(|known| known.marker.has_hash(hash))
    }

    /// The markers that still count.
    fn counting(&self) -> impl Iterator<Item = &Known> {
        self.0.markers.iter().filter(|known| known.until > self.0.at)
    }

    /// Whether a blob of a repository is: its link there, or its content.
    pub fn has_blob(&self, name: &Name, digest: &Digest) -> bool {
        !self.is_empty()
            && (self.has(&layout::blob_link(name, digest)) || self.has(&layout::content(digest)))
    }
}

/// A worker's view of the markers.
#[derive(Debug, Default)]
pub struct CondemnedView {
    /// The latest, with the time at which reading it began.
    latest: RefCell<Option<(Duration, Condemned)>>,
    reads: SingleFlight<(), Result<(Duration, Condemned), StoreError>>,
}

impl CondemnedView {
    /// The view, if it is not too old. No call.
    pub(super) fn known(&self, now: Duration) -> Option<Condemned> {
        let latest = self.latest.borrow();
        let (begun, condemned) = latest.as_ref()?;
        is_recent(*begun, now).then(|| condemned.clone())
    }

    /// The view, read anew if it is too old: one call, shared by all who ask meanwhile, and another for each new marker.
    pub(super) async fn get(
        &self,
        objects: &impl Objects,
        now: Duration,
    ) -> Result<Condemned, StoreError> {
        if let Some(condemned) = self.known(now) {
            return Ok(condemned);
        }
        let (begun, condemned) =
            self.reads.share(&(), async || self.read(objects, now).await).await?;
        if is_recent(begun, now) {
            return Ok(condemned);
        }
        // Whoever read had begun too long ago for this one.
        Ok(self.read(objects, now).await?.1)
    }

    /// Reads the view, with the time at which that begins.
    async fn read(
        &self,
        objects: &impl Objects,
        now: Duration,
    ) -> Result<(Duration, Condemned), StoreError> {
        let before = self.latest.borrow().as_ref().map(|(_, condemned)| condemned.clone());
        let condemned = read(objects, now, &before.unwrap_or_default()).await?;
        self.latest.replace(Some((now, condemned.clone())));
        Ok((now, condemned))
    }
}

/// Whether what was begun then may be relied on. A clock that was set back proves nothing.
fn is_recent(begun: Duration, now: Duration) -> bool {
    now.checked_sub(begun).is_some_and(|age| age <= VIEW_MAX_AGE)
}

/// Reads the markers, but for those that are known from `before` and have not been written again.
async fn read(
    objects: &impl Objects,
    now: Duration,
    before: &Condemned,
) -> Result<Condemned, StoreError> {
    let folder = layout::markers();
    let page = objects.list(ListRequest::new(&folder, Listed::Objects)).await?;
    let has_unreadable = page.next.is_some();
    let mut markers = Markers { has_unreadable, at: now, ..Markers::default() };
    for ((key, modified), size) in page.keys.into_iter().zip(page.modified).zip(page.sizes) {
        // An object by which some tools show a folder.
        if key.as_str().ends_with('/') {
            continue;
        }
        if markers.markers.len() == MAX_MARKERS {
            markers.has_unreadable = true;
            break;
        }
        let is_same = |known: &&Known| known.key == key && known.modified == modified;
        if let Some(known) = before.0.markers.iter().find(is_same) {
            markers.markers.push(known.clone());
            continue;
        }
        let marker = if size > MARKER_MAX_BYTES {
            None
        } else {
            let _room = objects.budget().reserve_read(MARKER_MAX_BYTES as usize)?;
            match objects.read(&key).await? {
                Some(bytes) => Marker::parse(&bytes).ok().map(Rc::new),
                // Its collection is over.
                None => continue,
            }
        };
        match marker {
            Some(marker) if marker.until.saturating_add(CLOCK_SKEW) > now => {
                let until = now.saturating_add(MARKER_LIFETIME);
                markers.markers.push(Known { key, modified, marker, until });
            }
            Some(_) => {}
            None if is_over(&key, &modified, now) => {}
            None => {
                log::error!(
                    "{} is no marker of a collection of garbage that this version can read: until it is an hour old, \
                     pushes are answered 503; run the version of Moorage that wrote it, or remove it if nothing collects \
                     garbage",
                    key.as_str()
                );
                markers.has_unreadable = true;
            }
        }
    }
    Ok(Condemned(Rc::new(markers)))
}

/// Whether a marker that can't be read is too old to count.
fn is_over(key: &Key, modified: &str, now: Duration) -> bool {
    let written = parse_time(key, modified).ok();
    let age = written.and_then(|time| {
        let time = time.duration_since(std::time::SystemTime::UNIX_EPOCH).ok()?;
        now.checked_sub(time)
    });
    age.is_some_and(|age| age > UNREADABLE_LIFETIME)
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::oci::Algorithm;
    use crate::store::Store;
    use crate::store::memory::{MemoryStore, run};

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn name() -> Name {
        "a".parse().expect("a name")
    }

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    fn marker(until: Duration, keys: &[Key]) -> Bytes {
        Marker::new(until, keys.iter().map(Marker::hash)).to_bytes()
    }

    fn view(store: &MemoryStore, now: Duration) -> (Condemned, usize) {
        let before = store.calls().len();
        let condemned = run(store.condemned(now)).0.expect("no fault");
        (condemned, store.calls().len() - before)
    }

    #[test]
    fn a_marker_is_read_as_it_was_written_and_nothing_else_is_one() {
        let keys: Vec<_> = (0..100).map(|n| layout::content(&digest(&n.to_string()))).collect();
        let bytes = marker(NOW, &keys);
        let read = Marker::parse(&bytes).expect("a marker");
        assert_eq!((read.until, read.len()), (NOW, 100));
        assert!(keys.iter().all(|key| read.has(key)));
        assert!(!read.has(&layout::content(&digest("another"))));
        let mut unsorted = bytes.to_vec();
        let end = unsorted.len();
        unsorted[end - 8..].fill(0);
        for other in [
            b"".as_slice(),
            b"\n",
            b"{}\n",
            &bytes[..bytes.len() - 1],
            &bytes[..bytes.len() - 8],
            &unsorted,
            b"{\"format\":2,\"until\":1,\"keys\":0}\n",
            b"{\"format\":1,\"until\":-1,\"keys\":0}\n",
        ] {
            assert_eq!(
                Marker::parse(other),
                Err(UnreadableMarker),
                "{:?}",
                String::from_utf8_lossy(other)
            );
        }
    }

    #[test]
    fn a_view_is_one_call_and_serves_for_ten_seconds() {
        let store = MemoryStore::default();
        assert!(store.known_condemned(NOW).is_none());
        assert_eq!(view(&store, NOW).1, 1);
        let late = NOW + VIEW_MAX_AGE;
        assert_eq!(view(&store, late).1, 0);
        assert!(store.known_condemned(late).is_some());
        let too_late = late + Duration::from_millis(1);
        assert!(store.known_condemned(too_late).is_none());
        assert_eq!(view(&store, too_late).1, 1);
        // A clock that goes back makes no view younger.
        assert_eq!(view(&store, NOW).1, 1);
    }

    #[test]
    fn markers_are_read_once_and_count_for_their_time() {
        let store = MemoryStore::default();
        let key = layout::blob_link(&name(), &digest("x"));
        let day = Duration::from_secs(24 * 60 * 60);
        let second = Duration::from_secs(1);
        store.put(layout::marker("run-0"), marker(NOW - day + second, std::slice::from_ref(&key)));
        store.put(layout::marker("run-1"), marker(NOW + day, &[layout::content(&digest("y"))]));
        store.put(layout::marker("run-2"), marker(NOW - day, &[layout::content(&digest("z"))]));
        let (condemned, calls) = view(&store, NOW);
        assert_eq!(calls, 4, "a listing and three markers");
        assert!(condemned.has(&key) && condemned.has_blob(&name(), &digest("x")));
        assert!(!condemned.has(&layout::manifest_link(&name(), &digest("x"))));
        assert!(condemned.has_blob(&name(), &digest("y")));
        assert!(!condemned.has_blob(&name(), &digest("z")), "it ended a day ago");
        store.delete(&layout::marker("run-2"));
        let later = NOW + MARKER_LIFETIME - second;
        let (condemned, calls) = view(&store, later);
        assert!(condemned.has(&key) && calls == 1, "what has been read is known");
        // Whatever its clock says, nobody has written it again.
        let (condemned, calls) = view(&store, later + VIEW_MAX_AGE + second);
        assert!(condemned.is_empty() && calls == 1);
    }

    #[test]
    fn what_can_not_be_read_may_be_anything() {
        let any = layout::content(&digest("any"));
        let huge = vec![b'x'; MARKER_MAX_BYTES as usize + 1];
        for bytes in [Bytes::from_static(b"?"), Bytes::new(), huge.into()] {
            let store = MemoryStore::default();
            store.put(layout::marker("run"), bytes);
            assert!(view(&store, NOW).0.has(&any));
        }
        let store = MemoryStore::default();
        for number in 0..=MAX_MARKERS {
            store.put(layout::marker(&number.to_string()), marker(NOW + VIEW_MAX_AGE, &[]));
        }
        assert!(view(&store, NOW).0.has(&any), "more markers than there can be");
    }

    #[test]
    fn an_object_that_stands_for_the_folder_is_no_marker() {
        let store = MemoryStore::default();
        store.put(layout::markers(), "");
        let (condemned, calls) = view(&store, NOW);
        assert!(condemned.is_empty() && calls == 1);
    }

    #[test]
    fn a_marker_that_can_not_be_read_is_over_in_an_hour() {
        let key = layout::marker("run");
        let at = |seconds| Duration::from_secs(seconds);
        assert!(!is_over(&key, "1970-01-01T00:00:00Z", at(3600)));
        assert!(is_over(&key, "1970-01-01T00:00:00Z", at(3601)));
        assert!(!is_over(&key, "1970-01-01T02:00:00Z", at(0)), "of the future");
        assert!(!is_over(&key, "yesterday", at(1_000_000)));
    }

    #[test]
    fn a_store_that_fails_is_no_store_without_markers() {
        let mut store = MemoryStore::default();
        store.fail(layout::markers(), crate::store::StoreErrorKind::Failed);
        assert!(run(store.condemned(NOW)).0.is_err());
        assert!(store.known_condemned(NOW).is_none());
    }
}
