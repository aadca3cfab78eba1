//! The media types of manifests.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The manifest types that a registry stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaType {
    /// Docker schema 1, unsigned.
    DockerSchema1,
    /// Docker schema 1 in its JWS envelope.
    DockerSchema1Signed,
    /// Docker schema 2 image manifest.
    DockerManifest,
    /// Docker schema 2 manifest list.
    DockerManifestList,
    /// OCI image manifest.
    OciManifest,
    /// OCI image index.
    OciIndex,
}

impl MediaType {
    /// Every manifest type, in no particular order.
    pub const ALL: [Self; 6] = [
        Self::DockerSchema1,
        Self::DockerSchema1Signed,
        Self::DockerManifest,
        Self::DockerManifestList,
        Self::OciManifest,
        Self::OciIndex,
    ];

    /// The registered name, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DockerSchema1 => "application/vnd.docker.distribution.manifest.v1+json",
            Self::DockerSchema1Signed => {
                "application/vnd.docker.distribution.manifest.v1+prettyjws"
            }
            Self::DockerManifest => "application/vnd.docker.distribution.manifest.v2+json",
            Self::DockerManifestList => "application/vnd.docker.distribution.manifest.list.v2+json",
            Self::OciManifest => "application/vnd.oci.image.manifest.v1+json",
            Self::OciIndex => "application/vnd.oci.image.index.v1+json",
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names none of the manifest types in [`MediaType::ALL`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a manifest's media type")]
pub struct UnknownMediaType;

impl FromStr for MediaType {
    type Err = UnknownMediaType;

    /// Type names are compared without regard to case (RFC 9110, section 8.3.1).
    fn from_str(text: &str) -> Result<Self, UnknownMediaType> {
        Self::ALL
            .into_iter()
            .find(|media_type| media_type.as_str().eq_ignore_ascii_case(text))
            .ok_or(UnknownMediaType)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn type_names_are_read_in_any_case() {
        for media_type in MediaType::ALL {
            let name = media_type.as_str();
            assert_eq!(name.parse(), Ok(media_type));
            assert_eq!(name.to_uppercase().parse(), Ok(media_type));
        }
        assert_eq!("application/json".parse::<MediaType>(), Err(UnknownMediaType));
    }
}
