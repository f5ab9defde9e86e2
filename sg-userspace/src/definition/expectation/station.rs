//! What a side of a test stands for.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::super::tree::Endpoint;
use super::internet::internet;
use crate::model::{Model, Peer};

/// One end of a packet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Station<'m> {
    /// Interface or group, for messages.
    pub(super) name: Option<&'m str>,
    /// Its address; `None`: not known before the definition is applied.
    pub(super) address: Option<IpAddr>,
    /// Groups whose rules judge it; `None`: nobody here does.
    pub(super) groups: Option<Vec<&'m str>>,
    /// Groups whose members it is one of.
    pub(super) member_of: Vec<&'m str>,
}

/// All that an endpoint stands for; of prefixes as many addresses as rules tell apart.
pub(super) fn stations<'m>(endpoint: &'m Endpoint, model: &'m Model) -> Vec<Station<'m>> {
    match endpoint {
        Endpoint::Interface(name) => of_interface(name, model),
        Endpoint::Group(name) => of_group(name, model),
        Endpoint::Net(net) => of_nets(std::slice::from_ref(net), model),
        Endpoint::PrefixList(name) => {
            let nets = model.prefix_lists.get(name).map(Vec::as_slice);
            of_nets(nets.unwrap_or_default(), model)
        }
        Endpoint::Internet => internet(model)
            .into_iter()
            .map(|address| outside(address, model))
            .collect(),
    }
}

fn of_interface<'m>(name: &'m str, model: &'m Model) -> Vec<Station<'m>> {
    let Some((name, interface)) = model.interfaces.get_key_value(name) else {
        return Vec::new();
    };
    let groups: Vec<&str> = interface.groups.iter().map(String::as_str).collect();
    let station = |address| Station {
        name: Some(name),
        address,
        groups: Some(groups.clone()),
        member_of: address.map_or_else(|| groups.clone(), |address| member_of(address, model)),
    };
    match interface.addresses.as_deref() {
        None | Some([]) => vec![station(None)],
        Some(addresses) => addresses
            .iter()
            .map(|address| station(Some(*address)))
            .collect(),
    }
}

/// Interfaces that carry the group, and members elsewhere, which are judged by all groups that they are members of; if
/// there are none, somebody whom it alone judges.
fn of_group<'m>(group: &'m str, model: &'m Model) -> Vec<Station<'m>> {
    let carry = model
        .interfaces
        .iter()
        .filter(|(_, interface)| interface.groups.iter().any(|own| own == group));
    let mut stations: Vec<Station<'_>> = carry
        .flat_map(|(name, _)| of_interface(name, model))
        .collect();
    let elsewhere = model.members.get(group).into_iter().flatten();
    stations.extend(elsewhere.map(|address| {
        let groups = member_of(*address, model);
        Station {
            name: Some(group),
            address: Some(*address),
            groups: Some(groups.clone()),
            member_of: groups,
        }
    }));
    if stations.is_empty() {
        stations.push(Station {
            name: Some(group),
            address: None,
            groups: Some(vec![group]),
            member_of: vec![group],
        });
    }
    stations
}

/// Groups that an address is a member of: those of interfaces that have it, and those that list it.
fn member_of(address: IpAddr, model: &Model) -> Vec<&str> {
    let carried = model.interfaces.values().filter(|interface| {
        let addresses = interface.addresses.as_deref().unwrap_or_default();
        addresses.contains(&address)
    });
    let carried = carried.flat_map(|interface| &interface.groups);
    let lists = model.members.iter();
    let listed = lists.filter(|(_, members)| members.contains(&address));
    let groups: BTreeSet<&str> = carried
        .chain(listed.map(|(group, _)| group))
        .map(String::as_str)
        .collect();
    groups.into_iter().collect()
}

/// An address: that of an interface, or one that nobody here judges.
fn outside(address: IpAddr, model: &Model) -> Station<'_> {
    let own = model.interfaces.iter().find(|(_, interface)| {
        let addresses = interface.addresses.as_deref().unwrap_or_default();
        addresses.contains(&address)
    });
    if let Some((name, interface)) = own {
        let groups: Vec<&str> = interface.groups.iter().map(String::as_str).collect();
        return Station {
            name: Some(name),
            address: Some(address),
            groups: Some(groups),
            member_of: member_of(address, model),
        };
    }
    Station {
        name: None,
        address: Some(address),
        groups: None,
        member_of: member_of(address, model),
    }
}

/// One address of each part of the prefixes that rules treat alike: such parts begin and end where a prefix of a
/// rule, or a member, does.
fn of_nets<'m>(nets: &[IpNet], model: &'m Model) -> Vec<Station<'m>> {
    let mut addresses = BTreeSet::new();
    for net in nets {
        addresses.extend([net.network(), net.broadcast()]);
    }
    for edge in edges(model) {
        if nets.iter().any(|net| net.contains(&edge)) {
            addresses.insert(edge);
        }
    }
    addresses
        .into_iter()
        .map(|address| outside(address, model))
        .collect()
}

/// First and last address of every prefix and member of the model, and those just outside.
fn edges(model: &Model) -> BTreeSet<IpAddr> {
    let mut edges = BTreeSet::new();
    for net in nets(model) {
        let (first, last) = (net.network(), net.broadcast());
        edges.extend([first, last]);
        edges.extend(before(first));
        edges.extend(behind(last));
    }
    let of_interfaces = model
        .interfaces
        .values()
        .flat_map(|interface| interface.addresses.iter().flatten());
    for address in of_interfaces.chain(model.members.values().flatten()) {
        edges.insert(*address);
        edges.extend(before(*address));
        edges.extend(behind(*address));
    }
    edges
}

/// Prefixes of all rules and lists.
pub(super) fn nets(model: &Model) -> impl Iterator<Item = IpNet> + '_ {
    let rules = model
        .groups
        .values()
        .flat_map(|group| group.ingress.iter().chain(&group.egress));
    let of_rules = rules.filter_map(|rule| match &rule.peer {
        Peer::Cidr(net) => Some(*net),
        _ => None,
    });
    of_rules.chain(model.prefix_lists.values().flatten().copied())
}

fn before(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => u32::from(address)
            .checked_sub(1)
            .map(|bits| Ipv4Addr::from(bits).into()),
        IpAddr::V6(address) => u128::from(address)
            .checked_sub(1)
            .map(|bits| Ipv6Addr::from(bits).into()),
    }
}

fn behind(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => u32::from(address)
            .checked_add(1)
            .map(|bits| Ipv4Addr::from(bits).into()),
        IpAddr::V6(address) => u128::from(address)
            .checked_add(1)
            .map(|bits| Ipv6Addr::from(bits).into()),
    }
}
