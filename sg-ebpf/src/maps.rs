//! Every map. Names, who writes what and what the values mean: `sg_common::abi` and `::layout`.
//!
//! Sizes that depend on the definition (conntrack, members) are placeholders that the loader sets.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_RDONLY_PROG, bpf_timer},
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray},
    macros::btf_map,
};
use sg_common::{
    abi::{
        INDEX_SETS, MAX_CARRIED, MAX_CLASSES, MAX_COUNTED, MAX_FRAGMENTS, MAX_INTERFACES,
        MAX_NODES, MAX_RANGES, MAX_TRIES,
    },
    family::pair,
    layout::{
        Accounted4, Accounted6, AddressKey, Carried, CarriedKey, Class, Confirmation, Counters,
        CtHost, CtInterface, CtLocal, FragmentKey, IdentityKey, IndexSet, Interface, Limits, Node,
        Range, Runtime, Slot4, Slot6, Spills, Sweeper, Tags, index_set,
    },
    pipeline::Scratch,
};

use crate::frame::MAX_OFFSET;

/// Written by userspace only. (What is written when a generation is taken back is not: `confirmation.rs`.)
const READ_ONLY: usize = BPF_F_RDONLY_PROG as usize;
/// Read by userspace without a system call per entry.
const MAPPED: usize = BPF_F_MMAPABLE as usize;

#[btf_map]
pub static GENERATION: Array<u32, 1> = Array::new();
#[btf_map]
pub static RUNTIME: Array<Runtime, 1> = Array::new();
#[btf_map]
pub static INTERFACE_INDEX: Array<IndexSet, { INDEX_SETS as usize }, READ_ONLY> = Array::new();
#[btf_map]
pub static INTERFACES: Array<Interface, { 2 * MAX_INTERFACES as usize }> = Array::new();
#[btf_map]
pub static CLASSES: Array<Class, { 2 * MAX_CLASSES as usize }, READ_ONLY> = Array::new();
#[btf_map]
pub static RANGES: Array<Range, { 2 * MAX_RANGES as usize }, READ_ONLY> = Array::new();

/// Mapped so that its nodes begin where cache lines do.
#[btf_map]
pub static TREES: Array<Node, { 2 * MAX_NODES as usize }, { READ_ONLY | MAPPED }> = Array::new();
#[btf_map]
pub static TRIES4: ArrayOfMaps<LpmTrie<[u8; 4], u32, 1>, { MAX_TRIES as usize }> =
    ArrayOfMaps::new();
#[btf_map]
pub static TRIES6: ArrayOfMaps<LpmTrie<[u8; 16], u32, 1>, { MAX_TRIES as usize }> =
    ArrayOfMaps::new();
#[btf_map]
pub static MEMBERS4: ArrayOfMaps<HashMap<u32, u32, 1>, 2> = ArrayOfMaps::new();
#[btf_map]
pub static MEMBERS6: ArrayOfMaps<HashMap<[u32; 4], u32, 1>, 2> = ArrayOfMaps::new();
#[btf_map]
pub static IDENTITIES: ArrayOfMaps<HashMap<IdentityKey, u32, 1>, 2> = ArrayOfMaps::new();
#[btf_map]
pub static ADDRESSES: ArrayOfMaps<HashMap<AddressKey, u32, 1>, 2> = ArrayOfMaps::new();

#[btf_map]
pub static TAGS4: Array<Tags, 1, MAPPED> = Array::new();
#[btf_map]
pub static TAGS6: Array<Tags, 1, MAPPED> = Array::new();
#[btf_map]
pub static TAGS4_OLD: Array<Tags, 1, MAPPED> = Array::new();
#[btf_map]
pub static TAGS6_OLD: Array<Tags, 1, MAPPED> = Array::new();
#[btf_map]
pub static CT4: Array<Slot4, 1, MAPPED> = Array::new();
#[btf_map]
pub static CT6: Array<Slot6, 1, MAPPED> = Array::new();
#[btf_map]
pub static CT4_OLD: Array<Slot4, 1, MAPPED> = Array::new();
#[btf_map]
pub static CT6_OLD: Array<Slot6, 1, MAPPED> = Array::new();
#[btf_map]
pub static ACCOUNTED4: Array<Accounted4, 1, MAPPED> = Array::new();
#[btf_map]
pub static ACCOUNTED6: Array<Accounted6, 1, MAPPED> = Array::new();
#[btf_map]
pub static ACCOUNTED4_OLD: Array<Accounted4, 1, MAPPED> = Array::new();
#[btf_map]
pub static ACCOUNTED6_OLD: Array<Accounted6, 1, MAPPED> = Array::new();

