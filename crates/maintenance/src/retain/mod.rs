//! Retention: which tags stay, by a policy, and the deletion of the others.
//!
//! Only tags are deleted. The manifests that they point at stay in the repository, and other tags on them stay as they
//! are; what nothing refers to any more is for garbage collection.
//!
//! - [`Policy`] is the file that says which tags stay.
//! - [`decide`] applies it to the tags of a repository. It is a pure function: it asks no store and no clock.
//! - [`Retention`] lists the tags of a repository, decides, and deletes.
//!
//! Tags by which clients attach signatures and the like to a manifest ([`FallbackTag`]) are not decided by the policy's
//! conditions: they go with the last tag of what they are about.

mod decision;
mod execution;
mod fallback;
mod following;
mod outcome;
mod policy;
mod policy_file;
mod reach;
mod tags;
mod versions;

pub use decision::{Decision, Verdict, decide};
pub use execution::{Immutable, Retention};
pub use fallback::FallbackTag;
pub use outcome::{Fate, Outcome, Problem, TagOutcome};
pub use policy::{Condition, Policy, Rule, Selection};
pub use policy_file::PolicyError;
pub use tags::{ListedTag, list_tags};
pub use versions::{Line, Versions};
