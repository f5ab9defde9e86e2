//! Random packets between few addresses and ports, so that they meet flows, fragments and rules; a
//! part of them spoiled. Everything follows from a seed.

use std::net::IpAddr;

use sg_common::{
    conntrack::tcp::{ACK, FIN, PSH, RST, SYN},
    verdict::Direction,
};

use crate::{
    bench::Hook,
    flow::Flow,
    frame::{self, IP, Ip, extension},
    table::interface,
};

/// Policies of every kind. No timeout is shorter than the test: when exactly a flow idles out is not
/// what this is about.
pub(crate) fn definition() -> String {
    let timeouts = "timeouts = { tcp_syn_sent = 3600, tcp_syn_received = 3600, tcp_last_ack = 3600, tcp_time_wait = 3600, tcp_close = 3600, tcp_unacknowledged = 3600, icmp = 3600, udp = 60 }";
    let addresses = r#"addresses = ["10.1.0.10", "2001:db8:1::10"]"#;
    GROUPS.to_owned()
        + &interface(
            "server",
            r#"["server"]"#,
            &format!("{timeouts}\n{addresses}"),
        )
        + &interface(
            "client",
            r#"["client"]"#,
            &format!("{timeouts}\nallowance = 40"),
        )
        + &interface(
            "mixed",
            r#"["client", "server"]"#,
            &format!("{timeouts}\ntcp_loose = true"),
        )
        + &interface("open", r#"["open", "server"]"#, timeouts)
        + &interface(
            "always",
            r#"["open"]"#,
            &format!("{timeouts}\ntrack = \"always\""),
        )
        + &interface(
            "off",
            "[]",
            &format!(
                "{timeouts}\ndhcp = false\nmld = false\nnd_redirect = true\nicmp_errors = \"strict\""
            ),
        )
}

const GROUPS: &str = r#"
services = ["169.254.169.254", "fd00:ec2::254"]

[groups.server]
ingress = [
  { protocol = "tcp", ports = ["1-2", "80"], cidr = ["198.51.100.0/24", "2001:db8:2::/48"] },
  { protocol = "udp", ports = "2-80", cidr = ["0.0.0.0/0", "::/0"] },
  { protocol = "icmp", type = 8, cidr = "0.0.0.0/0" },
  { protocol = "icmpv6", type = 128, cidr = "::/0" },
  { protocol = 47, prefix_list = "some" },
]
egress = []

[groups.client]
ingress = [ { protocol = "icmp", type = 3, cidr = "192.0.2.0/24" } ]
egress = [
  { protocol = "tcp", ports = "2-80", group = "server" },
  { protocol = "udp", ports = 80, group = "server" },
  { protocol = "all", prefix_list = "some" },
]

[groups.open]
ingress = [ { protocol = "all", cidr = "0.0.0.0/0" }, { protocol = "tcp", ports = 80, cidr = "::/0" } ]
egress = [ { protocol = "all", cidr = ["0.0.0.0/0", "::/0"] } ]

[prefix_lists.some]
entries = ["203.0.113.0/27", "2001:db8:3::/64"]

[members.server]
addresses = ["198.51.100.20", "2001:db8:2::20"]
"#;

pub(crate) const INTERFACES: [&str; 12] = [
    "server-own",
    "server-host",
    "client-own",
    "client-host",
    "mixed-own",
    "mixed-host",
    "open-own",
    "open-host",
    "always-own",
    "always-host",
    "off-own",
    "off-host",
];

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, end: usize) -> bool {
        self.below(end) == 0
    }

    fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len())]
    }

    /// A packet and where it is seen.
    pub(crate) fn packet(&mut self) -> (&'static str, Hook, Vec<u8>) {
        let name = self.of(&INTERFACES);
        let direction = self.of(&Direction::ALL);
        let arrives = (direction == Direction::Ingress) == name.ends_with("own");
        let hook = match (arrives, self.one_in(2)) {
            (false, _) => Hook::TcEgress,
            (true, true) => Hook::Xdp,
            (true, false) => Hook::TcIngress,
        };
        let ip = self.of(&Ip::BOTH);
        let frame = self.frame(ip, direction);
        (name, hook, self.spoil(frame))
    }

    fn remote(&mut self, ip: Ip) -> IpAddr {
        match self.below(24) {
            20 => frame::at(ip.pick("127.0.0.1", "::1")),
            0 => frame::at(ip.pick("169.254.169.254", "fd00:ec2::254")),
            1 => frame::at(ip.pick("203.0.113.40", "2001:db8:3:1::1")),
            2 => ip.router(),
            3..=8 => ip.stranger(),
            _ => ip.peer(),
        }
    }

    fn flow(&mut self, ip: Ip) -> Flow {
        let ports = [1, 2, 80];
        let remote = self.remote(ip);
        Flow::new(ip, self.of(&ports), self.of(&ports)).with(remote)
    }

    fn frame(&mut self, ip: Ip, direction: Direction) -> Vec<u8> {
        let flow = self.flow(ip);
        match self.below(30) {
            0 | 1 => self.error(ip, direction),
            2 | 8 => self.link(direction),
            3 => self.dhcp(ip),
            4 | 5 => self.fragment(&flow, direction),
            6 if ip == Ip::V6 => self.extended(&flow, direction),
            7 => {
                let rest: [u8; 12] = std::array::from_fn(|_| self.next() as u8);
                let (kind, code) = (self.next() as u8, self.of(&[0, 1]));
                frame::icmp(flow.ends(direction), kind, code, &rest)
            }
            _ => self.plain(&flow, direction),
        }
    }

    /// A packet of a flow. Numbers are few, so that acknowledgements fit now and then.
    fn plain(&mut self, flow: &Flow, direction: Direction) -> Vec<u8> {
        match self.below(10) {
            0 | 1 => flow.udp(direction),
            2 => flow.ask(direction),
            3 => flow.answer(direction),
            4 => {
                let protocol = self.of(&[47, 50, 132]);
                flow.other(direction, protocol)
            }
            _ => {
                let usual = [
                    SYN,
                    SYN,
                    SYN | ACK,
                    SYN | ACK,
                    ACK,
                    ACK,
                    PSH | ACK,
                    FIN | ACK,
                    RST,
                    RST | ACK,
                ];
                let flags = if self.one_in(30) {
                    self.below(64) as u8
                } else {
                    self.of(&usual)
                };
                let numbers = [100, 101, 102, 103];
                let (sequence, ack) = (self.of(&numbers), self.of(&numbers));
                let len = self.of(&[0, 0, 0, 1]);
                flow.tcp(direction, flags, sequence, ack, len)
            }
        }
    }

    fn error(&mut self, ip: Ip, direction: Direction) -> Vec<u8> {
        let flow = self.flow(ip);
        let way = if self.one_in(8) {
            direction
        } else {
            direction.reverse()
        };
        let mut quoted = if self.one_in(10) {
            self.fragment(&flow, way)
        } else {
            self.plain(&flow, way)
        };
        if self.one_in(3) {
            let least = quoted.len().min(IP + ip.pick(20, 40) + 8);
            quoted.truncate(if self.one_in(4) { least - 1 } else { least });
        }
        let (mut source, destination) = flow.ends(direction);
        if self.one_in(2) {
            source = ip.router();
        }
        let kind = self.of(ip.pick(&[3, 11, 12], &[1, 2, 3, 4]));
        let rest = [&[0; 4], &quoted[IP..]].concat();
        frame::icmp((source, destination), kind, 0, &rest)
    }

    /// ARP, neighbours, routers, listeners.
    fn link(&mut self, direction: Direction) -> Vec<u8> {
        let (near, far) = ("fe80::10", "fe80::1");
        let (from, to) = match direction {
            Direction::Ingress => (far, near),
            Direction::Egress => (near, far),
        };
        match self.below(3) {
            0 => {
                let sender = self.of(&["10.1.0.10", "10.1.0.1", "0.0.0.0"]);
                let operation = self.of(&[1, 2, 2, 3]);
                frame::arp(operation, frame::at(sender), Ip::V4.peer())
            }
            1 => {
                let target = self.of(&["2001:db8:1::10", "2001:db8:1::11", near]);
                let (ttl, kind) = (
                    self.of(&[255, 255, 254]),
                    self.of(&[133, 134, 135, 136, 136, 137]),
                );
                let ends = (frame::at(from), frame::at(to));
                frame::neighbor(ends, ttl, kind, target.parse().unwrap())
            }
            _ => {
                let rest = self.of(&[frame::ROUTER_ALERT, frame::ROUTER_ALERT, frame::NOTHING]);
                let kind = self.of(&[130, 131, 132, 143]);
                let body = frame::message(kind, 0, &[0; 20]);
                let ends = (frame::at(self.of(&[from, "::"])), frame::at("ff02::16"));
                let ttl = self.of(&[1, 1, 64]);
                frame::extended(ends, ttl, &[(extension::HOP_BY_HOP, rest)], 58, &body)
            }
        }
    }

    fn dhcp(&mut self, ip: Ip) -> Vec<u8> {
        let ports = self.of(ip.pick(&[(68, 67), (67, 68)], &[(546, 547), (547, 546)]));
        let from = self.of(ip.pick(&["0.0.0.0", "10.1.0.1"], &["fe80::10", "2001:db8::1"]));
        let to = self.of(ip.pick(
            &["255.255.255.255", "10.1.0.10"],
            &["ff02::1:2", "fe80::10"],
        ));
        frame::ip(
            (frame::at(from), frame::at(to)),
            17,
            &frame::datagram(ports, 20),
        )
    }

    fn fragment(&mut self, flow: &Flow, direction: Direction) -> Vec<u8> {
        let id = self.below(4) as u32;
        let (protocol, whole) = if self.one_in(2) {
            (17, frame::datagram(flow.ports(direction), 16))
        } else {
            (6, frame::segment(flow.ports(direction), SYN, 100, 0, 44))
        };
        let offset = self.of(&[0, 0, 8, 24, 64]);
        let more = self.one_in(2);
        let len = if self.one_in(6) { 8 } else { whole.len() };
        frame::fragment(
            flow.ends(direction),
            protocol,
            id,
            offset,
            more,
            &whole[..len],
        )
    }

    fn extended(&mut self, flow: &Flow, direction: Direction) -> Vec<u8> {
        let kinds = [
            extension::HOP_BY_HOP,
            extension::ROUTING,
            extension::DESTINATION,
            extension::FRAGMENT,
            extension::AUTHENTICATION,
            135,
            59,
        ];
        let rests: [&[u8]; 4] = [
            frame::NOTHING,
            &[0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        let chain: Vec<_> = (0..1 + self.below(9))
            .map(|_| (self.of(&kinds), self.of(&rests)))
            .collect();
        let body = frame::datagram(flow.ports(direction), 4);
        frame::extended(flow.ends(direction), 64, &chain, 17, &body)
    }

    /// Spoils one frame in five: bytes changed, cut off or added.
    fn spoil(&mut self, mut frame: Vec<u8>) -> Vec<u8> {
        match self.below(24) {
            0 => {
                let at = self.below(frame.len().min(80));
                frame[at] = self.next() as u8;
            }
            1 => {
                let at = IP + self.below(8);
                let bit = self.below(8);
                frame[at] ^= 1 << bit;
            }
            2 => frame.truncate(IP + self.below(frame.len() - IP)),
            3 => {
                let kind = self.of(&[[0x81, 0x00], [0x88, 0xa8], [0x08, 0x00], [0x86, 0xdd]]);
                frame[12..IP].copy_from_slice(&kind);
            }
            4 => frame.resize(frame.len() + 1 + self.below(40), 0),
            _ => {}
        }
        frame
    }
}
