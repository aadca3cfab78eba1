//! Versions in tags, by Semantic Versioning 2.0.0, as people write them in tags.
//!
//! - A `v` may stand before it: `v1.2.3`.
//! - A tag can't have a `+`, so build metadata comes after `_`, as Helm writes it: `1.2.3_build.5`.
//! - `1.2` and `1` are no versions but names for the newest one of their line: they stay as long as a version of that
//!   line does.
//!
//! What is counted is numbers, not tags: `1.2.3`, `v1.2.3`, `1.2.3-alpine` and `1.2.3_5` are one.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use moorage::oci::Tag;
use semver::Version;

/// Which versions stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// How many, the highest, of each line. A line that has releases is counted by them; one that has none yet by its
    /// pre-releases. What is as high as the lowest of them stays as well, pre-releases included.
    pub newest: NonZeroUsize,
    /// What a line is.
    pub of_each: Line,
    /// Whether pre-releases are kept (`1.2.3-rc.1`, and also `1.2.3-alpine`).
    pub prereleases: bool,
}

/// What versions are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// All of them.
    All,
    /// Those of the same major version.
    Major,
    /// Those of the same major and minor version.
    Minor,
}

/// A version without what comes after its three numbers.
type Numbers = (u64, u64, u64);

/// The major and minor version, as far as a line has them in common.
type LineKey = (Option<u64>, Option<u64>);

/// What a tag says of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Written {
    /// All three numbers, and perhaps more.
    Whole(Version),
    /// The beginning of one.
    Beginning(u64, Option<u64>),
}

/// The versions that stay of some tags.
#[derive(Debug)]
pub(super) struct Kept<'a> {
    versions: &'a Versions,
    /// The lowest numbers that stay, by line.
    lowest: BTreeMap<LineKey, Numbers>,
    /// The lines by which names such as `1.2` and `1` are known to have a version that stays.
    lines: BTreeSet<LineKey>,
}

impl<'a> Kept<'a> {
    /// Of these tags.
    pub fn of<'t>(versions: &'a Versions, tags: impl Iterator<Item = &'t Tag>) -> Self {
        let mut kept = Self { versions, lowest: BTreeMap::new(), lines: BTreeSet::new() };
        let all: Vec<Version> = tags
            .filter_map(|tag| match parse(tag)? {
                Written::Whole(version) => Some(version),
                Written::Beginning(..) => None,
            })
            .collect();
        // The numbers of releases, and those of pre-releases.
        let mut lines: BTreeMap<LineKey, (BTreeSet<Numbers>, BTreeSet<Numbers>)> = BTreeMap::new();
        for version in &all {
            let (releases, others) = lines.entry(versions.of_each.key(version)).or_default();
            let numbers = if version.pre.is_empty() { releases } else { others };
            numbers.insert(numbers_of(version));
        }
        for (key, (releases, others)) in lines {
            let counted = if releases.is_empty() { others } else { releases };
            let lowest = counted.into_iter().rev().take(versions.newest.get()).min();
            kept.lowest.extend(lowest.map(|lowest| (key, lowest)));
        }
        let stay = all.iter().filter(|version| kept.version(version).is_ok());
        let lines = stay.flat_map(|v| [(Some(v.major), None), (Some(v.major), Some(v.minor))]);
        kept.lines = lines.collect();
        kept
    }

    /// Whether the tag stays, and why or why not.
    pub fn tag(&self, tag: &Tag) -> Result<String, String> {
        match parse(tag) {
            None => Err("is no version".to_owned()),
            Some(Written::Whole(version)) => self.version(&version),
            Some(Written::Beginning(major, minor)) => {
                if self.lines.contains(&(Some(major), minor)) {
                    Ok("a version that it begins stays".to_owned())
                } else {
                    Err("is no version, and none that it begins stays".to_owned())
                }
            }
        }
    }

    fn version(&self, version: &Version) -> Result<String, String> {
        if !version.pre.is_empty() && !self.versions.prereleases {
            return Err("is a pre-release".to_owned());
        }
        let newest = self.versions.newest;
        let line = match self.versions.of_each {
            Line::All => "versions".to_owned(),
            Line::Major => format!("versions {}.x", version.major),
            Line::Minor => format!("versions {}.{}.x", version.major, version.minor),
        };
        let Some(lowest) = self.lowest.get(&self.versions.of_each.key(version)) else {
            return Err("is no version that is counted".to_owned());
        };
        let (major, minor, patch) = lowest;
        if numbers_of(version) >= *lowest {
            return Ok(format!("of the newest {newest} {line}"));
        }
        Err(format!("below {major}.{minor}.{patch}, the lowest of the newest {newest} {line}"))
    }
}

