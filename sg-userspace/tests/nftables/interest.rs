//! What is worth trying on a definition: the last value that a rule covers and the first that it
//! does not, at both ends of everything it names.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use sg_common::verdict::Direction;
use sg_userspace::{
    model::{Icmp, Peer, Ports, Traffic},
    resolve::Resolved,
};

use crate::{
    packet::{
        self,
        flag::{ACK, FIN, RST, SYN},
    },
    probe::{self, Probe},
    random::Random,
    translate::Family,
};

/// Addresses that most definitions do not name.
const STRANGERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 18, 7, 7)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x5ca, 0, 0, 0, 0, 7)),
];

/// Somebody on the way.
const ROUTERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 18, 7, 254)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x5ca, 0, 0, 0, 0, 0xfe)),
];

/// What packets may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Tcp(u16),
    Udp(u16),
    Icmp(u8, u8),
    Other(u8),
}

impl Kind {
    /// Protocol number, and port or type and code.
    fn numbers(self, remote: IpAddr) -> (u8, u16) {
        match self {
            Self::Tcp(port) => (packet::TCP, port),
            Self::Udp(port) => (packet::UDP, port),
            Self::Icmp(kind, code) => (packet::icmp_of(remote), u16::from_be_bytes([kind, code])),
            Self::Other(number) => (number, 0),
        }
    }
}

/// A packet that begins something: where to, with whom, and what.
type Beginning = (Direction, IpAddr, Kind);

/// Conversations about one interface of a definition, at most `most` of them.
pub(crate) fn probes(
    resolved: &Resolved,
    interface: &str,
    random: &mut Random,
    most: usize,
) -> Vec<Probe> {
    // Far more is forbidden than allowed; both shall be tried alike often.
    let (allowed, forbidden) = beginnings(resolved, interface)
        .into_iter()
        .partition(|what| allows(resolved, interface, what));
    let mut probes = conversations(resolved, interface, allowed, random, most / 2);
    let rest = most - probes.len();
    probes.extend(conversations(resolved, interface, forbidden, random, rest));
    probes
}

/// Conversations that `whole` allows to begin and `less` does not.
pub(crate) fn lost(
    whole: &Resolved,
    less: &Resolved,
    interface: &str,
    random: &mut Random,
    most: usize,
) -> Vec<Probe> {
    let mut lost = beginnings(whole, interface);
    lost.retain(|what| allows(whole, interface, what) && !allows(less, interface, what));
    conversations(whole, interface, lost, random, most)
}

fn beginnings(resolved: &Resolved, interface: &str) -> Vec<Beginning> {
    let (remotes, kinds) = (remotes(resolved), kinds(resolved, interface));
    let mut all = Vec::new();
    for direction in Direction::ALL {
        for &remote in &remotes {
            all.extend(kinds.iter().map(|&kind| (direction, remote, kind)));
        }
    }
    all
}

fn allows(resolved: &Resolved, interface: &str, &(direction, remote, kind): &Beginning) -> bool {
    let (protocol, port) = kind.numbers(remote);
    let rule = resolved.evaluate(interface, direction, protocol, remote, port);
    rule.is_some()
}

fn conversations(
    resolved: &Resolved,
    interface: &str,
    mut all: Vec<Beginning>,
    random: &mut Random,
    most: usize,
) -> Vec<Probe> {
    let kinds = kinds(resolved, interface);
    let mut probes = Vec::new();
    while !all.is_empty() && probes.len() < most {
        let what = all.swap_remove(random.below(all.len()));
        probes.extend(conversation(random, &kinds, &resolved.services, what));
    }
    probes
}

fn remotes(resolved: &Resolved) -> BTreeSet<IpAddr> {
    let rules = resolved
        .groups
        .values()
        .flat_map(|group| group.ingress.iter().chain(&group.egress));
    let named = rules.filter_map(|rule| match &rule.peer {
        Peer::Cidr(net) => Some(*net),
        Peer::PrefixList(_) | Peer::Group(_) | Peer::GroupOf(..) => None,
    });
    let listed = resolved.prefix_lists.values().flatten().copied();
    let members = resolved.groups.values().flat_map(|group| &group.members);
    let mut remotes = BTreeSet::from(STRANGERS);
    remotes.extend(members);
    remotes.extend(&resolved.services);
    for net in named.chain(listed) {
        remotes.extend(edges(net));
    }
    remotes.retain(|remote| is_possible(*remote));
    remotes
}

/// First and last address of a prefix, and those before and after.
fn edges(net: IpNet) -> Vec<IpAddr> {
    let pair = |first: u128, last: u128| {
        [
            first.wrapping_sub(1),
            first,
            first / 2 + last / 2,
            last,
            last.wrapping_add(1),
        ]
    };
    match net {
        IpNet::V4(net) => pair(
            net.network().to_bits().into(),
            net.broadcast().to_bits().into(),
        )
        .map(|bits| Ipv4Addr::from_bits(bits as u32).into())
        .to_vec(),
        IpNet::V6(net) => pair(net.network().to_bits(), net.broadcast().to_bits())
            .map(|bits| Ipv6Addr::from_bits(bits).into())
            .to_vec(),
    }
}

