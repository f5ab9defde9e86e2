//! The data path: every verdict, by the loaded programs through BPF_PROG_TEST_RUN and by the same
//! pipeline on the host, which must agree in verdict, reason, every counter and every flow.

#[path = "dataplane/attacks.rs"]
mod attacks;
#[path = "dataplane/bench.rs"]
mod bench;
#[path = "dataplane/cases/mod.rs"]
mod cases;
mod common;
#[path = "dataplane/context.rs"]
mod context;
#[path = "dataplane/entry.rs"]
mod entry;
#[path = "dataplane/flow.rs"]
mod flow;
#[path = "dataplane/frame.rs"]
mod frame;
#[path = "dataplane/mirror.rs"]
mod mirror;
#[path = "dataplane/random.rs"]
mod random;
#[path = "dataplane/table.rs"]
mod table;

use std::{
    collections::{BTreeSet, HashSet},
    env,
    time::UNIX_EPOCH,
};

use sg_common::{
    host::INTERFACES,
    verdict::{Direction, DropReason, PassKind, Verdict},
};
use sg_userspace::model::Conntrack;

use bench::{Bench, Disagreement, Hook};
use common::{netns::Namespace, require::require};
use random::Random;
use table::Findings;

/// Flows that the tables are made for; definitions may allow fewer.
const CONNTRACK: Conntrack = Conntrack {
    allowance: 4096,
    accounting: true,
};

/// Verdicts that do not occur in a direction.
const IMPOSSIBLE: [(Direction, Verdict); 4] = [
    // Workloads are no routers.
    (
        Direction::Egress,
        Verdict::Pass(PassKind::RouterAdvertisement),
    ),
    (Direction::Egress, Verdict::Pass(PassKind::Redirect)),
    // Only the workload is told what it may call itself.
    (
        Direction::Ingress,
        Verdict::Drop(DropReason::AddressSpoofed),
    ),
    // Where to is the workload's own affair.
    (
        Direction::Egress,
        Verdict::Drop(DropReason::DestinationForeign),
    ),
];

#[test]
fn the_table() {
    require!(Root, Object);
    let namespace = Namespace::new("table");
    namespace.run(|| {
        let mut bench = Bench::new(&namespace, CONNTRACK);
        let mut findings = Findings::default();
        for world in cases::worlds() {
            findings.run(&mut bench, &world);
        }
        let failures = &findings.failures;
        assert!(
            failures.is_empty(),
            "{} of {} variants failed:\n{}",
            failures.len(),
            findings.variants,
            failures.join("\n")
        );
        every_counter_moves(&findings);
        everything_befalls_flows(&bench);
        nothing_cut_short_passes(&mut bench, &findings.corpus);
    });
}

/// Each counter has a packet in the table, and those that cannot move have none.
fn every_counter_moves(findings: &Findings) {
    let all: HashSet<(Direction, Verdict)> = Direction::ALL
        .into_iter()
        .flat_map(|direction| Verdict::all().map(move |verdict| (direction, verdict)))
        .filter(|counter| !IMPOSSIBLE.contains(counter))
        .collect();
    let missing: Vec<_> = all.difference(&findings.moved).collect();
    assert!(
        missing.is_empty(),
        "no packet of the table moves {missing:?}"
    );
    let odd: Vec<_> = findings.moved.difference(&all).collect();
    assert!(odd.is_empty(), "these should be impossible: {odd:?}");
}

/// Whatever may become of a flow became of one in the table.
fn everything_befalls_flows(bench: &Bench) {
    let mut sum = [0; 6];
    for id in 1..INTERFACES {
        let state = bench.occupancy(id);
        let events = [
            state.peak,
            state.refused,
            state.created,
            state.expired,
            state.replaced,
            state.removed,
        ];
        sum.iter_mut()
            .zip(events)
            .for_each(|(sum, one)| *sum += one);
    }
    assert!(
        !sum.contains(&0),
        "peak, refused, created, expired, replaced, removed: {sum:?}"
    );
}

/// Cuts every frame of the table at every byte, under a policy that allows nothing.
fn nothing_cut_short_passes(bench: &mut Bench, corpus: &BTreeSet<Vec<u8>>) {
    let off = "dhcp = false\nmld = false\nnd_redirect = true";
    bench.apply(&table::interface("deaf", "[]", off));
    let fresh = bench.fresh_host();
    let cuts: BTreeSet<&[u8]> = corpus
        .iter()
        .flat_map(|frame| (0..frame.len()).map(|len| &frame[..len]))
        .collect();
    for cut in cuts {
        for (name, hook) in ["deaf-own", "deaf-host"]
            .into_iter()
            .flat_map(|name| Hook::ALL.map(|hook| (name, hook)))
        {
            let id = bench.id(name);
            let verdict = if hook.takes(cut) {
                bench.judge_quickly(hook, id, cut).unwrap()
            } else {
                fresh.judge(cut, id, hook.is_ingress())
            };
            assert!(!verdict.passes(), "{hook:?}: {verdict:?} for {cut:02x?}");
        }
    }
    bench.compare_counters().unwrap();
}

/// Packets that are made of one seed.
const PACKETS: usize = 12_000;

#[test]
fn random_packets_are_judged_alike() {
    require!(Root, Object);
    let namespace = Namespace::new("random");
    // One seed for all times, and one for this time, unless somebody wants another.
    let now = UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let given = env::var("SG_DATAPLANE_SEED").map(|seed| seed.parse().expect("a number"));
    let seeds = given.map_or_else(|_| vec![1, now], |seed| vec![seed]);
    namespace.run(|| {
        let mut bench = Bench::new(&namespace, CONNTRACK);
        for seed in seeds {
            bench.apply(&random::definition());
            bench.flush();
            if let Err((number, what)) = agree(&mut bench, seed) {
                panic!("SG_DATAPLANE_SEED={seed}, packet {number}: {what}");
            }
        }
    });
}

/// Judges the packets of a seed, comparing verdicts and counters after each and flows now and then.
fn agree(bench: &mut Bench, seed: u64) -> Result<(), (usize, Disagreement)> {
    let mut random = Random(seed);
    let mut verdicts = HashSet::new();
    for number in 0..PACKETS {
        let (name, hook, frame) = random.packet();
        if !hook.takes(&frame) {
            continue;
        }
        let judged = bench.judge(hook, bench.id(name), &frame, 1);
        let (_, verdict) = judged.map_err(|what| {
            let what = format!("{what}\n{name} {hook:?} {frame:02x?}");
            (number, Disagreement(what))
        })?;
        verdicts.insert(verdict);
        if number % 500 == 0 {
            bench.compare_flows().map_err(|what| (number, what))?;
        }
    }
    bench.compare_flows().map_err(|what| (PACKETS, what))?;
    let never: Vec<Verdict> = Verdict::all()
        .filter(|one| !verdicts.contains(one))
        .collect();
    assert!(
        never.len() <= 5,
        "seed {seed} is not as random as it should be: no packet met {never:?}"
    );
    Ok(())
}
