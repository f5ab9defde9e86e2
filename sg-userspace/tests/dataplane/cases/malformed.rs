//! Frames that nobody should send, and which are dropped whatever the rules.

use std::net::IpAddr;

use sg_common::{
    conntrack::{
        State,
        tcp::{ACK, FIN, PSH, RST, SYN, URG},
    },
    verdict::{
        Direction::{self, Egress, Ingress},
        DropReason::{
            self, InterfaceUnknown, IpDestination, IpHeaderLength, IpOptions, IpSource,
            IpTotalLength, IpVersion, Land, NoRule, TcpFlags, TcpHeader, Truncated,
        },
        PassKind::{Established, New},
    },
};

use super::tcp::handshake;

use crate::{
    flow::Flow,
    frame::{self, IP, Ip, at, ethernet, hops, spoiled},
    table::{Case, Only, Step, World, drops, interface, passes, state},
};

const GROUPS: &str = r#"
[groups.server]
ingress = [ { protocol = "tcp", ports = "0-65535", cidr = ["10.0.0.0/8", "198.51.100.0/24", "2001:db8::/32"] },
            { protocol = "udp", ports = "0-65535", cidr = ["10.0.0.0/8", "198.51.100.0/24", "2001:db8::/32"] } ]
egress = [ { protocol = "tcp", ports = "0-65535", cidr = ["10.0.0.0/8", "198.51.100.0/24", "2001:db8::/32"] } ]
"#;

