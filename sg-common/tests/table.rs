//! The conntrack table by itself: placement, limits, races, draining.

use std::{collections::HashMap, sync::Arc, thread};

use sg_common::{
    conntrack::{Opening, Segment, Side, flag, open},
    family::{Family, Flow, V4, V6},
    host::Host,
    layout::{Interface, Runtime, TIMEOUTS, interface_flags},
    table::{self, Inserted, Removal},
    tables::Tables as _,
};

const SEED: [u32; 12] = [
    0x243f_6a88,
    0x85a3_08d3,
    0x1319_8a2e,
    0x0370_7344,
    0xa409_3822,
    0x299f_31d0,
    0x082e_fa98,
    0xec4e_6c89,
    0x4528_21e6,
    0x38d0_1377,
    0xbe54_66cf,
    0x34e9_0c6c,
];

fn interface(allowance: u32, reserve: u32) -> Interface {
    Interface {
        flags: interface_flags::PRESENT,
        allowance,
        reserve,
        timeouts: [1000; TIMEOUTS],
        ..Interface::ZERO
    }
}

/// Tables for `allowance` flows; interfaces 1 and 2 may hold all of them.
fn host(allowance: u32, unassured: u32) -> Host {
    let buckets = sg_common::abi::buckets(allowance);
    let mut host = Host::new(Runtime {
        hz: 100,
        accounting: 1,
        buckets: [buckets; 2],
        allowance,
        shared: allowance,
        unassured,
        seed: SEED,
        ..Runtime::ZERO
    });
    for bank in &mut host.banks {
        bank.interfaces = vec![Interface::ZERO; 3];
        bank.interfaces[1] = interface(allowance, 0);
        bank.interfaces[2] = interface(allowance, 0);
    }
    host
}

/// The `n`th flow of an interface: tuples as a scan would make them.
fn flow4(id: u32, n: u32) -> Flow<u32> {
    Flow {
        owner: id << 8 | 17,
        ports: 443 << 16 | (n & 0xffff),
        local: 0x0a00_0001_u32.to_be(),
        remote: (0x0b00_0000 + (n >> 16)).to_be(),
    }
}

fn flow6(id: u32, n: u32) -> Flow<[u32; 4]> {
    Flow {
        owner: id << 8 | 17,
        ports: 443 << 16 | (n & 0xffff),
        local: [0x2001_0db8_u32.to_be(), 0, 0, 1_u32.to_be()],
        remote: [0x2001_0db8_u32.to_be(), 1, 0, n >> 16],
    }
}

fn opening() -> Opening {
    let opening = open(17, 1, Side::Local, Side::Local, Segment::default(), 0);
    Opening {
        packets: 1,
        bytes: 100,
        ..opening
    }
}

fn assured() -> Opening {
    let mut opening = opening();
    opening.flags |= flag::ASSURED;
    opening
}

fn insert<F: Family>(host: &Host, flow: &Flow<F::Address>, opening: &Opening) -> Inserted {
    let limits = host.banks[0].interfaces[(flow.owner >> 8) as usize];
    let hash = F::hash(flow, &host.runtime.seed);
    if opening.flags & flag::ASSURED == 0 {
        host.make_room(F::IPV6, hash, flow.owner >> 8);
    }
    let attempt = |last| {
        let context = host.context();
        table::insert::<Host, F>(&context, &limits, hash, flow, opening, last)
    };
    match attempt(false) {
        Inserted::Full => {
            host.reclaim_beside(F::IPV6, hash);
            attempt(true)
        }
        made => made,
    }
}

fn find<F: Family>(host: &Host, flow: &Flow<F::Address>) -> Option<table::Entry<F>> {
    let hash = F::hash(flow, &host.runtime.seed);
    table::lookup::<Host, F>(&host.context(), hash, flow)
}

