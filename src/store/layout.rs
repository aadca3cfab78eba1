//! Which object of the bucket holds what: every key there is, in this one file.
//!
//! The layout is that of the CNCF Distribution registry, so either can serve what the other wrote.
//! A `link` object holds a digest as text, without a newline. All keys lie below
//! `docker/registry/v2/`, and that below the configured prefix:
//!
//! | what | key |
//! | --- | --- |
//! | content of a blob or manifest | `blobs/<algorithm>/<first two hex>/<hex>/data` |
//! | a blob is in a repository | `repositories/<name>/_layers/<algorithm>/<hex>/link` |
//! | a manifest is in a repository | `repositories/<name>/_manifests/revisions/<algorithm>/<hex>/link` |
//! | a tag | `repositories/<name>/_manifests/tags/<tag>/current/link` |
//! | a tag's history | `repositories/<name>/_manifests/tags/<tag>/index/<algorithm>/<hex>/link` |
//! | a referrer | `repositories/<name>/_manifests/referrers/<algorithm>/<subject's hex>/<algorithm>/<hex>/link` |
//! | when an upload session began | `repositories/<name>/_uploads/<id>/startedat` |
//! | a chunk of it | `repositories/<name>/_uploads/<id>/chunks/<chunk's id>` |
//! | names of earlier chunks | `repositories/<name>/_uploads/<id>/lists/<list's id>` |
//! | how far it has got | `repositories/<name>/_uploads/<id>/progress/<offset, 20 digits>` |
//!
//! A referrer's object holds its descriptor as JSON; `distribution` knows no referrers and passes it
//! over. Outside of all that lies `moorage/`: what is said of the store itself, of collections of garbage, and what those removed.
//!
//! A link may hold another digest than the one in its key: content that was pushed under a second
//! algorithm is stored once, under the first.

use std::cell::OnceCell;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use super::names::FolderName;
use crate::oci::{Algorithm, Digest, Name, Tag, UploadId};

/// An object's key, relative to the configured prefix.
#[derive(Debug, Clone)]
pub struct Key {
    kind: Kind,
    /// Written when it is needed: what is answered from memory is found by its kind.
    text: OnceCell<String>,
}

/// The kinds of object, as far as that matters to whoever keeps a copy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Content under its digest, which never changes.
    Content(Digest),
    /// That a repository has a blob.
    BlobLink(Name, Digest),
    /// That a repository has a manifest.
    ManifestLink(Name, Digest),
    /// The link of a tag.
    Tag(Name, Tag),
    /// What was noted of a manifest that refers to a subject: the subject's digest, and the manifest's own.
    Referrer(Name, Digest, Digest),
    /// Anything else, or nobody knows: what a listing named. It has this key.
    Other(String),
}

impl Key {
    /// The key that a listing named; `None` for one that no registry wrote. An empty segment stands only
    /// at the end, where a folder has it.
    ///
    /// Nobody looks at what it is of, so it is not for writing or removing links and tags: those who keep
    /// copies of them would not know. Their keys are to be made anew.
    pub fn listed(text: &str) -> Option<Self> {
        let is_unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        let folder = text.strip_suffix('/').unwrap_or(text);
        let mut segments = folder.split('/');
        let is_key =
            segments.all(|s| !matches!(s, "" | "." | "..") && s.bytes().all(is_unreserved));
        is_key.then(|| Self::other(text.to_owned()))
    }

    /// A key as it is given.
    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        Self::other(text.to_owned())
    }

    fn new(kind: Kind) -> Self {
        Self { kind, text: OnceCell::new() }
    }

    fn other(text: String) -> Self {
        Self::new(Kind::Other(text))
    }

    /// The key of a folder in this one.
    pub(super) fn folder(&self, name: &impl FolderName) -> Self {
        Self::other(format!("{}{}/", self.as_str(), name.as_str()))
    }

    /// The kind of the object.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The key as text. It consists of unreserved characters (RFC 3986, section 2.3) and slashes, so
    /// it needs no encoding in a URL.
    pub fn as_str(&self) -> &str {
        match &self.kind {
            Kind::Other(text) => text,
            kind => self.text.get_or_init(|| kind.key()),
        }
    }
}

