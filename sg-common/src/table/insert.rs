//! How entries are made: charged, claimed, written, shown.

use super::{
    Context, Entry, PLACES, home,
    occupancy::{Credits, NO_CHARGE, Records},
    place, spill, spilled, tags,
};
use crate::{
    abi::CT_UNASSURED_PERCENT,
    atomic,
    conntrack::{Meta, Opening, Side, State, flag},
    family::{Family, Flow},
    layout::{Interface, WAYS},
    tables::Tables,
};

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

/// Charges a flow, before its entry is seen: another CPU may count it assured at once.
#[inline(never)]
fn charge<T: Tables>(context: &Context<T>, limits: &Interface, id: u32, unassured: bool) -> u32 {
    let Some(records) = Records::of(context.tables, id) else {
        return NO_CHARGE;
    };
    let credits = Credits {
        interface: limits.credit,
        host: context.runtime.credit,
    };
    let charged = records.charge(limits, context.runtime.shared, credits);
    if charged != NO_CHARGE {
        if unassured {
            records.add_unassured(credits);
        }
        records.created(context.now, context.runtime.hz);
    }
    charged
}

/// Takes a charge back, if there is one, that no entry came of.
#[inline(never)]
fn not_made<T: Tables>(
    context: &Context<T>,
    id: u32,
    charged: u32,
    unassured: bool,
    refused: bool,
) {
    let Some(records) = Records::of(context.tables, id) else {
        return;
    };
    if charged != NO_CHARGE {
        let credits = Credits::of(context, id);
        records.discharge(charged as u8, credits);
        if unassured {
            records.sub_unassured(credits);
        }
        records.not_created();
    }
    if refused {
        // SAFETY: a valid record of this CPU.
        unsafe { (*records.local).refused = (*records.local).refused.wrapping_add(1) };
    }
}

/// Makes an entry for `flow`. For one that is not assured [`make_room`] comes first.
///
/// `last`: if there is no room, there is none. Else, if it answers [`Inserted::Full`], expired entries may hold
/// it: [`reclaim_beside`] comes next, then another attempt.
#[inline(always)]
pub fn insert<T: Tables, F: Family>(
    context: &Context<T>,
    limits: &Interface,
    hash: u64,
    flow: &Flow<F::Address>,
    opening: &Opening,
    last: bool,
) -> Inserted {
    let id = flow.owner >> 8;
    let unassured = opening.flags & flag::ASSURED == 0;
    let charged = charge(context, limits, id, unassured);
    let mut result = Inserted::Full;
    if charged != NO_CHARGE {
        result = put::<T, F>(context, hash, flow, opening, charged as u8, last);
        if result == Inserted::Made {
            return result;
        }
    }
    let refused = last && result == Inserted::Full;
    not_made(context, id, charged, unassured, refused);
    result
}

/// Buckets among which a new flow at a limit looks for the oldest unassured one: its own two and those
/// behind the first. In its own two alone there are often but a few, and if those are clients' that wait for
/// their answer, a flood would replace them.
const LOOK_AROUND: u64 = 4;
/// Buckets in which it looks further at its interface's own limits if there is none in those: the flows of
/// an interface with a small allowance lie far apart in a table for the whole host. (At the host's limit
/// there is none only if the flood is of the other family, and then none need go.)
const LOOK_FURTHER: u32 = 128;

/// Unassured flows hold a share at most, of the host's allowance and of the interface's own: beyond it a
/// new one takes the place of the oldest around, so that a flood of openings presses on itself. At the
/// limits of its interface that must be one of the interface's own, or a workload could push out its
/// neighbours' flows. Answers whether a limit is reached, and whether it is the interface's own.
#[inline(always)]
fn limited<T: Tables>(context: &Context<T>, limits: &Interface, id: u32) -> (bool, bool) {
    let Some(records) = Records::of(context.tables, id) else {
        return (false, false);
    };
    let (own, all, tracked) = records.unassured();
    let share = u64::from(limits.allowance) * u64::from(CT_UNASSURED_PERCENT) / 100;
    let own_limit = own >= share.max(1) || tracked >= u64::from(limits.allowance);
    let limit = own_limit || all >= u64::from(context.runtime.unassured);
    (limit && !(own_limit && own == 0), own_limit)
}

/// Whether [`make_room`] has anything to do.
#[inline(always)]
pub fn crowded<T: Tables>(context: &Context<T>, limits: &Interface, id: u32) -> bool {
    limited(context, limits, id).0
}

