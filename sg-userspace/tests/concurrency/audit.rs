//! Whether maps that nobody changes just now are right, word by word.

use std::collections::HashMap;

use sg_common::{
    abi::CT_SPILLS,
    conntrack::{Meta, State, flag},
    family::{self, Family, V4, V6},
    layout::{Spills, Tags, WAYS},
    table::{Occupancy, lane, place, with_stash},
};
use sg_userspace::table::Table;

use crate::{
    flow::Flow,
    rig::{INTERFACES, Rig},
};

/// What stands in the tables.
#[derive(Default)]
pub(crate) struct Audit {
    /// Every flow, and whether it is assured.
    pub(crate) flows: HashMap<Flow, bool>,
    /// Flows that stand outside their first bucket.
    pub(crate) spilled: u64,
}

/// A way that is not free: index, word, flow.
type Way<A> = (u32, Meta, family::Flow<A>);

impl Rig {
    /// Reads the tables and checks them: nothing is claimed, tags tell the truth, every flow stands once and
    /// in a place of its own, spills, occupancy and events are what the entries say.
    ///
    /// # Panics
    /// If anything is wrong.
    #[track_caller]
    pub(crate) fn audit(&self) -> Audit {
        let (tables, runtime) = (&self.session.tables, &self.session.runtime);
        let (mut ways4, mut ways6) = (Vec::new(), Vec::new());
        let read = tables.accounted4.for_each(|index, one| {
            let slot = &one.slot;
            let (owner, ports, local, remote) = (slot.owner, slot.ports, slot.local, slot.remote);
            push(&mut ways4, index, slot.meta, (owner, ports, local, remote));
        });
        read.unwrap();
        let read = tables.accounted6.for_each(|index, one| {
            let slot = &one.slot;
            let (owner, ports, local, remote) = (slot.owner, slot.ports, slot.local, slot.remote);
            push(&mut ways6, index, slot.meta, (owner, ports, local, remote));
        });
        read.unwrap();
        let spills = [0, 1].map(|ipv6| self.spills.get(&ipv6).unwrap().unwrap());
        let mut audit = Audit::default();
        let seed = &runtime.seed;
        let (buckets4, buckets6) = (runtime.buckets[0], runtime.buckets[1]);
        check::<V4>(
            &mut audit,
            &ways4,
            &tables.tags4,
            &spills[0],
            buckets4,
            |key| (V4::hash(key, seed), Flow::of_key4(key)),
        );
        check::<V6>(
            &mut audit,
            &ways6,
            &tables.tags6,
            &spills[1],
            buckets6,
            |key| (V6::hash(key, seed), Flow::of_key6(key)),
        );
        for id in INTERFACES {
            let found = tables.occupancy(id).unwrap();
            audit.compare(&format!("interface {id}"), &found, |flow| {
                flow.interface == id
            });
            let gone = found.removed + found.expired + found.replaced;
            assert_eq!(found.created - gone, found.tracked, "{found:?}");
        }
        audit.compare("the host", &tables.host_occupancy().unwrap(), |_| true);
        audit
    }

    /// Checks tables that are to be empty.
    ///
    /// # Panics
    /// If they are not, or anything is wrong.
    #[track_caller]
    pub(crate) fn audit_empty(&self) {
        let audit = self.audit();
        assert_eq!((audit.flows.len(), audit.spilled), (0, 0));
    }

    /// The sum of a counter over both interfaces.
    pub(crate) fn sum(&self, of: fn(&Occupancy) -> u64) -> u64 {
        let all = INTERFACES.map(|id| of(&self.session.tables.occupancy(id).unwrap()));
        all.into_iter().sum()
    }
}

impl Audit {
    #[track_caller]
    fn compare(&self, whose: &str, found: &Occupancy, is: impl Fn(&Flow) -> bool) {
        let assured: Vec<bool> = self
            .flows
            .iter()
            .filter(|(flow, _)| is(flow))
            .map(|(_, assured)| *assured)
            .collect();
        let unassured = assured.iter().filter(|assured| !**assured).count();
        assert_eq!(
            (found.tracked, found.unassured),
            (assured.len() as u64, unassured as u64),
            "tracked and unassured flows of {whose}, as counted and as they stand: {found:?}"
        );
    }
}

fn push<A>(
    ways: &mut Vec<Way<A>>,
    index: u32,
    meta: u64,
    (owner, ports, local, remote): (u32, u32, A, A),
) {
    let meta = Meta(meta);
    if meta.state() != State::Free as u8 {
        let flow = family::Flow {
            owner,
            ports,
            local,
            remote,
        };
        ways.push((index, meta, flow));
    }
}

#[track_caller]
fn check<F: Family>(
    audit: &mut Audit,
    ways: &[Way<F::Address>],
    tags: &Table<u32, Tags>,
    spills: &Spills,
    buckets: u32,
    flow_of: impl Fn(&family::Flow<F::Address>) -> (u64, Flow),
) {
    let mut expected = vec![[0_u8; WAYS]; with_stash(buckets) as usize];
    let mut counts = [0_u64; CT_SPILLS as usize];
    for (index, meta, key) in ways {
        let (hash, flow) = flow_of(key);
        assert!(meta.tracked(), "{flow:?} was left claimed: {meta:?}");
        let (bucket, way) = (index / WAYS as u32, index % WAYS as u32);
        let first = place(hash, buckets, 0);
        let own = (0..3).any(|which| place(hash, buckets, which) == bucket);
        assert!(own, "{flow:?} in bucket {bucket}, which is none of its own");
        if bucket != first {
            audit.spilled += 1;
            counts[(first % CT_SPILLS) as usize] += 1;
        }
        // 0 stands for "free".
        expected[bucket as usize][lane(way)] = (hash as u8).max(1);
        let assured = meta.flags() & flag::ASSURED != 0;
        let twice = audit.flows.insert(flow, assured);
        assert!(twice.is_none(), "{flow:?} stands twice");
    }
    let read = tags.for_each(|bucket, tags| {
        let expected = &expected[bucket as usize];
        assert_eq!(tags.as_bytes(), expected, "tags of bucket {bucket}");
    });
    read.unwrap();
    assert_eq!(spills.counts, counts, "flows outside their first bucket");
}
