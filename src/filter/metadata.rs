//! What filters before this one have left in the request's dynamic metadata: the claims that Envoy's `jwt_authn` has
//! verified, and what `ext_authz` says.
//!
//! Envoy hands a structured value over in the form in which proxy-wasm has header maps: a count, the
//! lengths of all keys and values, then keys and values, each followed by a NUL. A list is a map
//! whose keys are the elements. None of it is trusted to be well-formed.

use super::host::Host;
use crate::registry::access::ResourceActions;

/// The namespace in which `jwt_authn` leaves what it has verified.
pub const JWT_AUTHN: &str = "envoy.filters.http.jwt_authn";

/// What the filter `filter` has left there.
pub fn value(host: &impl Host, filter: &str, path: &[&str]) -> Option<Vec<u8>> {
    host.property([&["metadata", "filter_metadata", filter], path].concat())
}

/// A list of texts that the filter `filter` has left there, or a single one.
pub fn texts(host: &impl Host, filter: &str, path: &[&str]) -> Vec<String> {
    let value = value(host, filter, path).unwrap_or_default();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    match pairs(&value) {
        Some(entries) => entries.into_iter().filter_map(|(entry, _)| text(entry)).collect(),
        None => text(&value).filter(|text| !text.is_empty()).into_iter().collect(),
    }
}

/// The `access` entries of the token under `key`, the provider's `payload_in_metadata`. None where no
/// such filter has verified a token.
pub fn access(host: &impl Host, filter: &str, key: &str) -> Vec<ResourceActions> {
    let access = value(host, filter, &[key, "access"]).unwrap_or_default();
    let entries = pairs(&access).unwrap_or_default().into_iter();
    entries.filter_map(|(entry, _)| resource(entry)).collect()
}

fn resource(entry: &[u8]) -> Option<ResourceActions> {
    let fields = pairs(entry)?;
    let field = |name: &str| {
        let (_, value) = fields.iter().find(|(key, _)| *key == name.as_bytes())?;
        String::from_utf8(value.to_vec()).ok()
    };
    let actions = fields.iter().find(|(key, _)| *key == b"actions");
    let actions = actions.and_then(|(_, list)| pairs(list)).unwrap_or_default();
    let action = |(name, _): (&[u8], &[u8])| String::from_utf8(name.to_vec()).ok();
    Some(ResourceActions {
        kind: field("type")?,
        name: field("name")?,
        class: field("class").unwrap_or_default(),
        actions: actions.into_iter().filter_map(action).collect(),
    })
}

/// Reads one map; `None` if it is malformed.
fn pairs(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let number = |position: usize| {
        let digits = bytes.get(position..position.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(digits.try_into().ok()?)).ok()
    };
    let count = number(0)?;
    // Every entry takes two lengths and two NULs at the least.
    if count > bytes.len() / 10 {
        return None;
    }
    let mut rest = bytes.get(4 + count * 8..)?;
    let mut take = |length: usize| {
        let (text, after) = rest.split_at_checked(length)?;
        rest = after.strip_prefix(b"\0")?;
        Some(text)
    };
    let entry = |index: usize| {
        let (key, value) = (number(4 + index * 8)?, number(8 + index * 8)?);
        Some((take(key)?, take(value)?))
    };
    (0..count).map(entry).collect()
}

#[cfg(test)]
mod tests {
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    /// A map in proxy-wasm's form.
    fn map(entries: &[(&[u8], &[u8])]) -> Vec<u8> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("short").to_le_bytes();
        let mut map = u32::try_from(entries.len()).expect("few").to_le_bytes().to_vec();
        for (key, value) in entries {
            map.extend(length(key));
            map.extend(length(value));
        }
        for text in entries.iter().flat_map(|(key, value)| [key, value]) {
            map.extend_from_slice(text);
            map.push(0);
        }
        map
    }

    #[test]
    fn a_map_is_read_whole_or_not_at_all() {
        let entries: [(&[u8], &[u8]); 2] = [(b"type", b"repository"), (b"name", b"a/b")];
        let whole = map(&entries);
        assert_eq!(pairs(&whole), Some(entries.to_vec()));
        let found = resource(&whole).expect("a resource");
        assert_eq!((found.kind.as_str(), found.name.as_str()), ("repository", "a/b"));
        // Cut off anywhere, and with any one byte changed, it is another map or none, and never a panic.
        for end in 0..whole.len() {
            assert_eq!(pairs(&whole[..end]), None, "{end}");
        }
        for position in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[position] = byte;
                let _ = pairs(&changed);
            }
        }
        let mut unended = whole.clone();
        unended.pop();
        unended.push(1);
        assert_eq!(pairs(&unended), None, "what follows a text is a NUL");
        assert_eq!(pairs(&u32::MAX.to_le_bytes()), None);
        assert_eq!(resource(&map(&[(b"type", b"repository")])), None, "it has no name");
    }

    #[cfg(not(target_family = "wasm"))]
    mod properties {
        use proptest::prelude::*;

        use super::*;

        fn entries() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
            let text = || prop::collection::vec(any::<u8>(), 0..12);
            prop::collection::vec((text(), text()), 0..6)
        }

        fn borrowed(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<(&[u8], &[u8])> {
            entries.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect()
        }

        proptest! {
            #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

            #[test]
            fn a_map_is_read_as_it_was_written(entries in entries()) {
                let map = map(&borrowed(&entries));
                prop_assert_eq!(pairs(&map), Some(borrowed(&entries)));
            }

            #[test]
            fn whatever_is_read_lies_within_the_bytes(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
                for (key, value) in pairs(&bytes).unwrap_or_default() {
                    prop_assert!(key.len() + value.len() + 14 <= bytes.len());
                }
            }

            #[test]
            fn a_changed_map_is_another_or_none(
                entries in entries(),
                changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            ) {
                let mut bytes = map(&borrowed(&entries));
                for (position, byte) in changes {
                    let position = position.index(bytes.len());
                    bytes[position] = byte;
                }
                if let Some(pairs) = pairs(&bytes) {
                    // What is read is all that is there, but for what follows the last text.
                    let whole = map(&pairs);
                    prop_assert_eq!(bytes.get(..whole.len()), Some(whole.as_slice()));
                }
            }
        }
    }
}
