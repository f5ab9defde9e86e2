//! Definitions whose rules fit the packets of a pattern.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::frame::{LOCAL_PORT, PEER4, PEER6};
use super::pattern::{prefix4, prefix6, rule_port};

/// Tracked flows that there is room for by default, and entries of the preallocated map that new
/// flows go into.
pub(crate) const ROOM: u32 = 262_144;
/// Room in the world of 1 M flows: a table is no fuller than operators leave it.
pub(crate) const LARGE: u32 = 1 << 21;
/// Interfaces with so many rules over so many prefixes.
pub(crate) const RULES: [(&str, u32, u32); 4] = [
    ("10-10", 10, 10),
    ("10-10k", 10, 10_000),
    ("1k-10k", 1000, 10_000),
    ("100k-10k", 100_000, 10_000),
];

/// Port that no rule allows.
pub(crate) const CLOSED: u16 = 7;

/// A definition in the making.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    text: String,
}

impl Policy {
    /// With room for so many tracked flows.
    pub(crate) fn new(allowance: u32) -> Self {
        Self {
            text: format!("[conntrack]\nallowance = {allowance}\naccounting = true\n"),
        }
    }

    /// The definition file.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// An interface that is the workload's own.
    pub(crate) fn interface(&mut self, name: &str, group: &str) {
        let _ = write!(
            self.text,
            "[interfaces.{name}]\norientation = \"own\"\ngroups = [\"{group}\"]\n\
             addresses = [\"10.1.0.10\", \"2001:db8:1::10\"]\n"
        );
    }

    /// A timeout of the interface just given, in seconds.
    pub(crate) fn timeout(&mut self, name: &str, seconds: u32) {
        let _ = writeln!(self.text, "timeouts = {{ {name} = {seconds} }}");
    }

    /// A group of TCP rules either way, each with a port and its share of the prefixes.
    pub(crate) fn group(&mut self, name: &str, rules: u32, prefixes: u32) {
        self.group_from(name, 0, rules, prefixes);
    }

    /// The same with ports that begin with those of another rule than the first.
    pub(crate) fn group_from(&mut self, name: &str, port: u32, rules: u32, prefixes: u32) {
        let (mut list, mut lists) = (String::new(), String::new());
        for rule in 0..rules {
            let mut peers = String::new();
            let first = u64::from(rule) * u64::from(prefixes) / u64::from(rules);
            let end = u64::from(rule + 1) * u64::from(prefixes) / u64::from(rules);
            for number in first as u32..(end.max(first + 1)) as u32 {
                let _ = write!(peers, "\"{}\", \"{}\", ", cidr4(number), cidr6(number));
            }
            // Prefixes of one list are one class of addresses.
            let peers = if prefixes > rules {
                let _ = write!(lists, "[prefix_lists.{name}-{rule}]\nentries = [{peers}]\n");
                format!("prefix_list = \"{name}-{rule}\"")
            } else {
                format!("cidr = [{peers}]")
            };
            let port = rule_port(port + rule);
            let _ = writeln!(list, "{{ protocol = \"tcp\", ports = {port}, {peers} }},");
        }
        let _ = write!(
            self.text,
            "{lists}[groups.{name}]\ningress = [\n{list}]\negress = [\n{list}]\n"
        );
    }

    /// A group with the rules given.
    pub(crate) fn rules(&mut self, name: &str, ingress: &str, egress: &str) {
        let _ = write!(
            self.text,
            "[groups.{name}]\ningress = [{ingress}]\negress = [{egress}]\n"
        );
    }

    /// Members of a group: consecutive addresses of each family from these on.
    pub(crate) fn members(&mut self, group: &str, first: (u32, u128), count: u32) {
        let _ = write!(self.text, "[members.{group}]\naddresses = [\n");
        for number in 0..count {
            let ipv4 = Ipv4Addr::from(first.0 + number);
            let ipv6 = Ipv6Addr::from(first.1 + u128::from(number));
            let _ = writeln!(self.text, "\"{ipv4}\", \"{ipv6}\",");
        }
        self.text.push_str("]\n");
    }
}

/// The definition of a world.
pub(crate) fn definition(world: &str) -> Policy {
    let mut policy = Policy::new(if world.starts_with("large") {
        LARGE
    } else {
        ROOM
    });
    if let Some(members) = world.strip_suffix(" members") {
        let count = match members {
            "10" => 10,
            "10 k" => 10_000,
            _ => 1_000_000,
        };
        let rule = format!(
            "{{ protocol = \"tcp\", ports = {}, group = \"peers\" }}",
            rule_port(0)
        );
        policy.rules("own", &rule, &rule);
        policy.rules("peers", "", "");
        policy.members(
            "peers",
            (u32::from_be_bytes(PEER4), u128::from_be_bytes(PEER6)),
            count,
        );
        policy.interface("talk", "own");
        return policy;
    }
    if world.starts_with("flood") || world.starts_with("brief") {
        let peers = "cidr = [\"100.64.0.0/10\", \"2001:db8:2::/48\"]";
        policy.rules(
            "peers",
            &format!("{{ protocol = \"tcp\", ports = {LOCAL_PORT}, {peers} }}"),
            &format!("{{ protocol = \"tcp\", ports = \"1-65535\", {peers} }}"),
        );
        policy.interface("talk", "peers");
        if world.starts_with("brief") {
            policy.timeout("tcp_syn_sent", 1);
        }
        return policy;
    }
    policy.group("thousand", 1000, 1000);
    policy.interface("talk", "thousand");
    policy.interface("thousand", "thousand");
    match world {
        "small" => {
            let all = "{ protocol = \"all\", cidr = [\"0.0.0.0/0\", \"::/0\"] }";
            policy.rules("open", all, all);
            policy.interface("open", "open");
            let dns = "{ protocol = \"udp\", ports = 53, cidr = [\"100.64.0.0/10\", \"2001:db8:2::/48\"] }";
            policy.rules("dns", dns, "");
            policy.interface("dns", "dns");
        }
        "rules" => {
            for (name, rules, prefixes) in RULES.into_iter().filter(|(_, rules, _)| *rules <= 1000)
            {
                policy.group(name, rules, prefixes);
                policy.interface(name, name);
            }
        }
        "100 k rules" => {
            policy.group("100k-10k", 100_000, 10_000);
            policy.interface("100k-10k", "100k-10k");
        }
        "host" => {
            for number in 2..1000 {
                let name = format!("other-{number}");
                // Other ports make them other policies.
                policy.group_from(&name, number, 10, 10);
                policy.interface(&name, &name);
            }
        }
        _ => {}
    }
    policy
}

fn cidr4(number: u32) -> String {
    let (network, length) = prefix4(number);
    format!("{}/{length}", Ipv4Addr::from(network))
}

fn cidr6(number: u32) -> String {
    let (network, length) = prefix6(number);
    format!("{}/{length}", Ipv6Addr::from(u128::from(network) << 64))
}
