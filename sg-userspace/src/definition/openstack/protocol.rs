//! Protocols by the names and numbers that Neutron takes, with what stands in its port fields.

use super::super::escape::quote;
use super::super::findings::Findings;
use super::super::tree::{At, Located};
use crate::model::{Family, Icmp, Ports, Traffic, protocol};

/// Protocols by name, but for those of ICMP, which depend on the ethertype.
const NAMES: [(&str, u8); 23] = [
    ("ip", 0),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", protocol::TCP),
    ("egp", 8),
    ("udp", protocol::UDP),
    ("dccp", 33),
    ("ipv6-encap", 41),
    ("ipv6-route", 43),
    ("ipv6-frag", 44),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", protocol::ICMPV6),
    ("ipv6-icmp", protocol::ICMPV6),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("ospf", 89),
    ("vrrp", 112),
    ("pgm", 113),
    ("sctp", 132),
    ("udplite", 136),
];
/// What Neutron has with IPv6 only.
const OF_IPV6: [u8; 6] = [41, 43, 44, protocol::ICMPV6, 59, 60];
/// Headers on the way to the transport protocol of an IPv6 packet, and the number for none: no packet is of
/// these.
const NEVER: [u8; 4] = [43, 44, 59, 60];

/// What stands in the fields of ports.
#[derive(Clone, Copy, Debug)]
pub(super) enum Range {
    /// As Neutron has them; `None`: null.
    Given(Option<Located<i64>>, Option<Located<i64>>),
    /// As the command line's lists show them, which leave out each that is 0.
    Shown(Option<i64>, Option<i64>, At),
}

/// Protocol and ports of a rule.
pub(super) fn traffic(
    text: Option<Located<&str>>,
    family: Family,
    range: Range,
    at: At,
    findings: &mut Findings,
) -> Option<Traffic> {
    let Some(text) = text else {
        return without_ports(Traffic::All, range, at, findings);
    };
    let name = text.value.trim().to_ascii_lowercase();
    let number = match name.as_str() {
        "any" => 0,
        "icmp" => protocol::ICMP,
        name => {
            let by_name = NAMES.iter().find(|(own, _)| *own == name);
            let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
            let by_number = name.parse().ok().filter(|_: &u8| plain);
            match by_name.map(|(_, number)| *number).or(by_number) {
                Some(number) => number,
                None => {
                    let message = format!("{} is not a protocol", quote(text.value));
                    findings
                        .error("InvalidParameterValue", text.at, message)
                        .help("one of Neutron's names, any, or a number from 0 to 255");
                    return None;
                }
            }
        }
    };
    // With IPv6 Neutron takes ICMP for that of IPv6.
    let number = match (number, family) {
        (protocol::ICMP, Family::Ipv6) => protocol::ICMPV6,
        _ => number,
    };
    if family == Family::Ipv4 && OF_IPV6.contains(&number) {
        let message = format!("{} is a protocol of IPv6", quote(text.value));
        findings
            .error("InvalidParameterValue", text.at, message)
            .help("the rule's ethertype is IPv4");
        return None;
    }
    match number {
        0 => without_ports(Traffic::All, range, at, findings),
        protocol::TCP => ports(range, at, findings).map(Traffic::Tcp),
        protocol::UDP => ports(range, at, findings).map(Traffic::Udp),
        protocol::ICMP => icmp(range, at, findings).map(Traffic::Icmp),
        protocol::ICMPV6 => icmp(range, at, findings).map(Traffic::Icmpv6),
        number => {
            if family == Family::Ipv6 && NEVER.contains(&number) {
                let message = format!("{} is what no packet is of", quote(text.value));
                findings
                    .warning("never-matches", text.at, message)
                    .help("rules judge the protocol behind all extension headers of IPv6");
            }
            without_ports(Traffic::Protocol(number), range, at, findings)
        }
    }
}

/// Ports of other protocols cannot be judged here, and to allow all of them would be more than was asked for.
fn without_ports(
    traffic: Traffic,
    range: Range,
    at: At,
    findings: &mut Findings,
) -> Option<Traffic> {
    let (from, to) = match range {
        Range::Given(from, to) => (from.map(|from| from.at), to.map(|to| to.at)),
        Range::Shown(from, to, at) => (from.map(|_| at), to.map(|_| at)),
    };
    let Some(place) = from.or(to) else {
        return Some(traffic);
    };
    if traffic == Traffic::All {
        findings
            .error("InvalidParameterValue", place, "ports of every protocol")
            .help("Neutron takes ports with tcp, udp, dccp, sctp and udplite only");
    } else {
        findings
            .error(
                "not-carried-over",
                place,
                format!("ports of {traffic} cannot be told apart here"),
            )
            .related(at, "the rule")
            .help("leave the ports out to allow the protocol whole, or the rule");
    }
    None
}

fn ports(range: Range, at: At, findings: &mut Findings) -> Option<Ports> {
    let (from, to) = match range {
        Range::Given(None, None) | Range::Shown(None, None, _) => {
            return Some(Ports {
                from: 0,
                to: u16::MAX,
            });
        }
        Range::Given(Some(from), Some(to)) => (from.value, to.value),
        Range::Shown(Some(from), Some(to), _) => (from, to),
        _ => {
            invalid(findings, at, "the port range has one end")
                .help("both ports, or neither, which is every port");
            return None;
        }
    };
    match (u16::try_from(from), u16::try_from(to)) {
        (Ok(from), Ok(to)) if from <= to => Some(Ports { from, to }),
        _ => {
            invalid(
                findings,
                at,
                format!("{from} to {to} is not a range of ports"),
            )
            .help("ports are 0 to 65535, the lower one first");
            None
        }
    }
}

/// Type and code stand in the fields of ports; 0 is a value like any other, and null is every one.
fn icmp(range: Range, at: At, findings: &mut Findings) -> Option<Icmp> {
    let (kind, code) = match range {
        Range::Given(kind, code) => (kind.map(|kind| kind.value), code.map(|code| code.value)),
        Range::Shown(Some(kind), Some(code), _) => (Some(kind), Some(code)),
        Range::Shown(.., place) => {
            findings
                .error(
                    "unknown-value",
                    place,
                    "this list does not tell ICMP type or code 0 from every one",
                )
                .help("`openstack security group show -f json` does, and so does Neutron's API");
            return None;
        }
    };
    let mut field = |value: Option<i64>, name| match value.map(u8::try_from) {
        None => Some(None),
        Some(Ok(value)) => Some(Some(value)),
        Some(Err(_)) => {
            let value = value.unwrap_or_default();
            invalid(findings, at, format!("ICMP {name} ({value}) out of range"))
                .help("0 to 255, or null for every one");
            None
        }
    };
    match (field(kind, "type")?, field(code, "code")?) {
        (None, None) => Some(Icmp::Any),
        (Some(kind), None) => Some(Icmp::Type(kind)),
        (Some(kind), Some(code)) => Some(Icmp::Code(kind, code)),
        (None, Some(_)) => {
            invalid(findings, at, "an ICMP code without a type")
                .help("give the type the code belongs to");
            None
        }
    }
}

fn invalid(
    findings: &mut Findings,
    at: At,
    message: impl Into<String>,
) -> &mut super::super::findings::Finding {
    findings.error("InvalidParameterValue", at, message)
}
