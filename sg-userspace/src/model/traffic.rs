//! What a rule allows: protocol and ports, or ICMP type and code.

use std::fmt;

use serde::{Deserialize, Serialize};
use sg_common::layout::slice;

/// IP protocol numbers that rules know by name (fact 1.16).
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

/// Protocol and ports of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// Everything of the peer's family (`-1`).
    All,
    /// TCP to destination ports.
    Tcp(Ports),
    /// UDP to destination ports.
    Udp(Ports),
    /// ICMP of IPv4; never matches IPv6.
    Icmp(Icmp),
    /// ICMP of IPv6; never matches IPv4.
    Icmpv6(Icmp),
    /// Another protocol by number; ports play no part (fact 1.10). Never 1, 6, 17 or 58.
    Protocol(u8),
}

impl Traffic {
    /// The ranges of a class that the rule fills in a family: slice, lowest and highest value.
    pub fn slices(&self, ipv6: bool) -> impl Iterator<Item = (usize, u16, u16)> + use<> {
        let one = |slice, (low, high)| [Some((slice, low, high)), None, None, None];
        let none = [None; 4];
        let all = [
            Some((slice::TCP, 0, u16::MAX)),
            Some((slice::UDP, 0, u16::MAX)),
            Some((slice::ICMP, 0, u16::MAX)),
            Some((slice::OTHER, 0, 255)),
        ];
        match *self {
            Traffic::All => all,
            Traffic::Tcp(ports) => one(slice::TCP, (ports.from, ports.to)),
            Traffic::Udp(ports) => one(slice::UDP, (ports.from, ports.to)),
            Traffic::Icmp(icmp) if !ipv6 => one(slice::ICMP, icmp.range()),
            Traffic::Icmpv6(icmp) if ipv6 => one(slice::ICMP, icmp.range()),
            Traffic::Icmp(_) | Traffic::Icmpv6(_) => none,
            Traffic::Protocol(number) => one(slice::OTHER, (number.into(), number.into())),
        }
        .into_iter()
        .flatten()
    }

    /// Whether a packet of this family and protocol number is covered. `port` is the destination
    /// port of TCP and UDP, `type << 8 | code` of the family's ICMP, and ignored otherwise.
    pub fn matches(&self, ipv6: bool, number: u8, port: u16) -> bool {
        match *self {
            Traffic::All => true,
            Traffic::Tcp(ports) => number == protocol::TCP && ports.contains(port),
            Traffic::Udp(ports) => number == protocol::UDP && ports.contains(port),
            Traffic::Icmp(icmp) => !ipv6 && number == protocol::ICMP && icmp.matches(port),
            Traffic::Icmpv6(icmp) => ipv6 && number == protocol::ICMPV6 && icmp.matches(port),
            Traffic::Protocol(own) => own == number,
        }
    }
}

impl fmt::Display for Traffic {
    /// `all`, `tcp 80`, `udp 53-54`, `icmp`, `icmp 8`, `icmpv6 128/0`, `protocol 50`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Traffic::All => f.write_str("all"),
            Traffic::Tcp(ports) => write!(f, "tcp {ports}"),
            Traffic::Udp(ports) => write!(f, "udp {ports}"),
            Traffic::Icmp(icmp) => write!(f, "icmp{icmp}"),
            Traffic::Icmpv6(icmp) => write!(f, "icmpv6{icmp}"),
            Traffic::Protocol(number) => write!(f, "protocol {number}"),
        }
    }
}

/// An inclusive range of destination ports, `from <= to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ports {
    /// Lowest port.
    pub from: u16,
    /// Highest port.
    pub to: u16,
}

impl Ports {
    /// One port.
    pub fn single(port: u16) -> Self {
        Self {
            from: port,
            to: port,
        }
    }

    /// Whether the range holds the port.
    pub fn contains(&self, port: u16) -> bool {
        (self.from..=self.to).contains(&port)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to {
            write!(f, "{}", self.from)
        } else {
            write!(f, "{}-{}", self.from, self.to)
        }
    }
}

/// ICMP types and codes (fact 1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Icmp {
    /// Every type and code (-1, -1).
    Any,
    /// One type, every code (fact 1.13).
    Type(u8),
    /// One type and code.
    Code(u8, u8),
}

impl Icmp {
    /// Lowest and highest `type << 8 | code`.
    pub(crate) fn range(&self) -> (u16, u16) {
        match *self {
            Icmp::Any => (0, u16::MAX),
            Icmp::Type(kind) => (u16::from(kind) << 8, u16::from(kind) << 8 | 0xff),
            Icmp::Code(kind, code) => {
                let value = u16::from(kind) << 8 | u16::from(code);
                (value, value)
            }
        }
    }

    fn matches(&self, value: u16) -> bool {
        let [kind, code] = value.to_be_bytes();
        match *self {
            Icmp::Any => true,
            Icmp::Type(own) => own == kind,
            Icmp::Code(own_kind, own_code) => (own_kind, own_code) == (kind, code),
        }
    }
}

impl fmt::Display for Icmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Icmp::Any => Ok(()),
            Icmp::Type(kind) => write!(f, " {kind}"),
            Icmp::Code(kind, code) => write!(f, " {kind}/{code}"),
        }
    }
}
