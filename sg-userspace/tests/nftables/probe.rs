//! Conversations, packet by packet. Each has an address of the workload to itself, so that none
//! meets another's flows, and every packet is sent, whatever became of those before it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU32, Ordering},
};

use sg_common::verdict::Direction;

use crate::{
    packet::{
        self, Ends,
        flag::{ACK, FIN, RST, SYN},
    },
    translate::Family,
};

/// A packet on its way.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) direction: Direction,
    pub(crate) frame: Vec<u8>,
    /// The difference by which this packet may be judged otherwise.
    pub(crate) difference: Option<&'static str>,
}

/// A conversation.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) what: String,
    pub(crate) local: IpAddr,
    pub(crate) remote: IpAddr,
    /// Protocol, port of the workload and port of the remote end, of TCP and UDP.
    pub(crate) flow: Option<(u8, u16, u16)>,
    pub(crate) steps: Vec<Step>,
}

/// An address of the workload that nobody else has.
fn fresh_local(family: Family) -> IpAddr {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    assert!(number < 1 << 20, "no more addresses");
    family.pick(
        Ipv4Addr::from_bits(0xac10_0000 | number).into(),
        Ipv6Addr::from_bits(0xfd00_0077_u128 << 96 | u128::from(number)).into(),
    )
}

/// First sequence numbers of the side that opens and of the other.
const FIRST: (u32, u32) = (1000, 5000);

impl Probe {
    /// A conversation without packets.
    pub(crate) fn new(what: impl Into<String>, remote: IpAddr) -> Self {
        Self {
            what: format!("{} with {remote}", what.into()),
            local: fresh_local(Family::of(remote)),
            remote,
            flow: None,
            steps: Vec::new(),
        }
    }

    /// Source and destination.
    pub(crate) fn ends(&self, direction: Direction) -> Ends {
        match direction {
            Direction::Ingress => (self.remote, self.local),
            Direction::Egress => (self.local, self.remote),
        }
    }

    /// Another packet.
    pub(crate) fn then(mut self, direction: Direction, frame: Vec<u8>) -> Self {
        self.steps.push(Step {
            direction,
            frame,
            difference: None,
        });
        self
    }

    /// Another packet, which may be judged otherwise.
    pub(crate) fn differs(mut self, name: &'static str, to: Direction, frame: Vec<u8>) -> Self {
        self.steps.push(Step {
            direction: to,
            frame,
            difference: Some(name),
        });
        self
    }

    /// What the conversation is about; `ports` are those of the opener and of the other end.
    pub(crate) fn about(mut self, protocol: u8, opener: Direction, ports: (u16, u16)) -> Self {
        let (local, remote) = match opener {
            Direction::Ingress => (ports.1, ports.0),
            Direction::Egress => (ports.0, ports.1),
        };
        self.flow = Some((protocol, local, remote));
        self
    }

    /// A segment of the opener's side, numbered from its first; `ports` as the opener sends them.
    pub(crate) fn says(self, to: Direction, ports: (u16, u16), flags: u8, at: (u32, u32)) -> Self {
        let numbers = (FIRST.0 + at.0, FIRST.1 + at.1);
        self.segment(to, ports, flags, numbers)
    }

    /// A segment of the other side; `ports` as the opener sends them, direction the opener's.
    pub(crate) fn hears(self, to: Direction, ports: (u16, u16), flags: u8, at: (u32, u32)) -> Self {
        let numbers = (FIRST.1 + at.0, FIRST.0 + at.1);
        self.segment(to.reverse(), (ports.1, ports.0), flags, numbers)
    }

    fn segment(self, to: Direction, ports: (u16, u16), flags: u8, numbers: (u32, u32)) -> Self {
        let numbers = (numbers.0, if flags & ACK == 0 { 0 } else { numbers.1 });
        let frame = packet::tcp(self.ends(to), ports, flags, numbers, &[]);
        self.then(to, frame)
    }

