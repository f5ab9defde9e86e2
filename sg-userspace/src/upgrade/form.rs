//! How the maps of earlier layouts are to be read: offsets and sizes, written down when a layout is left.
//!
//! All offsets are in bytes from the beginning of a value; numbers are native.

use std::mem::offset_of;

use sg_common::{
    abi::ABI_VERSION,
    layout::{CtCommand, ct_op},
};

/// One layout.
#[derive(Debug)]
pub(super) struct Form {
    /// Its `ABI_VERSION`.
    pub(super) version: u32,
    /// `RUNTIME`.
    pub(super) runtime: Runtime,
    /// Records per bank of `INTERFACES`.
    pub(super) interfaces: u32,
    /// A record of it.
    pub(super) interface: Interface,
    /// Counters per bank of `RULE_HITS`.
    pub(super) counted: u32,
    /// Conntrack tables by map.
    pub(super) tables: &'static [(&'static str, Entry)],
    /// Of `COUNTERS`: kinds of passage and reasons to drop, whose numbers are never given anew. Each has packets
    /// and bytes, 64 bits each, by direction.
    pub(super) passes: usize,
    pub(super) drops: usize,
    /// `CT_LOCAL`.
    pub(super) events: Events,
    /// `CONFIRMATION`; `None`: there was no such thing.
    pub(super) confirmation: Option<Confirmation>,
}

/// What has become of a generation that was to be confirmed.
#[derive(Debug)]
pub(super) struct Confirmation {
    pub(super) size: u32,
    /// `generation << 32 | phase`.
    pub(super) word: usize,
    /// Nanoseconds of CLOCK_BOOTTIME, like `taken_back_at`.
    pub(super) deadline: usize,
    pub(super) taken_back: usize,
    pub(super) taken_back_at: usize,
    pub(super) commands: Commands,
}

/// How `ct_control` is told to confirm a generation and to take it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Commands {
    pub(super) size: usize,
    /// The generation.
    pub(super) argument: usize,
    /// Whether a change failed.
    pub(super) count: usize,
    /// Numbers of both.
    pub(super) confirm: u32,
    pub(super) take_back: u32,
}

impl Commands {
    /// As this build gives them.
    pub(super) const PRESENT: Self = Self {
        size: size_of::<CtCommand>(),
        argument: offset_of!(CtCommand, argument),
        count: offset_of!(CtCommand, count),
        confirm: ct_op::CONFIRM,
        take_back: ct_op::TAKE_BACK,
    };
}

/// What is fixed while attached.
#[derive(Debug)]
pub(super) struct Runtime {
    pub(super) size: u32,
    pub(super) accounting: usize,
    pub(super) allowance: usize,
}

/// An interface in one bank.
#[derive(Debug)]
pub(super) struct Interface {
    pub(super) size: u32,
    pub(super) reevaluate_from: usize,
}

/// A conntrack entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) size: u32,
    /// The word with generation (32 bits), state, flags (8 each) and version.
    pub(super) meta: usize,
    /// `interface << 8 | protocol`.
    pub(super) owner: usize,
    /// `local port << 16 | remote port`.
    pub(super) ports: usize,
    pub(super) local: usize,
    pub(super) remote: usize,
    /// Bytes of an address.
    pub(super) address: usize,
    pub(super) seen: usize,
    /// Of both sides, four bytes each.
    pub(super) ack: usize,
    /// Of both sides, four bytes each.
    pub(super) fin: usize,
    pub(super) account: Option<Account>,
}

/// What a flow carried, by direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    /// Lower 32 bits.
    pub(super) packets: usize,
    /// 16 bits more.
    pub(super) packets_high: Option<usize>,
    /// So many bytes, of both directions.
    pub(super) bytes: (usize, usize),
    /// Of bytes 15 bits more, and a bit that says that the map `CT_CARRIED` has more of both.
    pub(super) bytes_high: Option<usize>,
}

