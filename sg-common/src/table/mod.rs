//! The conntrack table: find, insert, remove, reclaim — without a helper call and without a lock.
//!
//! A set-associative array: the flow's hash names two buckets of [`WAYS`] entries. A flow stands in the first
//! as long as that has room to spare, in the way that its hash names if that is free; else in the emptier of
//! the two, and if both are full in the stash, a few buckets that belong to everybody. A quick lookup begins
//! at the way that the hash names. Others are found by their tags (`tags.rs`), which stand apart from
//! them: those of a million flows fit a cache that the entries do not. A second, draining table of the same
//! shape is searched as well while there is one; inserts go to the current one only.
//!
//! # Who races, and why it is right
//! The `meta` word of an entry is what counts; its tag only says where to look. Words change by
//! compare-and-exchange, versions with every claim.
//! * Inserts of different flows into one way: one claims the word, the other looks for another way. A way
//!   belongs to whoever claimed it until its word says otherwise, its tag included: who removes a flow takes
//!   the word first, then clears the tag, then frees the word.
//! * Inserts of one flow by two CPUs: each writes its entry, tag included, and *then* searches the flow's
//!   buckets for a rival, with a full barrier between, so that of two the later sees the earlier. It gives way
//!   to one that is tracked, and to one that is claimed at a lower index; one that is claimed at a higher
//!   index it withdraws, by an exchange of that word, which then can no longer become tracked. So never two
//!   become tracked, and the one at the lowest index always does, unless another was before it (`settle`).
//! * A reader against a way that is freed and claimed again: it compares `meta` before and after it reads the
//!   flow. (On weakly ordered machines a torn read could pass for a hit of the same version only if 65,536
//!   claims happened between two loads.)
//! * Removal against a transition: both exchange the same word, one wins.
//! * The draining table gains no flows, and a flow that is copied stands in the current table before it leaves
//!   the old one, so a lookup that missed both need not be repeated for the old.
//! * Accounts are added to by plain loads and stores: two CPUs that carry the same direction of one flow at
//!   the same moment may lose one of two counts. An atomic addition would wait for the entry to arrive from
//!   memory before the next packet's could be asked for.

mod insert;
mod occupancy;
mod removal;
mod restore;
mod tags;

pub use insert::{Inserted, crowded, insert, make_room, reclaim_beside, settle};
pub use occupancy::{Occupancy, assured};
pub use removal::{
    FreeEntry, Removal, clear, flush, free, oldest_age, reclaim, remove, replace_oldest, review,
    review_entry,
};
pub use restore::{as_it_was, gain, restore};
pub use tags::lane;

use crate::{
    abi::{CT_SPILLS, CT_STASH},
    atomic,
    conntrack::Meta,
    family::{Family, Flow},
    layout::{CARRIED, CarriedKey, Live, Runtime, WAYS},
    tables::Tables,
};

/// What every step of one packet shares.
pub struct Context<'a, T> {
    /// Maps and clock.
    pub tables: &'a T,
    /// `RUNTIME`.
    pub runtime: &'a Runtime,
    /// Jiffies.
    pub now: u32,
    /// Generation in force.
    pub generation: u32,
}

impl<T> Context<'_, T> {
    /// The bank in force.
    #[inline(always)]
    pub fn bank(&self) -> u32 {
        self.generation & 1
    }
}

/// Where an entry stands.
pub struct Entry<F: Family> {
    slot: *mut F::Slot,
    /// Index of the slot.
    index: u32,
    /// 1: in the draining table. (No `bool`: bpf-linker writes types with a niche that is not their
    /// first byte as BTF that the kernel refuses.)
    old: u32,
    /// The word as it was when the flow was compared.
    pub meta: Meta,
}

impl<F: Family> Clone for Entry<F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Family> Copy for Entry<F> {}

impl<F: Family> Entry<F> {
    /// The dynamic part.
    #[inline(always)]
    pub fn live(&self) -> *mut Live {
        F::live(self.slot)
    }

    /// Changes the word; `false` if somebody else changed it first.
    #[inline(always)]
    pub fn exchange(&mut self, new: Meta) -> bool {
        // SAFETY: the word of a valid entry.
        let done = unsafe { atomic::compare_exchange(F::meta(self.slot), self.meta.0, new.0) };
        if done {
            self.meta = new;
        }
        done
    }

