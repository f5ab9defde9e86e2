//! Flows that were untracked until a change, and are tracked from then on (fact 3.19).

use sg_common::{
    conntrack::{
        State,
        tcp::{ACK, FIN, PSH, RST, SYN},
    },
    verdict::{
        Direction::{Egress, Ingress},
        DropReason::{FragmentOrphan, MidStream, NoRule},
        PassKind::{Established, Fragment, New, TakenOver, Untracked},
    },
};

use crate::{
    flow::Flow,
    frame::{self, Ip, fragment, fresh_id},
    table::{Case, Only, Step, World, drops, interface, passes, state},
};

const GROUPS: &str = r#"
[groups.open]
ingress = [ { protocol = "all", cidr = ["0.0.0.0/0", "::/0"] } ]
egress = [ { protocol = "all", cidr = ["0.0.0.0/0", "::/0"] } ]

[groups.web]
ingress = [ { protocol = "tcp", ports = 80, cidr = ["0.0.0.0/0", "::/0"] }, { protocol = "udp", ports = 80, cidr = ["0.0.0.0/0", "::/0"] } ]
egress = []

[groups.client]
ingress = []
egress = [ { protocol = "tcp", ports = 443, cidr = ["198.51.100.0/24", "2001:db8:2::/48"] }, { protocol = "udp", ports = 443, cidr = ["198.51.100.0/24", "2001:db8:2::/48"] } ]

[groups.half]
ingress = [ { protocol = "tcp", ports = 80, cidr = ["0.0.0.0/0", "::/0"] } ]
egress = [ { protocol = "all", cidr = ["0.0.0.0/0", "::/0"] } ]

[groups.office]
ingress = [ { protocol = "tcp", ports = 80, cidr = ["192.0.2.0/24", "2001:db8:4::/48"] } ]
egress = [ { protocol = "all", cidr = ["0.0.0.0/0", "::/0"] } ]

[groups.nothing]
ingress = []
egress = []
"#;

fn definition(group: &str) -> String {
    GROUPS.to_owned() + &interface("web", &format!("[\"{group}\"]"), "")
}

fn now(group: &str) -> Step {
    Step::Apply(definition(group))
}

pub(crate) fn world() -> World {
    // Changes take their time.
    let case = |name, steps| Case::new(name, "web", steps).only(Only::Brief);
    World {
        name: "hand-over",
        definition: definition("open"),
        cases: vec![
            Case::new("H2 taken over by the opener's segment", "web", by_opener),
            Case::new("H2 taken over by the other side's segment", "web", by_other),
            case("H2 taken over where the workload opened", outward),
            case("datagrams taken over", datagrams),
            case("H2 taken over in every part of a connection", parts),
            case("H2 no SYN and no reset is taken over", not_these),
            case("H2 nothing is that is not allowed either way", not_allowed),
            case("H2 what one policy left untracked by its port", by_port),
            case("H2 only from the generation before", too_late),
            case("H2 not by the leave of the side that did not open", revoked),
            case("H2 one side alone is not both", one_sided),
            case("H2 an entry that was taken over lives on", lives_on),
            case("fragments of what is taken over", fragments),
        ],
    }
}

/// A connection of the peer's that leaves no entry.
fn untracked(flow: Flow) -> Vec<Step> {
    vec![
        passes(Ingress, flow.tcp(Ingress, SYN, 100, 0, 0), Untracked),
        passes(Egress, flow.tcp(Egress, SYN | ACK, 500, 101, 0), Untracked),
        passes(Ingress, flow.tcp(Ingress, ACK, 101, 501, 0), Untracked),
        Step::State(None),
    ]
}

/// Fact 3.13: what the peer could open, and may no longer, stops, though the workload may open whatever
/// it likes.
fn revoked(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_020);
    vec![
        now("half"),
        passes(Ingress, flow.tcp(Ingress, SYN, 100, 0, 0), Untracked),
        passes(Egress, flow.tcp(Egress, SYN | ACK, 500, 101, 0), Untracked),
        now("office"),
        drops(Ingress, flow.tcp(Ingress, ACK, 101, 501, 0), MidStream),
        drops(Egress, flow.tcp(Egress, ACK, 501, 101, 9), MidStream),
        Step::State(None),
    ]
}

