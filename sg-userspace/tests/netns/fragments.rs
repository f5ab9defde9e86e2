//! Datagrams that come in pieces.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

use etherparse::UdpHeader;
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use sg_common::abi::MAX_FRAGMENTS;

use crate::{
    common::{
        netns::{NEVER, Namespace, SOON, eventually},
        require::require,
    },
    frame,
    link::{Family, Link, Orientation, anyone},
    silence,
    traffic::{datagrams, question_and_answer, question_is_dropped},
};

/// Three fragments on an MTU of 1500.
const LARGE: usize = 4000;

/// A large datagram that a rule allows passes whole, and so does its answer.
#[track_caller]
pub(crate) fn follow_their_first(link: &Link, family: Family) {
    let server = datagrams(&link.workload, family.workload(), 5353);
    let client = datagrams(&link.peer, family.peer(), 0);
    let before = link.counters();
    question_and_answer(&client, &server, LARGE);
    question_and_answer(&client, &server, LARGE);
    let after = link.counters();
    after.only(
        &before,
        "ingress",
        &["passed_new", "passed_established", "passed_fragment"],
    );
    after.only(
        &before,
        "egress",
        &["passed_established", "passed_fragment"],
    );
    for direction in ["ingress", "egress"] {
        assert_eq!(after.passed(&before, direction, "fragment"), 4);
    }
}

/// None passes whose first did not, or that never had one.
#[track_caller]
pub(crate) fn are_nothing_without_it(link: &Link, family: Family) {
    let server = datagrams(&link.workload, family.workload(), 5354);
    let client = datagrams(&link.peer, family.peer(), 0);
    let before = link.counters();
    silence::all(&[("a large datagram", &|| {
        question_is_dropped(&client, &server, LARGE)
    })]);
    let after = link.counters();
    if link.orientation == Orientation::Own {
        let reasons = ["dropped_no_rule", "dropped_fragment_orphan"];
        after.only(&before, "ingress", &reasons);
        assert_eq!(after.dropped(&before, "ingress", "fragment_orphan"), 2);
    } else {
        // A sender on the same host learns of the first one's fate and stops.
        after.only(&before, "ingress", &["dropped_no_rule"]);
    }

    let raw = raw(&link.peer, family);
    let reassembling = to_reassemble(&link.workload, family);
    let packet = later_fragment(family);
    let to = SocketAddr::new(family.workload(), 0);
    sendto(&raw, &packet, SendFlags::empty(), &to).unwrap();
    eventually("the drop", || {
        link.counters()
            .dropped(&after, "ingress", "fragment_orphan")
            == 1
    });
    assert_eq!(to_reassemble(&link.workload, family), reassembling);
}

/// A socket whose packets are sent as they are, IP header and all.
pub(crate) fn raw(namespace: &Namespace, family: Family) -> OwnedFd {
    let domain = match family {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    namespace
        .run(|| socket(domain, SocketType::RAW, Some(ipproto::RAW)))
        .unwrap()
}

/// Bytes 1480 to 1511 of a UDP datagram from the peer to the workload, of which nothing else comes.
fn later_fragment(family: Family) -> Vec<u8> {
    const PAYLOAD: usize = 32;
    const UDP: u8 = 17;
    // In units of eight bytes; no more fragments.
    const OFFSET: u16 = 1480 / 8;
    let addresses = [family.peer(), family.workload()];
    let mut packet = match family {
        // RFC 791: version and length, total length, identification, offset, TTL, protocol; the
        // kernel fills in the checksum.
        Family::V4 => {
            let mut header = vec![0x45, 0, 0, 20 + PAYLOAD as u8, 0x53, 0x47];
            header.extend(OFFSET.to_be_bytes());
            header.extend([64, UDP, 0, 0]);
            header
        }
        // RFC 8200: version, payload length, next header, hop limit.
        Family::V6 => vec![0x60, 0, 0, 0, 0, 8 + PAYLOAD as u8, 44, 64],
    };
    for address in addresses {
        match address {
            std::net::IpAddr::V4(address) => packet.extend(address.octets()),
            std::net::IpAddr::V6(address) => packet.extend(address.octets()),
        }
    }
    if family == Family::V6 {
        // Fragment header: next header, reserved, offset, identification.
        packet.extend([UDP, 0]);
        packet.extend((OFFSET * 8).to_be_bytes());
        packet.extend([0x53, 0x47, 0x53, 0x47]);
    }
    packet.extend([0; PAYLOAD]);
    packet
}

/// Fragments that a namespace's stack was given to put together.
fn to_reassemble(namespace: &Namespace, family: Family) -> u64 {
    let counted = |path: &str| namespace.run(|| fs::read_to_string(path)).unwrap();
    match family {
        Family::V4 => {
            let text = counted("/proc/thread-self/net/snmp");
            let mut lines = text.lines().filter(|line| line.starts_with("Ip: "));
            let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
            let at = names.split(' ').position(|name| name == "ReasmReqds");
            values.split(' ').nth(at.unwrap()).unwrap().parse().unwrap()
        }
        Family::V6 => {
            let text = counted("/proc/thread-self/net/snmp6");
            let line = text.lines().find(|line| line.starts_with("Ip6ReasmReqds"));
            let value = line.unwrap().split_whitespace().nth(1);
            value.unwrap().parse().unwrap()
        }
    }
}

/// A UDP datagram of 64 bytes from the peer to port 5353 of the workload, with its checksum.
fn datagram(family: Family) -> Vec<u8> {
    let payload = [b'.'; 56];
    let header = match (family.peer(), family.workload()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => UdpHeader::with_ipv4_checksum(
            40_000,
            5353,
            &etherparse::Ipv4Header::new(64, 64, 17.into(), source.octets(), destination.octets())
                .unwrap(),
            &payload,
        ),
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let ip = etherparse::Ipv6Header {
                source: source.octets(),
                destination: destination.octets(),
                ..etherparse::Ipv6Header::default()
            };
            UdpHeader::with_ipv6_checksum(40_000, 5353, &ip, &payload)
        }
        _ => unreachable!("one family"),
    };
    [&header.unwrap().to_bytes()[..], &payload].concat()
}

