//! TCP (RFC 9293), UDP (RFC 768) and ICMP (RFC 792, RFC 4443) headers.

use super::{Frame, Window, ip::Datagram};
use crate::{
    conntrack::{Segment, flags_possible},
    family::Family,
    verdict::DropReason,
};

/// Protocol numbers.
pub mod protocol {
    /// RFC 9293.
    pub const TCP: u8 = 6;
    /// RFC 768.
    pub const UDP: u8 = 17;
}

/// Reads the transport header of a packet or first fragment into `datagram`.
///
/// A header that does not fit is an evasion in a first fragment (RFC 1858, RFC 7112) and a
/// malformed packet otherwise.
#[inline(always)]
pub fn parse<P: Frame, F: Family>(frame: &P, datagram: &mut Datagram<F>) -> Result<(), DropReason> {
    let first = datagram.first_fragment;
    let short = if first {
        DropReason::FragmentTiny
    } else {
        DropReason::Truncated
    };
    let length = datagram.length;
    let at = datagram.transport as usize;
    match datagram.protocol {
        protocol::TCP => {
            if length < 20 {
                return Err(short);
            }
            let Some(tcp) = frame.window::<20>(at) else {
                return Err(short);
            };
            let header = u32::from(tcp.u8(12) >> 4) * 4;
            if header < 20 || (header > length && !first) {
                return Err(DropReason::TcpHeader);
            }
            if header > length {
                return Err(DropReason::FragmentTiny);
            }
            let flags = tcp.u8(13);
            if !flags_possible(flags) {
                return Err(DropReason::TcpFlags);
            }
            datagram.source_port = tcp.u16(0);
            datagram.destination_port = tcp.u16(2);
            datagram.segment = Segment {
                flags,
                sequence: tcp.u32(4),
                acknowledgement: tcp.u32(8),
                payload: length - header,
            };
        }
        protocol::UDP => {
            if length < 8 {
                return Err(short);
            }
            let Some(udp) = frame.window::<8>(at) else {
                return Err(short);
            };
            datagram.source_port = udp.u16(0);
            datagram.destination_port = udp.u16(2);
        }
        icmp if icmp == F::ICMP => {
            if length < 8 {
                return Err(short);
            }
            let Some(icmp) = frame.window::<8>(at) else {
                return Err(short);
            };
            datagram.source_port = 0;
            datagram.destination_port = icmp.u16(0);
            datagram.identifier = icmp.u16(4);
        }
        _ => {
            datagram.source_port = 0;
            datagram.destination_port = 0;
        }
    }
    Ok(())
}

/// Reads the first eight bytes of a transport header quoted in an ICMP error: ports and identifier
/// are all that the sender of the error must include (RFC 792, RFC 1812 §4.3.2.3).
#[inline(always)]
pub fn parse_quoted<P: Frame, F: Family>(
    frame: &P,
    datagram: &mut Datagram<F>,
) -> Result<(), DropReason> {
    let Some(quote) = frame.window::<8>(datagram.transport as usize) else {
        return Err(DropReason::IcmpQuote);
    };
    datagram.source_port = 0;
    datagram.destination_port = 0;
    if datagram.protocol == F::ICMP {
        datagram.destination_port = quote.u16(0);
        datagram.identifier = quote.u16(4);
    } else if datagram.protocol == protocol::TCP || datagram.protocol == protocol::UDP {
        datagram.source_port = quote.u16(0);
        datagram.destination_port = quote.u16(2);
    }
    Ok(())
}
