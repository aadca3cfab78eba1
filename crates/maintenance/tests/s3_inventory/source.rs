use std::fs;

use moorage_maintenance::s3_inventory::{InventoryError, Location};
use tempfile::TempDir;

use crate::inventory::{DELIVERED, FIELDS, Inventory, MANIFEST, object, read_from};

const ROW: &str = r#""images","registry/a","1","2024-01-02T03:04:05.000Z","""#;

fn inventory() -> Inventory {
    Inventory::csv(FIELDS, &[ROW, ROW])
}

fn key(number: usize) -> String {
    format!("daily/images/all/data/{number}.csv")
}

#[test]
fn a_place_is_a_path_or_an_object() {
    let local = |path: &str| Location::Local(path.into());
    let object =
        |bucket: &str, key: &str| Location::Object { bucket: bucket.into(), key: key.into() };
    for (text, expected) in [
        ("inventory", Some(local("inventory"))),
        ("/tmp/x/manifest.json", Some(local("/tmp/x/manifest.json"))),
        ("s3://b/manifest.json", Some(object("b", "manifest.json"))),
        ("s3://b/a/b c/manifest.json", Some(object("b", "a/b c/manifest.json"))),
        ("", None),
        ("s3://b", None),
        ("s3://b/a/", None),
        ("s3:///manifest.json", None),
        ("s3://b/data/0.csv.gz", None),
        ("s3://b/a-manifest.json", None),
        ("https://b.s3.amazonaws.com/manifest.json", None),
    ] {
        let parsed = text.parse::<Location>();
        match (parsed, expected) {
            (Ok(location), expected) => assert_eq!(Some(location), expected, "{text}"),
            (Err(error), None) => {
                assert!(error.to_string().contains("names no inventory"), "{error}")
            }
            (Err(error), Some(_)) => panic!("{text}: {error}"),
        }
    }
}

#[test]
fn local_files_are_found_in_each_layout() {
    let expected = object("a", 1, "2024-01-02T03:04:05Z");
    for place in ["as S3 lays it out", "beside it", "in data"] {
        let folder = TempDir::new().expect("a folder");
        let manifest = inventory().write_to(folder.path());
        let dated = folder.path().join(MANIFEST).parent().expect("a folder").to_owned();
        if place != "as S3 lays it out" {
            let to = dated.join(if place == "in data" { "data" } else { "" });
            fs::create_dir_all(&to).expect("a folder");
            for number in 0..2 {
                let from = folder.path().join(key(number));
                fs::rename(from, to.join(format!("{number}.csv"))).expect("moved");
            }
        }
        // The store has nothing of it.
        let store = Inventory::csv(FIELDS, &[]).store();
        for location in [manifest.as_str(), dated.to_str().expect("UTF-8")] {
            let (objects, _) = read_from(location, &store, "registry/").expect(place);
            assert_eq!(objects, [expected.clone(), expected.clone()], "{place}");
        }
    }
}

#[test]
fn a_local_file_that_is_missing_or_changed_is_named() {
    let folder = TempDir::new().expect("a folder");
    let manifest = inventory().write_to(folder.path());
    let store = inventory().store();
    let error = || read_from(&manifest, &store, "").expect_err("it is broken").to_string();
    let path = folder.path().join(key(1));
    let whole = fs::read(&path).expect("it is there");

    fs::write(&path, &whole[1..]).expect("written");
    assert!(error().contains("1.csv of the inventory has"), "{}", error());
    let mut changed = whole;
    changed[11] ^= 1;
    fs::write(&path, changed).expect("written");
    assert!(error().contains("1.csv of the inventory does not have the MD5"), "{}", error());
    fs::remove_file(&path).expect("removed");
    assert!(error().starts_with("1.csv (beside "), "{}", error());
    fs::remove_file(&manifest).expect("removed");
    assert!(error().contains("manifest.json of the inventory is not there"), "{}", error());
}

#[test]
fn a_key_does_not_lead_out_of_the_local_folder() {
    let folder = TempDir::new().expect("a folder");
    let mut inventory = inventory();
    inventory.manifest["files"][0]["key"] = "../../../../etc/hostname".into();
    let manifest = inventory.write_to(folder.path());
    let error = read_from(&manifest, &inventory.store(), "").expect_err("it is not there");
    assert!(error.to_string().starts_with("hostname (beside "), "{error}");
}

#[test]
fn an_object_that_is_missing_or_changed_is_named() {
    let mut absent = inventory();
    absent.files.remove(&key(1));
    let name = format!("s3://{DELIVERED}/{}", key(1));
    assert!(absent.error().starts_with(&format!("{name} of the inventory is not there")));

    let mut short = inventory();
    short.files.get_mut(&key(1)).expect("it is there").pop();
    let says = format!("{name} of the inventory has ");
    assert!(short.error().starts_with(&says), "{}", short.error());

    let mut changed = inventory();
    changed.files.get_mut(&key(1)).expect("it is there")[11] ^= 1;
    let says = format!("{name} of the inventory does not have the MD5 that its manifest says");
    assert!(changed.error().starts_with(&says), "{}", changed.error());
}

#[test]
fn what_the_store_refuses_is_told() {
    let location = format!("s3://elsewhere/{MANIFEST}");
    let error = read_from(&location, &inventory().store(), "").expect_err("it is refused");
    let expected =
        format!("{location} of the inventory can't be read: 403 AccessDenied for elsewhere");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn no_object_is_read_further_than_its_manifest_says() {
    let mut store = inventory().store();
    let longer = store.objects.get_mut(&key(0)).expect("it is there");
    let size = longer.len() as u64;
    longer.extend([0; 100]);
    let location = format!("s3://{DELIVERED}/{MANIFEST}");
    read_from(&location, &store, "").expect("what the manifest speaks of is whole");
    assert_eq!(store.reads.borrow()[1], size);
}

#[test]
fn a_large_object_is_read_in_parts() {
    let rows = format!("{ROW}\n").repeat(300_000);
    let inventory = Inventory::of_bytes("CSV", FIELDS, vec![rows.into_bytes()]);
    let store = inventory.store();
    let location = format!("s3://{DELIVERED}/{MANIFEST}");
    let (_, summary) = read_from(&location, &store, "registry/").expect("read");
    assert_eq!(summary.objects, 300_000);
    let reads = store.reads.borrow();
    assert!(reads.len() > 2 && reads.iter().all(|length| *length <= 8 << 20), "{reads:?}");
}

#[test]
fn a_manifest_without_end_is_not_held() {
    let mut store = inventory().store();
    store.objects.insert(MANIFEST.to_owned(), vec![b' '; 40 << 20]);
    let location = format!("s3://{DELIVERED}/{MANIFEST}");
    let error = read_from(&location, &store, "").expect_err("it is too large");
    assert!(matches!(error, InventoryError::Manifest { .. }), "{error}");
    let read: u64 = store.reads.borrow().iter().sum();
    assert_eq!(read, (16 << 20) + 1);
}
