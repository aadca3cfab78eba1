//! Making a [`Snapshot`]: of listings, or of an inventory that stands in for them.

use futures::stream::{self, StreamExt, TryStreamExt};
use moorage::oci::{Digest, Name, Tag};
use moorage::store::layout::{self, Key};
use moorage::store::{Objects, Place, StoreError};

use super::{
    DigestId, Digests, HistoryEntry, Link, ReferrerEntry, Repositories, Snapshot, Stored, TagLink,
};
use crate::listing::{ListedObject, list_all};
use crate::s3_inventory;
use crate::time::{CLOCK_STEP, Seconds, seconds};

/// How many of the keys are kept that no registry wrote.
const FOREIGN_KEYS: usize = 20;

/// What a listing said of links and tags that have to be read.
enum Unread {
    Tag(Name, Tag, Seconds),
    Blob(Name, Digest, Seconds),
    Manifest(Name, Digest, Seconds),
}

/// A snapshot in the making.
#[derive(Default)]
pub struct Loader {
    snapshot: Snapshot,
    repositories: Repositories,
    unread: Vec<Unread>,
}

impl Loader {
    /// Adds an object.
    pub fn add(&mut self, object: &ListedObject<'_>) {
        let ListedObject { key, size, modified } = *object;
        self.snapshot.objects += 1;
        let digests = &mut self.snapshot.digests;
        match Place::of(key) {
            Some(Place::Content(digest)) => {
                let id = digests.intern(&digest);
                digests.set_stored(id, Stored { size, modified });
            }
            Some(Place::BlobLink(name, digest)) if !holds_itself(&digest, size) => {
                self.unread.push(Unread::Blob(name, digest, modified));
            }
            Some(Place::ManifestLink(name, digest)) if !holds_itself(&digest, size) => {
                self.unread.push(Unread::Manifest(name, digest, modified));
            }
            Some(Place::BlobLink(name, digest)) => {
                let digest = digests.intern(&digest);
                self.repositories.get(name).blobs.push(Link { digest, target: digest, modified });
            }
            Some(Place::ManifestLink(name, digest)) => {
                let digest = digests.intern(&digest);
                let link = Link { digest, target: digest, modified };
                self.repositories.get(name).manifests.push(link);
            }
            Some(Place::Tag(name, tag)) => self.unread.push(Unread::Tag(name, tag, modified)),
            Some(Place::TagHistory(name, tag, digest)) => {
                let digest = digests.intern(&digest);
                self.repositories.get(name).history.push(HistoryEntry { tag, digest, modified });
            }
            Some(Place::Referrer { name, subject, digest }) => {
                let (subject, digest) = (digests.intern(&subject), digests.intern(&digest));
                let entry = ReferrerEntry { subject, digest, modified };
                self.repositories.get(name).referrers.push(entry);
            }
            Some(Place::Upload(_)) => self.snapshot.uploads.add(size),
            None => {
                self.snapshot
                    .otherwise_linked
                    .extend(linked(key).map(|digest| digests.intern(&digest)));
                self.snapshot.foreign.add(size);
                if self.snapshot.foreign_keys.len() < FOREIGN_KEYS {
                    self.snapshot.foreign_keys.push(key.as_str().to_owned());
                }
            }
        }
    }
}

/// Whether a link of so many bytes holds the digest of its key. One that holds another is of a blob that was pushed under
/// two algorithms and is stored under the one; the texts of those differ in length.
fn holds_itself(digest: &Digest, size: u64) -> bool {
    digest.as_str().len() as u64 == size
}

