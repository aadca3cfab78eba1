//! Requests for one tag at the same time, in every order in which their storage calls can complete: what
//! comes of them must come of them in some order one after the other as well, one in which no request
//! follows another that began after its end.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::oci::{Digest, Tag};
use crate::registry::test_registry::{OCI_INDEX, TestRegistry, digest_of, name, whole};
use crate::registry::{Body, ImmutableTags, handle};
use crate::store::layout::Key;
use crate::store::memory::{Deed, run};
use crate::store::{Store, layout, turns};

/// A request for the tag `t`, or for the manifest that it points at when all begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// `PUT` of a manifest by the tag.
    Put(&'static str),
    /// `DELETE` of a manifest.
    Delete(&'static str),
    /// `DELETE` of the tag.
    DeleteTag,
}

use Act::{Delete, DeleteTag, Put};

/// What a store heeds.
#[derive(Debug, Clone, Copy)]
struct Heeds {
    writes: bool,
    removals: bool,
}

/// A manifest that refers to nothing, so that no call is made for what can't matter here.
fn manifest(note: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [],
        "annotations": { "note": note },
    })
}

fn digest(note: &str) -> Digest {
    digest_of(&manifest(note).to_string())
}

fn tag() -> Tag {
    "t".parse().expect("a tag")
}

/// A repository where the tag has been put on these manifests, one after the other.
fn registry(heeds: Heeds, history: &[&str]) -> TestRegistry {
    let mut registry = TestRegistry::default();
    registry.store.ignores_conditions = !heeds.writes;
    registry.store.ignores_conditional_removal = !heeds.removals;
    for note in history {
        assert_eq!(registry.put("t", &manifest(note)).status(), 201);
    }
    // What a store heeds is found out once, and mostly long before.
    run(async {
        assert_eq!(registry.store.honours_conditions().await, Ok(heeds.writes));
        registry.store.try_conditional_removal().await;
    });
    registry
}

impl Act {
    async fn send(self, registry: &TestRegistry) -> u16 {
        let (method, reference, body) = match self {
            Put(note) => (Method::PUT, "t".to_owned(), whole(&manifest(note))),
            Delete(note) => (Method::DELETE, digest(note).to_string(), Body::None),
            DeleteTag => (Method::DELETE, "t".to_owned(), Body::None),
        };
        let target = format!("/v2/a/b/manifests/{reference}");
        let mut request = registry.request(method, &target, &[]);
        request.body = body;
        let answer = handle(&request, &registry.store, &registry.settings).await;
        answer.expect_reply().status().as_u16()
    }
}

/// What requests come to: their statuses, and what is read afterwards by the tag and by each digest.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    statuses: Vec<u16>,
    tag: Option<Bytes>,
    manifests: Vec<bool>,
}

impl Outcome {
    fn of(registry: &TestRegistry, statuses: Vec<u16>) -> Self {
        let tagged = registry.get("t");
        let is_there = |note| registry.get(digest(note).as_str()).status() == 200;
        Self {
            statuses,
            tag: (tagged.status() == 200).then(|| tagged.into_body()),
            manifests: ["a", "b", "c"].map(is_there).into(),
        }
    }
}

/// When the calls of a request were made, the first and the last one.
fn span(deeds: &[Deed], request: usize) -> (usize, usize) {
    let is_its = |deed: &Deed| deed.request == request;
    let ends = (deeds.iter().position(is_its), deeds.iter().rposition(is_its));
    (ends.0.expect("a request makes calls"), ends.1.expect("a request makes calls"))
}

/// All orders of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let insert = |order: Vec<usize>| {
        (0..count).map(move |place| [&order[..place], &[count - 1], &order[place..]].concat())
    };
    orders(count - 1).into_iter().flat_map(insert).collect()
}

/// What comes of the requests one after the other, in every order.
fn in_sequence(heeds: Heeds, history: &[&str], acts: &[Act]) -> Vec<(Vec<usize>, Outcome)> {
    let outcome = |order: Vec<usize>| {
        let registry = registry(heeds, history);
        let mut statuses = vec![0; acts.len()];
        for number in &order {
            statuses[*number] = run(acts[*number].send(&registry)).0;
        }
        let outcome = Outcome::of(&registry, statuses);
        (order, outcome)
    };
    orders(acts.len()).into_iter().map(outcome).collect()
}

