//! Another generation under flows that live.

use sg_common::{
    conntrack::{
        State,
        tcp::{ACK, PSH, SYN},
    },
    verdict::{
        Direction::{Egress, Ingress},
        DropReason::{FragmentOrphan, InterfaceUnknown, MidStream, NoRule},
        PassKind::{Established, Fragment, New, Unconfirmed, Untracked},
    },
};

use super::tcp::handshake;
use crate::{
    flow::Flow,
    frame::{Ip, fragment, fresh_id},
    table::{Case, Only, Step, World, drops, interface, passes, state},
};

/// Groups that an interface moves between.
const GROUPS: &str = r#"
[groups.web]
ingress = [ { protocol = "tcp", ports = 80, cidr = ["0.0.0.0/0", "::/0"] },
            { protocol = "udp", ports = 80, cidr = ["0.0.0.0/0", "::/0"] },
            { protocol = "icmp", type = -1, cidr = "0.0.0.0/0" }, { protocol = "icmpv6", cidr = "::/0" } ]
egress = []

[groups.open]
ingress = [ { protocol = "all", cidr = ["0.0.0.0/0", "::/0"] } ]
egress = [ { protocol = "all", cidr = ["0.0.0.0/0", "::/0"] } ]

[groups.nothing]
ingress = []
egress = []
"#;

fn definition(groups: &str) -> String {
    GROUPS.to_owned() + &interface("web", groups, "")
}

fn now(group: &str) -> Step {
    Step::Apply(definition(&format!("[\"{group}\"]")))
}

pub(crate) fn world() -> World {
    World {
        name: "changes",
        definition: definition(r#"["web"]"#),
        cases: vec![
            Case::new("tracked flows survive their rule", "web", survives),
            Case::new("half a handshake survives its rule", "web", half_open).only(Only::Brief),
            Case::new(
                "untracked flows stop with their rule",
                "web",
                untracked_stops,
            ),
            Case::new("an entry goes when it is not needed", "web", needless).only(Only::Brief),
            Case::new("D9 fragments of before", "web", fragments).only(Only::Brief),
            Case::new("an interface that is gone", "web", gone).only(Only::Brief),
            Case::new("a first policy that was taken back", "web", taken_back),
        ],
    }
}

fn survives(ip: Ip) -> Vec<Step> {
    let (flow, next) = (Flow::new(ip, 80, 40_000), Flow::new(ip, 80, 40_001));
    let mut steps = handshake(flow);
    steps.extend([
        passes(Ingress, flow.udp(Ingress), New),
        passes(Ingress, flow.ask(Ingress), New),
        now("nothing"),
        passes(
            Ingress,
            flow.tcp(Ingress, PSH | ACK, 101, 501, 9),
            Established,
        ),
        passes(Egress, flow.tcp(Egress, ACK, 501, 110, 9), Established),
        passes(Egress, flow.udp(Egress), Established),
        passes(Egress, flow.answer(Egress), Established),
        passes(Ingress, flow.ask(Ingress), Established),
        Step::Tracked(3),
        drops(Ingress, next.tcp(Ingress, SYN, 1, 0, 0), NoRule),
        drops(Ingress, next.udp(Ingress), NoRule),
        // A SYN is judged by the rules of now, even on a live flow.
        drops(Ingress, flow.tcp(Ingress, SYN, 1, 0, 0), NoRule),
        now("nothing"),
        passes(
            Ingress,
            flow.tcp(Ingress, PSH | ACK, 110, 510, 9),
            Established,
        ),
        now("web"),
        passes(
            Ingress,
            flow.tcp(Ingress, PSH | ACK, 119, 510, 9),
            Established,
        ),
        passes(Ingress, next.tcp(Ingress, SYN, 1, 0, 0), New),
        Step::Tracked(4),
    ]);
    steps
}

fn half_open(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_002);
    vec![
        passes(Ingress, flow.tcp(Ingress, SYN, 100, 0, 0), New),
        now("nothing"),
        passes(
            Egress,
            flow.tcp(Egress, SYN | ACK, 500, 101, 0),
            Established,
        ),
        passes(Ingress, flow.tcp(Ingress, ACK, 101, 501, 0), Established),
        state(State::TcpEstablished),
    ]
}

fn untracked_stops(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_003);
    vec![
        now("open"),
        passes(Ingress, flow.tcp(Ingress, SYN, 100, 0, 0), Untracked),
        passes(Egress, flow.tcp(Egress, SYN | ACK, 500, 101, 0), Untracked),
        passes(Ingress, flow.udp(Ingress), Untracked),
        now("nothing"),
        drops(Ingress, flow.tcp(Ingress, ACK, 101, 501, 0), MidStream),
        drops(Egress, flow.tcp(Egress, ACK, 501, 101, 0), MidStream),
        drops(Ingress, flow.udp(Ingress), NoRule),
        drops(Egress, flow.udp(Egress), NoRule),
        Step::State(None),
    ]
}

fn needless(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_004);
    let mut steps = handshake(flow);
    steps.extend([
        passes(Ingress, flow.udp(Ingress), New),
        Step::Tracked(2),
        now("open"),
        passes(
            Ingress,
            flow.tcp(Ingress, PSH | ACK, 101, 501, 9),
            Untracked,
        ),
        Step::Tracked(1),
        passes(Egress, flow.udp(Egress), Untracked),
        Step::State(None),
    ]);
    steps
}

fn fragments(ip: Ip) -> Vec<Step> {
    let id = fresh_id();
    let flow = Flow::new(ip, 80, 40_005);
    let ends = flow.ends(Ingress);
    let first = crate::frame::datagram(flow.ports(Ingress), 16);
    vec![
        drops(
            Ingress,
            fragment(ends, 17, id, 24, false, &[0; 8]),
            FragmentOrphan,
        ),
        passes(Ingress, fragment(ends, 17, id, 0, true, &first), New),
        now("nothing"),
        // The rest of what was allowed.
        passes(
            Ingress,
            fragment(ends, 17, id, 24, false, &[0; 8]),
            Fragment,
        ),
        // The first one of a tracked flow again, and one of no flow.
        passes(
            Ingress,
            fragment(ends, 17, id, 0, true, &first),
            Established,
        ),
        drops(
            Ingress,
            fragment(ends, 17, fresh_id(), 24, false, &[0; 8]),
            FragmentOrphan,
        ),
        Step::Tracked(1),
    ]
}

fn gone(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_006);
    vec![
        passes(Ingress, flow.udp(Ingress), New),
        Step::Apply(GROUPS.to_owned() + "[interfaces.a]\ngroups = []\norientation = \"own\"\n"),
        drops(Ingress, flow.udp(Ingress), InterfaceUnknown),
        drops(Egress, flow.udp(Egress), InterfaceUnknown),
        // What belonged to it is nobody's.
        Step::Tracked(0),
    ]
}

fn taken_back(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 81, 40_007);
    vec![
        drops(Ingress, flow.udp(Ingress), NoRule),
        Step::Unconfirmed,
        passes(Ingress, flow.udp(Ingress), Unconfirmed),
        passes(Egress, flow.udp(Egress), Unconfirmed),
        passes(Ingress, flow.tcp(Ingress, ACK, 101, 501, 9), Unconfirmed),
        passes(Egress, flow.tcp(Egress, SYN, 500, 0, 0), Unconfirmed),
        Step::Tracked(0),
    ]
}
