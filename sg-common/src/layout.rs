//! Every map key, map value and command: fixed layout, no hidden padding.
//!
//! Addresses are network-order bytes; every other number is a native host value.

use crate::verdict::OUTCOMES;

/// Declares shared structs: `repr(C)`, no padding (asserted), and `aya::Pod` for userspace.
macro_rules! shared {
    ($($(#[$meta:meta])* pub struct $name:ident [$size:literal] { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            #[repr(C)]
            pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }

            const _: () = assert!(core::mem::size_of::<$name>() == $size);
            const _: () = assert!($size == 0 $(+ core::mem::size_of::<$type>())*, "no padding");
            const _: () = assert!(core::mem::align_of::<$name>() <= 8);

            // SAFETY: integers and arrays of them only, and the assertion above rules out padding,
            // so every byte is initialised and every bit pattern is valid.
            #[cfg(feature = "user")]
            unsafe impl aya::Pod for $name {}

            impl $name {
                /// All fields zero.
                // SAFETY: as for `Pod`: all-zero bytes are a valid value.
                pub const ZERO: Self = unsafe { core::mem::zeroed() };

                /// The bytes as they stand in a map.
                pub fn as_bytes(&self) -> &[u8] {
                    // SAFETY: as for `Pod`: no padding, so all bytes are initialised.
                    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), $size) }
                }
            }
        )*
    };
}

/// "No trie": the policy has no prefix narrower than everywhere.
pub const NO_TRIE: u32 = u32::MAX;
/// In [`Node::words`]: the node is a leaf.
pub const LEAF: u32 = 1 << 31;
/// In a value of a leaf: the root of the tree that the next word of the key is looked up in.
pub const DEEPER: u32 = 1 << 31;
/// In [`AddressKey::family`]: the key is an ethertype.
pub const ETHERTYPE: u32 = 1 << 16;
/// Interfaces per set of the interface index.
pub const INDEX_WAYS: usize = 4;
/// Conntrack entries per bucket.
pub const WAYS: usize = 16;

/// Position of a direction and family in [`Interface::policy`].
#[inline(always)]
pub fn policy_index(direction: crate::verdict::Direction, ipv6: bool) -> usize {
    (crate::atomic::opaque(direction as u64) as usize & 1) * 2 + ipv6 as usize
}

/// The set of `INTERFACE_INDEX` that holds an interface.
#[inline(always)]
pub const fn index_set(namespace: u32, ifindex: u32) -> u32 {
    const BITS: u32 = crate::abi::INDEX_SETS.trailing_zeros();
    ifindex
        .wrapping_mul(0x9e37_79b1)
        .wrapping_add(namespace.wrapping_mul(0x85eb_ca6b))
        >> (32 - BITS)
}

/// Slices of a [`Class`], by what their ranges mean.
pub mod slice {
    /// Destination ports of TCP.
    pub const TCP: usize = 0;
    /// Destination ports of UDP.
    pub const UDP: usize = 1;
    /// `type << 8 | code` of the family's own ICMP (1 for IPv4, 58 for IPv6).
    pub const ICMP: usize = 2;
    /// Protocol numbers of everything else.
    pub const OTHER: usize = 3;
}

/// Bits of [`Interface::flags`].
pub mod interface_flags {
    /// The record is in use.
    pub const PRESENT: u32 = 1 << 0;
    /// Host side of a veth or tap: ingress of the hook is the workload's egress.
    pub const HOST: u32 = 1 << 1;
    /// `track = "always"`: no untracked bypass.
    pub const TRACK_ALWAYS: u32 = 1 << 2;
    /// `tcp_loose`: a rule may open a flow with a segment other than SYN.
    pub const TCP_LOOSE: u32 = 1 << 3;
    /// `icmp_errors = "strict"`: ICMP errors pass by rule only.
    pub const ICMP_STRICT: u32 = 1 << 4;
    /// DHCP of a client passes.
    pub const DHCP: u32 = 1 << 5;
    /// MLD passes.
    pub const MLD: u32 = 1 << 6;
    /// ICMPv6 redirects pass towards the workload.
    pub const ND_REDIRECT: u32 = 1 << 7;
    /// The interface's addresses are known and stand in `ADDRESSES`.
    pub const ADDRESSES_KNOWN: u32 = 1 << 8;
    /// `services` is not empty.
    pub const SERVICES: u32 = 1 << 9;
    /// One of its groups says `on_revoke = "reevaluate"`.
    pub const REEVALUATE: u32 = 1 << 10;
    /// Source and destination check (fact 5.5): the workload's end is one of `ADDRESSES`.
    pub const SOURCE_DEST_CHECK: u32 = 1 << 11;
    /// `ethertypes` is not empty.
    pub const ETHERTYPES: u32 = 1 << 12;
    /// Some of [`super::Interface::bypass`] is in use.
    pub const BYPASS: u32 = 1 << 13;
    /// Instead of [`PRESENT`], beside [`HOST`]: the first policy of the interface was taken back, and everything
    /// passes as it did before.
    pub const UNCONFIRMED: u32 = 1 << 14;
}

