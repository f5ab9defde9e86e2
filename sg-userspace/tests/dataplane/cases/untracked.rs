//! Policies that are open both ways need no entries (fact 3.3).

use sg_common::{
    conntrack::{
        State,
        tcp::{ACK, FIN, RST, SYN},
    },
    verdict::{
        Direction::{Egress, Ingress},
        DropReason::{FragmentOrphan, MidStream, NoRule, TcpFlags},
        PassKind::{Established, Fragment, New, Untracked},
    },
};

use crate::{
    flow::Flow,
    frame::{Ip, datagram, fragment, fresh_id},
    table::{Case, Step, World, drops, interface, passes, state},
};

pub(crate) const GROUPS: &str = r#"
[groups.open]
ingress = [ { protocol = "all", cidr = ["0.0.0.0/0", "::/0"] } ]
egress = [ { protocol = "all", cidr = ["0.0.0.0/0", "::/0"] } ]

[groups.half]
ingress = [ { protocol = "tcp", ports = 80, cidr = ["0.0.0.0/0", "::/0"] }, { protocol = "tcp", ports = 81, cidr = ["198.51.100.0/24", "2001:db8:2::/48"] } ]
egress = [ { protocol = "all", cidr = ["0.0.0.0/0", "::/0"] } ]

[groups.four]
ingress = [ { protocol = "all", cidr = ["0.0.0.0/0", "::/0"] } ]
egress = [ { protocol = "all", cidr = "0.0.0.0/0" } ]

[groups.datagrams]
ingress = [ { protocol = "udp", ports = "0-65535", cidr = ["0.0.0.0/0", "::/0"] }, { protocol = "tcp", ports = "0-65535", cidr = ["0.0.0.0/0", "::/0"] } ]
egress = [ { protocol = "udp", ports = [53, 123], cidr = ["0.0.0.0/0", "::/0"] } ]
"#;

pub(crate) fn world() -> World {
    let interfaces = interface("open", r#"["open"]"#, "")
        + &interface("always", r#"["open"]"#, "track = \"always\"")
        + &interface("half", r#"["half"]"#, "")
        + &interface("four", r#"["four"]"#, "")
        + &interface("datagrams", r#"["datagrams"]"#, "");
    World {
        name: "untracked",
        definition: GROUPS.to_owned() + &interfaces,
        cases: vec![
            Case::new("open both ways", "open", open),
            Case::new("what is tracked all the same", "open", still_tracked),
            Case::new("tracked because told so", "always", always),
            Case::new("open one way, one port the other", "half", half),
            Case::new("families are judged apart", "four", four),
            Case::new("protocols are judged apart", "datagrams", datagrams),
            Case::new("fragments of untracked flows", "open", fragments),
        ],
    }
}

fn open(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_000);
    let mut steps = Vec::new();
    for direction in [Ingress, Egress] {
        for flags in [SYN, SYN | ACK, ACK, FIN | ACK, RST] {
            steps.push(passes(
                direction,
                flow.tcp(direction, flags, 1, 1, 0),
                Untracked,
            ));
        }
        steps.push(passes(direction, flow.udp(direction), Untracked));
        // Parsing is as strict as ever.
        steps.push(drops(
            direction,
            flow.tcp(direction, SYN | FIN, 1, 1, 0),
            TcpFlags,
        ));
    }
    steps.push(Step::State(None));
    steps
}

fn still_tracked(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 11, 0);
    vec![
        passes(Ingress, flow.ask(Ingress), New),
        passes(Egress, flow.answer(Egress), Established),
        state(State::Icmp),
        passes(Egress, flow.other(Egress, 47), New),
        passes(Ingress, flow.other(Ingress, 47), Established),
        Step::Tracked(2),
    ]
}

fn always(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_001);
    vec![
        drops(Ingress, flow.tcp(Ingress, ACK, 1, 1, 0), MidStream),
        passes(Ingress, flow.tcp(Ingress, SYN, 1, 0, 0), New),
        state(State::TcpSynSent),
        passes(Egress, flow.udp(Egress), New),
        passes(Ingress, flow.udp(Ingress), Established),
        Step::Tracked(2),
    ]
}

fn half(ip: Ip) -> Vec<Step> {
    let (web, limited) = (Flow::new(ip, 80, 40_002), Flow::new(ip, 81, 40_002));
    let out = Flow::new(ip, 50_000, 443);
    vec![
        passes(Ingress, web.tcp(Ingress, SYN, 1, 0, 0), Untracked),
        passes(Egress, web.tcp(Egress, SYN | ACK, 1, 2, 0), Untracked),
        passes(Ingress, web.tcp(Ingress, ACK, 2, 2, 0), Untracked),
        Step::State(None),
        // Not from everywhere: tracked (fact 3.5).
        passes(Ingress, limited.tcp(Ingress, SYN, 1, 0, 0), New),
        state(State::TcpSynSent),
        passes(Egress, out.tcp(Egress, SYN, 1, 0, 0), New),
        passes(Ingress, out.tcp(Ingress, SYN | ACK, 1, 2, 0), Established),
        Step::Tracked(2),
        drops(
            Ingress,
            Flow::new(ip, 82, 40_002).tcp(Ingress, SYN, 1, 0, 0),
            NoRule,
        ),
        drops(Ingress, web.udp(Ingress), NoRule),
    ]
}

fn four(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_003);
    match ip {
        Ip::V4 => vec![
            passes(Ingress, flow.tcp(Ingress, SYN, 1, 0, 0), Untracked),
            passes(Egress, flow.tcp(Egress, ACK, 1, 2, 0), Untracked),
            Step::State(None),
        ],
        Ip::V6 => vec![
            drops(Egress, flow.udp(Egress), NoRule),
            passes(Ingress, flow.tcp(Ingress, SYN, 1, 0, 0), New),
            passes(Egress, flow.tcp(Egress, SYN | ACK, 1, 2, 0), Established),
            state(State::TcpSynReceived),
        ],
    }
}

fn datagrams(ip: Ip) -> Vec<Step> {
    let (time, other) = (Flow::new(ip, 50_000, 123), Flow::new(ip, 50_000, 124));
    let tcp = Flow::new(ip, 80, 40_004);
    vec![
        passes(Egress, time.udp(Egress), Untracked),
        passes(Ingress, time.udp(Ingress), Untracked),
        Step::State(None),
        passes(Ingress, other.udp(Ingress), New),
        passes(Egress, other.udp(Egress), Established),
        passes(Ingress, tcp.tcp(Ingress, SYN, 1, 0, 0), New),
        Step::Tracked(2),
    ]
}

fn fragments(ip: Ip) -> Vec<Step> {
    let id = fresh_id();
    let flow = Flow::new(ip, 80, 40_005);
    let ends = flow.ends(Ingress);
    vec![
        drops(
            Ingress,
            fragment(ends, 17, id, 24, false, &[0; 8]),
            FragmentOrphan,
        ),
        passes(
            Ingress,
            fragment(ends, 17, id, 0, true, &datagram(flow.ports(Ingress), 16)),
            Untracked,
        ),
        passes(
            Ingress,
            fragment(ends, 17, id, 24, false, &[0; 8]),
            Fragment,
        ),
        Step::State(None),
    ]
}
