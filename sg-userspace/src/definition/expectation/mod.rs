//! `tests` of a definition: who is expected to reach whom, asked of the model.
//!
//! What is asked is whether a new flow may be opened: the egress rules of the one side and the ingress rules of the
//! other, each where the definition says what they are. Addresses that are read from devices when the definition is
//! applied are not known here; such a side is known by its groups, and rules for narrower prefixes than everywhere do
//! not count for it.

use std::fmt;
use std::net::IpAddr;

use sg_common::verdict::Direction;

use super::findings::Findings;
use super::tree::{Definition, Endpoint, Expectation, Expected};
use crate::model::{Group, Model, Peer, Rule, Traffic, protocol};

mod station;

use station::Station;

/// Pairs of stations times rules that one test may take.
const STEPS: usize = 50_000_000;

/// What became of one test.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Outcome {
    /// The test, as one line.
    pub test: String,
    /// File it stands in.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// Whether the model does what is expected.
    pub passed: bool,
    /// An example of what it does: the packet, and the rule that allows it or whose rules do not.
    pub because: String,
}

/// Runs all tests of a definition; those that fail are errors, too.
pub(super) fn run(
    definition: &Definition,
    model: &Model,
    sources: &[super::Source],
    findings: &mut Findings,
) -> Vec<Outcome> {
    let tests = definition.files.iter().flat_map(|file| &file.expectations);
    let mut outcomes = Vec::new();
    for test in tests {
        let (passed, because) = judge(test, model);
        if !passed {
            findings
                .error(
                    "test-failed",
                    test.at,
                    format!("expected: {test}; {because}"),
                )
                .help("nothing is applied while a test fails: correct the rules, or the test");
        }
        let source = &sources[test.at.file as usize];
        outcomes.push(Outcome {
            test: test.to_string(),
            file: source.name.to_string(),
            line: source.position(test.at.start as usize).line,
            passed,
            because,
        });
    }
    outcomes
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}: ")?;
        }
        let expected = match self.expect {
            Expected::Allow => "allow",
            Expected::Deny => "deny",
        };
        let (from, to) = (&self.from.value, &self.to.value);
        write!(f, "{expected} {} from {from} to {to}", self.traffic)?;
        match self.ipv6 {
            Some(true) => f.write_str(" over IPv6"),
            Some(false) => f.write_str(" over IPv4"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Interface(name) => write!(f, "interface:{name}"),
            Self::PrefixList(name) => write!(f, "prefix_list:{name}"),
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => {
                write!(f, "{}", net.addr())
            }
            Self::Net(net) => write!(f, "{net}"),
            Self::Internet => f.write_str("internet"),
        }
    }
}

/// One packet that opens a flow, without its ports.
struct Packet<'s> {
    ipv6: bool,
    protocol: u8,
    port: u16,
    from: &'s Station<'s>,
    to: &'s Station<'s>,
}

fn judge(test: &Expectation, model: &Model) -> (bool, String) {
    let (from, to) = (
        station::stations(&test.from.value, model),
        station::stations(&test.to.value, model),
    );
    let rules = 1 + model.rule_count();
    if from.len().saturating_mul(to.len()).saturating_mul(rules) > STEPS {
        let message = "too many addresses and rules to try each: name narrower sides";
        return (false, message.into());
    }
    if !from
        .iter()
        .chain(&to)
        .any(|station| station.groups.is_some())
    {
        return (
            false,
            "no rule of this definition judges what goes between the two".into(),
        );
    }
    let (protocol, port) = packet_of(test.traffic);
    let mut example = None;
    for (from, to) in from
        .iter()
        .flat_map(|from| to.iter().map(move |to| (from, to)))
    {
        for ipv6 in [false, true] {
            let fits = |station: &Station<'_>| {
                station
                    .address
                    .is_none_or(|address| address.is_ipv6() == ipv6)
            };
            let asked = test.ipv6.is_none_or(|own| own == ipv6) && travels(test.traffic, ipv6);
            if !asked || !fits(from) || !fits(to) {
                continue;
            }
            let packet = Packet {
                ipv6,
                protocol,
                port,
                from,
                to,
            };
            let verdict = packet.verdict(model);
            let as_expected = verdict.is_ok() == (test.expect == Expected::Allow);
            let because = match verdict {
                Ok(rules) => format!("{packet} is allowed by {rules}"),
                Err(who) => format!("{packet} is denied: no {who} allows it"),
            };
            if !as_expected {
                return (false, because);
            }
            example.get_or_insert(because);
        }
    }
    match example {
        Some(because) => (true, because),
        None => (
            false,
            "the two have no address family in common that it could travel over".into(),
        ),
    }
}