impl Kind {
    fn key(&self) -> String {
        match self {
            Self::Content(digest) => {
                let (algorithm, hex) = (digest.algorithm().as_str(), digest.hex());
                let folder = &hex[..2];
                ["docker/registry/v2/blobs/", algorithm, "/", folder, "/", hex, "/data"].concat()
            }
            Self::BlobLink(name, digest) => {
                let (algorithm, hex) = (digest.algorithm().as_str(), digest.hex());
                text_in_repository(name, &["_layers/", algorithm, "/", hex, "/link"])
            }
            Self::ManifestLink(name, digest) => {
                let (algorithm, hex) = (digest.algorithm().as_str(), digest.hex());
                text_in_repository(name, &["_manifests/revisions/", algorithm, "/", hex, "/link"])
            }
            Self::Tag(name, tag) => {
                text_in_repository(name, &["_manifests/tags/", tag.as_str(), "/current/link"])
            }
            Self::Referrer(name, subject, digest) => {
                format!("{}{}", referrers(name, subject).as_str(), within_referrers(digest))
            }
            Self::Other(key) => key.clone(),
        }
    }

    /// The repository whose object it is, if a copy of it may be out of date.
    pub fn repository(&self) -> Option<&Name> {
        match self {
            Self::BlobLink(name, _) | Self::ManifestLink(name, _) | Self::Tag(name, _) => {
                Some(name)
            }
            Self::Content(_) | Self::Referrer(..) | Self::Other(_) => None,
        }
    }