/// Whether these requests met in a way that a store without conditions for removals leaves open: two
/// removals went on at once, or beside the same move, or a move met one so that it can't be seen.
fn is_left_open(deeds: &[Deed], acts: &[Act]) -> bool {
    let (moves, removals): (Vec<_>, Vec<_>) =
        (0..acts.len()).partition(|number| matches!(acts[*number], Put(_)));
    let met = |a: usize, b: usize| {
        let (a, b) = (span(deeds, a), span(deeds, b));
        a.0 < b.1 && b.0 < a.1
    };
    let removals_met = match removals[..] {
        [a, b] => met(a, b) || moves.iter().any(|put| met(*put, a) && met(*put, b)),
        _ => false,
    };
    removals_met || is_unseen_move(deeds, acts)
}

/// Whether the history had the entry of a move when a removal first listed it, and the tag was moved after
/// the last look at it and before its removal.
fn is_unseen_move(deeds: &[Deed], acts: &[Act]) -> bool {
    let current = layout::tag_link(&name(), &tag());
    let is_listing =
        |key: &Key| *key == layout::tag(&name(), &tag()) || *key == layout::tags(&name());
    let removals = deeds.iter().enumerate().filter(|(_, deed)| deed.removed && deed.key == current);
    removals.into_iter().any(|(removal, deed)| {
        let own = |(place, other): (usize, &Deed)| {
            (other.request == deed.request).then(|| (place, other.key.clone()))
        };
        let before: Vec<_> = deeds[..removal].iter().enumerate().filter_map(own).collect();
        let last = |is_it: &dyn Fn(&Key) -> bool| {
            before.iter().rev().find(|(_, key)| is_it(key)).map(|(place, _)| *place)
        };
        let looked_at = last(&|key| *key == current);
        let (Some(listed), Some(looked)) = (last(&is_listing), looked_at.max(last(&is_listing)))
        else {
            return false;
        };
        acts.iter().enumerate().any(|(number, act)| {
            let Put(note) = act else {
                return false;
            };
            let history = layout::tag_history(&name(), &tag(), &digest(note));
            let place =
                |key| deeds.iter().position(|deed| deed.request == number && deed.key == key);
            let (noted, moved) = (place(history), place(current.clone()));
            noted < Some(listed) && moved > Some(looked) && moved < Some(removal)
        })
    })
}

/// What was found of some requests.
#[derive(Debug, Default)]
struct Findings {
    /// How many different courses they took.
    courses: usize,
    /// How many of these came to what no sequence comes to.
    wrong: usize,
}

