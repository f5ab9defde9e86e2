//! How much of each map is used, before and after.

use serde::Serialize;
use sg_common::abi::{MAX_COUNTED, MAX_NODES, map};

use super::Flows;
use crate::compile::{Capacity, Compiled};

/// Use of one map by one generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Used {
    /// The map.
    pub map: &'static str,
    /// What it holds.
    pub what: &'static str,
    /// Elements by the policy in force.
    pub before: u64,
    /// Elements by the policy planned.
    pub after: u64,
    /// What fits; `None`: the map is made as large as it has to be.
    pub limit: Option<u64>,
}

/// All maps that a policy fills.
pub(super) fn used(before: &Compiled, after: &Compiled) -> Vec<Used> {
    let limit = |limit: Capacity| Some(limit.limit() as u64);
    let own = |side: &Compiled| {
        let addresses = side
            .interfaces
            .iter()
            .map(|one| one.addresses.len() + one.ethertypes.len());
        side.services.len() + addresses.sum::<usize>()
    };
    // Class 0 and set 0 are nobody's.
    type Count = fn(&Compiled) -> usize;
    let counts: [(&str, &str, Count, Option<u64>); 11] = [
        (
            map::INTERFACES,
            "interfaces",
            |side| side.interfaces.len(),
            Some(Capacity::INTERFACES as u64),
        ),
        (
            map::CLASSES,
            "address classes",
            |side| side.classes.len().saturating_sub(1),
            limit(Capacity::Classes),
        ),
        (
            map::RANGES,
            "port ranges",
            |side| side.ranges.len(),
            limit(Capacity::Ranges),
        ),
        (
            map::TREES,
            "nodes of search trees",
            |side| side.nodes.len(),
            Some(MAX_NODES.into()),
        ),
        (
            map::TRIES4,
            "IPv4 tries that are no trees",
            |side| side.tries4.len(),
            limit(Capacity::Tries),
        ),
        (
            map::TRIES6,
            "IPv6 tries that are no trees",
            |side| side.tries6.len(),
            limit(Capacity::Tries),
        ),
        (
            map::MEMBERS4,
            "IPv4 members",
            |side| side.members4.len(),
            None,
        ),
        (
            map::MEMBERS6,
            "IPv6 members",
            |side| side.members6.len(),
            None,
        ),
        (
            map::IDENTITIES,
            "sets of groups by policy",
            |side| side.identities.len(),
            limit(Capacity::Identities),
        ),
        (
            map::RULE_HITS,
            "sets of rules that are counted",
            |side| side.rule_sets.len().saturating_sub(1),
            Some(MAX_COUNTED.into()),
        ),
        (
            map::ADDRESSES,
            "own addresses, services, ethertypes",
            |_| 0,
            None,
        ),
    ];
    counts
        .into_iter()
        .map(|(map, what, count, limit)| {
            let count = |side: &Compiled| match map {
                map::ADDRESSES => own(side),
                _ => count(side),
            };
            Used {
                map,
                what,
                before: count(before) as u64,
                after: count(after) as u64,
                limit,
            }
        })
        .collect()
}

/// The conntrack tables of both families: flows, and what becomes of them by the policy planned if each has a
/// packet. The limit is the allowance planned.
pub(super) fn tracked(flows: &Flows, after: &Compiled) -> Used {
    let change = flows.interfaces.iter().fold(flows.tracked, |left, one| {
        let more = one
            .untracked
            .map_or(0, |untracked| untracked.become_tracked);
        left + more + one.adopted.unwrap_or(0) - one.cut - one.become_untracked - one.forgotten
    });
    Used {
        map: "CT4, CT6",
        what: "tracked flows",
        before: flows.tracked,
        after: change,
        limit: Some(after.allowance.into()),
    }
}
