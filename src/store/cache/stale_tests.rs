//! What is answered while the store can't be reached.

use std::pin::pin;
use std::task::{Context, Poll};

use futures::future::join_all;
use futures::task::noop_waker_ref;
use http::StatusCode;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::oci::{Algorithm, Name, Tag};
use crate::store::fault::{Fault, StoreErrorKind};
use crate::store::memory::{Effect, MemoryStore, TestCacheEnvironment, run};
use crate::store::{Names, Store, Uploads};

const AGE: Duration = Duration::from_secs(3_600);

const SETTINGS: CacheSettings = CacheSettings {
    max_bytes: 100_000,
    link_ttl: Duration::from_secs(60),
    tag_ttl: Duration::ZERO,
    negative_ttl: Duration::ZERO,
    stale_if_error: AGE,
};

type Subject<'a> = Cached<MemoryStore, &'a TestCacheEnvironment>;

/// A worker's cache before a store that has a tag `t` on a manifest and a blob in the repository `a`.
struct Fixture<'a> {
    world: &'a TestCacheEnvironment,
    subject: Subject<'a>,
    manifest: Digest,
    blob: Digest,
}

impl<'a> Fixture<'a> {
    fn new(world: &'a TestCacheEnvironment, settings: CacheSettings) -> Self {
        // In the middle of time, so that the clock can be set back.
        world.now.set(AGE * 10);
        let store = MemoryStore::default();
        let manifest = store.put_manifest(&name(), &tag(), b"{}");
        let blob = store.put_blob(&name(), b"blob");
        Self { world, subject: Cached::new(store, world, settings, 0), manifest, blob }
    }

    /// The same, once everything was pulled and the time of links is over.
    fn pulled(world: &'a TestCacheEnvironment) -> Self {
        let fixture = Self::new(world, SETTINGS);
        assert_eq!(fixture.pull(), [Ok(true), Ok(true), Ok(true)]);
        fixture.later(SETTINGS.link_ttl);
        fixture
    }

    /// Whether pulls find the tag, the manifest and the blob, each of which leads to itself.
    fn pull(&self) -> [Result<bool, StoreErrorKind>; 3] {
        let found = |found: Result<Option<Digest>, StoreError>, expected: &Digest| match found {
            Ok(Some(digest)) => Ok(digest == *expected),
            Ok(None) => Ok(false),
            Err(error) => Err(error.kind()),
        };
        let name = name();
        [
            found(run(self.subject.tag_for_pull(&name, &tag())).0, &self.manifest),
            found(
                run(self.subject.manifest_link_for_pull(&name, &self.manifest)).0,
                &self.manifest,
            ),
            found(run(self.subject.blob_link_for_pull(&name, &self.blob)).0, &self.blob),
        ]
    }

    fn pull_tag(&self) -> Result<Option<Digest>, StoreError> {
        run(self.subject.tag_for_pull(&name(), &tag())).0
    }

    fn later(&self, time: Duration) {
        self.world.now.set(self.world.now.get() + time);
    }

    fn fail_with(&self, error: StoreError, effect: Effect) {
        *self.subject.bucket().outage.borrow_mut() = Some((error, effect));
    }

    fn fail(&self) {
        self.fail_with(unavailable(), Effect::None);
    }

    fn recover(&self) {
        *self.subject.bucket().outage.borrow_mut() = None;
    }

    fn calls(&self) -> usize {
        self.subject.bucket().calls().len()
    }

    /// The number of calls that something makes.
    fn calls_of(&self, act: impl FnOnce()) -> usize {
        let before = self.calls();
        act();
        self.calls() - before
    }
}

fn name() -> Name {
    "a".parse().expect("a valid name")
}

fn tag() -> Tag {
    "t".parse().expect("a valid tag")
}

fn unavailable() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "injected")
}

fn answered(status: u16, body: &str) -> StoreError {
    match Fault::of(StatusCode::from_u16(status).expect("a status"), body.as_bytes()) {
        Fault::Other(error) => error,
        Fault::NoSuchKey => panic!("that is no fault"),
    }
}

