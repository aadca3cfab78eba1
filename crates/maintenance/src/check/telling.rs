//! A finding in words: what is wrong, what that means for a pull, and what to do.

use moorage::store::Place;

use super::finding::{Finding, Problem};
use crate::snapshot::Snapshot;

/// A finding in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Where: a repository, with a tag if it is about one.
    pub place: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What it means.
    pub means: String,
    /// What to do.
    pub advice: String,
    /// What can't be pulled, or not all of it: `repository:tag`, the first few; by a digest where no tag leads.
    pub references: Vec<String>,
    /// The key of the object that is missing or wrong.
    pub key: Option<String>,
}

/// Says what a finding is.
pub fn told(snapshot: &Snapshot, finding: &Finding) -> Told {
    let words = Words {
        finding,
        name: finding.repository(snapshot).map(|repository| repository.name.to_string()),
        digest: digest(snapshot, finding),
        manifest: finding.manifests.first().map(|id| snapshot.digest(*id).to_string()),
        key: finding.key(snapshot).map(|key| key.as_str().to_owned()).unwrap_or_default(),
        references: references(snapshot, finding),
    };
    let place = words.name.as_ref().map(|name| match &finding.tag {
        Some(tag) => format!("{name}:{tag}"),
        None => name.clone(),
    });
    let (what, means, advice) = (words.what(), words.means(), words.advice());
    let key = Some(words.key).filter(|key| !key.is_empty());
    Told { place, what, means, advice, references: words.references, key }
}

/// The digest of what it is about; empty for a tag that holds none.
fn digest(snapshot: &Snapshot, finding: &Finding) -> String {
    let digest = finding.digest.map(|id| snapshot.digest(id));
    let digest = digest.or_else(|| match finding.broken_place()? {
        Place::BlobLink(_, digest) | Place::ManifestLink(_, digest) => Some(digest),
        _ => None,
    });
    digest.map(|digest| digest.to_string()).unwrap_or_default()
}

/// What a pull would name that is affected.
fn references(snapshot: &Snapshot, finding: &Finding) -> Vec<String> {
    let Some(repository) = finding.repository(snapshot) else {
        return Vec::new();
    };
    let name = &repository.name;
    if !finding.affected.tags.is_empty() {
        return finding.affected.tags.iter().map(|tag| format!("{name}:{tag}")).collect();
    }
    let is_manifest = |id: &_| repository.manifest(*id).is_some();
    let needed_by = finding.manifests.iter().copied().find(is_manifest);
    let manifest = needed_by.or(finding.digest.filter(is_manifest));
    manifest.map(|id| format!("{name}@{}", snapshot.digest(id))).into_iter().collect()
}

/// What the words are made of.
struct Words<'a> {
    finding: &'a Finding,
    name: Option<String>,
    digest: String,
    manifest: Option<String>,
    key: String,
    references: Vec<String>,
}

