//! Section 12, what is untracked, and how a rule of section 13 matches.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    Direction,
    entry::Key,
    ip::{ICMP, ICMPV6, TCP, UDP},
    policy::{Interface, Peer, Policy, Prefix, Rule, What},
};

/// What a rule is asked about beside the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Destination port.
    Port(u16),
    /// ICMP type and code.
    Icmp(u8, u8),
    Nothing,
}

/// What a policy says of one interface.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) interface: &'a Interface,
}

/// The interfaces that have a group with `on_revoke = "reevaluate"`.
pub(crate) fn reevaluating(policy: &Policy) -> BTreeSet<String> {
    let reevaluates = |name: &String| {
        policy
            .groups
            .get(name)
            .is_some_and(|group| group.reevaluate)
    };
    policy
        .interfaces
        .iter()
        .filter(|(_, interface)| interface.groups.iter().any(reevaluates))
        .map(|(name, _)| name.clone())
        .collect()
}

impl<'a> View<'a> {
    /// The interface of that name.
    pub(crate) fn new(policy: &'a Policy, name: &str) -> Option<Self> {
        let interface = policy.interfaces.get(name)?;
        Some(Self { policy, interface })
    }

    /// A rule of the direction allows it.
    pub(crate) fn allows(
        &self,
        direction: Direction,
        remote: IpAddr,
        protocol: u8,
        detail: Detail,
    ) -> bool {
        self.rules(direction).any(|rule| {
            covers(rule.what, remote.is_ipv6(), protocol, detail)
                && self.is_peer(&rule.peer, remote)
        })
    }

    /// The flow is judged packet by packet.
    pub(crate) fn is_untracked(&self, key: &Key) -> bool {
        !self.untracked_openings(key).is_empty()
    }

    /// Directions of the openings that are judged packet by packet, by which side's.
    pub(crate) fn untracked_openings(&self, key: &Key) -> Vec<Direction> {
        if self.interface.track_always || !matches!(key.protocol, TCP | UDP) {
            return Vec::new();
        }
        let covered = |direction, port| {
            self.rules_from_everywhere(direction, key).any(|rule| {
                covers(
                    rule.what,
                    key.remote.is_ipv6(),
                    key.protocol,
                    Detail::Port(port),
                )
            })
        };
        // Ports at which coverage can begin: behind the end of some rule, and at the first one.
        let open = |direction| {
            let begins = self
                .rules_from_everywhere(direction, key)
                .filter_map(|rule| match rule.what {
                    What::Tcp(_, last) | What::Udp(_, last) => last.checked_add(1),
                    _ => None,
                });
            begins.chain([0]).all(|port| covered(direction, port))
        };
        let mut openings = Vec::new();
        if open(Direction::Out) && covered(Direction::In, key.local_port) {
            openings.push(Direction::In);
        }
        if open(Direction::In) && covered(Direction::Out, key.remote_port) {
            openings.push(Direction::Out);
        }
        openings
    }

    fn rules(&self, direction: Direction) -> impl Iterator<Item = &'a Rule> {
        let policy = self.policy;
        let groups = self
            .interface
            .groups
            .iter()
            .filter_map(|name| policy.groups.get(name));
        groups.flat_map(move |group| match direction {
            Direction::In => &group.ingress,
            Direction::Out => &group.egress,
        })
    }

    /// Those whose peer is every address of the flow's family.
    fn rules_from_everywhere(
        &self,
        direction: Direction,
        key: &Key,
    ) -> impl Iterator<Item = &'a Rule> {
        let policy = self.policy;
        let ipv6 = key.remote.is_ipv6();
        self.rules(direction).filter(move |rule| match &rule.peer {
            Peer::Prefix(prefix) => is_everywhere(prefix, ipv6),
            Peer::List(name) => policy
                .lists
                .get(name)
                .is_some_and(|list| list.iter().any(|prefix| is_everywhere(prefix, ipv6))),
            Peer::Group(_) => false,
        })
    }

    fn is_peer(&self, peer: &Peer, remote: IpAddr) -> bool {
        match peer {
            Peer::Prefix(prefix) => contains(prefix, remote),
            Peer::List(name) => self
                .policy
                .lists
                .get(name)
                .is_some_and(|list| list.iter().any(|prefix| contains(prefix, remote))),
            Peer::Group(name) => {
                let listed = self
                    .policy
                    .groups
                    .get(name)
                    .is_some_and(|group| group.members.contains(&remote));
                let carried = self.policy.interfaces.values().any(|interface| {
                    interface.groups.contains(name)
                        && interface
                            .addresses
                            .as_ref()
                            .is_some_and(|known| known.contains(&remote))
                });
                listed || carried
            }
        }
    }
}

/// Protocol, ports, type and code fit.
fn covers(what: What, ipv6: bool, protocol: u8, detail: Detail) -> bool {
    let port_within =
        |first, last| matches!(detail, Detail::Port(port) if first <= port && port <= last);
    let message_fits = |kind: Option<u8>, code: Option<u8>| matches!(detail, Detail::Icmp(k, c) if kind.is_none_or(|kind| kind == k) && code.is_none_or(|code| code == c));
    match what {
        What::All => true,
        What::Tcp(first, last) => protocol == TCP && port_within(first, last),
        What::Udp(first, last) => protocol == UDP && port_within(first, last),
        What::Icmp(kind, code) => !ipv6 && protocol == ICMP && message_fits(kind, code),
        What::Icmpv6(kind, code) => ipv6 && protocol == ICMPV6 && message_fits(kind, code),
        What::Number(number) => protocol == number,
    }
}

fn is_everywhere(prefix: &Prefix, ipv6: bool) -> bool {
    prefix.0.is_ipv6() == ipv6 && prefix.1 == 0
}

/// The address agrees with the prefix in as many bits as count.
fn contains(prefix: &Prefix, address: IpAddr) -> bool {
    let Prefix(network, length) = *prefix;
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            agree(&network.octets(), &address.octets(), length)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            agree(&network.octets(), &address.octets(), length)
        }
        _ => false,
    }
}

fn agree(one: &[u8], other: &[u8], bits: u8) -> bool {
    let bit = |octets: &[u8], at: usize| octets[at / 8] >> (7 - at % 8) & 1;
    (0..usize::from(bits).min(one.len() * 8)).all(|at| bit(one, at) == bit(other, at))
}
