//! `/v2/<name>/referrers/<digest>`
//!
//! What refers to a manifest is known from two places: the entries that putting a manifest with a
//! `subject` leaves, and the index under the *referrers tag*, where clients keep it themselves for
//! registries without this endpoint. Both are merged, in the order of the digests.
//!
//! Source: OCI distribution specification, "Listing Referrers", "Referrers Tag Schema".

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::try_join;
use futures::stream::{self, StreamExt, TryStreamExt};
use http::header::HeaderName;
use http::{HeaderValue, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::manifests::content_of;
use crate::oci::manifest::index_entries;
use crate::oci::{Digest, MediaType, Name, Tag};
use crate::registry::Request;
use crate::registry::http::error::{Error, ErrorCode};
use crate::registry::http::pagination::{self, PageRequest};
use crate::registry::http::reply::json;
use crate::store::{Content, Names, Reservation, Store, StoreError, no_room_for_reads};

const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// How many descriptors are looked at a time, each up to [`HEAD_BYTES`].
const PARALLEL_READS: usize = 32;

/// How much of a descriptor is read at first, in bytes. Few are larger; but one may have as much in
/// annotations as a manifest may have, and those are read one at a time.
const HEAD_BYTES: u64 = 16 * 1024;

/// A page ends with the descriptor that makes what has been read for it so much, in bytes, whether or not
/// the filter drops it.
const MAX_READ_BYTES: usize = 4 * 1024 * 1024;

/// How many descriptors one request reads at most, those that the filter drops included.
const MAX_READ: usize = 1000;

/// A page ends with the entry that makes its descriptors this large, in bytes.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// The page that a client asks for.
struct Query {
    entries: usize,
    after: Option<Digest>,
    artifact_type: Option<String>,
}

/// A manifest that refers to the subject.
struct Referrer {
    digest: Digest,
    artifact_type: Option<String>,
    descriptor: Box<RawValue>,
}

/// A referrer, as far as it has been read.
enum Seen {
    /// There is no such referrer, or not any more.
    Absent,
    /// All of it, of so many bytes; `None` if it makes no sense.
    Whole(Option<Referrer>, usize),
    /// It is larger than what was read.
    Large,
}

/// Where a referrer is known from.
enum Source {
    /// The entry that putting it left.
    Entry,
    /// The index under the referrers tag.
    Index(Referrer),
}

/// Referrers that may belong to the page, in the order of their digests.
struct Candidates {
    sources: Vec<(Digest, Source)>,
    /// Whether there may be more after them.
    more: bool,
}

impl Candidates {
    /// How many bytes of descriptors are known already.
    fn size(&self) -> usize {
        let size = |source: &Source| match source {
            Source::Entry => 0,
            Source::Index(referrer) => referrer.descriptor.get().len(),
        };
        self.sources.iter().map(|(_, source)| size(source)).sum()
    }
}

/// A page as it is answered.
struct Page {
    descriptors: Vec<Box<RawValue>>,
    /// The digest that the next page begins after, if there may be one.
    next: Option<Digest>,
}

/// `GET` and `HEAD`. Two round trips to the store for a few referrers; one more where there is a
/// referrers tag.
pub async fn list(
    request: &Request,
    store: &impl Store,
    name: &Name,
    subject: &Digest,
) -> Result<Response<Bytes>, Error> {
    let query = Query::parse(request)?;
    if query.entries == 0 {
        return Ok(reply(&[], &query));
    }
    let entries = store.referrers(name, subject, query.after.as_ref());
    let (entries, index) = try_join(entries, index_under_tag(store, name, subject)).await?;
    let candidates = query.candidates(entries, index);
    let mut room = store.reserve_read(candidates.size())?;
    let page = query.read(store, name, subject, candidates, &mut room).await?;
    let mut response = reply(&page.descriptors, &query);
    let link = page.next.and_then(|last| {
        let path = format!("/v2/{name}/referrers/{subject}");
        let entries = query.entries.to_string();
        let artifact_type = query.artifact_type.as_deref().map(|wanted| ("artifactType", wanted));
        let parameters = [("n", entries.as_str()), ("last", last.as_str())];
        let parameters: Vec<_> = artifact_type.into_iter().chain(parameters).collect();
        pagination::link(&path, &parameters)
    });
    response.headers_mut().extend(link);
    Ok(response)
}

impl Query {
    fn parse(request: &Request) -> Result<Self, Error> {
        let page = PageRequest::parse(request)?;
        let after = Some(page.last).filter(|last| !last.is_empty()).map(|last| {
            last.parse().map_err(|error: crate::oci::DigestError| {
                Error::new(ErrorCode::DigestInvalid, error.to_string()).with_detail(&*last)
            })
        });
        let artifact_type = request.query_values("artifactType").find(|value| !value.is_empty());
        Ok(Self {
            entries: page.entries,
            after: after.transpose()?,
            artifact_type: artifact_type.map(Into::into),
        })
    }

    fn admits(&self, referrer: &Referrer) -> bool {
        self.artifact_type.is_none() || self.artifact_type == referrer.artifact_type
    }

    /// Merges what is known from both places. Where there are more entries than were listed, what
    /// comes after the last of them is for a later page, from either place.
    fn candidates(&self, entries: Names<Digest>, index: Vec<Referrer>) -> Candidates {
        let end = entries.names.last().filter(|_| entries.more);
        let index = index.into_iter().filter(|referrer| {
            self.after.as_ref().is_none_or(|after| referrer.digest > *after)
                && end.is_none_or(|end| referrer.digest < *end)
                && self.admits(referrer)
        });
        let index = index.map(|referrer| (referrer.digest.clone(), Source::Index(referrer)));
        let mut sources: BTreeMap<_, _> = index.collect();
        sources.extend(entries.names.into_iter().map(|digest| (digest, Source::Entry)));
        let more = entries.more || sources.len() > MAX_READ;
        Candidates { sources: sources.into_iter().take(MAX_READ).collect(), more }
    }

    /// Reads candidates until the page is full.
    async fn read(
        &self,
        store: &impl Store,
        name: &Name,
        subject: &Digest,
        candidates: Candidates,
        room: &mut Reservation,
    ) -> Result<Page, StoreError> {
        let mut unread = candidates.sources.len();
        let looks = candidates.sources.into_iter().map(async |(digest, source)| {
            let seen = match source {
                Source::Entry => look_at_entry(store, name, subject, &digest).await?,
                Source::Index(referrer) => {
                    let is_there = store.manifest_link(name, &digest).await?.is_some();
                    if is_there { Seen::Whole(Some(referrer), 0) } else { Seen::Absent }
                }
            };
            Ok::<_, StoreError>((digest, seen))
        });
        let mut looks = stream::iter(looks).buffered(PARALLEL_READS);
        let mut page = Page { descriptors: Vec::new(), next: None };
        let (mut size, mut read) = (0, 0);
        while let Some((digest, seen)) = looks.try_next().await? {
            let (referrer, length) = match seen {
                Seen::Absent => (None, 0),
                Seen::Whole(referrer, length) => (referrer, length),
                Seen::Large => read_large_entry(store, name, subject, &digest).await?,
            };
            unread -= 1;
            read += length;
            page.next = (unread > 0 || candidates.more).then_some(digest);
            if let Some(referrer) = referrer.filter(|referrer| self.admits(referrer)) {
                let length = referrer.descriptor.get().len();
                if !room.grow(length) {
                    return Err(no_room_for_reads());
                }
                size += length;
                page.descriptors.push(referrer.descriptor);
            }
            let is_full = page.descriptors.len() >= self.entries || size >= PAGE_BYTES;
            if is_full || read >= MAX_READ_BYTES {
                break;
            }
        }
        Ok(page)
    }
}

impl Referrer {
    /// Reads a descriptor; `None` if it is malformed.
    fn parse(descriptor: Box<RawValue>) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Fields {
            digest: String,
            artifact_type: Option<String>,
        }
        let fields: Fields = serde_json::from_str(descriptor.get()).ok()?;
        let digest = fields.digest.parse().ok()?;
        Some(Self { digest, artifact_type: fields.artifact_type, descriptor })
    }
}

