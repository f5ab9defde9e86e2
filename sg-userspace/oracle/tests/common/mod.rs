//! Policies and frames for the tests.
#![allow(dead_code, reason = "not every test needs every builder")]

use std::{collections::BTreeMap, net::IpAddr};

use sg_oracle::{
    Arrival, Direction, Judgement, Oracle, Verdict,
    policy::{Group, Interface, Peer, Policy, Prefix, Rule, What},
};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// Ticks per second of the tests.
pub(crate) const HZ: u32 = 100;

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn rule(what: What, cidr: &str) -> Rule {
    let (network, length) = cidr.split_once('/').unwrap();
    Rule {
        what,
        peer: Peer::Prefix(Prefix(address(network), length.parse().unwrap())),
    }
}

/// An `own` interface with nothing but defaults.
pub(crate) fn interface() -> Interface {
    Interface {
        host: false,
        groups: vec!["g".to_owned()],
        addresses: None,
        source_dest_check: false,
        track_always: false,
        tcp_loose: false,
        icmp_strict: false,
        dhcp: true,
        mld: true,
        nd_redirect: false,
        ethertypes: Vec::new(),
        allowance: None,
        reserve: 0,
        timeouts: BTreeMap::new(),
    }
}

/// One interface `i` with one group `g`.
pub(crate) fn policy(ingress: &[Rule], egress: &[Rule]) -> Policy {
    let group = Group {
        ingress: ingress.to_vec(),
        egress: egress.to_vec(),
        ..Group::default()
    };
    Policy {
        groups: BTreeMap::from([("g".to_owned(), group)]),
        interfaces: BTreeMap::from([("i".to_owned(), interface())]),
        allowance: 1000,
        ..Policy::default()
    }
}

pub(crate) fn only(policy: &mut Policy) -> &mut Interface {
    policy.interfaces.get_mut("i").unwrap()
}

/// An oracle with its clock in seconds.
pub(crate) struct Bench {
    pub(crate) oracle: Oracle,
    pub(crate) second: u64,
}

impl Bench {
    pub(crate) fn new(policy: Policy) -> Self {
        let mut bench = Self {
            oracle: Oracle::new(HZ),
            second: 1_000_000,
        };
        bench.apply(policy);
        bench
    }

    pub(crate) fn now(&self) -> u64 {
        self.second * u64::from(HZ)
    }

    pub(crate) fn apply(&mut self, policy: Policy) {
        self.oracle.apply(policy, self.now());
    }

    pub(crate) fn judge(&mut self, direction: Direction, frame: &[u8]) -> Judgement {
        let ingress = direction == Direction::In;
        let arrival = Arrival {
            ingress,
            frame,
            tagged: false,
            merged: false,
            packets: 1,
        };
        let judgement = self.oracle.judge(self.now(), "i", &arrival);
        assert_eq!(judgement.direction, direction);
        judgement
    }

    /// Judges a frame that comes in.
    #[track_caller]
    pub(crate) fn enters(&mut self, frame: &[u8], verdict: &str) {
        assert_eq!(name(self.judge(Direction::In, frame).verdict), verdict);
    }

    /// Judges a frame that goes out.
    #[track_caller]
    pub(crate) fn leaves(&mut self, frame: &[u8], verdict: &str) {
        assert_eq!(name(self.judge(Direction::Out, frame).verdict), verdict);
    }

    /// The states of the live flows.
    pub(crate) fn states(&self) -> Vec<&'static str> {
        self.oracle
            .flows(self.now())
            .iter()
            .map(|flow| flow.state)
            .collect()
    }

    pub(crate) fn assured(&self) -> bool {
        self.oracle
            .flows(self.now())
            .iter()
            .all(|flow| flow.assured)
    }
}

pub(crate) fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass(name) | Verdict::Drop(name) => name,
    }
}

/// An Ethernet frame of an IP packet, of the family of the addresses.
pub(crate) fn ip(source: &str, destination: &str, protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    match (address(source), address(destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((20 + body.len() as u16).to_be_bytes());
            frame.extend([0, 7, 0, 0, 64, protocol, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((body.len() as u16).to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        _ => panic!("two families"),
    }
    frame.extend(body);
    frame
}

/// An end of a flow: address and port.
pub(crate) type End<'a> = (&'a str, u16);

pub(crate) fn udp(source: End<'_>, destination: End<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(source.1.to_be_bytes());
    body.extend(destination.1.to_be_bytes());
    body.extend([0, 8, 0, 0]);
    ip(source.0, destination.0, 17, &body)
}

/// A segment with flags, sequence number, acknowledgement and bytes of payload.
pub(crate) fn tcp(
    source: End<'_>,
    destination: End<'_>,
    segment: (u8, u32, u32, usize),
) -> Vec<u8> {
    let (flags, sequence, acknowledgement, payload) = segment;
    let mut body = Vec::new();
    body.extend(source.1.to_be_bytes());
    body.extend(destination.1.to_be_bytes());
    body.extend(sequence.to_be_bytes());
    body.extend(acknowledgement.to_be_bytes());
    body.extend([0x50, flags, 1, 0, 0, 0, 0, 0]);
    body.resize(20 + payload, 0x55);
    ip(source.0, destination.0, 6, &body)
}

/// An ICMP message of the family of the addresses, with an identifier of 9.
pub(crate) fn icmp(source: &str, destination: &str, kind: u8, code: u8, behind: &[u8]) -> Vec<u8> {
    let protocol = if address(source).is_ipv4() { 1 } else { 58 };
    let mut body = vec![kind, code, 0, 0, 0, 9, 0, 1];
    body.extend(behind);
    ip(source, destination, protocol, &body)
}
