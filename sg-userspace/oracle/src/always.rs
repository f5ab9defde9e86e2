//! Section 3: what passes whatever the rules say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    Direction,
    Verdict::{self, Drop, Pass},
    addresses::{is_link_local, own, source_possible},
    ip::{self, ICMPV6, Packet, Part, UDP},
    policy::Interface,
};

/// The verdict where this section has one.
pub(crate) fn judge(
    packet: &Packet<'_>,
    direction: Direction,
    interface: &Interface,
) -> Option<Verdict> {
    if interface.dhcp && is_dhcp(packet, direction, interface) {
        return Some(Pass("dhcp"));
    }
    if !packet.is_ipv6() || packet.protocol != ICMPV6 || packet.part == Part::Later {
        return None;
    }
    if interface.mld && is_listener(packet, direction) {
        return Some(Pass("multicast_listener"));
    }
    neighbor(packet, direction, interface)
}

fn is_dhcp(packet: &Packet<'_>, direction: Direction, interface: &Interface) -> bool {
    if packet.protocol != UDP || packet.part != Part::Whole || packet.body.len() < 8 {
        return false;
    }
    let source = u16::from_be_bytes([packet.body[0], packet.body[1]]);
    let destination = u16::from_be_bytes([packet.body[2], packet.body[3]]);
    if !packet.is_ipv6() {
        return match direction {
            Direction::In => (source, destination) == (67, 68) && source_possible(packet),
            Direction::Out => {
                let nobody = packet.source == IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                (source, destination) == (68, 67)
                    && packet.destination == IpAddr::V4(Ipv4Addr::BROADCAST)
                    && (nobody
                        || (source_possible(packet) && own(packet, direction, interface).is_ok()))
            }
        };
    }
    // ff02::1:2, All_DHCP_Relay_Agents_and_Servers (RFC 8415 section 7.1).
    let servers = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2));
    packet.extensions == 0
        && is_link_local(packet.source)
        && match direction {
            Direction::In => {
                (source, destination) == (547, 546) && is_link_local(packet.destination)
            }
            Direction::Out => (source, destination) == (546, 547) && packet.destination == servers,
        }
}

/// An address that the workload behind a `host` interface is known not to have.
fn is_foreign(address: IpAddr, interface: &Interface) -> bool {
    let known = interface.addresses.as_ref();
    interface.host && known.is_some_and(|known| !known.contains(&address))
}

fn is_listener(packet: &Packet<'_>, direction: Direction) -> bool {
    // Section 5 will not have an ICMPv6 message below 8 bytes.
    if packet.body.len() < 8 {
        return false;
    }
    let towards = match packet.body[0] {
        130 => Direction::In,
        131 | 132 | 143 => Direction::Out,
        _ => return false,
    };
    let unspecified = packet.source == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    towards == direction
        && packet.hop_limit == 1
        && (is_link_local(packet.source) || unspecified)
        && packet.hop_by_hop.is_some_and(is_router_alert)
}

/// A hop-by-hop header of 8 bytes with a router alert of value 0 (RFC 2711) and a PadN or two Pad1.
fn is_router_alert(header: &[u8]) -> bool {
    let alert = [5, 2, 0, 0];
    let padding = |bytes: &[u8]| bytes == [0, 0] || bytes == [1, 0];
    header.len() == 8
        && ((header[2..6] == alert && padding(&header[6..8]))
            || (header[4..8] == alert && padding(&header[2..4])))
}

fn neighbor(packet: &Packet<'_>, direction: Direction, interface: &Interface) -> Option<Verdict> {
    // "In the frame" counts padding too: what is there but behind the stated length is malformed rather
    // than truncated. No byte of it is looked at.
    let kind = *packet.body.first()?;
    if packet.in_frame < 4 || !(133..=137).contains(&kind) {
        return None;
    }
    if packet.in_frame < 8 {
        return Some(Drop("truncated"));
    }
    if packet.hop_limit != 255
        || packet.extensions != 0
        || packet.body.len() < 8
        || packet.body[1] != 0
        || packet.source.is_multicast()
    {
        return Some(Drop("neighbor_invalid"));
    }
    let claimed = match kind {
        134 if direction == Direction::In => return Some(Pass("router_advertisement")),
        137 if direction == Direction::In && interface.nd_redirect => {
            return Some(Pass("redirect"));
        }
        134 | 137 => return Some(Drop("neighbor_invalid")),
        136 if packet.in_frame < 24 => return Some(Drop("truncated")),
        136 if packet.body.len() < 24 => return Some(Drop("neighbor_invalid")),
        136 => Some(ip::address(packet.body, 8)),
        _ if packet.source == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => None,
        _ => Some(packet.source),
    };
    if direction == Direction::Out
        && let Some(claimed) = claimed
        && !is_link_local(claimed)
        && is_foreign(claimed, interface)
    {
        return Some(Drop("address_spoofed"));
    }
    Some(Pass("neighbor_discovery"))
}
