//! Definitions whose rules fit the packets of a pattern.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::pattern::{prefix4, prefix6, rule_port};

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

fn cidr4(number: u32) -> String {
    let (network, length) = prefix4(number);
    format!("{}/{length}", Ipv4Addr::from(network))
}

fn cidr6(number: u32) -> String {
    let (network, length) = prefix6(number);
    format!("{}/{length}", Ipv6Addr::from(u128::from(network) << 64))
}
