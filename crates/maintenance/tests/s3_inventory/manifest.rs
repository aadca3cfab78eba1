use serde_json::{Value, json};

use crate::inventory::{FIELDS, Inventory};

fn inventory() -> Inventory {
    Inventory::csv(FIELDS, &[r#""images","registry/a","1","2024-01-02T03:04:05.000Z","""#])
}

#[test]
fn an_inventory_of_another_bucket_is_refused() {
    let mut inventory = inventory();
    inventory.manifest["sourceBucket"] = json!("backups");
    let expected = "the inventory lists the bucket backups, and this is about images; take an inventory of that one";
    assert_eq!(inventory.error(), expected);
}

#[test]
fn formats_that_are_not_read_are_named() {
    for format in ["ORC", "", "JSON"] {
        let mut inventory = inventory();
        inventory.manifest["fileFormat"] = json!(format);
        let expected = format!(
            "the inventory is in the format {format}, which is not read here; \
             set the inventory's format to CSV or Parquet and take the next one"
        );
        assert_eq!(inventory.error(), expected);
    }
}

#[test]
fn the_time_may_be_a_number() {
    let mut inventory = inventory();
    inventory.manifest["creationTimestamp"] = json!(1_704_243_600_000_u64);
    let (_, summary) = inventory.read("registry/").expect("read");
    let hour = std::time::Duration::from_secs(3600);
    assert_eq!(summary.age(summary.created + hour), hour);
    assert_eq!(summary.age(summary.created - hour), std::time::Duration::ZERO);
}

#[test]
fn what_is_no_manifest_is_refused_and_the_place_named() {
    let cases: [(&str, Value, &str); 9] = [
        ("/sourceBucket", json!(null), "invalid type: null"),
        ("/creationTimestamp", json!("yesterday"), "creationTimestamp is no time"),
        ("/creationTimestamp", json!("18446744073709551616"), "creationTimestamp is no time"),
        ("/files", json!({}), "invalid type"),
        ("/files/0/size", json!(-1), "invalid value"),
        ("/files/0/MD5checksum", json!("abc"), "has the MD5checksum \"abc\", which is none"),
        ("/files/0/MD5checksum", json!("0".repeat(30)), "which is none"),
        ("/files/0/key", json!("daily/.."), "the key \"daily/..\" names no file"),
        ("/files/0/key", json!("daily/"), "the key \"daily/\" names no file"),
    ];
    for (place, value, reason) in cases {
        let mut inventory = inventory();
        *inventory.manifest.pointer_mut(place).expect("the place is there") = value;
        let error = inventory.error();
        let file = "s3://inventories/daily/images/all/2024-01-03T01-00Z/manifest.json";
        assert!(error.starts_with(&format!("{file} is no manifest of S3 Inventory: ")), "{error}");
        assert!(error.contains(reason), "{place}: {error}");
    }
}

#[test]
fn fields_of_the_manifest_are_not_guessed() {
    for field in ["sourceBucket", "creationTimestamp", "fileFormat", "fileSchema", "files"] {
        let mut inventory = inventory();
        inventory.manifest.as_object_mut().expect("an object").remove(field);
        let error = inventory.error();
        assert!(error.contains(&format!("missing field `{field}`")), "{error}");
    }
}
