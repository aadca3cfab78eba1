//! The names of things: repositories, tags, digests, the reference that is one of the last two, and
//! upload sessions.
//!
//! Each type is parsed once and is valid from then on. Storage keys are built from these types alone,
//! so what they refuse can never be part of a key.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};
use thiserror::Error;

/// The longest repository name accepted, in bytes; `distribution`'s own limit.
pub const NAME_MAX_LENGTH: usize = 255;

/// The longest tag the specification allows, in bytes.
pub const TAG_MAX_LENGTH: usize = 128;

/// Why a text is no repository name. The texts are what the client is told.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Longer than [`NAME_MAX_LENGTH`].
    #[error("repository name is longer than {NAME_MAX_LENGTH} characters")]
    TooLong,
    /// A path component that the grammar does not allow, an empty one included.
    #[error(
        "repository name must consist of path components of lower-case letters and digits, separated by '.', '_', '__' or dashes"
    )]
    Malformed,
}

/// The name of a repository, such as `library/alpine`.
///
/// The grammar is that of the OCI distribution specification, section "Pulling manifests":
/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > NAME_MAX_LENGTH {
            return Err(NameError::TooLong);
        }
        if !is_name(text.as_bytes()) {
            return Err(NameError::Malformed);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `text` is runs of `[a-z0-9]` joined by separators.
fn is_name(text: &[u8]) -> bool {
    let mut end_of_run = 0;
    for (position, byte) in text.iter().enumerate() {
        if !(byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            continue;
        }
        let follows_another = position == end_of_run;
        if !follows_another && (end_of_run == 0 || !is_separator(&text[end_of_run..position])) {
            return false;
        }
        end_of_run = position + 1;
    }
    end_of_run > 0 && end_of_run == text.len()
}

/// Whether `text` is the slash between components, or one of the separators within them: `.`, `_`, `__`
/// or any number of `-`.
fn is_separator(text: &[u8]) -> bool {
    matches!(text, b"/" | b"." | b"_" | b"__") || text.iter().all(|byte| *byte == b'-')
}

/// The text is no tag: the specification allows `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "tag must be at most {TAG_MAX_LENGTH} letters, digits, '_', '.' and '-', and begin with a letter, a digit or '_'"
)]
pub struct TagError;

/// A tag: a name within a repository that points at a manifest and can be moved.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let valid = text.len() <= TAG_MAX_LENGTH
            && text.bytes().next().is_some_and(is_word)
            && text.bytes().all(|b| is_word(b) || b == b'.' || b == b'-');
        if valid { Ok(Self(text.into())) } else { Err(TagError) }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The digest algorithms in use: the two that the OCI image specification registers and every
/// client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, the canonical one.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The algorithm's name, as it stands in a digest and in storage keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many hexadecimal digits a digest of this algorithm has.
    pub fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    /// The algorithm of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }
}

/// Why a text is no digest that this registry takes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DigestError {
    /// No `algorithm:hex`.
    #[error("digest must have the form algorithm:hex")]
    Malformed,
    /// An algorithm other than sha256 and sha512.
    #[error("digest algorithm must be sha256 or sha512")]
    UnknownAlgorithm,
    /// Not exactly as many lower-case hexadecimal digits as the algorithm has.
    #[error("a {} digest has exactly {} lower-case hexadecimal digits", .0.as_str(), .0.hex_length())]
    WrongHex(Algorithm),
}

/// The digest of some content, such as `sha256:` and 64 lower-case hexadecimal digits.
///
/// Source: OCI image specification, "Digests".
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    text: Arc<str>,
}

