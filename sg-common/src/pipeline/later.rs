//! The stages after the first, one after the other: each is a call of its own, see `stage.rs`.

use super::{
    Outcome, Passage, Scratch,
    always::Kinds,
    stage::{self, Call, drop, pass, what},
};
use crate::{
    atomic,
    classify::Allowing,
    family::{V4, V6},
    table::Context,
    tables::Tables,
    verdict::{Direction, DropReason, PassKind},
};

/// Judges a packet that has no entry, makes one if a rule says so, and counts the verdict. What is not decided
/// here is left to [`later`].
#[inline(always)]
pub fn miss<T: Tables>(tables: &T, scratch: &mut Scratch) -> Outcome {
    let call = scratch.call;
    let Some(passage) = Passage::resume(tables, call.what, scratch) else {
        return settle(tables, scratch, drop(DropReason::InterfaceUnknown));
    };
    let outcome = if is_ipv6(call.what) {
        passage.missed_and_opened::<V6>(scratch)
    } else {
        passage.missed_and_opened::<V4>(scratch)
    };
    settle(tables, scratch, outcome)
}

/// Goes on stage after stage, and counts the verdict.
#[inline(always)]
pub fn later<T: Tables>(tables: &T, scratch: &mut Scratch) -> Outcome {
    let call = scratch.call;
    let mut outcome = Outcome(call.what & 0xffff);
    for _ in 0..atomic::opaque(stage::MOST) {
        outcome = if outcome.0 >= stage::OPEN.0 + stage::MAKE_ROOM {
            prepare(tables, call, outcome, scratch)
        } else {
            tables.run(call.stage(outcome), scratch)
        };
        if outcome.decided() {
            break;
        }
    }
    if !outcome.decided() {
        // Not reached; who adds a stage and forgets to count it closes the gate.
        outcome = drop(DropReason::InterfaceUnknown);
    }
    settle(tables, scratch, outcome)
}

/// Makes room for a flow, or reclaims what is over beside it; answers the stage that opens it. Not a part of
/// [`run`], whose frame its calls have no room for.
#[inline(always)]
fn prepare<T: Tables>(tables: &T, call: Call, stage: Outcome, scratch: &Scratch) -> Outcome {
    let ipv6 = is_ipv6(call.what);
    let hash = if ipv6 {
        scratch.v6[0].hash
    } else {
        scratch.v4[0].hash
    };
    let stage = stage.0 - stage::MAKE_ROOM;
    if stage < stage::OPEN.0 + stage::MAKE_ROOM {
        tables.make_room(ipv6, hash, call.id);
        return Outcome(stage);
    }
    tables.reclaim_beside(ipv6, hash);
    Outcome((stage + stage::MAKE_ROOM - stage::RECLAIM) | stage::LAST)
}

/// Counts a verdict, or remembers which stage comes next.
#[inline(always)]
fn settle<T: Tables>(tables: &T, scratch: &mut Scratch, outcome: Outcome) -> Outcome {
    let call = scratch.call;
    if outcome.decided() {
        let direction = call.direction();
        tables.count(
            call.id,
            direction,
            outcome.index(),
            call.packets,
            call.bytes,
        );
        count_rules(tables, &call, outcome, scratch.plan.allowing);
    } else {
        scratch.call.what = call.stage(outcome);
    }
    outcome
}

/// Counts a packet that rules let pass: one that opens a flow, or has none.
#[inline(always)]
fn count_rules<T: Tables>(tables: &T, call: &Call, outcome: Outcome, allowing: Allowing) {
    if outcome == pass(PassKind::New)
        || outcome == pass(PassKind::Untracked)
        || outcome == pass(PassKind::Stateless)
    {
        for rule_set in allowing.sets() {
            if rule_set != 0 {
                tables.hit(call.generation & 1, rule_set, call.packets);
            }
        }
    }
}

/// Runs a stage after the first; `what` says which, for which family and direction.
#[inline(always)]
pub fn run<T: Tables>(tables: &T, what: u32, scratch: &mut Scratch) -> Outcome {
    let Some(passage) = Passage::resume(tables, what, scratch) else {
        return drop(DropReason::InterfaceUnknown);
    };
    let stage = Outcome(what & 0xffff);
    if what & what::IPV6 != 0 {
        passage.later::<V6>(stage, scratch)
    } else {
        passage.later::<V4>(stage, scratch)
    }
}