/// Bits of [`Policy::flags`].
pub mod policy_flags {
    /// From anywhere, every TCP port (fact 3.3: "permits all replies on any port").
    pub const OPEN_TCP: u32 = 1 << 0;
    /// From anywhere, every UDP port.
    pub const OPEN_UDP: u32 = 1 << 1;
    /// [`super::Policy::trie`] is the root of a tree in `TREES`.
    pub const TREE: u32 = 1 << 2;
}

/// Indexes of [`Interface::timeouts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Timeout {
    /// SYN sent, nothing back.
    TcpSynSent = 0,
    /// SYN answered, handshake not complete.
    TcpSynReceived = 1,
    /// Handshake complete; stays until both sides have closed.
    TcpEstablished = 2,
    /// Both sides sent FIN, not both acknowledged.
    TcpLastAck = 3,
    /// Both sides closed.
    TcpTimeWait = 4,
    /// Closed by a proven RST.
    TcpClose = 5,
    /// An unproven RST was seen: idle life until the next legal packet.
    TcpUnacknowledged = 6,
    /// UDP one way, or a single request and response.
    Udp = 7,
    /// UDP with more than one request and response.
    UdpStream = 8,
    /// ICMP echo.
    Icmp = 9,
    /// Every other protocol (fact 3.8).
    Other = 10,
}

/// Number of timeouts.
pub const TIMEOUTS: usize = 11;

/// Name and default in seconds of each timeout, by [`Timeout`] (facts 3.21, 3.28).
pub const TIMEOUT_DEFAULTS: [(&str, u32); TIMEOUTS] = [
    ("tcp_syn_sent", 120),
    ("tcp_syn_received", 60),
    ("tcp_established", 432_000),
    ("tcp_last_ack", 30),
    ("tcp_time_wait", 120),
    ("tcp_close", 10),
    ("tcp_unacknowledged", 300),
    ("udp", 30),
    ("udp_stream", 180),
    ("icmp", 30),
    ("other", 600),
];

