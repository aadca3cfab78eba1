//! The settings that the handlers know.

use std::rc::Rc;
use std::str::FromStr;

use thiserror::Error;

use super::access::Access;
use super::glob::Glob;
use super::legacy::Legacy;
use super::policy::Class;
use crate::oci::{Name, Tag};

/// The largest manifest that is served or accepted unless something else is set, in bytes. The
/// specification wants registries to take this much.
pub const DEFAULT_MANIFEST_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The settings that the handlers know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The largest manifest that is accepted, in bytes. No body is read beyond it.
    pub manifest_max_bytes: u64,
    /// Whether nothing may be changed.
    pub read_only: bool,
    /// Whether manifests, tags and blobs may be deleted.
    pub delete_enabled: bool,
    /// Whether an image's configuration and layers must be there when it is put.
    pub verify_image_references: bool,
    /// Whether an index's manifests must be there when it is put.
    pub verify_index_references: bool,
    /// The classes of manifest that may be put; any if there are none.
    pub classes: Vec<Class>,
    /// The tags that, once set, are neither moved nor deleted.
    pub immutable_tags: Vec<ImmutableTags>,
    /// Who may do what; everybody everything if there is none.
    pub access: Option<Rc<Access>>,
    /// From where a blob may be mounted.
    pub mount: Mount,
    /// What old clients get.
    pub legacy: Legacy,
    /// How much one request may ask for.
    pub limits: Limits,
}

impl Settings {
    /// The number of the first rule that makes the tag immutable.
    pub fn immutable(&self, name: &Name, tag: &Tag) -> Option<usize> {
        self.immutable_tags.iter().position(|rule| {
            rule.is_in(name) && rule.tags.iter().any(|pattern| pattern.matches(tag.as_str()))
        })
    }

    /// Whether a repository may have immutable tags.
    pub fn has_immutable(&self, name: &Name) -> bool {
        self.immutable_tags.iter().any(|rule| rule.is_in(name))
    }
}

/// Some tags of some repositories that, once set, are neither moved nor deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImmutableTags {
    /// The repositories.
    pub repositories: Vec<Glob>,
    /// The tags.
    pub tags: Vec<Glob>,
}

impl ImmutableTags {
    fn is_in(&self, name: &Name) -> bool {
        self.repositories.iter().any(|pattern| pattern.matches(name.as_str()))
    }
}

/// From where a blob may be put into a repository without uploading it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mount {
    /// From nowhere. The default, because the path of such a request does not show the source: a filter
    /// before Moorage that guards repositories by their paths could not guard that one.
    #[default]
    Off,
    /// From the repository that the client names.
    From,
    /// From wherever it is, if the client names no repository.
    Anywhere,
}

/// A text that is no [`Mount`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must be off, from or anywhere")]
pub struct MountError;

impl FromStr for Mount {
    type Err = MountError;

    fn from_str(text: &str) -> Result<Self, MountError> {
        match text {
            "off" => Ok(Self::Off),
            "from" => Ok(Self::From),
            "anywhere" => Ok(Self::Anywhere),
            _ => Err(MountError),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            manifest_max_bytes: DEFAULT_MANIFEST_MAX_BYTES,
            read_only: false,
            delete_enabled: true,
            verify_image_references: true,
            verify_index_references: true,
            classes: Vec::new(),
            immutable_tags: Vec::new(),
            access: None,
            mount: Mount::default(),
            legacy: Legacy::default(),
            limits: Limits::default(),
        }
    }
}

/// How much one request may ask for, as far as it can be set. Other limits follow from the API or the store, and stand
/// where they are held to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The most descriptors of a manifest that is put; 10,000 unless set. Each is looked up, by two calls
    /// to the store or more.
    pub manifest_descriptors: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { manifest_descriptors: 10_000 }
    }
}
