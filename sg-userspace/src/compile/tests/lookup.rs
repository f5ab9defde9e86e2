//! The kernel's lookup over map content, read from its description rather than from its code.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sg_common::layout::{
    Class, DEEPER, LEAF, NO_TRIE, Node, Slice, policy_flags, policy_index, slice,
};
use sg_common::verdict::Direction;

use super::super::{Compiled, Trie};
use crate::model::RuleId;

/// The rules that let a new flow pass; `None` if it is dropped.
pub(super) fn lookup(
    compiled: &Compiled,
    interface: &str,
    direction: Direction,
    protocol: u8,
    remote: IpAddr,
    port: u16,
) -> Option<BTreeSet<RuleId>> {
    let mut interfaces = compiled.interfaces.iter();
    let interface = interfaces.find(|record| record.name == interface)?;
    let policy = interface.policy[policy_index(direction, remote.is_ipv6())];
    let tries = if remote.is_ipv6() {
        &compiled.tries6
    } else {
        &compiled.tries4
    };

    let mut class_a = policy.any_class;
    if policy.flags & policy_flags::TREE != 0 {
        class_a = of_tree(&compiled.nodes, policy.trie, remote);
    } else if policy.trie != NO_TRIE {
        class_a = longest_match(&tries[policy.trie as usize], remote).unwrap_or(class_a);
    }
    let mut class_b = 0;
    if policy.scope != 0 {
        let identity = identity(compiled, remote);
        let found = compiled
            .identities
            .iter()
            .find(|(key, _)| (key.scope, key.identity) == (policy.scope, identity));
        class_b = found.map_or(0, |(_, class)| *class);
    }
    let own_icmp = if remote.is_ipv6() { 58 } else { 1 };
    let (index, value) = match protocol {
        6 => (slice::TCP, port),
        17 => (slice::UDP, port),
        number if number == own_icmp => (slice::ICMP, port),
        number => (slice::OTHER, number.into()),
    };
    let sets: Vec<u32> = [class_a, class_b]
        .iter()
        .filter_map(|class| {
            let class: &Class = &compiled.classes[*class as usize];
            range(compiled, class.slices[index], value)
        })
        .collect();
    (!sets.is_empty()).then(|| {
        let rules = sets.iter().flat_map(|set| compiled.rule_set(*set));
        rules.collect()
    })
}

/// Node by node, interval by interval.
fn of_tree(nodes: &[Node], root: u32, remote: IpAddr) -> u32 {
    let bytes = match remote {
        IpAddr::V4(remote) => remote.octets().to_vec(),
        IpAddr::V6(remote) => remote.octets().to_vec(),
    };
    let mut value = DEEPER | root;
    for word in bytes.chunks(4) {
        let word = u32::from_be_bytes(word.try_into().unwrap());
        let mut words = nodes[(value & !DEEPER) as usize].words;
        while words[0] & LEAF == 0 {
            let place = words[1..].iter().take_while(|highest| **highest < word);
            words = nodes[words[0] as usize + place.count()].words;
        }
        let place = words[1..8].iter().take_while(|highest| **highest < word);
        value = words[8 + place.count()];
        if value & DEEPER == 0 {
            break;
        }
    }
    assert_eq!(value & DEEPER, 0, "an address has no more words");
    value
}

fn longest_match(trie: &Trie, remote: IpAddr) -> Option<u32> {
    let covering = trie.entries.iter().filter(|(net, _)| net.contains(&remote));
    covering
        .max_by_key(|(net, _)| net.prefix_len())
        .map(|(_, class)| *class)
}

fn identity(compiled: &Compiled, remote: IpAddr) -> u32 {
    match remote {
        IpAddr::V4(remote) => find(&compiled.members4, &remote),
        IpAddr::V6(remote) => find(&compiled.members6, &remote),
    }
}

fn find<A: Ord>(members: &[(A, u32)], address: &A) -> u32 {
    members
        .binary_search_by(|(member, _)| member.cmp(address))
        .map_or(0, |index| members[index].1)
}

/// Binary search, so that a slice out of order is found out.
fn range(compiled: &Compiled, slice: Slice, value: u16) -> Option<u32> {
    let ranges = &compiled.ranges[slice.start as usize..][..slice.len as usize];
    let at = ranges.partition_point(|range| range.high < value);
    let range = ranges.get(at).filter(|range| range.low <= value)?;
    assert_ne!(range.rule_set, 0, "a range that no rule allows");
    Some(range.rule_set)
}
