//! Whose packets a workload sends, and whose it gets (fact 5.5).

use std::net::IpAddr;

use sg_common::{
    conntrack::tcp::{ACK, SYN},
    verdict::{
        Direction::{Egress, Ingress},
        DropReason::{
            AddressSpoofed, DestinationForeign, IcmpQuote, IcmpUnrelated, IpSource, MidStream,
            NoRule,
        },
        PassKind::{Dhcp, Established, Fragment, New, Related, Service, Untracked},
    },
};

use super::tcp::handshake;
use crate::{
    flow::Flow,
    frame::{self, Ip, at, fragment, fresh_id, unreachable},
    table::{Case, Only, Step, World, drops, interface, passes},
};

const GROUPS: &str = r#"
services = ["169.254.169.254", "fd00:ec2::254"]

[groups.both]
ingress = [ { protocol = "tcp", ports = 80, cidr = ["0.0.0.0/0", "::/0"] }, { protocol = "udp", ports = 80, cidr = ["0.0.0.0/0", "::/0"] } ]
egress = [ { protocol = "udp", ports = "0-65535", cidr = ["198.51.100.0/24", "2001:db8:2::/48"] } ]

[groups.open]
ingress = [ { protocol = "all", cidr = ["0.0.0.0/0", "::/0"] } ]
egress = [ { protocol = "all", cidr = ["0.0.0.0/0", "::/0"] } ]
"#;

