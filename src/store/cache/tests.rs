use futures::future::join;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::entries::{DERIVED, ENTRY_OVERHEAD, KnownLink, LARGEST_PART, size_of};
use super::*;
use crate::oci::{Algorithm, Digest, Name, Tag};
use crate::store::memory::{MemoryStore, TestCacheEnvironment, run};
use crate::store::{Store, Uploads};

const SETTINGS: CacheSettings = CacheSettings {
    max_bytes: 100_000,
    link_ttl: Duration::from_secs(60),
    tag_ttl: Duration::from_secs(5),
    negative_ttl: Duration::ZERO,
    stale_if_error: Duration::ZERO,
};

type Subject<'a> = Cached<MemoryStore, &'a TestCacheEnvironment>;

fn subject(world: &TestCacheEnvironment, settings: CacheSettings) -> (Subject<'_>, Digest) {
    let store = MemoryStore::default();
    let digest = store.put_manifest(&name(), &tag(), b"{}");
    (Cached::new(store, world, settings, 0), digest)
}

fn name() -> Name {
    "a".parse().expect("a valid name")
}

fn tag() -> Tag {
    "t".parse().expect("a valid tag")
}

/// How many calls the bucket gets while a manifest is read by tag.
fn read(subject: &Subject) -> (Option<Bytes>, usize) {
    let before = subject.bucket().calls().len();
    let content = run(async {
        let digest = subject.tag(&name(), &tag()).await.expect("no fault")?;
        subject.manifest_link(&name(), &digest).await.expect("no fault")?;
        subject.content(&digest).await.expect("no fault").into_bytes()
    });
    (content.0, subject.bucket().calls().len() - before)
}

#[test]
fn what_is_known_is_not_read_again_until_its_time_is_over() {
    let world = TestCacheEnvironment::default();
    let (subject, _) = subject(&world, SETTINGS);
    let content = Some(Bytes::from_static(b"{}"));
    assert_eq!(read(&subject), (content.clone(), 3));
    assert_eq!(read(&subject), (content.clone(), 0));
    world.now.set(Duration::from_secs(5));
    assert_eq!(read(&subject), (content.clone(), 1), "the tag's time is over");
    world.now.set(Duration::from_secs(60));
    assert_eq!(read(&subject), (content, 2), "the link's too; content stays");
}

#[test]
fn by_default_every_read_of_a_tag_sees_the_store() {
    let world = TestCacheEnvironment::default();
    let (subject, _) = subject(&world, CacheSettings { tag_ttl: Duration::ZERO, ..SETTINGS });
    read(&subject);
    assert_eq!(read(&subject).1, 1);
    subject.bucket().delete(&layout::tag_link(&name(), &tag()));
    assert_eq!(read(&subject).0, None);
}

#[test]
fn a_write_through_this_proxy_takes_effect_at_once() {
    let world = TestCacheEnvironment::default();
    let (subject, digest) = subject(&world, SETTINGS);
    read(&subject);
    run(subject.unlink_manifest(&name(), &digest)).0.expect("no fault");
    assert_eq!(read(&subject).0, None);
    run(subject.link_manifest(&name(), &digest)).0.expect("no fault");
    assert!(read(&subject).0.is_some());
    // Through another worker, all that is seen here is that it was counted.
    subject.bucket().delete(&layout::manifest_link(&name(), &digest));
    assert!(read(&subject).0.is_some(), "another proxy's write is not seen yet");
    (&world).begin_write_epoch(layout::shard(&name()));
    assert_eq!(read(&subject).0, None);
}

/// How often it is counted that the repository was written to.
fn counted<T>(
    world: &TestCacheEnvironment,
    act: impl Future<Output = Result<T, StoreError>>,
) -> u64 {
    let shard = layout::shard(&name());
    let before = world.write_epoch(shard);
    run(act).0.expect("no fault");
    world.write_epoch(shard) - before
}

