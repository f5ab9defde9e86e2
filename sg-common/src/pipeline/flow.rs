//! Packets of flows: by their entry if there is one, else by the policy.

use super::{Outcome, Passage, always::Kinds, drop, pass, stage};
use crate::{
    conntrack::{self, Segment, Side, State, Step, expired, flag, tcp},
    family::Family,
    layout::interface_flags,
    table::{self, Entry, Inserted, Removal},
    tables::Tables,
    verdict::{DropReason, PassKind},
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
        // SAFETY: a valid entry; an aligned word.
        let judged = unsafe { crate::atomic::load(&raw const (*entry.live()).generation) };
        if judged != self.context.generation
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
        let step = match datagram.protocol {
            protocol::TCP => conntrack::tcp_step(entry.meta, live, self.sender(), datagram.segment),
            protocol::UDP => conntrack::udp_step(entry.meta, live, self.sender()),
            _ => conntrack::datagram_step(entry.meta, live, self.sender()),
        };
        let done = self.apply(entry, step);
        if done {
            self.account(entry);
        }
        done
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
    pub(super) fn again<F: Kinds>(&self, datagram: &Datagram<F>, fallback: Outcome) -> Outcome {
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
                if !self.follow(datagram, &mut entry) {
                    // Lost twice in a row: the next packet makes up for it.
                    self.account(&entry);
                }
            }
            return pass(PassKind::Established);
        };
        table::remove(self.context.tables, &mut entry, removal);
        fallback
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
                table::assured(self.context.tables, self.id);
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
    #[inline(never)]
    pub(super) fn policy<F: Kinds>(&self, datagram: &Datagram<F>) -> Outcome {
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
    pub(super) fn open<F: Kinds>(&self, datagram: &Datagram<F>) -> Outcome {
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
