//! Any bytes as a frame, on interfaces without groups: what passes is what always passes, and it
//! passes for what stands inside the packet.

use std::sync::LazyLock;

use sg_common::{
    family::{V4, V6},
    host::{Bank, Host},
    layout::{ETHERTYPE, Interface, Runtime, interface_flags},
    pipeline::{Arrival, Room, Scratch},
    verdict::{
        Direction::{self, Egress, Ingress},
        PassKind, Verdict,
    },
    wire::{
        self, ETHERNET, Frame,
        ip::{Datagram, Place},
        transport,
    },
};

/// Longer frames teach nothing.
const MAX_LEN: usize = 2048;

/// The workload's address where it is known, in either family; its host's service.
const OWN4: [u8; 4] = [10, 1, 0, 10];
const OWN6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
const SERVICE4: [u8; 4] = [169, 254, 169, 254];
const SERVICE6: [u8; 16] = [0xfd, 0, 0xe, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x54];
/// LLDP (IEEE 802.1AB), listed where ethertypes are.
const LISTED: u16 = 0x88cc;

/// What interfaces let pass and know; each once as `own` and once as `host`.
const FLAGS: [u32; 4] = [
    0,
    interface_flags::DHCP | interface_flags::MLD,
    interface_flags::ADDRESSES_KNOWN | interface_flags::SOURCE_DEST_CHECK,
    interface_flags::DHCP
        | interface_flags::MLD
        | interface_flags::ND_REDIRECT
        | interface_flags::ADDRESSES_KNOWN
        | interface_flags::SERVICES
        | interface_flags::ETHERTYPES,
];

/// The first byte says where and how the frame arrives (bits 0 to 2 the interface, 3 the hook, 4
/// merged, 5 tagged), the second where it is cut; the frame follows.
pub fn run(input: &[u8]) {
    let [how, cut, frame @ ..] = input else {
        return;
    };
    let frame = &frame[..frame.len().min(MAX_LEN)];
    let seen = Seen {
        bytes: frame,
        merged: how & 0x10 != 0,
        tagged: how & 0x20 != 0,
    };
    read::<V4>(&seen, 20);
    read::<V6>(&seen, 40);

    let arrival = Arrives {
        id: 1 + u32::from(how & 7),
        hook_ingress: how & 8 != 0,
    };
    let verdict = arrival.judge(&seen);
    if let Verdict::Pass(kind) = verdict {
        arrival.passes_always(&seen, kind);
    }
    assert_eq!(arrival.judge(&seen), verdict, "judged again");
    if !seen.merged && verdict != Verdict::Pass(PassKind::ListedEthertype) {
        arrival.inside_only(&seen, verdict, *cut);
    }
}

/// A frame as the kernel shows it.
#[derive(Clone, Copy)]
struct Seen<'a> {
    bytes: &'a [u8],
    merged: bool,
    tagged: bool,
}

impl<'a> Frame for Seen<'a> {
    type Window = &'a [u8];

    fn len(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn merged(&self) -> bool {
        self.merged
    }

    fn tagged(&self) -> bool {
        self.tagged
    }

    fn window<const LEN: usize>(&self, offset: usize) -> Option<&'a [u8]> {
        self.bytes.get(offset..offset.checked_add(LEN)?)
    }
}

/// Reads the frame as one of a family, whatever its ethertype, as a packet and as a quoted one.
fn read<F: Room>(seen: &Seen<'_>, header: u32) {
    for (quoted, direction) in [(false, Ingress), (true, Egress)] {
        let mut scratch = Scratch::ZERO;
        let datagram = F::room(&mut scratch, 0);
        let available = wire::ip::available(seen);
        let place = Place {
            offset: ETHERNET,
            available,
            quoted,
            direction,
        };
        if F::parse(seen, place, datagram).is_err() {
            continue;
        }
        let Datagram {
            transport: at,
            length,
            ..
        } = *datagram;
        assert!(at >= ETHERNET as u32 + header);
        assert!(at <= ETHERNET as u32 + header + 256, "extension headers");
        assert!(quoted || at + length <= seen.len(), "read past the frame");
        assert!(!(datagram.later_fragment() && datagram.first_fragment));
        let _ = transport::parse_quoted(seen, &mut datagram.clone());
        if !quoted && !datagram.later_fragment() && transport::parse(seen, datagram).is_ok() {
            assert!(datagram.segment.payload <= length);
        }
    }
}