#[test]
fn pulls_are_answered_from_memory_only_if_the_store_is_away_and_never_writers() {
    let of = |kind| StoreError::new(kind, "injected");
    let rows = [
        (of(StoreErrorKind::Unavailable), true),
        (of(StoreErrorKind::TimedOut), true),
        // An answer that makes no sense is one.
        (of(StoreErrorKind::Failed), false),
        // The store was not asked.
        (of(StoreErrorKind::Busy), false),
        (answered(500, ""), true),
        (answered(502, "<html>"), true),
        (answered(503, "<Error><Code>SlowDown</Code></Error>"), true),
        (answered(504, ""), true),
        (answered(429, ""), true),
        (answered(501, ""), false),
        (answered(403, "<Error><Code>AccessDenied</Code></Error>"), false),
        (answered(404, "<Error><Code>NoSuchBucket</Code></Error>"), false),
        (answered(404, "<html>"), false),
        (answered(301, ""), false),
    ];
    for (error, is_answered) in rows {
        let world = TestCacheEnvironment::default();
        let fixture = Fixture::pulled(&world);
        fixture.fail_with(error.clone(), Effect::None);
        let expected = if is_answered { Ok(true) } else { Err(error.kind()) };
        assert_eq!(fixture.pull(), [expected; 3], "{error}");

        let (name, store) = (name(), &fixture.subject);
        let (manifest, blob) = (&fixture.manifest, &fixture.blob);
        assert_eq!(run(store.tag(&name, &tag())).0, Err(error.clone()));
        assert_eq!(run(store.tag_version(&name, &tag())).0, Err(error.clone()));
        assert_eq!(run(store.manifest_link(&name, manifest)).0, Err(error.clone()));
        assert_eq!(run(store.blob_link(&name, blob)).0, Err(error.clone()));
        assert_eq!(run(store.has_manifest(&name, manifest)).0, Err(error.clone()));
        assert_eq!(run(store.has_blob(&name, blob)).0, Err(error.clone()));
        assert_eq!(run(store.tags(&name, "", 1)).0.map(|_: Names<Tag>| ()), Err(error.clone()));
        assert_eq!(fixture.pull(), [expected; 3], "nothing of that was forgotten: {error}");
    }
}

#[test]
fn what_is_known_is_answered_up_to_its_age_and_not_if_nobody_knows_how_old_it_is() {
    let at = |ages: &[(Duration, bool)], set_back: Duration| {
        for (age, is_answered) in ages {
            let world = TestCacheEnvironment::default();
            let fixture = Fixture::new(&world, SETTINGS);
            assert_eq!(fixture.pull(), [Ok(true); 3]);
            fixture.fail();
            world.now.set(world.now.get() + *age - set_back);
            let expected = if *is_answered { Ok(true) } else { Err(StoreErrorKind::Unavailable) };
            assert_eq!(fixture.pull(), [expected; 3], "{age:?} - {set_back:?}");
        }
    };
    let short = Duration::from_millis(1);
    at(
        &[(SETTINGS.link_ttl, true), (AGE, true), (AGE + short, false), (AGE * 9, false)],
        Duration::ZERO,
    );
    at(&[(short, true), (Duration::ZERO, false)], short);
}

#[test]
fn while_the_store_answers_every_read_of_a_tag_sees_it() {
    let world = TestCacheEnvironment::default();
    let fixture = Fixture::pulled(&world);
    assert_eq!(fixture.calls_of(|| drop(fixture.pull_tag())), 1);
    let other = Digest::of(Algorithm::Sha256, b"other");
    fixture.subject.bucket().put(layout::tag_link(&name(), &tag()), other.to_string());
    assert_eq!(fixture.pull_tag(), Ok(Some(other.clone())));
    fixture.fail();
    assert_eq!(fixture.pull_tag(), Ok(Some(other)), "what it said last");
}

