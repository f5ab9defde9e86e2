//! How many flows there are, and what limits them.
//!
//! Each CPU counts for itself and adds to the shared figures when it has made or ended more flows than its
//! credit, so that no cache line is shared between CPUs for each new flow. With a credit of 0, which small
//! limits have, every figure is exact at once; else a limit may be missed by the CPUs' credits together, a
//! four-thousandth ([`crate::abi::credit`]).

use super::Context;
use crate::{
    atomic,
    conntrack::flag,
    layout::{CtHost, CtInterface, CtLocal, Interface},
    tables::Tables,
};

/// Figures of an interface, or of the host, all CPUs together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Tracked flows.
    pub tracked: u64,
    /// Of these, charged to a reserve.
    pub reserved: u64,
    /// Of these, not assured.
    pub unassured: u64,
    /// Highest number of tracked flows.
    pub peak: u64,
    /// Packets dropped because no further flow could be tracked.
    pub refused: u64,
    /// Entries made.
    pub created: u64,
    /// Entries that idled out.
    pub expired: u64,
    /// Entries replaced while unassured.
    pub replaced: u64,
    /// Entries removed by command or by a new generation.
    pub removed: u64,
}

impl Occupancy {
    /// Those of an interface.
    pub fn of_interface(shared: &CtInterface, locals: &[CtLocal]) -> Self {
        Self::new(shared.tracked, shared.reserved, shared.unassured, 0, locals)
    }

    /// Those of the host, the events aside: they are counted by interface. `locals` are those of interface 0.
    pub fn of_host(shared: &CtHost, locals: &[CtLocal]) -> Self {
        let (unassured, reserved) = (shared.unassured, shared.reserved);
        Self::new(shared.shared, reserved, unassured, reserved, locals)
    }

    fn new(settled: u64, reserved: u64, unassured: u64, more: u64, locals: &[CtLocal]) -> Self {
        let sum = |start: u64, of: fn(&CtLocal) -> u64| {
            let add = |sum: u64, one: &CtLocal| sum.wrapping_add(of(one));
            locals.iter().fold(start, add)
        };
        // While flows come and go the parts are of different moments, and may seem to be below 0.
        let count = |sum: u64| if sum > i64::MAX as u64 { 0 } else { sum };
        let tracked = count(sum(settled, |one| one.tracked)) + more;
        let peak = locals.iter().map(|one| one.peak).max().unwrap_or(0);
        Self {
            tracked,
            reserved,
            unassured: count(sum(unassured, |one| one.unassured)),
            peak: peak.max(tracked),
            refused: sum(0, |one| one.refused),
            created: sum(0, |one| one.created),
            expired: sum(0, |one| one.expired),
            replaced: sum(0, |one| one.replaced),
            removed: sum(0, |one| one.removed),
        }
    }
}

/// Flows as far as this CPU knows.
///
/// # Safety
/// Both words must be valid and aligned.
#[inline(always)]
pub(super) unsafe fn known(settled: *const u64, local: *const u64) -> u64 {
    // SAFETY: the caller's promise.
    let sum = unsafe { atomic::load(settled).wrapping_add(atomic::load(local)) };
    if sum > i64::MAX as u64 { 0 } else { sum }
}

/// Counts one more under a limit. Answers how many there are then, as far as this CPU knows; 0 if that would
/// be more than `limit`, and then nothing is counted.
///
/// # Safety
/// Both words must be valid and aligned.
#[inline(always)]
unsafe fn take(settled: *mut u64, local: *mut u64, credit: u32, limit: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let mine = atomic::load(local).wrapping_add(1);
        if (mine as i64) <= i64::from(credit) {
            let sum = atomic::load(settled).wrapping_add(mine);
            if sum as i64 > limit as i64 {
                return 0;
            }
            atomic::store(local, mine);
            return at_least_one(sum);
        }
        let sum = atomic::fetch_add(settled, mine).wrapping_add(mine);
        if sum as i64 > limit as i64 {
            atomic::sub(settled, mine);
            return 0;
        }
        atomic::store(local, 0);
        at_least_one(sum)
    }
}

/// What CPUs have not yet said may make a sum of all the others seem to be below 0.
#[inline(always)]
fn at_least_one(sum: u64) -> u64 {
    if (sum as i64) < 1 { 1 } else { sum }
}

/// Counts one less.
///
/// # Safety
/// Both words must be valid and aligned.
#[inline(always)]
unsafe fn give(settled: *mut u64, local: *mut u64, credit: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        let mine = atomic::load(local).wrapping_sub(1);
        if mine as i64 >= -i64::from(credit) {
            atomic::store(local, mine);
        } else {
            atomic::add(settled, mine);
            atomic::store(local, 0);
        }
    }
}