/// What each CPU counts of an interface: words of 64 bits.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) size: u32,
    pub(super) peak: usize,
    pub(super) refused: usize,
    pub(super) created: usize,
    pub(super) expired: usize,
    pub(super) replaced: usize,
    pub(super) removed: usize,
}

/// Every earlier layout that can be taken over. The last one is the present one: it is written down while it can
/// still be compared.
pub(super) const KNOWN: &[Form] = &[V3, V4];

/// The form of a layout before the present one.
pub(super) fn of(version: u32) -> Option<&'static Form> {
    let mut earlier = KNOWN.iter().filter(|form| form.version < ABI_VERSION);
    earlier.find(|form| form.version == version)
}

/// The form of the present layout, where it is written down.
pub(super) fn present() -> Option<&'static Form> {
    KNOWN.iter().find(|form| form.version == ABI_VERSION)
}

const V3: Form = Form {
    version: 3,
    runtime: Runtime {
        size: 104,
        accounting: 4,
        allowance: 24,
    },
    interfaces: 1024,
    interface: Interface {
        size: 128,
        reevaluate_from: 56,
    },
    counted: 131_072,
    tables: &[
        ("CT4", V3_IPV4),
        ("CT6", V3_IPV6),
        (
            "ACCOUNTED4",
            Entry {
                size: 72,
                account: Some(Account {
                    packets: 48,
                    packets_high: Some(44),
                    bytes: (56, 8),
                    bytes_high: None,
                }),
                ..V3_IPV4
            },
        ),
        (
            "ACCOUNTED6",
            Entry {
                size: 96,
                account: Some(Account {
                    packets: 72,
                    packets_high: Some(68),
                    bytes: (80, 8),
                    bytes_high: None,
                }),
                ..V3_IPV6
            },
        ),
    ],
    passes: 15,
    drops: 30,
    events: Events {
        size: 96,
        peak: 16,
        refused: 24,
        created: 32,
        expired: 40,
        replaced: 48,
        removed: 56,
    },
    confirmation: None,
};

const V3_IPV4: Entry = Entry {
    size: 48,
    meta: 0,
    owner: 8,
    ports: 12,
    local: 16,
    remote: 20,
    address: 4,
    seen: 24,
    ack: 28,
    fin: 36,
    account: None,
};

const V3_IPV6: Entry = Entry {
    size: 72,
    meta: 0,
    owner: 8,
    ports: 12,
    local: 16,
    remote: 32,
    address: 16,
    seen: 48,
    ack: 52,
    fin: 60,
    account: None,
};

/// Shorter accounts; more is known of an interface; generations can wait to be confirmed.
const V4: Form = Form {
    version: 4,
    runtime: Runtime {
        size: 112,
        ..V3.runtime
    },
    interface: Interface {
        size: 192,
        ..V3.interface
    },
    tables: &[
        ("CT4", V3_IPV4),
        ("CT6", V3_IPV6),
        (
            "ACCOUNTED4",
            Entry {
                size: 64,
                account: Some(Account {
                    packets: 48,
                    packets_high: None,
                    bytes: (56, 4),
                    bytes_high: Some(44),
                }),
                ..V3_IPV4
            },
        ),
        (
            "ACCOUNTED6",
            Entry {
                size: 88,
                account: Some(Account {
                    packets: 72,
                    packets_high: None,
                    bytes: (80, 4),
                    bytes_high: Some(68),
                }),
                ..V3_IPV6
            },
        ),
    ],
    passes: 16,
    confirmation: Some(Confirmation {
        size: 64,
        word: 16,
        deadline: 24,
        taken_back: 48,
        taken_back_at: 56,
        commands: Commands {
            size: 64,
            argument: 52,
            count: 56,
            confirm: 8,
            take_back: 9,
        },
    }),
    ..V3
};

#[cfg(all(test, not(feature = "relaid")))]
mod tests {
    use std::mem::{offset_of, size_of};

