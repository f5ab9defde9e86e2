//! Section 2: the IP header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const ICMP: u8 = 1;
pub(crate) const IGMP: u8 = 2;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const NO_NEXT_HEADER: u8 = 59;

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    First,
    Later,
}

/// How much of a packet must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it.
    Whole,
    /// All of it; the kernel merged segments, so the stated length may be 0.
    Merged,
    /// It is quoted by an ICMP error and may be cut short.
    Quoted,
}

/// An IP packet.
#[derive(Clone, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// Behind all extension headers; of a later fragment what its fragment header names.
    pub(crate) protocol: u8,
    /// IPv6 only.
    pub(crate) hop_limit: u8,
    /// Number of IPv6 extension headers.
    pub(crate) extensions: usize,
    /// The IPv6 hop-by-hop header.
    pub(crate) hop_by_hop: Option<&'a [u8]>,
    pub(crate) part: Part,
    /// What tells datagrams apart: (identification, protocol as the fragment header names it).
    pub(crate) datagram: (u32, u8),
    /// Of the fragment, in bytes.
    pub(crate) offset: u32,
    /// What is there behind the IP headers, up to the stated length.
    pub(crate) body: &'a [u8],
    /// What the frame holds behind the IP headers, padding included.
    pub(crate) in_frame: usize,
}

impl Packet<'_> {
    pub(crate) fn is_ipv6(&self) -> bool {
        self.source.is_ipv6()
    }

    /// Its protocol is the ICMP of its family.
    pub(crate) fn is_icmp(&self) -> bool {
        self.protocol == if self.is_ipv6() { ICMPV6 } else { ICMP }
    }
}

/// Whether an IPv6 next header is that of an extension header.
pub(crate) fn is_extension(number: u8) -> bool {
    matches!(
        number,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | 60 | 135 | 139 | 140
    )
}

/// Reads an IPv4 packet; the error is the reason of the drop.
pub(crate) fn ipv4(data: &[u8], extent: Extent) -> Result<Packet<'_>, &'static str> {
    let Some(fixed) = data.get(..20) else {
        return Err("truncated");
    };
    if fixed[0] >> 4 != 4 {
        return Err("ip_version");
    }
    let header = usize::from(fixed[0] & 15) * 4;
    if header < 20 {
        return Err("ip_header_length");
    }
    let mut total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if total == 0 && extent == Extent::Merged {
        total = data.len();
    }
    if total < header || (total > data.len() && extent != Extent::Quoted) {
        return Err("ip_total_length");
    }
    let router_alert =
        fixed[9] == IGMP && header == 24 && data.get(20..24) == Some(&[0x94, 4, 0, 0]);
    if header > 20 && !router_alert {
        return Err("ip_options");
    }
    let flags_and_offset = u16::from_be_bytes([fixed[6], fixed[7]]);
    let offset = u32::from(flags_and_offset & 0x1fff) * 8;
    let more = flags_and_offset & 0x2000 != 0;
    Ok(Packet {
        source: IpAddr::V4(Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15])),
        destination: IpAddr::V4(Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19])),
        protocol: fixed[9],
        hop_limit: fixed[8],
        extensions: 0,
        hop_by_hop: None,
        part: part(offset, more),
        datagram: (
            u32::from(u16::from_be_bytes([fixed[4], fixed[5]])),
            fixed[9],
        ),
        offset,
        body: slice(data, header, body_end(data, total, extent)),
        in_frame: data.len().saturating_sub(header),
    })
}

