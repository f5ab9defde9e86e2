//! What stands around an IP packet, and how much of a frame belongs to it.

use sg_common::{
    conntrack::tcp::{ACK, PSH, SYN},
    verdict::{
        Direction::{self, Egress, Ingress},
        DropReason::{
            Ethertype, IpTotalLength, IpVersion, Ipv6Extension, MidStream, NoRule, Truncated,
            VlanTag,
        },
        PassKind::{Arp, Established, ListedEthertype, New},
        Verdict,
    },
};

use super::tcp::{GROUPS, handshake};
use crate::{
    flow::Flow,
    frame::{self, IP, Ip, NOTHING, arp, at, ethernet, extended, extension, spoiled},
    table::{Case, Only, Step, World, drops, interface, passes},
};

pub(crate) fn world() -> World {
    let definition = GROUPS.to_owned()
        + r#"
[groups.datagrams]
ingress = [ { protocol = "udp", ports = 80, cidr = ["0.0.0.0/0", "::/0"] } ]
egress = []
"# + &interface("server", r#"["server", "datagrams"]"#, "")
        + &interface("other", r#"["server", "datagrams"]"#, "")
        + &interface("listed", "[]", "ethertypes = [0x88cc, 0x888e, 0x0600]");
    World {
        name: "ethernet",
        definition,
        cases: vec![
            Case::new("A1 cut at every byte", "server", cut),
            Case::new("A2 one to four VLAN tags", "server", tagged),
            Case::new("A4 neither IP nor ARP", "server", foreign),
            Case::new("A4 listed ethertypes", "listed", listed),
            Case::new("A4 IP in LLC and SNAP", "server", snap),
            Case::new("A5 one family under the other's number", "server", crossed),
            Case::new("A6 padding", "server", padded),
            Case::new("A8 for another station", "server", stations),
            Case::new("A8 ARP for another station", "server", arp_stations).only(Only::V4),
            Case::new("J13 merged frames", "server", merged).only(Only::Tc),
        ],
    }
}

/// What a rule allows and what none does: the frame around it decides first.
fn packets(ip: Ip, direction: Direction) -> [Vec<u8>; 3] {
    let (allowed, refused) = (Flow::new(ip, 80, 40_000), Flow::new(ip, 81, 40_000));
    [
        allowed.tcp(direction, SYN, 100, 0, 0),
        refused.tcp(direction, SYN, 100, 0, 0),
        allowed.udp(direction),
    ]
}

fn cut(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    for direction in Direction::ALL {
        for frame in packets(ip, direction) {
            for len in 0..frame.len() {
                let reason = if len < IP + ip.pick(20, 40) {
                    Truncated
                } else {
                    IpTotalLength
                };
                steps.push(drops(direction, frame[..len].to_vec(), reason));
            }
        }
    }
    // Every byte of an extension header, where the packet ends with the frame.
    if ip == Ip::V6 {
        let ends = ip.ends(Ingress);
        for len in 0..8 {
            let rest = [&[17][..], NOTHING].concat();
            let frame = frame::ip(ends, extension::DESTINATION, &rest[..len]);
            let reason = if len == 0 { IpTotalLength } else { Truncated };
            steps.push(drops(Ingress, frame, reason));
        }
        let long = [17, 1, 1, 4, 0, 0, 0, 0];
        let frame = frame::ip(ends, extension::DESTINATION, &long);
        steps.push(drops(Ingress, frame, Ipv6Extension));
    }
    steps.push(Step::State(None));
    steps
}

const TAGS: [u16; 4] = [0x8100, 0x88a8, 0x9100, 0x9200];

/// A frame in tags, the outermost first. Number 0 gives a priority and names no VLAN.
fn in_tags(mut frame: Vec<u8>, tags: &[(u16, u16)]) -> Vec<u8> {
    for (kind, number) in tags.iter().rev() {
        let tag = [kind.to_be_bytes(), number.to_be_bytes()].concat();
        frame.splice(12..12, tag);
    }
    frame
}

fn tagged(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    for direction in Direction::ALL {
        for outermost in TAGS {
            for number in [0, 5] {
                for inner in [&[][..], &[(0x8100, 7)], &[(0x88a8, 0), (0x8100, 7)]] {
                    let tags = [&[(outermost, number)], inner].concat();
                    for frame in packets(ip, direction) {
                        steps.push(drops(direction, in_tags(frame, &tags), VlanTag));
                    }
                }
            }
        }
        let four = TAGS.map(|kind| (kind, 5));
        for frame in packets(ip, direction) {
            steps.push(drops(direction, in_tags(frame, &four), VlanTag));
        }
        let question = arp(1, Ip::V4.peer(), Ip::V4.workload());
        let question = in_tags(question, &[(0x8100, 5)]);
        steps.push(drops(direction, question, VlanTag));
    }
    steps.push(Step::State(None));
    steps
}

/// MPLS, PPPoE, TRILL, MACsec, PTP, LLDP, EAPOL, FCoE, Profinet, bridged Ethernet, an experiment,
/// the neighbours of IP's numbers, and no number at all.
const FOREIGN: [u16; 19] = [
    0x8847, 0x8848, 0x8863, 0x8864, 0x22f3, 0x88e5, 0x88f7, 0x88cc, 0x888e, 0x8906, 0x8892, 0x6558,
    0x88b5, 0x86de, 0x86dc, 0x0801, 0x0807, 0xffff, 0,
];

fn foreign(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    for direction in Direction::ALL {
        for kind in FOREIGN {
            // With the packet right behind the number, and behind a label.
            let [packet, ..] = packets(ip, direction);
            let bare = ethernet(kind, &packet[IP..]);
            let labelled = ethernet(kind, &[&[0, 0, 1, 64], &packet[IP..]].concat());
            steps.push(drops(direction, bare, Ethertype));
            steps.push(drops(direction, labelled, Ethertype));
        }
    }
    steps.push(Step::State(None));
    steps
}

fn listed(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    for direction in Direction::ALL {
        let [packet, ..] = packets(ip, direction);
        for kind in [0x88cc, 0x888e, 0x0600] {
            let frame = ethernet(kind, &packet[IP..]);
            let tagged = in_tags(frame.clone(), &[(0x8100, 5)]);
            steps.push(passes(direction, ethernet(kind, &[0]), ListedEthertype));
            steps.push(passes(direction, frame, ListedEthertype));
            steps.push(drops(direction, tagged, VlanTag));
        }
        for kind in [0x88cb, 0x88cd, 0xcc88, 0x0601, 0x05ff, 0x8847] {
            let frame = ethernet(kind, &packet[IP..]);
            steps.push(drops(direction, frame, Ethertype));
        }
        // What is judged is judged.
        steps.push(drops(direction, packet, NoRule));
    }
    // Listed on one interface, for that one.
    steps.push(Step::On("server"));
    steps.push(drops(Ingress, ethernet(0x88cc, &[0; 46]), Ethertype));
    steps
}

fn snap(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    for direction in Direction::ALL {
        let [packet, ..] = packets(ip, direction);
        let kind = ip.pick([0x08, 0x00], [0x86, 0xdd]);
        // RFC 1042: destination and source service, control, organisation, number.
        let snap = [&[0xaa, 0xaa, 3, 0, 0, 0][..], &kind, &packet[IP..]].concat();
        // IP's own service, and the one of spanning trees.
        let llc = [&[6, 6, 3][..], &packet[IP..]].concat();
        let bridges = [&[0x42, 0x42, 3][..], &[0; 35]].concat();
        for body in [snap, llc, bridges] {
            let frame = ethernet(body.len() as u16, &body);
            steps.push(drops(direction, frame, Ethertype));
        }
        steps.push(drops(direction, ethernet(1500, &packet[IP..]), Ethertype));
        steps.push(drops(direction, ethernet(1535, &packet[IP..]), Ethertype));
    }
    steps
}

fn crossed(ip: Ip) -> Vec<Step> {
    let number = ip.pick([0x86, 0xdd], [0x08, 0x00]);
    let mut steps = Vec::new();
    for direction in Direction::ALL {
        for mut frame in packets(ip, direction) {
            // Long enough for either header.
            frame.resize(100, 0);
            steps.push(drops(direction, spoiled(frame, 12, &number), IpVersion));
        }
    }
    steps
}

fn padded(ip: Ip) -> Vec<Step> {
    let (allowed, refused) = (Flow::new(ip, 80, 40_003), Flow::new(ip, 81, 40_003));
    // To 60 bytes, the least of Ethernet, and more; the lengths say what is payload.
    let datagram = |flow: &Flow| {
        let datagram = frame::datagram(flow.ports(Ingress), 1);
        frame::ip(flow.ends(Ingress), 17, &datagram)
    };
    let mut long = datagram(&allowed);
    long.resize(long.len().max(60) + 4, 0);
    // Behind seven bytes the rest of a UDP header to an allowed port, or all of one.
    let ports = frame::datagram(allowed.ports(Ingress), 4);
    let short = frame::ip(allowed.ends(Ingress), 17, &ports[..7]);
    let completed = [&short[..], &ports[7..]].concat();
    let segment = frame::segment(allowed.ports(Ingress), SYN, 100, 0, 0);
    let none = frame::ip(allowed.ends(Ingress), 6, &segment[..19]);
    let imitated = [&none[..], &segment[19..], &segment].concat();
    let behind = [&datagram(&refused)[..], &ports, &segment].concat();
    vec![
        drops(Ingress, completed, Truncated),
        drops(Ingress, imitated, Truncated),
        drops(Ingress, behind, NoRule),
        Step::State(None),
        passes(Ingress, long, New),
        Step::Tracked(1),
    ]
}

/// Nobody, everybody, a group of listeners, somebody else.
const STATIONS: [[u8; 6]; 4] = [
    [0; 6],
    [0xff; 6],
    [1, 0, 0x5e, 0, 0, 1],
    [2, 0, 0, 0, 0, 99],
];

fn stations(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_005);
    let mut steps = Vec::new();
    for station in STATIONS {
        let to = |frame: Vec<u8>| spoiled(frame, 0, &station);
        let refused = Flow::new(ip, 81, 40_005).tcp(Ingress, SYN, 1, 0, 0);
        steps.push(drops(Ingress, to(refused), NoRule));
        let stray = to(flow.tcp(Ingress, ACK, 1, 1, 0));
        steps.push(drops(Ingress, stray, MidStream));
    }
    let to_another = spoiled(flow.tcp(Ingress, SYN, 100, 0, 0), 0, &STATIONS[3]);
    steps.extend([
        passes(Ingress, to_another, New),
        Step::Tracked(1),
        // What was heard on one interface counts for no other.
        Step::On("other"),
        drops(Egress, flow.tcp(Egress, SYN | ACK, 500, 101, 0), MidStream),
        Step::Tracked(0),
    ]);
    steps
}