shared! {
    /// What is fixed while anything is attached, and what changes with the generation; written by the control
    /// plane, and by `ct_control` when it takes a generation back.
    pub struct Runtime [112] {
        /// Jiffies per second, measured.
        pub hz: u32,
        /// 1: packets and bytes are kept per flow. The programs are loaded for one or the other.
        pub accounting: u32,
        /// Buckets of `CT4` and `CT6`, those of the stash aside.
        pub buckets: [u32; 2],
        /// Buckets of `CT4_OLD` and `CT6_OLD`, those of the stash aside; 0 while nothing drains.
        pub old_buckets: [u32; 2],
        /// Tracked flows of the host, reserves included.
        pub allowance: u32,
        /// `allowance` less the sum of all reserves.
        pub shared: u32,
        /// Unassured flows beyond which a new one replaces an old one.
        pub unassured: u32,
        /// As [`Interface::credit`], for the host.
        pub credit: u32,
        /// A generation under which no entry is left of a flow that it does not track; 0: none is known.
        pub reviewed: u32,
        /// A generation whose bank can be asked by the one after it; by no other.
        pub previous: u32,
        /// Jiffies at the last change of the generation. All 64 bits: nothing refreshes it.
        pub changed: u64,
        /// Secret of the flow hash, drawn once per boot.
        pub seed: [u32; 12],
        /// 1: what would be dropped is judged by the programs of the layout before, whose flows move over.
        pub predecessor: u32,
        /// Zero.
        pub _reserved: u32,
    }

    /// One interface of an [`IndexSet`]; `id` 0 is an empty way.
    pub struct IndexEntry [16] {
        /// Number of the network namespace.
        pub namespace: u32,
        /// ifindex within it.
        pub ifindex: u32,
        /// Interface id.
        pub id: u32,
        /// Zero.
        pub _reserved: u32,
    }

    /// One set of the interface index.
    pub struct IndexSet [64] {
        /// Searched in order.
        pub ways: [IndexEntry; INDEX_WAYS],
    }

    /// Where one direction and family of an interface's policy stands.
    pub struct Policy [16] {
        /// Index into `TRIES4` or `TRIES6`, or [`NO_TRIE`]; with [`policy_flags::TREE`] of a node in the
        /// bank's part of `TREES`.
        pub trie: u32,
        /// Class of rules whose peer is everywhere; also the class of an address no prefix covers.
        pub any_class: u32,
        /// Scope of [`IdentityKey`]; 0: no rule refers to a group.
        pub scope: u32,
        /// See [`policy_flags`].
        pub flags: u32,
    }

    /// One interface in one bank.
    pub struct Interface [192] {
        /// See [`interface_flags`].
        pub flags: u32,
        /// Cap of tracked flows.
        pub allowance: u32,
        /// Tracked flows that no other interface can take.
        pub reserve: u32,
        /// Idle life in jiffies, by [`Timeout`].
        pub timeouts: [u32; TIMEOUTS],
        /// Flows last judged under a generation before this one must still be allowed to their opener.
        pub reevaluate_from: u32,
        /// Flows that a CPU may make or end before it says so: see [`CtLocal::tracked`].
        pub credit: u32,
        /// By [`policy_index`].
        pub policy: [Policy; 4],
        /// By [`policy_index`], of TCP and UDP, with [`interface_flags::BYPASS`]: local ports of flows that are not
        /// tracked, and the rules that let all their packets in this direction pass; none: the rules have to be asked.
        pub bypass: [[Range; 2]; 4],
    }

    /// A node of a search tree: one cache line.
    ///
    /// An inner node has 16 children that stand one behind the other: the first one's index, then what
    /// is the highest word of each child but the last. A leaf has eight intervals: [`LEAF`], the highest
    /// word of each but the last, and their values. Where there are fewer, the highest words are filled
    /// up with `u32::MAX`, which nothing is above.
    pub struct Node [64] {
        /// As said above.
        pub words: [u32; 16],
    }

    /// A run of ranges, relative to the bank's start of `RANGES`.
    pub struct Slice [8] {
        /// First range.
        pub start: u32,
        /// Number of ranges.
        pub len: u32,
    }

    /// What one class of addresses may reach; index 0 of each bank is empty.
    pub struct Class [32] {
        /// By [`slice`](mod@slice).
        pub slices: [Slice; 4],
    }

    /// One allowed range; the ranges of a slice are disjoint and ascending.
    pub struct Range [8] {
        /// Lowest value.
        pub low: u16,
        /// Highest value, inclusive.
        pub high: u16,
        /// The set of rules that allow it.
        pub rule_set: u32,
    }

    /// Key of `IDENTITIES`.
    pub struct IdentityKey [8] {
        /// [`Policy::scope`].
        pub scope: u32,
        /// Identity of the peer: a set of groups.
        pub identity: u32,
    }

    /// Key of `ADDRESSES`: an address or a listed ethertype of an interface, or a link-local service
    /// (interface 0).
    pub struct AddressKey [24] {
        /// Interface id, or 0.
        pub interface: u32,
        /// 4, 6, or [`ETHERTYPE`] with the ethertype in its lower half.
        pub family: u32,
        /// IPv4 in the first four bytes, the rest zero; of an ethertype all zero.
        pub address: [u8; 16],
    }

    /// The tags of a bucket: one of 8 bits for each way, 0 where the way is free. Which byte is whose:
    /// [`crate::table::lane`].
    pub struct Tags [16] {
        /// Eight tags each.
        pub words: [u64; WAYS / 8],
    }

    /// An IPv4 entry.
    pub struct Slot4 [48] {
        /// See [`crate::conntrack`]: generation, state, flags, version.
        pub meta: u64,
        /// `interface << 8 | protocol`.
        pub owner: u32,
        /// `local port << 16 | remote port`; of an echo `identifier << 16 | opener is local`; else 0.
        pub ports: u32,
        /// Local address, the bytes as a native word.
        pub local: u32,
        /// Remote address, the bytes as a native word.
        pub remote: u32,
        /// Dynamic part.
        pub live: Live,
    }

    /// An IPv6 entry.
    pub struct Slot6 [72] {
        /// See [`crate::conntrack`]: generation, state, flags, version.
        pub meta: u64,
        /// `interface << 8 | protocol`.
        pub owner: u32,
        /// As [`Slot4::ports`].
        pub ports: u32,
        /// Local address, the bytes as native words.
        pub local: [u32; 4],
        /// Remote address, the bytes as native words.
        pub remote: [u32; 4],
        /// Dynamic part.
        pub live: Live,
    }

    /// Key of `CT_CARRIED`. A way that changes hands has another version.
    pub struct CarriedKey [8] {
        /// Index of the entry.
        pub index: u32,
        /// [`CarriedKey::IPV6`], [`CarriedKey::OLD`], and the entry's version in the upper half.
        pub which: u32,
    }

    /// What an entry's account had no room for, by direction.
    pub struct Carried [16] {
        /// Packets divided by 2³².
        pub packets: [u32; 2],
        /// Bytes divided by 2⁴⁷.
        pub bytes: [u32; 2],
    }

    /// An IPv4 entry with its account: one cache line.
    pub struct Accounted4 [64] {
        /// The entry.
        pub slot: Slot4,
        /// Its account.
        pub account: Account,
    }

    /// An IPv6 entry with its account.
    pub struct Accounted6 [88] {
        /// The entry.
        pub slot: Slot6,
        /// Its account.
        pub account: Account,
    }

    /// Occupancy of one interface, what CPUs keep to themselves ([`CtLocal`]) aside; a cache line, so that
    /// no interface slows another.
    pub struct CtInterface [64] {
        /// Tracked flows.
        pub tracked: u64,
        /// Tracked flows charged to the interface's reserve; exact.
        pub reserved: u64,
        /// Tracked flows not assured.
        pub unassured: u64,
        /// Zero.
        pub _reserved: [u64; 5],
    }

    /// Occupancy of the host; [`CtLocal`] of interface 0 belongs to it.
    pub struct CtHost [64] {
        /// Tracked flows not charged to a reserve.
        pub shared: u64,
        /// Tracked flows charged to reserves; exact.
        pub reserved: u64,
        /// Tracked flows not assured.
        pub unassured: u64,
        /// Number of the last ADD.
        pub added: u64,
        /// Zero.
        pub _reserved: [u64; 4],
    }

    /// How many flows of one family's current table stand outside their first bucket, by the lowest bits of
    /// that bucket's index. Where there is none, one bucket answers "not here".
    pub struct Spills [2048] {
        /// Never below the truth.
        pub counts: [u64; crate::abi::CT_SPILLS as usize],
    }

    /// What one CPU counts of one interface, or of the host (interface 0): no line is shared between CPUs.
    pub struct CtLocal [96] {
        /// Two's complement; to be added to [`CtInterface::tracked`] or [`CtHost::shared`].
        pub tracked: u64,
        /// Two's complement; to be added to [`CtInterface::unassured`] or [`CtHost::unassured`].
        pub unassured: u64,
        /// Highest number of tracked flows that this CPU saw when it made one.
        pub peak: u64,
        /// Packets dropped because no further flow could be tracked.
        pub refused: u64,
        /// Entries made.
        pub created: u64,
        /// Entries that idled out and were reclaimed.
        pub expired: u64,
        /// Entries replaced while unassured, to make room.
        pub replaced: u64,
        /// Entries removed by command, or because a new generation does not track them.
        pub removed: u64,
        /// Jiffies at the start of the current second of counting.
        pub window: u64,
        /// Entries made since then.
        pub window_created: u64,
        /// Entries made per second in the last full window.
        pub per_second: u64,
        /// Zero.
        pub _reserved: u64,
    }

    /// Key of `FRAGMENTS` (semantics 10).
    pub struct FragmentKey [44] {
        /// Interface id.
        pub interface: u32,
        /// `direction << 16 | family << 8 | protocol`.
        pub kind: u32,
        /// Identification, as on the wire, native word (IPv4: upper half zero).
        pub id: u32,
        /// Source; IPv4 in the first four bytes.
        pub source: [u8; 16],
        /// Destination; IPv4 in the first four bytes.
        pub destination: [u8; 16],
    }

    /// Packets and bytes of one outcome.
    pub struct Count [16] {
        /// Packets; segments where the kernel merged them.
        pub packets: u64,
        /// Bytes from the Ethernet header on.
        pub bytes: u64,
    }

    /// The counters of one interface on one CPU: by direction, by [`crate::verdict::Verdict::outcome`].
    pub struct Counters [1472] {
        /// `[direction][outcome]`.
        pub counts: [[Count; OUTCOMES]; 2],
    }

    /// State of the sweep; the first 16 bytes are the kernel's `struct bpf_timer`.
    pub struct Sweeper [32] {
        /// Opaque to everybody but the kernel.
        pub timer: [u64; 2],
        /// Next bucket of `CT4`, `CT6` to look at.
        pub cursor: [u32; 2],
        /// Completed passes over both tables.
        pub passes: u64,
    }

    /// A generation that waits to be confirmed, or the last one that did; the first 16 bytes are the kernel's
    /// `struct bpf_timer`. Written by `ct_control` and its timer only.
    pub struct Confirmation [64] {
        /// Opaque to everybody but the kernel.
        pub timer: [u64; 2],
        /// `generation << 32 | phase`: see [`phase`](mod@phase).
        pub word: u64,
        /// When it is taken back: nanoseconds of CLOCK_BOOTTIME.
        pub deadline: u64,
        /// What [`Limits`] become when it is taken back.
        pub limits: Limits,
        /// How many generations were taken back because nobody confirmed them, or because somebody asked for it.
        pub taken_back: u64,
        /// When the last of them was: nanoseconds of CLOCK_BOOTTIME.
        pub taken_back_at: u64,
    }

    /// The part of [`Runtime`] that comes from the definition.
    pub struct Limits [16] {
        /// [`Runtime::allowance`].
        pub allowance: u32,
        /// [`Runtime::shared`].
        pub shared: u32,
        /// [`Runtime::unassured`].
        pub unassured: u32,
        /// [`Runtime::credit`].
        pub credit: u32,
    }

    /// A command for `ct_control`, sent as the payload after 14 bytes of Ethernet header.
    pub struct CtCommand [64] {
        /// See [`ct_op`].
        pub op: u32,
        /// Interface id.
        pub interface: u32,
        /// 4 or 6.
        pub family: u32,
        /// IP protocol number.
        pub protocol: u32,
        /// Local address; IPv4 in the first four bytes. AWAIT: nanoseconds, a native u64, then zero.
        pub local: [u8; 16],
        /// Remote address; IPv4 in the first four bytes. AWAIT, TAKE_BACK: [`Limits`].
        pub remote: [u8; 16],
        /// Local port, or identifier of an echo.
        pub local_port: u16,
        /// Remote port, or identifier of an echo.
        pub remote_port: u16,
        /// CLOCK: which part. INSERT: bit 0 if the local side opened the flow, bit 1 if it is the last attempt.
        /// SWEEP, FLUSH, REVIEW: first bucket. AWAIT, CONFIRM, TAKE_BACK: the generation.
        pub argument: u32,
        /// SWEEP, FLUSH, REVIEW: buckets to visit, at most [`ct_op::MAX_BUCKETS`]. TAKE_BACK: 1 if the change failed.
        pub count: u32,
        /// Zero.
        pub _reserved: u32,
    }

    /// What RESTORE is told of a flow, behind the command.
    pub struct CtRecord [64] {
        /// Generation that last judged it.
        pub generation: u32,
        /// [`crate::conntrack::State`].
        pub state: u8,
        /// [`crate::conntrack::flag`]; whom it was charged to does not matter.
        pub flags: u8,
        /// See [`known`].
        pub known: u16,
        /// As [`Live::seen`].
        pub seen: u32,
        /// As [`Live::ack`].
        pub ack: [u32; 2],
        /// As [`Live::fin`].
        pub fin: [u32; 2],
        /// Zero.
        pub _reserved: u32,
        /// Packets by direction, to be added.
        pub packets: [u64; 2],
        /// Bytes by direction, to be added.
        pub bytes: [u64; 2],
    }
}

