//! How entries go: one by one, by expiry, or to make room.

use super::{
    Context, Entry,
    occupancy::{Credits, Records},
    place, spill, tags,
};
use crate::{
    atomic,
    conntrack::{Meta, expired, flag},
    family::{Family, Flow},
    layout::{Tags, WAYS, interface_flags},
    tables::Tables,
};

/// Why an entry goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It idled out.
    Expired,
    /// It made room while unassured.
    Replaced,
    /// By command, by a new flow on a closed one, or because it is untracked now.
    Removed,
}

/// Frees an entry, unless somebody else changed it since it was looked at.
#[inline(always)]
pub fn remove<T: Tables, F: Family>(
    context: &Context<T>,
    entry: &mut Entry<F>,
    removal: Removal,
) -> bool {
    entry.meta.tracked() && context.tables.free(F::IPV6, entry.removal(removal))
}

/// What [`Tables::free`] is told: an entry by its place and word, and why it goes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FreeEntry {
    /// The word as it was when the entry was looked at.
    pub meta: u64,
    /// Index of the slot.
    pub index: u32,
    /// The [`Removal`], and `1 << 8` for the draining table.
    pub what: u32,
}

impl<F: Family> Entry<F> {
    /// For [`Tables::free`].
    #[inline(always)]
    pub fn removal(&self, removal: Removal) -> FreeEntry {
        FreeEntry {
            meta: self.meta.0,
            index: self.index,
            what: removal as u32 | self.old << 8,
        }
    }
}

/// [`remove`] for [`Tables::free`].
#[inline(always)]
pub fn free<T: Tables, F: Family>(context: &Context<T>, entry: FreeEntry) -> bool {
    let FreeEntry { meta, index, what } = entry;
    let old = what >> 8 != 0;
    let Some(slot) = F::slot(context.tables, old, index) else {
        return false;
    };
    let mut entry = Entry::<F> {
        slot,
        index,
        old: u32::from(old),
        meta: Meta(meta),
    };
    if !entry.meta.tracked() {
        return false;
    }
    let owner = F::owner(slot);
    let flags = entry.meta.flags();
    let freed = entry.meta.freed();
    let buckets = context.runtime.buckets[usize::from(F::IPV6)];
    let first = place(F::hash(&F::flow(slot), &context.runtime.seed), buckets, 0);
    if !entry.exchange(entry.meta.withdrawn()) {
        return false;
    }
    let bucket = index / WAYS as u32;
    if let Some(tags) = context.tables.tags(F::IPV6, old, bucket) {
        tags::set(tags, index % WAYS as u32, 0);
    }
    entry.exchange(freed);
    if !old && bucket != first {
        spill::<T, F>(context.tables, first, u64::MAX);
    }
    release(context, owner >> 8, flags, what & 0xff);
    true
}

/// Gives back what an entry was charged for.
#[inline(always)]
fn release<T: Tables>(context: &Context<T>, id: u32, flags: u8, removal: u32) {
    let Some(records) = Records::of(context.tables, id) else {
        return;
    };
    let credits = Credits::of(context, id);
    records.discharge(flags, credits);
    if flags & flag::ASSURED == 0 {
        records.sub_unassured(credits);
    }
    // SAFETY: a valid record of this CPU.
    unsafe {
        let local = &mut *records.local;
        if removal == Removal::Expired as u32 {
            local.expired = local.expired.wrapping_add(1);
        } else if removal == Removal::Replaced as u32 {
            local.replaced = local.replaced.wrapping_add(1);
        } else {
            local.removed = local.removed.wrapping_add(1);
        }
    }
}

/// Whether an entry is over, by the timeouts of its own interface. Entries of an interface that the
/// generation does not know are over.
#[inline(always)]
fn over<T: Tables>(context: &Context<T>, owner: u32, meta: Meta, seen: u32) -> bool {
    match context.tables.interface(context.bank(), owner >> 8) {
        Some(interface) if interface.flags & interface_flags::PRESENT != 0 => {
            expired(context.now, seen, meta.life(&interface.timeouts))
        }
        _ => true,
    }
}

/// Calls `each` with every entry of a bucket that may hold a flow, and its word.
#[inline(always)]
fn visit<T: Tables, F: Family>(
    context: &Context<T>,
    old: bool,
    bucket: u32,
    mut each: impl FnMut(Entry<F>),
) {
    for_each_way::<T, F>(context, old, bucket, |index| {
        let Some(slot) = F::slot(context.tables, old, index) else {
            return;
        };
        // SAFETY: the word of a valid entry.
        let meta = Meta(unsafe { atomic::load(F::meta(slot)) });
        if meta.tracked() {
            each(Entry {
                slot,
                index,
                old: u32::from(old),
                meta,
            });
        }
    });
}

/// Calls `each` with the index of every entry of a bucket that may hold a flow.
#[inline(always)]
fn for_each_way<T: Tables, F: Family>(
    context: &Context<T>,
    old: bool,
    bucket: u32,
    mut each: impl FnMut(u32),
) {
    let Some(tags) = context.tables.tags(F::IPV6, old, bucket) else {
        return;
    };
    let mut mask = occupied(tags);
    for _ in 0..atomic::opaque(WAYS as u64) {
        if mask == 0 {
            break;
        }
        let bit = tags::lowest(mask);
        mask ^= bit;
        each(bucket * WAYS as u32 + tags::way(bit));
    }
}

/// The mask of the ways that are not free.
#[inline(always)]
fn occupied(tags: *const Tags) -> u64 {
    tags::equal(tags, 0) ^ tags::ALL
}

