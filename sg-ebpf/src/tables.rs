//! The pipeline's tables and clock over BPF maps and helpers.

use core::ffi::c_void;

use aya_ebpf::{
    btf_maps::lpm_trie::Key,
    helpers::{bpf_jiffies64, bpf_loop},
};
use sg_common::{
    abi::{MAX_CLASSES, MAX_COUNTED, MAX_INTERFACES, MAX_NODES, MAX_RANGES},
    atomic::opaque,
    classify::{self, Allowing, Question, Selector},
    family::{V4, V6},
    layout::{
        AddressKey, Carried, CarriedKey, Class, Count, CtHost, CtInterface, CtLocal, FragmentKey,
        IdentityKey, Interface, Node, Range, Runtime, Slot4, Slot6, Spills, Tags,
    },
    pipeline::{self, Outcome, Room, Scratch},
    table::{self, Context, FreeEntry, with_stash},
    tables::Tables,
    verdict::{Direction, DropReason, OUTCOMES, PASS_KINDS, Verdict},
};

use crate::{ACCOUNTING, maps};

/// The kernel's maps.
pub struct Kernel;

/// Index into a flat array with two banks.
#[inline(always)]
fn banked(bank: u32, index: u32, size: u32) -> Option<u32> {
    if index >= size {
        None
    } else {
        Some((bank & 1) * size + index)
    }
}

impl Tables for Kernel {
    #[inline(always)]
    fn generation(&self) -> u32 {
        match maps::GENERATION.get_ptr(0) {
            // SAFETY: a valid map value; read once, whoever flips it.
            Some(generation) => unsafe { core::ptr::read_volatile(generation) },
            None => 0,
        }
    }

    #[inline(always)]
    fn runtime(&self) -> Option<&Runtime> {
        maps::RUNTIME.get(0)
    }

    #[inline(always)]
    fn jiffies(&self) -> u64 {
        // SAFETY: no arguments.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn interface(&self, bank: u32, id: u32) -> Option<&Interface> {
        maps::INTERFACES.get(banked(bank, id, MAX_INTERFACES)?)
    }

    #[inline(always)]
    fn class(&self, bank: u32, class: u32) -> Option<&Class> {
        maps::CLASSES.get(banked(bank, class, MAX_CLASSES)?)
    }

    #[inline(always)]
    fn range(&self, bank: u32, index: u32) -> Option<&Range> {
        maps::RANGES.get(banked(bank, index, MAX_RANGES)?)
    }

    #[inline(always)]
    fn node(&self, bank: u32, index: u32) -> Option<&Node> {
        maps::TREES.get(banked(bank, index, MAX_NODES)?)
    }

    #[inline(always)]
    fn trie4(&self, trie: u32, address: u32) -> Option<u32> {
        maps::TRIES4
            .get(trie)?
            .get(&Key::new(32, address.to_ne_bytes()))
            .copied()
    }

    #[inline(always)]
    fn trie6(&self, trie: u32, address: &[u32; 4]) -> Option<u32> {
        // SAFETY: same size, plain integers.
        let bytes: [u8; 16] = unsafe { core::mem::transmute(*address) };
        maps::TRIES6.get(trie)?.get(&Key::new(128, bytes)).copied()
    }

    #[inline(always)]
    fn member4(&self, bank: u32, address: u32) -> Option<u32> {
        // SAFETY: a u32 is copied out at once; a bank in force is not written but by whole values.
        unsafe { maps::MEMBERS4.get(bank)?.get(address) }.copied()
    }

    #[inline(always)]
    fn member6(&self, bank: u32, address: &[u32; 4]) -> Option<u32> {
        // SAFETY: as `member4`.
        unsafe { maps::MEMBERS6.get(bank)?.get(address) }.copied()
    }

    #[inline(always)]
    fn identity(&self, bank: u32, key: &IdentityKey) -> Option<u32> {
        // SAFETY: as `member4`.
        unsafe { maps::IDENTITIES.get(bank)?.get(key) }.copied()
    }

    #[inline(always)]
    fn address(&self, bank: u32, key: &AddressKey) -> bool {
        // SAFETY: only whether it is there.
        maps::ADDRESSES
            .get(bank)
            .is_some_and(|inner| unsafe { inner.get(key) }.is_some())
    }

    #[inline(always)]
    fn accounting(&self) -> bool {
        ACCOUNTING.load() != 0
    }

