//! Names and limits that both sides use: programs, maps, pins, capacities.

/// Version of everything pinned: map names, key and value layouts, program names.
///
/// Bump it with any change of [`crate::layout`]. Pins live below a directory that carries this
/// number, and the loader refuses a pinned map whose shape differs from the object's.
///
/// What the feature `relaid` builds differs on purpose, in its layout too: between it and the ordinary build,
/// tests change from one layout to the next.
pub const ABI_VERSION: u32 = 4 + cfg!(feature = "relaid") as u32;

/// Ingress of an interface, XDP.
pub const PROGRAM_XDP_INGRESS: &str = "xdp_ingress";
/// Ingress of an interface, TC.
pub const PROGRAM_TC_INGRESS: &str = "tc_ingress";
/// Egress of an interface, TC.
pub const PROGRAM_TC_EGRESS: &str = "tc_egress";
/// Programs that go on where the ones at the hooks leave off, by [`stage`]: of XDP, then of TC. Each program set
/// has its own in an array of programs.
pub const PROGRAMS_LATER: [[&str; 3]; 2] = [
    ["xdp_general", "xdp_miss", "xdp_later"],
    ["tc_general", "tc_miss", "tc_later"],
];

/// Indexes of [`map::STAGES_XDP`] and [`map::STAGES_TC`].
pub mod stage {
    /// Everything but plain TCP and UDP, from its headers on.
    pub const GENERAL: u32 = 0;
    /// A packet without entry: policy, and the entry that comes of it.
    pub const MISS: u32 = 1;
    /// Everything else.
    pub const LATER: u32 = 2;
}

/// Conntrack commands, run by BPF_PROG_TEST_RUN only: see [`crate::layout::CtCommand`].
pub const PROGRAM_CT_CONTROL: &str = "ct_control";

/// More commands, which take over what another layout's maps hold: [`crate::layout::ct_op::RESTORE`] and
/// [`crate::layout::ct_op::ADD`]. Loaded for as long as that takes.
pub const PROGRAM_CT_RESTORE: &str = "ct_restore";

/// `.rodata` symbol: 1 if packets and bytes are kept per flow (u32). What is loaded for 0 knows nothing
/// of accounts, and the other way round.
pub const GLOBAL_ACCOUNTING: &str = "ACCOUNTING";
/// `.rodata` symbol: the number that the control plane gave to the network namespace a program
/// set is loaded for (u32). An ifindex is unique only within one.
pub const GLOBAL_NAMESPACE: &str = "NAMESPACE";

/// Interface ids are `1..MAX_INTERFACES`; id 0 counts what no known interface owns.
pub const MAX_INTERFACES: u32 = 1024;
/// Sets of the interface index; each holds [`crate::layout::INDEX_WAYS`] interfaces.
pub const INDEX_SETS: u32 = 1024;
/// Longest-prefix tries of one family that both banks together may hold.
pub const MAX_TRIES: u32 = 4096;
/// Nodes per bank of the trees that addresses are looked up in.
pub const MAX_NODES: u32 = 131_072;
/// Classes per bank.
pub const MAX_CLASSES: u32 = 131_072;
/// Port ranges per bank.
pub const MAX_RANGES: u32 = 524_288;
/// Sets of rules per bank whose hits are counted: those with a lower number.
pub const MAX_COUNTED: u32 = 131_072;
/// Fragment verdicts remembered at a time.
pub const MAX_FRAGMENTS: u32 = 8_192;
/// Flows whose accounts have outgrown their entries, remembered at a time.
pub const MAX_CARRIED: u32 = 8_192;
/// Table slots provided per tracked flow of the allowance, as a fraction. Two-choice placement into
/// sets of sixteen fills them without a refusal; when flows come and go at random in a full table seven
/// in a million find both sets full (simulated, allowances of 4 k to 1 M), and the stash takes those.
pub const CT_SLOTS_PER_FLOW: (u32, u32) = (51, 40);
/// Buckets behind the others of a table, for flows that find theirs full.
pub const CT_STASH: u32 = 4;

/// Counters of flows outside their first bucket, by the lowest bits of its index.
pub const CT_SPILLS: u32 = 256;

/// Buckets of one family's table for an allowance, those of the stash aside.
pub const fn buckets(allowance: u32) -> u32 {
    let (slots, flows) = CT_SLOTS_PER_FLOW;
    (allowance as u64 * slots as u64).div_ceil(flows as u64 * crate::layout::WAYS as u64) as u32
}

/// Flows that a CPU may make or end before it says so, under a limit of `allowance` flows on a host with
/// `cpus`: all CPUs together a four-thousandth, so that small limits are exact.
pub const fn credit(allowance: u32, cpus: u32) -> u32 {
    let share = allowance / 4096 / if cpus == 0 { 1 } else { cpus };
    if share < CT_MAX_CREDIT {
        share
    } else {
        CT_MAX_CREDIT
    }
}

/// Highest [`credit`]: beyond it nothing is gained.
const CT_MAX_CREDIT: u32 = 64;

