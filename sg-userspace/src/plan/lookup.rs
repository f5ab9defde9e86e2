//! A compiled policy as the programs ask it: by address, then by protocol and port.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;
use sg_common::{
    layout::{NO_TRIE, Policy, policy_index},
    verdict::Direction,
};

use super::{peers::number, traffic::slice_of};
use crate::{
    compile::{CompileError, Compiled, CompiledInterface, Trie, compile_within},
    resolve::Resolved,
};

/// The class of addresses that no rule speaks of.
pub(super) const NO_CLASS: u32 = 0;

/// The policy of an interface that is not enforced: it allows nothing by rule.
pub(super) const NO_POLICY: Policy = Policy {
    trie: NO_TRIE,
    any_class: NO_CLASS,
    scope: 0,
    flags: 0,
};

/// From an address on, the class of it and those that follow, up to the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) low: u128,
    pub(super) class: u32,
}

/// A compiled policy.
pub(crate) struct Lookup {
    /// With every trie as such: none is a tree.
    pub(super) compiled: Compiled,
    interfaces: HashMap<String, usize>,
    identities: HashMap<(u32, u32), u32>,
    /// By trie, of IPv4 and IPv6.
    steps: [HashMap<u32, Vec<Step>>; 2],
}

impl Lookup {
    /// Compiles a policy.
    pub(crate) fn new(resolved: &Resolved) -> Result<Self, CompileError> {
        let compiled = compile_within(resolved, 0)?;
        let mut steps: [HashMap<u32, Vec<Step>>; 2] = Default::default();
        for interface in &compiled.interfaces {
            for direction in Direction::ALL {
                for ipv6 in [false, true] {
                    let policy = &interface.policy[policy_index(direction, ipv6)];
                    if policy.trie == NO_TRIE {
                        continue;
                    }
                    let tries = if ipv6 {
                        &compiled.tries6
                    } else {
                        &compiled.tries4
                    };
                    steps[usize::from(ipv6)]
                        .entry(policy.trie)
                        .or_insert_with(|| unfold(&tries[policy.trie as usize], policy.any_class));
                }
            }
        }
        let names = compiled.interfaces.iter().map(|one| one.name.clone());
        let identities = compiled.identities.iter();
        Ok(Self {
            interfaces: names.zip(0..).collect(),
            identities: identities
                .map(|(key, class)| ((key.scope, key.identity), *class))
                .collect(),
            steps,
            compiled,
        })
    }

    /// The record of an interface.
    pub(crate) fn interface(&self, name: &str) -> Option<&CompiledInterface> {
        let place = *self.interfaces.get(name)?;
        Some(&self.compiled.interfaces[place])
    }

    /// Classes of all addresses by the prefixes that hold them.
    pub(super) fn steps<'a>(
        &'a self,
        policy: &Policy,
        ipv6: bool,
        whole: &'a mut [Step; 1],
    ) -> &'a [Step] {
        match self.steps[usize::from(ipv6)].get(&policy.trie) {
            Some(steps) if policy.trie != NO_TRIE => steps,
            _ => {
                *whole = [Step {
                    low: 0,
                    class: policy.any_class,
                }];
                whole
            }
        }
    }

    /// The class of members of an identity.
    pub(super) fn class_of(&self, policy: &Policy, identity: u32) -> u32 {
        if policy.scope == 0 || identity == 0 {
            return NO_CLASS;
        }
        let found = self.identities.get(&(policy.scope, identity));
        found.copied().unwrap_or(NO_CLASS)
    }

    /// Whether a rule lets a flow begin; arguments as for [`Resolved::evaluate`].
    pub(crate) fn allows(
        &self,
        interface: &CompiledInterface,
        direction: Direction,
        remote: IpAddr,
        protocol: u8,
        port: u16,
    ) -> bool {
        let ipv6 = remote.is_ipv6();
        let policy = &interface.policy[policy_index(direction, ipv6)];
        let mut whole = [Step { low: 0, class: 0 }];
        let steps = self.steps(policy, ipv6, &mut whole);
        let address = number(remote);
        let at = steps.partition_point(|step| step.low <= address);
        let prefixes = steps[at - 1].class;
        let (slice, value) = slice_of(ipv6, protocol, port);
        self.covers(prefixes, slice, value)
            || (policy.scope != 0
                && self.covers(self.class_of(policy, self.identity(remote)), slice, value))
    }

    /// As [`Compiled::untracked`].
    pub(super) fn untracked(
        &self,
        interface: &CompiledInterface,
        ipv6: bool,
        protocol: u8,
        local_port: u16,
        remote_port: u16,
    ) -> u32 {
        self.compiled
            .untracked(interface, ipv6, protocol, local_port, remote_port)
    }

    fn identity(&self, address: IpAddr) -> u32 {
        let members = &self.compiled;
        let place = match address {
            IpAddr::V4(address) => {
                let found = members
                    .members4
                    .binary_search_by(|(one, _)| one.cmp(&address));
                found.map(|place| members.members4[place].1)
            }
            IpAddr::V6(address) => {
                let found = members
                    .members6
                    .binary_search_by(|(one, _)| one.cmp(&address));
                found.map(|place| members.members6[place].1)
            }
        };
        place.unwrap_or(0)
    }

    fn covers(&self, class: u32, slice: usize, value: u16) -> bool {
        self.compiled.covers(class, slice, value)
    }
}