    #[inline(always)]
    fn tags(&self, ipv6: bool, old: bool, bucket: u32) -> Option<*mut Tags> {
        match (ipv6, old) {
            (false, false) => maps::TAGS4.get_ptr_mut(bucket),
            (true, false) => maps::TAGS6.get_ptr_mut(bucket),
            (false, true) => maps::TAGS4_OLD.get_ptr_mut(bucket),
            (true, true) => maps::TAGS6_OLD.get_ptr_mut(bucket),
        }
    }

    #[inline(always)]
    fn slot4(&self, old: bool, index: u32) -> Option<*mut Slot4> {
        match (self.accounting(), old) {
            (false, false) => maps::CT4.get_ptr_mut(index),
            (false, true) => maps::CT4_OLD.get_ptr_mut(index),
            (true, false) => maps::ACCOUNTED4.get_ptr_mut(index).map(<*mut _>::cast),
            (true, true) => maps::ACCOUNTED4_OLD.get_ptr_mut(index).map(<*mut _>::cast),
        }
    }

    #[inline(always)]
    fn slot6(&self, old: bool, index: u32) -> Option<*mut Slot6> {
        match (self.accounting(), old) {
            (false, false) => maps::CT6.get_ptr_mut(index),
            (false, true) => maps::CT6_OLD.get_ptr_mut(index),
            (true, false) => maps::ACCOUNTED6.get_ptr_mut(index).map(<*mut _>::cast),
            (true, true) => maps::ACCOUNTED6_OLD.get_ptr_mut(index).map(<*mut _>::cast),
        }
    }

    #[inline(always)]
    fn carry(&self, key: CarriedKey, what: u32) {
        sg_carry(key.index, key.which, what);
    }

    #[inline(always)]
    fn ct_interface(&self, id: u32) -> Option<*mut CtInterface> {
        maps::CT_INTERFACES.get_ptr_mut(id)
    }

    #[inline(always)]
    fn ct_host(&self) -> Option<*mut CtHost> {
        maps::CT_HOST.get_ptr_mut(0)
    }

    #[inline(always)]
    fn spills(&self, ipv6: bool) -> Option<*mut Spills> {
        maps::CT_SPILLS.get_ptr_mut(u32::from(ipv6))
    }

    #[inline(always)]
    fn ct_local(&self, id: u32) -> Option<*mut CtLocal> {
        maps::CT_LOCAL.get_ptr_mut(id)
    }

    /// The scratch is this CPU's: the function fetches it again, since pointers do not pass.
    #[inline(always)]
    fn run(&self, what: u32, _scratch: &mut Scratch) -> Outcome {
        let ipv6 = pipeline::is_ipv6(what);
        Outcome::from_raw(if pipeline::misses(what) {
            if ipv6 { sg_miss6(what) } else { sg_miss4(what) }
        } else if pipeline::opens(what) {
            if ipv6 { sg_open6(what) } else { sg_open4(what) }
        } else {
            sg_run(what)
        })
    }

    #[inline(always)]
    fn allows<F: Room>(&self, question: &Question, _remote: &F::Address) -> Allowing {
        let family = if F::IPV6 { ASK_IPV6 } else { 0 };
        let selector = question.selector;
        Allowing::from_raw(sg_allows(
            question.bank,
            question.id,
            family | question.direction as u32,
            u32::from(selector.slice),
            u32::from(selector.value),
        ))
    }

    #[inline(always)]
    fn untracked(&self, ipv6: bool, bank: u32, id: u32, protocol: u8, ports: u32) -> u32 {
        sg_untracked(u32::from(ipv6), bank, id, u32::from(protocol), ports)
    }

    #[inline(always)]
    fn settle(&self, ipv6: bool, hash: u64, index: u32) -> bool {
        sg_settle(u32::from(ipv6), hash, index) != 0
    }

    #[inline(always)]
    fn free(&self, ipv6: bool, entry: FreeEntry) -> bool {
        let FreeEntry { meta, index, what } = entry;
        let freed = if ipv6 {
            sg_free6(what, index, meta)
        } else {
            sg_free4(what, index, meta)
        };
        freed != 0
    }

    #[inline(always)]
    fn clear(&self, ipv6: bool, old: bool, index: u32, id: u32) -> u32 {
        if ipv6 {
            sg_clear6(u32::from(old), index, id)
        } else {
            sg_clear4(u32::from(old), index, id)
        }
    }

    #[inline(always)]
    fn review_entry(&self, ipv6: bool, old: bool, index: u32) -> u32 {
        sg_review_entry(u32::from(ipv6), u32::from(old), index)
    }