#[cfg(not(feature = "relaid"))]
shared! {
    /// What changes while a flow lives.
    pub struct Live [24] {
        /// Jiffies of the last packet that refreshed it.
        pub seen: u32,
        /// TCP: highest acknowledgement number by sender; else packets seen, up to two.
        /// Sender 0 is local, 1 remote.
        pub ack: [u32; 2],
        /// TCP: sequence number after the sender's SYN, then after its FIN; else of the opener jiffies of
        /// its last packet.
        pub fin: [u32; 2],
        /// With accounting, by direction: bytes divided by 2³², below [`CARRIED`], and that bit if there is a
        /// [`Carried`] for the flow.
        pub bytes_high: [u16; 2],
    }

    /// Packets and bytes of one entry, by direction (0 ingress, 1 egress), as far as there is room for them.
    pub struct Account [16] {
        /// Packets modulo 2³²; segments where the kernel merged them.
        pub packets: [u32; 2],
        /// Bytes from the Ethernet header on, modulo 2³²; see [`Live::bytes_high`].
        pub bytes: [u32; 2],
    }
}

// The same in another order.
#[cfg(feature = "relaid")]
shared! {
    /// What changes while a flow lives.
    pub struct Live [24] {
        /// With accounting, by direction: bytes divided by 2³², below [`CARRIED`], and that bit if there is a
        /// [`Carried`] for the flow.
        pub bytes_high: [u16; 2],
        /// TCP: sequence number after the sender's SYN, then after its FIN; else of the opener jiffies of
        /// its last packet.
        pub fin: [u32; 2],
        /// TCP: highest acknowledgement number by sender; else packets seen, up to two.
        /// Sender 0 is local, 1 remote.
        pub ack: [u32; 2],
        /// Jiffies of the last packet that refreshed it.
        pub seen: u32,
    }

    /// Packets and bytes of one entry, by direction (0 ingress, 1 egress), as far as there is room for them.
    pub struct Account [16] {
        /// Bytes from the Ethernet header on, modulo 2³²; see [`Live::bytes_high`].
        pub bytes: [u32; 2],
        /// Packets modulo 2³²; segments where the kernel merged them.
        pub packets: [u32; 2],
    }
}