#[test]
fn every_flow_up_to_the_allowance_is_held_and_found() {
    const ALLOWANCE: u32 = 60_000;
    let host = host(ALLOWANCE, u32::MAX);
    for n in 0..ALLOWANCE {
        // Both families share the allowance.
        let made = if n % 2 == 0 {
            insert::<V4>(&host, &flow4(1, n), &assured())
        } else {
            insert::<V6>(&host, &flow6(1, n), &assured())
        };
        assert_eq!(made, Inserted::Made, "flow {n}");
    }
    for n in 0..ALLOWANCE {
        assert!(if n % 2 == 0 {
            find::<V4>(&host, &flow4(1, n)).is_some()
        } else {
            find::<V6>(&host, &flow6(1, n)).is_some()
        });
    }
    assert_eq!(
        insert::<V4>(&host, &flow4(1, ALLOWANCE + 2), &assured()),
        Inserted::Full
    );
    let state = host.interface_state(1);
    assert_eq!(
        (
            state.tracked,
            state.peak,
            state.created,
            state.refused,
            state.unassured
        ),
        (60_000, 60_000, 60_000, 1, 0)
    );
    assert_eq!(host.host_state().tracked, 60_000);
}

/// One family alone fills its table as far as it may: no tuple is refused below the allowance.
#[test]
fn one_family_reaches_the_allowance() {
    const ALLOWANCE: u32 = 100_000;
    let host = host(ALLOWANCE, u32::MAX);
    let refused = (0..ALLOWANCE)
        .filter(|n| insert::<V4>(&host, &flow4(1, *n), &opening()) != Inserted::Made)
        .count();
    assert!(
        refused <= ALLOWANCE as usize / 1000,
        "{refused} refused below the allowance"
    );
}

#[test]
fn removed_flows_give_everything_back() {
    let host = host(1000, u32::MAX);
    for n in 0..1000 {
        insert::<V4>(&host, &flow4(1, n), &assured());
    }
    for n in 0..1000 {
        let mut entry = find::<V4>(&host, &flow4(1, n)).expect("inserted");
        assert!(table::remove(&host.context(), &mut entry, Removal::Removed));
        assert!(
            !table::remove(&host.context(), &mut entry, Removal::Removed),
            "once"
        );
        assert!(find::<V4>(&host, &flow4(1, n)).is_none());
    }
    let (state, all) = (host.interface_state(1), host.host_state());
    assert_eq!(
        (state.tracked, state.unassured, state.removed),
        (0, 0, 1000)
    );
    assert_eq!(
        (all.tracked, (all.tracked - all.reserved), all.unassured),
        (0, 0, 0)
    );
}

#[test]
fn expired_flows_make_room_without_a_sweep() {
    const ALLOWANCE: u32 = 50_000;
    let host = host(ALLOWANCE, u32::MAX);
    let made = |from: u32| {
        (from..from + ALLOWANCE)
            .filter(|n| insert::<V4>(&host, &flow4(1, *n), &assured()) == Inserted::Made)
            .count()
    };
    assert_eq!(made(0), ALLOWANCE as usize);
    assert_eq!(made(ALLOWANCE), 0);
    host.set_now(1000);
    // While expired entries still stand about, placement is a little worse than into an empty table.
    let again = made(2 * ALLOWANCE);
    assert!(again >= 49_990, "{again}");
    assert_eq!(
        host.interface_state(1).tracked - u64::from(host.sweep()),
        again as u64
    );
}

#[test]
fn sweep_reclaims_what_is_over_and_nothing_else() {
    let host = host(1000, u32::MAX);
    for n in 0..100 {
        insert::<V4>(&host, &flow4(1, n), &opening());
        insert::<V6>(&host, &flow6(2, n), &opening());
    }
    assert_eq!(host.sweep(), 0);
    host.set_now(999);
    assert_eq!(host.sweep(), 0);
    host.set_now(1000);
    assert_eq!(host.sweep(), 200);
    assert_eq!(host.host_state().tracked, 0);
}

