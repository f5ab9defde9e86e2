//! Flows whose rule goes, where a group wants them cut (`on_revoke = "reevaluate"`).

use sg_common::{
    conntrack::{
        State,
        tcp::{ACK, FIN, RST, SYN},
    },
    verdict::{
        Direction::{self, Egress, Ingress},
        DropReason::{IcmpUnrelated, MidStream, NoRule, Revoked},
        PassKind::{Established, New, Related},
    },
};

use super::tcp::handshake;
use crate::{
    flow::Flow,
    frame::{Ip, unreachable},
    table::{Case, Only, Step, World, drops, interface, passes, state},
};

/// What a group allows, and the same twice: as a group that keeps flows, and as one that cuts them.
const RULES: [(&str, &str, &str); 4] = [
    (
        "web",
        r#"{ protocol = "tcp", ports = 80, cidr = ["0.0.0.0/0", "::/0"] }, { protocol = "udp", ports = 80, cidr = ["0.0.0.0/0", "::/0"] }, { protocol = 47, cidr = ["0.0.0.0/0", "::/0"] }, { protocol = "icmp", type = 8, cidr = "0.0.0.0/0" }, { protocol = "icmpv6", type = 128, cidr = "::/0" }"#,
        "",
    ),
    (
        "near",
        r#"{ protocol = "all", cidr = ["203.0.113.0/24", "2001:db8:3::/48"] }"#,
        "",
    ),
    (
        "out",
        "",
        r#"{ protocol = "tcp", ports = 40000, cidr = ["198.51.100.0/24", "2001:db8:2::/48"] }, { protocol = "udp", ports = 40000, cidr = ["198.51.100.0/24", "2001:db8:2::/48"] }"#,
    ),
    ("nothing", "", ""),
];

fn definition(groups: &str) -> String {
    let mut text = String::new();
    for (name, ingress, egress) in RULES {
        for (prefix, on_revoke) in [("keep", "keep"), ("cut", "reevaluate")] {
            text += &format!(
                "[groups.{prefix}-{name}]\non_revoke = \"{on_revoke}\"\ningress = [{ingress}]\negress = [{egress}]\n"
            );
        }
    }
    text + &interface("web", groups, "")
}

fn now(group: &str) -> Step {
    Step::Apply(definition(&format!("[\"{group}\"]")))
}

pub(crate) fn world() -> World {
    // Changes take their time.
    let case = |name, steps| Case::new(name, "web", steps).only(Only::Brief);
    World {
        name: "revocation",
        definition: definition(r#"["cut-web"]"#),
        cases: vec![
            case("cut because the groups before said so", said_before),
            case("cut because the groups after say so", said_after),
            Case::new("cut by either side's packet", "web", either_side),
            case("cut after two changes in silence", silent),
            case("cut though it was said in between only", in_between),
            case("kept where nobody says so", nobody),
            case("kept by a rule that still allows it", still_allowed),
            case("kept by a rule of another group", other_group),
            case("cut by a narrower rule", narrower),
            case("cut though the other side may open", other_opener),
            case("a SYN on a flow that is cut", syn),
            case("a reset of a flow that is cut", reset),
            case("an error about a flow that is cut", error),
            case("open again when the rule is back", back),
        ],
    }
}

/// One flow of each protocol, from the peer.
fn openings(flow: Flow) -> Vec<Step> {
    let mut steps = handshake(flow);
    steps.extend([
        passes(Ingress, flow.udp(Ingress), New),
        passes(Ingress, flow.ask(Ingress), New),
        passes(Ingress, flow.other(Ingress, 47), New),
        Step::Tracked(4),
    ]);
    steps
}

/// Each of them is cut by a packet of a direction, and stays cut.
fn cuts(flow: Flow, direction: Direction) -> Vec<Step> {
    let echo = match direction {
        Ingress => flow.ask(direction),
        Egress => flow.answer(direction),
    };
    let tcp = flow.tcp(direction, ACK, 101, 501, 9);
    let mut steps = vec![
        drops(direction, tcp.clone(), Revoked),
        Step::Tracked(3),
        drops(direction, tcp, MidStream),
    ];
    for frame in [flow.udp(direction), echo, flow.other(direction, 47)] {
        steps.push(drops(direction, frame.clone(), Revoked));
        steps.push(drops(direction, frame, NoRule));
    }
    steps.push(Step::State(None));
    steps
}

fn said_before(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_000);
    let mut steps = openings(flow);
    steps.push(now("keep-nothing"));
    steps.extend(cuts(flow, Ingress));
    steps
}

fn said_after(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_000);
    // An unchanged policy first, so that nothing before this case says it.
    let mut steps = vec![now("keep-web"), now("keep-web")];
    steps.extend(openings(flow));
    steps.push(now("cut-nothing"));
    steps.extend(cuts(flow, Egress));
    steps
}

fn either_side(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    for (port, direction) in [(40_001, Ingress), (40_002, Egress)] {
        let flow = Flow::new(ip, 80, port);
        steps.extend(openings(flow));
        steps.push(now("cut-nothing"));
        steps.extend(cuts(flow, direction));
        steps.push(now("cut-web"));
    }
    steps
}

fn silent(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_003);
    let mut steps = openings(flow);
    steps.extend([
        now("keep-nothing"),
        now("keep-nothing"),
        now("keep-nothing"),
    ]);
    steps.extend(cuts(flow, Ingress));
    steps
}

