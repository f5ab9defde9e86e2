//! What passes without a rule, and what only looks like it.

use std::net::{IpAddr, Ipv6Addr};

use sg_common::{
    conntrack::tcp::SYN,
    verdict::{
        Direction::{self, Egress, Ingress},
        DropReason::{AddressSpoofed, ArpInvalid, IpSource, NeighborInvalid, NoRule, Truncated},
        PassKind::{
            Arp, Dhcp, MulticastListener, NeighborDiscovery, Redirect, RouterAdvertisement, Service,
        },
    },
};

use crate::{
    flow::Flow,
    frame::{
        self, IP, Ip, NOTHING, ROUTER_ALERT, arp, at, extended, extension, hops, message, neighbor,
        spoiled,
    },
    table::{Case, Only, Step, World, drops, interface, passes},
};

pub(crate) fn world() -> World {
    let addresses = r#"addresses = ["10.1.0.10", "2001:db8:1::10"]"#;
    let definition = "services = [\"169.254.169.254\", \"fd00:ec2::254\", \"fe80::53\"]\n"
        .to_owned()
        + &interface("plain", "[]", "")
        + &interface("off", "[]", "dhcp = false\nmld = false")
        + &interface("redirected", "[]", "nd_redirect = true")
        + &interface("listed", "[]", addresses);
    World {
        name: "always",
        definition,
        cases: vec![
            Case::new("B1 ARP", "plain", address_resolution).only(Only::V4),
            Case::new("B1 ARP that is none", "plain", arp_malformed).only(Only::V4),
            Case::new("B2 ARP of the workload's own", "listed", arp_own).only(Only::V4),
            Case::new("B2 ARP in another's name", "listed", arp_spoofed).only(Only::Host),
            Case::new(
                "B2 ARP is not judged at the workload",
                "listed",
                arp_unjudged,
            )
            .only(Only::Own),
            Case::new("B1 neighbours", "plain", neighbors).only(Only::V6),
            Case::new("B3 neighbours that are none", "plain", neighbors_invalid).only(Only::V6),
            Case::new("B2 an address in another's name", "listed", advertised).only(Only::Host),
            Case::new("B4 routers", "plain", routers).only(Only::V6),
            Case::new("B4 G8 redirects", "redirected", redirects).only(Only::V6),
            Case::new("B5 listeners", "plain", listeners).only(Only::V6),
            Case::new("B5 listeners that are none", "plain", listeners_invalid).only(Only::V6),
            Case::new("B5 listeners switched off", "off", listeners_off).only(Only::V6),
            Case::new("B6 DHCP", "plain", dhcp),
            Case::new("B6 DHCP that is none", "plain", dhcp_invalid),
            Case::new("B6 DHCP switched off", "off", dhcp_off),
            Case::new("B8 services", "plain", services),
        ],
    }
}

fn workload() -> IpAddr {
    Ip::V4.workload()
}

/// A neighbour of the workload.
const GATEWAY: &str = "10.1.0.1";

fn address_resolution(_: Ip) -> Vec<Step> {
    let gateway = at(GATEWAY);
    vec![
        passes(Ingress, arp(1, gateway, workload()), Arp),
        passes(Egress, arp(2, workload(), gateway), Arp),
        passes(Egress, arp(1, workload(), gateway), Arp),
        passes(Ingress, arp(2, gateway, workload()), Arp),
        passes(Egress, arp(1, at("0.0.0.0"), workload()), Arp),
        // Without known addresses nobody is told to speak for another.
        passes(Egress, arp(2, at("10.1.0.99"), gateway), Arp),
        Step::State(None),
    ]
}

fn arp_malformed(_: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    for direction in Direction::ALL {
        let frame = arp(1, workload(), at(GATEWAY));
        // Hardware, protocol, their lengths, operation.
        for (offset, byte) in [
            (0, 1),
            (1, 6),
            (2, 0x86),
            (3, 1),
            (4, 8),
            (5, 16),
            (6, 1),
            (7, 0),
            (7, 3),
        ] {
            let frame = spoiled(frame.clone(), IP + offset, &[byte]);
            steps.push(drops(direction, frame, ArpInvalid));
        }
        steps.push(drops(direction, frame[..IP + 27].to_vec(), Truncated));
    }
    steps
}

fn arp_own(_: Ip) -> Vec<Step> {
    vec![
        passes(Egress, arp(1, workload(), at(GATEWAY)), Arp),
        passes(Egress, arp(2, workload(), at(GATEWAY)), Arp),
        passes(Egress, arp(1, at("0.0.0.0"), workload()), Arp),
        passes(Ingress, arp(2, at(GATEWAY), workload()), Arp),
    ]
}

