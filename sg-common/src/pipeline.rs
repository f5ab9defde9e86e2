//! A packet's way: parse, always-passed, fragments, conntrack, untracked, classification.
//!
//! One function for both sides: the kernel calls [`judge`] with pointers into the packet and BPF
//! maps, tests call it with slices and vectors.

use crate::{
    classify::{self, Selector},
    conntrack::{self, Segment, Side, State, Step, expired, flag, tcp},
    family::{Family, V4, V6, address_key},
    layout::{FragmentKey, Interface, WAYS, interface_flags, policy_index},
    table::{self, Context, Entry, Inserted, Removal},
    tables::Tables,
    verdict::{
        Direction, DropReason, PassKind,
        Verdict::{self, Drop, Pass},
    },
    wire::{
        self, ETHERNET, Frame, Payload, Window,
        ip::{Datagram, Parse, Place},
        transport::{self, protocol},
    },
};

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

    /// Whether the workload speaks for an address that is not its own: host side with known
    /// addresses only.
    #[inline(always)]
    fn claims_foreign<F: Family>(&self, address: &F::Address) -> bool {
        let checked = interface_flags::HOST | interface_flags::ADDRESSES_KNOWN;
        !self.inbound()
            && self.interface.flags & checked == checked
            && !self
                .context
                .tables
                .address(self.context.bank(), &address_key::<F>(self.id, address))
    }

    #[inline(never)]
    fn arp<P: Frame>(&self, frame: &P) -> Outcome {
        match wire::arp_sender(frame) {
            // A probe has no sender yet (RFC 5227 §1.1).
            Ok(sender) if sender != 0 && self.claims_foreign::<V4>(&sender) => {
                drop(DropReason::AddressSpoofed)
            }
            Ok(_) => pass(PassKind::Arp),
            Err(reason) => drop(reason),
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
        if !F::source_possible(datagram.source(self.direction)) {
            return drop(DropReason::IpSource);
        }
        if !F::destination_possible(datagram.destination(self.direction)) {
            return drop(DropReason::IpDestination);
        }
        if datagram.flow.local == datagram.flow.remote {
            return drop(DropReason::Land);
        }
        if self.flag(interface_flags::SERVICES) && self.service::<F>(&datagram.flow.remote) {
            return pass(PassKind::Service);
        }
        if datagram.later_fragment() {
            return stage::FRAGMENT;
        }
        if let Err(reason) = transport::parse(frame, datagram) {
            return drop(reason);
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

    /// Whether the peer is a link-local service that the definition lists (facts 5.1, 5.2).
    #[inline(always)]
    fn service<F: Family>(&self, remote: &F::Address) -> bool {
        F::may_be_service(remote)
            && self
                .context
                .tables
                .address(self.context.bank(), &address_key::<F>(0, remote))
    }

    #[inline(always)]
    fn fragment_key<F: Family>(&self, datagram: &Datagram<F>) -> FragmentKey {
        FragmentKey {
            interface: self.id,
            kind: (self.direction as u32) << 16
                | (if F::IPV6 { 6 } else { 4 }) << 8
                | u32::from(datagram.protocol),
            id: datagram.id,
            source: F::key_bytes(datagram.source(self.direction)),
            destination: F::key_bytes(datagram.destination(self.direction)),
        }
    }

    #[inline(never)]
    fn remember<F: Family>(&self, datagram: &Datagram<F>) {
        let key = self.fragment_key(datagram);
        self.context
            .tables
            .remember_fragment(&key, self.context.now);
    }

    /// Seconds that later fragments may take after their first.
    const FRAGMENT_SECONDS: u32 = 15;

    /// A later fragment follows an allowed first (fact 5.10). It never touches a flow: its payload is
    /// not a header (attacks D8). One that would overwrite a TCP header is refused (RFC 3128).
    #[inline(never)]
    fn later_fragment<F: Family>(&self, datagram: &Datagram<F>) -> Outcome {
        if datagram.protocol == protocol::TCP && datagram.fragment_offset < 60 {
            return drop(DropReason::FragmentOverlap);
        }
        let key = self.fragment_key(datagram);
        let life = Self::FRAGMENT_SECONDS.wrapping_mul(self.context.runtime.hz);
        match self.context.tables.fragment(&key) {
            Some(seen) if !expired(self.context.now, seen, life) => pass(PassKind::Fragment),
            _ => drop(DropReason::FragmentOrphan),
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

    /// An ICMP error belongs to the packet it quotes. It passes if that packet is one that this
    /// interface let out in the other direction: of a live flow, or of an untracked one (facts 3.34,
    /// 3.36; attacks G2–G6). It never creates, refreshes or ends a flow.
    #[inline(never)]
    fn quote<F: Kinds, P: Frame>(&self, frame: &P, scratch: &mut Scratch) -> Outcome {
        let outer = F::room(scratch, 0);
        if self.flag(interface_flags::ICMP_STRICT) {
            return stage::BY_RULE;
        }
        let place = Place {
            offset: outer.transport as usize + 8,
            available: outer.length - 8,
            quoted: true,
            direction: self.direction.reverse(),
        };
        let answered = *outer.destination(self.direction);
        let quoted = F::room(scratch, 1);
        if F::parse(frame, place, quoted).is_err()
            || quoted.later_fragment()
            || transport::parse_quoted(frame, quoted).is_err()
        {
            return drop(DropReason::IcmpQuote);
        }
        let kind = (quoted.destination_port >> 8) as u8;
        if quoted.protocol == F::ICMP && kind != F::ECHO_REQUEST && kind != F::ECHO_REPLY {
            return drop(DropReason::IcmpQuote);
        }
        // The error answers the sender of the quoted packet and nobody else (CVE-2019-5598).
        if answered != *quoted.source(place.direction) {
            return drop(DropReason::IcmpQuote);
        }
        self.identify(quoted, place.direction);
        stage::QUOTED
    }

    /// Whether the quoted packet is of a flow that lives, or needs no tracking.
    #[inline(never)]
    fn quoted<F: Kinds>(&self, quoted: &Datagram<F>) -> Outcome {
        if let Some(entry) =
            table::lookup::<T, F>(&self.context, quoted.hash, &quoted.flow, table::ways())
            && !self.over(&entry)
        {
            return pass(PassKind::Related);
        }
        if self.untracked(quoted) {
            return pass(PassKind::Related);
        }
        stage::BY_RULE
    }

    #[inline(always)]
    fn over<F: Family>(&self, entry: &Entry<F>) -> bool {
        // SAFETY: a valid entry; an aligned word.
        let seen = unsafe { crate::atomic::load(&raw const (*entry.live()).seen) };
        expired(
            self.context.now,
            seen,
            entry.meta.life(&self.interface.timeouts),
        )
    }

    /// A packet whose flow has an entry.
    #[inline(always)]
    fn hit<F: Kinds>(&self, datagram: &Datagram<F>, entry: &mut Entry<F>) -> Outcome {
        // SAFETY: a valid entry; an aligned word.
        let judged = unsafe { crate::atomic::load(&raw const (*entry.live()).generation) };
        if judged != self.context.generation
            || self.over(entry)
            || datagram.first_fragment
            || (datagram.protocol == protocol::TCP && datagram.segment.is_syn())
        {
            return stage::RECHECK;
        }
        self.follow(datagram, entry);
        pass(PassKind::Established)
    }

    /// Moves a live entry on by a packet, and counts the packet.
    #[inline(always)]
    fn follow<F: Kinds>(&self, datagram: &Datagram<F>, entry: &mut Entry<F>) {
        // SAFETY: a valid entry; words of it may change under us, each is true by itself.
        let live = unsafe { &*entry.live() };
        let step = match datagram.protocol {
            protocol::TCP => conntrack::tcp_step(entry.meta, live, self.sender(), datagram.segment),
            protocol::UDP => conntrack::udp_step(entry.meta, live, self.sender()),
            _ => conntrack::datagram_step(entry.meta, live, self.sender()),
        };
        self.apply(entry, step);
        self.account(entry);
    }

    #[inline(always)]
    fn account<F: Family>(&self, entry: &Entry<F>) {
        if self.context.runtime.accounting != 0 {
            entry.account(
                self.context.tables,
                self.direction as usize,
                self.packets,
                self.bytes,
            );
        }
    }

    /// An entry that the first stage left; `fallback` if it is gone, or goes now.
    #[inline(never)]
    fn again<F: Kinds>(&self, datagram: &Datagram<F>, fallback: Outcome) -> Outcome {
        let Some(mut entry) =
            table::lookup::<T, F>(&self.context, datagram.hash, &datagram.flow, table::ways())
        else {
            return fallback;
        };
        let state = entry.meta.state();
        let syn = datagram.protocol == protocol::TCP && datagram.segment.is_syn();
        let closed = state == State::TcpTimeWait as u8 || state == State::TcpClose as u8;
        // Judged once under a newer generation: a flow that is untracked now needs no entry
        // (decisions, Changes 2). A SYN on a closed flow opens a new one.
        let removal = if self.over(&entry) {
            Removal::Expired
        } else if (syn && closed) || self.untracked(datagram) {
            Removal::Removed
        } else {
            // SAFETY: a valid entry; an aligned word.
            unsafe {
                crate::atomic::store(&raw mut (*entry.live()).generation, self.context.generation);
            }
            if syn {
                self.syn_again(&entry, datagram.segment);
                self.account(&entry);
            } else {
                self.follow(datagram, &mut entry);
            }
            return pass(PassKind::Established);
        };
        table::remove(self.context.tables, &mut entry, removal);
        fallback
    }

    /// A SYN sent again before any answer: the answer must acknowledge the latest one.
    #[inline(always)]
    fn syn_again<F: Family>(&self, entry: &Entry<F>, segment: Segment) {
        let sender = self.sender();
        let opener_local = entry.meta.flags() & flag::OPENER_LOCAL != 0;
        let by_opener = opener_local == (sender as usize == Side::Local as usize);
        if by_opener && entry.meta.state() == State::TcpSynSent as u8 {
            // SAFETY: a valid entry; an aligned word.
            unsafe {
                let fin = (&raw mut (*entry.live()).fin)
                    .cast::<u32>()
                    .add(sender.index());
                crate::atomic::store(fin, segment.sequence.wrapping_add(1));
            }
        }
    }

    /// Writes what a step changed, and nothing else: an unchanged line stays shared between CPUs.
    #[inline(always)]
    fn apply<F: Family>(&self, entry: &mut Entry<F>, step: Step) {
        let live = entry.live();
        let sender = self.sender().index();
        // SAFETY: a valid entry; aligned words.
        unsafe {
            let ack = (&raw mut (*live).ack).cast::<u32>().add(sender);
            let fin = (&raw mut (*live).fin).cast::<u32>().add(sender);
            if crate::atomic::load(ack) != step.ack {
                crate::atomic::store(ack, step.ack);
            }
            if crate::atomic::load(fin) != step.fin {
                crate::atomic::store(fin, step.fin);
            }
            if step.refresh && crate::atomic::load(&raw const (*live).seen) != self.context.now {
                crate::atomic::store(&raw mut (*live).seen, self.context.now);
            }
        }
        let new = entry.meta.with(step.state, step.flags);
        if new != entry.meta {
            let newly_assured = step.flags & !entry.meta.flags() & flag::ASSURED != 0;
            // If another CPU changed it first, the next packet makes up for it.
            if entry.exchange(new) && newly_assured {
                table::assured(self.context.tables, self.id);
            }
        }
    }

    /// A packet without an entry.
    #[inline(never)]
    fn policy<F: Kinds>(&self, datagram: &Datagram<F>) -> Outcome {
        if self.untracked(datagram) {
            return pass(PassKind::Untracked);
        }
        if datagram.protocol == protocol::TCP && !datagram.segment.is_syn() {
            let plain = datagram.segment.flags & (tcp::SYN | tcp::RST | tcp::FIN) == 0;
            if !self.flag(interface_flags::TCP_LOOSE) || !plain {
                return drop(DropReason::MidStream);
            }
        }
        if !self.allows(datagram) {
            return drop(DropReason::NoRule);
        }
        if datagram.protocol == F::ICMP && (datagram.destination_port >> 8) as u8 == F::ECHO_REPLY {
            // A reply opens nothing (attacks G1).
            return pass(PassKind::Stateless);
        }
        stage::OPEN
    }

    /// Makes the entry of an allowed flow.
    #[inline(never)]
    fn open<F: Kinds>(&self, datagram: &Datagram<F>) -> Outcome {
        let opening = conntrack::open(
            datagram.protocol,
            F::ICMP,
            self.sender(),
            datagram.segment,
            self.packets,
            self.bytes,
        );
        let inserted = table::insert::<T, F>(
            &self.context,
            self.interface,
            datagram.hash,
            &datagram.flow,
            &opening,
        );
        match inserted {
            Inserted::Made => pass(PassKind::New),
            // Another CPU made it a moment ago; this packet is the flow's second.
            Inserted::Exists => pass(PassKind::Established),
            Inserted::Full => drop(DropReason::AllowanceExceeded),
        }
    }
}

/// What a family always passes, and which of its ICMP messages are errors.
trait Kinds: Parse {
    /// Room for a packet (0) or the packet it quotes (1).
    fn room(scratch: &mut Scratch, which: usize) -> &mut Datagram<Self>;
    /// Errors that can quote a flow. Redirects never do (attacks G8).
    fn is_error(kind: u8) -> bool;
    /// The judgement of an always-passed kind; `None`: go on (decisions, Always passed).
    fn always<T: Tables, P: Frame>(
        passage: &Passage<'_, T>,
        frame: &P,
        datagram: &Datagram<Self>,
    ) -> Option<Outcome>;
}

impl Kinds for V4 {
    #[inline(always)]
    fn room(scratch: &mut Scratch, which: usize) -> &mut Datagram<V4> {
        &mut scratch.v4[which & 1]
    }

    /// Destination unreachable, time exceeded, parameter problem (RFC 792).
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 3 | 11 | 12)
    }

    /// DHCP of a client (RFC 2131): out from 68 to 67 by broadcast, in from 67 to 68. A renewal by
    /// unicast needs a rule; without one the client falls back to broadcast (RFC 2131 §4.4.5).
    #[inline(always)]
    fn always<T: Tables, P: Frame>(
        passage: &Passage<'_, T>,
        frame: &P,
        datagram: &Datagram<V4>,
    ) -> Option<Outcome> {
        if datagram.protocol != protocol::UDP
            || !passage.flag(interface_flags::DHCP)
            || datagram.first_fragment
            || datagram.later_fragment()
        {
            return None;
        }
        let udp = frame.window::<4>(datagram.transport as usize)?;
        let fits = if passage.inbound() {
            udp.u32(0) == 67 << 16 | 68
        } else {
            udp.u32(0) == 68 << 16 | 67 && datagram.flow.remote == u32::MAX
        };
        if fits {
            Some(pass(PassKind::Dhcp))
        } else {
            None
        }
    }
}

impl Kinds for V6 {
    #[inline(always)]
    fn room(scratch: &mut Scratch, which: usize) -> &mut Datagram<V6> {
        &mut scratch.v6[which & 1]
    }

    /// Destination unreachable, packet too big, time exceeded, parameter problem (RFC 4443 §3).
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 1..=4)
    }

    #[inline(always)]
    fn always<T: Tables, P: Frame>(
        passage: &Passage<'_, T>,
        frame: &P,
        datagram: &Datagram<V6>,
    ) -> Option<Outcome> {
        if datagram.protocol == protocol::UDP {
            return dhcp6(passage, frame, datagram);
        }
        if datagram.later_fragment() {
            return None;
        }
        let icmp = frame.window::<4>(datagram.transport as usize)?;
        match icmp.u8(0) {
            133..=137 => Some(neighbor(passage, frame, datagram)),
            130..=132 | 143 => multicast_listener(passage, datagram, icmp.u8(0)),
            _ => None,
        }
    }
}

