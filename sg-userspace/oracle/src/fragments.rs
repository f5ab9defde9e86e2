//! Section 10: later fragments.

use std::net::IpAddr;

use crate::{
    Direction,
    Verdict::{self, Drop, Pass},
    ip::{Packet, TCP, is_extension},
};

/// Seconds for which a first fragment lets later ones pass.
const LIFE: u64 = 15;

/// First fragments that passed, each with the tick at which it did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Firsts(Vec<(Datagram, u64)>);

/// What the fragments of a datagram have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Datagram {
    interface: String,
    direction: Direction,
    source: IpAddr,
    destination: IpAddr,
    /// Identification, and the protocol as the fragment header names it.
    identity: (u32, u8),
}

impl Firsts {
    /// Remembers a first fragment that passed.
    pub(crate) fn remember(
        &mut self,
        interface: &str,
        direction: Direction,
        packet: &Packet<'_>,
        now: u64,
        hz: u64,
    ) {
        self.expire(now, hz);
        let datagram = datagram(interface, direction, packet);
        self.0.retain(|(other, _)| *other != datagram);
        self.0.push((datagram, now));
    }

    /// Judges a later fragment.
    pub(crate) fn judge(
        &mut self,
        interface: &str,
        direction: Direction,
        packet: &Packet<'_>,
        now: u64,
        hz: u64,
    ) -> Verdict {
        let named = packet.datagram.1;
        let headers = if packet.is_ipv6() && is_extension(named) {
            320
        } else if named == TCP {
            60
        } else {
            0
        };
        if packet.offset < headers {
            return Drop("fragment_overlap");
        }
        self.expire(now, hz);
        let datagram = datagram(interface, direction, packet);
        if self.0.iter().any(|(first, _)| *first == datagram) {
            Pass("fragment")
        } else {
            Drop("fragment_orphan")
        }
    }

    fn expire(&mut self, now: u64, hz: u64) {
        self.0
            .retain(|(_, then)| now.saturating_sub(*then) <= LIFE * hz);
    }

    pub(crate) fn retain_interfaces(&mut self, kept: impl Fn(&str) -> bool) {
        self.0.retain(|(datagram, _)| kept(&datagram.interface));
    }
}

fn datagram(interface: &str, direction: Direction, packet: &Packet<'_>) -> Datagram {
    Datagram {
        interface: interface.to_owned(),
        direction,
        source: packet.source,
        destination: packet.destination,
        identity: packet.datagram,
    }
}