fn arp_spoofed(ip: Ip) -> Vec<Step> {
    if ip == Ip::V6 {
        return Vec::new();
    }
    vec![
        drops(Egress, arp(1, at(GATEWAY), at("10.1.0.7")), AddressSpoofed),
        drops(Egress, arp(2, at("10.1.0.11"), at(GATEWAY)), AddressSpoofed),
        // From outside everybody is somebody else.
        passes(Ingress, arp(2, at("10.1.0.11"), workload()), Arp),
    ]
}

fn arp_unjudged(_: Ip) -> Vec<Step> {
    vec![passes(Egress, arp(2, at("10.1.0.11"), at(GATEWAY)), Arp)]
}

const LOCAL: &str = "fe80::10";
const ROUTER: &str = "fe80::1";

fn target() -> Ipv6Addr {
    let IpAddr::V6(address) = Ip::V6.workload() else {
        unreachable!("an IPv6 address")
    };
    address
}

/// Who sends to whom, by direction, on the link.
fn link(direction: Direction) -> (IpAddr, IpAddr) {
    match direction {
        Ingress => (at(ROUTER), at(LOCAL)),
        Egress => (at(LOCAL), at(ROUTER)),
    }
}

fn neighbors(_: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    for direction in Direction::ALL {
        for kind in [133, 135, 136] {
            let frame = neighbor(link(direction), 255, kind, target());
            steps.push(passes(direction, frame, NeighborDiscovery));
        }
        // Duplicate address detection has no source yet (RFC 4862 §5.4.2).
        let probe = neighbor((at("::"), at("ff02::1:ff00:10")), 255, 135, target());
        steps.push(passes(direction, probe, NeighborDiscovery));
    }
    steps.push(Step::State(None));
    steps
}

fn neighbors_invalid(_: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    for direction in Direction::ALL {
        let ends = link(direction);
        for kind in [133, 134, 135, 136, 137] {
            let forwarded = neighbor(ends, 254, kind, target());
            steps.push(drops(direction, forwarded, NeighborInvalid));
            let code = spoiled(neighbor(ends, 255, kind, target()), IP + 41, &[1]);
            steps.push(drops(direction, code, NeighborInvalid));
            let short = hops(ends, 255, 58, &message(kind, 0, &[0; 3]));
            steps.push(drops(direction, short, Truncated));
            let body = message(kind, 0, &[0; 20]);
            let hidden = [(extension::DESTINATION, NOTHING)];
            let hidden = extended(ends, 255, &hidden, 58, &body);
            steps.push(drops(direction, hidden, NeighborInvalid));
            for more in [0, 1] {
                // Whole, and the first of several (RFC 6980).
                let chain: [(u8, &[u8]); 1] = [(extension::FRAGMENT, &[0, 0, more, 0, 0, 0, 9])];
                let frame = extended(ends, 255, &chain, 58, &body);
                steps.push(drops(direction, frame, NeighborInvalid));
            }
            let everybody = neighbor((at("ff02::1"), ends.1), 255, kind, target());
            steps.push(drops(direction, everybody, NeighborInvalid));
        }
        // An advertisement without a target, and one whose target is padding.
        let bare = hops(ends, 255, 58, &message(136, 0, &[0; 4]));
        steps.push(drops(direction, bare.clone(), Truncated));
        let padded = [bare, vec![0; 16]].concat();
        steps.push(drops(direction, padded, NeighborInvalid));
        let stub = [hops(ends, 255, 58, &message(135, 0, &[])), vec![0; 8]].concat();
        steps.push(drops(direction, stub, NeighborInvalid));
    }
    steps
}

fn advertised(ip: Ip) -> Vec<Step> {
    if ip == Ip::V4 {
        return Vec::new();
    }
    let other: Ipv6Addr = "2001:db8:1::11".parse().unwrap();
    vec![
        passes(
            Egress,
            neighbor(link(Egress), 255, 136, target()),
            NeighborDiscovery,
        ),
        drops(
            Egress,
            neighbor(link(Egress), 255, 136, other),
            AddressSpoofed,
        ),
        passes(
            Egress,
            neighbor(link(Egress), 255, 136, LOCAL.parse().unwrap()),
            NeighborDiscovery,
        ),
        // Asking for an address claims none.
        passes(
            Egress,
            neighbor(link(Egress), 255, 135, other),
            NeighborDiscovery,
        ),
        // Who asks tells its own address and MAC, unless it has none yet.
        drops(
            Egress,
            neighbor((other.into(), at(ROUTER)), 255, 135, target()),
            AddressSpoofed,
        ),
        drops(
            Egress,
            neighbor((other.into(), at(ROUTER)), 255, 133, target()),
            AddressSpoofed,
        ),
        passes(
            Egress,
            neighbor((Ip::V6.workload(), at(ROUTER)), 255, 135, other),
            NeighborDiscovery,
        ),
        passes(
            Egress,
            neighbor((at("::"), at(ROUTER)), 255, 135, other),
            NeighborDiscovery,
        ),
        passes(
            Ingress,
            neighbor(link(Ingress), 255, 136, other),
            NeighborDiscovery,
        ),
    ]
}

