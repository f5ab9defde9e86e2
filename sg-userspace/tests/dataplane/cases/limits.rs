//! No more flows than there is room for.

use sg_common::{
    conntrack::tcp::SYN,
    verdict::{
        Direction::{Egress, Ingress},
        DropReason::AllowanceExceeded,
        PassKind::{Established, New},
        Verdict,
    },
};

use super::tcp::handshake;
use crate::{
    flow::Flow,
    frame::Ip,
    table::{Case, Only, Step, World, drops, interface, passes},
};

const GROUPS: &str = r#"
[groups.server]
ingress = [ { protocol = "tcp", ports = 80, cidr = ["0.0.0.0/0", "::/0"] }, { protocol = "udp", ports = 80, cidr = ["0.0.0.0/0", "::/0"] } ]
egress = [ { protocol = "udp", ports = 80, cidr = ["198.51.100.0/24", "2001:db8:2::/48"] } ]
"#;

/// A host with room for 1024 flows, the least there is, all but four of which are kept for somebody.
pub(crate) fn capped() -> World {
    let interfaces = interface("capped", r#"["server"]"#, "allowance = 2")
        + &interface("shared", r#"["server"]"#, "")
        + &interface("reserved", r#"["server"]"#, "reserve = 2")
        + &interface("hoarding", r#"["server"]"#, "reserve = 508");
    World {
        name: "capped",
        definition: "[conntrack]\nallowance = 1024\n".to_owned() + GROUPS + &interfaces,
        cases: vec![
            Case::new(
                "an interface has its own allowance",
                "capped",
                own_allowance,
            ),
            Case::new("nobody takes what is reserved", "shared", reserve),
            Case::new("what outgrows its reserve shares", "reserved", beyond),
        ],
    }
}

/// A host where 256 flows may wait for an answer.
pub(crate) fn crowded() -> World {
    World {
        name: "crowded",
        definition: "[conntrack]\nallowance = 1024\n".to_owned()
            + GROUPS
            + &interface("crowded", r#"["server"]"#, ""),
        cases: vec![Case::new("H6 a flood presses on itself", "crowded", flood).only(Only::Brief)],
    }
}

fn flow(ip: Ip, number: u16) -> Flow {
    Flow::new(ip, 80, 40_000 + number)
}

fn own_allowance(ip: Ip) -> Vec<Step> {
    let (first, second) = (flow(ip, 0), flow(ip, 1));
    let mut steps = handshake(first);
    steps.extend([
        passes(Ingress, second.tcp(Ingress, SYN, 100, 0, 0), New),
        passes(
            Egress,
            second.tcp(Egress, SYN | 0x10, 500, 101, 0),
            Established,
        ),
        passes(Ingress, second.tcp(Ingress, 0x10, 101, 501, 0), Established),
        drops(Ingress, flow(ip, 2).udp(Ingress), AllowanceExceeded),
        drops(
            Ingress,
            flow(ip, 3).tcp(Ingress, SYN, 1, 0, 0),
            AllowanceExceeded,
        ),
        drops(
            Egress,
            Flow::new(ip, 50_000, 80).udp(Egress),
            AllowanceExceeded,
        ),
        // Those that have their place keep it.
        passes(Egress, second.tcp(Egress, 0x10, 501, 101, 0), Established),
        passes(Egress, first.tcp(Egress, 0x10, 501, 101, 0), Established),
        Step::Tracked(2),
        // Others are not concerned.
        Step::On("shared"),
        passes(Ingress, flow(ip, 0).udp(Ingress), New),
    ]);
    steps
}

/// Opens and answers flows until each is assured, so that none makes room for another.
fn assured(ip: Ip, numbers: std::ops::Range<u16>) -> Vec<Step> {
    let mut steps = Vec::new();
    for number in numbers {
        let flow = flow(ip, number);
        steps.extend([
            passes(Ingress, flow.tcp(Ingress, SYN, 100, 0, 0), New),
            passes(Egress, flow.tcp(Egress, 0x12, 500, 101, 0), Established),
            passes(Ingress, flow.tcp(Ingress, 0x10, 101, 501, 0), Established),
        ]);
    }
    steps
}

fn reserve(ip: Ip) -> Vec<Step> {
    let mut steps = assured(ip, 0..4);
    steps.extend([
        drops(
            Ingress,
            flow(ip, 4).tcp(Ingress, SYN, 1, 0, 0),
            AllowanceExceeded,
        ),
        Step::On("reserved"),
    ]);
    steps.extend(assured(ip, 5..7));
    steps.push(drops(
        Ingress,
        flow(ip, 7).tcp(Ingress, SYN, 1, 0, 0),
        AllowanceExceeded,
    ));
    steps.push(Step::Tracked(2));
    steps
}

fn beyond(ip: Ip) -> Vec<Step> {
    let mut steps = assured(ip, 0..6);
    steps.extend([
        drops(
            Ingress,
            flow(ip, 6).tcp(Ingress, SYN, 1, 0, 0),
            AllowanceExceeded,
        ),
        Step::Tracked(6),
        Step::On("shared"),
        drops(
            Ingress,
            flow(ip, 0).tcp(Ingress, SYN, 1, 0, 0),
            AllowanceExceeded,
        ),
        Step::Tracked(0),
    ]);
    steps
}

/// Each in a moment of its own, so that there is one oldest.
fn flood(ip: Ip) -> Vec<Step> {
    let mut steps = assured(ip, 0..20);
    for number in 100..700 {
        let syn = flow(ip, number).tcp(Ingress, SYN, 100, 0, 0);
        steps.push(Step::Later(Ingress, syn, Verdict::Pass(New)));
    }
    steps.push(Step::Replaced(50));
    // Nobody who had answered has lost anything.
    for number in 0..20 {
        let data = flow(ip, number).tcp(Ingress, 0x10, 101, 501, 10);
        steps.push(passes(Ingress, data, Established));
    }
    steps
}