/// Who puts fragments together sees that they overlap; the enforcer does not put them together.
#[test]
fn d5_overlapping_fragments_pass_and_the_receiver_drops_them() {
    require!(Root, Object);
    let link = Link::new(Orientation::Own, "tc");
    link.enforce(&anyone("udp", "5353"), "", "");
    for (number, family) in (1..).zip(Family::ALL) {
        let socket = datagrams(&link.workload, family.workload(), 5353);
        let raw = raw(&link.peer, family);
        let ends = (family.peer(), family.workload());
        let whole = datagram(family);
        let send = |id, parts: &[(u16, usize)]| {
            for (offset, end) in parts {
                let more = *end < whole.len();
                let part = &whole[usize::from(*offset)..*end];
                let frame = frame::fragment(ends, 17, id, *offset, more, part);
                let to = SocketAddr::new(ends.1, 0);
                sendto(&raw, &frame[frame::IP..], SendFlags::empty(), &to).unwrap();
            }
        };
        let before = link.counters();
        send(number, &[(0, 32), (32, 64)]);
        assert_eq!(socket.recv(&mut [0; 64]).unwrap(), 56, "without overlap");
        socket.set_read_timeout(Some(NEVER)).unwrap();
        // By eight bytes that are the same.
        send(number + 100, &[(0, 32), (24, 64)]);
        socket.recv(&mut [0; 64]).unwrap_err();
        let after = link.counters();
        assert_eq!(after.passed(&before, "ingress", "fragment"), 2);
        socket.set_read_timeout(Some(SOON)).unwrap();
    }
}

/// First fragments of which nothing more comes take each other's places; who has all of his is
/// served all the same.
#[test]
fn d6_a_flood_of_first_fragments_keeps_nobody_from_sending_some() {
    require!(Root, Object);
    let link = Link::new(Orientation::Own, "tc");
    link.enforce(&anyone("udp", "5353"), "", "");
    // The workload's own stack must bear what is allowed.
    link.workload
        .sysctl("net/ipv4/ipfrag_high_thresh", "268435456");
    link.workload
        .sysctl("net/ipv6/ip6frag_high_thresh", "268435456");
    for family in Family::ALL {
        let raw = raw(&link.peer, family);
        let ends = (family.peer(), family.workload());
        let whole = datagram(family);
        let before = link.counters();
        let flood = 2 * MAX_FRAGMENTS;
        for id in 1..=flood {
            let frame = frame::fragment(ends, 17, id, 0, true, &whole[..32]);
            let to = SocketAddr::new(ends.1, 0);
            sendto(&raw, &frame[frame::IP..], SendFlags::empty(), &to).unwrap();
        }
        let after = link.counters();
        let passed = after.passed(&before, "ingress", "established");
        assert!(passed >= u64::from(flood) - 1, "{passed}");
        let server = datagrams(&link.workload, family.workload(), 5353);
        let client = datagrams(&link.peer, family.peer(), 0);
        for _ in 0..8 {
            question_and_answer(&client, &server, LARGE);
        }
        let end = link.counters();
        assert_eq!(end.dropped(&after, "ingress", "fragment_orphan"), 0);
    }
}
