//! Packets in packets, and transport protocols whose ports are not looked at.

use sg_common::{
    conntrack::{State, tcp::SYN},
    verdict::{
        Direction::{Egress, Ingress},
        DropReason::NoRule,
        PassKind::{Established, New},
    },
};

use crate::{
    flow::Flow,
    frame::{self, IP, Ip, extended, extension},
    table::{Case, Only, Step, World, drops, interface, passes, state},
};

const GROUPS: &str = r#"
[groups.web]
ingress = [ { protocol = "tcp", ports = 80, cidr = ["198.51.100.0/24", "2001:db8::/32"] }, { protocol = "udp", ports = 80, cidr = ["198.51.100.0/24", "2001:db8::/32"] } ]
egress = []

[groups.tunnels]
ingress = [
  { protocol = 4, cidr = ["198.51.100.0/24", "2001:db8::/32"] },
  { protocol = 41, cidr = ["198.51.100.0/24", "2001:db8::/32"] },
  { protocol = 47, cidr = ["198.51.100.0/24", "2001:db8::/32"] },
  { protocol = "udp", ports = 4789, cidr = ["198.51.100.0/24", "2001:db8::/32"] },
]
egress = []

[groups.numbers]
ingress = [ { protocol = 50, cidr = ["198.51.100.0/24", "2001:db8::/32"] }, { protocol = 51, cidr = ["198.51.100.0/24", "2001:db8::/32"] }, { protocol = 132, cidr = ["198.51.100.0/24", "2001:db8::/32"] } ]
egress = []

[groups.ports]
ingress = [ { protocol = "udp", ports = "0-100", cidr = "198.51.100.0/24" }, { protocol = "udp", ports = "1-65535", cidr = "2001:db8::/32" } ]
egress = []
"#;

pub(crate) fn world() -> World {
    let interfaces = ["web", "tunnels", "numbers", "ports"]
        .map(|group| interface(group, &format!("[\"{group}\"]"), ""))
        .concat();
    World {
        name: "encapsulation",
        definition: GROUPS.to_owned() + &interfaces,
        cases: vec![
            Case::new("F1 the outer packet is judged", "tunnels", outer),
            Case::new("F1 the inner packet is not", "web", inner),
            Case::new("F3 ESP and AH of IPv4 by number", "numbers", ipsec).only(Only::V4),
            Case::new("F3 AH of IPv6 is walked past", "web", walked).only(Only::V6),
            Case::new(
                "F3 a rule for AH finds none in IPv6",
                "numbers",
                no_protocol,
            )
            .only(Only::V6),
            Case::new("F4 SCTP, DCCP and UDP-Lite are not TCP", "web", not_tcp),
            Case::new("F4 SCTP has no ports here", "numbers", sctp),
            Case::new("F5 UDP lengths and checksums", "web", udp_fields),
            Case::new("F5 port 0", "ports", port_zero),
        ],
    }
}

/// Packets that hold a SYN to a port: IPIP, 6in4, GRE, VXLAN.
fn tunnelled(port: u16) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    for (kind, number, family) in [(0x0800_u16, 4, Ip::V4), (0x86dd, 41, Ip::V6)] {
        let frame = Flow::new(family, port, 40_000).tcp(Ingress, SYN, 1, 0, 0);
        all.push((number, frame[IP..].to_vec()));
        // RFC 2784: no checksum, the number of what follows.
        let gre = [&[0, 0][..], &kind.to_be_bytes(), &frame[IP..]].concat();
        all.push((47, gre));
        // RFC 7348: a network's number, then a frame.
        let vxlan = [&[8, 0, 0, 0, 0, 0, 7, 0], &frame[..]].concat();
        let mut datagram = frame::datagram((50_000, 4789), 0);
        datagram[4..6].copy_from_slice(&(8 + vxlan.len() as u16).to_be_bytes());
        datagram.extend(vxlan);
        all.push((17, datagram));
    }
    all
}

fn outer(ip: Ip) -> Vec<Step> {
    let (mut steps, mut seen) = (Vec::new(), Vec::new());
    // To ports that no rule names, inside.
    for (number, packet) in tunnelled(22) {
        let frame = frame::ip(ip.ends(Ingress), number, &packet);
        let kind = if seen.contains(&number) {
            Established
        } else {
            New
        };
        seen.push(number);
        steps.push(passes(Ingress, frame, kind));
    }
    // One flow each for 4, 41, 47 and the datagrams; nothing for what is inside.
    steps.push(Step::Tracked(4));
    let inside = Flow::new(ip, 22, 40_000);
    steps.push(drops(Ingress, inside.tcp(Ingress, SYN, 1, 0, 0), NoRule));
    steps
}

