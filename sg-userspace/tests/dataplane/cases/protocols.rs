//! UDP, echo, ICMP of its own accord, and everything else.

use sg_common::{
    conntrack::State,
    verdict::{
        Direction::{Egress, Ingress},
        DropReason::{IpOptions, IpSource, NoRule},
        PassKind::{Established, New, Stateless},
    },
};

use crate::{
    flow::Flow,
    frame::{self, IP, Ip, at, icmp, spoiled},
    table::{Case, Only, Step, World, drops, interface, passes, state},
};

const GROUPS: &str = r#"
[groups.server]
ingress = [
  { protocol = "udp", ports = 53, cidr = ["0.0.0.0/0", "::/0"] },
  { protocol = "icmp", type = 8, cidr = "0.0.0.0/0" },
  { protocol = "icmpv6", type = 128, cidr = "::/0" },
  { protocol = 47, cidr = ["0.0.0.0/0", "::/0"] },
]
egress = []

[groups.client]
ingress = []
egress = [
  { protocol = "udp", ports = 53, cidr = ["0.0.0.0/0", "::/0"] },
  { protocol = "icmp", type = 8, cidr = "0.0.0.0/0" },
  { protocol = "icmpv6", type = 128, cidr = "::/0" },
  { protocol = 47, cidr = ["0.0.0.0/0", "::/0"] },
]

[groups.icmp]
ingress = [
  { protocol = "icmp", type = 0, cidr = "0.0.0.0/0" },
  { protocol = "icmp", type = 13, code = 0, cidr = "0.0.0.0/0" },
  { protocol = "icmpv6", type = 129, cidr = "::/0" },
  { protocol = "icmpv6", type = 200, code = 0, cidr = "::/0" },
]
egress = [
  { protocol = "icmp", type = -1, cidr = "0.0.0.0/0" },
  { protocol = "icmpv6", cidr = "::/0" },
  { protocol = 2, cidr = "0.0.0.0/0" },
]
"#;

pub(crate) fn world() -> World {
    let interfaces = interface("server", r#"["server"]"#, "")
        + &interface("client", r#"["client"]"#, "")
        + &interface("icmp", r#"["icmp"]"#, "");
    World {
        name: "protocols",
        definition: GROUPS.to_owned() + &interfaces,
        cases: vec![
            Case::new("I1 I3 UDP served", "server", udp_served),
            Case::new("I1 I3 UDP asked", "client", udp_asked),
            Case::new("I3 UDP one way is no stream", "server", udp_one_way),
            Case::new("G1 echo served", "server", echo_served),
            Case::new("G1 echo asked", "client", echo_asked),
            Case::new("G1 an answer that nobody asked for", "icmp", unasked),
            Case::new("G9 G11 ICMP by rule", "icmp", by_rule),
            Case::new("G8 G9 G11 ICMP without a rule", "server", without_rule),
            Case::new("B5 C2 IGMP by rule", "icmp", igmp).only(Only::V4),
            Case::new("B5 IGMP without a rule", "server", igmp_refused).only(Only::V4),
            Case::new("F2 other protocol served", "server", other_served),
            Case::new("F2 other protocol asked", "client", other_asked),
        ],
    }
}

fn udp_served(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 53, 40_000);
    vec![
        drops(Egress, flow.udp(Egress), NoRule),
        passes(Ingress, flow.udp(Ingress), New),
        state(State::UdpSingle),
        Step::Unassured(1),
        passes(Egress, flow.udp(Egress), Established),
        passes(Ingress, flow.udp(Ingress), Established),
        state(State::UdpSingle),
        passes(Egress, flow.udp(Egress), Established),
        state(State::UdpStream),
        Step::Unassured(0),
        drops(Ingress, Flow::new(ip, 54, 40_000).udp(Ingress), NoRule),
        // From another port, to another address, between the same ports swapped.
        drops(Egress, Flow::new(ip, 54, 40_000).udp(Egress), NoRule),
        drops(Egress, flow.with(ip.stranger()).udp(Egress), NoRule),
        drops(Ingress, Flow::new(ip, 40_000, 53).udp(Ingress), NoRule),
        Step::Tracked(1),
    ]
}

fn udp_asked(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 50_000, 53);
    vec![
        drops(Ingress, flow.udp(Ingress), NoRule),
        passes(Egress, flow.udp(Egress), New),
        passes(Ingress, flow.udp(Ingress), Established),
        state(State::UdpSingle),
        passes(Egress, flow.udp(Egress), Established),
        passes(Ingress, flow.udp(Ingress), Established),
        state(State::UdpStream),
    ]
}

fn udp_one_way(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 53, 40_001);
    vec![
        passes(Ingress, flow.udp(Ingress), New),
        passes(Ingress, flow.udp(Ingress), Established),
        passes(Ingress, flow.udp(Ingress), Established),
        passes(Egress, flow.udp(Egress), Established),
        state(State::UdpSingle),
        Step::Unassured(1),
    ]
}