    #[inline(always)]
    fn reclaim_beside(&self, ipv6: bool, hash: u64) {
        sg_reclaim_beside(u32::from(ipv6), hash);
    }

    #[inline(always)]
    fn reclaim(&self, ipv6: bool, old: bool, index: u32) -> u32 {
        sg_reclaim(u32::from(ipv6), u32::from(old), index)
    }

    #[inline(always)]
    fn replace_oldest(&self, ipv6: bool, index: u32, id: u32) {
        sg_replace_oldest(u32::from(ipv6), index, id);
    }

    #[inline(always)]
    fn make_room(&self, ipv6: bool, hash: u64, id: u32) {
        sg_make_room(u32::from(ipv6), hash, id);
    }

    #[inline(always)]
    fn oldest_age(&self, ipv6: bool, index: u32, id: u32) -> u32 {
        sg_oldest_age(u32::from(ipv6), index, id)
    }

    #[inline(always)]
    fn find_unassured(&self, ipv6: bool, index: u32, count: u32, id: u32) -> u32 {
        sg_find_unassured(u32::from(ipv6), index, count, id)
    }

    #[inline(always)]
    fn sweep_cursor(&self, ipv6: bool) -> u32 {
        let (Some(sweep), Some(runtime)) = (maps::SWEEPER.get_ptr_mut(0), self.runtime()) else {
            return 0;
        };
        let family = usize::from(ipv6);
        let buckets = with_stash(runtime.buckets[family]);
        // SAFETY: a valid map value. Two CPUs may look at the same bucket: nothing is lost by it.
        unsafe {
            let cursor = (&raw mut (*sweep).cursor).cast::<u32>().add(family & 1);
            let index = core::ptr::read_volatile(cursor);
            let next = index + 1;
            let index = if index < buckets { index } else { 0 };
            core::ptr::write_volatile(cursor, if next < buckets { next } else { 0 });
            index
        }
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<u32> {
        // SAFETY: a u32 is copied out at once; an evicted and reused slot can only hold another
        // allowed first fragment's time.
        unsafe { maps::FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn remember_fragment(&self, key: &FragmentKey, now: u32) {
        // If there is no memory the later fragments are dropped and counted.
        let _ = maps::FRAGMENTS.insert(key, now, 0);
    }

    #[inline(always)]
    fn hit(&self, bank: u32, rule_set: u32, packets: u32) {
        let place = banked(bank, rule_set, MAX_COUNTED);
        if let Some(hits) = place.and_then(|place| maps::RULE_HITS.get_ptr_mut(place)) {
            // SAFETY: a valid value of this CPU.
            unsafe { *hits += u64::from(packets) };
        }
    }

    #[inline(always)]
    fn count(&self, id: u32, direction: Direction, outcome: usize, packets: u32, bytes: u32) {
        // Whoever judges such a packet counts it.
        if !left_to_predecessor(outcome) {
            add_count(
                id,
                direction as u64,
                outcome as u64,
                packets.into(),
                bytes.into(),
            );
        }
    }
}

/// Adds to a counter of this CPU.
#[inline(always)]
pub fn add_count(id: u32, direction: u64, outcome: u64, packets: u64, bytes: u64) {
    let Some(counters) = maps::COUNTERS.get_ptr_mut(id) else {
        return;
    };
    let outcome = opaque(outcome) as usize;
    if outcome >= OUTCOMES {
        return;
    }
    let index = opaque(direction) as usize & 1;
    // SAFETY: a valid value of this CPU, and both indexes are in bounds.
    unsafe {
        let count = (&raw mut (*counters).counts)
            .cast::<Count>()
            .add(index * OUTCOMES + outcome);
        (*count).packets += packets;
        (*count).bytes += bytes;
    }
}

/// Whether the programs of the layout before judge a packet of this outcome: while its flows move over, what
/// would be dropped may be of one that has not yet come. A table that is full is no reason: a flow that
/// begins in the one before might find no room here.
#[inline(always)]
pub fn left_to_predecessor(outcome: usize) -> bool {
    outcome >= PASS_KINDS
        && outcome != Verdict::Drop(DropReason::AllowanceExceeded).outcome()
        && maps::RUNTIME
            .get(0)
            .is_some_and(|runtime| runtime.predecessor != 0)
}

/// What the functions below share with the packet path.
#[inline(always)]
pub fn context() -> Option<Context<'static, Kernel>> {
    Some(Context {
        tables: &Kernel,
        runtime: maps::RUNTIME.get(0)?,
        now: Kernel.now(),
        generation: Kernel.generation(),
    })
}

/// [`pipeline::run`] as a global function: the verifier looks at it once, not at each call.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_run(what: u32) -> u32 {
    match maps::scratch() {
        Some(scratch) => pipeline::run(&Kernel, what, scratch).index() as u32,
        None => OUTCOMES as u32,
    }
}

/// [`pipeline::missed`] for IPv4 as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_miss4(what: u32) -> u32 {
    match maps::scratch() {
        Some(scratch) => pipeline::missed::<Kernel, false>(&Kernel, what, scratch).index() as u32,
        None => OUTCOMES as u32,
    }
}