    /// A UDP datagram.
    pub(crate) fn datagram(self, to: Direction, ports: (u16, u16)) -> Self {
        let frame = packet::udp(self.ends(to), ports, b"datagram");
        self.then(to, frame)
    }
}

/// A handshake and a byte's worth of acknowledgements each way.
pub(crate) fn handshake(remote: IpAddr, to: Direction, ports: (u16, u16)) -> Probe {
    Probe::new(format!("tcp {to:?} {ports:?}"), remote)
        .about(packet::TCP, to, ports)
        .says(to, ports, SYN, (0, 0))
        .hears(to, ports, SYN | ACK, (0, 1))
        .says(to, ports, ACK, (1, 1))
        .hears(to, ports, ACK, (1, 1))
}

/// A connection that both sides close, and that is opened again.
pub(crate) fn closed(remote: IpAddr, to: Direction, ports: (u16, u16)) -> Probe {
    handshake(remote, to, ports)
        .says(to, ports, FIN | ACK, (1, 1))
        .hears(to, ports, FIN | ACK, (1, 2))
        .says(to, ports, ACK, (2, 2))
        .says(to, ports, SYN, (10_000, 0))
}

/// A connection that is reset as it should be.
pub(crate) fn reset(remote: IpAddr, to: Direction, ports: (u16, u16)) -> Probe {
    handshake(remote, to, ports).says(to, ports, RST | ACK, (1, 1))
}

/// A connection that is refused.
pub(crate) fn refused(remote: IpAddr, to: Direction, ports: (u16, u16)) -> Probe {
    Probe::new(format!("tcp refused {to:?} {ports:?}"), remote)
        .about(packet::TCP, to, ports)
        .says(to, ports, SYN, (0, 0))
        .hears(to, ports, RST | ACK, (0, 1))
}

/// Segments of no connection, in both directions.
pub(crate) fn stray(remote: IpAddr, to: Direction, ports: (u16, u16), flags: u8) -> Probe {
    Probe::new(format!("tcp stray {flags:#x} {to:?} {ports:?}"), remote)
        .about(packet::TCP, to, ports)
        .says(to, ports, flags, (0, 0))
        .hears(to, ports, flags, (0, 0))
        .says(to, ports, ACK, (1, 1))
}

/// Request, reply, request, and a datagram to a port next to the opener's.
pub(crate) fn exchange(remote: IpAddr, to: Direction, ports: (u16, u16)) -> Probe {
    let back = (ports.1, ports.0);
    let beside = (ports.1, ports.0 ^ 1);
    Probe::new(format!("udp {to:?} {ports:?}"), remote)
        .about(packet::UDP, to, ports)
        .datagram(to, ports)
        .datagram(to.reverse(), back)
        .datagram(to, ports)
        .datagram(to.reverse(), beside)
}

/// A request in two fragments, in order, and its reply likewise.
pub(crate) fn fragmented(remote: IpAddr, to: Direction, ports: (u16, u16)) -> Probe {
    let mut probe =
        Probe::new(format!("udp fragments {to:?} {ports:?}"), remote).about(packet::UDP, to, ports);
    for (to, ports) in [(to, ports), (to.reverse(), (ports.1, ports.0))] {
        let ends = probe.ends(to);
        let whole = packet::datagram(ends, ports, &[b'f'; 56]);
        for frame in packet::fragments(ends, packet::UDP, &whole, 32) {
            probe = probe.then(to, frame);
        }
    }
    probe
}

/// A later fragment of a packet whose first nobody sent.
pub(crate) fn orphan(remote: IpAddr, to: Direction) -> Probe {
    let probe = Probe::new(format!("orphan fragment {to:?}"), remote);
    let [_, later] = packet::fragments(probe.ends(to), packet::UDP, &[b'o'; 64], 32);
    probe.then(to, later)
}

