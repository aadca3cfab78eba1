//! Registries with one thing of each kind that it takes care to judge rightly.

use moorage::oci::{Algorithm, Digest};
use moorage::store::layout;
use serde_json::json;

use crate::bucket::Fate::{Goes, Stays};
use crate::bucket::{Bucket, INDEX, MANIFEST, descriptor, name};

/// Writes all of it: what is garbage of it is so if untagged manifests that are a day old go.
pub fn write_all(bucket: &mut Bucket) {
    images(bucket);
    indexes(bucket);
    referrers(bucket);
    old_clients(bucket);
    odd_manifests(bucket);
    odd_digests(bucket);
    names_that_nest(bucket);
    young_things(bucket);
    what_is_none_of_its_business(bucket);
    unclear_repositories(bucket);
}

/// Something small: an image that stays, and one that goes.
pub fn write_few(bucket: &mut Bucket) {
    let kept = bucket.image("app", "kept", Stays);
    bucket.tag("app", "latest", &kept);
    let gone = bucket.image("app", "gone", Goes);
    bucket.history("app", "gone", &gone, Goes);
    bucket.referrer("app", &gone, "its signature", Goes);
    bucket.blob("app", "a blob without a manifest", Goes);
    bucket.content("content without a repository", Goes);
}

fn images(bucket: &mut Bucket) {
    let old = bucket.image("images", "old", Goes);
    let new = bucket.image("images", "new", Stays);
    bucket.tag("images", "t", &new);
    // The history of a tag that is set stays, and does not keep what it tells of.
    bucket.history("images", "t", &old, Stays);
    bucket.history("images", "deleted", &new, Goes);
    bucket.blob("images", "no manifest's blob", Goes);
    bucket.content("no repository's content", Goes);
    bucket.content("", Goes);
    // A tag keeps its manifest whether there is a link to it or not.
    let unlinked = bucket.image_json("images", "unlinked", Stays);
    let unlinked = bucket.content(unlinked.to_string(), Stays);
    bucket.tag("images", "unlinked", &unlinked);
    // No tag, and nothing behind the link.
    let absent = Digest::of(Algorithm::Sha256, b"absent");
    bucket.put(&layout::manifest_link(&name("images"), &absent), absent.as_str(), Goes);
    bucket.link("images", &Digest::of(Algorithm::Sha256, b"an absent blob"), Goes);
    // Garbage of two repositories, and of one while another needs it.
    bucket.blob("images", "a blob of two", Goes);
    let shared = bucket.blob("images/copy", "a blob of two", Goes);
    bucket.link("images/copy", &shared, Goes);
    let layer = Digest::of(Algorithm::Sha256, b"the layer of new");
    bucket.link("images/copy", &layer, Goes);
}

fn indexes(bucket: &mut Bucket) {
    let index = |manifests: &[&Digest]| {
        let manifests: Vec<_> = manifests.iter().map(|m| descriptor(MANIFEST, m)).collect();
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests })
    };
    let [amd64, arm64] = ["amd64", "arm64"].map(|what| bucket.image("platforms", what, Stays));
    // An index may have a blob in it, and something that is not there.
    let blob = bucket.blob("platforms", "a blob of an index", Stays);
    let absent = Digest::of(Algorithm::Sha256, b"another platform");
    let inner = index(&[&amd64, &blob, &absent]);
    let inner = bucket.manifest("platforms", &inner, Stays);
    let outer = bucket.manifest("platforms", &index(&[&inner, &arm64]), Stays);
    bucket.tag("platforms", "t", &outer);
    // One that goes takes along only what it had alone.
    let riscv64 = bucket.image("platforms", "riscv64", Goes);
    bucket.manifest("platforms", &index(&[&amd64, &riscv64]), Goes);
}

