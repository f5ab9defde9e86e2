//! IPv6 extension headers: what is walked past, and what is not walked past.

use sg_common::{
    conntrack::{State, tcp::SYN},
    verdict::{
        Direction::{self, Egress, Ingress},
        DropReason::{
            self, FragmentOrphan, FragmentTiny, IpTotalLength, Ipv6Extension, Ipv6FragmentRepeated,
            Ipv6NoNextHeader, Ipv6Routing, NoRule, Truncated,
        },
        PassKind::{Established, New},
    },
};

use crate::{
    flow::Flow,
    frame::{self, IP, Ip, NOTHING, at, extended, extension, fresh_id, spoiled},
    table::{Case, Only, Step, World, drops, interface, passes, state},
};

const GROUPS: &str = r#"
[groups.web]
ingress = [ { protocol = "tcp", ports = 80, cidr = "2001:db8::/32" }, { protocol = "udp", ports = 80, cidr = "2001:db8::/32" } ]
egress = []

[groups.numbers]
ingress = [ { protocol = 200, cidr = "2001:db8::/32" }, { protocol = 50, cidr = "2001:db8::/32" } ]
egress = []

[groups.all]
ingress = [ { protocol = "all", cidr = "2001:db8::/32" } ]
egress = []

[groups.four]
ingress = [ { protocol = "all", cidr = "0.0.0.0/0" } ]
egress = [ { protocol = "tcp", ports = 80, cidr = "198.51.100.0/24" } ]
"#;

pub(crate) fn world() -> World {
    let interfaces = ["web", "numbers", "all", "four"]
        .map(|group| interface(group, &format!("[\"{group}\"]"), ""))
        .concat();
    let case = |name, interface, steps| Case::new(name, interface, steps).only(Only::V6);
    World {
        name: "extensions",
        definition: GROUPS.to_owned() + &interfaces,
        cases: vec![
            case("E1 a chain is walked to its end", "web", walked),
            case("E1 a chain that is too long", "all", too_long),
            case("E2 units of length", "web", units),
            case("E3 a number that nobody knows", "web", unknown_refused),
            case("E3 a rule for a number", "numbers", unknown_by_number),
            case("E3 a rule for everything", "all", unknown_by_all),
            case("E4 no next header", "all", no_next_header),
            case("E4 ESP", "numbers", esp),
            case("E5 headers that do not fit", "all", malformed),
            case("E6 hop-by-hop options anywhere but first", "all", misplaced),
            case("E6 headers that repeat", "web", repeated),
            case("E7 segments left", "all", routed),
            case(
                "E8 a first fragment without the whole chain",
                "all",
                incomplete,
            ),
            case("E9 an atomic fragment is a whole packet", "web", atomic),
            case("E10 two fragment headers", "all", two_fragment_headers),
            case("E11 jumbograms", "all", jumbograms),
            case("E12 IPv4 within IPv6 addresses", "four", embedded),
        ],
    }
}

/// The frame both ways, dropped.
fn both(steps: &mut Vec<Step>, frame: impl Fn(Direction) -> Vec<u8>, reason: DropReason) {
    for direction in Direction::ALL {
        steps.push(drops(direction, frame(direction), reason));
    }
}

const EMPTY: (u8, &[u8]) = (extension::DESTINATION, NOTHING);
/// Segments left: none.
const ROUTED: (u8, &[u8]) = (extension::ROUTING, &[0, 0, 0, 0, 0, 0, 0]);
/// 12 bytes: (1 + 2) · 4.
const AUTHENTICATED: (u8, &[u8]) = (
    extension::AUTHENTICATION,
    &[1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1],
);

/// UDP to an allowed port behind extension headers.
fn chain(ip: Ip, direction: Direction, extensions: &[(u8, &[u8])]) -> Vec<u8> {
    let udp = frame::datagram((40_000, 80), 0);
    extended(ip.ends(direction), 64, extensions, 17, &udp)
}

