//! Frames as they stand on the wire, well formed unless a case spoils them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU32, Ordering},
};

use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header,
    TcpHeader, UdpHeader,
};
use sg_common::{
    conntrack::tcp,
    verdict::Direction::{self, Egress, Ingress},
};

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ip {
    V4,
    V6,
}

impl Ip {
    pub(crate) const BOTH: [Ip; 2] = [Ip::V4, Ip::V6];

    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Ip::V4 } else { Ip::V6 }
    }

    /// One of two values.
    pub(crate) fn pick<T>(self, v4: T, v6: T) -> T {
        match self {
            Ip::V4 => v4,
            Ip::V6 => v6,
        }
    }

    /// Protocol number of its ICMP.
    pub(crate) fn icmp(self) -> u8 {
        self.pick(1, 58)
    }

    fn address(self, v4: [u8; 4], v6: [u16; 8]) -> IpAddr {
        self.pick(Ipv4Addr::from(v4).into(), Ipv6Addr::from(v6).into())
    }

    /// The workload behind every interface.
    pub(crate) fn workload(self) -> IpAddr {
        self.address([10, 1, 0, 10], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10])
    }

    /// Who it mostly talks to.
    pub(crate) fn peer(self) -> IpAddr {
        self.address([198, 51, 100, 20], [0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x20])
    }

    /// Somebody else.
    pub(crate) fn stranger(self) -> IpAddr {
        self.address([203, 0, 113, 30], [0x2001, 0xdb8, 3, 0, 0, 0, 0, 0x30])
    }

    /// Somebody on the way.
    pub(crate) fn router(self) -> IpAddr {
        self.address([192, 0, 2, 1], [0x2001, 0xdb8, 4, 0, 0, 0, 0, 1])
    }

    /// Source and destination of what the peer and the workload send each other.
    pub(crate) fn ends(self, direction: Direction) -> (IpAddr, IpAddr) {
        match direction {
            Ingress => (self.peer(), self.workload()),
            Egress => (self.workload(), self.peer()),
        }
    }
}

/// An address that a case spells out.
pub(crate) fn at(address: &str) -> IpAddr {
    address.parse().unwrap()
}

/// Anything in Ethernet.
pub(crate) fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let header = Ethernet2Header {
        source: [2, 0, 0, 0, 0, 1],
        destination: [2, 0, 0, 0, 0, 2],
        ether_type: EtherType(kind),
    };
    [&header.to_bytes()[..], payload].concat()
}

/// Offset of the IP header.
pub(crate) const IP: usize = 14;

const TTL: u8 = 64;

/// Anything in IP.
pub(crate) fn ip(ends: (IpAddr, IpAddr), protocol: u8, payload: &[u8]) -> Vec<u8> {
    hops(ends, TTL, protocol, payload)
}

/// The same with a TTL or hop limit.
pub(crate) fn hops(ends: (IpAddr, IpAddr), ttl: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ipv4(
            Ipv4Header::new(
                payload.len() as u16,
                ttl,
                IpNumber(protocol),
                source.octets(),
                destination.octets(),
            )
            .unwrap(),
            payload,
        ),
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = Ipv6Header {
                payload_length: payload.len() as u16,
                next_header: IpNumber(protocol),
                hop_limit: ttl,
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv6Header::default()
            };
            ethernet(0x86dd, &[&header.to_bytes()[..], payload].concat())
        }
        _ => panic!("one family"),
    }
}

fn ipv4(mut header: Ipv4Header, payload: &[u8]) -> Vec<u8> {
    header.header_checksum = header.calc_header_checksum();
    ethernet(0x0800, &[&header.to_bytes()[..], payload].concat())
}

/// A fragment; `offset` in bytes.
pub(crate) fn fragment(
    ends: (IpAddr, IpAddr),
    protocol: u8,
    id: u32,
    offset: u16,
    more: bool,
    payload: &[u8],
) -> Vec<u8> {
    let fragment_offset = IpFragOffset::try_new(offset / 8).unwrap();
    match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = Ipv4Header::new(
                payload.len() as u16,
                TTL,
                IpNumber(protocol),
                source.octets(),
                destination.octets(),
            )
            .unwrap();
            header.dont_fragment = false;
            header.identification = id as u16;
            header.more_fragments = more;
            header.fragment_offset = fragment_offset;
            ipv4(header, payload)
        }
        _ => {
            let header =
                Ipv6FragmentHeader::new(IpNumber(protocol), fragment_offset, more, id).to_bytes();
            ip(ends, extension::FRAGMENT, &[&header[..], payload].concat())
        }
    }
}