/// Replaces an unassured flow if a new one reaches a limit: see [`limited`].
#[inline(always)]
pub fn make_room<T: Tables>(context: &Context<T>, ipv6: bool, hash: u64, id: u32) {
    let Some(limits) = context.tables.interface(context.bank(), id) else {
        return;
    };
    let (limit, own_limit) = limited(context, limits, id);
    if !limit {
        return;
    }
    let owner = if own_limit { id } else { 0 };
    let buckets = context.runtime.buckets[usize::from(ipv6)];
    let (mut index, second) = (place(hash, buckets, 0), place(hash, buckets, 1));
    let mut oldest = context.tables.oldest_age(ipv6, second, owner);
    let mut found = second;
    for _ in 1..atomic::opaque(LOOK_AROUND) {
        let age = context.tables.oldest_age(ipv6, index, owner);
        if age > oldest {
            oldest = age;
            found = index;
        }
        index = if index + 1 < buckets { index + 1 } else { 0 };
    }
    if oldest == 0 {
        if !own_limit {
            return;
        }
        found = context
            .tables
            .find_unassured(ipv6, index, LOOK_FURTHER, owner);
    }
    if found < buckets {
        context.tables.replace_oldest(ipv6, found, owner);
    }
}

/// Reclaims what is expired where a flow would stand, and some buckets more for the allowance.
#[inline(always)]
pub fn reclaim_beside<T: Tables>(context: &Context<T>, ipv6: bool, hash: u64) {
    let buckets = context.runtime.buckets[usize::from(ipv6)];
    for which in 0..atomic::opaque(PLACES) {
        let bucket = place(hash, buckets, which);
        context.tables.reclaim(ipv6, false, bucket);
    }
    for _ in 0..atomic::opaque(SWEEP_AT_LIMIT) {
        let index = context.tables.sweep_cursor(ipv6);
        context.tables.reclaim(ipv6, false, index);
    }
}

/// Claims tried before a bucket pair counts as full; each failure means that another CPU succeeded.
const CLAIMS: u64 = WAYS as u64;

/// Free ways of its first bucket below which a flow looks at its second, too: most flows are found at the
/// first look, and a full table is as even as without this.
const ROOM_TO_SPARE: u32 = 4;

/// Puts the flow into a bucket. Unless it is the `last` attempt, a bucket without a free way may only look
/// full: expired entries must not push flows into the other one, or the table refuses before it is full.
#[inline(always)]
fn put<T: Tables, F: Family>(
    context: &Context<T>,
    hash: u64,
    flow: &Flow<F::Address>,
    opening: &Opening,
    charged: u8,
    last: bool,
) -> Inserted {
    let tables = context.tables;
    let buckets = context.runtime.buckets[usize::from(F::IPV6)];
    let first = place(hash, buckets, 0);
    let mut bucket = first;
    let Some(mut tags) = tables.tags(F::IPV6, false, bucket) else {
        return Inserted::Full;
    };
    let mut free = tags::equal(tags, 0);
    let mut wanted = free & tags::bit(home(hash));
    if free.count_ones() <= ROOM_TO_SPARE {
        wanted = 0;
        let other = place(hash, buckets, 1);
        let Some(other_tags) = tables.tags(F::IPV6, false, other) else {
            return Inserted::Full;
        };
        let other_free = tags::equal(other_tags, 0);
        if !last && (free == 0 || other_free == 0) {
            return Inserted::Full;
        }
        if other_free.count_ones() > free.count_ones() {
            (bucket, tags, free) = (other, other_tags, other_free);
        }
        if free == 0 {
            bucket = place(hash, buckets, 2);
            let Some(stash_tags) = tables.tags(F::IPV6, false, bucket) else {
                return Inserted::Full;
            };
            tags = stash_tags;
            free = tags::equal(tags, 0);
        }
    }
    for _ in 0..atomic::opaque(CLAIMS) {
        if free == 0 {
            break;
        }
        let bit = if wanted != 0 {
            wanted
        } else {
            tags::lowest(free)
        };
        wanted = 0;
        let way = tags::way(bit);
        let index = bucket * WAYS as u32 + way;
        let Some(slot) = F::slot(tables, false, index) else {
            return Inserted::Full;
        };
        // SAFETY: the word of a valid entry.
        let empty = Meta(unsafe { atomic::load(F::meta(slot)) });
        let mut entry = Entry::<F> {
            slot,
            index,
            old: 0,
            meta: empty,
        };
        if empty.state() == State::Free as u8 && entry.exchange(empty.claimed(context.generation)) {
            write(context, &entry, flow, opening);
            if bucket != first {
                spill::<T, F>(tables, first, 1);
            }
            tags::set(tags, way, tags::tag(hash));
            // A full barrier: who comes later sees the entry, and whom it does not see has seen ours.
            // SAFETY: as above.
            unsafe { atomic::fetch_add(F::meta(slot), 0) };
            let alone = !seems_to_have_rival::<T, F>(context, hash, index);
            if (alone || tables.settle(F::IPV6, hash, index))
                && entry.exchange(entry.meta.with(opening.state, opening.flags | charged))
            {
                return Inserted::Made;
            }
            tags::set(tags, way, 0);
            withdraw(&mut entry);
            if bucket != first {
                spill::<T, F>(tables, first, u64::MAX);
            }
            return Inserted::Exists;
        }
        free ^= bit;
    }
    Inserted::Full
}

