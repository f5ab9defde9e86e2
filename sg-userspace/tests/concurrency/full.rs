//! A table that holds all that it may.

use std::{
    thread,
    time::{Duration, Instant},
};

use sg_common::verdict::{DropReason, PassKind, Verdict};

use crate::{
    common::require::require,
    flow::Flow,
    frame::Ip,
    rig::{Hook, INTERFACES, Rig, on_every_cpu, with_rig},
};

/// So few that CPUs have no credit: limits are exact.
const ALLOWANCE: u32 = 8000;
/// 99.9 % of it.
const NEARLY: u32 = 7992;
/// Flows that stay while others come and go beside them.
const STAY: u32 = 6600;
/// How long others come and go.
const CHURN: Duration = Duration::from_millis(1500);

/// Refused: the packets of flows for which there is no place.
const REFUSED: Verdict = Verdict::Drop(DropReason::AllowanceExceeded);

fn assured(ip: Ip, n: u32) -> Flow {
    Flow::udp(INTERFACES[0], ip, n)
}

/// Nothing is refused below 99.9 % of the allowance, and nothing but new flows at 100 %; no assured flow makes
/// room for another; when all are gone nothing is left.
#[test]
fn k1_k2_a_full_table_refuses_at_its_limit_only_and_evicts_no_assured_flow() {
    require!(Root, Object);
    with_rig(ALLOWANCE, |rig| {
        assert_eq!(rig.session.runtime.credit, 0);
        for ip in Ip::BOTH {
            fill(rig, ip);
            refuse(rig, ip);
            churn(rig, ip);
            assert_eq!(rig.flush(INTERFACES[0]), u64::from(STAY));
            rig.audit_empty();
        }
    });
}

/// All CPUs together up to the limit, in one family: random tuples find a place.
fn fill(rig: &Rig, ip: Ip) {
    let before = rig.sum(|one| one.refused);
    on_every_cpu(|cpu| {
        cpu.meet(1);
        for n in (cpu.number..NEARLY).step_by(cpu.count as usize) {
            assert_eq!(rig.talk(&assured(ip, n)), 4, "refused below 99.9 %");
        }
    });
    assert_eq!(rig.sum(|one| one.refused), before);
    let audit = rig.audit();
    assert_eq!(audit.flows.len() as u32, NEARLY);
    assert!(audit.flows.values().all(|assured| *assured));
    for n in NEARLY..ALLOWANCE {
        assert_eq!(rig.talk(&assured(ip, n)), 4, "refused below the allowance");
    }
    assert_eq!(rig.audit().flows.len() as u32, ALLOWANCE);
}

/// New flows, on all CPUs, in both families, on either interface, at 100 %.
fn refuse(rig: &Rig, ip: Ip) {
    const ATTEMPTS: u32 = 1000;
    let (before, dropped) = (rig.sum(|one| one.refused), rig.counted(REFUSED));
    let attempts: u64 = on_every_cpu(|cpu| {
        cpu.meet(1);
        for n in 0..ATTEMPTS {
            let (interface, family) = (INTERFACES[n as usize % 2], Ip::BOTH[n as usize / 2 % 2]);
            let flow = Flow::tcp(interface, family, cpu.number * ATTEMPTS + n);
            assert!(!rig.passes(&flow.packet(Hook::Xdp)), "beyond the allowance");
            let stays = assured(ip, n).packet(Hook::TcEgress);
            assert!(rig.passes(&stays), "an established flow was dropped");
        }
        u64::from(ATTEMPTS)
    })
    .into_iter()
    .sum();
    assert_eq!(rig.sum(|one| one.refused) - before, attempts);
    assert_eq!(rig.counted(REFUSED) - dropped, attempts);
    assert_eq!(rig.dropped(), rig.counted(REFUSED));
    assert_eq!(rig.audit().flows.len() as u32, ALLOWANCE);
}

/// Openings that expire in a second take what room there is, and press on each other.
fn churn(rig: &Rig, ip: Ip) {
    let before = ["expired", "replaced"].map(|what| events(rig, what));
    let refused = rig.sum(|one| one.refused);
    let dropped = rig.counted(REFUSED);
    let new = rig.counted(Verdict::Pass(PassKind::New));
    let openings: u64 = on_every_cpu(|cpu| {
        for n in (STAY + cpu.number..ALLOWANCE).step_by(cpu.count as usize) {
            assert!(rig.delete(&assured(ip, n)));
        }
        cpu.meet(1);
        let (start, mut n) = (Instant::now(), 0);
        while start.elapsed() < CHURN {
            let number = (1 << 23) + n * cpu.count + cpu.number;
            rig.passes(&Flow::tcp(INTERFACES[0], ip, number).packet(Hook::Xdp));
            let stays = assured(ip, number % STAY).packet(Hook::TcEgress);
            assert!(rig.passes(&stays), "an established flow was dropped");
            n += 1;
        }
        u64::from(n)
    })
    .into_iter()
    .sum();
    let refused = rig.sum(|one| one.refused) - refused;
    assert_eq!(rig.counted(REFUSED) - dropped, refused);
    assert_eq!(
        rig.counted(Verdict::Pass(PassKind::New)) - new + refused,
        openings
    );
    assert_eq!(rig.dropped(), rig.counted(REFUSED));
    let host = rig.session.tables.host_occupancy().unwrap();
    assert_eq!(host.peak, u64::from(ALLOWANCE), "the limit and not beyond");
    // What is expired goes, and nothing else.
    thread::sleep(Duration::from_millis(1200));
    rig.control.sweep(rig.session.runtime.buckets).unwrap();
    let after = ["expired", "replaced"].map(|what| events(rig, what));
    assert!(after[0] > before[0] && after[1] > before[1], "no churn");
    let audit = rig.audit();
    for n in 0..STAY {
        let stays = audit.flows.get(&assured(ip, n));
        assert_eq!(stays, Some(&true), "an assured flow was evicted");
    }
    assert_eq!(audit.flows.len() as u32, STAY);
}

fn events(rig: &Rig, what: &str) -> u64 {
    match what {
        "expired" => rig.sum(|one| one.expired),
        _ => rig.sum(|one| one.replaced),
    }
}
