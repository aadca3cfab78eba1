//! Listings by ranges, held against the keys that there are.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use moorage::store::layout::{self, Key};

use super::bucket::{Blindness, Object, SimHttp, SimStore};
use super::world::World;
use crate::listing::list_all;
use crate::time::Clock as _;

/// What keys are made of: folders that begin alike, that nest, and that lie beside objects of the same name.
const PARTS: [&str; 14] = [
    "a",
    "aa",
    "a-",
    "a.",
    "a0",
    "b",
    "z",
    "_layers",
    "_manifests",
    "sha256",
    "sha512",
    "00",
    "ff",
    "Z",
];

/// Some keys, a few of which no registry writes. None is that of a folder itself, which consoles write: it may be listed twice, or
/// not at all, and is of no registry's.
fn keys(world: &World) -> Vec<String> {
    let root = layout::all_repositories();
    let count = world.below(200);
    let key = |_| {
        let depth = 1 + world.below(6);
        let path: Vec<_> = (0..depth).map(|_| *world.any(&PARTS)).collect();
        let end = match world.below(40) {
            0 => "//x",
            1 => "/+",
            _ => "",
        };
        format!("{}{}{end}", root.as_str(), path.join("/"))
    };
    (0..count).map(key).collect()
}

#[test]
fn every_key_is_listed_once_however_the_listing_is_cut() {
    for seed in 0..300 {
        let world = World::new(seed);
        let now = world.now();
        let object = Object { bytes: Bytes::from_static(b"x"), modified: now };
        let keys = keys(&world);
        let expected: std::collections::BTreeSet<String> =
            keys.iter().filter(|key| Key::listed(key).is_some()).cloned().collect();
        let store = Rc::new(SimStore {
            objects: RefCell::new(keys.into_iter().map(|key| (key, object.clone())).collect()),
            page: Some(1 + world.below(9)),
            ..SimStore::default()
        });
        let parallel = 1 + world.below(6);
        let bucket = SimHttp::bucket(&world, &store, Blindness::None);
        let listed = world.quietly(async move {
            let mut listed = Vec::new();
            let listing = list_all(&bucket, layout::all_repositories(), parallel, |object| {
                listed.push(object.key.as_str().to_owned());
                Ok(())
            });
            listing.await.expect("a listing");
            listed
        });
        let mut sorted = listed.clone();
        sorted.sort();
        let expected: Vec<_> = expected.into_iter().collect();
        assert_eq!(sorted, expected, "seed {seed}");
    }
}
