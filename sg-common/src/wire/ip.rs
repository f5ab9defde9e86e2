//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers, fail-closed.

use super::{ETHERNET, Frame, Window, transport::protocol};
use crate::{
    atomic,
    conntrack::Segment,
    family::{Family, Flow, V4, V6},
    verdict::{Direction, DropReason},
};

/// A packet as far as it has been read: what judging it needs, and nothing that can be had cheaply
/// from that. One lives in memory that the caller provides, since a BPF program's stack is 512 bytes
/// for all its functions together.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Datagram<F: Family> {
    /// The flow's hash.
    pub hash: u64,
    /// The flow; its addresses come from the IP header, its ports from the transport header.
    pub flow: Flow<F::Address>,
    /// TCP only.
    pub segment: Segment,
    /// Offset of the transport header in the frame.
    pub transport: u32,
    /// Bytes from the transport header to the end of the packet; trailing padding is not in it.
    pub length: u32,
    /// Fragment identification, native word.
    pub id: u32,
    /// Source port; 0 where the protocol has none.
    pub source_port: u16,
    /// Destination port; of the family's ICMP `type << 8 | code`; else 0.
    pub destination_port: u16,
    /// Identifier of an ICMP echo.
    pub identifier: u16,
    /// Offset of a later fragment in bytes.
    pub fragment_offset: u16,
    /// Whether the packet is the first of several fragments.
    pub first_fragment: bool,
    /// Transport protocol; of a later fragment what its header names.
    pub protocol: u8,
    /// What the fragment header names, which is the same for all fragments of a packet; IPv4: the
    /// protocol.
    pub fragment_protocol: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Whether IPv6 extension headers came before the transport header.
    pub extended: bool,
    /// Whether the first of them is hop-by-hop with a router alert for MLD (RFC 2711).
    pub router_alert: bool,
}

impl<F: Family> Datagram<F> {
    /// Whether a later fragment begins where the transport header of its first one must be
    /// (RFC 3128): behind 60 bytes of TCP, and behind what extension headers may take before it.
    #[inline(always)]
    pub fn overlaps(&self) -> bool {
        let room = if self.protocol == protocol::TCP {
            60
        } else if F::IPV6 && is_extension(self.protocol) {
            60 + MAX_EXTENSION_BYTES as u16
        } else {
            0
        };
        self.fragment_offset < room
    }

    /// Whether the packet is a later fragment: what stands at `transport` is payload.
    #[inline(always)]
    pub fn later_fragment(&self) -> bool {
        self.fragment_offset != 0
    }

    /// The source address of a packet that travels in `direction`.
    #[inline(always)]
    pub fn source(&self, direction: Direction) -> &F::Address {
        match direction {
            Direction::Ingress => &self.flow.remote,
            Direction::Egress => &self.flow.local,
        }
    }

    /// The destination address of a packet that travels in `direction`.
    #[inline(always)]
    pub fn destination(&self, direction: Direction) -> &F::Address {
        self.source(direction.reverse())
    }
}

/// A packet's place in a frame, and which way it travels.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Offset of the IP header in the frame.
    pub offset: usize,
    /// Bytes of the frame from there on.
    pub available: u32,
    /// Whether the packet stands in an ICMP error and may be cut short.
    pub quoted: bool,
    /// Its direction.
    pub direction: Direction,
}

/// A family whose header can be read.
pub trait Parse: Family {
    /// Reads the IP header, extension headers included, into `datagram`.
    fn parse<P: Frame>(
        frame: &P,
        place: Place,
        datagram: &mut Datagram<Self>,
    ) -> Result<(), DropReason>;
}

