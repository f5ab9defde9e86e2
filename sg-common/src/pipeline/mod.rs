//! A packet's way: parse, always-passed, fragments, conntrack, untracked, classification.
//!
//! One function for both sides: the kernel calls [`judge`] with pointers into the packet and BPF
//! maps, tests call it with slices and vectors.
//!
//! | file | what of the way |
//! |---|---|
//! | `mod.rs` | entry, stages, headers |
//! | `always.rs` | what passes whatever the rules |
//! | `fragment.rs` | later fragments |
//! | `related.rs` | ICMP errors |
//! | `flow.rs` | packets of flows, and new flows |

mod always;
mod flow;
mod fragment;
mod related;

use crate::{
    classify::{self, Selector},
    conntrack::Side,
    family::{Family, V4, V6},
    layout::{Interface, WAYS, interface_flags, policy_index},
    table::{self, Context},
    tables::Tables,
    verdict::{
        Direction, DropReason, PassKind,
        Verdict::{self, Drop, Pass},
    },
    wire::{
        self, ETHERNET, Frame, Payload,
        ip::{Datagram, Place},
        transport::{self, protocol},
    },
};
use always::Kinds;

/// What the hook knows of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Interface id.
    pub id: u32,
    /// Whether the packet came in by the device (as opposed to going out by it).
    pub hook_ingress: bool,
    /// Packets on the wire that the frame stands for.
    pub packets: u32,
    /// Their bytes.
    pub bytes: u32,
}

/// Room for one packet of either family and the packet it may quote. Its contents mean nothing
/// between packets.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Scratch {
    v4: [Datagram<V4>; 2],
    v6: [Datagram<V6>; 2],
}

impl Scratch {
    /// All zero.
    // SAFETY: integers and booleans only; all-zero bytes are valid.
    pub const ZERO: Self = unsafe { core::mem::zeroed() };
}

/// A [`Verdict`] as the number of its counter, which fits a register; within this module also the
/// stage that a packet goes to next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome(u32);

impl Outcome {
    /// Whether the packet goes on.
    #[inline(always)]
    pub fn passes(self) -> bool {
        self.0 < crate::verdict::PASS_KINDS as u32
    }

    /// [`Verdict::outcome`].
    #[inline(always)]
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The outcome with this number; any number that is none drops.
    #[inline(always)]
    pub fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// What the number stands for.
    pub fn verdict(self) -> Verdict {
        Verdict::from_outcome(self.index()).expect("made from a verdict")
    }
}

/// Stages after the first. Each is a function of its own that the entry point calls one after the
/// other: nested, they would not fit the 512 bytes of stack that a program has, and the packets that
/// need none stay in few lines of instruction cache.
mod stage {
    use super::Outcome;

    /// A later fragment.
    pub(super) const FRAGMENT: Outcome = Outcome(0x100);
    /// An ICMP error.
    pub(super) const ICMP_ERROR: Outcome = Outcome(0x101);
    /// An ICMP message that only a rule can let pass.
    pub(super) const BY_RULE: Outcome = Outcome(0x102);
    /// No entry.
    pub(super) const MISS: Outcome = Outcome(0x103);
    /// An entry that does not answer by itself: expired, judged under another generation, or asked by
    /// a SYN or a first fragment.
    pub(super) const RECHECK: Outcome = Outcome(0x104);
    /// An ICMP error whose quoted packet has been read.
    pub(super) const QUOTED: Outcome = Outcome(0x106);
    /// Allowed to open a flow.
    pub(super) const OPEN: Outcome = Outcome(0x105);
}

#[inline(always)]
fn pass(kind: PassKind) -> Outcome {
    Outcome(Pass(kind).outcome() as u32)
}

#[inline(always)]
fn drop(reason: DropReason) -> Outcome {
    Outcome(Drop(reason).outcome() as u32)
}

/// A packet on its way through one interface.
struct Passage<'a, T> {
    context: Context<'a, T>,
    interface: &'a Interface,
    id: u32,
    direction: Direction,
    packets: u32,
    bytes: u32,
}

/// A stage to run, in numbers only: what the second half of a packet's way needs of the first,
/// besides the [`Scratch`].
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Stage, family and direction.
    pub what: u32,
    /// Interface id.
    pub id: u32,
    /// Generation that judges the packet.
    pub generation: u32,
    /// Packets on the wire.
    pub packets: u32,
    /// Their bytes.
    pub bytes: u32,
}

/// Bits of [`Call::what`] beside the stage.
mod what {
    pub(super) const IPV6: u32 = 1 << 16;
    pub(super) const EGRESS: u32 = 1 << 17;
}

