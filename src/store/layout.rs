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
//! | how far it has got | `repositories/<name>/_uploads/<id>/progress/<offset, 20 digits>` |
//!
//! A referrer's object holds its descriptor as JSON; `distribution` knows no referrers and passes it
//! over. Outside of all that lies `moorage/`, for objects that say something about the store itself.
//!
//! A link may hold another digest than the one in its key: content that was pushed under a second
//! algorithm is stored once, under the first.

use std::hash::{Hash, Hasher};

use super::names::FolderName;
use crate::registry::reference::{Digest, Name, Tag, UploadId};

/// An object's key, relative to the configured prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    text: String,
    /// What the text tells, noted where it is known anyway.
    kind: Kind,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Key {
    /// The key that a listing named; `None` for one that no registry wrote. An empty segment stands only
    /// at the end, where a folder has it.
    pub(super) fn listed(text: &str) -> Option<Self> {
        let is_unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        let folder = text.strip_suffix('/').unwrap_or(text);
        let mut segments = folder.split('/');
        let is_key =
            segments.all(|s| !matches!(s, "" | "." | "..") && s.bytes().all(is_unreserved));
        is_key.then(|| Self { text: text.to_owned(), kind: kind_of(text) })
    }

    /// A key as it is given.
    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        Self { text: text.to_owned(), kind: kind_of(text) }
    }

    /// A key of which no copy is ever kept.
    fn other(text: String) -> Self {
        Self { text, kind: Kind::Other }
    }

    /// The key of a folder in this one.
    pub(super) fn folder(&self, name: &impl FolderName) -> Self {
        Self::other(format!("{}{}/", self.text, name.as_str()))
    }

    /// What the object of this key is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The key as text. It consists of unreserved characters (RFC 3986, section 2.3) and slashes, so
    /// it needs no encoding in a URL.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// `docker/registry/v2/blobs/<algorithm>/<first two hex>/<hex>/data`
pub fn content(digest: &Digest) -> Key {
    let (algorithm, hex) = (digest.algorithm().as_str(), digest.hex());
    let shard = &hex[..2];
    let text = ["docker/registry/v2/blobs/", algorithm, "/", shard, "/", hex, "/data"].concat();
    Key { text, kind: Kind::Content }
}

/// `docker/registry/v2/repositories/<name>/_layers/<algorithm>/<hex>/link`
pub fn blob_link(name: &Name, digest: &Digest) -> Key {
    let (algorithm, hex) = (digest.algorithm().as_str(), digest.hex());
    let text = text_in_repository(name, &["_layers/", algorithm, "/", hex, "/link"]);
    Key { text, kind: Kind::Link(shard(name.as_str())) }
}

/// `docker/registry/v2/repositories/<name>/_manifests/revisions/<algorithm>/<hex>/link`
pub fn manifest_link(name: &Name, digest: &Digest) -> Key {
    let (algorithm, hex) = (digest.algorithm().as_str(), digest.hex());
    let text = text_in_repository(name, &["_manifests/revisions/", algorithm, "/", hex, "/link"]);
    Key { text, kind: Kind::Link(shard(name.as_str())) }
}

/// `docker/registry/v2/repositories/<name>/_manifests/tags/<tag>/current/link`
pub fn tag_link(name: &Name, tag: &Tag) -> Key {
    let text = text_in_repository(name, &["_manifests/tags/", tag.as_str(), "/current/link"]);
    Key { text, kind: Kind::Tag(shard(name.as_str())) }
}

/// `docker/registry/v2/repositories/<name>/_manifests/tags/<tag>/index/<algorithm>/<hex>/link`
pub fn tag_history(name: &Name, tag: &Tag, digest: &Digest) -> Key {
    let (algorithm, hex) = (digest.algorithm().as_str(), digest.hex());
    in_repository(
        name,
        &["_manifests/tags/", tag.as_str(), "/index/", algorithm, "/", hex, "/link"],
    )
}

/// `docker/registry/v2/repositories/<name>/_manifests/referrers/<algorithm>/<subject's
/// hex>/<algorithm>/<hex>/link`
pub fn referrer(name: &Name, subject: &Digest, digest: &Digest) -> Key {
    Key::other(format!("{}{}", referrers(name, subject).text, within_referrers(digest)))
}

/// What the keys of all tags of a repository begin with; the tag and a slash come next.
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

/// What all keys of a repository itself begin with, and none of a repository that is nested in it.
pub fn own(name: &Name) -> Key {
    in_repository(name, &["_"])
}

/// What the keys of all of a repository's links to blobs begin with.
pub fn blob_links(name: &Name) -> Key {
    in_repository(name, &["_layers/"])
}

/// What the keys of all of a repository's manifests, tags and referrers begin with.
pub fn manifests(name: &Name) -> Key {
    in_repository(name, &["_manifests/"])
}

