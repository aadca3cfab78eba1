//! What is made up: keys, digests, sizes, and that the census is right, by looking at nothing but keys and bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use moorage::oci::{Digest, Name, Tag, UploadId};
use moorage::store::layout;
use moorage_synthetic_bucket::census::{Amount, Census, Garbage, Untagged};
use moorage_synthetic_bucket::registry::{Body, Bytes, Content, Entry, ManifestKind, Registry};
use moorage_synthetic_bucket::{folder, plan};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const ROOT: &str = "docker/registry/v2/";

fn text(registry: &Registry, entry: Entry) -> String {
    match registry.bytes(entry) {
        Bytes::These(bytes) => String::from_utf8(bytes.to_vec()).expect("text"),
        Bytes::Zeros(size) => panic!("{entry:?} is {size} zeros"),
    }
}

fn digest(registry: &Registry, content: u32) -> Digest {
    registry.digest(content).parse().expect("a digest")
}

#[test]
fn keys_are_those_of_the_layout_and_in_order() {
    let registry = plan::make(20_000, 7);
    let name = |repository: u32| -> Name {
        registry.repositories[repository as usize].parse().expect("a name")
    };
    let tag = |tag: u32, key: &str| -> (Name, Tag) {
        let (_, rest) = key.split_once("/_manifests/tags/").expect("a tag's key");
        let (text, _) = rest.split_once('/').expect("a tag's folder");
        (name(registry.tags[tag as usize].repository), text.parse().expect("a tag"))
    };
    let mut keys: Vec<String> = Vec::new();
    for entry in &registry.entries {
        let key = registry.key(*entry);
        let expected = match *entry {
            Entry::Content(content) => layout::content(&digest(&registry, content)),
            Entry::BlobLink(repository, content) => {
                layout::blob_link(&name(repository), &digest(&registry, content))
            }
            Entry::ManifestLink(repository, content) => {
                layout::manifest_link(&name(repository), &digest(&registry, content))
            }
            Entry::Current(number, _) => {
                let (name, tag) = tag(number, &key);
                layout::tag_link(&name, &tag)
            }
            Entry::History(number, content) => {
                let (name, tag) = tag(number, &key);
                layout::tag_history(&name, &tag, &digest(&registry, content))
            }
            Entry::Referrer(repository, subject, content) => layout::referrer(
                &name(repository),
                &digest(&registry, subject),
                &digest(&registry, content),
            ),
            Entry::UploadStart(repository, _) => {
                let id = key.rsplit('/').nth(1).expect("an upload's folder");
                let id: UploadId = id.parse().expect("an upload's id");
                layout::upload_start(&name(repository), &id)
            }
        };
        assert_eq!(key, expected.as_str());
        keys.push(key);
    }
    assert!(keys.is_sorted_by(|a, b| a < b), "sorted, and none twice");
    let kinds: BTreeSet<_> = registry
        .entries
        .iter()
        .map(std::mem::discriminant)
        .map(|kind| format!("{kind:?}"))
        .collect();
    assert_eq!(kinds.len(), 7, "all kinds of object");
}

#[test]
fn documents_have_their_real_digests_and_images_5_to_15_layers() {
    let registry = plan::make(20_000, 7);
    let mut kinds = BTreeMap::new();
    for (index, Content { hash, size, body }) in registry.contents.iter().enumerate() {
        let entry = Entry::Content(u32::try_from(index).expect("few"));
        assert_eq!(registry.size(entry), *size);
        if *body == Body::Zeros {
            assert_eq!(registry.bytes(entry), Bytes::Zeros(*size));
            continue;
        }
        let text = text(&registry, entry);
        assert_eq!(Sha256::digest(&text).as_slice(), hash, "{text}");
        assert_eq!(text.len() as u64, *size);
        let json: Value = serde_json::from_str(&text).expect("JSON");
        if let Body::Manifest(number) = body {
            let kind = registry.manifests[*number as usize].kind;
            *kinds.entry(format!("{kind:?}")).or_insert(0) += 1;
            if matches!(kind, ManifestKind::Oci | ManifestKind::Docker) {
                let layers = json["layers"].as_array().expect("layers").len();
                assert!((5..=15).contains(&layers), "{layers}");
            }
        }
    }
    assert_eq!(kinds.len(), 4, "{kinds:?}");
}

