//! Frames with right checksums: conntrack of the kernel looks at them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU32, Ordering},
};

/// Source and destination.
pub(crate) type Ends = (IpAddr, IpAddr);

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// Protocol number of the family's ICMP.
pub(crate) fn icmp_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 1 } else { 58 }
}

/// Offset of the IP header.
pub(crate) const IP: usize = 14;

/// Anything in Ethernet.
pub(crate) fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Anything in IP.
pub(crate) fn ip(ends: Ends, protocol: u8, payload: &[u8]) -> Vec<u8> {
    hops(ends, 64, protocol, payload)
}

/// The same with a TTL or hop limit.
pub(crate) fn hops(ends: Ends, limit: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let id = stamp() as u16;
            ipv4(
                (source, destination),
                limit,
                (id, 0x4000),
                protocol,
                &[],
                payload,
            )
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let label = stamp() & 0xf_ffff;
            ipv6((source, destination), limit, label, protocol, payload)
        }
        _ => panic!("one family"),
    }
}

/// IPv4 with options, padded to words.
pub(crate) fn with_options(ends: Ends, protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = ends else {
        panic!("IPv4");
    };
    let id = (stamp() as u16, 0x4000);
    ipv4((source, destination), 64, id, protocol, options, payload)
}

/// Both fragments of a packet that is cut after `first` bytes of its payload.
pub(crate) fn fragments(ends: Ends, protocol: u8, payload: &[u8], first: usize) -> [Vec<u8>; 2] {
    let id = stamp();
    let parts = [
        (0, true, &payload[..first]),
        (first, false, &payload[first..]),
    ];
    parts.map(|(offset, more, part)| match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let field = (offset / 8) as u16 | u16::from(more) << 13;
            ipv4(
                (source, destination),
                64,
                (id as u16, field),
                protocol,
                &[],
                part,
            )
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut body = vec![protocol, 0];
            body.extend((offset as u16 | u16::from(more)).to_be_bytes());
            body.extend(id.to_be_bytes());
            body.extend(part);
            ipv6((source, destination), 64, id & 0xf_ffff, FRAGMENT, &body)
        }
        _ => panic!("one family"),
    })
}

const FRAGMENT: u8 = 44;

fn ipv4(
    ends: (Ipv4Addr, Ipv4Addr),
    ttl: u8,
    (id, fragment): (u16, u16),
    protocol: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let words = 5 + options.len() / 4;
    let total = (words * 4 + payload.len()) as u16;
    let mut header = vec![0x40 | words as u8, 0];
    header.extend(total.to_be_bytes());
    header.extend(id.to_be_bytes());
    header.extend(fragment.to_be_bytes());
    header.extend([ttl, protocol, 0, 0]);
    header.extend(ends.0.octets());
    header.extend(ends.1.octets());
    header.extend(options);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend(payload);
    ethernet(0x0800, &header)
}

fn ipv6(ends: (Ipv6Addr, Ipv6Addr), hops: u8, label: u32, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = (0x6000_0000 | label).to_be_bytes().to_vec();
    header.extend((payload.len() as u16).to_be_bytes());
    header.extend([next, hops]);
    header.extend(ends.0.octets());
    header.extend(ends.1.octets());
    header.extend(payload);
    ethernet(0x86dd, &header)
}

/// A number that no other packet has soon.
fn stamp() -> u32 {
    static STAMP: AtomicU32 = AtomicU32::new(1);
    STAMP.fetch_add(1, Ordering::Relaxed)
}

/// What of a frame does not change on its way: the kernel takes VLAN tags off before packet sockets
/// see them, and gives another identification to IPv6 packets that it puts together and cuts again.
pub(crate) fn essence(frame: &[u8]) -> Vec<u8> {
    let mut essence = frame.to_vec();
    if essence[12..IP] == [0x81, 0] {
        essence.drain(12..16);
    }
    if essence[12..IP] == [0x86, 0xdd] && essence[IP + 6] == FRAGMENT {
        essence[IP + 44..IP + 48].fill(0);
    }
    essence
}

/// An ARP probe (RFC 5227 §1.1) for an address that says how manieth it is.
pub(crate) fn arp_probe(number: u32) -> Vec<u8> {
    arp(1, [0; 4], number.to_be_bytes())
}

/// Somebody's announcement that an address is his.
pub(crate) fn arp_reply(sender: IpAddr) -> Vec<u8> {
    let IpAddr::V4(sender) = sender else {
        panic!("ARP is for IPv4");
    };
    arp(2, sender.octets(), sender.octets())
}

