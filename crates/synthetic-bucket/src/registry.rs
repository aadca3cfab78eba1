//! What the registry consists of, a few bytes for each object, and the keys of its objects.
//!
//! Nothing here decides what there is: that is `plan.rs`. Keys and bodies are not kept but made when they are asked
//! for. The layout is that of `moorage::store::layout`, which a test holds this one to.

use std::fmt::Write as _;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::census::Census;
use crate::documents;

/// The size of a link: `sha256:` and 64 hexadecimal digits.
pub const LINK_SIZE: u64 = 71;

/// The first moment at which an object may have been written: 2024-01-01T00:00:00Z, in seconds since 1970.
const FIRST_WRITE: u64 = 1_704_067_200;
/// Within how many seconds all of them were: 300 days.
const WRITES: u64 = 300 * 24 * 60 * 60;

/// The place of a repository in [`Registry::repositories`].
pub type RepositoryIndex = u32;
/// The place of some content in [`Registry::contents`].
pub type ContentIndex = u32;
/// The place of a tag in [`Registry::tags`].
pub type TagIndex = u32;

/// A made-up registry.
#[derive(Debug, Default)]
pub struct Registry {
    /// The names of the repositories.
    pub repositories: Vec<String>,
    /// Blobs and manifests.
    pub contents: Vec<Content>,
    /// What the manifests say.
    pub manifests: Vec<Manifest>,
    /// What manifests refer to: each has a range of these.
    pub references: Vec<ContentIndex>,
    /// Tags, those that are gone among them.
    pub tags: Vec<Tag>,
    /// All objects; in the order of their keys once the registry is complete.
    pub entries: Vec<Entry>,
    /// What there is.
    pub census: Census,
}

/// A blob or a manifest.
#[derive(Debug)]
pub struct Content {
    /// The SHA-256 of the content, or an invented one for a layer.
    pub hash: [u8; 32],
    /// In bytes.
    pub size: u64,
    /// What it consists of.
    pub body: Body,
}

/// What some content consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// A layer: zeros.
    Zeros,
    /// The configuration of an image, by its number.
    Config(u32),
    /// The empty JSON object, which stands where an artifact has no configuration.
    EmptyJson,
    /// A manifest, by its place in [`Registry::manifests`].
    Manifest(u32),
}

/// What a manifest says.
#[derive(Debug)]
pub struct Manifest {
    /// What it is.
    pub kind: ManifestKind,
    /// The configuration; of an index, nothing.
    pub config: Option<ContentIndex>,
    /// Layers, or an index's manifests: a range of [`Registry::references`].
    pub references: Range<u32>,
    /// The manifest that it is about.
    pub subject: Option<ContentIndex>,
}

/// The kinds of manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestKind {
    /// An image of the OCI.
    Oci,
    /// An image of Docker's schema 2.
    Docker,
    /// An index of the OCI.
    Index,
    /// A signature: an artifact.
    Signature,
}

/// A tag.
#[derive(Debug)]
pub struct Tag {
    /// Where.
    pub repository: RepositoryIndex,
    /// What it is called.
    pub name: TagName,
}

/// What a tag is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagName {
    /// `v00042`
    Version(u32),
    /// `gone-42`, a tag that is no more
    Gone(u32),
    /// `edge`, which every build moves
    Edge,
    /// `sha256-<hex>`, under which clients keep referrers themselves
    Referrers(ContentIndex),
}

/// One object of the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Content.
    Content(ContentIndex),
    /// A link to a blob.
    BlobLink(RepositoryIndex, ContentIndex),
    /// A link to a manifest.
    ManifestLink(RepositoryIndex, ContentIndex),
    /// What a tag points at.
    Current(TagIndex, ContentIndex),
    /// What a tag pointed at once, or does.
    History(TagIndex, ContentIndex),
    /// A referrer: the repository, the subject, the referrer.
    Referrer(RepositoryIndex, ContentIndex, ContentIndex),
    /// The start of an upload session, by its number.
    UploadStart(RepositoryIndex, u32),
}

/// The bytes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bytes {
    /// These.
    These(bytes::Bytes),
    /// So many zeros.
    Zeros(u64),
}

impl Bytes {
    /// How many there are.
    pub fn size(&self) -> u64 {
        match self {
            Self::These(bytes) => bytes.len() as u64,
            Self::Zeros(size) => *size,
        }
    }
}

impl Registry {
    /// The digest of some content, such as `sha256:…`.
    pub fn digest(&self, content: ContentIndex) -> String {
        format!("sha256:{}", self.hex(content))
    }

    fn hex(&self, content: ContentIndex) -> String {
        base16ct::lower::encode_string(&self.contents[content as usize].hash)
    }

    /// What a manifest refers to: its layers, or an index's manifests.
    pub fn references(&self, manifest: &Manifest) -> &[ContentIndex] {
        &self.references[manifest.references.start as usize..manifest.references.end as usize]
    }

    /// The key of an object.
    pub fn key(&self, entry: Entry) -> String {
        let mut key = String::with_capacity(224);
        self.write_key(entry, &mut key);
        key
    }