#[test]
fn every_write_to_what_is_kept_for_a_time_is_counted() {
    let world = TestCacheEnvironment::default();
    let (subject, digest) = subject(&world, SETTINGS);
    let (name, tag) = (name(), tag());
    let condition = run(subject.tag_condition(&name, &tag, Some(&[]))).0.expect("no fault");
    let condition = condition.expect("the tag is there");
    assert_eq!(counted(&world, subject.set_tag_if(&name, &tag, &digest, &condition)), 1);
    assert_eq!(counted(&world, subject.set_tag(&name, &tag, &digest)), 1);
    assert_eq!(counted(&world, subject.link_manifest(&name, &digest)), 1);
    assert_eq!(counted(&world, subject.link_blob(&name, &digest)), 1);
    assert_eq!(counted(&world, subject.put_content(&digest, Bytes::new())), 0);
    assert_eq!(counted(&world, subject.record_tag(&name, &tag, &digest)), 0);
    assert_eq!(counted(&world, subject.remove_tag(&name, &tag)), 1);
    run(subject.try_conditional_removal());
    counted(&world, subject.set_tag(&name, &tag, &digest));
    let seen = run(subject.tag_version(&name, &tag)).0.expect("no fault").expect("a tag");
    assert_eq!(counted(&world, subject.remove_tag_if(&name, &tag, &seen)), 1);
    for text in ["t1", "t2"] {
        let tag = text.parse().expect("a tag");
        counted(&world, subject.set_tag(&name, &tag, &digest));
    }
    assert_eq!(counted(&world, subject.remove_tags_on(&name, &digest, |_| true)), 2);
    assert_eq!(counted(&world, subject.unlink_manifest(&name, &digest)), 1);
    assert_eq!(counted(&world, subject.unlink_blob(&name, &digest)), 1);
}

#[test]
fn what_was_read_while_it_was_written_is_not_kept() {
    let world = TestCacheEnvironment::default();
    let (subject, digest) = subject(&world, SETTINGS);
    let name = name();
    let (old, _) =
        run(join(subject.manifest_link(&name, &digest), subject.unlink_manifest(&name, &digest))).0;
    assert!(old.expect("no fault").is_some(), "it was there when it was read");
    assert_eq!(run(subject.manifest_link(&name, &digest)).0, Ok(None));
}

#[test]
fn that_something_is_missing_is_remembered_only_if_asked_for() {
    for (negative_ttl, calls) in [(Duration::ZERO, 2), (Duration::from_secs(1), 1)] {
        let world = TestCacheEnvironment::default();
        let (subject, _) = subject(&world, CacheSettings { negative_ttl, ..SETTINGS });
        let missing = Digest::of(Algorithm::Sha256, b"missing");
        for _ in 0..2 {
            assert_eq!(run(subject.manifest_link(&name(), &missing)).0, Ok(None));
        }
        assert_eq!(subject.bucket().calls().len(), calls);
    }
}

#[test]
fn many_that_want_the_same_make_one_read() {
    let world = TestCacheEnvironment::default();
    let (subject, digest) = subject(&world, SETTINGS);
    let name = name();
    let read = async || {
        let link = subject.manifest_link(&name, &digest);
        join(link, subject.content(&digest)).await
    };
    let all = futures::future::join_all((0..100).map(|_| read()));
    for (link, content) in run(all).0 {
        assert_eq!(link, Ok(Some(digest.clone())));
        assert_eq!(content.expect("no fault").into_bytes().as_deref(), Some(&b"{}"[..]));
    }
    assert_eq!(subject.bucket().calls().len(), 2);
}

#[test]
fn corrupt_content_and_what_is_too_large_are_not_kept() {
    let world = TestCacheEnvironment::default();
    let small = CacheSettings { max_bytes: LARGEST_PART * 2_000, ..SETTINGS };
    let (subject, digest) = subject(&world, small);
    let large: &[u8] = &[b' '; 2_000];
    let oversize = Digest::of(Algorithm::Sha256, large);
    subject.bucket().put(layout::content(&oversize), large);
    subject.bucket().put(layout::content(&digest), "corrupt");
    for digest in [&oversize, &digest] {
        let before = subject.bucket().calls().len();
        let first = run(subject.content(digest)).0.expect("no fault");
        assert_eq!(first.is_verified(), digest == &oversize);
        run(subject.content(digest)).0.expect("no fault");
        assert_eq!(subject.bucket().calls().len() - before, 2);
    }
}

