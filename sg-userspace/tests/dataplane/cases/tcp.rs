//! TCP from the first SYN to the last ACK, and what is not a connection.

use sg_common::{
    conntrack::{
        State,
        tcp::{ACK, FIN, PSH, RST, SYN},
    },
    verdict::{
        Direction::{Egress, Ingress},
        DropReason::{MidStream, NoRule},
        PassKind::{Established, New},
    },
};

use crate::{
    flow::Flow,
    frame::Ip,
    table::{Case, Step, World, drops, interface, passes, state},
};

pub(crate) const GROUPS: &str = r#"
[groups.server]
ingress = [ { protocol = "tcp", ports = 80, cidr = ["0.0.0.0/0", "::/0"] } ]
egress = []

[groups.client]
ingress = []
egress = [ { protocol = "tcp", ports = 443, cidr = ["0.0.0.0/0", "::/0"] } ]
"#;

pub(crate) fn world() -> World {
    let interfaces = interface("server", r#"["server"]"#, "")
        + &interface("client", r#"["client"]"#, "")
        + &interface("loose", r#"["server"]"#, "tcp_loose = true")
        + &interface("deaf", "[]", "");
    World {
        name: "tcp",
        definition: GROUPS.to_owned() + &interfaces,
        cases: vec![
            Case::new("H1 a life served", "server", life_served),
            Case::new("H1 a life asked for", "client", life_asked),
            Case::new("both close at once", "server", both_close),
            Case::new("H12 closed for one side only", "server", half_closed),
            Case::new("H9 H10 a SYN in time-wait opens anew", "server", reuse),
            Case::new("H7 a SYN sent again", "server", syn_again),
            Case::new("H9 H11 a SYN on a live flow", "server", syn_on_live),
            Case::new("H5 a forged FIN is taken back", "server", forged_fin),
            Case::new("H7 a blind ACK completes nothing", "server", blind),
            Case::new("H15 data on the SYN", "server", fast_open),
            Case::new("J1 J7 flows are their interface's own", "server", elsewhere),
            Case::new("H2 H4 no flow, no segment", "server", mid_stream),
            Case::new("I5 no rule, no flow", "server", no_rule),
            Case::new("nothing for no groups", "deaf", deaf),
            Case::new("J2 another port is another flow", "client", other_ports),
            Case::new("H2 loose", "loose", loose),
        ],
    }
}

/// SYN, SYN+ACK, ACK with a server behind the interface: 100 and 500 are the sequence numbers.
pub(crate) fn handshake(flow: Flow) -> Vec<Step> {
    vec![
        passes(Ingress, flow.tcp(Ingress, SYN, 100, 0, 0), New),
        passes(
            Egress,
            flow.tcp(Egress, SYN | ACK, 500, 101, 0),
            Established,
        ),
        passes(Ingress, flow.tcp(Ingress, ACK, 101, 501, 0), Established),
        state(State::TcpEstablished),
    ]
}

/// From the handshake to time-wait, closed by the peer first.
pub(crate) fn whole(flow: Flow) -> Vec<Step> {
    let mut steps = handshake(flow);
    steps.extend([
        passes(
            Ingress,
            flow.tcp(Ingress, FIN | ACK, 101, 501, 0),
            Established,
        ),
        passes(
            Egress,
            flow.tcp(Egress, FIN | ACK, 501, 102, 0),
            Established,
        ),
        state(State::TcpLastAck),
        passes(Ingress, flow.tcp(Ingress, ACK, 102, 502, 0), Established),
        state(State::TcpTimeWait),
    ]);
    steps
}

fn life_served(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_000);
    vec![
        Step::State(None),
        passes(Ingress, flow.tcp(Ingress, SYN, 100, 0, 0), New),
        state(State::TcpSynSent),
        Step::Unassured(1),
        passes(
            Egress,
            flow.tcp(Egress, SYN | ACK, 500, 101, 0),
            Established,
        ),
        state(State::TcpSynReceived),
        Step::Unassured(1),
        passes(Ingress, flow.tcp(Ingress, ACK, 101, 501, 0), Established),
        state(State::TcpEstablished),
        Step::Unassured(0),
        passes(
            Ingress,
            flow.tcp(Ingress, PSH | ACK, 101, 501, 10),
            Established,
        ),
        passes(Egress, flow.tcp(Egress, ACK, 501, 111, 1000), Established),
        passes(
            Ingress,
            flow.tcp(Ingress, FIN | ACK, 111, 1501, 0),
            Established,
        ),
        state(State::TcpEstablished),
        passes(Egress, flow.tcp(Egress, ACK, 1501, 112, 7), Established),
        passes(Ingress, flow.tcp(Ingress, ACK, 112, 1508, 0), Established),
        passes(
            Egress,
            flow.tcp(Egress, FIN | ACK, 1508, 112, 0),
            Established,
        ),
        state(State::TcpLastAck),
        passes(Ingress, flow.tcp(Ingress, ACK, 112, 1509, 0), Established),
        state(State::TcpTimeWait),
        passes(Ingress, flow.tcp(Ingress, ACK, 112, 1509, 0), Established),
        state(State::TcpTimeWait),
    ]
}

fn life_asked(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 50_000, 443);
    vec![
        drops(Ingress, flow.tcp(Ingress, SYN, 500, 0, 0), NoRule),
        passes(Egress, flow.tcp(Egress, SYN, 100, 0, 0), New),
        state(State::TcpSynSent),
        passes(
            Ingress,
            flow.tcp(Ingress, SYN | ACK, 500, 101, 0),
            Established,
        ),
        passes(Egress, flow.tcp(Egress, ACK, 101, 501, 0), Established),
        state(State::TcpEstablished),
        passes(Egress, flow.tcp(Egress, ACK, 101, 501, 5), Established),
        passes(Ingress, flow.tcp(Ingress, ACK, 501, 106, 5), Established),
        passes(
            Egress,
            flow.tcp(Egress, FIN | ACK, 106, 506, 0),
            Established,
        ),
        passes(
            Ingress,
            flow.tcp(Ingress, FIN | ACK, 506, 107, 0),
            Established,
        ),
        state(State::TcpLastAck),
        passes(Egress, flow.tcp(Egress, ACK, 107, 507, 0), Established),
        state(State::TcpTimeWait),
        Step::Unassured(0),
        Step::Tracked(1),
    ]
}

fn both_close(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_001);
    let mut steps = handshake(flow);
    steps.extend([
        passes(
            Ingress,
            flow.tcp(Ingress, FIN | ACK, 101, 501, 0),
            Established,
        ),
        passes(
            Egress,
            flow.tcp(Egress, FIN | ACK, 501, 101, 0),
            Established,
        ),
        state(State::TcpLastAck),
        passes(Ingress, flow.tcp(Ingress, ACK, 102, 502, 0), Established),
        state(State::TcpLastAck),
        passes(Egress, flow.tcp(Egress, ACK, 502, 102, 0), Established),
        state(State::TcpTimeWait),
    ]);
    steps
}