fn referrers(bucket: &mut Bucket) {
    let image = bucket.image("signed", "image", Stays);
    bucket.tag("signed", "t", &image);
    let list = bucket.referrer("signed", &image, "a list of parts", Stays);
    let signature = bucket.referrer("signed", &list, "the signature of the list", Stays);
    bucket.referrer("signed", &signature, "the timestamp of the signature", Stays);
    // An artifact of which there is no entry refers all the same.
    let mut unnoted = bucket.image_json("signed", "an unnoted signature", Stays);
    unnoted["subject"] = descriptor(MANIFEST, &image);
    bucket.manifest("signed", &unnoted, Stays);
    // Where the tag of the fallback is used instead of the API.
    let fallback = bucket.image_json("signed", "a signature by tag", Stays);
    let fallback = bucket.manifest("signed", &fallback, Stays);
    let descriptors = [descriptor(MANIFEST, &fallback)];
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": descriptors });
    let index = bucket.manifest("signed", &index, Stays);
    bucket.tag("signed", &format!("sha256-{}", image.hex()), &index);

    let untagged = bucket.image("signed", "an untagged image", Goes);
    let signature = bucket.referrer("signed", &untagged, "its signature", Goes);
    bucket.referrer("signed", &signature, "the signature of that", Goes);
    let absent = Digest::of(Algorithm::Sha256, b"a subject");
    bucket.referrer("signed", &absent, "the signature of nothing", Goes);
    // The entry of an artifact that was deleted.
    let deleted = Digest::of(Algorithm::Sha256, b"an artifact");
    let entry = descriptor(MANIFEST, &deleted).to_string();
    bucket.put(&layout::referrer(&name("signed"), &image, &deleted), entry, Goes);
}

/// Schema 1, and the signatures that old versions of `distribution` kept beside such manifests.
fn old_clients(bucket: &mut Bucket) {
    let layers = ["one", "two"].map(|what| bucket.blob("schema1", what, Stays));
    let fs_layers = layers.each_ref().map(|layer| json!({ "blobSum": layer.as_str() }));
    let manifest = json!({
        "schemaVersion": 1, "name": "schema1", "tag": "t", "architecture": "amd64",
        "fsLayers": fs_layers, "history": [{ "v1Compatibility": "{}" }, { "v1Compatibility": "{}" }],
    });
    let manifest = bucket.manifest("schema1", &manifest, Stays);
    bucket.tag("schema1", "t", &manifest);
    let signature = bucket.content("a signature", Stays);
    let link = layout::manifest_link(&name("schema1"), &manifest);
    let folder = link.as_str().strip_suffix("link").expect("a link").to_owned();
    let link = format!("{folder}signatures/sha256/{}/link", signature.hex());
    bucket.put_at(&link, signature.as_str(), Stays);
}

fn odd_manifests(bucket: &mut Bucket) {
    let mut untyped = bucket.image_json("odd", "untyped", Stays);
    untyped.as_object_mut().expect("an object").remove("mediaType");
    let untyped = bucket.manifest("odd", &untyped, Stays);
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor(MANIFEST, &untyped)] });
    let index = bucket.manifest("odd", &index, Stays);
    bucket.tag("odd", "untyped", &index);

    // Layers that are elsewhere: one of them was stored here all the same.
    let stored = bucket.blob("odd", "a foreign layer that is stored", Stays);
    let absent = Digest::of(Algorithm::Sha256, b"a foreign layer that is not");
    let mut windows = bucket.image_json("odd", "windows", Stays);
    windows["layers"] = [stored, absent]
        .iter()
        .map(|digest| {
            let media_type = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
            let mut layer = descriptor(media_type, digest);
            layer["urls"] = json!(["https://example.org/layer"]);
            layer
        })
        .collect();
    let layer = Digest::of(Algorithm::Sha256, b"the layer of windows");
    bucket.put(&layout::content(&layer), "the layer of windows", Goes);
    bucket.link("odd", &layer, Goes);
    let windows = bucket.manifest("odd", &windows, Stays);
    bucket.tag("odd", "windows", &windows);
}

fn odd_digests(bucket: &mut Bucket) {
    let content = "a blob that was pushed under its SHA-512";
    let digest = Digest::of(Algorithm::Sha512, content.as_bytes());
    bucket.put(&layout::content(&digest), content, Stays);
    bucket.link("sha512", &digest, Stays);
    // Stored under one algorithm, and pushed under another: the link of the one leads to the other.
    let other = bucket.content("a blob that is stored under its SHA-256", Stays);
    let other_name = Digest::of(Algorithm::Sha512, b"a blob that is stored under its SHA-256");
    bucket.put(&layout::blob_link(&name("sha512"), &other_name), other.as_str(), Stays);
    let image = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor("a/b", &digest),
        "layers": [descriptor("a/b", &other_name)],
    });
    let image = image.to_string();
    let manifest = Digest::of(Algorithm::Sha512, image.as_bytes());
    bucket.put(&layout::content(&manifest), &image, Stays);
    bucket.put(&layout::manifest_link(&name("sha512"), &manifest), manifest.as_str(), Stays);
    bucket.tag("sha512", "t", &manifest);

    let unused = bucket.content("a blob that nobody needs", Goes);
    let unused_name = Digest::of(Algorithm::Sha512, b"a blob that nobody needs");
    bucket.put(&layout::blob_link(&name("sha512"), &unused_name), unused.as_str(), Goes);
}

