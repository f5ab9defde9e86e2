//! Two enforced workloads on one bridge: the sender's egress and the receiver's ingress both judge.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketType, bind, connect, socket,
        sockopt::{Timeout, set_socket_timeout},
    },
};
use sg_common::conntrack::tcp::{ACK, SYN};

use crate::{
    common::{
        netns::{Answer, Enforcer, NEVER, Namespace, Server, answers, eventually, ip},
        require::require,
    },
    counters::Counters,
    echo::Pinger,
    frame,
    injector::{Injector, Way},
    link::{Family, Orientation},
    silence,
    traffic::{datagrams, question_and_answer, question_is_dropped},
};

/// A client, a server, and the host whose bridge joins them.
struct Segment {
    enforcer: Enforcer,
    client: Namespace,
    server: Namespace,
    host: Namespace,
}

impl Segment {
    fn new() -> Self {
        let segment = Self {
            enforcer: Enforcer::new(),
            client: Namespace::new("client"),
            server: Namespace::new("server"),
            host: Namespace::new("host"),
        };
        let host = &segment.host;
        host.ip("link add br0 type bridge mcast_snooping 0");
        host.ip("link set br0 up");
        for (end, port, number) in [(&segment.client, "c0", 1), (&segment.server, "s0", 2)] {
            ip(&format!(
                "link add {port} netns {} type veth peer name eth0 netns {}",
                host.name, end.name
            ));
            host.ip(&format!("link set {port} master br0 up"));
            end.ip("link set eth0 up");
            end.ip(&format!("addr add 10.77.0.{number}/24 dev eth0"));
            end.ip(&format!("addr add fd77::{number}/64 dev eth0 nodad"));
        }
        segment
    }

    /// Rules that name the other's group, in one or both of the two places where they must stand.
    fn enforce(&self, orientation: Orientation, egress: bool, ingress: bool) -> Answer {
        let rule = |there: bool, group: &str| {
            let kinds = [
                "protocol = \"tcp\", ports = 8080",
                "protocol = \"udp\", ports = 5353",
                "protocol = \"icmp\", type = 8",
                "protocol = \"icmpv6\", type = 128",
            ];
            let rules = kinds.map(|kind| format!("{{ {kind}, group = \"{group}\" }}, "));
            if there { rules.concat() } else { String::new() }
        };
        let mut definition = format!(
            "[groups.client]\ningress = []\negress = [{}]\n[groups.server]\ningress = [{}]\negress = []\n",
            rule(egress, "server"),
            rule(ingress, "client"),
        );
        let interfaces = [
            ("client", &self.client, "c0", 1),
            ("server", &self.server, "s0", 2),
        ];
        for (name, own, port, number) in interfaces {
            let (word, netns, device) = match orientation {
                Orientation::Own => ("own", &own.name, "eth0"),
                Orientation::Host => ("host", &self.host.name, port),
            };
            definition += &format!(
                "[interfaces.{name}]\ndevice = \"{device}\"\nnetns = \"{netns}\"\n\
                 orientation = \"{word}\"\ngroups = [\"{name}\"]\n\
                 addresses = [\"10.77.0.{number}\", \"fd77::{number}\"]\n"
            );
        }
        self.enforcer.apply(&definition, &[]).ok()
    }

    /// Ports of the bridge whose workloads may send anything to each other, and may be sent nothing.
    fn free_senders(&self, addresses_known: bool) {
        let out = "{ protocol = \"all\", cidr = [\"10.77.0.0/24\", \"fd77::/64\"] }";
        let mut definition = String::new();
        for (name, device, number) in [("client", "c0", 1), ("server", "s0", 2)] {
            definition += &format!(
                "[groups.{name}]\ningress = []\negress = [{out}]\n\
                 [interfaces.{name}]\ndevice = \"{device}\"\nnetns = \"{}\"\n\
                 orientation = \"host\"\ngroups = [\"{name}\"]\n",
                self.host.name
            );
            if addresses_known {
                definition += &format!("addresses = [\"10.77.0.{number}\", \"fd77::{number}\"]\n");
            }
        }
        self.enforcer.apply(&definition, &[]).ok();
    }