fn half_closed(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_002);
    let mut steps = handshake(flow);
    steps.extend([
        passes(
            Egress,
            flow.tcp(Egress, FIN | ACK, 501, 101, 0),
            Established,
        ),
        passes(Ingress, flow.tcp(Ingress, ACK, 101, 502, 0), Established),
        passes(Ingress, flow.tcp(Ingress, ACK, 101, 502, 900), Established),
        passes(Egress, flow.tcp(Egress, ACK, 502, 1001, 0), Established),
        state(State::TcpEstablished),
    ]);
    steps
}

fn reuse(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_003);
    let mut steps = whole(flow);
    steps.extend([
        // Not by the side that no rule lets open.
        drops(Egress, flow.tcp(Egress, SYN, 9000, 0, 0), NoRule),
        state(State::TcpTimeWait),
        passes(Ingress, flow.tcp(Ingress, SYN, 7000, 0, 0), New),
        state(State::TcpSynSent),
        passes(
            Egress,
            flow.tcp(Egress, SYN | ACK, 9000, 7001, 0),
            Established,
        ),
        passes(Ingress, flow.tcp(Ingress, ACK, 7001, 9001, 0), Established),
        state(State::TcpEstablished),
        Step::Unassured(0),
    ]);
    steps
}

fn syn_again(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_007);
    vec![
        passes(Ingress, flow.tcp(Ingress, SYN, 100, 0, 0), New),
        passes(Ingress, flow.tcp(Ingress, SYN, 100, 0, 0), Established),
        passes(Ingress, flow.tcp(Ingress, SYN, 200, 0, 0), Established),
        state(State::TcpSynSent),
        passes(
            Egress,
            flow.tcp(Egress, SYN | ACK, 500, 101, 0),
            Established,
        ),
        state(State::TcpSynSent),
        passes(
            Egress,
            flow.tcp(Egress, SYN | ACK, 500, 201, 0),
            Established,
        ),
        state(State::TcpSynReceived),
        Step::Tracked(1),
    ]
}

