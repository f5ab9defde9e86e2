//! ICMP errors: they pass with the flow they quote, or by rule.

use sg_common::{
    conntrack::{State, tcp::SYN},
    verdict::{
        Direction::{Egress, Ingress},
        DropReason::{IcmpQuote, IcmpUnrelated, NoRule, Truncated},
        PassKind::{Established, Fragment, New, Related, Stateless},
    },
};

use crate::{
    flow::Flow,
    frame::{self, IP, Ip, extension, fragment, fresh_id, icmp, message, spoiled, unreachable},
    table::{Case, Only, Step, World, drops, interface, passes, state},
};

const GROUPS: &str = r#"
[groups.client]
ingress = []
egress = [ { protocol = "all", cidr = ["198.51.100.0/24", "2001:db8:2::/48"] } ]

[groups.server]
ingress = [ { protocol = "all", cidr = ["198.51.100.0/24", "2001:db8:2::/48"] } ]
egress = []

[groups.errors]
ingress = [ { protocol = "icmp", type = 3, cidr = "192.0.2.0/24" }, { protocol = "icmpv6", type = 1, cidr = "2001:db8:4::/48" } ]
egress = []

[groups.open]
ingress = [ { protocol = "all", cidr = ["0.0.0.0/0", "::/0"] } ]
egress = [ { protocol = "all", cidr = ["0.0.0.0/0", "::/0"] } ]
"#;

pub(crate) fn world() -> World {
    let interfaces = interface("client", r#"["client"]"#, "")
        + &interface("server", r#"["server"]"#, "")
        + &interface("ruled", r#"["client", "errors"]"#, "")
        + &interface(
            "strict",
            r#"["client", "errors"]"#,
            "icmp_errors = \"strict\"",
        )
        + &interface("open", r#"["open"]"#, "");
    World {
        name: "icmp",
        definition: GROUPS.to_owned() + &interfaces,
        cases: vec![
            Case::new(
                "G2 errors about a flow of each protocol",
                "client",
                about_flows,
            ),
            Case::new("G2 every error there is", "client", every_kind),
            Case::new("G2 an error in two fragments", "client", in_fragments),
            Case::new("G10 errors that the workload sends", "server", sent),
            Case::new("G2 errors about nothing", "client", about_nothing),
            Case::new("G3 errors for somebody else", "client", misdirected),
            Case::new("G5 errors change nothing", "client", read_only),
            Case::new("G4 quotes that say nothing", "client", unreadable),
            Case::new(
                "G4 an IPv6 quote behind extension headers",
                "client",
                extended,
            )
            .only(Only::V6),
            Case::new("G2 errors by rule", "ruled", by_rule),
            Case::new("G7 an MTU that cannot be", "client", absurd_mtu),
            Case::new("G8 a redirect about a flow", "client", redirect).only(Only::V4),
            Case::new("G9 no replies but of echo", "client", unanswered),
            Case::new("G2 errors by rule only", "strict", strict),
            Case::new("G2 errors about untracked flows", "open", untracked),
        ],
    }
}

/// An error from the router to the workload that quotes what it sent.
fn error(ip: Ip, quoted: &[u8]) -> Vec<u8> {
    unreachable((ip.router(), ip.workload()), quoted)
}

fn about_flows(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 50_000, 443);
    let mut steps = Vec::new();
    let frames = [
        flow.tcp(Egress, SYN, 100, 0, 0),
        flow.udp(Egress),
        flow.ask(Egress),
        flow.other(Egress, 47),
    ];
    for frame in frames {
        steps.push(drops(Ingress, error(ip, &frame), IcmpUnrelated));
        steps.push(passes(Egress, frame.clone(), New));
        steps.push(passes(Ingress, error(ip, &frame), Related));
        // Eight bytes behind the header are all that a router must quote (RFC 792).
        let short = IP + ip.pick(20, 40) + 8;
        steps.push(passes(Ingress, error(ip, &frame[..short]), Related));
    }
    steps.push(Step::Tracked(4));
    steps
}

fn every_kind(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 50_001, 443);
    let frame = flow.udp(Egress);
    let mut steps = vec![passes(Egress, frame.clone(), New)];
    for kind in ip.pick(&[3_u8, 11, 12][..], &[1, 2, 3, 4]) {
        let rest = [&[0; 4], &frame[IP..]].concat();
        let error = icmp((ip.router(), ip.workload()), *kind, 0, &rest);
        steps.push(passes(Ingress, error, Related));
    }
    steps
}

fn in_fragments(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 50_009, 443);
    let frame = flow.udp(Egress);
    let mut body = message(ip.pick(3, 1), 1, &[&[0; 4], &frame[IP..]].concat());
    body.resize(80, 0);
    let (id, ends) = (fresh_id(), (ip.router(), ip.workload()));
    let part = |offset: u16, more, bytes: &[u8]| fragment(ends, ip.icmp(), id, offset, more, bytes);
    vec![
        passes(Egress, frame, New),
        passes(Ingress, part(0, true, &body[..64]), Related),
        passes(Ingress, part(64, false, &body[64..]), Fragment),
    ]
}

fn sent(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 53, 40_000);
    let frame = flow.udp(Ingress);
    vec![
        drops(Egress, unreachable(ip.ends(Egress), &frame), IcmpUnrelated),
        passes(Ingress, frame.clone(), New),
        passes(Egress, unreachable(ip.ends(Egress), &frame), Related),
        // About an answer of the workload, by the workload.
        drops(
            Egress,
            unreachable(ip.ends(Egress), &flow.udp(Egress)),
            IcmpQuote,
        ),
        // By the router, about an answer.
        passes(Ingress, error(ip, &flow.udp(Egress)), Related),
    ]
}

