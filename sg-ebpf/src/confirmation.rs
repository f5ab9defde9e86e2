//! A generation that is taken back unless somebody confirms it: by a timer of the pinned map, so that no process
//! need be alive.
//!
//! Taking back is a change like any other: the *next* generation, whose bank is the one that was in force before,
//! and which nobody has written since. Entries judged or made meanwhile are judged once again, by that bank. All
//! this happens before the one store that puts it in force: limits, what a new generation says about the one before
//! it (`RUNTIME`), and in the records of interfaces since when flows are asked again. An interface that the
//! generation before did not know passes everything, counted: so it was before.
//!
//! One word says what is to be done, and moves by compare-and-exchange: who confirms and the timer cannot both win.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_jiffies64, bpf_ktime_get_boot_ns, bpf_loop, bpf_timer_init, bpf_timer_set_callback,
    bpf_timer_start,
};
use sg_common::{
    abi::MAX_INTERFACES,
    atomic,
    layout::{CtCommand, Limits, ct_op, interface_flags, phase},
};

use crate::maps::{self, Await};

/// Nanoseconds that a generation may wait: a day.
const LONGEST: u64 = 86_400_000_000_000;

#[inline(always)]
fn word(generation: u32, phase: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(phase)
}

/// [`Limits`] of a command.
#[inline(always)]
fn limits(command: *const CtCommand) -> Limits {
    // SAFETY: the command lies in the packet, checked by `control::run`.
    unsafe {
        let words = (&raw const (*command).remote).cast::<u32>();
        Limits {
            allowance: *words,
            shared: *words.add(1),
            unassured: *words.add(2),
            credit: *words.add(3),
        }
    }
}

/// AWAIT.
#[inline(always)]
pub fn begin(command: *const CtCommand) -> u32 {
    let Some(confirmation) = maps::CONFIRMATION.get_ptr_mut(0) else {
        return ct_op::INVALID;
    };
    // SAFETY: the command lies in the packet, checked by `control::run`.
    let (generation, time) = unsafe {
        let local = (&raw const (*command).local).cast::<u32>();
        let time = u64::from(*local) | u64::from(*local.add(1)) << 32;
        ((*command).argument, time)
    };
    if time > LONGEST {
        return ct_op::INVALID;
    }
    const CLOCK_BOOTTIME: u64 = 7;
    // SAFETY: a value of this map. EBUSY from the first call means that the timer exists already.
    unsafe {
        let state = &raw mut (*confirmation).word;
        let before = atomic::load(state);
        if before == word(generation, phase::TAKEN_BACK)
            || before == word(generation, phase::LEAVING)
        {
            return ct_op::LATE;
        }
        let timer = &raw mut (*confirmation).timer;
        bpf_timer_init(
            timer,
            (&raw const maps::CONFIRMATION).cast_mut().cast(),
            CLOCK_BOOTTIME,
        );
        if bpf_timer_set_callback(timer, over as *mut c_void) != 0 {
            return ct_op::INVALID;
        }
        (*confirmation).limits = limits(command);
        let deadline = bpf_ktime_get_boot_ns().wrapping_add(time);
        atomic::store(&raw mut (*confirmation).deadline, deadline);
        if !atomic::compare_exchange(state, before, word(generation, phase::PENDING)) {
            return ct_op::LATE;
        }
        if bpf_timer_start(timer, time, 0) != 0 {
            atomic::compare_exchange(state, word(generation, phase::PENDING), before);
            return ct_op::INVALID;
        }
    }
    ct_op::OK
}

/// CONFIRM. The timer still fires, and finds nothing to do.
#[inline(always)]
pub fn confirm(command: *const CtCommand) -> u32 {
    let Some(confirmation) = maps::CONFIRMATION.get_ptr_mut(0) else {
        return ct_op::INVALID;
    };
    // SAFETY: the command lies in the packet, checked by `control::run`.
    let generation = unsafe { (*command).argument };
    // SAFETY: a value of this map; an aligned word.
    unsafe {
        let state = &raw mut (*confirmation).word;
        let (pending, confirmed) = (
            word(generation, phase::PENDING),
            word(generation, phase::CONFIRMED),
        );
        // Armed, but not yet put in force: there is nothing to confirm.
        if generation_in_force() == generation
            && atomic::compare_exchange(state, pending, confirmed)
        {
            return ct_op::OK;
        }
        let now = atomic::load(state);
        if now == word(generation, phase::TAKEN_BACK) || now == word(generation, phase::LEAVING) {
            ct_op::LATE
        } else {
            ct_op::MISSING
        }
    }
}

/// TAKE_BACK, with or without a timer.
#[inline(always)]
pub fn take_back_now(command: *const CtCommand) -> u32 {
    let Some(confirmation) = maps::CONFIRMATION.get_ptr_mut(0) else {
        return ct_op::INVALID;
    };
    // SAFETY: the command lies in the packet, checked by `control::run`.
    let (generation, failed) = unsafe { ((*command).argument, (*command).count) };
    // SAFETY: a value of this map.
    unsafe {
        let before = atomic::load(&raw const (*confirmation).word);
        let pending = before == word(generation, phase::PENDING);
        if before as u32 == phase::LEAVING
            || (before as u32 == phase::PENDING && !pending)
            || (!pending && generation_in_force() != generation)
        {
            return ct_op::MISSING;
        }
        if !pending {
            (*confirmation).limits = limits(command);
        }
        take_back(confirmation, before, generation, failed & 1);
    }
    ct_op::OK
}

