//! A definition in the words of nftables.
//!
//! Rules become rules one by one, prefix lists interval sets and groups sets of their members'
//! addresses; conntrack of the kernel knows the flows.

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use ipnet::IpNet;
use sg_common::verdict::Direction::{self, Egress, Ingress};
use sg_userspace::{
    model::{Icmp, IcmpErrors, InterfaceSettings, Peer, Ports, Traffic},
    resolve::{Name, Resolved, ResolvedRule},
};

use crate::twin::WORKLOAD;

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    pub(crate) fn pick<T>(self, v4: T, v6: T) -> T {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }
}

/// The ruleset that judges as `interface` of the definition does.
pub(crate) fn ruleset(resolved: &Resolved, interface: &str) -> String {
    let sets = Sets::new(resolved);
    let settings = &resolved.interfaces[interface].settings;
    let mut text = format!(
        "flush ruleset\n\
         table bridge side {{\n\
         chain from {{\ntype filter hook prerouting priority -300\n\
         iifname \"{WORKLOAD}\" meta mark set 1\n}}\n}}\n\
         table inet sg {{\n{}",
        sets.text
    );
    for direction in Direction::ALL {
        let _ = writeln!(text, "chain {} {{", direction.name());
        always(&mut text, settings, direction);
        for rule in resolved.rules_of(interface, direction) {
            for family in Family::ALL {
                if let Some(rule) = sets.rule(rule, direction, family) {
                    let _ = writeln!(text, "{rule} accept");
                }
            }
        }
        text.push_str("}\n");
    }
    let known = match settings.icmp_errors {
        IcmpErrors::Related => "established, related",
        IcmpErrors::Strict => "established",
    };
    text.push_str("chain judge {\ntype filter hook forward priority 0; policy drop\n");
    services(&mut text, resolved);
    let _ = write!(
        text,
        "meta l4proto tcp ct state invalid drop\n\
         ct state {{ {known} }} accept\n\
         meta mark 1 goto egress\n\
         goto ingress\n}}\n}}\n"
    );
    text
}

/// What passes whatever the rules say.
fn always(text: &mut String, on: &InterfaceSettings, direction: Direction) {
    let mut rules = vec!["icmpv6 type { 133, 135, 136 } icmpv6 code 0 ip6 hoplimit 255"];
    let local = "ip6 hoplimit 1 ip6 saddr { ::, fe80::/10 } exthdr hbh exists";
    let (asked, told) = (
        format!("{local} icmpv6 type 130"),
        format!("{local} icmpv6 type {{ 131, 132, 143 }}"),
    );
    match direction {
        Ingress => {
            rules.push("icmpv6 type 134 icmpv6 code 0 ip6 hoplimit 255");
            if on.nd_redirect {
                rules.push("icmpv6 type 137 icmpv6 code 0 ip6 hoplimit 255");
            }
            if on.dhcp {
                rules.push("meta nfproto ipv4 udp sport 67 udp dport 68");
                rules.push("ip6 saddr fe80::/10 ip6 daddr fe80::/10 udp sport 547 udp dport 546");
            }
            if on.mld {
                rules.push(&asked);
            }
        }
        Egress => {
            if on.dhcp {
                rules.push("ip daddr 255.255.255.255 udp sport 68 udp dport 67");
                rules.push("ip6 saddr fe80::/10 ip6 daddr ff02::1:2 udp sport 546 udp dport 547");
            }
            if on.mld {
                rules.push(&told);
            }
        }
    }
    for rule in rules {
        let _ = writeln!(text, "{rule} accept");
    }
}

/// What passes to and from listed services, connections that they open aside.
fn services(text: &mut String, resolved: &Resolved) {
    for service in &resolved.services {
        let family = Family::of(*service);
        let (from, to) = (remote(Ingress, family), remote(Egress, family));
        let _ = writeln!(
            text,
            "{to} {service} meta mark 1 accept\n\
             {from} {service} meta mark 0 meta l4proto != tcp accept\n\
             {from} {service} meta mark 0 tcp flags & (fin | syn | rst | ack) != syn accept"
        );
    }
}