impl Parse for V4 {
    #[inline(always)]
    fn parse<P: Frame>(
        frame: &P,
        place: Place,
        datagram: &mut Datagram<V4>,
    ) -> Result<(), DropReason> {
        let Some(header) = frame.window::<20>(place.offset) else {
            return Err(DropReason::Truncated);
        };
        let first = header.u8(0);
        if first >> 4 != 4 {
            return Err(DropReason::IpVersion);
        }
        let ihl = first & 0xf;
        if ihl < 5 {
            return Err(DropReason::IpHeaderLength);
        }
        // BIG TCP writes 0 where 16 bits do not suffice.
        let stated = u32::from(header.u16(2));
        let total = if stated == 0 && frame.merged() {
            place.available
        } else {
            stated
        };
        if total < u32::from(ihl) * 4 || (total > place.available && !place.quoted) {
            return Err(DropReason::IpTotalLength);
        }
        if ihl > 5 && !(ihl == 6 && igmp_alert(frame, place.offset)) {
            return Err(DropReason::IpOptions);
        }
        let flags = header.u16(6);
        datagram.fragment_offset = flags << 3;
        datagram.first_fragment = flags & 0x3fff == 0x2000;
        datagram.id = u32::from(header.u16(4));
        datagram.protocol = header.u8(9);
        datagram.fragment_protocol = datagram.protocol;
        datagram.hop_limit = header.u8(8);
        datagram.transport = place.offset as u32 + u32::from(ihl) * 4;
        datagram.length = total - u32::from(ihl) * 4;
        datagram.extended = false;
        datagram.router_alert = false;
        let (source, destination) = (header.word(12), header.word(16));
        match place.direction {
            Direction::Ingress => {
                datagram.flow.local = destination;
                datagram.flow.remote = source;
            }
            Direction::Egress => {
                datagram.flow.local = source;
                datagram.flow.remote = destination;
            }
        }
        Ok(())
    }
}

/// IGMP with nothing but the router alert that it must carry (RFC 2113 §2.1, RFC 3376 §4): a rule for
/// protocol 2 could never match without (fact 5.7).
#[inline(always)]
fn igmp_alert<P: Frame>(frame: &P, offset: usize) -> bool {
    match frame.window::<24>(offset) {
        Some(header) => header.u8(9) == 2 && header.u32(20) == 0x9404_0000,
        None => false,
    }
}

/// Extension headers one packet may carry (attacks E1).
const MAX_EXTENSIONS: usize = 8;
/// Bytes they may take together.
const MAX_EXTENSION_BYTES: usize = 256;

/// Protocol numbers that are extension headers (RFC 8200 §4, RFC 7045).
mod next {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const NONE: u8 = 59;
    pub(super) const DESTINATION: u8 = 60;
    pub(super) const MOBILITY: u8 = 135;
    pub(super) const HOST_IDENTITY: u8 = 139;
    pub(super) const SHIM6: u8 = 140;
}

impl Parse for V6 {
    #[inline(always)]
    fn parse<P: Frame>(
        frame: &P,
        place: Place,
        datagram: &mut Datagram<V6>,
    ) -> Result<(), DropReason> {
        let Some(header) = frame.window::<40>(place.offset) else {
            return Err(DropReason::Truncated);
        };
        if header.u8(0) >> 4 != 6 {
            return Err(DropReason::IpVersion);
        }
        let stated = u32::from(header.u16(4));
        let protocol = header.u8(6);
        let length = if stated == 0 && frame.merged() && place.available >= 40 {
            place.available - 40
        } else {
            stated
        };
        // A jumbogram, or nothing at all (RFC 2675; attacks E11).
        if length == 0 && protocol != next::NONE {
            return Err(DropReason::IpTotalLength);
        }
        if length + 40 > place.available && !place.quoted {
            return Err(DropReason::IpTotalLength);
        }
        datagram.fragment_offset = 0;
        datagram.first_fragment = false;
        datagram.id = 0;
        datagram.protocol = protocol;
        datagram.hop_limit = header.u8(7);
        datagram.transport = place.offset as u32 + 40;
        datagram.length = length;
        datagram.extended = false;
        datagram.router_alert = false;
        match place.direction {
            Direction::Ingress => {
                datagram.flow.remote = header.words(8);
                datagram.flow.local = header.words(24);
            }
            Direction::Egress => {
                datagram.flow.local = header.words(8);
                datagram.flow.remote = header.words(24);
            }
        }
        match protocol {
            6 | 17 | 58 => Ok(()),
            _ => match extensions(frame, datagram) {
                None => Ok(()),
                Some(reason) => Err(reason),
            },
        }
    }
}

