//! Frames that nobody should send, and which are dropped whatever the rules.

use std::net::IpAddr;

use sg_common::{
    conntrack::tcp::{ACK, FIN, PSH, RST, SYN, URG},
    verdict::{
        Direction::{self, Egress, Ingress},
        DropReason::{
            self, Ethertype, InterfaceUnknown, IpDestination, IpHeaderLength, IpOptions, IpSource,
            IpTotalLength, IpVersion, Ipv6Extension, Ipv6FragmentRepeated, Ipv6NoNextHeader,
            Ipv6Routing, Land, TcpFlags, TcpHeader, Truncated, VlanTag,
        },
        PassKind::{Established, New},
        Verdict,
    },
};

use crate::{
    flow::Flow,
    frame::{self, IP, Ip, NOTHING, at, ethernet, extended, extension, spoiled},
    table::{Case, Only, Step, World, drops, interface, passes},
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
            Case::new("what Ethernet carries", "server", carried),
            Case::new("IP headers", "server", headers),
            Case::new("IPv4 headers", "server", ipv4).only(Only::V4),
            Case::new("addresses that cannot be", "server", addresses),
            Case::new("extension headers that cannot be", "server", extensions).only(Only::V6),
            Case::new("extension headers that can", "server", allowed).only(Only::V6),
            Case::new("transport headers", "server", transports),
            Case::new("every set of TCP flags", "server", flags),
            Case::new("padding", "server", padded),
            Case::new("merged frames", "server", merged).only(Only::Tc),
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

fn carried(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    for tag in [[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00], [0x92, 0x00]] {
        both(
            &mut steps,
            |direction| {
                let mut frame = syn(ip, direction);
                frame.splice(12..12, [tag[0], tag[1], 0, 5]);
                frame
            },
            VlanTag,
        );
    }
    for kind in [0x88b5, 0x8864, 0x86de, 0x0801, 0x05dc, 0] {
        both(&mut steps, |_| ethernet(kind, &[0x45; 40]), Ethertype);
    }
    // One family's header under the other's number.
    let number = ip.pick([0x86, 0xdd], [0x08, 0x00]);
    both(
        &mut steps,
        |direction| spoiled(syn(ip, direction), 12, &number),
        IpVersion,
    );
    steps
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
    both(&mut steps, |_| frame((ip.workload(), ip.workload())), Land);
    steps
}

fn extensions(ip: Ip) -> Vec<Step> {
    let udp = frame::datagram((40_000, 80), 0);
    let chain = |direction, extensions: &[(u8, &[u8])]| {
        extended(ip.ends(direction), 64, extensions, 17, &udp)
    };
    let nothing = (extension::DESTINATION, NOTHING);
    let mut steps = Vec::new();
    // Too many, too long, out of place, past the end.
    both(
        &mut steps,
        |direction| chain(direction, &[nothing; 9]),
        Ipv6Extension,
    );
    let mut long = [0; 263];
    long[0] = 32;
    both(
        &mut steps,
        |direction| chain(direction, &[(extension::DESTINATION, &long)]),
        Ipv6Extension,
    );
    both(
        &mut steps,
        |direction| chain(direction, &[nothing, (extension::HOP_BY_HOP, NOTHING)]),
        Ipv6Extension,
    );
    both(
        &mut steps,
        |direction| {
            chain(
                direction,
                &[(extension::DESTINATION, &[9, 0, 0, 0, 0, 0, 0])],
            )
        },
        Ipv6Extension,
    );
    both(
        &mut steps,
        |direction| frame::ip(ip.ends(direction), extension::DESTINATION, &[17, 0, 1]),
        Truncated,
    );
    for kind in [0, 2, 4] {
        let source = [0, kind, 1, 0, 0, 0, 0];
        both(
            &mut steps,
            |direction| chain(direction, &[(extension::ROUTING, &source)]),
            Ipv6Routing,
        );
    }
    both(
        &mut steps,
        |direction| frame::ip(ip.ends(direction), 59, &[]),
        Ipv6NoNextHeader,
    );
    both(
        &mut steps,
        |direction| extended(ip.ends(direction), 64, &[nothing], 59, &[0; 8]),
        Ipv6NoNextHeader,
    );
    let first: (u8, &[u8]) = (extension::FRAGMENT, &[0, 0, 0, 0, 0, 0, 1]);
    both(
        &mut steps,
        |direction| chain(direction, &[first, first]),
        Ipv6FragmentRepeated,
    );
    steps
}

fn allowed(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_001);
    let udp = frame::datagram(flow.ports(Ingress), 0);
    // 12 bytes: (1 + 2) · 4.
    let authentication: (u8, &[u8]) = (
        extension::AUTHENTICATION,
        &[1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1],
    );
    let nothing = (extension::DESTINATION, NOTHING);
    // Segments left: none.
    let routing: (u8, &[u8]) = (extension::ROUTING, &[0, 0, 0, 0, 0, 0, 0]);
    let mut long = [0; 255];
    long[0] = 31;
    let chains: [&[(u8, &[u8])]; 7] = [
        &[nothing],
        &[(extension::HOP_BY_HOP, NOTHING), nothing],
        &[routing, nothing],
        &[authentication],
        &[(135, NOTHING), (139, NOTHING), (140, NOTHING)],
        &[nothing; 8],
        &[(extension::DESTINATION, &long)],
    ];
    let mut steps = vec![passes(Ingress, flow.udp(Ingress), New)];
    for chain in chains {
        let frame = extended(flow.ends(Ingress), 64, chain, 17, &udp);
        steps.push(passes(Ingress, frame, Established));
    }
    steps.push(Step::Tracked(1));
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

fn padded(ip: Ip) -> Vec<Step> {
    // To 60 bytes, the least of Ethernet; the lengths say what is payload.
    let flow = Flow::new(ip, 80, 40_003);
    let mut frame = frame::ip(
        flow.ends(Ingress),
        17,
        &frame::datagram(flow.ports(Ingress), 1),
    );
    frame.resize(frame.len().max(60) + 4, 0);
    let short = frame::ip(flow.ends(Ingress), 17, &[0; 7]);
    let mut short = short.clone();
    short.resize(80, 0);
    vec![
        passes(Ingress, frame, New),
        drops(Ingress, short, Truncated),
        Step::Tracked(1),
    ]
}

fn merged(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_004);
    let pass = |direction, frame, kind| Step::Frame(direction, frame, 3, Verdict::Pass(kind));
    let data = flow.tcp(Egress, PSH | ACK, 501, 101, 3000);
    // BIG TCP: a length that 16 bits do not hold is written as 0.
    let big = spoiled(data.clone(), ip.pick(IP + 2, IP + 4), &[0, 0]);
    vec![
        passes(Ingress, flow.tcp(Ingress, SYN, 100, 0, 0), New),
        passes(
            Egress,
            flow.tcp(Egress, SYN | ACK, 500, 101, 0),
            Established,
        ),
        passes(Ingress, flow.tcp(Ingress, ACK, 101, 501, 0), Established),
        pass(Egress, data, Established),
        pass(Egress, big.clone(), Established),
        drops(Egress, big, IpTotalLength),
        Step::Unassured(0),
        Step::Tracked(1),
    ]
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