#[btf_map]
pub static CT_CARRIED: LruHashMap<CarriedKey, Carried, { MAX_CARRIED as usize }> =
    LruHashMap::new();
#[btf_map]
pub static CT_INTERFACES: Array<CtInterface, { MAX_INTERFACES as usize }> = Array::new();
#[btf_map]
pub static CT_HOST: Array<CtHost, 1> = Array::new();
#[btf_map]
pub static CT_SPILLS: Array<Spills, 2> = Array::new();
#[btf_map]
pub static CT_LOCAL: PerCpuArray<CtLocal, { MAX_INTERFACES as usize }> = PerCpuArray::new();
#[btf_map]
pub static FRAGMENTS: LruHashMap<FragmentKey, u32, { MAX_FRAGMENTS as usize }> = LruHashMap::new();
#[btf_map]
pub static COUNTERS: PerCpuArray<Counters, { MAX_INTERFACES as usize }> = PerCpuArray::new();

#[btf_map]
pub static RULE_HITS: PerCpuArray<u64, { 2 * MAX_COUNTED as usize }> = PerCpuArray::new();

/// [`Sweeper`] with the timer's own type.
#[repr(C)]
pub struct Sweep {
    pub timer: bpf_timer,
    pub cursor: [u32; 2],
    pub passes: u64,
}

const _: () = assert!(size_of::<Sweep>() == size_of::<Sweeper>());

// SAFETY: reached through map pointers only; the kernel guards the timer.
unsafe impl Sync for Sweep {}

#[btf_map]
pub static SWEEPER: Array<Sweep, 1> = Array::new();

/// [`Confirmation`] with the timer's own type.
#[repr(C)]
pub struct Await {
    pub timer: bpf_timer,
    pub word: u64,
    pub deadline: u64,
    pub limits: Limits,
    pub taken_back: u64,
    pub taken_back_at: u64,
}

const _: () = assert!(size_of::<Await>() == size_of::<Confirmation>());

// SAFETY: as of [`Sweep`].
unsafe impl Sync for Await {}

#[btf_map]
pub static CONFIRMATION: Array<Await, 1> = Array::new();

/// Room for the packet that this CPU judges. All hooks run with softirqs off, so none interrupts
/// another on one CPU.
#[btf_map]
pub static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// This CPU's room.
#[inline(always)]
pub fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: nobody else uses this CPU's value while the program runs.
    SCRATCH
        .get_ptr_mut(0)
        .map(|scratch| unsafe { &mut *scratch })
}

/// Headers of a frame whose first buffer does not hold them, with room behind them for any window that
/// begins at an allowed offset.
#[btf_map]
pub static HEADER_COPY: PerCpuArray<[u8; MAX_OFFSET + 64], 1> = PerCpuArray::new();

/// This CPU's room for headers.
#[inline(always)]
pub fn header_copy() -> Option<*mut u8> {
    HEADER_COPY.get_ptr_mut(0).map(|copy| copy.cast())
}

#[btf_map]
pub static STAGES_XDP: ProgramArray<3> = ProgramArray::new();
#[btf_map]
pub static STAGES_TC: ProgramArray<3> = ProgramArray::new();
#[btf_map]
pub static PREDECESSOR_XDP: ProgramArray<1> = ProgramArray::new();
#[btf_map]
pub static PREDECESSOR_TC: ProgramArray<2> = ProgramArray::new();

/// The id of an interface, or 0.
#[inline(always)]
pub fn interface_id(namespace: u32, ifindex: u32) -> u32 {
    let Some(set) = INTERFACE_INDEX.get(index_set(namespace, ifindex)) else {
        return 0;
    };
    let wanted = pair(namespace, ifindex);
    for way in &set.ways {
        // SAFETY: two aligned words, which are eight bytes.
        if unsafe { (&raw const way.namespace).cast::<u64>().read() } == wanted {
            return way.id;
        }
    }
    0
}
