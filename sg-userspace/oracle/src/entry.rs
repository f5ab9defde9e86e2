//! Section 11's entries: what tells them apart, their lives, and the states of all but TCP (section 14).

use std::net::IpAddr;

use crate::{
    Arrival, Direction, Flow,
    ip::{Packet, TCP, UDP},
    policy::Interface,
    tcp::{self, Sides},
    transport::{Header, Segment},
};

/// Seconds for which the other side keeps an entry without ports in numbers alive by itself.
const ALONE: u64 = 3600;

/// What tells flows apart. The family is that of the addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) interface: String,
    pub(crate) protocol: u8,
    pub(crate) local: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    /// Of an echo: the workload asks. Else false.
    pub(crate) local_asks: bool,
}

impl Key {
    /// The flow of a packet that travels in `direction`; ICMP must be an echo.
    pub(crate) fn new(
        interface: &str,
        direction: Direction,
        packet: &Packet<'_>,
        header: &Header,
    ) -> Self {
        let (source_port, destination_port) = match *header {
            Header::Tcp(Segment {
                source,
                destination,
                ..
            }) => (source, destination),
            Header::Udp {
                source,
                destination,
            } => (source, destination),
            Header::Icmp(_) | Header::Other => (0, 0),
        };
        let out = direction == Direction::Out;
        let mut key = Self {
            interface: interface.to_owned(),
            protocol: packet.protocol,
            local: if out {
                packet.source
            } else {
                packet.destination
            },
            remote: if out {
                packet.destination
            } else {
                packet.source
            },
            local_port: if out { source_port } else { destination_port },
            remote_port: if out { destination_port } else { source_port },
            local_asks: false,
        };
        if let Header::Icmp(icmp) = header {
            key.local_port = icmp.identifier;
            key.local_asks = icmp.is_request() == out;
        }
        key
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    SynSent,
    SynReceived,
    Established,
    LastAck,
    TimeWait,
    Close,
    Single,
    Stream,
    Echo,
    Other,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::SynSent => "syn_sent",
            Self::SynReceived => "syn_received",
            Self::Established => "established",
            Self::LastAck => "last_ack",
            Self::TimeWait => "time_wait",
            Self::Close => "close",
            Self::Single => "single",
            Self::Stream => "stream",
            Self::Echo => "echo",
            Self::Other => "other",
        }
    }

    /// Name of its timeout, and seconds where the definition names none.
    fn timeout(self) -> (&'static str, u32) {
        match self {
            Self::SynSent => ("tcp_syn_sent", 120),
            Self::SynReceived => ("tcp_syn_received", 60),
            Self::Established => ESTABLISHED,
            Self::LastAck => ("tcp_last_ack", 30),
            Self::TimeWait => ("tcp_time_wait", 120),
            Self::Close => ("tcp_close", 10),
            Self::Single => ("udp", 30),
            Self::Stream => STREAM,
            Self::Echo => ("icmp", 30),
            Self::Other => ("other", 600),
        }
    }
}

pub(crate) const ESTABLISHED: (&str, u32) = ("tcp_established", 432_000);
pub(crate) const STREAM: (&str, u32) = ("udp_stream", 180);
const UNACKNOWLEDGED: (&str, u32) = ("tcp_unacknowledged", 300);

/// A timeout of an interface in seconds.
pub(crate) fn seconds(interface: &Interface, (name, default): (&str, u32)) -> u64 {
    u64::from(interface.timeouts.get(name).copied().unwrap_or(default))
}

/// A tracked flow. Times are in ticks.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) opened_by_local: bool,
    pub(crate) state: State,
    pub(crate) assured: bool,
    /// An RST that was not proven came.
    pub(crate) doubt: bool,
    /// Last refreshed.
    pub(crate) last: u64,
    /// The opener's last packet.
    pub(crate) opener_last: u64,
    /// Number of the generation that judged it last.
    pub(crate) generation: usize,
    pub(crate) sides: Sides,
    /// It stands in a place of its interface's reserve.
    pub(crate) reserved: bool,
    /// In and out.
    pub(crate) frames: [u64; 2],
    pub(crate) packets: [u64; 2],
    pub(crate) bytes: [u64; 2],
}

impl Entry {
    /// An entry that a packet makes, which may be one that the other side than the opener sent.
    pub(crate) fn open(
        key: Key,
        header: &Header,
        direction: Direction,
        opened_by_local: bool,
        generation: usize,
        now: u64,
    ) -> Self {
        let sent_by_opener = opened_by_local == (direction == Direction::Out);
        let (state, sides) = match header {
            Header::Tcp(segment) => tcp::open(segment, sent_by_opener),
            Header::Udp { .. } => (State::Single, Sides::default()),
            Header::Icmp(_) => (State::Echo, Sides::default()),
            Header::Other => (State::Other, Sides::default()),
        };
        Self {
            key,
            opened_by_local,
            state,
            assured: false,
            doubt: false,
            last: now,
            opener_last: now,
            generation,
            sides,
            reserved: false,
            frames: [0; 2],
            packets: [0; 2],
            bytes: [0; 2],
        }
    }

    /// The direction in which the opener sends.
    pub(crate) fn opening(&self) -> Direction {
        if self.opened_by_local {
            Direction::Out
        } else {
            Direction::In
        }
    }

    pub(crate) fn count(&mut self, direction: Direction, arrival: &Arrival<'_>) {
        let at = usize::from(direction == Direction::Out);
        self.frames[at] = self.frames[at].saturating_add(1);
        self.packets[at] = self.packets[at].saturating_add(arrival.packets);
        self.bytes[at] = self.bytes[at].saturating_add(arrival.frame.len() as u64);
    }

    pub(crate) fn refresh(&mut self, now: u64) {
        self.last = now;
        self.doubt = false;
    }

    /// Section 14, for a packet that is not a SYN and has been counted.
    pub(crate) fn advance(&mut self, header: &Header, direction: Direction, now: u64, hz: u64) {
        let by_opener = direction == self.opening();
        if let Header::Tcp(segment) = header {
            tcp::advance(self, by_opener, segment, now);
            return;
        }
        if by_opener {
            self.opener_last = now;
        }
        if now.saturating_sub(self.opener_last) <= ALONE * hz {
            self.refresh(now);
        }
        if self.key.protocol == UDP {
            self.judge_stream();
        } else if !by_opener {
            self.assured = true;
        }
    }

    fn judge_stream(&mut self) {
        if self.frames.iter().all(|count| *count >= 2) {
            self.state = State::Stream;
            self.assured = true;
        }
    }

    pub(crate) fn is_live(&self, interface: &Interface, now: u64, hz: u64) -> bool {
        let mut life = seconds(interface, self.state.timeout());
        if self.doubt {
            life = life.min(seconds(interface, UNACKNOWLEDGED));
        }
        now.saturating_sub(self.last) < life * hz
    }

    pub(crate) fn flow(&self) -> Flow {
        Flow {
            interface: self.key.interface.clone(),
            protocol: self.key.protocol,
            local: self.key.local,
            remote: self.key.remote,
            local_port: self.key.local_port,
            remote_port: self.key.remote_port,
            opened_by_local: self.opened_by_local,
            state: self.state.name(),
            assured: self.assured,
            packets: self.packets,
            bytes: self.bytes,
        }
    }
}

/// Whether packets of the protocol bear the ports of the flow.
pub(crate) fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP)
}