#[test]
fn reserve_cannot_be_taken_by_others() {
    let mut host = host(100, u32::MAX);
    host.runtime.shared = 60;
    for bank in &mut host.banks {
        bank.interfaces[2] = interface(100, 40);
    }
    let made = (0..100)
        .filter(|n| insert::<V4>(&host, &flow4(1, *n), &assured()) == Inserted::Made)
        .count();
    assert_eq!(made, 60, "what is not reserved");
    assert_eq!(host.interface_state(1).tracked, 60);
    let made = (0..100)
        .filter(|n| insert::<V4>(&host, &flow4(2, *n), &assured()) == Inserted::Made)
        .count();
    assert_eq!(made, 40, "the reserve");
    assert_eq!(host.interface_state(2).reserved, 40);
}

#[test]
fn cap_of_an_interface_holds() {
    let mut host = host(100, u32::MAX);
    for bank in &mut host.banks {
        bank.interfaces[1] = interface(10, 0);
    }
    let made = (0..50)
        .filter(|n| insert::<V4>(&host, &flow4(1, *n), &assured()) == Inserted::Made)
        .count();
    assert_eq!((made, host.interface_state(1).refused), (10, 40));
    assert_eq!(
        insert::<V4>(&host, &flow4(2, 0), &opening()),
        Inserted::Made
    );
}

#[test]
fn h6_flood_of_openings_presses_on_itself() {
    let host = host(4000, 1000);
    for n in 0..2000 {
        let inserted = insert::<V4>(&host, &flow4(1, n), &assured());
        assert_eq!(inserted, Inserted::Made);
    }
    for n in 0..20_000 {
        assert_eq!(
            insert::<V4>(&host, &flow4(1, 100_000 + n), &opening()),
            Inserted::Made
        );
    }
    for n in 0..2000 {
        assert!(
            find::<V4>(&host, &flow4(1, n)).is_some(),
            "an assured flow was evicted"
        );
    }
    let state = host.interface_state(1);
    assert_eq!(state.refused, 0);
    assert!(
        state.unassured < 2000 && state.replaced > 15_000,
        "{state:?}"
    );
}

/// An interface that may hold a tenth of the table: a flood at its open port fills its own share, not its
/// allowance, and takes no place from its neighbour.
#[test]
fn h6_flood_at_a_small_interface_presses_on_itself() {
    let mut host = host(10_000, 2500);
    for bank in &mut host.banks {
        bank.interfaces[1] = interface(1000, 0);
    }
    for n in 0..2000 {
        let inserted = insert::<V4>(&host, &flow4(2, n), &opening());
        assert_eq!(inserted, Inserted::Made);
    }
    for n in 0..50_000 {
        let inserted = insert::<V4>(&host, &flow4(1, 100_000 + n), &opening());
        assert_eq!(inserted, Inserted::Made, "{n}");
    }
    let (state, neighbour) = (host.interface_state(1), host.interface_state(2));
    assert_eq!(state.refused, 0);
    assert!(state.unassured < 300, "{state:?}");
    assert_eq!(neighbour.replaced, 0);
}

/// A workload at its own limit cannot push out its neighbour's flows, though the host's share is full.
#[test]
fn a_full_interface_takes_no_place_from_its_neighbour() {
    let mut host = host(1000, 10);
    for bank in &mut host.banks {
        bank.interfaces[1] = interface(100, 0);
    }
    for n in 0..100 {
        let inserted = insert::<V4>(&host, &flow4(1, n), &assured());
        assert_eq!(inserted, Inserted::Made);
    }
    for n in 0..10 {
        let inserted = insert::<V4>(&host, &flow4(2, n), &opening());
        assert_eq!(inserted, Inserted::Made);
    }
    for n in 0..5000 {
        let inserted = insert::<V4>(&host, &flow4(1, 1000 + n), &opening());
        assert_eq!(inserted, Inserted::Full);
    }
    assert_eq!(host.interface_state(2).unassured, 10);
}

