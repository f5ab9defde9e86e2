//! The conntrack table with threads as CPUs: whatever they do at once, in the end every word is right. (The
//! loaded programs are tried alike by the program `concurrency` of sg-userspace.)

mod flows;

use std::{collections::HashSet, thread};

use sg_common::{
    abi::CT_SPILLS,
    conntrack::{Meta, State, flag},
    family::{Family, Flow, V4},
    host::Host,
    layout::WAYS,
    table::{self, Inserted, Removal},
    tables::Tables as _,
};

use flows::{assured, find, flow4, host, insert, opening};

const CPUS: u32 = 4;

/// Runs `task` in a thread for each CPU; answers what they answer, added up.
fn on_every_cpu(task: impl Fn(u32) -> usize + Sync) -> usize {
    thread::scope(|scope| {
        let started: Vec<_> = (0..CPUS)
            .map(|cpu| {
                let task = &task;
                scope.spawn(move || task(cpu))
            })
            .collect();
        let done = started
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        done.sum()
    })
}

/// Checks the IPv4 table: nothing is claimed, tags tell the truth, no flow stands twice, spills, charges and
/// events are what the entries say. Answers how many flows there are, and how many outside their first bucket.
#[track_caller]
fn audit(host: &Host) -> (usize, u64) {
    let buckets = host.runtime.buckets[0];
    let (mut flows, mut unassured) = (HashSet::new(), 0);
    let mut expected = [0_u64; CT_SPILLS as usize];
    for bucket in 0..table::with_stash(buckets) {
        // SAFETY: a valid record, and nothing runs on it now.
        let tags = unsafe { *host.tags(false, false, bucket).expect("a bucket") };
        for way in 0..WAYS as u32 {
            let tag = tags.as_bytes()[table::lane(way)];
            let slot = host.slot4(false, bucket * WAYS as u32 + way);
            // SAFETY: as above.
            let slot = unsafe { *slot.expect("a slot") };
            let meta = Meta(slot.meta);
            if meta.state() == State::Free as u8 {
                assert_eq!(tag, 0, "the tag of a free way");
                continue;
            }
            assert!(meta.tracked(), "a way was left claimed: {meta:?}");
            let flow = Flow {
                owner: slot.owner,
                ports: slot.ports,
                local: slot.local,
                remote: slot.remote,
            };
            let hash = V4::hash(&flow, &host.runtime.seed);
            assert_eq!(tag, (hash as u8).max(1), "the tag of a flow");
            let place = |which| table::place(hash, buckets, which);
            assert!(
                (0..3).any(|which| place(which) == bucket),
                "a place of its own"
            );
            if bucket != place(0) {
                expected[(place(0) % CT_SPILLS) as usize] += 1;
            }
            let key = (flow.owner, flow.ports, flow.local, flow.remote);
            assert!(flows.insert(key), "{flow:?} stands twice");
            unassured += u64::from(meta.flags() & flag::ASSURED == 0);
        }
    }
    // SAFETY: as above.
    let spills = unsafe { (*host.spills(false).expect("a record")).counts };
    assert_eq!(spills, expected, "flows outside their first bucket");
    let (state, all) = (host.interface_state(1), host.host_state());
    let tracked = flows.len() as u64;
    assert_eq!((state.tracked, state.unassured), (tracked, unassured));
    assert_eq!((all.tracked, all.unassured), (tracked, unassured));
    let gone = state.removed + state.expired + state.replaced;
    assert_eq!(state.created - gone, tracked);
    (flows.len(), spills.iter().sum())
}

/// Ends all flows; answers how many there were.
fn flush(host: &Host) -> usize {
    let buckets = table::with_stash(host.runtime.buckets[0]);
    let flushed = (0..buckets)
        .map(|bucket| table::flush::<Host, V4>(&host.context(), false, bucket, 1) as usize);
    flushed.sum()
}

/// Up to 99.9 % of the allowance, from all CPUs at once, each flow by two of them.
#[test]
fn i7_flows_that_two_cpus_make_in_a_full_table_stand_once_and_none_is_refused() {
    const ALLOWANCE: u32 = 30_000;
    const FLOWS: u32 = ALLOWANCE / 1000 * 999;
    let host = host(ALLOWANCE, u32::MAX);
    let made = on_every_cpu(|cpu| {
        let own = (cpu / 2..FLOWS).step_by(CPUS as usize / 2);
        own.filter(|n| match insert::<V4>(&host, &flow4(1, *n), &assured()) {
            Inserted::Made => true,
            Inserted::Exists => false,
            Inserted::Full => panic!("refused below the allowance"),
        })
        .count()
    });
    assert_eq!(made, FLOWS as usize);
    let (stand, spilled) = audit(&host);
    assert_eq!(stand, FLOWS as usize);
    assert!(spilled > 0);
    assert_eq!(flush(&host), FLOWS as usize);
    assert_eq!(audit(&host), (0, 0));
}

/// Flows of a crowded table come, go and are flushed at once.
#[test]
fn k5_flows_that_go_while_others_come_leave_nothing_behind() {
    const ALLOWANCE: u32 = 1000;
    let host = host(ALLOWANCE, u32::MAX);
    let mut spilled = 0;
    for round in 0..4_u32 {
        for n in 0..ALLOWANCE - 100 {
            insert::<V4>(&host, &flow4(1, n), &assured());
        }
        on_every_cpu(|cpu| {
            for step in 0..10_000_u32 {
                let n = (round.wrapping_add(step)).wrapping_mul(2_654_435_761) >> 20;
                let flow = flow4(1, ALLOWANCE - 200 + n % 190);
                if (step + cpu) % 2 == 0 {
                    insert::<V4>(&host, &flow, &opening());
                } else if let Some(mut entry) = find::<V4>(&host, &flow) {
                    table::remove(&host.context(), &mut entry, Removal::Removed);
                }
            }
            0
        });
        let (stand, outside) = audit(&host);
        spilled += outside;
        // Two at a time end each of them once.
        let ended = on_every_cpu(|cpu| if cpu < 2 { flush(&host) } else { 0 });
        assert_eq!(ended, stand);
        assert_eq!(audit(&host), (0, 0));
    }
    assert!(spilled > 0, "no flow stood outside its first bucket");
}

/// With credits, what CPUs have said and what they keep to themselves is exact together.
#[test]
fn k11_occupancy_is_exact_while_every_cpu_has_a_credit() {
    let mut host = host(1 << 16, u32::MAX);
    host.runtime.credit = 8;
    for bank in &mut host.banks {
        bank.interfaces[1].credit = 5;
    }
    on_every_cpu(|cpu| {
        for step in 0..20_000_u32 {
            let n = (step * CPUS + cpu).wrapping_mul(2_654_435_761) >> 8;
            let flow = flow4(1, n % 3000);
            if n >> 20 & 1 == 0 {
                let opening = if n & 1 == 0 { assured() } else { opening() };
                insert::<V4>(&host, &flow, &opening);
            } else if let Some(mut entry) = find::<V4>(&host, &flow) {
                table::remove(&host.context(), &mut entry, Removal::Removed);
            }
        }
        0
    });
    let (stand, _) = audit(&host);
    assert!(stand > 500, "{stand} flows");
    assert_eq!(flush(&host), stand);
    assert_eq!(audit(&host), (0, 0));
}
