//! What idles out is gone at once, whoever sweeps.

use sg_common::{
    conntrack::{
        State,
        tcp::{ACK, FIN, PSH, RST, SYN},
    },
    verdict::{
        Direction::{Egress, Ingress},
        DropReason::{IcmpUnrelated, MidStream, NoRule},
        PassKind::{Established, New, Related},
    },
};

use super::tcp::{handshake, whole};
use crate::{
    flow::Flow,
    frame::{Ip, unreachable},
    table::{Case, Only, Step, World, drops, interface, passes, state},
};

const GROUPS: &str = r#"
[groups.server]
ingress = [ { protocol = "all", cidr = ["198.51.100.0/24", "2001:db8:2::/48"] } ]
egress = []
"#;

pub(crate) fn world() -> World {
    let short = "tcp_syn_sent = 1, tcp_syn_received = 1, tcp_last_ack = 1, tcp_time_wait = 1, tcp_close = 1, tcp_unacknowledged = 1, icmp = 1, other = 1";
    let brief = format!("timeouts = {{ {short} }}");
    let case = |name, steps| Case::new(name, "brief", steps).only(Only::Brief);
    World {
        name: "expiry",
        definition: GROUPS.to_owned() + &interface("brief", r#"["server"]"#, &brief),
        cases: vec![
            case("H6 a SYN that nobody answers", unanswered),
            case("H6 a handshake that nobody finishes", unfinished),
            case("a close that nobody acknowledges", unacknowledged),
            case("H10 time-wait", time_wait),
            case("H5 a connection that was reset", reset),
            case("H5 a connection in doubt", doubted),
            case("H5 a doubt that was laid to rest", restored),
            case("H12 established flows stay", stays),
            case("F2 G1 echo and other protocols", datagrams),
            case("G2 an error about a flow that is over", late_error),
        ],
    }
}

fn unanswered(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_000);
    vec![
        passes(Ingress, flow.tcp(Ingress, SYN, 100, 0, 0), New),
        Step::Second,
        drops(Egress, flow.tcp(Egress, SYN | ACK, 500, 101, 0), MidStream),
        Step::State(None),
        passes(Ingress, flow.tcp(Ingress, SYN, 100, 0, 0), New),
        Step::Second,
        // As new as the first time.
        passes(Ingress, flow.tcp(Ingress, SYN, 100, 0, 0), New),
        Step::Tracked(1),
    ]
}

fn unfinished(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_001);
    vec![
        passes(Ingress, flow.tcp(Ingress, SYN, 100, 0, 0), New),
        passes(
            Egress,
            flow.tcp(Egress, SYN | ACK, 500, 101, 0),
            Established,
        ),
        state(State::TcpSynReceived),
        Step::Second,
        drops(Ingress, flow.tcp(Ingress, ACK, 101, 501, 0), MidStream),
        Step::State(None),
    ]
}

fn unacknowledged(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_002);
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
        Step::Second,
        drops(Ingress, flow.tcp(Ingress, ACK, 102, 502, 0), MidStream),
        Step::State(None),
    ]);
    steps
}

fn time_wait(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_003);
    let mut steps = whole(flow);
    steps.extend([
        Step::Second,
        drops(Ingress, flow.tcp(Ingress, ACK, 102, 502, 0), MidStream),
        Step::State(None),
    ]);
    steps
}

fn reset(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_004);
    let mut steps = handshake(flow);
    steps.extend([
        passes(Egress, flow.tcp(Egress, RST, 501, 0, 0), Established),
        state(State::TcpClose),
        Step::Second,
        drops(Ingress, flow.tcp(Ingress, ACK, 101, 501, 5), MidStream),
    ]);
    steps
}

fn doubted(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_005);
    let mut steps = handshake(flow);
    steps.extend([
        passes(Egress, flow.tcp(Egress, RST, 999, 0, 0), Established),
        state(State::TcpEstablished),
        Step::Second,
        drops(Ingress, flow.tcp(Ingress, ACK, 101, 501, 5), MidStream),
    ]);
    steps
}

fn restored(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_006);
    let mut steps = handshake(flow);
    steps.extend([
        passes(Egress, flow.tcp(Egress, RST, 999, 0, 0), Established),
        passes(
            Ingress,
            flow.tcp(Ingress, PSH | ACK, 101, 501, 5),
            Established,
        ),
        Step::Second,
        passes(Egress, flow.tcp(Egress, ACK, 501, 106, 0), Established),
    ]);
    steps
}

fn stays(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_007);
    let mut steps = handshake(flow);
    steps.extend([
        passes(Ingress, flow.udp(Ingress), New),
        passes(
            Ingress,
            flow.tcp(Ingress, FIN | ACK, 101, 501, 0),
            Established,
        ),
        Step::Second,
        passes(Egress, flow.tcp(Egress, ACK, 501, 102, 50), Established),
        passes(Egress, flow.udp(Egress), Established),
        Step::Tracked(2),
    ]);
    steps
}

fn datagrams(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 12, 0);
    vec![
        passes(Ingress, flow.ask(Ingress), New),
        passes(Ingress, flow.other(Ingress, 47), New),
        Step::Second,
        drops(Egress, flow.answer(Egress), NoRule),
        drops(Egress, flow.other(Egress, 47), NoRule),
        Step::State(None),
        passes(Ingress, flow.ask(Ingress), New),
        passes(Egress, flow.answer(Egress), Established),
    ]
}

fn late_error(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 13, 0);
    let error = unreachable(ip.ends(Egress), &flow.ask(Ingress));
    vec![
        passes(Ingress, flow.ask(Ingress), New),
        passes(Egress, error.clone(), Related),
        Step::Second,
        drops(Egress, error, IcmpUnrelated),
    ]
}
