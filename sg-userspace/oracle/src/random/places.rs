//! A world small enough that everybody meets: few addresses, few ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Source;

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ip {
    V4,
    V6,
}

impl Ip {
    pub(super) const BOTH: [Ip; 2] = [Ip::V4, Ip::V6];

    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Ip::V4 } else { Ip::V6 }
    }

    /// One of two values.
    pub(super) fn pick<T>(self, v4: T, v6: T) -> T {
        match self {
            Ip::V4 => v4,
            Ip::V6 => v6,
        }
    }

    /// Protocol number of its ICMP.
    pub(super) fn icmp(self) -> u8 {
        self.pick(1, 58)
    }
}

/// Ports and identifiers, both ends of the numbers included.
pub(super) const PORTS: [u16; 10] = [80, 0, 1, 53, 443, 1023, 1024, 40_000, 65_534, 65_535];

/// Subnets that workloads and peers live in; only the last number tells neighbours apart.
const SUBNETS: [(Ipv4Addr, Ipv6Addr); 3] = [
    (
        Ipv4Addr::new(10, 0, 0, 0),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0),
    ),
    (
        Ipv4Addr::new(10, 0, 1, 0),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0),
    ),
    (
        Ipv4Addr::new(198, 51, 100, 128),
        Ipv6Addr::new(0x2001, 0xdb8, 0x8000, 0, 0, 0, 0, 0x8000),
    ),
];

/// Address `host` of a subnet.
fn address(ip: Ip, subnet: usize, host: u8) -> IpAddr {
    let (v4, v6) = SUBNETS[subnet];
    match ip {
        Ip::V4 => Ipv4Addr::from_bits(v4.to_bits() + u32::from(host)).into(),
        Ip::V6 => Ipv6Addr::from_bits(v6.to_bits() + u128::from(host)).into(),
    }
}

/// The address that the workload of interface `number` sends from.
pub(super) fn workload(ip: Ip, number: usize) -> IpAddr {
    address(ip, 0, 1 + number as u8)
}

/// Somebody: a workload, a neighbour of one, or somebody farther away.
pub(super) fn anybody(source: &mut Source<'_>, ip: Ip) -> IpAddr {
    let subnet = source.of(&[1, 0, 0, 1, 2]);
    let host = 1 + source.below(if subnet == 0 { 6 } else { 2 }) as u8;
    address(ip, subnet, host)
}

/// Link-local services.
pub(super) fn service(ip: Ip, which: usize) -> IpAddr {
    let v4 = [
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(169, 254, 0, 1),
    ];
    let v6 = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xa9fe),
    ];
    ip.pick(v4[which % 2].into(), v6[which % 2].into())
}

/// Addresses that are nobody's, or everybody's.
pub(super) fn odd(source: &mut Source<'_>, ip: Ip) -> IpAddr {
    let v4 = [
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::new(0, 1, 2, 3),
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(224, 0, 0, 1),
        Ipv4Addr::new(239, 255, 255, 255),
        Ipv4Addr::new(240, 0, 0, 1),
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(169, 254, 7, 7),
    ];
    let v6 = [
        Ipv6Addr::UNSPECIFIED,
        Ipv6Addr::LOCALHOST,
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x0a00, 1),
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9),
        Ipv6Addr::new(0xfebf, 0, 0, 0, 0, 0, 0, 9),
        Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 9),
    ];
    let which = source.below(v4.len());
    ip.pick(v4[which].into(), v6[which].into())
}

/// fe80::`host`.
pub(super) fn link_local(host: u8) -> IpAddr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, host.into()).into()
}
