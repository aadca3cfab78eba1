//! The registry's nouns on the bucket's: [`Store`] for whatever has [`Objects`].

use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join;

use super::budget::Reservation;
use super::catalog::{self, Repositories};
use super::condemned::Condemned;
use super::fault::{StoreError, StoreErrorKind};
use super::layout::{self, Key};
use super::listed_blobs::{self, ListedBlobs};
use super::names::{Names, is_folder, names};
use super::objects::{Condition, Content, Head, ListRequest, Listed, Objects, Start};
use super::tag_removal::{self, TagRemoval};
use super::tags_removal::TagsRemoval;
use super::{Store, TagCondition, TagVersion};
use crate::oci::{Digest, Name, Tag};

impl<O: Objects> Store for O {
    fn reserve_read(&self, bytes: usize) -> Result<Reservation, StoreError> {
        self.budget().reserve_read(bytes)
    }

    async fn tag(&self, name: &Name, tag: &Tag) -> Result<Option<Digest>, StoreError> {
        let key = layout::tag_link(name, tag);
        digest_in_link(&key, self.read(&key).await?, None)
    }

    async fn tag_for_pull(&self, name: &Name, tag: &Tag) -> Result<Option<Digest>, StoreError> {
        let key = layout::tag_link(name, tag);
        digest_in_link(&key, self.read_stale_if_error(&key).await?, None)
    }

    async fn manifest_link(
        &self,
        name: &Name,
        digest: &Digest,
    ) -> Result<Option<Digest>, StoreError> {
        let key = layout::manifest_link(name, digest);
        digest_in_link(&key, self.read(&key).await?, Some(digest))
    }

    async fn manifest_link_for_pull(
        &self,
        name: &Name,
        digest: &Digest,
    ) -> Result<Option<Digest>, StoreError> {
        let key = layout::manifest_link(name, digest);
        digest_in_link(&key, self.read_stale_if_error(&key).await?, Some(digest))
    }

    async fn blob_link(&self, name: &Name, digest: &Digest) -> Result<Option<Digest>, StoreError> {
        let key = layout::blob_link(name, digest);
        digest_in_link(&key, self.read(&key).await?, Some(digest))
    }

    async fn blob_link_for_pull(
        &self,
        name: &Name,
        digest: &Digest,
    ) -> Result<Option<Digest>, StoreError> {
        let key = layout::blob_link(name, digest);
        digest_in_link(&key, self.read_stale_if_error(&key).await?, Some(digest))
    }

    async fn content(&self, digest: &Digest) -> Result<Content, StoreError> {
        self.read_content(&layout::content(digest)).await
    }

    async fn has_content(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.exists(&layout::content(digest)).await
    }

    async fn has_blob(&self, name: &Name, digest: &Digest) -> Result<bool, StoreError> {
        is_linked_and_there(self, &layout::blob_link(name, digest), digest).await
    }

    async fn listed_blobs(&self, name: &Name) -> Result<ListedBlobs, StoreError> {
        listed_blobs::list(self, name).await
    }

    async fn has_blob_listed(
        &self,
        name: &Name,
        digest: &Digest,
        listed: impl Future<Output = Result<ListedBlobs, StoreError>>,
    ) -> Result<bool, StoreError> {
        listed_blobs::has_blob(self, name, digest, listed).await
    }

    async fn has_manifest(&self, name: &Name, digest: &Digest) -> Result<bool, StoreError> {
        is_linked_and_there(self, &layout::manifest_link(name, digest), digest).await
    }

    async fn put_content(&self, digest: &Digest, content: Bytes) -> Result<(), StoreError> {
        self.write(&layout::content(digest), content).await
    }

    async fn link_manifest(&self, name: &Name, digest: &Digest) -> Result<(), StoreError> {
        self.write(&layout::manifest_link(name, digest), link(digest)).await
    }

    async fn put_referrer(
        &self,
        name: &Name,
        subject: &Digest,
        digest: &Digest,
        descriptor: Bytes,
    ) -> Result<(), StoreError> {
        self.write(&layout::referrer(name, subject, digest), descriptor).await
    }

