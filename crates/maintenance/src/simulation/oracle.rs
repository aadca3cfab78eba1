//! What must hold in the end, read from the objects themselves without any of the collector's code.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use moorage::oci::{Digest, Name};
use moorage::store::Place;
use moorage::store::layout::{self, Key};
use serde_json::Value;

use super::bucket::{Objects, SimStore};
use super::client::Ledger;

/// What is wrong with a bucket.
pub type Faults = Vec<String>;

fn has(objects: &Objects, key: &Key) -> bool {
    objects.contains_key(key.as_str())
}

/// The digests that a manifest names in its descriptors; the subject apart.
fn named(content: &[u8]) -> Vec<Digest> {
    let json: Value = serde_json::from_slice(content).unwrap_or_default();
    let lists = ["layers", "manifests"].iter().filter_map(|list| json[*list].as_array()).flatten();
    let descriptors = lists.chain(std::iter::once(&json["config"]));
    descriptors.filter_map(|d| d["digest"].as_str()?.parse().ok()).collect()
}

/// Whether a manifest and all that it needs can be pulled, but for what somebody has deleted.
fn check_manifest(
    objects: &Objects,
    ledger: &Ledger,
    name: &Name,
    digest: &Digest,
    faults: &mut Faults,
) {
    if ledger.deleted.contains(&(name.to_string(), digest.clone())) {
        return;
    }
    if !has(objects, &layout::manifest_link(name, digest)) {
        faults.push(format!("{name} lost its link to the manifest {digest}"));
        return;
    }
    let Some(content) = objects.get(layout::content(digest).as_str()) else {
        faults.push(format!("the manifest {digest} of {name} lost its content"));
        return;
    };
    let is_index = String::from_utf8_lossy(&content.bytes).contains("\"manifests\"");
    for needed in named(&content.bytes) {
        if is_index {
            check_manifest(objects, ledger, name, &needed, faults);
        } else if !has(objects, &layout::blob_link(name, &needed)) {
            faults.push(format!("the manifest {digest} of {name} lost the link to {needed}"));
        } else if !has(objects, &layout::content(&needed)) {
            faults.push(format!("the manifest {digest} of {name} lost the content of {needed}"));
        }
    }
}

/// What has been acknowledged and is not there. Manifests may be gone that no tag leads to, if they were acknowledged before
/// `untagged_before`.
pub fn lost(store: &SimStore, ledger: &Ledger, untagged_before: Duration) -> Faults {
    let objects = store.objects.borrow();
    let reached = reached(&objects);
    let mut faults = ledger.violations.clone();
    for (key, acknowledged) in &ledger.manifests {
        let (name, digest) = key;
        if acknowledged.at < untagged_before && !reached.contains(key) {
            continue;
        }
        let name: Name = name.parse().expect("a name");
        check_manifest(&objects, ledger, &name, digest, &mut faults);
        if let Some(subject) = &acknowledged.subject
            && !ledger.deleted.contains(key)
            && !has(&objects, &layout::referrer(&name, subject, digest))
        {
            faults.push(format!("{name} lost the entry of {digest}, which refers to {subject}"));
        }
    }
    faults
}

/// The manifests to which a tag leads, directly or by an index.
fn reached(objects: &Objects) -> BTreeSet<(String, Digest)> {
    let mut reached = BTreeSet::new();
    for (key, object) in objects {
        let key = Key::listed(key).expect("a key");
        if let Some(Place::Tag(name, _)) = Place::of(&key) {
            let text = String::from_utf8_lossy(&object.bytes);
            let digest: Digest = text.parse().expect("a digest");
            if let Some(content) = objects.get(layout::content(&digest).as_str()) {
                let children = named(&content.bytes).into_iter();
                reached.extend(children.map(|child| (name.to_string(), child)));
            }
            reached.insert((name.to_string(), digest));
        }
    }
    reached
}