#[test]
fn the_seed_decides_and_everything_is_old() {
    let (one, again, other) = (plan::make(3_000, 1), plan::make(3_000, 1), plan::make(3_000, 2));
    let all = |registry: &Registry| -> Vec<_> {
        let entry = |entry: &Entry| {
            (registry.key(*entry), registry.etag(*entry), registry.modified(*entry))
        };
        registry.entries.iter().map(entry).collect()
    };
    assert_eq!(all(&one), all(&again));
    assert_ne!(all(&one), all(&other));
    let ten_days_ago = SystemTime::now() - Duration::from_secs(10 * 24 * 60 * 60);
    assert!(one.entries.iter().all(|entry| one.modified(*entry) < ten_days_ago));
}

#[test]
fn there_are_as_many_objects_as_asked_for_and_a_tenth_of_them_is_garbage() {
    for objects in [1, 1_000, 50_000] {
        let Census { total, .. } = plan::make(objects, 3).census;
        assert!((objects..objects + 1_500).contains(&total.objects), "{objects}: {total:?}");
    }
    let census = plan::make(50_000, 3).census;
    let share = census.garbage.objects() as f64 / census.total.objects as f64;
    assert!((0.07..0.13).contains(&share), "{share}");
    let Garbage { content, blob_links, tag_histories, referrers, repositories } = census.garbage;
    for planted in [content.objects, blob_links, tag_histories, referrers, repositories] {
        assert!(planted > 0, "every kind of garbage");
    }
    let manifests = census.untagged.manifests;
    assert!(manifests > 0 && census.untagged.content.objects > manifests);
}

#[test]
fn a_large_registry_has_repositories_with_10_000_tags() {
    let registry = plan::make(500_000, 1);
    let mut tags = BTreeMap::new();
    for entry in &registry.entries {
        if let Entry::Current(tag, _) = entry {
            *tags.entry(registry.tags[*tag as usize].repository).or_insert(0) += 1;
        }
    }
    let most = tags.values().max().expect("tags");
    assert!((8_000..=10_500).contains(most), "{most}");
    let few = tags.values().filter(|tags| **tags < 40).count();
    assert!(few * 10 > tags.len() * 9, "most are small");
}

/// What the bucket says by its keys and bytes alone.
#[derive(Default)]
struct Seen {
    contents: BTreeMap<String, u64>,
    repositories: BTreeMap<String, SeenRepository>,
    bodies: BTreeMap<String, Value>,
}

#[derive(Default)]
struct SeenRepository {
    blobs: BTreeSet<String>,
    manifests: BTreeSet<String>,
    tags: BTreeMap<String, String>,
    histories: Vec<String>,
    referrers: Vec<(String, String)>,
    uploads: u64,
}

impl Seen {
    fn of(registry: &Registry) -> Self {
        let mut seen = Self::default();
        for entry in &registry.entries {
            let key = registry.key(*entry);
            let key = key.strip_prefix(ROOT).expect("the registry's folder");
            if let Some(rest) = key.strip_prefix("blobs/sha256/") {
                let digest = format!("sha256:{}", &rest[3..67]);
                seen.contents.insert(digest.clone(), registry.size(*entry));
                if let Bytes::These(bytes) = registry.bytes(*entry) {
                    let json = serde_json::from_slice(&bytes).expect("JSON");
                    seen.bodies.insert(digest, json);
                }
                continue;
            }
            let rest = key.strip_prefix("repositories/").expect("a repository's key");
            let (name, rest) = rest.split_once("/_").expect("an object of a repository's");
            let parts: Vec<&str> = rest.split('/').collect();
            let repository = seen.repositories.entry(name.to_owned()).or_default();
            let link = || text(registry, *entry);
            match parts.as_slice() {
                ["layers", "sha256", hex, "link"] => {
                    assert_eq!(link(), format!("sha256:{hex}"));
                    repository.blobs.insert(link());
                }
                ["manifests", "revisions", "sha256", hex, "link"] => {
                    assert_eq!(link(), format!("sha256:{hex}"));
                    repository.manifests.insert(link());
                }
                ["manifests", "tags", tag, "current", "link"] => {
                    repository.tags.insert((*tag).to_owned(), link());
                }
                ["manifests", "tags", tag, "index", "sha256", hex, "link"] => {
                    assert_eq!(link(), format!("sha256:{hex}"));
                    repository.histories.push((*tag).to_owned());
                }
                ["manifests", "referrers", "sha256", subject, "sha256", hex, "link"] => {
                    let json: Value = serde_json::from_str(&link()).expect("a descriptor");
                    assert_eq!(json["digest"], format!("sha256:{hex}"));
                    let pair = (format!("sha256:{subject}"), format!("sha256:{hex}"));
                    repository.referrers.push(pair);
                }
                ["uploads", _, "startedat"] => repository.uploads += 1,
                _ => panic!("{key}"),
            }
        }
        seen
    }

