use crate::inventory::{FIELDS, Inventory, VERSION_FIELDS, gzip, object};

const ROW: &str = r#""images","registry/a","1","2024-01-02T03:04:05.000Z","0123""#;

#[test]
fn each_row_of_each_file_is_read() {
    let first = r#""images","registry/docker/registry/v2/blobs/sha256/00/00ab/data","12","2024-01-02T03:04:05.678Z","0123"
"images","other/thing","5","2024-01-02T03:04:05.000Z","0123"
"#;
    // The last row without an end of line, and fields without quotes.
    let second = r"images,registry/x,0,2023-12-31T23:59:59Z,";
    let (objects, summary) =
        Inventory::csv(FIELDS, &[first, second]).read("registry/").expect("read");
    let expected = [
        object("docker/registry/v2/blobs/sha256/00/00ab/data", 12, "2024-01-02T03:04:05.678Z"),
        object("x", 0, "2023-12-31T23:59:59Z"),
    ];
    assert_eq!(objects, expected);
    assert_eq!((summary.files, summary.objects, summary.elsewhere), (2, 2, 1));
    assert_eq!(summary.not_current, 0);
    assert_eq!(humantime::format_rfc3339(summary.created).to_string(), "2024-01-03T01:00:00Z");
}

#[test]
fn without_a_prefix_all_keys_are_whole() {
    let (objects, summary) = Inventory::csv(FIELDS, &[ROW]).read("").expect("read");
    assert_eq!(objects, [object("registry/a", 1, "2024-01-02T03:04:05Z")]);
    assert_eq!(summary.elsewhere, 0);
}