fn inner(ip: Ip) -> Vec<Step> {
    // To a port that a rule names, inside.
    let mut steps: Vec<Step> = tunnelled(80)
        .into_iter()
        .map(|(number, packet)| {
            drops(
                Ingress,
                frame::ip(ip.ends(Ingress), number, &packet),
                NoRule,
            )
        })
        .collect();
    steps.push(Step::State(None));
    steps
}

fn ipsec(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 0, 0);
    let segment = frame::segment((40_000, 80), SYN, 1, 0, 0);
    let header = [&[6, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1][..], &segment].concat();
    vec![
        passes(Ingress, frame::ip(flow.ends(Ingress), 51, &header), New),
        state(State::Other),
        passes(Ingress, flow.other(Ingress, 50), New),
        // Another index, another sequence number.
        passes(
            Egress,
            frame::ip(flow.ends(Egress), 50, &[9; 40]),
            Established,
        ),
        passes(Egress, flow.other(Egress, 51), Established),
        Step::Tracked(2),
    ]
}

fn authenticated(ip: Ip, port: u16) -> Vec<u8> {
    let header: (u8, &[u8]) = (
        extension::AUTHENTICATION,
        &[1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1],
    );
    let segment = frame::segment((40_000, port), SYN, 1, 0, 0);
    extended(ip.ends(Ingress), 64, &[header], 6, &segment)
}

fn walked(ip: Ip) -> Vec<Step> {
    vec![
        drops(Ingress, authenticated(ip, 22), NoRule),
        passes(Ingress, authenticated(ip, 80), New),
        state(State::TcpSynSent),
    ]
}

fn no_protocol(ip: Ip) -> Vec<Step> {
    vec![
        drops(Ingress, authenticated(ip, 80), NoRule),
        passes(Ingress, Flow::new(ip, 0, 0).other(Ingress, 50), New),
    ]
}

fn not_tcp(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    for number in [33, 132, 136] {
        for direction in [Ingress, Egress] {
            let flow = Flow::new(ip, 80, 80);
            let body = frame::segment(flow.ports(direction), SYN, 1, 0, 0);
            let frame = frame::ip(flow.ends(direction), number, &body);
            steps.push(drops(direction, frame, NoRule));
        }
    }
    steps
}

fn sctp(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_000);
    let body = |ports| frame::segment(ports, SYN, 1, 0, 0);
    let frame = |direction, ports| frame::ip(flow.ends(direction), 132, &body(ports));
    vec![
        passes(Ingress, frame(Ingress, (40_000, 80)), New),
        passes(Ingress, frame(Ingress, (40_000, 81)), Established),
        // Between these two, whatever the ports (fact 3.8).
        passes(Egress, frame(Egress, (5, 6)), Established),
        Step::Tracked(1),
    ]
}

fn udp_fields(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_001);
    let mut steps = vec![passes(Ingress, flow.udp(Ingress), New)];
    let udp = IP + ip.pick(20, 40);
    for length in [0_u16, 7, 8, 9, 65_535] {
        let frame = frame::spoiled(flow.udp(Ingress), udp + 4, &length.to_be_bytes());
        steps.push(passes(Ingress, frame, Established));
    }
    // RFC 8200 §8.1 forbids a checksum of zero, which is the receiver's affair.
    for checksum in [[0, 0], [0xff, 0xff]] {
        let frame = frame::spoiled(flow.udp(Ingress), udp + 6, &checksum);
        steps.push(passes(Ingress, frame, Established));
    }
    steps.push(Step::Tracked(1));
    steps
}

fn port_zero(ip: Ip) -> Vec<Step> {
    let (to, from) = (Flow::new(ip, 0, 40_002), Flow::new(ip, 9, 0));
    let opened = match ip {
        Ip::V4 => passes(Ingress, to.udp(Ingress), New),
        Ip::V6 => drops(Ingress, to.udp(Ingress), NoRule),
    };
    vec![
        opened,
        passes(Ingress, from.udp(Ingress), New),
        passes(Egress, from.udp(Egress), Established),
        Step::Tracked(ip.pick(2, 1)),
    ]
}
