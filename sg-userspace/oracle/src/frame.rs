//! Section 1: the frame.

use std::net::{IpAddr, Ipv4Addr};

use crate::{
    Arrival, Direction,
    Verdict::{self, Drop, Pass},
    ip::{self, Extent, Packet},
    policy::Interface,
};

/// Reads a frame down to its IP headers; `Err` is the verdict where that settles it.
pub(crate) fn read<'a>(
    arrival: &Arrival<'a>,
    direction: Direction,
    interface: &Interface,
) -> Result<Packet<'a>, Verdict> {
    if arrival.frame.len() < 14 {
        return Err(Drop("truncated"));
    }
    let (ethernet, behind) = arrival.frame.split_at(14);
    let ethertype = u16::from_be_bytes([ethernet[12], ethernet[13]]);
    if arrival.tagged || matches!(ethertype, 0x8100 | 0x88a8 | 0x9100 | 0x9200) {
        return Err(Drop("vlan_tag"));
    }
    let extent = if arrival.merged {
        Extent::Merged
    } else {
        Extent::Whole
    };
    match ethertype {
        0x0800 => ip::ipv4(behind, extent).map_err(Drop),
        0x86dd => ip::ipv6(behind, extent).map_err(Drop),
        0x0806 => Err(arp(behind, direction, interface)),
        listed if interface.ethertypes.contains(&listed) => Err(Pass("listed_ethertype")),
        _ => Err(Drop("ethertype")),
    }
}

fn arp(data: &[u8], direction: Direction, interface: &Interface) -> Verdict {
    let Some(arp) = data.get(..28) else {
        return Drop("truncated");
    };
    // Ethernet, IPv4, their lengths, and the operation: request or reply.
    if arp[..7] != [0, 1, 8, 0, 6, 4, 0] || !matches!(arp[7], 1 | 2) {
        return Drop("arp_invalid");
    }
    let sender = Ipv4Addr::new(arp[14], arp[15], arp[16], arp[17]);
    if interface.host
        && direction == Direction::Out
        && !sender.is_unspecified()
        && let Some(known) = &interface.addresses
        && !known.contains(&IpAddr::V4(sender))
    {
        return Drop("address_spoofed");
    }
    Pass("arp")
}
