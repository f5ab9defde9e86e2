//! What a packet's stages are, and what they leave to each other.
//!
//! Stages after the first are calls of their own: nested, they would not fit the 512 bytes of stack that
//! a program has; one after the other in one function, the verifier would follow each of them from every
//! end of those before; and the packets that need none stay in few lines of instruction cache.

use super::Arrival;
use crate::{
    abi,
    classify::Allowing,
    conntrack::Opening,
    family::{Family, V4, V6},
    table::FreeEntry,
    verdict::{
        Direction, DropReason, PassKind,
        Verdict::{self, Drop, Pass},
    },
    wire::ip::{Datagram, Parse},
};

/// Room for one packet of either family and the packet it may quote. Its contents mean nothing
/// between packets.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Scratch {
    pub(super) v4: [Datagram<V4>; 2],
    pub(super) v6: [Datagram<V6>; 2],
    pub(super) call: Call,
    pub(super) plan: Plan,
}

/// What stages leave to later ones.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Plan {
    /// The rules that let the packet pass, or open a flow.
    pub(super) allowing: Allowing,
    /// How the flow starts.
    pub(super) opening: Opening,
    /// The entry that goes before the packet goes on as [`Self::fallback`] says.
    pub(super) removal: FreeEntry,
    /// The outcome if there is no entry, or nothing to hand over.
    pub(super) fallback: u32,
    /// Which sides a rule allows to open the flow: `classify::BY_LOCAL`, `classify::BY_REMOTE`.
    pub(super) openers: u32,
    /// Whether the flow needs no entry.
    pub(super) untracked: bool,
    /// Whether the flow's entry was cut because no rule allows it any more.
    pub(super) revoked: bool,
}

impl Scratch {
    /// All zero.
    // SAFETY: integers and booleans only; all-zero bytes are valid.
    pub const ZERO: Self = unsafe { core::mem::zeroed() };
}

/// A family's part of a [`Scratch`].
pub trait Room: Parse + 'static {
    /// Room for a packet (0) or the packet it quotes (1).
    fn room(scratch: &mut Scratch, which: usize) -> &mut Datagram<Self>;

    /// The peer of the packet.
    #[inline(always)]
    fn peer(scratch: &mut Scratch) -> &Self::Address {
        &Self::room(scratch, 0).flow.remote
    }
}

/// A [`Verdict`] as the number of its counter, which fits a register; within the pipeline also the
/// stage that a packet goes to next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome(pub(super) u32);

impl Outcome {
    /// Whether the packet goes on.
    #[inline(always)]
    pub fn passes(self) -> bool {
        self.0 < crate::verdict::PASS_KINDS as u32
    }

    /// Whether this is a verdict, and not a stage.
    #[inline(always)]
    pub fn decided(self) -> bool {
        self.0 < GENERAL.0
    }

    /// Which program goes on with a packet that is not decided: see [`crate::abi::stage`].
    #[inline(always)]
    pub fn next(self) -> u32 {
        if self == GENERAL {
            abi::stage::GENERAL
        } else if self == MISS {
            abi::stage::MISS
        } else {
            abi::stage::LATER
        }
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

/// The long way, from its beginning.
pub(super) const GENERAL: Outcome = Outcome(0xff);
/// A later fragment.
pub(super) const FRAGMENT: Outcome = Outcome(0x100);
/// An ICMP error.
pub(super) const ICMP_ERROR: Outcome = Outcome(0x101);
/// An ICMP error whose quoted packet has been read.
pub(super) const QUOTED: Outcome = Outcome(0x102);
/// To or from a listed service.
pub(super) const SERVICE: Outcome = Outcome(0x103);
/// An entry that does not answer by itself: expired, judged under another generation, or asked by
/// a SYN or a first fragment.
pub(super) const RECHECK: Outcome = Outcome(0x104);
/// No entry.
pub(super) const MISS: Outcome = Outcome(0x105);
/// An ICMP message that only a rule can let pass.
pub(super) const BY_RULE: Outcome = Outcome(0x106);
/// An entry goes: see [`Plan::removal`].
pub(super) const FREE: Outcome = Outcome(0x109);
/// Whatever follows is not where a packet's later stages begin.
pub(super) const CONTINUED: Outcome = Outcome(0x107);
/// An entry to look at again, when the rules have been asked what it depends on.
pub(super) const AGAIN: Outcome = Outcome(0x107);
/// No rule, but perhaps a flow that was untracked until the last change.
pub(super) const HAND_OVER: Outcome = Outcome(0x108);
/// Allowed to open a flow.
pub(super) const OPEN: Outcome = Outcome(0x200);
/// A flow that was untracked until the last change, opened by the workload.
pub(super) const TAKE_LOCAL: Outcome = Outcome(0x201);
/// The same, opened by the peer.
pub(super) const TAKE_REMOTE: Outcome = Outcome(0x202);
/// In the number of the three: which it is.
pub(super) const KIND: u32 = 0xf;
/// In the number of the three: the last attempt.
pub(super) const LAST: u32 = 0x10;
/// In the number of the three: first one of the unassured flows goes.
pub(super) const MAKE_ROOM: u32 = 0x100;
/// In the number of the three: first what is over goes.
pub(super) const RECLAIM: u32 = 0x200;

/// The longest way: RECHECK, AGAIN, FREE, MISS, HAND_OVER, TAKE_LOCAL, MAKE_ROOM, TAKE_LOCAL, RECLAIM, TAKE_LOCAL.
pub(super) const MOST: u64 = 10;

#[inline(always)]
pub(super) fn pass(kind: PassKind) -> Outcome {
    Outcome(Pass(kind).outcome() as u32)
}

#[inline(always)]
pub(super) fn drop(reason: DropReason) -> Outcome {
    Outcome(Drop(reason).outcome() as u32)
}

/// What the later stages need of the first, besides the packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) id: u32,
    pub(super) generation: u32,
    pub(super) packets: u32,
    pub(super) bytes: u32,
    /// The next stage, and what else [`super::run`] is told.
    pub(super) what: u32,
}

impl Call {
    #[inline(always)]
    pub(super) fn new(arrival: &Arrival, generation: u32, what: u32) -> Self {
        Self {
            id: arrival.id,
            generation,
            packets: arrival.packets,
            bytes: arrival.bytes,
            what: if arrival.hook_ingress {
                what | self::what::HOOK_INGRESS
            } else {
                what
            },
        }
    }

    /// The call with another stage.
    #[inline(always)]
    pub(super) fn stage(self, stage: Outcome) -> u32 {
        self.what & !0xffff | stage.0
    }

    #[inline(always)]
    pub(super) fn direction(self) -> Direction {
        if self.what & what::EGRESS != 0 {
            Direction::Egress
        } else {
            Direction::Ingress
        }
    }
}

/// Bits beside the stage of what [`super::run`] is to do.
pub(super) mod what {
    use super::{Direction, Family};

    pub(in crate::pipeline) const IPV6: u32 = 1 << 16;
    pub(in crate::pipeline) const EGRESS: u32 = 1 << 17;
    /// The hook is the device's ingress.
    pub(in crate::pipeline) const HOOK_INGRESS: u32 = 1 << 18;

    /// Those of a packet.
    #[inline(always)]
    pub(in crate::pipeline) fn of<F: Family>(direction: Direction) -> u32 {
        let family = if F::IPV6 { IPV6 } else { 0 };
        match direction {
            Direction::Ingress => family,
            Direction::Egress => family | EGRESS,
        }
    }
}
