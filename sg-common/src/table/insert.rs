//! How entries are made: charged, claimed under the stripe lock, written, shown.

use super::{Context, Entry, assured, free_ways, places, ways};
use crate::{
    abi::{CT_LOCKS, CT_UNASSURED_PERCENT},
    atomic,
    conntrack::{Meta, Opening, Side, State, flag},
    family::{Family, Flow},
    layout::{CtHost, CtInterface, Interface, Runtime},
    tables::Tables,
};

/// What [`charge`] answers when there is no room.
const NO_CHARGE: u32 = u32::MAX;

/// Charges a flow: to its interface's reserve while there is some, else to the host's shared
/// allowance. Answers the flags that remember which.
#[inline(never)]
fn charge(
    runtime: &Runtime,
    limits: &Interface,
    interface: *mut CtInterface,
    host: *mut CtHost,
) -> u32 {
    // SAFETY: valid records. Adds are atomic; `peak` is a high-water mark that may miss a value when
    // two CPUs store at once, never by more than their number.
    unsafe {
        let tracked = atomic::fetch_add(&raw mut (*interface).tracked, 1);
        if tracked >= u64::from(limits.allowance) {
            atomic::sub(&raw mut (*interface).tracked, 1);
            return NO_CHARGE;
        }
        let mut flags = 0;
        let reserved = limits.reserve != 0
            && atomic::fetch_add(&raw mut (*interface).reserved, 1) < u64::from(limits.reserve);
        if !reserved {
            if limits.reserve != 0 {
                atomic::sub(&raw mut (*interface).reserved, 1);
            }
            if atomic::fetch_add(&raw mut (*host).shared, 1) >= u64::from(runtime.shared) {
                atomic::sub(&raw mut (*host).shared, 1);
                atomic::sub(&raw mut (*interface).tracked, 1);
                return NO_CHARGE;
            }
            flags = u32::from(flag::SHARED);
        }
        if tracked + 1 > atomic::load(&raw const (*interface).peak) {
            atomic::store(&raw mut (*interface).peak, tracked + 1);
        }
        let all = atomic::fetch_add(&raw mut (*host).tracked, 1) + 1;
        if all > atomic::load(&raw const (*host).peak) {
            atomic::store(&raw mut (*host).peak, all);
        }
        flags
    }
}

/// Takes a charge back that no entry came of.
#[inline(never)]
fn discharge(flags: u32, interface: *mut CtInterface, host: *mut CtHost) {
    // SAFETY: valid records; only atomic adds.
    unsafe {
        atomic::sub(&raw mut (*interface).tracked, 1);
        atomic::sub(&raw mut (*host).tracked, 1);
        if flags & u32::from(flag::SHARED) != 0 {
            atomic::sub(&raw mut (*host).shared, 1);
        } else {
            atomic::sub(&raw mut (*interface).reserved, 1);
        }
    }
}

/// What became of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The entry stands.
    Made,
    /// Another CPU had made it.
    Exists,
    /// No room.
    Full,
}

/// Buckets that an insert at the limit looks at for expired entries, beyond its own two.
const SWEEP_AT_LIMIT: u64 = 8;

/// Makes an entry for `flow`. For one that is not assured [`make_room`] comes first.
#[inline(always)]
pub fn insert<T: Tables, F: Family>(
    context: &Context<T>,
    limits: &Interface,
    hash: u64,
    flow: &Flow<F::Address>,
    opening: &Opening,
) -> Inserted {
    let id = flow.owner >> 8;
    let (Some(interface), Some(host)) = (context.tables.ct_interface(id), context.tables.ct_host())
    else {
        return Inserted::Full;
    };
    let unassured = opening.flags & flag::ASSURED == 0;
    if unassured {
        // Before the entry is seen: another CPU may count it assured at once, and nothing wraps.
        // SAFETY: valid records; only atomic adds.
        unsafe {
            atomic::add(&raw mut (*interface).unassured, 1);
            atomic::add(&raw mut (*host).unassured, 1);
        }
    }
    // Twice at most: if there is no room, expired entries may hold it. (Rolled: see `ways`.)
    let mut charged = NO_CHARGE;
    let mut result = Inserted::Full;
    for attempt in 0..atomic::opaque(2) {
        if attempt != 0 {
            reclaim_beside::<T, F>(context, hash);
        }
        if charged == NO_CHARGE {
            charged = charge(context.runtime, limits, interface, host);
        }
        if charged != NO_CHARGE {
            let first_try = if attempt == 0 { FIRST_TRY } else { 0 };
            result = place::<T, F>(context, hash, flow, opening, charged | first_try);
        }
        if result != Inserted::Full {
            break;
        }
    }
    match result {
        Inserted::Made => created(context, interface),
        _ if charged != NO_CHARGE => discharge(charged, interface, host),
        _ => {}
    }
    if unassured && result != Inserted::Made {
        assured(context.tables, id);
    }
    if result == Inserted::Full {
        // SAFETY: a valid record.
        unsafe { atomic::add(&raw mut (*interface).refused, 1) };
    }
    result
}

