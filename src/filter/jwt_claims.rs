//! What the caller's token authorises, from the claims that Envoy's `jwt_authn` filter verified and
//! left in the request's dynamic metadata.
//!
//! Envoy hands a structured value over in the form in which proxy-wasm has header maps: a count, the
//! lengths of all keys and values, then keys and values, each followed by a NUL. A list is a map
//! whose keys are the elements. None of it is trusted to be well-formed.

use super::host::Host;
use crate::registry::Resource;

/// The namespace in which `jwt_authn` leaves what it has verified.
const NAMESPACE: &str = "envoy.filters.http.jwt_authn";

/// The `access` entries of the token under `key`, the provider's `payload_in_metadata`. None where no
/// such filter has verified a token.
pub fn resources(host: &impl Host, key: &str) -> Vec<Resource> {
    let path = vec!["metadata", "filter_metadata", NAMESPACE, key, "access"];
    let access = host.property(path).unwrap_or_default();
    let entries = pairs(&access).unwrap_or_default().into_iter();
    entries.filter_map(|(entry, _)| resource(entry)).collect()
}

fn resource(entry: &[u8]) -> Option<Resource> {
    let fields = pairs(entry)?;
    let field = |name: &str| {
        let (_, value) = fields.iter().find(|(key, _)| *key == name.as_bytes())?;
        String::from_utf8(value.to_vec()).ok()
    };
    Some(Resource {
        kind: field("type")?,
        name: field("name")?,
        class: field("class").unwrap_or_default(),
    })
}

/// Reads one map; `None` if it is none.
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
