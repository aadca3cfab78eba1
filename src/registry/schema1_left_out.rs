//! What stands for schema 1 in a build without the feature `schema1`: a key that nobody can have.

use serde::{Deserialize, Deserializer, de};

/// The key that schema 1 manifests would be signed with. There is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SigningKey {}

impl<'de> Deserialize<'de> for SigningKey {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(de::Error::custom(
            "this build of Moorage has no schema 1 (the Cargo feature `schema1`)",
        ))
    }
}
