//! Flows that come from another table as they are: with their state, their age and what they carried.

use super::{
    Context, Entry, Inserted, insert, lookup,
    occupancy::{Records, assured},
};
use crate::{
    atomic,
    conntrack::{Meta, Opening, Side, State, ahead, flag},
    family::{Family, Flow},
    layout::{CARRIED, CarriedKey, CtRecord, Interface, known},
    tables::Tables,
};

/// Attempts to change an entry that packets of its flow change at the same time.
const ATTEMPTS: u64 = 8;

/// A field of a record that need not be aligned.
macro_rules! told {
    ($record:ident, $field:ident) => {
        (&raw const (*$record).$field).read_unaligned()
    };
}

/// Makes an entry for `flow` as `record` describes it, without its account: [`gain`] comes next, unless there is no
/// room. The context has to say when the flow was last seen, and which generation judged it ([`as_it_was`]); `last`
/// as for [`insert`].
///
/// # Safety
/// `record` must be valid; it need not be aligned.
#[inline(always)]
pub unsafe fn restore<T: Tables, F: Family>(
    context: &Context<T>,
    limits: &Interface,
    hash: u64,
    flow: &Flow<F::Address>,
    record: *const CtRecord,
    last: bool,
) -> Inserted {
    // SAFETY: the caller's promise.
    let opening = unsafe { opening(record) };
    // As in the packet path: read when written into the entry, or it would take too much stack.
    let opening = atomic::opaque(&raw const opening as u64) as *const Opening;
    // SAFETY: the same reference.
    let inserted = insert::<T, F>(context, limits, hash, flow, unsafe { &*opening }, last);
    if inserted == Inserted::Made
        && let Some(records) = Records::of(context.tables, flow.owner >> 8)
    {
        // It was counted when it began.
        records.not_created();
    }
    inserted
}

/// The context of [`restore`].
///
/// # Safety
/// `record` must be valid; it need not be aligned.
#[inline(always)]
pub unsafe fn as_it_was<T>(context: &mut Context<T>, record: *const CtRecord) {
    // SAFETY: the caller's promise.
    (context.now, context.generation) = unsafe { (told!(record, seen), told!(record, generation)) };
}

/// # Safety
/// `record` must be valid; it need not be aligned.
#[inline(always)]
unsafe fn opening(record: *const CtRecord) -> Opening {
    // SAFETY: the caller's promise.
    unsafe {
        Opening {
            state: told!(record, state),
            flags: told!(record, flags) & !flag::SHARED,
            ack: told!(record, ack),
            fin: told!(record, fin),
            sender: Side::Local,
            packets: 0,
            bytes: 0,
        }
    }
}

/// What an entry gains that [`restore`] made, or that a packet of the flow made before it came (`existed`): what the
/// flow carried; and in the second case who opened it, and how far it is.
///
/// # Safety
/// `record` must be valid; it need not be aligned.
#[inline(always)]
pub unsafe fn gain<T: Tables, F: Family>(
    context: &Context<T>,
    hash: u64,
    flow: &Flow<F::Address>,
    record: *const CtRecord,
    existed: bool,
) {
    // SAFETY: the caller's promise.
    let (known, opening) = unsafe { (told!(record, known), opening(record)) };
    if existed && known & known::ONLY_NEW != 0 {
        return;
    }
    let Some(mut entry) = lookup::<T, F>(context, hash, flow) else {
        return;
    };
    if existed {
        let newer = known & known::BEFORE != 0;
        merge(context, &mut entry, &opening, newer, flow.owner >> 8);
    }
    if context.tables.accounting() {
        let again = existed && known & known::PERHAPS != 0;
        // SAFETY: the caller's promise.
        unsafe { carry(context.tables, &entry, record, again) };
    }
}

