//! TCP connections that are reset, or are meant to be.

use sg_common::{
    conntrack::{
        State,
        tcp::{ACK, RST, SYN},
    },
    verdict::{
        Direction::{Egress, Ingress},
        PassKind::{Established, New},
    },
};

use super::tcp::{GROUPS, handshake};
use crate::{
    flow::Flow,
    frame::Ip,
    table::{Case, Step, World, interface, passes, state},
};

pub(crate) fn world() -> World {
    World {
        name: "resets",
        definition: GROUPS.to_owned() + &interface("server", r#"["server"]"#, ""),
        cases: vec![
            Case::new("H5 a reset that is exact closes", "server", exact_reset),
            Case::new(
                "H5 a reset that is not changes nothing",
                "server",
                inexact_reset,
            ),
            Case::new("H5 a reset refuses a SYN", "server", refusal),
        ],
    }
}

fn exact_reset(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_004);
    let mut steps = handshake(flow);
    steps.extend([
        passes(Egress, flow.tcp(Egress, ACK, 501, 101, 0), Established),
        // Exactly what the workload acknowledged last.
        passes(Ingress, flow.tcp(Ingress, RST, 101, 0, 0), Established),
        state(State::TcpClose),
        passes(Egress, flow.tcp(Egress, ACK, 501, 101, 5), Established),
        state(State::TcpClose),
        passes(Ingress, flow.tcp(Ingress, SYN, 300, 0, 0), New),
        state(State::TcpSynSent),
    ]);
    steps
}

fn inexact_reset(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_005);
    let mut steps = handshake(flow);
    steps.extend([
        passes(Egress, flow.tcp(Egress, ACK, 501, 101, 0), Established),
        passes(Ingress, flow.tcp(Ingress, RST, 102, 0, 0), Established),
        passes(
            Ingress,
            flow.tcp(Ingress, RST | ACK, 100, 501, 0),
            Established,
        ),
        state(State::TcpEstablished),
        passes(Ingress, flow.tcp(Ingress, ACK, 101, 501, 1), Established),
        state(State::TcpEstablished),
        passes(Egress, flow.tcp(Egress, RST, 501, 0, 0), Established),
        state(State::TcpClose),
    ]);
    steps
}

fn refusal(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_006);
    vec![
        passes(Ingress, flow.tcp(Ingress, SYN, 100, 0, 0), New),
        passes(Egress, flow.tcp(Egress, RST | ACK, 0, 100, 0), Established),
        state(State::TcpSynSent),
        passes(Egress, flow.tcp(Egress, RST | ACK, 0, 101, 0), Established),
        state(State::TcpClose),
    ]
}
