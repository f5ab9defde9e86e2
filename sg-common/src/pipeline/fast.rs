//! The short way of the packets that there are most of: TCP and UDP without anything unusual about them, and
//! ARP.
//!
//! It takes a packet no further than it is sure to agree with the long way (`mod.rs`), and leaves everything
//! else to that: options, extension headers, fragments, flags that end or open a connection for which there is
//! an entry, states that the packet would change. Addresses are not checked before an entry is found: no flow
//! has impossible ones, because a flow's first packet took a longer way.

use super::{Arrival, Call, Meeting, Outcome, Room, Scratch, stage, what};
use crate::{
    atomic,
    conntrack::{self, Meta, Segment, Side, State, expired, flag, tcp},
    family::{Family, V4, V6, pair},
    layout::{Interface, Runtime, Timeout, interface_flags, policy_index},
    table::{self, Entry, Probe},
    tables::Tables,
    verdict::{Direction, PassKind},
    wire::{self, ETHERNET, Frame, Window, ethertype, ip::Datagram, transport::protocol},
};

/// What the short way reads of an IP header, addresses aside.
struct Header {
    protocol: u8,
    /// Offset of the transport header.
    transport: usize,
    /// Bytes from there to the end of the packet.
    length: u32,
}

/// A family whose plain packets can be told from all others.
trait Plain: Room {
    /// Ports of DHCP, as they stand in a packet of a client or to it: those go the long way.
    const DHCP: [u32; 2];

    /// The header of a packet with nothing between it and a TCP or UDP header; `available` bytes of the
    /// frame are behind the Ethernet header.
    fn header<P: Frame>(frame: &P, available: u32) -> Option<Header>;

    /// The flow of the packet, given owner and ports; `inbound`: its source is remote.
    fn key<P: Frame>(frame: &P, inbound: bool, owner_ports: u64) -> Option<Self::Words>;

    /// TTL or hop limit.
    fn hop_limit<P: Frame>(frame: &P) -> Option<u8>;
}

impl Plain for V4 {
    const DHCP: [u32; 2] = [67 << 16 | 68, 68 << 16 | 67];

    #[inline(always)]
    fn header<P: Frame>(frame: &P, available: u32) -> Option<Header> {
        let header = frame.window::<20>(ETHERNET)?;
        let total = u32::from(header.u16(2));
        // Version 4 and five words; no fragment.
        let plain = header.u8(0) == 0x45 && header.half(6) & 0x3fff_u16.to_be() == 0;
        if !plain || total > available || total < 20 {
            return None;
        }
        Some(Header {
            protocol: header.u8(9),
            transport: ETHERNET + 20,
            length: total - 20,
        })
    }

    #[inline(always)]
    fn key<P: Frame>(frame: &P, inbound: bool, owner_ports: u64) -> Option<[u64; 2]> {
        let header = frame.window::<20>(ETHERNET)?;
        let (source, destination) = (header.word(12), header.word(16));
        let addresses = if inbound {
            pair(destination, source)
        } else {
            pair(source, destination)
        };
        Some([owner_ports, addresses])
    }

    #[inline(always)]
    fn hop_limit<P: Frame>(frame: &P) -> Option<u8> {
        Some(frame.window::<20>(ETHERNET)?.u8(8))
    }
}

impl Plain for V6 {
    const DHCP: [u32; 2] = [546 << 16 | 547, 547 << 16 | 546];

    #[inline(always)]
    fn header<P: Frame>(frame: &P, available: u32) -> Option<Header> {
        let header = frame.window::<40>(ETHERNET)?;
        let length = u32::from(header.u16(4));
        if header.u8(0) >> 4 != 6 || length == 0 || length + 40 > available {
            return None;
        }
        Some(Header {
            protocol: header.u8(6),
            transport: ETHERNET + 40,
            length,
        })
    }

    #[inline(always)]
    fn key<P: Frame>(frame: &P, inbound: bool, owner_ports: u64) -> Option<[u64; 5]> {
        let header = frame.window::<40>(ETHERNET)?;
        let source = [header.pair(8), header.pair(16)];
        let destination = [header.pair(24), header.pair(32)];
        let (local, remote) = if inbound {
            (destination, source)
        } else {
            (source, destination)
        };
        Some([owner_ports, local[0], local[1], remote[0], remote[1]])
    }