fn in_between(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_004);
    let mut steps = vec![now("keep-web"), now("keep-web")];
    steps.extend(openings(flow));
    steps.extend([now("cut-nothing"), now("keep-nothing"), now("keep-nothing")]);
    steps.extend(cuts(flow, Egress));
    steps
}

fn nobody(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_005);
    let mut steps = vec![now("keep-web"), now("keep-web")];
    steps.extend(openings(flow));
    for group in ["keep-nothing", "keep-near", "keep-nothing"] {
        steps.extend([
            now(group),
            passes(Ingress, flow.tcp(Ingress, ACK, 101, 501, 9), Established),
            passes(Egress, flow.udp(Egress), Established),
            passes(Egress, flow.answer(Egress), Established),
            passes(Ingress, flow.other(Ingress, 47), Established),
        ]);
    }
    // It was judged, and found to stay, before anybody said it; what comes after counts again.
    steps.push(now("cut-nothing"));
    steps.extend(cuts(flow, Ingress));
    steps
}

fn still_allowed(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_006);
    let mut steps = openings(flow);
    for group in ["cut-web", "keep-web", "cut-web"] {
        steps.extend([
            now(group),
            passes(Ingress, flow.tcp(Ingress, ACK, 101, 501, 9), Established),
            passes(Egress, flow.udp(Egress), Established),
            passes(Egress, flow.answer(Egress), Established),
            passes(Egress, flow.other(Egress, 47), Established),
            Step::Tracked(4),
        ]);
    }
    steps
}

fn other_group(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_007);
    let mut steps = handshake(flow);
    steps.extend([
        Step::Apply(definition(r#"["cut-nothing", "keep-web"]"#)),
        passes(Egress, flow.tcp(Egress, ACK, 501, 101, 9), Established),
        // One group that says it is enough, whichever rule it was.
        Step::Apply(definition(r#"["cut-nothing", "keep-near"]"#)),
        drops(Egress, flow.tcp(Egress, ACK, 510, 101, 9), Revoked),
    ]);
    steps
}

fn narrower(ip: Ip) -> Vec<Step> {
    let (flow, friend) = (
        Flow::new(ip, 80, 40_008),
        Flow::new(ip, 80, 40_008).with(ip.stranger()),
    );
    let mut steps = handshake(flow);
    steps.extend([
        passes(Ingress, friend.udp(Ingress), New),
        now("cut-near"),
        drops(Ingress, flow.tcp(Ingress, ACK, 101, 501, 9), Revoked),
        passes(Ingress, friend.udp(Ingress), Established),
        Step::Tracked(1),
    ]);
    steps
}

/// What counts is whether the opener may still open it. A datagram of the other side opens a flow of
/// its own, if that is allowed.
fn other_opener(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_000);
    let mut steps = handshake(flow);
    steps.extend([
        passes(Ingress, flow.udp(Ingress), New),
        now("keep-out"),
        drops(Egress, flow.tcp(Egress, ACK, 501, 101, 9), Revoked),
        drops(Egress, flow.tcp(Egress, ACK, 501, 101, 9), MidStream),
        passes(Egress, flow.udp(Egress), New),
        state(State::UdpSingle),
        passes(Ingress, flow.udp(Ingress), Established),
    ]);
    steps
}

fn syn(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_000);
    let mut steps = handshake(flow);
    steps.extend([
        now("keep-out"),
        // Refused for itself, whatever stands; and then allowed, which finds nothing that lives.
        drops(Ingress, flow.tcp(Ingress, SYN, 900, 0, 0), NoRule),
        state(State::TcpEstablished),
        passes(Egress, flow.tcp(Egress, SYN, 900, 0, 0), New),
        state(State::TcpSynSent),
        drops(Ingress, flow.tcp(Ingress, SYN, 900, 0, 0), NoRule),
        passes(
            Ingress,
            flow.tcp(Ingress, SYN | ACK, 70, 901, 0),
            Established,
        ),
        state(State::TcpSynReceived),
    ]);
    steps
}

fn reset(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    for (port, flags) in [(40_009, RST), (40_010, FIN | ACK)] {
        let flow = Flow::new(ip, 80, port);
        steps.extend(handshake(flow));
        steps.extend([
            now("cut-nothing"),
            drops(Egress, flow.tcp(Egress, flags, 501, 101, 0), Revoked),
            Step::State(None),
            now("cut-web"),
        ]);
    }
    steps
}

/// Errors only look: what nobody has cut yet is alive.
fn error(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_011);
    let error = unreachable(ip.ends(Egress), &flow.udp(Ingress));
    vec![
        passes(Ingress, flow.udp(Ingress), New),
        now("cut-nothing"),
        passes(Egress, error.clone(), Related),
        drops(Ingress, flow.udp(Ingress), Revoked),
        drops(Egress, error, IcmpUnrelated),
    ]
}

fn back(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_012);
    let mut steps = handshake(flow);
    steps.extend([
        now("cut-nothing"),
        drops(Ingress, flow.tcp(Ingress, ACK, 101, 501, 9), Revoked),
        now("cut-web"),
        drops(Ingress, flow.tcp(Ingress, ACK, 101, 501, 9), MidStream),
    ]);
    steps.extend(handshake(flow));
    // Gone and back while nothing was sent: it lives on.
    steps.extend([
        now("cut-nothing"),
        now("cut-web"),
        passes(Ingress, flow.tcp(Ingress, ACK, 101, 501, 9), Established),
    ]);
    steps
}
