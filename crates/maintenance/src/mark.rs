//! What of a bucket is garbage: a pure function of what it holds.
//!
//! Live are
//! - the manifest of every tag, whether or not the repository still has a link to it;
//! - every other manifest of a repository, unless untagged ones go at some age;
//! - what a live manifest or index refers to, and what refers to a live manifest by its `subject`;
//! - whatever was written of late, and the content of whatever link was.
//!
//! Links are live or not in each repository by itself; content is live if any live link leads to it, or any live manifest
//! refers to it. A repository with a manifest, a link or a tag that can't be read, or with a manifest in use whose content is
//! gone, is live as a whole: nobody knows what that refers to.

use moorage::store::layout::{self, Key};

use crate::manifests::Manifests;
use crate::snapshot::{DigestId, Link, Repository, Snapshot};
use crate::time::Seconds;

/// What counts as old.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    /// What was written at this time or later stays, whatever else there is to say.
    pub young_since: Seconds,
    /// Manifests without a tag go if their links were written before this; never if it is `None`.
    pub untagged_before: Option<Seconds>,
}

/// Something that is garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Garbage {
    /// What it is. Whatever is removed goes in this order.
    pub kind: Kind,
    /// The place of its repository among [`Snapshot::repositories`]; [`NO_REPOSITORY`] for content.
    pub repository: u32,
    /// Its place in the list of its kind there; for content, the number of its digest.
    pub place: u32,
    /// Why.
    pub reason: Reason,
}

/// The place of no repository.
pub const NO_REPOSITORY: u32 = u32::MAX;

/// The kinds of garbage, in the order in which they are removed: a manifest before what it refers to, links before the
/// content that they lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An entry of the history of a tag.
    TagHistory,
    /// The entry of a manifest that refers to another.
    Referrer,
    /// The link to an index.
    IndexLink,
    /// The link to another manifest.
    ManifestLink,
    /// The link to a blob.
    BlobLink,
    /// Content.
    Content,
}

/// The reasons for which something is garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No manifest of the repository refers to the blob.
    Unreferenced,
    /// No tag leads to the manifest, and it is old enough.
    Untagged,
    /// The manifest's content is gone, and no tag leads to it.
    WithoutContent,
    /// No repository has a link to the content that is not garbage itself.
    Unlinked,
    /// The tag is gone whose history it is.
    TagGone,
    /// The manifest is gone that is said to refer to another.
    ReferrerGone,
}

impl Reason {
    /// The reason in words, after "garbage because".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreferenced => "no manifest of the repository refers to it",
            Self::Untagged => "no tag leads to it",
            Self::WithoutContent => "its content is gone, and no tag leads to it",
            Self::Unlinked => "no repository has it any more",
            Self::TagGone => "the tag is gone",
            Self::ReferrerGone => "the manifest that refers is gone",
        }
    }
}

impl Garbage {
    /// The key of the object.
    pub fn key(&self, snapshot: &Snapshot) -> Key {
        let place = self.place as usize;
        if self.kind == Kind::Content {
            return layout::content(&snapshot.digest(self.content_id(snapshot)));
        }
        let repository = &snapshot.repositories[self.repository as usize];
        let name = &repository.name;
        match self.kind {
            Kind::TagHistory => {
                let entry = &repository.history[place];
                layout::tag_history(name, &entry.tag, &snapshot.digest(entry.digest))
            }
            Kind::Referrer => {
                let entry = repository.referrers[place];
                let (subject, digest) =
                    (snapshot.digest(entry.subject), snapshot.digest(entry.digest));
                layout::referrer(name, &subject, &digest)
            }
            Kind::IndexLink | Kind::ManifestLink => {
                layout::manifest_link(name, &snapshot.digest(repository.manifests[place].digest))
            }
            Kind::BlobLink | Kind::Content => {
                layout::blob_link(name, &snapshot.digest(repository.blobs[place].digest))
            }
        }
    }

