//! How entries go: one by one, by expiry, or to make room.

use super::{Context, Entry, ways};
use crate::{
    atomic,
    conntrack::{Meta, expired, flag},
    family::Family,
    layout::{WAYS, interface_flags},
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
pub fn remove<T: Tables, F: Family>(tables: &T, entry: &mut Entry<F>, removal: Removal) -> bool {
    let owner = F::owner(entry.bucket, entry.way);
    let flags = entry.meta.flags();
    if !entry.meta.tracked() || !entry.exchange(entry.meta.freed()) {
        return false;
    }
    release(tables, owner >> 8, flags, removal);
    true
}

/// Gives back what an entry was charged for.
#[inline(never)]
fn release<T: Tables>(tables: &T, id: u32, flags: u8, removal: Removal) {
    let (Some(interface), Some(host)) = (tables.ct_interface(id), tables.ct_host()) else {
        return;
    };
    // SAFETY: valid records; only atomic adds.
    unsafe {
        atomic::sub(&raw mut (*interface).tracked, 1);
        atomic::sub(&raw mut (*host).tracked, 1);
        if flags & flag::SHARED != 0 {
            atomic::sub(&raw mut (*host).shared, 1);
        } else {
            atomic::sub(&raw mut (*interface).reserved, 1);
        }
        if flags & flag::ASSURED == 0 {
            atomic::sub(&raw mut (*interface).unassured, 1);
            atomic::sub(&raw mut (*host).unassured, 1);
        }
        match removal {
            Removal::Expired => atomic::add(&raw mut (*interface).expired, 1),
            Removal::Replaced => atomic::add(&raw mut (*interface).replaced, 1),
            Removal::Removed => atomic::add(&raw mut (*interface).removed, 1),
        };
    }
}

/// Takes an entry out of the unassured ones: both sides have answered (once, by whoever set the
/// flag), or it was counted and not made.
#[inline(never)]
pub fn assured<T: Tables>(tables: &T, id: u32) {
    if let (Some(interface), Some(host)) = (tables.ct_interface(id), tables.ct_host()) {
        // SAFETY: valid records; only atomic adds.
        unsafe {
            atomic::sub(&raw mut (*interface).unassured, 1);
            atomic::sub(&raw mut (*host).unassured, 1);
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

/// Frees the expired entries of a bucket; answers how many.
#[inline(always)]
pub fn reclaim<T: Tables, F: Family>(context: &Context<T>, old: bool, index: u32) -> u32 {
    let Some(bucket) = F::bucket(context.tables, old, index) else {
        return 0;
    };
    let mut freed = 0;
    for way in 0..ways() {
        // SAFETY: words of a valid bucket.
        let (meta, seen) = unsafe {
            (
                Meta(atomic::load(F::meta(bucket, way))),
                atomic::load(&raw const (*F::live(bucket, way)).seen),
            )
        };
        if meta.tracked() && over(context, F::owner(bucket, way), meta, seen) {
            let mut entry = Entry::<F> {
                bucket,
                way,
                index,
                old: u32::from(old),
                meta,
            };
            if remove(context.tables, &mut entry, Removal::Expired) {
                freed += 1;
            }
        }
    }
    freed
}

/// Frees the entries of one interface in a bucket; answers how many.
#[inline(never)]
pub fn flush<T: Tables, F: Family>(tables: &T, old: bool, index: u32, id: u32) -> u32 {
    let Some(bucket) = F::bucket(tables, old, index) else {
        return 0;
    };
    let mut freed = 0;
    for way in 0..ways() {
        // SAFETY: the word of a valid bucket.
        let meta = Meta(unsafe { atomic::load(F::meta(bucket, way)) });
        if meta.tracked() && F::owner(bucket, way) >> 8 == id {
            let mut entry = Entry::<F> {
                bucket,
                way,
                index,
                old: u32::from(old),
                meta,
            };
            if remove(tables, &mut entry, Removal::Removed) {
                freed += 1;
            }
        }
    }
    freed
}

/// Idle time in jiffies, way and word of the unassured entry of a bucket that has been idle longest, of
/// interface `id` or, if that is 0, of any; no way if there is none.
#[inline(always)]
fn oldest<T: Tables, F: Family>(
    context: &Context<T>,
    bucket: *mut F::Bucket,
    id: u32,
) -> (u32, usize, Meta) {
    let mut oldest = (0, WAYS, Meta(0));
    for way in 0..ways() {
        // SAFETY: words of a valid bucket.
        let meta = Meta(unsafe { atomic::load(F::meta(bucket, way)) });
        if !meta.tracked() || meta.flags() & flag::ASSURED != 0 {
            continue;
        }
        // SAFETY: as above.
        let seen = unsafe { atomic::load(&raw const (*F::live(bucket, way)).seen) };
        let mut age = context.now.wrapping_sub(seen);
        if age > i32::MAX as u32 {
            // Another CPU's clock is a tick ahead.
            age = 0;
        }
        if (id == 0 || F::owner(bucket, way) >> 8 == id) && age >= oldest.0 {
            oldest = (age, way, meta);
        }
    }
    oldest
}

/// How long the longest idle unassured entry of a bucket has been idle, in jiffies and one more; 0 if
/// there is none. `id` as in [`replace_oldest`].
#[inline(always)]
pub fn oldest_age<T: Tables, F: Family>(context: &Context<T>, index: u32, id: u32) -> u32 {
    let Some(bucket) = F::bucket(context.tables, false, index) else {
        return 0;
    };
    match oldest::<T, F>(context, bucket, id) {
        (_, WAYS, _) => 0,
        (age, _, _) => age + 1,
    }
}

/// Frees the unassured entry of a bucket that has been idle longest, of interface `id` or, if that is 0,
/// of any; unless it changed since it was looked at.
#[inline(always)]
pub fn replace_oldest<T: Tables, F: Family>(context: &Context<T>, index: u32, id: u32) {
    let Some(bucket) = F::bucket(context.tables, false, index) else {
        return;
    };
    let (_, way, meta) = oldest::<T, F>(context, bucket, id);
    if way >= WAYS {
        return;
    }
    let mut entry = Entry::<F> {
        bucket,
        way,
        index,
        old: 0,
        meta,
    };
    remove(context.tables, &mut entry, Removal::Replaced);
}
