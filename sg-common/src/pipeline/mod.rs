//! A packet's way: parse, always-passed, fragments, conntrack, untracked, classification.
//!
//! One function for both sides: the kernel calls [`judge`] with pointers into the packet and BPF
//! maps, tests call it with slices and vectors.
//!
//! | file | what of the way |
//! |---|---|
//! | `mod.rs` | entry, order of the stages, headers |
//! | `fast.rs` | the short way of plain packets of live flows |
//! | `stage.rs` | what the stages are |
//! | `later.rs` | the stages after the first, one after the other |
//! | `always.rs` | what passes whatever the rules |
//! | `fragment.rs` | later fragments |
//! | `related.rs` | ICMP errors |
//! | `flow.rs` | packets of flows, and new flows |

mod always;
mod fast;
mod flow;
mod fragment;
mod later;
mod related;
mod stage;

use crate::{
    classify::{Allowing, Question, Selector},
    conntrack::Side,
    family::{Family, V4, V6, address_key},
    layout::{Interface, interface_flags, policy_flags},
    table::{self, Context, Inserted, Probe},
    tables::Tables,
    verdict::{Direction, DropReason, PassKind},
    wire::{
        self, ETHERNET, Frame, Payload,
        ip::{Datagram, Place},
        transport::{self, protocol},
    },
};
use always::Kinds;
pub use later::{is_ipv6, later, miss, missed, misses, open, opens, run};
use stage::{Call, Plan, drop, pass, what};
pub use stage::{Outcome, Room, Scratch};

/// What the hook knows of a frame without looking at it.
#[derive(Clone, Copy, Debug)]
pub struct Meeting {
    /// Interface id.
    pub id: u32,
    /// As [`Arrival::hook_ingress`].
    pub hook_ingress: bool,
    /// As [`Arrival::packets`].
    pub packets: u32,
}

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

/// A packet on its way through one interface.
struct Passage<'a, T> {
    context: Context<'a, T>,
    interface: &'a Interface,
    id: u32,
    direction: Direction,
    packets: u32,
    bytes: u32,
}

/// Judges a frame of a live flow, and counts the verdict; frame and `scratch` are asked for when they are needed.
/// One that is not decided ([`Outcome::decided`]) goes on where [`Outcome::next`] says: [`general`], [`miss`] or
/// [`later()`].
#[inline(always)]
pub fn judge<'s, T: Tables, P: Frame>(
    tables: &T,
    meeting: Meeting,
    frame: impl FnOnce() -> P,
    scratch: impl Fn() -> Option<&'s mut Scratch>,
) -> Outcome {
    let (outcome, direction, arrival) = fast::judge(tables, meeting, frame, &scratch);
    if outcome == stage::GENERAL
        && let Some(scratch) = scratch()
    {
        scratch.call = Call::new(&arrival, 0, outcome.0);
    }
    if outcome.decided() {
        count(tables, &arrival, direction, outcome);
    }
    outcome
}

/// What [`judge`] knew of the frame that [`general`] goes on with.
#[inline(always)]
pub fn arrival(scratch: &Scratch) -> Arrival {
    let call = scratch.call;
    Arrival {
        id: call.id,
        hook_ingress: call.what & what::HOOK_INGRESS != 0,
        packets: call.packets,
        bytes: call.bytes,
    }
}

#[inline(always)]
fn count<T: Tables>(tables: &T, arrival: &Arrival, direction: Direction, outcome: Outcome) {
    tables.count(
        arrival.id,
        direction,
        outcome.index(),
        arrival.packets,
        arrival.bytes,
    );
}

/// [`crate::family::Flow::ports`] of a packet that travels in `direction`.
#[inline(always)]
fn ports(direction: Direction, source: u16, destination: u16) -> u32 {
    let (local, remote) = match direction {
        Direction::Ingress => (destination, source),
        Direction::Egress => (source, destination),
    };
    u32::from(local) << 16 | u32::from(remote)
}

/// The direction of what arrives at an interface.
#[inline(always)]
fn direction(interface: &Interface, arrival: &Arrival) -> Direction {
    let host = interface.flags & interface_flags::HOST != 0;
    if arrival.hook_ingress == host {
        Direction::Egress
    } else {
        Direction::Ingress
    }
}