/// Whether a number names an extension header.
#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        next::HOP_BY_HOP
            | next::ROUTING
            | next::FRAGMENT
            | next::AUTHENTICATION
            | next::DESTINATION
            | next::MOBILITY
            | next::HOST_IDENTITY
            | next::SHIM6
    )
}

/// Walks the extension headers of a packet whose fixed header has been read.
///
/// 1. Hop-by-hop stands first or not at all (RFC 8200 §4.1).
/// 2. A routing header with segments left is source routing, whatever its type (RFC 5095).
/// 3. One fragment header at most (CVE-2023-4809); what follows a later fragment's is payload.
/// 4. Lengths: fragment 8, authentication (n + 2) · 4 (RFC 4302 §2.2), the others (n + 1) · 8.
#[inline(never)]
fn extensions<P: Frame>(frame: &P, headers: &mut Datagram<V6>) -> Option<DropReason> {
    let start = headers.transport as usize;
    let mut offset = start;
    let mut protocol = headers.protocol;
    let mut remaining = headers.length;
    let mut fragmented = false;
    for position in 0..=atomic::opaque(MAX_EXTENSIONS as u64) as usize {
        if protocol == next::NONE {
            return Some(DropReason::Ipv6NoNextHeader);
        }
        if !is_extension(protocol) {
            headers.protocol = protocol;
            headers.transport = offset as u32;
            headers.length = remaining;
            headers.extended = position != 0;
            return None;
        }
        if position == MAX_EXTENSIONS || (protocol == next::HOP_BY_HOP && position != 0) {
            return Some(DropReason::Ipv6Extension);
        }
        let Some(extension) = frame.window::<8>(offset) else {
            return Some(DropReason::Truncated);
        };
        let words = usize::from(extension.u8(1));
        let bytes = match protocol {
            next::FRAGMENT => 8,
            next::AUTHENTICATION => (words + 2) * 4,
            _ => (words + 1) * 8,
        };
        if bytes as u32 > remaining || offset - start + bytes > MAX_EXTENSION_BYTES {
            return Some(DropReason::Ipv6Extension);
        }
        match protocol {
            // Router alert, value 0, alone with its padding: type 5, length 2 (RFC 2711 §2.1); Pad1 twice or
            // an empty PadN (RFC 8200 §4.2).
            next::HOP_BY_HOP => {
                let padding = |at: usize| matches!(extension.u16(at), 0 | 0x0100);
                headers.router_alert = bytes == 8
                    && ((extension.u32(2) == 0x0502_0000 && padding(6))
                        || (padding(2) && extension.u32(4) == 0x0502_0000));
            }
            next::ROUTING if extension.u8(3) != 0 => return Some(DropReason::Ipv6Routing),
            next::FRAGMENT => {
                if fragmented {
                    return Some(DropReason::Ipv6FragmentRepeated);
                }
                fragmented = true;
                let field = extension.u16(2);
                headers.id = extension.u32(4);
                headers.fragment_protocol = extension.u8(0);
                headers.fragment_offset = field & 0xfff8;
                headers.first_fragment = field & 0xfff9 == 1;
                if field & 0xfff8 != 0 {
                    headers.protocol = extension.u8(0);
                    headers.transport = offset as u32 + 8;
                    headers.length = remaining - 8;
                    headers.extended = true;
                    return None;
                }
            }
            _ => {}
        }
        protocol = extension.u8(0);
        offset += bytes;
        remaining -= bytes as u32;
    }
    Some(DropReason::Ipv6Extension)
}

/// Bytes from the IP header to the end of the frame.
#[inline(always)]
pub fn available<P: Frame>(frame: &P) -> u32 {
    frame.len().saturating_sub(ETHERNET as u32)
}