/// The longest match of every address, in steps.
fn unfold(trie: &Trie, outside: u32) -> Vec<Step> {
    let mut steps = Vec::with_capacity(2 * trie.entries.len() + 1);
    set(&mut steps, 0, outside);
    // Prefixes that the sweep is inside of: the last address, and the class.
    let mut inside: Vec<(u128, u32)> = Vec::new();
    for (prefix, class) in &trie.entries {
        let (low, high, last) = bounds(prefix);
        leave(&mut inside, low, last, outside, &mut steps);
        set(&mut steps, low, *class);
        inside.push((high, *class));
    }
    let last = trie
        .entries
        .first()
        .map_or(0, |(prefix, _)| bounds(prefix).2);
    while let Some((high, _)) = inside.pop() {
        let around = inside.last().map_or(outside, |(_, class)| *class);
        if high < last {
            set(&mut steps, high + 1, around);
        }
    }
    steps
}

/// Ends the prefixes that do not reach `low`.
fn leave(
    inside: &mut Vec<(u128, u32)>,
    low: u128,
    last: u128,
    outside: u32,
    steps: &mut Vec<Step>,
) {
    while let Some((high, _)) = inside.pop_if(|(high, _)| *high < low) {
        let around = inside.last().map_or(outside, |(_, class)| *class);
        if high < last {
            set(steps, high + 1, around);
        }
    }
}

/// Lets a class hold from `low` on, which is not before the last step.
fn set(steps: &mut Vec<Step>, low: u128, class: u32) {
    steps.pop_if(|last| last.low == low);
    if steps.last().is_none_or(|last| last.class != class) {
        steps.push(Step { low, class });
    }
}

/// First and last address of a prefix, and the last of its family.
fn bounds(prefix: &IpNet) -> (u128, u128, u128) {
    let last = super::peers::last(matches!(prefix, IpNet::V6(_)));
    (number(prefix.network()), number(prefix.broadcast()), last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unfolded(entries: &[(&str, u32)]) -> Vec<(u128, u32)> {
        let entries = entries
            .iter()
            .map(|(prefix, class)| (prefix.parse().unwrap(), *class))
            .collect();
        let steps = unfold(&Trie { entries }, 9);
        steps
            .into_iter()
            .map(|step| (step.low, step.class))
            .collect()
    }

    #[test]
    fn prefixes_end_where_those_around_them_go_on() {
        assert_eq!(
            unfolded(&[("10.0.0.0/8", 1), ("10.0.0.0/16", 2), ("10.255.0.0/16", 3)]),
            [
                (0, 9),
                (0x0a00_0000, 2),
                (0x0a01_0000, 1),
                (0x0aff_0000, 3),
                (0x0b00_0000, 9)
            ]
        );
        assert_eq!(
            unfolded(&[("0.0.0.0/1", 1), ("128.0.0.0/1", 2)]),
            [(0, 1), (0x8000_0000, 2)]
        );
        assert_eq!(
            unfolded(&[
                ("::/128", 1),
                ("ffff::/16", 2),
                ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", 3)
            ]),
            [(0, 1), (1, 9), (0xffff << 112, 2), (u128::MAX, 3)]
        );
    }
}
