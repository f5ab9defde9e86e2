//! The validated policy of a host: every value typed, every name resolvable.
//!
//! [`crate::definition`] makes a [`Model`] from files; [`crate::resolve`] takes it from here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sg_common::layout::{TIMEOUT_DEFAULTS, TIMEOUTS, Timeout};
use sg_common::verdict::Direction;

mod ids;
mod rule_id;
mod traffic;

pub use ids::Ids;
pub use rule_id::{MalformedRuleId, RuleId};
pub use traffic::{Icmp, Ports, Traffic, protocol};

/// Groups one interface may carry (fact 2.3: 5, adjustable to 16).
pub const MAX_GROUPS_PER_INTERFACE: usize = 16;
/// Tracked flows of a host that names no allowance.
pub const DEFAULT_ALLOWANCE: u32 = 262_144;

/// A whole definition, checked: groups, lists and interfaces refer to each other by names that exist.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// Security groups by name.
    pub groups: BTreeMap<String, Group>,
    /// Prefix lists by name; host bits are zero.
    pub prefix_lists: BTreeMap<String, Vec<IpNet>>,
    /// Enforced interfaces by name.
    pub interfaces: BTreeMap<String, Interface>,
    /// Members of a group that live on other hosts, by group.
    pub members: BTreeMap<String, Vec<IpAddr>>,
    /// Link-local services that always pass, without duplicates.
    pub services: Vec<IpAddr>,
    /// Connection tracking of the host.
    pub conntrack: Conntrack,
    /// What clouds call the things.
    pub ids: Ids,
}

impl Model {
    /// Rules of all groups and both directions.
    pub fn rule_count(&self) -> usize {
        self.groups
            .values()
            .map(|group| group.ingress.len() + group.egress.len())
            .sum()
    }
}

/// A named set of allow rules. No two rules of one direction are equal but for their description.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// Free text, as fact 1.32 restricts it.
    pub description: Option<String>,
    /// What becomes of tracked flows whose rule goes.
    pub on_revoke: OnRevoke,
    /// Rules of traffic towards the workload, in file order.
    pub ingress: Vec<Rule>,
    /// Rules of traffic from the workload, in file order.
    pub egress: Vec<Rule>,
}

impl Group {
    /// The rules of one direction.
    pub fn rules(&self, direction: Direction) -> &[Rule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// What becomes of tracked flows that no rule allows any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnRevoke {
    /// They live on until they idle out, as on AWS (fact 3.12).
    #[default]
    Keep,
    /// They are cut on their next packet.
    Reevaluate,
}

/// One allow rule: what, and with whom. Its direction is where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule<P = Peer> {
    /// Stable id, unique in the host.
    pub id: RuleId,
    /// Protocol and ports.
    pub traffic: Traffic,
    /// Source of an ingress rule, destination of an egress rule.
    pub peer: P,
    /// Free text, as fact 1.31 restricts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Arc<str>>,
    /// Where it is written; `None` for a rule that a default added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// Place of a rule in the definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// File as it was named to us.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
}

/// The other side of a rule (fact 1.19); `N` names lists and groups.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Peer<N = String> {
    /// Addresses of one prefix; host bits are zero. Length 0 is everywhere in that family.
    Cidr(IpNet),
    /// Addresses of a prefix list.
    PrefixList(N),
    /// Member addresses of a group.
    Group(N),
    /// Member addresses of a group that are of one family, as Neutron's rules have it (fact 7.41).
    GroupOf(N, Family),
}

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// The word for it in definitions.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }

    /// Whether it is IPv6.
    pub const fn is_ipv6(self) -> bool {
        matches!(self, Self::Ipv6)
    }
}

impl<N> Peer<N> {
    /// The same peer under another kind of name.
    pub fn map_name<M>(&self, rename: impl FnOnce(&N) -> M) -> Peer<M> {
        match self {
            Peer::Cidr(net) => Peer::Cidr(*net),
            Peer::PrefixList(name) => Peer::PrefixList(rename(name)),
            Peer::Group(name) => Peer::Group(rename(name)),
            Peer::GroupOf(name, family) => Peer::GroupOf(rename(name), *family),
        }
    }

    /// The group whose members it means.
    pub fn group(&self) -> Option<&N> {
        match self {
            Peer::Group(name) | Peer::GroupOf(name, _) => Some(name),
            Peer::Cidr(_) | Peer::PrefixList(_) => None,
        }
    }
}