fn echo_served(ip: Ip) -> Vec<Step> {
    let (flow, other) = (Flow::new(ip, 7, 0), Flow::new(ip, 8, 0));
    vec![
        drops(Egress, flow.answer(Egress), NoRule),
        passes(Ingress, flow.ask(Ingress), New),
        state(State::Icmp),
        Step::Unassured(1),
        passes(Egress, flow.answer(Egress), Established),
        Step::Unassured(0),
        passes(Ingress, flow.ask(Ingress), Established),
        // With another identifier, or as a request, it is no answer.
        drops(Egress, other.answer(Egress), NoRule),
        drops(Egress, flow.ask(Egress), NoRule),
        drops(Ingress, flow.answer(Ingress), NoRule),
        drops(Egress, flow.with(ip.stranger()).answer(Egress), NoRule),
        Step::Tracked(1),
    ]
}

fn echo_asked(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 9, 0);
    vec![
        drops(Ingress, flow.answer(Ingress), NoRule),
        passes(Egress, flow.ask(Egress), New),
        drops(Ingress, flow.ask(Ingress), NoRule),
        drops(Egress, flow.answer(Egress), NoRule),
        passes(Ingress, flow.answer(Ingress), Established),
        state(State::Icmp),
        Step::Unassured(0),
    ]
}

fn unasked(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 10, 0);
    vec![
        passes(Ingress, flow.answer(Ingress), Stateless),
        passes(Egress, flow.answer(Egress), Stateless),
        Step::State(None),
        // A request of the workload with that identifier is still its own.
        passes(Egress, flow.ask(Egress), New),
        drops(Ingress, flow.ask(Ingress), NoRule),
        passes(Ingress, flow.answer(Ingress), Established),
    ]
}

fn by_rule(ip: Ip) -> Vec<Step> {
    let kind = ip.pick(13, 200);
    vec![
        passes(
            Ingress,
            icmp(ip.ends(Ingress), kind, 0, &[0; 16]),
            Stateless,
        ),
        drops(Ingress, icmp(ip.ends(Ingress), kind, 1, &[0; 16]), NoRule),
        drops(
            Ingress,
            icmp(ip.ends(Ingress), kind + 1, 0, &[0; 16]),
            NoRule,
        ),
        passes(
            Egress,
            icmp(ip.ends(Egress), kind + 1, 9, &[0; 16]),
            Stateless,
        ),
        Step::State(None),
    ]
}

fn without_rule(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    for direction in [Ingress, Egress] {
        for kind in ip.pick([5, 13, 17, 255], [100, 139, 141, 255]) {
            let frame = icmp(ip.ends(direction), kind, 0, &[0; 16]);
            steps.push(drops(direction, frame, NoRule));
        }
        // The other family's ICMP is just some protocol.
        let foreign = ip.pick(58, 1);
        let flow = Flow::new(ip, 0, 0);
        steps.push(drops(direction, flow.other(direction, foreign), NoRule));
    }
    steps
}

/// A packet of the workload to all IGMPv3 routers, with an IPv4 option of four bytes.
fn report(source: &str, protocol: u8, option: [u8; 4]) -> Vec<u8> {
    let ends = (at(source), at("224.0.0.22"));
    let mut frame = frame::ip(ends, protocol, &[0x22, 0, 0, 0, 0, 0, 0, 0]);
    frame.splice(IP + 20..IP + 20, option);
    spoiled(frame, IP, &[0x46, 0, 0, 32])
}

const IGMP: u8 = 2;
/// RFC 2113 §2.1.
const ALERT: [u8; 4] = [0x94, 4, 0, 0];

fn igmp(_: Ip) -> Vec<Step> {
    let loose_source_route = [0x83, 3, 4, 0];
    vec![
        passes(Egress, report("10.1.0.10", IGMP, ALERT), New),
        passes(Egress, report("0.0.0.0", IGMP, ALERT), New),
        drops(Egress, report("0.0.0.1", IGMP, ALERT), IpSource),
        drops(Egress, report("0.0.0.0", 17, [0; 4]), IpOptions),
        drops(Egress, report("10.1.0.10", 17, ALERT), IpOptions),
        drops(
            Egress,
            report("10.1.0.10", IGMP, loose_source_route),
            IpOptions,
        ),
        drops(Egress, report("10.1.0.10", IGMP, [1; 4]), IpOptions),
        Step::Tracked(2),
    ]
}

fn igmp_refused(_: Ip) -> Vec<Step> {
    vec![
        drops(Egress, report("10.1.0.10", IGMP, ALERT), NoRule),
        drops(Egress, report("0.0.0.0", IGMP, ALERT), NoRule),
    ]
}

fn other_served(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 0, 0);
    vec![
        drops(Egress, flow.other(Egress, 47), NoRule),
        passes(Ingress, flow.other(Ingress, 47), New),
        state(State::Other),
        Step::Unassured(1),
        passes(Egress, flow.other(Egress, 47), Established),
        Step::Unassured(0),
        drops(Egress, flow.with(ip.stranger()).other(Egress, 47), NoRule),
        drops(Egress, flow.other(Egress, 50), NoRule),
        drops(Ingress, flow.other(Ingress, 132), NoRule),
        Step::Tracked(1),
    ]
}

fn other_asked(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 0, 0);
    vec![
        drops(Ingress, flow.other(Ingress, 47), NoRule),
        passes(Egress, flow.other(Egress, 47), New),
        passes(Ingress, flow.other(Ingress, 47), Established),
        passes(Egress, flow.other(Egress, 47), Established),
        state(State::Other),
    ]
}
