//! What the kernel programs are measured with and against; never part of sgctl.
//!
//! A wrapper writes the next packet of a [`Pattern`] into the frame and jumps to the program under
//! test, so that caches behave as under real traffic. The other programs are floors: what a program
//! costs that does less than enforcing.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

mod floor;
mod generator;
mod pattern;
mod traffic;

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, ProgramArray},
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};

use pattern::{Pattern, prefix4, prefix6, rule_port};

#[btf_map]
static PATTERN: Array<Pattern, 1> = Array::new();
#[btf_map]
static NEXT_XDP: ProgramArray<1> = ProgramArray::new();
#[btf_map]
static NEXT_TC: ProgramArray<1> = ProgramArray::new();

/// Writes the next packet and hands it to the program under test.
#[xdp(frags)]
pub fn xdp_wrapper(ctx: XdpContext) -> u32 {
    if next(ctx.data(), ctx.data_end()).is_some() {
        // SAFETY: a map of programs of this kind; without one control returns here.
        unsafe { NEXT_XDP.tail_call(&ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// The same at TC.
#[classifier]
pub fn tc_wrapper(ctx: TcContext) -> i32 {
    if next(ctx.data(), ctx.data_end()).is_some() {
        // SAFETY: as above.
        unsafe { NEXT_TC.tail_call(&ctx, 0) };
    }
    FAILED
}

/// What no program under test answers at TC.
const FAILED: i32 = 99;

#[inline(always)]
fn next(start: usize, end: usize) -> Option<()> {
    // SAFETY: the map has one value; runs do not overlap.
    let pattern = unsafe { &mut *PATTERN.get_ptr_mut(0)? };
    let mut state = pattern.state;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    pattern.state = state;
    let (high, low) = ((state >> 32) as u32, state as u32);
    let number = if pattern.sequential != 0 {
        let number = pattern.counter;
        pattern.counter = number.wrapping_add(1);
        number
    } else {
        share(high, pattern.count)
    };
    let bits = pattern.port_bits & 31;
    let port = pattern.port + (number & ((1 << bits) - 1));
    write16(start, end, pattern.port_at, port as u16)?;
    if pattern.prefixes == 0 {
        let offset = match pattern.addresses {
            0 => number >> bits,
            addresses => share(low, addresses),
        };
        let address = pattern.address.wrapping_add(offset);
        return write32(start, end, pattern.address_at, address);
    }
    let prefix = share(low, pattern.prefixes);
    let at = pattern.address_at;
    if pattern.ipv6 == 0 {
        let (network, length) = prefix4(prefix);
        write32(start, end, at, network | (high & (u32::MAX >> length)))?;
    } else {
        let (network, length) = prefix6(prefix);
        let upper = network | (state & (u64::MAX >> length));
        write32(start, end, at, (upper >> 32) as u32)?;
        write32(start, end, at + 4, upper as u32)?;
        write32(start, end, at + 12, high)?;
    }
    let port = rule_port(share(low, pattern.rules));
    write16(start, end, pattern.rule_port_at, port as u16)
}

/// A number below `count`, in proportion to a 32-bit one.
#[inline(always)]
fn share(random: u32, count: u32) -> u32 {
    ((u64::from(random) * u64::from(count)) >> 32) as u32
}

/// Highest offset that is written to; the verifier needs a bound it can see.
const FARTHEST: usize = 255;

#[inline(always)]
fn write32(start: usize, end: usize, at: u32, value: u32) -> Option<()> {
    let at = at as usize;
    if at == 0 {
        return Some(());
    }
    if at > FARTHEST || start + at + 4 > end {
        return None;
    }
    // SAFETY: checked to be within the packet.
    unsafe { *((start + at) as *mut u32) = value.to_be() };
    Some(())
}

#[inline(always)]
fn write16(start: usize, end: usize, at: u32, value: u16) -> Option<()> {
    let at = at as usize;
    if at == 0 {
        return Some(());
    }
    if at > FARTHEST || start + at + 2 > end {
        return None;
    }
    // SAFETY: checked to be within the packet.
    unsafe { *((start + at) as *mut u16) = value.to_be() };
    Some(())
}

/// A reachable panic must be refused by the verifier, never run.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
