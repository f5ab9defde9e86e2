//! A second opinion by nftables: the same definitions in its words, and the same packets through
//! both.
//!
//! Four equal bridges stand between somebody and a workload: on one the enforcer judges as `own`,
//! on one as `host`, on one nftables, on one nobody. Every packet is sent through all of them. It
//! must pass where nobody judges, and otherwise the same must become of it everywhere, except where
//! [`differences`] says so.

#[path = "../common/mod.rs"]
mod common;

mod conntrack;
mod definitions;
mod differences;
mod interest;
mod packet;
mod probe;
mod random;
mod special;
mod translate;
mod trial;
mod twin;
mod wire;

use std::{env, time::UNIX_EPOCH};

use common::require::{require, skip};
use random::Random;
use trial::Trial;

/// Conversations about one definition.
const PROBES: usize = 1200;

/// Definitions made of one seed.
const DEFINITIONS: usize = 12;

#[test]
fn l2_l5_l6_l7_definitions_mean_the_same_to_nftables() {
    require!(Root, Object);
    let Some(mut trial) = trial("tc") else { return };
    for (number, case) in definitions::all().iter().enumerate() {
        let mut random = Random(number as u64);
        trial.enforce(case);
        trial.probe_rules(&mut random, PROBES);
        trial.misses_every_rule();
    }
    for (case, probes) in special::all() {
        trial.enforce(&case);
        trial.probe(&probes());
    }
    for (before, after) in special::revocation() {
        trial.enforce(&definitions::web_in());
        trial.probe(&before);
        trial.enforce(&definitions::nothing());
        trial.probe(&after);
    }
    trial.enforce(&definitions::untracked());
    trial.succeed(&definitions::all_in());
    trial.probe(&special::taken_over());
    trial.every_difference_was_seen();
    trial.finish();
}

#[test]
fn random_definitions_mean_the_same_to_nftables() {
    require!(Root, Object);
    let Some(mut trial) = trial("xdp") else {
        return;
    };
    // One seed for all times, and one for this time, unless somebody wants another.
    let now = UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let given = env::var("SG_NFTABLES_SEED").map(|seed| seed.parse().expect("a number"));
    for seed in given.map_or_else(|_| vec![1, now], |seed| vec![seed]) {
        let mut random = Random(seed);
        for number in 0..DEFINITIONS {
            trial.origin = format!("SG_NFTABLES_SEED={seed}, definition {number}");
            let case = random.definition();
            trial.enforce(&case);
            trial.probe_rules(&mut random, PROBES);
        }
    }
    trial.finish();
}

/// What the trial needs and few machines have.
fn trial(hook: &'static str) -> Option<Trial> {
    if let Some(lack) = Trial::lack() {
        skip(lack);
        return None;
    }
    Some(Trial::new(hook))
}
