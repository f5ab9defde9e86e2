//! Frames as they stand on the wire. Checksums are 0: nobody here looks at them.

use std::net::IpAddr;

use super::places::Ip;

/// Offset of the IP header.
pub(super) const IP: usize = 14;

/// Source and destination.
pub(super) type Ends = (IpAddr, IpAddr);

/// Anything in Ethernet.
pub(super) fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Anything in IP. Both ends are of one family.
pub(super) fn ip(ends: Ends, hops: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match ends {
        (IpAddr::V4(_), _) => ipv4(ends, hops, protocol, 0, 0, &[], payload),
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend((payload.len() as u16).to_be_bytes());
            header.extend([protocol, hops]);
            header.extend(source.octets());
            header.extend(destination.octets());
            header.extend(payload);
            ethernet(0x86dd, &header)
        }
        _ => panic!("one family"),
    }
}

/// IPv4 with identification, the word of flags and offset, and options of whole words.
pub(super) fn ipv4(
    ends: Ends,
    hops: u8,
    protocol: u8,
    id: u16,
    place: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = ends else {
        panic!("IPv4");
    };
    let length = 20 + options.len();
    let mut header = vec![0x40 | (length / 4) as u8, 0];
    header.extend(((length + payload.len()) as u16).to_be_bytes());
    header.extend(id.to_be_bytes());
    header.extend(place.to_be_bytes());
    header.extend([hops, protocol, 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    header.extend(options);
    header.extend(payload);
    ethernet(0x0800, &header)
}

/// A fragment of a datagram; `offset` counts bytes, eight by eight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) ends: Ends,
    pub(super) protocol: u8,
    pub(super) id: u32,
    pub(super) offset: u16,
    pub(super) more: bool,
}

impl Piece {
    pub(super) fn frame(&self, payload: &[u8]) -> Vec<u8> {
        match Ip::of(self.ends.0) {
            Ip::V4 => {
                let place = (u16::from(self.more) << 13) | (self.offset / 8);
                ipv4(
                    self.ends,
                    64,
                    self.protocol,
                    self.id as u16,
                    place,
                    &[],
                    payload,
                )
            }
            Ip::V6 => {
                let mut header = vec![self.protocol, 0];
                header.extend((self.offset & !7 | u16::from(self.more)).to_be_bytes());
                header.extend(self.id.to_be_bytes());
                header.extend(payload);
                ip(self.ends, 64, 44, &header)
            }
        }
    }
}

/// IPv6 with extension headers, each given by its number and without its first byte, which says what
/// follows.
pub(super) fn extended(
    ends: Ends,
    hops: u8,
    extensions: &[(u8, Vec<u8>)],
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut chain = Vec::new();
    for (place, (_, rest)) in extensions.iter().enumerate() {
        chain.push(extensions.get(place + 1).map_or(protocol, |next| next.0));
        chain.extend(rest);
    }
    chain.extend(payload);
    let first = extensions.first().map_or(protocol, |first| first.0);
    ip(ends, hops, first, &chain)
}

/// TCP flag bits (RFC 9293 §3.1).
pub(super) mod tcp {
    pub(in super::super) const FIN: u8 = 1;
    pub(in super::super) const SYN: u8 = 2;
    pub(in super::super) const RST: u8 = 4;
    pub(in super::super) const PSH: u8 = 8;
    pub(in super::super) const ACK: u8 = 16;
    pub(in super::super) const URG: u8 = 32;
    pub(in super::super) const ECE: u8 = 64;
}

/// A TCP segment's own bytes, `len` of them payload.
pub(super) fn segment(
    ports: (u16, u16),
    flags: u8,
    sequence: u32,
    ack: u32,
    len: usize,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(ports.0.to_be_bytes());
    bytes.extend(ports.1.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(ack.to_be_bytes());
    bytes.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.resize(20 + len, b'.');
    bytes
}

/// A UDP datagram's own bytes, `len` of them payload.
pub(super) fn datagram(ports: (u16, u16), len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(ports.0.to_be_bytes());
    bytes.extend(ports.1.to_be_bytes());
    bytes.extend((8 + len as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.resize(8 + len, b'.');
    bytes
}

/// An ICMP message's own bytes; `rest` follows the checksum.
pub(super) fn message(kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    [&[kind, code, 0, 0], rest].concat()
}

/// ARP for IPv4 over Ethernet (RFC 826).
pub(super) fn arp(operation: u8, sender: IpAddr, target: IpAddr) -> Vec<u8> {
    let (IpAddr::V4(sender), IpAddr::V4(target)) = (sender, target) else {
        panic!("ARP is for IPv4");
    };
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 1];
    body.extend(sender.octets());
    body.extend([0; 6]);
    body.extend(target.octets());
    ethernet(0x0806, &body)
}

/// Source and destination of an IP frame, the bytes behind its fixed header, and their protocol. The
/// header is one that this module wrote, without options.
pub(super) fn taken_apart(frame: &[u8]) -> Option<(Ends, u8, &[u8])> {
    let v6 = |at: usize| {
        Some(IpAddr::from(
            <[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?,
        ))
    };
    let v4 = |at: usize| {
        Some(IpAddr::from(
            <[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?,
        ))
    };
    match frame.get(12..15)? {
        [0x08, 0x00, 0x45] => Some(((v4(26)?, v4(30)?), frame[23], frame.get(34..)?)),
        [0x86, 0xdd, 0x60] => Some(((v6(22)?, v6(38)?), frame[20], frame.get(54..)?)),
        _ => None,
    }
}