/// Judges a frame and counts the verdict.
#[inline(always)]
pub fn judge<T: Tables, P: Frame>(
    tables: &T,
    frame: &P,
    arrival: &Arrival,
    scratch: &mut Scratch,
) -> Outcome {
    let generation = tables.generation();
    let (Some(interface), Some(runtime)) = (
        tables.interface(generation & 1, arrival.id),
        tables.runtime(),
    ) else {
        return unknown(tables, arrival);
    };
    if interface.flags & interface_flags::PRESENT == 0 {
        return unknown(tables, arrival);
    }
    let host = interface.flags & interface_flags::HOST != 0;
    let direction = if arrival.hook_ingress == host {
        Direction::Egress
    } else {
        Direction::Ingress
    };
    let passage = Passage {
        context: Context {
            tables,
            runtime,
            now: tables.now(),
            generation,
        },
        interface,
        id: arrival.id,
        direction,
        packets: arrival.packets,
        bytes: arrival.bytes,
    };
    let outcome = match wire::ethernet(frame) {
        Ok(Payload::Ipv4) => passage.stages::<V4, P>(frame, scratch),
        Ok(Payload::Ipv6) => passage.stages::<V6, P>(frame, scratch),
        Ok(Payload::Arp) => passage.arp(frame),
        Err(reason) => drop(reason),
    };
    tables.count(
        arrival.id,
        direction,
        outcome.index(),
        arrival.packets,
        arrival.bytes,
    );
    outcome
}

/// Runs the stages after the first.
#[inline(always)]
pub fn run<T: Tables>(tables: &T, call: &Call, scratch: &mut Scratch) -> Outcome {
    let (Some(interface), Some(runtime)) = (
        tables.interface(call.generation & 1, call.id),
        tables.runtime(),
    ) else {
        return drop(DropReason::InterfaceUnknown);
    };
    let direction = if call.what & what::EGRESS != 0 {
        Direction::Egress
    } else {
        Direction::Ingress
    };
    let passage = Passage {
        context: Context {
            tables,
            runtime,
            now: tables.now(),
            generation: call.generation,
        },
        interface,
        id: call.id,
        direction,
        packets: call.packets,
        bytes: call.bytes,
    };
    let next = Outcome(call.what & 0xffff);
    if call.what & what::IPV6 != 0 {
        passage.later::<V6>(next, scratch)
    } else {
        passage.later::<V4>(next, scratch)
    }
}

/// No policy, no passage. Counted by the hook's direction: the orientation is not known either.
#[inline(always)]
fn unknown<T: Tables>(tables: &T, arrival: &Arrival) -> Outcome {
    let outcome = drop(DropReason::InterfaceUnknown);
    let direction = if arrival.hook_ingress {
        Direction::Ingress
    } else {
        Direction::Egress
    };
    tables.count(
        0,
        direction,
        outcome.index(),
        arrival.packets,
        arrival.bytes,
    );
    outcome
}