fn walked(ip: Ip) -> Vec<Step> {
    let (flow, refused) = (Flow::new(ip, 80, 40_001), Flow::new(ip, 81, 40_001));
    let mut long = [0; 255];
    long[0] = 31;
    let chains: [&[(u8, &[u8])]; 7] = [
        &[EMPTY],
        &[(extension::HOP_BY_HOP, NOTHING), EMPTY],
        &[ROUTED, EMPTY],
        &[AUTHENTICATED],
        &[(135, NOTHING), (139, NOTHING), (140, NOTHING)],
        &[EMPTY; 8],
        &[(extension::DESTINATION, &long)],
    ];
    let with = |flow: &Flow, chain| {
        let udp = frame::datagram(flow.ports(Ingress), 0);
        extended(flow.ends(Ingress), 64, chain, 17, &udp)
    };
    let mut steps = vec![passes(Ingress, flow.udp(Ingress), New)];
    for chain in chains {
        steps.push(passes(Ingress, with(&flow, chain), Established));
        steps.push(drops(Ingress, with(&refused, chain), NoRule));
    }
    steps.push(Step::Tracked(1));
    steps
}

fn too_long(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    // Nine of eight bytes, and one or two of more than 256.
    let mut long = [0; 263];
    long[0] = 32;
    let mut half = [0; 135];
    half[0] = 16;
    let chains: [&[(u8, &[u8])]; 3] = [
        &[EMPTY; 9],
        &[(extension::DESTINATION, &long)],
        &[(extension::DESTINATION, &half[..]); 2],
    ];
    for extensions in chains {
        both(
            &mut steps,
            |direction| chain(ip, direction, extensions),
            Ipv6Extension,
        );
    }
    steps
}

/// Headers whose length two units tell apart: read by the wrong one, what follows is a port that
/// is allowed where the real one is not, and the reverse.
fn units(ip: Ip) -> Vec<Step> {
    let longer = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // A reserved byte stands where other headers have their length.
    let reserved = [9, 0, 0, 0, 0, 0, 1];
    let headers: [(u8, &[u8]); 4] = [
        AUTHENTICATED,
        (
            extension::AUTHENTICATION,
            &[2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1],
        ),
        (extension::DESTINATION, &longer),
        (extension::FRAGMENT, &reserved),
    ];
    let mut steps = Vec::new();
    for (number, header) in headers.into_iter().enumerate() {
        let source = 41_000 + number as u16;
        for (real, decoy) in [(22_u16, 80_u16), (80, 22)] {
            // Words of source and destination port, over and over, but the first of them.
            let words = [
                [source, real],
                [source, decoy],
                [source, decoy],
                [source, decoy],
            ];
            let body: Vec<u8> = words
                .iter()
                .flatten()
                .flat_map(|word| word.to_be_bytes())
                .collect();
            let frame = extended(ip.ends(Ingress), 64, &[header], 17, &body);
            steps.push(if real == 80 {
                passes(Ingress, frame, New)
            } else {
                drops(Ingress, frame, NoRule)
            });
        }
    }
    steps.push(Step::Tracked(4));
    steps
}

/// A TCP header to an allowed port behind a number.
fn hidden(ip: Ip, direction: Direction, number: u8) -> Vec<u8> {
    let segment = frame::segment((40_002, 80), SYN, 1, 0, 0);
    frame::ip(
        ip.ends(direction),
        number,
        &[&[6, 0, 0, 0, 0, 0, 0, 0], &segment[..]].concat(),
    )
}

fn unknown_refused(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    for number in [41, 99, 200, 201, 253, 254, 255] {
        both(
            &mut steps,
            |direction| hidden(ip, direction, number),
            NoRule,
        );
        let behind = extended(ip.ends(Ingress), 64, &[EMPTY], number, &[6; 40]);
        steps.push(drops(Ingress, behind, NoRule));
    }
    steps.push(Step::State(None));
    steps
}

fn unknown_by_number(ip: Ip) -> Vec<Step> {
    vec![
        passes(Ingress, hidden(ip, Ingress, 200), New),
        state(State::Other),
        drops(Ingress, hidden(ip, Ingress, 201), NoRule),
        passes(Egress, hidden(ip, Egress, 200), Established),
        drops(
            Ingress,
            Flow::new(ip, 80, 40_002).tcp(Ingress, SYN, 1, 0, 0),
            NoRule,
        ),
    ]
}