/// Reads the beginning of the entry that putting the referrer left, which mostly is all of it.
async fn look_at_entry(
    store: &impl Store,
    name: &Name,
    subject: &Digest,
    digest: &Digest,
) -> Result<Seen, StoreError> {
    Ok(match store.referrer_head(name, subject, digest, HEAD_BYTES).await? {
        None => Seen::Absent,
        Some(head) if !head.is_whole => Seen::Large,
        Some(head) => Seen::Whole(entry(name, subject, digest, &head.bytes), head.bytes.len()),
    })
}

/// Reads an entry of which the beginning is not all; gives how much was read of it, too.
async fn read_large_entry(
    store: &impl Store,
    name: &Name,
    subject: &Digest,
    digest: &Digest,
) -> Result<(Option<Referrer>, usize), StoreError> {
    let content = store.referrer(name, subject, digest).await?.into_bytes().unwrap_or_default();
    Ok((entry(name, subject, digest, &content), HEAD_BYTES as usize + content.len()))
}

/// The referrer that an entry is of. One that makes no sense is as good as none: it must not hide the
/// others.
fn entry(name: &Name, subject: &Digest, digest: &Digest, descriptor: &[u8]) -> Option<Referrer> {
    let referrer = serde_json::from_slice(descriptor).ok().and_then(Referrer::parse);
    let referrer = referrer.filter(|referrer| referrer.digest == *digest);
    if referrer.is_none() {
        log::error!("the entry of {digest} at its subject {subject} in {name} is no descriptor");
    }
    referrer
}

