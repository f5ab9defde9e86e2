//! Tuples made to collide, by somebody who knows the secret, and by somebody who knows another one.

use std::net::Ipv4Addr;

use sg_common::{
    family::{Family as _, V4},
    layout::WAYS,
    table::place,
};
use sg_userspace::control;

use crate::{
    common::require::require,
    flow::{Flow, scattered},
    frame::Ip,
    rig::{Hook, INTERFACES, Rig, on_every_cpu, with_rig},
};

const ALLOWANCE: u32 = 8192;
/// Fewer than may be unassured.
const CRAFTED: u32 = 1900;
/// Flows that stand before: few of them in the crafted ones' buckets.
const STANDING: u32 = 600;
/// Flows of others that open meanwhile, on each CPU.
const OTHERS: u32 = 100;
/// What a flow's two buckets and its bucket of the stash hold.
const PLACES: usize = 3 * WAYS;

type Seed = [u32; 12];

fn seed(number: u64) -> Seed {
    std::array::from_fn(|word| scattered(number << 32 | word as u64) as u32)
}

/// Flows with one hash under `seed`: same buckets, same tag. In NH, of which two terms are
/// `(owner + s0) · (ports + s1) + (local + s2) · (remote + s3)`, both first factors are made equal, so that
/// what the ports gain the remote address can lose. `None`: it takes a local address that cannot be.
fn crafted(seed: &Seed) -> Option<Vec<Flow>> {
    let owner = INTERFACES[0] << 8 | 17;
    let local = owner.wrapping_add(seed[0]).wrapping_sub(seed[2]);
    let local = Ipv4Addr::from(local.to_ne_bytes());
    if local.is_loopback() || !(1..224).contains(&local.octets()[0]) {
        return None;
    }
    let flow = |n: u32| {
        // Only the upper three bytes change: the first octet of the address and no port becomes 0.
        let ports = 0x2000_0035 + (n << 8);
        let remote = 0xc000_0014 - (n << 8);
        Flow {
            interface: INTERFACES[0],
            tuple: control::Flow {
                protocol: 17,
                local: local.into(),
                remote: Ipv4Addr::from(remote.to_le_bytes()).into(),
                local_port: (ports >> 16) as u16,
                remote_port: ports as u16,
            },
        }
    };
    let hash = |n| V4::hash(&flow(n).key4(), seed);
    let same: Vec<Flow> = (0..4 * CRAFTED)
        .filter(|n| hash(*n) == hash(0))
        .take(CRAFTED as usize)
        .map(flow)
        .collect();
    (same.len() as u32 == CRAFTED).then_some(same)
}

/// Pearson's statistic of how evenly flows fall into first buckets.
fn unevenness(flows: &[Flow], seed: &Seed, buckets: u32) -> f64 {
    let mut load = vec![0_u32; buckets as usize];
    for flow in flows {
        load[place(V4::hash(&flow.key4(), seed), buckets, 0) as usize] += 1;
    }
    let mean = flows.len() as f64 / f64::from(buckets);
    load.iter()
        .map(|count| (f64::from(*count) - mean).powi(2) / mean)
        .sum()
}

/// Sets the secret, while the table is empty.
fn set_seed(rig: &mut Rig, seed: &Seed) {
    let session = &mut rig.session;
    session.runtime.seed = *seed;
    session.tables.runtime.set(&0, &session.runtime).unwrap();
}

/// With the secret known, new flows of the crafted buckets are refused when these are full; all others open
/// as before, and established ones go on, those in the same buckets too. Under another secret the same
/// tuples are like any others.
#[test]
fn k10_crafted_collisions_harm_new_flows_of_their_buckets_only() {
    require!(Root, Object);
    let (known, flows) = (0..)
        .map(seed)
        .find_map(|seed| crafted(&seed).map(|flows| (seed, flows)))
        .unwrap();
    with_rig(ALLOWANCE, |rig| {
        set_seed(rig, &known);
        attack(rig, &flows);
        for interface in INTERFACES {
            rig.flush(interface);
        }
        rig.audit_empty();
        for number in 1000..1004 {
            set_seed(rig, &seed(number));
            spread(rig, &flows, &seed(number));
            assert_eq!(rig.flush(INTERFACES[0]), u64::from(CRAFTED));
            rig.audit_empty();
        }
    });
}

fn attack(rig: &Rig, flows: &[Flow]) {
    let standing = |n| Flow::udp(INTERFACES[1], Ip::V4, n);
    for n in 0..STANDING {
        assert_eq!(rig.talk(&standing(n)), 4);
    }
    // Some of the crafted ones are established, too.
    let (first, rest) = flows.split_at(12);
    for flow in first {
        assert_eq!(rig.talk(flow), 4);
    }
    let before = (rig.sum(|one| one.refused), rig.dropped());
    let opened: usize = on_every_cpu(|cpu| {
        cpu.meet(1);
        let mut opened = 0;
        for (n, flow) in (0..).zip(rest) {
            if n % cpu.count == cpu.number {
                opened += usize::from(rig.passes(&flow.packet(Hook::Xdp)));
            }
            if n < OTHERS {
                let other = Flow::udp(
                    INTERFACES[1],
                    Ip::V4,
                    (1 << 20) + n * cpu.count + cpu.number,
                );
                assert_eq!(rig.talk(&other), 4, "a flow of others was refused");
            }
            let established = first[n as usize % first.len()].packet(Hook::TcEgress);
            assert!(rig.passes(&established), "an established flow was dropped");
            let established = standing(n % STANDING).packet(Hook::TcEgress);
            assert!(rig.passes(&established), "an established flow was dropped");
        }
        opened
    })
    .into_iter()
    .sum();
    let refused = (rest.len() - opened) as u64;
    assert_eq!(
        (rig.sum(|one| one.refused), rig.dropped()),
        (before.0 + refused, before.1 + refused)
    );
    let audit = rig.audit();
    let stand = flows.iter().filter(|flow| audit.flows.contains_key(flow));
    assert_eq!(stand.count(), first.len() + opened);
    assert!(first.len() + opened <= PLACES, "{opened} opened");
    // Standing flows of others hold some of those ways.
    assert!(first.len() + opened >= PLACES / 2, "{opened} opened");
    assert!(first.iter().all(|flow| audit.flows[flow]));
    assert!((0..STANDING).all(|n| audit.flows[&standing(n)]));
}

fn spread(rig: &Rig, flows: &[Flow], seed: &Seed) {
    let buckets = rig.session.runtime.buckets[0];
    // Of so many degrees of freedom, with a standard deviation of √2n: beyond six of them is no chance.
    let freedom = f64::from(buckets - 1);
    let limit = freedom + 6.0 * (2.0 * freedom).sqrt();
    let found = unevenness(flows, seed, buckets);
    assert!(found < limit, "{found} where {limit} is the most");
    let refused = rig.sum(|one| one.refused);
    on_every_cpu(|cpu| {
        cpu.meet(1);
        let own = flows.iter().skip(cpu.number as usize);
        for flow in own.step_by(cpu.count as usize) {
            assert!(rig.passes(&flow.packet(Hook::Xdp)), "a flow was refused");
        }
    });
    assert_eq!(rig.sum(|one| one.refused), refused);
    assert_eq!(rig.audit().flows.len(), flows.len());
}