#[test]
fn what_the_store_says_is_not_there_is_forgotten_at_once() {
    for (negative_ttl, how) in [
        (Duration::ZERO, "read"),
        (Duration::from_secs(30), "read"),
        (Duration::ZERO, "read for a write"),
        (Duration::ZERO, "read with its version"),
        (Duration::ZERO, "removed on a condition"),
    ] {
        let world = TestCacheEnvironment::default();
        let settings = CacheSettings { negative_ttl, tag_ttl: AGE, ..SETTINGS };
        let fixture = Fixture::new(&world, settings);
        let (key, name, tag) = (layout::tag_link(&name(), &tag()), name(), tag());
        let store = &fixture.subject;
        assert_eq!(fixture.pull(), [Ok(true); 3]);
        store.bucket().delete(&key);
        match how {
            "read" | "read for a write" => {
                fixture.later(AGE);
                let read = match how {
                    "read" => fixture.pull_tag(),
                    _ => run(store.tag(&name, &tag)).0,
                };
                assert_eq!(read, Ok(None));
            }
            "read with its version" => assert_eq!(run(store.tag_version(&name, &tag)).0, Ok(None)),
            _ => {
                let removal = run(store.remove_if(&key, &Version("any".to_owned()))).0;
                assert_eq!(removal, Ok(Removal::Absent));
            }
        }
        fixture.fail();
        fixture.later(Duration::from_secs(60));
        let expected = Err(StoreErrorKind::Unavailable);
        assert_eq!(fixture.pull_tag().map_err(|error| error.kind()), expected, "{how}");
    }
}

#[test]
fn a_write_that_was_acknowledged_is_never_undone_and_one_that_failed_makes_nothing_unknown() {
    let (done, failed) = (Ok(()), Err(unavailable()));
    for (outage, effect, expected, is_answered) in [
        (false, Effect::Done, &done, false),
        (true, Effect::None, &failed, true),
        // Who was told of an error does not know either.
        (true, Effect::Done, &failed, true),
    ] {
        let world = TestCacheEnvironment::default();
        let fixture = Fixture::pulled(&world);
        let (name, key) = (name(), layout::tag_link(&name(), &tag()));
        if outage {
            fixture.fail_with(unavailable(), effect);
        }
        assert_eq!(run(fixture.subject.remove(&key)).0, *expected);
        assert_eq!(run(fixture.subject.link_blob(&name, &fixture.blob)).0, *expected);
        fixture.fail();
        let expected = if is_answered { Ok(true) } else { Err(StoreErrorKind::Unavailable) };
        assert_eq!(fixture.pull(), [expected; 3], "{outage} {effect:?}");
    }
}

#[test]
fn a_write_whose_answer_was_lost_is_never_undone_once_the_store_has_shown_that_it_was_done() {
    for is_seen in ["read", "read with its version"] {
        let world = TestCacheEnvironment::default();
        let (fixture, other) = (Fixture::pulled(&world), Fixture::pulled(&world));
        let (name, tag) = (name(), tag());
        fixture.fail_with(unavailable(), Effect::Done);
        let removal = run(fixture.subject.remove(&layout::tag_link(&name, &tag))).0;
        assert_eq!(removal, Err(unavailable()));
        other.fail();
        assert_eq!(other.pull(), [Ok(true); 3], "nobody knows");
        fixture.recover();
        match is_seen {
            "read" => assert_eq!(run(fixture.subject.tag(&name, &tag)).0, Ok(None)),
            _ => assert_eq!(run(fixture.subject.tag_version(&name, &tag)).0, Ok(None)),
        }
        assert_eq!(other.pull(), [Err(StoreErrorKind::Unavailable); 3], "{is_seen}");
        // What is read from now on is known as before.
        assert_eq!(fixture.pull()[1..], [Ok(true); 2]);
        fixture.fail();
        fixture.later(SETTINGS.link_ttl);
        assert_eq!(fixture.pull()[1..], [Ok(true); 2]);
    }
}

#[test]
fn a_write_of_another_worker_counts_and_one_to_another_shard_does_not() {
    let shard = layout::shard(&name());
    for (written, expected) in [(shard + 1, Ok(true)), (shard, Err(StoreErrorKind::Unavailable))] {
        let world = TestCacheEnvironment::default();
        let fixture = Fixture::pulled(&world);
        (&world).begin_acknowledged_epoch(written);
        (&world).begin_write_epoch(written);
        fixture.fail();
        assert_eq!(fixture.pull(), [expected; 3]);
        // What is read anew after it is known.
        fixture.recover();
        fixture.later(outage::PAUSE);
        assert_eq!(fixture.pull(), [Ok(true); 3]);
        fixture.fail();
        fixture.later(SETTINGS.link_ttl);
        assert_eq!(fixture.pull(), [Ok(true); 3]);
    }
}

#[test]
fn a_condition_that_does_not_hold_writes_nothing() {
    let world = TestCacheEnvironment::default();
    let fixture = Fixture::pulled(&world);
    let key = layout::tag_link(&name(), &tag());
    let write = fixture.subject.write_if(&key, Bytes::new(), &Condition::Absent);
    assert_eq!(run(write).0, Ok(false));
    fixture.fail();
    assert_eq!(fixture.pull(), [Ok(true); 3]);
}