    /// Adds a packet to the entry's account, which there must be.
    #[inline(always)]
    pub fn account<T: Tables>(&self, tables: &T, direction: usize, packets: u32, bytes: u32) {
        let account = F::account(self.slot);
        let direction = atomic::opaque(direction as u64) as usize & 1;
        // SAFETY: a valid account; aligned words.
        unsafe {
            let place = (&raw mut (*account).packets).cast::<u32>().add(direction);
            let count = atomic::load(place).wrapping_add(packets);
            atomic::store(place, count);
            let place = (&raw mut (*account).bytes).cast::<u32>().add(direction);
            let total = atomic::load(place).wrapping_add(bytes);
            atomic::store(place, total);
            if count < packets || total < bytes {
                self.carry(tables, direction, count < packets, total < bytes);
            }
        }
    }

    /// Adds what a word of the account had no room for.
    #[inline(always)]
    fn carry<T: Tables>(&self, tables: &T, direction: usize, packets: bool, bytes: bool) {
        // SAFETY: an aligned half word of a valid entry.
        unsafe {
            let place = (&raw mut (*self.live()).bytes_high)
                .cast::<u16>()
                .add(direction);
            let mut high = atomic::load(place);
            let mut more = high & !CARRIED;
            high &= CARRIED;
            let key = CarriedKey::new(F::IPV6, self.old != 0, self.index, self.meta.version());
            if packets {
                tables.carry(key, direction as u32);
                high = CARRIED;
            }
            if bytes {
                more += 1;
                if more == CARRIED {
                    more = 0;
                    tables.carry(key, direction as u32 + 2);
                    high = CARRIED;
                }
            }
            atomic::store(place, high | more);
        }
    }
}

/// Buckets of a table that has `buckets` besides the stash.
#[inline(always)]
pub const fn with_stash(buckets: u32) -> u32 {
    buckets + CT_STASH
}

/// Places that a flow may stand in: its two buckets, and its bucket of the stash.
const PLACES: u64 = 3;