fn arp_stations(_: Ip) -> Vec<Step> {
    STATIONS
        .map(|station| {
            let question = arp(1, at("10.1.0.1"), Ip::V4.workload());
            passes(Ingress, spoiled(question, 0, &station), Arp)
        })
        .into()
}

fn merged(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_004);
    let pass = |direction, frame, kind| Step::Frame(direction, frame, 3, Verdict::Pass(kind));
    let data = flow.tcp(Egress, PSH | ACK, 501, 101, 3000);
    // BIG TCP: a length that 16 bits do not hold is written as 0.
    let big = spoiled(data.clone(), ip.pick(IP + 2, IP + 4), &[0, 0]);
    let mut steps = handshake(flow);
    steps.extend([
        pass(Egress, data, Established),
        pass(Egress, big.clone(), Established),
        drops(Egress, big, IpTotalLength),
        Step::Unassured(0),
        Step::Tracked(1),
    ]);
    if ip == Ip::V6 {
        // As Linux wrote it at first: a hop-by-hop header with the length (RFC 2675 §2).
        let jumbo = [(extension::HOP_BY_HOP, &[0, 0xc2, 4, 0, 0, 0x0b, 0xcc][..])];
        let segment = frame::segment(flow.ports(Egress), ACK, 3501, 101, 3000);
        let frame = extended(flow.ends(Egress), 64, &jumbo, 6, &segment);
        let frame = spoiled(frame, IP + 4, &[0, 0]);
        steps.push(pass(Egress, frame.clone(), Established));
        steps.push(drops(Egress, frame, IpTotalLength));
    }
    steps
}
