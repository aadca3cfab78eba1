//! What a check finds, and how bad each is.

use moorage::oci::{Digest, Tag};
use moorage::store::Place;
use moorage::store::layout::{self, Key};

use crate::snapshot::{DigestId, Repository, Snapshot, Totals};

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// It takes room, and harms nobody.
    Note,
    /// It may be meant so, or is noticed by few.
    Warning,
    /// A pull fails.
    Error,
}

impl Level {
    /// The level's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A link or a tag holds no digest.
    LinkBroken {
        /// Its key.
        key: String,
    },
    /// A tag points at a manifest that the repository does not have.
    TagWithoutManifest,
    /// The content of a manifest is gone.
    ManifestMissing,
    /// The content of a manifest makes no sense, or is not what its digest says.
    ManifestUnreadable {
        /// Why.
        why: String,
    },
    /// A manifest needs a blob that the repository does not have.
    BlobNotLinked,
    /// A manifest needs a blob whose content is gone.
    BlobMissing,
    /// Content has another size than a manifest says.
    SizeDiffers {
        /// What the manifest says, in bytes.
        stated: u64,
        /// What there is, in bytes.
        found: u64,
    },
    /// Content is not what its digest says, or can't be read.
    ContentDamaged {
        /// Why it can't be read; `None` if it can.
        why: Option<String>,
    },
    /// A link leads to other content than its key says.
    LinkMisleads {
        /// Its key.
        key: String,
        /// Where it leads.
        found: Digest,
    },
    /// An index lists what the repository does not have.
    ChildMissing,
    /// A link leads to a blob whose content is gone, and no manifest needs it.
    LinkDangling,
    /// An entry leads from a manifest to one that refers to it, which the repository does not have.
    ReferrerWithoutManifest,
    /// Nothing leads from a manifest to one that refers to it.
    ReferrerMissing,
    /// The entry of a manifest that refers to another is not its descriptor.
    ReferrerDamaged,
    /// A tag is gone, and its history is there.
    HistoryWithoutTag,
    /// No repository has the content.
    ContentUnlinked {
        /// Its size in bytes.
        size: u64,
    },
    /// There are objects that no registry writes.
    Foreign {
        /// How many, and how large.
        totals: Totals,
        /// The key of one.
        key: String,
    },
}

impl Problem {
    /// How bad it is.
    pub fn level(&self) -> Level {
        match self {
            Self::LinkBroken { .. }
            | Self::TagWithoutManifest
            | Self::ManifestMissing
            | Self::ManifestUnreadable { .. }
            | Self::BlobNotLinked
            | Self::BlobMissing
            | Self::SizeDiffers { .. }
            | Self::ContentDamaged { .. }
            | Self::LinkMisleads { .. } => Level::Error,
            Self::ChildMissing
            | Self::LinkDangling
            | Self::ReferrerWithoutManifest
            | Self::ReferrerMissing
            | Self::ReferrerDamaged => Level::Warning,
            Self::HistoryWithoutTag | Self::ContentUnlinked { .. } | Self::Foreign { .. } => {
                Level::Note
            }
        }
    }

    /// Its name for programs, which stays the same.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::LinkBroken { .. } => "link-broken",
            Self::TagWithoutManifest => "tag-without-manifest",
            Self::ManifestMissing => "manifest-missing",
            Self::ManifestUnreadable { .. } => "manifest-unreadable",
            Self::BlobNotLinked => "blob-not-linked",
            Self::BlobMissing => "blob-missing",
            Self::SizeDiffers { .. } => "size-differs",
            Self::ContentDamaged { .. } => "content-damaged",
            Self::LinkMisleads { .. } => "link-misleads",
            Self::ChildMissing => "child-missing",
            Self::LinkDangling => "link-dangling",
            Self::ReferrerWithoutManifest => "referrer-without-manifest",
            Self::ReferrerMissing => "referrer-missing",
            Self::ReferrerDamaged => "referrer-damaged",
            Self::HistoryWithoutTag => "history-without-tag",
            Self::ContentUnlinked { .. } => "content-unlinked",
            Self::Foreign { .. } => "foreign-objects",
        }
    }
}