    #[inline(always)]
    fn hop_limit<P: Frame>(frame: &P) -> Option<u8> {
        Some(frame.window::<40>(ETHERNET)?.u8(7))
    }
}

/// Bytes of a TCP header.
#[inline(always)]
fn data_offset<W: Window>(tcp: W) -> u32 {
    u32::from(tcp.u8(12) >> 4) * 4
}

/// What is known of a packet on the short way.
struct Way<'a, T> {
    tables: &'a T,
    runtime: &'a Runtime,
    generation: u32,
    interface: &'a Interface,
    arrival: Arrival,
    direction: Direction,
}

/// The verdict of a packet of a live flow, [`stage::MISS`] with all that [`super::miss`] needs in the scratch, or
/// [`stage::GENERAL`]: the long way from its beginning. Counts nothing.
#[inline(always)]
pub(super) fn judge<'s, T: Tables, P: Frame>(
    tables: &T,
    meeting: Meeting,
    frame: impl FnOnce() -> P,
    scratch: impl FnOnce() -> Option<&'s mut Scratch>,
) -> (Outcome, Direction, Arrival) {
    let generation = tables.generation();
    let interface = tables.interface(generation & 1, meeting.id);
    let runtime = tables.runtime();
    // Not before: looking something up leaves the kernel few registers, and what it knows of a frame takes two.
    let frame = frame();
    let arrival = Arrival {
        id: meeting.id,
        hook_ingress: meeting.hook_ingress,
        packets: meeting.packets,
        bytes: frame.len(),
    };
    let general = (stage::GENERAL, Direction::Ingress, arrival);
    let (Some(interface), Some(runtime)) = (interface, runtime) else {
        return general;
    };
    if interface.flags & interface_flags::PRESENT == 0 {
        return general;
    }
    let way = Way {
        tables,
        runtime,
        generation,
        interface,
        arrival,
        direction: super::direction(interface, &arrival),
    };
    let outcome = match frame.window::<ETHERNET>(0) {
        Some(header) if !frame.tagged() => match u16::from_be(header.half(12)) {
            ethertype::IPV4 => way.packet::<V4, P>(&frame, scratch),
            ethertype::IPV6 => way.packet::<V6, P>(&frame, scratch),
            ethertype::ARP => way.arp(&frame),
            _ => stage::GENERAL,
        },
        _ => stage::GENERAL,
    };
    (outcome, way.direction, arrival)
}