/// An enforced interface.
#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    /// How it is found, attached and tracked.
    pub settings: InterfaceSettings,
    /// Its groups in file order, without duplicates, at most [`MAX_GROUPS_PER_INTERFACE`].
    pub groups: Vec<String>,
    /// Its addresses where the definition lists them.
    pub addresses: Option<Vec<IpAddr>>,
}

/// Everything about an interface but its groups and addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceSettings {
    /// Linux device name.
    pub device: String,
    /// Network namespace by name or path; `None`: the one of the command line.
    pub netns: Option<String>,
    /// `None`: not given; the loader decides or refuses (README, "Which side of the wire").
    pub orientation: Option<Orientation>,
    /// Hook asked for.
    pub hook: Hook,
    /// Cap of tracked flows; `None`: the host's allowance.
    pub allowance: Option<u32>,
    /// Tracked flows that no other interface can take.
    pub reserve: u32,
    /// When flows are tracked.
    pub track: Track,
    /// A rule may open a flow with a segment other than SYN.
    pub tcp_loose: bool,
    /// When ICMP errors pass.
    pub icmp_errors: IcmpErrors,
    /// DHCP of a client passes.
    pub dhcp: bool,
    /// MLD passes.
    pub mld: bool,
    /// ICMPv6 redirects pass towards the workload.
    pub nd_redirect: bool,
    /// Source and destination check (fact 5.5); `None`: on `host` interfaces.
    #[serde(default)]
    pub source_dest_check: Option<bool>,
    /// Ethertypes that pass beside ARP, IPv4 and IPv6, ascending.
    #[serde(default)]
    pub ethertypes: Vec<u16>,
    /// Idle lives in seconds, by [`sg_common::layout::Timeout`].
    pub timeouts: [u32; TIMEOUTS],
}

impl InterfaceSettings {
    /// The defaults for a device.
    pub fn new(device: impl Into<String>) -> Self {
        Self {
            device: device.into(),
            netns: None,
            orientation: None,
            hook: Hook::Auto,
            allowance: None,
            reserve: 0,
            track: Track::Auto,
            tcp_loose: false,
            icmp_errors: IcmpErrors::Related,
            dhcp: true,
            mld: true,
            nd_redirect: false,
            source_dest_check: None,
            ethertypes: Vec::new(),
            timeouts: TIMEOUT_DEFAULTS.map(|(_, seconds)| seconds),
        }
    }

    /// Whether the workload's end of every packet must be an address of its own, where those are known.
    pub fn checks_addresses(&self) -> bool {
        self.source_dest_check
            .unwrap_or(self.orientation == Some(Orientation::Host))
    }
}

/// Seconds that a timeout may have: AWS's ranges where AWS has one (fact 3.21).
pub const fn timeout_range(index: usize) -> RangeInclusive<u32> {
    const TCP_ESTABLISHED: usize = Timeout::TcpEstablished as usize;
    const UDP: usize = Timeout::Udp as usize;
    const UDP_STREAM: usize = Timeout::UdpStream as usize;
    match index {
        TCP_ESTABLISHED => 60..=432_000,
        UDP => 30..=60,
        UDP_STREAM => 60..=180,
        _ => 1..=432_000,
    }
}

/// Which side of the workload's link the interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Orientation {
    /// The workload's own NIC.
    Own,
    /// The host side of its veth or tap.
    Host,
}

/// Hook of the ingress program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// The loader picks by driver.
    Auto,
    /// XDP in the driver.
    Xdp,
    /// XDP after the driver.
    XdpGeneric,
    /// TC.
    Tc,
}

/// When flows are tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Track {
    /// Unless the policy is open both ways (fact 3.3).
    Auto,
    /// Always.
    Always,
}

/// When ICMP errors pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IcmpErrors {
    /// When they quote a live flow, or by rule.
    Related,
    /// By rule only.
    Strict,
}

/// Connection tracking of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conntrack {
    /// Tracked flows.
    pub allowance: u32,
    /// Packets and bytes are kept per flow and direction.
    pub accounting: bool,
}

impl Default for Conntrack {
    fn default() -> Self {
        Self {
            allowance: DEFAULT_ALLOWANCE,
            accounting: true,
        }
    }
}