/// Reads an IPv6 packet with its extension headers; the error is the reason of the drop.
pub(crate) fn ipv6(data: &[u8], extent: Extent) -> Result<Packet<'_>, &'static str> {
    let Some(fixed) = data.get(..40) else {
        return Err("truncated");
    };
    if fixed[0] >> 4 != 6 {
        return Err("ip_version");
    }
    let mut payload = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    if payload == 0 && extent == Extent::Merged {
        payload = data.len() - 40;
    }
    let mut next = fixed[6];
    if payload == 0 && next != NO_NEXT_HEADER {
        return Err("ip_total_length");
    }
    let end = 40 + payload;
    if end > data.len() && extent != Extent::Quoted {
        return Err("ip_total_length");
    }

    let mut at = 40;
    let mut extensions = 0;
    let mut hop_by_hop = None;
    // (part, identification, next header, offset in bytes)
    let mut fragment = None;
    loop {
        if next == NO_NEXT_HEADER {
            return Err("ipv6_no_next_header");
        }
        if !is_extension(next) {
            break;
        }
        if extensions == 8 || (next == HOP_BY_HOP && extensions != 0) {
            return Err("ipv6_extension");
        }
        let Some(header) = data.get(at..at + 8) else {
            return Err("truncated");
        };
        let units = usize::from(header[1]);
        let length = match next {
            FRAGMENT => 8,
            AUTHENTICATION => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        if at + length > end || at + length - 40 > 256 {
            return Err("ipv6_extension");
        }
        if next == ROUTING && header[3] != 0 {
            return Err("ipv6_routing");
        }
        if next == HOP_BY_HOP {
            hop_by_hop = Some(slice(data, at, at + length));
        }
        extensions += 1;
        at += length;
        let number = next;
        next = header[0];
        if number == FRAGMENT {
            if fragment.is_some() {
                return Err("ipv6_fragment_repeated");
            }
            let word = u16::from_be_bytes([header[2], header[3]]);
            let offset = u32::from(word & 0xfff8);
            let part = part(offset, word & 1 != 0);
            let identification = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            fragment = Some((part, identification, next, offset));
            if part == Part::Later {
                break;
            }
        }
    }
    let (part, identification, named, offset) = fragment.unwrap_or((Part::Whole, 0, next, 0));
    Ok(Packet {
        source: address(fixed, 8),
        destination: address(fixed, 24),
        protocol: next,
        hop_limit: fixed[7],
        extensions,
        hop_by_hop,
        part,
        datagram: (identification, named),
        offset,
        body: slice(data, at, body_end(data, end, extent)),
        in_frame: data.len().saturating_sub(at),
    })
}

/// The IPv6 address at `at`; `::` if it is not all there.
pub(crate) fn address(data: &[u8], at: usize) -> IpAddr {
    let mut octets = [0; 16];
    if let Some(bytes) = data.get(at..at + 16) {
        octets.copy_from_slice(bytes);
    }
    IpAddr::V6(Ipv6Addr::from(octets))
}

fn part(offset: u32, more: bool) -> Part {
    match (offset, more) {
        (0, false) => Part::Whole,
        (0, true) => Part::First,
        _ => Part::Later,
    }
}

/// Where the packet ends: senders of errors may write lengths of their own into what they quote.
fn body_end(data: &[u8], stated: usize, extent: Extent) -> usize {
    if extent == Extent::Quoted {
        data.len()
    } else {
        stated
    }
}

/// `data[from..to]`, as far as it is there.
fn slice(data: &[u8], from: usize, to: usize) -> &[u8] {
    data.get(from..to.min(data.len())).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv6 packet whose header names `next`, with `payload` behind it.
    fn packet(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut data = vec![0x60, 0, 0, 0];
        data.extend((payload.len() as u16).to_be_bytes());
        data.extend([next, 64]);
        data.extend([0x20; 16]);
        data.extend([0x21; 16]);
        data.extend(payload);
        data
    }

    fn read(next: u8, payload: &[u8]) -> Result<(u8, Part, usize), &'static str> {
        let data = packet(next, payload);
        ipv6(&data, Extent::Whole).map(|packet| (packet.protocol, packet.part, packet.body.len()))
    }

    #[test]
    fn each_extension_header_has_its_own_unit_of_length() {
        assert_eq!(
            read(0, &[UDP, 0, 0, 0, 0, 0, 0, 0, 9]),
            Ok((UDP, Part::Whole, 1))
        );
        let mut authentication = vec![UDP, 4];
        authentication.resize(24 + 3, 0);
        assert_eq!(read(51, &authentication), Ok((UDP, Part::Whole, 3)));
        // The second byte of a fragment header is reserved, not a length.
        assert_eq!(
            read(44, &[UDP, 9, 0, 0, 0, 0, 0, 1, 7, 7]),
            Ok((UDP, Part::Whole, 2))
        );
        let mut options = vec![UDP, 1];
        options.resize(16, 0);
        assert_eq!(read(60, &options), Ok((UDP, Part::Whole, 0)));
    }

    #[test]
    fn the_walk_is_bounded() {
        let chain = |count: usize, last: u8| {
            let mut payload = Vec::new();
            for at in 1..=count {
                payload.extend([if at == count { last } else { 60 }, 0, 0, 0, 0, 0, 0, 0]);
            }
            payload
        };
        assert_eq!(read(60, &chain(8, UDP)), Ok((UDP, Part::Whole, 0)));
        assert_eq!(read(60, &chain(9, UDP)), Err("ipv6_extension"));
        // The number of the ninth decides before its bytes are looked for.
        assert_eq!(read(60, &chain(8, 60)), Err("ipv6_extension"));
        assert_eq!(read(60, &chain(7, 60)), Err("truncated"));
        assert_eq!(
            read(60, &chain(2, 0)),
            Err("ipv6_extension"),
            "hop-by-hop behind another"
        );
        assert_eq!(read(60, &chain(8, 59)), Err("ipv6_no_next_header"));
        let mut long = vec![UDP, 31];
        long.resize(256, 0);
        assert_eq!(read(60, &long), Ok((UDP, Part::Whole, 0)));
        long[1] = 32;
        long.resize(264, 0);
        assert_eq!(
            read(60, &long),
            Err("ipv6_extension"),
            "more than 256 bytes"
        );
        assert_eq!(
            read(60, &[UDP, 1, 0, 0, 0, 0, 0, 0, 9]),
            Err("ipv6_extension"),
            "past the packet"
        );
    }

    #[test]
    fn routing_and_fragments() {
        assert_eq!(
            read(43, &[UDP, 0, 4, 0, 0, 0, 0, 0]),
            Ok((UDP, Part::Whole, 0))
        );
        assert_eq!(read(43, &[UDP, 0, 0, 1, 0, 0, 0, 0]), Err("ipv6_routing"));
        assert_eq!(
            read(44, &[UDP, 0, 0, 1, 0, 0, 0, 0]),
            Ok((UDP, Part::First, 0))
        );
        // What follows a later fragment's header is payload, whatever the header names.
        assert_eq!(
            read(44, &[59, 0, 0, 8, 0, 0, 0, 0, 1]),
            Ok((59, Part::Later, 1))
        );
        assert_eq!(
            read(44, &[44, 0, 0, 0, 0, 0, 0, 0, UDP, 0, 0, 8, 0, 0, 0, 0]),
            Err("ipv6_fragment_repeated")
        );
    }

    #[test]
    fn padding_is_not_payload() {
        let mut data = packet(60, &[UDP, 0, 0, 0, 0, 0, 0, 0]);
        data.extend([0; 20]);
        let read = ipv6(&data, Extent::Whole).unwrap();
        assert_eq!((read.body.len(), read.in_frame), (0, 20));
        data[5] = 7;
        assert_eq!(ipv6(&data, Extent::Whole).unwrap_err(), "ipv6_extension");
        data[5] = 0;
        assert_eq!(ipv6(&data, Extent::Whole).unwrap_err(), "ip_total_length");
    }

    #[test]
    fn ipv4_lengths_and_options() {
        let mut data = vec![
            0x45, 0, 0, 24, 0, 7, 0x20, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        data.extend([0x94, 4, 0, 0]);
        let first = ipv4(&data, Extent::Whole).unwrap();
        assert_eq!(
            (first.part, first.datagram, first.body.len()),
            (Part::First, (7, UDP), 4)
        );
        data[0] = 0x46;
        assert_eq!(ipv4(&data, Extent::Whole).unwrap_err(), "ip_options");
        data[9] = IGMP;
        assert_eq!(ipv4(&data, Extent::Whole).unwrap().body.len(), 0);
        data[3] = 23;
        assert_eq!(ipv4(&data, Extent::Whole).unwrap_err(), "ip_total_length");
        data[3] = 25;
        assert_eq!(ipv4(&data, Extent::Whole).unwrap_err(), "ip_total_length");
        assert!(ipv4(&data, Extent::Quoted).is_ok());
        data[3] = 0;
        assert!(ipv4(&data, Extent::Merged).is_ok());
        assert_eq!(ipv4(&data, Extent::Whole).unwrap_err(), "ip_total_length");
    }
}