    /// The digest of the content that it is, or that it leads to.
    pub fn content_id(&self, snapshot: &Snapshot) -> DigestId {
        let place = self.place as usize;
        let repository = || &snapshot.repositories[self.repository as usize];
        match self.kind {
            Kind::Content => snapshot.digests.id(place),
            Kind::TagHistory => repository().history[place].digest,
            Kind::Referrer => repository().referrers[place].digest,
            Kind::IndexLink | Kind::ManifestLink => repository().manifests[place].target,
            Kind::BlobLink => repository().blobs[place].target,
        }
    }

    /// The object's size in bytes: that of content, and 0 for what is as small as a link.
    pub fn size(&self, snapshot: &Snapshot) -> u64 {
        match self.kind {
            Kind::Content => {
                snapshot.digests.stored(self.content_id(snapshot)).map_or(0, |stored| stored.size)
            }
            _ => 0,
        }
    }
}

/// Finds what is garbage, in the order in which it is to be removed. All manifests of the snapshot must have been read.
pub fn mark(snapshot: &Snapshot, manifests: &Manifests, ages: Ages) -> Vec<Garbage> {
    mark_for(snapshot, manifests, ages, None)
}

/// Finds what is garbage and may go, where only that may for whose key `may_go` holds: what a link leads to, or refers to, that
/// has to stay stays as well. Otherwise a manifest would be left without its blobs, and whoever refers to it would not see that.
pub fn mark_within(
    snapshot: &Snapshot,
    manifests: &Manifests,
    ages: Ages,
    may_go: &dyn Fn(&Key) -> bool,
) -> Vec<Garbage> {
    let mut garbage = mark_for(snapshot, manifests, ages, Some(may_go));
    garbage.retain(|garbage| may_go(&garbage.key(snapshot)));
    garbage
}

fn mark_for(
    snapshot: &Snapshot,
    manifests: &Manifests,
    ages: Ages,
    may_go: Option<&dyn Fn(&Key) -> bool>,
) -> Vec<Garbage> {
    let mut contents = vec![false; snapshot.digests.len()];
    for id in &snapshot.otherwise_linked {
        contents[id.index()] = true;
    }
    let mut garbage = Vec::new();
    for (place, repository) in (0..).zip(&snapshot.repositories) {
        let mut marking = Marking::new(snapshot, repository, manifests, ages, &mut contents);
        marking.mark();
        if let Some(may_go) = may_go {
            marking.keep_what_may_not_go(may_go);
        }
        marking.sweep(place, &mut garbage);
    }
    for id in snapshot.digests.ids() {
        if let Some(stored) = snapshot.digests.stored(id)
            && !contents[id.index()]
            && stored.modified < ages.young_since
        {
            // There are no more digests than a number of 32 bits has room for.
            let (kind, reason) = (Kind::Content, Reason::Unlinked);
            let place = id.index() as u32;
            garbage.push(Garbage { kind, repository: NO_REPOSITORY, place, reason });
        }
    }
    garbage.sort_unstable();
    garbage
}

/// The manifests of a repository that a tag leads to, or an index, and whose content is gone: nobody knows what they need. What
/// was written since `young_since` may still be on its way.
pub fn lost_manifests(
    repository: &Repository,
    manifests: &Manifests,
    young_since: Seconds,
) -> Vec<DigestId> {
    let is_lost = |target: &DigestId| {
        manifests.get(*target).is_none() && manifests.unreadable(*target).is_none()
    };
    let old = |modified: Seconds| modified < young_since;
    let tags = repository.tags.iter().filter(|tag| old(tag.modified)).map(|tag| tag.target);
    let mut lost: Vec<_> = tags.filter(is_lost).collect();
    let mut links = repository.manifests.iter().filter(|link| old(link.modified));
    if links.any(|link| is_lost(&link.target)) {
        // Only now: to look at all references takes its time.
        for manifest in repository.manifests.iter().filter_map(|link| manifests.get(link.target)) {
            let children =
                manifest.references.iter().filter_map(|child| repository.manifest(*child));
            let children = children.map(|place| &repository.manifests[place]);
            let targets = children.filter(|link| old(link.modified)).map(|link| link.target);
            lost.extend(targets.filter(is_lost));
        }
    }
    lost.sort_unstable();
    lost.dedup();
    lost
}