/// What the index under the subject's referrers tag lists, if there is one that can be read.
async fn index_under_tag(
    store: &impl Store,
    name: &Name,
    subject: &Digest,
) -> Result<Vec<Referrer>, StoreError> {
    let Some(tag) = referrers_tag(subject) else {
        return Ok(Vec::new());
    };
    let Some(digest) = store.tag(name, &tag).await? else {
        return Ok(Vec::new());
    };
    let entries = match content_of(store, name, &digest).await? {
        Content::Absent => return Ok(Vec::new()),
        Content::Verified(verified) => index_entries(verified.content()),
        Content::Whole(content) if digest.matches(&content) => index_entries(&content),
        Content::Whole(_) | Content::TooLarge { .. } => None,
    };
    if entries.is_none() {
        log::error!("{digest}, under the referrers tag {tag} of {name}, is no index to be read");
    }
    Ok(entries.unwrap_or_default().into_iter().filter_map(Referrer::parse).collect())
}

/// The tag under which clients keep the subject's referrers themselves: `<algorithm>-<hex>`, of
/// which no more than 64 digits.
fn referrers_tag(subject: &Digest) -> Option<Tag> {
    let hex = subject.hex().get(..64)?;
    format!("{}-{hex}", subject.algorithm().as_str()).parse().ok()
}

fn reply(descriptors: &[Box<RawValue>], query: &Query) -> Response<Bytes> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index<'a> {
        schema_version: u8,
        media_type: &'static str,
        manifests: &'a [Box<RawValue>],
    }
    let media_type = MediaType::OciIndex.as_str();
    let index = Index { schema_version: 2, media_type, manifests: descriptors };
    let mut response = json(&index, media_type);
    if query.artifact_type.is_some() {
        let applied = HeaderValue::from_static("artifactType");
        response.headers_mut().insert(OCI_FILTERS_APPLIED, applied);
    }
    response
}

#[cfg(test)]
mod tests {
    use http::header::LINK;
    use serde_json::{Value, json};
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::oci::Algorithm;
    use crate::registry::test_registry::{
        OCI_INDEX, OCI_MANIFEST, TestRegistry, descriptor, digest_of, error, get, image, name,
        pages,
    };
    use crate::store::memory::MemoryStore;
    use crate::store::{StoreErrorKind, layout};