impl<T: Tables> Passage<'_, T> {
    #[inline(always)]
    fn flag(&self, bit: u32) -> bool {
        self.interface.flags & bit != 0
    }

    #[inline(always)]
    fn inbound(&self) -> bool {
        self.direction as u8 == Direction::Ingress as u8
    }

    #[inline(always)]
    fn sender(&self) -> Side {
        match self.direction {
            Direction::Ingress => Side::Remote,
            Direction::Egress => Side::Local,
        }
    }

    /// Takes an IP packet from stage to stage.
    #[inline(always)]
    fn stages<F: Kinds, P: Frame>(&self, frame: &P, scratch: &mut Scratch) -> Outcome {
        let mut outcome = self.packet::<F, P>(frame, scratch);
        if outcome == stage::ICMP_ERROR {
            outcome = self.quote::<F, P>(frame, scratch);
        }
        if outcome.0 < stage::FRAGMENT.0 {
            return outcome;
        }
        let family = if F::IPV6 { what::IPV6 } else { 0 };
        let direction = if self.inbound() { 0 } else { what::EGRESS };
        let call = Call {
            what: outcome.0 | family | direction,
            id: self.id,
            generation: self.context.generation,
            packets: self.packets,
            bytes: self.bytes,
        };
        self.context.tables.run(&call, scratch)
    }

    /// The stages that need no frame, one after the other.
    #[inline(always)]
    fn later<F: Kinds>(&self, next: Outcome, scratch: &mut Scratch) -> Outcome {
        let mut outcome = next;
        if outcome == stage::QUOTED {
            outcome = self.quoted(F::room(scratch, 1));
        }
        let datagram = F::room(scratch, 0);
        if outcome == stage::FRAGMENT {
            return self.later_fragment(datagram);
        }
        if outcome == stage::BY_RULE {
            outcome = self.by_rule(datagram);
        }
        if outcome == stage::RECHECK {
            // A SYN goes through policy in its own direction, whatever stands (decisions, Connection
            // tracking 8); everything else asks the entry first.
            let syn = datagram.protocol == protocol::TCP && datagram.segment.is_syn();
            let fallback = if syn {
                self.policy(datagram)
            } else {
                stage::MISS
            };
            outcome = fallback;
            if fallback != drop(DropReason::NoRule) {
                outcome = self.again(datagram, fallback);
            }
        }
        if outcome == stage::MISS {
            outcome = self.policy(datagram);
        }
        if outcome == stage::OPEN {
            outcome = self.open(datagram);
        }
        // A first fragment carries the ports: judged like a whole packet, remembered if it passes.
        if datagram.first_fragment && outcome.passes() {
            self.remember(datagram);
        }
        outcome
    }

    /// The first stage: headers, always-passed kinds, and packets of live flows.
    #[inline(never)]
    fn packet<F: Kinds, P: Frame>(&self, frame: &P, scratch: &mut Scratch) -> Outcome {
        let datagram = F::room(scratch, 0);
        datagram.first_fragment = false;
        let place = Place {
            offset: ETHERNET,
            available: wire::ip::available(frame),
            quoted: false,
            direction: self.direction,
        };
        if let Err(reason) = F::parse(frame, place, datagram) {
            return drop(reason);
        }
        // Some always-passed kinds have sources that nothing else may have.
        if (datagram.protocol == F::ICMP || datagram.protocol == protocol::UDP)
            && let Some(outcome) = F::always(self, frame, datagram)
        {
            return outcome;
        }
        if !F::source_possible(datagram.source(self.direction), datagram.protocol) {
            return drop(DropReason::IpSource);
        }
        if !F::destination_possible(datagram.destination(self.direction)) {
            return drop(DropReason::IpDestination);
        }
        if datagram.flow.local == datagram.flow.remote {
            return drop(DropReason::Land);
        }
        let service =
            self.flag(interface_flags::SERVICES) && self.service::<F>(&datagram.flow.remote);
        if datagram.later_fragment() {
            return if service {
                pass(PassKind::Service)
            } else {
                stage::FRAGMENT
            };
        }
        if let Err(reason) = transport::parse(frame, datagram) {
            return drop(reason);
        }
        // A service answers; it opens no connections, so its address is no way in for a neighbour.
        let opens =
            self.inbound() && datagram.protocol == protocol::TCP && datagram.segment.is_syn();
        if service && !opens {
            return pass(PassKind::Service);
        }
        if datagram.protocol == F::ICMP {
            let kind = (datagram.destination_port >> 8) as u8;
            if F::is_error(kind) {
                return stage::ICMP_ERROR;
            }
            if kind != F::ECHO_REQUEST && kind != F::ECHO_REPLY {
                return stage::BY_RULE;
            }
        }
        self.identify(datagram, self.direction);
        match table::lookup::<T, F>(&self.context, datagram.hash, &datagram.flow, WAYS) {
            Some(mut entry) => self.hit(datagram, &mut entry),
            None => stage::MISS,
        }
    }

    /// ICMP that opens nothing: passed by an explicit rule or not at all (attacks G9).
    #[inline(never)]
    fn by_rule<F: Kinds>(&self, datagram: &Datagram<F>) -> Outcome {
        let error = F::is_error((datagram.destination_port >> 8) as u8);
        if self.allows(datagram) {
            pass(PassKind::Stateless)
        } else if error {
            drop(DropReason::IcmpUnrelated)
        } else {
            drop(DropReason::NoRule)
        }
    }

    /// Whether a rule of this direction allows the packet to open a flow.
    #[inline(always)]
    fn allows<F: Family>(&self, datagram: &Datagram<F>) -> bool {
        classify::allows::<T, F>(
            self.context.tables,
            self.context.bank(),
            &self.interface.policy[policy_index(self.direction, F::IPV6)],
            &datagram.flow.remote,
            Selector::new::<F>(datagram.protocol, datagram.destination_port),
        )
    }

    #[inline(always)]
    fn untracked<F: Family>(&self, datagram: &Datagram<F>) -> bool {
        classify::untracked::<T, F>(
            self.context.tables,
            self.context.bank(),
            self.interface,
            datagram.protocol,
            datagram.flow.ports,
        )
    }

    /// Completes the flow of a packet that travels in `direction`, and hashes it.
    #[inline(always)]
    fn identify<F: Family>(&self, datagram: &mut Datagram<F>, direction: Direction) {
        let (source, destination) = (
            u32::from(datagram.source_port),
            u32::from(datagram.destination_port),
        );
        let egress = direction as u8 == Direction::Egress as u8;
        datagram.flow.ports = if datagram.protocol == F::ICMP {
            // A request from either side is a flow of its own, even with one identifier (attacks G1).
            let request = (destination >> 8) as u8 == F::ECHO_REQUEST;
            u32::from(datagram.identifier) << 16 | u32::from(egress == request)
        } else if egress {
            source << 16 | destination
        } else {
            destination << 16 | source
        };
        datagram.flow.owner = self.id << 8 | u32::from(datagram.protocol);
        datagram.hash = F::hash(&datagram.flow, &self.context.runtime.seed);
    }
}
