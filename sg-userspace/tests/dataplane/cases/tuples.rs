//! Which packets are one flow, and which only look like it.

use sg_common::{
    conntrack::{
        State,
        tcp::{ACK, SYN},
    },
    verdict::{
        Direction::{Egress, Ingress},
        DropReason::{MidStream, NoRule},
        PassKind::{Established, New},
    },
};

use super::tcp::handshake;
use crate::{
    flow::Flow,
    frame::{Ip, at},
    table::{Case, Step, World, drops, interface, passes, state},
};

const GROUPS: &str = r#"
[groups.server]
ingress = [ { protocol = "tcp", ports = 80, cidr = ["0.0.0.0/0", "::/0"] } ]
egress = []

[groups.client]
ingress = []
egress = [ { protocol = "udp", ports = "0-65535", cidr = ["198.51.100.0/24", "2001:db8:2::/48"] }, { protocol = "udp", ports = 5353, cidr = ["224.0.0.251/32", "ff02::fb/128"] } ]

[groups.meeting]
ingress = [ { protocol = "tcp", ports = 80, cidr = ["198.51.100.0/24", "2001:db8:2::/48"] } ]
egress = [ { protocol = "tcp", ports = "40000-50000", cidr = ["198.51.100.0/24", "2001:db8:2::/48"] } ]

[groups.inward]
ingress = [ { protocol = "tcp", ports = 80, cidr = ["10.1.0.0/24", "2001:db8:1::/48"] } ]
egress = []

[groups.both]
ingress = [ { protocol = "tcp", ports = 80, cidr = ["10.1.0.0/24", "2001:db8:1::/48"] } ]
egress = [ { protocol = "tcp", ports = 80, cidr = ["10.1.0.0/24", "2001:db8:1::/48"] } ]
"#;

pub(crate) fn world() -> World {
    let interfaces = ["server", "client", "meeting", "inward", "both"]
        .map(|group| interface(group, &format!("[\"{group}\"]"), ""))
        .concat();
    World {
        name: "tuples",
        definition: GROUPS.to_owned() + &interfaces + &interface("another", "[\"client\"]", ""),
        cases: vec![
            Case::new("B7 an answer to a multicast question", "client", multicast),
            Case::new(
                "B8 link-local addresses are nobody special",
                "server",
                link_local,
            ),
            Case::new("H8 both sides open at once", "meeting", crossing),
            Case::new(
                "H8 both sides open, one is not allowed to",
                "server",
                crossing_refused,
            ),
            Case::new(
                "H9 H10 the answering side opens anew",
                "meeting",
                opened_back,
            ),
            Case::new("I1 near misses of a reply", "client", near_misses),
            Case::new("J2 equal ports and ports swapped", "meeting", equal_ports),
            Case::new("J3 from one of its addresses to another", "both", hairpin),
            Case::new(
                "J3 what goes out must come in by rule",
                "inward",
                hairpin_refused,
            ),
            Case::new("J12 several addresses of one workload", "server", addresses),
        ],
    }
}

fn multicast(ip: Ip) -> Vec<Step> {
    let group = at(ip.pick("224.0.0.251", "ff02::fb"));
    let ask = Flow::new(ip, 5353, 5353).with(group);
    vec![
        passes(Egress, ask.udp(Egress), New),
        // Whoever answers was not asked by name.
        drops(Ingress, ask.with(ip.peer()).udp(Ingress), NoRule),
        drops(Ingress, ask.with(ip.stranger()).udp(Ingress), NoRule),
        // Nor does being a member open anything.
        drops(
            Ingress,
            Flow {
                local: (group, 5353),
                ..Flow::new(ip, 5353, 5353)
            }
            .udp(Ingress),
            NoRule,
        ),
        Step::Tracked(1),
    ]
}

