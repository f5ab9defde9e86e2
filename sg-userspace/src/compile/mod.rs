//! Resolved policy to map content. Pure: indexes are relative to the bank that will hold them.
//!
//! A new flow of family f and direction d is judged by `policy[policy_index(d, f)]` of its
//! interface: class A is the longest match of the remote address in the policy's trie, or
//! `any_class` where no prefix covers it; class B is `identities[(scope, identity of the remote)]`
//! where `scope` is not 0. The flow is allowed if a range of A or B holds its port in the slice of
//! its protocol. A longest match is one prefix only, so each class of a trie holds what all
//! covering prefixes allow. Tries become search trees as long as there is room, the largest first, because
//! there most is won.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use sg_common::abi::MAX_NODES;
use sg_common::classify::{BY_LOCAL, BY_REMOTE};
use sg_common::layout::{
    Class, IdentityKey, Node, Policy, Range, TIMEOUTS, interface_flags, policy_flags, policy_index,
    slice,
};
use sg_common::verdict::Direction;

use crate::model::{IcmpErrors, OnRevoke, Orientation, RuleId, Track, protocol};
use crate::resolve::{Resolved, ResolvedInterface};

mod classes;
mod error;
mod identities;
mod policies;
mod ranges;
mod rule_sets;
mod trees;

pub use error::{Capacity, CompileError};
pub use identities::Membership;

use policies::Policies;

/// Compiles a policy.
///
/// # Errors
/// A limit of [`sg_common::abi`] or of the definition that the policy does not fit.
pub fn compile(resolved: &Resolved) -> Result<Compiled, CompileError> {
    compile_within(resolved, MAX_NODES)
}

/// The same with room for so many nodes of search trees; what does not fit becomes an LPM trie.
///
/// # Errors
/// See [`compile`].
pub fn compile_within(resolved: &Resolved, nodes: u32) -> Result<Compiled, CompileError> {
    check_interfaces(resolved)?;
    let mut policies = Policies::new(resolved);
    let mut interfaces = Vec::with_capacity(resolved.interfaces.len());
    for (name, interface) in &resolved.interfaces {
        let mut compiled = interface_record(name, interface, resolved);
        for direction in Direction::ALL {
            for ipv6 in [false, true] {
                compiled.policy[policy_index(direction, ipv6)] = policies
                    .policy(&interface.groups, direction, ipv6)
                    .map_err(|error| error.within(name, direction, ipv6))?;
            }
        }
        interfaces.push(compiled);
    }
    let nodes = nodes.min(MAX_NODES) as usize;
    Ok(Compiled {
        services: resolved.services.clone(),
        allowance: resolved.conntrack.allowance,
        accounting: resolved.conntrack.accounting,
        ..policies.finish(interfaces, nodes)?
    })
}

fn check_interfaces(resolved: &Resolved) -> Result<(), CompileError> {
    let limit = Capacity::INTERFACES;
    if resolved.interfaces.len() > limit {
        return Err(CompileError::Interfaces {
            count: resolved.interfaces.len(),
            limit,
        });
    }
    let reserved = resolved
        .interfaces
        .values()
        .map(|interface| u64::from(interface.settings.reserve))
        .sum();
    let allowance = resolved.conntrack.allowance;
    if reserved > u64::from(allowance) {
        return Err(CompileError::Reserves {
            reserved,
            allowance,
        });
    }
    Ok(())
}

fn interface_record(
    name: &str,
    interface: &ResolvedInterface,
    resolved: &Resolved,
) -> CompiledInterface {
    let settings = &interface.settings;
    let reevaluate = reevaluates(resolved, interface);
    let flags = [
        (true, interface_flags::PRESENT),
        (
            settings.orientation == Some(Orientation::Host),
            interface_flags::HOST,
        ),
        (
            settings.track == Track::Always,
            interface_flags::TRACK_ALWAYS,
        ),
        (settings.tcp_loose, interface_flags::TCP_LOOSE),
        (
            settings.icmp_errors == IcmpErrors::Strict,
            interface_flags::ICMP_STRICT,
        ),
        (settings.dhcp, interface_flags::DHCP),
        (settings.mld, interface_flags::MLD),
        (settings.nd_redirect, interface_flags::ND_REDIRECT),
        (
            interface.addresses.is_some(),
            interface_flags::ADDRESSES_KNOWN,
        ),
        (!resolved.services.is_empty(), interface_flags::SERVICES),
        (reevaluate, interface_flags::REEVALUATE),
        (
            interface.addresses.is_some() && settings.checks_addresses(),
            interface_flags::SOURCE_DEST_CHECK,
        ),
        (!settings.ethertypes.is_empty(), interface_flags::ETHERTYPES),
    ];
    let host = resolved.conntrack.allowance;
    CompiledInterface {
        name: name.into(),
        flags: flags
            .iter()
            .filter(|(set, _)| *set)
            .fold(0, |flags, (_, bit)| flags | bit),
        policy: [Policy::ZERO; 4],
        timeouts: settings.timeouts,
        allowance: settings.allowance.map_or(host, |own| own.min(host)),
        reserve: settings.reserve,
        addresses: if interface.asks_addresses() {
            interface.addresses.clone().unwrap_or_default()
        } else {
            Vec::new()
        },
        ethertypes: settings.ethertypes.clone(),
    }
}