/// What the keys of all referrers of a subject begin with; what [`within_referrers`] gives comes next.
pub fn referrers(name: &Name, subject: &Digest) -> Key {
    let (algorithm, hex) = (subject.algorithm().as_str(), subject.hex());
    in_repository(name, &[&format!("_manifests/referrers/{algorithm}/{hex}/")])
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

/// What all keys of a tag begin with.
pub fn tag(name: &Name, tag: &Tag) -> Key {
    in_repository(name, &[&format!("_manifests/tags/{tag}/")])
}

/// What all keys of an upload session begin with.
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

/// `docker/registry/v2/repositories/<name>/_uploads/<id>/progress/<offset, 20 digits>`
pub fn upload_progress(name: &Name, id: &UploadId, offset: u64) -> Key {
    in_repository(name, &[&format!("_uploads/{id}/progress/{offset:020}")])
}

/// The offset of an [`upload_progress`], if `key` is one of that session.
pub fn offset_of_progress(name: &Name, id: &UploadId, key: &Key) -> Option<u64> {
    let rest = key.as_str().strip_prefix(upload(name, id).as_str())?;
    rest.strip_prefix("progress/")?.parse().ok()
}

/// How many shards repositories are spread over.
pub const SHARDS: u8 = 64;

/// What an object is, as far as that matters to whoever keeps a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Content under its digest, which never changes.
    Content,
    /// That a repository of this shard has a manifest or a blob.
    Link(u8),
    /// What a tag of a repository of this shard points at.
    Tag(u8),
    /// Anything else.
    Other,
}

impl Kind {
    /// The shard of the repository. Repositories are spread evenly over [`SHARDS`] of them.
    pub fn shard(self) -> Option<u8> {
        match self {
            Self::Link(shard) | Self::Tag(shard) => Some(shard),
            Self::Content | Self::Other => None,
        }
    }
}

/// What a key's text tells of its object.
fn kind_of(key: &str) -> Kind {
    let Some(rest) = key.strip_prefix("docker/registry/v2/") else {
        return Kind::Other;
    };
    if rest.starts_with("blobs/") && rest.ends_with("/data") {
        return Kind::Content;
    }
    // No part of a repository's name begins with an underscore.
    let repository = rest.strip_prefix("repositories/").and_then(|rest| rest.split_once("/_"));
    let Some((name, rest)) = repository.filter(|(_, rest)| rest.ends_with("/link")) else {
        return Kind::Other;
    };
    if rest.starts_with("layers/") || rest.starts_with("manifests/revisions/") {
        Kind::Link(shard(name))
    } else if rest.starts_with("manifests/tags/") && rest.ends_with("/current/link") {
        Kind::Tag(shard(name))
    } else {
        Kind::Other
    }
}

/// The digest of the content that lies there: the reverse of [`content`].
pub fn digest_of_content(key: &Key) -> Option<Digest> {
    let mut parts = key.as_str().strip_prefix("docker/registry/v2/blobs/")?.split('/');
    let (algorithm, hex) = (parts.next()?, parts.nth(1)?);
    [algorithm, ":", hex].concat().parse().ok()
}

/// FNV-1a, folded: all that is wanted is that names are spread out.
fn shard(name: &str) -> u8 {
    let mix = |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let hash = name.bytes().fold(0x811c_9dc5, mix);
    ((hash ^ hash >> 16) % u32::from(SHARDS)) as u8
}

/// The object on which it is tried whether the store verifies checksums.
pub fn checksum_probe() -> Key {
    Key::other("moorage/probes/checksums".to_owned())
}

/// The object on which it is tried whether the store heeds conditions.
pub fn condition_probe() -> Key {
    Key::other("moorage/probes/conditions".to_owned())
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
    use crate::registry::reference::Algorithm;

    #[test]
    fn keys_tell_what_may_be_kept() {
        let name: Name = "a/b".parse().expect("a valid name");
        let other: Name = "a".parse().expect("a valid name");
        let tag: Tag = "1.0".parse().expect("a valid tag");
        let id = UploadId::from_random(0);
        for digest in [Digest::of(Algorithm::Sha256, b"x"), Digest::of(Algorithm::Sha512, b"x")] {
            let shard = blob_link(&name, &digest).kind().shard();
            assert!(shard.is_some());
            assert_ne!(shard, blob_link(&other, &digest).kind().shard());
            for (key, expected) in [
                (content(&digest), Kind::Content),
                (blob_link(&name, &digest), Kind::Link(shard.unwrap_or_default())),
                (manifest_link(&name, &digest), Kind::Link(shard.unwrap_or_default())),
                (tag_link(&name, &tag), Kind::Tag(shard.unwrap_or_default())),
                (tag_history(&name, &tag, &digest), Kind::Other),
                (referrer(&name, &digest, &digest), Kind::Other),
                (upload_start(&name, &id), Kind::Other),
                (checksum_probe(), Kind::Other),
            ] {
                assert_eq!(key.kind(), expected, "{key:?}");
                assert_eq!(kind_of(key.as_str()), expected, "{key:?}");
                let content = (expected == Kind::Content).then_some(&digest);
                assert_eq!(digest_of_content(&key).as_ref(), content, "{key:?}");
            }
        }
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
    }
}
