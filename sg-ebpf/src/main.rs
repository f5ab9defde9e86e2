//! Entry points: one frame in, one action out. Everything decided is decided in `sg-common`.
//!
//! On any other target than BPF this is an empty program, so that `cargo check` and clippy work on
//! the host without a BPF toolchain.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

mod confirmation;
mod control;
mod frame;
mod maps;
mod restore;
mod tables;

use aya_ebpf::{
    Global,
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use sg_common::{
    abi::stage,
    pipeline::{self, Arrival, Meeting, Outcome},
    verdict::OUTCOMES,
};

use crate::{frame::Packet, tables::Kernel};

/// Hands a packet to the program that goes on with it. A place for each: the kernel makes a tail call with an
/// index that it knows a jump, and any other an indirect one, which costs as much as a lookup where those
/// are not trusted. What follows each call keeps the compiler from making one of them.
macro_rules! hand_on {
    ($stages:expr, $ctx:expr, $outcome:expr) => {
        // SAFETY: the scratch says where to go on; the instructions after the calls change nothing.
        unsafe {
            match $outcome.next() {
                stage::GENERAL => {
                    $stages.tail_call($ctx, stage::GENERAL);
                    keep_apart!("{v} += 0");
                }
                stage::MISS => {
                    $stages.tail_call($ctx, stage::MISS);
                    keep_apart!("{v} |= 0");
                }
                _ => {
                    $stages.tail_call($ctx, stage::LATER);
                    keep_apart!("{v} ^= 0");
                }
            }
        }
    };
}

/// An instruction that the compiler knows nothing of.
macro_rules! keep_apart {
    ($instruction:literal) => {
        #[cfg(target_arch = "bpf")]
        core::arch::asm!($instruction, v = inout(reg) 0_u64 => _)
    };
}

/// Number of the network namespace this program set is loaded for.
#[unsafe(no_mangle)]
static NAMESPACE: Global<u32> = Global::new(0);

/// 1: packets and bytes are kept per flow. The verifier knows the value, so what it rules out is not
/// even there.
#[unsafe(no_mangle)]
static ACCOUNTING: Global<u32> = Global::new(0);

/// Ingress of an interface at XDP, frames of several buffers included.
#[xdp(frags)]
pub fn xdp_ingress(ctx: XdpContext) -> u32 {
    // SAFETY: the kernel hands a valid context.
    let ifindex = unsafe { (*ctx.ctx).ingress_ifindex };
    let meeting = Meeting {
        id: maps::interface_id(NAMESPACE.load(), ifindex),
        hook_ingress: true,
        packets: 1,
    };
    let frame = || Packet::first_buffer(&ctx);
    let outcome = pipeline::judge(&Kernel, meeting, frame, maps::scratch);
    next_xdp(&ctx, outcome)
}

/// [`pipeline::general`] for [`xdp_ingress`]. Programs of their own, because a tail call costs less than a call
/// and leaves each the whole stack.
#[xdp(frags)]
pub fn xdp_general(ctx: XdpContext) -> u32 {
    let packet = Packet::from_xdp(&ctx);
    let Some(scratch) = maps::scratch() else {
        return xdp_action::XDP_DROP;
    };
    let arrival = Arrival {
        bytes: packet.len,
        ..pipeline::arrival(scratch)
    };
    let outcome = pipeline::general(&Kernel, &packet, &arrival, scratch);
    next_xdp(&ctx, outcome)
}

/// [`pipeline::miss`] for [`xdp_ingress`].
#[xdp(frags)]
pub fn xdp_miss(ctx: XdpContext) -> u32 {
    match maps::scratch() {
        Some(scratch) => next_xdp(&ctx, pipeline::miss(&Kernel, scratch)),
        None => xdp_action::XDP_DROP,
    }
}

/// [`pipeline::later`] for [`xdp_ingress`].
#[xdp(frags)]
pub fn xdp_later(ctx: XdpContext) -> u32 {
    match maps::scratch() {
        Some(scratch) => xdp_action(&ctx, pipeline::later(&Kernel, scratch)),
        None => xdp_action::XDP_DROP,
    }
}

/// Hands a packet that is not decided to the next program.
#[inline(always)]
fn next_xdp(ctx: &XdpContext, mut outcome: Outcome) -> u32 {
    if !outcome.decided() {
        hand_on!(maps::STAGES_XDP, ctx, outcome);
        outcome = lost();
    }
    xdp_action(ctx, outcome)
}

/// A packet that was not handed on.
#[inline(always)]
fn lost() -> Outcome {
    match maps::scratch() {
        Some(scratch) => pipeline::lost(&Kernel, &pipeline::arrival(scratch)),
        None => Outcome::from_raw(OUTCOMES as u32 - 1),
    }
}

#[inline(always)]
fn xdp_action(ctx: &XdpContext, outcome: Outcome) -> u32 {
    if outcome.passes() {
        xdp_action::XDP_PASS
    } else {
        if tables::left_to_predecessor(outcome.index()) {
            // SAFETY: of the same type; where there is none, the packet is dropped.
            unsafe {
                maps::PREDECESSOR_XDP.tail_call(ctx, 0);
            }
        }
        // SAFETY: the kernel hands a valid context.
        debug_drop!(ctx, unsafe { (*ctx.ctx).ingress_ifindex }, outcome);
        xdp_action::XDP_DROP
    }
}

/// Ingress of an interface at TC.
#[classifier]
pub fn tc_ingress(ctx: TcContext) -> i32 {
    judge_skb(&ctx, true)
}

/// Egress of an interface at TC.
#[classifier]
pub fn tc_egress(ctx: TcContext) -> i32 {
    judge_skb(&ctx, false)
}

#[inline(always)]
fn judge_skb(ctx: &TcContext, hook_ingress: bool) -> i32 {
    // SAFETY: the kernel hands a valid context.
    let (ifindex, segments) = unsafe { ((*ctx.skb.skb).ifindex, (*ctx.skb.skb).gso_segs) };
    let meeting = Meeting {
        id: maps::interface_id(NAMESPACE.load(), ifindex),
        hook_ingress,
        packets: if segments == 0 { 1 } else { segments },
    };
    let frame = || Packet::linear(ctx);
    let outcome = pipeline::judge(&Kernel, meeting, frame, maps::scratch);
    next_tc(ctx, outcome)
}

/// [`pipeline::general`] for [`tc_ingress`] and [`tc_egress`].
#[classifier]
pub fn tc_general(ctx: TcContext) -> i32 {
    let packet = Packet::from_skb(&ctx);
    let Some(scratch) = maps::scratch() else {
        return TC_ACT_SHOT;
    };
    let arrival = pipeline::arrival(scratch);
    let outcome = pipeline::general(&Kernel, &packet, &arrival, scratch);
    next_tc(&ctx, outcome)
}

/// [`pipeline::miss`] for [`tc_ingress`] and [`tc_egress`].
#[classifier]
pub fn tc_miss(ctx: TcContext) -> i32 {
    match maps::scratch() {
        Some(scratch) => next_tc(&ctx, pipeline::miss(&Kernel, scratch)),
        None => TC_ACT_SHOT,
    }
}

/// [`pipeline::later`] for [`tc_ingress`] and [`tc_egress`].
#[classifier]
pub fn tc_later(ctx: TcContext) -> i32 {
    match maps::scratch() {
        Some(scratch) => tc_action(&ctx, pipeline::later(&Kernel, scratch)),
        None => TC_ACT_SHOT,
    }
}

/// As [`next_xdp`].
#[inline(always)]
fn next_tc(ctx: &TcContext, mut outcome: Outcome) -> i32 {
    if !outcome.decided() {
        hand_on!(maps::STAGES_TC, ctx, outcome);
        outcome = lost();
    }
    tc_action(ctx, outcome)
}

/// A passing packet goes on to the next program of the chain (TCX_NEXT has TC_ACT_UNSPEC's value).
#[inline(always)]
fn tc_action(ctx: &TcContext, outcome: Outcome) -> i32 {
    if outcome.passes() {
        TC_ACT_UNSPEC
    } else {
        if tables::left_to_predecessor(outcome.index())
            && let Some(scratch) = maps::scratch()
        {
            let hook = u32::from(pipeline::arrival(scratch).hook_ingress);
            // SAFETY: as in `xdp_action`.
            unsafe {
                maps::PREDECESSOR_TC.tail_call(ctx, hook);
            }
        }
        // SAFETY: the kernel hands a valid context.
        debug_drop!(ctx, unsafe { (*ctx.skb.skb).ifindex }, outcome);
        TC_ACT_SHOT
    }
}

/// Commands on the conntrack table, run by BPF_PROG_TEST_RUN.
#[classifier]
pub fn ct_control(ctx: TcContext) -> i32 {
    control::run(&ctx) as i32
}

/// More commands, for a change of layouts: a program of their own, since they are seldom needed.
#[classifier]
pub fn ct_restore(ctx: TcContext) -> i32 {
    restore::run(&ctx) as i32
}

/// Logs a dropped packet in debug builds of the object.
#[macro_export]
macro_rules! debug_drop {
    ($ctx:expr, $ifindex:expr, $outcome:expr) => {
        #[cfg(feature = "log")]
        aya_log_ebpf::debug!(
            $ctx,
            "ifindex {}: dropped, outcome {}",
            $ifindex,
            $outcome.index()
        );
        #[cfg(not(feature = "log"))]
        let _ = ($ctx, $ifindex, $outcome);
    };
}

/// A reachable panic must be refused by the verifier ("last insn is not an exit or jmp"), never run.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// Some helpers are for GPL-compatible programs only; the licence is the user's choice of two.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
