//! What belongs to the link and not to flows: ARP, neighbours, routers, listeners, DHCP; extension
//! headers; other protocols than IP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Source,
    frame::{self, Ends},
    places::{self, Ip},
    policy::ETHERTYPES,
};

/// Rest of an extension header of eight bytes that says nothing (PadN).
const NOTHING: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
/// Rests of a hop-by-hop header with a router alert for MLD (RFC 2711 §2.1), before and behind padding.
const ALERTS: [&[u8]; 2] = [&[0, 5, 2, 0, 0, 1, 0], &[0, 1, 0, 5, 2, 0, 0]];

/// Any frame of the link, of the workload behind interface `number`, towards it or from it.
pub(super) fn any(source: &mut Source<'_>, number: usize, inbound: bool) -> Vec<u8> {
    match source.below(9) {
        0 | 1 => arp(source, number),
        2..=4 => neighbor(source, number, inbound),
        5 => listener(source, number, inbound),
        6 | 7 => dhcp(source, number, inbound),
        _ => foreign(source),
    }
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(_) => panic!("IPv6"),
    }
}

fn arp(source: &mut Source<'_>, number: usize) -> Vec<u8> {
    let senders = [
        places::workload(Ip::V4, number),
        places::workload(Ip::V4, number + 1),
        Ipv4Addr::UNSPECIFIED.into(),
    ];
    let (sender, target) = (source.of(&senders), places::anybody(source, Ip::V4));
    let mut frame = frame::arp(source.of(&[1, 2, 1, 2, 0, 3]), sender, target);
    if source.one_in(8) {
        frame[14 + source.below(8)] ^= 1 << source.below(8);
    }
    frame
}

/// Who speaks, and who may be spoken of.
fn speakers(number: usize) -> [IpAddr; 6] {
    [
        places::workload(Ip::V6, number),
        places::link_local(number as u8),
        places::workload(Ip::V6, number + 1),
        places::link_local(9),
        Ipv6Addr::UNSPECIFIED.into(),
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
    ]
}

fn neighbor(source: &mut Source<'_>, number: usize, inbound: bool) -> Vec<u8> {
    let speakers = speakers(number);
    let far = if inbound { 3 } else { 1 };
    let from = if source.one_in(2) {
        speakers[far]
    } else {
        source.of(&speakers)
    };
    let to = source.of(&[speakers[1], speakers[3], speakers[5], speakers[0]]);
    let kind = source.of(&[135, 136, 133, 134, 137, 136, 135, 134, 137]);
    let code = if source.one_in(12) { 1 } else { 0 };
    let hops = if source.one_in(10) { 254 } else { 255 };
    let target = v6(source.of(&speakers[..3])).octets();
    let body = frame::message(kind, code, &[&[0; 4][..], &target].concat());
    let length = if source.one_in(8) {
        source.below(body.len())
    } else {
        body.len()
    };
    if source.one_in(12) {
        let options = [(60, NOTHING.to_vec())];
        return frame::extended((from, to), hops, &options, 58, &body[..length]);
    }
    let mut frame = frame::ip((from, to), hops, 58, &body[..length]);
    if source.one_in(10) {
        // Bytes that the header does not count.
        frame.extend(&body[length..]);
        frame.extend([0; 8]);
    }
    frame
}

fn listener(source: &mut Source<'_>, number: usize, inbound: bool) -> Vec<u8> {
    let speakers = speakers(number);
    let from = source.of(&[speakers[1], speakers[1], speakers[4], speakers[0]]);
    let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16).into();
    let kind = if inbound && !source.one_in(4) {
        130
    } else {
        source.of(&[131, 132, 143, 130])
    };
    let alert = source.of(&[
        ALERTS[0],
        ALERTS[1],
        ALERTS[0],
        NOTHING,
        &[0, 5, 2, 0, 1, 1, 0],
    ]);
    let hops = if source.one_in(8) { 2 } else { 1 };
    let options: Vec<(u8, Vec<u8>)> = match source.below(10) {
        0 => Vec::new(),
        1 => vec![(0, alert.to_vec()), (60, NOTHING.to_vec())],
        _ => vec![(0, alert.to_vec())],
    };
    frame::extended(
        (from, to),
        hops,
        &options,
        58,
        &frame::message(kind, 0, &[0; 20]),
    )
}

