//! What is in force: the words of the definition file, nothing compiled.

use std::{collections::BTreeMap, net::IpAddr};

/// The definition of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Security groups.
    pub groups: BTreeMap<String, Group>,
    /// Prefix lists.
    pub lists: BTreeMap<String, Vec<Prefix>>,
    /// Enforced interfaces.
    pub interfaces: BTreeMap<String, Interface>,
    /// Link-local services.
    pub services: Vec<IpAddr>,
    /// Tracked flows of the host.
    pub allowance: u32,
}

/// A security group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// `on_revoke = "reevaluate"`.
    pub reevaluate: bool,
    /// Rules of what comes in.
    pub ingress: Vec<Rule>,
    /// Rules of what goes out.
    pub egress: Vec<Rule>,
    /// Members on other hosts.
    pub members: Vec<IpAddr>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which packets.
    pub what: What,
    /// Source of what comes in, destination of what goes out.
    pub peer: Peer,
}

/// Protocol, with ports or ICMP type and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Every protocol.
    All,
    /// TCP destination ports, both ends included.
    Tcp(u16, u16),
    /// UDP destination ports, both ends included.
    Udp(u16, u16),
    /// ICMP over IPv4; `None` is -1.
    Icmp(Option<u8>, Option<u8>),
    /// ICMPv6 over IPv6; `None` is -1.
    Icmpv6(Option<u8>, Option<u8>),
    /// Any other protocol by number.
    Number(u8),
}

/// The other side of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Addresses of a prefix.
    Prefix(Prefix),
    /// Addresses of a prefix list.
    List(String),
    /// Members of a group.
    Group(String),
}

/// An address, host bits and all, and how many of its bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix(pub IpAddr, pub u8);

/// An enforced interface. Durations are in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// `orientation = "host"`.
    pub host: bool,
    /// Its groups.
    pub groups: Vec<String>,
    /// Its addresses where they are known.
    pub addresses: Option<Vec<IpAddr>>,
    /// `source_dest_check`, as it is or as it is by default.
    pub source_dest_check: bool,
    /// `track = "always"`.
    pub track_always: bool,
    /// `tcp_loose`.
    pub tcp_loose: bool,
    /// `icmp_errors = "strict"`.
    pub icmp_strict: bool,
    /// `dhcp`.
    pub dhcp: bool,
    /// `mld`.
    pub mld: bool,
    /// `nd_redirect`.
    pub nd_redirect: bool,
    /// `ethertypes`.
    pub ethertypes: Vec<u16>,
    /// `allowance`.
    pub allowance: Option<u32>,
    /// `reserve`.
    pub reserve: u32,
    /// `timeouts`, by their names in the definition.
    pub timeouts: BTreeMap<&'static str, u32>,
}
