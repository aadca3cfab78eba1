//! The record for the access log, read as Envoy reads it: a `google.protobuf.Struct`.

use std::collections::BTreeMap;

/// The fields of a record; numbers as text.
pub fn fields(mut record: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while !record.is_empty() {
        let mut entry = bytes(&mut record, 1);
        let name = text(bytes(&mut entry, 1));
        let mut value = bytes(&mut entry, 2);
        assert!(entry.is_empty(), "an entry has a name and a value");
        let value = match value.split_first() {
            Some((&tag, number)) if tag == 2 << 3 | 1 => {
                f64::from_le_bytes(number.try_into().expect("eight bytes")).to_string()
            }
            _ => text(bytes(&mut value, 3)),
        };
        assert!(fields.insert(name, value).is_none(), "each field is there once");
    }
    fields
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Takes the field of this number, which has a length.
fn bytes<'a>(message: &mut &'a [u8], number: u8) -> &'a [u8] {
    let (tag, rest) = message.split_first().expect("a field");
    assert_eq!(*tag, number << 3 | 2);
    let end = rest.iter().position(|byte| byte & 0x80 == 0).expect("a length");
    let (length, rest) = rest.split_at(end + 1);
    let length = length.iter().rev().fold(0, |length, byte| length << 7 | usize::from(byte & 0x7f));
    let (value, rest) = rest.split_at(length);
    *message = rest;
    value
}
