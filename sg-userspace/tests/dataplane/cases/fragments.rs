//! Fragments: the later ones follow the first.

use sg_common::{
    conntrack::{
        State,
        tcp::{ACK, FIN, RST, SYN},
    },
    verdict::{
        Direction::{Egress, Ingress},
        DropReason::{FragmentOrphan, FragmentOverlap, FragmentTiny, NoRule, TcpHeader},
        PassKind::{Established, Fragment, New},
    },
};

use super::tcp::handshake;
use crate::{
    flow::Flow,
    frame::{self, Ip, NOTHING, extension, fragment, fresh_id, segment},
    table::{Case, Only, Step, World, drops, interface, passes, state},
};

const GROUPS: &str = r#"
[groups.server]
ingress = [
  { protocol = "udp", ports = "53-54", cidr = ["0.0.0.0/0", "::/0"] },
  { protocol = "tcp", ports = 80, cidr = ["0.0.0.0/0", "::/0"] },
  { protocol = 47, cidr = ["0.0.0.0/0", "::/0"] },
]
egress = []
"#;

pub(crate) fn world() -> World {
    World {
        name: "fragments",
        definition: GROUPS.to_owned() + &interface("server", r#"["server"]"#, ""),
        cases: vec![
            Case::new("D3 D7 later ones follow an allowed first", "server", follow),
            Case::new("D4 none follows a refused first", "server", refused),
            Case::new("D4 the first of an answer", "server", answered),
            Case::new("D3 TCP in fragments", "server", tcp),
            Case::new("D1 a first too small for its header", "server", tiny),
            Case::new("D2 one that would overwrite the header", "server", overlap),
            Case::new(
                "D8 flags in a later one's payload",
                "server",
                flags_in_payload,
            ),
            Case::new("D10 a first one again, to another port", "server", again),
            Case::new("another protocol in fragments", "server", other),
            Case::new("E9 a fragment that is whole", "server", atomic).only(Only::V6),
            Case::new("E8 extension headers before and behind", "server", wrapped).only(Only::V6),
        ],
    }
}

/// A datagram of 16 bytes and its header, to be cut.
fn datagram(flow: &Flow) -> Vec<u8> {
    frame::datagram(flow.ports(Ingress), 16)
}

fn follow(ip: Ip) -> Vec<Step> {
    let (flow, id) = (Flow::new(ip, 53, 40_000), fresh_id());
    let ends = flow.ends(Ingress);
    let stranger = flow.with(ip.stranger()).ends(Ingress);
    let later = |offset, more| fragment(ends, 17, id, offset, more, &[0; 16]);
    vec![
        drops(Ingress, later(24, false), FragmentOrphan),
        passes(
            Ingress,
            fragment(ends, 17, id, 0, true, &datagram(&flow)),
            New,
        ),
        state(State::UdpSingle),
        passes(Ingress, later(24, true), Fragment),
        passes(Ingress, later(40, false), Fragment),
        // Another datagram, another sender, another protocol, the other direction.
        drops(
            Ingress,
            fragment(ends, 17, fresh_id(), 24, false, &[0; 16]),
            FragmentOrphan,
        ),
        drops(
            Ingress,
            fragment(stranger, 17, id, 24, false, &[0; 16]),
            FragmentOrphan,
        ),
        drops(
            Ingress,
            fragment(ends, 47, id, 24, false, &[0; 16]),
            FragmentOrphan,
        ),
        drops(
            Egress,
            fragment(flow.ends(Egress), 17, id, 24, false, &[0; 16]),
            FragmentOrphan,
        ),
        state(State::UdpSingle),
    ]
}

fn refused(ip: Ip) -> Vec<Step> {
    let (flow, id) = (Flow::new(ip, 55, 40_001), fresh_id());
    let ends = flow.ends(Ingress);
    vec![
        drops(
            Ingress,
            fragment(ends, 17, id, 0, true, &datagram(&flow)),
            NoRule,
        ),
        drops(
            Ingress,
            fragment(ends, 17, id, 24, false, &[0; 16]),
            FragmentOrphan,
        ),
        Step::State(None),
    ]
}

fn answered(ip: Ip) -> Vec<Step> {
    let (flow, id) = (Flow::new(ip, 53, 40_002), fresh_id());
    let ends = flow.ends(Egress);
    let answer = frame::datagram(flow.ports(Egress), 16);
    vec![
        drops(Egress, fragment(ends, 17, id, 0, true, &answer), NoRule),
        passes(Ingress, flow.udp(Ingress), New),
        passes(
            Egress,
            fragment(ends, 17, id, 0, true, &answer),
            Established,
        ),
        passes(
            Egress,
            fragment(ends, 17, id, 24, false, &[0; 16]),
            Fragment,
        ),
        Step::Unassured(1),
    ]
}

fn tcp(ip: Ip) -> Vec<Step> {
    let (flow, id) = (Flow::new(ip, 80, 40_003), fresh_id());
    let ends = flow.ends(Ingress);
    let first = segment(flow.ports(Ingress), SYN, 100, 0, 44);
    vec![
        passes(Ingress, fragment(ends, 6, id, 0, true, &first), New),
        passes(
            Ingress,
            fragment(ends, 6, id, 64, false, &[0; 16]),
            Fragment,
        ),
        drops(
            Ingress,
            fragment(ends, 6, fresh_id(), 64, false, &[0; 16]),
            FragmentOrphan,
        ),
        state(State::TcpSynSent),
    ]
}

fn tiny(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 80, 40_004);
    let ends = flow.ends(Ingress);
    let whole = segment(flow.ports(Ingress), SYN, 100, 0, 0);
    let mut steps = Vec::new();
    for len in [0, 1, 8, 16, 19] {
        let first = fragment(ends, 6, fresh_id(), 0, true, &whole[..len]);
        // RFC 8200 §4.5 apart, what counts is that the header is not whole. An IPv6 packet of the
        // fragment header alone has a payload still.
        steps.push(drops(Ingress, first, FragmentTiny));
    }
    for len in [0, 7] {
        let first = fragment(ends, 17, fresh_id(), 0, true, &datagram(&flow)[..len]);
        steps.push(drops(Ingress, first, FragmentTiny));
        let first = fragment(
            ends,
            ip.icmp(),
            fresh_id(),
            0,
            true,
            &[ip.pick(8, 128); 7][..len],
        );
        steps.push(drops(Ingress, first, FragmentTiny));
    }
    // 40 bytes of header are announced and 20 are there.
    let mut long = whole.clone();
    long[12] = 0xa0;
    steps.push(drops(
        Ingress,
        fragment(ends, 6, fresh_id(), 0, true, &long),
        FragmentTiny,
    ));
    long[12] = 0x40;
    steps.push(drops(
        Ingress,
        fragment(ends, 6, fresh_id(), 0, true, &long),
        TcpHeader,
    ));
    let flow = flow.ends(Egress);
    steps.push(drops(
        Egress,
        fragment(flow, 6, fresh_id(), 0, true, &whole[..8]),
        FragmentTiny,
    ));
    steps.push(Step::State(None));
    steps
}

