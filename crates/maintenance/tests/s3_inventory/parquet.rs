use std::panic::catch_unwind;
use std::path::Path;
use std::time::Duration;

use moorage_maintenance::s3_inventory::ListedObject;

use crate::inventory::{Inventory, object};

fn file(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/s3_inventory/parquet");
    std::fs::read(folder.join(format!("{name}.parquet")))
        .expect("the file is kept beside the tests")
}

/// The rows that `make.py` writes.
fn row(number: u32) -> ListedObject {
    let first = object("", 0, "2024-01-02T03:04:05.006Z");
    ListedObject {
        key: format!("folder {}/{number:05}+é", number % 7),
        size: u64::from(number) * 3,
        modified: first.modified + Duration::from_secs(number.into()),
    }
}

#[test]
fn each_row_is_read_whatever_the_writer_chose() {
    for (name, rows) in [
        ("snappy", 2500),
        ("gzip-v2", 2500),
        ("plain-required", 5),
        ("fastparquet", 5),
        ("microseconds", 5),
        ("empty", 0),
    ] {
        let (objects, summary) = Inventory::parquet(file(name)).read("registry/").expect(name);
        assert_eq!(summary.objects, u64::from(rows), "{name}");
        assert_eq!(objects, (0..rows).map(row).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn only_the_latest_versions_are_taken_and_no_marks_of_deletions() {
    for name in ["versions", "versions-v2"] {
        let (objects, summary) = Inventory::parquet(file(name)).read("registry/").expect(name);
        assert_eq!(objects, [row(0)], "{name}");
        assert_eq!(summary.not_current, 3, "{name}");
    }
}

#[test]
fn what_is_not_understood_is_refused_and_told() {
    for (name, reason) in [
        (
            "zstd",
            ": its pages are compressed with ZSTD, and only snappy and gzip are read here; take an inventory in CSV",
        ),
        ("delta", ": its values are in encoding 7 of Parquet, and only plain ones"),
        ("no-key", " at row 2: it has no key"),
        ("no-size", " at row 2: it has no size"),
        ("negative-size", " at row 1: its size is negative"),
        ("before-1970", " at row 1: its last_modified_date is before 1970"),
        ("text-size", ": the column size is not of the type INT64"),
        ("number-date", ": the column last_modified_date has no times"),
        ("huge-key", "understood: a page is larger than 33554432 bytes"),
        ("without-dates", "the inventory has no LastModifiedDate;"),
        ("without-latest", "the inventory has no IsLatest;"),
        ("other-bucket", "the inventory lists the bucket secrets,"),
    ] {
        let error = Inventory::parquet(file(name)).error();
        assert!(error.contains(reason), "{name}: {error}");
    }
}

/// A page that says it has a thousand bytes, and has 40 MiB. Its compression ends with a wrong checksum, which nobody
/// finds who does not read so far.
#[test]
fn a_page_is_not_decompressed_beyond_what_it_says() {
    let mut content = file("huge-key");
    // The type of page (data), and its size with a varint of four bytes, of which three say that there are more.
    let is_header =
        |bytes: &[u8]| bytes[..3] == [0x15, 0, 0x15] && bytes[3..6].iter().all(|b| *b >= 0x80);
    let header = content.windows(8).position(is_header).expect("the page of keys");
    content[header + 3..header + 7].copy_from_slice(&[0xd0, 0x8f, 0x80, 0x00]);
    let gzip =
        header + content[header..].windows(2).position(|two| two == [0x1f, 0x8b]).expect("gzip");
    let next =
        content[gzip + 2..].windows(2).position(|two| two == [0x1f, 0x8b]).expect("another page");
    // Between both is the header of that page; nothing in the trailer of this one may be right.
    for byte in &mut content[gzip + next - 40..gzip + next - 24] {
        *byte = 0xaa;
    }
    let error = Inventory::parquet(content).error();
    assert!(error.ends_with("a page does not have the size that its header says"), "{error}");
}

#[test]
fn what_is_no_parquet_is_refused() {
    for content in [&b""[..], b"PAR1", b"PAR1\xff\xff\xff\x7fPAR1", b"rubbish of some length"] {
        let error = Inventory::parquet(content.to_vec()).error();
        assert!(error.contains("can't be understood"), "{error}");
    }
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    let whole = file("versions");
    for length in 0..whole.len() {
        let error = Inventory::parquet(whole[..length].to_vec()).error();
        assert!(error.contains("can't be understood"), "{length}: {error}");
    }
}

/// The first key is made so long that it swallows the next: one fewer than the page says.
#[test]
fn a_page_with_fewer_values_than_it_says_is_refused() {
    let mut content = file("plain-required");
    let length = u32::try_from("registry/folder 0/00000+é".len()).expect("it is short");
    let first = [&length.to_le_bytes()[..], b"registry/folder 0/00000"].concat();
    let at =
        content.windows(first.len()).position(|bytes| bytes == first).expect("the page of keys");
    content[at..at + 4].copy_from_slice(&(2 * length + 4).to_le_bytes());
    let error = Inventory::parquet(content).error();
    assert!(error.ends_with("a page does not have the values that its header says"), "{error}");
}

/// Each byte of small files, changed a little or a lot, with a manifest that agrees: it is refused or read, and ends.
#[test]
fn no_changed_byte_ends_the_program() {
    let mut panics = Vec::new();
    for name in ["plain-required", "microseconds", "versions", "versions-v2"] {
        let whole = file(name);
        for at in 0..whole.len() {
            let mut content = whole.clone();
            content[at] ^= if at % 2 == 0 { 0x01 } else { 0xff };
            let read = || Inventory::parquet(content).read("registry/").map(drop);
            if catch_unwind(read).is_err() {
                panics.push((name, at));
            }
        }
    }
    assert!(panics.is_empty(), "{panics:?}");
}