fn unknown_by_all(ip: Ip) -> Vec<Step> {
    vec![
        passes(Ingress, hidden(ip, Ingress, 200), New),
        passes(Ingress, hidden(ip, Ingress, 201), New),
        // Two protocols, two flows, none of them the TCP inside.
        Step::Tracked(2),
        drops(Egress, hidden(ip, Egress, 202), NoRule),
    ]
}

fn no_next_header(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    both(
        &mut steps,
        |direction| frame::ip(ip.ends(direction), 59, &[]),
        Ipv6NoNextHeader,
    );
    both(
        &mut steps,
        |direction| frame::ip(ip.ends(direction), 59, &[0; 8]),
        Ipv6NoNextHeader,
    );
    let behind = |direction| extended(ip.ends(direction), 64, &[EMPTY], 59, &[0; 8]);
    both(&mut steps, behind, Ipv6NoNextHeader);
    steps
}

fn esp(ip: Ip) -> Vec<Step> {
    let flow = Flow::new(ip, 0, 0);
    vec![
        drops(Egress, flow.other(Egress, 50), NoRule),
        passes(Ingress, flow.other(Ingress, 50), New),
        // Whatever the index: addresses are all that counts.
        passes(
            Egress,
            frame::ip(flow.ends(Egress), 50, &[7; 32]),
            Established,
        ),
        drops(Egress, flow.with(ip.stranger()).other(Egress, 50), NoRule),
        Step::Tracked(1),
    ]
}

fn malformed(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    // Past the end of the packet, by every kind of header.
    for kind in [0, 43, 51, 60, 135, 139, 140] {
        for length in [9, 255] {
            let rest = [length, 0, 0, 0, 0, 0, 0];
            let past = |direction| chain(ip, direction, &[(kind, &rest[..])]);
            both(&mut steps, past, Ipv6Extension);
        }
        for len in 1..8 {
            let stub = |direction| frame::ip(ip.ends(direction), kind, &[17; 8][..len]);
            both(&mut steps, stub, Truncated);
        }
        // The header is there, but it is padding.
        let stated = |direction| {
            let frame = frame::ip(ip.ends(direction), kind, &[17, 0, 0, 0]);
            [&frame[..], &frame::datagram((0, 80), 8)].concat()
        };
        both(&mut steps, stated, Ipv6Extension);
    }
    steps
}

fn misplaced(ip: Ip) -> Vec<Step> {
    let hop_by_hop = (extension::HOP_BY_HOP, NOTHING);
    let mut steps = Vec::new();
    let chains: [&[(u8, &[u8])]; 4] = [
        &[EMPTY, hop_by_hop],
        &[hop_by_hop, hop_by_hop],
        &[ROUTED, hop_by_hop],
        &[hop_by_hop, EMPTY, hop_by_hop],
    ];
    for extensions in chains {
        both(
            &mut steps,
            |direction| chain(ip, direction, extensions),
            Ipv6Extension,
        );
    }
    steps
}

fn repeated(ip: Ip) -> Vec<Step> {
    vec![
        passes(Ingress, chain(ip, Ingress, &[EMPTY, ROUTED, EMPTY]), New),
        passes(Ingress, chain(ip, Ingress, &[ROUTED, ROUTED]), Established),
        passes(
            Ingress,
            chain(ip, Ingress, &[AUTHENTICATED, AUTHENTICATED]),
            Established,
        ),
        Step::Tracked(1),
    ]
}

fn routed(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    for kind in [0, 2, 3, 4, 253] {
        for left in [1, 255] {
            let source = [0, kind, left, 0, 0, 0, 0];
            let routing = (extension::ROUTING, &source[..]);
            both(
                &mut steps,
                |direction| chain(ip, direction, &[routing]),
                Ipv6Routing,
            );
            both(
                &mut steps,
                |direction| chain(ip, direction, &[EMPTY, routing]),
                Ipv6Routing,
            );
        }
    }
    steps
}