impl<T: Tables> Way<'_, T> {
    #[inline(always)]
    fn sender(&self) -> Side {
        match self.direction {
            Direction::Ingress => Side::Remote,
            Direction::Egress => Side::Local,
        }
    }

    /// ARP, where nobody asks whose address the sender's is.
    #[inline(always)]
    fn arp<P: Frame>(&self, frame: &P) -> Outcome {
        if !self.asks_addresses() && wire::arp_sender(frame).is_ok() {
            stage::pass(PassKind::Arp)
        } else {
            stage::GENERAL
        }
    }

    /// Solicitations and neighbour advertisements, where nobody asks whose address the sender's is.
    #[inline(always)]
    fn neighbor<P: Frame>(&self, frame: &P, header: &Header) -> Outcome {
        let (Some(ip), Some(icmp)) = (
            frame.window::<40>(ETHERNET),
            frame.window::<24>(ETHERNET + 40),
        ) else {
            return stage::GENERAL;
        };
        let kind = icmp.u8(0);
        let passes = !self.asks_addresses()
            && matches!(kind, 133 | 135 | 136)
            && icmp.u8(1) == 0
            && header.length >= 24
            && ip.u8(7) == 255
            && ip.u8(8) != 0xff;
        if passes {
            stage::pass(PassKind::NeighborDiscovery)
        } else {
            stage::GENERAL
        }
    }

    /// Whether it matters whose address the sender's is.
    #[inline(always)]
    fn asks_addresses(&self) -> bool {
        let asked = interface_flags::HOST | interface_flags::ADDRESSES_KNOWN;
        self.interface.flags & asked == asked
    }

    #[inline(always)]
    fn packet<'s, F: Plain, P: Frame>(
        &self,
        frame: &P,
        scratch: impl FnOnce() -> Option<&'s mut Scratch>,
    ) -> Outcome {
        let available = frame.len().wrapping_sub(ETHERNET as u32);
        let Some(header) = F::header(frame, available) else {
            return stage::GENERAL;
        };
        if F::IPV6 && header.protocol == F::ICMP {
            return self.neighbor(frame, &header);
        }
        // Source port in the upper half.
        let Some(both) = frame
            .window::<8>(header.transport)
            .map(|ports| ports.u32(0))
        else {
            return stage::GENERAL;
        };
        let mut opens = false;
        if header.protocol == protocol::TCP {
            let Some(tcp) = frame.window::<20>(header.transport) else {
                return stage::GENERAL;
            };
            let control = tcp.u8(13) & (tcp::FIN | tcp::SYN | tcp::RST | tcp::ACK | tcp::URG);
            opens = control == tcp::SYN;
            let bytes = data_offset(tcp);
            if bytes < 20 || bytes > header.length || (control != tcp::ACK && !opens) {
                return stage::GENERAL;
            }
        } else if header.protocol == protocol::UDP {
            if header.length < 8 || both == F::DHCP[0] || both == F::DHCP[1] {
                return stage::GENERAL;
            }
        } else {
            return stage::GENERAL;
        }
        let inbound = self.direction as u8 == Direction::Ingress as u8;
        let ports = if inbound { both.rotate_left(16) } else { both };
        let owner = self.arrival.id << 8 | u32::from(header.protocol);
        let Some(words) = F::key(frame, inbound, pair(owner, ports)) else {
            return stage::GENERAL;
        };
        if self.interface.flags & interface_flags::SERVICES != 0
            && F::may_be_service(&F::unpacked(&words).remote)
        {
            return stage::GENERAL;
        }
        if self.interface.flags & interface_flags::BYPASS != 0
            && self.runtime.reviewed == self.generation
        {
            let rule_set = self.bypass::<F>(header.protocol, ports);
            if rule_set != 0 {
                return self.untracked::<F>(&words, rule_set);
            }
        }
        let hash = F::hash_words(&words, &self.runtime.seed);
        match table::probe::<T, F>(self.tables, self.runtime, hash, &words) {
            Probe::Hit(entry) if !opens => {
                let goes_on = if header.protocol == protocol::TCP {
                    match frame.window::<20>(header.transport) {
                        Some(tcp) => self.tcp(&entry, tcp.u32(8)),
                        None => false,
                    }
                } else {
                    self.udp(&entry)
                };
                if !goes_on {
                    return stage::GENERAL;
                }
                if self.tables.accounting() {
                    let (packets, bytes) = (self.arrival.packets, self.arrival.bytes);
                    entry.account(self.tables, self.direction as usize, packets, bytes);
                }
                stage::pass(PassKind::Established)
            }
            Probe::Miss => self.missed::<F, P>(frame, scratch, &header, hash, &words),
            _ => stage::GENERAL,
        }
    }

    /// The rules that let a packet pass whose flow needs no entry and has none, if the interface's record is enough
    /// to tell; 0: it is not. As [`crate::classify::untracked`] and [`crate::classify::allows`] would answer.
    #[inline(always)]
    fn bypass<F: Family>(&self, protocol: u8, ports: u32) -> u32 {
        let policy = policy_index(self.direction, F::IPV6);
        let range = &self.interface.bypass[policy][usize::from(protocol == protocol::UDP)];
        let local = ports >> 16;
        if u32::from(range.low) <= local && local <= u32::from(range.high) {
            range.rule_set
        } else {
            0
        }
    }

    /// A packet that [`Self::bypass`] lets pass, unless its addresses are impossible or may be another's.
    #[inline(always)]
    fn untracked<F: Family>(&self, words: &F::Words, rule_set: u32) -> Outcome {
        let flow = F::unpacked(words);
        let (source, destination) = match self.direction {
            Direction::Ingress => (&flow.remote, &flow.local),
            Direction::Egress => (&flow.local, &flow.remote),
        };
        let possible = F::source_possible(source, protocol::TCP)
            && F::destination_possible(destination)
            && source != destination;
        if !possible || self.interface.flags & interface_flags::SOURCE_DEST_CHECK != 0 {
            return stage::GENERAL;
        }
        let bank = self.generation & 1;
        self.tables.hit(bank, rule_set, self.arrival.packets);
        stage::pass(PassKind::Untracked)
    }

    /// Leaves what [`super::miss`] needs in the scratch.
    #[inline(always)]
    fn missed<'s, F: Plain, P: Frame>(
        &self,
        frame: &P,
        scratch: impl FnOnce() -> Option<&'s mut Scratch>,
        header: &Header,
        hash: u64,
        words: &F::Words,
    ) -> Outcome {
        let mut segment = Segment::default();
        if header.protocol == protocol::TCP {
            let Some(tcp) = frame.window::<20>(header.transport) else {
                return stage::GENERAL;
            };
            segment = Segment {
                flags: tcp.u8(13),
                sequence: tcp.u32(4),
                acknowledgement: tcp.u32(8),
                payload: header.length - data_offset(tcp),
            };
        }
        let (Some(hop_limit), Some(scratch)) = (F::hop_limit(frame), scratch()) else {
            return stage::GENERAL;
        };
        let flow = F::unpacked(&F::afresh(words));
        let (local, remote) = ((flow.ports >> 16) as u16, flow.ports as u16);
        let (source_port, destination_port) = match self.direction {
            Direction::Ingress => (remote, local),
            Direction::Egress => (local, remote),
        };
        *F::room(scratch, 0) = Datagram {
            hash,
            flow,
            segment,
            transport: header.transport as u32,
            length: header.length,
            id: 0,
            source_port,
            destination_port,
            identifier: 0,
            fragment_offset: 0,
            first_fragment: false,
            protocol: header.protocol,
            fragment_protocol: header.protocol,
            hop_limit,
            extended: false,
            router_alert: false,
        };
        scratch.plan.revoked = false;
        scratch.call = Call::new(
            &self.arrival,
            self.generation,
            stage::MISS.0 | what::of::<F>(self.direction),
        );
        stage::MISS
    }

    /// A segment with nothing but ACK, as [`conntrack::tcp_step`] would take it: on an established, assured
    /// entry without FIN or doubt it acknowledges and refreshes. `false`: it is no such entry.
    #[inline(always)]
    fn tcp<F: Family>(&self, entry: &Entry<F>, acknowledgement: u32) -> bool {
        const ESTABLISHED: u8 = State::TcpEstablished as u8;
        const FLAGS: u8 = flag::ASSURED | flag::FIN_LOCAL | flag::FIN_REMOTE | flag::DOUBTED;
        let looked_at = Meta::new(u32::MAX, u8::MAX, FLAGS, 0).0;
        let plain = Meta::new(self.generation, ESTABLISHED, flag::ASSURED, 0).0;
        let life = self.interface.timeouts[Timeout::TcpEstablished as usize];
        let live = entry.live();
        let now = self.tables.now();
        // SAFETY: a valid entry; aligned words.
        unsafe {
            let seen = atomic::load(&raw const (*live).seen);
            if entry.meta.0 & looked_at != plain || expired(now, seen, life) {
                return false;
            }
            let ack = (&raw mut (*live).ack)
                .cast::<u32>()
                .add(self.sender().index());
            let before = atomic::load(ack);
            if before == 0 || conntrack::ahead(acknowledgement, before) {
                atomic::store(ack, acknowledgement);
            }
            if seen != now {
                atomic::store(&raw mut (*live).seen, now);
            }
        }
        true
    }

    /// A datagram, as [`conntrack::udp_step`] takes it. `false`: it changes the entry's state, or that has to
    /// be looked at.
    #[inline(always)]
    fn udp<F: Family>(&self, entry: &Entry<F>) -> bool {
        let (now, hz) = (self.tables.now(), self.runtime.hz);
        let sender = self.sender();
        let live = entry.live();
        // SAFETY: a valid entry; words of it may change under us, each is true by itself.
        let step = conntrack::udp_step(entry.meta, unsafe { &*live }, sender, now, hz);
        // SAFETY: as above; aligned words.
        unsafe {
            let seen = atomic::load(&raw const (*live).seen);
            let life = if entry.meta.state() == State::UdpStream as u8 {
                self.interface.timeouts[Timeout::UdpStream as usize]
            } else {
                self.interface.timeouts[Timeout::Udp as usize]
            };
            let ack = (&raw mut (*live).ack).cast::<u32>().add(sender.index());
            let fin = (&raw mut (*live).fin).cast::<u32>().add(sender.index());
            if entry.meta.generation() != self.generation
                || entry.meta.with(step.state, step.flags) != entry.meta
                || atomic::load(ack) != step.ack
                || expired(now, seen, life)
            {
                return false;
            }
            if atomic::load(fin) != step.fin {
                atomic::store(fin, step.fin);
            }
            if step.refresh && seen != now {
                atomic::store(&raw mut (*live).seen, now);
            }
        }
        true
    }
}
