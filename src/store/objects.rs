//! Objects: what a bucket can do, without a thought of registries.

use std::any::Any;
use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::stream::{self, Stream};
use md5::{Digest as _, Md5};

use super::budget::Budget;
use super::condemned::CondemnedView;
use super::fault::{StoreError, StoreErrorKind};
use super::health::HealthView;
use super::layout::Key;
use super::multi_delete::MultiDelete;
use super::permits::Permits;
use crate::oci::Digest;

/// The result of reading some content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// All of it, not yet verified.
    Whole(Bytes),
    /// All of it, and it is what its digest says.
    Verified(Verified),
    /// There is no content under that digest.
    Absent,
    /// It is larger than this many bytes, more than the store reads into memory.
    TooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
}

impl Content {
    /// The content, if there is any that can be read, verified or not.
    pub fn into_bytes(self) -> Option<Bytes> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Verified(verified) => Some(verified.content),
            Self::Absent | Self::TooLarge { .. } => None,
        }
    }

    /// Whether it is known to match its digest.
    pub fn is_verified(&self) -> bool {
        matches!(self, Self::Verified(_))
    }
}

/// Content that matches its digest.
#[derive(Debug, Clone)]
pub struct Verified {
    digest: Digest,
    content: Bytes,
    derived: Rc<OnceCell<Box<dyn Any>>>,
}

/// Derived values follow from the rest.
impl PartialEq for Verified {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.content == other.content
    }
}

impl Eq for Verified {}

impl Verified {
    /// Content that has been verified against this digest.
    pub fn new(digest: Digest, content: Bytes) -> Self {
        Self { digest, content, derived: Rc::default() }
    }

    /// The digest that it was verified against.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The content.
    pub fn content(&self) -> &Bytes {
        &self.content
    }

    /// The value that `derive` makes of the content. It is kept as long as the content is in the cache, so it is derived
    /// once; of one type only, that of whoever comes first.
    ///
    /// # Errors
    ///
    /// Those of `derive`, of which nothing is kept.
    pub fn derived<T: Any + Clone, E>(
        &self,
        derive: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        if let Some(known) = self.derived.get().and_then(|known| known.downcast_ref::<T>()) {
            return Ok(known.clone());
        }
        let value = derive()?;
        self.derived.get_or_init(|| Box::new(value.clone()));
        Ok(value)
    }
}

/// The state of an object, as the store names it (S3's `ETag`). Two states of equal content may have
/// the same version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub String);

impl Version {
    /// Whether this is the version that most stores give an object with this content: its MD5 in quotes. If so the object has
    /// that content; otherwise nothing is known.
    pub fn is_of(&self, content: &[u8]) -> bool {
        *self == Self::md5_of(content)
    }

    /// The MD5 of an object's content as a version.
    pub(super) fn md5_of(content: &[u8]) -> Self {
        Self(format!("\"{}\"", base16ct::lower::encode_string(&Md5::digest(content))))
    }
}

/// An object with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The content.
    pub bytes: Bytes,
    /// The version.
    pub version: Version,
}

/// The beginning of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The bytes that were read.
    pub bytes: Bytes,
    /// Whether that is known to be all.
    pub is_whole: bool,
}

/// The result of a removal. One without a condition is done, whether there was such an object or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The object had the version and is gone.
    Removed,
    /// It is there and has another version, or somebody else is writing it right now.
    Changed,
    /// There is no such object.
    Absent,
}

/// The condition of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// There is no such object.
    Absent,
    /// The object still has this version.
    Unchanged(Version),
}

/// The kinds of entry that a listing can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// Every object whose key begins so.
    Objects,
    /// Only the parts up to the next slash.
    Folders,
}

/// The most entries that a page of a listing has: S3's own limit.
pub const PAGE_LIMIT: usize = 1000;

/// A request for one page of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListRequest<'a> {
    /// The prefix of the keys.
    pub prefix: &'a Key,
    /// The kind of entry to list.
    pub listed: Listed,
    /// Where to begin.
    pub start: Start<'a>,
    /// The most entries that are wanted. There are never more than [`PAGE_LIMIT`].
    pub limit: usize,
}

/// Where a page of a listing begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start<'a> {
    /// At the first key.
    First,
    /// After the prefix with this text behind it, which need not be a key. A folder begins with its
    /// first key, so one that holds a later key is listed.
    After(&'a str),
    /// Where an earlier page of the same listing ended.
    At(&'a Cursor),
}

impl<'a> ListRequest<'a> {
    /// A request for the first page.
    pub fn new(prefix: &'a Key, listed: Listed) -> Self {
        Self { prefix, listed, start: Start::First, limit: PAGE_LIMIT }
    }

    /// A request for a page that begins elsewhere.
    pub fn from(self, start: Start<'a>) -> Self {
        Self { start, ..self }
    }

    /// A request for no more than so many entries.
    pub fn limit(self, limit: usize) -> Self {
        Self { limit: limit.min(PAGE_LIMIT), ..self }
    }
}

/// One page of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The keys, or the folders with their closing slash, relative to the prefix of the registry.
    pub keys: Vec<Key>,
    /// When each of the keys was last written, as the store words it (S3's `LastModified`), at the same
    /// place as the key; empty for a folder. An object that is written anew has another one, unless the
    /// store counts in seconds and it is the same second.
    pub modified: Vec<String>,
    /// The size of each of the objects in bytes, at the same place as its key; 0 for a folder.
    pub sizes: Vec<u64>,
    /// The version of each of the objects, at the same place as its key; empty for a folder, and where the store lists none.
    pub versions: Vec<Version>,
    /// Where the next page begins, if there is one.
    pub next: Option<Cursor>,
}