fn routers(_: Ip) -> Vec<Step> {
    vec![
        passes(
            Ingress,
            neighbor(link(Ingress), 255, 134, target()),
            RouterAdvertisement,
        ),
        drops(
            Egress,
            neighbor(link(Egress), 255, 134, target()),
            NeighborInvalid,
        ),
        drops(
            Ingress,
            neighbor(link(Ingress), 255, 137, target()),
            NeighborInvalid,
        ),
        drops(
            Egress,
            neighbor(link(Egress), 255, 137, target()),
            NeighborInvalid,
        ),
    ]
}

fn redirects(_: Ip) -> Vec<Step> {
    vec![
        passes(
            Ingress,
            neighbor(link(Ingress), 255, 137, target()),
            Redirect,
        ),
        drops(
            Ingress,
            neighbor(link(Ingress), 64, 137, target()),
            NeighborInvalid,
        ),
        drops(
            Egress,
            neighbor(link(Egress), 255, 137, target()),
            NeighborInvalid,
        ),
    ]
}

const MULTICAST: &str = "ff02::16";
const ALERT: &[(u8, &[u8])] = &[(extension::HOP_BY_HOP, ROUTER_ALERT)];

/// MLD of a kind: queries come in, the rest goes out.
fn listener(source: &str, ttl: u8, extensions: &[(u8, &[u8])], kind: u8) -> Vec<u8> {
    let body = message(kind, 0, &[0; 20]);
    extended((at(source), at(MULTICAST)), ttl, extensions, 58, &body)
}

fn way(kind: u8) -> Direction {
    if kind == 130 { Ingress } else { Egress }
}

const LISTENING: [u8; 4] = [130, 131, 132, 143];

fn listeners(_: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    for kind in LISTENING {
        for source in [LOCAL, "::"] {
            let frame = listener(source, 1, ALERT, kind);
            steps.push(passes(way(kind), frame, MulticastListener));
        }
    }
    // The padding may come first.
    let padded: (u8, &[u8]) = (extension::HOP_BY_HOP, &[0, 1, 0, 5, 2, 0, 0]);
    let frame = listener(LOCAL, 1, &[padded], 143);
    steps.push(passes(Egress, frame, MulticastListener));
    steps
}

/// Behind the packet's own end, where the frame is padded, stands nothing.
fn unstated() -> Vec<u8> {
    let mut frame = extended((at(LOCAL), at(MULTICAST)), 1, ALERT, 58, &[]);
    frame.extend(message(143, 0, &[0; 20]));
    frame
}

fn listeners_invalid(_: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    for kind in LISTENING {
        let (way, back) = (way(kind), way(kind).reverse());
        steps.extend([
            drops(back, listener(LOCAL, 1, ALERT, kind), NoRule),
            drops(way, listener(LOCAL, 64, ALERT, kind), NoRule),
            drops(way, listener(LOCAL, 1, &[], kind), NoRule),
            drops(
                way,
                listener(LOCAL, 1, &[(extension::HOP_BY_HOP, NOTHING)], kind),
                NoRule,
            ),
            drops(way, listener("2001:db8:1::10", 1, ALERT, kind), NoRule),
            drops(way, listener("::", 2, ALERT, kind), IpSource),
        ]);
    }
    steps.push(drops(Egress, unstated(), Truncated));
    steps
}

fn listeners_off(_: Ip) -> Vec<Step> {
    LISTENING
        .map(|kind| drops(way(kind), listener(LOCAL, 1, ALERT, kind), NoRule))
        .into()
}

/// What a client sends and gets.
fn dhcp_exchange(ip: Ip) -> [(Direction, Vec<u8>); 2] {
    let udp = |ends, ports| frame::ip(ends, 17, &frame::datagram(ports, 240));
    match ip {
        Ip::V4 => [
            (
                Egress,
                udp((at("0.0.0.0"), at("255.255.255.255")), (68, 67)),
            ),
            (Ingress, udp((at(GATEWAY), at("10.1.0.10")), (67, 68))),
        ],
        Ip::V6 => [
            (Egress, udp((at(LOCAL), at("ff02::1:2")), (546, 547))),
            (Ingress, udp((at(ROUTER), at(LOCAL)), (547, 546))),
        ],
    }
}