/// Whether tracked flows of an interface are asked again after a change.
fn reevaluates(resolved: &Resolved, interface: &ResolvedInterface) -> bool {
    interface.groups.iter().any(|name| {
        let group = resolved.groups.get(name);
        group.is_some_and(|group| group.on_revoke == OnRevoke::Reevaluate)
    })
}

/// Content of one bank.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compiled {
    /// Classes; index 0 is empty.
    pub classes: Vec<Class>,
    /// Ranges that the classes' slices point into.
    pub ranges: Vec<Range>,
    /// Nodes of the search trees of both families; roots by [`Policy::trie`].
    pub nodes: Vec<Node>,
    /// Tries of IPv4 policies, by [`Policy::trie`].
    pub tries4: Vec<Trie>,
    /// Tries of IPv6 policies, by [`Policy::trie`].
    pub tries6: Vec<Trie>,
    /// IPv4 member addresses and their identity (never 0), ascending.
    pub members4: Vec<(Ipv4Addr, u32)>,
    /// IPv6 member addresses and their identity (never 0), ascending.
    pub members6: Vec<(Ipv6Addr, u32)>,
    /// What members of an identity may reach in a scope: key and class.
    pub identities: Vec<(IdentityKey, u32)>,
    /// What changing members of this generation takes.
    pub membership: Membership,
    /// Interfaces, ascending by name.
    pub interfaces: Vec<CompiledInterface>,
    /// Link-local services that always pass.
    pub services: Vec<IpAddr>,
    /// Rules by number.
    pub rules: Vec<RuleId>,
    /// Sets of rule numbers, ascending, by [`Range::rule_set`]; set 0 is empty.
    pub rule_sets: Vec<Vec<u32>>,
    /// Tracked flows of the host.
    pub allowance: u32,
    /// Packets and bytes are kept per flow.
    pub accounting: bool,
}

impl Compiled {
    /// Whether some flows may need no tracking.
    pub fn bypasses(&self) -> bool {
        let open = policy_flags::OPEN_TCP | policy_flags::OPEN_UDP;
        let mut policies = self.interfaces.iter().flat_map(|one| &one.policy);
        policies.any(|policy| policy.flags & open != 0)
    }

    /// The record of an interface.
    pub fn interface(&self, name: &str) -> Option<&CompiledInterface> {
        let found = self
            .interfaces
            .binary_search_by(|one| one.name.as_str().cmp(name));
        found.ok().map(|place| &self.interfaces[place])
    }

    /// Whose opening of a flow passes without being tracked: [`BY_LOCAL`] and [`BY_REMOTE`]; 0: it is tracked.
    /// See `docs/semantics.md`, section 12.
    pub fn untracked(
        &self,
        interface: &CompiledInterface,
        ipv6: bool,
        protocol: u8,
        local_port: u16,
        remote_port: u16,
    ) -> u32 {
        let (flag, slice) = match protocol {
            protocol::TCP => (policy_flags::OPEN_TCP, slice::TCP),
            protocol::UDP => (policy_flags::OPEN_UDP, slice::UDP),
            _ => return 0,
        };
        if interface.flags & interface_flags::TRACK_ALWAYS != 0 {
            return 0;
        }
        let ingress = &interface.policy[policy_index(Direction::Ingress, ipv6)];
        let egress = &interface.policy[policy_index(Direction::Egress, ipv6)];
        let mut openers = 0;
        if egress.flags & flag != 0 && self.covers(ingress.any_class, slice, local_port) {
            openers |= BY_REMOTE;
        }
        if ingress.flags & flag != 0 && self.covers(egress.any_class, slice, remote_port) {
            openers |= BY_LOCAL;
        }
        openers
    }

    /// Whether a class allows a value of a slice.
    pub(crate) fn covers(&self, class: u32, slice: usize, value: u16) -> bool {
        let run = self.classes[class as usize].slices[slice];
        let ranges = &self.ranges[run.start as usize..][..run.len as usize];
        let at = ranges.partition_point(|range| range.high < value);
        ranges.get(at).is_some_and(|range| range.low <= value)
    }

    /// Ids of the rules in a set.
    pub fn rule_set(&self, set: u32) -> impl Iterator<Item = RuleId> + '_ {
        self.rule_sets[set as usize]
            .iter()
            .map(|rule| self.rules[*rule as usize])
    }
}

/// Content of one longest-prefix trie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Trie {
    /// Prefix and class, ascending; never of length 0.
    pub entries: Vec<(IpNet, u32)>,
}

/// An interface's record, short of what the loader knows (id, clock).
#[derive(Clone, Debug, PartialEq)]
pub struct CompiledInterface {
    /// Name in the definition.
    pub name: String,
    /// [`sg_common::layout::interface_flags`] that follow from the definition: `PRESENT`, `HOST` where
    /// the orientation is given as such, and all of tracking, always-passed and address flags.
    pub flags: u32,
    /// By [`sg_common::layout::policy_index`]; tries and classes relative to their bank.
    pub policy: [Policy; 4],
    /// Idle lives in seconds, by [`sg_common::layout::Timeout`].
    pub timeouts: [u32; TIMEOUTS],
    /// Cap of tracked flows.
    pub allowance: u32,
    /// Tracked flows that no other interface can take.
    pub reserve: u32,
    /// Its addresses, where a program asks for them; empty where unknown (`ADDRESSES_KNOWN` is not set then).
    pub addresses: Vec<IpAddr>,
    /// Ethertypes that pass beside ARP, IPv4 and IPv6.
    pub ethertypes: Vec<u16>,
}

#[cfg(test)]
mod tests;