    async fn referrers(
        &self,
        name: &Name,
        subject: &Digest,
        after: Option<&Digest>,
    ) -> Result<Names<Digest>, StoreError> {
        let folder = layout::referrers(name, subject);
        let after = after.map(layout::within_referrers);
        let request = ListRequest::new(&folder, Listed::Objects);
        let start = after.as_deref().map_or(Start::First, Start::After);
        let mut page = self.list(request.from(start)).await?;
        let digest_of =
            |key: &Key| layout::referrer_within(key.as_str().strip_prefix(folder.as_str())?);
        loop {
            let digests: Vec<_> = page.keys.iter().filter_map(digest_of).collect();
            match page.next {
                // Objects of other names, which no registry wrote, don't make a page.
                Some(cursor) if digests.is_empty() => {
                    page = self.list(request.from(Start::At(&cursor))).await?;
                }
                next => return Ok(Names { names: digests, more: next.is_some() }),
            }
        }
    }

    async fn referrer_head(
        &self,
        name: &Name,
        subject: &Digest,
        digest: &Digest,
        limit: u64,
    ) -> Result<Option<Head>, StoreError> {
        self.read_head(&layout::referrer(name, subject, digest), limit).await
    }

    async fn referrer(
        &self,
        name: &Name,
        subject: &Digest,
        digest: &Digest,
    ) -> Result<Content, StoreError> {
        self.read_content(&layout::referrer(name, subject, digest)).await
    }

    async fn record_tag(&self, name: &Name, tag: &Tag, digest: &Digest) -> Result<(), StoreError> {
        self.write(&layout::tag_history(name, tag, digest), link(digest)).await
    }

    async fn set_tag(&self, name: &Name, tag: &Tag, digest: &Digest) -> Result<(), StoreError> {
        self.write(&layout::tag_link(name, tag), link(digest)).await
    }

    async fn tag_condition(
        &self,
        name: &Name,
        tag: &Tag,
        expected: Option<&[Digest]>,
    ) -> Result<Option<TagCondition>, StoreError> {
        let current = self.tag_version(name, tag).await?;
        let Some(expected) = expected else {
            return Ok(current.is_none().then_some(TagCondition(Condition::Absent)));
        };
        let holds = |tag: &TagVersion| expected.is_empty() || expected.contains(&tag.digest);
        let current = current.filter(holds);
        Ok(current.map(|tag| TagCondition(Condition::Unchanged(tag.version))))
    }

    async fn set_tag_if(
        &self,
        name: &Name,
        tag: &Tag,
        digest: &Digest,
        condition: &TagCondition,
    ) -> Result<bool, StoreError> {
        self.write_if(&layout::tag_link(name, tag), link(digest), &condition.0).await
    }

    async fn honours_conditions(&self) -> Result<bool, StoreError> {
        if let Some(known) = self.heeds_conditions().get() {
            return Ok(known);
        }
        let key = layout::condition_probe();
        let probe = Bytes::from_static(b"Moorage tries here whether the store heeds conditions.\n");
        // Whoever comes first creates the object. From then on no such write may succeed, and one
        // that asks for a version that never was may not either.
        self.write(&key, probe.clone()).await?;
        let never = Condition::Unchanged(super::Version("\"never\"".to_owned()));
        let (created, changed) = try_join(
            self.write_if(&key, probe.clone(), &Condition::Absent),
            self.write_if(&key, probe, &never),
        )
        .await?;
        let heeds = !created && !changed;
        self.heeds_conditions().set(Some(heeds));
        Ok(heeds)
    }

    async fn unlink_manifest(&self, name: &Name, digest: &Digest) -> Result<(), StoreError> {
        self.remove(&layout::manifest_link(name, digest)).await
    }

    async fn unlink_blob(&self, name: &Name, digest: &Digest) -> Result<(), StoreError> {
        self.remove(&layout::blob_link(name, digest)).await
    }

    async fn remove_referrer(
        &self,
        name: &Name,
        subject: &Digest,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        self.remove(&layout::referrer(name, subject, digest)).await
    }