fn one_sided(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_021);
    vec![
        now("open"),
        now("web"),
        passes(Egress, flow.tcp(Egress, ACK, 501, 101, 9), TakenOver),
        passes(Egress, flow.tcp(Egress, ACK, 510, 101, 9), Established),
        passes(Egress, flow.tcp(Egress, ACK, 519, 101, 9), Established),
        Step::Unassured(1),
        passes(Ingress, flow.tcp(Ingress, ACK, 101, 528, 0), Established),
        Step::Unassured(0),
    ]
}

fn by_opener(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_000);
    let mut steps = untracked(flow);
    steps.extend([
        now("web"),
        passes(
            Ingress,
            flow.tcp(Ingress, PSH | ACK, 101, 501, 9),
            TakenOver,
        ),
        state(State::TcpEstablished),
        Step::Unassured(1),
        passes(Egress, flow.tcp(Egress, ACK, 501, 110, 9), Established),
        Step::Unassured(0),
        // It ends like any other.
        passes(
            Ingress,
            flow.tcp(Ingress, FIN | ACK, 110, 510, 0),
            Established,
        ),
        passes(
            Egress,
            flow.tcp(Egress, FIN | ACK, 510, 111, 0),
            Established,
        ),
        state(State::TcpLastAck),
        passes(Ingress, flow.tcp(Ingress, ACK, 111, 511, 0), Established),
        state(State::TcpTimeWait),
    ]);
    steps
}

fn by_other(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_001);
    let mut steps = untracked(flow);
    steps.extend([
        now("web"),
        passes(Egress, flow.tcp(Egress, ACK, 501, 101, 900), TakenOver),
        state(State::TcpEstablished),
        passes(Ingress, flow.tcp(Ingress, ACK, 101, 1401, 0), Established),
        passes(Egress, flow.tcp(Egress, ACK, 1401, 101, 9), Established),
        Step::Unassured(0),
        Step::Tracked(1),
    ]);
    steps
}

fn outward(ip: Ip) -> Vec<Step> {
    let (asked, answered) = (Flow::new(ip, 50_000, 443), Flow::new(ip, 50_001, 443));
    vec![
        passes(Egress, asked.tcp(Egress, SYN, 100, 0, 0), Untracked),
        now("client"),
        passes(Egress, asked.tcp(Egress, ACK, 101, 501, 5), TakenOver),
        passes(Ingress, asked.tcp(Ingress, ACK, 501, 106, 5), Established),
        passes(Ingress, answered.tcp(Ingress, ACK, 501, 106, 5), TakenOver),
        passes(Egress, answered.tcp(Egress, ACK, 106, 506, 5), Established),
        // Both sides have been heard since they were made.
        Step::Tracked(2),
        Step::Unassured(0),
        // Opened by the side that may, so that a SYN of the other is still refused.
        drops(Ingress, answered.tcp(Ingress, SYN, 900, 0, 0), NoRule),
    ]
}

fn datagrams(ip: Ip) -> Vec<Step> {
    let (asked, answered) = (Flow::new(ip, 80, 40_002), Flow::new(ip, 80, 40_003));
    vec![
        passes(Ingress, asked.udp(Ingress), Untracked),
        now("web"),
        // What a rule allows needs no taking over.
        passes(Ingress, asked.udp(Ingress), New),
        passes(Egress, answered.udp(Egress), TakenOver),
        passes(Ingress, answered.udp(Ingress), Established),
        Step::Tracked(2),
        Step::Unassured(2),
        passes(Egress, answered.udp(Egress), Established),
        passes(Ingress, answered.udp(Ingress), Established),
        Step::Unassured(1),
    ]
}

fn parts(ip: Ip) -> Vec<Step> {
    let mut steps = vec![now("web")];
    // An answer whose question was untracked, an acknowledgement, data, an end.
    for (port, flags) in [
        (40_004, SYN | ACK),
        (40_005, ACK),
        (40_006, PSH | ACK),
        (40_007, FIN | ACK),
    ] {
        let flow = Flow::new(ip, 80, port);
        let frame = flow.tcp(Egress, flags, 500, 101, 0);
        steps.push(passes(Egress, frame, TakenOver));
    }
    steps.push(Step::Tracked(4));
    steps
}

