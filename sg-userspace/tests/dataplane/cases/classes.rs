//! Which rule covers whom: prefixes, lists, groups, ranges, and their union.

use std::net::IpAddr;

use sg_common::{
    conntrack::tcp::SYN,
    verdict::{
        Direction::{self, Egress, Ingress},
        DropReason::NoRule,
        PassKind::{New, Stateless},
    },
};

use crate::{
    flow::Flow,
    frame::{Ip, at, icmp},
    table::{Case, Step, World, drops, interface, passes},
};

const GROUPS: &str = r#"
[groups.ranges]
ingress = [
  { protocol = "tcp", ports = ["0", "80", "1000-2000", "1500-3000", "65535"], cidr = ["198.51.100.0/24", "2001:db8:2::/48"] },
  { protocol = "udp", ports = "53-54", cidr = ["198.51.100.0/24", "2001:db8:2::/48"] },
]
egress = []

[groups.nested]
ingress = [
  { protocol = "tcp", ports = 10, cidr = ["10.0.0.0/8", "2001:db8::/32"] },
  { protocol = "tcp", ports = 20, cidr = ["10.2.0.0/16", "2001:db8:2::/48"] },
  { protocol = "tcp", ports = 30, cidr = ["10.2.3.4/32", "2001:db8:2::4/128"] },
  { protocol = "tcp", ports = 40, cidr = ["0.0.0.0/0", "::/0"] },
]
egress = []

[groups.lists]
ingress = []
egress = [ { protocol = "tcp", ports = 443, prefix_list = "offices" } ]

[prefix_lists.offices]
entries = ["198.51.100.16/28", "2001:db8:2:1::/64"]

[groups.friends]
ingress = [ { protocol = "tcp", ports = 7000, group = "friends" }, { protocol = "udp", ports = 7000, group = "others" } ]
egress = [ { protocol = "all", group = "others" } ]

[groups.others]
ingress = []
egress = []

[members.friends]
addresses = ["198.51.100.20", "2001:db8:2::20"]

[members.others]
addresses = ["198.51.100.20", "203.0.113.30", "2001:db8:2::20", "2001:db8:3::30"]

[groups.all]
ingress = [ { protocol = "all", cidr = "198.51.100.20/32" } ]
egress = [ { protocol = "all", cidr = "2001:db8:2::20/128" } ]
"#;

