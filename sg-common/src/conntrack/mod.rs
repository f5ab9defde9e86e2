//! What a tracked flow is and how packets change it: pure functions, no maps.
//!
//! # The `meta` word of an entry
//! | bits | meaning |
//! |---|---|
//! | 0–31 | generation that last judged the flow |
//! | 32–39 | [`State`] |
//! | 40–47 | [`flag`] |
//! | 48–63 | version, raised by every claim, so that a reused way is noticed |
//!
//! The word changes by compare-and-exchange only, so a transition happens once, whoever races. The
//! rest of the entry is written by whoever claimed the way, then by plain aligned stores: the worst
//! a race does there is to lose one of two updates that were true at the same moment.

mod step;

pub use step::{Step, ahead, datagram_step, tcp_step, udp_step};

use crate::layout::{TIMEOUTS, Timeout};

/// State of an entry. From `TcpSynSent` on the number is the index of its [`Timeout`] plus 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// The way is empty.
    Free = 0,
    /// The way is being written, or emptied.
    Claimed = 1,
    /// SYN seen from the opener.
    TcpSynSent = 2,
    /// SYN+ACK seen from the other side.
    TcpSynReceived = 3,
    /// The opener acknowledged it.
    TcpEstablished = 4,
    /// FIN from both sides, not both acknowledged.
    TcpLastAck = 5,
    /// FIN from both sides, both acknowledged.
    TcpTimeWait = 6,
    /// Closed by a proven RST.
    TcpClose = 7,
    /// UDP one way, or a single request and response.
    UdpSingle = 9,
    /// UDP with more than one packet each way.
    UdpStream = 10,
    /// ICMP echo.
    Icmp = 11,
    /// Any other protocol, by address pair.
    Other = 12,
}

impl State {
    /// Every state an entry can be seen in.
    pub const TRACKED: [State; 10] = [
        State::TcpSynSent,
        State::TcpSynReceived,
        State::TcpEstablished,
        State::TcpLastAck,
        State::TcpTimeWait,
        State::TcpClose,
        State::UdpSingle,
        State::UdpStream,
        State::Icmp,
        State::Other,
    ];

    /// Name in listings, counters and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            State::Free => "free",
            State::Claimed => "claimed",
            State::TcpSynSent => "syn_sent",
            State::TcpSynReceived => "syn_received",
            State::TcpEstablished => "established",
            State::TcpLastAck => "last_ack",
            State::TcpTimeWait => "time_wait",
            State::TcpClose => "close",
            State::UdpSingle => "single",
            State::UdpStream => "stream",
            State::Icmp => "echo",
            State::Other => "other",
        }
    }

    /// The state with this number.
    pub fn from_raw(raw: u8) -> Option<State> {
        match raw {
            0 => Some(State::Free),
            1 => Some(State::Claimed),
            _ => Self::TRACKED.into_iter().find(|state| *state as u8 == raw),
        }
    }
}

/// Flags of an entry.
pub mod flag {
    /// The local side opened the flow.
    pub const OPENER_LOCAL: u8 = 1 << 0;
    /// Both sides have answered.
    pub const ASSURED: u8 = 1 << 1;
    /// The local side has sent FIN.
    pub const FIN_LOCAL: u8 = 1 << 2;
    /// The remote side has sent FIN.
    pub const FIN_REMOTE: u8 = 1 << 3;
    /// Charged to the host's shared allowance, not to the interface's reserve.
    pub const SHARED: u8 = 1 << 4;
    /// Made by command, not by an opening packet.
    pub const ADOPTED: u8 = 1 << 5;
    /// An unproven RST was seen since the last legal packet.
    pub const DOUBTED: u8 = 1 << 6;
    /// Of a claimed way: nobody is to find a flow here any more.
    pub const WITHDRAWN: u8 = 1 << 7;
}

/// The `meta` word, taken apart and put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta(pub u64);

impl Meta {
    /// A word from its parts.
    #[inline(always)]
    pub const fn new(generation: u32, state: u8, flags: u8, version: u16) -> Self {
        Self(
            generation as u64
                | (state as u64) << 32
                | (flags as u64) << 40
                | (version as u64) << 48,
        )
    }

    /// Generation that last judged the flow.
    #[inline(always)]
    pub const fn generation(self) -> u32 {
        self.0 as u32
    }

    /// Number of the [`State`].
    #[inline(always)]
    pub const fn state(self) -> u8 {
        (self.0 >> 32) as u8
    }

    /// See [`flag`].
    #[inline(always)]
    pub const fn flags(self) -> u8 {
        (self.0 >> 40) as u8
    }