    fn counters(&self) -> [Counters; 2] {
        ["client", "server"].map(|name| Counters::read(&self.enforcer, name))
    }
}

#[test]
fn j1_both_ends_judge_at_their_own_devices() {
    require!(Root, Object);
    judge(Orientation::Own);
}

#[test]
fn j1_both_ends_judge_at_the_ports_of_the_bridge() {
    require!(Root, Object);
    judge(Orientation::Host);
}

fn judge(orientation: Orientation) {
    let segment = Segment::new();
    let talks = Family::ALL.map(|family| Talk::new(&segment, family));
    // TCP, UDP and echo, in both families.
    const KINDS: u64 = 6;
    let silent = || {
        let [four, six] = &talks;
        silence::all(&[
            ("TCP over IPv4", &|| four.connect_is_dropped()),
            ("TCP over IPv6", &|| six.connect_is_dropped()),
            ("UDP over IPv4", &|| four.question_is_dropped()),
            ("UDP over IPv6", &|| six.question_is_dropped()),
            ("echo over IPv4", &|| four.ping_is_dropped()),
            ("echo over IPv6", &|| six.ping_is_dropped()),
        ]);
    };

    segment.enforce(orientation, true, true);
    let before = segment.counters();
    for talk in &talks {
        talk.works();
    }
    let after = segment.counters();
    assert_eq!(after[0].passed(&before[0], "egress", "new"), KINDS);
    assert_eq!(after[1].passed(&before[1], "ingress", "new"), KINDS);
    after[0].only(&before[0], "ingress", &["passed_established"]);
    after[1].only(&before[1], "egress", &["passed_established"]);

    segment.enforce(orientation, true, false);
    let before = segment.counters();
    silent();
    let after = segment.counters();
    assert_eq!(after[0].passed(&before[0], "egress", "new"), KINDS);
    assert!(after[1].dropped(&before[1], "ingress", "no_rule") >= KINDS);

    for ingress in [true, false] {
        segment.enforce(orientation, false, ingress);
        let before = segment.counters();
        silent();
        let after = segment.counters();
        assert!(after[0].dropped(&before[0], "egress", "no_rule") >= KINDS);
        assert_eq!(after[1].passed(&before[1], "ingress", "new"), 0);
        assert_eq!(after[1].dropped(&before[1], "ingress", "no_rule"), 0);
    }
}

/// What the client asks of the server, each time as a flow of its own.
struct Talk<'a> {
    segment: &'a Segment,
    client: IpAddr,
    server: IpAddr,
    pinger: Pinger,
    identifier: AtomicU16,
    answering: UdpSocket,
    _listening: Server,
}

impl<'a> Talk<'a> {
    fn new(segment: &'a Segment, family: Family) -> Self {
        let (client, server) = (family.address(1), family.address(2));
        Self {
            segment,
            client,
            server,
            pinger: Pinger::new(&segment.client, client),
            identifier: AtomicU16::new(1),
            answering: datagrams(&segment.server, server, 5353),
            _listening: segment.server.serve(server, 8080),
        }
    }

    fn identifier(&self) -> u16 {
        self.identifier.fetch_add(1, Ordering::Relaxed)
    }

    #[track_caller]
    fn works(&self) {
        let stream = self.segment.client.connect(self.server, 8080);
        assert!(answers(&mut stream.unwrap()));
        let asking = datagrams(&self.segment.client, self.client, 0);
        question_and_answer(&asking, &self.answering, 100);
        assert!(self.pinger.pings(self.server, self.identifier()));
    }

    fn connect_is_dropped(&self) -> bool {
        self.segment.client.connect_is_dropped(self.server, 8080)
    }

    fn question_is_dropped(&self) -> bool {
        let asking = datagrams(&self.segment.client, self.client, 0);
        question_is_dropped(&asking, &self.answering, 100)
    }

    fn ping_is_dropped(&self) -> bool {
        self.pinger.ping_is_dropped(self.server, self.identifier())
    }
}

