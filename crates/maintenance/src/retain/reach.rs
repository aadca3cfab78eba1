//! What can be pulled by way of some manifests: what they list, what refers to it, and so on.
//!
//! A signature may be about one platform of an index, or about another signature. So what a tag on a manifest holds is
//! not that manifest alone. What lists or refers to what is read from the store; here nothing is decided.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::pin::pin;

use futures::stream::TryStreamExt;
use moorage::oci::{Digest, Name};
use moorage::store::{
    Content, ListRequest, Listed, Objects, Place, Store, StoreError, for_each_bounded, layout,
    pages,
};

use super::fallback::FallbackTag;
use crate::manifests::verified;
use crate::references::References;

/// How many manifests are read at a time.
const PARALLEL_READS: usize = 16;

/// The manifests of a repository, as far as they have been looked at.
pub(super) struct Manifests<'a, O> {
    objects: &'a O,
    /// The manifests that refer to one by their `subject`, by that.
    referrers: HashMap<Digest, Vec<Digest>>,
    /// What is known by its fallback tags to be about a manifest.
    attached: HashMap<FallbackTag, Vec<Digest>>,
    read: RefCell<HashMap<Digest, Read>>,
}

/// What a manifest lists.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Read {
    /// These, which may be none.
    Lists(Vec<Digest>),
    /// There is no such manifest.
    Absent,
    /// Nobody knows: it is there and makes no sense.
    Unreadable,
}

/// What was reached.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    /// The manifests, as a tag about one would name it.
    subjects: HashSet<FallbackTag>,
    /// A manifest of which nobody knows what it lists, so that there may be more.
    pub unreadable: Option<Digest>,
}

impl Reached {
    /// Whether what the tag is about was reached.
    pub fn has_subject_of(&self, tag: &FallbackTag) -> bool {
        self.subjects.contains(tag)
    }
}

impl<'a, O: Objects> Manifests<'a, O> {
    /// Lists what refers to what. `attached` is what the repository's fallback tags point at. A call for every thousand
    /// referrers.
    ///
    /// # Errors
    ///
    /// As the store fails.
    pub async fn open(
        objects: &'a O,
        name: &Name,
        attached: Vec<(FallbackTag, Digest)>,
    ) -> Result<Self, StoreError> {
        let mut by_subject: HashMap<FallbackTag, Vec<Digest>> = HashMap::new();
        for (tag, digest) in attached {
            by_subject.entry(tag).or_default().push(digest);
        }
        let referrers = referrers(objects, name).await?;
        Ok(Self { objects, referrers, attached: by_subject, read: RefCell::default() })
    }

    /// What is reached from these manifests, themselves included. A call for each manifest that has not been read.
    ///
    /// # Errors
    ///
    /// As the store fails.
    pub async fn reached(&self, from: Vec<Digest>) -> Result<Reached, StoreError> {
        let roots: HashSet<_> = from.iter().cloned().collect();
        let mut reached = Reached::default();
        let mut seen = HashSet::new();
        let mut next = from;
        while !next.is_empty() {
            next.retain(|digest| seen.insert(digest.clone()));
            self.read(&next).await?;
            let mut found = Vec::new();
            for digest in next {
                match self.read.borrow().get(&digest) {
                    Some(Read::Lists(listed)) => found.extend(listed.iter().cloned()),
                    // An index may list what was never pushed; but a tag on nothing is broken, and what was there may
                    // have listed anything.
                    Some(Read::Absent) if !roots.contains(&digest) => {}
                    _ => reached.unreadable = Some(digest.clone()),
                }
                found.extend(self.referrers.get(&digest).into_iter().flatten().cloned());
                let tag = FallbackTag::about(&digest);
                found.extend(self.attached.get(&tag).into_iter().flatten().cloned());
                reached.subjects.insert(tag);
            }
            next = found;
        }
        Ok(reached)
    }

    /// Reads those that have not been read.
    async fn read(&self, digests: &[Digest]) -> Result<(), StoreError> {
        let unread: Vec<_> = {
            let read = self.read.borrow();
            digests.iter().filter(|digest| !read.contains_key(*digest)).collect()
        };
        for_each_bounded(PARALLEL_READS, unread, async |digest| {
            let content = self.objects.content(digest).await?;
            self.read.borrow_mut().insert(digest.clone(), listed(digest, content));
            Ok(())
        })
        .await
    }
}

/// What the manifest lists.
fn listed(digest: &Digest, content: Content) -> Read {
    let Some(content) = verified(digest, content) else {
        return Read::Absent;
    };
    match content.and_then(|content| References::of(&content)) {
        Ok(references) if references.is_index => Read::Lists(references.digests),
        // What an image has is blobs.
        Ok(_) => Read::Lists(Vec::new()),
        Err(_) => Read::Unreadable,
    }
}

/// The manifests of a repository that refer to others by their `subject`, by that.
async fn referrers(
    objects: &impl Objects,
    name: &Name,
) -> Result<HashMap<Digest, Vec<Digest>>, StoreError> {
    let folder = layout::all_referrers(name);
    let mut found: HashMap<Digest, Vec<Digest>> = HashMap::new();
    let mut pages = pin!(pages(objects, ListRequest::new(&folder, Listed::Objects)));
    while let Some(page) = pages.try_next().await? {
        for place in page.keys.iter().filter_map(Place::of) {
            if let Place::Referrer { subject, digest, .. } = place {
                found.entry(subject).or_default().push(digest);
            }
        }
    }
    Ok(found)
}