pub(crate) fn world() -> World {
    World {
        name: "malformed",
        definition: GROUPS.to_owned() + &interface("server", r#"["server"]"#, ""),
        cases: vec![
            Case::new("A5 A6 C4 E11 IP headers", "server", headers),
            Case::new("C1 IPv4 headers", "server", ipv4).only(Only::V4),
            Case::new("C2 ports behind options", "server", behind_options).only(Only::V4),
            Case::new("C3 source routes", "server", source_routes).only(Only::V4),
            Case::new("C5 H17 wrong checksums", "server", checksums),
            Case::new("C6 E12 addresses that cannot be", "server", addresses),
            Case::new("C7 odd but legal fields", "server", odd_fields),
            Case::new("C7 reserved protocols", "server", reserved_protocols),
            Case::new("H16 transport headers", "server", transports),
            Case::new("H3 every set of TCP flags", "server", flags),
            Case::new("an interface without a policy", "nobody", unknown),
        ],
    }
}

/// The frame both ways, dropped.
fn both(steps: &mut Vec<Step>, frame: impl Fn(Direction) -> Vec<u8>, reason: DropReason) {
    for direction in Direction::ALL {
        steps.push(drops(direction, frame(direction), reason));
    }
}

fn syn(ip: Ip, direction: Direction) -> Vec<u8> {
    Flow::new(ip, 80, 40_000).tcp(direction, SYN, 100, 0, 0)
}

fn headers(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    let header = ip.pick(20, 40);
    for len in [1, header - 1] {
        both(
            &mut steps,
            |direction| syn(ip, direction)[..IP + len].to_vec(),
            Truncated,
        );
    }
    // A header alone states more than is there.
    both(
        &mut steps,
        |direction| syn(ip, direction)[..IP + header].to_vec(),
        IpTotalLength,
    );
    for version in [0, 5, 7, 15] {
        both(
            &mut steps,
            |direction| {
                let mut frame = syn(ip, direction);
                frame[IP] = version << 4 | frame[IP] & 0xf;
                frame
            },
            IpVersion,
        );
    }
    // One byte more than there is, and as many as can be.
    let length = ip.pick(IP + 2, IP + 4);
    let whole = ip.pick(40_u16, 20);
    for stated in [whole + 1, u16::MAX] {
        both(
            &mut steps,
            |direction| spoiled(syn(ip, direction), length, &stated.to_be_bytes()),
            IpTotalLength,
        );
    }
    // A jumbogram, or a merged frame that is none.
    both(
        &mut steps,
        |direction| spoiled(syn(ip, direction), length, &[0, 0]),
        IpTotalLength,
    );
    steps
}

fn ipv4(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    for words in [0, 1, 4] {
        let spoil = |direction| spoiled(syn(ip, direction), IP, &[0x40 | words]);
        both(&mut steps, spoil, IpHeaderLength);
    }
    for words in [6, 10] {
        let spoil = |direction| spoiled(syn(ip, direction), IP, &[0x40 | words]);
        both(&mut steps, spoil, IpOptions);
    }
    // Options that reach past the end of the packet.
    both(
        &mut steps,
        |direction| spoiled(syn(ip, direction), IP, &[0x4b]),
        IpTotalLength,
    );
    for stated in [1_u16, 19] {
        both(
            &mut steps,
            |direction| spoiled(syn(ip, direction), IP + 2, &stated.to_be_bytes()),
            IpTotalLength,
        );
    }
    steps
}

/// An IPv4 packet with options, whose lengths count them.
fn with_options(frame: &[u8], options: &[u8]) -> Vec<u8> {
    assert_eq!(options.len() % 4, 0, "padded");
    let total = (frame.len() - IP + options.len()) as u16;
    let mut frame = frame.to_vec();
    frame.splice(IP + 20..IP + 20, options.iter().copied());
    let frame = spoiled(frame, IP, &[0x45 + options.len() as u8 / 4]);
    spoiled(frame, IP + 2, &total.to_be_bytes())
}

fn behind_options(ip: Ip) -> Vec<Step> {
    // The options begin like a TCP header to an allowed port, and are one.
    let imitation = frame::segment((40_000, 80), SYN, 100, 0, 0);
    let nothing = [1; 40];
    let mut steps = Vec::new();
    for options in [&imitation, &nothing[..4], &nothing, &[0; 8]] {
        for frame in [frame::segment, |ports, _, _, _, len| {
            frame::datagram(ports, len)
        }] {
            let body = frame((40_000, 22), SYN, 100, 0, 20);
            for (protocol, direction) in [(6, Ingress), (17, Ingress), (6, Egress), (47, Egress)] {
                let packet = frame::ip(ip.ends(direction), protocol, &body);
                let packet = with_options(&packet, options);
                steps.push(drops(direction, packet, IpOptions));
            }
        }
    }
    steps.push(Step::State(None));
    steps
}

fn source_routes(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    // Loose and strict source route, the route record, time stamps (RFC 791 §3.1), and a loose
    // route behind two bytes of nothing: type, length, pointer, an address.
    for kind in [0x83, 0x89, 0x07, 0x44] {
        let route = [kind, 7, 4, 192, 0, 2, 1, 0];
        let late = [1, 1, kind, 7, 4, 192, 0, 2, 1, 0, 0, 0];
        for options in [&route[..], &late] {
            let with = |direction| with_options(&syn(ip, direction), options);
            both(&mut steps, with, IpOptions);
        }
    }
    steps
}

/// Checksums are the receiver's to verify. What it discards must therefore not end a flow, unless
/// it knows the flow's numbers.
fn checksums(ip: Ip) -> Vec<Step> {
    // The table's own segments have a checksum of zero, which is as wrong as this.
    let wrong = |frame: Vec<u8>| {
        let frame = spoiled(frame, IP + ip.pick(20, 40) + 16, &[0xde, 0xad]);
        match ip {
            Ip::V4 => spoiled(frame, IP + 10, &[0xde, 0xad]),
            Ip::V6 => frame,
        }
    };
    let (flow, other) = (Flow::new(ip, 80, 40_100), Flow::new(ip, 80, 40_101));
    let mut steps = handshake(flow);
    steps.extend([
        passes(Egress, flow.tcp(Egress, ACK, 501, 101, 0), Established),
        passes(
            Ingress,
            wrong(flow.tcp(Ingress, RST, 90, 0, 0)),
            Established,
        ),
        passes(
            Ingress,
            wrong(flow.tcp(Ingress, FIN | ACK, 90, 501, 0)),
            Established,
        ),
        passes(
            Egress,
            wrong(flow.tcp(Egress, FIN | ACK, 400, 101, 0)),
            Established,
        ),
        state(State::TcpEstablished),
        passes(Ingress, flow.tcp(Ingress, ACK, 101, 501, 9), Established),
        passes(Egress, flow.tcp(Egress, ACK, 501, 110, 9), Established),
        state(State::TcpEstablished),
        Step::Unassured(0),
        // An opening is worth an entry until it is not answered.
        passes(Ingress, wrong(other.tcp(Ingress, SYN, 1, 0, 0)), New),
        Step::Unassured(1),
    ]);
    steps
}

fn odd_fields(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_102);
    let body = frame::datagram(flow.ports(Ingress), 4);
    let ends = flow.ends(Ingress);
    let mut steps = vec![passes(Ingress, flow.udp(Ingress), New)];
    for ttl in [0, 1, 255] {
        steps.push(passes(Ingress, hops(ends, ttl, 17, &body), Established));
    }
    match ip {
        // The reserved bit, and more fragments of what must not be fragmented.
        Ip::V4 => {
            for bits in [0x80, 0x60] {
                let frame = spoiled(flow.udp(Ingress), IP + 6, &[bits]);
                steps.push(passes(Ingress, frame, Established));
            }
            let frame = spoiled(flow.udp(Ingress), IP + 1, &[0xff]);
            steps.push(passes(Ingress, frame, Established));
        }
        // Traffic class and flow label.
        Ip::V6 => {
            let frame = spoiled(flow.udp(Ingress), IP, &[0x6f, 0xff, 0xff, 0xff]);
            steps.push(passes(Ingress, frame, Established));
        }
    }
    steps.push(Step::Tracked(1));
    steps
}

