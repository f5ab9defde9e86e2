//! The conntrack table: find, insert, remove, reclaim — without a helper call on the hit path.
//!
//! A set-associative array: the flow's hash names two buckets of [`WAYS`] entries, a flow stands in
//! one of them, and a new one goes where fewer stand. A second, draining table of the same shape is
//! searched as well while there is one; inserts go to the current one only.
//!
//! # Who races, and why it is right
//! * Inserts of one flow by two CPUs: serialised by the stripe lock that the flow's hash names. Under
//!   it the flow's buckets of the current table are searched again, so a flow never stands twice
//!   there. The draining table gains no flows, and a flow that is copied stands in the current table
//!   before it leaves the old one, so a lookup that missed both need not be repeated for the old.
//! * Inserts of different flows into one way: compare-and-exchange on the way's `meta` word; the
//!   loser looks for another way.
//! * A reader against a way that is freed and claimed again: it compares `meta` before and after it
//!   reads the flow; the version in the word changes with every claim. (On weakly ordered machines a
//!   torn read could pass for a hit of the same tag and version only if 65,536 claims happened
//!   between two loads.)
//! * Removal against a transition: both exchange the same word, one wins.

use crate::{
    abi::CT_LOCKS,
    atomic,
    conntrack::{Meta, Opening, State, expired, flag},
    family::{Family, Flow},
    layout::{CtHost, CtInterface, Interface, Live, Runtime, WAYS, interface_flags},
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
    bucket: *mut F::Bucket,
    way: usize,
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
        F::live(self.bucket, self.way)
    }

    /// Moves the entry to another state; `false` if somebody else changed it first.
    #[inline(always)]
    pub fn exchange(&mut self, new: Meta) -> bool {
        // SAFETY: the word of a valid bucket.
        let done =
            unsafe { atomic::compare_exchange(F::meta(self.bucket, self.way), self.meta.0, new.0) };
        if done {
            self.meta = new;
        }
        done
    }

    /// Adds a packet to the entry's account.
    #[inline(always)]
    pub fn account<T: Tables>(&self, tables: &T, direction: usize, packets: u32, bytes: u32) {
        if let Some(account) = tables.account(F::IPV6, self.old != 0, self.index, self.way) {
            // SAFETY: a valid account; two CPUs may carry one flow, so the adds are atomic.
            unsafe {
                let direction = atomic::opaque(direction as u64) as usize & 1;
                let packet_words = (&raw mut (*account).packets).cast::<u64>();
                let byte_words = (&raw mut (*account).bytes).cast::<u64>();
                atomic::add(packet_words.add(direction), u64::from(packets));
                atomic::add(byte_words.add(direction), u64::from(bytes));
            }
        }
    }
}