fn dhcp(ip: Ip) -> Vec<Step> {
    let exchange = dhcp_exchange(ip).into_iter();
    let mut steps: Vec<Step> = exchange
        .map(|(way, frame)| passes(way, frame, Dhcp))
        .collect();
    if ip == Ip::V4 {
        let udp = frame::datagram((67, 68), 240);
        let broadcast = frame::ip((at(GATEWAY), at("255.255.255.255")), 17, &udp);
        steps.push(passes(Ingress, broadcast, Dhcp));
        let bound = frame::ip(
            (workload(), at("255.255.255.255")),
            17,
            &frame::datagram((68, 67), 240),
        );
        steps.push(passes(Egress, bound, Dhcp));
    }
    steps.push(Step::State(None));
    steps
}

fn dhcp_invalid(ip: Ip) -> Vec<Step> {
    let udp = |ends, ports| frame::ip(ends, 17, &frame::datagram(ports, 240));
    let mut steps = Vec::new();
    match ip {
        Ip::V4 => steps.extend([
            // A server, other ports, a renewal, a fragment.
            drops(
                Egress,
                udp((workload(), at("255.255.255.255")), (67, 68)),
                NoRule,
            ),
            drops(Ingress, udp((at(GATEWAY), workload()), (68, 67)), NoRule),
            drops(Ingress, udp((at(GATEWAY), workload()), (67, 69)), NoRule),
            drops(Egress, udp((workload(), at(GATEWAY)), (68, 67)), NoRule),
            drops(
                Ingress,
                frame::fragment(
                    (at(GATEWAY), workload()),
                    17,
                    1,
                    0,
                    true,
                    &frame::datagram((67, 68), 8),
                ),
                NoRule,
            ),
        ]),
        Ip::V6 => {
            let hidden = [(extension::DESTINATION, NOTHING)];
            let body = frame::datagram((546, 547), 100);
            steps.extend([
                drops(
                    Egress,
                    udp((at(LOCAL), at("ff02::1:2")), (547, 546)),
                    NoRule,
                ),
                drops(
                    Egress,
                    udp((at(LOCAL), at("ff02::1:3")), (546, 547)),
                    NoRule,
                ),
                drops(
                    Egress,
                    udp((Ip::V6.workload(), at("ff02::1:2")), (546, 547)),
                    NoRule,
                ),
                drops(Ingress, udp((Ip::V6.peer(), at(LOCAL)), (547, 546)), NoRule),
                drops(
                    Ingress,
                    udp((at(ROUTER), Ip::V6.workload()), (547, 546)),
                    NoRule,
                ),
                drops(
                    Egress,
                    extended((at(LOCAL), at("ff02::1:2")), 64, &hidden, 17, &body),
                    NoRule,
                ),
            ]);
        }
    }
    // The ports alone, which is no UDP.
    let (from, to, ports) = ip.pick(
        (GATEWAY, "10.1.0.10", [0, 67, 0, 68]),
        (ROUTER, LOCAL, [2, 0x23, 2, 0x22]),
    );
    let stub = frame::ip((at(from), at(to)), 17, &ports);
    steps.push(drops(Ingress, stub, Truncated));
    if ip == Ip::V4 {
        let forged = udp((at("127.0.0.1"), workload()), (67, 68));
        steps.push(drops(Ingress, forged, IpSource));
    }
    steps
}

fn dhcp_off(ip: Ip) -> Vec<Step> {
    let [(out, discover), (back, offer)] = dhcp_exchange(ip);
    vec![
        drops(out, discover, ip.pick(IpSource, NoRule)),
        drops(back, offer, NoRule),
    ]
}

fn services(ip: Ip) -> Vec<Step> {
    let listed = at(ip.pick("169.254.169.254", "fd00:ec2::254"));
    let unlisted = at(ip.pick("169.254.169.253", "fd00:ec2::253"));
    let flow = Flow::new(ip, 40_000, 80);
    let (service, other) = (flow.with(listed), flow.with(unlisted));
    let mut steps = vec![
        passes(Egress, service.tcp(Egress, SYN, 1, 0, 0), Service),
        passes(Ingress, service.udp(Ingress), Service),
        drops(Egress, other.tcp(Egress, SYN, 1, 0, 0), NoRule),
        drops(Egress, flow.tcp(Egress, SYN, 1, 0, 0), NoRule),
        Step::State(None),
    ];
    if ip == Ip::V6 {
        steps.push(passes(
            Egress,
            flow.with(at("fe80::53")).udp(Egress),
            Service,
        ));
        steps.push(drops(Egress, flow.with(at("fe80::54")).udp(Egress), NoRule));
    }
    steps
}