/// Whether it can't be told what a repository needs.
fn is_unclear(repository: &Repository, manifests: &Manifests, young_since: Seconds) -> bool {
    let links = repository.manifests.iter().map(|link| link.target);
    let mut targets = links.chain(repository.tags.iter().map(|tag| tag.target));
    !repository.broken.is_empty()
        || targets.any(|target| manifests.unreadable(target).is_some())
        || !lost_manifests(repository, manifests, young_since).is_empty()
}

/// One repository while it is marked.
struct Marking<'a> {
    snapshot: &'a Snapshot,
    repository: &'a Repository,
    manifests: &'a Manifests,
    ages: Ages,
    /// Whether it can't be told what it needs, so that all of it is live.
    is_unclear: bool,
    /// Which links to manifests are live.
    live_manifests: Vec<bool>,
    /// Which links to blobs are live.
    live_blobs: Vec<bool>,
    /// What is live of the content of all repositories.
    contents: &'a mut [bool],
    /// The manifests that have a subject, by that: who refers to it, by the place of its link.
    by_subject: Vec<(DigestId, usize)>,
    /// What has been found to be live, and not been looked at yet.
    found: Vec<DigestId>,
}

impl<'a> Marking<'a> {
    fn new(
        snapshot: &'a Snapshot,
        repository: &'a Repository,
        manifests: &'a Manifests,
        ages: Ages,
        contents: &'a mut [bool],
    ) -> Self {
        let links = (0..).zip(&repository.manifests);
        let subject = |link: &Link| manifests.get(link.target)?.subject;
        let mut by_subject: Vec<_> =
            links.filter_map(|(place, link)| Some((subject(link)?, place))).collect();
        // What is noted of a manifest that can't be read counts as well.
        by_subject.extend(
            repository
                .referrers
                .iter()
                .filter_map(|entry| Some((entry.subject, repository.manifest(entry.digest)?))),
        );
        by_subject.sort_unstable();
        Self {
            snapshot,
            repository,
            manifests,
            ages,
            is_unclear: is_unclear(repository, manifests, ages.young_since),
            live_manifests: vec![false; repository.manifests.len()],
            live_blobs: vec![false; repository.blobs.len()],
            contents,
            by_subject,
            found: Vec::new(),
        }
    }

    fn mark(&mut self) {
        let repository = self.repository;
        if self.is_unclear {
            let links = repository.manifests.iter().chain(&repository.blobs);
            for link in links {
                self.keep_content(link.digest);
                self.keep_content(link.target);
                self.refer(link.target);
            }
            for entry in &repository.history {
                self.keep_content(entry.digest);
            }
            self.live_manifests.fill(true);
            self.live_blobs.fill(true);
        }
        // Each once: many tags may point at a manifest that refers to much.
        self.found.extend(repository.tags.iter().map(|tag| tag.target));
        self.found.sort_unstable();
        self.found.dedup();
        for (place, link) in repository.manifests.iter().enumerate() {
            if self.is_root(link) {
                self.find_manifest(place);
            }
        }
        for (place, link) in repository.blobs.iter().enumerate() {
            if self.is_young(link.modified) {
                self.find_blob(place);
            }
        }
        self.follow();
    }

    /// Links that may not go are live, and what they lead to.
    fn keep_what_may_not_go(&mut self, may_go: &dyn Fn(&Key) -> bool) {
        let Repository { name, manifests, blobs, .. } = self.repository;
        for (place, link) in manifests.iter().enumerate() {
            let key = || layout::manifest_link(name, &self.snapshot.digest(link.digest));
            if !self.live_manifests[place] && !may_go(&key()) {
                self.find_manifest(place);
                self.follow();
            }
        }
        for (place, link) in blobs.iter().enumerate() {
            let key = || layout::blob_link(name, &self.snapshot.digest(link.digest));
            if !self.live_blobs[place] && !may_go(&key()) {
                self.find_blob(place);
            }
        }
    }