/// Where a frame is seen.
#[derive(Clone, Copy)]
struct Arrives {
    id: u32,
    hook_ingress: bool,
}

impl Arrives {
    fn flags(self) -> u32 {
        CLOSED.banks[0].interfaces[self.id as usize].flags
    }

    fn has(self, flag: u32) -> bool {
        self.flags() & flag != 0
    }

    fn direction(self) -> Direction {
        if self.hook_ingress == self.has(interface_flags::HOST) {
            Egress
        } else {
            Ingress
        }
    }

    /// The verdict, which is counted once.
    fn judge(self, seen: &Seen<'_>) -> Verdict {
        let arrival = Arrival {
            id: self.id,
            hook_ingress: self.hook_ingress,
            packets: 1,
            bytes: seen.len(),
        };
        let sum = |verdict| {
            let counted = CLOSED.counted(self.id, self.direction(), verdict);
            (counted.packets, counted.bytes)
        };
        let before: Vec<(u64, u64)> = Verdict::all().map(sum).collect();
        let verdict = CLOSED.judge_frame(seen, &arrival);
        for (one, (packets, bytes)) in Verdict::all().zip(before) {
            let counted = u64::from(one == verdict);
            let expected = (packets + counted, bytes + counted * u64::from(seen.len()));
            assert_eq!(sum(one), expected, "{one:?} counted, {verdict:?} judged");
        }
        verdict
    }

    /// Each kind that needs no rule shows what it was taken for, and is switched on.
    fn passes_always(self, seen: &Seen<'_>, kind: PassKind) {
        let bytes = seen.bytes;
        let ingress = self.direction() == Ingress;
        assert!(!seen.tagged, "{kind:?} with a tag");
        let kind_of = u16::from_be_bytes([bytes[12], bytes[13]]);
        let fits = match kind {
            PassKind::Arp => kind_of == 0x0806,
            PassKind::NeighborDiscovery => {
                kind_of == 0x86dd && bytes[21] == 255 && [133, 135, 136].contains(&bytes[54])
            }
            PassKind::RouterAdvertisement => {
                kind_of == 0x86dd && bytes[21] == 255 && bytes[54] == 134 && ingress
            }
            PassKind::Redirect => {
                let wanted = self.has(interface_flags::ND_REDIRECT);
                kind_of == 0x86dd && bytes[21] == 255 && bytes[54] == 137 && ingress && wanted
            }
            PassKind::MulticastListener => {
                let listener = [130, 131, 132, 143].contains(&bytes[62]);
                let wanted = self.has(interface_flags::MLD);
                kind_of == 0x86dd && bytes[21] == 1 && bytes[20] == 0 && listener && wanted
            }
            PassKind::Dhcp => {
                let ports = match kind_of {
                    0x0800 => u32::from_be_bytes([bytes[34], bytes[35], bytes[36], bytes[37]]),
                    _ => u32::from_be_bytes([bytes[54], bytes[55], bytes[56], bytes[57]]),
                };
                let expected = match (kind_of, ingress) {
                    (0x0800, true) => (67 << 16) | 68,
                    (0x0800, false) => (68 << 16) | 67,
                    (_, true) => (547 << 16) | 546,
                    (_, false) => (546 << 16) | 547,
                };
                ports == expected && self.has(interface_flags::DHCP)
            }
            PassKind::Service => {
                let (at, service): (usize, &[u8]) = match kind_of {
                    0x0800 => (if ingress { 26 } else { 30 }, &SERVICE4),
                    _ => (if ingress { 22 } else { 38 }, &SERVICE6),
                };
                bytes[at..].starts_with(service) && self.has(interface_flags::SERVICES)
            }
            PassKind::ListedEthertype => kind_of == LISTED && self.has(interface_flags::ETHERTYPES),
            // No record here was taken back.
            PassKind::Unconfirmed => false,
            PassKind::Established
            | PassKind::New
            | PassKind::Untracked
            | PassKind::Stateless
            | PassKind::Related
            | PassKind::Fragment
            | PassKind::TakenOver => false,
        };
        assert!(
            fits,
            "{kind:?} on interface {} ({:?})",
            self.id,
            self.direction()
        );
    }