pub(crate) fn world() -> World {
    let interfaces = interface("ranges", r#"["ranges"]"#, "")
        + &interface("nested", r#"["nested"]"#, "")
        + &interface("lists", r#"["lists"]"#, "")
        + &interface("friends", r#"["friends"]"#, "")
        + &interface("union", r#"["lists", "nested", "friends"]"#, "")
        + &interface("all", r#"["all"]"#, "");
    World {
        name: "classes",
        definition: GROUPS.to_owned() + &interfaces,
        cases: vec![
            Case::new("port ranges end where they say", "ranges", ranges),
            Case::new(
                "the longest prefix has what the shorter ones allow",
                "nested",
                nested,
            ),
            Case::new("prefix lists", "lists", lists),
            Case::new("members of groups", "friends", friends),
            Case::new("the union of groups", "union", union),
            Case::new("everything, of one family and direction", "all", all),
        ],
    }
}

/// A first packet between a port of the workload and one of somebody else.
struct Opening {
    direction: Direction,
    remote: IpAddr,
    port: u16,
    udp: bool,
}

impl Opening {
    fn frame(&self) -> Vec<u8> {
        let ip = Ip::of(self.remote);
        let flow = match self.direction {
            Ingress => Flow::new(ip, self.port, 33_333),
            Egress => Flow::new(ip, 33_333, self.port),
        };
        let flow = flow.with(self.remote);
        if self.udp {
            flow.udp(self.direction)
        } else {
            flow.tcp(self.direction, SYN, 1, 0, 0)
        }
    }

    fn is(self, allowed: bool) -> Step {
        if allowed {
            passes(self.direction, self.frame(), New)
        } else {
            drops(self.direction, self.frame(), NoRule)
        }
    }
}

fn tcp(direction: Direction, remote: IpAddr, port: u16) -> Opening {
    Opening {
        direction,
        remote,
        port,
        udp: false,
    }
}

fn udp(direction: Direction, remote: IpAddr, port: u16) -> Opening {
    Opening {
        udp: true,
        ..tcp(direction, remote, port)
    }
}

fn ranges(ip: Ip) -> Vec<Step> {
    let peer = ip.peer();
    let mut steps = Vec::new();
    for port in [0, 80, 1000, 1499, 1500, 2000, 2001, 3000, 65_535] {
        steps.push(tcp(Ingress, peer, port).is(true));
        steps.push(tcp(Ingress, ip.stranger(), port).is(false));
        steps.push(tcp(Egress, peer, port).is(false));
    }
    for port in [1, 79, 81, 999, 3001, 65_534] {
        steps.push(tcp(Ingress, peer, port).is(false));
    }
    for (port, allowed) in [
        (52, false),
        (53, true),
        (54, true),
        (55, false),
        (80, false),
    ] {
        steps.push(udp(Ingress, peer, port).is(allowed));
    }
    steps.push(tcp(Ingress, peer, 53).is(false));
    steps
}

fn nested(ip: Ip) -> Vec<Step> {
    let within = ip.pick(
        ["10.9.9.9", "10.2.9.9", "10.2.3.4", "10.2.3.5", "192.0.2.9"],
        [
            "2001:db8:9::9",
            "2001:db8:2::9",
            "2001:db8:2::4",
            "2001:db8:2::5",
            "2001:db9::9",
        ],
    );
    let allowed: [&[u16]; 5] = [
        &[10, 40],
        &[10, 20, 40],
        &[10, 20, 30, 40],
        &[10, 20, 40],
        &[40],
    ];
    let mut steps = Vec::new();
    for (address, allowed) in within.into_iter().zip(allowed) {
        for port in [10, 20, 30, 40, 50] {
            steps.push(tcp(Ingress, at(address), port).is(allowed.contains(&port)));
        }
    }
    steps
}

fn lists(ip: Ip) -> Vec<Step> {
    let inside = ip.pick(
        ["198.51.100.16", "198.51.100.31"],
        ["2001:db8:2:1::", "2001:db8:2:1::9"],
    );
    let outside = ip.pick(
        ["198.51.100.15", "198.51.100.32"],
        ["2001:db8:2::9", "2001:db8:2:2::"],
    );
    let mut steps = Vec::new();
    for (address, allowed) in inside
        .map(|one| (one, true))
        .into_iter()
        .chain(outside.map(|one| (one, false)))
    {
        steps.push(tcp(Egress, at(address), 443).is(allowed));
        steps.push(tcp(Egress, at(address), 444).is(false));
        steps.push(tcp(Ingress, at(address), 443).is(false));
    }
    steps
}

fn friends(ip: Ip) -> Vec<Step> {
    let (both, other, nobody) = (ip.peer(), ip.stranger(), ip.router());
    vec![
        tcp(Ingress, both, 7000).is(true),
        tcp(Ingress, other, 7000).is(false),
        tcp(Ingress, nobody, 7000).is(false),
        udp(Ingress, both, 7000).is(true),
        udp(Ingress, other, 7000).is(true),
        udp(Ingress, nobody, 7000).is(false),
        udp(Ingress, other, 7001).is(false),
        tcp(Egress, both, 1).is(true),
        udp(Egress, other, 65_535).is(true),
        tcp(Egress, nobody, 1).is(false),
        passes(
            Egress,
            icmp((ip.workload(), other), ip.pick(13, 200), 3, &[0; 8]),
            Stateless,
        ),
        passes(
            Egress,
            Flow::new(ip, 0, 0).with(other).other(Egress, 132),
            New,
        ),
        drops(
            Egress,
            Flow::new(ip, 0, 0).with(nobody).other(Egress, 132),
            NoRule,
        ),
    ]
}

fn union(ip: Ip) -> Vec<Step> {
    let office = at(ip.pick("198.51.100.20", "2001:db8:2:1::20"));
    vec![
        tcp(Egress, office, 443).is(true),
        tcp(Ingress, ip.peer(), 40).is(true),
        tcp(Ingress, ip.peer(), 7000).is(true),
        tcp(Ingress, ip.peer(), 20).is(ip == Ip::V6),
        tcp(Ingress, ip.stranger(), 40).is(true),
        tcp(Ingress, ip.stranger(), 7000).is(false),
        tcp(Egress, ip.router(), 443).is(false),
    ]
}

fn all(ip: Ip) -> Vec<Step> {
    let (ingress, egress) = (ip == Ip::V4, ip == Ip::V6);
    vec![
        tcp(Ingress, ip.peer(), 9).is(ingress),
        tcp(Egress, ip.peer(), 9).is(egress),
        udp(Ingress, ip.peer(), 9).is(ingress),
        udp(Egress, ip.peer(), 9).is(egress),
        tcp(Ingress, ip.stranger(), 9).is(false),
        tcp(Egress, ip.stranger(), 9).is(false),
    ]
}