fn reserved_protocols(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_103);
    let mut steps = Vec::new();
    for protocol in ip.pick(&[0, 61, 255][..], &[61, 255]) {
        let body = frame::segment(flow.ports(Ingress), SYN, 1, 0, 0);
        let frame = frame::ip(flow.ends(Ingress), *protocol, &body);
        steps.push(drops(Ingress, frame, NoRule));
        steps.push(drops(Egress, flow.other(Egress, *protocol), NoRule));
    }
    steps
}

fn addresses(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    let sources = ip.pick(
        &[
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
        ][..],
        &["::", "::1", "ff02::1", "::ffff:10.0.0.1"],
    );
    let destinations = ip.pick(
        &["0.0.0.0", "127.9.9.9"][..],
        &["::", "::1", "::ffff:10.0.0.1"],
    );
    let frame = |ends: (IpAddr, IpAddr)| frame::ip(ends, 17, &frame::datagram((1, 2), 0));
    for source in sources {
        let with = |direction| frame((at(source), ip.ends(direction).1));
        both(&mut steps, with, IpSource);
    }
    for destination in destinations {
        let with = |direction| frame((ip.ends(direction).0, at(destination)));
        both(&mut steps, with, IpDestination);
    }
    for address in [ip.workload(), ip.peer()] {
        both(&mut steps, |_| frame((address, address)), Land);
        let ports = frame::segment((80, 80), SYN, 1, 0, 0);
        both(
            &mut steps,
            |_| frame::ip((address, address), 6, &ports),
            Land,
        );
    }
    steps.push(Step::State(None));
    steps
}

fn transports(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    let tcp = IP + ip.pick(20, 40);
    let segment = frame::segment((40_000, 80), SYN, 1, 0, 0);
    for len in [1, 13, 19] {
        both(
            &mut steps,
            |direction| frame::ip(ip.ends(direction), 6, &segment[..len]),
            Truncated,
        );
    }
    for len in [1, 7] {
        both(
            &mut steps,
            |direction| frame::ip(ip.ends(direction), 17, &[0; 7][..len]),
            Truncated,
        );
        // Not a type of its own.
        both(
            &mut steps,
            |direction| frame::ip(ip.ends(direction), ip.icmp(), &[9; 7][..len]),
            Truncated,
        );
    }
    for words in [0, 4, 6, 15] {
        both(
            &mut steps,
            |direction| spoiled(syn(ip, direction), tcp + 12, &[words << 4]),
            TcpHeader,
        );
    }
    steps
}

/// Sets that occur (RFC 9293 §3.10, netfilter's `tcp_valid_flags`), PSH aside.
const REAL: [u8; 9] = [
    SYN,
    SYN | URG,
    SYN | ACK,
    RST,
    RST | ACK,
    FIN | ACK,
    FIN | ACK | URG,
    ACK,
    ACK | URG,
];

fn flags(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_002);
    let mut steps = vec![passes(Ingress, flow.tcp(Ingress, SYN, 1, 0, 0), New)];
    for set in 0..64 {
        for direction in Direction::ALL {
            let frame = flow.tcp(direction, set, 1, 1, 0);
            steps.push(if REAL.contains(&(set & !PSH)) {
                passes(direction, frame, Established)
            } else {
                drops(direction, frame, TcpFlags)
            });
        }
    }
    steps
}

fn unknown(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    both(&mut steps, |direction| syn(ip, direction), InterfaceUnknown);
    both(
        &mut steps,
        |_| frame::arp(1, Ip::V4.workload(), Ip::V4.peer()),
        InterfaceUnknown,
    );
    both(&mut steps, |_| ethernet(0x88b5, &[0; 4]), InterfaceUnknown);
    steps
}