fn overlap(ip: Ip) -> Vec<Step> {
    let (flow, id) = (Flow::new(ip, 80, 40_005), fresh_id());
    let first = segment(flow.ports(Ingress), SYN, 100, 0, 44);
    let mut steps = vec![passes(
        Ingress,
        fragment(flow.ends(Ingress), 6, id, 0, true, &first),
        New,
    )];
    for offset in [8, 16, 56] {
        for direction in [Ingress, Egress] {
            let later = fragment(flow.ends(direction), 6, id, offset, false, &[0; 16]);
            steps.push(drops(direction, later, FragmentOverlap));
        }
    }
    steps
}

fn flags_in_payload(ip: Ip) -> Vec<Step> {
    let (flow, id) = (Flow::new(ip, 80, 40_008), fresh_id());
    let ends = flow.ends(Ingress);
    let mut steps = handshake(flow);
    let first = segment(flow.ports(Ingress), ACK, 101, 501, 44);
    steps.push(passes(
        Ingress,
        fragment(ends, 6, id, 0, true, &first),
        Established,
    ));
    for (offset, flags) in [(64, RST), (88, FIN | ACK), (112, SYN), (136, RST | ACK)] {
        // Exactly what would end the flow, if it were a header.
        let imitation = segment(flow.ports(Ingress), flags, 145, 501, 4);
        let later = fragment(ends, 6, id, offset, true, &imitation);
        steps.push(passes(Ingress, later, Fragment));
        steps.push(state(State::TcpEstablished));
    }
    steps.push(passes(
        Egress,
        flow.tcp(Egress, ACK, 501, 145, 9),
        Established,
    ));
    steps
}

