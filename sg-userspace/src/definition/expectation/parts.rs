//! The packets of a test that rules tell apart.

use std::collections::BTreeSet;

use sg_common::layout::slice;

use crate::model::{Icmp, Ports, Traffic, protocol};

/// Protocol numbers that no sensible rule names (RFC 3692).
const EXPERIMENTS: [u8; 2] = [253, 254];

/// Protocol number and port, as [`Traffic::matches`] takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    pub(super) protocol: u8,
    pub(super) port: u16,
}

/// One packet of each part of the traffic that the rules treat alike: such parts begin where a range of a rule does,
/// or behind one.
pub(super) fn parts(asked: Traffic, ipv6: bool, rules: &[Traffic]) -> BTreeSet<Part> {
    let mut edges: BTreeSet<(usize, u16)> = BTreeSet::new();
    for (slice, low, high) in rules.iter().flat_map(|traffic| traffic.slices(ipv6)) {
        edges.insert((slice, low));
        edges.extend(high.checked_add(1).map(|behind| (slice, behind)));
    }
    let icmp = if ipv6 {
        protocol::ICMPV6
    } else {
        protocol::ICMP
    };
    let mut parts = BTreeSet::new();
    for (slice, low, high) in asked.slices(ipv6) {
        let number = match slice {
            slice::TCP => protocol::TCP,
            slice::UDP => protocol::UDP,
            slice::ICMP => icmp,
            _ => {
                parts.extend(others(low, high, icmp, rules));
                continue;
            }
        };
        let within = edges.range((slice, low)..=(slice, high));
        let values = within.map(|(_, value)| *value).chain([low]);
        parts.extend(values.map(|port| Part {
            protocol: number,
            port,
        }));
    }
    parts
}

/// Protocols without ports of a range of numbers: each that a rule names, and one that none does.
fn others(low: u16, high: u16, icmp: u8, rules: &[Traffic]) -> impl Iterator<Item = Part> {
    let within = |number: &u8| (low..=high).contains(&u16::from(*number));
    let named: BTreeSet<u8> = rules
        .iter()
        .filter_map(|traffic| match traffic {
            Traffic::Protocol(number) => Some(*number),
            _ => None,
        })
        .filter(within)
        .collect();
    let with_ports = [protocol::TCP, protocol::UDP, icmp];
    let unnamed = EXPERIMENTS
        .into_iter()
        .chain(0..=u8::MAX)
        .filter(within)
        .find(|number| !named.contains(number) && !with_ports.contains(number));
    named
        .into_iter()
        .chain(unnamed)
        .map(|protocol| Part { protocol, port: 0 })
}

impl Part {
    /// As a rule would say it.
    pub(super) fn traffic(self) -> Traffic {
        let [kind, code] = self.port.to_be_bytes();
        match self.protocol {
            protocol::TCP => Traffic::Tcp(Ports::single(self.port)),
            protocol::UDP => Traffic::Udp(Ports::single(self.port)),
            protocol::ICMP => Traffic::Icmp(Icmp::Code(kind, code)),
            protocol::ICMPV6 => Traffic::Icmpv6(Icmp::Code(kind, code)),
            number => Traffic::Protocol(number),
        }
    }
}