/// Share of the allowance that unassured flows may hold, in percent.
pub const CT_UNASSURED_PERCENT: u32 = 25;

macro_rules! maps {
    ($($(#[doc = $doc:literal])* $name:ident;)*) => {
        /// Map names as they stand in the object and, prefixed by nothing, in the pin directory.
        pub mod map {
            $($(#[doc = $doc])* pub const $name: &str = stringify!($name);)*
            /// Array of programs by [`crate::abi::stage`]: where a packet at XDP goes on. Each program set has
            /// its own, pinned beside its programs.
            pub const STAGES_XDP: &str = "STAGES_XDP";
            /// The same at TC.
            pub const STAGES_TC: &str = "STAGES_TC";
            /// Array of one program: [`crate::abi::PROGRAM_XDP_INGRESS`] of the layout before, while its
            /// flows move over. Each program set has its own.
            pub const PREDECESSOR_XDP: &str = "PREDECESSOR_XDP";
            /// The same at TC: egress, ingress.
            pub const PREDECESSOR_TC: &str = "PREDECESSOR_TC";
            /// Arrays of programs, of which each program set has its own, pinned beside its programs.
            pub const OF_A_SET: [&str; 4] = [STAGES_XDP, STAGES_TC, PREDECESSOR_XDP, PREDECESSOR_TC];
            /// Every map that all program sets share.
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
    /// Array of [`crate::layout::Node`], two banks: search trees, address → class.
    TREES;
    /// Array of maps: LPM tries of what does not fit `TREES`, IPv4 address → class.
    TRIES4;
    /// Array of maps: LPM tries of what does not fit `TREES`, IPv6 address → class.
    TRIES6;
    /// Array of maps, one per bank: IPv4 member address → identity.
    MEMBERS4;
    /// Array of maps, one per bank: IPv6 member address → identity.
    MEMBERS6;
    /// Array of maps, one per bank: [`crate::layout::IdentityKey`] → class.
    IDENTITIES;
    /// Array of maps, one per bank: [`crate::layout::AddressKey`] → 1: own addresses, services, ethertypes.
    ADDRESSES;
    /// Tags of the conntrack table, IPv4: array of [`crate::layout::Tags`] by bucket.
    TAGS4;
    /// Tags of the conntrack table, IPv6.
    TAGS6;
    /// Tags of the draining predecessor, IPv4; one bucket and unused otherwise.
    TAGS4_OLD;
    /// Tags of the draining predecessor, IPv6.
    TAGS6_OLD;
    /// Conntrack entries without accounts, IPv4: array of [`crate::layout::Slot4`], 16 per bucket.
    CT4;
    /// Conntrack entries without accounts, IPv6: array of [`crate::layout::Slot6`].
    CT6;
    /// Draining predecessor of `CT4`.
    CT4_OLD;
    /// Draining predecessor of `CT6`.
    CT6_OLD;
    /// Conntrack entries with accounts, IPv4: array of [`crate::layout::Accounted4`]; instead of `CT4`.
    ACCOUNTED4;
    /// Conntrack entries with accounts, IPv6: array of [`crate::layout::Accounted6`]; instead of `CT6`.
    ACCOUNTED6;
    /// Draining predecessor of `ACCOUNTED4`.
    ACCOUNTED4_OLD;
    /// Draining predecessor of `ACCOUNTED6`.
    ACCOUNTED6_OLD;
    /// LRU hash, [`crate::layout::CarriedKey`] → [`crate::layout::Carried`]: what accounts have no room for.
    CT_CARRIED;
    /// Array of [`crate::layout::CtInterface`]: occupancy per interface.
    CT_INTERFACES;
    /// Array, 2 × [`crate::layout::Spills`], IPv4 and IPv6: where flows stand outside their first bucket.
    CT_SPILLS;
    /// Per-CPU array of [`crate::layout::CtLocal`]: what a CPU has not yet added to occupancy, and events.
    CT_LOCAL;
    /// Array, 1 × [`crate::layout::CtHost`]: occupancy of the host.
    CT_HOST;
    /// LRU hash, [`crate::layout::FragmentKey`] → jiffies of the allowed first fragment.
    FRAGMENTS;
    /// Per-CPU array of [`crate::layout::Counters`] by interface id.
    COUNTERS;
    /// Per-CPU array of u64, two banks: packets by the set of rules that let them pass, or open a flow.
    RULE_HITS;
    /// Per-CPU array, 1 × [`crate::pipeline::Scratch`]: the packet being judged.
    SCRATCH;
    /// Per-CPU array, 1 × bytes: headers of a frame at XDP whose first buffer does not hold them.
    HEADER_COPY;
    /// Array, 1 × [`crate::layout::Sweeper`]: the timer that reclaims expired entries.
    SWEEPER;
    /// Array, 1 × [`crate::layout::Confirmation`]: the timer that takes a generation back unless it is confirmed.
    CONFIRMATION;
}
