//! Section 4, addresses that nobody has, and section 6, addresses that the workload does not have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    Direction,
    ip::{IGMP, Packet},
    policy::Interface,
};

/// Section 4; the error is the reason of the drop.
pub(crate) fn possible(packet: &Packet<'_>) -> Result<(), &'static str> {
    if !source_possible(packet) {
        Err("ip_source")
    } else if !destination_possible(packet.destination) {
        Err("ip_destination")
    } else if packet.source == packet.destination {
        Err("land")
    } else {
        Ok(())
    }
}

/// Whether section 4 lets the source pass.
pub(crate) fn source_possible(packet: &Packet<'_>) -> bool {
    match packet.source {
        IpAddr::V4(source) => {
            let first = source.octets()[0];
            let igmp = source.is_unspecified() && packet.protocol == IGMP;
            // 224/4 and 255.255.255.255
            (first != 0 || igmp)
                && first != 127
                && first & 0xf0 != 224
                && source != Ipv4Addr::BROADCAST
        }
        IpAddr::V6(source) => !reserved(source) && source.octets()[0] != 0xff,
    }
}

fn destination_possible(destination: IpAddr) -> bool {
    match destination {
        IpAddr::V4(destination) => !matches!(destination.octets()[0], 0 | 127),
        IpAddr::V6(destination) => !reserved(destination),
    }
}

/// `::`, `::1`, ::ffff:0:0/96.
fn reserved(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    address == Ipv6Addr::UNSPECIFIED
        || address == Ipv6Addr::LOCALHOST
        || segments[..6] == [0, 0, 0, 0, 0, 0xffff]
}

/// fe80::/10.
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfe80)
}

/// Section 6; the error is the reason of the drop.
pub(crate) fn own(
    packet: &Packet<'_>,
    direction: Direction,
    interface: &Interface,
) -> Result<(), &'static str> {
    let Some(known) = &interface.addresses else {
        return Ok(());
    };
    if !interface.source_dest_check {
        return Ok(());
    }
    match direction {
        Direction::Out => {
            let source = packet.source;
            let igmp = packet.protocol == IGMP && source == IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            if known.contains(&source) || is_link_local(source) || igmp {
                Ok(())
            } else {
                Err("address_spoofed")
            }
        }
        Direction::In => {
            let destination = packet.destination;
            let to_many =
                destination.is_multicast() || destination == IpAddr::V4(Ipv4Addr::BROADCAST);
            if known.contains(&destination) || is_link_local(destination) || to_many {
                Ok(())
            } else {
                Err("destination_foreign")
            }
        }
    }
}
