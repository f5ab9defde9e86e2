//! Random definitions.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    Source,
    places::{self, Ip, PORTS},
};
use crate::policy::{Group, Interface, Peer, Policy, Prefix, Rule, What};

/// Flows of a host up to which its tables are made to be full.
pub(super) const TIGHT: u32 = 12;
/// Flows of any other host.
const AMPLE: u32 = 4096;
/// Ethertypes that can be listed: LLDP, PPPoE, the lowest and the highest.
pub(super) const ETHERTYPES: [u16; 4] = [0x88cc, 0x8864, 0x0600, 0xffff];
/// Protocols that rules name by number.
pub(super) const PROTOCOLS: [u8; 5] = [47, 50, 2, 0, 255];

/// Any definition.
pub fn policy(source: &mut Source<'_>) -> Policy {
    let allowance = if source.one_in(4) {
        source.of(&[1, 3, 4, 8, 8, 10, TIGHT])
    } else {
        AMPLE
    };
    let groups: Vec<String> = (0..1 + source.below(5))
        .map(|at| format!("g{at}"))
        .collect();
    let lists: BTreeMap<String, Vec<Prefix>> = (0..source.below(3))
        .map(|at| (format!("p{at}"), list(source)))
        .collect();
    let names: Vec<String> = lists.keys().cloned().collect();
    let groups: BTreeMap<String, Group> = groups
        .iter()
        .map(|name| (name.clone(), group(source, &groups, &names)))
        .collect();
    let carried: Vec<String> = groups.keys().cloned().collect();
    let mut free = allowance;
    let interfaces = (0..1 + source.below(4)).map(|number| {
        let interface = interface(source, number, &carried, &mut free, allowance <= TIGHT);
        (format!("i{number}"), interface)
    });
    let interfaces = interfaces.collect();
    let mut policy = Policy {
        groups,
        lists,
        interfaces,
        services: Vec::new(),
        allowance,
    };
    if source.one_in(2) {
        let ip = source.of(&Ip::BOTH);
        let which = source.below(2);
        policy.services = vec![places::service(ip, which)];
        if source.one_in(2) {
            let other = ip.pick(Ip::V6, Ip::V4);
            policy.services.push(places::service(other, which));
        }
    }
    policy
}

fn list(source: &mut Source<'_>) -> Vec<Prefix> {
    (0..source.below(5)).map(|_| prefix(source)).collect()
}

/// Any prefix, wide or narrow, with or without bits beyond its length.
pub(super) fn prefix(source: &mut Source<'_>) -> Prefix {
    let ip = source.of(&Ip::BOTH);
    let length = if source.one_in(3) {
        0
    } else {
        let v4 = [24, 32, 31, 30, 29, 25, 16, 8, 1];
        let v6 = [64, 128, 127, 126, 125, 112, 48, 32, 1];
        source.of(&ip.pick(v4, v6))
    };
    let address = match source.below(8) {
        0 => places::odd(source, ip),
        _ => places::anybody(source, ip),
    };
    // What stands for IPv4 in IPv6 is refused.
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Prefix(places::link_local(1), length),
        _ => Prefix(address, length),
    }
}

fn everywhere(ip: Ip) -> Prefix {
    Prefix(ip.pick([0; 4].into(), [0; 16].into()), 0)
}

fn group(source: &mut Source<'_>, groups: &[String], lists: &[String]) -> Group {
    let mut group = Group {
        reevaluate: source.one_in(3),
        ingress: rules(source, groups, lists),
        egress: rules(source, groups, lists),
        members: Vec::new(),
    };
    // Wide open in one direction, as most groups are on AWS, now and then in both.
    if source.one_in(2) {
        for ip in Ip::BOTH {
            let peer = Peer::Prefix(everywhere(ip));
            let what = source.of(&[
                What::All,
                What::All,
                What::Tcp(0, 65_535),
                What::Udp(0, 65_535),
            ]);
            let rules = if source.one_in(3) {
                &mut group.ingress
            } else {
                &mut group.egress
            };
            rules.push(Rule { what, peer });
        }
    }
    if source.one_in(3) {
        let ip = source.of(&Ip::BOTH);
        group.members = vec![places::anybody(source, ip)];
    }
    group
}

fn rules(source: &mut Source<'_>, groups: &[String], lists: &[String]) -> Vec<Rule> {
    (0..source.below(5))
        .map(|_| rule(source, groups, lists))
        .collect()
}