/// The two buckets of a hash among `buckets`, which is not 0.
#[inline(always)]
pub fn places(hash: u64, buckets: u32) -> (u32, u32) {
    let spread = |hash: u64| (((hash >> 32) * u64::from(buckets)) >> 32) as u32;
    let first = spread(hash);
    let second = spread(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    if second != first {
        (first, second)
    } else if first + 1 < buckets {
        (first, first + 1)
    } else {
        (first, 0)
    }
}

/// One bit for each way where `(meta >> shift & mask) ^ key` is zero. Without branches: one compare
/// of all ways at once is cheaper than a mispredicted one, and the verifier follows one path instead
/// of hundreds.
#[inline(always)]
fn matching_ways<F: Family>(
    bucket: *mut F::Bucket,
    ways: usize,
    shift: u32,
    mask: u32,
    key: u32,
) -> u32 {
    let mut zero = 0;
    for way in 0..ways {
        // SAFETY: the word of a valid bucket.
        let meta = unsafe { atomic::load(F::meta(bucket, way)) };
        let rest = atomic::opaque(((meta >> shift) & u64::from(mask)) ^ u64::from(key));
        // Adding 2³² − 1 carries into bit 32 unless `rest` is zero.
        let nonzero = (rest + u64::from(u32::MAX)) >> 32;
        zero |= ((nonzero ^ 1) as u32) << way;
    }
    zero
}

/// The ways that are free.
#[inline(always)]
fn free_ways<F: Family>(bucket: *mut F::Bucket) -> u32 {
    matching_ways::<F>(bucket, ways(), 32, 0xff, State::Free as u32)
}

/// Tags of one bucket that may equal a flow's by chance before its own is reached. Beyond that a flow
/// would be missed; with 32 secret bits in a tag it is not seen to happen.
const TAG_COLLISIONS: usize = 1;

/// The way of `bucket` that holds `flow`, with the word that proves it. `ways` is [`WAYS`] where
/// speed counts (unrolled) and [`ways`] where size does.
#[inline(always)]
fn search<F: Family>(
    bucket: *mut F::Bucket,
    ways: usize,
    flow: &Flow<F::Address>,
    tag: u32,
) -> Option<(usize, Meta)> {
    let mut candidates = matching_ways::<F>(bucket, ways, 0, u32::MAX, tag);
    for _ in 0..=TAG_COLLISIONS {
        if candidates == 0 {
            break;
        }
        let way = candidates.trailing_zeros() as usize;
        // SAFETY: the word of a valid bucket.
        let meta = Meta(unsafe { atomic::load(F::meta(bucket, way)) });
        if meta.tracked() && F::holds(bucket, way, flow) {
            // SAFETY: as above.
            let again = Meta(unsafe { atomic::load(F::meta(bucket, way)) });
            if again.version() == meta.version() && again.tracked() {
                return Some((way, again));
            }
        }
        candidates &= candidates - 1;
    }
    None
}

/// The entry of `flow`, expired or not: in the current table, else in the draining one. `ways` is
/// [`WAYS`] where speed counts (unrolled) and [`ways`] where size does.
#[inline(always)]
pub fn lookup<T: Tables, F: Family>(
    context: &Context<T>,
    hash: u64,
    flow: &Flow<F::Address>,
    ways: usize,
) -> Option<Entry<F>> {
    let family = usize::from(F::IPV6);
    let (mut index, mut second) = places(hash, context.runtime.buckets[family]);
    let mut old = false;
    // Two buckets of each table. A loop, not four copies: instruction cache is worth more than a
    // predicted branch.
    for step in 0..atomic::opaque(4) {
        if step == 2 {
            let buckets = context.runtime.old_buckets[family];
            if buckets == 0 {
                break;
            }
            (index, second) = places(hash, buckets);
            old = true;
        }
        if let Some(bucket) = F::bucket(context.tables, old, index)
            && let Some((way, meta)) = search::<F>(bucket, ways, flow, hash as u32)
        {
            return Some(Entry {
                bucket,
                way,
                index,
                old: u32::from(old),
                meta,
            });
        }
        index = second;
    }
    None
}

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
    if !entry.exchange(entry.meta.freed()) {
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

/// Counts an entry that both sides have answered; once, by whoever set the flag.
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

/// Frees the unassured entry of a bucket that has been idle longest; answers whether there was one.
#[inline(always)]
pub fn replace_oldest<T: Tables, F: Family>(context: &Context<T>, index: u32) -> bool {
    let Some(bucket) = F::bucket(context.tables, false, index) else {
        return false;
    };
    let mut oldest = WAYS;
    let mut oldest_age = 0;
    for way in 0..ways() {
        // SAFETY: words of a valid bucket.
        let (meta, seen) = unsafe {
            (
                Meta(atomic::load(F::meta(bucket, way))),
                atomic::load(&raw const (*F::live(bucket, way)).seen),
            )
        };
        let age = context.now.wrapping_sub(seen);
        if meta.tracked() && meta.flags() & flag::ASSURED == 0 && age >= oldest_age {
            oldest_age = age;
            oldest = way;
        }
    }
    if oldest >= WAYS {
        return false;
    }
    // SAFETY: the word of a valid bucket.
    let meta = Meta(unsafe { atomic::load(F::meta(bucket, oldest)) });
    if !meta.tracked() || meta.flags() & flag::ASSURED != 0 {
        return false;
    }
    let mut entry = Entry::<F> {
        bucket,
        way: oldest,
        index,
        old: 0,
        meta,
    };
    remove(context.tables, &mut entry, Removal::Replaced)
}

/// [`WAYS`], hidden from the compiler: a rolled loop, since instruction cache is scarce.
#[inline(always)]
pub fn ways() -> usize {
    atomic::opaque(WAYS as u64) as usize
}

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

/// Makes an entry for `flow`.
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
    // Unassured flows hold a share at most: beyond it a new one takes the place of the oldest among
    // those it could stand beside, so that a flood of openings presses on itself.
    // SAFETY: a valid record.
    if unassured
        && unsafe { atomic::load(&raw const (*host).unassured) }
            >= u64::from(context.runtime.unassured)
    {
        replace_beside::<T, F>(context, hash);
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
            result = place::<T, F>(context, hash, flow, opening, charged);
        }
        if result != Inserted::Full {
            break;
        }
    }
    match result {
        Inserted::Made => created(context, unassured, interface, host),
        _ if charged != NO_CHARGE => discharge(charged, interface, host),
        _ => {}
    }
    if result == Inserted::Full {
        // SAFETY: a valid record.
        unsafe { atomic::add(&raw mut (*interface).refused, 1) };
    }
    result
}

