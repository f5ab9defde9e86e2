//! What is known of a flow that exists, and the entry that it becomes.

use sg_common::{
    conntrack::{State, flag},
    family::{Family, V4, V6},
    layout::{CtRecord, TIMEOUTS, Timeout},
    verdict::Direction,
};

use std::net::IpAddr;

use crate::{
    control::{Flow, Restored},
    flows::Side,
    model::protocol,
    nf_conntrack::{Opener, Tcp, Tracked},
    sockets::{OwnFlow, Stage},
};

use super::Source;

/// A flow that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) flow: Flow,
    /// `None`: nobody knows.
    pub(super) opener: Option<Side>,
    pub(super) source: Source,
    /// Both sides have answered.
    pub(super) assured: bool,
    /// The other side has sent something, as far as anybody knows.
    pub(super) answered: bool,
    /// Only the workload says so, and could say so of anything.
    pub(super) word: bool,
    state: State,
    /// Who has sent FIN.
    fins: u8,
    /// Seconds that it lives at most if nothing more comes.
    expires: Option<u32>,
}

impl Candidate {
    /// Of a socket; `half_open` is the life of a connection whose handshake is not complete.
    pub(super) fn of_socket(own: &OwnFlow, source: Source, timeouts: &[u32; TIMEOUTS]) -> Self {
        let tcp = own.flow.protocol == protocol::TCP;
        let opener = if own.opened_by_local {
            Side::Local
        } else {
            Side::Remote
        };
        let mut candidate = Self {
            flow: own.flow,
            // Whoever connects a UDP socket may have been asked before.
            opener: tcp.then_some(opener),
            source,
            assured: true,
            // A UDP socket that is connected has perhaps not even sent anything.
            answered: tcp && !(own.stage == Stage::Opening && own.opened_by_local),
            // A handshake takes two.
            word: !tcp && source == Source::WorkloadSockets,
            state: if tcp {
                State::TcpEstablished
            } else {
                State::UdpSingle
            },
            fins: 0,
            expires: None,
        };
        match own.stage {
            // Of what acknowledges its SYN nothing is known, so its state is that of a flow in its middle. A flood of
            // openings must not become connections that live for days.
            Stage::Opening => {
                candidate.assured = false;
                candidate.expires = Some(timeouts[Timeout::TcpSynReceived as usize]);
            }
            Stage::Open => {}
            Stage::ClosedHere => candidate.fins = flag::FIN_LOCAL,
            Stage::ClosedThere => candidate.fins = flag::FIN_REMOTE,
            Stage::Closing => {
                candidate.fins = flag::FIN_LOCAL | flag::FIN_REMOTE;
                candidate.state = State::TcpLastAck;
            }
        }
        candidate
    }

    /// Of netfilter's table, seen as `flow` by the interface; `None` if nothing is left of it, or nothing has come of
    /// it yet.
    pub(super) fn of_netfilter(tracked: &Tracked, flow: Flow, opener: Side) -> Option<Self> {
        let opener_is = |which| match (opener, which) {
            (Side::Local, Opener::Yes) | (Side::Remote, Opener::No) => flag::FIN_LOCAL,
            _ => flag::FIN_REMOTE,
        };
        let (mut assured, mut fins) = (tracked.assured, 0);
        let state = match flow.protocol {
            protocol::TCP => match tracked.tcp {
                // The SYN goes by rule.
                Tcp::Opening | Tcp::Closed => return None,
                Tcp::Answered => {
                    assured = false;
                    State::TcpEstablished
                }
                Tcp::Established => State::TcpEstablished,
                Tcp::Closing(first) => {
                    fins = first.map_or(0, opener_is);
                    State::TcpEstablished
                }
                Tcp::LastAck => {
                    fins = flag::FIN_LOCAL | flag::FIN_REMOTE;
                    State::TcpLastAck
                }
            },
            protocol::UDP if tracked.assured => State::UdpStream,
            protocol::UDP => State::UdpSingle,
            _ => {
                assured = tracked.replied;
                if is_echo(&flow) {
                    State::Icmp
                } else {
                    State::Other
                }
            }
        };
        Some(Self {
            flow,
            opener: Some(opener),
            source: Source::NfConntrack,
            assured,
            answered: tracked.replied,
            word: false,
            state,
            fins,
            expires: Some(tracked.expires),
        })
    }

    /// What tells entries apart: of echoes there is one for each side that asks.
    pub(super) fn key(&self) -> (Flow, bool) {
        let asked_here = is_echo(&self.flow) && self.opener == Some(Side::Local);
        (self.flow, asked_here)
    }

