//! Listing the keys of a bucket: a walk through its folders, in the order of the keys.

use std::fs;
use std::io;
use std::path::Path;

use s3s::S3Result;
use s3s::dto::{Object, Timestamp};

use crate::folders::Folders;
use crate::tree::{Tree, internal, signed};

/// What is to be listed.
pub struct Query {
    pub prefix: String,
    /// Entries up to this one, itself included, were on earlier pages.
    pub after: String,
    /// Whether everything below a folder is one entry.
    pub by_folder: bool,
    pub limit: usize,
}

impl Query {
    /// Whether all keys of a folder were on earlier pages.
    fn has_passed_folder(&self, folder: &str) -> bool {
        if self.by_folder && folder == self.after {
            return true;
        }
        folder < self.after.as_str() && !self.after.starts_with(folder)
    }

    /// Whether a name of the folder `base`, and so every one that sorts before it, is of no interest: it was on an
    /// earlier page, or sorts before the prefix.
    fn is_before(&self, base: &str, name: &str) -> bool {
        let sorts_before = |text: &str| {
            let first = text.strip_prefix(base).map(|rest| rest.split_inclusive('/').next());
            first.flatten().is_some_and(|first| name < first)
        };
        sorts_before(&self.after) || sorts_before(&self.prefix)
    }

    /// Whether a name of the folder `base`, and so every one that sorts after it, has not the prefix.
    fn is_behind(&self, base: &str, name: &str) -> bool {
        let prefix = self.prefix.strip_prefix(base).unwrap_or_default();
        name > prefix && !name.starts_with(prefix) && !prefix.starts_with(name)
    }
}

/// A page of a listing.
#[derive(Debug, Default)]
pub struct Page {
    pub objects: Vec<Object>,
    pub folders: Vec<String>,
    pub last: String,
    pub truncated: bool,
}

impl Page {
    /// Whether there was room for one more entry.
    fn has_room(&mut self, query: &Query) -> bool {
        self.truncated = self.objects.len() + self.folders.len() >= query.limit;
        !self.truncated
    }
}

impl Tree {
    /// A page of the keys of a bucket.
    pub fn list(&self, bucket: &str, query: &Query) -> S3Result<Page> {
        let bucket = self.bucket(bucket)?;
        let mut page = Page::default();
        // No key outside the prefix's own folder can match.
        let start = query.prefix.rfind('/').map_or("", |at| &query.prefix[..=at]);
        let mut parts = start.split_terminator('/');
        let inside = parts.all(|part| !matches!(part, "" | "." | ".."));
        if inside && query.limit > 0 {
            list_folder(&self.folders, &bucket.join(start), start, query, &mut page)
                .map_err(internal)?;
        }
        Ok(page)
    }
}

/// Adds what lies below `folder`, whose keys all start with `base`, in the order of the keys.
fn list_folder(
    folders: &Folders,
    folder: &Path,
    base: &str,
    query: &Query,
    page: &mut Page,
) -> io::Result<()> {
    let entries = folders.entries(folder)?;
    let first = entries.partition_point(|name| query.is_before(base, name));
    for name in &entries[first..] {
        if page.truncated || query.is_behind(base, name) {
            break;
        }
        let key = format!("{base}{name}");
        let path = folder.join(name);
        if name.ends_with('/') {
            let is_past = query.has_passed_folder(&key);
            let may_match = key.starts_with(&query.prefix) || query.prefix.starts_with(&key);
            if is_past || !may_match {
                continue;
            }
            if !(query.by_folder && key.starts_with(&query.prefix)) {
                list_folder(folders, &path, &key, query, page)?;
            } else if holds_key_after(folders, &path, &key, &query.after)? && page.has_room(query) {
                page.last.clone_from(&key);
                page.folders.push(key);
            }
        } else if key > query.after && key.starts_with(&query.prefix) {
            // Removed since the folder was read: then it isn't listed.
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            if page.has_room(query) {
                page.last.clone_from(&key);
                page.objects.push(Object {
                    key: Some(key),
                    size: Some(signed(metadata.len())),
                    last_modified: metadata.modified().ok().map(Timestamp::from),
                    ..Default::default()
                });
            }
        }
    }
    Ok(())
}

fn holds_key_after(folders: &Folders, folder: &Path, base: &str, after: &str) -> io::Result<bool> {
    let query =
        Query { prefix: base.to_owned(), after: after.to_owned(), by_folder: false, limit: 1 };
    let mut page = Page::default();
    list_folder(folders, folder, base, &query, &mut page)?;
    Ok(!page.objects.is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// All pages of a listing, one after the other.
    fn pages(tree: &Tree, prefix: &str, by_folder: bool, limit: usize, first: &str) -> Vec<String> {
        let mut after = first.to_owned();
        let mut all = Vec::new();
        loop {
            let query = Query { prefix: prefix.to_owned(), after, by_folder, limit };
            let page = tree.list("bucket", &query).expect("a page");
            assert!(page.objects.len() + page.folders.len() <= limit);
            let mut entries: Vec<_> = page.objects.into_iter().filter_map(|o| o.key).collect();
            entries.extend(page.folders);
            entries.sort_unstable();
            all.extend(entries);
            if !page.truncated {
                return all;
            }
            after = page.last;
        }
    }

    /// What S3 lists of these keys.
    fn expected(
        keys: &BTreeSet<String>,
        prefix: &str,
        by_folder: bool,
        after: &str,
    ) -> Vec<String> {
        let mut entries: Vec<String> = Vec::new();
        for key in keys.iter().filter(|key| key.starts_with(prefix) && key.as_str() > after) {
            let folder = key[prefix.len()..].find('/').map(|at| &key[..=prefix.len() + at]);
            let entry = folder.filter(|_| by_folder).unwrap_or(key);
            // A folder that is the start itself was on the page before.
            if entries.last().is_none_or(|last| last != entry) && !(by_folder && entry == after) {
                entries.push(entry.to_owned());
            }
        }
        entries
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

        #[test]
        fn pages_put_together_are_all_keys_in_byte_order(
            keys in prop::collection::btree_set("(a|b|a-|a\\.)(/(a|b|1-1|1|1\\.)){0,3}", 0..25),
            prefix in "(a|a/|a-|a/1|b/a/|b/a|x)?",
            after in "(a|a/1|a/1-|b/|a/a/a|z)?",
            by_folder in any::<bool>(),
            limit in 1usize..6,
        ) {
            // A file is no folder: of two keys of which one is the folder of the other, the shorter one stays.
            let mut kept = BTreeSet::new();
            for key in keys {
                let is_nested = |one: &String| key.starts_with(&format!("{one}/"));
                if !kept.iter().any(is_nested) {
                    kept.insert(key);
                }
            }
            let root = tempfile::tempdir().expect("a temporary folder");
            let tree = Tree::open(root.path()).expect("a folder");
            for key in &kept {
                let path = root.path().join("bucket").join(key);
                fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
                fs::write(path, "").expect("a file");
            }
            fs::create_dir_all(root.path().join("bucket")).expect("a folder");
            let listed = pages(&tree, &prefix, by_folder, limit, &after);
            prop_assert_eq!(listed, expected(&kept, &prefix, by_folder, &after));
        }
    }
}