    /// Looks at all that has been found, and at what is found by that.
    fn follow(&mut self) {
        while let Some(digest) = self.found.pop() {
            self.look_at(digest);
        }
    }

    fn is_young(&self, modified: Seconds) -> bool {
        modified >= self.ages.young_since
    }

    /// Whether a manifest is live whatever refers to it.
    fn is_root(&self, link: &Link) -> bool {
        if self.is_young(link.modified) {
            return true;
        }
        let is_there = self.snapshot.digests.stored(link.target).is_some();
        is_there && self.ages.untagged_before.is_none_or(|before| link.modified >= before)
    }

    fn find_manifest(&mut self, place: usize) {
        if !std::mem::replace(&mut self.live_manifests[place], true) {
            self.found.push(self.repository.manifests[place].digest);
        }
    }

    fn find_blob(&mut self, place: usize) {
        self.live_blobs[place] = true;
        let link = self.repository.blobs[place];
        self.keep_content(link.target);
        self.keep_content(link.digest);
    }

    fn keep_content(&mut self, digest: DigestId) {
        self.contents[digest.index()] = true;
    }

    /// A manifest is live, linked or not: so is what it refers to, and what refers to it.
    fn look_at(&mut self, digest: DigestId) {
        self.keep_content(digest);
        let mut target = digest;
        if let Some(place) = self.repository.manifest(digest) {
            self.live_manifests[place] = true;
            target = self.repository.manifests[place].target;
            self.keep_content(target);
        }
        self.refer(target);
        let from = self.by_subject.partition_point(|(subject, _)| *subject < digest);
        for at in from..self.by_subject.len() {
            let (subject, place) = self.by_subject[at];
            if subject != digest {
                break;
            }
            self.find_manifest(place);
        }
    }

    /// What the manifest with this content refers to is live.
    fn refer(&mut self, target: DigestId) {
        let manifests = self.manifests;
        let Some(manifest) = manifests.get(target) else {
            return;
        };
        for reference in &manifest.references {
            self.keep_content(*reference);
            if let Some(place) = self.repository.blob(*reference) {
                self.find_blob(place);
            }
            if let Some(place) = self.repository.manifest(*reference) {
                self.find_manifest(place);
            }
        }
    }

    /// Notes what of the repository is garbage.
    fn sweep(&self, repository: u32, garbage: &mut Vec<Garbage>) {
        let Repository { manifests, blobs, history, referrers, .. } = self.repository;
        let mut note = |kind, place: usize, reason| {
            // A repository has no more objects than a number of 32 bits has room for.
            garbage.push(Garbage { kind, repository, place: place as u32, reason });
        };
        for (place, link) in manifests.iter().enumerate() {
            if self.live_manifests[place] {
                continue;
            }
            let manifest = self.manifests.get(link.target);
            let is_index = manifest.is_some_and(|manifest| manifest.is_index);
            let kind = if is_index { Kind::IndexLink } else { Kind::ManifestLink };
            let is_there = self.snapshot.digests.stored(link.target).is_some();
            let reason = if is_there { Reason::Untagged } else { Reason::WithoutContent };
            note(kind, place, reason);
        }
        for (place, live) in self.live_blobs.iter().enumerate() {
            if !live && !self.is_young(blobs[place].modified) {
                note(Kind::BlobLink, place, Reason::Unreferenced);
            }
        }
        if self.is_unclear {
            return;
        }
        for (place, entry) in history.iter().enumerate() {
            if self.repository.tag(&entry.tag).is_none() && !self.is_young(entry.modified) {
                note(Kind::TagHistory, place, Reason::TagGone);
            }
        }
        for (place, entry) in referrers.iter().enumerate() {
            let manifest = self.repository.manifest(entry.digest);
            let is_live = manifest.is_some_and(|place| self.live_manifests[place]);
            if !is_live && !self.is_young(entry.modified) {
                note(Kind::Referrer, place, Reason::ReferrerGone);
            }
        }
    }
}
