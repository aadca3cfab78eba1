//! The storage: what the registry keeps, in the registry's own nouns.
//!
//! [`Store`] is what the handlers see. It stands on [`Objects`], what any bucket can do, and [`Bucket`]
//! is the one bucket of the product: S3-compatible, reached over an [`Http`] of whatever kind (Envoy's
//! in the filter, a stand-in in tests).

mod bucket;
mod bucket_maintenance;
mod bucket_multi_delete;
mod bucket_options;
mod bucket_parts;
mod budget;
mod cache;
mod catalog;
mod compose;
mod condemned;
mod fault;
mod health;
pub mod layout;
mod listed_blobs;
#[cfg(test)]
pub mod memory;
mod multi_delete;
mod multipart_uploads;
mod names;
mod objects;
mod permits;
mod place;
mod progress;
mod rehash;
mod repository_folders;
mod s3;
mod single_flight;
mod store_impl;
mod streaming;
mod tag_removal;
mod tags_removal;
mod transport;
#[cfg(test)]
pub mod turns;
mod upload_folders;
mod uploads;

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::oci::{Digest, Name, Tag};

pub use bucket::Bucket;
pub use bucket_options::{Addressing, BucketOptions};
pub use budget::{Budget, Purpose, Reservation, UNCOUNTED, no_room_for_reads};
pub use cache::{CacheEnvironment, CacheEvent, CacheKind, CacheSettings, Cached};
pub use catalog::Repositories;
pub use compose::MultipartId;
pub use condemned::{
    Condemned, CondemnedView, MARKER_LIFETIME, MARKER_MAX_KEYS, Marker, SETTLING_MIN,
    UnreadableMarker, VIEW_MAX_AGE,
};
pub use fault::{Fault, StoreAnswer, StoreError, StoreErrorKind};
pub use health::{HEALTH_MAX_AGE, HealthView};
pub use listed_blobs::ListedBlobs;
pub use multipart_uploads::MultipartUpload;
pub use names::{FolderName, Names};
pub use objects::{
    Condition, Content, Cursor, Head, ListRequest, Listed, Object, Objects, PAGE_LIMIT, Page,
    Removal, Start, Verified, Version, pages, parse_time,
};
pub use place::Place;
pub use progress::{Chunk, LIST_LENGTH, Progress};

pub use repository_folders::{
    FoundRepositories, repositories_with_manifests, repositories_with_uploads,
};
pub use streaming::{BlobStream, ReadError, StreamedWrite, WriteAnswer, WriteError, WriteTarget};
pub use transport::{Http, HttpError, HttpRequest, HttpResponse, Repeat, Timeout};
pub use upload_folders::{UploadFolder, upload_folders};
pub use uploads::{Session, SessionState, Uploads};

/// How many storage calls one request makes at a time, at most, where their number depends on what
/// a client or the store's content says. It is more than any ordinary manifest has references.
pub const PARALLEL_CALLS: usize = 256;

/// How many of such things are done at a time where each makes so many calls itself.
pub const PARALLEL_GROUPS: usize = 16;

/// The condition on which a tag is set; from [`Store::tag_condition`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagCondition(Condition);

/// The digest that a tag points at, with the state of its object; from [`Store::tag_version`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagVersion {
    /// The digest.
    pub digest: Digest,
    version: Version,
}

/// The storage of a registry. Every method is one call to the storage, unless it says otherwise.
///
/// `None`, `false` and [`Content::Absent`] mean that the store said so. Whatever else goes wrong is a
/// [`StoreError`].
#[expect(async_fn_in_trait, reason = "the filter runs in one thread; no future is ever sent")]
pub trait Store {
    /// Reserves so many bytes of memory for what is read from the store. No call.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Busy`] if they are not left.
    fn reserve_read(&self, bytes: usize) -> Result<Reservation, StoreError>;

    /// The digest that the tag points at.
    async fn tag(&self, name: &Name, tag: &Tag) -> Result<Option<Digest>, StoreError>;

    /// The same, for a pull: while the store can't be reached it may be what the store said some time ago. No write may rely
    /// on it.
    async fn tag_for_pull(&self, name: &Name, tag: &Tag) -> Result<Option<Digest>, StoreError>;

    /// Whether the manifest is in the repository, and under which digest its content is stored.
    async fn manifest_link(
        &self,
        name: &Name,
        digest: &Digest,
    ) -> Result<Option<Digest>, StoreError>;

