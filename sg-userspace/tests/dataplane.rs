//! The data path: every verdict, by the loaded programs through BPF_PROG_TEST_RUN and by the same
//! pipeline on the host, which must agree in verdict, reason, every counter and every flow.

#[path = "dataplane/bench.rs"]
mod bench;
#[path = "dataplane/cases/mod.rs"]
mod cases;
mod common;
#[path = "dataplane/context.rs"]
mod context;
#[path = "dataplane/flow.rs"]
mod flow;
#[path = "dataplane/frame.rs"]
mod frame;
#[path = "dataplane/mirror.rs"]
mod mirror;
#[path = "dataplane/table.rs"]
mod table;

use std::collections::{BTreeSet, HashSet};

use sg_common::verdict::{Direction, DropReason, PassKind, Verdict};
use sg_userspace::model::Conntrack;

use bench::{Bench, Hook};
use common::{netns::Namespace, require::require};
use table::Findings;

/// Flows that the tables are made for; definitions may allow fewer.
const CONNTRACK: Conntrack = Conntrack {
    allowance: 4096,
    accounting: true,
};

/// Verdicts that do not occur in a direction.
const IMPOSSIBLE: [(Direction, Verdict); 3] = [
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
