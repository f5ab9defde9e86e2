//! The data path: every verdict, by the loaded programs through BPF_PROG_TEST_RUN and by the same
//! pipeline on the host, which must agree in verdict, reason, every counter and every flow; and random
//! cases by both and the oracle.

#[path = "dataplane/attacks.rs"]
mod attacks;
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
#[path = "dataplane/loaded.rs"]
mod loaded;
#[path = "dataplane/table.rs"]
mod table;
mod voices;
#[path = "dataplane/workers.rs"]
mod workers;

use std::{
    collections::{BTreeSet, HashSet},
    env,
    sync::OnceLock,
    time::{Duration, Instant},
};

use sg_common::{
    host::INTERFACES,
    verdict::{Direction, DropReason, PassKind, Verdict},
};
use sg_userspace::model::Conntrack;

use bench::{Bench, Hook};
use common::{
    netns::Namespace,
    require::require,
    scale::{count, divisor},
};
use table::Findings;
use voices::campaign;
use workers::Work;

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
        headers_are_read_wherever_they_are(&mut bench, &findings.corpus);
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

/// Cuts every frame of the table at every byte, or at a part of them, under a policy that allows nothing.
fn nothing_cut_short_passes(bench: &mut Bench, corpus: &BTreeSet<Vec<u8>>) {
    let off = "dhcp = false\nmld = false\nnd_redirect = true";
    bench.apply(&table::interface("deaf", "[]", off));
    let fresh = bench.fresh_host();
    let cuts: BTreeSet<&[u8]> = corpus
        .iter()
        .flat_map(|frame| (0..frame.len()).map(|len| &frame[..len]))
        .collect();
    for cut in cuts.into_iter().step_by(divisor() as usize) {
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

/// Judges every frame of the table at XDP with its headers cut in two: the first buffer of a jumbo frame
/// may hold as little as its Ethernet header. It is not cut behind the packet: one in the first buffer is
/// judged, and counted, without padding in another.
fn headers_are_read_wherever_they_are(bench: &mut Bench, corpus: &BTreeSet<Vec<u8>>) {
    let open = "[groups.open]\ningress = [{ protocol = \"all\", cidr = [\"0.0.0.0/0\", \"::/0\"] }]\n\
        egress = [{ protocol = \"tcp\", ports = 443, cidr = [\"0.0.0.0/0\", \"::/0\"] }]\n";
    bench.apply(&(open.to_owned() + &table::interface("cut", r#"["open"]"#, "")));
    bench.now();
    let mut passed = 0;
    for frame in corpus {
        for (name, linear) in ["cut-own", "cut-host"]
            .into_iter()
            .flat_map(|name| [14, 15, 33, 34, 41, 54, 60, 70].map(|linear| (name, linear)))
            .filter(|(_, linear)| (*linear as usize) < end_of_packet(frame))
        {
            let Some(judged) = bench.judge_split(bench.id(name), frame, linear) else {
                eprintln!("skipped: this kernel makes no test frames of several buffers");
                return;
            };
            passed += u32::from(judged.unwrap().passes());
        }
    }
    assert!(passed > 100, "{passed} passed");
    bench.compare_counters().unwrap();
}

/// Where padding begins in a frame: behind ARP for IPv4, or by the length that its IP header states.
fn end_of_packet(frame: &[u8]) -> usize {
    let stated = |at| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let end = match frame.get(12..20) {
        Some([8, 0, ..]) => 14 + stated(16),
        Some([8, 6, ..]) => 14 + 28,
        Some([0x86, 0xdd, ..]) => 14 + 40 + stated(18),
        _ => frame.len(),
    };
    end.min(frame.len())
}

/// Cases of about 770 packets: always the same, and of the moment.
const SEEDS: (u32, u32) = (190, 90);

#[test]
fn all_voices_agree() {
    require!(Root, Object);
    let part = |full| u64::from(count(full));
    let seeds = campaign::seeds(part(SEEDS.0), part(SEEDS.1));
    let work = Work {
        seeds: seeds.iter().copied(),
        goes_on: || true,
        progress: None,
    };
    let (tally, _) = workers::work(&work).unwrap_or_else(|report| panic!("{report}"));
    println!("{tally}");
    assert!(tally.packets >= 500 * seeds.len(), "{tally}");
    if seeds.len() > 1 && divisor() == 1 {
        assert!(tally.packets >= 200_000, "{tally}");
        let unmet = campaign::unmet(&tally);
        assert!(unmet.is_empty(), "no packet met {unmet:?}");
        assert!(tally.replaced > 100, "{tally}");
    }
}

/// When the soak ends.
static END: OnceLock<Instant> = OnceLock::new();

#[test]
#[ignore = "goes on as long as it is told to: cargo xtask test --soak MINUTES"]
fn soak() {
    require!(Root, Object);
    let minutes: u64 = env::var("SG_VOICES_MINUTES")
        .expect("SG_VOICES_MINUTES says how long")
        .parse()
        .expect("SG_VOICES_MINUTES is a number");
    let first = campaign::moment();
    let work = Work {
        seeds: first..u64::MAX,
        goes_on: || {
            let end = END.get().expect("set below");
            Instant::now() < *end
        },
        progress: Some(Duration::from_secs(60)),
    };
    END.set(Instant::now() + Duration::from_secs(60 * minutes))
        .expect("there is one soak");
    match workers::work(&work) {
        Ok((tally, last)) => println!("seeds {first} to {last}: {tally}"),
        Err(report) => panic!("{report}"),
    }
}