/// Counts a new entry, and how many there are in a second.
#[inline(never)]
fn created<T: Tables>(
    context: &Context<T>,
    unassured: bool,
    interface: *mut CtInterface,
    host: *mut CtHost,
) {
    // SAFETY: valid records; adds are atomic. The window is a rate for display: two CPUs closing it
    // at once lose a few counts of one second.
    unsafe {
        atomic::add(&raw mut (*interface).created, 1);
        if unassured {
            atomic::add(&raw mut (*interface).unassured, 1);
            atomic::add(&raw mut (*host).unassured, 1);
        }
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

/// Frees the oldest unassured entry beside which a flow would stand.
#[inline(never)]
fn replace_beside<T: Tables, F: Family>(context: &Context<T>, hash: u64) {
    let (first, second) = places(hash, context.runtime.buckets[usize::from(F::IPV6)]);
    if !context.tables.replace_oldest(F::IPV6, first) {
        context.tables.replace_oldest(F::IPV6, second);
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
const CLAIMS: u64 = 4;

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
            if free == 0 {
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
    let opener_local = opening.flags & flag::OPENER_LOCAL != 0;
    let live = entry.live();
    // SAFETY: the claimed way's own words.
    unsafe {
        (*live).seen = context.now;
        (*live).generation = context.generation;
        (*live).ack[0] = if opener_local { opening.ack } else { 0 };
        (*live).ack[1] = if opener_local { 0 } else { opening.ack };
        (*live).fin[0] = if opener_local { opening.fin } else { 0 };
        (*live).fin[1] = if opener_local { 0 } else { opening.fin };
    }
    if context.runtime.accounting != 0
        && let Some(account) =
            context
                .tables
                .account(F::IPV6, entry.old != 0, entry.index, entry.way)
    {
        let (packets, bytes) = (u64::from(opening.packets), u64::from(opening.bytes));
        // What the local side sends is egress.
        // SAFETY: as above.
        unsafe {
            (*account).packets[0] = if opener_local { 0 } else { packets };
            (*account).packets[1] = if opener_local { packets } else { 0 };
            (*account).bytes[0] = if opener_local { 0 } else { bytes };
            (*account).bytes[1] = if opener_local { bytes } else { 0 };
        }
    }
    // An exchange, not a store: it orders the writes above before it.
    let meta = entry
        .meta
        .with(opening.state, opening.flags | charged as u8);
    entry.exchange(meta);
}