fn not_these(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_008);
    let mut steps = untracked(flow);
    steps.extend([
        now("web"),
        drops(Egress, flow.tcp(Egress, SYN, 500, 0, 0), NoRule),
        drops(Egress, flow.tcp(Egress, RST, 501, 0, 0), MidStream),
        drops(Egress, flow.tcp(Egress, RST | ACK, 501, 101, 0), MidStream),
        drops(Ingress, flow.tcp(Ingress, RST, 101, 0, 0), MidStream),
        drops(
            Ingress,
            flow.tcp(Ingress, RST | ACK, 101, 501, 0),
            MidStream,
        ),
        // Tracked before as after.
        drops(Egress, flow.ask(Egress), NoRule),
        drops(Egress, flow.answer(Egress), NoRule),
        drops(Egress, flow.other(Egress, 47), NoRule),
        Step::State(None),
    ]);
    steps
}

fn not_allowed(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 81, 40_009);
    let swapped = Flow::new(ip, 40_009, 80);
    let mut steps = untracked(flow);
    steps.push(now("web"));
    for flow in [flow, swapped] {
        for direction in [Ingress, Egress] {
            steps.push(drops(
                direction,
                flow.tcp(direction, ACK, 1, 1, 9),
                MidStream,
            ));
            steps.push(drops(direction, flow.udp(direction), NoRule));
        }
    }
    steps.push(Step::State(None));
    steps
}

fn by_port(ip: Ip) -> Vec<Step> {
    let (web, other) = (Flow::new(ip, 80, 40_010), Flow::new(ip, 50_002, 443));
    vec![
        now("half"),
        passes(Ingress, web.tcp(Ingress, SYN, 100, 0, 0), Untracked),
        passes(Egress, other.tcp(Egress, SYN, 100, 0, 0), New),
        now("web"),
        passes(Egress, web.tcp(Egress, SYN | ACK, 500, 101, 0), TakenOver),
        // It has its entry, and needs no other; another like it was never untracked.
        passes(
            Ingress,
            other.tcp(Ingress, SYN | ACK, 500, 101, 0),
            Established,
        ),
        drops(
            Ingress,
            Flow::new(ip, 50_003, 443).tcp(Ingress, ACK, 500, 101, 0),
            MidStream,
        ),
        Step::Tracked(2),
    ]
}

fn too_late(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_011);
    let mut steps = untracked(flow);
    steps.extend([
        now("nothing"),
        drops(Ingress, flow.tcp(Ingress, ACK, 101, 501, 9), MidStream),
        now("web"),
        drops(Ingress, flow.tcp(Ingress, ACK, 101, 501, 9), MidStream),
        drops(Egress, flow.tcp(Egress, ACK, 501, 101, 9), MidStream),
        drops(Egress, flow.udp(Egress), NoRule),
        Step::State(None),
    ]);
    steps
}

fn lives_on(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_012);
    let mut steps = untracked(flow);
    steps.extend([
        now("web"),
        passes(Egress, flow.tcp(Egress, ACK, 501, 101, 9), TakenOver),
        now("nothing"),
        passes(Ingress, flow.tcp(Ingress, ACK, 101, 510, 9), Established),
        passes(Egress, flow.tcp(Egress, ACK, 510, 110, 9), Established),
        Step::Unassured(0),
        now("open"),
        passes(Ingress, flow.tcp(Ingress, ACK, 110, 519, 9), Untracked),
        Step::State(None),
        now("web"),
        passes(Ingress, flow.tcp(Ingress, ACK, 110, 519, 9), TakenOver),
    ]);
    steps
}

fn fragments(ip: Ip) -> Vec<Step> {
    let (flow, id) = (Flow::new(ip, 80, 40_013), fresh_id());
    let ends = flow.ends(Egress);
    let first = frame::datagram(flow.ports(Egress), 16);
    let later = || fragment(ends, 17, id, 24, false, &[0; 16]);
    vec![
        now("web"),
        drops(Egress, later(), FragmentOrphan),
        passes(Egress, fragment(ends, 17, id, 0, true, &first), TakenOver),
        passes(Egress, later(), Fragment),
    ]
}