/// Counts a new entry, and how many there are in a second.
#[inline(never)]
fn created<T: Tables>(context: &Context<T>, interface: *mut CtInterface) {
    // SAFETY: a valid record; adds are atomic. The window is a rate for display: two CPUs closing it
    // at once lose a few counts of one second.
    unsafe {
        atomic::add(&raw mut (*interface).created, 1);
        let hz = context.runtime.hz;
        let start = atomic::load(&raw const (*interface).window) as u32;
        let elapsed = context.now.wrapping_sub(start);
        let count = atomic::fetch_add(&raw mut (*interface).window_created, 1);
        if elapsed >= hz {
            let rate = if elapsed >= hz * 2 { 0 } else { count };
            atomic::store(&raw mut (*interface).per_second, rate);
            atomic::store(&raw mut (*interface).window_created, 1);
            atomic::store(&raw mut (*interface).window, u64::from(context.now));
        }
    }
}

/// Buckets among which a new flow at a limit looks for the oldest unassured one: its own two and those
/// behind the first. In its own two alone there is often but one, and if that is a client's that waits for
/// its answer, a flood would replace it.
const LOOK_AROUND: u64 = 8;
/// Buckets in which it looks further at its interface's own limits if there is none in those: the flows of
/// an interface with a small allowance lie far apart in a table for the whole host. (At the host's limit
/// there is none only if the flood is of the other family, and then none need go.)
const LOOK_FURTHER: u32 = 256;

/// Unassured flows hold a share at most, of the host's allowance and of the interface's own: beyond it a
/// new one takes the place of the oldest around, so that a flood of openings presses on itself. At the
/// limits of its interface that must be one of the interface's own, or a workload could push out its
/// neighbours' flows.
#[inline(always)]
pub fn make_room<T: Tables>(context: &Context<T>, ipv6: bool, hash: u64, id: u32) {
    let (Some(limits), Some(interface), Some(host)) = (
        context.tables.interface(context.bank(), id),
        context.tables.ct_interface(id),
        context.tables.ct_host(),
    ) else {
        return;
    };
    // SAFETY: valid records.
    let (tracked, own, all) = unsafe {
        (
            atomic::load(&raw const (*interface).tracked),
            atomic::load(&raw const (*interface).unassured),
            atomic::load(&raw const (*host).unassured),
        )
    };
    let share = u64::from(limits.allowance) * u64::from(CT_UNASSURED_PERCENT) / 100;
    let own_limit = own >= share.max(1) || tracked >= u64::from(limits.allowance);
    let limit = own_limit || all >= u64::from(context.runtime.unassured);
    if !limit || (own_limit && own == 0) {
        return;
    }
    let owner = if own_limit { id } else { 0 };
    let buckets = context.runtime.buckets[usize::from(ipv6)];
    let (first, second) = places(hash, buckets);
    let mut oldest = context.tables.oldest_age(ipv6, second, owner);
    let mut place = second;
    let mut index = first;
    for _ in 1..atomic::opaque(LOOK_AROUND) {
        let age = context.tables.oldest_age(ipv6, index, owner);
        if age > oldest {
            oldest = age;
            place = index;
        }
        index = if index + 1 < buckets { index + 1 } else { 0 };
    }
    if oldest == 0 {
        if !own_limit {
            return;
        }
        place = context
            .tables
            .find_unassured(ipv6, index, LOOK_FURTHER, owner);
    }
    if place < buckets {
        context.tables.replace_oldest(ipv6, place, owner);
    }
}

/// Reclaims what is expired where a flow would stand, and some buckets more for the allowance.
#[inline(never)]
fn reclaim_beside<T: Tables, F: Family>(context: &Context<T>, hash: u64) {
    let (first, second) = places(hash, context.runtime.buckets[usize::from(F::IPV6)]);
    context.tables.reclaim(F::IPV6, false, first);
    context.tables.reclaim(F::IPV6, false, second);
    for _ in 0..atomic::opaque(SWEEP_AT_LIMIT) {
        let index = context.tables.sweep_cursor(F::IPV6);
        context.tables.reclaim(F::IPV6, false, index);
    }
}

/// Claims tried before a bucket pair counts as full; each failure means that another CPU succeeded.
const CLAIMS: u64 = 2;

/// Beside the charge, for [`place`]: a bucket without a free way may only look full. Expired entries
/// must not push flows into the other bucket, or the table refuses before it is full.
const FIRST_TRY: u32 = 1 << 31;