    /// What is adopted first: last what makes room for others. Of two that are one flow the first counts: a socket says
    /// for certain whether a connection lives, and netfilter what kind of exchange datagrams are.
    pub(super) fn rank(&self) -> (bool, bool) {
        let tcp = self.flow.protocol == protocol::TCP;
        (!self.assured, tcp == (self.source == Source::NfConntrack))
    }

    /// What a rule is asked about an opener: direction, and port as for [`crate::resolve::Resolved::evaluate`].
    pub(super) fn asks(&self, opener: Side) -> (Direction, u16) {
        let (direction, port) = match opener {
            Side::Local => (Direction::Egress, self.flow.remote_port),
            Side::Remote => (Direction::Ingress, self.flow.local_port),
        };
        let port = match self.flow.protocol {
            protocol::TCP | protocol::UDP => port,
            protocol::ICMP if self.flow.remote.is_ipv4() => 8 << 8,
            protocol::ICMPV6 if self.flow.remote.is_ipv6() => 128 << 8,
            _ => 0,
        };
        (direction, port)
    }

    /// Whether INSERT makes the very same entry: one that both sides have answered, with its whole life before it.
    pub(super) fn is_plain(&self) -> bool {
        self.assured
            && self.fins == 0
            && self.expires.is_none()
            && !matches!(self.state, State::UdpStream | State::TcpLastAck)
    }

    /// Whether a packet can have its addresses, on which the programs rely of every entry.
    pub(super) fn is_possible(&self) -> bool {
        let Flow {
            protocol: number,
            local,
            remote,
            ..
        } = self.flow;
        let answers = |source_possible: bool| number != protocol::TCP || source_possible;
        local != remote
            && match (local, remote) {
                (IpAddr::V4(local), IpAddr::V4(remote)) => {
                    let [local, remote] =
                        [local, remote].map(|one| u32::from_ne_bytes(one.octets()));
                    answers(V4::source_possible(&remote, number))
                        && V4::destination_possible(&remote)
                        && V4::destination_possible(&local)
                }
                (IpAddr::V6(local), IpAddr::V6(remote)) => {
                    let [local, remote] = [local, remote].map(|one| words(one.octets()));
                    answers(V6::source_possible(&remote, number))
                        && V6::destination_possible(&remote)
                        && V6::destination_possible(&local)
                }
                _ => false,
            }
    }

    /// The entry, in full; `now` in jiffies, of which there are `hz` a second, lives in seconds.
    pub(super) fn restored(
        &self,
        interface: u32,
        opener: Side,
        generation: u32,
        (now, hz): (u32, u32),
        timeouts: &[u32; TIMEOUTS],
    ) -> Restored {
        let life = timeouts[self.state as usize - State::TcpSynSent as usize];
        let left = self.expires.unwrap_or(life).min(life);
        let at = |side: Side| usize::from(side == Side::Remote);
        let (mut ack, mut fin) = ([0; 2], [0; 2]);
        match self.state {
            // Packets of each side, up to two.
            State::UdpStream => ack = [2; 2],
            State::UdpSingle => {
                ack = [u32::from(self.answered); 2];
                ack[at(opener)] = 1;
            }
            _ => {}
        }
        if self.flow.protocol != protocol::TCP {
            // The time of the opener's last packet.
            fin[at(opener)] = now;
        }
        let opened = match opener {
            Side::Local => flag::OPENER_LOCAL,
            Side::Remote => 0,
        };
        let assured = if self.assured { flag::ASSURED } else { 0 };
        let second = if is_echo(&self.flow) {
            u16::from(opener == Side::Local)
        } else {
            self.flow.remote_port
        };
        Restored {
            owner: interface << 8 | u32::from(self.flow.protocol),
            ports: u32::from(self.flow.local_port) << 16 | u32::from(second),
            local: self.flow.local,
            remote: self.flow.remote,
            record: CtRecord {
                generation,
                state: self.state as u8,
                flags: flag::ADOPTED | opened | assured | self.fins,
                seen: now.wrapping_sub((life - left).saturating_mul(hz)),
                ack,
                fin,
                ..CtRecord::ZERO
            },
        }
    }
}

fn is_echo(flow: &Flow) -> bool {
    match flow.protocol {
        protocol::ICMP => flow.remote.is_ipv4(),
        protocol::ICMPV6 => flow.remote.is_ipv6(),
        _ => false,
    }
}

fn words(octets: [u8; 16]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(octets.chunks_exact(4)) {
        *word = u32::from_ne_bytes(bytes.try_into().expect("chunks of four"));
    }
    words
}

#[cfg(test)]
mod tests;