/// Whether it is carried by a family at all.
fn travels(traffic: Traffic, ipv6: bool) -> bool {
    match traffic {
        Traffic::Icmp(_) => !ipv6,
        Traffic::Icmpv6(_) => ipv6,
        _ => true,
    }
}

/// Protocol number and port, as [`Traffic::matches`] takes them.
fn packet_of(traffic: Traffic) -> (u8, u16) {
    match traffic {
        // A protocol that no rule can name, by its number, in a sensible definition (RFC 3692).
        Traffic::All => (253, 0),
        Traffic::Tcp(ports) => (protocol::TCP, ports.from),
        Traffic::Udp(ports) => (protocol::UDP, ports.from),
        Traffic::Icmp(icmp) => (protocol::ICMP, icmp.range().0),
        Traffic::Icmpv6(icmp) => (protocol::ICMPV6, icmp.range().0),
        Traffic::Protocol(number) => (number, 0),
    }
}

impl Packet<'_> {
    /// The rules that allow it, or whose rules do not.
    fn verdict(&self, model: &Model) -> Result<String, String> {
        let mut allowed = Vec::new();
        for (direction, own, other) in [
            (Direction::Egress, self.from, self.to),
            (Direction::Ingress, self.to, self.from),
        ] {
            let Some(groups) = &own.groups else { continue };
            match self.rule(model, direction, groups, other) {
                Some((group, rule)) => {
                    let place = rule.origin.as_ref().map_or_else(String::new, |origin| {
                        format!(" ({}:{})", origin.file, origin.line)
                    });
                    allowed.push(format!("{} of {group}{place}", direction.name()));
                }
                None => {
                    let rule = format!("{} rule of {}", direction.name(), list(groups));
                    return Err(rule);
                }
            }
        }
        Ok(allowed.join(" and "))
    }

    fn rule<'m>(
        &self,
        model: &'m Model,
        direction: Direction,
        groups: &[&'m str],
        other: &Station<'_>,
    ) -> Option<(&'m str, &'m Rule)> {
        groups.iter().find_map(|name| {
            let group: &Group = model.groups.get(*name)?;
            let matches = |rule: &&Rule| {
                rule.traffic.matches(self.ipv6, self.protocol, self.port)
                    && self.covers(model, &rule.peer, other)
            };
            group
                .rules(direction)
                .iter()
                .find(matches)
                .map(|rule| (*name, rule))
        })
    }

    fn covers(&self, model: &Model, peer: &Peer, other: &Station<'_>) -> bool {
        let in_net = |net: &ipnet::IpNet| match other.address {
            Some(address) => net.contains(&address),
            None => net.prefix_len() == 0 && matches!(net, ipnet::IpNet::V6(_)) == self.ipv6,
        };
        match peer {
            Peer::Cidr(net) => in_net(net),
            Peer::PrefixList(name) => model
                .prefix_lists
                .get(name)
                .is_some_and(|nets| nets.iter().any(in_net)),
            Peer::GroupOf(_, family) if family.is_ipv6() != self.ipv6 => false,
            Peer::Group(name) | Peer::GroupOf(name, _) => other.member_of.contains(&name.as_str()),
        }
    }
}

impl fmt::Display for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |station: &Station<'_>| match (station.name, station.address) {
            (Some(name), Some(address)) => format!("{name} ({address})"),
            (Some(name), None) => name.to_owned(),
            (None, address) => address.map_or_else(
                || "anywhere".to_owned(),
                |address: IpAddr| address.to_string(),
            ),
        };
        let family = if self.ipv6 { "IPv6" } else { "IPv4" };
        write!(f, "{family} from {} to {}", side(self.from), side(self.to))
    }
}

fn list(groups: &[&str]) -> String {
    match groups {
        [] => "an interface without groups".to_owned(),
        [one] => format!("group {one}"),
        many => format!("groups {}", many.join(", ")),
    }
}

#[cfg(test)]
mod tests;