fn link_local(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    let neighbours = ip.pick(
        ["169.254.0.1", "169.254.169.254", "169.254.255.255"],
        ["fe80::1", "fe80::a9fe:a9fe", "febf:ffff::1"],
    );
    for neighbour in neighbours {
        let flow = Flow::new(ip, 22, 40_000).with(at(neighbour));
        let ours = Flow {
            local: (at(ip.pick("169.254.7.7", "fe80::77")), 22),
            ..flow
        };
        for flow in [flow, ours] {
            for direction in [Ingress, Egress] {
                steps.extend([
                    drops(direction, flow.tcp(direction, SYN, 1, 0, 0), NoRule),
                    drops(direction, flow.tcp(direction, ACK, 1, 1, 0), MidStream),
                    drops(direction, flow.udp(direction), NoRule),
                    drops(direction, flow.ask(direction), NoRule),
                    drops(direction, flow.other(direction, 47), NoRule),
                ]);
            }
        }
    }
    steps.push(Step::State(None));
    steps
}

fn crossing(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_001);
    vec![
        passes(Ingress, flow.tcp(Ingress, SYN, 100, 0, 0), New),
        passes(Egress, flow.tcp(Egress, SYN, 500, 0, 0), Established),
        state(State::TcpSynSent),
        // RFC 9293 §3.5, figure 7: each answers the other's.
        passes(
            Egress,
            flow.tcp(Egress, SYN | ACK, 500, 101, 0),
            Established,
        ),
        passes(
            Ingress,
            flow.tcp(Ingress, SYN | ACK, 100, 501, 0),
            Established,
        ),
        passes(Ingress, flow.tcp(Ingress, ACK, 101, 501, 5), Established),
        state(State::TcpEstablished),
        Step::Unassured(0),
        Step::Tracked(1),
    ]
}

fn crossing_refused(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_002);
    vec![
        passes(Ingress, flow.tcp(Ingress, SYN, 100, 0, 0), New),
        drops(Egress, flow.tcp(Egress, SYN, 500, 0, 0), NoRule),
        state(State::TcpSynSent),
        passes(
            Egress,
            flow.tcp(Egress, SYN | ACK, 500, 101, 0),
            Established,
        ),
        state(State::TcpSynReceived),
    ]
}

/// Whoever is allowed to open may do so on what is closing: the entry is made anew, and its opener
/// is the other side.
fn opened_back(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_003);
    let mut steps = super::tcp::whole(flow);
    steps.extend([
        passes(Egress, flow.tcp(Egress, SYN, 9000, 0, 0), New),
        state(State::TcpSynSent),
        passes(
            Ingress,
            flow.tcp(Ingress, SYN | ACK, 700, 9001, 0),
            Established,
        ),
        passes(Egress, flow.tcp(Egress, ACK, 9001, 701, 0), Established),
        state(State::TcpEstablished),
        Step::Tracked(1),
    ]);
    steps
}

fn near_misses(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 50_000, 53);
    let neighbour = at(ip.pick("198.51.100.21", "2001:db8:2::21"));
    let second = at(ip.pick("10.1.0.11", "2001:db8:1::11"));
    let misses = [
        // Another remote address, near and far; another port of either side, by one and by a lot.
        flow.with(neighbour),
        flow.with(ip.stranger()),
        Flow::new(ip, 50_000, 54),
        Flow::new(ip, 50_000, 52),
        Flow::new(ip, 50_001, 53),
        Flow::new(ip, 49_999, 53),
        Flow::new(ip, 50_000, 0),
        // Another local address; the ports, and the addresses, of the other side.
        Flow {
            local: (second, 50_000),
            ..flow
        },
        Flow::new(ip, 53, 50_000),
        Flow {
            local: flow.remote,
            remote: flow.local,
            ip,
        },
    ];
    let mut steps = vec![passes(Egress, flow.udp(Egress), New)];
    for miss in misses {
        steps.push(drops(Ingress, miss.udp(Ingress), NoRule));
    }
    steps.extend([
        // Another protocol between the same ports, and another interface.
        drops(Ingress, flow.tcp(Ingress, SYN | ACK, 1, 1, 0), MidStream),
        drops(Ingress, flow.tcp(Ingress, SYN, 1, 0, 0), NoRule),
        drops(Ingress, flow.other(Ingress, 136), NoRule),
        drops(Ingress, flow.answer(Ingress), NoRule),
        Step::On("another"),
        drops(Ingress, flow.udp(Ingress), NoRule),
        Step::Tracked(0),
        Step::On("client"),
        state(State::UdpSingle),
        passes(Ingress, flow.udp(Ingress), Established),
        Step::Tracked(1),
    ]);
    steps
}