/// Whether a packet may come from there at all, and from there through a bridge.
fn is_possible(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => (1..224).contains(&address.octets()[0]) && !address.is_loopback(),
        IpAddr::V6(address) => {
            !address.is_multicast()
                && !address.is_loopback()
                && !address.is_unspecified()
                && address.to_ipv4_mapped().is_none()
        }
    }
}

fn kinds(resolved: &Resolved, interface: &str) -> BTreeSet<Kind> {
    let mut kinds = BTreeSet::from([
        Kind::Tcp(0),
        Kind::Tcp(443),
        Kind::Tcp(u16::MAX),
        Kind::Udp(53),
        Kind::Icmp(8, 0),
        Kind::Icmp(128, 0),
        Kind::Icmp(3, 4),
        Kind::Other(47),
        Kind::Other(132),
    ]);
    for rule in Direction::ALL
        .into_iter()
        .flat_map(|direction| resolved.rules_of(interface, direction))
    {
        match rule.traffic {
            Traffic::All => {}
            Traffic::Tcp(range) => {
                kinds.extend(ports(range).map(Kind::Tcp));
                kinds.insert(Kind::Udp(range.from));
            }
            Traffic::Udp(range) => {
                kinds.extend(ports(range).map(Kind::Udp));
                kinds.insert(Kind::Tcp(range.to));
            }
            Traffic::Icmp(what) | Traffic::Icmpv6(what) => kinds.extend(messages(what)),
            Traffic::Protocol(number) => {
                kinds.extend([number, number.wrapping_add(1)].map(Kind::Other));
            }
        }
    }
    kinds
}

fn ports(range: Ports) -> [u16; 4] {
    [
        range.from.wrapping_sub(1),
        range.from,
        range.to,
        range.to.wrapping_add(1),
    ]
}

fn messages(what: Icmp) -> Vec<Kind> {
    match what {
        Icmp::Any => vec![Kind::Icmp(0, 0), Kind::Icmp(255, 255), Kind::Icmp(13, 0)],
        Icmp::Type(kind) => vec![
            Kind::Icmp(kind, 0),
            Kind::Icmp(kind, 255),
            Kind::Icmp(kind.wrapping_sub(1), 255),
            Kind::Icmp(kind.wrapping_add(1), 0),
        ],
        Icmp::Code(kind, code) => vec![
            Kind::Icmp(kind, code),
            Kind::Icmp(kind, code.wrapping_add(1)),
            Kind::Icmp(kind, code.wrapping_sub(1)),
            Kind::Icmp(kind.wrapping_add(1), code),
        ],
    }
}

/// One way of many to try it; `None` where it is no question of rules.
fn conversation(
    random: &mut Random,
    kinds: &BTreeSet<Kind>,
    services: &[IpAddr],
    (to, remote, kind): Beginning,
) -> Option<Probe> {
    let family = Family::of(remote);
    Some(match kind {
        Kind::Tcp(port) => {
            let ports = (source_port(random, kinds, port), port);
            match random.below(10) {
                0 => probe::closed(remote, to, ports),
                1 => probe::reset(remote, to, ports),
                2 => probe::refused(remote, to, ports),
                3 => {
                    let flags = random.of(&[ACK, SYN | ACK, RST, RST | ACK, FIN | ACK]);
                    probe::stray(remote, to, ports, flags)
                }
                _ => probe::handshake(remote, to, ports),
            }
        }
        Kind::Udp(port) => {
            let ports = (source_port(random, kinds, port), port);
            match random.below(6) {
                0 => probe::fragmented(remote, to, ports),
                // Fragments of services pass whether or not they can be put together.
                1 if !services.contains(&remote) => probe::orphan(remote, to),
                2 => probe::unreachable(remote, to, ports, ROUTERS[family as usize]),
                _ => probe::exchange(remote, to, ports),
            }
        }
        Kind::Icmp(kind, code) => message(family, remote, to, kind, code)?,
        Kind::Other(number) => {
            // What these are is asked by other kinds, or they are extension headers.
            let elsewhere = [0, 1, 6, 17, 43, 44, 51, 58, 59, 60, 135, 136, 139, 140];
            if elsewhere.contains(&number) {
                return None;
            }
            probe::other(remote, to, number)
        }
    })
}

fn message(family: Family, remote: IpAddr, to: Direction, kind: u8, code: u8) -> Option<Probe> {
    Some(match (family, kind, code) {
        (Family::V4, 8, 0) | (Family::V6, 128, 0) => probe::echo(remote, to, 40),
        (Family::V4, 13 | 15 | 17, 0) => probe::query(remote, to, kind),
        (Family::V4, 3 | 11 | 12, _) | (Family::V6, 1..=4, _) => {
            probe::unrelated(remote, to, kind, code)
        }
        // Neighbour discovery and multicast listeners have tests of their own.
        (Family::V6, 130..=137 | 143, _) => return None,
        _ => probe::message(remote, to, kind, code),
    })
}

/// Often a port that rules name for the other end.
fn source_port(random: &mut Random, kinds: &BTreeSet<Kind>, port: u16) -> u16 {
    let named: Vec<u16> = kinds
        .iter()
        .filter_map(|kind| match kind {
            Kind::Tcp(port) | Kind::Udp(port) => Some(*port),
            Kind::Icmp(..) | Kind::Other(_) => None,
        })
        .chain([40_000, 50_000])
        .filter(|one| one & !1 != port & !1)
        .collect();
    random.of(&named)
}