pub(crate) fn world() -> World {
    let addresses = r#"addresses = ["10.1.0.10", "10.1.0.12", "2001:db8:1::10", "2001:db8:1::12"]"#;
    let checked = format!("{addresses}\nsource_dest_check = true");
    let router = format!("{addresses}\nsource_dest_check = false");
    let both = r#"["both"]"#;
    World {
        name: "spoofing",
        definition: GROUPS.to_owned()
            + &interface("known", both, addresses)
            + &interface("checked", both, &checked)
            + &interface("router", both, &router)
            + &interface("unknown", both, "")
            + &interface("open", r#"["open"]"#, &checked),
        cases: vec![
            Case::new("J5 a source that is not the workload's", "known", spoofed).only(Only::Host),
            Case::new(
                "B6 J5 a client that claims to be somebody",
                "known",
                claiming,
            )
            .only(Only::Host),
            Case::new(
                "J5 a destination that is not the workload's",
                "known",
                foreign,
            )
            .only(Only::Host),
            Case::new(
                "J5 checked at the workload where told so",
                "checked",
                checked_both,
            ),
            Case::new(
                "J5 not checked at the workload otherwise",
                "known",
                unchecked,
            )
            .only(Only::Own),
            Case::new("J5 not checked of a router", "router", unchecked),
            Case::new(
                "J5 not checked where no address is known",
                "unknown",
                unchecked,
            ),
            Case::new("J5 untracked flows are checked", "open", untracked),
            Case::new("J5 every address of the workload", "checked", each),
            Case::new("J5 fragments in another's name", "checked", fragments),
            Case::new(
                "J5 errors in another's name, and for another",
                "checked",
                errors,
            ),
            Case::new(
                "J5 services are for the workload's own",
                "checked",
                services,
            ),
            Case::new(
                "B7 J5 sources and destinations that are exempt",
                "checked",
                exempt,
            ),
        ],
    }
}

fn other(ip: Ip) -> IpAddr {
    at(ip.pick("10.1.0.11", "2001:db8:1::11"))
}

/// Between another's port 80 and the peer.
fn in_anothers_name(ip: Ip) -> Flow {
    Flow {
        local: (other(ip), 80),
        ..Flow::new(ip, 80, 40_000)
    }
}

/// A DHCP client that claims to be somebody.
fn claiming(_: Ip) -> Vec<Step> {
    let ends = (at("10.1.0.11"), at("255.255.255.255"));
    let discover = frame::ip(ends, 17, &frame::datagram((68, 67), 240));
    vec![drops(Egress, discover, AddressSpoofed)]
}

fn spoofed(ip: Ip) -> Vec<Step> {
    let flow = in_anothers_name(ip);
    vec![
        drops(Egress, flow.udp(Egress), AddressSpoofed),
        drops(Egress, flow.tcp(Egress, SYN, 1, 0, 0), AddressSpoofed),
        drops(Egress, flow.tcp(Egress, SYN | ACK, 1, 1, 0), AddressSpoofed),
        drops(Egress, flow.ask(Egress), AddressSpoofed),
        drops(Egress, flow.other(Egress, 47), AddressSpoofed),
        Step::State(None),
        // What could not be said leaves nothing to answer.
        drops(Ingress, flow.tcp(Ingress, ACK, 1, 1, 0), DestinationForeign),
    ]
}

fn foreign(ip: Ip) -> Vec<Step> {
    let flow = in_anothers_name(ip);
    vec![
        drops(Ingress, flow.udp(Ingress), DestinationForeign),
        drops(Ingress, flow.tcp(Ingress, SYN, 1, 0, 0), DestinationForeign),
        drops(Ingress, flow.ask(Ingress), DestinationForeign),
        drops(Ingress, flow.other(Ingress, 47), DestinationForeign),
        Step::State(None),
    ]
}

fn checked_both(ip: Ip) -> Vec<Step> {
    let mut steps = spoofed(ip);
    steps.extend(foreign(ip));
    // Its own is what it always was.
    let own = Flow::new(ip, 80, 40_001);
    steps.extend(handshake(own));
    steps.extend([
        passes(Egress, Flow::new(ip, 50_000, 53).udp(Egress), New),
        drops(Egress, own.ask(Egress), NoRule),
        drops(
            Ingress,
            Flow::new(ip, 81, 9).tcp(Ingress, ACK, 1, 1, 0),
            MidStream,
        ),
    ]);
    steps
}

fn unchecked(ip: Ip) -> Vec<Step> {
    let flow = in_anothers_name(ip);
    vec![
        passes(Ingress, flow.udp(Ingress), New),
        passes(Egress, flow.udp(Egress), Established),
        passes(Ingress, flow.tcp(Ingress, SYN, 1, 0, 0), New),
        drops(Egress, flow.ask(Egress), NoRule),
        Step::Tracked(2),
    ]
}

fn untracked(ip: Ip) -> Vec<Step> {
    let (own, flow) = (Flow::new(ip, 80, 40_002), in_anothers_name(ip));
    vec![
        passes(Egress, own.udp(Egress), Untracked),
        passes(Ingress, own.tcp(Ingress, ACK, 1, 1, 0), Untracked),
        drops(Egress, flow.udp(Egress), AddressSpoofed),
        drops(Egress, flow.tcp(Egress, ACK, 1, 1, 0), AddressSpoofed),
        drops(Ingress, flow.udp(Ingress), DestinationForeign),
        drops(Ingress, flow.tcp(Ingress, ACK, 1, 1, 0), DestinationForeign),
    ]
}

fn each(ip: Ip) -> Vec<Step> {
    let first = Flow::new(ip, 80, 40_003);
    let second = Flow {
        local: (at(ip.pick("10.1.0.12", "2001:db8:1::12")), 80),
        ..first
    };
    let mut steps = handshake(first);
    steps.extend([
        passes(Ingress, second.udp(Ingress), New),
        passes(Egress, second.udp(Egress), Established),
        Step::Tracked(2),
    ]);
    steps
}

fn fragments(ip: Ip) -> Vec<Step> {
    let (own, flow) = (Flow::new(ip, 80, 40_004), in_anothers_name(ip));
    let mut steps = Vec::new();
    for (direction, reason) in [(Egress, AddressSpoofed), (Ingress, DestinationForeign)] {
        let id = fresh_id();
        let ends = flow.ends(direction);
        let first = frame::datagram(flow.ports(direction), 16);
        steps.extend([
            drops(direction, fragment(ends, 17, id, 0, true, &first), reason),
            drops(
                direction,
                fragment(ends, 17, id, 24, false, &[0; 16]),
                reason,
            ),
        ]);
    }
    let id = fresh_id();
    let first = frame::datagram(own.ports(Ingress), 16);
    let ends = own.ends(Ingress);
    steps.extend([
        passes(Ingress, fragment(ends, 17, id, 0, true, &first), New),
        passes(
            Ingress,
            fragment(ends, 17, id, 24, false, &[0; 16]),
            Fragment,
        ),
    ]);
    steps
}

fn errors(ip: Ip) -> Vec<Step> {
    let (own, flow) = (Flow::new(ip, 80, 40_005), in_anothers_name(ip));
    let about_own = own.udp(Ingress);
    vec![
        passes(Ingress, about_own.clone(), New),
        passes(Egress, unreachable(own.ends(Egress), &about_own), Related),
        // By another about the workload's flow, as a router on the way would; for another; about
        // another's packet. Whom a quote is from is looked at first.
        drops(
            Egress,
            unreachable((other(ip), ip.peer()), &about_own),
            AddressSpoofed,
        ),
        drops(
            Ingress,
            unreachable((ip.router(), other(ip)), &flow.udp(Egress)),
            DestinationForeign,
        ),
        drops(
            Ingress,
            unreachable((ip.router(), ip.workload()), &flow.udp(Egress)),
            IcmpQuote,
        ),
        drops(
            Ingress,
            unreachable((ip.router(), other(ip)), &own.udp(Egress)),
            IcmpQuote,
        ),
        drops(
            Ingress,
            unreachable(
                (ip.router(), ip.workload()),
                &Flow::new(ip, 9, 9).udp(Egress),
            ),
            IcmpUnrelated,
        ),
    ]
}

fn services(ip: Ip) -> Vec<Step> {
    let service = at(ip.pick("169.254.169.254", "fd00:ec2::254"));
    let (own, flow) = (Flow::new(ip, 50_000, 80), in_anothers_name(ip));
    vec![
        passes(Egress, own.with(service).udp(Egress), Service),
        passes(Ingress, own.with(service).udp(Ingress), Service),
        drops(Egress, flow.with(service).udp(Egress), AddressSpoofed),
        drops(Ingress, flow.with(service).udp(Ingress), DestinationForeign),
    ]
}

fn exempt(ip: Ip) -> Vec<Step> {
    let to = |destination: &str| Flow {
        local: (at(destination), 81),
        ..Flow::new(ip, 81, 40_006)
    };
    let mut steps = vec![
        // To a group of listeners: judged by the rules, which have none.
        drops(
            Ingress,
            to(ip.pick("224.0.0.251", "ff02::fb")).udp(Ingress),
            NoRule,
        ),
    ];
    match ip {
        Ip::V4 => {
            let discover = frame::datagram((68, 67), 240);
            let from_nowhere = (at("0.0.0.0"), at("255.255.255.255"));
            let other = (at("10.1.0.11"), at("255.255.255.255"));
            let general = (at("0.0.0.0"), at("224.0.0.1"));
            steps.extend([
                drops(Ingress, to("255.255.255.255").udp(Ingress), NoRule),
                drops(Ingress, to("10.1.0.255").udp(Ingress), DestinationForeign),
                // A client that has no address yet; a report of one.
                passes(Egress, frame::ip(from_nowhere, 17, &discover), Dhcp),
                drops(Egress, frame::ip(general, 2, &[0x16; 8]), NoRule),
                drops(Egress, frame::ip(general, 17, &discover), IpSource),
                drops(
                    Egress,
                    frame::ip(other, 17, &frame::datagram((9, 9), 8)),
                    AddressSpoofed,
                ),
            ]);
        }
        Ip::V6 => {
            let link_local = Flow::new(ip, 80, 40_007);
            let link_local = Flow {
                local: (at("fe80::10"), 80),
                remote: (at("fe80::1"), 40_007),
                ..link_local
            };
            steps.extend([
                passes(Ingress, link_local.udp(Ingress), New),
                passes(Egress, link_local.udp(Egress), Established),
                drops(Egress, link_local.ask(Egress), NoRule),
            ]);
        }
    }
    steps
}
