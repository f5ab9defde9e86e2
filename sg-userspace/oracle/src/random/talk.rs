//! Conversations: packets as two ends would send them, and such as they would not.

use std::net::IpAddr;

use super::{
    Source,
    frame::{
        self, Ends,
        tcp::{ACK, ECE, FIN, PSH, RST, SYN, URG},
    },
    places::{self, Ip, PORTS},
    policy::PROTOCOLS,
};

/// What two ends speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speech {
    Tcp,
    Udp,
    Echo,
    Other(u8),
}

/// How far TCP has come, if every packet was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Closed,
    Asked,
    Answered,
    Open,
    /// The opener's side (true) or the other has sent its FIN.
    Closing(bool),
    /// Both have; the last acknowledgement is that side's to send.
    Acknowledging(bool),
}

/// Two ends that talk.
#[derive(Clone, Debug)]
pub(super) struct Talk {
    pub(super) interface: String,
    local: IpAddr,
    remote: IpAddr,
    /// Local and remote port; the first is an echo's identifier.
    ports: (u16, u16),
    speech: Speech,
    /// The remote side begins.
    inbound: bool,
    stage: Stage,
    /// Next sequence number of the local and the remote side.
    next: [u32; 2],
}

/// A frame, whether it goes towards the workload, and for how many packets it may stand.
pub(super) struct Said {
    pub(super) inbound: bool,
    pub(super) frame: Vec<u8>,
    pub(super) merged: bool,
}

/// How far off numbers are that almost fit: by windows, by halves of the number space.
const NEAR: [u32; 16] = [
    0,
    0,
    0,
    1,
    u32::MAX,
    2,
    1000,
    65_534,
    65_535,
    65_536,
    (1 << 26) - 1,
    1 << 26,
    0u32.wrapping_sub(1 << 26),
    (1 << 31) - 1,
    1 << 31,
    (1 << 31) + 1,
];

/// Numbers that TCP begins with: those around which arithmetic goes wrong too.
const FIRST: [u32; 7] = [1000, 0, 1, u32::MAX, u32::MAX - 1, (1 << 31) - 1, 1 << 31];

impl Talk {
    /// A conversation of the workload behind interface `number`.
    pub(super) fn new(source: &mut Source<'_>, interface: &str, number: usize) -> Self {
        let ip = source.of(&Ip::BOTH);
        let local = match source.below(24) {
            0 => places::odd(source, ip),
            1 => places::anybody(source, ip),
            _ => places::workload(ip, number),
        };
        let remote = match source.below(24) {
            0 => places::odd(source, ip),
            1 => places::service(ip, source.below(2)),
            2 => local,
            _ => places::anybody(source, ip),
        };
        Self {
            interface: interface.into(),
            local,
            remote,
            ports: (source.of(&PORTS), source.of(&PORTS)),
            speech: match source.below(12) {
                0..=5 => Speech::Tcp,
                6..=8 => Speech::Udp,
                9 | 10 => Speech::Echo,
                _ => Speech::Other(source.of(&PROTOCOLS)),
            },
            inbound: source.one_in(2),
            stage: Stage::Closed,
            next: [source.of(&FIRST), source.of(&FIRST)],
        }
    }

    /// Another one that differs in one thing.
    pub(super) fn beside(&self, source: &mut Source<'_>) -> Self {
        let mut other = self.clone();
        match source.below(6) {
            0 => other.ports.0 = source.of(&PORTS),
            1 => other.ports.1 = source.of(&PORTS),
            2 => other.remote = places::anybody(source, Ip::of(self.remote)),
            3 => other.local = places::anybody(source, Ip::of(self.local)),
            4 => other.inbound = !self.inbound,
            _ => {
                other.speech = match self.speech {
                    Speech::Tcp => Speech::Udp,
                    _ => Speech::Tcp,
                };
            }
        }
        other
    }

    fn ends(&self, inbound: bool) -> Ends {
        if inbound {
            (self.remote, self.local)
        } else {
            (self.local, self.remote)
        }
    }

    fn ports(&self, inbound: bool) -> (u16, u16) {
        if inbound {
            (self.ports.1, self.ports.0)
        } else {
            self.ports
        }
    }

    /// Whatever one of the two says next.
    pub(super) fn say(&mut self, source: &mut Source<'_>) -> Said {
        match self.speech {
            Speech::Tcp if source.one_in(3) => self.stray(source),
            Speech::Tcp => self.segment(source),
            _ => self.datagram(source),
        }
    }

