//! What the simulation holds the collector to.

use super::scenario::{Mutation, Past, play};

/// How many schedules are tried unless `MOORAGE_SCHEDULES` says otherwise.
const SCHEDULES: u64 = 1_000;

/// How many schedules may be needed to find out that something is missing.
const SCHEDULES_OF_A_MUTATION: u64 = 1_000;

/// How many pasts the schedules share.
const PASTS: u64 = 8;

fn schedules() -> u64 {
    let given = std::env::var("MOORAGE_SCHEDULES").ok();
    given.map_or(SCHEDULES, |text| text.parse().expect("MOORAGE_SCHEDULES is a number"))
}

#[test]
fn no_schedule_loses_what_was_acknowledged_or_leaves_garbage() {
    let (mut acknowledged, mut refused, mut removed, mut spared) = (0, 0, 0, 0);
    for only_tagged in [false, true] {
        let pasts: Vec<_> =
            (0..PASTS).map(|seed| Past::new(seed, Mutation::None, only_tagged)).collect();
        for seed in 0..schedules() / 2 {
            let past = &pasts[(seed % PASTS) as usize];
            let outcome = play(seed, past, Mutation::None, only_tagged);
            assert!(
                outcome.faults.is_empty(),
                "seed {seed}, only tagged {only_tagged}: {:#?}",
                outcome.faults
            );
            acknowledged += outcome.acknowledged;
            refused += outcome.refused;
            removed += outcome.removed;
            spared += outcome.spared;
        }
    }
    println!(
        "{} schedules: {acknowledged} manifests acknowledged, {refused} refused for now, {removed} objects removed beside \
         them, {spared} spared by the second look",
        schedules()
    );
    // A simulation in which nothing meets anything would prove nothing.
    assert!(acknowledged > 0 && refused > 0 && removed > 0 && spared > 0);
}

#[test]
fn whatever_is_taken_away_is_missed() {
    for mutation in
        [Mutation::NoMarkerCheck, Mutation::NoSecondLook, Mutation::NoGrace, Mutation::NoWait]
    {
        let pasts: Vec<_> = (0..PASTS).map(|seed| Past::new(seed, mutation, false)).collect();
        let found = (0..SCHEDULES_OF_A_MUTATION).find(|seed| {
            let past = &pasts[(seed % PASTS) as usize];
            !play(*seed, past, mutation, false).faults.is_empty()
        });
        println!("{mutation:?}: found by schedule {found:?}");
        assert!(found.is_some(), "{mutation:?} is not noticed");
    }
}
