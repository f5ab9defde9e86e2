//! Generations that follow each other as fast as they can.

use std::{collections::BTreeMap, time::Instant};

use sg_userspace::stats;

use crate::{
    bed::{Bed, HANDED, NEAR6, Side},
    common::{netns::answers, require::require},
    scale,
    traffic::{Balance, during},
};

#[test]
fn l1_n9_no_switch_lets_anything_through_or_cuts_anything() {
    require!(Root, Object);
    switch();
}

pub(crate) fn switch() {
    let bed = Bed::new();
    let models = Side::ALL.map(|side| bed.model(side));
    during(&bed, Balance::Exact, |signals| {
        let start = Instant::now();
        for number in 0..scale::switches() {
            let side = Side::ALL[(number + 1) % 2];
            bed.apply(&models[side as usize], side);
            signals.check();
        }
        let seconds = start.elapsed().as_secs_f64();
        println!("{} switches in {seconds:.1} s", scale::switches());
    });
}

/// TCP that A does not track and B does is handed over at each switch, as long as it says something between two.
#[test]
fn connections_that_come_to_be_tracked_are_handed_over_and_lose_nothing() {
    require!(Root, Object);
    let bed = Bed::new();
    let models = Side::ALL.map(|side| bed.model(side));
    let _servers: Vec<_> = bed
        .wires
        .iter()
        .map(|wire| wire.near.serve(NEAR6, HANDED))
        .collect();
    let mut streams: Vec<_> = bed
        .wires
        .iter()
        .map(|wire| wire.far.connect(NEAR6, HANDED).unwrap())
        .collect();
    let switches = scale::switches().div_ceil(20);
    for number in 0..switches {
        let side = Side::ALL[(number + 1) % 2];
        bed.apply(&models[side as usize], side);
        for stream in &mut streams {
            assert!(
                answers(stream) && answers(stream),
                "after {number} switches"
            );
        }
    }
    let stats = stats::read(&bed.enforcer.context, None).unwrap();
    for interface in stats.interfaces {
        let met = interface.verdicts.iter().filter(|one| one.packets > 0);
        let met: BTreeMap<_, _> = met
            .map(|one| ((one.passed, &*one.outcome), one.packets))
            .collect();
        // One for each switch to B.
        assert_eq!(
            met.get(&(true, "taken_over")),
            Some(&(switches.div_ceil(2) as u64)),
            "{met:?}"
        );
        assert!(!met.contains_key(&(false, "mid_stream")), "{met:?}");
    }
}
