//! ICMP errors and the packets they quote.

use super::{Outcome, Passage, Scratch, always::Kinds, drop, pass, stage};
use crate::{
    layout::interface_flags,
    table,
    tables::Tables,
    verdict::{DropReason, PassKind},
    wire::{
        Frame,
        ip::{Datagram, Place},
        transport,
    },
};

impl<T: Tables> Passage<'_, T> {
    /// An ICMP error belongs to the packet it quotes. It passes if that packet is one that this
    /// interface let out in the other direction: of a live flow, or of an untracked one (facts 3.34,
    /// 3.36; attacks G2–G6). It never creates, refreshes or ends a flow.
    #[inline(never)]
    pub(super) fn quote<F: Kinds, P: Frame>(&self, frame: &P, scratch: &mut Scratch) -> Outcome {
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
        let end = outer.transport + outer.length;
        let quoted = F::room(scratch, 1);
        if F::parse(frame, place, quoted).is_err()
            || quoted.later_fragment()
            // What lies behind the error is padding, not quote (attacks A6).
            || quoted.transport + 8 > end
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
    pub(super) fn quoted<F: Kinds>(&self, quoted: &Datagram<F>) -> Outcome {
        if let Some(entry) = table::lookup::<T, F>(&self.context, quoted.hash, &quoted.flow)
            && !self.over(&entry)
        {
            return pass(PassKind::Related);
        }
        if self.untracked(quoted) {
            return pass(PassKind::Related);
        }
        stage::BY_RULE
    }
}
