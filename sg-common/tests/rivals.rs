//! Flows that could be taken for each other: two claims of one flow, entries with one tag, flows outside
//! their first bucket.

use std::collections::HashMap;

use sg_common::{
    abi::{self, CT_SPILLS},
    conntrack::{Meta, Opening, Segment, Side, State, flag, open},
    family::{Family as _, Flow, V4},
    host::Host,
    layout::{Interface, Runtime, TIMEOUTS, WAYS, interface_flags},
    table::{self, Entry, Inserted, Probe, Removal},
    tables::Tables as _,
};

fn host(allowance: u32) -> Host {
    let mut host = Host::new(Runtime {
        hz: 100,
        buckets: [abi::buckets(allowance); 2],
        allowance,
        shared: allowance,
        unassured: u32::MAX,
        seed: [0x9e37_79b9, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144],
        ..Runtime::ZERO
    });
    for bank in &mut host.banks {
        bank.interfaces = vec![Interface::ZERO; 2];
        bank.interfaces[1] = Interface {
            flags: interface_flags::PRESENT,
            allowance,
            timeouts: [1000; TIMEOUTS],
            ..Interface::ZERO
        };
    }
    host
}

fn flow(n: u32) -> Flow<u32> {
    Flow {
        owner: 1 << 8 | 17,
        ports: 443 << 16 | (n & 0xffff),
        local: 0x0a00_0001_u32.to_be(),
        remote: (0x0b00_0000 + (n >> 16)).to_be(),
    }
}

fn hash(host: &Host, flow: &Flow<u32>) -> u64 {
    V4::hash(flow, &host.runtime.seed)
}

/// What an entry's tag is, by its hash.
fn tag(hash: u64) -> u8 {
    (hash as u8).max(1)
}

fn assured() -> Opening {
    let mut opening = open(17, 1, Side::Local, Side::Local, Segment::default(), 0);
    opening.flags |= flag::ASSURED;
    opening
}

fn insert(host: &Host, flow: &Flow<u32>) -> Inserted {
    let limits = host.banks[0].interfaces[1];
    let (context, hash) = (host.context(), hash(host, flow));
    table::insert::<Host, V4>(&context, &limits, hash, flow, &assured(), true)
}

fn find(host: &Host, flow: &Flow<u32>) -> Option<Entry<V4>> {
    table::lookup::<Host, V4>(&host.context(), hash(host, flow), flow)
}

fn probe(host: &Host, flow: &Flow<u32>) -> Probe<V4> {
    table::probe::<Host, V4>(host, &host.runtime, hash(host, flow), &V4::words(flow))
}

/// The word of an entry by its index.
fn word(host: &Host, index: u32) -> Meta {
    let slot = host.slot4(false, index).expect("an entry");
    // SAFETY: a valid entry, and nobody else is at work.
    Meta(unsafe { *V4::meta(slot) })
}

/// Writes `flow`, with a tag and a word, into a way of its first bucket as another CPU would; answers its index.
fn write(host: &Host, flow: &Flow<u32>, tag: u8, way: u32, state: State, flags: u8) -> u32 {
    let bucket = table::place(hash(host, flow), host.runtime.buckets[0], 0);
    let index = bucket * WAYS as u32 + way;
    let slot = host.slot4(false, index).expect("an entry");
    let tags = host.tags(false, false, bucket).expect("a bucket");
    V4::set_flow(slot, flow);
    // SAFETY: a valid entry and valid tags, and nobody else is at work.
    unsafe {
        *tags.cast::<u8>().add(table::lane(way)) = tag;
        *V4::meta(slot) = Meta::new(0, state as u8, flags, 1).0;
    }
    index
}

#[test]
fn i7_of_two_claims_the_one_at_the_lower_index_becomes_the_flows() {
    let host = host(1000);
    let flow = flow(1);
    let hash = hash(&host, &flow);
    let claim = |way| write(&host, &flow, tag(hash), way, State::Claimed, 0);
    let (low, high) = (claim(3), claim(9));
    assert!(!host.settle(false, hash, high));
    assert_eq!(word(&host, low).flags(), 0, "the lower one is left alone");
    assert!(host.settle(false, hash, low));
    let withdrawn = word(&host, high);
    assert!(!withdrawn.tracked() && withdrawn.flags() & flag::WITHDRAWN != 0);
    // Who has been withdrawn is no rival any more.
    assert!(host.settle(false, hash, low));
}

