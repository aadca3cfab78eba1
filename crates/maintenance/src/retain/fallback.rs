//! Tags by which clients attach signatures, attestations and other artifacts to a manifest.
//!
//! - `sha256-<hex>` is the OCI specification's referrers tag: an index of all that refers to the manifest, which clients
//!   keep where a registry has no referrers endpoint. The digest's hex is cut after 64 characters.
//! - `sha256-<hex>.sig`, `.att` and `.sbom` are cosign's, one tag for each kind; other tools use other ends.
//!
//! Source: OCI distribution specification, "Referrers Tag Schema"; cosign's `SIGNATURE_SPEC.md`.

use moorage::oci::{Algorithm, Digest, Tag};

/// How much of a digest's hex such a tag has.
const HEX_LENGTH: usize = 64;

/// A tag that is about a manifest: its subject.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FallbackTag {
    /// The tag without its end: `<algorithm>-<64 hex>`, so equal for all that is about the same manifest.
    subject: String,
}

impl FallbackTag {
    /// Reads a tag; `None` for one that is like any other.
    pub fn parse(tag: &Tag) -> Option<Self> {
        let (subject, _) = tag.as_str().split_once('.').unwrap_or((tag.as_str(), ""));
        let (algorithm, hex) = subject.split_once('-')?;
        Algorithm::from_name(algorithm)?;
        let is_hex = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (hex.len() == HEX_LENGTH && is_hex).then(|| Self { subject: subject.to_owned() })
    }

    /// What a tag about this manifest would be.
    pub fn about(digest: &Digest) -> Self {
        let hex = digest.hex().get(..HEX_LENGTH).unwrap_or(digest.hex());
        Self { subject: format!("{}-{hex}", digest.algorithm().as_str()) }
    }

    /// The subject's digest as far as the tag has it, as `<algorithm>-<hex>`.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The subject's digest, if the tag has all of it.
    pub fn digest(&self) -> Option<Digest> {
        self.subject.replacen('-', ":", 1).parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_digest_makes_a_fallback_tag() {
        let hex = "0123456789abcdef".repeat(4);
        for (tag, is_fallback) in [
            (format!("sha256-{hex}"), true),
            (format!("sha256-{hex}.sig"), true),
            (format!("sha256-{hex}.att"), true),
            (format!("sha256-{hex}.sbom"), true),
            (format!("sha256-{hex}.sig.old"), true),
            (format!("sha512-{hex}"), true),
            // A build named after a commit, or after an image, is a tag like any other.
            ("sha256-0123456".to_owned(), false),
            ("sha-0123456".to_owned(), false),
            (format!("sha256-{hex}-amd64"), false),
            (format!("sha256-{hex}0"), false),
            (format!("sha256-{}", hex.to_uppercase()), false),
            (format!("sha256_{hex}"), false),
            (format!("md5-{hex}"), false),
            (hex.clone(), false),
            ("latest".to_owned(), false),
        ] {
            let tag: Tag = tag.parse().expect("a tag");
            assert_eq!(FallbackTag::parse(&tag).is_some(), is_fallback, "{tag}");
        }
    }

    #[test]
    fn it_is_known_by_its_subject() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Digest::of(algorithm, b"subject");
            let tag = format!("{}-{}.sig", algorithm.as_str(), &digest.hex()[..64]);
            let tag = FallbackTag::parse(&tag.parse().expect("a tag")).expect("one");
            assert_eq!(tag, FallbackTag::about(&digest));
            let whole = (algorithm == Algorithm::Sha256).then_some(digest);
            assert_eq!(tag.digest(), whole);
        }
    }
}
