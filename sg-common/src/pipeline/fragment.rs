//! Fragments: the first is judged, the later ones follow it (semantics 10).

use super::{Outcome, Passage, drop, pass};
use crate::{
    family::Family,
    layout::FragmentKey,
    tables::Tables,
    verdict::{DropReason, PassKind},
    wire::ip::Datagram,
};

/// Seconds that later fragments may take after their first.
const FRAGMENT_SECONDS: u32 = 15;

impl<T: Tables> Passage<'_, T> {
    #[inline(always)]
    fn fragment_key<F: Family>(&self, datagram: &Datagram<F>) -> FragmentKey {
        FragmentKey {
            interface: self.id,
            kind: (self.direction as u32) << 16
                | (if F::IPV6 { 6 } else { 4 }) << 8
                | u32::from(datagram.fragment_protocol),
            id: datagram.id,
            source: F::key_bytes(datagram.source(self.direction)),
            destination: F::key_bytes(datagram.destination(self.direction)),
        }
    }

    /// A first fragment carries the ports: judged like a whole packet, remembered if it passes.
    #[inline(always)]
    pub(super) fn remember<F: Family>(&self, datagram: &Datagram<F>, outcome: Outcome) {
        if datagram.first_fragment && outcome.passes() {
            self.remember_first(datagram);
        }
    }

    #[inline(never)]
    fn remember_first<F: Family>(&self, datagram: &Datagram<F>) {
        let key = self.fragment_key(datagram);
        self.context
            .tables
            .remember_fragment(&key, self.context.now);
    }

    /// A later fragment follows an allowed first (fact 5.10). It never touches a flow: its payload is
    /// not a header (attacks D8).
    #[inline(never)]
    pub(super) fn later_fragment<F: Family>(&self, datagram: &Datagram<F>) -> Outcome {
        if datagram.overlaps() {
            return drop(DropReason::FragmentOverlap);
        }
        let key = self.fragment_key(datagram);
        let hz = self.context.runtime.hz;
        let Some(seen) = self.context.tables.fragment(&key) else {
            return drop(DropReason::FragmentOrphan);
        };
        // Nothing sweeps what is remembered, so a stamp that seems to lie ahead is an old one, unless
        // another CPU made it a moment ago.
        let age = self.context.now.wrapping_sub(seen);
        if age < FRAGMENT_SECONDS.wrapping_mul(hz) || age > hz.wrapping_neg() {
            pass(PassKind::Fragment)
        } else {
            drop(DropReason::FragmentOrphan)
        }
    }
}