    /// The blobs and manifests that a manifest refers to.
    fn references(&self, manifest: &str) -> (Vec<String>, Vec<String>) {
        let json = &self.bodies[manifest];
        let digests = |value: &Value| -> Vec<String> {
            let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let digest = |item: &Value| item["digest"].as_str().expect("a digest").to_owned();
            list.iter().map(digest).collect()
        };
        let mut blobs = digests(&json["layers"]);
        blobs.extend(json["config"]["digest"].as_str().map(str::to_owned));
        (blobs, digests(&json["manifests"]))
    }

    /// Manifests of a repository that these lead to, themselves included, and the blobs of all of them.
    fn reach(
        &self,
        repository: &SeenRepository,
        from: impl IntoIterator<Item = String>,
    ) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut manifests, mut blobs) = (BTreeSet::new(), BTreeSet::new());
        let mut next: Vec<String> = from.into_iter().collect();
        while let Some(manifest) = next.pop() {
            assert!(repository.manifests.contains(&manifest), "nothing that is needed is missing");
            let (own, others) = self.references(&manifest);
            assert!(own.iter().all(|blob| repository.blobs.contains(blob)));
            blobs.extend(own);
            next.extend(others);
            let referrers = repository.referrers.iter().filter(|(subject, referrer)| {
                *subject == manifest && repository.manifests.contains(referrer)
            });
            next.extend(referrers.map(|(_, referrer)| referrer.clone()));
            manifests.insert(manifest);
        }
        (manifests, blobs)
    }

    fn amount(&self, wanted: impl Fn(&String) -> bool) -> Amount {
        let mut amount = Amount::default();
        for (digest, size) in &self.contents {
            if wanted(digest) {
                amount.add(*size);
            }
        }
        amount
    }

    fn census(&self) -> Census {
        let mut census =
            Census { repositories: self.repositories.len() as u64, ..Census::default() };
        let (mut needed, mut tagged) = (BTreeSet::new(), BTreeSet::new());
        let (mut garbage, mut untagged) = (Garbage::default(), Untagged::default());
        for repository in self.repositories.values() {
            let (all, blobs) = self.reach(repository, repository.manifests.iter().cloned());
            let (by_tag, blobs_by_tag) = self.reach(repository, repository.tags.values().cloned());
            let count = |set: &BTreeSet<String>| set.len() as u64;
            garbage.blob_links += repository.blobs.difference(&blobs).count() as u64;
            untagged.blob_links += count(&blobs) - count(&blobs_by_tag);
            untagged.manifests += count(&all) - count(&by_tag);
            let gone =
                repository.histories.iter().filter(|tag| !repository.tags.contains_key(*tag));
            garbage.tag_histories += gone.count() as u64;
            let gone = repository.referrers.iter().filter(|(_, digest)| !all.contains(digest));
            garbage.referrers += gone.count() as u64;
            garbage.repositories += u64::from(all.is_empty());
            census.tags += repository.tags.len() as u64;
            census.manifests += count(&all);
            census.uploads += repository.uploads;
            needed.extend(all.into_iter().chain(blobs));
            tagged.extend(by_tag.into_iter().chain(blobs_by_tag));
        }
        garbage.content = self.amount(|digest| !needed.contains(digest));
        untagged.content =
            self.amount(|digest| needed.contains(digest) && !tagged.contains(digest));
        Census { content: self.amount(|_| true), garbage, untagged, ..census }
    }
}

#[test]
fn the_census_is_what_keys_and_bytes_say() {
    for (objects, seed) in [(1, 1), (500, 2), (5_000, 3), (30_000, 4)] {
        let registry = plan::make(objects, seed);
        let mut total = Amount::default();
        for entry in &registry.entries {
            total.add(registry.bytes(*entry).size());
        }
        let seen = Census { total, ..Seen::of(&registry).census() };
        assert_eq!(registry.census, seen, "{objects} objects, seed {seed}");
        assert_eq!(seen.untagged == Untagged::default(), objects == 1);
    }
}

#[test]
fn a_folder_holds_the_same() {
    let registry = plan::make(300, 5);
    let root = tempfile::TempDir::new().expect("a temporary folder");
    folder::write(&registry, root.path()).expect("it is written");
    for entry in &registry.entries {
        let path = root.path().join(registry.key(*entry));
        let metadata = path.metadata().expect("a file");
        assert_eq!(metadata.len(), registry.size(*entry));
        assert_eq!(metadata.modified().expect("a date"), registry.modified(*entry));
        if let Bytes::These(bytes) = registry.bytes(*entry) {
            assert_eq!(std::fs::read(&path).expect("a file"), bytes);
        }
    }
    let refused = folder::write(&registry, &root.path().join(registry.key(registry.entries[0])));
    assert!(refused.is_err(), "a file is no folder");
}