    async fn tags(&self, name: &Name, after: &str, limit: usize) -> Result<Names<Tag>, StoreError> {
        names(self, &layout::tags(name), Bound::Excluded(after), limit).await
    }

    async fn condemned(&self, now: Duration) -> Result<Condemned, StoreError> {
        self.condemned_view().get(self, now).await
    }

    fn known_condemned(&self, now: Duration) -> Option<Condemned> {
        self.condemned_view().known(now)
    }

    async fn health(&self, now: Duration) -> Result<(), StoreError> {
        self.health_view().get(self, now).await
    }

    async fn has_anything(&self, name: &Name) -> Result<bool, StoreError> {
        is_folder(self, &layout::own(name)).await
    }

    async fn repositories(&self, after: &str, limit: usize) -> Result<Repositories, StoreError> {
        catalog::repositories(self, after, limit).await
    }

    async fn tag_version(&self, name: &Name, tag: &Tag) -> Result<Option<TagVersion>, StoreError> {
        let _permit = self.permits().take().await;
        let key = layout::tag_link(name, tag);
        let Some(object) = self.read_version(&key).await? else {
            return Ok(None);
        };
        let digest = parse_link(&key, &object.bytes)?;
        Ok(Some(TagVersion { digest, version: object.version }))
    }

    async fn remove_tag(&self, name: &Name, tag: &Tag) -> Result<bool, StoreError> {
        TagRemoval { objects: self, name, tag }.whatever_it_points_at().await
    }

    async fn try_conditional_removal(&self) {
        tag_removal::probe(self).await;
    }

    async fn remove_tag_if(
        &self,
        name: &Name,
        tag: &Tag,
        seen: &TagVersion,
    ) -> Result<bool, StoreError> {
        let removal = TagRemoval { objects: self, name, tag };
        match self.heeds_conditional_removal().get() {
            Some(true) => removal.if_unchanged(seen).await,
            _ => removal.under_watch(seen).await,
        }
    }

    async fn remove_tags_on(
        &self,
        name: &Name,
        digest: &Digest,
        may_go: impl Fn(&Tag) -> bool,
    ) -> Result<bool, StoreError> {
        TagsRemoval { objects: self, name, digest }.run(may_go).await
    }

    async fn take_back_record(
        &self,
        name: &Name,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        match self.tag_version(name, tag).await? {
            Some(_) => Ok(()),
            None => self.remove(&layout::tag_history(name, tag, digest)).await,
        }
    }
}

pub(super) fn link(digest: &Digest) -> Bytes {
    digest.to_string().into()
}

/// The digest that a link holds, most likely `expected`; `None` where there is no such object.
pub(super) fn digest_in_link(
    key: &Key,
    bytes: Option<Bytes>,
    expected: Option<&Digest>,
) -> Result<Option<Digest>, StoreError> {
    let parse = |bytes: Bytes| match expected {
        Some(digest) if digest.as_str().as_bytes() == bytes => Ok(digest.clone()),
        _ => parse_link(key, &bytes),
    };
    bytes.map(parse).transpose()
}

fn parse_link(key: &Key, bytes: &[u8]) -> Result<Digest, StoreError> {
    let text = std::str::from_utf8(bytes).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| {
        let message = format!("the object {} holds no digest", key.as_str());
        log::error!("{message}");
        StoreError::new(StoreErrorKind::Failed, message)
    })
}

/// Whether there is a link and the content that it points at. A link alone does not do: collecting
/// garbage removes content and may leave links behind.
async fn is_linked_and_there(
    objects: &impl Objects,
    key: &Key,
    digest: &Digest,
) -> Result<bool, StoreError> {
    let _permit = objects.permits().take().await;
    let content = layout::content(digest);
    let (link, is_there) = try_join(objects.read(key), objects.exists(&content)).await?;
    match digest_in_link(key, link, Some(digest))? {
        None => Ok(false),
        Some(target) if target == *digest => Ok(is_there),
        Some(target) => objects.exists(&layout::content(&target)).await,
    }
}