    /// Raised by every claim.
    #[inline(always)]
    pub const fn version(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// Whether the way holds a flow, expired or not.
    #[inline(always)]
    pub const fn tracked(self) -> bool {
        self.state() >= State::TcpSynSent as u8
    }

    /// The same entry in another state.
    #[inline(always)]
    pub const fn with(self, state: u8, flags: u8) -> Self {
        Self::new(self.generation(), state, flags, self.version())
    }

    /// The same entry, judged under another generation.
    #[inline(always)]
    pub const fn judged(self, generation: u32) -> Self {
        Self(self.0 & !(u32::MAX as u64) | generation as u64)
    }

    /// The word of a way that is claimed, to write a flow that `generation` judges.
    #[inline(always)]
    pub const fn claimed(self, generation: u32) -> Self {
        let version = self.version().wrapping_add(1);
        Self::new(generation, State::Claimed as u8, 0, version)
    }

    /// The word of a way whose flow is going.
    #[inline(always)]
    pub const fn withdrawn(self) -> Self {
        self.with(State::Claimed as u8, flag::WITHDRAWN)
    }

    /// The empty way that follows this entry.
    #[inline(always)]
    pub const fn freed(self) -> Self {
        Self::new(0, State::Free as u8, 0, self.version())
    }

    /// Idle life in jiffies under an interface's timeouts.
    #[inline(always)]
    pub fn life(self, timeouts: &[u32; TIMEOUTS]) -> u32 {
        let index = usize::from(self.state()).wrapping_sub(2);
        let life = if index < TIMEOUTS { timeouts[index] } else { 0 };
        if self.flags() & flag::DOUBTED != 0 {
            let doubted = timeouts[Timeout::TcpUnacknowledged as usize];
            if doubted < life { doubted } else { life }
        } else {
            life
        }
    }
}

/// Whether an entry last refreshed at `seen` is over at `now` (jiffies, compared with wrap-around;
/// a stamp in the future counts as now).
#[inline(always)]
pub const fn expired(now: u32, seen: u32, life: u32) -> bool {
    let age = now.wrapping_sub(seen);
    age <= i32::MAX as u32 && age >= life
}

/// The two ends of a flow, as index of [`crate::layout::Live::ack`] and [`crate::layout::Live::fin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Side {
    /// The workload.
    Local = 0,
    /// The peer.
    Remote = 1,
}

impl Side {
    /// The other end.
    #[inline(always)]
    pub const fn other(self) -> Side {
        match self {
            Side::Local => Side::Remote,
            Side::Remote => Side::Local,
        }
    }

    /// Index into [`crate::layout::Live::ack`] and [`crate::layout::Live::fin`], visibly in bounds.
    #[inline(always)]
    pub fn index(self) -> usize {
        crate::atomic::opaque(self as u64) as usize & 1
    }

    #[inline(always)]
    const fn fin_flag(self) -> u8 {
        match self {
            Side::Local => flag::FIN_LOCAL,
            Side::Remote => flag::FIN_REMOTE,
        }
    }
}

/// TCP flag bits (RFC 9293 §3.1).
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
}

/// What tracking reads of a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Segment {
    /// See [`tcp`].
    pub flags: u8,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Bytes of payload.
    pub payload: u32,
}

impl Segment {
    /// Whether the segment asks for a new connection.
    #[inline(always)]
    pub const fn is_syn(self) -> bool {
        self.flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) == tcp::SYN
    }

    /// Sequence number after the segment.
    #[inline(always)]
    const fn end(self) -> u32 {
        let control = (self.flags & tcp::SYN != 0) as u32 + (self.flags & tcp::FIN != 0) as u32;
        self.sequence
            .wrapping_add(self.payload)
            .wrapping_add(control)
    }
}

/// Flag sets that real segments carry; ECE, CWR and PSH aside (as netfilter's `tcp_valid_flags`).
#[inline(always)]
pub const fn flags_possible(flags: u8) -> bool {
    const FIN_ACK: u8 = tcp::FIN | tcp::ACK;
    const SYN_ACK: u8 = tcp::SYN | tcp::ACK;
    const RST_ACK: u8 = tcp::RST | tcp::ACK;
    match flags & (tcp::FIN | tcp::SYN | tcp::RST | tcp::ACK | tcp::URG) {
        tcp::SYN | SYN_ACK | tcp::RST | RST_ACK | FIN_ACK | tcp::ACK => true,
        with_urgent => matches!(with_urgent & !tcp::URG, tcp::SYN | FIN_ACK | tcp::ACK),
    }
}

/// How a new flow starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// First [`State`].
    pub state: u8,
    /// First flags, the charge aside.
    pub flags: u8,
    /// First [`crate::layout::Live::ack`].
    pub ack: [u32; 2],
    /// First [`crate::layout::Live::fin`].
    pub fin: [u32; 2],
    /// Whose packet it was.
    pub sender: Side,
    /// Packets that the sender's account starts with.
    pub packets: u32,
    /// Their bytes.
    pub bytes: u32,
}

/// The entry that `opener` opens with a packet of `protocol` at `now`; `icmp` is the family's ICMP.
///
/// A TCP segment other than SYN comes from the middle of a flow, and so does a packet whose `sender` is
/// not the opener.
#[inline(always)]
pub fn open(
    protocol: u8,
    icmp: u8,
    opener: Side,
    sender: Side,
    segment: Segment,
    now: u32,
) -> Opening {
    let mut flags = match opener {
        Side::Local => flag::OPENER_LOCAL,
        Side::Remote => 0,
    };
    let of = |side: Side, value: u32| match side {
        Side::Local => [value, 0],
        Side::Remote => [0, value],
    };
    let (state, ack, fin) = match protocol {
        // What the answer must acknowledge; data on the SYN need not be taken (RFC 7413 §4.2).
        6 if segment.is_syn() => (
            State::TcpSynSent,
            [0; 2],
            of(sender, segment.sequence.wrapping_add(1)),
        ),
        6 => {
            flags |= flag::ADOPTED;
            let mut end = 0;
            if segment.flags & tcp::FIN != 0 {
                flags |= sender.fin_flag();
                end = segment.end();
            }
            let ack = of(sender, segment.acknowledgement);
            (State::TcpEstablished, ack, of(sender, end))
        }
        17 => (State::UdpSingle, of(sender, 1), of(opener, now)),
        echo if echo == icmp => (State::Icmp, [0; 2], of(opener, now)),
        _ => (State::Other, [0; 2], of(opener, now)),
    };
    Opening {
        state: state as u8,
        flags,
        ack,
        fin,
        sender,
        packets: 0,
        bytes: 0,
    }
}
