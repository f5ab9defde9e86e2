//! `tests` of a definition: who is expected to reach whom, asked of the model.
//!
//! What is asked is whether a new flow may be opened: the egress rules of the one side and the ingress rules of the
//! other, each where the definition says what they are; of the traffic of a test one packet of each part that rules tell
//! apart. Addresses that are read from devices when the definition is applied are not known here; such a side is known
//! by its groups, and a rule for a narrower prefix than everywhere does not show that a packet is allowed, nor that it is
//! denied.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use sg_common::verdict::Direction;

use super::findings::Findings;
use super::tree::{Definition, Endpoint, Expectation, Expected};
use crate::model::{Model, Peer, Rule, Traffic};

mod internet;
mod parts;
mod station;

pub(super) use internet::is_wide;
use parts::Part;
use station::Station;

/// Pairs of stations times rules, and packets times the rules that may be for them, that one test may take.
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

/// One packet that opens a flow.
struct Packet<'s> {
    ipv6: bool,
    part: Part,
    /// Whether the test asks for other traffic, too.
    of_many: bool,
    from: &'s Station<'s>,
    to: &'s Station<'s>,
}

/// Rules of one side for the other.
struct Side<'m> {
    direction: Direction,
    groups: &'m [&'m str],
    other: &'m Station<'m>,
    rules: Vec<(&'m str, &'m Rule)>,
    /// Those that are for some address of the other side, which is not known.
    perhaps: Vec<(&'m str, &'m Rule)>,
}

/// What becomes of a packet.
enum Verdict<'v, 'm> {
    Allowed(Vec<(Direction, &'m str, &'m Rule)>),
    Denied(&'v Side<'m>),
    /// A rule allows it if it is for an address that is not known.
    Undecided(&'v Side<'m>, (&'m str, &'m Rule)),
}

/// Whether a rule is for somebody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Covers {
    No,
    /// It depends on an address that is not known.
    Perhaps,
    Yes,
}

fn judge(test: &Expectation, model: &Model) -> (bool, String) {
    let (from, to) = (
        station::stations(&test.from.value, model),
        station::stations(&test.to.value, model),
    );
    let too_many = || {
        let message = "too many addresses and rules to try each: name narrower sides";
        (false, message.to_owned())
    };
    let rules = 1 + model.rule_count();
    if from.len().saturating_mul(to.len()).saturating_mul(rules) > STEPS {
        return too_many();
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
    let (mut example, mut steps) = (None, 0usize);
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
            let asked = test.ipv6.is_none_or(|own| own == ipv6);
            if !asked || !fits(from) || !fits(to) {
                continue;
            }
            let sides: Vec<Side<'_>> = [
                (Direction::Egress, from, to),
                (Direction::Ingress, to, from),
            ]
            .into_iter()
            .filter_map(|(direction, own, other)| Side::new(model, ipv6, direction, own, other))
            .collect();
            let rules: Vec<Traffic> = sides.iter().flat_map(Side::traffic).collect();
            let parts = parts::parts(test.traffic, ipv6, &rules);
            steps = steps.saturating_add(parts.len().saturating_mul(1 + rules.len()));
            if steps > STEPS {
                return too_many();
            }
            for part in &parts {
                let packet = Packet {
                    ipv6,
                    part: *part,
                    of_many: parts.len() > 1,
                    from,
                    to,
                };
                let verdict = packet.verdict(&sides);
                let as_expected = match test.expect {
                    Expected::Allow => matches!(verdict, Verdict::Allowed(_)),
                    Expected::Deny => matches!(verdict, Verdict::Denied(_)),
                };
                if !as_expected {
                    return (false, format!("{packet} {verdict}"));
                }
                example.get_or_insert_with(|| format!("{packet} {verdict}"));
            }
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

impl<'m> Side<'m> {
    /// `None`: nobody here judges it.
    fn new(
        model: &'m Model,
        ipv6: bool,
        direction: Direction,
        own: &'m Station<'m>,
        other: &'m Station<'m>,
    ) -> Option<Self> {
        let groups = own.groups.as_deref()?;
        let (mut rules, mut perhaps) = (Vec::new(), Vec::new());
        for name in groups {
            let group = model.groups.get(*name);
            for rule in group.map_or(&[][..], |group| group.rules(direction)) {
                match covers(model, ipv6, &rule.peer, other) {
                    Covers::No => {}
                    Covers::Perhaps => perhaps.push((*name, rule)),
                    Covers::Yes => rules.push((*name, rule)),
                }
            }
        }
        Some(Self {
            direction,
            groups,
            other,
            rules,
            perhaps,
        })
    }

    fn traffic(&self) -> impl Iterator<Item = Traffic> {
        let rules = self.rules.iter().chain(&self.perhaps);
        rules.map(|(_, rule)| rule.traffic)
    }
}

impl Packet<'_> {
    fn verdict<'v, 'm>(&self, sides: &'v [Side<'m>]) -> Verdict<'v, 'm> {
        let first = |rules: &[(&'m str, &'m Rule)]| {
            let Part { protocol, port } = self.part;
            let mut rules = rules.iter();
            rules
                .find(|(_, rule)| rule.traffic.matches(self.ipv6, protocol, port))
                .copied()
        };
        let (mut allowed, mut undecided) = (Vec::new(), None);
        for side in sides {
            if let Some((group, rule)) = first(&side.rules) {
                allowed.push((side.direction, group, rule));
            } else if let Some(rule) = first(&side.perhaps) {
                undecided = undecided.or(Some((side, rule)));
            } else {
                return Verdict::Denied(side);
            }
        }
        match undecided {
            Some((side, rule)) => Verdict::Undecided(side, rule),
            None => Verdict::Allowed(allowed),
        }
    }
}

