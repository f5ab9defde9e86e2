//! A generator of packets, run by BPF_PROG_TEST_RUN with live frames: each run makes of one frame the
//! next packet of a [`Stream`] and sends it.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, xdp_action},
    btf_maps::{Array, PerCpuArray},
    helpers::bpf_ktime_get_ns,
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};

use crate::traffic::{self, HEADER_WORDS, MAX_PAUSE, Stream};

/// The stream that is being sent; one generator runs at a time.
#[btf_map]
pub static STREAM: Array<Stream, 1> = Array::new();

/// Packets that came as far as [`tc_sink`].
#[btf_map]
pub static ARRIVED: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Sends the next packet: out of the device that the frame says it came by, or up from it if it is a reply.
#[xdp]
pub fn generate(ctx: XdpContext) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + 8 * HEADER_WORDS > end {
        return xdp_action::XDP_ABORTED;
    }
    let Some(stream) = STREAM.get_ptr_mut(0) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: one generator runs at a time, and nothing else writes while it does.
    let stream = unsafe { &mut *stream };
    for reading in 0..MAX_PAUSE {
        if reading == stream.pause {
            break;
        }
        // SAFETY: the helper takes nothing and has no effect.
        unsafe { bpf_ktime_get_ns() };
    }
    let flow = traffic::next(stream);
    let (address, port) = traffic::remote(stream, flow);
    let checksum = traffic::checksum(stream, address);
    let (address_at, port_at) = if stream.reply == 0 {
        (26, 34)
    } else {
        (30, 36)
    };
    // Frames are used again as the stack left them: all headers are written every time.
    for (place, word) in stream.headers.iter().enumerate() {
        // SAFETY: the frame holds so many words, and begins at a multiple of 8 bytes, as
        // BPF_PROG_TEST_RUN lays it out.
        unsafe { *((start + 8 * place) as *mut u64) = *word };
    }
    write(start + 24, checksum);
    write(start + address_at, (address >> 16) as u16);
    write(start + address_at + 2, address as u16);
    write(start + port_at, port);
    if stream.reply == 0 {
        xdp_action::XDP_TX
    } else {
        xdp_action::XDP_PASS
    }
}

/// Writes a value in network byte order to an even place within the headers.
#[inline(always)]
fn write(place: usize, value: u16) {
    // SAFETY: see the only caller.
    unsafe { *(place as *mut u16) = value.to_be() };
}

/// Drops everything: the floor of what is dropped at XDP.
#[xdp(frags)]
pub fn xdp_discard(_: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Counts and drops: the end of what a firewall let pass.
#[classifier]
pub fn tc_sink(_: TcContext) -> i32 {
    if let Some(arrived) = ARRIVED.get_ptr_mut(0) {
        // SAFETY: nothing else on this CPU writes while the program runs.
        unsafe { *arrived += 1 };
    }
    TC_ACT_SHOT
}
