//! Names and limits that both sides use: programs, maps, pins, capacities.

/// Version of everything pinned: map names, key and value layouts, program names.
///
/// Bump it with any change of [`crate::layout`]. Pins live below a directory that carries this
/// number, and the loader refuses a pinned map whose shape differs from the object's.
pub const ABI_VERSION: u32 = 2;

/// Ingress of an interface, XDP.
pub const PROGRAM_XDP_INGRESS: &str = "xdp_ingress";
/// Ingress of an interface, TC.
pub const PROGRAM_TC_INGRESS: &str = "tc_ingress";
/// Egress of an interface, TC.
pub const PROGRAM_TC_EGRESS: &str = "tc_egress";
/// Conntrack commands, run by BPF_PROG_TEST_RUN only: see [`crate::layout::CtCommand`].
pub const PROGRAM_CT_CONTROL: &str = "ct_control";

/// `.rodata` symbol: the number that the control plane gave to the network namespace a program
/// set is loaded for (u32). An ifindex is unique only within one.
pub const GLOBAL_NAMESPACE: &str = "NAMESPACE";

/// Interface ids are `1..MAX_INTERFACES`; id 0 counts what no known interface owns.
pub const MAX_INTERFACES: u32 = 1024;
/// Sets of the interface index; each holds [`crate::layout::INDEX_WAYS`] interfaces.
pub const INDEX_SETS: u32 = 1024;
/// Longest-prefix tries of one family that both banks together may hold.
pub const MAX_TRIES: u32 = 4096;
/// Classes per bank.
pub const MAX_CLASSES: u32 = 65_536;
/// Port ranges per bank.
pub const MAX_RANGES: u32 = 524_288;
/// Fragment verdicts remembered at a time.
pub const MAX_FRAGMENTS: u32 = 8_192;
/// Stripe locks that serialise inserts of one flow.
pub const CT_LOCKS: u32 = 4_096;
/// Table slots provided per tracked flow of the allowance, as a fraction. Two-choice placement into
/// sets of eight refuses nothing at two thirds full; at three quarters a table of 262,144 slots
/// refuses one flow in 100,000 (simulated, six seeds each).
pub const CT_SLOTS_PER_FLOW: (u32, u32) = (3, 2);

/// Buckets of one family's table for an allowance.
pub const fn buckets(allowance: u32) -> u32 {
    let (slots, flows) = CT_SLOTS_PER_FLOW;
    (allowance as u64 * slots as u64).div_ceil(flows as u64 * crate::layout::WAYS as u64) as u32
}
/// Share of the allowance that unassured flows may hold, in percent.
pub const CT_UNASSURED_PERCENT: u32 = 25;

macro_rules! maps {
    ($($(#[doc = $doc:literal])* $name:ident;)*) => {
        /// Map names as they stand in the object and, prefixed by nothing, in the pin directory.
        pub mod map {
            $($(#[doc = $doc])* pub const $name: &str = stringify!($name);)*
            /// Every map of the object.
            pub const ALL: &[&str] = &[$($name),*];
            /// What each map of [`ALL`] holds, as its documentation says.
            pub const MEANINGS: &[&str] = &[$(concat!($($doc),*)),*];
        }
    };
}

maps! {
    /// Array, 1 × u32: the generation in force; its lowest bit is the bank. Flipping it is the change.
    GENERATION;
    /// Array, 1 × [`crate::layout::Runtime`]: what is fixed while attached.
    RUNTIME;
    /// Array of [`crate::layout::IndexSet`]: (namespace, ifindex) → interface id.
    INTERFACE_INDEX;
    /// Array of [`crate::layout::Interface`], two banks.
    INTERFACES;
    /// Array of [`crate::layout::Class`], two banks.
    CLASSES;
    /// Array of [`crate::layout::Range`], two banks.
    RANGES;
    /// Array of maps: LPM tries, IPv4 address → class.
    TRIES4;
    /// Array of maps: LPM tries, IPv6 address → class.
    TRIES6;
    /// Array of maps, one per bank: IPv4 member address → identity.
    MEMBERS4;
    /// Array of maps, one per bank: IPv6 member address → identity.
    MEMBERS6;
    /// Array of maps, one per bank: [`crate::layout::IdentityKey`] → class.
    IDENTITIES;
    /// Array of maps, one per bank: [`crate::layout::AddressKey`] → 1: own addresses, services, ethertypes.
    ADDRESSES;
    /// Conntrack, IPv4: array of [`crate::layout::Bucket4`].
    CT4;
    /// Conntrack, IPv6: array of [`crate::layout::Bucket6`].
    CT6;
    /// Draining predecessor of `CT4`; one bucket and unused otherwise.
    CT4_OLD;
    /// Draining predecessor of `CT6`; one bucket and unused otherwise.
    CT6_OLD;
    /// Packets and bytes of `CT4`'s entries: array of [`crate::layout::AccountBucket`].
    ACCOUNT4;
    /// Packets and bytes of `CT6`'s entries.
    ACCOUNT6;
    /// Packets and bytes of `CT4_OLD`'s entries.
    ACCOUNT4_OLD;
    /// Packets and bytes of `CT6_OLD`'s entries.
    ACCOUNT6_OLD;
    /// Array of spin locks: one flow is inserted by one CPU at a time.
    CT_LOCK;
    /// Array of [`crate::layout::CtInterface`]: occupancy per interface.
    CT_INTERFACES;
    /// Array, 1 × [`crate::layout::CtHost`]: occupancy of the host.
    CT_HOST;
    /// LRU hash, [`crate::layout::FragmentKey`] → jiffies of the allowed first fragment.
    FRAGMENTS;
    /// Per-CPU array of [`crate::layout::Counters`] by interface id.
    COUNTERS;
    /// Per-CPU array, 1 × [`crate::pipeline::Scratch`]: the packet being judged.
    SCRATCH;
    /// Per-CPU array, 1 × bytes: headers of a frame at XDP whose first buffer does not hold them.
    HEADER_COPY;
    /// Array, 1 × [`crate::layout::Sweeper`]: the timer that reclaims expired entries.
    SWEEPER;
}