/// Judges any frame as far as headers and a live entry suffice, and counts the verdict if there is one.
#[inline(always)]
pub fn general<T: Tables, P: Frame>(
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
    let direction = direction(interface, arrival);
    if interface.flags & interface_flags::PRESENT == 0 {
        if interface.flags & interface_flags::UNCONFIRMED == 0 {
            return unknown(tables, arrival);
        }
        let outcome = pass(PassKind::Unconfirmed);
        count(tables, arrival, direction, outcome);
        return outcome;
    }
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
    let mut beside = what::of::<V4>(direction);
    let outcome = match wire::ethernet(frame) {
        Ok(Payload::Ipv4) => passage.first::<V4, P>(frame, scratch),
        Ok(Payload::Ipv6) => {
            beside = what::of::<V6>(direction);
            passage.first::<V6, P>(frame, scratch)
        }
        Ok(Payload::Arp) => passage.arp(frame),
        Err(DropReason::Ethertype) => passage.other(frame),
        Err(reason) => drop(reason),
    };
    if outcome.decided() {
        count(tables, arrival, direction, outcome);
    } else {
        scratch.call = Call::new(arrival, generation, outcome.0 | beside);
    }
    outcome
}

/// What becomes of a packet that another program should have gone on with and was not handed: it is dropped,
/// and counted.
#[inline(always)]
pub fn lost<T: Tables>(tables: &T, arrival: &Arrival) -> Outcome {
    unknown(tables, arrival)
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

    /// The stages that read the frame.
    #[inline(always)]
    fn first<F: Kinds, P: Frame>(&self, frame: &P, scratch: &mut Scratch) -> Outcome {
        let outcome = self.packet::<F, P>(frame, scratch);
        if outcome == stage::ICMP_ERROR {
            return self.quote::<F, P>(frame, scratch);
        }
        outcome
    }

    /// Why no packet has these addresses. One that its entry answered was asked before the entry was made.
    #[inline(always)]
    fn impossible<F: Kinds>(&self, datagram: &Datagram<F>) -> Option<DropReason> {
        if !F::source_possible(datagram.source(self.direction), datagram.protocol) {
            Some(DropReason::IpSource)
        } else if !F::destination_possible(datagram.destination(self.direction)) {
            Some(DropReason::IpDestination)
        } else if datagram.flow.local == datagram.flow.remote {
            Some(DropReason::Land)
        } else {
            None
        }
    }

    /// The stage of a packet without an entry.
    #[inline(always)]
    fn missed<F: Kinds, const QUICK: bool>(&self, scratch: &mut Scratch) -> Outcome {
        let (datagram, plan) = F::packet(scratch);
        if let Some(reason) = self.impossible(datagram) {
            return drop(reason);
        }
        let foreign = self.foreign(datagram);
        if foreign != stage::MISS {
            return foreign;
        }
        let outcome = self.policy::<F, QUICK>(datagram, plan);
        if outcome != stage::OPEN {
            self.remember(datagram, outcome);
            return outcome;
        }
        let crowded = table::crowded(&self.context, self.interface, self.id);
        Outcome(outcome.0 + if crowded { stage::MAKE_ROOM } else { 0 })
    }

    /// The last stage of a flow that is allowed to begin.
    #[inline(always)]
    fn opening<F: Kinds>(&self, scratch: &mut Scratch, stage: Outcome) -> Outcome {
        let (datagram, plan) = F::packet(scratch);
        let kind = Outcome(stage::OPEN.0 + (stage.0 & stage::KIND));
        let last = stage.0 & stage::LAST != 0;
        table::fetch::<T, F>(&self.context, datagram.hash);
        self.begin(datagram, plan, kind);
        let outcome = match self.open(datagram, plan, last) {
            Inserted::Made if kind == stage::OPEN => pass(PassKind::New),
            Inserted::Made => pass(PassKind::TakenOver),
            // Another CPU made it a moment ago; this packet is the flow's second.
            Inserted::Exists => pass(PassKind::Established),
            Inserted::Full if last => drop(DropReason::AllowanceExceeded),
            Inserted::Full => return Outcome(stage.0 + stage::RECLAIM),
        };
        self.remember(datagram, outcome);
        outcome
    }

    /// Source and destination check (fact 5.5): whose packet this is not; `MISS`: go on. A packet that
    /// its entry answered was checked when the entry was made or last judged.
    #[inline(always)]
    fn foreign<F: Family>(&self, datagram: &Datagram<F>) -> Outcome {
        let local = &datagram.flow.local;
        if !self.flag(interface_flags::SOURCE_DEST_CHECK)
            || F::belongs_to_link(local)
            || self
                .context
                .tables
                .address(self.context.bank(), &address_key::<F>(self.id, local))
        {
            stage::MISS
        } else if self.inbound() {
            drop(DropReason::DestinationForeign)
        } else {
            drop(DropReason::AddressSpoofed)
        }
    }

    /// The first stage: headers, always-passed kinds, and packets of live flows.
    #[inline(always)]
    fn packet<F: Kinds, P: Frame>(&self, frame: &P, scratch: &mut Scratch) -> Outcome {
        scratch.plan.revoked = false;
        let datagram = F::room(scratch, 0);
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
        if let Some(reason) = self.impossible(datagram) {
            return drop(reason);
        }
        let service =
            self.flag(interface_flags::SERVICES) && self.service::<F>(&datagram.flow.remote);
        if datagram.later_fragment() {
            return if service {
                stage::SERVICE
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
            return stage::SERVICE;
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
        match table::probe::<T, F>(
            self.context.tables,
            self.context.runtime,
            datagram.hash,
            &F::words(&datagram.flow),
        ) {
            Probe::Hit(mut entry) => self.hit(datagram, &mut entry),
            Probe::Miss => stage::MISS,
            Probe::Unsure => stage::RECHECK,
        }
    }

    /// ICMP that opens nothing: passed by an explicit rule or not at all (attacks G9).
    #[inline(never)]
    fn by_rule<F: Kinds>(&self, datagram: &Datagram<F>, plan: &mut Plan) -> Outcome {
        let error = F::is_error((datagram.destination_port >> 8) as u8);
        plan.allowing = self.allows(datagram);
        if plan.allowing.any() {
            pass(PassKind::Stateless)
        } else if error {
            drop(DropReason::IcmpUnrelated)
        } else {
            drop(DropReason::NoRule)
        }
    }

    /// The rules of this direction that allow the packet to open a flow.
    #[inline(always)]
    fn allows<F: Kinds>(&self, datagram: &Datagram<F>) -> Allowing {
        self.allows_value(datagram, self.direction, datagram.destination_port)
    }

    /// The rules of `direction` that allow the flow's protocol with this port, or type and code.
    #[inline(always)]
    fn allows_value<F: Kinds>(
        &self,
        datagram: &Datagram<F>,
        direction: Direction,
        value: u16,
    ) -> Allowing {
        let question = Question {
            bank: self.context.bank(),
            id: self.id,
            direction,
            selector: Selector::new::<F>(datagram.protocol, value),
        };
        let remote = &datagram.flow.remote;
        self.context.tables.allows::<F>(&question, remote)
    }

    /// What the rules are asked about a packet that is to open a flow.
    #[inline(always)]
    fn question<F: Kinds>(&self, datagram: &Datagram<F>) -> Question {
        Question {
            bank: self.context.bank(),
            id: self.id,
            direction: self.direction,
            selector: Selector::new::<F>(datagram.protocol, datagram.destination_port),
        }
    }

    #[inline(always)]
    fn untracked<F: Family>(&self, datagram: &Datagram<F>) -> bool {
        // Most interfaces are open to everywhere in no direction, or for every port in both, and then nothing
        // has to be looked up.
        let open = match datagram.protocol {
            protocol::TCP => policy_flags::OPEN_TCP,
            protocol::UDP => policy_flags::OPEN_UDP,
            _ => return false,
        };
        let policies = &self.interface.policy;
        let family = usize::from(F::IPV6);
        let (ingress, egress) = (policies[family].flags, policies[family + 2].flags);
        if (ingress | egress) & open == 0 || self.flag(interface_flags::TRACK_ALWAYS) {
            return false;
        }
        if ingress & egress & open != 0 {
            return true;
        }
        self.context.tables.untracked(
            F::IPV6,
            self.context.bank(),
            self.id,
            datagram.protocol,
            datagram.flow.ports,
        ) != 0
    }

    /// Completes the flow of a packet that travels in `direction`, and hashes it.
    #[inline(always)]
    fn identify<F: Family>(&self, datagram: &mut Datagram<F>, direction: Direction) {
        datagram.flow.ports = if datagram.protocol == F::ICMP {
            // A request from either side is a flow of its own, even with one identifier (attacks G1).
            let request = (datagram.destination_port >> 8) as u8 == F::ECHO_REQUEST;
            let egress = direction as u8 == Direction::Egress as u8;
            u32::from(datagram.identifier) << 16 | u32::from(egress == request)
        } else {
            ports(direction, datagram.source_port, datagram.destination_port)
        };
        datagram.flow.owner = self.id << 8 | u32::from(datagram.protocol);
        datagram.hash = F::hash(&datagram.flow, &self.context.runtime.seed);
    }
}