    /// Appends the key of an object.
    pub fn write_key(&self, entry: Entry, key: &mut String) {
        key.push_str("docker/registry/v2/");
        match entry {
            Entry::Content(content) => {
                let hash = &self.contents[content as usize].hash;
                let mut first = [0; 2];
                key.push_str("blobs/sha256/");
                key.push_str(
                    base16ct::lower::encode_str(&hash[..1], &mut first).unwrap_or_default(),
                );
                key.push('/');
                self.write_hex(content, key);
                key.push_str("/data");
            }
            Entry::BlobLink(repository, content) => {
                self.write_repository(repository, "_layers/sha256/", key);
                self.write_link(content, key);
            }
            Entry::ManifestLink(repository, content) => {
                self.write_repository(repository, "_manifests/revisions/sha256/", key);
                self.write_link(content, key);
            }
            Entry::Current(tag, _) => {
                self.write_tag(tag, key);
                key.push_str("current/link");
            }
            Entry::History(tag, content) => {
                self.write_tag(tag, key);
                key.push_str("index/sha256/");
                self.write_link(content, key);
            }
            Entry::Referrer(repository, subject, content) => {
                self.write_repository(repository, "_manifests/referrers/sha256/", key);
                self.write_hex(subject, key);
                key.push_str("/sha256/");
                self.write_link(content, key);
            }
            Entry::UploadStart(repository, number) => {
                self.write_repository(repository, "_uploads/", key);
                append(key, format_args!("00000000-0000-4000-8000-{number:012x}/startedat"));
            }
        }
    }

    fn write_repository(&self, repository: RepositoryIndex, folder: &str, key: &mut String) {
        key.push_str("repositories/");
        key.push_str(&self.repositories[repository as usize]);
        key.push('/');
        key.push_str(folder);
    }

    fn write_tag(&self, tag: TagIndex, key: &mut String) {
        let tag = &self.tags[tag as usize];
        self.write_repository(tag.repository, "_manifests/tags/", key);
        match tag.name {
            TagName::Version(number) => append(key, format_args!("v{number:05}")),
            TagName::Gone(number) => append(key, format_args!("gone-{number}")),
            TagName::Edge => key.push_str("edge"),
            TagName::Referrers(subject) => {
                key.push_str("sha256-");
                self.write_hex(subject, key);
            }
        }
        key.push('/');
    }

    fn write_link(&self, content: ContentIndex, key: &mut String) {
        self.write_hex(content, key);
        key.push_str("/link");
    }

    fn write_hex(&self, content: ContentIndex, key: &mut String) {
        let mut room = [0; 64];
        let hash = &self.contents[content as usize].hash;
        key.push_str(base16ct::lower::encode_str(hash, &mut room).unwrap_or_default());
    }

    /// How large an object is, in bytes.
    pub fn size(&self, entry: Entry) -> u64 {
        match entry {
            Entry::Content(content) => self.contents[content as usize].size,
            Entry::BlobLink(..)
            | Entry::ManifestLink(..)
            | Entry::Current(..)
            | Entry::History(..) => LINK_SIZE,
            Entry::Referrer(..) | Entry::UploadStart(..) => self.bytes(entry).size(),
        }
    }

    /// What an object holds.
    pub fn bytes(&self, entry: Entry) -> Bytes {
        let text = match entry {
            Entry::Content(content) => {
                let Content { size, body, .. } = self.contents[content as usize];
                match body {
                    Body::Zeros => return Bytes::Zeros(size),
                    Body::Config(number) => documents::config(number),
                    Body::EmptyJson => documents::EMPTY_JSON.to_owned(),
                    Body::Manifest(manifest) => documents::manifest(self, manifest),
                }
            }
            Entry::BlobLink(_, content)
            | Entry::ManifestLink(_, content)
            | Entry::Current(_, content)
            | Entry::History(_, content) => self.digest(content),
            Entry::Referrer(_, _, content) => documents::referrer(self, content),
            Entry::UploadStart(..) => "2024-01-01T00:00:00Z".to_owned(),
        };
        Bytes::These(text.into())
    }

    /// The quoted entity tag of an object. Equal bytes have equal ones, as in S3.
    pub fn etag(&self, entry: Entry) -> String {
        match entry {
            Entry::Content(content) => quoted(&self.contents[content as usize].hash),
            _ => match self.bytes(entry) {
                Bytes::These(bytes) => etag(&bytes),
                Bytes::Zeros(size) => quoted(&Sha256::digest(size.to_string())),
            },
        }
    }

    /// When an object was written, which depends on what it is alone.
    pub fn modified(&self, entry: Entry) -> SystemTime {
        let mix = |a: u32, b: u32| {
            (u64::from(a) << 32 | u64::from(b)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24
        };
        let number = match entry {
            Entry::Content(content) => mix(0, content),
            Entry::UploadStart(..) => 0,
            Entry::BlobLink(a, b)
            | Entry::ManifestLink(a, b)
            | Entry::Current(a, b)
            | Entry::History(a, b)
            | Entry::Referrer(a, _, b) => mix(a + 1, b),
        };
        SystemTime::UNIX_EPOCH + Duration::from_secs(FIRST_WRITE + number % WRITES)
    }
}

/// The quoted entity tag of these bytes.
pub fn etag(bytes: &[u8]) -> String {
    quoted(&Sha256::digest(bytes))
}

/// S3's are MD5 sums, which are as long as this.
fn quoted(hash: &[u8]) -> String {
    format!("\"{}\"", base16ct::lower::encode_string(&hash[..16]))
}

fn append(key: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = key.write_fmt(text);
}
