//! Packets of flows: by their entry if there is one, else by the policy.

use super::{Outcome, Passage, Plan, always::Kinds, drop, pass, stage};
use crate::{
    atomic,
    classify::{self, Allowing},
    conntrack::{self, Opening, Segment, Side, State, Step, expired, flag, tcp},
    family::Family,
    layout::{Timeout, interface_flags},
    table::{self, Entry, Inserted, Removal},
    tables::Tables,
    verdict::{Direction, DropReason, PassKind},
    wire::{ip::Datagram, transport::protocol},
};

impl<T: Tables> Passage<'_, T> {
    #[inline(always)]
    pub(super) fn over<F: Family>(&self, entry: &Entry<F>) -> bool {
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
    pub(super) fn hit<F: Kinds>(&self, datagram: &Datagram<F>, entry: &mut Entry<F>) -> Outcome {
        if entry.meta.generation() != self.context.generation
            || self.over(entry)
            || datagram.first_fragment
            || (datagram.protocol == protocol::TCP && datagram.segment.is_syn())
        {
            return stage::RECHECK;
        }
        if self.follow(datagram, entry) {
            pass(PassKind::Established)
        } else {
            // Once more: a FIN that is lost here is not sent again, and its flow would stay for days.
            stage::RECHECK
        }
    }

    /// Moves a live entry on by a packet, and counts the packet; `false` if another CPU changed the
    /// entry meanwhile.
    #[inline(always)]
    fn follow<F: Kinds>(&self, datagram: &Datagram<F>, entry: &mut Entry<F>) -> bool {
        // SAFETY: a valid entry; words of it may change under us, each is true by itself.
        let live = unsafe { &*entry.live() };
        let hz = self.context.runtime.hz;
        let step = match datagram.protocol {
            protocol::TCP => conntrack::tcp_step(entry.meta, live, self.sender(), datagram.segment),
            protocol::UDP => {
                conntrack::udp_step(entry.meta, live, self.sender(), self.context.now, hz)
            }
            _ => conntrack::datagram_step(entry.meta, live, self.sender(), self.context.now, hz),
        };
        let done = self.apply(entry, step);
        if done {
            self.account(entry);
        }
        done
    }

    #[inline(always)]
    fn account<F: Family>(&self, entry: &Entry<F>) {
        if self.context.tables.accounting() {
            entry.account(
                self.context.tables,
                self.direction as usize,
                self.packets,
                self.bytes,
            );
        }
    }

    /// What looking at an entry again depends on. A SYN goes through policy in its own direction,
    /// whatever stands (semantics 11); everything else asks the entry first.
    #[inline(never)]
    pub(super) fn recheck<F: Kinds>(&self, datagram: &Datagram<F>, plan: &mut Plan) -> Outcome {
        plan.fallback = stage::MISS.index() as u32;
        if datagram.protocol == protocol::TCP && datagram.segment.is_syn() {
            let judged = self.policy_again(datagram, plan);
            if judged == drop(DropReason::NoRule) {
                return judged;
            }
            plan.fallback = judged.index() as u32;
        }
        plan.untracked = self.untracked(datagram);
        plan.openers = self.openers(datagram);
        stage::AGAIN
    }

    /// An entry that the first stage left; if it is gone, or goes now, what comes instead.
    #[inline(never)]
    pub(super) fn again<F: Kinds>(&self, datagram: &Datagram<F>, plan: &mut Plan) -> Outcome {
        let fallback = Outcome::from_raw(plan.fallback);
        let Some(mut entry) = table::lookup::<T, F>(&self.context, datagram.hash, &datagram.flow)
        else {
            return fallback;
        };
        let state = entry.meta.state();
        let syn = datagram.protocol == protocol::TCP && datagram.segment.is_syn();
        let closed = state == State::TcpTimeWait as u8 || state == State::TcpClose as u8;
        // Judged once under a newer generation: a flow that is untracked now needs no entry, and one that
        // its opener may open no longer is cut where a group wants it (semantics 11). A SYN on
        // a closed flow opens a new one.
        let removal = if self.over(&entry) {
            Removal::Expired
        } else if (syn && closed) || plan.untracked {
            Removal::Removed
        } else if self.revoked(&entry, plan.openers) {
            plan.revoked = true;
            Removal::Removed
        } else {
            // If another CPU is quicker, the next packet is judged again.
            entry.exchange(entry.meta.judged(self.context.generation));
            if syn {
                self.syn_again(&entry, datagram.segment);
                self.account(&entry);
            } else {
                if !self.follow(datagram, &mut entry) {
                    // Lost twice in a row: the next packet makes up for it.
                    self.account(&entry);
                }
            }
            return pass(PassKind::Established);
        };
        plan.removal = entry.removal(removal);
        stage::FREE
    }

    /// Which sides a rule allows to open the flow now, if it matters: [`classify::BY_LOCAL`] and
    /// [`classify::BY_REMOTE`].
    #[inline(always)]
    fn openers<F: Kinds>(&self, datagram: &Datagram<F>) -> u32 {
        if self.interface.reevaluate_from == 0 {
            return u32::MAX;
        }
        let ports = datagram.flow.ports;
        let (from_local, from_remote) = match datagram.protocol {
            protocol::TCP | protocol::UDP => (ports as u16, (ports >> 16) as u16),
            icmp if icmp == F::ICMP => {
                let request = u16::from(F::ECHO_REQUEST) << 8;
                (request, request)
            }
            _ => (0, 0),
        };
        let local = self.allows_value(datagram, Direction::Egress, from_local);
        let remote = self.allows_value(datagram, Direction::Ingress, from_remote);
        let by = |allowing: Allowing, side: u32| if allowing.any() { side } else { 0 };
        by(local, classify::BY_LOCAL) | by(remote, classify::BY_REMOTE)
    }

    /// Whether an entry was last judged before a change after which only what is allowed lives on, and
    /// its opener is not among [`Self::openers`].
    #[inline(always)]
    fn revoked<F: Family>(&self, entry: &Entry<F>, openers: u32) -> bool {
        let judged = entry.meta.generation();
        let before = judged.wrapping_sub(self.interface.reevaluate_from) > i32::MAX as u32;
        let opener = if entry.meta.flags() & flag::OPENER_LOCAL != 0 {
            classify::BY_LOCAL
        } else {
            classify::BY_REMOTE
        };
        before && openers & opener == 0
    }

    /// A flow that the generation before this one did not track, and that this one allows to the same opener
    /// as tracked, is taken over in its middle (semantics 13): not by a SYN, which opens by rule or
    /// not at all, not by a RST, and not for longer than such a flow could have been idle.
    #[inline(never)]
    pub(super) fn hand_over<F: Kinds>(&self, datagram: &Datagram<F>, plan: &Plan) -> Outcome {
        let tcp = datagram.protocol == protocol::TCP;
        let timeout = if tcp {
            Timeout::TcpEstablished
        } else {
            Timeout::UdpStream
        };
        let denied = Outcome::from_raw(plan.fallback);
        let (runtime, tables) = (self.context.runtime, self.context.tables);
        let life = u64::from(self.interface.timeouts[timeout as usize]);
        let age = tables.jiffies().wrapping_sub(runtime.changed);
        if age >= life && age <= i64::MAX as u64 {
            return denied;
        }
        let bank = self.context.bank() ^ 1;
        let (protocol, ports) = (datagram.protocol, datagram.flow.ports);
        let openers = tables.untracked(F::IPV6, bank, self.id, protocol, ports);
        let (own, by_own, other, by_other) = if self.inbound() {
            (
                stage::TAKE_REMOTE,
                classify::BY_REMOTE,
                stage::TAKE_LOCAL,
                classify::BY_LOCAL,
            )
        } else {
            (
                stage::TAKE_LOCAL,
                classify::BY_LOCAL,
                stage::TAKE_REMOTE,
                classify::BY_REMOTE,
            )
        };
        if openers & by_own != 0 && self.allows(datagram).any() {
            own
        } else if openers & by_other != 0
            && self
                .allows_value(datagram, self.direction.reverse(), datagram.source_port)
                .any()
        {
            other
        } else {
            denied
        }
    }

    /// A SYN on a live entry. Before any answer: the answer must acknowledge the latest one. Later: the
    /// opener has started over, and its acknowledgements with it (RFC 9293 §3.5.1).
    #[inline(always)]
    fn syn_again<F: Family>(&self, entry: &Entry<F>, segment: Segment) {
        let sender = self.sender();
        let opener_local = entry.meta.flags() & flag::OPENER_LOCAL != 0;
        if opener_local != (sender as usize == Side::Local as usize) {
            return;
        }
        // SAFETY: a valid entry; aligned words.
        unsafe {
            let live = entry.live();
            let ack = (&raw mut (*live).ack).cast::<u32>().add(sender.index());
            let fin = (&raw mut (*live).fin).cast::<u32>().add(sender.index());
            crate::atomic::store(ack, 0);
            crate::atomic::store(fin, segment.sequence.wrapping_add(1));
        }
    }

    /// Writes what a step changed, and nothing else: an unchanged line stays shared between CPUs.
    /// Answers whether the entry still was what the step was made from.
    #[inline(always)]
    fn apply<F: Family>(&self, entry: &mut Entry<F>, step: Step) -> bool {
        let new = entry.meta.with(step.state, step.flags);
        if new != entry.meta {
            let newly_assured = step.flags & !entry.meta.flags() & flag::ASSURED != 0;
            if !entry.exchange(new) {
                return false;
            }
            if newly_assured {
                table::assured(&self.context, self.id);
            }
        }
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
        true
    }

    /// A packet without an entry.
    #[inline(always)]
    pub(super) fn policy<F: Kinds, const QUICK: bool>(
        &self,
        datagram: &Datagram<F>,
        plan: &mut Plan,
    ) -> Outcome {
        // Where speed counts the rules are asked here; else by a call, for the verifier's and the stack's sake.
        let allows = || {
            if QUICK {
                let question = self.question(datagram);
                classify::allows::<T, F>(self.context.tables, &question, &datagram.flow.remote)
            } else {
                self.allows(datagram)
            }
        };
        let untracked = self.untracked(datagram);
        let opens = datagram.protocol != protocol::TCP || datagram.segment.is_syn();
        if !untracked && !opens {
            let plain = datagram.segment.flags & (tcp::SYN | tcp::RST | tcp::FIN) == 0;
            if !self.flag(interface_flags::TCP_LOOSE) || !plain {
                return self.denied(datagram, plan, DropReason::MidStream);
            }
        }
        plan.allowing = allows();
        if untracked {
            return pass(PassKind::Untracked);
        }
        if !plan.allowing.any() {
            return self.denied(datagram, plan, DropReason::NoRule);
        }
        if datagram.protocol == F::ICMP && (datagram.destination_port >> 8) as u8 == F::ECHO_REPLY {
            // A reply opens nothing (attacks G1).
            return pass(PassKind::Stateless);
        }
        stage::OPEN
    }

    /// [`Self::policy`] where size counts.
    #[inline(never)]
    fn policy_again<F: Kinds>(&self, datagram: &Datagram<F>, plan: &mut Plan) -> Outcome {
        self.policy::<F, false>(datagram, plan)
    }

    /// What no rule allows, unless the generation before can still be asked.
    #[inline(always)]
    fn denied<F: Kinds>(
        &self,
        datagram: &Datagram<F>,
        plan: &mut Plan,
        reason: DropReason,
    ) -> Outcome {
        let mid_stream = match datagram.protocol {
            protocol::TCP => datagram.segment.flags & tcp::RST == 0 && !datagram.segment.is_syn(),
            protocol::UDP => true,
            _ => false,
        };
        let denied = if plan.revoked {
            drop(DropReason::Revoked)
        } else {
            drop(reason)
        };
        if mid_stream && self.context.runtime.previous == self.context.generation.wrapping_sub(1) {
            plan.fallback = denied.index() as u32;
            stage::HAND_OVER
        } else {
            denied
        }
    }

    /// How an allowed flow starts; `stage` says who opens it.
    #[inline(always)]
    pub(super) fn begin<F: Kinds>(&self, datagram: &Datagram<F>, plan: &mut Plan, stage: Outcome) {
        let opener = if stage == stage::TAKE_LOCAL {
            Side::Local
        } else if stage == stage::TAKE_REMOTE {
            Side::Remote
        } else {
            self.sender()
        };
        plan.opening = conntrack::open(
            datagram.protocol,
            F::ICMP,
            opener,
            self.sender(),
            datagram.segment,
            self.context.now,
        );
        plan.opening.packets = self.packets;
        plan.opening.bytes = self.bytes;
    }

    /// Makes the entry of a flow that [`Self::begin`] has described.
    #[inline(always)]
    pub(super) fn open<F: Kinds>(
        &self,
        datagram: &Datagram<F>,
        plan: &Plan,
        last: bool,
    ) -> Inserted {
        // Read when written into the entry: kept in registers till then it would only be spilled to a stack
        // that is too small.
        let opening = atomic::opaque(&raw const plan.opening as u64) as *const Opening;
        table::insert::<T, F>(
            &self.context,
            self.interface,
            datagram.hash,
            &datagram.flow,
            // SAFETY: the same reference.
            unsafe { &*opening },
            last,
        )
    }
}