/// A fragment id of nobody's: what was remembered in one case must not answer in another.
pub(crate) fn fresh_id() -> u32 {
    static ID: AtomicU32 = AtomicU32::new(1);
    ID.fetch_add(1, Ordering::Relaxed)
}

/// IPv6 extension headers by protocol number.
pub(crate) mod extension {
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const AUTHENTICATION: u8 = 51;
    pub(crate) const DESTINATION: u8 = 60;
}

/// IPv6 with extension headers, each given without its first byte, which says what follows.
pub(crate) fn extended(
    ends: (IpAddr, IpAddr),
    ttl: u8,
    extensions: &[(u8, &[u8])],
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut chain = Vec::new();
    for (place, (_, rest)) in extensions.iter().enumerate() {
        chain.push(extensions.get(place + 1).map_or(protocol, |next| next.0));
        chain.extend_from_slice(rest);
    }
    let first = extensions.first().map_or(protocol, |first| first.0);
    hops(ends, ttl, first, &[&chain, payload].concat())
}

/// Rest of an extension header of eight bytes that says nothing (PadN).
pub(crate) const NOTHING: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
/// Rest of a hop-by-hop header with a router alert for MLD (RFC 2711 §2.1).
pub(crate) const ROUTER_ALERT: &[u8] = &[0, 5, 2, 0, 0, 1, 0];

/// A TCP segment's own bytes.
pub(crate) fn segment(
    ports: (u16, u16),
    flags: u8,
    sequence: u32,
    ack: u32,
    len: usize,
) -> Vec<u8> {
    let mut header = TcpHeader::new(ports.0, ports.1, sequence, 65_535);
    header.acknowledgment_number = ack;
    header.fin = flags & tcp::FIN != 0;
    header.syn = flags & tcp::SYN != 0;
    header.rst = flags & tcp::RST != 0;
    header.psh = flags & tcp::PSH != 0;
    header.ack = flags & tcp::ACK != 0;
    header.urg = flags & tcp::URG != 0;
    let mut bytes = header.to_bytes().to_vec();
    bytes.resize(bytes.len() + len, b'.');
    bytes
}

/// A UDP datagram's own bytes.
pub(crate) fn datagram(ports: (u16, u16), len: usize) -> Vec<u8> {
    let header = UdpHeader {
        source_port: ports.0,
        destination_port: ports.1,
        length: 8 + len as u16,
        checksum: 0,
    };
    let mut bytes = header.to_bytes().to_vec();
    bytes.resize(bytes.len() + len, b'.');
    bytes
}

/// An ICMP message's own bytes; `rest` follows the checksum.
pub(crate) fn message(kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    [&[kind, code, 0, 0][..], rest].concat()
}

/// An ICMP message between two addresses.
pub(crate) fn icmp(ends: (IpAddr, IpAddr), kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    ip(ends, Ip::of(ends.0).icmp(), &message(kind, code, rest))
}

/// Destination unreachable that quotes a frame from its IP header on.
pub(crate) fn unreachable(ends: (IpAddr, IpAddr), quoted: &[u8]) -> Vec<u8> {
    let kind = Ip::of(ends.0).pick(3, 1);
    icmp(ends, kind, 1, &[&[0; 4], &quoted[IP..]].concat())
}

/// Neighbour discovery with a target, or room for one.
pub(crate) fn neighbor(ends: (IpAddr, IpAddr), ttl: u8, kind: u8, target: Ipv6Addr) -> Vec<u8> {
    let rest = [&[0; 4][..], &target.octets()].concat();
    hops(ends, ttl, 58, &message(kind, 0, &rest))
}

/// ARP for IPv4 over Ethernet (RFC 826); operation 1 asks, 2 answers.
pub(crate) fn arp(operation: u8, sender: IpAddr, target: IpAddr) -> Vec<u8> {
    let (IpAddr::V4(sender), IpAddr::V4(target)) = (sender, target) else {
        panic!("ARP is for IPv4");
    };
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 1];
    body.extend_from_slice(&sender.octets());
    body.extend_from_slice(&[0; 6]);
    body.extend_from_slice(&target.octets());
    ethernet(0x0806, &body)
}

/// A frame with bytes written over it.
pub(crate) fn spoiled(mut frame: Vec<u8>, offset: usize, bytes: &[u8]) -> Vec<u8> {
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    frame
}