/// Counts one more, whatever the limit.
///
/// # Safety
/// Both words must be valid and aligned.
#[inline(always)]
unsafe fn add(settled: *mut u64, local: *mut u64, credit: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        take(settled, local, credit, i64::MAX as u64);
    }
}

/// The records of an interface and of the host.
#[derive(Clone, Copy)]
pub(super) struct Records {
    pub(super) interface: *mut CtInterface,
    pub(super) local: *mut CtLocal,
    pub(super) host: *mut CtHost,
    pub(super) host_local: *mut CtLocal,
}

impl Records {
    #[inline(always)]
    pub(super) fn of<T: Tables>(tables: &T, id: u32) -> Option<Self> {
        Some(Self {
            interface: tables.ct_interface(id)?,
            local: tables.ct_local(id)?,
            host: tables.ct_host()?,
            host_local: tables.ct_local(0)?,
        })
    }

    /// Unassured flows of the interface and of the host, and tracked flows of the interface, as far as this
    /// CPU knows.
    #[inline(always)]
    pub(super) fn unassured(&self) -> (u64, u64, u64) {
        // SAFETY: valid records.
        unsafe {
            (
                known(
                    &raw const (*self.interface).unassured,
                    &raw const (*self.local).unassured,
                ),
                known(
                    &raw const (*self.host).unassured,
                    &raw const (*self.host_local).unassured,
                ),
                known(
                    &raw const (*self.interface).tracked,
                    &raw const (*self.local).tracked,
                ),
            )
        }
    }

    /// Counts a flow that is not assured.
    #[inline(always)]
    pub(super) fn add_unassured(&self, credits: Credits) {
        // SAFETY: valid records.
        unsafe {
            add(
                &raw mut (*self.interface).unassured,
                &raw mut (*self.local).unassured,
                credits.interface,
            );
            add(
                &raw mut (*self.host).unassured,
                &raw mut (*self.host_local).unassured,
                credits.host,
            );
        }
    }

    /// Counts a flow that is assured now, or was counted and not made.
    #[inline(always)]
    pub(super) fn sub_unassured(&self, credits: Credits) {
        // SAFETY: valid records.
        unsafe {
            give(
                &raw mut (*self.interface).unassured,
                &raw mut (*self.local).unassured,
                credits.interface,
            );
            give(
                &raw mut (*self.host).unassured,
                &raw mut (*self.host_local).unassured,
                credits.host,
            );
        }
    }

    /// Charges a flow: to its interface's reserve while there is some, else to the host's shared allowance.
    /// Answers the flags that remember which, or [`NO_CHARGE`].
    #[inline(always)]
    pub(super) fn charge(&self, limits: &Interface, shared: u32, credits: Credits) -> u32 {
        // SAFETY: valid records.
        unsafe {
            let (settled, local) = (
                &raw mut (*self.interface).tracked,
                &raw mut (*self.local).tracked,
            );
            let tracked = take(
                settled,
                local,
                credits.interface,
                u64::from(limits.allowance),
            );
            if tracked == 0 {
                return NO_CHARGE;
            }
            if tracked > atomic::load(&raw const (*self.local).peak) {
                atomic::store(&raw mut (*self.local).peak, tracked);
            }
            let reserved = &raw mut (*self.interface).reserved;
            if limits.reserve != 0 {
                if atomic::fetch_add(reserved, 1) < u64::from(limits.reserve) {
                    let all = atomic::fetch_add(&raw mut (*self.host).reserved, 1) + 1;
                    let others = known(
                        &raw const (*self.host).shared,
                        &raw const (*self.host_local).tracked,
                    );
                    self.peak(all + others);
                    return 0;
                }
                atomic::sub(reserved, 1);
            }
            let all = take(
                &raw mut (*self.host).shared,
                &raw mut (*self.host_local).tracked,
                credits.host,
                u64::from(shared),
            );
            if all == 0 {
                give(settled, local, credits.interface);
                return NO_CHARGE;
            }
            self.peak(all + atomic::load(&raw const (*self.host).reserved));
        }
        u32::from(flag::SHARED)
    }

    /// Remembers the host's highest number of flows.
    #[inline(always)]
    fn peak(&self, all: u64) {
        // SAFETY: valid records.
        unsafe {
            if all > atomic::load(&raw const (*self.host_local).peak) {
                atomic::store(&raw mut (*self.host_local).peak, all);
            }
        }
    }

    /// Takes the charge of a flow back.
    #[inline(always)]
    pub(super) fn discharge(&self, flags: u8, credits: Credits) {
        // SAFETY: valid records.
        unsafe {
            give(
                &raw mut (*self.interface).tracked,
                &raw mut (*self.local).tracked,
                credits.interface,
            );
            if flags & flag::SHARED != 0 {
                give(
                    &raw mut (*self.host).shared,
                    &raw mut (*self.host_local).tracked,
                    credits.host,
                );
            } else {
                atomic::sub(&raw mut (*self.interface).reserved, 1);
                atomic::sub(&raw mut (*self.host).reserved, 1);
            }
        }
    }