    use sg_common::{
        abi::{MAX_COUNTED, MAX_INTERFACES},
        layout::{
            Accounted4, Accounted6, Confirmation as Waiting, Counters, CtLocal,
            Interface as Record, Live, Runtime as Fixed, Slot4, Slot6,
        },
        verdict::{OUTCOMES, PASS_KINDS},
    };

    use super::*;

    macro_rules! entry {
        ($slot:ty, $size:expr, $address:expr, $account:expr) => {
            Entry {
                size: $size as u32,
                meta: offset_of!($slot, meta),
                owner: offset_of!($slot, owner),
                ports: offset_of!($slot, ports),
                local: offset_of!($slot, local),
                remote: offset_of!($slot, remote),
                address: $address,
                seen: offset_of!($slot, live) + offset_of!(Live, seen),
                ack: offset_of!($slot, live) + offset_of!(Live, ack),
                fin: offset_of!($slot, live) + offset_of!(Live, fin),
                account: $account,
            }
        };
    }

    macro_rules! account {
        ($accounted:ty, $slot:ty) => {{
            use sg_common::layout::Account as Counted;
            let start = offset_of!($accounted, account);
            Some(Account {
                packets: start + offset_of!(Counted, packets),
                packets_high: None,
                bytes: (start + offset_of!(Counted, bytes), 4),
                bytes_high: Some(
                    offset_of!($accounted, slot)
                        + offset_of!($slot, live)
                        + offset_of!(Live, bytes_high),
                ),
            })
        }};
    }

    /// Whoever changes the layout raises its version and writes down here what was, which fails then.
    #[test]
    fn the_present_layout_is_written_down() {
        let present = KNOWN.last().unwrap();
        assert_eq!(present.version, ABI_VERSION);
        let size = size_of::<Slot4>();
        let tables = [
            ("CT4", entry!(Slot4, size, 4, None)),
            ("CT6", entry!(Slot6, size_of::<Slot6>(), 16, None)),
            (
                "ACCOUNTED4",
                entry!(
                    Slot4,
                    size_of::<Accounted4>(),
                    4,
                    account!(Accounted4, Slot4)
                ),
            ),
            (
                "ACCOUNTED6",
                entry!(
                    Slot6,
                    size_of::<Accounted6>(),
                    16,
                    account!(Accounted6, Slot6)
                ),
            ),
        ];
        let form = Form {
            version: ABI_VERSION,
            runtime: Runtime {
                size: size_of::<Fixed>() as u32,
                accounting: offset_of!(Fixed, accounting),
                allowance: offset_of!(Fixed, allowance),
            },
            interfaces: MAX_INTERFACES,
            interface: Interface {
                size: size_of::<Record>() as u32,
                reevaluate_from: offset_of!(Record, reevaluate_from),
            },
            counted: MAX_COUNTED,
            tables: present.tables,
            passes: PASS_KINDS,
            drops: OUTCOMES - PASS_KINDS,
            events: Events {
                size: size_of::<CtLocal>() as u32,
                peak: offset_of!(CtLocal, peak),
                refused: offset_of!(CtLocal, refused),
                created: offset_of!(CtLocal, created),
                expired: offset_of!(CtLocal, expired),
                replaced: offset_of!(CtLocal, replaced),
                removed: offset_of!(CtLocal, removed),
            },
            confirmation: Some(Confirmation {
                size: size_of::<Waiting>() as u32,
                word: offset_of!(Waiting, word),
                deadline: offset_of!(Waiting, deadline),
                taken_back: offset_of!(Waiting, taken_back),
                taken_back_at: offset_of!(Waiting, taken_back_at),
                commands: Commands::PRESENT,
            }),
        };
        assert_eq!(format!("{present:?}"), format!("{form:?}"));
        assert_eq!(format!("{:?}", present.tables), format!("{tables:?}"));
        assert_eq!(size_of::<Counters>(), OUTCOMES * 2 * 16);
    }
}
