//! What happened in the registry, for others to know: events of pushes, pulls, mounts and deletions.
//!
//! Handlers tell a [`Reporter`] of what they have done, which makes an [`Event`] of it if somebody wants it, and the proxy
//! sends it. How an event is written is a [`Format`]. Nothing here knows where events go, or whether they arrive.

mod format;
mod report;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use thiserror::Error;

pub use format::Format;
pub use report::{ManifestRecord, Reporter};

use super::glob::Glob;
use crate::oci::{Digest, MediaType, Name, Tag};

/// The most bytes of a text that a client chooses, such as `User-Agent`, or the name of a caller; what is longer is cut.
const TEXT_MAX_BYTES: usize = 256;

/// What an event tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventAction {
    /// A manifest or a blob was stored.
    Push,
    /// A manifest was sent to a client.
    Pull,
    /// A blob was taken from another repository.
    Mount,
    /// A manifest, a tag or a blob was deleted.
    Delete,
    /// A tag was pointed at another manifest than before.
    TagMoved,
}

impl EventAction {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Push, Self::Pull, Self::Mount, Self::Delete, Self::TagMoved];

    /// The name in the configuration and in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Pull => "pull",
            Self::Mount => "mount",
            Self::Delete => "delete",
            Self::TagMoved => "tag_moved",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A text that names no [`EventAction`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must be push, pull, mount, delete or tag_moved")]
pub struct EventActionError;

impl FromStr for EventAction {
    type Err = EventActionError;

    fn from_str(text: &str) -> Result<Self, EventActionError> {
        Self::ALL.into_iter().find(|action| action.as_str() == text).ok_or(EventActionError)
    }
}

/// A set of actions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventActions(u8);

impl EventActions {
    /// Whether an action is among them.
    pub fn contains(self, action: EventAction) -> bool {
        self.0 & action.bit() != 0
    }

    /// These and those.
    pub fn or(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

impl FromIterator<EventAction> for EventActions {
    fn from_iter<I: IntoIterator<Item = EventAction>>(actions: I) -> Self {
        Self(actions.into_iter().fold(0, |bits, action| bits | action.bit()))
    }
}

/// The events that somebody wants: of these actions, in these repositories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventFilter {
    /// The actions.
    pub actions: EventActions,
    /// The repositories.
    pub repositories: Vec<Glob>,
}

impl EventFilter {
    /// Whether it lets events of that action in that repository through.
    pub fn matches(&self, action: EventAction, repository: &Name) -> bool {
        self.actions.contains(action)
            && self.repositories.iter().any(|pattern| pattern.matches(repository.as_str()))
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// A UUID that no other event has.
    pub id: String,
    /// When it happened.
    pub time: SystemTime,
    /// What was done.
    pub action: EventAction,
    /// To what it was done.
    pub target: Target,
    /// The request by which it was done.
    pub request: RequestRecord,
    /// The name of the caller, as rules have it; empty if callers have none here.
    pub actor: String,
}

/// The kind of what an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// A manifest, perhaps by a tag.
    Manifest,
    /// A tag alone.
    Tag,
    /// A blob.
    Blob,
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::Tag => "tag",
            Self::Blob => "blob",
        })
    }
}

/// What an event is about. What is not known is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its kind.
    pub kind: TargetKind,
    /// Its repository.
    pub repository: Name,
    /// Its digest.
    pub digest: Option<Digest>,
    /// The type of a manifest.
    pub media_type: Option<MediaType>,
    /// Its size in bytes.
    pub size: Option<u64>,
    /// The tag that was pushed, pulled, deleted or moved.
    pub tag: Option<Tag>,
    /// The digest that the tag pointed at before.
    pub previous: Option<Digest>,
    /// The repository that a blob was mounted from.
    pub from_repository: Option<Name>,
    /// Where it can be had.
    pub url: Option<String>,
}

impl Target {
    /// Something in a repository, of which nothing else is known.
    pub fn new(kind: TargetKind, repository: &Name) -> Self {
        Self {
            kind,
            repository: repository.clone(),
            digest: None,
            media_type: None,
            size: None,
            tag: None,
            previous: None,
            from_repository: None,
            url: None,
        }
    }
}

/// The request by which something was done. Texts that the client chose are cut at 256 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// Envoy's `x-request-id`; the event's own id if it has none.
    pub id: String,
    /// The client's address and port; empty if it is not known.
    pub address: String,
    /// The host that the client asked.
    pub host: String,
    /// The method.
    pub method: String,
    /// The client's `User-Agent`.
    pub user_agent: String,
}
