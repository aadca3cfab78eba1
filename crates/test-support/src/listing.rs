//! `ListObjectsV2` on a bucket's content in memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use bytes::Bytes;

/// The answer to a listing with this query. A page costs as much as it has entries.
pub fn list(objects: &BTreeMap<String, Bytes>, query: &str) -> Bytes {
    let parameters: HashMap<_, _> = form_urlencoded::parse(query.as_bytes()).collect();
    let parameter = |name| parameters.get(name).map_or("", |value| value.as_ref());
    let (prefix, token) = (parameter("prefix"), parameter("continuation-token"));
    let limit = parameter("max-keys").parse().unwrap_or(1000).min(1000);
    let by_folder = parameters.contains_key("delimiter");
    let mut start = match token {
        "" => prefix.to_owned().max(past(parameter("start-after"), false)),
        token => past(token, by_folder),
    };
    let mut entries: Vec<String> = Vec::new();
    let mut is_truncated = false;
    while let Some(key) = next_key(objects, &start).filter(|key| key.starts_with(prefix)) {
        is_truncated = entries.len() >= limit;
        if is_truncated {
            break;
        }
        let slash = key[prefix.len()..].find('/').filter(|_| by_folder);
        let entry = slash.map_or(key, |at| &key[..=prefix.len() + at]);
        start = past(entry, by_folder);
        entries.push(entry.to_owned());
    }
    let next = entries.last().filter(|_| is_truncated);
    let next = next.map(|token| format!("<NextContinuationToken>{token}</NextContinuationToken>"));
    let entries = entries.iter().map(|entry| match entry.ends_with('/') {
        true => format!("<CommonPrefixes><Prefix>{entry}</Prefix></CommonPrefixes>"),
        false => {
            let size = objects.get(entry).map_or(0, Bytes::len);
            format!("<Contents><Key>{entry}</Key><Size>{size}</Size></Contents>")
        }
    });
    let parts: String = entries.chain(next).collect();
    format!("<ListBucketResult>{parts}</ListBucketResult>").into()
}

fn next_key<'a>(objects: &'a BTreeMap<String, Bytes>, start: &str) -> Option<&'a str> {
    let from = objects.range::<str, _>((Bound::Included(start), Bound::Unbounded));
    from.map(|(key, _)| key.as_str()).next()
}

/// The first text after an entry; after all of a folder, if it is one.
fn past(entry: &str, by_folder: bool) -> String {
    let end = if by_folder && entry.ends_with('/') { '\u{10ffff}' } else { '\0' };
    format!("{entry}{end}")
}
