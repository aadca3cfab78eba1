//! What stands for schema 1 in a build without the feature `schema1`: a key that nobody can have.

use serde_json::Value;

/// The key that schema 1 manifests would be signed with. There is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SigningKey {}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("can't be set: this build of Moorage has no schema 1 (the Cargo feature `schema1`)")]
pub struct NoSchema1;

impl SigningKey {
    /// Refuses the key.
    pub fn read(_: &Value) -> Result<Self, NoSchema1> {
        Err(NoSchema1)
    }
}