    /// What a frame passes for stands within the length that its packet states: a frame cut short of
    /// it does not pass, and padding behind it changes nothing.
    fn inside_only(self, seen: &Seen<'_>, verdict: Verdict, cut: u8) {
        let bytes = seen.bytes;
        let Some(end) = end(bytes).filter(|end| *end <= bytes.len()) else {
            assert!(!verdict.passes(), "{verdict:?}, and shorter than it says");
            return;
        };
        let cut = (end * usize::from(cut) / 256).min(end.saturating_sub(1));
        for len in [cut, end.saturating_sub(1), ETHERNET, ETHERNET + 20] {
            let short = Seen {
                bytes: &bytes[..len.min(end.saturating_sub(1))],
                ..*seen
            };
            let verdict = self.judge(&short);
            assert!(!verdict.passes(), "{verdict:?} of {len} bytes of {end}");
        }
        let mut other = bytes.to_vec();
        other[end..].iter_mut().for_each(|byte| *byte ^= 0xff);
        for padded in [&bytes[..end], &other[..]] {
            let padded = Seen {
                bytes: padded,
                ..*seen
            };
            assert_eq!(passed(self.judge(&padded)), passed(verdict), "padding");
        }
    }
}

fn passed(verdict: Verdict) -> Option<PassKind> {
    match verdict {
        Verdict::Pass(kind) => Some(kind),
        Verdict::Drop(_) => None,
    }
}

/// Where the packet of a frame ends, if it says so.
fn end(bytes: &[u8]) -> Option<usize> {
    let number = |at: usize| {
        let bytes = bytes.get(at..at + 2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    match number(12)? {
        0x0800 => Some(ETHERNET + usize::from(number(ETHERNET + 2)?)),
        0x86dd => Some(ETHERNET + 40 + usize::from(number(ETHERNET + 4)?)),
        0x0806 => Some(ETHERNET + 28),
        _ => None,
    }
}

/// Interfaces without a rule: nothing that is judged leaves more than a count.
static CLOSED: LazyLock<Host> = LazyLock::new(|| {
    let mut host = Host::new(Runtime {
        hz: 100,
        buckets: [1, 1],
        allowance: 1,
        shared: 1,
        unassured: 1,
        ..Runtime::ZERO
    });
    let mut bank = Bank {
        interfaces: vec![Interface::ZERO],
        ..Bank::default()
    };
    for side in [0, interface_flags::HOST] {
        bank.interfaces.extend(FLAGS.map(|flags| Interface {
            flags: flags | side | interface_flags::PRESENT,
            ..Interface::ZERO
        }));
    }
    let padded =
        |address: [u8; 4]| std::array::from_fn(|at| address.get(at).map_or(0, |byte| *byte));
    for id in 1..=2 * FLAGS.len() as u32 {
        bank.addresses.insert((id, 4, padded(OWN4)));
        bank.addresses.insert((id, 6, OWN6));
        let listed = ETHERTYPE | u32::from(LISTED);
        bank.addresses.insert((id, listed, [0; 16]));
    }
    bank.addresses.insert((0, 4, padded(SERVICE4)));
    bank.addresses.insert((0, 6, SERVICE6));
    host.banks[0] = bank;
    host
});