/// fe80::/10.
#[inline(always)]
fn link_local(address: &[u32; 4]) -> bool {
    u32::from_be(address[0]) >> 22 == 0xfe80 >> 6
}

/// DHCPv6 of a client (RFC 8415 §7.1): link-local, 546 to 547 of all servers, and back.
#[inline(always)]
fn dhcp6<T: Tables, P: Frame>(
    passage: &Passage<'_, T>,
    frame: &P,
    datagram: &Datagram<V6>,
) -> Option<Outcome> {
    let source = datagram.source(passage.direction);
    if !passage.flag(interface_flags::DHCP) || datagram.extended || !link_local(source) {
        return None;
    }
    let udp = frame.window::<4>(datagram.transport as usize)?;
    let fits = if passage.inbound() {
        udp.u32(0) == 547 << 16 | 546 && link_local(&datagram.flow.local)
    } else {
        // ff02::1:2
        let to = &datagram.flow.remote;
        udp.u32(0) == 546 << 16 | 547
            && to[0] == 0xff02_0000_u32.to_be()
            && to[1] == 0
            && to[2] == 0
            && to[3] == 0x0001_0002_u32.to_be()
    };
    if fits {
        Some(pass(PassKind::Dhcp))
    } else {
        None
    }
}

/// Neighbour discovery (RFC 4861): it never leaves the link, so its hop limit is 255, and it may not
/// hide behind extension headers (RFC 6980). Advertising routers and redirecting is not for workloads.
#[inline(always)]
fn neighbor<T: Tables, P: Frame>(
    passage: &Passage<'_, T>,
    frame: &P,
    datagram: &Datagram<V6>,
) -> Outcome {
    let at = datagram.transport as usize;
    let Some(icmp) = frame.window::<8>(at) else {
        return drop(DropReason::Truncated);
    };
    if datagram.hop_limit != 255
        || datagram.extended
        || icmp.u8(1) != 0
        || datagram.length < 8
        || u32::from_be(datagram.source(passage.direction)[0]) >> 24 == 0xff
    {
        return drop(DropReason::NeighborInvalid);
    }
    match icmp.u8(0) {
        134 if passage.inbound() => pass(PassKind::RouterAdvertisement),
        137 if passage.inbound() && passage.flag(interface_flags::ND_REDIRECT) => {
            pass(PassKind::Redirect)
        }
        134 | 137 => drop(DropReason::NeighborInvalid),
        136 => {
            let Some(target) = frame.window::<24>(at) else {
                return drop(DropReason::Truncated);
            };
            if datagram.length < 24 {
                return drop(DropReason::NeighborInvalid);
            }
            // Link-local addresses follow from the MAC and are nobody else's to list.
            let target = target.words(8);
            if !link_local(&target) && passage.claims_foreign::<V6>(&target) {
                return drop(DropReason::AddressSpoofed);
            }
            pass(PassKind::NeighborDiscovery)
        }
        _ => pass(PassKind::NeighborDiscovery),
    }
}

/// MLD (RFC 2710, RFC 3810): queries towards the workload, reports and done from it; hop limit 1,
/// link-local or unspecified source, router alert. Anything else is for the rules.
#[inline(always)]
fn multicast_listener<T: Tables>(
    passage: &Passage<'_, T>,
    datagram: &Datagram<V6>,
    kind: u8,
) -> Option<Outcome> {
    let source = datagram.source(passage.direction);
    let unspecified = source[0] | source[1] | source[2] | source[3] == 0;
    let fits = passage.flag(interface_flags::MLD)
        && passage.inbound() == (kind == 130)
        && datagram.hop_limit == 1
        && datagram.router_alert
        && (link_local(source) || unspecified);
    if fits {
        Some(pass(PassKind::MulticastListener))
    } else {
        None
    }
}