impl Digest {
    /// The digest of `content` under `algorithm`.
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::from_hash(algorithm, &Sha256::digest(content)),
            Algorithm::Sha512 => Self::from_hash(algorithm, &Sha512::digest(content)),
        }
    }

    /// The digest whose hash is this. `hash` has as many bytes as the algorithm's hashes have.
    pub(super) fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Self {
        debug_assert_eq!(hash.len() * 2, algorithm.hex_length());
        Self { algorithm, text: [algorithm.as_str(), ":", &to_hex(hash)].concat().into() }
    }

    /// Whether `content` hashes to this digest.
    pub fn matches(&self, content: &[u8]) -> bool {
        Self::of(self.algorithm, content) == *self
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hexadecimal part.
    pub fn hex(&self) -> &str {
        &self.text[self.algorithm.as_str().len() + 1..]
    }

    /// The hash itself.
    pub fn hash(&self) -> Vec<u8> {
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => digit - b'0',
            // The digits are lower-case hexadecimal ones: that makes it a digest.
            _ => digit.wrapping_sub(b'a').wrapping_add(10),
        };
        let pairs = self.hex().as_bytes().chunks_exact(2);
        pairs.map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])).collect()
    }

    /// The whole digest, `algorithm:hex`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 0x0f])
        .map(|nibble| char::from(DIGITS[usize::from(nibble)]))
        .collect()
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (name, hex) = text.split_once(':').ok_or(DigestError::Malformed)?;
        let algorithm = Algorithm::from_name(name).ok_or(DigestError::UnknownAlgorithm)?;
        let is_lower_hex = |b: u8| b.wrapping_sub(b'0') < 10 || b.wrapping_sub(b'a') < 6;
        // Every digit, even after a wrong one: without a branch at each it takes half the time.
        let is_hex = hex.bytes().fold(true, |is_hex, b| is_hex & is_lower_hex(b));
        if hex.len() != algorithm.hex_length() || !is_hex {
            return Err(DigestError::WrongHex(algorithm));
        }
        Ok(Self { algorithm, text: text.into() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a text refers to no manifest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReferenceError {
    /// It has a colon, so it must be a digest, and is none.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// It has no colon, so it must be a tag, and is none.
    #[error(transparent)]
    Tag(#[from] TagError),
}

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// By tag: whatever it points at now.
    Tag(Tag),
    /// By digest: that very content.
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        // A tag has no colon and a digest has one: which error to give is never in doubt.
        if text.contains(':') {
            Ok(Self::Digest(text.parse()?))
        } else {
            Ok(Self::Tag(text.parse()?))
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

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
        let bits = bits & !(0xf << 76) & !(0b11 << 62) | 8 << 76 | 0b10 << 62;
        let hex = format!("{bits:032x}");
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        Self(parts.join("-"))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UploadId {
    type Err = UploadIdError;

    fn from_str(text: &str) -> Result<Self, UploadIdError> {
        let is_valid = |(position, byte): (usize, u8)| match position {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        };
        let valid = text.len() == 36 && text.bytes().enumerate().all(is_valid);
        if valid { Ok(Self(text.to_owned())) } else { Err(UploadIdError) }
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
    fn names_follow_the_specification_grammar() {
        let longest = "a".repeat(NAME_MAX_LENGTH);
        for valid in [
            "a",
            "0",
            "a/b",
            "library/alpine",
            "a.b",
            "a_b",
            "a__b",
            "a-b",
            "a---b",
            "a/b-c/d__e.f",
            "_catalog1".trim_start_matches('_'),
            "manifests/blobs",
            &longest,
        ] {
            assert_eq!(valid.parse::<Name>().map(|n| n.to_string()), Ok(valid.to_owned()));
        }
        for malformed in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a.",
            ".a",
            "a..b",
            "a___b",
            "a_-b",
            "a._b",
            "-a",
            "a-",
            "_a",
            "..",
            "a/../b",
            "a/./b",
            "a b",
            "a\0b",
            "ä",
            "a%2fb",
            "a:b",
            "a\\b",
            "a/_manifests",
        ] {
            assert_eq!(malformed.parse::<Name>(), Err(NameError::Malformed), "{malformed:?}");
        }
        assert_eq!("a".repeat(NAME_MAX_LENGTH + 1).parse::<Name>(), Err(NameError::TooLong));
    }

    #[test]
    fn tags_follow_the_specification_grammar() {
        let longest = "t".repeat(TAG_MAX_LENGTH);
        for valid in ["latest", "_", "1", "v1.2.3-rc.1", "A_b-C.d", "a..b", &longest] {
            assert_eq!(valid.parse::<Tag>().map(|t| t.to_string()), Ok(valid.to_owned()));
        }
        let too_long = "t".repeat(TAG_MAX_LENGTH + 1);
        for invalid in
            ["", ".", "..", ".a", "-a", "a/b", "a b", "a\0", "ä", "a+b", "a%20", &too_long]
        {
            assert_eq!(invalid.parse::<Tag>(), Err(TagError), "{invalid:?}");
        }
    }

    #[test]
    fn digests_need_a_known_algorithm_and_exact_lower_hex() {
        let sha256 = format!("sha256:{}", "0a".repeat(32));
        let sha512 = format!("sha512:{}", "f9".repeat(64));
        for valid in [&sha256, &sha512] {
            assert_eq!(valid.parse::<Digest>().map(|d| d.to_string()), Ok(valid.clone()));
        }
        for (invalid, error) in [
            ("sha256".to_owned(), DigestError::Malformed),
            (format!("sha384:{}", "0".repeat(96)), DigestError::UnknownAlgorithm),
            (format!("SHA256:{}", "0".repeat(64)), DigestError::UnknownAlgorithm),
            (format!("../x:{}", "0".repeat(64)), DigestError::UnknownAlgorithm),
            ("sha256:".to_owned(), DigestError::WrongHex(Algorithm::Sha256)),
            (format!("sha256:{}", "0".repeat(63)), DigestError::WrongHex(Algorithm::Sha256)),
            (format!("sha256:{}", "0".repeat(65)), DigestError::WrongHex(Algorithm::Sha256)),
            (format!("sha256:{}", "A".repeat(64)), DigestError::WrongHex(Algorithm::Sha256)),
            (format!("sha256:{}", "/".repeat(64)), DigestError::WrongHex(Algorithm::Sha256)),
            (format!("sha512:{}", "0".repeat(64)), DigestError::WrongHex(Algorithm::Sha512)),
        ] {
            assert_eq!(invalid.parse::<Digest>(), Err(error), "{invalid:?}");
        }
    }

    #[test]
    fn digests_of_known_content() {
        // FIPS 180-4's example "abc".
        let sha256 = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let sha512 = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                      2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        for text in [sha256, sha512] {
            let digest: Digest = text.parse().expect("a valid digest");
            assert_eq!(Digest::of(digest.algorithm(), b"abc"), digest);
            assert!(digest.matches(b"abc"));
            assert!(!digest.matches(b"abd"));
        }
    }

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

    #[test]
    fn a_colon_makes_a_reference_a_digest() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(matches!("latest".parse(), Ok(Reference::Tag(_))));
        assert!(matches!(digest.parse(), Ok(Reference::Digest(_))));
        assert!(matches!("sha256:0".parse::<Reference>(), Err(ReferenceError::Digest(_))));
        assert!(matches!("..".parse::<Reference>(), Err(ReferenceError::Tag(_))));
    }
}
