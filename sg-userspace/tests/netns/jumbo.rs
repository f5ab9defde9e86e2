//! Jumbo frames: packets of more than one page, which XDP is given in several buffers.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener},
};

use rustix::net::{SendFlags, sendto};

use crate::{
    common::{
        netns::{Namespace, eventually},
        require::require,
    },
    fragments::raw,
    link::{Family, Link, Orientation, anyone},
    silence,
    traffic::{datagrams, question_and_answer, question_is_dropped, transfer},
};

const MTU: usize = 9000;
/// Bytes of payload.
const LARGE: usize = 8000;
/// Bytes; no buffer of XDP's holds more.
const PAGE: usize = 4096;

#[test]
fn m9_by_tc() {
    require!(Root, Object);
    judge(Orientation::Own, "tc");
}

#[test]
fn m9_by_native_xdp() {
    require!(Root, Object);
    judge(Orientation::Own, "xdp");
}

#[test]
fn m9_by_generic_xdp() {
    require!(Root, Object);
    judge(Orientation::Own, "xdp-generic");
}

#[test]
fn m9_by_native_xdp_at_the_hosts_end() {
    require!(Root, Object);
    judge(Orientation::Host, "xdp");
}

fn judge(orientation: Orientation, hook: &'static str) {
    let link = Link::new(orientation, hook);
    for end in [&link.workload, &link.peer] {
        end.ip(&format!("link set eth0 mtu {MTU}"));
    }
    link.enforce(
        &(anyone("tcp", "8080") + &anyone("udp", "5353")),
        &anyone("tcp", "3306"),
        "",
    );
    for family in Family::ALL {
        pass_when_allowed(&link, family);
        are_dropped_otherwise(&link, family);
    }
}

fn pass_when_allowed(link: &Link, family: Family) {
    let (workload, peer) = (family.workload(), family.peer());
    let before = link.counters();
    let server = datagrams(&link.workload, workload, 5353);
    let client = datagrams(&link.peer, peer, 0);
    question_and_answer(&client, &server, LARGE);
    let after = link.counters();
    // One packet each, and no fragment.
    after.only(&before, "ingress", &["passed_new"]);
    after.only(&before, "egress", &["passed_established"]);
    assert_eq!(after.passed(&before, "ingress", "new"), 1);
    assert_eq!(after.passed(&before, "egress", "established"), 1);

    for (from, to, address, port, direction) in [
        (&link.peer, &link.workload, workload, 8080, "ingress"),
        (&link.workload, &link.peer, peer, 3306, "egress"),
    ] {
        let before = link.counters();
        large_segment(link, from, to, (address, port), direction);
        let _server = to.serve(address, port);
        transfer(&from.connect(address, port).unwrap());
        let after = link.counters();
        for direction in ["ingress", "egress"] {
            let outcomes = after.outcomes(&before, direction);
            let dropped = outcomes.keys().any(|name| name.starts_with("dropped"));
            assert!(!dropped, "{direction} {outcomes:?}");
        }
    }
    link.settle(0);
}

/// One write on a connection is one packet.
#[track_caller]
fn large_segment(
    link: &Link,
    from: &Namespace,
    to: &Namespace,
    server: (IpAddr, u16),
    direction: &str,
) {
    let listener = to.run(|| TcpListener::bind(server)).unwrap();
    let mut client = from.connect(server.0, server.1).unwrap();
    let (mut served, _) = listener.accept().unwrap();
    let before = link.counters();
    let sent: Vec<u8> = (0..LARGE).map(|at| (at % 251) as u8).collect();
    client.write_all(&sent).unwrap();
    let mut heard = vec![0; LARGE];
    served.read_exact(&mut heard).unwrap();
    assert!(heard == sent, "the bytes came changed");
    let after = link.counters();
    assert_eq!(after.passed(&before, direction, "established"), 1);
    // The server's side of the port keeps no TIME-WAIT that way.
    drop(client);
    assert_eq!(served.read(&mut heard).unwrap(), 0);
}

fn are_dropped_otherwise(link: &Link, family: Family) {
    let server = datagrams(&link.workload, family.workload(), 5354);
    let client = datagrams(&link.peer, family.peer(), 0);
    let before = link.counters();
    silence::all(&[("a large datagram", &|| {
        question_is_dropped(&client, &server, LARGE)
    })]);
    let after = link.counters();
    after.only(&before, "ingress", &["dropped_no_rule"]);
    assert_eq!(after.dropped(&before, "ingress", "no_rule"), 1);

    let raw = raw(&link.peer, family);
    let to = SocketAddr::new(family.workload(), 0);
    sendto(&raw, &segment(family), SendFlags::empty(), &to).unwrap();
    eventually("the drop", || {
        link.counters().dropped(&after, "ingress", "mid_stream") == 1
    });
    let end = link.counters();
    end.only(&after, "ingress", &["dropped_mid_stream"]);
    // Not even an RST answers it.
    end.only(&after, "egress", &[]);
}

/// A TCP segment of [`LARGE`] bytes to a port that a rule allows, of no connection.
fn segment(family: Family) -> Vec<u8> {
    const TCP: u8 = 6;
    const ACK: u8 = 0x10;
    let length = (20 + LARGE) as u16;
    let mut packet = match family {
        // RFC 791: version and length, total length, identification, offset, TTL, protocol; the
        // kernel fills in the checksum.
        Family::V4 => {
            let mut header = vec![0x45, 0];
            header.extend((20 + length).to_be_bytes());
            header.extend([0x53, 0x47, 0x40, 0, 64, TCP, 0, 0]);
            header
        }
        // RFC 8200: version, payload length, next header, hop limit.
        Family::V6 => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([TCP, 64]);
            header
        }
    };
    for address in [family.peer(), family.workload()] {
        match address {
            IpAddr::V4(address) => packet.extend(address.octets()),
            IpAddr::V6(address) => packet.extend(address.octets()),
        }
    }
    // RFC 9293: ports, sequence number, acknowledgement, offset and flags, window, checksum, urgent.
    for half in [40_000_u16, 8080, 0, 1, 0, 1] {
        packet.extend(half.to_be_bytes());
    }
    packet.extend([0x50, ACK, 0xff, 0xff, 0, 0, 0, 0]);
    packet.extend([0; LARGE]);
    assert!(packet.len() > PAGE && packet.len() <= MTU);
    packet
}