/// Bit of [`Live::bytes_high`]: `CT_CARRIED` has more.
pub const CARRIED: u16 = 1 << 15;

impl CarriedKey {
    /// The entry is of IPv6.
    pub const IPV6: u32 = 1 << 0;
    /// The entry stands in the draining table.
    pub const OLD: u32 = 1 << 1;

    /// That of an entry.
    #[inline(always)]
    pub fn new(ipv6: bool, old: bool, index: u32, version: u16) -> Self {
        let (ipv6, old) = (
            if ipv6 { Self::IPV6 } else { 0 },
            if old { Self::OLD } else { 0 },
        );
        Self {
            index,
            which: ipv6 | old | u32::from(version) << 16,
        }
    }
}

impl Account {
    /// Packets and bytes by direction, given what else there is of them.
    pub fn totals(&self, bytes_high: [u16; 2], carried: &Carried) -> [(u64, u64); 2] {
        core::array::from_fn(|direction| {
            let packets =
                u64::from(carried.packets[direction]) << 32 | u64::from(self.packets[direction]);
            let bytes = u64::from(carried.bytes[direction]) << 47
                | u64::from(bytes_high[direction] & !CARRIED) << 32
                | u64::from(self.bytes[direction]);
            (packets, bytes)
        })
    }
}