fn remote(direction: Direction, family: Family) -> &'static str {
    match direction {
        Ingress => family.pick("ip saddr", "ip6 saddr"),
        Egress => family.pick("ip daddr", "ip6 daddr"),
    }
}

/// Prefix lists and groups by the sets that stand for them.
struct Sets {
    names: BTreeMap<Peer<Name>, String>,
    text: String,
}

impl Sets {
    fn new(resolved: &Resolved) -> Self {
        let mut sets = Self {
            names: BTreeMap::new(),
            text: String::new(),
        };
        for (number, (name, entries)) in resolved.prefix_lists.iter().enumerate() {
            let peer = Peer::PrefixList(name.clone());
            sets.declare(peer, format!("list{number}"), entries.iter().copied());
        }
        for (number, (name, group)) in resolved.groups.iter().enumerate() {
            let members = group.members.iter().map(|&member| IpNet::from(member));
            let peer = Peer::Group(name.clone());
            sets.declare(peer, format!("group{number}"), members);
        }
        sets
    }

    fn declare(&mut self, peer: Peer<Name>, name: String, nets: impl Iterator<Item = IpNet>) {
        let nets: Vec<IpNet> = nets.map(|net| net.trunc()).collect();
        for family in Family::ALL {
            let elements: Vec<String> = nets
                .iter()
                .filter(|net| Family::of(net.addr()) == family)
                .map(IpNet::to_string)
                .collect();
            let suffix = family.pick("v4", "v6");
            let _ = write!(
                self.text,
                "set {name}{suffix} {{\ntype {}; flags interval; auto-merge\n",
                family.pick("ipv4_addr", "ipv6_addr")
            );
            if !elements.is_empty() {
                let _ = writeln!(self.text, "elements = {{ {} }}", elements.join(", "));
            }
            self.text.push_str("}\n");
        }
        self.names.insert(peer, name);
    }

    /// The matches of a rule; `None` if it never covers a packet of the family.
    fn rule(&self, rule: &ResolvedRule, direction: Direction, family: Family) -> Option<String> {
        let remote = remote(direction, family);
        let peer = match &rule.peer {
            Peer::Cidr(net) if Family::of(net.addr()) != family => return None,
            Peer::Cidr(net) if net.prefix_len() == 0 => {
                format!("meta nfproto {}", family.pick("ipv4", "ipv6"))
            }
            Peer::Cidr(net) => format!("{remote} {}", net.trunc()),
            named => format!("{remote} @{}{}", self.names[named], family.pick("v4", "v6")),
        };
        Some(format!("{peer} {}", traffic(rule.traffic, family)?))
    }
}

fn traffic(traffic: Traffic, family: Family) -> Option<String> {
    Some(match (traffic, family) {
        (Traffic::All, _) => String::new(),
        (Traffic::Tcp(range), _) => ports("tcp", range),
        (Traffic::Udp(range), _) => ports("udp", range),
        (Traffic::Icmp(what), Family::V4) => icmp("icmp", what),
        (Traffic::Icmpv6(what), Family::V6) => icmp("icmpv6", what),
        (Traffic::Icmp(_), Family::V6) | (Traffic::Icmpv6(_), Family::V4) => return None,
        (Traffic::Protocol(number), _) => format!("meta l4proto {number}"),
    })
}

fn ports(protocol: &str, ports: Ports) -> String {
    match (ports.from, ports.to) {
        (0, u16::MAX) => format!("meta l4proto {protocol}"),
        (from, to) if from == to => format!("{protocol} dport {from}"),
        (from, to) => format!("{protocol} dport {from}-{to}"),
    }
}

fn icmp(protocol: &str, what: Icmp) -> String {
    match what {
        Icmp::Any => format!("meta l4proto {protocol}"),
        Icmp::Type(kind) => format!("{protocol} type {kind}"),
        Icmp::Code(kind, code) => format!("{protocol} type {kind} {protocol} code {code}"),
    }
}