#[test]
fn i7_a_claim_gives_way_to_a_tracked_entry_wherever_it_stands() {
    for (claimed, tracked) in [(3, 9), (9, 3)] {
        let host = host(1000);
        let flow = flow(1);
        let hash = hash(&host, &flow);
        let stands = write(&host, &flow, tag(hash), tracked, State::UdpStream, 0);
        let claim = write(&host, &flow, tag(hash), claimed, State::Claimed, 0);
        assert!(!host.settle(false, hash, claim));
        assert_eq!(word(&host, stands).state(), State::UdpStream as u8);
    }
}

#[test]
fn another_flow_with_the_same_tag_is_no_rival() {
    let host = host(10);
    assert_eq!(host.runtime.buckets[0], 1);
    let (own, other) = (flow(1), flow(2));
    let hash = hash(&host, &own);
    let stands = write(&host, &other, tag(hash), 3, State::Claimed, 0);
    let claim = write(&host, &own, tag(hash), 9, State::Claimed, 0);
    assert!(host.settle(false, hash, claim));
    assert_eq!(word(&host, stands).flags(), 0);
}

/// Two flows with one tag and one way to be in: the second stands elsewhere.
#[test]
fn a_flow_beside_one_with_its_tag_is_not_missed() {
    let seed = host(10);
    let mut seen = HashMap::new();
    let mut unsure = 0;
    for n in 0..20_000 {
        let hash = hash(&seed, &flow(n));
        let Some(first) = seen.insert((tag(hash), hash >> 20 & 15), n) else {
            continue;
        };
        let host = host(10);
        for flow in [flow(first), flow(n)] {
            assert_eq!(insert(&host, &flow), Inserted::Made);
        }
        for flow in [flow(first), flow(n)] {
            assert!(find(&host, &flow).is_some());
            match probe(&host, &flow) {
                Probe::Hit(_) => {}
                Probe::Unsure => unsure += 1,
                Probe::Miss => panic!("{first} and {n}"),
            }
        }
    }
    assert!(unsure > 0);
}

/// How many flows stand outside their first bucket, as the table says, and as it is.
fn spills(host: &Host) -> ([u64; CT_SPILLS as usize], [u64; CT_SPILLS as usize]) {
    // SAFETY: a valid record, and nobody else is at work.
    let said = unsafe { (*host.spills(false).expect("a record")).counts };
    let buckets = host.runtime.buckets[0];
    let mut true_counts = [0; CT_SPILLS as usize];
    for index in 0..table::with_stash(buckets) * WAYS as u32 {
        if word(host, index).tracked() {
            let slot = host.slot4(false, index).expect("an entry");
            let first = table::place(hash(host, &V4::flow(slot)), buckets, 0);
            if first != index / WAYS as u32 {
                true_counts[first as usize % CT_SPILLS as usize] += 1;
            }
        }
    }
    (said, true_counts)
}

#[test]
fn flows_outside_their_first_bucket_are_counted_and_found() {
    const FLOWS: u32 = 20_000;
    let host = host(FLOWS);
    for n in 0..FLOWS {
        assert_eq!(insert(&host, &flow(n)), Inserted::Made, "{n}");
    }
    let (said, is) = spills(&host);
    assert_eq!(said, is);
    assert!(is.iter().sum::<u64>() > 1000, "few stand elsewhere");
    for n in 0..FLOWS {
        assert!(!matches!(probe(&host, &flow(n)), Probe::Miss), "{n}");
        assert!(!matches!(probe(&host, &flow(FLOWS + n)), Probe::Hit(_)));
    }
    for n in 0..FLOWS {
        let mut entry = find(&host, &flow(n)).expect("inserted");
        assert!(table::remove(&host.context(), &mut entry, Removal::Removed));
    }
    assert_eq!(spills(&host).0, [0; CT_SPILLS as usize]);
}

/// As long as a flow's home is free it stands there.
#[test]
fn a_flow_is_at_home_in_an_empty_table() {
    let host = host(20_000);
    for n in 0..100 {
        let flow = flow(n);
        assert_eq!(insert(&host, &flow), Inserted::Made);
        let bucket = table::place(hash(&host, &flow), host.runtime.buckets[0], 0);
        let home = (hash(&host, &flow) >> 20) as u32 & (WAYS as u32 - 1);
        let slot = host
            .slot4(false, bucket * WAYS as u32 + home)
            .expect("an entry");
        assert!(V4::holds(slot, &V4::words(&flow)), "{n}");
    }
}