/// The time is over.
unsafe extern "C" fn over(_map: *mut c_void, _key: *mut u32, confirmation: *mut Await) -> i32 {
    // SAFETY: the value whose timer fired.
    unsafe {
        let before = atomic::load(&raw const (*confirmation).word);
        if before as u32 != phase::PENDING {
            return 0;
        }
        // It may have begun anew while this was on its way.
        let deadline = atomic::load(&raw const (*confirmation).deadline);
        let left = deadline.wrapping_sub(bpf_ktime_get_boot_ns());
        if left != 0 && left <= LONGEST {
            bpf_timer_start(&raw mut (*confirmation).timer, left, 0);
            return 0;
        }
        take_back(confirmation, before, (before >> 32) as u32, 0);
    }
    0
}

#[inline(always)]
fn generation_in_force() -> u32 {
    match maps::GENERATION.get_ptr(0) {
        // SAFETY: a valid map value.
        Some(generation) => unsafe { core::ptr::read_volatile(generation) },
        None => 0,
    }
}

/// What is carried from one record to the next.
#[repr(C)]
struct Leaving {
    generation: u32,
    failed: u32,
}

/// Takes `generation` back if the word still says `before`. One that never came into force leaves its limits
/// behind, and these go.
///
/// # Safety
/// `confirmation` is the value of the map.
#[inline(always)]
unsafe fn take_back(confirmation: *mut Await, before: u64, generation: u32, failed: u32) {
    // SAFETY: the caller's promise; aligned words.
    unsafe {
        let state = &raw mut (*confirmation).word;
        let leaving = word(generation, phase::LEAVING);
        if !atomic::compare_exchange(state, before, leaving) {
            return;
        }
        let mut after = phase::NONE;
        if let Some(runtime) = maps::RUNTIME.get_ptr_mut(0)
            && let Some(in_force) = maps::GENERATION.get_ptr_mut(0)
        {
            let limits = (*confirmation).limits;
            atomic::store(&raw mut (*runtime).allowance, limits.allowance);
            atomic::store(&raw mut (*runtime).shared, limits.shared);
            atomic::store(&raw mut (*runtime).unassured, limits.unassured);
            atomic::store(&raw mut (*runtime).credit, limits.credit);
            if atomic::load(in_force) == generation {
                let mut leaving = Leaving { generation, failed };
                bpf_loop(
                    MAX_INTERFACES,
                    record as *mut c_void,
                    (&raw mut leaving).cast::<c_void>(),
                    0,
                );
                // Until the store below nobody is handed over: the generation in force has no predecessor now.
                atomic::store(&raw mut (*runtime).previous, generation);
                atomic::store(&raw mut (*runtime).changed, bpf_jiffies64());
                let counted = u64::from(failed == 0);
                if counted != 0 {
                    let now = bpf_ktime_get_boot_ns();
                    atomic::store(&raw mut (*confirmation).taken_back_at, now);
                }
                // An exchange with a result: all of the above is visible before the generation is.
                atomic::fetch_add(&raw mut (*confirmation).taken_back, counted);
                atomic::store(in_force, generation.wrapping_add(1));
                after = phase::TAKEN_BACK + failed;
            }
        }
        atomic::compare_exchange(state, leaving, word(generation, after));
    }
}

/// Makes one record of the bank before what the next generation is to find there.
unsafe extern "C" fn record(id: u32, leaving: *mut c_void) -> i64 {
    let leaving = leaving.cast::<Leaving>();
    // SAFETY: the context that `bpf_loop` was given.
    let (generation, failed) = unsafe { ((*leaving).generation, (*leaving).failed) };
    let bank = generation & 1;
    let (Some(now), Some(then)) = (
        maps::INTERFACES.get_ptr_mut(bank * MAX_INTERFACES + id),
        maps::INTERFACES.get_ptr_mut((bank ^ 1) * MAX_INTERFACES + id),
    ) else {
        return 0;
    };
    const PRESENT: u32 = interface_flags::PRESENT;
    // SAFETY: values of the map; aligned words.
    unsafe {
        let (now_flags, then_flags) = (
            atomic::load(&raw const (*now).flags),
            atomic::load(&raw const (*then).flags),
        );
        if now_flags & PRESENT == 0 {
            return 0;
        }
        if then_flags & PRESENT == 0 {
            let flags = interface_flags::UNCONFIRMED | (now_flags & interface_flags::HOST);
            atomic::store(&raw mut (*then).flags, flags);
        } else if failed == 0 {
            let since = if (now_flags | then_flags) & interface_flags::REEVALUATE != 0 {
                generation.wrapping_add(1)
            } else {
                atomic::load(&raw const (*now).reevaluate_from)
            };
            atomic::store(&raw mut (*then).reevaluate_from, since);
        }
    }
    0
}