fn syn_on_live(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_008);
    let mut steps = handshake(flow);
    steps.extend([
        drops(Egress, flow.tcp(Egress, SYN, 500, 0, 0), NoRule),
        state(State::TcpEstablished),
        passes(Ingress, flow.tcp(Ingress, SYN, 4000, 0, 0), Established),
        Step::Tracked(1),
        passes(Egress, flow.tcp(Egress, ACK, 501, 101, 5), Established),
        state(State::TcpEstablished),
    ]);
    steps
}

fn forged_fin(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_009);
    let mut steps = handshake(flow);
    steps.extend([
        passes(Egress, flow.tcp(Egress, ACK, 501, 101, 0), Established),
        passes(
            Ingress,
            flow.tcp(Ingress, FIN | ACK, 150, 501, 0),
            Established,
        ),
        passes(Ingress, flow.tcp(Ingress, ACK, 101, 501, 900), Established),
        passes(
            Egress,
            flow.tcp(Egress, FIN | ACK, 501, 1001, 0),
            Established,
        ),
        // The peer has not closed.
        state(State::TcpEstablished),
    ]);
    steps
}

fn blind(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_014);
    vec![
        passes(Ingress, flow.tcp(Ingress, SYN, 100, 0, 0), New),
        passes(
            Egress,
            flow.tcp(Egress, SYN | ACK, 1_000_000, 101, 0),
            Established,
        ),
        state(State::TcpSynReceived),
        passes(Ingress, flow.tcp(Ingress, ACK, 101, 5, 0), Established),
        state(State::TcpSynReceived),
        Step::Unassured(1),
        // The latest answer counts (RFC 4987 §3.6).
        passes(
            Egress,
            flow.tcp(Egress, SYN | ACK, 2_000_000, 101, 0),
            Established,
        ),
        passes(
            Ingress,
            flow.tcp(Ingress, ACK, 101, 1_000_001, 0),
            Established,
        ),
        state(State::TcpSynReceived),
        passes(
            Ingress,
            flow.tcp(Ingress, ACK, 101, 2_000_001, 0),
            Established,
        ),
        state(State::TcpEstablished),
        Step::Unassured(0),
    ]
}

fn fast_open(ip: Ip) -> Vec<Step> {
    let (taken, left) = (Flow::new(ip, 80, 40_015), Flow::new(ip, 80, 40_016));
    let mut steps = Vec::new();
    for (flow, acknowledged) in [(taken, 111), (left, 101)] {
        steps.extend([
            passes(Ingress, flow.tcp(Ingress, SYN, 100, 0, 10), New),
            passes(
                Egress,
                flow.tcp(Egress, SYN | ACK, 500, acknowledged, 0),
                Established,
            ),
            passes(Ingress, flow.tcp(Ingress, ACK, 111, 501, 0), Established),
        ]);
    }
    steps.push(Step::Unassured(0));
    steps.push(Step::Tracked(2));
    steps
}