/// Of 1,036 bytes, a manifest took 2,450 in the module, with its link.
#[test]
fn an_entry_counts_for_about_what_it_takes() {
    let digest = Digest::of(Algorithm::Sha256, b"");
    let verified = Verified::new(digest.clone(), vec![0; 1_036].into());
    let content = size_of(&Kind::Content(digest.clone()), &Entry::Content(verified));
    let value = Some(digest.to_string().into());
    let link = Entry::Link(KnownLink {
        value,
        writes: 0,
        acknowledged: 0,
        asked_at: Duration::ZERO,
        number: 0,
    });
    let link =
        size_of(&Kind::ManifestLink("library/bench".parse().expect("a name"), digest), &link);
    assert_eq!((content, link), (2_195, 283));
}

#[test]
fn the_least_recently_used_goes_first_and_no_more_is_kept_than_there_is_room_for() {
    let mut entries = Entries::new(20_000, 0);
    let kind = |number: usize| Kind::Other(format!("{number:04}"));
    let digest = Digest::of(Algorithm::Sha256, b"");
    let length = 2_000 - ENTRY_OVERHEAD - DERIVED - kind(0).size();
    let content = || Entry::Content(Verified::new(digest.clone(), vec![0; length].into()));
    for number in 0..20 {
        let evicted = entries.put(&kind(number), content());
        assert!(evicted.is_empty(), "its key is of no kind that is counted");
        assert!(entries.get(&kind(0)).is_some(), "it is used all the time");
        assert!(entries.bytes <= 20_000);
    }
    assert_eq!(entries.entries.len(), 10);
    assert!(entries.get(&kind(11)).is_some());
    assert!(entries.get(&kind(10)).is_none());
    drop(entries.put(&kind(0), content()));
    assert_eq!(entries.bytes, 20_000, "in place of what was there");
}

#[test]
fn a_descriptor_of_a_referrer_is_read_once_and_only_if_it_is_one() {
    let world = TestCacheEnvironment::default();
    let (subject, manifest) = subject(&world, SETTINGS);
    let other = Digest::of(Algorithm::Sha256, b"other");
    let whole = format!("{{\"digest\":\"{manifest}\"}}");
    let of_another = format!("{{\"digest\":\"{other}\"}}");
    let key = layout::referrer(&name(), &other, &manifest);
    let read = |limit| {
        let before = subject.bucket().calls().len();
        let head = run(subject.referrer_head(&name(), &other, &manifest, limit)).0;
        let bytes = head.expect("no fault").map(|head| head.bytes);
        (bytes, subject.bucket().calls().len() - before)
    };
    for (text, limit, calls) in
        [(of_another.as_str(), 1_000, 1), ("{", 1_000, 1), (&whole, 10, 1), (&whole, 1_000, 0)]
    {
        subject.bucket().put(key.clone(), text.to_owned());
        let expected = Bytes::copy_from_slice(&text.as_bytes()[..text.len().min(limit as usize)]);
        assert_eq!(read(limit), (Some(expected.clone()), 1), "{text}");
        assert_eq!(read(limit), (Some(expected), calls), "{text}");
    }
    // Another's note of it, and its removal.
    let note = Bytes::from(format!("{{\"digest\":\"{manifest}\",\"size\":2}}"));
    run(subject.put_referrer(&name(), &other, &manifest, note.clone())).0.expect("no fault");
    assert_eq!(read(1_000), (Some(note), 1));
    run(subject.remove_referrer(&name(), &other, &manifest)).0.expect("no fault");
    assert_eq!(read(1_000), (None, 1));
}