/// Adds what is told of a flow to an entry that packets have made or changed since. `newer`: it was told of
/// before, and the entry is what came of that.
#[inline(always)]
fn merge<T: Tables, F: Family>(
    context: &Context<T>,
    entry: &mut Entry<F>,
    told: &Opening,
    newer: bool,
    id: u32,
) {
    const KEPT: u8 = flag::SHARED | flag::ASSURED | flag::FIN_LOCAL | flag::FIN_REMOTE;
    if !newer && (told.state == State::TcpTimeWait as u8 || told.state == State::TcpClose as u8) {
        // One that was closed has begun anew.
        return;
    }
    let mut done = false;
    let mut before = entry.meta;
    for _ in 0..atomic::opaque(ATTEMPTS) {
        if done || !entry.meta.tracked() {
            break;
        }
        before = entry.meta;
        let state = if told.state > before.state() {
            told.state
        } else {
            before.state()
        };
        let flags = before.flags() & KEPT | told.flags & !flag::DOUBTED;
        done = entry.exchange(before.with(state, flags));
        if !done {
            // SAFETY: the word of a valid entry.
            entry.meta = Meta(unsafe { atomic::load(F::meta(entry.slot)) });
        }
    }
    if !done {
        return;
    }
    if before.flags() & flag::ASSURED == 0 && told.flags & flag::ASSURED != 0 {
        assured(context, id);
    }
    let live = entry.live();
    for side in 0..2 {
        let (known_ack, known_fin) = (told.ack[side], told.fin[side]);
        // SAFETY: a valid entry; aligned words.
        unsafe {
            let ack = (&raw mut (*live).ack).cast::<u32>().add(side);
            let held = atomic::load(ack);
            if held == 0 || ahead(known_ack, held) {
                atomic::store(ack, known_ack);
            }
            let fin = (&raw mut (*live).fin).cast::<u32>().add(side);
            if known_fin != 0 && (newer || atomic::load(fin) == 0) {
                atomic::store(fin, known_fin);
            }
        }
    }
}

/// How often the counters of an account that is restored may have overflowed: 17·10⁹ packets, 512 TiB. What is beyond
/// is not counted.
const MOST_CARRIED: u64 = 4;

/// Adds what a flow carried to the account of its entry, as plainly as packets do. If it may have been added
/// before, the account becomes no less than that.
///
/// # Safety
/// `record` must be valid; it need not be aligned.
#[inline(always)]
unsafe fn carry<T: Tables, F: Family>(
    tables: &T,
    entry: &Entry<F>,
    record: *const CtRecord,
    again: bool,
) {
    let account = F::account(entry.slot);
    let key = CarriedKey::new(F::IPV6, false, entry.index, entry.meta.version());
    let sum = |held: u64, more: u64| {
        if !again {
            held.wrapping_add(more)
        } else if held > more {
            held
        } else {
            more
        }
    };
    for direction in 0..2 {
        // SAFETY: a valid account and record; aligned words.
        unsafe {
            let packets = (&raw const (*record).packets)
                .cast::<u64>()
                .add(direction)
                .read_unaligned();
            let bytes = (&raw const (*record).bytes)
                .cast::<u64>()
                .add(direction)
                .read_unaligned();
            let place = (&raw mut (*account).packets).cast::<u32>().add(direction);
            let packets = sum(atomic::load(place).into(), packets);
            atomic::store(place, packets as u32);
            let place = (&raw mut (*account).bytes).cast::<u32>().add(direction);
            let high = (&raw mut (*entry.live()).bytes_high)
                .cast::<u16>()
                .add(direction);
            let upper = atomic::load(high);
            let held = u64::from(upper & !CARRIED) << 32 | u64::from(atomic::load(place));
            let bytes = sum(held, bytes);
            atomic::store(place, bytes as u32);
            let mut carried = upper & CARRIED;
            let (more_packets, more_bytes) = (packets >> 32, bytes >> 47);
            if more_packets | more_bytes != 0 && !(again && carried != 0) {
                carried = CARRIED;
                for number in 0..atomic::opaque(MOST_CARRIED) {
                    if number < more_packets {
                        tables.carry(key, direction as u32);
                    }
                    if number < more_bytes {
                        tables.carry(key, direction as u32 + 2);
                    }
                }
            }
            atomic::store(high, (bytes >> 32) as u16 & !CARRIED | carried);
        }
    }
}