/// The digest of a key of an unknown kind, if it ends as those of links do.
fn linked(key: &Key) -> Option<Digest> {
    let (rest, hex) = key.as_str().strip_suffix("/link")?.rsplit_once('/')?;
    let (_, algorithm) = rest.rsplit_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

impl Snapshot {
    /// Lists the registry, `parallel` calls at a time: about one for every thousand objects, and one for each tag that was
    /// set since `earlier`, whose numbers of digests stay the same. `begun` is the store's time now. `seen` is told how many
    /// objects there are so far.
    ///
    /// # Errors
    ///
    /// As the store fails.
    pub async fn load(
        objects: &impl Objects,
        parallel: usize,
        mut earlier: Self,
        begun: Seconds,
        seen: impl Fn(u64),
    ) -> Result<Self, StoreError> {
        let mut loader = Loader::new(std::mem::take(&mut earlier.digests), begun);
        for folder in [layout::all_repositories(), layout::all_content()] {
            list_all(objects, folder, parallel, |object| {
                loader.add(&object);
                if loader.snapshot.objects.is_multiple_of(1000) {
                    seen(loader.snapshot.objects);
                }
                Ok(())
            })
            .await?;
        }
        seen(loader.snapshot.objects);
        loader.read(objects, parallel, &earlier).await?;
        Ok(loader.into_snapshot())
    }
}

impl Loader {
    /// A snapshot of nothing yet, in which digests keep their numbers.
    pub fn new(mut digests: Digests, begun: Seconds) -> Self {
        digests.forget_stored();
        let snapshot = Snapshot { digests, begun, ..Snapshot::default() };
        Self { snapshot, ..Self::default() }
    }

    /// Adds an object that an inventory names. What is no key is passed over, as in a listing, and so is what lies outside the
    /// registry's folders.
    pub fn add_listed(&mut self, object: &s3_inventory::ListedObject) {
        let folders = [layout::all_repositories(), layout::all_content()];
        let is_inside = folders.iter().any(|folder| object.key.starts_with(folder.as_str()));
        if let Some(key) = Key::listed(&object.key).filter(|_| is_inside) {
            let (size, modified) = (object.size, seconds(object.modified));
            self.add(&ListedObject { key: &key, size, modified });
        }
    }

    /// Says as of when the snapshot is, by the store's clock.
    pub fn begin_at(&mut self, begun: Seconds) {
        self.snapshot.begun = begun;
    }

    /// Reads the tags that are not known from `earlier`, and the links whose digests their keys don't tell.
    pub async fn read(
        &mut self,
        objects: &impl Objects,
        parallel: usize,
        earlier: &Snapshot,
    ) -> Result<(), StoreError> {
        let mut unread = Vec::new();
        for link in std::mem::take(&mut self.unread) {
            match link.known(earlier) {
                Some(target) => self.resolve(link, target),
                None => unread.push(link),
            }
        }
        let read = stream::iter(unread).map(async |link| {
            let bytes = objects.read(&link.key()).await?;
            Ok::<_, StoreError>((link, bytes))
        });
        let mut read = std::pin::pin!(read.buffer_unordered(parallel));
        while let Some((link, bytes)) = read.try_next().await? {
            // It may be gone by now.
            let Some(bytes) = bytes else {
                continue;
            };
            let text = std::str::from_utf8(&bytes).ok();
            match text.and_then(|text| text.trim().parse().ok()) {
                Some(target) => {
                    if Digest::as_str(&target).len() != bytes.len() {
                        let key = link.key().as_str().to_owned();
                        self.repositories.get(link.name().clone()).padded.push(key);
                    }
                    let target = self.snapshot.digests.intern(&target);
                    self.resolve(link, target);
                }
                None => self.give_up(&link),
            }
        }
        Ok(())
    }

    /// It is known where a link or tag leads.
    fn resolve(&mut self, link: Unread, target: DigestId) {
        let digests = &mut self.snapshot.digests;
        match link {
            Unread::Tag(name, tag, modified) => {
                self.repositories.get(name).tags.push(TagLink { tag, target, modified });
            }
            Unread::Blob(name, digest, modified) => {
                let digest = digests.intern(&digest);
                self.repositories.get(name).blobs.push(Link { digest, target, modified });
            }
            Unread::Manifest(name, digest, modified) => {
                let digest = digests.intern(&digest);
                self.repositories.get(name).manifests.push(Link { digest, target, modified });
            }
        }
    }

    /// A link or tag holds no digest.
    fn give_up(&mut self, link: &Unread) {
        let broken = &mut self.repositories.get(link.name().clone()).broken;
        broken.push(link.key().as_str().to_owned());
        // It is as good as certain that it led to what its key names.
        if let Unread::Blob(_, digest, _) | Unread::Manifest(_, digest, _) = link {
            let digest = self.snapshot.digests.intern(digest);
            self.snapshot.otherwise_linked.push(digest);
        }
    }

    /// The snapshot.
    pub fn into_snapshot(mut self) -> Snapshot {
        self.snapshot.repositories = self.repositories.into_sorted();
        self.snapshot
    }
}

impl Unread {
    fn name(&self) -> &Name {
        let (Self::Tag(name, ..) | Self::Blob(name, ..) | Self::Manifest(name, ..)) = self;
        name
    }

    fn key(&self) -> Key {
        match self {
            Self::Tag(name, tag, _) => layout::tag_link(name, tag),
            Self::Blob(name, digest, _) => layout::blob_link(name, digest),
            Self::Manifest(name, digest, _) => layout::manifest_link(name, digest),
        }
    }

    /// Where a tag leads that has not been written since an earlier snapshot.
    fn known(&self, earlier: &Snapshot) -> Option<DigestId> {
        let Self::Tag(name, tag, modified) = self else {
            return None;
        };
        let known = earlier.repository(name)?.tag(tag)?;
        let is_same = known.modified == *modified && modified + CLOCK_STEP < earlier.begun;
        is_same.then_some(known.target)
    }
}