/// The stage of a packet without an entry, where it is not the first. Not a part of [`run`], like [`open`].
#[inline(always)]
pub fn missed<T: Tables, const IPV6: bool>(
    tables: &T,
    what: u32,
    scratch: &mut Scratch,
) -> Outcome {
    let Some(passage) = Passage::resume(tables, what, scratch) else {
        return drop(DropReason::InterfaceUnknown);
    };
    if IPV6 {
        passage.missed::<V6, false>(scratch)
    } else {
        passage.missed::<V4, false>(scratch)
    }
}

/// Whether [`missed`] runs this stage instead of [`run`].
#[inline(always)]
pub fn misses(what: u32) -> bool {
    what & 0xffff == stage::MISS.0
}

/// Whether [`open`] runs this stage instead of [`run`].
#[inline(always)]
pub fn opens(what: u32) -> bool {
    (stage::OPEN.0..stage::OPEN.0 + stage::MAKE_ROOM).contains(&(what & 0xffff))
}

/// Runs one of the stages that open a flow, of one family. Not a part of [`run`]: most of the packets that
/// need a stage at all need these, and they are one call.
#[inline(always)]
pub fn open<T: Tables, const IPV6: bool>(tables: &T, what: u32, scratch: &mut Scratch) -> Outcome {
    let Some(passage) = Passage::resume(tables, what, scratch) else {
        return drop(DropReason::InterfaceUnknown);
    };
    let stage = Outcome(what & 0xffff);
    if IPV6 {
        passage.opening::<V6>(scratch, stage)
    } else {
        passage.opening::<V4>(scratch, stage)
    }
}

/// Whether a stage is of an IPv6 packet.
#[inline(always)]
pub fn is_ipv6(what: u32) -> bool {
    what & what::IPV6 != 0
}

impl<'a, T: Tables> Passage<'a, T> {
    /// A packet's passage after its first stage.
    #[inline(always)]
    fn resume(tables: &'a T, what: u32, scratch: &Scratch) -> Option<Self> {
        let call = scratch.call;
        Some(Self {
            interface: tables.interface(call.generation & 1, call.id)?,
            context: Context {
                tables,
                runtime: tables.runtime()?,
                now: tables.now(),
                generation: call.generation,
            },
            id: call.id,
            direction: if what & what::EGRESS != 0 {
                Direction::Egress
            } else {
                Direction::Ingress
            },
            packets: call.packets,
            bytes: call.bytes,
        })
    }

    /// A stage that needs no frame; answers the verdict or the next one.
    #[inline(always)]
    fn later<F: Kinds>(&self, stage: Outcome, scratch: &mut Scratch) -> Outcome {
        if stage.0 < stage::CONTINUED.0 {
            let foreign = self.foreign(F::room(scratch, 0));
            if foreign != stage::MISS {
                return foreign;
            }
        }
        if stage == stage::QUOTED {
            let outcome = self.quoted(F::room(scratch, 1));
            self.remember(F::room(scratch, 0), outcome);
            return outcome;
        }
        let (datagram, plan) = F::packet(scratch);
        let outcome = if stage == stage::FRAGMENT {
            return self.later_fragment(datagram);
        } else if stage == stage::FREE {
            self.context.tables.free(F::IPV6, plan.removal);
            Outcome::from_raw(plan.fallback)
        } else if stage == stage::SERVICE {
            return pass(PassKind::Service);
        } else if stage == stage::BY_RULE {
            self.by_rule(datagram, plan)
        } else if stage == stage::RECHECK {
            return self.recheck(datagram, plan);
        } else if stage == stage::AGAIN {
            self.again(datagram, plan)
        } else {
            self.hand_over(datagram, plan)
        };
        if outcome.0 >= stage::OPEN.0 {
            // Whether room is to be made need not be found out first, so seldom is this.
            return Outcome(outcome.0 + stage::MAKE_ROOM);
        }
        self.remember(datagram, outcome);
        outcome
    }

    /// [`Self::missed`] and [`Self::opening`], as most flows begin.
    #[inline(always)]
    fn missed_and_opened<F: Kinds>(&self, scratch: &mut Scratch) -> Outcome {
        let outcome = self.missed::<F, true>(scratch);
        if outcome == stage::OPEN {
            return self.opening::<F>(scratch, outcome);
        }
        outcome
    }
}