/// The manifests to which a tag leads, and those that refer to one of these, and so on.
fn used(
    objects: &Objects,
    manifests: &BTreeSet<(String, Digest)>,
    places: &[Place],
    reached: &BTreeSet<(String, Digest)>,
) -> BTreeSet<(String, Digest)> {
    let mut about: Vec<(String, Digest, Digest)> = Vec::new();
    for (name, digest) in manifests {
        let content = objects.get(layout::content(digest).as_str());
        let json: Value = content
            .and_then(|content| serde_json::from_slice(&content.bytes).ok())
            .unwrap_or_default();
        let subject = json["subject"]["digest"].as_str().and_then(|text| text.parse().ok());
        about.extend(subject.map(|subject| (name.clone(), subject, digest.clone())));
    }
    about.extend(places.iter().filter_map(|place| match place {
        Place::Referrer { name, subject, digest } => {
            Some((name.to_string(), subject.clone(), digest.clone()))
        }
        _ => None,
    }));
    let mut used = reached.clone();
    loop {
        let before = used.len();
        for (name, subject, digest) in &about {
            if used.contains(&(name.clone(), subject.clone())) {
                used.insert((name.clone(), digest.clone()));
            }
        }
        if used.len() == before {
            return used;
        }
    }
}

/// What is there and of no use to anybody, when nothing is young any more.
pub fn left(store: &SimStore, only_tagged: bool) -> Faults {
    let objects = store.objects.borrow();
    let places: Vec<Place> =
        objects.keys().filter_map(|key| Place::of(&Key::listed(key).expect("a key"))).collect();
    let reached = reached(&objects);
    // A tag may be left whose manifest was being deleted; what that needs stays.
    let mut needed: BTreeSet<(String, Digest)> = BTreeSet::new();
    for (name, digest) in &reached {
        if let Some(content) = objects.get(layout::content(digest).as_str()) {
            needed.extend(named(&content.bytes).into_iter().map(|d| (name.clone(), d)));
        }
    }
    let mut manifests: BTreeSet<(String, Digest)> = BTreeSet::new();
    let mut tags: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for place in &places {
        match place {
            Place::ManifestLink(name, digest) => {
                manifests.insert((name.to_string(), digest.clone()));
                if let Some(content) = objects.get(layout::content(digest).as_str()) {
                    needed.extend(named(&content.bytes).into_iter().map(|d| (name.to_string(), d)));
                }
            }
            Place::Tag(name, tag) => {
                tags.entry(name.to_string()).or_default().insert(tag.to_string());
            }
            _ => {}
        }
    }
    let used = used(&objects, &manifests, &places, &reached);
    let mut linked: BTreeSet<Digest> = manifests.iter().map(|(_, digest)| digest.clone()).collect();
    let mut faults = Faults::new();
    for place in &places {
        match place {
            Place::BlobLink(name, digest) => {
                linked.insert(digest.clone());
                if !needed.contains(&(name.to_string(), digest.clone())) {
                    faults.push(format!(
                        "{name} still has the blob {digest}, which no manifest needs"
                    ));
                }
            }
            Place::ManifestLink(name, digest) => {
                let key = (name.to_string(), digest.clone());
                let is_used = used.contains(&key);
                if !is_used && (only_tagged || !has(&objects, &layout::content(digest))) {
                    faults.push(format!("{name} still has the manifest {digest}"));
                }
            }
            Place::TagHistory(name, tag, _) => {
                let is_set =
                    tags.get(name.as_str()).is_some_and(|tags| tags.contains(tag.as_str()));
                if !is_set {
                    faults.push(format!(
                        "{name} still has a history of the tag {tag}, which is gone"
                    ));
                }
            }
            Place::Referrer { name, digest, .. }
                if !manifests.contains(&(name.to_string(), digest.clone())) =>
            {
                faults.push(format!("{name} still has an entry of {digest}, which is gone"));
            }
            _ => {}
        }
    }
    let tagged: BTreeSet<&Digest> = reached.iter().map(|(_, digest)| digest).collect();
    for place in &places {
        if let Place::Content(digest) = place
            && !linked.contains(digest)
            && !tagged.contains(digest)
        {
            let is_named = needed.iter().any(|(_, needed)| needed == digest);
            if !is_named {
                faults.push(format!("the content of {digest} is still there, which nothing links"));
            }
        }
    }
    faults
}