fn about_nothing(ip: Ip) -> Vec<Step> {
    let (flow, other) = (Flow::new(ip, 50_002, 443), Flow::new(ip, 50_003, 443));
    vec![
        passes(Egress, flow.udp(Egress), New),
        drops(Ingress, error(ip, &other.udp(Egress)), IcmpUnrelated),
        drops(
            Ingress,
            error(ip, &flow.tcp(Egress, SYN, 1, 0, 0)),
            IcmpUnrelated,
        ),
        drops(
            Ingress,
            error(ip, &flow.with(ip.stranger()).udp(Egress)),
            IcmpUnrelated,
        ),
        // An echo reply that was never asked for.
        drops(Ingress, error(ip, &flow.answer(Egress)), IcmpUnrelated),
    ]
}

fn misdirected(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 50_004, 443);
    let frame = flow.udp(Egress);
    let other = match ip {
        Ip::V4 => "10.1.0.11",
        Ip::V6 => "2001:db8:1::11",
    };
    let other = other.parse().unwrap();
    vec![
        passes(Egress, frame.clone(), New),
        drops(
            Ingress,
            unreachable((ip.router(), other), &frame),
            IcmpQuote,
        ),
        // As if the peer's own packet had come back from the workload's side.
        drops(Ingress, error(ip, &flow.udp(Ingress)), IcmpQuote),
        passes(
            Ingress,
            unreachable((ip.peer(), ip.workload()), &frame),
            Related,
        ),
    ]
}

fn read_only(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 50_005, 443);
    let frame = flow.tcp(Egress, SYN, 100, 0, 0);
    vec![
        passes(Egress, frame.clone(), New),
        passes(Ingress, error(ip, &frame), Related),
        passes(Ingress, error(ip, &frame), Related),
        state(State::TcpSynSent),
        Step::Unassured(1),
        Step::Tracked(1),
    ]
}

fn unreadable(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 50_006, 443);
    let frame = flow.udp(Egress);
    let header = ip.pick(20, 40);
    let ends = flow.ends(Egress);
    let mut steps = vec![passes(Egress, frame.clone(), New)];
    // Less than a header, less than eight bytes behind it, nothing at all.
    for len in [0, 1, header - 1, header, header + 7] {
        steps.push(drops(Ingress, error(ip, &frame[..IP + len]), IcmpQuote));
    }
    let version = spoiled(frame.clone(), IP, &[ip.pick(0x65, 0x45)]);
    let quotes = [
        version,
        // A later fragment has no ports, and errors are not sent about errors (RFC 1122 §3.2.2).
        fragment(ends, 17, 77, 64, false, &[0; 16]),
        unreachable(ends, &flow.udp(Ingress)),
    ];
    for quote in quotes {
        steps.push(drops(Ingress, error(ip, &quote), IcmpQuote));
    }
    // The error itself cut short.
    let router = (ip.router(), ip.workload());
    let kind = ip.pick(3, 1);
    let cut = frame::ip(router, ip.icmp(), &message(kind, 0, &[0; 3]));
    steps.push(drops(Ingress, cut, Truncated));
    steps
}