/// Where a listing goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub String);

/// A bucket. Every method is one call, repeated at most once where it may be.
#[expect(async_fn_in_trait, reason = "the filter runs in one thread; no future is ever sent")]
pub trait Objects {
    /// The largest content that is read into memory, in bytes.
    fn content_limit(&self) -> u64;

    /// The memory that requests may hold.
    fn budget(&self) -> &Budget;

    /// The permits for calls of which a request may make very many.
    fn permits(&self) -> &Permits;

    /// Whether the store heeds the conditions of writes, once that is known.
    fn heeds_conditions(&self) -> &Cell<Option<bool>>;

    /// Whether the store heeds the conditions of removals, once that is known.
    fn heeds_conditional_removal(&self) -> &Cell<Option<bool>>;

    /// What is known of the store's removal of many objects by one call.
    fn multi_delete(&self) -> &MultiDelete;

    /// What is known of collections of garbage.
    fn condemned_view(&self) -> &CondemnedView;

    /// What is known of whether the store answers.
    fn health_view(&self) -> &HealthView;

    /// Reads a small object.
    async fn read(&self, key: &Key) -> Result<Option<Bytes>, StoreError>;

    /// The same, for the answer to a `GET` or `HEAD`: while the store can't be reached it may be what the store said some
    /// time ago. No write may rely on it.
    async fn read_stale_if_error(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        self.read(key).await
    }

    /// Reads a small object with its version.
    async fn read_version(&self, key: &Key) -> Result<Option<Object>, StoreError>;

    /// Reads the first `limit` bytes of an object, or all if it has not as many.
    async fn read_head(&self, key: &Key, limit: u64) -> Result<Option<Head>, StoreError>;

    /// Reads an object of at most [`Objects::content_limit`].
    async fn read_content(&self, key: &Key) -> Result<Content, StoreError>;

    /// Whether there is such an object.
    async fn exists(&self, key: &Key) -> Result<bool, StoreError>;

    /// Writes an object, in place of any that is there.
    async fn write(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError>;

    /// Writes an object if the condition holds; `false` if the store says that it does not.
    async fn write_if(
        &self,
        key: &Key,
        bytes: Bytes,
        condition: &Condition,
    ) -> Result<bool, StoreError>;

    /// Removes an object. One that isn't there is no error.
    async fn remove(&self, key: &Key) -> Result<(), StoreError>;

    /// Removes an object if it still has this version. Only to be relied on where
    /// [`Objects::heeds_conditional_removal`].
    async fn remove_if(&self, key: &Key, version: &Version) -> Result<Removal, StoreError>;

    /// Removes up to [`PAGE_LIMIT`] objects: those with a version only if they still have it, on which only to rely where
    /// [`MultiDelete::heeds_conditions`]. Gives what became of each, or `None` where the store leaves that open and it has to be
    /// removed by itself. `None` for all if the store knows no such call: then nothing was removed.
    async fn remove_many(
        &self,
        removals: &[(Key, Option<Version>)],
    ) -> Result<Option<Vec<Option<Removal>>>, StoreError>;

    /// Lists what begins with a prefix, in the order of its bytes.
    async fn list(&self, request: ListRequest<'_>) -> Result<Page, StoreError>;
}

/// Something that can be listed: a bucket, or one whose listings are counted.
pub(super) trait Lists {
    /// Lists what begins with a prefix, in the order of its bytes. One call.
    async fn list(&self, request: ListRequest<'_>) -> Result<Page, StoreError>;
}

impl<O: Objects> Lists for O {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page, StoreError> {
        Objects::list(self, request).await
    }
}

/// Counts the listings of a bucket.
pub(super) struct Counted<'a, O> {
    objects: &'a O,
    calls: Cell<usize>,
}

impl<'a, O> Counted<'a, O> {
    /// None has been made yet.
    pub(super) fn new(objects: &'a O) -> Self {
        Self { objects, calls: Cell::new(0) }
    }

    /// How many have been made.
    pub(super) fn calls(&self) -> usize {
        self.calls.get()
    }
}

impl<O: Objects> Lists for Counted<'_, O> {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page, StoreError> {
        self.calls.set(self.calls.get() + 1);
        Objects::list(self.objects, request).await
    }
}

/// All pages of a listing, one after the other: each is a call. The request may begin anywhere.
pub fn pages<'a>(
    objects: &'a impl Objects,
    request: ListRequest<'a>,
) -> impl Stream<Item = Result<Page, StoreError>> + 'a {
    // Where the next page begins: at first where the request says, and in the end nowhere.
    stream::try_unfold(Some(None), move |next: Option<Option<Cursor>>| async move {
        let Some(from) = next else {
            return Ok(None);
        };
        let request = from.as_ref().map_or(request, |cursor| request.from(Start::At(cursor)));
        let page = objects.list(request).await?;
        let next = page.next.clone().map(Some);
        Ok(Some((page, next)))
    })
}

/// Reads the time at which an object was written, as a listing has it.
///
/// # Errors
///
/// If it is no time of RFC 3339.
pub fn parse_time(key: &Key, text: &str) -> Result<SystemTime, StoreError> {
    humantime::parse_rfc3339(text).map_err(|_| {
        let key = key.as_str();
        let message = format!("the blob store's listing has no time for {key}: {text:?}");
        StoreError::new(StoreErrorKind::Failed, message)
    })
}