/// A place of a hash in a table of `buckets`, which is not 0, besides the stash.
#[inline(always)]
pub fn place(hash: u64, buckets: u32, which: u64) -> u32 {
    let spread = |hash: u64| (((hash >> 32) * u64::from(buckets)) >> 32) as u32;
    if which == 2 {
        return buckets + ((hash >> 16) as u32 & (CT_STASH - 1));
    }
    let first = spread(hash);
    if which == 0 {
        return first;
    }
    let second = spread((hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    if second != first {
        second
    } else if first + 1 < buckets {
        first + 1
    } else {
        0
    }
}

/// The counter of flows whose first bucket is `first`, or one that shares it, and that stand elsewhere.
#[inline(always)]
fn spills<T: Tables, F: Family>(tables: &T, first: u32) -> Option<*mut u64> {
    let spills = tables.spills(F::IPV6)?;
    let index = atomic::opaque(first.into()) as usize & (CT_SPILLS as usize - 1);
    // SAFETY: a valid record, and the index is in bounds.
    Some(unsafe { (&raw mut (*spills).counts).cast::<u64>().add(index) })
}

/// Counts one more flow outside its first bucket, or one less (`u64::MAX`).
#[inline(always)]
fn spill<T: Tables, F: Family>(tables: &T, first: u32, one: u64) {
    if let Some(count) = spills::<T, F>(tables, first) {
        // SAFETY: a valid word; only atomic adds.
        unsafe { atomic::add(count, one) };
    }
}

/// Whether a flow whose first bucket is `first` may stand elsewhere in the current table. It is counted before
/// it can be seen there.
#[inline(always)]
fn spilled<T: Tables, F: Family>(tables: &T, first: u32) -> bool {
    match spills::<T, F>(tables, first) {
        // SAFETY: a valid word.
        Some(count) => unsafe { atomic::load(count) != 0 },
        None => true,
    }
}

/// The way of its first bucket that a flow takes if it is free. In a table that is not crowded most flows
/// stand there, and one line of memory answers.
#[inline(always)]
fn home(hash: u64) -> u32 {
    (hash >> 20) as u32 & (WAYS as u32 - 1)
}

/// The entry in a way, if it is of `flow`, with the word that proves it.
#[inline(always)]
fn held<T: Tables, F: Family>(
    tables: &T,
    old: bool,
    index: u32,
    words: &F::Words,
) -> Option<Entry<F>> {
    let slot = F::slot(tables, old, index)?;
    // SAFETY: the word of a valid entry.
    let meta = Meta(unsafe { atomic::load(F::meta(slot)) });
    if !meta.tracked() || !F::holds(slot, words) {
        return None;
    }
    // SAFETY: as above.
    let again = Meta(unsafe { atomic::load(F::meta(slot)) });
    if again.version() != meta.version() || !again.tracked() {
        return None;
    }
    Some(Entry {
        slot,
        index,
        old: u32::from(old),
        meta: again,
    })
}

/// Asks memory for the entry that a new flow is likely to take, and does not wait for it.
#[inline(always)]
pub fn fetch<T: Tables, F: Family>(context: &Context<T>, hash: u64) {
    let buckets = context.runtime.buckets[usize::from(F::IPV6)];
    let index = place(hash, buckets, 0) * WAYS as u32 + home(hash);
    if let Some(slot) = F::slot(context.tables, false, index) {
        // SAFETY: the word of a valid entry.
        unsafe { atomic::load(F::meta(slot)) };
    }
}

/// What a [`probe`] found.
pub enum Probe<F: Family> {
    /// The flow's entry, expired or not.
    Hit(Entry<F>),
    /// There is none.
    Miss,
    /// Several tags are alike: [`lookup`] knows.
    Unsure,
}

/// A quick [`lookup`] that looks at one entry of each bucket: one in several thousand is left [`Unsure`].
///
/// [`Unsure`]: Probe::Unsure
#[inline(always)]
pub fn probe<T: Tables, F: Family>(
    tables: &T,
    runtime: &Runtime,
    hash: u64,
    words: &F::Words,
) -> Probe<F> {
    let family = usize::from(F::IPV6);
    let tag = tags::tag(hash);
    let mut unsure = false;
    let mut buckets = runtime.buckets[family];
    let mut old = false;
    // The tag is asked first, but not waited for: the branch is foreseen while one kind of packets prevails.
    // Flows go on at their entry; floods, which have none, do not fetch the lines of entries in vain.
    let first = place(hash, buckets, 0);
    let home = home(hash);
    if let Some(bucket) = tables.tags(F::IPV6, false, first)
        && tags::get(bucket, home) == tag
    {
        let index = first * WAYS as u32 + home;
        if let Some(entry) = held::<T, F>(tables, false, index, words) {
            return Probe::Hit(entry);
        }
    }
    let spilled = spilled::<T, F>(tables, first);
    for step in 0..atomic::opaque(2 * PLACES) {
        if !spilled && (step == 1 || step == 2) {
            continue;
        }
        let mut which = step;
        if step >= PLACES {
            which = step - PLACES;
            if step == PLACES {
                buckets = runtime.old_buckets[family];
                if buckets == 0 {
                    break;
                }
                old = true;
            }
        }
        let bucket = place(hash, buckets, which);
        let Some(bucket_tags) = tables.tags(F::IPV6, old, bucket) else {
            continue;
        };
        let mask = tags::equal(bucket_tags, tag);
        if mask == 0 {
            continue;
        }
        let bit = tags::lowest(mask);
        let index = bucket * WAYS as u32 + tags::way(bit);
        if let Some(entry) = held::<T, F>(tables, old, index, words) {
            return Probe::Hit(entry);
        }
        unsure |= mask != bit;
    }
    if unsure { Probe::Unsure } else { Probe::Miss }
}

/// The entry of `flow`, expired or not: in the current table, else in the draining one.
#[inline(always)]
pub fn lookup<T: Tables, F: Family>(
    context: &Context<T>,
    hash: u64,
    flow: &Flow<F::Address>,
) -> Option<Entry<F>> {
    let words = F::words(flow);
    let family = usize::from(F::IPV6);
    let tag = tags::tag(hash);
    for step in 0..atomic::opaque(2 * PLACES) {
        let old = step >= PLACES;
        let (buckets, which) = if old {
            (context.runtime.old_buckets[family], step - PLACES)
        } else {
            (context.runtime.buckets[family], step)
        };
        if buckets == 0 {
            break;
        }
        let bucket = place(hash, buckets, which);
        let Some(tags) = context.tables.tags(F::IPV6, old, bucket) else {
            continue;
        };
        let mut mask = tags::equal(tags, tag);
        for _ in 0..atomic::opaque(WAYS as u64) {
            if mask == 0 {
                break;
            }
            let bit = tags::lowest(mask);
            let index = bucket * WAYS as u32 + tags::way(bit);
            if let Some(entry) = held::<T, F>(context.tables, old, index, &words) {
                return Some(entry);
            }
            mask ^= bit;
        }
    }
    None
}