fn equal_ports(ip: Ip) -> Vec<Step> {
    let (out, back) = (Flow::new(ip, 80, 40_004), Flow::new(ip, 40_004, 80));
    let equal = Flow::new(ip, 45_000, 45_000);
    vec![
        passes(Ingress, out.tcp(Ingress, SYN, 100, 0, 0), New),
        // The same numbers with sides changed are somebody else's.
        drops(Egress, back.tcp(Egress, SYN | ACK, 500, 101, 0), MidStream),
        drops(
            Ingress,
            back.tcp(Ingress, SYN | ACK, 500, 101, 0),
            MidStream,
        ),
        drops(Egress, back.tcp(Egress, SYN, 1, 0, 0), NoRule),
        passes(Egress, out.tcp(Egress, SYN | ACK, 500, 101, 0), Established),
        passes(Egress, equal.tcp(Egress, SYN, 100, 0, 0), New),
        drops(Ingress, equal.tcp(Ingress, SYN, 1, 0, 0), NoRule),
        passes(
            Ingress,
            equal.tcp(Ingress, SYN | ACK, 500, 101, 0),
            Established,
        ),
        passes(Egress, equal.tcp(Egress, ACK, 101, 501, 0), Established),
        Step::Tracked(2),
    ]
}

/// A packet of the workload's that comes back to it, by a proxy or a reflecting bridge.
fn loop_back(ip: Ip) -> (Flow, Flow) {
    let second = at(ip.pick("10.1.0.11", "2001:db8:1::11"));
    let leaves = Flow {
        ip,
        local: (ip.workload(), 40_005),
        remote: (second, 80),
    };
    let returns = Flow {
        ip,
        local: leaves.remote,
        remote: leaves.local,
    };
    (leaves, returns)
}

fn hairpin(ip: Ip) -> Vec<Step> {
    let (leaves, returns) = loop_back(ip);
    vec![
        passes(Egress, leaves.tcp(Egress, SYN, 100, 0, 0), New),
        passes(Ingress, returns.tcp(Ingress, SYN, 100, 0, 0), New),
        passes(
            Egress,
            returns.tcp(Egress, SYN | ACK, 500, 101, 0),
            Established,
        ),
        passes(
            Ingress,
            leaves.tcp(Ingress, SYN | ACK, 500, 101, 0),
            Established,
        ),
        passes(Egress, leaves.tcp(Egress, ACK, 101, 501, 0), Established),
        passes(Ingress, returns.tcp(Ingress, ACK, 101, 501, 0), Established),
        Step::Tracked(2),
        Step::Unassured(0),
    ]
}

fn hairpin_refused(ip: Ip) -> Vec<Step> {
    let (leaves, returns) = loop_back(ip);
    vec![
        drops(Egress, leaves.tcp(Egress, SYN, 100, 0, 0), NoRule),
        passes(Ingress, returns.tcp(Ingress, SYN, 100, 0, 0), New),
        passes(
            Egress,
            returns.tcp(Egress, SYN | ACK, 500, 101, 0),
            Established,
        ),
        drops(
            Ingress,
            leaves.tcp(Ingress, SYN | ACK, 500, 101, 0),
            MidStream,
        ),
    ]
}

fn addresses(ip: Ip) -> Vec<Step> {
    let first = Flow::new(ip, 80, 40_006);
    let second = Flow {
        local: (at(ip.pick("10.1.0.11", "2001:db8:1::11")), 80),
        ..first
    };
    let mut steps = handshake(first);
    steps.extend([
        drops(Ingress, second.tcp(Ingress, ACK, 101, 501, 5), MidStream),
        passes(Ingress, second.tcp(Ingress, SYN, 100, 0, 0), New),
        passes(
            Egress,
            second.tcp(Egress, SYN | ACK, 500, 101, 0),
            Established,
        ),
        passes(Ingress, first.tcp(Ingress, ACK, 101, 501, 5), Established),
        Step::Tracked(2),
    ]);
    steps
}