fn extended(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 50_007, 443);
    let frame = flow.udp(Egress);
    let udp = &frame[IP + 40..];
    let quoted = frame::extended(
        flow.ends(Egress),
        64,
        &[(extension::DESTINATION, frame::NOTHING)],
        17,
        udp,
    );
    vec![
        passes(Egress, quoted.clone(), New),
        passes(Ingress, error(ip, &quoted), Related),
        passes(Ingress, error(ip, &frame), Related),
        drops(Ingress, error(ip, &quoted[..IP + 47]), IcmpQuote),
        drops(Ingress, error(ip, &quoted[..IP + 48]), IcmpQuote),
    ]
}

fn by_rule(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 50_008, 443);
    let frame = flow.udp(Egress);
    let stranger = (ip.stranger(), ip.workload());
    vec![
        passes(Ingress, error(ip, &frame), Stateless),
        drops(Ingress, unreachable(stranger, &frame), IcmpUnrelated),
        drops(Ingress, error(ip, &frame[..IP]), IcmpQuote),
        Step::State(None),
        passes(Egress, frame.clone(), New),
        passes(Ingress, error(ip, &frame), Related),
    ]
}

fn strict(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 50_009, 443);
    let frame = flow.udp(Egress);
    let stranger = (ip.stranger(), ip.workload());
    vec![
        passes(Egress, frame.clone(), New),
        drops(Ingress, unreachable(stranger, &frame), IcmpUnrelated),
        passes(Ingress, error(ip, &frame), Stateless),
        passes(Ingress, flow.udp(Ingress), Established),
    ]
}

fn untracked(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 50_010, 443);
    vec![
        passes(Ingress, error(ip, &flow.udp(Egress)), Related),
        passes(
            Egress,
            unreachable(ip.ends(Egress), &flow.udp(Ingress)),
            Related,
        ),
        // Echo is tracked whatever the policy; a rule lets its errors pass here.
        passes(Ingress, error(ip, &flow.ask(Egress)), Stateless),
        Step::State(None),
    ]
}

/// What a host makes of it is the host's affair; it has a least one (RFC 8201 §4).
fn absurd_mtu(ip: Ip) -> Vec<Step> {
    let (flow, other) = (Flow::new(ip, 50_011, 443), Flow::new(ip, 50_012, 443));
    let (kind, code) = ip.pick((3, 4), (2, 0));
    let too_big = |mtu: u16, flow: &Flow| {
        let [high, low] = mtu.to_be_bytes();
        let quoted = flow.tcp(Egress, SYN, 100, 0, 0);
        let rest = [&[0, 0, high, low], &quoted[IP..]].concat();
        icmp((ip.router(), ip.workload()), kind, code, &rest)
    };
    let mut steps = vec![passes(Egress, flow.tcp(Egress, SYN, 100, 0, 0), New)];
    for mtu in [0, 1, 67, 68, 575, 1279, 1280, 65_535] {
        steps.push(passes(Ingress, too_big(mtu, &flow), Related));
        steps.push(drops(Ingress, too_big(mtu, &other), IcmpUnrelated));
    }
    steps.push(state(State::TcpSynSent));
    steps
}

fn redirect(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 50_013, 443);
    let frame = flow.udp(Egress);
    let mut steps = vec![passes(Egress, frame.clone(), New)];
    for code in 0..4 {
        let rest = [&[192, 0, 2, 9], &frame[IP..]].concat();
        let redirect = icmp((ip.router(), ip.workload()), 5, code, &rest);
        steps.push(drops(Ingress, redirect, NoRule));
    }
    steps
}

fn unanswered(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    // Time stamp, information, address mask; node information.
    for (question, answer) in ip.pick(&[(13, 14), (15, 16), (17, 18)][..], &[(139, 140)]) {
        let ask = icmp(ip.ends(Egress), *question, 0, &[0; 16]);
        let reply = icmp(ip.ends(Ingress), *answer, 0, &[0; 16]);
        steps.push(passes(Egress, ask, Stateless));
        steps.push(drops(Ingress, reply, NoRule));
    }
    // Router discovery, which is neighbour discovery in IPv6.
    if ip == Ip::V4 {
        for kind in [9, 10] {
            let frame = icmp(ip.ends(Ingress), kind, 0, &[0; 16]);
            steps.push(drops(Ingress, frame, NoRule));
        }
    }
    steps.push(Step::State(None));
    steps
}