/// Any rule.
pub(super) fn rule(source: &mut Source<'_>, groups: &[String], lists: &[String]) -> Rule {
    let ip = source.of(&Ip::BOTH);
    let peer = match source.below(6) {
        0 | 1 => Peer::Prefix(everywhere(ip)),
        2 | 3 => Peer::Prefix(prefix(source)),
        4 => source
            .among(lists)
            .map_or(Peer::Prefix(everywhere(ip)), |name| {
                Peer::List(name.clone())
            }),
        _ => source
            .among(groups)
            .map_or(Peer::Prefix(everywhere(ip)), |name| {
                Peer::Group(name.clone())
            }),
    };
    Rule {
        what: what(source, ip),
        peer,
    }
}

fn what(source: &mut Source<'_>, ip: Ip) -> What {
    match source.below(12) {
        0..=3 => {
            let (low, high) = ports(source);
            What::Tcp(low, high)
        }
        4..=6 => {
            let (low, high) = ports(source);
            What::Udp(low, high)
        }
        7 => What::All,
        8 | 9 => {
            let kind = source.of(ip.pick(&[8, 8, 0, 3, 13, 255], &[128, 128, 129, 1, 135, 255]));
            let code = source.of(&[None, None, Some(0), Some(1), Some(255)]);
            let kind = if source.one_in(4) { None } else { Some(kind) };
            let code = kind.and(code);
            ip.pick(What::Icmp(kind, code), What::Icmpv6(kind, code))
        }
        _ => What::Number(source.of(&PROTOCOLS)),
    }
}

fn ports(source: &mut Source<'_>) -> (u16, u16) {
    let (one, other) = (source.of(&PORTS), source.of(&PORTS));
    match source.below(4) {
        0 => (0, 65_535),
        1 => (one, one),
        _ => (one.min(other), one.max(other)),
    }
}

/// Lives that the definition may give, in seconds; at least four of the steps in which time passes.
const TIMEOUTS: [(&str, &[u32]); 11] = [
    ("tcp_syn_sent", &[20, 120]),
    ("tcp_syn_received", &[20, 60]),
    ("tcp_established", &[60, 350, 432_000]),
    ("tcp_last_ack", &[10, 30]),
    ("tcp_time_wait", &[20, 120]),
    ("tcp_close", &[10, 40]),
    ("tcp_unacknowledged", &[10, 30, 300]),
    ("udp", &[30, 50]),
    ("udp_stream", &[60, 180]),
    ("icmp", &[10, 30, 7200]),
    ("other", &[20, 600, 7200]),
];

fn interface(
    source: &mut Source<'_>,
    number: usize,
    groups: &[String],
    free: &mut u32,
    tight: bool,
) -> Interface {
    let mut carried: Vec<String> = Vec::new();
    for _ in 0..source.of(&[1, 1, 2, 3, 0]) {
        let name = source.among(groups).expect("there is a group");
        if !carried.contains(name) {
            carried.push(name.clone());
        }
    }
    let host = source.one_in(2);
    let mut timeouts = BTreeMap::new();
    for (name, lives) in TIMEOUTS {
        if source.one_in(2) {
            timeouts.insert(name, source.of(lives));
        }
    }
    let mut interface = Interface {
        host,
        groups: carried,
        addresses: addresses(source, number),
        source_dest_check: if source.one_in(4) { !host } else { host },
        track_always: source.one_in(5),
        tcp_loose: source.one_in(4),
        icmp_strict: source.one_in(6),
        dhcp: !source.one_in(6),
        mld: !source.one_in(6),
        nd_redirect: source.one_in(3),
        ethertypes: Vec::new(),
        allowance: None,
        reserve: 0,
        timeouts,
    };
    if source.one_in(3) {
        interface.ethertypes = vec![source.of(&ETHERTYPES)];
    }
    if tight {
        if source.one_in(3) {
            interface.allowance = Some(1 + source.below(*free as usize + 1) as u32)
                .filter(|allowance| *allowance <= *free);
        }
        let most = interface.allowance.unwrap_or(*free).min(*free);
        if source.one_in(3) && most > 0 {
            interface.reserve = 1 + source.below(most as usize) as u32;
            *free -= interface.reserve;
        }
    }
    interface
}

/// Known or not; if so mostly with what the workload sends from.
fn addresses(source: &mut Source<'_>, number: usize) -> Option<Vec<IpAddr>> {
    let own = |ip| places::workload(ip, number);
    match source.below(6) {
        0 | 1 => None,
        2 => Some(vec![own(Ip::V4)]),
        3 if source.one_in(3) => Some(Vec::new()),
        _ => Some(vec![own(Ip::V4), own(Ip::V6)]),
    }
}
