//! The ids of upload sessions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// The text is no id of an upload session: a UUID (RFC 9562) in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no such upload")]
pub struct UploadIdError;

/// The id of an upload session: a UUID, as `distribution` has them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UploadId(String);

impl UploadId {
    /// An id made of what is random enough. It becomes a version 8 UUID (RFC 9562, section 5.8): one
    /// that says nothing about how its bits were chosen.
    pub fn from_random(bits: u128) -> Self {
        let uuid = uuid::Builder::from_custom_bytes(bits.to_be_bytes()).into_uuid();
        Self(uuid.to_string())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UploadId {
    type Err = UploadIdError;

    fn from_str(text: &str) -> Result<Self, UploadIdError> {
        // Other ways to write a UUID would be other keys for the same session.
        let uuid = Uuid::try_parse(text).map_err(|_| UploadIdError)?.to_string();
        if uuid == text { Ok(Self(uuid)) } else { Err(UploadIdError) }
    }
}

impl TryFrom<String> for UploadId {
    type Error = UploadIdError;

    fn try_from(text: String) -> Result<Self, UploadIdError> {
        text.parse()
    }
}

impl From<UploadId> for String {
    fn from(id: UploadId) -> Self {
        id.0
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn upload_ids_are_uuids() {
        for bits in [0, u128::MAX, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef] {
            let id = UploadId::from_random(bits);
            assert_eq!(id.as_str().parse(), Ok(id.clone()));
            assert_eq!(&id.as_str()[14..15], "8");
            assert!("89ab".contains(&id.as_str()[19..20]), "{id}");
        }
        for invalid in [
            "",
            "..",
            "01234567-89ab-cdef-0123-456789abcde",
            "01234567-89AB-cdef-0123-456789abcdef",
            "01234567/89ab-cdef-0123-456789abcdef",
        ] {
            assert_eq!(invalid.parse::<UploadId>(), Err(UploadIdError), "{invalid:?}");
        }
    }
}