#[test]
fn keys_are_decoded_as_forms_are() {
    for (encoded, key) in [
        ("a+b", "a b"),
        ("a%2Bb", "a+b"),
        ("a%20b", "a b"),
        ("%C3%A9%2f%25", "é/%"),
        ("a%2C%22b%22", "a,\"b\""),
        (r#"a""b"#, "a\"b"),
    ] {
        let row = format!(r#""images","registry/{encoded}","1","2024-01-02T03:04:05.000Z","""#);
        let (objects, _) = Inventory::csv(FIELDS, &[&row]).read("registry/").expect("read");
        assert_eq!(objects[0].key, key, "{encoded}");
    }
}

#[test]
fn a_prefix_is_compared_with_the_decoded_key() {
    let row = ROW.replace("registry/a", "my+registry%2Fa");
    let (objects, _) = Inventory::csv(FIELDS, &[&row]).read("my registry/").expect("read");
    assert_eq!(objects[0].key, "a");
}

#[test]
fn only_the_latest_versions_are_taken_and_no_marks_of_deletions() {
    let text = r#""images","registry/a","v1","false","false","1","2024-01-01T00:00:00.000Z"
"images","registry/a","v2","true","false","2","2024-01-02T00:00:00.000Z"
"images","registry/b","v3","false","false","3","2024-01-01T00:00:00.000Z"
"images","registry/b","v4","true","true","","2024-01-02T00:00:00.000Z"
"#;
    let (objects, summary) =
        Inventory::csv(VERSION_FIELDS, &[text]).read("registry/").expect("read");
    assert_eq!(objects, [object("a", 2, "2024-01-02T00:00:00Z")]);
    assert_eq!((summary.objects, summary.not_current), (1, 3));
}

#[test]
fn columns_are_found_by_their_names_and_files_need_not_be_compressed() {
    let fields = "Key,LastModifiedDate,StorageClass,Size";
    let text = "\"registry/a\",\"2024-01-02T03:04:05.000Z\",\"STANDARD\",\"7\"\r\n".to_owned();
    let inventory = Inventory::of_bytes("CSV", fields, vec![text.into_bytes()]);
    let (objects, _) = inventory.read("registry/").expect("read");
    assert_eq!(objects, [object("a", 7, "2024-01-02T03:04:05Z")]);
}

#[test]
fn compressed_pieces_one_after_the_other_are_one_text() {
    let pieces = [gzip(ROW.as_bytes()), gzip(b"\n"), gzip(ROW.as_bytes())].concat();
    let inventory = Inventory::of_bytes("CSV", FIELDS, vec![pieces]);
    assert_eq!(inventory.read("registry/").expect("read").1.objects, 2);
}

#[test]
fn an_inventory_without_rows_is_no_error() {
    for texts in [&[][..], &[""]] {
        let (objects, summary) = Inventory::csv(FIELDS, texts).read("registry/").expect("read");
        assert_eq!((objects.len(), summary.files), (0, texts.len()));
    }
}

#[test]
fn fields_that_are_needed_are_missed_by_name() {
    for (fields, missing) in [
        ("Bucket, Key", "Size, LastModifiedDate"),
        ("Bucket, Size, LastModifiedDate", "Key"),
        ("", "Key, Size, LastModifiedDate"),
        ("Bucket, Key, VersionId, Size, LastModifiedDate", "IsLatest"),
    ] {
        let error = Inventory::csv(fields, &[]).error();
        let expected = format!(
            "the inventory has no {missing}; add what is missing to the inventory's configuration and take the \
             next one"
        );
        assert_eq!(error, expected, "{fields}");
    }
}

#[test]
fn a_row_that_is_not_understood_is_named() {
    for (row, reason) in [
        ("\"images\",\"registry/a\"", "it has 2 fields, and the manifest's fileSchema has 5"),
        (&format!("{ROW},\"x\""), "it has 6 or more fields, and the manifest's fileSchema has 5"),
        (&ROW.replace("\"1\"", "\"\""), "the size \"\" is no number"),
        (&ROW.replace("\"1\"", "\"-1\""), "the size \"-1\" is no number"),
        (
            &ROW.replace("2024-01-02T03:04:05.000Z", "today"),
            "LastModifiedDate is \"today\", which is no time",
        ),
        (&ROW.replace("registry/a", "a%zz"), "the key \"a%zz\" is not percent-encoded UTF-8"),
        (&ROW.replace("registry/a", "a%é"), "the key \"a%é\" is not percent-encoded UTF-8"),
        (&ROW.replace("registry/a", "a%2"), "the key \"a%2\" is not percent-encoded UTF-8"),
        (&ROW.replace("registry/a", "%FF"), "the key \"%FF\" is not percent-encoded UTF-8"),
        (
            "\"Bucket\",\"Key\",\"Size\",\"LastModifiedDate\",\"ETag\"",
            "the size \"Size\" is no number",
        ),
    ] {
        let error = Inventory::csv(FIELDS, &[ROW, &format!("{ROW}\n{row}\n")]).error();
        let expected = format!(
            "daily/images/all/data/1.csv of the inventory can't be understood at row 2: {reason}"
        );
        assert_eq!(error, expected);
    }
}

#[test]
fn a_row_that_is_not_utf8_is_named() {
    let content =
        [ROW.as_bytes(), b"\n\"images\",\"\xff\",\"1\",\"2024-01-02T03:04:05Z\",\"\""].concat();
    let error = Inventory::of_bytes("CSV", FIELDS, vec![content]).error();
    assert!(error.ends_with("at row 2: it is not UTF-8"), "{error}");
}

#[test]
fn a_flag_is_true_or_false() {
    let row = r#""images","registry/a","v1","perhaps","false","1","2024-01-01T00:00:00.000Z""#;
    let error = Inventory::csv(VERSION_FIELDS, &[row]).error();
    assert!(error.ends_with("\"perhaps\" is neither true nor false"), "{error}");
}

#[test]
fn a_row_of_another_bucket_is_refused() {
    let row = ROW.replace("\"images\"", "\"secrets\"");
    let error = Inventory::csv(FIELDS, &[ROW, &row]).error();
    assert!(error.starts_with("the inventory lists the bucket secrets"), "{error}");
}

#[test]
fn what_is_cut_off_or_damaged_within_the_compression_is_refused() {
    let whole = gzip(ROW.as_bytes());
    let mut changed = whole.clone();
    let last = changed.len() - 5;
    changed[last] ^= 1;
    let trailing = [&whole[..], b"rubbish"].concat();
    for content in [whole[..whole.len() - 1].to_vec(), whole[..12].to_vec(), changed, trailing] {
        let error = Inventory::of_bytes("CSV", FIELDS, vec![content]).error();
        assert!(error.contains("0.csv of the inventory can't be understood"), "{error}");
    }
}

#[test]
fn a_row_that_never_ends_is_not_held() {
    // If more than the limit were read, it would be found that the compression is cut off.
    let mut bomb = gzip(&vec![b'a'; 64 << 20]);
    bomb.truncate(bomb.len() - 8);
    let error = Inventory::of_bytes("CSV", FIELDS, vec![bomb]).error();
    assert!(error.ends_with("at row 1: it is longer than 262144 bytes"), "{error}");
}

#[test]
fn a_row_of_commas_is_not_held() {
    let mut bomb = gzip(&vec![b','; 64 << 20]);
    bomb.truncate(bomb.len() - 8);
    let error = Inventory::of_bytes("CSV", FIELDS, vec![bomb]).error();
    assert!(error.contains("at row 1: it has 6 or more fields"), "{error}");
}