/// Bits of [`CtRecord::known`].
pub mod known {
    /// The flow was restored before, and this is how it went on.
    pub const BEFORE: u16 = 1 << 0;
    /// It may have been restored before, with what it had carried.
    pub const PERHAPS: u16 = 1 << 1;
    /// An entry that packets have made is left as it is.
    pub const ONLY_NEW: u16 = 1 << 2;
}

/// Operations of [`CtCommand`] and their answers (the program's return value).
pub mod ct_op {
    /// Answers 31 bits of jiffies, from bit 31 · `argument` on.
    pub const CLOCK: u32 = 1;
    /// Inserts an established (or assured) flow, marked adopted. Answers [`OK`], [`EXISTS`] or [`FULL`]; that
    /// after reclaiming what is over beside the flow, so that another attempt may succeed, unless it is the last.
    pub const INSERT: u32 = 2;
    /// Deletes one flow. Answers [`OK`] or [`MISSING`].
    pub const DELETE: u32 = 3;
    /// Reclaims expired entries of `count` buckets of one family. Answers how many.
    pub const SWEEP: u32 = 4;
    /// Deletes the interface's entries in `count` buckets of one family. Answers how many.
    pub const FLUSH: u32 = 5;
    /// Starts the sweep timer if it does not run. Answers [`OK`].
    pub const ARM: u32 = 6;
    /// Inserts the flow as a [`super::CtRecord`] describes it, whatever the rules; for ICMP echo `remote_port` is 1
    /// if the local side asked. One that is there already gains what the record knows. Answers [`OK`],
    /// [`EXISTS`] or [`FULL`] as INSERT does.
    pub const RESTORE: u32 = 16;
    /// Adds to a counter of this CPU. `argument`: `direction << 16 | outcome` of [`super::Counters`], or
    /// [`EVENT`] and the number of a word of [`super::CtLocal`]; `local` and `remote` begin with what is
    /// added, in 64 bits: packets and bytes, or events and nothing. `count` numbers the command: one that is not
    /// higher than the last that was done ([`super::CtHost::added`]) is not done again. Answers [`OK`].
    pub const ADD: u32 = 17;