/// [`pipeline::missed`] for IPv6 as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_miss6(what: u32) -> u32 {
    match maps::scratch() {
        Some(scratch) => pipeline::missed::<Kernel, true>(&Kernel, what, scratch).index() as u32,
        None => OUTCOMES as u32,
    }
}

/// [`pipeline::open`] for IPv4 as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_open4(what: u32) -> u32 {
    match maps::scratch() {
        Some(scratch) => pipeline::open::<Kernel, false>(&Kernel, what, scratch).index() as u32,
        None => OUTCOMES as u32,
    }
}

/// [`pipeline::open`] for IPv6 as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_open6(what: u32) -> u32 {
    match maps::scratch() {
        Some(scratch) => pipeline::open::<Kernel, true>(&Kernel, what, scratch).index() as u32,
        None => OUTCOMES as u32,
    }
}

/// [`table::settle`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_settle(ipv6: u32, hash: u64, index: u32) -> u32 {
    let Some(context) = context() else {
        return 0;
    };
    u32::from(if ipv6 != 0 {
        table::settle::<Kernel, V6>(&context, hash, index)
    } else {
        table::settle::<Kernel, V4>(&context, hash, index)
    })
}

/// Adds one to what an account had no room for.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_carry(index: u32, which: u32, what: u32) -> u32 {
    let key = CarriedKey { index, which };
    if maps::CT_CARRIED.get_ptr_mut(key).is_none() {
        // Where there is no memory the account loses what it had no room for.
        let _ = maps::CT_CARRIED.insert(key, Carried::ZERO, 0);
    }
    let Some(carried) = maps::CT_CARRIED.get_ptr_mut(key) else {
        return 0;
    };
    // SAFETY: a valid value of four words; two CPUs may add to one at the same moment as to accounts.
    unsafe { *carried.cast::<u32>().add((what & 3) as usize) += 1 };
    1
}

/// [`table::free`] for IPv4 as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_free4(what: u32, index: u32, meta: u64) -> u32 {
    let entry = FreeEntry { meta, index, what };
    context().map_or(0, |context| {
        u32::from(table::free::<Kernel, V4>(&context, entry))
    })
}

/// [`table::free`] for IPv6 as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_free6(what: u32, index: u32, meta: u64) -> u32 {
    let entry = FreeEntry { meta, index, what };
    context().map_or(0, |context| {
        u32::from(table::free::<Kernel, V6>(&context, entry))
    })
}

/// [`table::clear`] for IPv4 as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_clear4(old: u32, index: u32, id: u32) -> u32 {
    context().map_or(0, |context| {
        table::clear::<Kernel, V4>(&context, old != 0, index, id)
    })
}

/// [`table::clear`] for IPv6 as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_clear6(old: u32, index: u32, id: u32) -> u32 {
    context().map_or(0, |context| {
        table::clear::<Kernel, V6>(&context, old != 0, index, id)
    })
}

/// [`table::reclaim_beside`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_reclaim_beside(ipv6: u32, hash: u64) -> u32 {
    if let Some(context) = context() {
        table::reclaim_beside(&context, ipv6 != 0, hash);
    }
    0
}

/// [`table::reclaim`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_reclaim(ipv6: u32, old: u32, index: u32) -> u32 {
    let Some(context) = context() else {
        return 0;
    };
    if ipv6 != 0 {
        table::reclaim::<Kernel, V6>(&context, old != 0, index)
    } else {
        table::reclaim::<Kernel, V4>(&context, old != 0, index)
    }
}

/// [`table::flush`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_flush(ipv6: u32, old: u32, index: u32, id: u32) -> u32 {
    let Some(context) = context() else {
        return 0;
    };
    if ipv6 != 0 {
        table::flush::<Kernel, V6>(&context, old != 0, index, id)
    } else {
        table::flush::<Kernel, V4>(&context, old != 0, index, id)
    }
}

