//! Names become addresses: who is a member of which group, and what each interface lets pass.
//!
//! A [`Resolved`] holds all that a policy means at one moment. It is what the control plane stores
//! as "last applied", and it stands on its own: compiling it needs no definition.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sg_common::verdict::Direction;

use crate::model::{
    Conntrack, Group, Interface, InterfaceSettings, Model, OnRevoke, Orientation, Peer, Rule,
};

mod evaluate;
mod name;
mod orphan;

pub use name::Name;

/// Resolves a model with the addresses that interfaces have at the moment.
///
/// `current` is asked for interfaces whose addresses the definition does not list; one that it does
/// not know has unknown addresses and lends its groups no member. Of addresses read from a device,
/// those that mean nothing outside its link (loopback, link-local, multicast, unspecified) make no
/// member either: anybody on another link may have the same.
pub fn resolve(model: &Model, current: &BTreeMap<String, Vec<IpAddr>>) -> Resolved {
    let mut groups: BTreeMap<Name, ResolvedGroup> = model
        .groups
        .iter()
        .map(|(name, group)| (Name::of_definition(name), resolve_group(group)))
        .collect();
    for (group, addresses) in &model.members {
        if let Some(group) = groups.get_mut(&Name::of_definition(group)) {
            // Whole, and not one by one, which takes three times as long.
            group.members = addresses.iter().copied().collect();
        }
    }
    let mut interfaces = BTreeMap::new();
    for (name, interface) in &model.interfaces {
        let resolved = resolve_interface(interface, current.get(name));
        for group in &resolved.groups {
            if let Some(group) = groups.get_mut(group) {
                group.members.extend(member_addresses(interface, &resolved));
            }
        }
        interfaces.insert(name.clone(), resolved);
    }
    Resolved {
        groups,
        prefix_lists: model
            .prefix_lists
            .iter()
            .map(|(name, entries)| (Name::of_definition(name), entries.clone()))
            .collect(),
        interfaces,
        services: model.services.clone(),
        conntrack: model.conntrack,
    }
}

fn resolve_group(group: &Group) -> ResolvedGroup {
    let rules = |rules: &[Rule]| rules.iter().map(resolve_rule).collect();
    ResolvedGroup {
        on_revoke: group.on_revoke,
        ingress: rules(&group.ingress),
        egress: rules(&group.egress),
        members: BTreeSet::new(),
    }
}

fn resolve_rule(rule: &Rule) -> ResolvedRule {
    Rule {
        id: rule.id,
        traffic: rule.traffic,
        peer: rule.peer.map_name(|name| Name::of_definition(name)),
        description: rule.description.clone(),
        origin: rule.origin.clone(),
    }
}

fn resolve_interface(interface: &Interface, current: Option<&Vec<IpAddr>>) -> ResolvedInterface {
    let mut addresses = interface.addresses.as_ref().or(current).cloned();
    if let Some(addresses) = &mut addresses {
        addresses.sort_unstable();
        addresses.dedup();
    }
    ResolvedInterface {
        settings: interface.settings.clone(),
        groups: interface.groups.iter().map(Name::of_definition).collect(),
        addresses,
        orphan: false,
    }
}

fn member_addresses<'a>(
    interface: &'a Interface,
    resolved: &'a ResolvedInterface,
) -> impl Iterator<Item = IpAddr> + 'a {
    let listed = interface.addresses.is_some();
    let all = resolved.addresses.iter().flatten().copied();
    all.filter(move |address| listed || reaches_beyond_its_link(address))
}

/// Whether an address read from a device makes a member.
pub(crate) fn reaches_beyond_its_link(address: &IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(link_local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}

/// A rule whose peer names are [`Name`]s.
pub type ResolvedRule = Rule<Peer<Name>>;

/// The policy of a host at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resolved {
    /// Groups: rules and members.
    pub groups: BTreeMap<Name, ResolvedGroup>,
    /// Prefix lists; host bits are zero.
    pub prefix_lists: BTreeMap<Name, Vec<IpNet>>,
    /// Interfaces by name, orphans included.
    pub interfaces: BTreeMap<String, ResolvedInterface>,
    /// Link-local services that always pass.
    pub services: Vec<IpAddr>,
    /// Connection tracking of the host.
    pub conntrack: Conntrack,
}

/// A group: what it allows and who is in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResolvedGroup {
    /// What becomes of tracked flows whose rule goes.
    #[serde(default)]
    pub on_revoke: OnRevoke,
    /// Rules of traffic towards the workload.
    pub ingress: Vec<ResolvedRule>,
    /// Rules of traffic from the workload.
    pub egress: Vec<ResolvedRule>,
    /// Addresses of the interfaces that carry it, here and on other hosts.
    pub members: BTreeSet<IpAddr>,
}

impl ResolvedGroup {
    /// The rules of one direction.
    pub fn rules(&self, direction: Direction) -> &[ResolvedRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// An interface: its settings, groups and addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResolvedInterface {
    /// How it is found, attached and tracked.
    pub settings: InterfaceSettings,
    /// Its groups; each is in [`Resolved::groups`].
    pub groups: Vec<Name>,
    /// Its addresses; `None`: unknown.
    pub addresses: Option<Vec<IpAddr>>,
    /// The definition names it no longer; it keeps what was last applied: nothing opens by being forgotten.
    #[serde(default)]
    pub orphan: bool,
}

impl ResolvedInterface {
    /// Whether the programs look its addresses up: those of `own` interfaces only for the source and
    /// destination check.
    pub fn asks_addresses(&self) -> bool {
        self.settings.orientation == Some(Orientation::Host) || self.settings.checks_addresses()
    }
}

#[cfg(test)]
mod tests;