fn again(ip: Ip) -> Vec<Step> {
    let id = fresh_id();
    let [one, two, refused] = [53, 54, 55].map(|port| Flow::new(ip, port, 40_009));
    let ends = one.ends(Ingress);
    let first = |flow: &Flow| fragment(ends, 17, id, 0, true, &datagram(flow));
    let later = || fragment(ends, 17, id, 24, false, &[0; 16]);
    vec![
        passes(Ingress, first(&one), New),
        passes(Ingress, first(&two), New),
        passes(Ingress, later(), Fragment),
        // What was refused takes nothing back: the receiver has an allowed first to put it behind.
        drops(Ingress, first(&refused), NoRule),
        passes(Ingress, later(), Fragment),
        Step::Tracked(2),
    ]
}

fn other(ip: Ip) -> Vec<Step> {
    let (flow, id) = (Flow::new(ip, 0, 0), fresh_id());
    let ends = flow.ends(Ingress);
    vec![
        passes(Ingress, fragment(ends, 47, id, 0, true, &[0; 16]), New),
        passes(
            Ingress,
            fragment(ends, 47, id, 16, false, &[0; 16]),
            Fragment,
        ),
        passes(Egress, flow.other(Egress, 47), Established),
    ]
}

fn atomic(ip: Ip) -> Vec<Step> {
    let (flow, id) = (Flow::new(ip, 53, 40_006), fresh_id());
    let ends = flow.ends(Ingress);
    vec![
        // No more to come: RFC 6946. Nothing is remembered for it.
        passes(
            Ingress,
            fragment(ends, 17, id, 0, false, &datagram(&flow)),
            New,
        ),
        drops(
            Ingress,
            fragment(ends, 17, id, 24, false, &[0; 16]),
            FragmentOrphan,
        ),
    ]
}

fn wrapped(ip: Ip) -> Vec<Step> {
    let (flow, id) = (Flow::new(ip, 53, 40_007), fresh_id());
    let ends = flow.ends(Ingress);
    let header = |offset: u16, more: bool| {
        let field = (offset | u16::from(more)).to_be_bytes();
        [&[0][..], &field, &id.to_be_bytes()].concat()
    };
    let (first, early, later) = (header(0, true), header(312, true), header(320, false));
    let behind: [(u8, &[u8]); 3] = [
        (extension::HOP_BY_HOP, NOTHING),
        (extension::FRAGMENT, &first),
        (extension::DESTINATION, NOTHING),
    ];
    let before = |fragment: &[u8]| {
        let chain = [
            (extension::HOP_BY_HOP, NOTHING),
            (extension::FRAGMENT, fragment),
        ];
        frame::extended(ends, 64, &chain, extension::DESTINATION, &[0; 16])
    };
    vec![
        passes(
            Ingress,
            frame::extended(ends, 64, &behind, 17, &datagram(&flow)),
            New,
        ),
        // A later one says which header comes first in the datagram, not which is last
        // (RFC 8200 §4.5); one that could overwrite what stood behind those headers goes.
        passes(Ingress, before(&later), Fragment),
        drops(Ingress, before(&early), FragmentOverlap),
        drops(
            Ingress,
            frame::extended(ends, 64, &behind, 17, &datagram(&flow)[..4]),
            FragmentTiny,
        ),
    ]
}