fn arp(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 1];
    body.extend(sender);
    body.extend([0; 6]);
    body.extend(target);
    let mut frame = ethernet(0x0806, &body);
    frame[..6].fill(0xff);
    frame
}

/// Flags of TCP.
pub(crate) mod flag {
    pub(crate) const FIN: u8 = 1;
    pub(crate) const SYN: u8 = 2;
    pub(crate) const RST: u8 = 4;
    pub(crate) const ACK: u8 = 16;
}

/// A TCP segment in IP.
pub(crate) fn tcp(
    ends: Ends,
    ports: (u16, u16),
    flags: u8,
    (sequence, ack): (u32, u32),
    data: &[u8],
) -> Vec<u8> {
    ip(
        ends,
        TCP,
        &segment(ends, ports, flags, (sequence, ack), data),
    )
}

/// A TCP segment's own bytes.
pub(crate) fn segment(
    ends: Ends,
    ports: (u16, u16),
    flags: u8,
    (sequence, ack): (u32, u32),
    data: &[u8],
) -> Vec<u8> {
    let mut bytes = ports.0.to_be_bytes().to_vec();
    bytes.extend(ports.1.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(ack.to_be_bytes());
    bytes.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    bytes.extend(data);
    sealed(ends, TCP, bytes, 16)
}

/// A UDP datagram in IP.
pub(crate) fn udp(ends: Ends, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    ip(ends, UDP, &datagram(ends, ports, data))
}

/// A UDP datagram's own bytes.
pub(crate) fn datagram(ends: Ends, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    let mut bytes = ports.0.to_be_bytes().to_vec();
    bytes.extend(ports.1.to_be_bytes());
    bytes.extend((8 + data.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(data);
    sealed(ends, UDP, bytes, 6)
}

/// An ICMP message in IP; `rest` follows the checksum.
pub(crate) fn icmp(ends: Ends, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    ip(ends, icmp_of(ends.0), &message(ends, kind, code, rest))
}

/// An ICMP message's own bytes.
pub(crate) fn message(ends: Ends, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let bytes = [&[kind, code, 0, 0], rest].concat();
    sealed(ends, icmp_of(ends.0), bytes, 2)
}

/// Destination unreachable (IPv6: no route) that quotes a frame from its IP header on.
pub(crate) fn unreachable(ends: Ends, quoted: &[u8]) -> Vec<u8> {
    let kind = if ends.0.is_ipv4() { 3 } else { 1 };
    icmp(ends, kind, 1, &[&[0; 4], &quoted[IP..]].concat())
}

/// Writes the checksum of transport header and pseudo-header at `place`.
fn sealed(ends: Ends, protocol: u8, mut bytes: Vec<u8>, place: usize) -> Vec<u8> {
    let mut summed = Vec::new();
    // ICMP of IPv4 has no pseudo-header (RFC 792).
    if protocol != 1 {
        for address in [ends.0, ends.1] {
            match address {
                IpAddr::V4(address) => summed.extend(address.octets()),
                IpAddr::V6(address) => summed.extend(address.octets()),
            }
        }
        summed.extend((bytes.len() as u32).to_be_bytes());
        summed.extend([0, 0, 0, protocol]);
    }
    summed.extend(&bytes);
    let sum = checksum(&summed);
    bytes[place..place + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// SCTP INIT (1) or INIT ACK (2), RFC 9260 §3.3.2; both sides' tags are 1.
pub(crate) fn sctp_init(kind: u8, ports: (u16, u16), tag: u32) -> Vec<u8> {
    let mut chunk = vec![kind, 0, 0, 20];
    chunk.extend(1_u32.to_be_bytes());
    chunk.extend(65_535_u32.to_be_bytes());
    chunk.extend([0, 1, 0, 1]);
    chunk.extend(1_u32.to_be_bytes());
    sctp(ports, tag, &chunk)
}

/// SCTP COOKIE ECHO, RFC 9260 §3.3.11.
pub(crate) fn sctp_cookie(ports: (u16, u16), tag: u32) -> Vec<u8> {
    sctp(ports, tag, &[10, 0, 0, 8, 1, 2, 3, 4])
}

fn sctp(ports: (u16, u16), tag: u32, chunk: &[u8]) -> Vec<u8> {
    let mut bytes = ports.0.to_be_bytes().to_vec();
    bytes.extend(ports.1.to_be_bytes());
    bytes.extend(tag.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(chunk);
    // CRC32c, RFC 9260 appendix A.
    let mut crc = u32::MAX;
    for byte in &bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    bytes[8..12].copy_from_slice(&(!crc).to_le_bytes());
    bytes
}