    fn datagram(&mut self, source: &mut Source<'_>) -> Said {
        let first = self.stage == Stage::Closed;
        let inbound = if first || source.one_in(2) {
            self.inbound
        } else {
            !self.inbound
        };
        self.stage = Stage::Open;
        let ends = self.ends(inbound);
        let ip = Ip::of(ends.0);
        let (protocol, body) = match self.speech {
            Speech::Udp => {
                let length = source.of(&[4, 0, 40]);
                (17, frame::datagram(self.ports(inbound), length))
            }
            Speech::Echo => {
                let asks = (inbound == self.inbound) != source.one_in(10);
                let kind = if asks {
                    ip.pick(8, 128)
                } else {
                    ip.pick(0, 129)
                };
                let [high, low] = self.ports.0.to_be_bytes();
                (
                    ip.icmp(),
                    frame::message(kind, source.of(&[0, 0, 0, 1]), &[high, low, 0, 1, b'!']),
                )
            }
            Speech::Other(protocol) => (protocol, vec![0; source.of(&[16, 0])]),
            Speech::Tcp => unreachable!("has its own"),
        };
        Said {
            inbound,
            frame: frame::ip(ends, 64, protocol, &body),
            merged: self.speech == Speech::Udp && source.one_in(20),
        }
    }

    fn tcp(&self, inbound: bool, flags: u8, off: (u32, u32), len: usize) -> Vec<u8> {
        let [own, other] = if inbound {
            [self.next[1], self.next[0]]
        } else {
            self.next
        };
        let ack = if flags & ACK == 0 {
            0
        } else {
            other.wrapping_add(off.1)
        };
        let sequence = own.wrapping_add(off.0);
        let body = frame::segment(self.ports(inbound), flags, sequence, ack, len);
        frame::ip(self.ends(inbound), 64, 6, &body)
    }

    /// A segment that fits where the conversation is.
    fn segment(&mut self, source: &mut Source<'_>) -> Said {
        let opener = self.inbound;
        let (inbound, flags, stage) = match self.stage {
            Stage::Closed => {
                if source.one_in(2) {
                    // The ports are used again, by a peer that counts from elsewhere.
                    self.next = [source.of(&FIRST), source.of(&FIRST)];
                }
                (opener, source.of(&[SYN, SYN, SYN, SYN | ECE]), Stage::Asked)
            }
            Stage::Asked => (!opener, SYN | ACK, Stage::Answered),
            Stage::Answered => (opener, ACK, Stage::Open),
            Stage::Open => {
                let inbound = source.one_in(2);
                if source.one_in(5) {
                    (inbound, FIN | ACK, Stage::Closing(inbound == opener))
                } else {
                    (
                        inbound,
                        source.of(&[ACK, PSH | ACK, URG | ACK]),
                        Stage::Open,
                    )
                }
            }
            Stage::Closing(by_opener) => {
                let other = opener != by_opener;
                if source.one_in(2) {
                    (other, ACK, Stage::Closing(by_opener))
                } else {
                    (other, FIN | ACK, Stage::Acknowledging(by_opener))
                }
            }
            Stage::Acknowledging(by_opener) => (opener == by_opener, ACK, Stage::Closed),
        };
        if source.one_in(14) {
            let inbound = source.one_in(2);
            self.stage = Stage::Closed;
            let flags = source.of(&[RST, RST | ACK]);
            return Said {
                inbound,
                frame: self.tcp(inbound, flags, (0, 0), 0),
                merged: false,
            };
        }
        let data = self.stage == Stage::Open && flags & FIN == 0;
        let len = if data { source.of(&[0, 1, 20]) } else { 0 };
        let frame = self.tcp(inbound, flags, (0, 0), len);
        // One packet in ten is lost on the way: the other side does not go on.
        if !source.one_in(10) {
            let counted = len as u32 + u32::from(flags & (SYN | FIN) != 0);
            let own = &mut self.next[usize::from(inbound)];
            *own = own.wrapping_add(counted);
            self.stage = stage;
        }
        Said {
            inbound,
            frame,
            merged: data && source.one_in(8),
        }
    }

    /// A segment that fits only nearly, or not at all. The conversation stays where it is.
    fn stray(&self, source: &mut Source<'_>) -> Said {
        if let Stage::Closing(by_opener) = self.stage
            && source.one_in(3)
        {
            // The other side's FIN, as far ahead as may be believed or just not.
            let inbound = self.inbound != by_opener;
            let off = source.of(&[(1 << 26) - 1, 1 << 26]);
            return Said {
                inbound,
                frame: self.tcp(inbound, FIN | ACK, (off, 0), 0),
                merged: false,
            };
        }
        let usual = [
            SYN,
            SYN | ACK,
            SYN | ACK,
            ACK,
            ACK,
            ACK,
            PSH | ACK,
            FIN | ACK,
            FIN | ACK,
            RST,
            RST | ACK,
        ];
        let flags = if source.one_in(12) {
            source.byte()
        } else {
            source.of(&usual)
        };
        let inbound = source.one_in(2);
        let off = (source.of(&NEAR), source.of(&NEAR));
        let len = source.of(&[0, 0, 0, 1, 20]);
        Said {
            inbound,
            frame: self.tcp(inbound, flags, off, len),
            merged: false,
        }
    }
}