impl Line {
    fn key(self, version: &Version) -> LineKey {
        match self {
            Self::All => (None, None),
            Self::Major => (Some(version.major), None),
            Self::Minor => (Some(version.major), Some(version.minor)),
        }
    }
}

fn numbers_of(version: &Version) -> Numbers {
    (version.major, version.minor, version.patch)
}

fn parse(tag: &Tag) -> Option<Written> {
    let text = tag.as_str();
    let text = text.strip_prefix('v').unwrap_or(text);
    if let Ok(version) = Version::parse(&text.replacen('_', "+", 1)) {
        return Some(Written::Whole(version));
    }
    match text.split_once('.') {
        Some((major, minor)) => Some(Written::Beginning(number(major)?, Some(number(minor)?))),
        None => Some(Written::Beginning(number(text)?, None)),
    }
}

fn number(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = text == "0" || !text.starts_with('0');
    if is_number && is_plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Tag {
        text.parse().expect("a tag")
    }

    #[test]
    fn versions_are_read_as_people_write_them() {
        let whole = |text: &str| Some(Written::Whole(text.parse().expect("a version")));
        for (text, expected) in [
            ("1.2.3", whole("1.2.3")),
            ("v1.2.3", whole("1.2.3")),
            ("1.2.3-rc.1", whole("1.2.3-rc.1")),
            ("v1.2.3-alpine3.20", whole("1.2.3-alpine3.20")),
            ("1.2.3_build.5", whole("1.2.3+build.5")),
            ("1.2.3-rc.1_5", whole("1.2.3-rc.1+5")),
            ("2026.1.31", whole("2026.1.31")),
            ("1.2", Some(Written::Beginning(1, Some(2)))),
            ("v1", Some(Written::Beginning(1, None))),
            ("0", Some(Written::Beginning(0, None))),
            // Not by Semantic Versioning, and nobody guesses.
            ("2026.01.31", None),
            ("1.2.3.4", None),
            ("V1.2.3", None),
            ("vv1.2.3", None),
            ("1.2.3_a_b", None),
            ("1.2-alpine", None),
            ("01", None),
            ("latest", None),
            ("v", None),
            ("1.2.", None),
            ("99999999999999999999.0.0", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse(&tag(text)), expected, "{text}");
        }
    }

    /// Each row: what is asked for, the tags that stay, and those that do not.
    #[test]
    fn the_newest_of_each_line_stay() {
        let versions = |newest, of_each, prereleases| Versions {
            newest: NonZeroUsize::new(newest).expect("not zero"),
            of_each,
            prereleases,
        };
        for (versions, stay, go) in [
            // 1.10 is above 1.9, and a major version is no more than a number.
            (versions(2, Line::All, true), "1.10.0 2.0.0", "1.9.0 1.9.9"),
            (versions(1, Line::Major, true), "1.10.0 2.3.1", "1.9.0 2.3.0 2.0.9"),
            (versions(1, Line::Minor, true), "1.9.3 1.10.0 2.0.0", "1.9.2 1.9.0"),
            // Counted are numbers, not tags.
            (
                versions(2, Line::All, true),
                "v1.2.3 1.2.3 1.2.3-alpine 1.2.3_5 1.2.3_6 1.2.2",
                "1.2.1 v1.2.1-alpine 1.2.2-beta.1x_y_z",
            ),
            // A pre-release takes no release's place, and stays with what is as high.
            (versions(1, Line::All, true), "1.2.3 1.2.3-rc.1 1.3.0-rc.2", "1.2.2 1.2.2-rc.1"),
            (versions(1, Line::All, false), "1.2.3", "1.2.3-rc.1 1.3.0-rc.2 1.2.2"),
            // A line that has nothing but pre-releases is counted by them.
            (versions(1, Line::Minor, true), "1.3.0-rc.1 1.3.0-rc.2 1.2.9", "1.2.8"),
            (versions(1, Line::Minor, false), "1.2.9", "1.3.0-rc.1 1.2.8"),
            // What is a name for the newest of a line stays with one of them.
            (versions(1, Line::All, true), "1.2.3 1.2 1 v1", "1.1.9 1.1 0.9.0 0.9 0 2 2.0 latest"),
            (versions(9, Line::All, true), "0.0.0", "latest main 2026.01.31"),
        ] {
            let list = |text: &str| text.split(' ').map(tag).collect::<Vec<_>>();
            let (stay, go) = (list(stay), list(go));
            let kept = Kept::of(&versions, stay.iter().chain(&go));
            for tag in &stay {
                assert!(kept.tag(tag).is_ok(), "{versions:?}: {tag} {:?}", kept.tag(tag));
            }
            for tag in &go {
                assert!(kept.tag(tag).is_err(), "{versions:?}: {tag} {:?}", kept.tag(tag));
            }
        }
    }
}