fn names_that_nest(bucket: &mut Bucket) {
    let shared = "a layer that nested names share";
    for (repository, fate) in [("a", Goes), ("a/b", Stays), ("a/b/c.d-e__f", Goes)] {
        let layer = bucket.content(shared, Stays);
        bucket.link(repository, &layer, fate);
        if fate == Stays {
            let image = json!({
                "schemaVersion": 2, "mediaType": MANIFEST,
                "config": descriptor("a/b", &layer), "layers": [descriptor("a/b", &layer)],
            });
            let image = bucket.manifest(repository, &image, Stays);
            bucket.tag(repository, "_layers", &image);
        }
    }
}

fn young_things(bucket: &mut Bucket) {
    let content = bucket.content("young content", Stays);
    bucket.rejuvenate(&layout::content(&content));
    let blob = bucket.blob("young", "old content of a young link", Stays);
    bucket.rejuvenate(&layout::blob_link(&name("young"), &blob));
    // An old link to young content leads to something that was uploaded again, into another repository perhaps.
    let blob = bucket.content("young content of an old link", Stays);
    bucket.rejuvenate(&layout::content(&blob));
    bucket.link("young", &blob, Goes);
    let image = bucket.image("young", "a young image", Stays);
    bucket.rejuvenate(&layout::manifest_link(&name("young"), &image));
    bucket.history("young", "gone", &image, Stays);
    bucket.rejuvenate(&layout::tag_history(
        &name("young"),
        &"gone".parse().expect("a tag"),
        &image,
    ));
    let absent = Digest::of(Algorithm::Sha256, b"an artifact to come");
    let entry = layout::referrer(&name("young"), &image, &absent);
    bucket.put(&entry, "{}", Stays);
    bucket.rejuvenate(&entry);
}

fn what_is_none_of_its_business(bucket: &mut Bucket) {
    for key in [
        "docker/registry/v2/repositories/sessions/_uploads/0f/startedat",
        "docker/registry/v2/repositories/sessions/_uploads/0f/data",
        "docker/registry/v2/repositories/sessions/unknown",
        "docker/registry/v2/blobs/sha256/00/zz/data",
        "docker/registry/v2/blobs/md5/00/00000000000000000000000000000000/data",
        "another/folder/docker/registry/v2/blobs/sha256/00/00/data",
        "moorage/probes/checksums",
    ] {
        bucket.put_at(key, "2020-01-01T00:00:00Z", Stays);
    }
}

/// The repositories that are left alone, with what is told of each.
pub const UNCLEAR: [(&str, &str); 6] = [
    ("unclear/broken-link", "it holds no digest"),
    ("unclear/broken-tag", "it holds no digest"),
    ("unclear/corrupt", "it is not what its digest says"),
    ("unclear/lost", "its content is gone"),
    ("unclear/no-json", ""),
    ("unclear/unknown-type", ""),
];

fn unclear_repositories(bucket: &mut Bucket) {
    for (repository, _) in UNCLEAR {
        bucket.blob(repository, &format!("an unused blob of {repository}"), Stays);
        let untagged = bucket.image(repository, &format!("an image of {repository}"), Stays);
        bucket.history(repository, "gone", &untagged, Stays);
        bucket.referrer(repository, &untagged, &format!("a signature of {repository}"), Stays);
    }
    let [link, tag, corrupt, lost, no_json, unknown] = UNCLEAR.map(|(repository, _)| repository);
    let somewhere = Digest::of(Algorithm::Sha256, b"somewhere");
    bucket.put(&layout::blob_link(&name(link), &somewhere), "nowhere", Stays);
    bucket.put(&layout::tag_link(&name(tag), &"t".parse().expect("a tag")), "sha256:12", Stays);
    let image = bucket.image(corrupt, "an image that rots", Stays);
    bucket.put(&layout::content(&image), "rotten", Stays);
    bucket.tag(lost, "t", &Digest::of(Algorithm::Sha256, b"a lost manifest"));
    bucket.manifest_of(no_json, b"\x80 is no JSON", Stays);
    let unknown_type = json!({ "schemaVersion": 2, "mediaType": "application/vnd.example+json" });
    bucket.manifest(unknown, &unknown_type, Stays);
}