fn covers(model: &Model, ipv6: bool, peer: &Peer, other: &Station<'_>) -> Covers {
    let certain = |yes| if yes { Covers::Yes } else { Covers::No };
    let in_net = |net: &IpNet| match other.address {
        Some(address) => certain(net.contains(&address)),
        None if matches!(net, IpNet::V6(_)) != ipv6 => Covers::No,
        None if net.prefix_len() == 0 => Covers::Yes,
        None => Covers::Perhaps,
    };
    match peer {
        Peer::Cidr(net) => in_net(net),
        Peer::PrefixList(name) => {
            let nets = model.prefix_lists.get(name).into_iter().flatten();
            nets.map(in_net).max().unwrap_or(Covers::No)
        }
        Peer::GroupOf(_, family) if family.is_ipv6() != ipv6 => Covers::No,
        Peer::Group(name) | Peer::GroupOf(name, _) => {
            certain(other.member_of.contains(&name.as_str()))
        }
    }
}

/// What a group's rule is called.
fn called(direction: Direction, group: &str, rule: &Rule) -> String {
    let place = rule.origin.as_ref().map_or_else(String::new, |origin| {
        format!(" ({}:{})", origin.file, origin.line)
    });
    format!("{} of {group}{place}", direction.name())
}

impl fmt::Display for Verdict<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed(rules) => {
                let rules = rules
                    .iter()
                    .map(|(direction, group, rule)| called(*direction, group, rule));
                let rules: Vec<String> = rules.collect();
                write!(f, "is allowed by {}", rules.join(" and "))
            }
            Self::Denied(side) => {
                let (direction, groups) = (side.direction.name(), list(side.groups));
                write!(f, "is denied: no {direction} rule of {groups} allows it")
            }
            Self::Undecided(side, (group, rule)) => {
                let (other, rule) = (side.other.name, called(side.direction, group, rule));
                write!(
                    f,
                    "cannot be decided: the addresses of {} are not known, and {rule} is for some only; \
                     list them in `addresses` of the interface, or in `[members.GROUP]`",
                    other.unwrap_or("one side")
                )
            }
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
        f.write_str(family)?;
        if self.of_many {
            write!(f, " {}", self.part.traffic())?;
        }
        write!(f, " from {} to {}", side(self.from), side(self.to))
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