/// The fragment header, without what follows.
fn fragment(offset: u16, more: bool) -> Vec<u8> {
    let field = (offset | u16::from(more)).to_be_bytes();
    [&[0][..], &field, &fresh_id().to_be_bytes()].concat()
}

fn incomplete(ip: Ip) -> Vec<Step> {
    let first = fragment(0, true);
    let ends = ip.ends(Ingress);
    let mut steps = Vec::new();
    // An extension header that goes on in the next fragment.
    let open = [
        (extension::FRAGMENT, &first[..]),
        (extension::DESTINATION, &[2, 0, 0, 0, 0, 0, 0]),
    ];
    let frame = extended(ends, 64, &open, 6, &[0; 8]);
    steps.push(drops(Ingress, frame, Ipv6Extension));
    // No transport header at all, or a part of it.
    let closed = [(extension::FRAGMENT, &first[..]), EMPTY];
    for (protocol, len) in [(6, 0), (6, 19), (17, 0), (17, 7), (58, 4)] {
        let segment = frame::segment((40_000, 80), SYN, 1, 0, 0);
        let frame = extended(ends, 64, &closed, protocol, &segment[..len]);
        steps.push(drops(Ingress, frame, FragmentTiny));
    }
    steps
}

fn atomic(ip: Ip) -> Vec<Step> {
    let whole = fragment(0, false);
    let atomic = (extension::FRAGMENT, &whole[..]);
    let refused = extended(
        ip.ends(Ingress),
        64,
        &[atomic],
        17,
        &frame::datagram((40_000, 81), 0),
    );
    vec![
        drops(Ingress, refused, NoRule),
        passes(Ingress, chain(ip, Ingress, &[atomic]), New),
        passes(
            Ingress,
            chain(ip, Ingress, &[EMPTY, atomic, EMPTY]),
            Established,
        ),
        Step::Tracked(1),
    ]
}

fn two_fragment_headers(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    for first in [fragment(0, true), fragment(0, false)] {
        for second in [fragment(0, true), fragment(0, false), fragment(40, false)] {
            let two = [
                (extension::FRAGMENT, &first[..]),
                (extension::FRAGMENT, &second),
            ];
            both(
                &mut steps,
                |direction| chain(ip, direction, &two),
                Ipv6FragmentRepeated,
            );
            let apart = [two[0], EMPTY, two[1]];
            both(
                &mut steps,
                |direction| chain(ip, direction, &apart),
                Ipv6FragmentRepeated,
            );
        }
    }
    // Behind a later one there is only payload.
    let later = fragment(400, false);
    let whole = fragment(0, false);
    let two = [
        (extension::FRAGMENT, &later[..]),
        (extension::FRAGMENT, &whole),
    ];
    both(
        &mut steps,
        |direction| chain(ip, direction, &two),
        FragmentOrphan,
    );
    steps
}

fn jumbograms(ip: Ip) -> Vec<Step> {
    let mut steps = Vec::new();
    let without_length = |frame| spoiled(frame, IP + 4, &[0, 0]);
    for kind in [0, 6, 17, 43, 44, 50, 58, 60, 200] {
        let empty = |direction| frame::ip(ip.ends(direction), kind, &[]);
        both(&mut steps, empty, IpTotalLength);
    }
    // RFC 2675: the length stands in a hop-by-hop option.
    let jumbo: (u8, &[u8]) = (extension::HOP_BY_HOP, &[0, 0xc2, 4, 0, 0, 0, 16]);
    let with = |direction| without_length(chain(ip, direction, &[jumbo]));
    both(&mut steps, with, IpTotalLength);
    steps
}

fn embedded(ip: Ip) -> Vec<Step> {
    // 198.51.100.20 as compatible, 6to4 and translated address, which is not that address.
    let mut steps = Vec::new();
    for address in [
        "::198.51.100.20",
        "2002:c633:6414::1",
        "64:ff9b::198.51.100.20",
    ] {
        let flow = Flow::new(ip, 80, 80).with(at(address));
        for direction in Direction::ALL {
            let frame = flow.tcp(direction, SYN, 1, 0, 0);
            steps.push(drops(direction, frame, NoRule));
        }
    }
    steps.push(Step::State(None));
    steps
}