    fn path() -> String {
        format!("/v2/a/b/referrers/{}", digest_of("subject"))
    }

    /// A manifest that refers to the subject.
    struct About {
        digest: Digest,
        descriptor: Value,
    }

    /// Puts a manifest of this type that says what it is about.
    fn put(registry: &TestRegistry, artifact_type: &str, note: &str) -> About {
        let mut manifest = image(note);
        manifest["subject"] = descriptor(OCI_MANIFEST, "subject");
        put_as_it_is(registry, artifact_type, manifest)
    }

    /// Puts one that does not say so: only an index under the referrers tag can tell.
    fn put_silent(registry: &TestRegistry, artifact_type: &str, note: &str) -> About {
        put_as_it_is(registry, artifact_type, image(note))
    }

    fn put_as_it_is(registry: &TestRegistry, artifact_type: &str, mut manifest: Value) -> About {
        manifest["artifactType"] = artifact_type.into();
        let digest = digest_of(&manifest.to_string());
        assert_eq!(registry.put(digest.as_str(), &manifest).status(), 201);
        let mut descriptor = descriptor(OCI_MANIFEST, &manifest.to_string());
        descriptor["artifactType"] = artifact_type.into();
        descriptor["annotations"] = manifest["annotations"].clone();
        About { digest, descriptor }
    }

