//! Each way to be damaged.

use std::time::Duration;

use moorage::oci::{Algorithm, Digest};
use moorage::store::layout;

use super::fixture::{Fixture, blob_link, manifest_link, name, problems, tag, tag_link};
use crate::check::Level;

/// Something that goes wrong, what is found, and what of that is told.
struct Row {
    what: &'static str,
    is_deep: bool,
    damage: fn(&Fixture),
    found: &'static [&'static str],
    /// Texts in the words of the first finding.
    told: &'static [&'static str],
}

fn of(digest: &Digest) -> layout::Key {
    layout::content(digest)
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const ROWS: &[Row] = &[
    Row {
        what: "a tag without a digest",
        is_deep: false,
        damage: |f| f.put(&tag_link("a", "one"), "latest"),
        found: &["error link-broken a:one"],
        told: &["the tag holds no digest", "pulls of a:one fail with UNKNOWN (500)"],
    },
    Row {
        what: "a tag with the end of a line",
        is_deep: false,
        damage: |f| f.put(&tag_link("a", "one"), format!("{}\n", f.one)),
        found: &["error link-broken a:one"],
        told: &["the tag holds no digest"],
    },
    Row {
        what: "a link to a blob that is empty",
        is_deep: false,
        damage: |f| f.put(&blob_link("b", &f.layer), ""),
        found: &["error link-broken b"],
        told: &["holds none", "pulls of b:one fail with UNKNOWN (500)"],
    },
    Row {
        what: "the link of a tagged manifest",
        is_deep: false,
        damage: |f| drop(f.remove(&manifest_link("b", &f.one))),
        found: &["error tag-without-manifest b:one"],
        told: &["which the repository does not have", "pulls of b:one fail with MANIFEST_UNKNOWN"],
    },
    Row {
        what: "the content of a manifest in two repositories",
        is_deep: false,
        damage: |f| drop(f.remove(&of(&f.one))),
        found: &["error manifest-missing a", "error manifest-missing b"],
        told: &["is gone", "pulls of a:one, a:same fail with MANIFEST_UNKNOWN"],
    },
    Row {
        what: "the content of a manifest that a bit was flipped in",
        is_deep: true,
        damage: |f| {
            let content = f.remove(&of(&f.index)).bytes;
            let mut content = content.to_vec();
            content[30] ^= 1;
            f.put(&of(&f.index), content);
        },
        found: &["error manifest-unreadable a"],
        told: &["not what its digest says", "pulls of a:multi fail with UNKNOWN (500)"],
    },
    Row {
        what: "the link of a blob",
        is_deep: false,
        damage: |f| drop(f.remove(&blob_link("a", &f.layer))),
        found: &["error blob-not-linked a"],
        told: &["pulls of a:one, a:same fail with BLOB_UNKNOWN", "_layers/"],
    },
    Row {
        what: "the content of a blob in two repositories",
        is_deep: true,
        damage: |f| drop(f.remove(&of(&f.layer))),
        found: &["error blob-missing a", "error blob-missing b"],
        told: &["pulls of a:one, a:same fail with BLOB_UNKNOWN", "restore docker/registry"],
    },
    Row {
        what: "the content of a blob that an image of an index needs",
        is_deep: false,
        damage: |f| drop(f.remove(&of(&f.child_layer))),
        found: &["error blob-missing a"],
        told: &["pulls of a:multi fail with BLOB_UNKNOWN"],
    },
    Row {
        what: "a blob that was cut short",
        is_deep: false,
        damage: |f| f.put(&of(&f.layer), "the cont"),
        found: &["error size-differs a", "error size-differs b"],
        told: &["has 8 bytes", "says 20", "pulls of a:one, a:same break off"],
    },
    Row {
        what: "a blob of the right size",
        is_deep: true,
        damage: |f| f.put(&of(&f.layer), "the content of_layer"),
        found: &["error content-damaged a", "error content-damaged b"],
        told: &["is not what its digest says", "pulls of a:one, a:same break off"],
    },
    Row {
        what: "the same, not looked at deeply",
        is_deep: false,
        damage: |f| f.put(&of(&f.layer), "the content of_layer"),
        found: &[],
        told: &[],
    },
    Row {
        what: "a link to another blob",
        is_deep: true,
        damage: |f| f.put(&blob_link("a", &f.layer), f.config.as_str().to_owned()),
        found: &["error link-misleads a"],
        told: &["which is something else", "pulls of a:one, a:same break off"],
    },
    Row {
        what: "a link from SHA-512 to something else",
        is_deep: true,
        damage: |f| {
            let digest = Digest::of(Algorithm::Sha512, b"something");
            f.put(&blob_link("a", &digest), f.config.as_str().to_owned());
        },
        found: &["error link-misleads a"],
        told: &["which is something else", "sha512:"],
    },
    Row {
        what: "a link from SHA-512 to the same content",
        is_deep: true,
        damage: |f| {
            let digest = Digest::of(Algorithm::Sha512, b"the content of config");
            f.put(&blob_link("a", &digest), f.config.as_str().to_owned());
        },
        found: &[],
        told: &[],
    },
    Row {
        what: "a child of an index",
        is_deep: false,
        damage: |f| drop(f.remove(&manifest_link("a", &f.child))),
        found: &["warning child-missing a"],
        told: &["pulls of a:multi fail with MANIFEST_UNKNOWN on the platform"],
    },
    Row {
        what: "the same whose content is old, and stays by the index",
        is_deep: false,
        damage: |f| {
            f.remove(&manifest_link("a", &f.child));
            f.world.pass(DAY + DAY);
        },
        found: &["warning child-missing a"],
        told: &[],
    },
    Row {
        what: "a link to a blob that no manifest needs",
        is_deep: false,
        damage: |f| {
            let digest = Digest::of(Algorithm::Sha256, b"something");
            f.put(&blob_link("a", &digest), digest.as_str().to_owned());
        },
        found: &["warning link-dangling a"],
        told: &["no manifest needs it", "moorage gc removes it"],
    },
    Row {
        what: "the link of a manifest that refers to another",
        is_deep: false,
        damage: |f| drop(f.remove(&manifest_link("a", &f.signature))),
        found: &["warning referrer-without-manifest a"],
        told: &["can't be pulled"],
    },
    Row {
        what: "the entry of a manifest that refers to another",
        is_deep: false,
        damage: |f| drop(f.remove(&layout::referrer(&name("a"), &f.one, &f.signature))),
        found: &["warning referrer-missing a"],
        told: &["is not noted there", "signatures"],
    },
    Row {
        what: "the same where clients keep a list",
        is_deep: false,
        damage: |f| {
            f.remove(&layout::referrer(&name("a"), &f.one, &f.signature));
            let index = format!(
                r#"{{"schemaVersion":2,"manifests":[{{"digest":"{}","size":{}}}]}}"#,
                f.signature,
                f.store.objects.borrow()[of(&f.signature).as_str()].bytes.len()
            );
            let digest = Digest::of(Algorithm::Sha256, index.as_bytes());
            f.put(&of(&digest), index);
            f.put(&manifest_link("a", &digest), digest.as_str().to_owned());
            let tag = f.one.as_str().replacen(':', "-", 1);
            f.put(&tag_link("a", &tag), digest.as_str().to_owned());
        },
        found: &[],
        told: &[],
    },
    Row {
        what: "the entry of a manifest, with nonsense in it",
        is_deep: true,
        damage: |f| f.put(&layout::referrer(&name("a"), &f.one, &f.signature), "{}"),
        found: &["warning referrer-damaged a"],
        told: &["is not its descriptor"],
    },
    Row {
        what: "a history without its tag",
        is_deep: false,
        damage: |f| drop(f.remove(&tag_link("b", "one"))),
        found: &["note history-without-tag b:one"],
        told: &["the tag is gone", "moorage gc removes it"],
    },
    Row {
        what: "content that no repository has",
        is_deep: false,
        damage: |f| {
            f.put(&of(&Digest::of(Algorithm::Sha256, b"something")), "something");
            f.world.pass(DAY + DAY);
        },
        found: &["note content-unlinked"],
        told: &["9 bytes", "moorage gc removes it"],
    },
    Row {
        what: "the same that may be on its way",
        is_deep: false,
        damage: |f| f.put(&of(&Digest::of(Algorithm::Sha256, b"something")), "something"),
        found: &[],
        told: &[],
    },
    Row {
        what: "damaged content that no repository has",
        is_deep: true,
        damage: |f| f.put(&of(&Digest::of(Algorithm::Sha256, b"something")), "some"),
        found: &["warning content-damaged"],
        told: &["nobody pulls it"],
    },
    Row {
        what: "an object that no registry writes",
        is_deep: false,
        damage: |f| {
            let key = layout::Key::listed("docker/registry/v2/blobs/sha256/.DS_Store");
            f.put(&key.expect("a key"), "finder");
        },
        found: &["note foreign-objects"],
        told: &["1 objects", "6 bytes", ".DS_Store"],
    },
    Row {
        what: "a manifest that is none",
        is_deep: false,
        damage: |f| {
            let digest = Digest::of(Algorithm::Sha256, b"{}");
            f.put(&of(&digest), "{}");
            f.put(&manifest_link("a", &digest), digest.as_str().to_owned());
            f.put(&tag_link("a", "odd"), digest.as_str().to_owned());
        },
        found: &["error manifest-unreadable a"],
        told: &["schemaVersion", "pulls of a:odd fail"],
    },
    Row {
        what: "a repository of which only a tag is left",
        is_deep: true,
        damage: |f| {
            for key in f.keys().into_iter().filter(|key| key.contains("/b/_")) {
                if key != tag_link("b", "one").as_str() {
                    f.store.objects.borrow_mut().remove(&key);
                }
            }
        },
        found: &["error tag-without-manifest b:one"],
        told: &[],
    },
];

#[test]
fn each_damage_is_found_and_nothing_else() {
    for Row { what, is_deep, damage, found, told } in ROWS {
        let fixture = Fixture::new();
        damage(&fixture);
        let checked = fixture.check(*is_deep, None);
        assert_eq!(problems(&checked), *found, "{what}");
        let words = checked.findings.first().map(|finding| format!("{:?}", checked.told(finding)));
        for text in *told {
            let words = words.as_deref().unwrap_or_default();
            assert!(words.contains(text), "{what}: no {text:?} in {words}");
        }
        let has_error = found.iter().any(|line| line.starts_with("error"));
        assert_eq!(checked.count(Level::Error) > 0, has_error, "{what}");
    }
}

#[test]
fn only_the_repositories_that_are_asked_for_are_looked_at() {
    let fixture = Fixture::new();
    fixture.remove(&of(&fixture.layer));
    fixture.put(&of(&fixture.child_layer), "nonsense");
    fixture.put(&of(&Digest::of(Algorithm::Sha256, b"something")), "some");
    fixture.world.pass(DAY + DAY);
    for (glob, expected) in [
        ("b", &["error blob-missing b"][..]),
        ("c*", &[]),
        ("a", &["error blob-missing a", "error size-differs a"]),
    ] {
        let mut found = problems(&fixture.check(true, Some(glob)));
        found.sort_unstable();
        assert_eq!(found, expected, "{glob}");
    }
}

#[test]
fn the_tags_that_fail_are_told_and_counted() {
    let fixture = Fixture::new();
    for number in 0..5 {
        let digest = fixture.index.as_str().to_owned();
        fixture.put(&layout::tag_link(&name("a"), &tag(&format!("m{number}"))), digest);
    }
    fixture.remove(&of(&fixture.child));
    let checked = fixture.check(false, None);
    assert_eq!(problems(&checked), ["error manifest-missing a"]);
    let finding = &checked.findings[0];
    assert_eq!((finding.affected.tags.len(), finding.affected.count), (3, 6));
    let means = checked.told(finding).means;
    assert_eq!(means, "pulls of a:m0, a:m1, a:m2 and 3 more fail with MANIFEST_UNKNOWN");
}