/// Puts the flow into the emptier of its buckets.
#[inline(never)]
fn place<T: Tables, F: Family>(
    context: &Context<T>,
    hash: u64,
    flow: &Flow<F::Address>,
    opening: &Opening,
    charged: u32,
) -> Inserted {
    let (first, second) = places(hash, context.runtime.buckets[usize::from(F::IPV6)]);
    let (Some(first_bucket), Some(second_bucket)) = (
        F::bucket(context.tables, false, first),
        F::bucket(context.tables, false, second),
    ) else {
        return Inserted::Full;
    };
    let Some(lock) = context.tables.stripe((hash >> 16) as u32 & (CT_LOCKS - 1)) else {
        return Inserted::Full;
    };
    let tag = hash as u32;
    // Under the lock the flow is searched again and a way claimed for it; nothing may be called.
    context.tables.lock(lock);
    let mut claimed = None;
    let mut exists = false;
    for which in 0..atomic::opaque(2) {
        let bucket = if which == 0 {
            first_bucket
        } else {
            second_bucket
        };
        exists |= stands::<F>(bucket, flow, tag);
    }
    if !exists {
        for _ in 0..atomic::opaque(CLAIMS) {
            let first_free = free_ways::<F>(first_bucket);
            let second_free = free_ways::<F>(second_bucket);
            let in_first = first_free.count_ones() >= second_free.count_ones();
            let (bucket, free) = if in_first {
                (first_bucket, first_free)
            } else {
                (second_bucket, second_free)
            };
            let crowded = first_free == 0 || second_free == 0;
            if free == 0 || (crowded && charged & FIRST_TRY != 0) {
                break;
            }
            let way = free.trailing_zeros() as usize;
            // SAFETY: the word of a valid bucket.
            let empty = Meta(unsafe { atomic::load(F::meta(bucket, way)) });
            let version = empty.version().wrapping_add(1);
            let claim = Meta::new(tag, State::Claimed as u8, 0, version);
            if empty.state() == State::Free as u8
                // SAFETY: as above.
                && unsafe { atomic::compare_exchange(F::meta(bucket, way), empty.0, claim.0) }
            {
                F::set_flow(bucket, way, flow);
                let index = if in_first { first } else { second };
                claimed = Some(Entry::<F> {
                    bucket,
                    way,
                    index,
                    old: 0,
                    meta: claim,
                });
                break;
            }
        }
    }
    context.tables.unlock(lock);
    let Some(entry) = claimed else {
        return if exists {
            Inserted::Exists
        } else {
            Inserted::Full
        };
    };
    // The way is ours until the word says otherwise, and who looks for the flow finds it claimed.
    begin(context, entry, opening, charged);
    Inserted::Made
}

/// Whether a bucket holds the flow, or is about to. Rolled and without a second look: the stripe
/// lock keeps other inserts of this flow out, and a removal at this moment is as good as one later.
#[inline(always)]
fn stands<F: Family>(bucket: *mut F::Bucket, flow: &Flow<F::Address>, tag: u32) -> bool {
    let mut found = false;
    for way in 0..ways() {
        // SAFETY: the word of a valid bucket.
        let meta = Meta(unsafe { atomic::load(F::meta(bucket, way)) });
        if meta.tag() == tag && meta.state() != State::Free as u8 && F::holds(bucket, way, flow) {
            found = true;
        }
    }
    found
}

/// Writes the rest of a claimed entry and makes it visible.
#[inline(always)]
fn begin<T: Tables, F: Family>(
    context: &Context<T>,
    mut entry: Entry<F>,
    opening: &Opening,
    charged: u32,
) {
    let live = entry.live();
    // SAFETY: the claimed way's own words.
    unsafe {
        (*live).seen = context.now;
        (*live).generation = context.generation;
        (*live).ack[0] = opening.ack[0];
        (*live).ack[1] = opening.ack[1];
        (*live).fin[0] = opening.fin[0];
        (*live).fin[1] = opening.fin[1];
    }
    if context.runtime.accounting != 0
        && let Some(account) =
            context
                .tables
                .account(F::IPV6, entry.old != 0, entry.index, entry.way)
    {
        let (packets, bytes) = (u64::from(opening.packets), u64::from(opening.bytes));
        // What the local side sends is egress.
        let local = opening.sender as u8 == Side::Local as u8;
        // SAFETY: as above.
        unsafe {
            (*account).packets[0] = if local { 0 } else { packets };
            (*account).packets[1] = if local { packets } else { 0 };
            (*account).bytes[0] = if local { 0 } else { bytes };
            (*account).bytes[1] = if local { bytes } else { 0 };
        }
    }
    // An exchange, not a store: it orders the writes above before it.
    let meta = entry
        .meta
        .with(opening.state, opening.flags | charged as u8);
    entry.exchange(meta);
}