/// A UDP request, ICMP errors about it by the other end and by somebody on the way, and one about
/// a flow that is not there.
pub(crate) fn unreachable(
    remote: IpAddr,
    to: Direction,
    ports: (u16, u16),
    router: IpAddr,
) -> Probe {
    let probe = Probe::new(format!("udp unreachable {to:?} {ports:?}"), remote).about(
        packet::UDP,
        to,
        ports,
    );
    let ends = probe.ends(to);
    let request = packet::udp(ends, ports, b"datagram");
    let other = packet::udp(ends, (ports.0 ^ 0x100, ports.1), b"datagram");
    probe
        .then(to, request.clone())
        .then(
            to.reverse(),
            packet::unreachable((ends.1, ends.0), &request),
        )
        .then(
            to.reverse(),
            packet::unreachable((router, ends.0), &request),
        )
        .then(to.reverse(), packet::unreachable((ends.1, ends.0), &other))
}

/// An error about a flow that is not there.
pub(crate) fn unrelated(remote: IpAddr, to: Direction, kind: u8, code: u8) -> Probe {
    let probe = Probe::new(format!("icmp {kind}/{code} unrelated {to:?}"), remote);
    let quoted = packet::udp(probe.ends(to.reverse()), (700, 701), b"datagram");
    let rest = [&[0; 4], &quoted[packet::IP..]].concat();
    let frame = packet::icmp(probe.ends(to), kind, code, &rest);
    probe.then(to, frame)
}

/// Echo request and replies, a reply of another identifier, and a request of the other side.
pub(crate) fn echo(remote: IpAddr, to: Direction, id: u8) -> Probe {
    let (ask, answer) = Family::of(remote).pick((8, 0), (128, 129));
    let mut probe = Probe::new(format!("echo {id} {to:?}"), remote);
    for (to, kind, id) in [
        (to, ask, id),
        (to.reverse(), answer, id),
        (to, ask, id),
        (to.reverse(), answer, id ^ 1),
        (to.reverse(), ask, id),
    ] {
        let frame = packet::icmp(probe.ends(to), kind, 0, &[0, id, 0, 1, b'e', b'c']);
        probe = probe.then(to, frame);
    }
    probe
}

/// One ICMP message.
pub(crate) fn message(remote: IpAddr, to: Direction, kind: u8, code: u8) -> Probe {
    let probe = Probe::new(format!("icmp {kind}/{code} {to:?}"), remote);
    let frame = packet::icmp(probe.ends(to), kind, code, &[0, 7, 0, 1, 0, 0, 0, 0]);
    probe.then(to, frame)
}

/// A message of IPv4 that asks, such as for a timestamp, and the answer to it.
pub(crate) fn query(remote: IpAddr, to: Direction, kind: u8) -> Probe {
    let probe = message(remote, to, kind, 0);
    let back = probe.ends(to.reverse());
    let frame = packet::icmp(back, kind + 1, 0, &[0, 7, 0, 1, 0, 0, 0, 0]);
    probe.differs("icmp-query", to.reverse(), frame)
}

/// A packet of another protocol, one back, and another.
pub(crate) fn other(remote: IpAddr, to: Direction, protocol: u8) -> Probe {
    let mut probe = Probe::new(format!("protocol {protocol} {to:?}"), remote);
    let back = to.reverse();
    let payloads = match protocol {
        SCTP => [
            (to, packet::sctp_init(1, (3000, 4000), 0)),
            (back, packet::sctp_init(2, (4000, 3000), 1)),
            (to, packet::sctp_cookie((3000, 4000), 1)),
        ],
        _ => [(to, vec![0; 16]), (back, vec![0; 16]), (to, vec![0; 16])],
    };
    for (to, payload) in payloads {
        let frame = packet::ip(probe.ends(to), protocol, &payload);
        probe = if protocol == SCTP {
            probe.differs("sctp", to, frame)
        } else {
            probe.then(to, frame)
        };
    }
    probe
}

const SCTP: u8 = 132;