/// Two CPUs that see the same flows at once make each of them once.
#[test]
fn i7_racing_inserts_make_a_flow_once() {
    const FLOWS: u32 = 40_000;
    let host = Arc::new(host(FLOWS, u32::MAX));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let host = Arc::clone(&host);
            thread::spawn(move || {
                (0..FLOWS)
                    .filter(|n| insert::<V4>(&host, &flow4(1, *n), &assured()) == Inserted::Made)
                    .count()
            })
        })
        .collect();
    let made: usize = threads
        .into_iter()
        .map(|thread| thread.join().expect("no panic"))
        .sum();
    assert_eq!(made, FLOWS as usize);
    let (state, all) = (host.interface_state(1), host.host_state());
    assert_eq!(
        (
            state.tracked,
            state.created,
            all.tracked,
            (all.tracked - all.reserved)
        ),
        (40_000, 40_000, 40_000, 40_000)
    );
}

/// Inserts, lookups and removals of a few flows by several CPUs: nothing leaks, nothing is doubled.
/// (All of them unassured are far from a quarter of the allowance, so that none is replaced.)
#[test]
fn racing_removals_leak_nothing() {
    let host = Arc::new(host(4096, u32::MAX));
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let host = Arc::clone(&host);
            thread::spawn(move || {
                let mut balance = 0_i64;
                for round in 0..50_000_u32 {
                    let flow = flow4(1, (round.wrapping_mul(2_654_435_761) >> 20) % 256);
                    // Assured: nobody is replaced, however many stand.
                    if (round + thread) % 2 == 0 {
                        balance +=
                            i64::from(insert::<V4>(&host, &flow, &assured()) == Inserted::Made);
                    } else if let Some(mut entry) = find::<V4>(&host, &flow) {
                        balance -=
                            i64::from(table::remove(&host.context(), &mut entry, Removal::Removed));
                    }
                }
                balance
            })
        })
        .collect();
    let balance: i64 = threads
        .into_iter()
        .map(|thread| thread.join().expect("no panic"))
        .sum();
    let standing = (0..256)
        .filter(|n| find::<V4>(&host, &flow4(1, *n)).is_some())
        .count();
    assert_eq!(host.interface_state(1).tracked as i64, balance);
    assert_eq!(standing as i64, balance, "a flow stands twice, or is lost");
}

#[test]
fn draining_table_is_searched_and_gains_nothing() {
    let mut host = host(1000, u32::MAX);
    for n in 0..500 {
        insert::<V4>(&host, &flow4(1, n), &assured());
        insert::<V6>(&host, &flow6(1, n), &assured());
    }
    host.start_draining([400, 400]);
    for n in 0..500 {
        assert!(find::<V4>(&host, &flow4(1, n)).is_some());
        assert!(find::<V6>(&host, &flow6(1, n)).is_some());
    }
    host.runtime.shared = 2000;
    for bank in &mut host.banks {
        bank.interfaces[1] = interface(2000, 0);
    }
    assert_eq!(
        insert::<V4>(&host, &flow4(1, 700), &assured()),
        Inserted::Made
    );
    host.runtime.old_buckets = [0, 0];
    assert!(find::<V4>(&host, &flow4(1, 700)).is_some());
    assert!(find::<V4>(&host, &flow4(1, 0)).is_none());
}

/// Tuples that all fall into one bucket under one seed spread evenly under another.
#[test]
fn crafted_collisions_do_not_carry_over_to_another_seed() {
    const BUCKETS: u32 = 1 << 10;
    let first_bucket = |flow: &Flow<u32>, seed| table::place(V4::hash(flow, seed), BUCKETS, 0);
    let crafted: Vec<_> = (0..4_000_000)
        .map(|n| flow4(1, n))
        .filter(|flow| first_bucket(flow, &SEED) == 7)
        .take(2048)
        .collect();
    assert_eq!(crafted.len(), 2048);
    let mut other = SEED;
    other[3] ^= 0x5555_5555;
    other[0] = other[0].wrapping_add(12_345);
    let mut load = HashMap::new();
    for flow in &crafted {
        *load.entry(first_bucket(flow, &other)).or_insert(0) += 1;
    }
    // 2048 into 1024 at random: mean 2, and more than 14 has a chance of about one in ten million.
    assert!(
        load.values().all(|count| *count <= 14),
        "{:?}",
        load.values().max()
    );
    assert!(load.len() > 800, "{} buckets hit", load.len());
}