#[test]
fn while_the_store_is_away_one_asks_a_second_after_the_last() {
    let world = TestCacheEnvironment::default();
    let fixture = Fixture::pulled(&world);
    fixture.fail();
    let pull = || assert_eq!(fixture.pull(), [Ok(true); 3]);
    assert_eq!(fixture.calls_of(pull), 1, "the first one finds out");
    let nearly = outage::PAUSE - Duration::from_millis(1);
    fixture.later(nearly);
    assert_eq!(fixture.calls_of(pull), 0);
    fixture.later(outage::PAUSE - nearly);
    assert_eq!(fixture.calls_of(pull), 1);
    assert_eq!(fixture.calls_of(pull), 0);
    // A clock that is set back makes nothing of it longer.
    world.now.set(world.now.get() - Duration::from_secs(10));
    assert_eq!(fixture.calls_of(pull), 1);
    // What is not known is always asked for.
    let other = "other".parse().expect("a valid tag");
    let unknown = || assert!(run(fixture.subject.tag_for_pull(&name(), &other)).0.is_err());
    assert_eq!((fixture.calls_of(unknown), fixture.calls_of(unknown)), (1, 1));
    // The store is back: whoever asks sees it, and all others from then on.
    fixture.recover();
    assert_eq!(fixture.calls_of(pull), 0, "nobody knows yet");
    fixture.later(SETTINGS.link_ttl);
    assert_eq!(fixture.calls_of(pull), 3);
}

#[test]
fn an_answer_to_anyone_ends_the_outage() {
    let world = TestCacheEnvironment::default();
    let fixture = Fixture::pulled(&world);
    for (error, ends) in [
        (None, true),
        // Also a refusal: the store is there.
        (Some(answered(403, "")), true),
        (Some(StoreError::new(StoreErrorKind::Busy, "injected")), false),
    ] {
        fixture.later(SETTINGS.link_ttl);
        fixture.fail();
        assert_eq!(fixture.pull(), [Ok(true); 3]);
        match error {
            None => fixture.recover(),
            Some(error) => fixture.fail_with(error, Effect::None),
        }
        drop(run(fixture.subject.tag(&name(), &tag())));
        fixture.recover();
        let calls = fixture.calls_of(|| assert_eq!(fixture.pull(), [Ok(true); 3]));
        assert_eq!(calls > 0, ends);
        fixture.later(outage::PAUSE);
        assert_eq!(fixture.pull(), [Ok(true); 3]);
    }
}

#[test]
fn a_store_that_hangs_lets_one_wait_and_no_other() {
    let world = TestCacheEnvironment::default();
    let fixture = Fixture::pulled(&world);
    fixture.fail();
    assert_eq!(fixture.pull(), [Ok(true); 3]);
    fixture.later(outage::PAUSE);
    let (name, tag) = (name(), tag());
    let mut context = Context::from_waker(noop_waker_ref());
    {
        let mut waiting = pin!(fixture.subject.tag_for_pull(&name, &tag));
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        for _ in 0..10 {
            fixture.later(outage::PAUSE);
            let mut other = pin!(fixture.subject.tag_for_pull(&name, &tag));
            let Poll::Ready(found) = other.as_mut().poll(&mut context) else {
                panic!("it waits for the store");
            };
            assert_eq!(found, Ok(Some(fixture.manifest.clone())));
        }
    }
    // Its client has gone away. If that comes back at once it shall not wait again.
    assert_eq!(fixture.calls_of(|| drop(fixture.pull_tag())), 0);
    fixture.later(outage::PAUSE);
    assert_eq!(fixture.calls_of(|| drop(fixture.pull_tag())), 1);
}

#[test]
fn many_that_find_out_together_make_one_call_for_a_link() {
    let world = TestCacheEnvironment::default();
    let fixture = Fixture::pulled(&world);
    fixture.fail();
    let name = name();
    let pull = || fixture.subject.manifest_link_for_pull(&name, &fixture.manifest);
    let pulls = || {
        for found in run(join_all((0..100).map(|_| pull()))).0 {
            assert_eq!(found, Ok(Some(fixture.manifest.clone())));
        }
    };
    assert_eq!(fixture.calls_of(pulls), 1);
}