impl Words<'_> {
    fn what(&self) -> String {
        let (digest, key) = (&self.digest, &self.key);
        match &self.finding.problem {
            Problem::LinkBroken { .. } => match self.finding.broken_place() {
                Some(Place::Tag(..)) => format!("the tag holds no digest ({key})"),
                _ => format!("the link of {digest} holds none ({key})"),
            },
            Problem::TagWithoutManifest => {
                format!("the tag points at {digest}, which the repository does not have")
            }
            Problem::ManifestMissing => format!("the content of the manifest {digest} is gone"),
            Problem::ManifestUnreadable { why } => {
                format!("the manifest {digest} can't be read: {why}")
            }
            Problem::BlobNotLinked => {
                format!(
                    "the repository does not have the blob {digest}, which {} needs",
                    self.needed_by()
                )
            }
            Problem::BlobMissing => {
                format!(
                    "the content of the blob {digest} is gone, which {} needs",
                    self.needed_by()
                )
            }
            Problem::SizeDiffers { stated, found } => {
                format!("{digest} has {found} bytes, and {} says {stated}", self.needed_by())
            }
            Problem::ContentDamaged { why: Some(why) } => {
                format!("the content of {digest} can't be read: {why}")
            }
            Problem::ContentDamaged { why: None } => {
                format!("the content of {digest} is not what its digest says")
            }
            Problem::LinkMisleads { found, .. } => {
                format!("the link of {digest} leads to {found}, which is something else ({key})")
            }
            Problem::ChildMissing => {
                format!("{} lists {digest}, which the repository does not have", self.needed_by())
            }
            Problem::LinkDangling => {
                format!("the content of the blob {digest} is gone, and no manifest needs it")
            }
            Problem::ReferrerWithoutManifest => format!(
                "{digest} is noted to refer to {}, and the repository does not have it",
                self.subject()
            ),
            Problem::ReferrerMissing => {
                format!("{digest} refers to {}, and is not noted there", self.subject())
            }
            Problem::ReferrerDamaged => format!(
                "what is noted of {digest}, which refers to {}, is not its descriptor ({key})",
                self.subject()
            ),
            Problem::HistoryWithoutTag => "the tag is gone, and its history is there".to_owned(),
            Problem::ContentUnlinked { size } => {
                format!("no repository has the content {digest}, {size} bytes")
            }
            Problem::Foreign { totals, .. } => format!(
                "{} objects among the registry's, {} bytes, are of a kind that Moorage does not know, such as {key}",
                totals.objects, totals.bytes
            ),
        }
    }

    fn means(&self) -> String {
        let pulls = self.pulls();
        match &self.finding.problem {
            Problem::TagWithoutManifest | Problem::ManifestMissing => {
                format!("{pulls} fail with MANIFEST_UNKNOWN")
            }
            Problem::LinkBroken { .. } | Problem::ManifestUnreadable { .. } => {
                format!("{pulls} fail with UNKNOWN (500)")
            }
            Problem::BlobNotLinked | Problem::BlobMissing => {
                format!("{pulls} fail with BLOB_UNKNOWN")
            }
            Problem::SizeDiffers { .. } => {
                format!("{pulls} break off: clients refuse what has another size")
            }
            Problem::ContentDamaged { .. } if self.name.is_none() => "nobody pulls it".to_owned(),
            Problem::ContentDamaged { why: Some(_) } => {
                format!("{pulls} fail with UNKNOWN (500) or break off")
            }
            Problem::ContentDamaged { why: None } | Problem::LinkMisleads { .. } => {
                format!("{pulls} break off: clients refuse what its digest does not match")
            }
            Problem::ChildMissing => format!(
                "{pulls} fail with MANIFEST_UNKNOWN on the platform that it is for, and work on others"
            ),
            Problem::LinkDangling => {
                "no image misses it; whoever asks for it by its digest gets BLOB_UNKNOWN".to_owned()
            }
            Problem::ReferrerWithoutManifest => {
                "it is listed among the referrers, and can't be pulled".to_owned()
            }
            Problem::ReferrerMissing | Problem::ReferrerDamaged => {
                "whoever looks for what refers to that, such as its signatures, does not find it"
                    .to_owned()
            }
            Problem::HistoryWithoutTag => {
                format!("the tag is listed, and {pulls} fail with MANIFEST_UNKNOWN, as they should")
            }
            Problem::ContentUnlinked { .. } => "it takes room".to_owned(),
            Problem::Foreign { .. } => "they take room, and are left alone".to_owned(),
        }
    }

    fn advice(&self) -> String {
        let key = &self.key;
        match &self.finding.problem {
            Problem::LinkBroken { .. } => match self.finding.broken_place() {
                Some(Place::Tag(..)) => "push the tag again".to_owned(),
                Some(Place::ManifestLink(_, digest) | Place::BlobLink(_, digest)) => {
                    format!("write {digest} into that object, without a line's end")
                }
                _ => format!("remove {key}"),
            },
            Problem::TagWithoutManifest | Problem::BlobNotLinked => {
                "push it again; or delete the tag, if it was meant to be gone".to_owned()
            }
            Problem::ManifestMissing | Problem::BlobMissing => {
                format!(
                    "push it again, or restore {key}; after a collection, moorage gc --list-runs tells what can be undone"
                )
            }
            Problem::ManifestUnreadable { .. } => {
                format!("restore {key}; or delete the manifest by its digest, and push it again")
            }
            Problem::SizeDiffers { .. } | Problem::ContentDamaged { .. } if self.name.is_some() => {
                format!("restore {key}; or remove it, and push what needs it again")
            }
            Problem::LinkMisleads { .. } => {
                format!("remove {key}, and push what needs it again")
            }
            Problem::ChildMissing => {
                "nothing, if the index was pushed without it on purpose; otherwise push it again"
                    .to_owned()
            }
            Problem::ReferrerMissing | Problem::ReferrerDamaged => {
                "push it again, with its manifest as it is".to_owned()
            }
            Problem::Foreign { .. } => "nothing, or remove them by hand".to_owned(),
            Problem::SizeDiffers { .. }
            | Problem::ContentDamaged { .. }
            | Problem::LinkDangling
            | Problem::ReferrerWithoutManifest
            | Problem::HistoryWithoutTag
            | Problem::ContentUnlinked { .. } => "nothing: moorage gc removes it".to_owned(),
        }
    }

    /// What needs it: the first manifest, and how many more.
    fn needed_by(&self) -> String {
        let manifest = self.manifest.as_deref().unwrap_or("a manifest");
        match self.finding.manifests.len() {
            0 | 1 => format!("the manifest {manifest}"),
            2 => format!("the manifest {manifest} and another"),
            more => format!("the manifest {manifest} and {} more", more - 1),
        }
    }

    fn subject(&self) -> &str {
        self.manifest.as_deref().unwrap_or("a manifest")
    }

    /// The pulls that it is about.
    fn pulls(&self) -> String {
        let told = self.references.join(", ");
        match self.finding.affected.count.saturating_sub(self.finding.affected.tags.len()) {
            _ if told.is_empty() => match &self.name {
                Some(name) => format!("pulls of {name}@{}", self.digest),
                None => format!("pulls of {}", self.digest),
            },
            0 => format!("pulls of {told}"),
            more => format!("pulls of {told} and {more} more"),
        }
    }
}