fn race(heeds: Heeds, history: &[&str], acts: &[Act]) -> Findings {
    let expected = in_sequence(heeds, history, acts);
    let mut wrong = 0;
    let mut begin = registry(heeds, history);
    begin.store.content_takes_no_turn = true;
    let courses = turns::in_every_order(
        || TestRegistry { store: begin.store.copy(), ..TestRegistry::default() },
        |registry| &registry.store,
        |registry| {
            acts.iter().map(|act| Box::pin(act.send(registry)) as turns::Request<'_>).collect()
        },
        |registry, statuses| {
            let deeds = registry.store.deeds();
            let outcome = Outcome::of(registry, statuses.to_vec());
            let spans: Vec<_> = (0..acts.len()).map(|number| span(&deeds, number)).collect();
            let keeps_time = |order: &[usize]| {
                let pairs = order.iter().enumerate();
                pairs.clone().all(|(place, earlier)| {
                    order[place + 1..].iter().all(|later| spans[*later].1 > spans[*earlier].0)
                })
            };
            let is_sequence = |(order, sequence): &(Vec<usize>, Outcome)| {
                *sequence == outcome && keeps_time(order)
            };
            if !expected.iter().any(is_sequence) {
                wrong += 1;
                let is_open = !heeds.removals && is_left_open(&deeds, acts);
                assert!(is_open, "{heeds:?} {history:?} {acts:?}: {outcome:#?} {deeds:#?}");
            }
        },
    );
    Findings { courses, wrong }
}

/// All that two of these requests can be.
const PAIRS: [&[Act]; 6] = [
    &[Put("b"), Delete("a")],
    &[Put("b"), DeleteTag],
    &[Put("b"), Put("c")],
    &[Delete("a"), DeleteTag],
    &[Put("a"), Delete("a")],
    &[Put("a"), DeleteTag],
];

/// A tag that was never moved, and one that was: its history says so.
const HISTORIES: [&[&str]; 2] = [&["a"], &["b", "a"]];

#[test]
fn where_removals_have_conditions_all_is_as_if_one_came_after_the_other() {
    let heeds = Heeds { writes: true, removals: true };
    for acts in PAIRS {
        for history in HISTORIES {
            assert_eq!(race(heeds, history, acts).wrong, 0, "{history:?} {acts:?}");
        }
    }
    for acts in [
        [Put("b"), Put("c"), DeleteTag],
        [Put("b"), Put("c"), Delete("a")],
        [Put("b"), Put("b"), Delete("a")],
        [Put("b"), Put("a"), Delete("a")],
        [Put("b"), Delete("a"), DeleteTag],
        [Put("b"), Delete("b"), Delete("a")],
    ] {
        let findings = race(heeds, &["a"], &acts);
        println!("{acts:?}: {} courses", findings.courses);
        assert_eq!(findings.wrong, 0, "{acts:?}");
    }
}

#[test]
fn where_they_have_none_only_what_is_documented_is_left_open() {
    for writes in [true, false] {
        let heeds = Heeds { writes, removals: false };
        for acts in PAIRS {
            for history in HISTORIES {
                let findings = race(heeds, history, acts);
                let is_open = acts == [Put("b"), Delete("a")];
                assert_eq!(findings.wrong > 0, is_open, "{heeds:?} {history:?} {acts:?}");
            }
        }
    }
    let heeds = Heeds { writes: true, removals: false };
    for acts in [[Put("b"), Put("c"), Delete("a")], [Put("b"), Delete("a"), DeleteTag]] {
        let Findings { courses, wrong } = race(heeds, &["a"], &acts);
        println!("{acts:?}: {courses} courses, {wrong} as no sequence has it");
    }
}

/// The same where the tag is immutable: of those who set it one wins, and who deletes the manifest comes before it or not at
/// all.
#[test]
fn an_immutable_tag_has_one_winner_and_keeps_its_manifest() {
    let heeds = Heeds { writes: true, removals: true };
    for acts in [
        &[Put("a"), Put("b")][..],
        &[Put("a"), Put("a")],
        &[Put("a"), Delete("a")],
        &[Put("a"), Put("b"), Delete("a")],
        &[Put("a"), Put("b"), DeleteTag],
    ] {
        let mut begin = registry(heeds, &[]);
        // The manifests are there, without a tag.
        for note in ["a", "b"] {
            let put = begin.put(digest(note).as_str(), &manifest(note));
            assert_eq!(put.status(), 201);
        }
        begin.store.content_takes_no_turn = true;
        let all = || vec!["**".parse().expect("a pattern")];
        begin.settings.immutable_tags = vec![ImmutableTags { repositories: all(), tags: all() }];
        let world = || TestRegistry {
            store: begin.store.copy(),
            settings: begin.settings.clone(),
            ..TestRegistry::default()
        };
        turns::in_every_order(
            world,
            |world| &world.store,
            |registry| {
                acts.iter().map(|act| Box::pin(act.send(registry)) as turns::Request<'_>).collect()
            },
            |registry, statuses| {
                let won = |number: usize| matches!(acts[number], Put(_)) && statuses[number] == 201;
                let winners: Vec<_> = (0..acts.len()).filter(|number| won(*number)).collect();
                let notes: Vec<_> = winners.iter().map(|number| acts[*number]).collect();
                assert!(!notes.is_empty(), "{acts:?} {statuses:?}: somebody sets it");
                let Put(note) = notes[0] else { unreachable!("winners have put") };
                assert!(
                    notes.iter().all(|other| *other == notes[0]),
                    "{acts:?} {statuses:?}: two winners"
                );
                let tagged = registry.get("t");
                assert_eq!(tagged.status(), 200, "{acts:?} {statuses:?}: it is there for good");
                assert_eq!(tagged.body(), manifest(note).to_string().as_bytes());
            },
        );
    }
}