/// Frees the expired entries of a bucket; answers how many.
#[inline(always)]
pub fn reclaim<T: Tables, F: Family>(context: &Context<T>, old: bool, bucket: u32) -> u32 {
    clear_each::<T, F>(context, old, bucket, 0)
}

/// Frees the entries of one interface in a bucket; answers how many.
#[inline(never)]
pub fn flush<T: Tables, F: Family>(context: &Context<T>, old: bool, bucket: u32, id: u32) -> u32 {
    clear_each::<T, F>(context, old, bucket, id)
}

/// Asks [`clear`] of every entry of a bucket; answers how many went. There is no branch around the call: up to
/// Linux 6.4 the verifier follows every way through a loop that calls a function, each apart.
#[inline(always)]
fn clear_each<T: Tables, F: Family>(context: &Context<T>, old: bool, bucket: u32, id: u32) -> u32 {
    let mut freed = 0;
    for_each_way::<T, F>(context, old, bucket, |index| {
        freed += context.tables.clear(F::IPV6, old, index, id) & 1;
    });
    freed
}

/// Frees an entry if it is expired or, where `id` is not 0, if it is of that interface; answers how many went.
#[inline(always)]
pub fn clear<T: Tables, F: Family>(context: &Context<T>, old: bool, index: u32, id: u32) -> u32 {
    let Some(slot) = F::slot(context.tables, old, index) else {
        return 0;
    };
    // SAFETY: the word of a valid entry.
    let meta = Meta(unsafe { atomic::load(F::meta(slot)) });
    if !meta.tracked() {
        return 0;
    }
    let entry = Entry::<F> {
        slot,
        index,
        old: u32::from(old),
        meta,
    };
    let owner = F::owner(slot);
    let removal = if id != 0 {
        if owner >> 8 != id {
            return 0;
        }
        Removal::Removed
    } else {
        // SAFETY: an aligned word of a valid entry.
        let seen = unsafe { atomic::load(&raw const (*entry.live()).seen) };
        if !over(context, owner, meta, seen) {
            return 0;
        }
        Removal::Expired
    };
    u32::from(free::<T, F>(context, entry.removal(removal)))
}

/// Idle time in jiffies and one more, index and word of the unassured entry of a bucket that has been idle
/// longest, of interface `id` or, if that is 0, of any; all 0 if there is none.
#[inline(always)]
fn oldest<T: Tables, F: Family>(context: &Context<T>, bucket: u32, id: u32) -> (u32, u32, Meta) {
    let mut oldest = (0, 0, Meta(0));
    visit::<T, F>(context, false, bucket, |entry| {
        if entry.meta.flags() & flag::ASSURED != 0 {
            return;
        }
        // SAFETY: an aligned word of a valid entry.
        let seen = unsafe { atomic::load(&raw const (*entry.live()).seen) };
        let mut age = context.now.wrapping_sub(seen);
        if age > i32::MAX as u32 {
            // Another CPU's clock is a tick ahead.
            age = 0;
        }
        if (id == 0 || F::owner(entry.slot) >> 8 == id) && age >= oldest.0 {
            oldest = (age + 1, entry.index, entry.meta);
        }
    });
    oldest
}

/// How long the longest idle unassured entry of a bucket has been idle, in jiffies and one more; 0 if
/// there is none. `id` as in [`replace_oldest`].
#[inline(always)]
pub fn oldest_age<T: Tables, F: Family>(context: &Context<T>, bucket: u32, id: u32) -> u32 {
    oldest::<T, F>(context, bucket, id).0
}

/// Frees the unassured entry of a bucket that has been idle longest, of interface `id` or, if that is 0,
/// of any; unless it changed since it was looked at.
#[inline(always)]
pub fn replace_oldest<T: Tables, F: Family>(context: &Context<T>, bucket: u32, id: u32) {
    let (age, index, meta) = oldest::<T, F>(context, bucket, id);
    if age == 0 {
        return;
    }
    if let Some(slot) = F::slot(context.tables, false, index) {
        let mut entry = Entry::<F> {
            slot,
            index,
            old: 0,
            meta,
        };
        remove(context, &mut entry, Removal::Replaced);
    }
}

/// Frees the entries of a bucket whose flows the generation does not track; answers how many.
#[inline(always)]
pub fn review<T: Tables, F: Family>(context: &Context<T>, old: bool, bucket: u32) -> u32 {
    let mut freed = 0;
    for_each_way::<T, F>(context, old, bucket, |index| {
        freed += context.tables.review_entry(F::IPV6, old, index) & 1;
    });
    freed
}

/// Frees an entry if the generation does not track its flow; answers how many went. Apart from [`clear`], which frees
/// by itself: all in one would take too much stack.
#[inline(always)]
pub fn review_entry<T: Tables, F: Family>(context: &Context<T>, old: bool, index: u32) -> u32 {
    let Some(slot) = F::slot(context.tables, old, index) else {
        return 0;
    };
    // SAFETY: the word of a valid entry.
    let meta = Meta(unsafe { atomic::load(F::meta(slot)) });
    let mut entry = Entry::<F> {
        slot,
        index,
        old: u32::from(old),
        meta,
    };
    // Torn words are of an entry whose word has changed, and which is not removed then.
    let Flow { owner, ports, .. } = F::flow(slot);
    let (id, protocol) = (owner >> 8, owner as u8);
    let tables = context.tables;
    if !meta.tracked() || tables.untracked(F::IPV6, context.bank(), id, protocol, ports) == 0 {
        return 0;
    }
    u32::from(remove(context, &mut entry, Removal::Removed))
}