    /// The same, for a pull, as [`Store::tag_for_pull`].
    async fn manifest_link_for_pull(
        &self,
        name: &Name,
        digest: &Digest,
    ) -> Result<Option<Digest>, StoreError>;

    /// Whether the blob is in the repository, and under which digest its content is stored.
    async fn blob_link(&self, name: &Name, digest: &Digest) -> Result<Option<Digest>, StoreError>;

    /// The same, for a pull, as [`Store::tag_for_pull`].
    async fn blob_link_for_pull(
        &self,
        name: &Name,
        digest: &Digest,
    ) -> Result<Option<Digest>, StoreError>;

    /// The content stored under the digest, if it is no larger than a manifest may be. Nobody has
    /// verified it.
    async fn content(&self, digest: &Digest) -> Result<Content, StoreError>;

    /// Whether there is content under the digest, in whatever repository.
    async fn has_content(&self, digest: &Digest) -> Result<bool, StoreError>;

    /// Whether the blob is in the repository and its content is there. Two calls, together.
    async fn has_blob(&self, name: &Name, digest: &Digest) -> Result<bool, StoreError>;

    /// The first thousand blobs that the repository has links to.
    async fn listed_blobs(&self, name: &Name) -> Result<ListedBlobs, StoreError>;

    /// As [`Store::has_blob`], by what a listing of the repository's blobs tells, which is awaited while the content is asked for. One
    /// call; another one, afterwards, where the listing does not have the blob.
    async fn has_blob_listed(
        &self,
        name: &Name,
        digest: &Digest,
        listed: impl Future<Output = Result<ListedBlobs, StoreError>>,
    ) -> Result<bool, StoreError>;

    /// Whether the manifest is in the repository and its content is there. Two calls, together.
    async fn has_manifest(&self, name: &Name, digest: &Digest) -> Result<bool, StoreError>;

    /// Stores content that hashes to the digest. No repository has it yet.
    async fn put_content(&self, digest: &Digest, content: Bytes) -> Result<(), StoreError>;

    /// Puts a stored manifest into a repository.
    async fn link_manifest(&self, name: &Name, digest: &Digest) -> Result<(), StoreError>;

    /// Notes that the manifest refers to `subject`, with the manifest's descriptor as JSON.
    async fn put_referrer(
        &self,
        name: &Name,
        subject: &Digest,
        digest: &Digest,
        descriptor: Bytes,
    ) -> Result<(), StoreError>;

    /// Some of the manifests that refer to `subject`, in the order of their digests after `after`; a
    /// thousand at most.
    async fn referrers(
        &self,
        name: &Name,
        subject: &Digest,
        after: Option<&Digest>,
    ) -> Result<Names<Digest>, StoreError>;

    /// The descriptor, as JSON, that was noted of a manifest that refers to `subject`: its first `limit`
    /// bytes. Nobody has looked at it.
    async fn referrer_head(
        &self,
        name: &Name,
        subject: &Digest,
        digest: &Digest,
        limit: u64,
    ) -> Result<Option<Head>, StoreError>;

    /// The same descriptor, if it is no larger than a manifest may be.
    async fn referrer(
        &self,
        name: &Name,
        subject: &Digest,
        digest: &Digest,
    ) -> Result<Content, StoreError>;

    /// Notes in the tag's history that it points at the manifest.
    async fn record_tag(&self, name: &Name, tag: &Tag, digest: &Digest) -> Result<(), StoreError>;

    /// Points the tag at a manifest.
    async fn set_tag(&self, name: &Name, tag: &Tag, digest: &Digest) -> Result<(), StoreError>;

    /// Looks whether a tag may be set: if it points at one of `expected` (at anything, where that is
    /// empty), or, without `expected`, if it is not there. `None` if it may not; otherwise what
    /// [`Store::set_tag_if`] needs to hold to it.
    async fn tag_condition(
        &self,
        name: &Name,
        tag: &Tag,
        expected: Option<&[Digest]>,
    ) -> Result<Option<TagCondition>, StoreError>;

    /// Points the tag at a manifest if the condition still holds; `false` if it does not. Only to be
    /// relied on where [`Store::honours_conditions`].
    async fn set_tag_if(
        &self,
        name: &Name,
        tag: &Tag,
        digest: &Digest,
        condition: &TagCondition,
    ) -> Result<bool, StoreError>;

    /// Whether the store heeds the conditions of writes. Three calls in two round trips the first time; what
    /// was found is remembered.
    async fn honours_conditions(&self) -> Result<bool, StoreError>;

