//! What a small registry takes, and its picture.

use std::rc::Rc;
use std::time::Duration;

use moorage::oci::{Algorithm, Digest};
use moorage::store::layout::{self, Key};

use super::*;
use crate::simulation::bucket::{Blindness, Object, SimHttp, SimStore};
use crate::simulation::world::World;
use crate::time::Clock as _;

fn digest(text: &str) -> Digest {
    Digest::of(Algorithm::Sha256, text.as_bytes())
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// A bucket in which things are put.
struct Fixture {
    world: Rc<World>,
    store: Rc<SimStore>,
}

impl Fixture {
    fn new() -> Self {
        Self { world: World::new(1), store: Rc::new(SimStore::default()) }
    }

    fn put(&self, key: &Key, text: &str) {
        let object = Object { bytes: text.to_owned().into(), modified: self.world.now() };
        self.store.objects.borrow_mut().insert(key.as_str().to_owned(), object);
    }

    fn blob(&self, repository: &str, content: &str) {
        let digest = digest(content);
        self.put(&layout::content(&digest), content);
        self.put(&layout::blob_link(&name(repository), &digest), digest.as_str());
    }

    /// An image of these blobs, tagged; gives how large its manifest is.
    fn image(&self, repository: &str, tag: &str, blobs: &[&str]) -> u64 {
        let layers = blobs.iter().map(|text| {
            self.blob(repository, text);
            serde_json::json!({ "digest": digest(text).as_str(), "size": text.len() })
        });
        let image = serde_json::json!({ "schemaVersion": 2, "layers": layers.collect::<Vec<_>>() });
        let (image, name) = (image.to_string(), name(repository));
        let digest = digest(&image);
        self.put(&layout::content(&digest), &image);
        self.put(&layout::manifest_link(&name, &digest), digest.as_str());
        let tag = tag.parse().expect("a tag");
        self.put(&layout::tag_link(&name, &tag), digest.as_str());
        image.len() as u64
    }

    fn usage(&self) -> Usage {
        let bucket = SimHttp::bucket(&self.world, &self.store, Blindness::None);
        let now = Seconds::try_from(self.world.now().as_secs()).expect("a time");
        let loaded = async move {
            let snapshot = Snapshot::load(&bucket, 4, Snapshot::default(), now, |_| {}).await;
            let snapshot = snapshot.expect("the store works");
            Usage::of(&bucket, snapshot, 4, |_| {}).await.expect("the store works")
        };
        self.world.quietly(loaded)
    }
}

fn totals(objects: u64, bytes: u64) -> Totals {
    Totals { objects, bytes }
}

#[test]
fn content_is_counted_once_and_told_apart_by_who_has_it() {
    let fixture = Fixture::new();
    let a = fixture.image("a", "1", &["shared by three", "only a"]);
    let b = fixture.image("b/c", "1", &["shared by three", "only b, and a good deal longer"]);
    fixture.blob("d", "shared by three");
    fixture.blob("d", "garbage");
    fixture.put(&layout::content(&digest("of nobody")), "of nobody");
    fixture.put(
        &layout::blob_link(&name("a"), &digest("never there")),
        digest("never there").as_str(),
    );
    fixture.put(&Key::listed("moorage/trash/run/x").expect("a key"), "trash");
    fixture.put(
        &Key::listed("docker/registry/v2/repositories/a/_uploads/1/data").expect("a key"),
        "up",
    );
    fixture.world.pass(Duration::from_secs(2 * 24 * 60 * 60));
    let usage = fixture.usage();

    assert_eq!(usage.contents, totals(7, a + b + 15 + 6 + 30 + 7 + 9));
    assert_eq!((usage.shared, usage.unlinked), (totals(1, 15), totals(1, 9)));
    assert_eq!((usage.trash, usage.uploads), (totals(1, 5), totals(1, 2)));
    // What nobody refers to, the link of d to what others need included.
    assert_eq!(usage.garbage, totals(2, 7 + 9));
    let found: Vec<_> =
        usage.repositories.iter().map(|r| (r.name.as_str(), r.bytes, r.own)).collect();
    assert_eq!(found, [("b/c", b + 45, b + 30), ("a", a + 21, a + 6), ("d", 22, 7)]);
    let counts = usage.repositories.iter().map(|r| (r.tags, r.manifests, r.blobs, r.garbage));
    assert_eq!(counts.collect::<Vec<_>>(), [(1, 1, 2, 0), (1, 1, 3, 0), (0, 0, 2, 7)]);
    let portions: u64 = usage.repositories.iter().map(|r| r.portion).sum();
    assert_eq!(portions, usage.contents.bytes - usage.unlinked.bytes);
}

#[test]
fn what_can_not_be_divided_is_in_one_portion() {
    let fixture = Fixture::new();
    for repository in ["a", "b", "c"] {
        fixture.blob(repository, "0123456789");
        // By another digest as well: it is the same content.
        let other = Digest::of(Algorithm::Sha512, b"0123456789");
        let link = layout::blob_link(&name(repository), &other);
        fixture.put(&link, digest("0123456789").as_str());
    }
    let usage = fixture.usage();
    let portions: Vec<_> = usage.repositories.iter().map(|r| (r.bytes, r.own, r.portion)).collect();
    assert_eq!(portions, [(10, 0, 3), (10, 0, 3), (10, 0, 4)]);
}

fn repository(name_text: &str, portion: u64) -> RepositoryUsage {
    RepositoryUsage {
        name: name(name_text),
        bytes: portion,
        own: portion,
        portion,
        garbage: 0,
        tags: 1,
        manifests: 1,
        blobs: 1,
    }
}

fn picture(repositories: Vec<RepositoryUsage>, heading: &str) -> String {
    let usage = Usage { repositories, ..Fixture::new().usage() };
    Picture { usage: &usage, heading }.to_string()
}

#[test]
fn names_nest_by_their_folders_in_the_picture() {
    let gib = 1 << 30;
    let svg = picture(
        vec![repository("team/web", 4 * gib), repository("team", gib), repository("alone/x", gib)],
        "all",
    );
    for title in [
        "<title>team/: 5.0 GiB, 2 repositories</title>",
        "<title>team/web: 4.0 GiB, 4.0 GiB its own, 0 B shared; 1 tags, 1 manifests</title>",
        "<title>team: 1.0 GiB, 1.0 GiB its own, 0 B shared; 1 tags, 1 manifests</title>",
        "<title>alone/: 1.0 GiB, 1 repositories</title>",
    ] {
        assert!(svg.contains(title), "no {title} in {svg}");
    }
    assert_eq!(svg.matches("<rect").count(), 5, "{svg}");
    assert!(svg.contains("prefers-color-scheme:dark"));
    // Each once as a label; the folder has its size beside it.
    for label in [">web</text>", ">team/ 5.0 GiB</text>", ">x</text>"] {
        assert_eq!(svg.matches(label).count(), 1, "{label} in {svg}");
    }
}

#[test]
fn what_is_too_small_is_drawn_as_one() {
    let mut repositories = vec![repository("large", 1 << 40)];
    repositories.extend((0..1000).map(|number| repository(&format!("r{number}"), 1 << 10)));
    repositories.push(repository("empty", 0));
    let svg = picture(repositories, "many");
    assert_eq!(svg.matches("<rect").count(), 2, "{svg}");
    assert!(svg.contains("<title>1000 more repositories: 1000 KiB</title>"), "{svg}");
}

#[test]
fn the_heading_is_text_and_nothing_else() {
    let svg = picture(Vec::new(), "<script>\"a\" & 'b'\u{7}</script>");
    let heading = "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39; &lt;/script&gt;";
    assert_eq!(svg.matches(heading).count(), 2, "{svg}");
    assert!(!svg.contains("<script>") && !svg.contains('\u{7}'));
}
