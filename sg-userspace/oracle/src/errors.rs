//! Section 8: what an ICMP error quotes.

use crate::{
    Direction,
    entry::Key,
    ip::{self, Extent, Packet, Part},
    transport::{self, Header},
};

/// The flow of the packet that an ICMP error quotes, which travelled against the error's direction;
/// `None` where it cannot be read or does not fit the error.
pub(crate) fn quoted(interface: &str, direction: Direction, error: &Packet<'_>) -> Option<Key> {
    let quote = error.body.get(8..)?;
    let read = if error.is_ipv6() { ip::ipv6 } else { ip::ipv4 };
    let packet = read(quote, Extent::Quoted).ok()?;
    if packet.part == Part::Later || packet.source != error.destination {
        return None;
    }
    let header = transport::beginning(&packet)?;
    if matches!(header, Header::Icmp(icmp) if !icmp.is_echo()) {
        return None;
    }
    Some(Key::new(interface, direction.reverse(), &packet, &header))
}