/// The attacker may send what it likes, and sends in the victim's name from its own port. Should
/// that make an entry which answers for the victim's interface, the attacker's own packet would
/// pass there as a reply.
#[test]
fn j4_what_an_attacker_sends_in_the_victims_name_opens_nothing() {
    require!(Root, Object);
    let segment = Segment::new();
    segment.free_senders(false);
    Injector::ends((&segment.client, "eth0"), (&segment.server, "eth0"));
    let injector = Injector::new(&segment.client, "eth0", Way::Ordinary);
    const SOURCE: u16 = 31_337;
    for family in Family::ALL {
        let (attacker, victim) = (family.address(1), family.address(2));
        let _listening = segment.server.serve(victim, 80);
        let forged = (victim, attacker);
        let before = segment.counters();
        let datagram = frame::datagram((80, SOURCE), 4);
        let segments = [
            frame::segment((80, SOURCE), SYN, 1, 0, 0),
            frame::segment((80, SOURCE), SYN | ACK, 1, 1, 0),
        ];
        for (protocol, body) in [(17, &datagram), (6, &segments[0]), (6, &segments[1])] {
            injector.send(&frame::ip(forged, protocol, body));
        }
        eventually("the forged packets", || {
            segment.counters()[0].passed(&before[0], "egress", "new") == 2
        });
        let poisoned = segment.counters();

        let asking = datagrams(&segment.client, attacker, SOURCE);
        let answering = datagrams(&segment.server, victim, 80);
        silence::all(&[
            ("TCP", &|| {
                connect_from(&segment, (attacker, SOURCE), victim)
            }),
            ("UDP", &|| question_is_dropped(&asking, &answering, 100)),
        ]);
        let after = segment.counters();
        assert!(after[1].dropped(&poisoned[1], "ingress", "no_rule") >= 2);
        assert_eq!(after[1].passed(&poisoned[1], "ingress", "established"), 0);
    }
}

/// Where addresses are known, what is sent in another's name does not leave.
#[test]
fn j5_what_is_sent_in_anothers_name_does_not_leave() {
    require!(Root, Object);
    let segment = Segment::new();
    Injector::ends((&segment.client, "eth0"), (&segment.server, "eth0"));
    let injector = Injector::new(&segment.client, "eth0", Way::Ordinary);
    // An address that nobody has, in the victim's own network.
    let socket = datagrams(&segment.server, Family::V4.address(2), 5353);
    let datagram = frame::datagram((40_000, 5353), 4);
    let forged = (Family::V4.address(9), Family::V4.address(2));
    let forged = frame::ip(forged, 17, &datagram);
    injector.send(&forged);
    socket.recv(&mut [0; 4]).unwrap();

    segment.free_senders(true);
    let before = segment.counters();
    injector.send(&forged);
    for family in Family::ALL {
        // In nobody's name, and in the victim's.
        for source in [9, 2] {
            let ends = (family.address(source), family.address(1));
            injector.send(&frame::ip(ends, 17, &datagram));
        }
    }
    eventually("the drops", || {
        segment.counters()[0].dropped(&before[0], "egress", "address_spoofed") == 5
    });
    let after = segment.counters();
    after[0].only(&before[0], "egress", &["dropped_address_spoofed"]);
    after[1].only(&before[1], "ingress", &[]);
    assert_eq!(after[0].get("conntrack_tracked"), 0);
    // Its own name it may use.
    let asking = datagrams(&segment.client, Family::V4.address(1), 0);
    asking.send_to(b"?", (Family::V4.address(2), 5353)).unwrap();
    eventually("the datagram", || {
        segment.counters()[0].passed(&after[0], "egress", "new") == 1
    });
}

/// Whether a connection from this port to port 80 is met by silence.
fn connect_from(segment: &Segment, from: (IpAddr, u16), to: IpAddr) -> bool {
    let family = match to {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let connected = segment.client.run(|| {
        let socket = socket(family, SocketType::STREAM, None).unwrap();
        set_socket_timeout(&socket, Timeout::Send, Some(NEVER)).unwrap();
        bind(&socket, &SocketAddr::from(from)).unwrap();
        connect(&socket, &SocketAddr::from((to, 80)))
    });
    connected == Err(Errno::INPROGRESS)
}