    /// Takes a manifest out of the repository. Its content stays.
    async fn unlink_manifest(&self, name: &Name, digest: &Digest) -> Result<(), StoreError>;

    /// Takes a blob out of the repository. Its content stays.
    async fn unlink_blob(&self, name: &Name, digest: &Digest) -> Result<(), StoreError>;

    /// Forgets that the manifest refers to `subject`.
    async fn remove_referrer(
        &self,
        name: &Name,
        subject: &Digest,
        digest: &Digest,
    ) -> Result<(), StoreError>;

    /// The repository's first `limit` tags after `after`, which need not be one, in their order. A
    /// listing for every thousand of them, and then some calls together: as many as the last tag has
    /// dots and dashes, at most.
    async fn tags(&self, name: &Name, after: &str, limit: usize) -> Result<Names<Tag>, StoreError>;

    /// What collections of garbage are about to remove, as it was [`VIEW_MAX_AGE`] before `now` (since 1970) at the
    /// longest. No call where that is known, otherwise one, and another for each new marker.
    async fn condemned(&self, now: Duration) -> Result<Condemned, StoreError>;

    /// The same, if it is known. No call.
    fn known_condemned(&self, now: Duration) -> Option<Condemned>;

    /// Whether the store answers, as of [`HEALTH_MAX_AGE`] before `now` (since 1970) at the longest. One call, or none.
    async fn health(&self, now: Duration) -> Result<(), StoreError>;

    /// Whether the repository has anything, uploads included.
    async fn has_anything(&self, name: &Name) -> Result<bool, StoreError>;

    /// The first `limit` repositories after `after`, which need not be one: those that have blobs or
    /// manifests, in the order of their names' components. About one call for each, and one for each
    /// folder that others lie in; fewer repositories where it would be many more calls.
    async fn repositories(&self, after: &str, limit: usize) -> Result<Repositories, StoreError>;

    /// The digest that the tag points at in the store now, whatever is cached.
    async fn tag_version(&self, name: &Name, tag: &Tag) -> Result<Option<TagVersion>, StoreError>;

    /// Removes the tag with its history, whatever it points at, and tells whether there was such a tag.
    /// Two listings, one call for the tag, and one for every thousand entries of its history, or for each where the store can't
    /// remove many by one.
    async fn remove_tag(&self, name: &Name, tag: &Tag) -> Result<bool, StoreError>;

    /// Finds out how [`Store::remove_tag_if`] can hold to its condition: whether the store heeds one for
    /// a removal. Two calls, one after the other, the first time; what was found is remembered. If the
    /// store errs nothing is, and it is taken for one that does not.
    async fn try_conditional_removal(&self);

    /// Removes the tag with its history if it still points at the manifest, and tells whether it did.
    /// One call for the tag, a listing for every thousand entries of its history, and two calls to remove as many.
    ///
    /// Where [`Store::try_conditional_removal`] found that the store heeds a removal's condition, nobody
    /// else's move of the tag is ever undone. Elsewhere it takes another listing, and for a tag that has
    /// been moved before a call more; what is left open then, docs/compatibility.md says.
    async fn remove_tag_if(
        &self,
        name: &Name,
        tag: &Tag,
        seen: &TagVersion,
    ) -> Result<bool, StoreError>;

    /// Removes every tag that points at the manifest and may go, with its history, and tells whether there was one. What an
    /// earlier such removal left when it broke off goes as well: a history without a tag. Of a tag that is moved meanwhile the
    /// same holds as with [`Store::remove_tag_if`].
    ///
    /// Two listings for every thousand objects of the repository's tags, and two calls for every thousand that are removed. Where
    /// listings name no versions a call more for each tag, and where conditions can't be asked for together, or many objects not be
    /// removed, one for each removal.
    async fn remove_tags_on(
        &self,
        name: &Name,
        digest: &Digest,
        may_go: impl Fn(&Tag) -> bool,
    ) -> Result<bool, StoreError>;

    /// Undoes [`Store::record_tag`] if there is no such tag: with a history alone it would be listed. Two
    /// calls, one after the other.
    async fn take_back_record(
        &self,
        name: &Name,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<(), StoreError>;
}

/// Does something for every item, `parallel` at a time, until one fails.
pub async fn for_each_bounded<T, E>(
    parallel: usize,
    items: impl IntoIterator<Item = T>,
    act: impl AsyncFn(T) -> Result<(), E>,
) -> Result<(), E> {
    stream::iter(items).map(|item| act(item)).buffer_unordered(parallel).try_collect().await
}