fn dhcp(source: &mut Source<'_>, number: usize, inbound: bool) -> Vec<u8> {
    let ip = source.of(&Ip::BOTH);
    let (client, server) = ip.pick((68, 67), (546, 547));
    let inbound = inbound != source.one_in(10);
    let ports = if inbound {
        (server, client)
    } else {
        (client, server)
    };
    let all = ip.pick(
        Ipv4Addr::BROADCAST.into(),
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2).into(),
    );
    let far = ip.pick(places::anybody(source, ip), places::link_local(9));
    let near = ip.pick(Ipv4Addr::UNSPECIFIED.into(), places::link_local(1));
    let own = places::workload(ip, number);
    let mut ends = if inbound {
        (far, source.of(&[near, near, all, own]))
    } else {
        (near, all)
    };
    match source.below(8) {
        0 => ends.0 = places::odd(source, ip),
        1 => ends.1 = places::odd(source, ip),
        2 => ends.0 = own,
        _ => {}
    }
    let body = frame::datagram(ports, source.of(&[20, 0]));
    if ip == Ip::V6 && source.one_in(8) {
        return frame::extended(ends, 64, &[(60, NOTHING.to_vec())], 17, &body);
    }
    frame::ip(ends, 64, 17, &body)
}

/// Neither IP nor ARP, or tagged; or IGMP with its option.
fn foreign(source: &mut Source<'_>) -> Vec<u8> {
    match source.below(4) {
        0 => {
            let kind = source.of(&[0x8100, 0x88a8, 0x9100, 0x9200]);
            frame::ethernet(kind, &[0, 1, 8, 0, 0x45, 0, 0, 20])
        }
        1 => {
            let from = source.of(&[
                Ipv4Addr::UNSPECIFIED,
                Ipv4Addr::new(10, 0, 0, 1),
                Ipv4Addr::new(10, 0, 1, 1),
            ]);
            let ends = (from.into(), Ipv4Addr::new(224, 0, 0, 22).into());
            let option = source.of(&[[0x94, 4, 0, 0], [0x94, 4, 0, 0], [0x94, 4, 0, 1], [1; 4]]);
            frame::ipv4(ends, 1, 2, 0, 0, &option, &[0x22, 0, 0, 0, 0, 0, 0, 0])
        }
        _ => {
            let kind = source.of(&ETHERTYPES);
            frame::ethernet(kind ^ u16::from(source.one_in(8)), &[0; 30])
        }
    }
}

/// Extension headers of IPv6 before something.
pub(super) fn extended(source: &mut Source<'_>, ends: Ends, protocol: u8, body: &[u8]) -> Vec<u8> {
    let kinds = [60, 60, 0, 43, 44, 51, 135, 139, 140, 59];
    let rests: [&[u8]; 6] = [
        NOTHING,
        NOTHING,
        // No segments left; one left; sixteen bytes; more than 256 of them together.
        &[0, 0, 0, 0, 0, 0, 0],
        &[0, 0, 1, 0, 0, 0, 0],
        &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[15; 127],
    ];
    let mut chain: Vec<(u8, Vec<u8>)> = Vec::new();
    for _ in 0..source.of(&[1, 1, 2, 3, 7, 8, 9]) {
        let kind = if source.one_in(3) {
            source.of(&kinds)
        } else {
            60
        };
        let mut rest = source.of(&rests).to_vec();
        match kind {
            // An authentication header counts by fours.
            51 => rest[0] *= 2,
            // Neither more nor an offset, mostly.
            44 if !source.one_in(3) => rest = vec![0, 0, 0, 0, 0, 0, 1],
            _ => {}
        }
        chain.push((kind, rest));
    }
    if source.one_in(4) {
        chain[0].0 = 0;
    }
    frame::extended(ends, 64, &chain, protocol, body)
}