/// Something that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub problem: Problem,
    /// The place of its repository among [`Snapshot::repositories`], if it is one repository's.
    pub repository: Option<u32>,
    /// The tag that is wrong.
    pub tag: Option<Tag>,
    /// The digest of what is missing or wrong.
    pub digest: Option<DigestId>,
    /// The manifests that need it; for an entry of a referrer, the manifest that is referred to.
    pub manifests: Vec<DigestId>,
    /// The tags whose pulls need it.
    pub affected: Affected,
}

/// Tags that something is needed for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Affected {
    /// The first few.
    pub tags: Vec<Tag>,
    /// How many there are.
    pub count: usize,
}

impl Finding {
    /// Something that is wrong in a repository, or in none.
    pub fn new(problem: Problem, repository: Option<u32>, digest: Option<DigestId>) -> Self {
        let affected = Affected::default();
        Self { problem, repository, tag: None, digest, manifests: Vec::new(), affected }
    }

    /// How bad it is.
    pub fn level(&self) -> Level {
        match self.problem {
            // Nobody pulls what no repository has.
            Problem::ContentDamaged { .. } if self.repository.is_none() => Level::Warning,
            _ => self.problem.level(),
        }
    }

    /// Its repository.
    pub fn repository<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s Repository> {
        snapshot.repositories.get(self.repository? as usize)
    }

    /// The digest under which the content is stored that is missing or wrong: that of the link, which mostly is the same.
    pub fn content(&self, snapshot: &Snapshot) -> Option<Digest> {
        let digest = self.digest?;
        let link = self.repository(snapshot).and_then(|repository| {
            let blob = repository.blob(digest).map(|place| repository.blobs[place]);
            blob.or_else(|| repository.manifest(digest).map(|place| repository.manifests[place]))
        });
        Some(snapshot.digest(link.map_or(digest, |link| link.target)))
    }

    /// The key of the object that is missing or wrong.
    pub fn key(&self, snapshot: &Snapshot) -> Option<Key> {
        let name = self.repository(snapshot).map(|repository| &repository.name);
        let digest = || self.digest.map(|digest| snapshot.digest(digest));
        match &self.problem {
            Problem::LinkBroken { key }
            | Problem::LinkMisleads { key, .. }
            | Problem::Foreign { key, .. } => Key::listed(key),
            Problem::TagWithoutManifest | Problem::ChildMissing => {
                Some(layout::manifest_link(name?, &digest()?))
            }
            Problem::BlobNotLinked | Problem::LinkDangling => {
                Some(layout::blob_link(name?, &digest()?))
            }
            Problem::ManifestMissing
            | Problem::ManifestUnreadable { .. }
            | Problem::BlobMissing
            | Problem::SizeDiffers { .. }
            | Problem::ContentDamaged { .. }
            | Problem::ContentUnlinked { .. } => Some(layout::content(&self.content(snapshot)?)),
            Problem::ReferrerWithoutManifest
            | Problem::ReferrerMissing
            | Problem::ReferrerDamaged => {
                let subject = snapshot.digest(*self.manifests.first()?);
                Some(layout::referrer(name?, &subject, &digest()?))
            }
            Problem::HistoryWithoutTag => {
                Some(layout::tag_history(name?, self.tag.as_ref()?, &digest()?))
            }
        }
    }

    /// What a link or tag that holds no digest is of.
    pub fn broken_place(&self) -> Option<Place> {
        match &self.problem {
            Problem::LinkBroken { key } | Problem::LinkMisleads { key, .. } => {
                Place::of(&Key::listed(key)?)
            }
            _ => None,
        }
    }
}