/// Frees a claimed entry, which a rival may have withdrawn.
#[inline(always)]
fn withdraw<F: Family>(entry: &mut Entry<F>) {
    let freed = entry.meta.freed();
    if !entry.exchange(freed) {
        entry.meta = entry.meta.withdrawn();
        entry.exchange(freed);
    }
}

/// Whether any other entry in the flow's places has its tag.
#[inline(always)]
fn seems_to_have_rival<T: Tables, F: Family>(context: &Context<T>, hash: u64, index: u32) -> bool {
    let buckets = context.runtime.buckets[usize::from(F::IPV6)];
    let tag = tags::tag(hash);
    let mut alike = 0;
    // Its own, too, if it stands outside its first bucket.
    let spilled = spilled::<T, F>(context.tables, place(hash, buckets, 0));
    let places = if spilled { PLACES } else { 1 };
    for which in 0..atomic::opaque(places) {
        let bucket = place(hash, buckets, which);
        if let Some(tags) = context.tables.tags(F::IPV6, false, bucket) {
            alike += tags::equal(tags, tag).count_ones();
        }
    }
    // In a table of one bucket the flow's two are the same.
    let twice = spilled && buckets == 1 && index < WAYS as u32;
    alike != 1 + u32::from(twice)
}

/// Whether the claimed entry at `index`, which is written and tagged, may become the flow's: see "Who races"
/// above this module.
#[inline(always)]
pub fn settle<T: Tables, F: Family>(context: &Context<T>, hash: u64, index: u32) -> bool {
    let tables = context.tables;
    let buckets = context.runtime.buckets[usize::from(F::IPV6)];
    let tag = tags::tag(hash);
    let Some(own) = F::slot(tables, false, index) else {
        return false;
    };
    for which in 0..atomic::opaque(PLACES) {
        let bucket = place(hash, buckets, which);
        let Some(tags) = tables.tags(F::IPV6, false, bucket) else {
            continue;
        };
        let mut mask = tags::equal(tags, tag);
        for _ in 0..atomic::opaque(WAYS as u64) {
            if mask == 0 {
                break;
            }
            let bit = tags::lowest(mask);
            mask ^= bit;
            let other = bucket * WAYS as u32 + tags::way(bit);
            let Some(slot) = F::slot(tables, false, other) else {
                continue;
            };
            // SAFETY: the word of a valid entry.
            let before = Meta(unsafe { atomic::load(F::meta(slot)) });
            if other == index || !F::same_flow(slot, own) {
                continue;
            }
            // SAFETY: as above.
            let meta = Meta(unsafe { atomic::load(F::meta(slot)) });
            let going = !meta.tracked() && meta.flags() & flag::WITHDRAWN != 0;
            // Another flow's by now, or this one's again: then it sees ours.
            let changed = meta.version() != before.version();
            if meta.state() == State::Free as u8 || going || changed {
                continue;
            }
            if meta.tracked() || other < index {
                return false;
            }
            // SAFETY: as above.
            let withdrawn =
                unsafe { atomic::compare_exchange(F::meta(slot), meta.0, meta.withdrawn().0) };
            // SAFETY: as above.
            let now = Meta(unsafe { atomic::load(F::meta(slot)) });
            // Another version is another flow's, or this one's again, which then sees ours.
            if !withdrawn && now.tracked() && now.version() == meta.version() {
                return false;
            }
        }
    }
    true
}

/// Writes a claimed entry.
#[inline(always)]
fn write<T: Tables, F: Family>(
    context: &Context<T>,
    entry: &Entry<F>,
    flow: &Flow<F::Address>,
    opening: &Opening,
) {
    F::set_flow(entry.slot, flow);
    let live = entry.live();
    // SAFETY: the claimed entry's own words.
    unsafe {
        (*live).seen = context.now;
        (*live).ack[0] = opening.ack[0];
        (*live).ack[1] = opening.ack[1];
        (*live).fin[0] = opening.fin[0];
        (*live).fin[1] = opening.fin[1];
        (*live).bytes_high = [0; 2];
    }
    if context.tables.accounting() {
        let account = F::account(entry.slot);
        // What the local side sends is egress.
        let local = opening.sender as u8 == Side::Local as u8;
        let by = |value: u32, of_local: bool| if local == of_local { value } else { 0 };
        // SAFETY: as above.
        unsafe {
            (*account).packets[0] = by(opening.packets, false);
            (*account).packets[1] = by(opening.packets, true);
            (*account).bytes[0] = by(opening.bytes, false);
            (*account).bytes[1] = by(opening.bytes, true);
        }
    }
}
