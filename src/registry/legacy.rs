//! Clients from before 2017: the settings, and the choice of a platform from an index.

use std::fmt;

use serde::Deserialize;
use thiserror::Error;

use super::schema1::SigningKey;
use crate::oci::{Digest, MediaType};

/// The settings for old clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Legacy {
    /// Whose image is served of an index to a client that takes none; `linux/amd64` unless set.
    pub platform: Platform,
    /// How a request without `Accept` is read; an old client unless set.
    pub absent_accept: AbsentAccept,
    /// Whether signed schema 1 manifests may be put; not unless set.
    pub accept_schema1: bool,
    /// The key that schema 1 manifests are signed with. Without one, none are made.
    pub schema1_key: Option<SigningKey>,
}

/// How a request without `Accept` is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AbsentAccept {
    /// The client knows schema 1 alone: the oldest ones have no `Accept`. So Docker's own images and
    /// lists are converted, if there is a key.
    #[default]
    Convert,
    /// The client takes whatever is stored, as RFC 9110 has it.
    Stored,
}

/// A text that is no [`AbsentAccept`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must be convert or stored")]
pub struct AbsentAcceptError;

impl std::str::FromStr for AbsentAccept {
    type Err = AbsentAcceptError;

    fn from_str(text: &str) -> Result<Self, AbsentAcceptError> {
        match text {
            "convert" => Ok(Self::Convert),
            "stored" => Ok(Self::Stored),
            _ => Err(AbsentAcceptError),
        }
    }
}

/// The text is no platform.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("must be a platform, such as linux/amd64 or linux/arm/v7")]
pub struct PlatformError;

/// The platform that an image runs on: an operating system and an architecture, as Go names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    os: String,
    architecture: String,
    /// The variant of the architecture; any if it is not set.
    variant: Option<String>,
}

impl Default for Platform {
    fn default() -> Self {
        Self { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: None }
    }
}

impl std::str::FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let mut parts = text.split('/').map(|part| match part {
            "" => Err(PlatformError),
            part => Ok(part.to_owned()),
        });
        let platform = Self {
            os: parts.next().ok_or(PlatformError)??,
            architecture: parts.next().ok_or(PlatformError)??,
            variant: parts.next().transpose()?,
        };
        if parts.next().is_some() { Err(PlatformError) } else { Ok(platform) }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl Platform {
    /// The first manifest for this platform that an index lists. What is wrong with other entries does
    /// not matter, and those that are blobs are no image.
    pub fn choose_from(&self, index: &[u8]) -> Option<Digest> {
        #[derive(Deserialize)]
        struct Index {
            manifests: Vec<serde_json::Value>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Child {
            media_type: Option<String>,
            digest: String,
            platform: ChildPlatform,
        }
        #[derive(Deserialize)]
        struct ChildPlatform {
            os: String,
            architecture: String,
            variant: Option<String>,
        }
        let index: Index = serde_json::from_slice(index).ok()?;
        let children =
            index.manifests.into_iter().filter_map(|child| Child::deserialize(child).ok());
        let mut suitable = children.filter(|Child { media_type, platform, .. }| {
            let is_manifest = media_type.as_ref().is_none_or(|t| t.parse::<MediaType>().is_ok());
            let is_variant = self.variant.is_none() || self.variant == platform.variant;
            (&platform.os, &platform.architecture) == (&self.os, &self.architecture)
                && is_variant
                && is_manifest
        });
        suitable.next()?.digest.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::oci::Algorithm;

    fn digest(content: &str) -> Digest {
        Digest::of(Algorithm::Sha256, content.as_bytes())
    }

    #[test]
    fn platforms_are_written_with_slashes() {
        for text in ["linux/amd64", "linux/arm/v7", "windows/amd64"] {
            assert_eq!(text.parse::<Platform>().map(|p| p.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(Platform::default().to_string(), "linux/amd64");
        for text in ["", "linux", "linux/", "/amd64", "linux/arm/", "linux/arm/v7/x"] {
            assert_eq!(text.parse::<Platform>(), Err(PlatformError), "{text:?}");
        }
    }

    #[test]
    fn the_first_manifest_of_the_platform_is_chosen() {
        let child =
            |content, platform| json!({ "digest": digest(content).as_str(), "platform": platform });
        let arm = |variant| json!({ "os": "linux", "architecture": "arm", "variant": variant });
        let amd64 = json!({ "os": "linux", "architecture": "amd64" });
        let index = json!({ "manifests": [
            5,
            { "digest": digest("none").as_str() },
            child("none", json!({ "os": "linux" })),
            json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": digest("a blob").as_str(),
                "platform": amd64,
            }),
            child("windows", json!({ "os": "windows", "architecture": "amd64" })),
            child("v6", arm("v6")),
            child("v7", arm("v7")),
            child("amd64", amd64.clone()),
            child("another", amd64.clone()),
        ] });
        for (platform, chosen) in [
            ("linux/amd64", Some("amd64")),
            ("linux/amd64/v3", None),
            ("linux/arm", Some("v6")),
            ("linux/arm/v7", Some("v7")),
            ("windows/amd64", Some("windows")),
            ("linux/riscv64", None),
        ] {
            let platform: Platform = platform.parse().expect("a platform");
            let found = platform.choose_from(index.to_string().as_bytes());
            assert_eq!(found, chosen.map(digest), "{platform}");
        }
        for index in [
            json!({}),
            json!({ "manifests": {} }),
            json!({ "manifests": [{ "digest": "x", "platform": amd64 }] }),
        ] {
            assert_eq!(Platform::default().choose_from(index.to_string().as_bytes()), None);
        }
    }
}