    /// Counts a new entry, and how many there are in a second.
    #[inline(always)]
    pub(super) fn created(&self, now: u32, hz: u32) {
        // SAFETY: a valid record of this CPU.
        unsafe {
            let local = &mut *self.local;
            local.created = local.created.wrapping_add(1);
            let elapsed = now.wrapping_sub(local.window as u32);
            if elapsed >= hz {
                local.per_second = if elapsed >= hz.wrapping_mul(2) {
                    0
                } else {
                    local.window_created
                };
                local.window_created = 0;
                local.window = u64::from(now);
            }
            local.window_created = local.window_created.wrapping_add(1);
        }
    }
}

impl Records {
    /// Takes back what [`Records::created`] counted a moment ago.
    #[inline(always)]
    pub(super) fn not_created(&self) {
        // SAFETY: a valid record of this CPU.
        unsafe {
            let local = &mut *self.local;
            local.created = local.created.wrapping_sub(1);
            local.window_created = local.window_created.wrapping_sub(1);
        }
    }
}

/// What [`Records::charge`] answers when there is no room.
pub(super) const NO_CHARGE: u32 = u32::MAX;

/// Flows that this CPU may make or end before it says so.
#[derive(Clone, Copy)]
pub(super) struct Credits {
    pub(super) interface: u32,
    pub(super) host: u32,
}

impl Credits {
    /// Those of an interface; of one that the generation does not know, none.
    #[inline(always)]
    pub(super) fn of<T: Tables>(context: &Context<T>, id: u32) -> Self {
        Self {
            interface: match context.tables.interface(context.bank(), id) {
                Some(interface) => interface.credit,
                None => 0,
            },
            host: context.runtime.credit,
        }
    }
}

/// Takes an entry out of the unassured ones: both sides have answered (once, by whoever set the flag).
#[inline(never)]
pub fn assured<T: Tables>(context: &Context<T>, id: u32) {
    if let Some(records) = Records::of(context.tables, id) {
        records.sub_unassured(Credits::of(context, id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shared figure, and what two CPUs have not yet said.
    struct Figure {
        settled: u64,
        locals: [u64; 2],
    }

    impl Figure {
        fn take(&mut self, cpu: usize, credit: u32, limit: u64) -> u64 {
            // SAFETY: valid words.
            unsafe { take(&mut self.settled, &mut self.locals[cpu], credit, limit) }
        }

        fn give(&mut self, cpu: usize, credit: u32) {
            // SAFETY: valid words.
            unsafe { give(&mut self.settled, &mut self.locals[cpu], credit) }
        }

        fn sum(&self) -> u64 {
            let [first, second] = self.locals;
            self.settled.wrapping_add(first).wrapping_add(second)
        }
    }

    const NONE: Figure = Figure {
        settled: 0,
        locals: [0; 2],
    };

    #[test]
    fn a_cpu_says_what_exceeds_its_credit() {
        let mut figure = NONE;
        let mut settled = std::vec::Vec::new();
        for _ in 0..6 {
            assert_ne!(figure.take(0, 2, 100), 0);
            settled.push(figure.settled);
        }
        assert_eq!(settled, [0, 0, 3, 3, 3, 6]);
        settled.clear();
        for _ in 0..6 {
            figure.give(1, 2);
            settled.push(figure.settled);
        }
        assert_eq!(settled, [6, 6, 3, 3, 3, 0]);
        assert_eq!(figure.sum(), 0);
    }

    #[test]
    fn without_credit_a_limit_is_exact() {
        let mut figure = NONE;
        for n in 0..10 {
            assert_eq!(figure.take(n % 2, 0, 10), n as u64 + 1);
        }
        assert_eq!(figure.take(0, 0, 10), 0);
        assert_eq!((figure.settled, figure.locals), (10, [0; 2]));
        figure.give(1, 0);
        assert_eq!(figure.take(0, 0, 10), 10);
    }

    #[test]
    fn credits_are_all_that_a_limit_may_be_missed_by() {
        const CREDIT: u32 = 4;
        let mut figure = NONE;
        for n in 0..1000 {
            figure.take(n % 2, CREDIT, 100);
        }
        assert!((100..=100 + 2 * u64::from(CREDIT)).contains(&figure.sum()));
        for _ in 0..50 {
            figure.give(0, CREDIT);
        }
        let before = figure.sum();
        let mut more = 0;
        while figure.take(1, CREDIT, 100) != 0 {
            more += 1;
        }
        assert_eq!(figure.sum(), before + more);
        assert!((100..=100 + 2 * u64::from(CREDIT)).contains(&figure.sum()));
    }
}