    /// In the argument of ADD: see there.
    pub const EVENT: u32 = 1 << 31;
    /// Deletes the entries in `count` buckets of one family whose flows need none. Answers how many.
    pub const REVIEW: u32 = 10;
    /// Has the generation taken back after a time unless [`CONFIRM`] comes before; the time begins anew if it is
    /// pending already. Answers [`OK`], or [`LATE`] if it was taken back.
    pub const AWAIT: u32 = 7;
    /// Confirms the generation. Answers [`OK`], [`LATE`] if it was taken back, [`MISSING`] if it is not pending.
    pub const CONFIRM: u32 = 8;
    /// Takes the generation back now. Answers [`OK`], or [`MISSING`] if it is not in force.
    pub const TAKE_BACK: u32 = 9;

    /// Buckets one command may visit.
    pub const MAX_BUCKETS: u32 = 1024;

    /// Done.
    pub const OK: u32 = 0;
    /// INSERT: the flow is there already.
    pub const EXISTS: u32 = 0x8000_0001;
    /// INSERT: no room.
    pub const FULL: u32 = 0x8000_0002;
    /// DELETE: no such flow. CONFIRM, TAKE_BACK: it is not this generation's turn.
    pub const MISSING: u32 = 0x8000_0003;
    /// The command cannot be read.
    pub const INVALID: u32 = 0x8000_0004;
    /// INSERT: no packet has these addresses.
    pub const IMPOSSIBLE: u32 = 0x8000_0005;
    /// AWAIT, CONFIRM: the generation was taken back before.
    pub const LATE: u32 = 0x8000_0006;
}

/// What has become of a generation that was to be confirmed: the lower half of [`Confirmation::word`].
pub mod phase {
    /// There was none yet, or its change never came into force.
    pub const NONE: u32 = 0;
    /// It waits.
    pub const PENDING: u32 = 1;
    /// It was confirmed.
    pub const CONFIRMED: u32 = 2;
    /// It was taken back: the generation after it is the one before it.
    pub const TAKEN_BACK: u32 = 3;
    /// It was taken back because its change failed.
    pub const FAILED: u32 = 4;
    /// It is being taken back.
    pub const LEAVING: u32 = 5;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k8_map_values_are_as_userspace_reads_them() {
        let range = Range {
            low: 80,
            high: 443,
            rule_set: 7,
        };
        let mut expected = [0; 8];
        expected[..2].copy_from_slice(&80_u16.to_ne_bytes());
        expected[2..4].copy_from_slice(&443_u16.to_ne_bytes());
        expected[4..].copy_from_slice(&7_u32.to_ne_bytes());
        assert_eq!(range.as_bytes(), expected);
    }

    #[test]
    fn timeouts_have_a_name_each() {
        assert_eq!(TIMEOUT_DEFAULTS[Timeout::Other as usize], ("other", 600));
        assert_eq!(
            TIMEOUT_DEFAULTS[Timeout::TcpEstablished as usize].1,
            432_000
        );
    }
}