    /// How much memory its names take, in bytes.
    pub fn size(&self) -> usize {
        match self {
            Self::Content(digest) => digest.as_str().len(),
            Self::BlobLink(name, digest) | Self::ManifestLink(name, digest) => {
                name.as_str().len() + digest.as_str().len()
            }
            Self::Tag(name, tag) => name.as_str().len() + tag.as_str().len(),
            Self::Referrer(name, subject, digest) => {
                name.as_str().len() + subject.as_str().len() + digest.as_str().len()
            }
            Self::Other(key) => key.len(),
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

/// `docker/registry/v2/blobs/<algorithm>/<first two hex>/<hex>/data`
pub fn content(digest: &Digest) -> Key {
    Key::new(Kind::Content(digest.clone()))
}

/// The prefix of the keys of all content.
pub fn all_content() -> Key {
    Key::other("docker/registry/v2/blobs/".to_owned())
}

/// `docker/registry/v2/repositories/<name>/_layers/<algorithm>/<hex>/link`
pub fn blob_link(name: &Name, digest: &Digest) -> Key {
    Key::new(Kind::BlobLink(name.clone(), digest.clone()))
}

/// `docker/registry/v2/repositories/<name>/_manifests/revisions/<algorithm>/<hex>/link`
pub fn manifest_link(name: &Name, digest: &Digest) -> Key {
    Key::new(Kind::ManifestLink(name.clone(), digest.clone()))
}

/// `docker/registry/v2/repositories/<name>/_manifests/tags/<tag>/current/link`
pub fn tag_link(name: &Name, tag: &Tag) -> Key {
    Key::new(Kind::Tag(name.clone(), tag.clone()))
}

/// `docker/registry/v2/repositories/<name>/_manifests/tags/<tag>/index/<algorithm>/<hex>/link`
pub fn tag_history(name: &Name, tag: &Tag, digest: &Digest) -> Key {
    let (algorithm, hex) = (digest.algorithm().as_str(), digest.hex());
    in_repository(
        name,
        &["_manifests/tags/", tag.as_str(), "/index/", algorithm, "/", hex, "/link"],
    )
}

/// The digest of a [`tag_history`], if `key` is one of that tag.
pub fn digest_of_tag_history(name: &Name, tag: &Tag, key: &Key) -> Option<Digest> {
    let within = key.as_str().strip_prefix(self::tag(name, tag).as_str())?;
    let digest = within.strip_prefix("index/")?.strip_suffix("/link")?;
    digest.replacen('/', ":", 1).parse().ok()
}

/// `docker/registry/v2/repositories/<name>/_manifests/referrers/<algorithm>/<subject's
/// hex>/<algorithm>/<hex>/link`
pub fn referrer(name: &Name, subject: &Digest, digest: &Digest) -> Key {
    Key::new(Kind::Referrer(name.clone(), subject.clone(), digest.clone()))
}

/// The prefix of the keys of all tags of a repository; the tag and a slash come next.
pub fn tags(name: &Name) -> Key {
    in_repository(name, &["_manifests/tags/"])
}

/// The folder of all repositories; a name's first component and a slash come next.
pub fn all_repositories() -> Key {
    Key::other("docker/registry/v2/repositories/".to_owned())
}

/// The folder of a repository, with what is nested in it: the next component of a longer name and a
/// slash come next, or [`own`].
pub fn repository(name: &Name) -> Key {
    in_repository(name, &[""])
}

/// The prefix of all keys of a repository itself, and of none of a repository that is nested in it.
pub fn own(name: &Name) -> Key {
    in_repository(name, &["_"])
}

/// The prefix of the keys of a repository's links to blobs.
pub fn blob_links(name: &Name) -> Key {
    in_repository(name, &["_layers/"])
}

/// The prefix of the keys of a repository's links to blobs with digests of this algorithm.
pub fn blob_links_of(name: &Name, algorithm: Algorithm) -> Key {
    in_repository(name, &["_layers/", algorithm.as_str(), "/"])
}

/// The digest of a [`blob_link`], if `key` is one of this repository.
pub fn digest_of_blob_link(name: &Name, key: &Key) -> Option<Digest> {
    let within = key.as_str().strip_prefix(blob_links(name).as_str())?;
    within.strip_suffix("/link")?.replacen('/', ":", 1).parse().ok()
}

/// The prefix of the keys of a repository's manifests, tags and referrers.
pub fn manifests(name: &Name) -> Key {
    in_repository(name, &["_manifests/"])
}

/// The prefix of the keys of all referrers of a subject; what [`within_referrers`] gives comes next.
pub fn referrers(name: &Name, subject: &Digest) -> Key {
    let (algorithm, hex) = (subject.algorithm().as_str(), subject.hex());
    in_repository(name, &[&format!("_manifests/referrers/{algorithm}/{hex}/")])
}

/// The prefix of the keys of all referrers of a repository, whatever their subjects.
pub fn all_referrers(name: &Name) -> Key {
    in_repository(name, &["_manifests/referrers/"])
}

/// `<algorithm>/<hex>/link`: where a referrer lies among those of its subject. Sorted by that,
/// referrers are sorted by their digests.
pub fn within_referrers(digest: &Digest) -> String {
    format!("{}/{}/link", digest.algorithm().as_str(), digest.hex())
}

/// The digest of the referrer that lies there: the reverse of [`within_referrers`].
pub fn referrer_within(place: &str) -> Option<Digest> {
    place.strip_suffix("/link")?.replacen('/', ":", 1).parse().ok()
}

/// The prefix of all keys of a tag.
pub fn tag(name: &Name, tag: &Tag) -> Key {
    in_repository(name, &[&format!("_manifests/tags/{tag}/")])
}

/// The prefix of all keys of a repository's upload sessions; an id and a slash come next.
pub fn uploads(name: &Name) -> Key {
    in_repository(name, &["_uploads/"])
}

/// The prefix of all keys of an upload session.
pub fn upload(name: &Name, id: &UploadId) -> Key {
    in_repository(name, &[&format!("_uploads/{id}/")])
}

/// `docker/registry/v2/repositories/<name>/_uploads/<id>/startedat`, the one object of a session that
/// `distribution` writes as well, and looks for when it purges old sessions.
pub fn upload_start(name: &Name, id: &UploadId) -> Key {
    in_repository(name, &[&format!("_uploads/{id}/startedat")])
}

/// `docker/registry/v2/repositories/<name>/_uploads/<id>/chunks/<chunk's id>`
pub fn upload_chunk(name: &Name, id: &UploadId, chunk: &UploadId) -> Key {
    in_repository(name, &[&format!("_uploads/{id}/chunks/{chunk}")])
}

/// `docker/registry/v2/repositories/<name>/_uploads/<id>/lists/<list's id>`
pub fn upload_list(name: &Name, id: &UploadId, list: &UploadId) -> Key {
    in_repository(name, &[&format!("_uploads/{id}/lists/{list}")])
}

/// What comes before the progress and `startedat` in the folder of an upload session, and after all else:
/// chunks and lists, of which there may be thousands.
pub const BEFORE_UPLOAD_PROGRESS: &str = "progress";

/// `docker/registry/v2/repositories/<name>/_uploads/<id>/progress/<offset, 20 digits>`
pub fn upload_progress(name: &Name, id: &UploadId, offset: u64) -> Key {
    in_repository(name, &[&format!("_uploads/{id}/progress/{offset:020}")])
}

/// The offset of an [`upload_progress`], if `key` is one of that session.
pub fn offset_of_progress(name: &Name, id: &UploadId, key: &Key) -> Option<u64> {
    let rest = key.as_str().strip_prefix(upload(name, id).as_str())?;
    rest.strip_prefix("progress/")?.parse().ok()
}

/// Whether this is a key of which copies may be kept, but does not say so.
pub fn is_misnamed(key: &Key) -> bool {
    let Kind::Other(text) = key.kind() else {
        return false;
    };
    let folders = ["/_layers/", "/_manifests/revisions/"];
    text.ends_with("/current/link") || folders.iter().any(|folder| text.contains(folder))
}

/// How many shards repositories are spread over, evenly.
pub const SHARDS: u8 = 64;

/// The shard of a repository. FNV-1a, folded: all that is wanted is that names are spread out.
pub fn shard(name: &Name) -> u8 {
    let mix = |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let hash = name.as_str().bytes().fold(0x811c_9dc5, mix);
    ((hash ^ hash >> 16) % u32::from(SHARDS)) as u8
}

/// The object on which it is tried whether the store verifies checksums.
pub fn checksum_probe() -> Key {
    Key::other("moorage/probes/checksums".to_owned())
}

/// The object on which it is tried whether the store heeds the conditions of writes.
pub fn condition_probe() -> Key {
    Key::other("moorage/probes/conditions".to_owned())
}

/// The object on which it is tried whether the store heeds the conditions of removals.
pub fn removal_probe() -> Key {
    Key::other("moorage/probes/removals".to_owned())
}

/// The object that is asked for to find out whether the store answers. It does not exist.
pub fn health_probe() -> Key {
    Key::other("moorage/probes/health".to_owned())
}

/// The folder of the markers of collections of garbage.
pub fn markers() -> Key {
    Key::other("moorage/gc/markers/".to_owned())
}

/// `moorage/gc/markers/<run>`
pub fn marker(run: &str) -> Key {
    Key::other(format!("moorage/gc/markers/{run}"))
}

/// The folder of the claims of runs that change the bucket: collections of garbage, and their undoing.
pub fn claims() -> Key {
    Key::other("moorage/gc/claims/".to_owned())
}

/// `moorage/gc/claims/<run>`
pub fn claim(run: &str) -> Key {
    Key::other(format!("moorage/gc/claims/{run}"))
}

/// What the last collection of garbage found to be garbage.
pub fn condemned() -> Key {
    Key::other("moorage/gc/condemned".to_owned())
}

/// What collections of garbage have read of manifests, so that the next need not read them.
pub fn manifest_memory() -> Key {
    Key::other("moorage/gc/manifests".to_owned())
}

/// The folder of what was removed by collections of garbage, and may be brought back; a run and a slash come next.
pub fn all_trash() -> Key {
    Key::other("moorage/trash/".to_owned())
}

/// The folder of what was removed by one run.
pub fn trash(run: &str) -> Key {
    Key::other(format!("moorage/trash/{run}/"))
}

/// What tells of a run whose trash lies beside it.
pub fn trash_label(run: &str) -> Key {
    Key::other(format!("moorage/trash/{run}/run.json"))
}

/// Where the object of this key lies when a run has removed it.
pub fn trashed(run: &str, key: &Key) -> Key {
    Key::other(format!("moorage/trash/{run}/{}", key.as_str()))
}

/// The reverse of [`trashed`]; `None` for anything else, the label included.
pub fn untrashed(run: &str, key: &Key) -> Option<Key> {
    let original = key.as_str().strip_prefix(trash(run).as_str())?;
    original.starts_with("docker/registry/v2/").then(|| Key::listed(original)).flatten()
}

fn in_repository(name: &Name, rest: &[&str]) -> Key {
    Key::other(text_in_repository(name, rest))
}

fn text_in_repository(name: &Name, rest: &[&str]) -> String {
    const ROOT: &str = "docker/registry/v2/repositories/";
    let rest_length: usize = rest.iter().map(|part| part.len()).sum();
    let mut key = String::with_capacity(ROOT.len() + name.as_str().len() + 1 + rest_length);
    key.extend([ROOT, name.as_str(), "/"]);
    key.extend(rest.iter().copied());
    key
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn repositories_have_shards_of_their_own() {
        let shards = ["a", "a/b", "b/a"].map(|name| shard(&name.parse().expect("a valid name")));
        assert!(shards.iter().all(|shard| *shard < SHARDS));
        assert!(shards[0] != shards[1] && shards[1] != shards[2], "{shards:?}");
    }

    #[test]
    fn a_key_that_was_listed_is_the_one_that_was_written() {
        let name: Name = "a/b".parse().expect("a valid name");
        let tag = "1.0".parse().expect("a valid tag");
        let digest = Digest::of(Algorithm::Sha256, b"");
        let key = tag_link(&name, &tag);
        let listed = Key::listed(key.as_str()).expect("a key");
        assert_eq!(listed, key);
        assert_eq!(listed.cmp(&key), Ordering::Equal);
        assert!(is_misnamed(&listed) && !is_misnamed(&key));
        let history = tag_history(&name, &tag, &digest);
        assert!(!is_misnamed(&history));
        assert_eq!(digest_of_tag_history(&name, &tag, &history), Some(digest));
        assert_eq!(digest_of_tag_history(&name, &tag, &key), None);
    }

    #[test]
    fn keys_are_those_of_distribution() {
        let name: Name = "a/b".parse().expect("a valid name");
        let tag: Tag = "1.0".parse().expect("a valid tag");
        let id = UploadId::from_random(0);
        let digest = Digest::of(Algorithm::Sha256, b"abc");
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let repository = "docker/registry/v2/repositories/a/b";
        for (key, expected) in [
            (content(&digest), format!("docker/registry/v2/blobs/sha256/ba/{hex}/data")),
            (blob_link(&name, &digest), format!("{repository}/_layers/sha256/{hex}/link")),
            (
                manifest_link(&name, &digest),
                format!("{repository}/_manifests/revisions/sha256/{hex}/link"),
            ),
            (tag_link(&name, &tag), format!("{repository}/_manifests/tags/1.0/current/link")),
            (
                tag_history(&name, &tag, &digest),
                format!("{repository}/_manifests/tags/1.0/index/sha256/{hex}/link"),
            ),
            (
                referrer(&name, &digest, &digest),
                format!("{repository}/_manifests/referrers/sha256/{hex}/sha256/{hex}/link"),
            ),
            (upload_start(&name, &id), format!("{repository}/_uploads/{id}/startedat")),
            (upload_chunk(&name, &id, &id), format!("{repository}/_uploads/{id}/chunks/{id}")),
            (upload_list(&name, &id, &id), format!("{repository}/_uploads/{id}/lists/{id}")),
            (
                upload_progress(&name, &id, 42),
                format!("{repository}/_uploads/{id}/progress/00000000000000000042"),
            ),
        ] {
            assert_eq!(key.as_str(), expected);
        }
        let progress = upload_progress(&name, &id, u64::MAX);
        assert_eq!(offset_of_progress(&name, &id, &progress), Some(u64::MAX));
        assert_eq!(offset_of_progress(&name, &id, &upload_start(&name, &id)), None);
        let before = format!("{}{BEFORE_UPLOAD_PROGRESS}", upload(&name, &id).as_str());
        let (list, chunk) = (upload_list(&name, &id, &id), upload_chunk(&name, &id, &id));
        assert!(list.as_str() < before.as_str() && chunk.as_str() < before.as_str());
        assert!(progress.as_str() > before.as_str());
        assert!(upload_start(&name, &id).as_str() > before.as_str());
    }
}
