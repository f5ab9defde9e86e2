//! Commands on the conntrack table, and the timer that sweeps it.
//!
//! Userspace never writes entries: it asks this program, which uses the packet path's own protocol.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{bpf_loop, bpf_timer_init, bpf_timer_set_callback, bpf_timer_start},
    programs::TcContext,
};
use sg_common::{
    conntrack::{self, Segment, Side, flag, tcp},
    family::{Family, Flow, V4, V6},
    layout::{CtCommand, ct_op},
    table::{self, FreeEntry, Inserted, Removal},
    tables::Tables,
    wire::ETHERNET,
};

use crate::{
    confirmation,
    maps::{self, Sweep},
    tables::{Kernel, context, sg_flush, sg_review},
};

/// Runs the command behind the Ethernet header and answers as [`ct_op`] says.
#[inline(always)]
pub fn run(ctx: &TcContext) -> u32 {
    let start = ctx.data();
    let end = ctx.data_end();
    if start + ETHERNET + size_of::<CtCommand>() > end {
        return ct_op::INVALID;
    }
    let command = (start + ETHERNET) as *const CtCommand;
    // SAFETY: the command lies in the packet, checked above.
    let op = unsafe { (*command).op };
    match op {
        ct_op::CLOCK => clock(command),
        ct_op::ARM => arm(),
        ct_op::AWAIT => confirmation::begin(command),
        ct_op::CONFIRM => confirmation::confirm(command),
        ct_op::TAKE_BACK => confirmation::take_back_now(command),
        ct_op::INSERT | ct_op::DELETE => {
            // SAFETY: as above.
            let ipv6 = match unsafe { (*command).family } {
                4 => false,
                6 => true,
                _ => return ct_op::INVALID,
            };
            let mut found = Found {
                hash: 0,
                entry: FreeEntry {
                    meta: 0,
                    index: 0,
                    what: 0,
                },
            };
            let answer = if ipv6 {
                flow_command::<V6>(command, op, &mut found)
            } else {
                flow_command::<V4>(command, op, &mut found)
            };
            if answer == ct_op::FULL {
                Kernel.reclaim_beside(ipv6, found.hash);
            }
            if op == ct_op::DELETE && answer == ct_op::OK && !Kernel.free(ipv6, found.entry) {
                return ct_op::MISSING;
            }
            answer
        }
        ct_op::SWEEP | ct_op::FLUSH | ct_op::REVIEW => {
            // SAFETY: as above.
            let (family, argument, count, interface) = unsafe {
                (
                    (*command).family,
                    (*command).argument,
                    (*command).count,
                    (*command).interface,
                )
            };
            if count > ct_op::MAX_BUCKETS || !matches!(family, 4 | 6) {
                return ct_op::INVALID;
            }
            walk(family == 6, op, argument, count, interface)
        }
        _ => ct_op::INVALID,
    }
}

/// A part of jiffies: the answer's own highest bit marks refusals.
#[inline(always)]
fn clock(command: *const CtCommand) -> u32 {
    // SAFETY: the command lies in the packet, checked by `run`.
    let part = unsafe { (*command).argument };
    let shift = if part < 3 { part * 31 } else { 0 };
    (Kernel.jiffies() >> shift) as u32 & (u32::MAX >> 1)
}

/// Addresses as they stand in a command.
pub trait CommandFamily: Family {
    fn read(bytes: *const [u8; 16]) -> Self::Address;
}

impl CommandFamily for V4 {
    #[inline(always)]
    fn read(bytes: *const [u8; 16]) -> u32 {
        // SAFETY: the command lies in the packet, checked by `run`.
        unsafe { *bytes.cast::<u32>() }
    }
}

impl CommandFamily for V6 {
    #[inline(always)]
    fn read(bytes: *const [u8; 16]) -> [u32; 4] {
        let words = bytes.cast::<u32>();
        // SAFETY: the command lies in the packet, checked by `run`.
        unsafe { [*words, *words.add(1), *words.add(2), *words.add(3)] }
    }
}

/// What [`flow_command`] leaves to its caller, whose stack is less deep.
struct Found {
    hash: u64,
    entry: FreeEntry,
}

/// INSERT, and the first half of DELETE.
#[inline(never)]
fn flow_command<F: CommandFamily>(command: *const CtCommand, op: u32, found: &mut Found) -> u32 {
    let Some(context) = context() else {
        return ct_op::INVALID;
    };
    // SAFETY: the command lies in the packet, checked by `run`.
    let (interface, protocol, local_port, remote_port, argument) = unsafe {
        (
            (*command).interface,
            (*command).protocol,
            (*command).local_port,
            (*command).remote_port,
            (*command).argument,
        )
    };
    let (opener_local, last) = (argument & 1 != 0, argument & 2 != 0);
    let ports = if protocol == u32::from(F::ICMP) {
        u32::from(local_port) << 16 | u32::from(opener_local)
    } else {
        u32::from(local_port) << 16 | u32::from(remote_port)
    };
    let flow = Flow {
        owner: interface << 8 | (protocol & 0xff),
        ports,
        // SAFETY: as above.
        local: F::read(unsafe { &raw const (*command).local }),
        // SAFETY: as above.
        remote: F::read(unsafe { &raw const (*command).remote }),
    };
    // No packet has such addresses, and the short way relies on that.
    let answers = protocol != 6 || F::source_possible(&flow.remote, protocol as u8);
    let possible = answers
        && F::destination_possible(&flow.remote)
        && F::destination_possible(&flow.local)
        && flow.local != flow.remote;
    if op == ct_op::INSERT && !possible {
        return ct_op::IMPOSSIBLE;
    }
    let hash = F::hash(&flow, &context.runtime.seed);
    found.hash = hash;
    if op == ct_op::DELETE {
        return match table::lookup::<Kernel, F>(&context, hash, &flow) {
            Some(entry) => {
                found.entry = entry.removal(Removal::Removed);
                ct_op::OK
            }
            None => ct_op::MISSING,
        };
    }
    let Some(limits) = Kernel.interface(context.bank(), interface) else {
        return ct_op::INVALID;
    };
    let side = if opener_local {
        Side::Local
    } else {
        Side::Remote
    };
    // A TCP flow starts as established; whoever asks has seen both sides.
    let segment = Segment {
        flags: tcp::ACK,
        ..Segment::default()
    };
    let mut opening = conntrack::open(protocol as u8, F::ICMP, side, side, segment, context.now);
    opening.flags |= flag::ADOPTED | flag::ASSURED;
    match table::insert::<Kernel, F>(&context, limits, hash, &flow, &opening, last) {
        Inserted::Made => ct_op::OK,
        Inserted::Exists => ct_op::EXISTS,
        Inserted::Full => ct_op::FULL,
    }
}