#[test]
fn a_failure_that_is_older_than_an_answer_says_nothing() {
    let world = TestCacheEnvironment::default();
    let fixture = Fixture::pulled(&world);
    let outage = &fixture.subject.outage;
    let before = outage.answers();
    assert_eq!(fixture.pull(), [Ok(true); 3]);
    outage.note::<()>(&Err(unavailable()), before, world.now.get());
    assert!(!outage.is_known());
    outage.note::<()>(&Err(unavailable()), outage.answers(), world.now.get());
    assert!(outage.is_known());
}

#[test]
fn of_two_reads_the_one_that_asked_later_is_remembered() {
    let world = TestCacheEnvironment::default();
    let fixture = Fixture::new(&world, SETTINGS);
    let (name, tag) = (name(), tag());
    let mut context = Context::from_waker(noop_waker_ref());
    let earlier = fixture.subject.asked.get();
    let mut slow = pin!(fixture.subject.tag_for_pull(&name, &tag));
    assert!(slow.as_mut().poll(&mut context).is_pending());
    // The earlier one is answered last.
    let other = Digest::of(Algorithm::Sha256, b"other");
    let link = entries::KnownLink {
        value: Some(other.to_string().into()),
        writes: 0,
        acknowledged: 0,
        asked_at: world.now.get(),
        number: earlier + 2,
    };
    fixture.subject.keep(layout::tag_link(&name, &tag).kind(), Entry::Link(link));
    assert_eq!(run(slow).0, Ok(Some(fixture.manifest.clone())));
    fixture.fail();
    assert_eq!(fixture.pull_tag(), Ok(Some(other)));
}

#[test]
fn without_the_setting_an_outage_is_an_error_and_nothing_more_is_kept() {
    let world = TestCacheEnvironment::default();
    let settings = CacheSettings { stale_if_error: Duration::ZERO, ..SETTINGS };
    let fixture = Fixture::new(&world, settings);
    assert_eq!(fixture.pull(), [Ok(true); 3]);
    fixture.later(SETTINGS.link_ttl);
    fixture.fail();
    let pull = || assert_eq!(fixture.pull(), [Err(StoreErrorKind::Unavailable); 3]);
    assert_eq!((fixture.calls_of(pull), fixture.calls_of(pull)), (3, 3), "no pause either");
    assert!(!world.events.borrow().iter().any(|event| matches!(event, CacheEvent::Stale(_))));
}

#[test]
fn everything_that_becomes_of_a_read_is_told() {
    use CacheEvent::{Evicted, Hit, Miss, Stale};
    use CacheKind::{Content, Link, Tag};
    let world = TestCacheEnvironment::default();
    let fixture = Fixture::new(&world, SETTINGS);
    let pull = || {
        world.events.take();
        assert_eq!(fixture.pull(), [Ok(true); 3]);
        drop(run(fixture.subject.content(&fixture.manifest)));
        world.events.take()
    };
    assert_eq!(pull(), [Miss(Tag), Miss(Link), Miss(Link), Miss(Content)]);
    assert_eq!(pull(), [Miss(Tag), Hit(Link), Hit(Link), Hit(Content)]);
    fixture.later(SETTINGS.link_ttl);
    fixture.fail();
    let found_out = [Miss(Tag), Stale(Tag), Stale(Link), Stale(Link), Hit(Content)];
    assert_eq!(pull(), found_out);
    assert_eq!(pull(), [Stale(Tag), Stale(Link), Stale(Link), Hit(Content)]);
    let bytes = fixture.subject.cached_bytes();
    assert!((1_000..10_000).contains(&bytes), "{bytes}");
    // What is too large is not kept, and what is not goes for what comes.
    fixture.recover();
    world.events.take();
    for number in 0..200_u16 {
        let content = vec![b' '; 1_000 + usize::from(number)];
        let digest = Digest::of(Algorithm::Sha256, &content);
        fixture.subject.bucket().put(layout::content(&digest), content);
        drop(run(fixture.subject.content(&digest)));
        assert!(fixture.subject.cached_bytes() <= SETTINGS.max_bytes);
    }
    let evicted =
        |kind| world.events.borrow().iter().filter(|event| **event == Evicted(kind)).count();
    assert_eq!((evicted(Tag), evicted(Link)), (1, 2));
    assert!(evicted(Content) > 100);
}
