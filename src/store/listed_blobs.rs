//! Which blobs a repository has, for a manifest that refers to many: by a listing of their links in place of a read of each.
//!
//! A page of a listing tells of a thousand links at the price of one call. One page it is and no more: with many more links than
//! that, few of those on a page are wanted, and a read each costs less than to list them all. A link that is not on the page is read.

use std::collections::BTreeSet;
use std::rc::Rc;

use futures::future::try_join;

use super::budget::Reservation;
use super::fault::StoreError;
use super::layout::{self, Key};
use super::objects::{ListRequest, Listed, Objects, PAGE_LIMIT};
use super::store_impl::{digest_in_link, link};
use crate::oci::{Algorithm, Digest, Name};

/// How much memory it takes to know of a link, in bytes, at most about.
const LINK_BYTES: usize = 256;

/// Blobs that a repository has links to, as one page of a listing told of them; from [`Store::listed_blobs`](super::Store::listed_blobs).
#[derive(Debug, Clone)]
pub struct ListedBlobs {
    digests: Rc<BTreeSet<Digest>>,
    _room: Rc<Reservation>,
}

/// Lists the first thousand links to blobs of a repository. One call.
pub(super) async fn list(objects: &impl Objects, name: &Name) -> Result<ListedBlobs, StoreError> {
    let room = objects.budget().reserve_read(LINK_BYTES * PAGE_LIMIT)?;
    let folder = layout::blob_links_of(name, Algorithm::Sha256);
    let page = objects.list(ListRequest::new(&folder, Listed::Objects)).await?;
    let links = page.keys.iter().zip(page.sizes);
    let digests = links.filter_map(|(key, size)| linked_to_itself(name, key, size)).collect();
    Ok(ListedBlobs { digests: Rc::new(digests), _room: Rc::new(room) })
}

/// The digest that a link is of, if by its size it points at just that. A link of another algorithm, or of another size, has to be read:
/// `distribution` stores a blob under its SHA-256, whatever the digest it was pushed by.
fn linked_to_itself(name: &Name, key: &Key, size: u64) -> Option<Digest> {
    let digest = layout::digest_of_blob_link(name, key)?;
    (link(&digest).len() as u64 == size).then_some(digest)
}

/// Whether the blob is in the repository and its content is there. The content is asked for while `listed` is awaited; the link is read
/// if that does not have it.
pub(super) async fn has_blob(
    objects: &impl Objects,
    name: &Name,
    digest: &Digest,
    listed: impl Future<Output = Result<ListedBlobs, StoreError>>,
) -> Result<bool, StoreError> {
    let is_there = async |digest: &Digest| {
        // No permit is held while the listing is awaited: that needs one, too.
        let _permit = objects.permits().take().await;
        objects.exists(&layout::content(digest)).await
    };
    let (listed, is_there_itself) = try_join(listed, is_there(digest)).await?;
    if listed.digests.contains(digest) {
        return Ok(is_there_itself);
    }
    let key = layout::blob_link(name, digest);
    let read = async {
        let _permit = objects.permits().take().await;
        objects.read(&key).await
    };
    match digest_in_link(&key, read.await?, Some(digest))? {
        None => Ok(false),
        Some(target) if target == *digest => Ok(is_there_itself),
        Some(target) => is_there(&target).await,
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::store::Store;
    use crate::store::memory::{MemoryStore, run};

    fn digest(algorithm: Algorithm, text: &str) -> Digest {
        Digest::of(algorithm, text.as_bytes())
    }

    #[test]
    fn a_blob_is_there_as_it_is_when_its_link_is_read() {
        use Algorithm::{Sha256, Sha512};
        let name: Name = "a".parse().expect("a name");
        let [there, gone, unlinked, elsewhere] =
            ["there", "gone", "unlinked", "elsewhere"].map(|text| digest(Sha256, text));
        let canonical = digest(Sha512, "there");
        let mut store = MemoryStore::default();
        let put = |key, digest: &Digest| store.put(key, digest.to_string());
        put(layout::blob_link(&name, &there), &there);
        put(layout::content(&there), &there);
        put(layout::blob_link(&name, &gone), &gone);
        put(layout::content(&unlinked), &unlinked);
        // Stored under another digest, as `distribution` does it.
        put(layout::blob_link(&name, &canonical), &there);
        // Of another length than a link to itself: what it holds counts.
        store.put(layout::blob_link(&name, &elsewhere), format!("{there}\n"));
        // One that is of another repository.
        let nested: Name = "a/b".parse().expect("a name");
        store.put(layout::blob_link(&nested, &unlinked), unlinked.to_string());

        for page_limit in [1, 1_000] {
            store.page_limit = Some(page_limit);
            let listed = run(store.listed_blobs(&name)).0.expect("no fault");
            for (digest, expected) in
                [(&there, true), (&gone, false), (&unlinked, false), (&canonical, true)]
            {
                let beside = store.has_blob_listed(&name, digest, ready(Ok(listed.clone())));
                assert_eq!(run(beside).0, Ok(expected), "{digest}, {page_limit} a page");
                assert_eq!(run(store.has_blob(&name, digest)).0, Ok(expected), "{digest}");
            }
            let beside = store.has_blob_listed(&name, &elsewhere, ready(Ok(listed.clone())));
            assert!(run(beside).0.is_err(), "it holds no digest");
        }
    }

    #[test]
    fn a_listing_that_fails_is_no_blob_that_is_missing() {
        let name: Name = "a".parse().expect("a name");
        let mut store = MemoryStore::default();
        let folder = layout::blob_links_of(&name, Algorithm::Sha256);
        store.fail(folder, crate::store::StoreErrorKind::Failed);
        assert!(run(store.listed_blobs(&name)).0.is_err());
    }
}