    /// Stores an index of these under the referrers tag.
    fn put_under_tag(registry: &TestRegistry, descriptors: &[Value]) {
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors });
        let digest = digest_of(&index.to_string());
        let tag = referrers_tag(&digest_of("subject")).expect("a tag");
        registry.store.put(layout::content(&digest), index.to_string());
        registry.store.put(layout::manifest_link(&name(), &digest), digest.to_string());
        registry.store.put(layout::tag_link(&name(), &tag), digest.to_string());
    }

    fn listed(store: &MemoryStore, query: &str) -> Vec<Value> {
        let (response, _) = get(store, &format!("{}{query}", path()));
        assert_eq!(response.status(), 200, "{query}");
        assert_eq!(response.headers()["content-type"], OCI_INDEX);
        let json: Value = serde_json::from_slice(response.body()).expect("JSON");
        assert_eq!(json["schemaVersion"], 2);
        assert_eq!(json["mediaType"], OCI_INDEX);
        json["manifests"].as_array().expect("a list").clone()
    }

    fn in_order(mut all: Vec<About>) -> Vec<Value> {
        all.sort_by(|one, other| one.digest.cmp(&other.digest));
        all.into_iter().map(|about| about.descriptor).collect()
    }

    #[test]
    fn what_refers_to_a_manifest_is_listed_in_order_of_digest() {
        let registry = TestRegistry::with_blobs();
        let (response, round_trips) = get(&registry.store, &path());
        let none = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}"#);
        assert_eq!((response.body().as_ref(), round_trips), (none.as_bytes(), 1));
        assert!(!response.headers().contains_key("oci-filters-applied"));

        let all = in_order(vec![put(&registry, "x", ""), put(&registry, "y", "")]);
        assert_eq!(listed(&registry.store, ""), all);
        assert_eq!(get(&registry.store, &path()).1, 2, "round trips to the store");
    }

    #[test]
    fn a_filter_is_applied_and_named() {
        let registry = TestRegistry::with_blobs();
        let (x, y) = (put(&registry, "a/x+1", ""), put(&registry, "y", ""));
        let tagged = put_silent(&registry, "a/x+1", "silent");
        put_under_tag(&registry, &[tagged.descriptor.clone(), y.descriptor.clone()]);
        let query = "?artifactType=a%2Fx%2B1";
        assert_eq!(listed(&registry.store, query), in_order(vec![x, tagged]));
        assert!(listed(&registry.store, "?artifactType=z").is_empty());
        assert_eq!(listed(&registry.store, "?artifactType=").len(), 3);
        let (response, _) = get(&registry.store, &format!("{}{query}", path()));
        assert_eq!(response.headers()["oci-filters-applied"], "artifactType");
    }

    #[test]
    fn a_link_leads_from_page_to_page_whatever_the_source_and_the_filter() {
        let registry = TestRegistry::with_blobs();
        let mut all: Vec<_> =
            (0..10).map(|n| put(&registry, &format!("t {}", n % 2), &format!("{n}"))).collect();
        all.extend(
            (10..20).map(|n| put_silent(&registry, &format!("t {}", n % 3), &format!("{n}"))),
        );
        // Some are known from both places.
        let tagged: Vec<_> = all[5..].iter().map(|about| about.descriptor.clone()).collect();
        put_under_tag(&registry, &tagged);
        let all = in_order(all);
        let of_type: Vec<_> = all.iter().filter(|d| d["artifactType"] == "t 1").cloned().collect();
        for (query, expected) in [("?", &all), ("?artifactType=t%201&", &of_type)] {
            for entries in [1, 2, 5, 100] {
                let pages = pages(&registry.store, &format!("{}{query}n={entries}", path()));
                let manifests =
                    pages.iter().map(|page| page["manifests"].as_array().expect("a list"));
                assert!(manifests.clone().all(|manifests| manifests.len() <= entries));
                let found: Vec<_> = manifests.flatten().cloned().collect();
                assert_eq!(&found, expected, "{query}n={entries}");
            }
        }
    }

    #[test]
    fn large_descriptors_end_a_page() {
        let mut registry = TestRegistry::with_blobs();
        registry.store.page_limit = Some(1000);
        for number in 0..6 {
            let digest = digest_of(&number.to_string());
            let entry = json!({ "digest": digest.as_str(), "annotations": "x".repeat(800_000) });
            let key = layout::referrer(&name(), &digest_of("subject"), &digest);
            registry.store.put(key, entry.to_string());
        }
        let sizes = pages(&registry.store, &path());
        let sizes: Vec<_> = sizes.iter().map(|p| p["manifests"].as_array().map(Vec::len)).collect();
        assert_eq!(sizes, [Some(3), Some(3)]);
    }

    #[test]
    fn a_page_reads_no_more_than_a_few_megabytes_whatever_the_filter_drops() {
        const LARGE: usize = 1024 * 1024;
        let mut registry = TestRegistry::with_blobs();
        registry.store.page_limit = Some(1000);
        let put = |artifact_type: &str, number: usize| {
            let digest = digest_of(&format!("{artifact_type} {number}"));
            let entry = json!({
                "annotations": "x".repeat(LARGE),
                "artifactType": artifact_type,
                "digest": digest.as_str(),
            });
            let key = layout::referrer(&name(), &digest_of("subject"), &digest);
            registry.store.put(key, entry.to_string());
        };
        (0..40).for_each(|number| put("dropped", number));
        put("wanted", 0);
        let (mut found, mut next) = (0, Some(format!("{}?artifactType=wanted", path())));
        while let Some(target) = next {
            let (read, calls) = (registry.store.bytes_read.get(), registry.store.calls().len());
            let (response, _) = get(&registry.store, &target);
            let read = registry.store.bytes_read.get() - read;
            let heads = PARALLEL_READS * HEAD_BYTES as usize;
            assert!(read <= MAX_READ_BYTES + LARGE + 2 * heads, "{read} bytes for {target}");
            let calls = registry.store.calls().len() - calls;
            assert!(calls <= 2 * PARALLEL_READS, "{calls} calls");
            let json: Value = serde_json::from_slice(response.body()).expect("JSON");
            found += json["manifests"].as_array().expect("a list").len();
            next = response.headers().get(LINK).map(|link| {
                let link = link.to_str().expect("text").trim_start_matches('<');
                link.split('>').next().expect("a target").to_owned()
            });
        }
        assert_eq!(found, 1);
    }

    #[test]
    fn a_deleted_manifest_is_listed_from_neither_place() {
        let registry = TestRegistry::with_blobs();
        let (noted, tagged) = (put(&registry, "x", ""), put_silent(&registry, "y", "silent"));
        put_under_tag(&registry, &[noted.descriptor.clone(), tagged.descriptor.clone()]);
        assert_eq!(listed(&registry.store, "").len(), 2);
        assert_eq!(registry.delete(noted.digest.as_str()).status(), 202);
        assert_eq!(listed(&registry.store, ""), [tagged.descriptor]);
        assert_eq!(registry.delete(tagged.digest.as_str()).status(), 202);
        assert!(listed(&registry.store, "").is_empty());
    }

    #[test]
    fn what_is_no_descriptor_hides_no_other() {
        let registry = TestRegistry::with_blobs();
        let good = put(&registry, "x", "");
        let tagged = put_silent(&registry, "y", "silent");
        let subject = digest_of("subject");
        for (of, entry) in [("1", "no JSON".to_owned()), ("2", good.descriptor.to_string())] {
            registry.store.put(layout::referrer(&name(), &subject, &digest_of(of)), entry);
        }
        let broken = [json!(1), json!({ "digest": "x" }), tagged.descriptor.clone()];
        put_under_tag(&registry, &broken);
        assert_eq!(listed(&registry.store, ""), in_order(vec![good, tagged]));
    }

    #[test]
    fn a_broken_index_hides_nothing() {
        let registry = TestRegistry::with_blobs();
        let good = vec![put(&registry, "x", "").descriptor];
        let tag = referrers_tag(&digest_of("subject")).expect("a tag");
        let index = registry.store.put_manifest(&name(), &tag, b"no JSON");
        assert_eq!(listed(&registry.store, ""), good);
        registry.store.put_manifest(&name(), &tag, br#"{"schemaVersion":2,"layers":[]}"#);
        assert_eq!(listed(&registry.store, ""), good);
        registry.store.put(layout::tag_link(&name(), &tag), index.to_string());
        registry.store.put(layout::content(&index), "corrupt");
        assert_eq!(listed(&registry.store, ""), good);
        registry.store.delete(&layout::content(&index));
        assert_eq!(listed(&registry.store, ""), good);
    }

    #[test]
    fn storage_faults_are_never_an_empty_list() {
        let subject = digest_of("subject");
        let tag = referrers_tag(&subject).expect("a tag");
        let registry = || {
            let registry = TestRegistry::with_blobs();
            let (noted, tagged) = (put(&registry, "x", ""), put_silent(&registry, "y", "silent"));
            put_under_tag(&registry, &[tagged.descriptor]);
            (registry, noted.digest, tagged.digest)
        };
        let (_, noted, tagged) = registry();
        for key in [
            layout::referrers(&name(), &subject),
            layout::referrer(&name(), &subject, &noted),
            layout::tag_link(&name(), &tag),
            layout::manifest_link(&name(), &tagged),
        ] {
            let (mut registry, ..) = registry();
            registry.store.fail(key.clone(), StoreErrorKind::Failed);
            let (response, _) = get(&registry.store, &path());
            assert_eq!(error(&response), (500, "UNKNOWN".to_owned()), "{key:?}");
        }
    }

    #[test]
    fn a_page_begins_after_a_digest_and_nothing_else() {
        let registry = TestRegistry::with_blobs();
        for (query, code) in [("?last=x", "DIGEST_INVALID"), ("?n=x", "PAGINATION_NUMBER_INVALID")]
        {
            let (response, _) = get(&registry.store, &format!("{}{query}", path()));
            assert_eq!(error(&response), (400, code.to_owned()));
        }
        put(&registry, "x", "");
        let (response, round_trips) = get(&registry.store, &format!("{}?n=0", path()));
        assert_eq!((response.headers().get(LINK), round_trips), (None, 0));
    }

    #[test]
    fn the_tag_of_a_long_digest_is_cut() {
        let subject = Digest::of(Algorithm::Sha512, b"");
        let tag = referrers_tag(&subject).expect("a tag");
        assert_eq!(tag.as_str(), format!("sha512-{}", &subject.hex()[..64]));
    }
}
