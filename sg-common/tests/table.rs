//! The conntrack table by itself: placement, limits, races, draining.

mod flows;

use std::{collections::HashMap, sync::Arc, thread};

use sg_common::{
    family::{Family as _, Flow, V4, V6},
    table::{self, Inserted, Removal},
};

use flows::{SEED, assured, find, flow4, flow6, host, insert, interface, opening};

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
fn k7_expired_flows_make_room_without_a_sweep() {
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
fn i7_k4_racing_inserts_make_a_flow_once() {
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
fn k10_crafted_collisions_do_not_carry_over_to_another_seed() {
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

/// Tuples that whoever knows the secret makes to have one hash, bucket and tag: in NH, two terms of which are
/// `(owner + s0) · (ports + s1) + (local + s2) · (remote + s3)`, both first factors are equal, so that the
/// remote address loses what the ports gain. Under other secrets they spread like any others.
#[test]
fn tuples_of_one_hash_spread_evenly_under_every_other_seed() {
    const FLOWS: u32 = 2048;
    const BUCKETS: u32 = 653;
    let owner = 1 << 8 | 17;
    let local = owner + SEED[0] - SEED[2];
    let flow = |n: u32| Flow {
        owner,
        ports: 0x2000_0035 + (n << 8),
        local,
        remote: 0x5000_0014 - (n << 8),
    };
    assert!((0..FLOWS).all(|n| V4::hash(&flow(n), &SEED) == V4::hash(&flow(0), &SEED)));
    // Of so many degrees of freedom: beyond six standard deviations is no chance.
    let freedom = f64::from(BUCKETS - 1);
    let limit = freedom + 6.0 * (2.0 * freedom).sqrt();
    let mut random = 0x9e37_79b9_u32;
    for _ in 0..200 {
        let seed = SEED.map(|word| {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            word ^ random
        });
        let mut load = [0_u32; BUCKETS as usize];
        for n in 0..FLOWS {
            load[table::place(V4::hash(&flow(n), &seed), BUCKETS, 0) as usize] += 1;
        }
        let mean = f64::from(FLOWS) / f64::from(BUCKETS);
        let unevenness: f64 = load
            .iter()
            .map(|count| (f64::from(*count) - mean).powi(2) / mean)
            .sum();
        assert!(
            unevenness < limit,
            "{unevenness} where {limit} is the most, {seed:x?}"
        );
    }
}
