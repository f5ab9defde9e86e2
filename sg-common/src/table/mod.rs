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

mod insert;
mod removal;

pub use insert::{Inserted, insert, make_room};
pub use removal::{Removal, assured, flush, oldest_age, reclaim, remove, replace_oldest};

use crate::{
    atomic,
    conntrack::{Meta, State},
    family::{Family, Flow},
    layout::{Live, Runtime, WAYS},
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
pub(super) fn free_ways<F: Family>(bucket: *mut F::Bucket) -> u32 {
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

/// [`WAYS`], hidden from the compiler: a rolled loop, since instruction cache is scarce.
#[inline(always)]
pub fn ways() -> usize {
    atomic::opaque(WAYS as u64) as usize
}