/// [`table::review`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_review(ipv6: u32, old: u32, index: u32) -> u32 {
    let Some(context) = context() else {
        return 0;
    };
    if ipv6 != 0 {
        table::review::<Kernel, V6>(&context, old != 0, index)
    } else {
        table::review::<Kernel, V4>(&context, old != 0, index)
    }
}

/// [`table::review_entry`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_review_entry(ipv6: u32, old: u32, index: u32) -> u32 {
    let Some(context) = context() else {
        return 0;
    };
    if ipv6 != 0 {
        table::review_entry::<Kernel, V6>(&context, old != 0, index)
    } else {
        table::review_entry::<Kernel, V4>(&context, old != 0, index)
    }
}

/// For [`sg_allows`]: the packet is IPv6. The lowest bit is the direction.
const ASK_IPV6: u32 = 1 << 1;

/// [`classify::allows`] as a global function, about the peer of the packet in the scratch.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_allows(bank: u32, id: u32, what: u32, slice: u32, value: u32) -> u64 {
    let Some(scratch) = maps::scratch() else {
        return 0;
    };
    let question = Question {
        bank,
        id,
        direction: if what & 1 == Direction::Egress as u32 {
            Direction::Egress
        } else {
            Direction::Ingress
        },
        selector: Selector {
            slice: slice as u8,
            value: value as u16,
        },
    };
    if what & ASK_IPV6 != 0 {
        classify::allows::<Kernel, V6>(&Kernel, &question, V6::peer(scratch)).raw()
    } else {
        classify::allows::<Kernel, V4>(&Kernel, &question, V4::peer(scratch)).raw()
    }
}

/// [`classify::untracked`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_untracked(ipv6: u32, bank: u32, id: u32, protocol: u32, ports: u32) -> u32 {
    classify::untracked(&Kernel, ipv6 != 0, bank, id, protocol as u8, ports)
}

/// [`table::replace_oldest`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_replace_oldest(ipv6: u32, index: u32, id: u32) -> u32 {
    if let Some(context) = context() {
        if ipv6 != 0 {
            table::replace_oldest::<Kernel, V6>(&context, index, id);
        } else {
            table::replace_oldest::<Kernel, V4>(&context, index, id);
        }
    }
    0
}

/// [`table::make_room`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_make_room(ipv6: u32, hash: u64, id: u32) -> u32 {
    if let Some(context) = context() {
        table::make_room(&context, ipv6 != 0, hash, id);
    }
    0
}

/// [`table::oldest_age`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_oldest_age(ipv6: u32, index: u32, id: u32) -> u32 {
    let Some(context) = context() else {
        return 0;
    };
    if ipv6 != 0 {
        table::oldest_age::<Kernel, V6>(&context, index, id)
    } else {
        table::oldest_age::<Kernel, V4>(&context, index, id)
    }
}

/// What a search carries from bucket to bucket: numbers only, so that the verifier need not follow
/// pointers through the loop.
#[repr(C)]
struct Search {
    ipv6: u32,
    start: u32,
    id: u32,
    found: u32,
}

/// [`Tables::find_unassured`] as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sg_find_unassured(ipv6: u32, index: u32, count: u32, id: u32) -> u32 {
    let mut search = Search {
        ipv6,
        start: index,
        id,
        found: u32::MAX,
    };
    // SAFETY: the callback has the signature that the helper calls, and the context outlives it.
    unsafe {
        bpf_loop(
            count,
            search_step as *mut c_void,
            (&raw mut search).cast::<c_void>(),
            0,
        );
    }
    search.found
}

/// One bucket; 1 ends the search.
unsafe extern "C" fn search_step(step: u32, search: *mut c_void) -> i64 {
    let search = search.cast::<Search>();
    // SAFETY: `search` is the context that `bpf_loop` was given.
    let (ipv6, start, id) = unsafe { ((*search).ipv6, (*search).start, (*search).id) };
    let Some(runtime) = Kernel.runtime() else {
        return 1;
    };
    let buckets = runtime.buckets[(ipv6 & 1) as usize];
    if buckets == 0 {
        return 1;
    }
    let index = start.wrapping_add(step) % buckets;
    if Kernel.oldest_age(ipv6 != 0, index, id) == 0 {
        return 0;
    }
    // SAFETY: as above.
    unsafe { (*search).found = index };
    1
}