/// What a walk over buckets carries from one to the next: numbers only, so that the verifier need
/// not follow pointers through the loop.
#[repr(C)]
struct Walk {
    /// SWEEP, FLUSH or REVIEW.
    op: u32,
    start: u32,
    ipv6: u32,
    /// FLUSH: of which interface.
    interface: u32,
    freed: u32,
}

/// Visits `count` buckets from `start` on, wrapping; answers how many entries went.
#[inline(always)]
fn walk(ipv6: bool, op: u32, start: u32, count: u32, interface: u32) -> u32 {
    let mut walk = Walk {
        op,
        start,
        ipv6: u32::from(ipv6),
        interface,
        freed: 0,
    };
    // SAFETY: the callback has the signature that the helper calls, and the context outlives it.
    unsafe {
        bpf_loop(
            count,
            visit as *mut c_void,
            (&raw mut walk).cast::<c_void>(),
            0,
        );
    }
    walk.freed
}

/// One bucket of both tables, the draining one included.
unsafe extern "C" fn visit(step: u32, walk: *mut c_void) -> i64 {
    let walk = walk.cast::<Walk>();
    // SAFETY: `walk` is the context that `bpf_loop` was given.
    let (op, start) = unsafe { ((*walk).op, (*walk).start) };
    // SAFETY: as above.
    let (ipv6, interface) = unsafe { ((*walk).ipv6, (*walk).interface) };
    let Some(context) = context() else {
        return 1;
    };
    let family = (ipv6 & 1) as usize;
    let mut freed = 0;
    for old in [false, true] {
        let buckets = if old {
            &context.runtime.old_buckets
        } else {
            &context.runtime.buckets
        };
        let buckets = buckets[family];
        let all = table::with_stash(buckets);
        if buckets == 0 || all == 0 {
            continue;
        }
        let index = start.wrapping_add(step) % all;
        freed += match op {
            ct_op::SWEEP => Kernel.reclaim(ipv6 != 0, old, index),
            ct_op::FLUSH => sg_flush(ipv6, u32::from(old), index, interface),
            _ => sg_review(ipv6, u32::from(old), index),
        };
    }
    // SAFETY: as above.
    unsafe { (*walk).freed += freed };
    0
}

/// Nanoseconds between two steps of the sweep.
const SWEEP_INTERVAL: u64 = 100_000_000;
/// Steps that one pass over a small table takes: ten seconds.
const SWEEP_STEPS: u32 = 100;

/// Starts the timer. It belongs to the pinned map, so it runs with no process alive.
#[inline(always)]
fn arm() -> u32 {
    let Some(sweep) = maps::SWEEPER.get_ptr_mut(0) else {
        return ct_op::INVALID;
    };
    const CLOCK_MONOTONIC: u64 = 1;
    // SAFETY: a timer of this map. EBUSY from the first call means that it exists already.
    unsafe {
        let timer = &raw mut (*sweep).timer;
        bpf_timer_init(
            timer,
            (&raw const maps::SWEEPER).cast_mut().cast(),
            CLOCK_MONOTONIC,
        );
        if bpf_timer_set_callback(timer, sweep_step as *mut c_void) != 0 {
            return ct_op::INVALID;
        }
        if bpf_timer_start(timer, SWEEP_INTERVAL, 0) != 0 {
            return ct_op::INVALID;
        }
    }
    ct_op::OK
}

/// One step of the sweep, in softirq: bounded, then it sets its timer again.
unsafe extern "C" fn sweep_step(_map: *mut c_void, _key: *mut u32, sweep: *mut Sweep) -> i32 {
    if let Some(runtime) = maps::RUNTIME.get(0) {
        for family in 0..2_usize {
            let buckets = table::with_stash(runtime.buckets[family]);
            let wanted = buckets / SWEEP_STEPS + 1;
            let count = if wanted < ct_op::MAX_BUCKETS {
                wanted
            } else {
                ct_op::MAX_BUCKETS
            };
            // SAFETY: the value whose timer fired.
            unsafe {
                let cursor = (&raw mut (*sweep).cursor).cast::<u32>().add(family & 1);
                let start = core::ptr::read_volatile(cursor);
                walk(family == 1, ct_op::SWEEP, start, count, 0);
                let next = start.wrapping_add(count);
                if next < buckets {
                    core::ptr::write_volatile(cursor, next);
                } else {
                    core::ptr::write_volatile(cursor, 0);
                    (*sweep).passes += u64::from(family == 1);
                }
            }
        }
    }
    // SAFETY: as above.
    unsafe { bpf_timer_start(&raw mut (*sweep).timer, SWEEP_INTERVAL, 0) };
    0
}