/// What stands on one interface says nothing about another (semantics 11).
fn elsewhere(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_017);
    let mut steps = handshake(flow);
    steps.extend([
        Step::On("client"),
        drops(Ingress, flow.tcp(Ingress, ACK, 101, 501, 5), MidStream),
        drops(Egress, flow.tcp(Egress, ACK, 501, 101, 5), MidStream),
        drops(Ingress, flow.tcp(Ingress, SYN, 100, 0, 0), NoRule),
        Step::Tracked(0),
        Step::On("server"),
        passes(Egress, flow.tcp(Egress, ACK, 501, 101, 5), Established),
    ]);
    steps
}

fn mid_stream(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_010);
    let mut steps = Vec::new();
    for flags in [ACK, PSH | ACK, SYN | ACK, FIN | ACK, RST, RST | ACK] {
        for direction in [Ingress, Egress] {
            steps.push(drops(
                direction,
                flow.tcp(direction, flags, 1, 1, 0),
                MidStream,
            ));
        }
    }
    steps.push(Step::State(None));
    steps
}

fn no_rule(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 81, 40_011);
    vec![
        drops(Ingress, flow.tcp(Ingress, SYN, 100, 0, 0), NoRule),
        drops(Egress, flow.tcp(Egress, SYN, 100, 0, 0), NoRule),
        // The rule is about where a packet goes to, not where it comes from.
        drops(
            Ingress,
            Flow::new(ip, 40_011, 80).tcp(Ingress, SYN, 100, 0, 0),
            NoRule,
        ),
        Step::State(None),
    ]
}

fn deaf(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_012);
    let mut steps = Vec::new();
    for direction in [Ingress, Egress] {
        steps.extend([
            drops(direction, flow.tcp(direction, SYN, 1, 0, 0), NoRule),
            drops(direction, flow.tcp(direction, ACK, 1, 1, 9), MidStream),
            drops(direction, flow.udp(direction), NoRule),
            drops(direction, flow.ask(direction), NoRule),
            drops(direction, flow.answer(direction), NoRule),
            drops(direction, flow.other(direction, 47), NoRule),
        ]);
    }
    steps.push(Step::Tracked(0));
    steps
}

fn other_ports(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 50_001, 443);
    let other = Flow::new(ip, 50_002, 443);
    let stranger = flow.with(ip.stranger());
    vec![
        passes(Egress, flow.tcp(Egress, SYN, 100, 0, 0), New),
        drops(
            Ingress,
            other.tcp(Ingress, SYN | ACK, 500, 101, 0),
            MidStream,
        ),
        drops(
            Ingress,
            stranger.tcp(Ingress, SYN | ACK, 500, 101, 0),
            MidStream,
        ),
        // The same ports the other way round are another flow.
        drops(
            Ingress,
            Flow::new(ip, 443, 50_001).tcp(Ingress, SYN | ACK, 500, 101, 0),
            MidStream,
        ),
        state(State::TcpSynSent),
        passes(Egress, other.tcp(Egress, SYN, 100, 0, 0), New),
        passes(Egress, stranger.tcp(Egress, SYN, 100, 0, 0), New),
        Step::Tracked(3),
        Step::Unassured(3),
    ]
}

fn loose(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_013);
    let refused = Flow::new(ip, 81, 40_013);
    vec![
        drops(Ingress, refused.tcp(Ingress, ACK, 1000, 2000, 1), NoRule),
        drops(
            Ingress,
            flow.tcp(Ingress, FIN | ACK, 1000, 2000, 0),
            MidStream,
        ),
        drops(Ingress, flow.tcp(Ingress, RST, 1000, 0, 0), MidStream),
        drops(Ingress, flow.tcp(Ingress, SYN | ACK, 1000, 0, 0), MidStream),
        drops(Egress, flow.tcp(Egress, ACK, 2000, 1000, 0), NoRule),
        passes(Ingress, flow.tcp(Ingress, ACK, 1000, 2000, 1), New),
        state(State::TcpEstablished),
        Step::Unassured(1),
        passes(Egress, flow.tcp(Egress, ACK, 2000, 1001, 1), Established),
        Step::Unassured(0),
    ]
}
