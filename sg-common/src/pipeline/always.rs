//! What passes whatever the rules (semantics 3), each kind with its own counter.

use super::{Outcome, Passage, Plan, Room, Scratch, drop, pass, stage};
use crate::{
    family::{Family, V4, V6, address_key},
    layout::{AddressKey, ETHERTYPE, interface_flags},
    tables::Tables,
    verdict::{DropReason, PassKind},
    wire::{self, ETHERNET, Frame, Window, ip::Datagram, transport::protocol},
};

impl<T: Tables> Passage<'_, T> {
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
    pub(super) fn arp<P: Frame>(&self, frame: &P) -> Outcome {
        match wire::arp_sender(frame) {
            // A probe has no sender yet (RFC 5227 §1.1).
            Ok(sender) if sender != 0 && self.claims_foreign::<V4>(&sender) => {
                drop(DropReason::AddressSpoofed)
            }
            Ok(_) => pass(PassKind::Arp),
            Err(reason) => drop(reason),
        }
    }

    /// What is neither IP, ARP nor tagged: by list (attacks A4).
    #[inline(never)]
    pub(super) fn other<P: Frame>(&self, frame: &P) -> Outcome {
        let listed = self.flag(interface_flags::ETHERTYPES)
            && match frame.window::<ETHERNET>(0) {
                Some(header) => {
                    let key = AddressKey {
                        interface: self.id,
                        family: ETHERTYPE | u32::from(header.u16(12)),
                        address: [0; 16],
                    };
                    self.context.tables.address(self.context.bank(), &key)
                }
                None => false,
            };
        if listed {
            pass(PassKind::ListedEthertype)
        } else {
            drop(DropReason::Ethertype)
        }
    }

    /// Whether the peer is a link-local service that the definition lists (facts 5.1, 5.2).
    #[inline(always)]
    pub(super) fn service<F: Family>(&self, remote: &F::Address) -> bool {
        F::may_be_service(remote)
            && self
                .context
                .tables
                .address(self.context.bank(), &address_key::<F>(0, remote))
    }
}

/// What a family always passes, and which of its ICMP messages are errors.
pub(super) trait Kinds: Room {
    /// The packet and what stages leave to later ones.
    fn packet(scratch: &mut Scratch) -> (&mut Datagram<Self>, &mut Plan);
    /// Errors that can quote a flow. Redirects never do (attacks G8).
    fn is_error(kind: u8) -> bool;
    /// The judgement of an always-passed kind; `None`: go on (semantics 3).
    fn always<T: Tables, P: Frame>(
        passage: &Passage<'_, T>,
        frame: &P,
        datagram: &Datagram<Self>,
    ) -> Option<Outcome>;
}

impl Room for V4 {
    #[inline(always)]
    fn room(scratch: &mut Scratch, which: usize) -> &mut Datagram<V4> {
        &mut scratch.v4[which & 1]
    }
}

impl Kinds for V4 {
    #[inline(always)]
    fn packet(scratch: &mut Scratch) -> (&mut Datagram<V4>, &mut Plan) {
        (&mut scratch.v4[0], &mut scratch.plan)
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
            || datagram.length < 8
        {
            return None;
        }
        let udp = frame.window::<4>(datagram.transport as usize)?;
        let fits = if passage.inbound() {
            udp.u32(0) == 67 << 16 | 68 && V4::source_possible(&datagram.flow.remote, protocol::UDP)
        } else {
            udp.u32(0) == 68 << 16 | 67
                && datagram.flow.remote == u32::MAX
                && (datagram.flow.local == 0
                    || (V4::source_possible(&datagram.flow.local, protocol::UDP)
                        && passage.foreign(datagram) == stage::MISS))
        };
        if fits {
            Some(pass(PassKind::Dhcp))
        } else {
            None
        }
    }
}

impl Room for V6 {
    #[inline(always)]
    fn room(scratch: &mut Scratch, which: usize) -> &mut Datagram<V6> {
        &mut scratch.v6[which & 1]
    }
}

impl Kinds for V6 {
    #[inline(always)]
    fn packet(scratch: &mut Scratch) -> (&mut Datagram<V6>, &mut Plan) {
        (&mut scratch.v6[0], &mut scratch.plan)
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
        // Of a packet that ends before, the next byte is padding and no type.
        if datagram.later_fragment() || datagram.length == 0 {
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
    if !passage.flag(interface_flags::DHCP)
        || datagram.extended
        || datagram.length < 8
        || !link_local(source)
    {
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
        _ => {
            // A solicitation tells its sender's MAC, as ARP does; a probe has no sender yet.
            let source = datagram.source(passage.direction);
            let unspecified = source[0] | source[1] | source[2] | source[3] == 0;
            if !unspecified && !link_local(source) && passage.claims_foreign::<V6>(source) {
                return drop(DropReason::AddressSpoofed);
            }
            pass(PassKind::NeighborDiscovery)
        }
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
        && datagram.length >= 8
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
